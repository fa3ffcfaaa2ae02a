//! Pages: 20 rows, links under both keys, markers quoted twice.

use coffer_core::quota::Resource;
use coffer_store::inventory::StoredInventory;
use serde_json::Value;

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
    world
        .get(&root, "/mgmt/instances?deleted=True")
        .await
        .fault(501, "notImplemented");
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
