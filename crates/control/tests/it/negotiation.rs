//! Versions named in `Accept`, and other ways in that Trove's router has.

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};

use crate::world::{Answer, Caller, World};

const TROVE: &str = "application/vnd.openstack.trove+json;version=1.0";

async fn send(world: &World, who: Option<&Caller>, verb: &str, path: &str, accept: &str) -> Answer {
    let mut request = Request::builder()
        .method(Method::from_bytes(verb.as_bytes()).unwrap())
        .uri(path)
        .header("host", "db.test:8779")
        .header("accept", accept);
    if let Some(who) = who {
        request = request.header("x-auth-token", &who.token);
    }
    world.send(request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn an_unversioned_url_has_the_version_that_accept_names() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.create(&alice, "db1").await;
    let bare = format!("/{}/instances", alice.project);
    let listed = send(&world, Some(&alice), "GET", &bare, TROVE)
        .await
        .expect(200);
    assert_eq!(listed["instances"][0]["id"], id);
    let query = format!("{bare}?limit=x");
    send(&world, Some(&alice), "GET", &query, TROVE)
        .await
        .fault(400, "badRequest");
    // Who asks is looked at behind it as before it.
    send(&world, None, "GET", &bare, TROVE).await.expect(401);
    // Without the header there is no such path.
    send(&world, Some(&alice), "GET", &bare, "application/json")
        .await
        .fault(404, "itemNotFound");
    let gone = format!("{bare}/{id}");
    send(&world, Some(&alice), "DELETE", &gone, TROVE)
        .await
        .expect(202);
}

#[tokio::test]
async fn an_unknown_version_is_not_acceptable() {
    let world = World::new().await;
    let alice = world.alice().await;
    let other = TROVE.replace("1.0", "2.0");
    for path in ["/", "/x/instances", "/healthcheck"] {
        let fault = send(&world, Some(&alice), "GET", path, &other)
            .await
            .fault(406, "notAcceptable");
        assert_eq!(fault["message"], "version not supported", "{path}");
    }
    // A URL that names its version wins.
    let path = format!("/v1.0/{}/instances", alice.project);
    send(&world, Some(&alice), "GET", &path, &other)
        .await
        .expect(200);
}

#[tokio::test]
async fn every_other_accept_is_answered_with_json() {
    let world = World::new().await;
    let alice = world.alice().await;
    let path = format!("/v1.0/{}/flavors", alice.project);
    for accept in [
        "application/xml",
        "text/html",
        "*/*",
        "application/vnd.openstack.trove+json",
    ] {
        let answer = send(&world, Some(&alice), "GET", &path, accept).await;
        answer.expect(200);
        assert_eq!(
            answer.header("content-type"),
            "application/json",
            "{accept}"
        );
    }
}

#[tokio::test]
async fn the_router_s_aliases_reach_the_same() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.active(&alice, "db1").await;
    let one = format!("/instances/{id}");
    let unknown = json!({ "users": [{ "name": "nobody", "password": "p" }] });
    for path in ["users", "users/update_all"] {
        let fault = world
            .put(&alice, &format!("{one}/{path}"), unknown.clone())
            .await
            .fault(404, "itemNotFound");
        assert_eq!(
            fault["message"],
            "User nobody@% cannot be found on the instance."
        );
    }
    let change = json!({ "user": { "password": "p" } });
    for path in ["users/nobody", "users/nobody/update", "users/update_all"] {
        world
            .put(&alice, &format!("{one}/{path}"), change.clone())
            .await
            .fault(404, "itemNotFound");
    }
    let grant = json!({ "databases": [{ "name": "nothing" }] });
    for path in ["users/ann/databases", "users/ann/databases/update"] {
        let fault = world
            .put(&alice, &format!("{one}/{path}"), grant.clone())
            .await
            .fault(404, "itemNotFound");
        assert_eq!(
            fault["message"],
            "Database nothing cannot be found on the instance."
        );
    }
    world
        .put(&alice, &format!("{one}/users/ann/databases/app"), grant)
        .await
        .fault(404, "itemNotFound");
    for path in ["root", "root/delete"] {
        let fault = world
            .call(&alice, "DELETE", &format!("{one}/{path}"), Value::Null)
            .await
            .fault(404, "itemNotFound");
        assert_eq!(fault["reason"], "root-never-enabled");
    }
}
