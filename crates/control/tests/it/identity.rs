//! Logging in as Keystone's clients do, and what a token is good for.

use std::time::Duration;

use axum::body::Body;
use coffer_control::app::ApiConfig;
use coffer_control::auth::login;
use coffer_control::auth::token::token_hash;
use coffer_control::clock::Clock;
use coffer_control::supervise::Supervisor;
use coffer_control::taskmanager::periodic::tokens::TokenCleaner;
use coffer_core::actor::Actor;
use coffer_core::tenant::RoleAssignment;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::expected::assert_expected;
use crate::rows::Rows;
use crate::world::{Answer, Caller, PASSWORD, World, tenant_id};

async fn keystone(
    world: &World,
    method: &str,
    path: &str,
    tokens: (Option<&str>, Option<&str>),
    body: Value,
) -> Answer {
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(path)
        .header("host", "db.test:8779");
    if let Some(token) = tokens.0 {
        request = request.header("x-auth-token", token);
    }
    if let Some(token) = tokens.1 {
        request = request.header("x-subject-token", token);
    }
    let body = match body {
        Value::Null => Body::empty(),
        body => Body::from(body.to_string()),
    };
    world
        .send(
            request
                .header("content-type", "application/json")
                .body(body)
                .unwrap(),
        )
        .await
}

pub(crate) fn password(user: &str, password: &str, scope: Value) -> Value {
    let mut body = json!({ "auth": { "identity": {
        "methods": ["password"],
        "password": { "user": {
            "name": user, "domain": { "id": "default" }, "password": password,
        } },
    } } });
    if !scope.is_null() {
        body["auth"]["scope"] = scope;
    }
    body
}

fn demo() -> Value {
    json!({ "project": { "name": "demo", "domain": { "name": "Default" } } })
}

pub(crate) async fn log_in(world: &World, body: Value) -> Answer {
    keystone(world, "POST", "/v3/auth/tokens", (None, None), body).await
}

#[tokio::test]
async fn discovery_leads_to_version_three() {
    let world = World::new().await;
    for path in ["/v3", "/v3/", "/identity/v3", "/identity/v3/"] {
        let answer = keystone(&world, "GET", path, (None, None), Value::Null)
            .await
            .expect(200);
        assert_eq!(answer["version"]["id"], "v3.14");
        let href = answer["version"]["links"][0]["href"].as_str().unwrap();
        let trimmed = path.trim_end_matches('/');
        assert_eq!(href, format!("https://db.test:8779{trimmed}/"));
    }
    let versions = keystone(&world, "GET", "/identity", (None, None), Value::Null).await;
    assert_eq!(
        versions.expect(300)["versions"]["values"][0]["status"],
        "stable"
    );
}

#[tokio::test]
async fn a_password_gives_a_scoped_token_that_works() {
    let world = World::new().await;
    let answer = log_in(&world, password("alice", PASSWORD, demo())).await;
    let body = answer.expect(201);
    let token = answer.header("x-subject-token").to_owned();
    assert_eq!(token.len(), 43);
    assert_expected("token", &body);
    let alice = Caller {
        token: token.clone(),
        project: tenant_id("demo").to_string(),
    };
    world.get(&alice, "/instances").await.expect(200);
    let both = (Some(token.as_str()), Some(token.as_str()));
    let again = keystone(&world, "GET", "/v3/auth/tokens", both, Value::Null).await;
    assert_eq!(again.expect(200), body);
    let head = keystone(
        &world,
        "HEAD",
        "/identity/v3/auth/tokens",
        both,
        Value::Null,
    )
    .await;
    assert_eq!((head.status.as_u16(), head.bytes.len()), (200, 0));

    keystone(&world, "DELETE", "/v3/auth/tokens", both, Value::Null)
        .await
        .expect(204);
    world.get(&alice, "/instances").await.expect(401);
    keystone(&world, "GET", "/v3/auth/tokens", both, Value::Null)
        .await
        .expect(401);
}

/// Whoever reads the database, or its files, has nobody's token.
#[tokio::test]
async fn of_a_token_only_its_hash_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::in_dir(dir.path()).await;
    let answer = log_in(&world, password("alice", PASSWORD, demo())).await;
    answer.expect(201);
    let token = answer.header("x-subject-token").to_owned();
    let hash = token_hash(&token);
    let stored = world.store.find_token(&hash).await.unwrap();
    assert!(stored.is_some(), "it is found by its hash");
    assert!(world.store.find_token(&token).await.unwrap().is_none());

    let all = Rows::of(dir.path()).await.all().await;
    let holds = |text: &str| all.values().flatten().any(|row| row.contains(text));
    assert!(holds(&hash), "the rows are really read");
    assert!(!holds(&token), "a row holds the token");
    // The audit trail, what was deleted and the journal are in no row of these.
    let mut bytes = Vec::new();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        bytes.extend(std::fs::read(entry.unwrap().path()).unwrap());
    }
    let holds = |text: &str| {
        bytes
            .windows(text.len())
            .any(|part| part == text.as_bytes())
    };
    assert!(holds(&hash), "the files are really read");
    assert!(!holds(&token), "a file holds the token");
}

/// What keeps a relay or a visit open: the token, its user, its project and a role in it.
#[tokio::test]
async fn a_session_is_taken_away_with_what_it_stands_on() {
    for what in ["token", "user", "project", "role"] {
        let world = World::new().await;
        let (alice, root) = (world.alice().await, world.root().await);
        let session = login::session(&world.app, &alice.token).await.unwrap();
        let session = session.unwrap();
        let mut end = std::pin::pin!(login::taken_away(&world.app, &session));
        for _ in 0..3 {
            let waited = tokio::time::timeout(Duration::from_millis(20), &mut end);
            assert!(waited.await.is_err(), "{what}: it still holds");
            world.clock.advance(Duration::from_secs(5));
        }
        let closed = |key: &str| json!({ key: { "enabled": false } });
        let (user, project) = (&session.user_id, &alice.project);
        match what {
            "token" => login::revoke(&world.app, &session).await.unwrap(),
            "user" => {
                let path = format!("/admin/users/{user}");
                let answer = world.call(&root, "PATCH", &path, closed("user"));
                answer.await.expect(200);
            }
            "project" => {
                let path = format!("/admin/projects/{project}");
                let answer = world.call(&root, "PATCH", &path, closed("project"));
                answer.await.expect(200);
            }
            _ => {
                for role in &session.roles {
                    let path = format!("/admin/projects/{project}/users/{user}/roles/{role}");
                    world.delete(&root, &path).await.expect(204);
                }
            }
        }
        let ended = async {
            while tokio::time::timeout(Duration::from_millis(20), &mut end)
                .await
                .is_err()
            {
                world.clock.advance(Duration::from_secs(5));
            }
        };
        let bound = tokio::time::timeout(Duration::from_secs(20), ended);
        bound.await.unwrap_or_else(|_| panic!("{what}: it is kept"));
    }
}

#[tokio::test]
async fn scopes_are_a_project_by_id_or_name_or_nothing() {
    let world = World::new().await;
    let by_id = json!({ "project": { "id": tenant_id("demo").as_str() } });
    let scoped = log_in(&world, password("alice", PASSWORD, by_id))
        .await
        .expect(201);
    assert_eq!(scoped["token"]["project"]["name"], "demo");
    let unscoped = log_in(&world, password("alice", PASSWORD, json!("unscoped"))).await;
    let body = unscoped.expect(201);
    assert!(body["token"].get("project").is_none() && body["token"].get("catalog").is_none());
    let token = unscoped.header("x-subject-token").to_owned();

    // An unscoped token names the projects and buys a scoped one; below a project it is nothing.
    let own = keystone(
        &world,
        "GET",
        "/v3/auth/projects",
        (Some(&token), None),
        Value::Null,
    )
    .await;
    assert_eq!(own.expect(200)["projects"][0]["name"], "demo");
    let body = json!({ "auth": {
        "identity": { "methods": ["token"], "token": { "id": token } }, "scope": demo(),
    } });
    let bought = log_in(&world, body).await.expect(201);
    assert_eq!(bought["token"]["roles"][0]["name"], "member");
    let nowhere = Caller {
        token,
        project: tenant_id("demo").to_string(),
    };
    world
        .get(&nowhere, "/instances")
        .await
        .fault(403, "forbidden");
}

#[tokio::test]
async fn a_token_got_by_a_token_ends_with_it() {
    let world = World::new().await;
    let first = log_in(&world, password("alice", PASSWORD, demo())).await;
    let ends = first.expect(201)["token"]["expires_at"].clone();
    world.clock.advance(Duration::from_secs(600));
    let body = json!({ "auth": {
        "identity": { "methods": ["token"], "token": { "id": first.header("x-subject-token") } },
        "scope": demo(),
    } });
    assert_eq!(
        log_in(&world, body).await.expect(201)["token"]["expires_at"],
        ends
    );
}

#[tokio::test]
async fn what_does_not_fit_is_one_and_the_same_401() {
    let world = World::new().await;
    let other = json!({ "project": { "name": "other", "domain": { "id": "default" } } });
    let nobody = json!({ "project": { "name": "nothing", "domain": { "id": "default" } } });
    let domain = json!({ "project": { "name": "demo", "domain": { "id": "strange" } } });
    let mut bodies = Vec::new();
    for body in [
        password("alice", "wrong", demo()),
        password("nobody", PASSWORD, demo()),
        password("alice", PASSWORD, other),
        password("alice", PASSWORD, nobody),
        password("alice", PASSWORD, domain),
        json!({ "auth": { "identity": { "methods": ["token"], "token": { "id": "x" } } } }),
    ] {
        let mut answer = log_in(&world, body).await.expect(401);
        answer["error"]["request_id"] = json!("-");
        bodies.push(answer);
    }
    assert!(bodies.windows(2).all(|two| two[0] == two[1]), "{bodies:?}");
}

#[tokio::test]
async fn bad_bodies_are_400() {
    let world = World::new().await;
    for body in [
        json!({}),
        json!([]),
        json!({ "auth": {} }),
        json!({ "auth": { "identity": { "methods": "password" } } }),
        json!({ "auth": { "identity": { "methods": ["password"] } } }),
        json!({ "auth": { "identity": { "methods": ["password"], "password": { "user": {} } } } }),
        password("alice", PASSWORD, json!(5)),
    ] {
        let answer = log_in(&world, body).await.expect(400);
        assert_eq!(answer["error"]["code"], 400);
    }
    let odd = log_in(
        &world,
        json!({ "auth": { "identity": { "methods": ["saml2"] } } }),
    )
    .await;
    odd.expect(401);
}

#[tokio::test]
async fn failed_logins_are_slowed_and_time_heals() {
    let world = World::new().await;
    for _ in 0..4 {
        log_in(&world, password("alice", "wrong", demo()))
            .await
            .expect(401);
    }
    let slowed = log_in(&world, password("alice", PASSWORD, demo())).await;
    assert_eq!(slowed.expect(429)["error"]["title"], "Too Many Requests");
    assert_eq!(slowed.header("retry-after"), "2");
    log_in(&world, password("bob", PASSWORD, Value::Null))
        .await
        .expect(201);
    world.clock.advance(Duration::from_secs(2));
    log_in(&world, password("alice", PASSWORD, demo()))
        .await
        .expect(201);
}

#[tokio::test]
async fn logins_are_in_the_audit_trail_without_what_was_typed() {
    let world = World::new().await;
    let by_token = |token: &str| {
        let identity = json!({ "methods": ["token"], "token": { "id": token } });
        json!({ "auth": { "identity": identity } })
    };
    let good = log_in(&world, password("alice", PASSWORD, demo())).await;
    good.expect(201);
    let unscoped = json!("unscoped");
    log_in(&world, password("bob", PASSWORD, unscoped))
        .await
        .expect(201);
    for body in [
        password("alice", "wrong-secret", demo()),
        password("my-secret-in-the-wrong-field", "x", demo()),
        by_token("no-token-at-all"),
    ] {
        log_in(&world, body).await.expect(401);
    }
    let token = good.header("x-subject-token");
    keystone(
        &world,
        "DELETE",
        "/v3/auth/tokens",
        (Some(token), Some(token)),
        Value::Null,
    )
    .await
    .expect(204);
    let all = world.store.list_audit(None, None, 100).await.unwrap();
    let lines: Vec<_> = all
        .iter()
        .map(|one| {
            let Actor {
                tenant_id, user_id, ..
            } = &one.actor;
            format!(
                "{tenant_id} {user_id} {} {} {}",
                one.action, one.target, one.outcome
            )
        })
        .collect();
    let project = tenant_id("demo");
    assert_eq!(
        lines,
        [
            format!("{project} alice identity:authenticate users/alice 201"),
            "- bob identity:authenticate users/bob 201".to_owned(),
            "- - identity:authenticate users/alice 401".to_owned(),
            "- - identity:authenticate an unknown user 401".to_owned(),
            "- - identity:authenticate an unknown user 401".to_owned(),
            format!("{project} alice identity:revoke_token users/alice 204"),
        ]
    );
    assert!(
        all.iter()
            .all(|one| one.actor.request_id.starts_with("req-"))
    );
    let text = format!("{all:?}");
    for secret in ["secret", "no-token", PASSWORD, token] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
    // What the throttle turns away is not noted again.
    for _ in 0..5 {
        log_in(&world, password("rita", "wrong", demo())).await;
    }
    let count = world.store.list_audit(None, None, 100).await.unwrap().len();
    assert_eq!(count, all.len() + 4);
}

#[tokio::test]
async fn ended_tokens_are_removed_periodically() {
    let world = World::new().await;
    let alice = world.alice().await;
    let hash = coffer_control::auth::token::token_hash(&alice.token);
    let supervisor = Supervisor::new();
    let cleaner = TokenCleaner::new(world.store.clone(), world.clock.clone());
    supervisor.start("token cleaner", cleaner.run(supervisor.clone()));
    let is_there = async || world.store.find_token(&hash).await.unwrap().is_some();
    assert!(is_there().await);
    // It ends after an hour; the clock moves past that and past the next run.
    let removed = async {
        while is_there().await {
            world.clock.advance(Duration::from_secs(601));
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), removed)
        .await
        .unwrap();
    assert!(world.clock.monotonic() > Duration::from_secs(3_600));
    let live = world.alice().await;
    world.get(&live, "/flavors").await.expect(200);
    assert!(supervisor.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn tokens_end_and_closing_a_user_ends_them() {
    let world = World::new().await;
    let alice = world.alice().await;
    world.get(&alice, "/flavors").await.expect(200);
    world.clock.advance(Duration::from_secs(3_601));
    world.get(&alice, "/flavors").await.expect(401);

    let (alice, root) = (world.alice().await, world.root().await);
    world.get(&alice, "/flavors").await.expect(200);
    let closed = json!({ "user": { "enabled": false } });
    world
        .call(&root, "PATCH", "/admin/users/alice", closed)
        .await
        .expect(200);
    world.get(&alice, "/flavors").await.expect(401);
    log_in(&world, password("alice", PASSWORD, demo()))
        .await
        .expect(401);
}

#[tokio::test]
async fn a_role_taken_elsewhere_is_noticed_within_seconds() {
    let world = World::new().await;
    let alice = world.alice().await;
    world.get(&alice, "/flavors").await.expect(200);
    let assignment = RoleAssignment {
        user_id: "alice".parse().unwrap(),
        tenant_id: tenant_id("demo"),
        role: "member".to_owned(),
    };
    world.store.revoke_role(&assignment).await.unwrap();
    world.get(&alice, "/flavors").await.expect(200);
    world.clock.advance(Duration::from_secs(6));
    world.get(&alice, "/flavors").await.expect(401);
}

#[tokio::test]
async fn projects_and_users_are_seen_by_their_own() {
    let world = World::new().await;
    let (alice, root) = (world.alice().await, world.root().await);
    let see = async |token: &str, path: &str| {
        keystone(&world, "GET", path, (Some(token), None), Value::Null).await
    };
    let own = see(&alice.token, "/v3/projects?name=demo")
        .await
        .expect(200);
    assert_eq!(own["projects"][0]["id"], alice.project);
    let other = see(&alice.token, "/v3/projects?name=other")
        .await
        .expect(200);
    assert_eq!(other["projects"], json!([]));
    let path = format!("/v3/projects/{}", tenant_id("other"));
    assert_eq!(
        see(&alice.token, &path).await.expect(404)["error"]["code"],
        404
    );
    see(&root.token, &path).await.expect(200);
    assert_eq!(
        see(&root.token, "/v3/projects").await.expect(200)["projects"][2]["name"],
        "other"
    );
    let me = see(&alice.token, "/v3/users/alice").await.expect(200);
    assert_eq!(me["user"]["name"], "alice");
    assert!(!me.to_string().contains("argon2"), "{me}");
    see(&alice.token, "/v3/users/bob").await.expect(404);
    let of_bob = see(&root.token, "/v3/users/bob/projects").await.expect(200);
    assert_eq!(of_bob["projects"][0]["name"], "other");
    let catalog = see(&alice.token, "/v3/auth/catalog").await.expect(200);
    assert_eq!(
        catalog["catalog"][1]["endpoints"][0]["url"],
        format!("https://db.test:8779/v1.0/{}", alice.project)
    );
}

#[tokio::test]
async fn the_catalog_names_the_configured_endpoint() {
    let config = ApiConfig {
        public_endpoint: Some("http://127.0.0.1:9/".to_owned()),
        ..ApiConfig::default()
    };
    let world = World::with(config).await;
    let body = log_in(&world, password("alice", PASSWORD, demo()))
        .await
        .expect(201);
    assert_eq!(
        body["token"]["catalog"][0]["endpoints"][0]["url"],
        "http://127.0.0.1:9/identity/v3"
    );
}
