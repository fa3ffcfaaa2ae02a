//! What a version says of itself beside Trove's keys.

use coffer_core::datastore::{Datastore, DatastoreVersion};
use coffer_core::id::{DatastoreId, DatastoreVersionId};
use coffer_core::name::Name;
use serde_json::Value;
use uuid::Uuid;

use crate::expected::assert_expected;
use crate::world::{EPOCH, VERSION, World};

/// Offers one more datastore with one version.
async fn offer(world: &World, manager: &str, version: &str) {
    let id = DatastoreId::from_uuid(Uuid::from_u128(0xe5));
    let datastore = Datastore {
        id,
        name: Name::parse("name", manager).unwrap(),
        default_version_id: None,
        created_at: EPOCH,
    };
    world.store.upsert_datastore(&datastore).await.unwrap();
    let version = DatastoreVersion {
        id: DatastoreVersionId::from_uuid(Uuid::from_u128(0xe517)),
        datastore_id: id,
        name: Name::parse("name", version).unwrap(),
        number: version.to_owned(),
        manager: manager.to_owned(),
        is_active: true,
        image: format!("{manager}-{version}"),
        root: None,
        created_at: EPOCH,
    };
    let stored = world.store.upsert_datastore_version(&version).await;
    stored.unwrap();
}

/// How far an operation goes.
fn support(version: &Value, operation: &str) -> Value {
    let all = version["capabilities"]["operations"].as_array().unwrap();
    let found = all.iter().find(|one| one["operation"] == operation);
    found.unwrap()["support"].clone()
}

#[tokio::test]
async fn a_version_says_what_can_be_done_with_it() {
    let world = World::new().await;
    let alice = world.alice().await;
    let path = "/datastores/postgresql/versions/17";
    let shown = world.get(&alice, path).await.expect(200);
    assert_expected("version", &shown);
    let path = format!("/datastores/versions/{VERSION}");
    assert_eq!(world.get(&alice, &path).await.expect(200), shown);
    // Lists are Trove's alone.
    let path = "/datastores/postgresql/versions";
    let listed = world.get(&alice, path).await.expect(200);
    assert!(listed["versions"][0].get("capabilities").is_none());
}

#[tokio::test]
async fn what_is_refused_is_told_before() {
    let world = World::new().await;
    let alice = world.alice().await;
    offer(&world, "redis", "7.0").await;
    let path = "/datastores/redis/versions/7.0";
    let shown = world.get(&alice, path).await.expect(200);
    let version = &shown["version"];
    assert_eq!(support(version, "provision"), "yes");
    assert_eq!(support(version, "schema"), "not-yet");
    assert_eq!(version["capabilities"]["databases"], false);
    assert_eq!(version["capabilities"]["grants"], false);
    assert_eq!(version["capabilities"]["root_user"], "default");
}

#[tokio::test]
async fn what_no_test_has_met_is_told_as_such() {
    let world = World::new().await;
    let alice = world.alice().await;
    for datastore in ["percona", "pxc"] {
        offer(&world, datastore, "8.4").await;
        let path = format!("/datastores/{datastore}/versions/8.4");
        let shown = world.get(&alice, &path).await.expect(200);
        let version = &shown["version"];
        for operation in ["provision", "schema", "user"] {
            assert_eq!(support(version, operation), "unverified", "{datastore}");
        }
        assert_eq!(support(version, "cluster"), "not-yet", "{datastore}");
        assert!(version.to_string().contains("was never run"), "{version}");
    }
}

#[tokio::test]
async fn of_an_engine_that_this_build_has_not_nothing_is_said() {
    let world = World::new().await;
    let alice = world.alice().await;
    offer(&world, "toy", "1").await;
    let shown = world.get(&alice, "/datastores/toy/versions/1").await;
    assert!(shown.expect(200)["version"].get("capabilities").is_none());
}
