//! Somebody sets the clock by an hour, forwards and back, while something is under way; or nobody
//! is there for hours, or another task is in the way.

use std::time::Duration;

use coffer_control::clock::Clock;
use coffer_control::taskmanager::Worker;
use coffer_core::instance::Lifecycle;
use coffer_core::task::Task;
use coffer_testkit::chaos::Faults;
use coffer_testkit::world::World;

/// Runs what is due until a task waits.
async fn some_steps(world: &World, worker: &Worker) {
    for task in worker.claim(4).await.unwrap() {
        worker.run_task(task).await.unwrap();
    }
    assert!(
        !world.unended().await.unwrap().is_empty(),
        "it ended too soon"
    );
}

#[tokio::test]
async fn a_clock_that_is_set_by_an_hour_neither_fails_nor_delays_anything() {
    for jump in [3_600, -3_600, 86_400, -86_400] {
        let world = World::new(7, Faults::exact(Vec::new())).await;
        let id = world.ask_create().await.unwrap();
        let worker = world.worker();
        some_steps(&world, &worker).await;
        let waiting = world.unended().await.unwrap();
        let deadline = waiting[0].deadline.unwrap();
        world.clock.jump(jump);
        let begun = world.clock.monotonic();
        // The worker that saw the clock jump sets the waits; another one may then go on.
        worker.claim(0).await.unwrap();
        let moved = world.unended().await.unwrap()[0].deadline.unwrap();
        assert_eq!(moved, deadline.plus_seconds(jump), "{jump}");
        world.settle().await.unwrap();
        let found = world.services.store.find_instance(id).await.unwrap();
        assert_eq!(found.unwrap().lifecycle, Lifecycle::Active, "{jump}");
        let took = world.clock.monotonic() - begun;
        assert!(took < Duration::from_secs(120), "{jump}: {took:?}");
        let tasks = world.services.store.list_tasks(id).await.unwrap();
        assert!(tasks.iter().all(|task| task.error.is_none()), "{tasks:?}");
        world.ask_delete(id).await.unwrap();
        world.check().await.unwrap();
    }
}

#[tokio::test]
async fn two_processes_that_notice_one_jump_shift_once() {
    let world = World::new(8, Faults::exact(Vec::new())).await;
    world.ask_create().await.unwrap();
    let (one, two) = (world.worker(), world.worker());
    some_steps(&world, &one).await;
    let deadline = world.unended().await.unwrap()[0].deadline;
    world.clock.jump(3_600);
    for worker in [&one, &two] {
        worker.claim(0).await.unwrap();
    }
    let moved = world.unended().await.unwrap()[0].deadline;
    assert_eq!(moved, deadline.map(|at| at.plus_seconds(3_600)));
    // Set back, it is another jump.
    world.clock.jump(-3_600);
    for worker in [&one, &two] {
        worker.claim(0).await.unwrap();
    }
    assert_eq!(world.unended().await.unwrap()[0].deadline, deadline);
}

/// Claims and runs what is due, once.
async fn look(worker: &Worker) {
    for task in worker.claim(4).await.unwrap() {
        worker.run_task(task).await.unwrap();
    }
}

fn is_for_engine(task: &Task) -> bool {
    let wait = task.wait.as_ref();
    wait.is_some_and(|wait| wait.reason == "engine.starting")
}

/// Runs a create until it waits for an engine that takes hours.
async fn until_it_waits_for_its_engine(world: &World, worker: &Worker) {
    world.guests.start_within(9_000_000);
    while !is_for_engine(&world.unended().await.unwrap()[0]) {
        look(worker).await;
        world.clock.advance(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn a_clock_that_is_set_in_the_middle_of_a_step_is_followed_too() {
    for jump in [3_600, -3_600] {
        let world = World::new(10, Faults::exact(Vec::new())).await;
        let id = world.ask_create().await.unwrap();
        let worker = world.worker();
        until_it_waits_for_its_engine(&world, &worker).await;
        world.clock.advance(Duration::from_secs(3));
        let deadline = world.unended().await.unwrap()[0].deadline.unwrap();

        world.guests.freeze(true);
        let mut claimed = worker.claim(4).await.unwrap();
        let step = worker.run_task(claimed.remove(0));
        let set = async {
            world.clock.jump(jump);
            worker.claim(0).await.unwrap();
            world.guests.freeze(false);
            world.clock.advance(Duration::from_secs(1));
        };
        let (ran, ()) = tokio::join!(step, set);
        ran.unwrap();

        let left = world.unended().await.unwrap().remove(0);
        assert!(is_for_engine(&left) && left.error.is_none(), "{left:?}");
        assert_eq!(left.deadline, Some(deadline.plus_seconds(jump)), "{jump}");
        let sleeps_ms = left.run_at.millis_since(world.services.clock.now());
        assert!((0..5_000).contains(&sleeps_ms), "{jump}: {sleeps_ms} ms");
        world.guests.start_within(0);
        world.settle().await.unwrap();
        let found = world.services.store.find_instance(id).await.unwrap();
        assert_eq!(found.unwrap().lifecycle, Lifecycle::Active, "{jump}");
    }
}

#[tokio::test]
async fn hours_in_which_nobody_works_make_no_step_late() {
    for serves_at_last in [true, false] {
        let world = World::new(9, Faults::exact(Vec::new())).await;
        let id = world.ask_create().await.unwrap();
        let worker = world.worker();
        until_it_waits_for_its_engine(&world, &worker).await;

        // Coffer is down. What comes up after it sees an engine that does not serve yet.
        drop(worker);
        world.clock.advance(Duration::from_secs(7_200));
        look(&world.worker()).await;
        let left = world.unended().await.unwrap();
        assert!(
            is_for_engine(&left[0]) && left[0].error.is_none(),
            "{left:?}"
        );
        assert!(left[0].deadline > Some(world.services.clock.now()));

        if serves_at_last {
            world.guests.start_within(0);
        }
        world.settle().await.unwrap();
        let found = world.services.store.find_instance(id).await.unwrap();
        let lifecycle = match serves_at_last {
            true => Lifecycle::Active,
            false => Lifecycle::Failed,
        };
        assert_eq!(found.unwrap().lifecycle, lifecycle);
    }
}

#[tokio::test]
async fn waiting_for_a_lock_makes_no_step_late() {
    let world = World::new(11, Faults::exact(Vec::new())).await;
    let id = world.ask_create().await.unwrap();
    world.settle().await.unwrap();
    let worker = world.worker();
    world.guests.start_within(200_000);
    world.ask_restart(id).await.unwrap();
    look(&worker).await;
    world.ask_root(id).await.unwrap();
    for _ in 0..150 {
        look(&worker).await;
        let now = world.services.clock.now();
        let tasks = world.unended().await.unwrap();
        let blocked = tasks.iter().find(|task| {
            let wait = task.wait.as_ref();
            wait.is_some_and(|wait| wait.reason == "lock.held")
        });
        let blocked = blocked.expect("the restart takes longer");
        assert!(now.millis_since(blocked.step_at) < 5_000, "{blocked:?}");
        world.clock.advance(Duration::from_secs(1));
    }
    world.settle().await.unwrap();
    let tasks = world.services.store.list_tasks(id).await.unwrap();
    assert_eq!(tasks.len(), 3);
    assert!(tasks.iter().all(|task| task.error.is_none()), "{tasks:?}");
}
