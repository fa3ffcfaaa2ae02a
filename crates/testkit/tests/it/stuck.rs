//! Tasks that cannot go on: ones whose step no worker here knows, and recoveries that fail.

use std::time::Duration;

use coffer_control::taskmanager::Worker;
use coffer_control::taskmanager::periodic::reconcile::Reconciler;
use coffer_core::id::InstanceId;
use coffer_core::task::{Task, TaskState};
use coffer_testkit::chaos::{Faults, Kind, Strike};
use coffer_testkit::world::World;

async fn with_instance(faults: Faults) -> (World, InstanceId) {
    let world = World::new(1, faults).await;
    let id = world.ask_create().await.unwrap();
    world.settle().await.unwrap();
    (world, id)
}

/// A restart at a step that only a later version knows; it holds the instance's locks.
async fn from_the_future(world: &World, id: InstanceId) -> Task {
    world.ask_restart(id).await.unwrap();
    let store = &world.services.store;
    let worker = Worker::new(world.services.clone(), "newer".to_owned());
    let mut task = worker.claim(1).await.unwrap().pop().unwrap();
    task.step = r#"{"step":"from_the_future"}"#.to_owned();
    let lost = worker.run_task(task.clone()).await;
    lost.unwrap();
    let task = store.find_task(task.id).await.unwrap().unwrap();
    assert_eq!(task.state, TaskState::Stuck);
    assert!(task.has_locks);
    task
}

#[tokio::test]
async fn a_delete_does_not_wait_for_a_task_that_nobody_knows() {
    let (world, id) = with_instance(Faults::exact(Vec::new())).await;
    let task = from_the_future(&world, id).await;
    world.ask_delete(id).await.unwrap();
    world.settle().await.unwrap();
    let task = world.services.store.find_task(task.id).await.unwrap();
    assert_eq!(task.unwrap().state, TaskState::Cancelled);
    world.check().await.unwrap();
}

#[tokio::test]
async fn what_nobody_knew_is_looked_at_again_after_a_while() {
    let (world, id) = with_instance(Faults::exact(Vec::new())).await;
    let task = from_the_future(&world, id).await;
    let mut reconciler = Reconciler::new(world.services.clone());
    assert_eq!(reconciler.once().await.unwrap().revived, 0);
    world.clock.advance(Duration::from_secs(61));
    assert_eq!(reconciler.once().await.unwrap().revived, 1);
    let worker = Worker::new(world.services.clone(), "older".to_owned());
    let again = worker.claim(1).await.unwrap().pop().unwrap();
    assert_eq!(again.id, task.id);
}

#[tokio::test]
async fn recoveries_that_fail_are_asked_for_less_and_less_often() {
    let strike = Strike {
        kind: Kind::Rejected,
        workflow: "recover_instance".to_owned(),
        step: "ensure_server".to_owned(),
        call: None,
        times: u32::MAX,
    };
    let (world, id) = with_instance(Faults::exact(vec![strike])).await;
    let store = &world.services.store;
    let server = store.list_servers().await.unwrap().remove(0);
    world.provider.kill_server(server.id);
    let mut reconciler = Reconciler::new(world.services.clone());
    for _ in 0..120 {
        reconciler.once().await.unwrap();
        world.settle().await.unwrap();
        world.clock.advance(Duration::from_millis(500));
    }
    let ends = store.list_ends(id, "recover_instance", 200).await.unwrap();
    assert!(ends.iter().all(|end| end.0 == TaskState::Failed));
    assert!((3..=6).contains(&ends.len()), "{ends:?}");

    world.faults.stop();
    world.clock.advance(Duration::from_secs(60));
    reconciler.once().await.unwrap();
    world.settle().await.unwrap();
    let ends = store.list_ends(id, "recover_instance", 1).await.unwrap();
    assert_eq!(ends[0].0, TaskState::Done);
}
