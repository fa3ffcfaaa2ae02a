//! Prints how many seconds the workflow runtime needs from step to step:
//! `step_overhead FILE COUNT`.
//!
//! FILE is a new SQLite file, written as durably as in production. COUNT instances are created one
//! after the other by the shipped worker, with a provider and guests that answer at once, so that
//! what is left is the runtime: the reads and the commit of each step, and the way to the next. The
//! little that the steps do themselves (two certificates, opening the sealed commands) counts too.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coffer_control::supervise::Supervisor;
use coffer_control::taskmanager::Worker;
use coffer_core::id::InstanceId;
use coffer_core::task::TaskState;
use coffer_store::{Store, StoreOptions, StoreUrl};
use coffer_testkit::world::World;

/// How often it is looked whether a task has ended.
const PACE: Duration = Duration::from_millis(2);
/// Longest time for one task.
const TASK_MAX: Duration = Duration::from_secs(60);
/// Longest time for the worker to stop.
const STOP_MAX: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [file, count] = words.as_slice() else {
        return Err("give FILE COUNT".into());
    };
    let url = StoreUrl::SqliteFile(PathBuf::from(file));
    let store = Store::open(&url, StoreOptions::default()).await?;
    let world = World::measured(store.clone()).await;
    let supervisor = Supervisor::new();
    let worker = Arc::new(Worker::new(world.services.clone(), "measured".to_owned()));
    supervisor.start("task manager", worker.run(supervisor.clone(), Vec::new()));
    let (mut steps, mut seconds) = (0_u32, 0.0);
    for _ in 0..count.parse::<u32>()? {
        let id = world.ask_create().await?;
        let begun = world.services.clock.monotonic();
        steps += steps_to_end(&world, id).await?;
        seconds += (world.services.clock.monotonic() - begun).as_secs_f64();
    }
    supervisor.stop(STOP_MAX).await;
    store.close().await;
    println!("{}", seconds / f64::from(steps));
    Ok(())
}

/// Waits for the end of an instance's creation; gives its number of steps.
async fn steps_to_end(world: &World, id: InstanceId) -> Result<u32, Box<dyn Error>> {
    let services = &world.services;
    let end = services.clock.monotonic() + TASK_MAX;
    loop {
        let tasks = services.store.list_tasks(id).await?;
        let task = tasks.first().ok_or("the creation has no task")?;
        match task.state {
            TaskState::Done => {
                let history = services.store.list_history(task.id).await?;
                return Ok(u32::try_from(history.len())?);
            }
            _ if services.clock.monotonic() > end => {
                return Err(format!("a creation does not end: {task:?}").into());
            }
            _ => services.clock.sleep(PACE).await,
        }
    }
}
