//! Databases, users, grants and root inside an instance.

use std::time::Duration;

use coffer_control::workflow::run_commands::RunCommandsInput;
use coffer_core::instance::{Health, Lifecycle};
use coffer_core::task::TaskState;
use coffer_store::inventory::StoredInventory;
use serde_json::{Value, json};

use crate::world::{Answer, Caller, EPOCH, World, database, user};

/// Sends a request while the task it makes is ended as `state`; gives the answer and the commands.
async fn during(
    world: &World,
    id: &str,
    request: impl Future<Output = Answer>,
    state: TaskState,
    error: Option<&str>,
) -> (Answer, Value) {
    let worker = async {
        let mut wakeups = world.store.subscribe();
        loop {
            if let Some(task) = world.claim(id).await.pop() {
                assert_eq!(task.workflow, "run_commands");
                let input: RunCommandsInput = serde_json::from_str(&task.input).unwrap();
                let sealed = world.app.vault().open(input.commands_secret).await.unwrap();
                world.end(&task, state, error, vec![]).await;
                return serde_json::from_str(sealed.expose()).unwrap();
            }
            wakeups.wait().await;
        }
    };
    tokio::pin!(request, worker);
    let bound = tokio::time::sleep(Duration::from_secs(20));
    tokio::select! {
        answer = &mut request => panic!("answered without a task: {answer:?}"),
        commands = &mut worker => (passing(world, request).await, commands),
        () = bound => panic!("no task was made"),
    }
}

/// Awaits a request while time goes on in short steps.
async fn passing(world: &World, request: impl Future<Output = Answer>) -> Answer {
    tokio::pin!(request);
    for _ in 0..10_000 {
        let pause = tokio::time::timeout(Duration::from_millis(2), &mut request);
        if let Ok(answer) = pause.await {
            return answer;
        }
        world.clock.advance(Duration::from_millis(25));
    }
    panic!("the request did not end")
}

struct Scene {
    world: World,
    alice: Caller,
    id: String,
}

impl Scene {
    async fn new() -> Self {
        let world = World::new().await;
        let alice = world.alice().await;
        let id = world.active(&alice, "db1").await;
        Self { world, alice, id }
    }

    fn path(&self, rest: &str) -> String {
        format!("/instances/{}{rest}", self.id)
    }

    async fn done(&self, method: &str, rest: &str, body: Value) -> (Answer, Value) {
        let path = self.path(rest);
        let request = self.world.call(&self.alice, method, &path, body);
        during(&self.world, &self.id, request, TaskState::Done, None).await
    }

    async fn get(&self, rest: &str) -> Answer {
        self.world.get(&self.alice, &self.path(rest)).await
    }

    async fn call(&self, method: &str, rest: &str, body: Value) -> Answer {
        self.world
            .call(&self.alice, method, &self.path(rest), body)
            .await
    }
}

#[tokio::test]
async fn what_is_inside_is_listed_and_shown() {
    let scene = Scene::new().await;
    let databases = scene.get("/databases").await.expect(200);
    assert_eq!(
        databases,
        json!({ "databases": [{ "name": "app" }, { "name": "logs" }] })
    );
    let users = scene.get("/users").await.expect(200);
    assert_eq!(
        users,
        json!({ "users": [
        { "name": "ann", "host": "%", "databases": [{ "name": "app" }] },
        { "name": "bea@x", "host": "%", "databases": [] },
    ] })
    );
    for path in ["/users/ann", "/users/ann@%25", "/users/ann%40%25"] {
        assert_eq!(scene.get(path).await.expect(200)["user"]["name"], "ann");
    }
    // Users of PostgreSQL have no host: what looks like one is part of the name.
    assert_eq!(
        scene.get("/users/bea%40x").await.expect(200)["user"]["name"],
        "bea@x"
    );
    let granted = scene.get("/users/ann/databases").await.expect(200);
    assert_eq!(granted, json!({ "databases": [{ "name": "app" }] }));
    scene.get("/users/nobody").await.fault(404, "itemNotFound");
    scene
        .get("/databases/app")
        .await
        .fault(501, "notImplemented");
    assert_eq!(
        scene.get("/root").await.expect(200),
        json!({ "rootEnabled": false })
    );
}

#[tokio::test]
async fn databases_are_made_and_dropped_by_commands() {
    let scene = Scene::new().await;
    let body = json!({ "databases": [{ "name": "new", "character_set": "utf8" }] });
    let (answer, commands) = scene.done("POST", "/databases", body).await;
    answer.expect(202);
    assert!(answer.bytes.is_empty());
    assert_eq!(commands[0]["operation"], "create-databases");
    assert_eq!(commands[0]["databases"][0]["name"], "new");
    let single = json!({ "database": { "name": "sdk" } });
    scene.done("POST", "/databases", single).await.0.expect(202);
    let (answer, commands) = scene.done("DELETE", "/databases/app", Value::Null).await;
    answer.expect(202);
    assert_eq!(
        commands,
        json!([{ "operation": "drop-database", "name": "app" }])
    );
    for (method, path, body, status) in [
        ("DELETE", "/databases/nothing", Value::Null, 404),
        ("DELETE", "/databases/postgres", Value::Null, 400),
        (
            "POST",
            "/databases",
            json!({ "databases": [{ "name": "app" }] }),
            400,
        ),
        ("POST", "/databases", json!({ "databases": [] }), 400),
        ("POST", "/databases", json!({}), 400),
        (
            "POST",
            "/databases",
            json!({ "databases": [{ "name": "" }] }),
            400,
        ),
        ("POST", "/databases", json!({ "databases": 5 }), 400),
        (
            "POST",
            "/databases",
            json!({ "databases": [{ "name": "x", "collate": "zz" }] }),
            400,
        ),
    ] {
        let answer = scene.call(method, path, body.clone()).await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path} {body}");
    }
}

#[tokio::test]
async fn users_are_made_changed_and_dropped_by_commands() {
    let scene = Scene::new().await;
    let body = json!({ "users": [
        { "name": "new", "password": "pw-1", "host": "%", "databases": [{ "name": "app" }] },
    ] });
    let (answer, commands) = scene.done("POST", "/users", body).await;
    answer.expect(202);
    assert_eq!(commands[0]["users"][0]["databases"], json!(["app"]));
    let sdk = json!({ "users": { "name": "sdk", "password": "pw-2" } });
    scene.done("POST", "/users/sdk", sdk).await.0.expect(202);
    let changed = json!({ "user": { "name": "anna", "password": "pw-3" } });
    let (answer, commands) = scene.done("PUT", "/users/ann", changed).await;
    answer.expect(202);
    assert_eq!(commands[0]["changes"][0]["new_name"], "anna");
    let passwords = json!({ "users": [{ "name": "ann", "password": "pw-4", "host": "%" }] });
    scene.done("PUT", "/users", passwords).await.0.expect(202);
    scene
        .done("DELETE", "/users/ann", Value::Null)
        .await
        .0
        .expect(202);
    for (method, path, body, status) in [
        ("PUT", "/users/ann", json!({ "user": {} }), 400),
        (
            "PUT",
            "/users/ann",
            json!({ "user": { "name": "bea@x" } }),
            400,
        ),
        (
            "PUT",
            "/users/ann",
            json!({ "user": { "password": "" } }),
            400,
        ),
        (
            "PUT",
            "/users/nobody",
            json!({ "user": { "password": "p" } }),
            404,
        ),
        (
            "PUT",
            "/users",
            json!({ "users": [{ "name": "nobody", "password": "p" }] }),
            404,
        ),
        ("PUT", "/users", json!({ "users": [] }), 400),
        ("DELETE", "/users/nobody", Value::Null, 404),
        ("DELETE", "/users/postgres", Value::Null, 400),
        (
            "POST",
            "/users",
            json!({ "users": [{ "name": "ann", "password": "p" }] }),
            400,
        ),
        ("POST", "/users", json!({ "users": [{ "name": "x" }] }), 400),
        (
            "POST",
            "/users",
            json!({ "users": [{ "name": "x", "password": "p", "databases": [{ "name": "no" }] }] }),
            404,
        ),
    ] {
        let answer = scene.call(method, path, body.clone()).await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert_eq!(
            answer.status.as_u16(),
            status,
            "{method} {path} {body}: {text}"
        );
    }
}

#[tokio::test]
async fn grants_are_given_and_taken() {
    let scene = Scene::new().await;
    let body = json!({ "databases": [{ "name": "logs" }] });
    let (answer, commands) = scene.done("PUT", "/users/ann/databases", body).await;
    answer.expect(202);
    assert_eq!(commands[0]["databases"], json!(["logs"]));
    let (answer, commands) = scene
        .done("DELETE", "/users/ann/databases/app", Value::Null)
        .await;
    answer.expect(202);
    assert_eq!(commands[0]["operation"], "revoke");
    let not_held = scene
        .call("DELETE", "/users/ann/databases/logs", Value::Null)
        .await;
    not_held.fault(404, "itemNotFound");
    let unknown = json!({ "databases": [{ "name": "nothing" }] });
    scene
        .call("PUT", "/users/ann/databases", unknown)
        .await
        .fault(404, "itemNotFound");
}

#[tokio::test]
async fn root_gets_a_password_that_is_shown_once() {
    let scene = Scene::new().await;
    scene
        .call("DELETE", "/root", Value::Null)
        .await
        .fault(404, "itemNotFound");
    let (answer, commands) = scene.done("POST", "/root", Value::Null).await;
    let shown = answer.expect(200);
    assert_eq!(shown["user"]["name"], "postgres");
    assert_eq!(shown["user"]["password"].as_str().unwrap().len(), 36);
    assert_eq!(commands[0]["password"], shown["user"]["password"]);
    for body in [json!({}), json!({ "password": "chosen-one" })] {
        let (answer, _) = scene.done("POST", "/root", body.clone()).await;
        let shown = answer.expect(200);
        assert!(
            body.get("password")
                .is_none_or(|chosen| *chosen == shown["user"]["password"])
        );
    }
    let inventory = StoredInventory {
        counter: 2,
        databases: vec![database("app")],
        users: vec![user("ann", &[])],
        is_root_enabled: true,
    };
    let id = scene.id.parse().unwrap();
    scene
        .world
        .store
        .put_inventory(id, &inventory, EPOCH)
        .await
        .unwrap();
    assert_eq!(
        scene.get("/root").await.expect(200),
        json!({ "rootEnabled": true })
    );
    // What the task does when it is done.
    let asked = scene.world.create(&scene.alice, "db2").await;
    let task = scene.world.claim(&asked).await.remove(0);
    let write = coffer_store::Write::SetRootEnabled {
        instance_id: id,
        at: EPOCH,
    };
    scene
        .world
        .end(&task, TaskState::Done, None, vec![write])
        .await;
    let (answer, commands) = scene.done("DELETE", "/root", Value::Null).await;
    assert_eq!((answer.status.as_u16(), answer.bytes.len()), (204, 0));
    assert_eq!(commands[0]["operation"], "disable-root");
}

#[tokio::test]
async fn a_command_that_fails_says_why_and_one_that_lasts_is_accepted() {
    let scene = Scene::new().await;
    let body = json!({ "databases": [{ "name": "new" }] });
    let path = scene.path("/databases");
    let request = scene.world.post(&scene.alice, &path, body.clone());
    let why = Some("the engine is down: it does not answer");
    let (answer, _) = during(&scene.world, &scene.id, request, TaskState::Failed, why).await;
    let fault = answer.fault(422, "unprocessableEntity");
    assert_eq!(fault["message"], "the engine is down: it does not answer");

    let request = scene.world.post(&scene.alice, &path, body);
    let answer = passing(&scene.world, request).await;
    answer.expect(202);
    let passed = scene.world.app.clock.now().millis_since(EPOCH);
    assert!(passed >= 10_000, "{passed} ms");
}

/// A guest that hangs: its task is taken up and does not end.
#[tokio::test]
async fn no_password_of_root_is_given_out_before_it_holds() {
    let scene = Scene::new().await;
    for (method, body) in [
        ("POST", Value::Null),
        ("POST", json!({ "password": "chosen-one" })),
    ] {
        let path = scene.path("/root");
        let request = scene.world.call(&scene.alice, method, &path, body);
        let answer = passing(&scene.world, request).await;
        let fault = answer.fault(422, "unprocessableEntity");
        assert_eq!(fault["reason"], "no-answer");
        assert!(
            fault["hint"].as_str().unwrap().contains("repeat"),
            "{fault}"
        );
        let task = scene.world.claim(&scene.id).await.remove(0);
        let input: RunCommandsInput = serde_json::from_str(&task.input).unwrap();
        let vault = scene.world.app.vault();
        let sealed = vault.open(input.commands_secret).await.unwrap();
        let commands: Value = serde_json::from_str(sealed.expose()).unwrap();
        let password = commands[0]["password"].as_str().unwrap();
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert!(!text.contains(password), "{text}");
        let why = Some("the guest does not answer");
        scene.world.end(&task, TaskState::Failed, why, vec![]).await;
    }
    assert_eq!(
        scene.get("/root").await.expect(200),
        json!({ "rootEnabled": false })
    );
    // When the guest is back, a repeated request has a password that holds.
    let (answer, commands) = scene.done("POST", "/root", Value::Null).await;
    assert_eq!(
        commands[0]["password"],
        answer.expect(200)["user"]["password"]
    );
}

#[tokio::test]
async fn an_instance_that_is_not_ready_is_422() {
    let scene = Scene::new().await;
    scene.world.heal(&scene.id, Health::Blocked).await;
    for (method, path, body) in [
        ("GET", "/databases", Value::Null),
        ("GET", "/users", Value::Null),
        ("GET", "/root", Value::Null),
        (
            "POST",
            "/databases",
            json!({ "databases": [{ "name": "a" }] }),
        ),
        ("POST", "/root", Value::Null),
    ] {
        let fault = scene
            .call(method, path, body)
            .await
            .fault(422, "unprocessableEntity");
        assert_eq!(fault["reason"], "not-ready");
    }
    let building = scene.world.create(&scene.alice, "db2").await;
    let answer = scene
        .world
        .get(&scene.alice, &format!("/instances/{building}/users"))
        .await;
    answer.fault(422, "unprocessableEntity");
    scene.world.finish(&building, Lifecycle::Active).await;
}

/// The workflow that made it ACTIVE has heard of the engine; the conductor is about to.
#[tokio::test]
async fn the_first_news_of_an_active_instance_is_waited_for() {
    let scene = Scene::new().await;
    let path = scene.path("/users");
    for stale in [Health::Starting, Health::Shutdown] {
        scene.world.heal(&scene.id, stale).await;
        let request = scene.world.call(&scene.alice, "GET", &path, Value::Null);
        let news = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            scene.world.heal(&scene.id, Health::Healthy).await;
        };
        let request = async { tokio::join!(request, news).0 };
        passing(&scene.world, request).await.expect(200);
    }
    // Where none comes, it is told as it is.
    scene.world.heal(&scene.id, Health::Starting).await;
    let request = scene.world.call(&scene.alice, "GET", &path, Value::Null);
    let answer = passing(&scene.world, request).await;
    let fault = answer.fault(422, "unprocessableEntity");
    assert_eq!(fault["reason"], "not-ready");
}
