//! Leases: whose they are, from when they count, how many are taken over at once.

use std::time::Duration;

use coffer_control::limits;
use coffer_control::taskmanager::{RunError, Worker};
use coffer_infra::Provider;
use coffer_testkit::chaos::Faults;
use coffer_testkit::world::World;

async fn world(instances: u32) -> World {
    let world = World::new(1, Faults::exact(Vec::new())).await;
    for _ in 0..instances {
        world.ask_create().await.unwrap();
    }
    world
}

fn worker(world: &World, name: &str) -> Worker {
    Worker::new(world.services.clone(), name.to_owned())
}

#[tokio::test]
async fn no_more_is_taken_over_than_there_are_free_slots() {
    let world = world(3).await;
    let dead = worker(&world, "dead");
    assert_eq!(dead.claim(3).await.unwrap().len(), 3);
    let alive = worker(&world, "alive");
    assert_eq!(
        alive.claim(2).await.unwrap().len(),
        0,
        "seen for the first time"
    );
    world.clock.advance(limits::LEASE);
    assert_eq!(alive.claim(2).await.unwrap().len(), 2);
    assert_eq!(alive.claim(2).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_lease_counts_from_its_claim_and_not_from_its_start() {
    let world = world(1).await;
    let holder = worker(&world, "holder");
    let task = holder.claim(1).await.unwrap().pop().unwrap();
    let thief = worker(&world, "thief");
    assert_eq!(thief.claim(1).await.unwrap().len(), 0);
    world.clock.advance(limits::LEASE + Duration::from_secs(1));
    assert_eq!(thief.claim(1).await.unwrap().len(), 1);

    let late = holder.run_task(task).await;
    assert!(matches!(late, Err(RunError::LeaseLost)), "{late:?}");
    let owned = world.provider.list_owned().await.unwrap();
    assert!(
        owned.is_empty(),
        "it called the provider all the same: {owned:?}"
    );
}

#[tokio::test]
async fn what_is_in_hand_is_not_taken_twice() {
    let world = world(1).await;
    let one = worker(&world, "one");
    let task = one.claim(1).await.unwrap().pop().unwrap();
    world.clock.advance(limits::LEASE * 2);
    assert_eq!(one.claim(4).await.unwrap().len(), 0, "it is about to run");
    drop(task);
}
