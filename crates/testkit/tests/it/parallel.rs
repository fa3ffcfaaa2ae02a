//! After a reboot of the host everything is recovered at once, and no more of it at a time than a
//! limit says.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use coffer_control::limits;
use coffer_control::services::{Chaos, Verdict};
use coffer_control::supervise::Supervisor;
use coffer_control::taskmanager::Worker;
use coffer_control::taskmanager::periodic::reconcile::Reconciler;
use coffer_core::id::TaskId;
use coffer_core::quota::Resource;
use coffer_core::task::Task;
use coffer_testkit::chaos::Faults;
use coffer_testkit::world::World;

/// Instances of the host: half as many again as may be recovered at a time.
const INSTANCES: usize = limits::TASKS_AT_ONCE * 3 / 2;

/// Counts the recoveries that are in the middle of a call.
#[derive(Debug, Default)]
struct Gauge {
    now: Mutex<BTreeSet<TaskId>>,
    most: Mutex<usize>,
    seen: Mutex<BTreeSet<TaskId>>,
}

#[async_trait]
impl Chaos for Gauge {
    async fn before_commit(&self, task: &Task) -> Verdict {
        self.now.lock().unwrap().remove(&task.id);
        Verdict::Go
    }

    async fn after_commit(&self, _: &Task) -> Verdict {
        Verdict::Go
    }

    async fn before_call(&self, task: &Task) -> Verdict {
        assert_eq!(task.workflow, "recover_instance");
        self.seen.lock().unwrap().insert(task.id);
        let now = {
            let mut now = self.now.lock().unwrap();
            now.insert(task.id);
            now.len()
        };
        {
            let mut most = self.most.lock().unwrap();
            *most = now.max(*most);
        }
        // Whoever else may run comes as far as this.
        for _ in 0..INSTANCES * 4 {
            tokio::task::yield_now().await;
        }
        Verdict::Go
    }
}

#[tokio::test]
async fn recoveries_after_a_reboot_are_many_and_bounded() {
    let mut world = World::new(1, Faults::exact(Vec::new())).await;
    for &resource in Resource::ALL {
        let free = world
            .services
            .store
            .set_quota(&world.tenant_id, resource, -1);
        free.await.unwrap();
    }
    for _ in 0..INSTANCES {
        world.ask_create().await.unwrap();
    }
    world.settle().await.unwrap();
    for server in world.services.store.list_servers().await.unwrap() {
        world.provider.kill_server(server.id);
    }
    let gauge = Arc::new(Gauge::default());
    world.services.chaos = Some(gauge.clone());
    let status = Reconciler::new(world.services.clone()).once().await;
    assert_eq!(status.unwrap().recovered, INSTANCES);

    let supervisor = Supervisor::new();
    let worker = Arc::new(Worker::new(world.services.clone(), "one".to_owned()));
    supervisor.start("task manager", worker.run(supervisor.clone(), Vec::new()));
    let mut rounds = 0;
    while !world.unended().await.unwrap().is_empty() {
        rounds += 1;
        assert!(rounds < 10_000, "they do not end");
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
        world.clock.advance(Duration::from_millis(20));
    }
    assert_eq!(gauge.seen.lock().unwrap().len(), INSTANCES);
    assert_eq!(*gauge.most.lock().unwrap(), limits::TASKS_AT_ONCE);
    assert!(supervisor.panicked().is_none());
    supervisor.token().cancel();
}
