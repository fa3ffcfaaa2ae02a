//! What is offered: flavors, volume types, zones, datastores, roots, networks.

use coffer_core::datastore::EngineRoot;
use coffer_core::flavor::{VolumeType, Zone};
use coffer_core::units::{BytesPerSecond, IoLimits, Iops};
use coffer_store::StoreError;
use coffer_store::flavor::FlavorChange;
use coffer_store::root::Template;
use coffer_store::volume_type::VolumeTypeChange;

use super::world::{World, at, flavor, name, network, tenant_id};
use crate::fixture::Fixture;

pub(crate) async fn flavors_types_and_zones_are_kept(fixture: &Fixture) {
    let store = fixture.store();
    let (mut small, big) = (flavor("6.1", 512), flavor("big-one!", 4096));
    store.insert_flavor(&big).await.unwrap();
    store.insert_flavor(&small).await.unwrap();
    small.vcpus = 3;
    let wider = FlavorChange {
        vcpus: Some(3),
        ..FlavorChange::default()
    };
    store.update_flavor(&small.id, &wider).await.unwrap();
    assert_eq!(
        store.list_flavors().await.unwrap(),
        [small.clone(), big.clone()]
    );
    assert_eq!(store.find_flavor(&big.id).await.unwrap(), Some(big.clone()));
    assert_eq!(
        store.find_flavor_by_name("f6.1").await.unwrap(),
        Some(small.clone())
    );
    let mut taken = flavor("other", 1);
    taken.name = small.name.clone();
    for refused in [
        store.insert_flavor(&taken).await,
        store.insert_flavor(&small).await,
    ] {
        assert!(
            matches!(refused, Err(StoreError::AlreadyExists { .. })),
            "{refused:?}"
        );
    }
    let missing = store.update_flavor(&flavor("none", 1).id, &wider).await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );

    let mut fast = fast();
    store.insert_volume_type(&fast).await.unwrap();
    fast.description = "quicker".to_owned();
    let quicker = VolumeTypeChange {
        description: Some(fast.description.clone()),
        ..VolumeTypeChange::default()
    };
    store.update_volume_type("fast", &quicker).await.unwrap();
    assert_eq!(store.list_volume_types().await.unwrap(), [fast.clone()]);
    assert_eq!(
        store.find_volume_type("fast").await.unwrap(),
        Some(fast.clone())
    );
    let zone = Zone {
        name: name("az01.cell01.qhzwy"),
        created_at: at(0),
    };
    store.insert_zone(&zone).await.unwrap();
    assert_eq!(
        store.list_zones().await.unwrap(),
        std::slice::from_ref(&zone)
    );
    assert_eq!(
        store.find_zone("az01.cell01.qhzwy").await.unwrap(),
        Some(zone.clone())
    );
    assert_eq!(store.find_zone("az01").await.unwrap(), None);
    for refused in [
        store.insert_volume_type(&fast).await,
        store.insert_zone(&zone).await,
    ] {
        assert!(
            matches!(refused, Err(StoreError::AlreadyExists { .. })),
            "{refused:?}"
        );
    }
}

fn fast() -> VolumeType {
    VolumeType {
        name: name("fast"),
        description: "quick".to_owned(),
        io: IoLimits::NONE,
        created_at: at(0),
    }
}

/// Limits are set and lifted one by one, an instance is read with its type's, and what breaks their
/// bounds is a damaged row.
pub(crate) async fn volume_types_keep_their_limits(fixture: &Fixture) {
    let store = fixture.store();
    let iops = |value| Iops::parse("test", value).unwrap();
    let bytes = |value| BytesPerSecond::parse("test", value).unwrap();
    let kept = async || store.find_volume_type("fast").await.unwrap().unwrap();
    let mut fast = fast();
    fast.io.read_iops_sec = Some(iops(10));
    fast.io.write_bytes_sec = Some(bytes(1 << 40));
    store.insert_volume_type(&fast).await.unwrap();
    assert_eq!(kept().await, fast);

    let change = VolumeTypeChange {
        read_iops_sec: Some(None),
        write_iops_sec: Some(Some(iops(500))),
        read_bytes_sec: Some(Some(bytes(65_536))),
        ..VolumeTypeChange::default()
    };
    store.update_volume_type("fast", &change).await.unwrap();
    fast.io.read_iops_sec = None;
    fast.io.write_iops_sec = Some(iops(500));
    fast.io.read_bytes_sec = Some(bytes(65_536));
    assert_eq!(kept().await, fast);
    let nothing = VolumeTypeChange::default();
    store.update_volume_type("fast", &nothing).await.unwrap();
    assert_eq!(store.list_volume_types().await.unwrap(), [fast.clone()]);
    let missing = store.update_volume_type("none", &change).await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );

    let world = World::new(store, "one").await;
    let id = world.create(store, "db").await.instance.id;
    let graph = store.get_instance_graph(id).await.unwrap();
    assert_eq!(graph.volume_type, Some(fast));

    if fixture.has_back_door() {
        fixture
            .raw("UPDATE volume_types SET write_iops_sec = 9")
            .await;
        let found = store.find_volume_type("fast").await;
        let Err(StoreError::Corrupt { table, id, column }) = found else {
            panic!("{found:?}")
        };
        let expected = ("volume_types", "fast".to_owned(), "write_iops_sec");
        assert_eq!((table, id, column), expected);
    }
}

fn root(checksum: &str, built: i64) -> EngineRoot {
    EngineRoot {
        checksum: checksum.to_owned(),
        image: "postgresql-17".to_owned(),
        manifest: "{\"packages\":{}}".to_owned(),
        built_at: at(built),
    }
}

pub(crate) async fn datastores_and_versions_are_kept(fixture: &Fixture) {
    let store = fixture.store();
    let World {
        mut datastore,
        mut version,
        ..
    } = World::new(store, "one").await;
    let other = World::new(store, "two").await;
    assert_eq!(
        store.list_datastores().await.unwrap(),
        [datastore.clone(), other.datastore.clone()]
    );
    let found = store
        .find_datastore_by_name(datastore.name.as_str())
        .await
        .unwrap();
    assert_eq!(found, Some(datastore.clone()));

    let foreign = store
        .set_default_version(datastore.id, other.version.id)
        .await;
    assert!(
        matches!(foreign, Err(StoreError::NotFound { .. })),
        "{foreign:?}"
    );
    store
        .set_default_version(datastore.id, version.id)
        .await
        .unwrap();
    store.upsert_datastore(&datastore).await.unwrap();
    datastore.default_version_id = Some(version.id);
    assert_eq!(
        store.find_datastore(datastore.id).await.unwrap(),
        Some(datastore.clone())
    );

    let unknown = store.set_version_root(version.id, Some("r1")).await;
    assert!(
        matches!(unknown, Err(StoreError::NotFound { .. })),
        "{unknown:?}"
    );
    store.insert_root(&root("r1", 0)).await.unwrap();
    store
        .set_version_root(version.id, Some("r1"))
        .await
        .unwrap();
    version.number = "17.7".to_owned();
    version.is_active = false;
    store.upsert_datastore_version(&version).await.unwrap();
    version.root = Some("r1".to_owned());
    assert_eq!(
        store.find_datastore_version(version.id).await.unwrap(),
        Some(version.clone())
    );
    assert_eq!(
        store.list_datastore_versions(datastore.id).await.unwrap(),
        [version.clone()]
    );
    let by_name = store
        .find_datastore_version_by_name(datastore.id, "17")
        .await
        .unwrap();
    assert_eq!(by_name, Some(version.clone()));
    let none = store
        .find_datastore_version_by_name(datastore.id, "16")
        .await
        .unwrap();
    assert_eq!(none, None);

    let mut twin = other.version.clone();
    twin.id = super::world::id(coffer_core::id::DatastoreVersionId::from_uuid);
    let taken = store.upsert_datastore_version(&twin).await;
    assert!(
        matches!(taken, Err(StoreError::AlreadyExists { .. })),
        "{taken:?}"
    );
}

pub(crate) async fn roots_are_kept(fixture: &Fixture) {
    let store = fixture.store();
    for (checksum, built) in [("old", 0), ("new", 5), ("new", 9)] {
        store.insert_root(&root(checksum, built)).await.unwrap();
    }
    assert_eq!(
        store.list_roots().await.unwrap(),
        [root("new", 5), root("old", 0)]
    );
    assert_eq!(store.find_root("old").await.unwrap(), Some(root("old", 0)));
    let mut template = Template {
        root: "old".to_owned(),
        format: "xfs-4096".to_owned(),
        provider: "local".to_owned(),
        provider_ref: "t1".to_owned(),
        created_at: at(0),
    };
    store.put_template(&template).await.unwrap();
    template.provider_ref = "t2".to_owned();
    store.put_template(&template).await.unwrap();
    assert_eq!(
        store.list_templates("old").await.unwrap(),
        [template.clone()]
    );
    store.delete_root("old").await.unwrap();
    assert_eq!(store.list_templates("old").await.unwrap(), []);
    let missing = store.put_template(&template).await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );
}

pub(crate) async fn what_is_used_stays(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let (fast, zone) = (
        fast(),
        Zone {
            name: name("az1"),
            created_at: at(0),
        },
    );
    store.insert_flavor(&flavor("6.1", 512)).await.unwrap();
    store.insert_volume_type(&fast).await.unwrap();
    store.insert_zone(&zone).await.unwrap();
    store.insert_root(&root("root-a", 0)).await.unwrap();
    let mut new = world.new_instance("db");
    new.instance.spec.zone = Some("az1".to_owned());
    store
        .create_instance(&new, super::world::unlimited)
        .await
        .unwrap();
    let refused = [
        store.delete_flavor(&"6.1".parse().unwrap()).await,
        store.delete_volume_type("fast").await,
        store.delete_zone("az1").await,
        store.delete_root("root-a").await,
        store
            .delete_network(&tenant_id("one"), world.network.id)
            .await,
    ];
    for one in refused {
        assert!(matches!(one, Err(StoreError::InUse { .. })), "{one:?}");
    }
    super::instances::delete(store, &new).await;
    store.delete_flavor(&"6.1".parse().unwrap()).await.unwrap();
    store.delete_volume_type("fast").await.unwrap();
    store.delete_zone("az1").await.unwrap();
    store.delete_root("root-a").await.unwrap();
    store
        .delete_network(&tenant_id("one"), world.network.id)
        .await
        .unwrap();
    assert_eq!(store.list_flavors().await.unwrap(), []);
    assert_eq!(store.list_volume_types().await.unwrap(), []);
    assert_eq!(store.list_zones().await.unwrap(), []);
    assert_eq!(store.list_all_networks().await.unwrap(), []);
}

pub(crate) async fn networks_are_kept(fixture: &Fixture) {
    let store = fixture.store();
    let one = network("one", "b", "10.0.0.0/24", false);
    let two = network("one", "a", "10.0.0.0/24", true);
    let foreign = network("two", "a", "fd00::/64", false);
    for one in [&one, &two, &foreign] {
        store.insert_network(one).await.unwrap();
    }
    let tenant = tenant_id("one");
    assert_eq!(
        store.list_networks(&tenant).await.unwrap(),
        [two.clone(), one.clone()]
    );
    assert_eq!(
        store.find_network(&tenant, one.id).await.unwrap(),
        Some(one.clone())
    );
    assert_eq!(store.find_network(&tenant, foreign.id).await.unwrap(), None);
    for bad in [
        network("one", "a", "10.1.0.0/24", false),
        network("one", "c", "10.1.0.0/24", true),
    ] {
        let taken = store.insert_network(&bad).await;
        assert!(
            matches!(taken, Err(StoreError::AlreadyExists { .. })),
            "{taken:?}"
        );
    }
    let candidate = network("one", "x", "10.9.0.0/24", true);
    assert_eq!(store.ensure_default_network(&candidate).await.unwrap(), two);
    let candidate = network("two", "a", "10.9.0.0/24", true);
    let taken = store.ensure_default_network(&candidate).await;
    assert!(
        matches!(taken, Err(StoreError::AlreadyExists { .. })),
        "{taken:?}"
    );
    let candidate = network("two", "fresh", "10.9.0.0/24", true);
    assert_eq!(
        store.ensure_default_network(&candidate).await.unwrap(),
        candidate
    );
    store.delete_network(&tenant, foreign.id).await.unwrap();
    assert_eq!(store.list_all_networks().await.unwrap().len(), 4);
    store.delete_network(&tenant, one.id).await.unwrap();
    assert_eq!(store.list_all_networks().await.unwrap().len(), 3);
}
