//! Every invariant, attacked by 64 writers at once through several stores on one database.

use coffer_core::id::{DatastoreVersionId, EndpointId, InstanceId, ProjectKeyId, SetId, TaskId};
use coffer_core::instance::Lifecycle;
use coffer_core::quota::Resource;
use coffer_core::task::{LockKind, LockMode, LockRequest, TaskState};
use coffer_core::units::Generation;
use coffer_store::instance::{BeginTask, SpecChange};
use coffer_store::lock::{Acquire, LockOutcome};
use coffer_store::secret::ProjectKey;
use coffer_store::singleton::Hold;
use coffer_store::task::StepCommit;
use coffer_store::{Result, StoreError, Write};

use super::locks::running;
use super::world::{
    World, as_seen, assert_distinct, at, commit, flavor, id, name, network, storm, task, tenant,
    tenant_id, unlimited, user,
};
use crate::fixture::Fixture;

/// How many succeeded; every other one must have lost in the way that `lost` names.
fn winners<T: std::fmt::Debug>(results: &[Result<T>], lost: impl Fn(&StoreError) -> bool) -> usize {
    for error in results.iter().filter_map(|result| result.as_ref().err()) {
        assert!(lost(error), "{error:?}");
    }
    results.iter().filter(|result| result.is_ok()).count()
}

fn exists(error: &StoreError) -> bool {
    matches!(error, StoreError::AlreadyExists { .. })
}

fn stale(error: &StoreError) -> bool {
    matches!(error, StoreError::Stale { .. })
}

fn ten(_: Resource) -> i64 {
    10
}

pub(crate) async fn quota_is_never_exceeded(fixture: &Fixture) {
    let world = World::new(fixture.store(), "one").await;
    let results = storm(&fixture.stores, |store, n| {
        let mut new = world.new_instance(&format!("db{n}"));
        new.charges.truncate(1);
        async move { store.create_instance(&new, ten).await }
    })
    .await;
    let won = winners(&results, |error| {
        matches!(error, StoreError::QuotaExceeded { .. })
    });
    assert_eq!(won, 10);
    let quotas = fixture
        .store()
        .get_quotas(&tenant_id("one"), ten)
        .await
        .unwrap();
    assert_eq!(quotas[0].in_use, 10);
    assert_eq!(fixture.store().list_instance_ids().await.unwrap().len(), 10);
}

pub(crate) async fn names_are_taken_once(fixture: &Fixture) {
    let stores = &fixture.stores;
    let tenants = storm(stores, |store, n| async move {
        let mut one = tenant(&format!("t{n}"));
        one.name = name("same");
        store.insert_tenant(&one).await
    });
    assert_eq!(winners(&tenants.await, exists), 1);
    let users = storm(stores, |store, n| async move {
        let mut one = user(&format!("u{n}"));
        one.name = name("same");
        store.insert_user(&one).await
    });
    assert_eq!(winners(&users.await, exists), 1);
    let flavors = storm(stores, |store, n| async move {
        let mut one = flavor(&format!("f{n}"), 1);
        one.name = name("same");
        store.insert_flavor(&one).await
    });
    assert_eq!(winners(&flavors.await, exists), 1);
    let networks = storm(stores, |store, _| async move {
        store
            .insert_network(&network("one", "same", "10.0.0.0/24", false))
            .await
    });
    assert_eq!(winners(&networks.await, exists), 1);
    let world = World::new(fixture.store(), "two").await;
    let versions = storm(stores, |store, _| {
        let mut version = world.version.clone();
        version.id = id(DatastoreVersionId::from_uuid);
        version.name = name("same");
        async move { store.upsert_datastore_version(&version).await }
    });
    assert_eq!(winners(&versions.await, exists), 1);
}

pub(crate) async fn one_default_network(fixture: &Fixture) {
    let results = storm(&fixture.stores, |store, n| async move {
        let candidate = network(
            "one",
            &format!("default {n}"),
            &format!("10.{n}.0.0/16"),
            true,
        );
        store.ensure_default_network(&candidate).await.unwrap()
    })
    .await;
    assert!(
        results.iter().all(|network| *network == results[0]),
        "{results:?}"
    );
    assert_eq!(fixture.store().list_all_networks().await.unwrap().len(), 1);
}

pub(crate) async fn addresses_are_unique(fixture: &Fixture) {
    let world = World::new(fixture.store(), "one").await;
    let results = storm(&fixture.stores, |store, n| {
        let new = world.new_instance(&format!("db{n}"));
        async move { store.create_instance(&new, unlimited).await }
    })
    .await;
    assert_eq!(winners(&results, |_| false), 64);
    let endpoints = fixture.store().list_endpoints().await.unwrap();
    let addresses: Vec<_> = endpoints
        .iter()
        .map(|endpoint| endpoint.network_address)
        .collect();
    assert_eq!(addresses.len(), 64);
    assert_distinct(&addresses);
    assert_eq!(
        addresses.iter().max().unwrap().to_string(),
        "10.0.0.65",
        "no address is skipped"
    );
}

pub(crate) async fn one_exclusive_holder(fixture: &Fixture) {
    let mut tasks = Vec::new();
    for _ in 0..64 {
        tasks.push(running(fixture.store(), 5).await);
    }
    let results = storm(&fixture.stores, |store, n| {
        let task = tasks[n].clone();
        async move {
            // Every fourth asks to share, in the opposite order.
            let mode = if n % 4 == 0 {
                LockMode::Shared
            } else {
                LockMode::Exclusive
            };
            let mut locks = ["x", "y"].map(|object| LockRequest {
                kind: LockKind::Set,
                id: object.to_owned(),
                mode,
            });
            if n % 2 == 0 {
                locks.reverse();
            }
            let (task_id, version, locks) = (task.id, task.version, locks.as_slice());
            let ask = Acquire {
                task_id,
                version,
                owner: "w",
                locks,
                preempt: n % 8 == 0,
                now: at(1),
            };
            store.acquire_locks(&ask).await.unwrap()
        }
    })
    .await;
    let acquired = results
        .iter()
        .filter(|one| **one == LockOutcome::Acquired)
        .count();
    let held = fixture
        .store()
        .list_locks(LockKind::Set, "x")
        .await
        .unwrap();
    let twin = fixture
        .store()
        .list_locks(LockKind::Set, "y")
        .await
        .unwrap();
    assert_eq!(held.len(), acquired);
    let holders = |locks: &[coffer_store::lock::HeldLock]| -> Vec<TaskId> {
        locks.iter().map(|lock| lock.task_id).collect()
    };
    assert_eq!(holders(&held), holders(&twin));
    let exclusive = held
        .iter()
        .filter(|lock| lock.mode == LockMode::Exclusive)
        .count();
    assert!(
        acquired > 0 && (exclusive == 0 || held.len() == 1),
        "{held:?}"
    );
}

pub(crate) async fn one_primary_per_generation(fixture: &Fixture) {
    let world = World::new(fixture.store(), "one").await;
    let new = world.create(fixture.store(), "db").await;
    let other = world.create(fixture.store(), "other").await;
    let (set_id, member) = (new.set.id, Some(new.instance.id));
    one_of_two(fixture, set_id, [member, None], Generation(2)).await;
    if fixture.has_back_door() {
        // No workflow makes a second member yet.
        let join = "UPDATE instances SET set_id =
            (SELECT set_id FROM instances WHERE name = 'db') WHERE name = 'other'";
        fixture.raw(join).await;
        let candidates = [member, Some(other.instance.id)];
        one_of_two(fixture, set_id, candidates, Generation(3)).await;
    }
}

/// Half of the writers name the one, half the other, all of them for the same generation: one of
/// the two is the primary, and whoever named the other is told.
async fn one_of_two(
    fixture: &Fixture,
    set_id: SetId,
    candidates: [Option<InstanceId>; 2],
    generation: Generation,
) {
    let mut tasks = Vec::new();
    for _ in 0..64 {
        tasks.push(running(fixture.store(), 5).await);
    }
    let results = storm(&fixture.stores, |store, n| {
        let mut step = commit(&tasks[n], "w", TaskState::Done);
        // Each store names both: the writers take them in turn.
        let primary = candidates[n / 2 % 2];
        step.writes = vec![Write::SetPrimary {
            set_id,
            instance_id: primary,
            generation,
        }];
        async move { store.commit_step(&step).await.map(|_| primary) }
    })
    .await;
    let won: Vec<_> = results
        .iter()
        .filter_map(|result| result.as_ref().ok())
        .collect();
    // Repeating the winner's change is no loss.
    assert_eq!(winners(&results, stale), 32);
    assert!(won.iter().all(|primary| *primary == won[0]), "{won:?}");
    let set = fixture.store().find_set(set_id).await.unwrap().unwrap();
    assert_eq!((&set.primary, set.generation), (won[0], generation));
}

pub(crate) async fn tasks_are_claimed_once(fixture: &Fixture) {
    for _ in 0..200 {
        fixture
            .store()
            .insert_task(&task("one", None))
            .await
            .unwrap();
    }
    let claims = storm(&fixture.stores, |store, n| async move {
        let worker = format!("w{n}");
        let mut mine: Vec<TaskId> = Vec::new();
        loop {
            let claimed = store.claim_tasks(&worker, at(1), 3).await.unwrap();
            assert!(claimed.len() <= 3);
            if claimed.is_empty() {
                return mine;
            }
            for task in claimed {
                store
                    .commit_step(&commit(&task, &worker, TaskState::Done))
                    .await
                    .unwrap();
                mine.push(task.id);
            }
        }
    })
    .await;
    let all: Vec<TaskId> = claims.into_iter().flatten().collect();
    assert_distinct(&all);
    assert_eq!(all.len(), 200);
}

pub(crate) async fn published_addresses_are_unique(fixture: &Fixture) {
    let pool = "10.9.0.0/24".parse().unwrap();
    let shared = id(EndpointId::from_uuid);
    let results = storm(&fixture.stores, |store, n| async move {
        let endpoint = if n % 4 == 0 {
            shared
        } else {
            id(EndpointId::from_uuid)
        };
        store.allocate_published(endpoint, pool).await.unwrap()
    })
    .await;
    let mut distinct = results;
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), 49);
}

pub(crate) async fn the_first_setting_wins(fixture: &Fixture) {
    let results = storm(&fixture.stores, |store, n| async move {
        store.put_setting_once("key", &n.to_string()).await.unwrap()
    })
    .await;
    assert!(
        results.iter().all(|value| *value == results[0]),
        "{results:?}"
    );
}

pub(crate) async fn the_first_key_wins(fixture: &Fixture) {
    let results = storm(&fixture.stores, |store, n| async move {
        let candidate = ProjectKey {
            id: id(ProjectKeyId::from_uuid),
            tenant_id: tenant_id("one"),
            wrapped: vec![u8::try_from(n).unwrap()],
            created_at: at(0),
        };
        store.ensure_project_key(&candidate).await.unwrap()
    })
    .await;
    assert!(results.iter().all(|key| *key == results[0]), "{results:?}");
}

pub(crate) async fn one_task_begins(fixture: &Fixture) {
    let world = World::new(fixture.store(), "one").await;
    let instance_id = world.create(fixture.store(), "db").await.instance.id;
    let results = storm(&fixture.stores, |store, _| async move {
        let task = task("one", Some(instance_id));
        let ask = BeginTask {
            instance_id,
            expected: &[Lifecycle::Building],
            to: Lifecycle::Restarting,
            task: &task,
            event: None,
            change: SpecChange::default(),
            now: at(1),
        };
        store.begin_task(&ask).await
    })
    .await;
    let not_allowed = |error: &StoreError| matches!(error, StoreError::NotAllowed { .. });
    assert_eq!(winners(&results, not_allowed), 1);
    assert_eq!(
        fixture.store().list_tasks(instance_id).await.unwrap().len(),
        2
    );
}

pub(crate) async fn one_delete_begins(fixture: &Fixture) {
    let world = World::new(fixture.store(), "one").await;
    let instance_id = world.create(fixture.store(), "db").await.instance.id;
    let results = storm(&fixture.stores, |store, _| async move {
        let task = task("one", Some(instance_id));
        store
            .begin_delete(instance_id, &task, None, at(1))
            .await
            .unwrap()
    })
    .await;
    assert!(results.iter().all(|id| *id == results[0]), "{results:?}");
    assert_eq!(
        fixture.store().list_tasks(instance_id).await.unwrap().len(),
        2
    );
}

pub(crate) async fn one_thief(fixture: &Fixture) {
    let one = running(fixture.store(), 5).await;
    let results = storm(&fixture.stores, |store, n| {
        let seen = as_seen(&one);
        async move {
            let stolen = store.steal_task(&seen, &format!("w{n}"), at(2)).await;
            stolen.unwrap()
        }
    })
    .await;
    assert_eq!(results.iter().flatten().count(), 1);
}

pub(crate) async fn one_commit_per_version(fixture: &Fixture) {
    let one = running(fixture.store(), 5).await;
    let results = storm(&fixture.stores, |store, n| {
        let mut step: StepCommit = commit(&one, "w", TaskState::Running);
        step.update.output = Some(n.to_string());
        async move { store.commit_step(&step).await.map(|_| n.to_string()) }
    })
    .await;
    assert_eq!(winners(&results, stale), 1);
    let stored = fixture.store().find_task(one.id).await.unwrap().unwrap();
    let winner = results.into_iter().find_map(Result::ok);
    assert_eq!((stored.version, stored.output), (one.version + 1, winner));
}

pub(crate) async fn one_role_holder(fixture: &Fixture) {
    let store = fixture.store();
    let first = storm(&fixture.stores, |store, n| async move {
        store
            .try_hold("conductor", &format!("p{n}"), None)
            .await
            .unwrap()
    })
    .await;
    assert_eq!(first.iter().filter(|hold| **hold == Hold::Held).count(), 1);
    let Hold::Other { owner, counter } = store.try_hold("conductor", "q", None).await.unwrap()
    else {
        panic!("nobody holds the role")
    };
    let second = storm(&fixture.stores, |store, n| {
        let owner = owner.clone();
        async move {
            let observed = Some((owner.as_str(), counter));
            store
                .try_hold("conductor", &format!("q{n}"), observed)
                .await
                .unwrap()
        }
    })
    .await;
    assert_eq!(second.iter().filter(|hold| **hold == Hold::Held).count(), 1);
    let unknown = id(InstanceId::from_uuid);
    assert_eq!(store.find_instance(unknown).await.unwrap(), None);
}
