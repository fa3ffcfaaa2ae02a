//! Clients that go away, that never finish, that guess in parallel: what was begun comes to its
//! end and is in the audit trail, and nobody is kept out.

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use coffer_core::event::AuditEntry;
use coffer_core::task::TaskState;
use futures_util::future::join_all;
use futures_util::stream;
use http::Request;
use serde_json::json;

use crate::identity::{log_in, password};
use crate::rows::Rows;
use crate::world::{PASSWORD, World};

/// Waits, bounded, until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    for _ in 0..2_000 {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}: not in time")
}

async fn line(world: &World, action: &str) -> Option<AuditEntry> {
    let all = world.store.list_audit(None, None, 1_000).await.unwrap();
    all.into_iter().find(|entry| entry.action == action)
}

#[tokio::test]
async fn a_change_whose_client_has_gone_is_made_and_audited() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.active(&alice, "db1").await;
    let body = json!({ "users": [{ "name": "new", "password": "pw" }] });
    let path = format!("/instances/{id}/users");
    let task = tokio::select! {
        answer = world.post(&alice, &path, body) => panic!("answered without a task: {answer:?}"),
        task = until("a task", async || world.claim(&id).await.pop()) => task,
    };
    // The connection is closed: the request is dropped in the middle. What it began is noted.
    let action = "instance:extension:user:create";
    let begun = line(&world, action).await.unwrap();
    assert_eq!(begun.outcome, AuditEntry::UNKNOWN);
    world.end(&task, TaskState::Done, None, vec![]).await;
    let concluded = until("its outcome", async || {
        world.clock.advance(Duration::from_millis(25));
        let found = line(&world, action).await.unwrap();
        (found.outcome != AuditEntry::UNKNOWN).then_some(found)
    });
    assert_eq!(concluded.await.outcome, 202);
}

#[tokio::test]
async fn a_trail_that_cannot_be_written_lets_nothing_change() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::in_dir(dir.path()).await;
    let alice = world.alice().await;
    let rows = Rows::of(dir.path()).await;
    rows.run("ALTER TABLE audit RENAME TO elsewhere").await;
    let before = rows.all().await;
    let body = json!({ "instance": { "name": "a", "flavorRef": "1", "volume": { "size": 1 } } });
    world.post(&alice, "/instances", body).await.expect(500);
    assert_eq!(rows.all().await, before);
    // A token that is to end is no exception.
    let request = Request::delete("/v3/auth/tokens")
        .header("x-auth-token", &alice.token)
        .header("x-subject-token", &alice.token)
        .body(Body::empty())
        .unwrap();
    world.send(request).await.expect(500);
    assert_eq!(rows.all().await, before);
    world.get(&alice, "/instances").await.expect(200);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_refused_in_time() {
    let world = World::new().await;
    let endless = stream::pending::<io::Result<Bytes>>();
    let request = Request::post("/v3/auth/tokens")
        .header("content-type", "application/json")
        .body(Body::from_stream(endless))
        .unwrap();
    let bound = tokio::time::sleep(Duration::from_secs(20));
    tokio::select! {
        answer = world.send(request) => {
            let message = answer.expect(400)["error"]["message"].to_string();
            assert!(message.contains("did not come"), "{message}");
        }
        () = async { loop {
            tokio::time::sleep(Duration::from_millis(5)).await;
            world.clock.advance(Duration::from_secs(1));
        } } => {}
        () = bound => panic!("the body is waited for"),
    }
}

#[tokio::test]
async fn guesses_at_once_are_slowed_like_guesses_in_turn() {
    let world = World::new().await;
    let guess = |_| log_in(&world, password("alice", "wrong", json!(null)));
    let answers = join_all((0..24).map(guess)).await;
    let tried = answers.iter().filter(|one| one.status == 401).count();
    // Four before the first wait, and who was being checked at that moment.
    assert!((1..=6).contains(&tried), "{tried} of 24 were tried");
    // Those who know their password do not slow each other down.
    let right = |_| log_in(&world, password("bob", PASSWORD, json!(null)));
    for answer in join_all((0..24).map(right)).await {
        answer.expect(201);
    }
    // The id is no way around the name.
    let mut by_id = password("alice", PASSWORD, json!(null));
    by_id["auth"]["identity"]["password"]["user"] = json!({ "id": "alice", "password": PASSWORD });
    log_in(&world, by_id).await.expect(429);
}
