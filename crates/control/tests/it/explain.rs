//! Why an instance is as it is, in words.

use std::time::Duration;

use coffer_control::clock::Clock as _;
use coffer_core::event::{Event, Severity};
use coffer_core::id::EventId;
use coffer_core::instance::{Fault, Health, Lifecycle};
use coffer_core::task::{TaskState, TaskStepRecord, Wait};
use coffer_infra::provider::Abilities;
use coffer_store::Write;
use coffer_store::task::{StepCommit, TaskUpdate};
use serde_json::json;
use uuid::Uuid;

use crate::expected::assert_expected;
use crate::world::{EPOCH, World};

#[tokio::test]
async fn a_wait_is_explained_with_its_reason_and_deadline() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.create(&alice, "db1").await;
    let task = world.claim(&id).await.remove(0);
    let update = TaskUpdate {
        step: r#"{"step":"enrol_guest"}"#.to_owned(),
        state: TaskState::Ready,
        attempt: 1,
        run_at: EPOCH.plus_seconds(60),
        wait: Some(Wait {
            reason: "guest.unreachable".to_owned(),
            message: "waiting for the guest to answer".to_owned(),
            unblocked_by: "guest".to_owned(),
            since: EPOCH,
        }),
        step_at: EPOCH,
        deadline: Some(EPOCH.plus_seconds(60)),
        error: None,
        output: None,
        release_locks: false,
    };
    let record = TaskStepRecord {
        version: 0,
        step: r#"{"step":"ensure_server"}"#.to_owned(),
        outcome: "next".to_owned(),
        message: "the server runs".to_owned(),
        source: "create_instance.rs:1".to_owned(),
        took_ms: 12,
        at: EPOCH,
    };
    let commit = StepCommit {
        task_id: task.id,
        version: task.version,
        owner: "w".to_owned(),
        update,
        record: Some(record),
        writes: vec![],
        now: EPOCH,
    };
    world.store.commit_step(&commit).await.unwrap();
    world.clock.advance(Duration::from_secs(3));
    let answer = world
        .get(&alice, &format!("/instances/{id}/explain"))
        .await
        .expect(200);
    assert_eq!(
        answer["explanation"]["summary"],
        "db1 is being created: waiting for the guest to answer since 3 s, to be ended by guest, \
         deadline in 57 s."
    );
    assert_expected("explain-waiting", &answer);
}

#[tokio::test]
async fn locks_are_followed_to_the_task_that_holds_them() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.active(&alice, "db1").await;
    let path = format!("/instances/{id}");
    world
        .post(&alice, &format!("{path}/action"), json!({ "restart": {} }))
        .await
        .expect(202);
    let holder = world
        .store
        .find_active_task(id.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    world.delete(&alice, &path).await.expect(202);
    let claimed = world.claim(&id).await;
    let delete = claimed
        .iter()
        .find(|task| task.workflow == "delete_instance")
        .unwrap();
    let update = TaskUpdate {
        step: delete.step.clone(),
        state: TaskState::Ready,
        attempt: 0,
        run_at: EPOCH,
        wait: Some(Wait {
            reason: "lock.held".to_owned(),
            message: "waiting for a lock".to_owned(),
            unblocked_by: format!("task {}", holder.id),
            since: EPOCH,
        }),
        step_at: EPOCH,
        deadline: None,
        error: None,
        output: None,
        release_locks: false,
    };
    let commit = StepCommit {
        task_id: delete.id,
        version: delete.version,
        owner: "w".to_owned(),
        update,
        record: None,
        writes: vec![],
        now: EPOCH,
    };
    world.store.commit_step(&commit).await.unwrap();
    let answer = world
        .get(&alice, &format!("{path}/explain"))
        .await
        .expect(200);
    let explanation = &answer["explanation"];
    assert_eq!(explanation["task"]["workflow"], "delete_instance");
    assert_eq!(explanation["blocked_by"][0]["workflow"], "restart_instance");
    let summary = explanation["summary"].as_str().unwrap();
    assert!(
        summary.starts_with("db1 is being deleted: waiting for a lock since 0 s"),
        "{summary}"
    );
    assert!(
        summary.contains("(restart_instance) holds what it needs"),
        "{summary}"
    );
}

#[tokio::test]
async fn rest_and_failure_are_explained() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.active(&alice, "db1").await;
    let summary = async |world: &World| {
        let answer = world
            .get(&alice, &format!("/instances/{id}/explain"))
            .await
            .expect(200);
        answer["explanation"]["summary"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(
        summary(&world).await,
        "db1 is in service and its engine answers."
    );
    world.heal(&id, Health::Blocked).await;
    assert!(
        summary(&world)
            .await
            .contains("runs but does not answer its probe")
    );
    let trouble = Event {
        id: EventId::from_uuid(Uuid::from_u128(7)),
        tenant_id: "TENANT".parse().unwrap(),
        instance_id: Some(id.parse().unwrap()),
        task_id: None,
        code: "engine.trouble".to_owned(),
        severity: Severity::Warning,
        message: "the engine exited with status 1; it said: no such file".to_owned(),
        actor: None,
        at: world.clock.now(),
    };
    world.hear(&id, Health::Crashed, vec![trouble]).await;
    world.clock.advance(Duration::from_secs(5));
    let said = "exited by itself. Its guest said 5 s ago: the engine exited with status 1; it \
                said: no such file.";
    let told = summary(&world).await;
    assert!(told.ends_with(said), "{told}");
    world.heal(&id, Health::Healthy).await;
    assert!(!summary(&world).await.contains("Its guest said"));
    let restart = json!({ "restart": {} });
    world
        .post(&alice, &format!("/instances/{id}/action"), restart)
        .await
        .expect(202);
    let task = world.claim(&id).await.remove(0);
    let write = Write::SetLifecycle {
        instance_id: id.parse().unwrap(),
        lifecycle: Lifecycle::Failed,
        fault: Some(Fault {
            message: "the engine does not start: the disk is full.".to_owned(),
            details: "exit 1".to_owned(),
            at: EPOCH,
        }),
    };
    world
        .end(&task, TaskState::Failed, Some("no start"), vec![write])
        .await;
    world.clock.advance(Duration::from_secs(90));
    assert!(
        summary(&world)
            .await
            .ends_with("It failed 1 min 35 s ago: the engine does not start: the disk is full.")
    );
}

/// What a host leaves out of limits on I/O is told of instances that have some, and of no others.
#[tokio::test]
async fn what_an_io_limit_leaves_out_is_told_of_those_that_have_one() {
    let world = World::new().await;
    let (alice, root) = (world.alice().await, world.root().await);
    let abilities = Abilities {
        online_volume_growth: true,
        hot_volume_attach: false,
        online_resize: true,
        snapshot: true,
        clone: true,
        fence: true,
        published_address: true,
        not_enforced: vec!["CPU: none here".to_owned()],
        io_gap: Some("late writes are free".to_owned()),
    };
    world.app.abilities.set(abilities).unwrap();
    let plain = world.active(&alice, "plain").await;
    let body = json!({ "instance": { "name": "typed", "flavorRef": "1",
        "volume": { "size": 1, "type": "cow" } } });
    let made = world.post(&alice, "/instances", body).await.expect(200);
    let typed = made["instance"]["id"].as_str().unwrap();
    let told = async |id: &str| {
        let path = format!("/instances/{id}/explain");
        let answer = world.get(&alice, &path).await.expect(200);
        answer["explanation"]["not_enforced"].clone()
    };
    let always = json!(["CPU: none here"]);
    assert_eq!(told(typed).await, always, "its type has no limits yet");
    let change = json!({ "volume_type": { "write_bytes_sec": 1_048_576 } });
    let path = "/admin/volume-types/cow";
    world.call(&root, "PATCH", path, change).await.expect(200);
    let gap = "I/O limits of volume type cow: late writes are free";
    assert_eq!(told(typed).await, json!(["CPU: none here", gap]));
    assert_eq!(told(&plain).await, always);
}

#[tokio::test]
async fn events_tell_the_history_oldest_first() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.active(&alice, "db1").await;
    world
        .delete(&alice, &format!("/instances/{id}"))
        .await
        .expect(202);
    let path = format!("/instances/{id}/events");
    let all = world.get(&alice, &path).await.expect(200);
    assert_expected("events", &all);
    let first = world
        .get(&alice, &format!("{path}?limit=1"))
        .await
        .expect(200);
    assert_eq!(first["events"][0]["code"], "instance.create-asked");
    let next = first["links"][0]["href"].as_str().unwrap();
    let marker = next.rsplit("marker=").next().unwrap();
    let second = world
        .get(&alice, &format!("{path}?marker={marker}"))
        .await
        .expect(200);
    assert_eq!(second["events"][0]["code"], "instance.delete-asked");
}
