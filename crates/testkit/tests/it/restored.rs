//! A store of yesterday over an infrastructure of today: nothing is deleted, everything is told,
//! and it is settled when the operator confirms. And a worker that is told to stop.

use std::path::Path;

use coffer_control::taskmanager::Worker;
use coffer_control::taskmanager::periodic::reconcile::Reconciler;
use coffer_control::taskmanager::periodic::restored::RestoreReport;
use coffer_core::id::InstanceId;
use coffer_core::instance::Lifecycle;
use coffer_core::task::TaskState;
use coffer_infra::Provider;
use coffer_infra::provider::Owned;
use coffer_store::restored::Confirmed;
use coffer_store::{Durability, Store, StoreOptions, StoreUrl, file};
use coffer_testkit::chaos::Faults;
use coffer_testkit::world::World;
use tokio_util::sync::CancellationToken;

use crate::offers::{limits, offer_gold};

async fn open(path: &Path) -> Store {
    let options = StoreOptions {
        durability: Durability::Off,
        ..StoreOptions::default()
    };
    let url = StoreUrl::SqliteFile(path.to_owned());
    Store::open(&url, options).await.unwrap()
}

/// The world goes on with a store of which `copy` was taken earlier.
async fn restore(world: &mut World, copy: &Path) {
    let made_at = world.services.clock.now();
    let store = open(copy).await;
    store.mark_restored(made_at, made_at).await.unwrap();
    world.services.store.close().await;
    world.go_on_with(store);
}

async fn look(world: &World) -> RestoreReport {
    let mut reconciler = Reconciler::new(world.services.clone());
    for _ in 0..3 {
        let status = reconciler.once().await.unwrap();
        assert_eq!((status.removed, status.recovered), (0, 0));
    }
    report(world).await
}

async fn report(world: &World) -> RestoreReport {
    let text = world.services.store.restore_report().await.unwrap();
    RestoreReport::read(&text.unwrap()).unwrap()
}

async fn confirm(world: &World, how: Confirmed) -> RestoreReport {
    let store = &world.services.store;
    store.confirm_restored(how).await.unwrap();
    let mut reconciler = Reconciler::new(world.services.clone());
    reconciler.once().await.unwrap();
    report(world).await
}

async fn lifecycle(world: &World, id: InstanceId) -> Option<Lifecycle> {
    let found = world.services.store.find_instance(id).await.unwrap();
    found.map(|instance| instance.lifecycle)
}

fn ids(lines: &[coffer_control::taskmanager::periodic::restored::Line]) -> Vec<String> {
    lines.iter().map(|line| line.id.clone()).collect()
}

async fn owned(world: &World) -> Vec<Owned> {
    let mut owned = world.provider.list_owned().await.unwrap();
    owned.sort();
    owned
}

#[tokio::test]
async fn yesterdays_store_deletes_nothing_and_adopts_on_confirmation() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::on(1, open(&dir.path().join("db")).await).await;
    let kept = world.ask_create().await.unwrap();
    let deleted = world.ask_create().await.unwrap();
    let stopped = world.ask_create().await.unwrap();
    world.settle().await.unwrap();
    // A task is under way when the backup is made, and comes to its end after it.
    world.ask_restart(kept).await.unwrap();
    let copy = dir.path().join("copy");
    file::snapshot(&dir.path().join("db"), &copy).unwrap();
    world.settle().await.unwrap();
    world.ask_delete(deleted).await.unwrap();
    world.settle().await.unwrap();
    let created = world.ask_create().await.unwrap();
    world.ask_stop(stopped).await.unwrap();
    world.settle().await.unwrap();
    for _ in 0..3 {
        world.ask_restart(kept).await.unwrap();
        world.settle().await.unwrap();
    }
    let store = &world.services.store;
    let before = store.get_instance_graph(created).await.unwrap();
    let all = owned(&world).await;
    restore(&mut world, &copy).await;

    let report = look(&world).await;
    assert!(
        !report.is_settled && report.unknown.is_empty(),
        "{report:?}"
    );
    assert_eq!(ids(&report.created_since), [created.to_string()]);
    assert_eq!(ids(&report.deleted_since), [deleted.to_string()]);
    assert!(report.lost.is_empty(), "{report:?}");
    assert_eq!(report.open_tasks, 1);
    // Nobody works until it is confirmed, not even at the task that was under way.
    assert!(world.worker().claim(10).await.unwrap().is_empty());
    assert!(world.worker().take_over_all().await.unwrap().is_empty());
    assert_eq!(owned(&world).await, all);

    let report = confirm(&world, Confirmed::Keep).await;
    assert!(report.is_settled, "{report:?}");
    assert!(!world.services.store.is_restored().await.unwrap());
    world.settle().await.unwrap();
    assert_eq!(world.reconcile().await.unwrap(), 0);
    assert_eq!(lifecycle(&world, deleted).await, None);
    for id in [kept, created] {
        assert_eq!(lifecycle(&world, id).await, Some(Lifecycle::Active));
    }
    // It was in service when the state was backed up, and is again.
    assert_eq!(lifecycle(&world, stopped).await, Some(Lifecycle::Active));
    let store = &world.services.store;
    let after = store.get_instance_graph(created).await.unwrap();
    assert_eq!(after.instance.spec, before.instance.spec);
    assert_eq!(after.instance.tenant_id, before.instance.tenant_id);
    assert_eq!(after.endpoints, before.endpoints);
    assert_eq!(after.set, before.set);
    let rows = |graph: &coffer_store::instance::InstanceGraph| {
        let servers = graph.servers.iter().map(|s| (s.id, s.roots.clone()));
        let volumes = graph.volumes.iter().map(|v| (v.id, v.size));
        (servers.collect::<Vec<_>>(), volumes.collect::<Vec<_>>())
    };
    assert_eq!(rows(&after), rows(&before));
    assert_eq!(owned(&world).await, all);
    let tasks = store.list_tasks(kept).await.unwrap();
    let restart = tasks.iter().find(|t| t.workflow == "restart_instance");
    assert_eq!(restart.unwrap().state, TaskState::Cancelled);
    // What is asked afterwards is done: no turn of before is in the way.
    for id in [kept, created] {
        world.ask_restart(id).await.unwrap();
        world.settle().await.unwrap();
        assert_eq!(lifecycle(&world, id).await, Some(Lifecycle::Active));
    }
    // What is in it is known again once the guest was asked.
    world.ask_root(created).await.unwrap();
    world.settle().await.unwrap();
    world.check().await.unwrap();
}

#[tokio::test]
async fn what_is_lost_is_shown_and_what_is_a_riddle_is_not_removed_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::on(2, open(&dir.path().join("db")).await).await;
    let narrowed = world.ask_create().await.unwrap();
    let lost = world.ask_create().await.unwrap();
    world.settle().await.unwrap();
    let copy = dir.path().join("copy");
    file::snapshot(&dir.path().join("db"), &copy).unwrap();
    world.ask_access(narrowed).await.unwrap();
    world.settle().await.unwrap();
    let store = &world.services.store;
    let access = store
        .find_instance(narrowed)
        .await
        .unwrap()
        .unwrap()
        .spec
        .access;
    let graph = store.get_instance_graph(lost).await.unwrap();
    world.provider.lose_volume_and_server(graph.volumes[0].id);
    restore(&mut world, &copy).await;
    // A server of which nobody knows what it is.
    let riddle = world
        .provider
        .strange_server(world.network_id, world.uuid());

    let report = look(&world).await;
    assert_eq!(ids(&report.lost), [lost.to_string()]);
    assert_eq!(ids(&report.changed_since), [narrowed.to_string()]);
    assert_eq!(report.unknown.len(), 2, "{report:?}");
    let report = confirm(&world, Confirmed::Keep).await;
    assert!(report.refused.is_some() && !report.is_settled, "{report:?}");
    assert!(world.services.store.is_restored().await.unwrap());
    assert!(look(&world).await.refused.is_some(), "it stays told");
    assert!(world.provider.server(riddle).is_some());

    let report = confirm(&world, Confirmed::Discard).await;
    assert!(report.is_settled, "{report:?}");
    world.settle().await.unwrap();
    // A volume goes after the server that has it.
    for _ in 0..2 {
        assert_eq!(world.reconcile().await.unwrap(), 1);
    }
    assert!(world.provider.server(riddle).is_none());
    assert_eq!(lifecycle(&world, lost).await, Some(Lifecycle::Failed));
    let store = &world.services.store;
    let after = store.find_instance(narrowed).await.unwrap().unwrap();
    assert_eq!(
        after.spec.access, access,
        "what was narrowed is not widened"
    );
    // The tenant deletes what is lost, and everything is as it should be.
    world.ask_delete(lost).await.unwrap();
    world.check().await.unwrap();
}

#[tokio::test]
async fn a_volume_type_that_was_lost_comes_back_with_its_limits() {
    let dir = tempfile::tempdir().unwrap();
    let mut world = World::on(4, open(&dir.path().join("db")).await).await;
    let copy = dir.path().join("copy");
    file::snapshot(&dir.path().join("db"), &copy).unwrap();
    offer_gold(&mut world, limits()).await;
    let created = world.ask_create().await.unwrap();
    world.settle().await.unwrap();
    restore(&mut world, &copy).await;
    let store = world.services.store.clone();
    assert_eq!(store.list_volume_types().await.unwrap(), []);
    look(&world).await;
    let report = confirm(&world, Confirmed::Keep).await;
    assert!(report.is_settled, "{report:?}");
    world.settle().await.unwrap();
    let found = store.find_volume_type("gold").await.unwrap().unwrap();
    assert_eq!(found.io, limits());
    let graph = store.get_instance_graph(created).await.unwrap();
    assert_eq!(graph.volume_type, Some(found));
    // What is in it is known again once the guest was asked.
    world.ask_root(created).await.unwrap();
    world.settle().await.unwrap();
    world.check().await.unwrap();
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_gives_its_task_back_at_once() {
    let world = World::new(3, Faults::exact(Vec::new())).await;
    let id = world.ask_create().await.unwrap();
    let token = CancellationToken::new();
    let worker = Worker::new(world.services.clone(), "ending".to_owned());
    let worker = worker.stopping_with(token.clone());
    let task = worker.claim(1).await.unwrap().pop().unwrap();
    token.cancel();
    worker.run_task(task).await.unwrap();
    // One step was done; the rest is for whoever comes next, without waiting for a lease to end.
    let tasks = world.services.store.list_tasks(id).await.unwrap();
    assert_eq!(tasks[0].state, TaskState::Ready);
    assert_eq!(tasks[0].owner, None);
    let history = world
        .services
        .store
        .list_history(tasks[0].id)
        .await
        .unwrap();
    assert_eq!(history.len(), 1, "{history:?}");
    let next = world.worker().claim(1).await.unwrap();
    assert_eq!(next.len(), 1);
    assert_eq!(next[0].id, tasks[0].id);
}
