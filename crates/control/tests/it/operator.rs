//! The operator's routes: projects, users, roles, flavors, volume types, zones, quotas.

use coffer_control::api::rules;
use coffer_control::app::ApiConfig;
use coffer_core::quota::DefaultLimits;
use serde_json::{Value, json};

use crate::expected::assert_expected;
use crate::world::{EPOCH, World, ZONE, tenant_id};

#[tokio::test]
async fn projects_and_users_are_listed_in_pages() {
    let world = World::new().await;
    let root = world.root().await;
    for (path, key) in [("/admin/projects", "projects"), ("/admin/users", "users")] {
        let whole = world.get(&root, path).await.expect(200);
        let whole = whole[key].as_array().unwrap().clone();
        assert!(whole.len() > 2, "{whole:?}");
        let mut paged = Vec::new();
        let mut next = format!("{path}?limit=1");
        loop {
            let page = world.get(&root, &next).await.expect(200);
            let rows = page[key].as_array().unwrap();
            assert_eq!(rows.len(), 1, "{next}");
            paged.extend(rows.iter().cloned());
            let Some(href) = page["links"][0]["href"].as_str() else {
                break;
            };
            let query = href.split_once('?').unwrap().1;
            next = format!("{path}?{query}");
        }
        assert_eq!(paged, whole);
        let name = whole[1]["name"].as_str().unwrap();
        let one = world.get(&root, &format!("{path}?name={name}")).await;
        assert_eq!(one.expect(200)[key], json!([whole[1]]));
    }
}

#[tokio::test]
async fn projects_and_users_come_and_go() {
    let world = World::new().await;
    let root = world.root().await;
    let new = json!({ "project": { "name": "shop", "description": "the shop" } });
    let project = world
        .post(&root, "/admin/projects", new.clone())
        .await
        .expect(200);
    let id = project["project"]["id"].as_str().unwrap();
    assert_eq!(id.len(), 32);
    world
        .post(&root, "/admin/projects", new)
        .await
        .fault(409, "conflict");
    let user = json!({ "user": { "name": "carl", "password": "long enough",
        "default_project_id": id } });
    let user = world.post(&root, "/admin/users", user).await.expect(200);
    assert!(!user.to_string().contains("argon2"), "{user}");
    let user_id = user["user"]["id"].as_str().unwrap();
    let role = format!("/admin/projects/{id}/users/{user_id}/roles/member");
    world.put(&root, &role, Value::Null).await.expect(204);
    world.put(&root, &role, Value::Null).await.expect(204);
    let held = world
        .get(&root, &format!("/admin/assignments?user={user_id}"))
        .await
        .expect(200);
    assert_eq!(held["assignments"][0]["role"], "member");
    let found = world.get(&root, "/admin/users?name=carl").await.expect(200);
    assert_eq!(found["users"][0]["id"], user_id);
    world.delete(&root, &role).await.expect(204);
    world
        .delete(&root, &format!("/admin/users/{user_id}"))
        .await
        .expect(204);
    world
        .delete(&root, &format!("/admin/users/{user_id}"))
        .await
        .fault(404, "itemNotFound");
    let closed = json!({ "project": { "enabled": false } });
    let path = format!("/admin/projects/{id}");
    let shown = world.call(&root, "PATCH", &path, closed).await.expect(200);
    assert_eq!(shown["project"]["enabled"], false);
    world.delete(&root, &path).await.expect(204);
    world.get(&root, &path).await.fault(404, "itemNotFound");
}

#[tokio::test]
async fn a_zone_s_instances_carry_its_new_name() {
    let world = World::new().await;
    let (alice, root) = (world.alice().await, world.root().await);
    let body = json!({ "instance": { "name": "a", "flavorRef": "1", "availability_zone": ZONE,
        "volume": { "size": 1 } } });
    let made = world.post(&alice, "/instances", body).await.expect(200);
    let id = made["instance"]["id"].as_str().unwrap().parse().unwrap();
    let path = format!("/admin/zones/{ZONE}");
    let renamed = json!({ "zone": { "name": "west" } });
    world.call(&root, "PATCH", &path, renamed).await.expect(200);
    let instance = world.store.find_instance(id).await.unwrap().unwrap();
    assert_eq!(instance.spec.zone.as_deref(), Some("west"));
    world
        .delete(&root, "/admin/zones/west")
        .await
        .fault(409, "conflict");
}

/// Every route that changes something leaves a line in the audit trail, whatever it answers.
#[tokio::test]
async fn every_changing_route_is_audited() {
    let world = World::new().await;
    let root = world.root().await;
    let mut routes = 0;
    let mut known = 0;
    for route in rules::all().filter(|route| route.missing.is_none()) {
        for verb in route.verbs.split(' ').filter(|verb| *verb != "GET") {
            let path: Vec<_> = route
                .path
                .split('/')
                .map(|part| {
                    if part.starts_with('{') {
                        "nothing"
                    } else {
                        part
                    }
                })
                .collect();
            let path = path.join("/");
            world.call(&root, verb, &path, json!({})).await;
            let all = world.store.list_audit(None, None, 1_000).await.unwrap();
            assert_eq!(all.len(), known + 1, "{verb} {path}");
            known = all.len();
            let last = all.iter().max_by_key(|one| one.id).unwrap();
            assert_eq!(last.target, path.trim_start_matches('/'), "{verb} {path}");
            assert_eq!(last.actor.user_id.as_str(), "root");
            routes += 1;
        }
    }
    assert!(routes >= 40, "{routes}");
}

#[tokio::test]
async fn configured_quotas_hold_where_none_was_set() {
    let quotas = DefaultLimits {
        instances: 1,
        volumes_gib: 7,
        ..DefaultLimits::default()
    };
    let config = ApiConfig {
        quotas,
        ..ApiConfig::default()
    };
    let world = World::with(config).await;
    let (alice, root) = (world.alice().await, world.root().await);
    let limits = world.get(&alice, "/limits").await.expect(200);
    assert_eq!(limits["limits"][0]["max_instances"], 1);
    assert_eq!(limits["limits"][0]["max_volumes"], 7);
    world.create(&alice, "a").await;
    let body = json!({ "instance": { "name": "b", "flavorRef": "1", "volume": { "size": 7 } } });
    let fault = world
        .post(&alice, "/instances", body.clone())
        .await
        .fault(413, "overLimit");
    assert_eq!(
        fault["message"],
        "Quota exceeded for resources: ['instances', 'volumes']."
    );
    let own = format!("/mgmt/quotas/{}", alice.project);
    let more = json!({ "quotas": { "instances": 2, "volumes": 8 } });
    world.put(&root, &own, more).await.expect(200);
    world.post(&alice, "/instances", body).await.expect(200);
}

#[tokio::test]
async fn the_body_limit_is_configured() {
    let config = ApiConfig {
        body_bytes_max: 4_096,
        ..ApiConfig::default()
    };
    let world = World::with(config).await;
    let alice = world.alice().await;
    let body = |chars: usize| json!({ "instance": { "name": "x".repeat(chars) } });
    world
        .post(&alice, "/instances", body(4_000))
        .await
        .fault(400, "badRequest");
    let fault = world
        .post(&alice, "/instances", body(4_097))
        .await
        .fault(413, "overLimit");
    assert_eq!(fault["message"], "the body is larger than 4096 bytes");
}

#[tokio::test]
async fn what_is_in_use_stays() {
    let world = World::new().await;
    let (alice, root) = (world.alice().await, world.root().await);
    let body = json!({ "instance": { "name": "a", "flavorRef": "1", "availability_zone": ZONE,
        "volume": { "size": 1, "type": "cow" } } });
    world.post(&alice, "/instances", body).await.expect(200);
    for path in [
        "/admin/flavors/1".to_owned(),
        format!("/admin/zones/{ZONE}"),
        "/admin/volume-types/cow".to_owned(),
        format!("/admin/projects/{}", tenant_id("demo")),
        "/admin/roles/member".to_owned(),
    ] {
        let fault = world.delete(&root, &path).await.fault(409, "conflict");
        assert_eq!(fault["reason"], "in-use", "{path}");
    }
    // The sizes of a flavor in use are charged to quotas, and its instances would get the new ones
    // at their next start; its name is only a name.
    let bigger = json!({ "flavor": { "ram": 4_096 } });
    let fault = world.call(&root, "PATCH", "/admin/flavors/1", bigger.clone());
    assert_eq!(fault.await.fault(409, "conflict")["reason"], "in-use");
    let same = json!({ "flavor": { "ram": 512, "name": "m1.other" } });
    let renamed = world.call(&root, "PATCH", "/admin/flavors/1", same).await;
    assert_eq!(renamed.expect(200)["flavor"]["ram"], 512);
    let resized = world.call(&root, "PATCH", "/admin/flavors/6.1", bigger);
    assert_eq!(resized.await.expect(200)["flavor"]["ram"], 4_096);
    world.delete(&root, "/admin/flavors/6.1").await.expect(204);
}

/// Changes of one user at the same time: hashing a password takes its time, and what was changed
/// meanwhile stays changed.
#[tokio::test]
async fn changes_at_the_same_time_do_not_undo_each_other() {
    let world = World::new().await;
    let root = world.root().await;
    let path = "/admin/users/bob";
    let change = |user: Value| world.call(&root, "PATCH", path, json!({ "user": user }));
    let (password, name) = tokio::join!(
        change(json!({ "password": "another password" })),
        change(json!({ "name": "robert" })),
    );
    password.expect(200);
    name.expect(200);
    let user = world
        .store
        .find_user_by_name("robert")
        .await
        .unwrap()
        .unwrap();
    let hash = world
        .store
        .find_user_by_name("alice")
        .await
        .unwrap()
        .unwrap();
    assert_ne!(user.password_hash, hash.password_hash);
}

#[tokio::test]
async fn an_admin_cannot_lock_the_own_door() {
    let world = World::new().await;
    let root = world.root().await;
    let project = format!("/admin/projects/{}", root.project);
    let closed = json!({ "project": { "enabled": false } });
    world
        .call(&root, "PATCH", &project, closed)
        .await
        .fault(409, "conflict");
    world.delete(&root, &project).await.fault(409, "conflict");
    let closed = json!({ "user": { "enabled": false } });
    world
        .call(&root, "PATCH", "/admin/users/root", closed)
        .await
        .fault(409, "conflict");
    world
        .delete(&root, "/admin/users/root")
        .await
        .fault(409, "conflict");
    let role = format!("{project}/users/root/roles/admin");
    world.delete(&root, &role).await.fault(409, "conflict");
    let renamed = json!({ "project": { "description": "still here" } });
    world
        .call(&root, "PATCH", &project, renamed)
        .await
        .expect(200);
}

#[tokio::test]
async fn sizes_and_places_come_and_go() {
    let world = World::new().await;
    let (alice, root) = (world.alice().await, world.root().await);
    let flavor = json!({ "flavor": { "id": "007", "name": "m7", "ram": 2048, "vcpus": 2 } });
    world
        .post(&root, "/admin/flavors", flavor.clone())
        .await
        .expect(200);
    world
        .post(&root, "/admin/flavors", flavor)
        .await
        .fault(409, "conflict");
    assert_expected("flavors", &world.get(&alice, "/flavors").await.expect(200));
    assert_eq!(
        world.get(&alice, "/flavors/6.1").await.expect(200)["flavor"]["id"],
        Value::Null
    );
    let change = json!({ "flavor": { "ram": 4096 } });
    let changed = world
        .call(&root, "PATCH", "/admin/flavors/007", change)
        .await
        .expect(200);
    assert_eq!(changed["flavor"]["ram"], 4096);
    let zone = json!({ "zone": { "name": "az2" } });
    world.post(&root, "/admin/zones", zone).await.expect(200);
    assert_eq!(
        world.get(&root, "/admin/zones").await.expect(200)["zones"][1]["name"],
        "az2"
    );
    let renamed = json!({ "zone": { "name": "az3" } });
    let answer = world
        .call(&root, "PATCH", "/admin/zones/az2", renamed)
        .await;
    assert_eq!(answer.expect(200)["zone"]["name"], "az3");
    world
        .get(&root, "/admin/zones/az2")
        .await
        .fault(404, "itemNotFound");
    let taken = json!({ "zone": { "name": ZONE } });
    world
        .call(&root, "PATCH", "/admin/zones/az3", taken)
        .await
        .fault(409, "conflict");
    world.delete(&root, "/admin/zones/az3").await.expect(204);
    let kind = json!({ "volume_type": { "name": "gold", "description": "fast" } });
    world
        .post(&root, "/admin/volume-types", kind)
        .await
        .expect(200);
    let change = json!({ "volume_type": { "description": "faster" } });
    let path = "/admin/volume-types/gold";
    let changed = world.call(&root, "PATCH", path, change).await.expect(200);
    assert_eq!(changed["volume_type"]["description"], "faster");
    world.delete(&root, path).await.expect(204);
    let role = json!({ "role": { "name": "auditor" } });
    world.post(&root, "/admin/roles", role).await.expect(200);
    world.get(&root, "/admin/roles/auditor").await.expect(200);
    world
        .delete(&root, "/admin/roles/auditor")
        .await
        .expect(204);
}

/// The four limits of a volume type as it is shown.
fn limits(shown: &Value) -> Value {
    let fields = [
        "read_iops_sec",
        "write_iops_sec",
        "read_bytes_sec",
        "write_bytes_sec",
    ];
    fields.iter().map(|field| shown[field].clone()).collect()
}

#[tokio::test]
async fn io_limits_are_set_and_lifted_and_shown_to_tenants() {
    let world = World::new().await;
    let (alice, root) = (world.alice().await, world.root().await);
    let new = json!({ "volume_type": { "name": "gold", "read_iops_sec": 500,
        "write_iops_sec": null, "write_bytes_sec": 1_048_576 } });
    let made = world.post(&root, "/admin/volume-types", new).await;
    let expected = json!([500, null, null, 1_048_576]);
    assert_eq!(limits(&made.expect(200)["volume_type"]), expected);
    let path = "/admin/volume-types/gold";
    let change = async |change: Value| {
        let body = json!({ "volume_type": change });
        let shown = world.call(&root, "PATCH", path, body).await.expect(200);
        limits(&shown["volume_type"])
    };
    assert_eq!(change(json!({ "description": "slow" })).await, expected);
    assert_eq!(change(json!({})).await, expected);
    let other = json!({ "read_iops_sec": null, "write_iops_sec": 10 });
    let expected = json!([null, 10, null, 1_048_576]);
    assert_eq!(change(other).await, expected);
    let shown = world.get(&root, path).await.expect(200);
    assert_eq!(shown["volume_type"]["description"], "slow");
    assert_eq!(limits(&shown["volume_type"]), expected);
    let types = "/datastores/postgresql/versions/17/volume-types";
    let types = world.get(&alice, types).await.expect(200);
    let types = types["volume_types"].as_array().unwrap();
    assert_eq!(limits(&types[0]), json!([null, null, null, null]));
    assert_eq!(limits(&types[1]), expected);
}

#[tokio::test]
async fn io_limits_that_no_volume_can_have_are_refused() {
    let world = World::new().await;
    let root = world.root().await;
    let operations = "is out of range: 10 to 10000000 operations a second";
    let bytes = "is out of range: 65536 to 1099511627776 bytes a second";
    for (field, value, words) in [
        ("read_iops_sec", json!(0), operations),
        ("read_iops_sec", json!(9), operations),
        ("write_iops_sec", json!(-1), operations),
        ("write_iops_sec", json!(10_000_001), operations),
        ("write_iops_sec", json!(1_u64 << 32), operations),
        ("read_bytes_sec", json!(0), bytes),
        ("read_bytes_sec", json!(65_535), bytes),
        ("write_bytes_sec", json!(-65_536), bytes),
        ("write_bytes_sec", json!(i64::MAX), bytes),
        ("write_bytes_sec", json!(u64::MAX), "expected i64"),
        ("write_bytes_sec", json!(1e30), "is not of type 'integer'"),
        ("read_iops_sec", json!(99.5), "is not of type 'integer'"),
        ("read_iops_sec", json!("100"), "is not of type 'integer'"),
        ("read_iops_sec", json!([100]), "is not of type 'integer'"),
    ] {
        let new = json!({ "volume_type": { "name": "gold", field: value } });
        let change = json!({ "volume_type": { field: value } });
        for (verb, path, body) in [
            ("POST", "/admin/volume-types", new),
            ("PATCH", "/admin/volume-types/cow", change),
        ] {
            let answer = world.call(&root, verb, path, body.clone()).await;
            let fault = answer.fault(400, "badRequest");
            let message = fault["message"].as_str().unwrap();
            let is_told = message.contains(field) && message.contains(words);
            assert!(is_told, "{verb} {body}: {message}");
        }
    }
    let types = world.get(&root, "/admin/volume-types").await.expect(200);
    let types = types["volume_types"].as_array().unwrap();
    assert_eq!(types.len(), 1, "{types:?}");
    assert_eq!(limits(&types[0]), json!([null, null, null, null]));
}

#[tokio::test]
async fn our_own_routes_refuse_unknown_keys_and_bad_values() {
    let world = World::new().await;
    let root = world.root().await;
    for (path, body) in [
        (
            "/admin/projects",
            json!({ "project": { "name": "a", "color": "red" } }),
        ),
        (
            "/admin/projects",
            json!({ "project": { "name": "a" }, "extra": 1 }),
        ),
        ("/admin/projects", json!({ "project": { "name": "" } })),
        (
            "/admin/users",
            json!({ "user": { "name": "a", "password": "short" } }),
        ),
        (
            "/admin/users",
            json!({ "user": { "name": "a", "password": "x".repeat(513) } }),
        ),
        ("/admin/users", json!({ "user": { "name": "a" } })),
        (
            "/admin/flavors",
            json!({ "flavor": { "id": "a b", "name": "a", "ram": 512, "vcpus": 1 } }),
        ),
        (
            "/admin/flavors",
            json!({ "flavor": { "id": "a", "name": "a", "ram": 1, "vcpus": 1 } }),
        ),
        (
            "/admin/flavors",
            json!({ "flavor": { "id": "a", "name": "a", "ram": -1, "vcpus": 1 } }),
        ),
        (
            "/admin/flavors",
            json!({ "flavor": { "id": "a", "name": "a", "ram": "x", "vcpus": 1 } }),
        ),
        ("/admin/zones", json!({ "zone": {} })),
        (
            "/admin/volume-types",
            json!({ "volume_type": { "name": "a", "size": 1 } }),
        ),
        (
            "/admin/roles",
            json!({ "role": { "name": "a", "rights": [] } }),
        ),
    ] {
        let answer = world.post(&root, path, body.clone()).await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        assert_eq!(answer.status.as_u16(), 400, "{path} {body}: {text}");
    }
    world
        .get(&root, "/admin/assignments")
        .await
        .fault(400, "badRequest");
    let path = format!(
        "/admin/projects/{}/users/alice/roles/king",
        tenant_id("demo")
    );
    world
        .put(&root, &path, Value::Null)
        .await
        .fault(404, "itemNotFound");
}

#[tokio::test]
async fn quotas_are_read_by_their_owner_and_set_by_the_operator() {
    let world = World::new().await;
    let (alice, root) = (world.alice().await, world.root().await);
    let own = format!("/mgmt/quotas/{}", alice.project);
    assert_expected("quotas", &world.get(&alice, &own).await.expect(200));
    let other = format!("/mgmt/quotas/{}", tenant_id("other"));
    world.get(&alice, &other).await.fault(403, "forbidden");
    world
        .put(&alice, &own, json!({ "quotas": { "instances": 99 } }))
        .await
        .fault(401, "unauthorized");
    let body = json!({ "quotas": { "instances": 3, "volumes": null } });
    let answer = world.put(&root, &own, body).await.expect(200);
    assert_eq!(answer, json!({ "quotas": { "instances": 3 } }));
    let read = world.get(&alice, &own).await.expect(200);
    assert_eq!(read["quotas"][0]["limit"], 3);
    world
        .put(&root, &own, json!({ "quotas": { "cars": 1 } }))
        .await
        .fault(404, "itemNotFound");
    world
        .put(&root, &own, json!({ "quotas": { "ram": -2 } }))
        .await
        .fault(400, "badRequest");
    world
        .put(&root, &own, json!({ "quotas": { "ram": "x" } }))
        .await
        .fault(400, "badRequest");
    world
        .put(&root, "/mgmt/quotas/nobody", json!({ "quotas": {} }))
        .await
        .fault(404, "itemNotFound");
}

#[tokio::test]
async fn datastores_are_found_by_id_and_name() {
    let world = World::new().await;
    let (alice, root) = (world.alice().await, world.root().await);
    let list = world.get(&alice, "/datastores").await.expect(200);
    assert_expected("datastores", &list);
    let id = list["datastores"][0]["id"].as_str().unwrap();
    let version = list["datastores"][0]["default_version"].as_str().unwrap();
    for path in [
        format!("/datastores/{id}"),
        "/datastores/postgresql".to_owned(),
    ] {
        assert_eq!(
            world.get(&alice, &path).await.expect(200)["datastore"]["id"],
            id
        );
    }
    for path in [
        format!("/datastores/{id}/versions/{version}"),
        "/datastores/postgresql/versions/17".to_owned(),
        format!("/datastores/versions/{version}"),
    ] {
        let shown = world.get(&alice, &path).await.expect(200);
        assert_eq!(shown["version"]["version"], "17.6");
        assert!(shown["version"].get("active").is_none());
        let shown = world.get(&root, &path).await.expect(200);
        assert_eq!(shown["version"]["active"], true);
    }
    // Trove answers 400 for a version, 404 for a datastore.
    world
        .get(&alice, "/datastores/postgresql/versions/9")
        .await
        .fault(400, "badRequest");
    world
        .get(&alice, "/datastores/mysql/versions/9")
        .await
        .fault(404, "itemNotFound");
    let flavors = world
        .get(
            &alice,
            &format!("/datastores/{id}/versions/{version}/flavors"),
        )
        .await;
    assert_eq!(flavors.expect(200)["flavors"].as_array().unwrap().len(), 2);
    let types = format!("/datastores/{id}/versions/{version}/volume-types");
    let types = world.get(&alice, &types).await.expect(200);
    assert_eq!(types["volume_types"][0]["name"], "cow");
}

#[tokio::test]
async fn a_restored_state_refuses_changes_until_it_is_settled() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.create(&alice, "db1").await;
    world.store.mark_restored(EPOCH, EPOCH).await.unwrap();
    let alice = world.alice().await;
    world.get(&alice, "/instances").await.expect(200);
    let path = format!("/instances/{id}");
    let refused = world.delete(&alice, &path).await;
    let fault = refused.fault(503, "serviceUnavailable");
    assert_eq!(fault["reason"], "state-restored");
    let hint = fault["hint"].as_str().unwrap();
    assert!(hint.contains("coffer state report"), "{hint}");
    let asked = json!({"instance": {"name": "db2"}});
    let refused = world.post(&alice, "/instances", asked).await;
    refused.fault(503, "serviceUnavailable");
    world.store.end_restored().await.unwrap();
    world.delete(&alice, &path).await.expect(202);
}
