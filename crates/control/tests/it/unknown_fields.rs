//! Unknown fields: every route of our own that takes a body refuses them, at the top and inside.

use coffer_control::api::{openapi_json, rules};
use serde_json::{Value, json};

use crate::rows::Rows;
use crate::world::{World, ZONE, tenant_id};

/// A body that the rule's route takes as it is.
fn body(rule: &str) -> Value {
    let new = json!({ "name": "new" });
    match rule {
        "coffer:instance:visit" => json!({ "visit": {} }),
        "coffer:project:create" => json!({ "project": new }),
        "coffer:project:update" => json!({ "project": { "description": "changed" } }),
        "coffer:user:create" => json!({ "user": { "name": "new", "password": "long enough" } }),
        "coffer:user:update" => json!({ "user": { "name": "changed" } }),
        "coffer:role:create" => json!({ "role": new }),
        "coffer:flavor:create" => {
            json!({ "flavor": { "id": "new", "name": "new", "ram": 512, "vcpus": 1 } })
        }
        "coffer:flavor:update" => json!({ "flavor": { "name": "changed" } }),
        "coffer:volume_type:create" => json!({ "volume_type": new }),
        "coffer:volume_type:update" => json!({ "volume_type": { "description": "changed" } }),
        "coffer:zone:create" => json!({ "zone": new }),
        "coffer:zone:update" => json!({ "zone": { "name": "changed" } }),
        other => panic!("{other} takes a body: give one here that is valid"),
    }
}

/// The path of a route with what is there.
fn path(route: &str, instance: &str) -> String {
    let project = tenant_id("demo").to_string();
    let name = match route.starts_with("/admin/zones") {
        true => ZONE,
        false => "cow",
    };
    route
        .replace("{instance_id}", instance)
        .replace("{project}", &project)
        .replace("{user}", "alice")
        .replace("{flavor}", "1")
        .replace("{name}", name)
}

#[tokio::test]
async fn our_own_routes_refuse_them_and_change_no_row() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::in_dir(dir.path()).await;
    let root = world.root().await;
    let id = world.active(&root, "db1").await;
    let rows = Rows::of(dir.path()).await;
    let document: Value = serde_json::from_str(&openapi_json()).unwrap();
    let mut routes = 0;
    for route in rules::all().filter(|route| route.rule.name.starts_with("coffer:")) {
        for verb in route.verbs.split(' ') {
            let documented = format!("/v1.0/{{project_id}}{}", route.path);
            let operation = &document["paths"][&documented][verb.to_lowercase()];
            if operation["requestBody"].is_null() {
                continue;
            }
            let (path, good) = (path(route.path, &id), body(route.rule.name));
            let wrapper = good.as_object().unwrap().keys().next().unwrap().clone();
            let (mut at_top, mut inside) = (good.clone(), good.clone());
            at_top["zzz"] = json!(1);
            inside[&wrapper]["zzz"] = json!(1);
            let before = rows.all().await;
            for bad in [at_top, inside] {
                let answer = world.call(&root, verb, &path, bad.clone()).await;
                let fault = answer.fault(400, "badRequest");
                let message = fault["message"].as_str().unwrap();
                assert!(message.contains("zzz"), "{verb} {path} {bad}: {message}");
                assert_eq!(rows.all().await, before, "{verb} {path} {bad}");
            }
            // Without it the same body is taken. A visit goes through a tracker: none is here.
            if route.rule.name != "coffer:instance:visit" {
                let answer = world.call(&root, verb, &path, good.clone()).await;
                assert!(
                    answer.status.is_success(),
                    "{verb} {path} {good}: {answer:?}"
                );
            }
            routes += 1;
        }
    }
    assert!(routes >= 12, "{routes}");
}
