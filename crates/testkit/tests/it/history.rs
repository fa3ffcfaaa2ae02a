//! Old history is removed, a bounded number of rows in one run, and what lives keeps what is asked
//! of it.

use std::time::Duration;

use coffer_control::clock::Clock;
use coffer_control::config::Retention;
use coffer_control::limits;
use coffer_control::taskmanager::periodic::certificates::Renewer;
use coffer_control::taskmanager::periodic::history::{HistoryCleaner, HistoryStatus};
use coffer_core::event::{Event, Severity};
use coffer_core::id::EventId;
use coffer_testkit::chaos::Faults;
use coffer_testkit::world::World;

const DAY: Duration = Duration::from_secs(86_400);

fn cleaner(world: &World) -> HistoryCleaner {
    let clock = world.clock.clone();
    HistoryCleaner::new(world.services.store.clone(), clock, Retention::default())
}

#[tokio::test]
async fn what_is_deleted_is_forgotten_and_what_lives_keeps_its_newest() {
    let world = World::new(1, Faults::exact(Vec::new())).await;
    let lives = world.ask_create().await.unwrap();
    let gone = world.ask_create().await.unwrap();
    world.settle().await.unwrap();
    for _ in 0..3 {
        world.ask_restart(lives).await.unwrap();
        world.settle().await.unwrap();
    }
    world.ask_delete(gone).await.unwrap();
    world.settle().await.unwrap();
    let cleaner = cleaner(&world);
    assert_eq!(cleaner.once().await.unwrap(), HistoryStatus::default());

    world.clock.advance(31 * DAY);
    let status = cleaner.once().await.unwrap();
    // Two of three restarts, and the create and delete of what is gone.
    assert_eq!((status.tasks, status.instances), (4, 0));
    assert!(status.events > 0);
    world.clock.advance(60 * DAY);
    assert_eq!(cleaner.once().await.unwrap().instances, 1);
    assert_eq!(cleaner.once().await.unwrap(), HistoryStatus::default());

    let store = &world.services.store;
    assert_eq!(store.list_tasks(gone).await.unwrap().len(), 0);
    let kept = store.list_tasks(lives).await.unwrap();
    let names: Vec<_> = kept.iter().map(|task| task.workflow.as_str()).collect();
    assert_eq!(names, ["create_instance", "restart_instance"]);
    // Its certificates are still known to be fresh.
    let renewer = Renewer::new(world.services.clone());
    assert_eq!(renewer.once().await.unwrap(), 0);
}

#[tokio::test]
async fn one_run_removes_no_more_than_its_bound() {
    let world = World::new(1, Faults::exact(Vec::new())).await;
    let bound = u64::from(limits::RETENTION_BITE) * u64::from(limits::RETENTION_BITES);
    for _ in 0..bound + 7 {
        let event = Event {
            id: EventId::from_uuid(world.uuid()),
            tenant_id: world.tenant_id.clone(),
            instance_id: None,
            task_id: None,
            code: "instance.recover_failed".to_owned(),
            severity: Severity::Error,
            message: String::new(),
            actor: None,
            at: world.clock.now(),
        };
        world.services.store.insert_event(&event).await.unwrap();
    }
    world.clock.advance(31 * DAY);
    let cleaner = cleaner(&world);
    assert_eq!(cleaner.once().await.unwrap().events, bound);
    assert_eq!(cleaner.once().await.unwrap().events, 7);
}
