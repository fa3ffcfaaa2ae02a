//! Secrets, settings, events, audit, quotas, and damaged rows.

use coffer_core::event::AuditEntry;
use coffer_core::id::{AuditId, ProjectKeyId, SecretId};
use coffer_core::quota::{Quota, Resource};
use coffer_store::StoreError;
use coffer_store::instance::InstanceFilter;
use coffer_store::secret::{ProjectKey, StoredSecret};

use super::world::{World, actor, at, event, id, tenant, tenant_id};
use crate::fixture::Fixture;

/// What was sealed for a deleted project can be read by nobody.
pub(crate) async fn keys_go_with_their_project(fixture: &Fixture) {
    let store = fixture.store();
    for name in ["one", "two"] {
        store.insert_tenant(&tenant(name)).await.unwrap();
        let authority = format!("authority/project {}", tenant_id(name));
        store.put_setting_once(&authority, "sealed").await.unwrap();
    }
    let [(key, secret), (other_key, other)] = ["one", "two"].map(|name| {
        let key = ProjectKey {
            id: id(ProjectKeyId::from_uuid),
            tenant_id: tenant_id(name),
            wrapped: vec![1, 2, 3],
            created_at: at(0),
        };
        let secret = StoredSecret {
            id: id(SecretId::from_uuid),
            key_id: key.id,
            tenant_id: tenant_id(name),
            instance_id: None,
            purpose: "commands".to_owned(),
            ciphertext: vec![4, 5, 6],
            created_at: at(0),
        };
        (key, secret)
    });
    for (key, secret) in [(&key, &secret), (&other_key, &other)] {
        store.ensure_project_key(key).await.unwrap();
        store.put_secret(secret).await.unwrap();
    }
    store.delete_tenant(&tenant_id("one"), at(1)).await.unwrap();
    assert_eq!(store.find_project_key_by_id(key.id).await.unwrap(), None);
    assert_eq!(store.find_project_key(&key.tenant_id).await.unwrap(), None);
    assert_eq!(store.find_secret(secret.id).await.unwrap(), None);
    let authority = |name| format!("authority/project {}", tenant_id(name));
    let gone = store.get_setting(&authority("one")).await.unwrap();
    assert_eq!(gone, None);
    // Another project's are as they were.
    let kept = store.find_project_key_by_id(other_key.id).await.unwrap();
    assert_eq!(kept, Some(other_key));
    assert_eq!(store.find_secret(other.id).await.unwrap(), Some(other));
    let kept = store.get_setting(&authority("two")).await.unwrap();
    assert_eq!(kept.as_deref(), Some("sealed"));
}

pub(crate) async fn secrets_name_their_keys(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let instance_id = world.create(store, "db").await.instance.id;
    let key = ProjectKey {
        id: id(ProjectKeyId::from_uuid),
        tenant_id: tenant_id("one"),
        wrapped: (0..=255).collect(),
        created_at: at(0),
    };
    let mut secret = StoredSecret {
        id: id(SecretId::from_uuid),
        key_id: key.id,
        tenant_id: tenant_id("one"),
        instance_id: Some(instance_id),
        purpose: "root-password".to_owned(),
        ciphertext: vec![0, 1, 255],
        created_at: at(0),
    };
    let refused = store.put_secret(&secret).await;
    assert!(
        matches!(refused, Err(StoreError::NotFound { .. })),
        "{refused:?}"
    );
    assert_eq!(store.ensure_project_key(&key).await.unwrap(), key);
    store.put_secret(&secret).await.unwrap();
    secret.ciphertext = Vec::new();
    store.put_secret(&secret).await.unwrap();
    assert_eq!(
        store.find_secret(secret.id).await.unwrap(),
        Some(secret.clone())
    );
    let newer = StoredSecret {
        id: id(SecretId::from_uuid),
        created_at: at(1),
        ..secret.clone()
    };
    store.put_secret(&newer).await.unwrap();
    let found = store
        .find_instance_secret(instance_id, "root-password")
        .await
        .unwrap();
    assert_eq!(found, Some(newer.clone()));
    for _ in 0..2 {
        store.erase_secret(newer.id).await.unwrap();
    }
    assert_eq!(store.find_secret(newer.id).await.unwrap(), None);

    assert_eq!(
        store.find_project_key_by_id(key.id).await.unwrap(),
        Some(key.clone())
    );
    store.destroy_project_key(key.id, at(2)).await.unwrap();
    assert_eq!(store.find_project_key_by_id(key.id).await.unwrap(), None);
    assert_eq!(store.find_project_key(&key.tenant_id).await.unwrap(), None);
    let next = ProjectKey {
        id: id(ProjectKeyId::from_uuid),
        ..key.clone()
    };
    assert_eq!(store.ensure_project_key(&next).await.unwrap(), next);
    assert!(
        !format!("{key:?} {secret:?}").contains("255"),
        "no bytes are printed"
    );
}

pub(crate) async fn settings_are_shared(fixture: &Fixture) {
    let (store, other) = (fixture.store(), &fixture.stores[1]);
    assert_eq!(store.get_setting("a").await.unwrap(), None);
    assert_eq!(store.put_setting_once("a", "1").await.unwrap(), "1");
    assert_eq!(other.put_setting_once("a", "2").await.unwrap(), "1");
    other.put_setting("a", "3").await.unwrap();
    assert_eq!(store.get_setting("a").await.unwrap().as_deref(), Some("3"));
    store.delete_setting("a").await.unwrap();
    assert_eq!(other.get_setting("a").await.unwrap(), None);
}

pub(crate) async fn events_and_audit_keep_their_actor(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let new = world.create(store, "db").await;
    let mut all = vec![new.event.clone().unwrap()];
    for _ in 0..3 {
        let mut one = event("one", new.instance.id);
        (one.actor, one.task_id) = (None, Some(new.task.id));
        store.insert_event(&one).await.unwrap();
        all.push(one);
    }
    assert_eq!(
        store.list_events(new.instance.id, None, 9).await.unwrap(),
        all
    );
    let page = store
        .list_events(new.instance.id, Some(all[0].id), 2)
        .await
        .unwrap();
    assert_eq!(page, all[1..3]);

    let mut trail = Vec::new();
    for tenant in ["one", "two", "one"] {
        let entry = AuditEntry {
            id: id(AuditId::from_uuid),
            actor: actor(tenant),
            action: "instance:create".to_owned(),
            target: new.instance.id.to_string(),
            outcome: 202,
            at: at(0),
        };
        store.insert_audit(&entry).await.unwrap();
        trail.push(entry);
    }
    assert_eq!(store.list_audit(None, None, 9).await.unwrap(), trail);
    let one = tenant_id("one");
    let of_one = [trail[0].clone(), trail[2].clone()];
    assert_eq!(store.list_audit(Some(&one), None, 9).await.unwrap(), of_one);
    assert_eq!(
        store
            .list_audit(Some(&one), Some(trail[0].id), 9)
            .await
            .unwrap(),
        of_one[1..]
    );
    assert_eq!(
        store.list_audit(None, Some(trail[0].id), 1).await.unwrap(),
        trail[1..2]
    );
    let again = store.insert_audit(&trail[0]).await;
    assert!(
        matches!(again, Err(StoreError::AlreadyExists { .. })),
        "a line is never overwritten"
    );
}

pub(crate) async fn quotas_have_defaults(fixture: &Fixture) {
    let store = fixture.store();
    let one = tenant_id("one");
    let quota = |resource: Resource, limit| Quota {
        resource,
        limit,
        in_use: 0,
        reserved: 0,
    };
    let defaults: Vec<Quota> = Resource::ALL
        .iter()
        .map(|&r| quota(r, r.default_limit()))
        .collect();
    let get = || store.get_quotas(&one, Resource::default_limit);
    assert_eq!(get().await.unwrap(), defaults);
    store.set_quota(&one, Resource::Instances, 3).await.unwrap();
    store.set_quota(&one, Resource::Instances, 0).await.unwrap();
    assert_eq!(get().await.unwrap()[0], quota(Resource::Instances, 0));
    store.clear_quota(&one, Resource::Instances).await.unwrap();
    assert_eq!(get().await.unwrap(), defaults);
}

pub(crate) async fn damaged_rows_are_named(fixture: &Fixture) {
    let store = fixture.store();
    let world = World::new(store, "one").await;
    let instance_id = world.create(store, "db").await.instance.id;
    for (damage, column_damaged) in [
        ("UPDATE instances SET lifecycle = 'odd'", "lifecycle"),
        (
            "UPDATE instances SET lifecycle = 'active', volume_gib = 0",
            "volume_gib",
        ),
        (
            "UPDATE instances SET volume_gib = 1, is_public = 7",
            "is_public",
        ),
        (
            "UPDATE instances SET is_public = 1, allowed_cidrs = '[\"x\"]'",
            "allowed_cidrs",
        ),
        (
            "UPDATE instances SET allowed_cidrs = '[]', incarnation = -1",
            "incarnation",
        ),
    ] {
        fixture.raw(damage).await;
        let found = store.find_instance(instance_id).await;
        let Err(StoreError::Corrupt { table, id, column }) = found else {
            panic!("{found:?}")
        };
        let expected = ("instances", instance_id.to_string(), column_damaged);
        assert_eq!((table, id, column), expected);
        let listed = store
            .list_instances(&InstanceFilter::default(), None, 9)
            .await;
        assert!(
            matches!(listed, Err(StoreError::Corrupt { .. })),
            "{listed:?}"
        );
    }
    fixture.raw("UPDATE instances SET incarnation = 1").await;
    store.find_instance(instance_id).await.unwrap().unwrap();
}
