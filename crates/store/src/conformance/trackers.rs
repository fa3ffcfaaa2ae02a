//! Trackers and the grants of their relays.

use coffer_core::id::{InstanceId, TenantId, TrackerId};
use coffer_core::tracker::{Grant, RelayPurpose, Tracker};
use coffer_store::{Store, StoreError};

use super::world::{World, actor, at, id, storm, tenant_id};
use crate::fixture::Fixture;

fn tracker(address: &str) -> Tracker {
    Tracker {
        id: id(TrackerId::from_uuid),
        provider: "fake".to_owned(),
        address: address.to_owned(),
        beat: 0,
        started_at: at(0),
    }
}

fn grant(hash: &str, tracker: &Tracker, instance_id: InstanceId) -> Grant {
    Grant {
        hash: hash.to_owned(),
        tracker_id: tracker.id,
        tenant_id: tenant_id("one"),
        instance_id,
        purpose: RelayPurpose::Connect,
        until: 2,
        actor: actor("one"),
    }
}

/// A world with a tracker and an instance of project `one`.
async fn prepared(store: &Store) -> (World, Tracker, InstanceId) {
    let world = World::new(store, "one").await;
    let tracker = tracker("127.0.0.1:1");
    store.insert_tracker(&tracker).await.unwrap();
    let instance_id = world.create(store, "db").await.instance.id;
    (world, tracker, instance_id)
}

async fn redeemed(
    store: &Store,
    tracker: &Tracker,
    hash: &str,
    tenant: &TenantId,
    instance_id: InstanceId,
    purpose: RelayPurpose,
) -> bool {
    let wanted = (tenant, instance_id, purpose);
    let found = store.use_grant(tracker.id, hash, wanted).await.unwrap();
    found.is_some_and(|found| {
        assert_eq!(found, actor("one"));
        true
    })
}

pub(crate) async fn trackers_live_by_their_counter(fixture: &Fixture) {
    let store = fixture.store();
    let (_, first, instance_id) = prepared(store).await;
    let again = store.insert_tracker(&first).await;
    assert!(matches!(again, Err(StoreError::AlreadyExists { .. })));
    assert!(store.beat_tracker(first.id).await.unwrap());
    let listed = store.list_trackers().await.unwrap();
    assert_eq!((listed.len(), listed[0].links), (1, 1), "the link names it");
    assert_eq!(
        (listed[0].tracker.beat, &listed[0].tracker.address),
        (1, &first.address)
    );

    // A second one is led to only after the one that the link names.
    let second = tracker("127.0.0.1:2");
    store.insert_tracker(&second).await.unwrap();
    let elsewhere = Tracker {
        provider: "other".to_owned(),
        ..tracker("127.0.0.1:3")
    };
    store.insert_tracker(&elsewhere).await.unwrap();
    assert!(store.beat_tracker(second.id).await.unwrap());
    let to = async || {
        let found = store.list_trackers_to(instance_id, 9).await.unwrap();
        found.iter().map(|one| one.id).collect::<Vec<_>>()
    };
    assert_eq!(to().await, [first.id, second.id]);
    assert_eq!(
        store.list_trackers_to(instance_id, 1).await.unwrap().len(),
        1
    );
    store.lead_link(instance_id, second.id).await.unwrap();
    assert_eq!(to().await, [second.id, first.id]);

    // Only a counter that stands still makes a tracker dead.
    assert!(!store.delete_unmoved_tracker(second.id, 0).await.unwrap());
    assert!(store.delete_unmoved_tracker(second.id, 1).await.unwrap());
    assert!(
        !store.beat_tracker(second.id).await.unwrap(),
        "it learns of it"
    );
    assert!(store.beat_tracker(first.id).await.unwrap());
    assert_eq!(to().await, [first.id]);
    assert_eq!(
        store.list_trackers().await.unwrap()[0].links,
        1,
        "taken over"
    );
    store.delete_tracker(first.id).await.unwrap();
    store.delete_tracker(first.id).await.unwrap();
    assert!(to().await.is_empty());
}

pub(crate) async fn a_grant_is_used_once_for_what_it_names(fixture: &Fixture) {
    let store = fixture.store();
    let (world, ours, instance_id) = prepared(store).await;
    let other = tracker("127.0.0.1:2");
    store.insert_tracker(&other).await.unwrap();
    let another = world.create(store, "another").await.instance.id;
    store
        .insert_grant(&grant("a", &ours, instance_id))
        .await
        .unwrap();
    let twice = store.insert_grant(&grant("a", &ours, instance_id)).await;
    assert!(matches!(twice, Err(StoreError::AlreadyExists { .. })));
    let (one, two) = (tenant_id("one"), tenant_id("two"));
    let (connect, visit) = (RelayPurpose::Connect, RelayPurpose::Visit);
    assert!(!redeemed(store, &ours, "b", &one, instance_id, connect).await);
    assert!(!redeemed(store, &other, "a", &one, instance_id, connect).await);
    assert!(!redeemed(store, &ours, "a", &two, instance_id, connect).await);
    assert!(!redeemed(store, &ours, "a", &one, another, connect).await);
    assert!(!redeemed(store, &ours, "a", &one, instance_id, visit).await);
    assert!(redeemed(store, &ours, "a", &one, instance_id, connect).await);
    assert!(
        !redeemed(store, &ours, "a", &one, instance_id, connect).await,
        "twice"
    );

    // Of a project that the instance is not of, whoever wrote the grant.
    let foreign = Grant {
        tenant_id: two.clone(),
        ..grant("f", &ours, instance_id)
    };
    store.insert_grant(&foreign).await.unwrap();
    assert!(!redeemed(store, &ours, "f", &two, instance_id, connect).await);

    let of_nobody = grant("n", &tracker("127.0.0.1:9"), instance_id);
    let missing = store.insert_grant(&of_nobody).await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );
}

pub(crate) async fn a_grant_ends_by_its_tracker_s_counter(fixture: &Fixture) {
    if !fixture.has_back_door() {
        return;
    }
    let store = fixture.store();
    let (_, ours, instance_id) = prepared(store).await;
    let (one, connect) = (tenant_id("one"), RelayPurpose::Connect);
    for hash in ["a", "b", "c"] {
        store
            .insert_grant(&grant(hash, &ours, instance_id))
            .await
            .unwrap();
    }
    assert!(store.beat_tracker(ours.id).await.unwrap());
    assert!(redeemed(store, &ours, "a", &one, instance_id, connect).await);
    // The counter comes to the end while the cleaning stands still.
    fixture.raw("UPDATE trackers SET beat = 2").await;
    assert!(!redeemed(store, &ours, "b", &one, instance_id, connect).await);
    assert!(store.beat_tracker(ours.id).await.unwrap());
    fixture.raw("UPDATE trackers SET beat = 0").await;
    assert!(
        !redeemed(store, &ours, "b", &one, instance_id, connect).await,
        "cleaned away"
    );

    store
        .insert_grant(&grant("d", &ours, instance_id))
        .await
        .unwrap();
    store.delete_tracker(ours.id).await.unwrap();
    store.insert_tracker(&ours).await.unwrap();
    assert!(
        !redeemed(store, &ours, "d", &one, instance_id, connect).await,
        "with its tracker"
    );
}

pub(crate) async fn one_use_of_a_grant(fixture: &Fixture) {
    let store = fixture.store();
    let (_, ours, instance_id) = prepared(store).await;
    store
        .insert_grant(&grant("a", &ours, instance_id))
        .await
        .unwrap();
    let used = storm(&fixture.stores, |store, _| {
        let tracker_id = ours.id;
        async move {
            let wanted = (&tenant_id("one"), instance_id, RelayPurpose::Connect);
            store
                .use_grant(tracker_id, "a", wanted)
                .await
                .unwrap()
                .is_some()
        }
    })
    .await;
    assert_eq!(used.iter().filter(|is_ours| **is_ours).count(), 1);
}
