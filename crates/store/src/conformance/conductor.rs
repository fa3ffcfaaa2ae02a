//! What the conductor writes: health, links, inventories; and its role.

use coffer_core::id::InstanceId;
use coffer_core::instance::{Health, Lifecycle, Observation};
use coffer_core::task::{TaskState, Wait};
use coffer_core::units::Generation;
use coffer_store::Store;
use coffer_store::inventory::{StoredDatabase, StoredInventory, StoredUser};
use coffer_store::singleton::Hold;
use coffer_store::status::Report;

use super::world::{World, at, commit, event};
use crate::fixture::Fixture;

/// What was heard, as it is written.
fn heard(observations: &[Observation]) -> Vec<Report> {
    let report = |seen: &Observation| Report::Heard {
        seen: seen.clone(),
        is_turn: true,
        events: Vec::new(),
    };
    observations.iter().map(report).collect()
}

fn seen(instance_id: InstanceId, health: Health, used: u64, seconds: i64) -> Observation {
    Observation {
        instance_id,
        generation: Generation(1),
        health,
        volume_used_bytes: used,
        volume_total_bytes: 1 << 40,
        inventory_counter: 0,
        engine_run: None,
        at: at(seconds),
    }
}

pub(crate) async fn observations_write_only_changes(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let (a, b) = (
        world.create(store, "a").await,
        world.create(store, "b").await,
    );
    let (a, b) = (a.instance.id, b.instance.id);
    let both = [
        seen(a, Health::Healthy, 5, 10),
        seen(b, Health::Starting, 0, 10),
    ];
    assert_eq!(store.record_reports(&heard(&both)).await.unwrap(), 2);
    assert_eq!(store.record_reports(&heard(&both)).await.unwrap(), 0);
    let found = store.find_instance(a).await.unwrap().unwrap();
    assert_eq!(
        (found.health, found.volume_used_bytes),
        (Health::Healthy, Some(5))
    );
    assert_eq!(
        (found.health_at, found.lifecycle),
        (at(10), Lifecycle::Building)
    );

    let more = [
        seen(a, Health::Healthy, 6, 20),
        seen(b, Health::Starting, 0, 20),
    ];
    assert_eq!(store.record_reports(&heard(&more)).await.unwrap(), 1);
    let found = store.find_instance(a).await.unwrap().unwrap();
    assert_eq!(
        (found.health_at, found.volume_used_bytes),
        (at(10), Some(6))
    );
    let view = store.get_instance_view(None, a).await.unwrap().unwrap();
    assert_eq!(view.instance, found);

    let newer = Observation {
        generation: Generation(2),
        ..seen(a, Health::Blocked, 6, 30)
    };
    assert_eq!(store.record_reports(&heard(&[newer])).await.unwrap(), 1);
    let older = seen(a, Health::Healthy, 6, 40);
    assert_eq!(store.record_reports(&heard(&[older])).await.unwrap(), 0);
    assert_eq!(
        store.find_instance(a).await.unwrap().unwrap().health,
        Health::Blocked
    );
    assert_eq!(store.record_reports(&[]).await.unwrap(), 0);

    // Told twice in one batch: one after the other.
    let now = |health, seconds| Observation {
        generation: Generation(2),
        engine_run: Some("it's \"7\"@9".to_owned()),
        ..seen(a, health, u64::from(u32::MAX) + 7, seconds)
    };
    let turns = [
        now(Health::Healthy, 50),
        seen(b, Health::Healthy, 1, 50),
        now(Health::Blocked, 51),
    ];
    assert_eq!(store.record_reports(&heard(&turns)).await.unwrap(), 3);
    let found = store.find_instance(a).await.unwrap().unwrap();
    assert_eq!((found.health, found.health_at), (Health::Blocked, at(51)));
    assert_eq!(found.volume_used_bytes, Some(u64::from(u32::MAX) + 7));
    let run = store.find_engine_run(a).await.unwrap();
    assert_eq!(run.as_deref(), Some("it's \"7\"@9"));
    assert_eq!(store.record_reports(&heard(&turns[1..])).await.unwrap(), 0);
}

pub(crate) async fn no_number_of_a_guest_keeps_others_unheard(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let (a, b) = (
        world.create(store, "a").await.instance.id,
        world.create(store, "b").await.instance.id,
    );
    // Nobody's disk is so large; a guest may say so all the same.
    let boast = Observation {
        volume_total_bytes: u64::MAX - 1,
        inventory_counter: u64::MAX,
        ..seen(a, Health::Healthy, u64::MAX, 10)
    };
    let batch = heard(&[boast, seen(b, Health::Healthy, 5, 10)]);
    assert_eq!(store.record_reports(&batch).await.unwrap(), 2);
    assert_eq!(store.record_reports(&batch).await.unwrap(), 0);
    for (id, used) in [(a, i64::MAX.cast_unsigned()), (b, 5)] {
        let found = store.find_instance(id).await.unwrap().unwrap();
        assert_eq!(
            (found.health, found.volume_used_bytes),
            (Health::Healthy, Some(used))
        );
    }
    let unheard_of = Observation {
        generation: Generation(u64::MAX),
        ..seen(a, Health::Blocked, 6, 20)
    };
    let batch = heard(&[unheard_of, seen(b, Health::Healthy, 6, 20)]);
    assert_eq!(store.record_reports(&batch).await.unwrap(), 1);
}

pub(crate) async fn loss_changes_only_health(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let id = world.create(store, "a").await.instance.id;
    let told = Observation {
        generation: Generation(3),
        inventory_counter: 7,
        engine_run: Some("12@500".to_owned()),
        ..seen(id, Health::Healthy, 5, 10)
    };
    let healthy = heard(std::slice::from_ref(&told));
    assert_eq!(store.record_reports(&healthy).await.unwrap(), 1);
    let lost = [Report::Lost {
        instance_id: id,
        at: at(50),
    }];
    assert_eq!(store.record_reports(&lost).await.unwrap(), 1);
    assert_eq!(store.record_reports(&lost).await.unwrap(), 0);
    let found = store.find_instance(id).await.unwrap().unwrap();
    assert_eq!((found.health, found.health_at), (Health::Lost, at(50)));
    assert_eq!(found.volume_used_bytes, Some(5));
    assert_eq!(
        store.find_engine_run(id).await.unwrap().as_deref(),
        Some("12@500")
    );

    let silent_engine = Observation {
        engine_run: None,
        at: at(60),
        ..told.clone()
    };
    let back = heard(&[silent_engine]);
    assert_eq!(store.record_reports(&back).await.unwrap(), 1);
    let found = store.find_instance(id).await.unwrap().unwrap();
    assert_eq!((found.health, found.health_at), (Health::Healthy, at(60)));
    let known = store.find_engine_run(id).await.unwrap();
    assert_eq!(
        known.as_deref(),
        Some("12@500"),
        "no engine is no other engine"
    );
    let again = [Report::Heard {
        seen: Observation {
            engine_run: Some("12@900".to_owned()),
            ..told
        },
        is_turn: false,
        events: vec![event("one", id)],
    }];
    assert_eq!(store.record_reports(&again).await.unwrap(), 1);
    let known = store.find_engine_run(id).await.unwrap();
    assert_eq!(known.as_deref(), Some("12@900"));
    assert_eq!(store.list_events(id, None, 9).await.unwrap().len(), 2);
}

pub(crate) async fn health_ends_waits(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let new = world.create(store, "a").await;
    for (reason, health, ends) in [
        ("guest.starting", Health::Healthy, true),
        ("provider.busy", Health::Blocked, false),
    ] {
        let claimed = store
            .claim_tasks("w", at(3_600), 1)
            .await
            .unwrap()
            .pop()
            .unwrap();
        let mut step = commit(&claimed, "w", TaskState::Ready);
        step.update.run_at = at(3_600);
        step.update.wait = Some(Wait {
            reason: reason.to_owned(),
            message: String::new(),
            unblocked_by: "guest".to_owned(),
            since: at(0),
        });
        store.commit_step(&step).await.unwrap();
        store
            .record_reports(&heard(&[seen(new.instance.id, health, 0, 10)]))
            .await
            .unwrap();
        let due = store.find_task(new.task.id).await.unwrap().unwrap().run_at;
        assert_eq!(due == at(10), ends, "{reason}: {due}");
    }
}

pub(crate) async fn links_are_pinned_once(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let new = world.create(store, "a").await;
    let server_id = new.server.id;
    assert!(store.pin_link(server_id, "key-a", "1").await.unwrap());
    assert!(store.pin_link(server_id, "key-a", "2").await.unwrap());
    assert!(!store.pin_link(server_id, "key-b", "3").await.unwrap());
    for position in [7, 9, 8] {
        store.set_link_position(server_id, position).await.unwrap();
    }
    let link = store.find_link(server_id).await.unwrap().unwrap();
    assert_eq!(
        (link.position, link.agent_version.as_deref()),
        (9, Some("2"))
    );
    assert_eq!(link.key_fingerprint.as_deref(), Some("key-a"));
    let live = store.list_live_links().await.unwrap();
    assert_eq!(live.len(), 1);
    assert_eq!(
        (&live[0].link, live[0].instance_id),
        (&link, new.instance.id)
    );
    assert_eq!(
        (live[0].tenant_id.as_str(), live[0].provider.as_str()),
        ("one", "fake")
    );
}

fn database(name: &str) -> StoredDatabase {
    StoredDatabase {
        name: name.to_owned(),
        character_set: "UTF8".to_owned(),
        collate: "C.UTF-8".to_owned(),
    }
}

fn user(name: &str, host: &str, databases: &[&str]) -> StoredUser {
    let databases = databases.iter().map(|&text| text.to_owned()).collect();
    StoredUser {
        name: name.to_owned(),
        host: host.to_owned(),
        databases,
    }
}

/// Stores a small inventory with root enabled.
pub(crate) async fn report(store: &Store, instance_id: InstanceId) -> StoredInventory {
    let inventory = StoredInventory {
        counter: 4,
        databases: ["b", "B", "a", "ä"].map(database).to_vec(),
        users: vec![
            user("eve", "%", &["a", "b"]),
            user("a@b", "10.0.0.1", &["B"]),
            user("a@b", "%", &[]),
        ],
        is_root_enabled: true,
    };
    store
        .put_inventory(instance_id, &inventory, at(3))
        .await
        .unwrap();
    inventory
}

pub(crate) async fn inventories_are_replaced_and_paged(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let instance_id = world.create(store, "a").await.instance.id;
    assert_eq!(
        store.find_inventory_counter(instance_id).await.unwrap(),
        None
    );
    assert!(!store.is_root_enabled(instance_id).await.unwrap());
    assert_eq!(store.get_root_enabled(instance_id).await.unwrap(), None);
    let mut inventory = report(store, instance_id).await;
    assert_eq!(
        store.find_inventory_counter(instance_id).await.unwrap(),
        Some(4)
    );
    let names = ["B", "a", "b", "ä"].map(database);
    assert_eq!(
        store.list_databases(instance_id, None, 9).await.unwrap(),
        names
    );
    assert_eq!(
        store
            .list_databases(instance_id, Some("a"), 1)
            .await
            .unwrap(),
        names[2..3]
    );
    assert_eq!(
        store.find_database(instance_id, "b").await.unwrap(),
        Some(database("b"))
    );
    assert_eq!(store.find_database(instance_id, "c").await.unwrap(), None);

    let users = [
        user("a@b", "%", &[]),
        user("a@b", "10.0.0.1", &["B"]),
        user("eve", "%", &["a", "b"]),
    ];
    assert_eq!(
        store.list_db_users(instance_id, None, 9).await.unwrap(),
        users
    );
    let page = store
        .list_db_users(instance_id, Some("a@b@%"), 1)
        .await
        .unwrap();
    assert_eq!(page, users[1..2]);
    let page = store
        .list_db_users(instance_id, Some("eve"), 9)
        .await
        .unwrap();
    assert_eq!(
        page,
        [],
        "a marker without a host stands behind all hosts of the name"
    );
    let found = store.find_db_user(instance_id, "eve", "%").await.unwrap();
    assert_eq!(found, Some(users[2].clone()));
    assert_eq!(
        store.find_db_user(instance_id, "eve", "x").await.unwrap(),
        None
    );

    assert!(store.is_root_enabled(instance_id).await.unwrap());
    assert_eq!(
        store.get_root_enabled(instance_id).await.unwrap(),
        Some(at(3))
    );
    inventory.is_root_enabled = false;
    inventory.users.clear();
    inventory.databases.truncate(1);
    store
        .put_inventory(instance_id, &inventory, at(9))
        .await
        .unwrap();
    store.set_root_enabled(instance_id, at(9)).await.unwrap();
    assert!(!store.is_root_enabled(instance_id).await.unwrap());
    assert_eq!(
        store.get_root_enabled(instance_id).await.unwrap(),
        Some(at(3))
    );
    assert_eq!(
        store.list_databases(instance_id, None, 9).await.unwrap(),
        [database("b")]
    );
    assert_eq!(store.list_db_users(instance_id, None, 9).await.unwrap(), []);
}

pub(crate) async fn older_inventories_are_ignored(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let id = world.create(store, "a").await.instance.id;
    let inventory = |counter, names: &[&str]| StoredInventory {
        counter,
        databases: names.iter().map(|name| database(name)).collect(),
        users: Vec::new(),
        is_root_enabled: false,
    };
    for (counter, names, expected) in [
        (5, &["a", "b"][..], &["a", "b"][..]),
        (4, &["a"][..], &["a", "b"][..]),
        (5, &["c"][..], &["c"][..]),
        (6, &[][..], &[][..]),
    ] {
        let read = inventory(counter, names);
        store.put_inventory(id, &read, at(9)).await.unwrap();
        let known = store.list_databases(id, None, 9).await.unwrap();
        let known: Vec<_> = known.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(known, expected, "after counter {counter}");
    }
    assert_eq!(store.find_inventory_counter(id).await.unwrap(), Some(6));
}

pub(crate) async fn one_process_holds_a_role(fixture: &Fixture) {
    let store = fixture.store();
    let role = "conductor";
    assert_eq!(store.try_hold(role, "a", None).await.unwrap(), Hold::Held);
    let other = |counter| Hold::Other {
        owner: "a".to_owned(),
        counter,
    };
    assert_eq!(store.try_hold(role, "b", None).await.unwrap(), other(1));
    assert_eq!(store.try_hold(role, "a", None).await.unwrap(), Hold::Held);
    assert_eq!(
        store.try_hold(role, "b", Some(("a", 1))).await.unwrap(),
        other(2)
    );
    assert_eq!(
        store.try_hold(role, "b", Some(("a", 2))).await.unwrap(),
        Hold::Held
    );
    let taken = store.try_hold(role, "a", None).await.unwrap();
    assert_eq!(
        taken,
        Hold::Other {
            owner: "b".to_owned(),
            counter: 3
        }
    );
    store.release_hold(role, "a").await.unwrap();
    assert_ne!(store.try_hold(role, "a", None).await.unwrap(), Hold::Held);
    store.release_hold(role, "b").await.unwrap();
    assert_eq!(store.try_hold(role, "a", None).await.unwrap(), Hold::Held);
    assert_eq!(
        store.try_hold("other", "b", None).await.unwrap(),
        Hold::Held
    );
}
