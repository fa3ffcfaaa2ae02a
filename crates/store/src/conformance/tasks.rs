//! Tasks: claims, commits, leases, signals, wake-ups.

use std::time::Duration;

use coffer_core::task::{Signal, Task, TaskState, TaskStepRecord, Wait};
use coffer_core::units::Generation;
use coffer_store::{Store, StoreError, Write};

use super::world::{World, as_seen, at, commit, id, task};
use crate::fixture::Fixture;

async fn claim_one(store: &Store, worker: &str) -> Task {
    let mut claimed = store.claim_tasks(worker, at(1), 1).await.unwrap();
    assert_eq!(claimed.len(), 1);
    claimed.pop().unwrap()
}

pub(crate) async fn claims_follow_priority_and_time(fixture: &Fixture) {
    let store = fixture.store();
    let order = [(100, 5), (50, 1), (50, 2), (1, 0), (200, 6)];
    let mut tasks = Vec::new();
    for (priority, seconds) in order {
        let one = Task {
            priority,
            run_at: at(seconds),
            ..task("one", None)
        };
        store.insert_task(&one).await.unwrap();
        tasks.push(one);
    }
    assert_eq!(store.next_due().await.unwrap(), Some(at(0)));
    let claimed = store.claim_tasks("w", at(5), 3).await.unwrap();
    let expected: Vec<Task> = tasks[..3]
        .iter()
        .map(|task| Task {
            state: TaskState::Running,
            owner: Some("w".to_owned()),
            version: 2,
            lease: 1,
            updated_at: at(5),
            ..task.clone()
        })
        .collect();
    assert_eq!(claimed, expected);
    let rest = store.claim_tasks("w", at(5), 3).await.unwrap();
    assert_eq!(
        rest.iter().map(|task| task.id).collect::<Vec<_>>(),
        [tasks[3].id]
    );
    assert_eq!(store.next_due().await.unwrap(), Some(at(6)));
    assert_eq!(store.claim_tasks("w", at(5), 3).await.unwrap(), []);
    assert_eq!(store.list_running().await.unwrap().len(), 4);
}

pub(crate) async fn tasks_are_given_back(fixture: &Fixture) {
    let store = fixture.store();
    store.insert_task(&task("one", None)).await.unwrap();
    let claimed = claim_one(store, "w").await;
    let give = |version, owner| store.hand_back(claimed.id, version, owner, at(1));
    assert!(!give(claimed.version, "other").await.unwrap());
    assert!(!give(claimed.version + 1, "w").await.unwrap());
    assert!(give(claimed.version, "w").await.unwrap());
    assert!(!give(claimed.version, "w").await.unwrap());
    let open = store.list_open_tasks().await.unwrap();
    assert_eq!(open[0].workflow, claimed.workflow);
    assert_eq!(
        (&open[0].step, &open[0].input),
        (&claimed.step, &claimed.input)
    );
    // Another has it at once, and its first owner nothing more to say.
    let next = claim_one(store, "next").await;
    assert_eq!(next.id, claimed.id);
    assert!(next.version > claimed.version + 1 && next.owner.as_deref() == Some("next"));
    let late = store
        .commit_step(&commit(&claimed, "w", TaskState::Done))
        .await;
    assert!(matches!(late, Err(StoreError::Stale { .. })), "{late:?}");
}

pub(crate) async fn commits_compare(fixture: &Fixture) {
    let store = fixture.store();
    store.insert_task(&task("one", None)).await.unwrap();
    let claimed = claim_one(store, "w").await;
    let mut foreign = commit(&claimed, "other", TaskState::Done);
    let refused = store.commit_step(&foreign).await;
    assert!(
        matches!(refused, Err(StoreError::Stale { .. })),
        "{refused:?}"
    );
    foreign = commit(&claimed, "w", TaskState::Running);
    foreign.version += 1;
    let refused = store.commit_step(&foreign).await;
    assert!(
        matches!(refused, Err(StoreError::Stale { .. })),
        "{refused:?}"
    );

    let mut good = commit(&claimed, "w", TaskState::Running);
    let version = store.commit_step(&good).await.unwrap();
    assert_eq!(version, claimed.version + 1);
    let refused = store.commit_step(&good).await;
    assert!(
        matches!(refused, Err(StoreError::Stale { .. })),
        "{refused:?}"
    );
    good.version = version;
    good.update.state = TaskState::Done;
    good.update.output = Some("7".to_owned());
    store.commit_step(&good).await.unwrap();
    let stored = store.find_task(claimed.id).await.unwrap().unwrap();
    assert_eq!(
        (stored.state, stored.owner, stored.output.as_deref()),
        (TaskState::Done, None, Some("7"))
    );
    good.version += 1;
    let refused = store.commit_step(&good).await;
    assert!(
        matches!(refused, Err(StoreError::Stale { .. })),
        "{refused:?}"
    );
}

pub(crate) async fn commits_are_atomic(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let new = world.create(store, "db").await;
    let claimed = claim_one(store, "w").await;
    let mut bad = commit(&claimed, "w", TaskState::Running);
    bad.record = Some(record("next"));
    bad.writes = vec![
        Write::DeleteVolume(new.volume.id),
        Write::SetPrimary {
            set_id: new.set.id,
            instance_id: None,
            generation: Generation(1),
        },
    ];
    let refused = store.commit_step(&bad).await;
    assert!(
        matches!(refused, Err(StoreError::Stale { .. })),
        "{refused:?}"
    );
    assert_eq!(
        store.find_volume(new.volume.id).await.unwrap(),
        Some(new.volume.clone())
    );
    assert_eq!(
        store.find_task(claimed.id).await.unwrap(),
        Some(claimed.clone())
    );
    assert_eq!(store.list_history(claimed.id).await.unwrap(), []);
    bad.writes.pop();
    store.commit_step(&bad).await.unwrap();
    assert_eq!(store.find_volume(new.volume.id).await.unwrap(), None);
}

fn record(outcome: &str) -> TaskStepRecord {
    TaskStepRecord {
        version: 0,
        step: "\"Begin\"".to_owned(),
        outcome: outcome.to_owned(),
        message: "because".to_owned(),
        source: "create_instance.rs:7".to_owned(),
        took_ms: 3,
        at: at(1),
    }
}

pub(crate) async fn history_is_kept(fixture: &Fixture) {
    let store = fixture.store();
    store.insert_task(&task("one", None)).await.unwrap();
    let mut claimed = claim_one(store, "w").await;
    for outcome in ["next", "retry", "wait"] {
        let mut step = commit(&claimed, "w", TaskState::Running);
        step.record = Some(record(outcome));
        claimed.version = store.commit_step(&step).await.unwrap();
    }
    let expected =
        [(3, "next"), (4, "retry"), (5, "wait")].map(|(version, outcome)| TaskStepRecord {
            version,
            ..record(outcome)
        });
    assert_eq!(store.list_history(claimed.id).await.unwrap(), expected);
    let last = store.list_last_history(claimed.id, 1).await.unwrap();
    assert_eq!(last, expected[expected.len() - 1..]);
}

pub(crate) async fn leases_move_and_are_stolen(fixture: &Fixture) {
    let store = fixture.store();
    store.insert_task(&task("one", None)).await.unwrap();
    let claimed = claim_one(store, "w").await;
    assert!(
        store
            .renew_lease(claimed.id, claimed.version, "w")
            .await
            .unwrap()
    );
    assert!(
        !store
            .renew_lease(claimed.id, claimed.version, "x")
            .await
            .unwrap()
    );
    assert!(
        !store
            .renew_lease(claimed.id, claimed.version - 1, "w")
            .await
            .unwrap()
    );
    let seen = store.list_running().await.unwrap().pop().unwrap();
    assert_eq!((seen.owner.as_str(), seen.lease), ("w", claimed.lease + 1));
    assert_eq!(seen.version, claimed.version);

    let moved = store
        .steal_task(&as_seen(&claimed), "x", at(2))
        .await
        .unwrap();
    assert_eq!(moved, None, "the lease moved since");
    let stolen = store.steal_task(&seen, "x", at(2)).await.unwrap().unwrap();
    assert_eq!(
        (stolen.owner.as_deref(), stolen.version),
        (Some("x"), seen.version + 1)
    );
    assert!(
        !store
            .renew_lease(claimed.id, claimed.version, "w")
            .await
            .unwrap()
    );
    let late = store
        .commit_step(&commit(&claimed, "w", TaskState::Done))
        .await;
    assert!(matches!(late, Err(StoreError::Stale { .. })), "{late:?}");
    store
        .commit_step(&commit(&stolen, "x", TaskState::Done))
        .await
        .unwrap();
    let mut ended = as_seen(&stolen);
    ended.version += 1;
    ended.lease += 1;
    let taken = store.steal_task(&ended, "y", at(2)).await;
    assert_eq!(taken.unwrap(), None);
}

pub(crate) async fn nothing_is_late_for_lying_about(fixture: &Fixture) {
    let store = fixture.store();
    store.insert_task(&task("one", None)).await.unwrap();
    let claimed = claim_one(store, "w").await;
    let mut step = commit(&claimed, "w", TaskState::Ready);
    (step.update.step_at, step.update.run_at) = (at(1), at(5));
    step.update.deadline = Some(at(61));
    store.commit_step(&step).await.unwrap();

    // Ten seconds are no time.
    let times = |task: &Task| (task.step_at, task.deadline);
    let claimed = store.claim_tasks("w", at(15), 1).await.unwrap().remove(0);
    assert_eq!(times(&claimed), (at(1), Some(at(61))));
    let stolen = store.steal_task(&as_seen(&claimed), "x", at(25)).await;
    let stolen = stolen.unwrap().unwrap();
    assert_eq!(times(&stolen), (at(1), Some(at(61))));

    // The worker died at something, and for an hour nobody was there.
    let stolen = store.steal_task(&as_seen(&stolen), "y", at(3_625)).await;
    let stolen = stolen.unwrap().unwrap();
    assert_eq!(times(&stolen), (at(3_601), Some(at(3_661))));
    assert_eq!(stolen.updated_at, at(3_625));

    // It was due, and for an hour nobody was there.
    let mut step = commit(&stolen, "y", TaskState::Ready);
    (step.update.step_at, step.update.run_at) = (at(3_601), at(3_630));
    step.update.deadline = None;
    store.commit_step(&step).await.unwrap();
    let claimed = store.claim_tasks("w", at(7_230), 1).await.unwrap();
    assert_eq!(times(&claimed[0]), (at(7_201), None));

    // What was heard an hour ago was written only now: that hour it was looked at.
    let mut step = commit(&claimed[0], "w", TaskState::Ready);
    (step.update.step_at, step.update.run_at) = (at(7_201), at(3_640));
    step.now = at(7_230);
    store.commit_step(&step).await.unwrap();
    let claimed = store.claim_tasks("w", at(7_230), 1).await.unwrap();
    assert_eq!(times(&claimed[0]), (at(7_201), None));

    // For an hour nobody who was there knew its step.
    let mut step = commit(&claimed[0], "w", TaskState::Stuck);
    (step.update.step_at, step.now) = (at(7_201), at(7_230));
    store.commit_step(&step).await.unwrap();
    let revived = store.revive_stuck(at(10_000), at(10_830)).await.unwrap();
    assert_eq!(revived, 1);
    let claimed = store.claim_tasks("w", at(10_831), 1).await.unwrap();
    assert_eq!(times(&claimed[0]), (at(10_801), None));
}

/// Commits a wait of an hour; gives the task as it is stored then.
async fn wait_an_hour(store: &Store, claimed: &Task) -> Task {
    let mut step = commit(claimed, "w", TaskState::Ready);
    step.update.run_at = at(3_600);
    store.commit_step(&step).await.unwrap();
    store.find_task(claimed.id).await.unwrap().unwrap()
}

pub(crate) async fn signals_end_waits(fixture: &Fixture) {
    let store = fixture.store();
    store.insert_task(&task("one", None)).await.unwrap();
    let claimed = claim_one(store, "w").await;
    assert_eq!(wait_an_hour(store, &claimed).await.run_at, at(3_600));
    store
        .insert_signal(claimed.id, Signal::Wake, at(1))
        .await
        .unwrap();
    assert_eq!(store.next_due().await.unwrap(), Some(at(1)));

    let claimed = claim_one(store, "w").await;
    assert_eq!(
        store.list_signals(claimed.id).await.unwrap(),
        [Signal::Wake]
    );
    let waiting = wait_an_hour(store, &claimed).await;
    assert_eq!(
        waiting.run_at,
        at(3_600),
        "a signal that was seen ends no further wait"
    );
    store.clear_signal(claimed.id, Signal::Wake).await.unwrap();
    assert_eq!(store.list_signals(claimed.id).await.unwrap(), []);

    store
        .insert_signal(claimed.id, Signal::Wake, at(1))
        .await
        .unwrap();
    let claimed = claim_one(store, "w").await;
    store
        .insert_signal(claimed.id, Signal::Cancel, at(1))
        .await
        .unwrap();
    let waiting = wait_an_hour(store, &claimed).await;
    assert_eq!(
        waiting.run_at,
        at(1),
        "a signal that came while the step ran ends the wait"
    );
    let claimed = claim_one(store, "w").await;
    let mut end = commit(&claimed, "w", TaskState::Done);
    end.writes = vec![Write::ClearSignal(Signal::Cancel)];
    store.commit_step(&end).await.unwrap();
    store
        .insert_signal(claimed.id, Signal::Delete, at(1))
        .await
        .unwrap();
    assert_eq!(
        store.list_signals(claimed.id).await.unwrap(),
        [],
        "an ended task hears nothing"
    );
    let unknown = id(coffer_core::id::TaskId::from_uuid);
    let missing = store.insert_signal(unknown, Signal::Wake, at(1)).await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );
}

pub(crate) async fn commits_wake(fixture: &Fixture) {
    const BOUND: Duration = Duration::from_secs(20);
    let store = fixture.store();
    let mut near = store.subscribe();
    store.insert_task(&task("one", None)).await.unwrap();
    tokio::time::timeout(BOUND, near.wait())
        .await
        .expect("the same process is woken");
    store.wake().await.unwrap();
    tokio::time::timeout(BOUND, near.wait())
        .await
        .expect("woken by hand");
    let claimed = store.claim_tasks("worker", at(10), 1).await.unwrap();
    let end = commit(&claimed[0], "worker", TaskState::Done);
    near = store.subscribe();
    store.commit_step(&end).await.unwrap();
    tokio::time::timeout(BOUND, near.wait())
        .await
        .expect("the end of a task wakes who waits for it");
}

pub(crate) async fn commits_wake_other_processes(fixture: &Fixture) {
    const BOUND: Duration = Duration::from_secs(20);
    let (store, other) = (fixture.store(), &fixture.stores[1]);
    let mut far = other.subscribe();
    let told = async {
        // The first tells that it listens.
        far.wait().await;
        store.insert_task(&task("one", None)).await.unwrap();
        far.wait().await;
        store.wake().await.unwrap();
        far.wait().await;
    };
    tokio::select! {
        () = other.hear() => assert!(!fixture.has_notify(), "it hears for ever"),
        () = told => assert!(fixture.has_notify()),
        () = tokio::time::sleep(BOUND) => panic!("other processes are not woken"),
    }
}

pub(crate) async fn waits_are_kept(fixture: &Fixture) {
    let store = fixture.store();
    store.insert_task(&task("one", None)).await.unwrap();
    let claimed = claim_one(store, "w").await;
    let mut step = commit(&claimed, "w", TaskState::Ready);
    step.update.wait = Some(Wait {
        reason: "guest.unreachable".to_owned(),
        message: "the guest does not answer".to_owned(),
        unblocked_by: "guest".to_owned(),
        since: at(1),
    });
    step.update.run_at = at(9);
    step.update.deadline = Some(at(99));
    step.update.attempt = 4;
    step.update.error = Some("undoing".to_owned());
    store.commit_step(&step).await.unwrap();
    let stored = store.find_task(claimed.id).await.unwrap().unwrap();
    assert_eq!(
        (stored.wait, stored.deadline),
        (step.update.wait, Some(at(99)))
    );
    assert_eq!(
        (stored.attempt, stored.error.as_deref()),
        (4, Some("undoing"))
    );
    assert_eq!((stored.step.as_str(), stored.step_at), ("\"Next\"", at(1)));
    assert_eq!(
        (stored.state, stored.owner, stored.run_at),
        (TaskState::Ready, None, at(9))
    );
}
