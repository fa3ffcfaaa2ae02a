//! Every route: without a token, with a wrong one, with one of another project, as reader, as
//! non-admin. A route that is documented and not in the table of rules, or the other way round,
//! fails here.

use std::collections::BTreeSet;

use axum::body::Body;
use coffer_control::api::{openapi_json, rules};
use coffer_control::app::policy::Who;
use http::{Method, Request};
use serde_json::Value;

use crate::world::{Answer, Caller, World};

/// A path with every segment filled in with something that does not exist.
fn filled(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        parts.push(if part.starts_with('{') {
            "00000000-0000-7000-8000-000000000000"
        } else {
            part
        });
    }
    parts.join("/")
}

async fn bare(world: &World, method: &str, path: &str, token: Option<&str>) -> Answer {
    let mut request = Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(path);
    if let Some(token) = token {
        request = request.header("x-auth-token", token);
    }
    world.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn no_route_answers_without_a_valid_token_of_the_path_s_project() {
    let world = World::new().await;
    let (alice, bob) = (world.alice().await, world.bob().await);
    let mut routes = 0;
    for route in rules::all() {
        for verb in route.verbs.split(' ') {
            let path = format!("/v1.0/{}{}", alice.project, filled(route.path));
            for token in [
                None,
                Some(""),
                Some("nonsense"),
                Some("x".repeat(5_000)).as_deref(),
            ] {
                let answer = bare(&world, verb, &path, token).await;
                let body = answer.expect(401);
                assert_eq!(body["error"]["title"], "Unauthorized", "{verb} {path}");
                assert!(
                    answer
                        .header("www-authenticate")
                        .starts_with("Keystone uri=")
                );
            }
            let foreign = bare(&world, verb, &path, Some(&bob.token)).await;
            foreign.fault(403, "forbidden");
            routes += 1;
        }
    }
    assert!(routes > 130, "{routes} routes");
}

#[tokio::test]
async fn readers_only_read_and_operators_routes_are_closed() {
    let world = World::new().await;
    let (rita, alice) = (world.rita().await, world.alice().await);
    for route in rules::all() {
        for verb in route.verbs.split(' ') {
            let path = filled(route.path);
            let reader = world.call(&rita, verb, &path, Value::Null).await;
            let member = world.call(&alice, verb, &path, Value::Null).await;
            match (route.rule.who, verb) {
                (Who::Project, "GET") => {
                    assert_ne!(reader.status.as_u16(), 401, "{verb} {path}");
                }
                (Who::Project, _) => {
                    reader.fault(403, "forbidden");
                }
                (Who::Admin, _) => {
                    reader.fault(403, "forbidden");
                    member.fault(403, "forbidden");
                }
                (Who::Management, _) => {
                    reader.fault(401, "unauthorized");
                    member.fault(401, "unauthorized");
                }
            }
            assert_ne!(member.status.as_u16(), 500, "{verb} {path}");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_yet_says_why() {
    let world = World::new().await;
    let root = world.root().await;
    let mut count = 0;
    for route in rules::all() {
        let Some(why) = route.missing else { continue };
        for verb in route.verbs.split(' ') {
            let answer = world
                .call(&root, verb, &filled(route.path), Value::Null)
                .await;
            assert_eq!(answer.fault(501, "notImplemented")["message"], why);
            count += 1;
        }
    }
    assert!(count > 40, "{count}");
}

#[tokio::test]
async fn unknown_routes_and_verbs_are_404() {
    let world = World::new().await;
    let alice = world.alice().await;
    for (verb, path) in [
        ("GET", "/nothing"),
        ("PUT", "/instances"),
        ("DELETE", "/flavors/1"),
        ("POST", "/limits"),
        ("OPTIONS", "/instances"),
        ("GET", "/instances/a/b/c/d/e"),
    ] {
        world
            .call(&alice, verb, path, Value::Null)
            .await
            .fault(404, "itemNotFound");
    }
    bare(&world, "GET", "/v2.0/x/instances", None)
        .await
        .fault(404, "itemNotFound");
    bare(&world, "POST", "/", None)
        .await
        .fault(404, "itemNotFound");
}

#[test]
fn the_document_and_the_table_of_rules_name_the_same_routes() {
    let document: Value = serde_json::from_str(&openapi_json()).unwrap();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let Some(path) = path.strip_prefix("/v1.0/{project_id}/") else {
            continue;
        };
        for verb in item.as_object().unwrap().keys() {
            documented.insert(format!("{} /{path}", verb.to_uppercase()));
        }
    }
    let mut ruled = BTreeSet::new();
    // Aliases of documented routes, for clients that know Trove's router.
    let aliases = [
        "POST /instances/{instance_id}/users/{user}",
        "PUT /instances/{instance_id}/users/{user}/update",
        "PUT /instances/{instance_id}/users/{user}/databases/{name}",
        "DELETE /instances/{instance_id}/root/delete",
    ];
    for route in rules::all().filter(|route| route.missing.is_none()) {
        for verb in route.verbs.split(' ') {
            ruled.insert(format!("{verb} {}", route.path));
        }
    }
    for alias in aliases {
        assert!(ruled.remove(alias), "{alias}");
    }
    assert_eq!(documented, ruled);
}

#[tokio::test]
async fn the_document_is_served_and_complete() {
    let world = World::new().await;
    let served = bare(&world, "GET", "/openapi.json", None).await;
    assert_eq!(
        served.expect(200),
        serde_json::from_str::<Value>(&openapi_json()).unwrap()
    );
    let document = served.json();
    let mut operations = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        for (verb, operation) in item.as_object().unwrap() {
            assert!(
                operation["responses"]["default"].is_object(),
                "{verb} {path}"
            );
            let text = operation["summary"].as_str().unwrap_or_default();
            assert!(!text.is_empty(), "{verb} {path} has no words");
            operations += 1;
        }
    }
    assert!(operations > 80, "{operations}");
    let text = served.bytes;
    for name in schema_references(&String::from_utf8(text).unwrap()) {
        assert!(
            document["components"]["schemas"][&name].is_object(),
            "{name} is not defined"
        );
    }
}

fn schema_references(text: &str) -> BTreeSet<String> {
    text.split("#/components/schemas/")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .map(ToOwned::to_owned)
        .collect()
}

#[tokio::test]
async fn objects_of_other_projects_do_not_exist() {
    let world = World::new().await;
    let (alice, bob) = (world.alice().await, world.bob().await);
    let id = world.active(&alice, "db1").await;
    let networks = world.get(&alice, "/networks").await.expect(200);
    let network = networks["networks"][0]["id"].as_str().unwrap();
    let instance = "{instance_id}";
    for route in rules::all().filter(|route| route.missing.is_none()) {
        if !route.path.contains(instance) || route.path.starts_with("/mgmt") {
            continue;
        }
        for verb in route.verbs.split(' ') {
            let path = filled(&route.path.replace(instance, &id));
            let body = body_for(verb, &path);
            let answer = world.call(&bob, verb, &path, body).await;
            answer.fault(404, "itemNotFound");
        }
    }
    let path = format!("/networks/{network}");
    world.get(&bob, &path).await.fault(404, "itemNotFound");
    world.get(&alice, &path).await.expect(200);
}

/// A body that is valid for the route.
fn body_for(verb: &str, path: &str) -> Value {
    use serde_json::json;
    let last = path.rsplit('/').next().unwrap();
    match (verb, last) {
        ("GET" | "DELETE", _) => Value::Null,
        (_, "action") => json!({ "restart": {} }),
        (_, "databases") => json!({ "databases": [{ "name": "a" }] }),
        (_, "users") => json!({ "users": [{ "name": "a", "password": "b" }] }),
        (_, "root") => json!({}),
        (_, "visits") => json!({ "visit": {} }),
        ("POST", _) => json!({ "users": [{ "name": "a", "password": "b" }] }),
        (_, _) if path.contains("/databases/") => json!({ "databases": [{ "name": "a" }] }),
        (_, _) if path.contains("/users/") => json!({ "user": { "password": "b" } }),
        _ => json!({ "instance": { "name": "x" } }),
    }
}

#[tokio::test]
async fn an_admin_reaches_other_projects_objects_through_the_own_path() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.active(&alice, "db1").await;
    let root = world.root().await;
    let shown = world
        .get(&root, &format!("/instances/{id}"))
        .await
        .expect(200);
    assert_eq!(shown["instance"]["tenant_id"], alice.project);
    let wrong = Caller {
        token: root.token.clone(),
        project: alice.project.clone(),
    };
    world
        .get(&wrong, "/instances")
        .await
        .fault(403, "forbidden");
    // Its own list has its own project's instances only.
    let own = world.get(&root, "/instances").await.expect(200);
    assert_eq!(own["instances"].as_array().unwrap().len(), 0);
}
