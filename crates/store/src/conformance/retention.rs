//! Old history goes, a bounded number of rows at a time; what lives, or is named, stays.

use coffer_core::event::AuditEntry;
use coffer_core::id::{AuditId, InstanceId, TaskId};
use coffer_core::server::{Volume, VolumeRole};
use coffer_core::task::{Task, TaskState, TaskStepRecord};
use coffer_store::instance::InstanceFilter;
use coffer_store::{Store, Write};

use super::instances::{delete, write_as};
use super::world::{World, actor, at, commit, event, id, task};
use crate::fixture::Fixture;

/// A task of this instance that ended so many seconds after the beginning.
async fn ended(
    store: &Store,
    instance_id: Option<InstanceId>,
    (workflow, state): (&str, TaskState),
    seconds: i64,
) -> TaskId {
    let one = Task {
        workflow: workflow.to_owned(),
        state,
        created_at: at(seconds),
        updated_at: at(seconds),
        ..task("one", instance_id)
    };
    store.insert_task(&one).await.unwrap();
    one.id
}

pub(crate) async fn old_tasks_go_and_the_newest_of_a_kind_stays(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let new = world.create(store, "db").await;
    let of = Some(new.instance.id);
    let (recover, renew) = ("recover_instance", "renew_certificates");
    let mut failed = Vec::new();
    for second in 10..15 {
        failed.push(ended(store, of, (recover, TaskState::Failed), second).await);
    }
    let kept = [
        failed.pop().unwrap(),
        ended(store, of, (renew, TaskState::Done), 1).await,
        ended(store, of, (recover, TaskState::Done), 2).await,
        ended(store, of, (recover, TaskState::Stuck), 2).await,
        new.task.id,
    ];
    let orphan = ended(store, None, (renew, TaskState::Done), 3).await;
    assert_eq!(store.delete_old_tasks(at(12), 1).await.unwrap(), 1);
    assert_eq!(store.delete_old_tasks(at(12), 9).await.unwrap(), 2);
    assert_eq!(store.delete_old_tasks(at(12), 9).await.unwrap(), 0);
    assert_eq!(store.delete_old_tasks(at(99), 9).await.unwrap(), 2);
    for one in failed.into_iter().chain([orphan]) {
        assert_eq!(store.find_task(one).await.unwrap(), None);
    }
    for one in kept {
        assert!(store.find_task(one).await.unwrap().is_some());
    }
}

pub(crate) async fn old_steps_of_a_task_without_end_go(fixture: &Fixture) {
    let store = fixture.store();
    store.insert_task(&task("one", None)).await.unwrap();
    let mut running = store.claim_tasks("w", at(0), 1).await.unwrap().remove(0);
    let record = |seconds| TaskStepRecord {
        version: 0,
        step: "\"Begin\"".to_owned(),
        outcome: "retry".to_owned(),
        message: "not yet".to_owned(),
        source: "here:1".to_owned(),
        took_ms: 1,
        at: at(seconds),
    };
    let records: Vec<_> = (0..110).map(record).collect();
    for one in records {
        let mut step = commit(&running, "w", TaskState::Running);
        step.record = Some(one);
        running.version = store.commit_step(&step).await.unwrap();
    }
    assert_eq!(store.delete_old_steps(at(5), 3).await.unwrap(), 3);
    assert_eq!(store.delete_old_steps(at(5), 9).await.unwrap(), 2);
    let removed = store.delete_old_steps(at(1_000), 99).await.unwrap();
    assert!((1..10).contains(&removed), "{removed}");
    let left = store.list_history(running.id).await.unwrap();
    assert!((100..=101).contains(&left.len()), "{}", left.len());
}

pub(crate) async fn old_events_and_audit_lines_go(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let of = world.create(store, "db").await.instance.id;
    for seconds in 1..5 {
        let mut one = event("one", of);
        one.at = at(seconds);
        store.insert_event(&one).await.unwrap();
        let line = AuditEntry {
            id: id(AuditId::from_uuid),
            actor: actor("one"),
            action: "instance:create".to_owned(),
            target: "instance".to_owned(),
            outcome: 202,
            at: at(seconds),
        };
        store.insert_audit(&line).await.unwrap();
    }
    assert_eq!(store.delete_old_events(at(3), 2).await.unwrap(), 2);
    assert_eq!(store.delete_old_events(at(3), 2).await.unwrap(), 1);
    let left = store.list_events(of, None, 9).await.unwrap();
    assert_eq!(
        left.iter().map(|e| e.at).collect::<Vec<_>>(),
        [at(3), at(4)]
    );
    assert_eq!(store.delete_old_audit(at(3), 9).await.unwrap(), 2);
    let left = store.list_audit(None, None, 9).await.unwrap();
    assert_eq!(
        left.iter().map(|l| l.at).collect::<Vec<_>>(),
        [at(3), at(4)]
    );
}

/// The row of a deleted instance goes last, when nothing names it any more.
pub(crate) async fn deleted_instances_go_last(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let (gone, lives) = (
        world.create(store, "a").await,
        world.create(store, "b").await,
    );
    let gone_id = gone.instance.id;
    let snapshot = Volume {
        id: id(coffer_core::id::VolumeId::from_uuid),
        role: VolumeRole::Snapshot,
        ..gone.volume.clone()
    };
    let put = vec![Write::PutVolume(snapshot.clone())];
    write_as(store, &task("one", None), put).await;
    write_as(store, &gone.task, Vec::new()).await;
    delete(store, &gone).await;
    let removed = async |seconds| store.delete_old_instances(at(seconds), 9).await.unwrap();
    assert_eq!(removed(99).await, 0, "its tasks name it");
    assert!(store.delete_old_tasks(at(2_000_000), 9).await.unwrap() >= 2);
    assert_eq!(removed(99).await, 0, "its events name it");
    assert!(store.delete_old_events(at(99), 9).await.unwrap() >= 2);
    assert_eq!(removed(99).await, 0, "its snapshot names it");
    let dropped = vec![Write::DeleteVolume(snapshot.id)];
    write_as(store, &task("one", None), dropped).await;
    assert_eq!(removed(2).await, 0, "it is not so old");
    assert_eq!(removed(3).await, 1);
    assert!(store.get_instance_graph(gone_id).await.is_err());
    let (left, _) = store
        .list_instances(&InstanceFilter::default(), None, 9)
        .await
        .unwrap();
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].instance.id, lives.instance.id);
}
