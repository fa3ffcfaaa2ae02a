//! What is refused changes nothing: every row of the store is the same before and after.

use http::{Method, Request};
use serde_json::{Value, json};

use crate::rows::Rows;
use crate::world::{Caller, World, ZONE, tenant_id};

/// A refused request: verb, path below the project, body.
type Case = (&'static str, String, Value);

fn case(verb: &'static str, path: impl Into<String>, body: Value) -> Case {
    (verb, path.into(), body)
}

fn create(field: &str, value: Value) -> Case {
    let mut instance = json!({ "name": "m1", "flavorRef": "1", "volume": { "size": 1 } });
    instance[field] = value;
    case("POST", "/instances", json!({ "instance": instance }))
}

/// What a member may not have: unknown and foreign names, wrong types, limits, duplicates.
fn of_a_member(id: &str, foreign: &str, foreign_network: &str) -> Vec<Case> {
    let long = "x".repeat(256);
    let mut cases = vec![
        create("flavorRef", json!("no such")),
        create("datastore", json!({ "type": "oracle" })),
        create("datastore", json!({ "type": "postgresql", "version": "0" })),
        create("nics", json!([{ "net-id": foreign_network }])),
        create("nics", json!([{ "net-id": "x", "mac": "y" }])),
        create("availability_zone", json!("nowhere")),
        create("volume", json!({ "size": 1, "type": "gold" })),
        create("volume", json!({ "size": 65 })),
        create("volume", json!([1])),
        create("name", json!(long)),
        create("name", json!("---")),
        create("name", json!(["m1"])),
        create(
            "users",
            json!([{ "name": "u", "password": "p", "databases": [{ "name": "x" }] }]),
        ),
        create("databases", json!([{ "name": "a" }, { "name": "a" }])),
        create("databases", json!([{ "name": "x".repeat(64) }])),
        create("access", json!({ "allowed_cidrs": ["10.0.0.0/99"] })),
        create("replica_count", json!(2)),
        create("locality", json!("near")),
        case(
            "POST",
            "/instances",
            json!([{ "name": "m1", "flavorRef": "1" }]),
        ),
    ];
    let one = format!("/instances/{id}");
    for body in [
        json!({ "instance": { "name": long } }),
        json!({ "instance": { "flavorRef": "6.1" } }),
        json!({ "instance": { "access": { "cidrs": [] } } }),
        json!({ "instance": { "access": { "is_public": true, "allowed_cidrs": ["x"] } } }),
        json!({ "instance": { "name": "a", "access": {}, "configuration": null } }),
        json!({ "instance": { "name": "a", "datastore_version": "9" } }),
        json!({ "instance": { "name": "a", "replica_of": null } }),
    ] {
        cases.push(case("PUT", one.clone(), body));
    }
    cases.push(case(
        "PATCH",
        one.clone(),
        json!({ "instance": { "access": {} } }),
    ));
    for body in [
        json!({}),
        json!({ "restart": {}, "resize": {} }),
        json!({ "restart": { "now": 1 } }),
        json!({ "resize": { "flavorRef": "6.1" } }),
        json!({ "reset_status": {} }),
        json!({ "dance": {} }),
    ] {
        cases.push(case("POST", format!("{one}/action"), body));
    }
    cases.extend(of_contents(&one));
    // Another project's instance, by every verb.
    let other = format!("/instances/{foreign}");
    cases.push(case(
        "PUT",
        other.clone(),
        json!({ "instance": { "name": "mine" } }),
    ));
    cases.push(case("DELETE", other.clone(), Value::Null));
    cases.push(case(
        "POST",
        format!("{other}/action"),
        json!({ "restart": {} }),
    ));
    cases.push(case("POST", format!("{other}/root"), json!({})));
    cases.push(case(
        "POST",
        format!("{other}/databases"),
        json!({ "databases": [{ "name": "a" }] }),
    ));
    cases.push(case(
        "PUT",
        format!("/mgmt/quotas/{}", tenant_id("demo")),
        json!({ "quotas": { "instances": 99 } }),
    ));
    cases.push(case(
        "POST",
        "/admin/zones",
        json!({ "zone": { "name": "z" } }),
    ));
    cases
}

/// Databases and users inside an instance.
fn of_contents(one: &str) -> Vec<Case> {
    let (databases, users) = (format!("{one}/databases"), format!("{one}/users"));
    let user = |fields: Value| json!({ "users": [fields] });
    vec![
        case(
            "POST",
            databases.clone(),
            json!({ "databases": [{ "name": "app" }] }),
        ),
        case("POST", databases.clone(), json!({ "databases": [] })),
        case(
            "POST",
            databases.clone(),
            json!({ "databases": [{ "name": "postgres" }] }),
        ),
        case(
            "POST",
            databases.clone(),
            json!({ "databases": [{ "name": "x".repeat(64) }] }),
        ),
        case("POST", databases.clone(), json!({ "databases": "app" })),
        case("DELETE", format!("{databases}/nothing"), Value::Null),
        case("DELETE", format!("{databases}/postgres"), Value::Null),
        case(
            "POST",
            users.clone(),
            user(json!({ "name": "ann", "password": "p" })),
        ),
        case("POST", users.clone(), user(json!({ "name": "u" }))),
        case(
            "POST",
            users.clone(),
            user(json!({ "name": "postgres", "password": "p" })),
        ),
        case(
            "POST",
            users.clone(),
            user(json!({ "name": "x".repeat(64), "password": "p" })),
        ),
        case(
            "POST",
            users.clone(),
            user(json!({ "name": "u", "password": "p", "databases": [{ "name": "nothing" }] })),
        ),
        case(
            "PUT",
            users.clone(),
            user(json!({ "name": "nobody", "password": "p" })),
        ),
        case("PUT", format!("{users}/ann"), json!({ "user": {} })),
        case(
            "PUT",
            format!("{users}/ann"),
            json!({ "user": { "name": "bea@x" } }),
        ),
        case("DELETE", format!("{users}/nobody"), Value::Null),
        case(
            "PUT",
            format!("{users}/ann/databases"),
            json!({ "databases": [{ "name": "no" }] }),
        ),
        case("DELETE", format!("{users}/ann/databases/logs"), Value::Null),
        case("DELETE", format!("{one}/root"), Value::Null),
        case("POST", format!("{one}/root"), json!({ "password": 5 })),
    ]
}

/// What an operator may not do: unknown keys, wrong types, taken names, what is in use.
fn of_the_operator() -> Vec<Case> {
    let project = tenant_id("demo");
    let flavor = |fields: Value| json!({ "flavor": fields });
    vec![
        case(
            "POST",
            "/admin/projects",
            json!({ "project": { "name": "demo" } }),
        ),
        case(
            "POST",
            "/admin/projects",
            json!({ "project": { "name": "a", "color": "red" } }),
        ),
        case(
            "POST",
            "/admin/projects",
            json!({ "project": { "name": "x".repeat(256) } }),
        ),
        case(
            "PATCH",
            format!("/admin/projects/{project}"),
            json!({ "project": { "name": "other" } }),
        ),
        case(
            "PATCH",
            "/admin/projects/nobody",
            json!({ "project": { "name": "b" } }),
        ),
        case("DELETE", format!("/admin/projects/{project}"), Value::Null),
        case(
            "POST",
            "/admin/users",
            json!({ "user": { "name": "alice", "password": "x".repeat(9) } }),
        ),
        case(
            "POST",
            "/admin/users",
            json!({ "user": { "name": "new", "password": "short" } }),
        ),
        case(
            "PATCH",
            "/admin/users/alice",
            json!({ "user": { "name": "bob" } }),
        ),
        case(
            "PATCH",
            "/admin/users/alice",
            json!({ "user": { "admin": true } }),
        ),
        case("DELETE", "/admin/users/root", Value::Null),
        case(
            "POST",
            "/admin/roles",
            json!({ "role": { "name": "member" } }),
        ),
        case("DELETE", "/admin/roles/member", Value::Null),
        case(
            "PUT",
            format!("/admin/projects/{project}/users/alice/roles/king"),
            Value::Null,
        ),
        case(
            "PUT",
            format!("/admin/projects/{project}/users/nobody/roles/reader"),
            Value::Null,
        ),
        case(
            "POST",
            "/admin/flavors",
            flavor(json!({ "id": "1", "name": "x", "ram": 512, "vcpus": 1 })),
        ),
        case(
            "POST",
            "/admin/flavors",
            flavor(json!({ "id": "x", "name": "x", "ram": "512", "vcpus": 1 })),
        ),
        case("POST", "/admin/flavors", flavor(json!(["x", "x", 512, 1]))),
        case("PATCH", "/admin/flavors/1", flavor(json!({ "ram": 1 }))),
        case("DELETE", "/admin/flavors/1", Value::Null),
        case(
            "POST",
            "/admin/volume-types",
            json!({ "volume_type": { "name": "cow" } }),
        ),
        case(
            "PATCH",
            "/admin/volume-types/cow",
            json!({ "volume_type": { "name": "x" } }),
        ),
        case(
            "PATCH",
            "/admin/volume-types/cow",
            json!({ "volume_type": { "description": "x", "read_iops_sec": 0 } }),
        ),
        case("POST", "/admin/zones", json!({ "zone": { "name": ZONE } })),
        case(
            "PATCH",
            format!("/admin/zones/{ZONE}"),
            json!({ "zone": { "name": "" } }),
        ),
        case(
            "PATCH",
            "/admin/zones/nowhere",
            json!({ "zone": { "name": "z" } }),
        ),
        case(
            "PUT",
            format!("/mgmt/quotas/{project}"),
            json!({ "quotas": { "instances": 1, "cars": 1 } }),
        ),
        case(
            "PUT",
            format!("/mgmt/quotas/{project}"),
            json!({ "quotas": { "instances": -2 } }),
        ),
    ]
}

async fn refuse(world: &World, rows: &Rows, who: &Caller, cases: &[Case]) {
    let before = rows.all().await;
    for (verb, path, body) in cases {
        let answer = world.call(who, verb, path, body.clone()).await;
        let text = String::from_utf8_lossy(&answer.bytes).into_owned();
        let status = answer.status.as_u16();
        let is_refused = (400..500).contains(&status) || status == 501;
        assert!(is_refused, "{verb} {path} {body}: {status} {text}");
        assert_eq!(
            rows.all().await,
            before,
            "{verb} {path} {body}: {status} {text}"
        );
    }
}

#[tokio::test]
async fn a_refused_request_changes_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::in_dir(dir.path()).await;
    let (alice, bob, root) = (world.alice().await, world.bob().await, world.root().await);
    let rita = world.rita().await;
    let id = world.active(&alice, "db1").await;
    let foreign = world.active(&bob, "db2").await;
    let networks = world.get(&bob, "/networks").await.expect(200);
    let network = networks["networks"][0]["id"].as_str().unwrap();
    world.get(&alice, "/networks").await.expect(200);
    let rows = Rows::of(dir.path()).await;
    // The rows are really read: a change shows.
    let before = rows.all().await;
    world
        .put(
            &alice,
            &format!("/instances/{id}"),
            json!({ "instance": { "name": "db3" } }),
        )
        .await
        .expect(202);
    assert_ne!(rows.all().await, before);

    refuse(&world, &rows, &alice, &of_a_member(&id, &foreign, network)).await;
    refuse(&world, &rows, &root, &of_the_operator()).await;
    // A reader changes nothing that a member may change.
    let by_reader = [
        case(
            "POST",
            "/instances",
            json!({ "instance": {
            "name": "m1", "flavorRef": "1", "volume": { "size": 1 },
        } }),
        ),
        case(
            "PUT",
            format!("/instances/{id}"),
            json!({ "instance": { "name": "x" } }),
        ),
        case(
            "POST",
            format!("/instances/{id}/action"),
            json!({ "restart": {} }),
        ),
        case("DELETE", format!("/instances/{id}"), Value::Null),
    ];
    refuse(&world, &rows, &rita, &by_reader).await;
}

#[tokio::test]
async fn bad_tokens_bodies_and_paths_change_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::in_dir(dir.path()).await;
    let (alice, bob) = (world.alice().await, world.bob().await);
    let id = world.active(&alice, "db1").await;
    let rows = Rows::of(dir.path()).await;
    let before = rows.all().await;
    let expired = world.alice().await;
    let good = json!({ "instance": {
        "name": "m1", "flavorRef": "1", "volume": { "size": 1 },
    } });
    let send = async |token: &str, project: &str, media: &str, body: String| {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("/v1.0/{project}/instances"))
            .header("x-auth-token", token)
            .header("content-type", media)
            .body(body.into())
            .unwrap();
        world.send(request).await.status.as_u16()
    };
    let (json_type, text) = ("application/json", good.to_string());
    let own = alice.project.as_str();
    let large = json!({ "instance": { "name": "x".repeat(300 * 1024) } }).to_string();
    for (token, project, media, body, status) in [
        ("", own, json_type, text.clone(), 401),
        ("nonsense", own, json_type, text.clone(), 401),
        (bob.token.as_str(), own, json_type, text.clone(), 403),
        (
            alice.token.as_str(),
            bob.project.as_str(),
            json_type,
            text.clone(),
            403,
        ),
        (alice.token.as_str(), own, "text/plain", text.clone(), 415),
        (
            alice.token.as_str(),
            own,
            json_type,
            text.replace('}', ""),
            400,
        ),
        (alice.token.as_str(), own, json_type, large, 413),
    ] {
        assert_eq!(
            send(token, project, media, body).await,
            status,
            "{token} {media}"
        );
    }
    let path = format!("/instances/{id}");
    let mut after = rows.all().await;
    after.insert("tokens".to_owned(), before["tokens"].clone());
    assert_eq!(after, before);
    world.clock.advance(std::time::Duration::from_secs(3_601));
    world.delete(&expired, &path).await.expect(401);
    let mut after = rows.all().await;
    after.insert("tokens".to_owned(), before["tokens"].clone());
    assert_eq!(after, before);
}
