//! Locks between tasks.

use coffer_core::task::{LockKind, LockMode, LockRequest, Signal, Task, TaskState, Wait};
use coffer_store::lock::{Acquire, LOCK_HELD, LockOutcome};
use coffer_store::{Store, StoreError};

use super::world::{at, commit, task};
use crate::fixture::Fixture;

/// A task that runs, owned by the worker `w`.
pub(crate) async fn running(store: &Store, priority: i64) -> Task {
    let mut one = task("one", None);
    (one.state, one.owner, one.priority) = (TaskState::Running, Some("w".to_owned()), priority);
    store.insert_task(&one).await.unwrap();
    one
}

fn lock(object: &str, mode: LockMode) -> LockRequest {
    LockRequest {
        kind: LockKind::Instance,
        id: object.to_owned(),
        mode,
    }
}

async fn ask(store: &Store, task: &Task, locks: &[LockRequest], preempt: bool) -> LockOutcome {
    let (task_id, version) = (task.id, task.version);
    let ask = Acquire {
        task_id,
        version,
        owner: "w",
        locks,
        preempt,
        now: at(1),
    };
    store.acquire_locks(&ask).await.unwrap()
}

fn blocked_by(task: &Task) -> LockOutcome {
    LockOutcome::Blocked {
        by: task.id,
        workflow: task.workflow.clone(),
    }
}

pub(crate) async fn exclusive_excludes(fixture: &Fixture) {
    let store = fixture.store();
    let (a, b, c) = (
        running(store, 5).await,
        running(store, 5).await,
        running(store, 5).await,
    );
    let (shared, exclusive) = (lock("x", LockMode::Shared), lock("x", LockMode::Exclusive));
    assert_eq!(
        ask(store, &a, std::slice::from_ref(&shared), false).await,
        LockOutcome::Acquired
    );
    assert_eq!(
        ask(store, &b, std::slice::from_ref(&shared), false).await,
        LockOutcome::Acquired
    );
    assert_eq!(
        ask(store, &c, std::slice::from_ref(&exclusive), false).await,
        blocked_by(&a)
    );
    assert!(store.find_task(a.id).await.unwrap().unwrap().has_locks);
    for task in [&a, &b] {
        store
            .commit_step(&commit(task, "w", TaskState::Done))
            .await
            .unwrap();
    }
    assert_eq!(
        ask(store, &c, &[exclusive], false).await,
        LockOutcome::Acquired
    );
    let d = running(store, 5).await;
    assert_eq!(ask(store, &d, &[shared], false).await, blocked_by(&c));
    let held = store.list_locks(LockKind::Instance, "x").await.unwrap();
    assert_eq!(held.len(), 1);
    assert_eq!((held[0].task_id, held[0].mode), (c.id, LockMode::Exclusive));

    let late = Acquire {
        task_id: c.id,
        version: c.version + 1,
        owner: "w",
        locks: &[],
        preempt: false,
        now: at(1),
    };
    let refused = store.acquire_locks(&late).await;
    assert!(
        matches!(refused, Err(StoreError::Stale { .. })),
        "{refused:?}"
    );
}

pub(crate) async fn all_or_none(fixture: &Fixture) {
    let store = fixture.store();
    let (a, b) = (running(store, 5).await, running(store, 5).await);
    let all = ["x", "y", "z"].map(|object| lock(object, LockMode::Exclusive));
    assert_eq!(
        ask(store, &a, &all[1..2], false).await,
        LockOutcome::Acquired
    );
    assert_eq!(ask(store, &b, &all, false).await, blocked_by(&a));
    assert_eq!(store.list_locks(LockKind::Instance, "x").await.unwrap(), []);
    assert_eq!(store.list_locks(LockKind::Instance, "z").await.unwrap(), []);
    assert!(!store.find_task(b.id).await.unwrap().unwrap().has_locks);
}

pub(crate) async fn own_locks_count_as_held(fixture: &Fixture) {
    let store = fixture.store();
    let a = running(store, 5).await;
    let (shared, exclusive) = (lock("x", LockMode::Shared), lock("x", LockMode::Exclusive));
    for request in [&shared, &exclusive, &shared] {
        let got = ask(store, &a, std::slice::from_ref(request), false).await;
        assert_eq!(got, LockOutcome::Acquired);
    }
    let held = store.list_locks(LockKind::Instance, "x").await.unwrap();
    assert_eq!(
        held.iter().map(|held| held.mode).collect::<Vec<_>>(),
        [LockMode::Exclusive]
    );
    let mut step = commit(&a, "w", TaskState::Running);
    step.update.release_locks = true;
    store.commit_step(&step).await.unwrap();
    assert_eq!(store.list_locks(LockKind::Instance, "x").await.unwrap(), []);
    assert!(!store.find_task(a.id).await.unwrap().unwrap().has_locks);
}

pub(crate) async fn preemption_tells_lesser_holders(fixture: &Fixture) {
    let store = fixture.store();
    let (low, high) = (running(store, 5).await, running(store, 100).await);
    let shared = [lock("x", LockMode::Shared)];
    for task in [&low, &high] {
        assert_eq!(
            ask(store, task, &shared, false).await,
            LockOutcome::Acquired
        );
    }
    let delete = running(store, 100).await;
    let exclusive = [lock("x", LockMode::Exclusive)];
    assert_eq!(
        ask(store, &delete, &exclusive, true).await,
        blocked_by(&high)
    );
    assert_eq!(store.list_signals(low.id).await.unwrap(), [Signal::Delete]);
    assert_eq!(store.list_signals(high.id).await.unwrap(), []);
    for task in [&low, &high] {
        store
            .commit_step(&commit(task, "w", TaskState::Cancelled))
            .await
            .unwrap();
    }
    assert_eq!(
        ask(store, &delete, &exclusive, true).await,
        LockOutcome::Acquired
    );
}

/// Commits a wait for a lock until the end of an hour; gives when it is due then.
async fn wait_for_lock(store: &Store, task: &Task) -> coffer_core::time::Timestamp {
    let mut step = commit(task, "w", TaskState::Ready);
    step.update.run_at = at(3_600);
    step.update.wait = Some(Wait {
        reason: LOCK_HELD.to_owned(),
        message: "another task works on it".to_owned(),
        unblocked_by: "task".to_owned(),
        since: at(1),
    });
    store.commit_step(&step).await.unwrap();
    store.find_task(task.id).await.unwrap().unwrap().run_at
}

pub(crate) async fn release_wakes_the_blocked(fixture: &Fixture) {
    let store = fixture.store();
    let holder = running(store, 5).await;
    let (early, late) = (running(store, 5).await, running(store, 5).await);
    let exclusive = [lock("x", LockMode::Exclusive)];
    assert_eq!(
        ask(store, &holder, &exclusive, false).await,
        LockOutcome::Acquired
    );
    for task in [&early, &late] {
        assert_eq!(
            ask(store, task, &exclusive, false).await,
            blocked_by(&holder)
        );
    }
    assert_eq!(wait_for_lock(store, &early).await, at(3_600));
    store
        .commit_step(&commit(&holder, "w", TaskState::Done))
        .await
        .unwrap();
    assert_eq!(
        store.find_task(early.id).await.unwrap().unwrap().run_at,
        at(1)
    );
    let due = wait_for_lock(store, &late).await;
    assert_eq!(
        due,
        at(1),
        "the lock was let go before the wait was committed"
    );
}
