//! A store that was restored: its mark, and what is settled; and keys that are rotated.

use coffer_core::event::Event;
use coffer_core::flavor::{Flavor, VolumeType};
use coffer_core::id::{
    EndpointId, InstanceId, NetworkId, ProjectKeyId, SecretId, ServerId, SetId, VolumeId,
};
use coffer_core::instance::{Fault, Instance, Lifecycle};
use coffer_core::network::Network;
use coffer_core::quota::Amount;
use coffer_core::replication::{Endpoint, ReplicationSet};
use coffer_core::server::{Server, Volume};
use coffer_core::task::TaskState;
use coffer_core::tenant::{Tenant, Token};
use coffer_core::units::{IoLimits, Iops, Turn};
use coffer_store::StoreError;
use coffer_store::instance::{InstanceGraph, SpecChange};
use coffer_store::restored::{Adopted, Confirmed, Settled};
use coffer_store::secret::{ProjectKey, StoredSecret};

use super::world::{World, at, event, flavor, id, name, task, tenant, tenant_id};
use crate::fixture::Fixture;

pub(crate) async fn a_mark_stays_until_it_is_settled(fixture: &Fixture) {
    let [store, other] = [&fixture.stores[0], &fixture.stores[1]];
    assert!(!store.is_restored().await.unwrap());
    let world = World::new(store, "one").await;
    let instance = world.create(store, "db").await.instance.id;
    let turn = store.get_instance_graph(instance).await.unwrap().turn;
    store.mark_restored(at(0), at(5)).await.unwrap();
    let later = store.get_instance_graph(instance).await.unwrap().turn;
    assert!(later.0 > turn.0 + 1_000_000, "{later:?}");
    let mark = store.restored().await.unwrap().unwrap();
    assert_eq!((mark.made_at, mark.restored_at), (at(0), at(5)));
    assert_eq!(mark.confirmed, None);
    assert!(store.is_restored().await.unwrap());
    assert!(store.put_restore_report("{}").await.unwrap());
    assert!(
        !store.put_restore_report("{}").await.unwrap(),
        "it is known"
    );
    // Another process has its word to say.
    other.confirm_restored(Confirmed::Discard).await.unwrap();
    let mark = store.restored().await.unwrap().unwrap();
    assert_eq!(mark.confirmed, Some(Confirmed::Discard));
    other.refuse_confirmation().await.unwrap();
    assert_eq!(store.restored().await.unwrap().unwrap().confirmed, None);
    store.confirm_restored(Confirmed::Keep).await.unwrap();
    store.end_restored().await.unwrap();
    assert!(!store.is_restored().await.unwrap());
    assert_eq!(other.restored().await.unwrap(), None);
    let report = other.restore_report().await.unwrap();
    assert_eq!(report.as_deref(), Some("{}"), "what was done stays told");
    // A store that is restored once more begins anew.
    store.mark_restored(at(1), at(6)).await.unwrap();
    assert!(store.is_restored().await.unwrap());
    assert_eq!(store.restore_report().await.unwrap(), None);
}

pub(crate) async fn old_tasks_end_and_let_go(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let new = world.create(store, "db").await;
    let claimed = store.claim_tasks("w", at(1), 1).await.unwrap();
    let ended = store.end_old_tasks("it is over", at(2)).await.unwrap();
    assert_eq!(ended, 1);
    let task = store.find_task(new.task.id).await.unwrap().unwrap();
    assert_eq!(task.state, TaskState::Cancelled);
    assert_eq!(task.error.as_deref(), Some("it is over"));
    // The worker that had it writes nothing more.
    let lease = store.renew_lease(claimed[0].id, claimed[0].version, "w");
    assert!(!lease.await.unwrap());
    assert_eq!(store.end_old_tasks("again", at(3)).await.unwrap(), 0);
}

pub(crate) async fn what_became_of_instances_is_written(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let [lost, gone] = ["lost", "gone"];
    let lost = world.create(store, lost).await.instance.id;
    let gone = world.create(store, gone).await.instance.id;
    store.end_old_tasks("", at(1)).await.unwrap();
    let fault = Fault {
        message: "gone".to_owned(),
        details: "away".to_owned(),
        at: at(2),
    };
    let [told, begun] = [event("one", lost), event("one", lost)];
    let mut settled = Settled {
        instance_id: lost,
        lifecycle: Lifecycle::Failed,
        fault: Some(&fault),
        change: &SpecChange::default(),
        task: None,
        event: &told,
        now: at(2),
    };
    store.settle_instance(&settled).await.unwrap();
    let found = store.find_instance(lost).await.unwrap().unwrap();
    assert_eq!(found.lifecycle, Lifecycle::Failed);
    assert_eq!(found.fault.as_ref(), Some(&fault));
    let recovery = task("one", Some(lost));
    (settled.lifecycle, settled.fault) = (Lifecycle::Active, None);
    (settled.task, settled.event) = (Some(&recovery), &begun);
    store.settle_instance(&settled).await.unwrap();
    let found = store.find_instance(lost).await.unwrap().unwrap();
    assert_eq!((found.lifecycle, found.fault), (Lifecycle::Active, None));
    let active = store.find_active_task(lost).await.unwrap().unwrap();
    assert_eq!(active.id, recovery.id);

    let left = event("one", gone);
    store.forget_instance(gone, &left, at(3)).await.unwrap();
    assert_eq!(store.find_instance(gone).await.unwrap(), None);
    let graph = store.get_instance_graph(gone).await.unwrap();
    assert!(graph.volumes.is_empty() && graph.servers.is_empty());
    assert!(graph.endpoints.is_empty(), "its address is free");
}

/// An instance is written into one store as it was in another.
pub(crate) async fn lost_instances_are_adopted(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let new = world.create(store, "db").await;
    let graph = store.get_instance_graph(new.instance.id).await.unwrap();
    let left = event("one", new.instance.id);
    let first = new.instance.id;
    store.forget_instance(first, &left, at(1)).await.unwrap();
    // In a project that was lost as well, beyond its quota.
    let other = Anew::of(&graph, "two");
    let instance_id = other.instance.id;
    let kind = VolumeType {
        name: name(other.instance.spec.volume_type.as_deref().unwrap()),
        description: "adopted".to_owned(),
        io: IoLimits {
            read_iops_sec: Iops::parse("test", 100).ok(),
            ..IoLimits::NONE
        },
        created_at: at(0),
    };
    let (recovery, told) = (task("two", Some(instance_id)), event("two", instance_id));
    let (two, flavor) = (tenant("two"), flavor("6.1", 512));
    let adopted = Adopted {
        volume_type: Some(&kind),
        task: Some(&recovery),
        ..other.adopted(&two, &flavor, &new.charges, &told)
    };
    assert!(store.adopt_instance(&adopted).await.unwrap());
    assert!(!store.adopt_instance(&adopted).await.unwrap(), "once");
    let found = store.get_instance_graph(instance_id).await.unwrap();
    assert_eq!(found.turn.0, 77);
    assert_eq!(found.instance.spec, other.instance.spec);
    assert_eq!(found.endpoints, [other.endpoint]);
    assert_eq!(found.set, Some(other.set));
    assert_eq!(found.servers, [other.server]);
    assert_eq!(found.volumes, [other.volume]);
    assert_eq!(found.volume_type, Some(kind));
    assert!(
        store
            .find_tenant(&tenant_id("two"))
            .await
            .unwrap()
            .is_some()
    );
    let quotas = store.get_quotas(&tenant_id("two"), |_| 0).await.unwrap();
    let used: i64 = quotas.iter().map(|quota| quota.in_use).sum();
    let charged: i64 = new.charges.iter().map(|charge| charge.amount).sum();
    assert_eq!(used, charged);
}

/// Rows of an instance under new ids, all else as they were.
struct Anew {
    network: Network,
    instance: Instance,
    set: ReplicationSet,
    endpoint: Endpoint,
    server: Server,
    volume: Volume,
}

impl Anew {
    fn of(graph: &InstanceGraph, tenant: &str) -> Self {
        let mut network = graph.network.clone().unwrap();
        network.id = id(NetworkId::from_uuid);
        network.tenant_id = tenant_id(tenant);
        let mut instance = graph.instance.clone();
        instance.id = id(InstanceId::from_uuid);
        instance.tenant_id = tenant_id(tenant);
        instance.spec.network_id = network.id;
        let mut set = graph.set.clone().unwrap();
        (set.id, set.primary) = (id(SetId::from_uuid), Some(instance.id));
        instance.set_id = set.id;
        let mut endpoint = graph.endpoints[0].clone();
        endpoint.id = id(EndpointId::from_uuid);
        (endpoint.set_id, endpoint.target) = (set.id, Some(instance.id));
        endpoint.network_id = network.id;
        let mut server = graph.servers[0].clone();
        server.id = id(ServerId::from_uuid);
        server.instance_id = Some(instance.id);
        let mut volume = graph.volumes[0].clone();
        volume.id = id(VolumeId::from_uuid);
        volume.instance_id = Some(instance.id);
        Self {
            network,
            instance,
            set,
            endpoint,
            server,
            volume,
        }
    }

    fn adopted<'a>(
        &'a self,
        tenant: &'a Tenant,
        flavor: &'a Flavor,
        charges: &'a [Amount],
        event: &'a Event,
    ) -> Adopted<'a> {
        Adopted {
            tenant,
            network: &self.network,
            flavor,
            volume_type: None,
            instance: &self.instance,
            set: &self.set,
            endpoint: &self.endpoint,
            server: &self.server,
            volume: &self.volume,
            charges,
            turn: Turn(77),
            task: None,
            event,
        }
    }
}

/// What was deleted and made anew under the same name since the backup has another id. Both are
/// there then, under names of their own, and so is what belongs to each.
pub(crate) async fn what_is_adopted_is_told_apart(fixture: &Fixture) {
    let store = fixture.store();
    let made = World::new(store, "one").await.create(store, "db").await;
    let graph = store.get_instance_graph(made.instance.id).await.unwrap();
    let (one, small) = (tenant("one"), flavor("small", 512));
    store.insert_tenant(&one).await.unwrap();
    store.insert_flavor(&small).await.unwrap();
    let flavor = Flavor {
        id: "again".parse().unwrap(),
        ..small.clone()
    };
    let again = Tenant {
        id: tenant_id("again"),
        ..one.clone()
    };
    // In the project made anew, and beside the network made anew of the one that is there.
    for tenant in [&again, &one] {
        let mut rows = Anew::of(&graph, tenant.id.as_str());
        rows.instance.spec.flavor_id = flavor.id.clone();
        let told = event(tenant.id.as_str(), rows.instance.id);
        let adopted = rows.adopted(tenant, &flavor, &made.charges, &told);
        assert!(store.adopt_instance(&adopted).await.unwrap());
        let found = store.get_instance_graph(rows.instance.id).await.unwrap();
        assert_eq!(found.flavor.unwrap().id, flavor.id);
        assert_eq!(found.network.unwrap().id, rows.network.id);
    }
    let found = store.find_tenant(&again.id).await.unwrap().unwrap();
    assert_eq!(found.name.as_str(), format!("{} (again)", one.name));
    let found = store.find_flavor(&flavor.id).await.unwrap().unwrap();
    assert_eq!(found.name.as_str(), format!("{} (again)", small.name));
    assert_eq!(store.find_tenant(&one.id).await.unwrap(), Some(one));
    assert_eq!(store.find_flavor(&small.id).await.unwrap(), Some(small));
}

pub(crate) async fn logins_of_then_are_over(fixture: &Fixture) {
    let store = fixture.store();
    store.insert_tenant(&tenant("one")).await.unwrap();
    let user = super::world::user("alice");
    store.insert_user(&user).await.unwrap();
    let token = Token {
        hash: "hash".to_owned(),
        user_id: user.id.clone(),
        tenant_id: Some(tenant_id("one")),
        issued_at: at(0),
        expires_at: at(1_000),
    };
    store.insert_token(&token).await.unwrap();
    store.mark_restored(at(0), at(1)).await.unwrap();
    assert!(store.find_token("hash").await.unwrap().is_none());
}

fn key(tenant: &str) -> ProjectKey {
    ProjectKey {
        id: id(ProjectKeyId::from_uuid),
        tenant_id: tenant_id(tenant),
        wrapped: vec![1, 2, 3],
        created_at: at(0),
    }
}

pub(crate) async fn keys_are_replaced_and_destroyed_at_last(fixture: &Fixture) {
    let store = fixture.store();
    let [old, new, third] = [key("one"), key("one"), key("one")];
    store.ensure_project_key(&old).await.unwrap();
    let sealed = StoredSecret {
        id: id(SecretId::from_uuid),
        key_id: old.id,
        tenant_id: tenant_id("one"),
        instance_id: None,
        purpose: "commands".to_owned(),
        ciphertext: vec![4, 5],
        created_at: at(0),
    };
    store.put_secret(&sealed).await.unwrap();
    assert!(!store.destroy_retired_key(old.id, at(1)).await.unwrap());
    store
        .replace_project_key(old.id, &new, at(1))
        .await
        .unwrap();
    let again = store.replace_project_key(old.id, &third, at(1)).await;
    assert!(matches!(again, Err(StoreError::Stale { .. })), "{again:?}");
    let in_use = store.find_project_key(&old.tenant_id).await.unwrap();
    assert_eq!(in_use, Some(new.clone()));
    // What is sealed under the old one is still read, and nothing of it is destroyed.
    let found = store.find_project_key_by_id(old.id).await.unwrap();
    assert_eq!(found, Some(old.clone()));
    let retired = store.list_retired_keys(&old.tenant_id).await.unwrap();
    assert_eq!(retired, std::slice::from_ref(&old));
    assert_eq!(store.list_project_keys().await.unwrap().len(), 2);
    assert!(!store.destroy_retired_key(old.id, at(2)).await.unwrap());
    let under = store.list_sealed_under(old.id, 10).await.unwrap();
    assert_eq!(under, std::slice::from_ref(&sealed));
    let fresh = StoredSecret {
        key_id: new.id,
        ciphertext: vec![6],
        ..sealed.clone()
    };
    assert!(store.reseal_secret(&sealed, &fresh).await.unwrap());
    assert!(!store.reseal_secret(&sealed, &fresh).await.unwrap());
    assert_eq!(store.find_secret(sealed.id).await.unwrap(), Some(fresh));
    assert!(store.destroy_retired_key(old.id, at(3)).await.unwrap());
    assert!(
        !store.destroy_retired_key(new.id, at(3)).await.unwrap(),
        "in use"
    );
    // Whoever sealed under it a moment ago is told, and nothing that cannot be read is kept.
    let late = store.put_secret(&sealed).await;
    assert!(matches!(late, Err(StoreError::NotFound { .. })), "{late:?}");

    assert!(
        store
            .rewrap_project_key(new.id, &[1, 2, 3], &[9])
            .await
            .unwrap()
    );
    assert!(
        !store
            .rewrap_project_key(new.id, &[1, 2, 3], &[8])
            .await
            .unwrap()
    );
    let found = store.find_project_key_by_id(new.id).await.unwrap().unwrap();
    assert_eq!(found.wrapped, [9]);
    for (name, value) in [("a/1", "x"), ("a/2", "y"), ("b/1", "z")] {
        store.put_setting(name, value).await.unwrap();
    }
    assert!(store.swap_setting("a/1", "x", "w").await.unwrap());
    assert!(!store.swap_setting("a/1", "x", "v").await.unwrap());
    let listed = store.list_settings("a/").await.unwrap();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(listed, [pair("a/1", "w"), pair("a/2", "y")]);
}
