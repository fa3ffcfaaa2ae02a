//! Instances as Trove's clients ask for and read them.

use std::time::Duration;

use coffer_control::app::ApiConfig;
use coffer_control::workflow::create_instance::CreateInstanceInput;
use coffer_core::event::AuditEntry;
use coffer_core::instance::{Fault, Health, Lifecycle};
use coffer_core::quota::Resource;
use coffer_core::task::{Signal, TaskState};
use coffer_store::Write;
use serde_json::{Value, json};

use crate::expected::assert_expected;
use crate::world::{DATASTORE, EPOCH, VERSION, World, ZONE, tenant_id};

fn minimal() -> Value {
    json!({ "name": "m1", "flavorRef": "1", "volume": { "size": 1 } })
}

#[tokio::test]
async fn the_legacy_client_s_create_works_word_for_word() {
    let world = World::new().await;
    let alice = world.alice().await;
    let networks = world.get(&alice, "/networks").await.expect(200);
    assert_expected("networks", &networks);
    // trove create m1 6.1 --datastore ID --datastore_version ID --nic net-id=ID --size 20
    // --availability_zone az01.cell01.qhzwy
    let body = json!({ "instance": {
        "name": "m1",
        "flavorRef": "6.1",
        "volume": { "size": 20, "type": null },
        "datastore": { "type": DATASTORE.to_string(), "version": VERSION.to_string() },
        "nics": [{ "net-id": networks["networks"][0]["id"] }],
        "availability_zone": ZONE,
    } });
    let created = world.post(&alice, "/instances", body).await.expect(200);
    assert_expected("instance-created", &created);
    let id = created["instance"]["id"].as_str().unwrap();
    let graph = world
        .store
        .get_instance_graph(id.parse().unwrap())
        .await
        .unwrap();
    assert_eq!(graph.instance.spec.zone.as_deref(), Some(ZONE));
    assert_eq!(graph.instance.spec.volume.as_gib(), 20);
    assert_eq!(
        (
            graph.servers.len(),
            graph.volumes.len(),
            graph.endpoints.len()
        ),
        (1, 1, 1)
    );
    assert_eq!(graph.set.unwrap().primary, Some(graph.instance.id));
    let task = world
        .store
        .find_active_task(graph.instance.id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(task.workflow, "create_instance");
    assert_eq!(task.actor.user_id.as_str(), "alice");
    assert!(task.actor.request_id.starts_with("req-"));
}

#[tokio::test]
async fn views_are_what_clients_parse() {
    let world = World::new().await;
    let (alice, root) = (world.alice().await, world.root().await);
    let id = world.active(&alice, "db1").await;
    let path = format!("/instances/{id}");
    assert_expected(
        "instance-shown",
        &world.get(&alice, &path).await.expect(200),
    );
    assert_expected(
        "instances-listed",
        &world.get(&alice, "/instances").await.expect(200),
    );
    let detail = world.get(&alice, "/instances/detail").await.expect(200);
    assert_expected("instances-detail", &detail);
    let managed = world
        .get(&root, "/mgmt/instances?deleted=False")
        .await
        .expect(200);
    assert_expected("instances-managed", &managed);
    let one = world.get(&root, &format!("/mgmt{path}")).await.expect(200);
    assert_expected("instance-managed", &one);
    let by_admin = world.get(&root, &path).await.expect(200);
    assert_expected("instance-shown-to-admin", &by_admin);
    let history = world.get(&root, &format!("/mgmt{path}/root")).await;
    assert_eq!(
        history.expect(200)["root_history"],
        json!({ "id": id, "enabled": "Never", "user": "Nobody" })
    );
}

#[tokio::test]
async fn a_fault_is_shown_with_its_details_to_admins_only() {
    let world = World::new().await;
    let (alice, root) = (world.alice().await, world.root().await);
    let id = world.create(&alice, "db1").await;
    let fault = Fault {
        message: "the volume could not be made: the pool is full".to_owned(),
        details: "ENOSPC".to_owned(),
        at: EPOCH,
    };
    let task = world.claim(&id).await.remove(0);
    let write = Write::SetLifecycle {
        instance_id: id.parse().unwrap(),
        lifecycle: Lifecycle::Failed,
        fault: Some(fault),
    };
    world
        .end(
            &task,
            TaskState::Failed,
            Some("the pool is full"),
            vec![write],
        )
        .await;
    let path = format!("/instances/{id}");
    let shown = world.get(&alice, &path).await.expect(200);
    assert_eq!(shown["instance"]["status"], "ERROR");
    assert_eq!(shown["instance"]["fault"]["details"], Value::Null);
    let shown = world.get(&root, &path).await.expect(200);
    assert_eq!(shown["instance"]["fault"]["details"], "ENOSPC");
    assert_eq!(shown["instance"]["fault"]["created"], "2026-11-21T04:09:23");
}

#[tokio::test]
async fn databases_and_users_of_a_create_are_sealed() {
    let world = World::new().await;
    let alice = world.alice().await;
    let mut instance = minimal();
    instance["databases"] = json!([{ "name": "app", "character_set": "utf8" }]);
    instance["users"] = json!([{
        "name": "ann", "password": "hunter2-secret", "databases": [{ "name": "app" }],
    }]);
    let created = world
        .post(&alice, "/instances", json!({ "instance": instance }))
        .await;
    let id = created.expect(200)["instance"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let task = world
        .store
        .find_active_task(id.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert!(!format!("{task:?}").contains("hunter2"), "{task:?}");
    let input: CreateInstanceInput = serde_json::from_str(&task.input).unwrap();
    let sealed = world
        .app
        .vault()
        .open(input.commands_secret.unwrap())
        .await
        .unwrap();
    let commands: Value = serde_json::from_str(sealed.expose()).unwrap();
    assert_eq!(commands[0]["operation"], "create-databases");
    assert_eq!(commands[1]["users"][0]["password"], "hunter2-secret");
}

#[tokio::test]
async fn lenient_forms_of_other_clients_work() {
    let world = World::new().await;
    let alice = world.alice().await;
    for instance in [
        // OSC and troveclient.
        json!({ "name": "a", "flavorRef": 1, "volume": { "size": "2", "type": null },
            "access": { "is_public": false } }),
        // openstacksdk.
        json!({ "name": "b", "flavor": "1", "volume": 1 }),
        json!({ "name": "c", "flavor": { "id": 1 }, "volume": { "size": 1 } }),
        // Terraform and gophercloud.
        json!({ "name": "d", "flavorRef": "https://host/v1.0/p/flavors/1", "databases": [],
            "users": [], "nics": [], "volume": { "size": 1, "type": "cow" },
            "datastore": { "type": "postgresql", "version": "17" } }),
    ] {
        let answer = world
            .post(&alice, "/instances", json!({ "instance": instance }))
            .await;
        assert_eq!(answer.expect(200)["instance"]["status"], "BUILD");
    }
}

#[tokio::test]
async fn what_cannot_be_found_or_is_too_much_is_refused_and_nothing_is_written() {
    let world = World::new().await;
    let alice = world.alice().await;
    let other_network = world.get(&world.bob().await, "/networks").await.expect(200);
    let foreign = &other_network["networks"][0]["id"];
    let cases = [
        ("flavorRef", json!("7"), 400),
        ("flavorRef", json!("no/such/"), 400),
        ("availability_zone", json!("nowhere"), 400),
        ("nics", json!([{ "net-id": foreign }]), 400),
        ("nics", json!([{ "net-id": "x" }]), 400),
        ("nics", json!([{ "net-id": "x" }, { "net-id": "y" }]), 400),
        ("nics", json!([{ "port-id": "x" }]), 400),
        ("nics", json!([{ "net-id": "x", "mac": "y" }]), 400),
        ("volume", json!({ "size": 0 }), 400),
        ("volume", json!({ "size": -1 }), 400),
        ("volume", json!({ "size": "many" }), 400),
        ("volume", json!({ "size": 1.5 }), 400),
        ("volume", json!({}), 400),
        ("volume", json!({ "size": 65 }), 413),
        ("volume", json!({ "size": 1, "type": "gold" }), 400),
        ("volume", json!(null), 400),
        ("datastore", json!({ "type": "oracle" }), 404),
        (
            "datastore",
            json!({ "type": "postgresql", "version": "9" }),
            400,
        ),
        (
            "datastore",
            json!({ "type": "postgresql", "version": "17", "version_number": "1" }),
            400,
        ),
        ("name", json!(""), 400),
        ("name", json!("---"), 400),
        ("name", json!("x".repeat(256)), 400),
        ("name", json!(5), 400),
        ("name", json!("a\u{0}b"), 400),
        ("databases", json!([{ "name": "a" }, { "name": "a" }]), 400),
        ("databases", json!([{ "name": "postgres" }]), 400),
        ("databases", json!([{}]), 400),
        ("users", json!([{ "name": "u" }]), 400),
        (
            "users",
            json!([{ "name": "u", "password": "p", "databases": [{ "name": "b" }] }]),
            400,
        ),
        (
            "users",
            json!([{ "name": "postgres", "password": "p" }]),
            400,
        ),
        ("access", json!({ "is_public": "yes" }), 400),
        ("access", json!({ "allowed_cidrs": ["10.0.0.0/99"] }), 400),
        ("access", json!({ "allowed_cidrs": "10.0.0.0/8" }), 400),
        ("region_name", json!("Mars"), 400),
        ("replica_of", json!("x"), 501),
        ("restorePoint", json!({ "backupRef": "x" }), 501),
        ("configuration", json!("x"), 501),
        ("modules", json!([{ "id": "x" }]), 501),
    ];
    for (field, value, status) in cases {
        let mut instance = minimal();
        instance[field] = value.clone();
        let answer = world
            .post(&alice, "/instances", json!({ "instance": instance }))
            .await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert_eq!(answer.status.as_u16(), status, "{field} {value}: {text}");
    }
    let all = world.get(&alice, "/instances").await.expect(200);
    assert_eq!(all["instances"], json!([]));
    let quotas = world
        .get(&alice, &format!("/mgmt/quotas/{}", alice.project))
        .await
        .expect(200);
    assert!(
        quotas["quotas"]
            .as_array()
            .unwrap()
            .iter()
            .all(|q| q["in_use"] == 0),
        "{quotas}"
    );
}

#[tokio::test]
async fn the_volume_cap_is_configuration() {
    let world = World::with(ApiConfig {
        rate_per_minute: 0,
        volume_gib_max: 3,
        ..ApiConfig::default()
    })
    .await;
    let alice = world.alice().await;
    let sized = |size: u32| {
        let mut instance = minimal();
        instance["volume"]["size"] = json!(size);
        json!({ "instance": instance })
    };
    let made = world.post(&alice, "/instances", sized(3)).await.expect(200);
    assert_eq!(made["instance"]["volume"]["size"], 3);
    let answer = world.post(&alice, "/instances", sized(4)).await;
    let fault = answer.fault(413, "overLimit");
    assert_eq!(fault["reason"], "volume-too-large");
    assert_eq!(
        fault["message"],
        "Volume 'size' cannot exceed maximum of 3 GB, 4 cannot be accepted."
    );
    let listed = world.get(&alice, "/instances").await.expect(200);
    assert_eq!(listed["instances"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn quotas_are_413_with_their_names_and_freed_secrets() {
    let world = World::new().await;
    let alice = world.alice().await;
    world
        .store
        .set_quota(&tenant_id("demo"), Resource::Instances, 1)
        .await
        .unwrap();
    world.create(&alice, "a").await;
    let mut instance = minimal();
    instance["users"] = json!([{ "name": "u", "password": "p" }]);
    let answer = world
        .post(&alice, "/instances", json!({ "instance": instance }))
        .await;
    let fault = answer.fault(413, "overLimit");
    assert_eq!(
        fault["message"],
        "Quota exceeded for resources: ['instances']."
    );
    assert_eq!(fault["reason"], "quota-exceeded");
    let limits = world.get(&alice, "/limits").await.expect(200);
    assert_eq!(limits["limits"][0]["verb"], "ABSOLUTE");
    assert_eq!(limits["limits"][0]["max_instances"], 1);
}

#[tokio::test]
async fn names_are_looked_up_as_ids_first() {
    let world = World::new().await;
    let alice = world.alice().await;
    for path in [
        "/instances/m1",
        "/instances/00000000-0000-7000-8000-000000000000",
        "/flavors/m1.tiny",
        "/datastores/mysql",
        "/networks/default",
    ] {
        world.get(&alice, path).await.fault(404, "itemNotFound");
    }
    let odd = world.get(&alice, "/instances/%00%ff").await;
    odd.fault(404, "itemNotFound");
}

#[tokio::test]
async fn rename_and_access_are_updates() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.active(&alice, "db1").await;
    let path = format!("/instances/{id}");
    let update = async |body: Value| world.put(&alice, &path, json!({ "instance": body })).await;
    let renamed = update(json!({ "name": "db2" })).await;
    renamed.expect(202);
    assert!(renamed.bytes.is_empty());
    let access = json!({ "is_public": true, "allowed_cidrs": ["10.0.0.7/8", "fd00::/64"] });
    update(json!({ "access": access, "name": "db3" }))
        .await
        .expect(202);
    let shown = world.get(&alice, &path).await.expect(200)["instance"].clone();
    assert_eq!(shown["name"], "db3");
    assert_eq!(shown["access"]["is_public"], true);
    assert_eq!(
        shown["access"]["allowed_cidrs"],
        json!(["10.0.0.0/8", "fd00::/64"])
    );
    // Terraform tolerates nothing but ACTIVE here.
    assert_eq!(
        (shown["status"].as_str(), shown["operating_status"].as_str()),
        (Some("ACTIVE"), Some(""))
    );
    let task = world
        .store
        .find_active_task(id.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(task.workflow, "update_access");
    let busy = update(json!({ "access": {} }))
        .await
        .fault(422, "unprocessableEntity");
    assert_eq!(busy["reason"], "not-available");
    for (body, status) in [
        (json!({}), 202),
        (json!({ "configuration": null }), 202),
        (json!({ "configuration": {} }), 202),
        (json!({ "configuration": "x" }), 501),
        (json!({ "datastore_version": "18" }), 501),
        (json!({ "replica_of": "" }), 400),
        (json!({ "slave_of": null }), 400),
        (
            json!({ "name": "a", "configuration": null, "access": {} }),
            400,
        ),
        (json!({ "flavorRef": "2" }), 400),
        (json!({ "access": { "cidrs": [] } }), 400),
        (json!({ "name": null }), 202),
    ] {
        update(body.clone()).await.expect_or(status, &body);
    }
    let patched = json!({ "instance": { "name": "db4" } });
    world
        .call(&alice, "PATCH", &path, patched)
        .await
        .expect(202);
    let narrower = json!({ "instance": { "access": {} } });
    world
        .call(&alice, "PATCH", &path, narrower)
        .await
        .fault(400, "badRequest");
}

impl crate::world::Answer {
    #[track_caller]
    fn expect_or(&self, status: u16, body: &Value) {
        let text = String::from_utf8_lossy(&self.bytes);
        assert_eq!(self.status.as_u16(), status, "{body}: {text}");
    }
}

#[tokio::test]
async fn actions_take_one_known_key() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.active(&alice, "db1").await;
    let path = format!("/instances/{id}/action");
    for (body, status) in [
        (json!({}), 400),
        (json!({ "restart": {}, "resize": {} }), 400),
        (json!({ "dance": {} }), 400),
        (json!({ "restart": { "now": true } }), 400),
        (json!([]), 400),
        (json!({ "resize": { "flavorRef": "2" } }), 501),
        (json!({ "promote_to_replica_source": {} }), 400),
        (json!({ "eject_replica_source": {} }), 400),
        (json!({ "reset_status": {} }), 403),
    ] {
        world
            .post(&alice, &path, body.clone())
            .await
            .expect_or(status, &body);
    }
    world
        .post(&alice, &path, json!({ "restart": null }))
        .await
        .expect(202);
    let shown = world
        .get(&alice, &format!("/instances/{id}"))
        .await
        .expect(200);
    assert_eq!(shown["instance"]["status"], "REBOOT");
    world
        .post(&alice, &path, json!({ "restart": {} }))
        .await
        .fault(422, "unprocessableEntity");
}

#[tokio::test]
async fn an_instance_is_stopped_until_it_is_started() {
    let world = World::new().await;
    let (alice, rita, root) = (world.alice().await, world.rita().await, world.root().await);
    let id = world.active(&alice, "db1").await;
    let shown = format!("/instances/{id}");
    let (own, managed) = (format!("{shown}/action"), format!("/mgmt{shown}/action"));
    let workflow = async || {
        let task = world.store.find_active_task(id.parse().unwrap()).await;
        task.unwrap().map(|task| task.workflow)
    };
    let words = async || {
        let shown = world.get(&alice, &shown).await.expect(200);
        let shown = &shown["instance"];
        [shown["status"].clone(), shown["operating_status"].clone()]
    };
    world
        .post(&alice, &own, json!({ "start": {} }))
        .await
        .fault(422, "unprocessableEntity");
    world
        .post(&rita, &own, json!({ "stop": {} }))
        .await
        .fault(403, "forbidden");
    for (who, path) in [(&alice, &own), (&root, &managed)] {
        world
            .post(who, path, json!({ "stop": {} }))
            .await
            .expect(202);
        assert_eq!(words().await, ["REBOOT", ""]);
        assert_eq!(workflow().await.unwrap(), "stop_instance");
        world
            .post(who, path, json!({ "stop": {} }))
            .await
            .fault(422, "unprocessableEntity");
        world.finish(&id, Lifecycle::Stopped).await;
        assert_eq!(words().await, ["SHUTDOWN", "SHUTDOWN"]);
        world.clock.advance(Duration::from_secs(5));
        let why = world
            .get(&alice, &format!("{shown}/explain"))
            .await
            .expect(200);
        let why = why["explanation"]["summary"].as_str().unwrap().to_owned();
        assert!(
            why.starts_with("db1 is stopped on request since 5 s (asked by user "),
            "{why}"
        );
        world
            .post(who, path, json!({ "stop": {} }))
            .await
            .fault(422, "unprocessableEntity");
        let body = json!({ "databases": [{ "name": "late" }] });
        let databases = format!("{shown}/databases");
        world
            .post(&alice, &databases, body)
            .await
            .fault(422, "unprocessableEntity");
        // A restart starts it, and so does a start.
        let action = if who.token == alice.token {
            "restart"
        } else {
            "start"
        };
        world
            .post(&alice, &own, json!({ action: {} }))
            .await
            .expect(202);
        assert_eq!(workflow().await.unwrap(), "start_instance");
        assert_eq!(words().await, ["REBOOT", ""]);
        world.finish(&id, Lifecycle::Active).await;
        assert_eq!(words().await, ["ACTIVE", "HEALTHY"]);
    }
    // What is stopped can be deleted.
    world
        .post(&alice, &own, json!({ "stop": {} }))
        .await
        .expect(202);
    world.finish(&id, Lifecycle::Stopped).await;
    world.delete(&alice, &shown).await.expect(202);
    assert_eq!(workflow().await.unwrap(), "delete_instance");
}

#[tokio::test]
async fn a_reset_cancels_what_is_under_way() {
    let world = World::new().await;
    let (alice, bob, root) = (world.alice().await, world.bob().await, world.root().await);
    let id = world.create(&alice, "db1").await;
    let (own, managed) = (
        format!("/instances/{id}/action"),
        format!("/mgmt/instances/{id}/action"),
    );
    let task = world
        .store
        .find_active_task(id.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    let told = async || world.store.list_signals(task.id).await.unwrap();
    // Only an admin resets; the owner may on the way to a delete; a stranger sees nothing.
    for (who, path, body, status) in [
        (&alice, &own, json!({ "reset_status": {} }), 403),
        (&alice, &managed, json!({ "reset-task-status": {} }), 401),
        (
            &bob,
            &own,
            json!({ "reset_status": { "force_delete": null } }),
            404,
        ),
        (&root, &own, json!({ "reset_status": { "now": true } }), 400),
        (
            &root,
            &managed,
            json!({ "reset-task-status": { "now": true } }),
            400,
        ),
        (&root, &managed, json!({}), 400),
        (&root, &managed, json!({ "dance": {} }), 400),
        (&root, &managed, json!({ "stop": {}, "reboot": {} }), 400),
        (&alice, &managed, json!({ "stop": {} }), 401),
        (&root, &managed, json!({ "stop": { "now": true } }), 400),
        (&root, &managed, json!({ "stop": {} }), 422),
        (
            &root,
            &managed,
            json!({ "rebuild": { "image_id": "x" } }),
            501,
        ),
    ] {
        world
            .post(who, path, body.clone())
            .await
            .expect_or(status, &body);
        assert_eq!(told().await, [], "{body}");
    }
    for (who, path, body) in [
        (&root, &own, json!({ "reset_status": {} })),
        (&root, &own, json!({ "reset_status": null })),
        (&root, &managed, json!({ "reset-task-status": {} })),
        (
            &alice,
            &own,
            json!({ "reset_status": { "force_delete": true } }),
        ),
    ] {
        world
            .store
            .clear_signal(task.id, Signal::Cancel)
            .await
            .unwrap();
        world
            .post(who, path, body.clone())
            .await
            .expect_or(202, &body);
        assert_eq!(told().await, [Signal::Cancel], "{body}");
    }
    let events = world
        .get(&alice, &format!("/instances/{id}/events"))
        .await
        .expect(200);
    assert!(
        events.to_string().contains("instance.reset-asked"),
        "{events}"
    );
    // With nothing under way there is nothing to cancel.
    world.finish(&id, Lifecycle::Active).await;
    world
        .post(&root, &own, json!({ "reset_status": {} }))
        .await
        .expect(202);
    assert_eq!(told().await, []);
}

#[tokio::test]
async fn a_delete_works_in_every_state_and_twice() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.create(&alice, "db1").await;
    let path = format!("/instances/{id}");
    world.delete(&alice, &path).await.expect(202);
    world.delete(&alice, &path).await.expect(202);
    let shown = world.get(&alice, &path).await.expect(200);
    assert_eq!(shown["instance"]["status"], "SHUTDOWN");
    let tasks = world.store.list_tasks(id.parse().unwrap()).await.unwrap();
    let deletes = tasks
        .iter()
        .filter(|task| task.workflow == "delete_instance");
    assert_eq!(deletes.count(), 1);
    let create = tasks
        .iter()
        .find(|task| task.workflow == "create_instance")
        .unwrap();
    assert_eq!(
        world.store.list_signals(create.id).await.unwrap(),
        [Signal::Delete]
    );
}

#[tokio::test]
async fn every_change_is_in_the_audit_trail() {
    let world = World::new().await;
    let (alice, rita, root) = (world.alice().await, world.rita().await, world.root().await);
    let id = world.active(&alice, "db1").await;
    world
        .post(
            &alice,
            &format!("/instances/{id}/action"),
            json!({ "restart": {} }),
        )
        .await
        .expect(202);
    world
        .delete(&rita, &format!("/instances/{id}"))
        .await
        .expect(403);
    world
        .post(&alice, "/instances", json!({}))
        .await
        .expect(400);
    world.get(&alice, "/instances").await.expect(200);
    let all: Vec<AuditEntry> = world.store.list_audit(None, None, 100).await.unwrap();
    let lines: Vec<_> = all
        .iter()
        .map(|one| {
            format!(
                "{} {} {} {}",
                one.actor.user_id, one.action, one.target, one.outcome
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            format!("alice instance:create instances/{id} 200"),
            format!("alice instance:restart instances/{id}/action 202"),
            format!("rita instance:delete instances/{id} 403"),
            "alice instance:create instances 400".to_owned(),
        ]
    );
    let first = world.get(&root, "/admin/audit?limit=1").await.expect(200);
    assert_expected("audit", &first);
    let of_other = format!("/admin/audit?project={}", tenant_id("other"));
    assert_eq!(
        world.get(&root, &of_other).await.expect(200)["audit"],
        json!([])
    );
}

#[tokio::test]
async fn health_shows_as_operating_status() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.active(&alice, "db1").await;
    for (health, word) in [(Health::Blocked, "BLOCKED"), (Health::Lost, "ERROR")] {
        world.heal(&id, health).await;
        let shown = world
            .get(&alice, &format!("/instances/{id}"))
            .await
            .expect(200);
        assert_eq!(shown["instance"]["operating_status"], word);
        assert_eq!(shown["instance"]["status"], "ACTIVE");
    }
}

#[tokio::test]
async fn requests_are_limited_per_project_and_verb() {
    let config = ApiConfig {
        rate_per_minute: 3,
        ..ApiConfig::default()
    };
    let world = World::with(config).await;
    let (alice, bob) = (world.alice().await, world.bob().await);
    for _ in 0..3 {
        world.get(&alice, "/flavors").await.expect(200);
    }
    let limited = world.get(&alice, "/flavors").await;
    let fault = limited.fault(413, "overLimit");
    assert_eq!(fault["message"], "This request was rate-limited.");
    assert_eq!(
        fault["details"],
        "Only 3 GET request(s) can be made to * every minute."
    );
    assert_eq!(
        limited.header("retry-after"),
        fault["retryAfter"].as_str().unwrap()
    );
    world.get(&bob, "/flavors").await.expect(200);
    let limits = world.get(&bob, "/limits").await.expect(200);
    assert_expected("limits", &limits);
}
