//! Instances: asked for, listed, begun with, ended.

use coffer_core::access::Access;
use coffer_core::id::EventId;
use coffer_core::instance::{Fault, Health, Lifecycle};
use coffer_core::quota::Resource;
use coffer_core::replication::Published;
use coffer_core::server::{Presence, Volume, VolumeRole};
use coffer_core::task::{Signal, TaskState};
use coffer_core::units::{Generation, Incarnation, VolumeSize};
use coffer_store::instance::{BeginTask, InstanceFilter, NewInstance, SpecChange};
use coffer_store::secret::{ProjectKey, StoredSecret};
use coffer_store::{Store, StoreError, Write};

use super::world::{World, at, commit, id, name, network, task, tenant_id, unlimited};
use crate::fixture::Fixture;

/// Lets a task of the instance write, as a worker would.
pub(crate) async fn write_as(store: &Store, task: &coffer_core::task::Task, writes: Vec<Write>) {
    let mut one = task.clone();
    one.state = TaskState::Running;
    one.owner = Some("w".to_owned());
    let stored = store.find_task(task.id).await.unwrap();
    if stored.is_none() {
        store.insert_task(&one).await.unwrap();
    } else {
        one = loop {
            let claimed = store.claim_tasks("w", at(1_000_000), 100).await.unwrap();
            if let Some(found) = claimed.into_iter().find(|found| found.id == task.id) {
                break found;
            }
        };
    }
    let mut end = commit(&one, "w", TaskState::Done);
    end.writes = writes;
    store.commit_step(&end).await.unwrap();
}

/// Deletes an instance as its workflow would.
pub(crate) async fn delete(store: &Store, new: &NewInstance) {
    let instance_id = new.instance.id;
    let delete = task(new.instance.tenant_id.as_str(), Some(instance_id));
    store
        .begin_delete(instance_id, &delete, None, at(1))
        .await
        .unwrap();
    write_as(
        store,
        &delete,
        vec![
            Write::DeleteServer(new.server.id),
            Write::DeleteVolume(new.volume.id),
            Write::FinishDelete {
                instance_id,
                at: at(2),
            },
        ],
    )
    .await;
}

pub(crate) async fn creation_writes_everything(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let new = world.create(store, "db").await;
    let instance_id = new.instance.id;
    let graph = store.get_instance_graph(instance_id).await.unwrap();
    assert_eq!(graph.instance, new.instance);
    assert_eq!(graph.set, Some(new.set.clone()));
    assert_eq!(graph.servers, std::slice::from_ref(&new.server));
    assert_eq!(graph.volumes, std::slice::from_ref(&new.volume));
    assert_eq!(graph.links, [new.link.clone().unwrap()]);
    assert_eq!(graph.network, Some(world.network.clone()));
    assert_eq!(
        (graph.version, graph.datastore),
        (world.version.clone(), world.datastore.clone())
    );
    assert_eq!(graph.flavor, None);
    let [endpoint] = graph.endpoints.as_slice() else {
        panic!("{:?}", graph.endpoints)
    };
    assert_eq!((endpoint.id, endpoint.port), (new.endpoint_id, 5432));
    assert_eq!(endpoint.network_address.to_string(), "10.0.0.2");
    assert_eq!(endpoint.target, Some(instance_id));
    assert_eq!(
        endpoint.allowed_cidrs,
        new.instance.spec.access.allowed_cidrs
    );
    assert_eq!(
        store.find_task(new.task.id).await.unwrap(),
        Some(new.task.clone())
    );
    let events = store.list_events(instance_id, None, 10).await.unwrap();
    assert_eq!(events, [new.event.clone().unwrap()]);

    let view = store
        .get_instance_view(Some(&tenant_id("one")), instance_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(view.instance, new.instance);
    assert_eq!(view.datastore_name, world.datastore.name.as_str());
    assert_eq!(
        (view.version_name.as_str(), view.version_number.as_str()),
        ("17", "17.6")
    );
    assert_eq!(
        (view.manager.as_str(), view.port, view.published),
        ("postgresql", 5432, None)
    );
    assert_eq!(view.network_address, Some(endpoint.network_address));
    let foreign = store
        .get_instance_view(Some(&tenant_id("two")), instance_id)
        .await
        .unwrap();
    assert_eq!(foreign, None);
    assert_eq!(
        store.find_instance(instance_id).await.unwrap(),
        Some(new.instance.clone())
    );
    let again = store.create_instance(&new, unlimited).await;
    assert!(
        matches!(again, Err(StoreError::AlreadyExists { .. })),
        "{again:?}"
    );
}

pub(crate) async fn pages_are_stable(fixture: &Fixture) {
    let store = fixture.store();
    let (one, two) = (
        World::new(store, "one").await,
        World::new(store, "two").await,
    );
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(one.create(store, &format!("db{n}")).await.instance.id);
        two.create(store, "foreign").await;
    }
    let filter = InstanceFilter {
        tenant: Some(tenant_id("one")),
    };
    let (mut seen, mut marker) = (Vec::new(), None);
    loop {
        let (page, is_more) = store.list_instances(&filter, marker, 3).await.unwrap();
        seen.extend(page.iter().map(|view| view.instance.id));
        assert_eq!(is_more, seen.len() < ids.len());
        assert!(page.len() == 3 || !is_more);
        marker = page.last().map(|last| last.instance.id);
        if !is_more {
            break;
        }
    }
    assert_eq!(seen, ids);
    let everything = InstanceFilter::default();
    for (limit, rows) in [(13, (13, true)), (14, (14, false)), (100, (14, false))] {
        let (page, is_more) = store
            .list_instances(&everything, None, limit)
            .await
            .unwrap();
        assert_eq!((page.len(), is_more), rows);
    }
    let (all, _) = store.list_instances(&everything, None, 100).await.unwrap();
    assert_eq!(store.list_instance_ids().await.unwrap().len(), 14);
    let single = store
        .get_instance_view(None, ids[3])
        .await
        .unwrap()
        .unwrap();
    assert!(all.contains(&single));
}

pub(crate) async fn a_rename_stays_in_its_project(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let instance_id = world.create(store, "db").await.instance.id;
    let (one, two) = (tenant_id("one"), tenant_id("two"));
    store
        .rename_instance(instance_id, &one, &name("neu"), at(9))
        .await
        .unwrap();
    let found = store.find_instance(instance_id).await.unwrap().unwrap();
    assert_eq!((found.spec.name, found.updated_at), (name("neu"), at(9)));
    let foreign = store
        .rename_instance(instance_id, &two, &name("x"), at(9))
        .await;
    assert!(
        matches!(foreign, Err(StoreError::NotFound { .. })),
        "{foreign:?}"
    );
}

fn tight(resource: Resource) -> i64 {
    if resource == Resource::Volumes { 30 } else { 1 }
}

pub(crate) async fn quota_excess_writes_nothing(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let first = world.new_instance("db");
    store.create_instance(&first, tight).await.unwrap();
    let second = world.new_instance("db2");
    let refused = store.create_instance(&second, tight).await;
    let Err(StoreError::QuotaExceeded { resources }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(resources, [Resource::Instances, Resource::Volumes]);
    assert_eq!(store.find_instance(second.instance.id).await.unwrap(), None);
    assert_eq!(store.find_server(second.server.id).await.unwrap(), None);
    assert_eq!(store.find_set(second.set.id).await.unwrap(), None);
    assert_eq!(store.find_task(second.task.id).await.unwrap(), None);
    assert_eq!(store.find_endpoint(second.endpoint_id).await.unwrap(), None);

    let tenant = tenant_id("one");
    store
        .set_quota(&tenant, Resource::Instances, -1)
        .await
        .unwrap();
    let refused = store.create_instance(&second, tight).await;
    let Err(StoreError::QuotaExceeded { resources }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(resources, [Resource::Volumes]);
    write_as(
        store,
        &task("one", None),
        vec![Write::ReleaseQuota {
            instance_id: first.instance.id,
        }],
    )
    .await;
    store.create_instance(&second, tight).await.unwrap();
    let used: Vec<i64> = store
        .get_quotas(&tenant, tight)
        .await
        .unwrap()
        .iter()
        .map(|quota| quota.in_use)
        .collect();
    assert_eq!(used, [1, 0, 0, 20]);
    delete(store, &first).await;
    let used = store.get_quotas(&tenant, tight).await.unwrap()[0].in_use;
    assert_eq!(used, 1, "what was given back once is not given back twice");
}

pub(crate) async fn foreign_networks_are_refused(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let foreign = network("two", "default", "10.0.0.0/24", true);
    store.insert_network(&foreign).await.unwrap();
    let mut new = world.new_instance("db");
    new.instance.spec.network_id = foreign.id;
    let refused = store.create_instance(&new, unlimited).await;
    assert!(
        matches!(refused, Err(StoreError::NotFound { what: "network" })),
        "{refused:?}"
    );
}

pub(crate) async fn addresses_run_out(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::in_subnet(store, "one", "10.0.0.0/29").await;
    let mut all = Vec::new();
    for _ in 0..5 {
        all.push(world.create(store, "db").await);
    }
    let refused = store
        .create_instance(&world.new_instance("db"), unlimited)
        .await;
    assert!(
        matches!(refused, Err(StoreError::AddressesExhausted { .. })),
        "{refused:?}"
    );
    delete(store, &all[2]).await;
    let again = world.create(store, "db").await;
    let endpoint = store
        .find_endpoint(again.endpoint_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(endpoint.network_address.to_string(), "10.0.0.4");
}

pub(crate) async fn a_task_begins_once(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let new = world.create(store, "db").await;
    let instance_id = new.instance.id;
    let restart = task("one", Some(instance_id));
    let mut ask = BeginTask {
        instance_id,
        expected: &[Lifecycle::Active, Lifecycle::Failed],
        to: Lifecycle::Restarting,
        task: &restart,
        event: None,
        change: SpecChange::default(),
        now: at(5),
    };
    let refused = store.begin_task(&ask).await;
    let Err(StoreError::NotAllowed { lifecycle }) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(lifecycle, Lifecycle::Building);
    assert_eq!(store.find_task(restart.id).await.unwrap(), None);

    let fault = Fault {
        message: "m".to_owned(),
        details: "d".to_owned(),
        at: at(3),
    };
    let (lifecycle, fault) = (Lifecycle::Failed, Some(fault));
    let fail = Write::SetLifecycle {
        instance_id,
        lifecycle,
        fault: fault.clone(),
    };
    write_as(store, &new.task, vec![fail]).await;
    assert_eq!(
        store
            .find_instance(instance_id)
            .await
            .unwrap()
            .unwrap()
            .fault,
        fault
    );
    ask.change.access = Some(Access::default());
    store.begin_task(&ask).await.unwrap();
    let found = store.find_instance(instance_id).await.unwrap().unwrap();
    assert_eq!(
        (found.lifecycle, found.fault),
        (Lifecycle::Restarting, None)
    );
    assert_eq!(found.spec.access, Access::default());
    assert_eq!(
        store.find_active_task(instance_id).await.unwrap(),
        Some(restart.clone())
    );
    assert_eq!(store.list_tasks(instance_id).await.unwrap().len(), 2);
    let refused = store.begin_task(&ask).await;
    assert!(
        matches!(refused, Err(StoreError::NotAllowed { .. })),
        "{refused:?}"
    );
}

pub(crate) async fn deletion_begins_in_every_state(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    for &lifecycle in Lifecycle::ALL {
        if matches!(lifecycle, Lifecycle::Deleted | Lifecycle::Deleting) {
            continue;
        }
        let new = world.create(store, "db").await;
        let instance_id = new.instance.id;
        let set = Write::SetLifecycle {
            instance_id,
            lifecycle,
            fault: None,
        };
        write_as(store, &task("one", None), vec![set]).await;
        let (first, second) = (
            task("one", Some(instance_id)),
            task("one", Some(instance_id)),
        );
        let begun = store
            .begin_delete(instance_id, &first, None, at(1))
            .await
            .unwrap();
        assert_eq!(begun, first.id);
        let again = store
            .begin_delete(instance_id, &second, None, at(1))
            .await
            .unwrap();
        assert_eq!(again, first.id);
        assert_eq!(store.find_task(second.id).await.unwrap(), None);
        assert_eq!(
            store.list_signals(new.task.id).await.unwrap(),
            [Signal::Delete]
        );
        assert_eq!(store.list_signals(first.id).await.unwrap(), []);
    }
    let unknown = id(coffer_core::id::InstanceId::from_uuid);
    let missing = store
        .begin_delete(unknown, &task("one", Some(unknown)), None, at(1))
        .await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );
}

async fn with_secret(store: &Store, new: &NewInstance) -> StoredSecret {
    let key = ProjectKey {
        id: id(coffer_core::id::ProjectKeyId::from_uuid),
        tenant_id: new.instance.tenant_id.clone(),
        wrapped: vec![1, 2],
        created_at: at(0),
    };
    let key = store.ensure_project_key(&key).await.unwrap();
    let secret = StoredSecret {
        id: id(coffer_core::id::SecretId::from_uuid),
        key_id: key.id,
        tenant_id: key.tenant_id,
        instance_id: Some(new.instance.id),
        purpose: "users".to_owned(),
        ciphertext: vec![0, 255, 7],
        created_at: at(0),
    };
    store.put_secret(&secret).await.unwrap();
    secret
}

pub(crate) async fn deletion_ends_everything(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let new = world.create(store, "db").await;
    let (instance_id, tenant) = (new.instance.id, tenant_id("one"));
    let secret = with_secret(store, &new).await;
    let pool = "10.9.0.0/24".parse().unwrap();
    let published = store
        .allocate_published(new.endpoint_id, pool)
        .await
        .unwrap();
    let snapshot = Volume {
        id: id(coffer_core::id::VolumeId::from_uuid),
        role: VolumeRole::Snapshot,
        parent: Some(new.volume.id),
        ..new.volume.clone()
    };
    write_as(
        store,
        &task("one", None),
        vec![Write::PutVolume(snapshot.clone())],
    )
    .await;
    super::conductor::report(store, instance_id).await;
    delete(store, &new).await;

    assert_eq!(store.find_instance(instance_id).await.unwrap(), None);
    assert_eq!(
        store.get_instance_view(None, instance_id).await.unwrap(),
        None
    );
    assert_eq!(
        store
            .list_instances(&InstanceFilter::default(), None, 9)
            .await
            .unwrap(),
        (Vec::new(), false)
    );
    let graph = store.get_instance_graph(instance_id).await.unwrap();
    assert_eq!(graph.instance.lifecycle, Lifecycle::Deleted);
    assert_eq!((graph.set, graph.endpoints.len()), (None, 0));
    assert_eq!((graph.servers.len(), graph.links.len()), (0, 0));
    assert_eq!(graph.volumes, [snapshot], "a volume outlives its instance");
    assert_eq!(store.find_secret(secret.id).await.unwrap(), None);
    assert_eq!(
        store.list_databases(instance_id, None, 9).await.unwrap(),
        []
    );
    assert_eq!(store.list_live_links().await.unwrap(), []);
    assert_eq!(
        store.get_quotas(&tenant, unlimited).await.unwrap()[0].in_use,
        0
    );
    assert_eq!(
        store.list_events(instance_id, None, 9).await.unwrap().len(),
        1
    );
    let next = store
        .allocate_published(id(coffer_core::id::EndpointId::from_uuid), pool)
        .await;
    assert_eq!(
        next.unwrap(),
        published,
        "the published address is free again"
    );
    let gone = store
        .begin_delete(instance_id, &task("one", None), None, at(1))
        .await;
    assert!(matches!(gone, Err(StoreError::NotFound { .. })), "{gone:?}");
}

pub(crate) async fn late_commits_do_not_revive(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let new = world.create(store, "db").await;
    let instance_id = new.instance.id;
    let delete = task("one", Some(instance_id));
    store
        .begin_delete(instance_id, &delete, None, at(1))
        .await
        .unwrap();
    let active = Write::SetLifecycle {
        instance_id,
        lifecycle: Lifecycle::Active,
        fault: None,
    };
    write_as(store, &new.task, vec![active]).await;
    let found = store.find_instance(instance_id).await.unwrap().unwrap();
    assert_eq!(found.lifecycle, Lifecycle::Deleting);
    let failed = Write::SetLifecycle {
        instance_id,
        lifecycle: Lifecycle::Failed,
        fault: None,
    };
    // The other task was claimed with the first, so the delete is taken over here.
    let running = store.list_running().await.unwrap();
    let seen = running
        .iter()
        .find(|running| running.id == delete.id)
        .unwrap();
    let stolen = store.steal_task(seen, "w2", at(2)).await.unwrap().unwrap();
    let mut end = commit(&stolen, "w2", TaskState::Failed);
    end.writes = vec![failed];
    store.commit_step(&end).await.unwrap();
    let found = store.find_instance(instance_id).await.unwrap().unwrap();
    assert_eq!(found.lifecycle, Lifecycle::Failed);
    let again = task("one", Some(instance_id));
    let begun = store
        .begin_delete(instance_id, &again, None, at(2))
        .await
        .unwrap();
    assert_eq!(begun, again.id);
}

pub(crate) async fn specs_change(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let new = world.create(store, "db").await;
    let instance_id = new.instance.id;
    let change = SpecChange {
        flavor_id: Some("7".parse().unwrap()),
        volume: Some(VolumeSize::gib(30).unwrap()),
        access: None,
    };
    let mut server = new.server.clone();
    server.roots = vec!["root-c".to_owned()];
    server.presence = Presence::Present;
    server.provider_ref = Some("ref".to_owned());
    server.host = Some("here".to_owned());
    let mut volume = new.volume.clone();
    volume.size = VolumeSize::gib(30).unwrap();
    volume.incarnation = Incarnation(2);
    let writes = vec![
        Write::SetSpec {
            instance_id,
            change,
        },
        Write::SetIncarnation {
            instance_id,
            incarnation: Incarnation(3),
        },
        Write::SetIncarnation {
            instance_id,
            incarnation: Incarnation(2),
        },
        Write::PutServer(server.clone()),
        Write::PutVolume(volume.clone()),
        Write::DeleteLink(server.id),
    ];
    write_as(store, &new.task, writes).await;
    let graph = store.get_instance_graph(instance_id).await.unwrap();
    assert_eq!(graph.instance.spec.flavor_id.as_str(), "7");
    assert_eq!(graph.instance.spec.volume.as_gib(), 30);
    assert_eq!(graph.instance.spec.access, new.instance.spec.access);
    assert_eq!(
        (graph.instance.incarnation, graph.links.len()),
        (Incarnation(3), 0)
    );
    assert_eq!(
        (graph.servers, graph.volumes),
        (vec![server.clone()], vec![volume])
    );
    assert_eq!(graph.instance.health, Health::Unknown);
    assert_eq!(store.list_servers().await.unwrap(), [server.clone()]);
    assert_eq!(store.find_server(server.id).await.unwrap(), Some(server));
    assert_eq!(store.list_volumes().await.unwrap().len(), 1);
}

pub(crate) async fn primaries_need_a_newer_generation(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let (new, other) = (
        world.create(store, "db").await,
        world.create(store, "db").await,
    );
    let set_id = new.set.id;
    let cases = [
        (Some(new.instance.id), 2, true),
        (Some(new.instance.id), 2, true),
        (None, 2, false),
        (None, 1, false),
        (Some(other.instance.id), 3, false),
        (None, 3, true),
    ];
    for (instance_id, generation, is_good) in cases {
        let mut one = task("one", None);
        (one.state, one.owner) = (TaskState::Running, Some("w".to_owned()));
        store.insert_task(&one).await.unwrap();
        let mut end = commit(&one, "w", TaskState::Done);
        let generation = Generation(generation);
        end.writes = vec![Write::SetPrimary {
            set_id,
            instance_id,
            generation,
        }];
        let done = store.commit_step(&end).await;
        assert_eq!(
            done.is_ok(),
            is_good,
            "{instance_id:?} {generation:?} {done:?}"
        );
    }
    let set = store.find_set(set_id).await.unwrap().unwrap();
    assert_eq!((set.primary, set.generation), (None, Generation(3)));
}

pub(crate) async fn endpoints_hold_their_addresses(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let (new, other) = (
        world.create(store, "db").await,
        world.create(store, "db").await,
    );
    let mut endpoint = store.find_endpoint(new.endpoint_id).await.unwrap().unwrap();
    let pool = "10.9.0.0/24".parse().unwrap();
    let address = store.allocate_published(endpoint.id, pool).await.unwrap();
    assert_eq!(
        store.allocate_published(endpoint.id, pool).await.unwrap(),
        address
    );
    endpoint.published = Some(Published {
        address,
        port: 5432,
    });
    endpoint.network_address = "10.0.9.9".parse().unwrap();
    endpoint.target = None;
    write_as(store, &new.task, vec![Write::PutEndpoint(endpoint.clone())]).await;
    assert_eq!(
        store.find_endpoint(endpoint.id).await.unwrap(),
        Some(endpoint.clone())
    );
    let view = store
        .get_instance_view(None, new.instance.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (view.published, view.network_address),
        (endpoint.published, Some(endpoint.network_address))
    );
    let third = world.create(store, "db").await;
    let third = store
        .find_endpoint(third.endpoint_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        third.network_address.to_string(),
        "10.0.0.2",
        "the address left behind is free"
    );

    let mut one = task("one", None);
    (one.state, one.owner) = (TaskState::Running, Some("w".to_owned()));
    store.insert_task(&one).await.unwrap();
    let mut end = commit(&one, "w", TaskState::Done);
    let other = store
        .find_endpoint(other.endpoint_id)
        .await
        .unwrap()
        .unwrap();
    end.writes = vec![
        Write::AddEvent(super::world::event("one", new.instance.id)),
        Write::PutEndpoint(coffer_core::replication::Endpoint {
            network_address: other.network_address,
            ..endpoint.clone()
        }),
    ];
    let taken = store.commit_step(&end).await;
    assert!(
        matches!(taken, Err(StoreError::AlreadyExists { .. })),
        "{taken:?}"
    );
    assert_eq!(
        store
            .list_events(new.instance.id, None::<EventId>, 9)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(store.list_endpoints().await.unwrap().len(), 3);
    store.free_published(endpoint.id).await.unwrap();
    assert_eq!(
        store.allocate_published(third.id, pool).await.unwrap(),
        address
    );
}
