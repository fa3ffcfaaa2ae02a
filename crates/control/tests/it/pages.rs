//! Pages: 20 rows, links under both keys, markers quoted twice.

use std::time::Duration;

use coffer_control::clock::Clock;
use coffer_core::quota::Resource;
use coffer_core::task::TaskState;
use coffer_store::Write;
use coffer_store::inventory::StoredInventory;
use serde_json::{Value, json};

use crate::world::{Caller, EPOCH, World, database, tenant_id, user};

fn href(list: &Value, key: &str) -> Option<String> {
    let link = list.get(key)?.get(0)?;
    assert_eq!(link["rel"], "next");
    Some(link["href"].as_str().unwrap().to_owned())
}

/// The path below the project, as a client cuts it out of a link.
fn below(href: &str, caller: &Caller) -> String {
    let prefix = format!("https://db.test:8779/v1.0/{}", caller.project);
    href.strip_prefix(&prefix)
        .unwrap_or_else(|| panic!("{href}"))
        .to_owned()
}

#[tokio::test]
async fn instances_come_in_pages_by_id() {
    let world = World::new().await;
    let alice = world.alice().await;
    world
        .store
        .set_quota(&tenant_id("demo"), Resource::Instances, -1)
        .await
        .unwrap();
    world
        .store
        .set_quota(&tenant_id("demo"), Resource::Volumes, -1)
        .await
        .unwrap();
    let mut ids = Vec::new();
    for n in 0..45 {
        ids.push(world.create(&alice, &format!("db{n}")).await);
    }
    let mut seen = Vec::new();
    let mut next = Some("/instances?include_clustered=False".to_owned());
    let mut pages = 0;
    while let Some(path) = next {
        let list = world.get(&alice, &path).await.expect(200);
        let page = list["instances"].as_array().unwrap();
        // Inside a page the newest comes first.
        seen.extend(
            page.iter()
                .rev()
                .map(|one| one["id"].as_str().unwrap().to_owned()),
        );
        assert_eq!(href(&list, "links"), href(&list, "instances_links"));
        next = href(&list, "links").map(|href| below(&href, &alice));
        assert!(
            next.as_ref()
                .is_none_or(|next| next.contains("include_clustered=False"))
        );
        pages += 1;
    }
    assert_eq!((pages, seen), (3, ids));
    let most = world.get(&alice, "/instances?limit=1000").await.expect(200);
    assert_eq!(most["instances"].as_array().unwrap().len(), 20);
    let exact = world.get(&alice, "/instances?limit=5").await.expect(200);
    assert_eq!(exact["instances"].as_array().unwrap().len(), 5);
    for bad in ["limit=x", "limit=-1", "marker=x", "marker=%00"] {
        world
            .get(&alice, &format!("/instances?{bad}"))
            .await
            .fault(400, "badRequest");
    }
    let root = world.root().await;
    let managed = world
        .get(&root, "/mgmt/instances?limit=100&deleted=False")
        .await
        .expect(200);
    assert_eq!(managed["instances"].as_array().unwrap().len(), 45);
    let of_bob = format!("/mgmt/instances?project_id={}", tenant_id("other"));
    assert_eq!(
        world.get(&root, &of_bob).await.expect(200)["instances"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
}

/// Ends an instance as its deletion would.
async fn end(world: &World, who: &Caller, id: &str) {
    world
        .delete(who, &format!("/instances/{id}"))
        .await
        .expect(202);
    let instance_id = id.parse().unwrap();
    let graph = world.store.get_instance_graph(instance_id).await.unwrap();
    let mut writes = vec![Write::FinishDelete {
        instance_id,
        at: world.clock.now(),
    }];
    writes.extend(
        graph
            .volumes
            .iter()
            .map(|volume| Write::DeleteVolume(volume.id)),
    );
    for task in world.claim(id).await {
        let is_delete = task.workflow == "delete_instance";
        let writes = if is_delete {
            std::mem::take(&mut writes)
        } else {
            Vec::new()
        };
        world.end(&task, TaskState::Done, None, writes).await;
    }
}

#[tokio::test]
async fn the_operator_lists_deleted_instances_by_their_last_change() {
    let world = World::new().await;
    let (alice, bob, root) = (world.alice().await, world.bob().await, world.root().await);
    let mut ids = Vec::new();
    for (who, name) in [(&alice, "a"), (&alice, "b"), (&bob, "c")] {
        ids.push(world.create(who, name).await);
        world.clock.advance(Duration::from_secs(10));
    }
    end(&world, &alice, &ids[0]).await;
    world.clock.advance(Duration::from_secs(10));
    let change = json!({ "instance": { "name": "b2" } });
    world
        .put(&alice, &format!("/instances/{}", ids[1]), change)
        .await
        .expect(202);
    let listed = async |query: &str| {
        let path = format!("/mgmt/instances{query}");
        let list = world.get(&root, &path).await.expect(200);
        let of = |one: &Value| one["id"].as_str().unwrap().to_owned();
        let found: Vec<_> = list["instances"]
            .as_array()
            .unwrap()
            .iter()
            .map(of)
            .collect();
        (found, href(&list, "links"))
    };
    let [a, b, c] = [&ids[0], &ids[1], &ids[2]].map(String::as_str);
    // A page holds what changed last; inside it the newest comes first.
    assert_eq!(listed("").await.0, [c, b, a]);
    assert_eq!(listed("?deleted=False").await.0, [c, b]);
    assert_eq!(listed("?deleted=true").await.0, [a]);
    assert_eq!(
        listed(&format!("?deleted=True&project_id={}", bob.project))
            .await
            .0,
        [""; 0]
    );
    let (first, next) = listed("?limit=1").await;
    assert_eq!(first, [b]);
    let next = below(&next.unwrap(), &root);
    assert_eq!(next, "/mgmt/instances?limit=1&marker=1");
    assert_eq!(listed("?limit=1&marker=1").await.0, [a]);
    assert_eq!(listed("?limit=1&marker=2").await.0, [c]);
    assert_eq!(listed("?limit=1&marker=3").await, (Vec::new(), None));
    for bad in [
        "marker=x",
        "marker=-1",
        "marker=99999999999999999999",
        "limit=x",
    ] {
        world
            .get(&root, &format!("/mgmt/instances?{bad}"))
            .await
            .fault(400, "badRequest");
    }

    let path = format!("/mgmt/instances/{a}");
    world.get(&root, &path).await.fault(404, "itemNotFound");
    let shown = world
        .get(&root, &format!("{path}?deleted=true"))
        .await
        .expect(200);
    let shown = &shown["instance"];
    assert_eq!(
        (&shown["deleted"], &shown["status"]),
        (&json!(true), &json!("SHUTDOWN"))
    );
    assert_eq!(shown["deleted_at"], "2026-11-21T04:09:53");
    assert_eq!(shown["server"], Value::Null);
    // For its project it is gone.
    world
        .get(&alice, &format!("/instances/{a}"))
        .await
        .fault(404, "itemNotFound");
}

#[tokio::test]
async fn names_with_signs_survive_both_ways_of_paging() {
    let world = World::new().await;
    let alice = world.alice().await;
    let id = world.active(&alice, "db1").await;
    let names = ["a", "b%c", "d e", "f/g", "ü"];
    let inventory = StoredInventory {
        counter: 2,
        databases: names.iter().map(|name| database(name)).collect(),
        users: names.iter().map(|name| user(name, &[])).collect(),
        is_root_enabled: false,
    };
    world
        .store
        .put_inventory(id.parse().unwrap(), &inventory, EPOCH)
        .await
        .unwrap();
    for (kind, links) in [("users", "users_links"), ("databases", "databases_links")] {
        for is_pasted in [false, true] {
            let mut seen = Vec::new();
            let mut next = Some(format!("/instances/{id}/{kind}?limit=1"));
            while let Some(path) = next {
                let list = world.get(&alice, &path).await.expect(200);
                let name = list[kind][0]["name"].as_str().unwrap().to_owned();
                seen.push(name);
                next = href(&list, links).map(|href| {
                    let path = below(&href, &alice);
                    if is_pasted { pasted(&path) } else { path }
                });
                assert!(seen.len() <= names.len(), "{seen:?}");
            }
            let mut sorted = names.map(ToOwned::to_owned).to_vec();
            sorted.sort();
            assert_eq!(seen, sorted, "{kind} {is_pasted}");
        }
    }
}

/// What troveclient makes of a link: the marker decoded once and pasted back unescaped.
fn pasted(path: &str) -> String {
    path.replace("%25", "%")
}
