//! Projects, users, roles, tokens.

use coffer_core::tenant::{RoleAssignment, Token};
use coffer_store::StoreError;
use coffer_store::tenant::TenantChange;
use coffer_store::user::UserChange;

use super::world::{World, at, name, tenant, user};
use crate::fixture::Fixture;

fn renamed(text: &str) -> TenantChange {
    TenantChange {
        name: Some(name(text)),
        ..TenantChange::default()
    }
}

pub(crate) async fn tenants_are_kept(fixture: &Fixture) {
    let store = fixture.store();
    let mut one = tenant("one");
    store.insert_tenant(&one).await.unwrap();
    store.insert_tenant(&tenant("another")).await.unwrap();
    assert_eq!(store.find_tenant(&one.id).await.unwrap(), Some(one.clone()));
    assert_eq!(
        store.find_tenant_by_name("one").await.unwrap(),
        Some(one.clone())
    );
    assert_eq!(store.find_tenant_by_name("One").await.unwrap(), None);

    // Two changes that know nothing of each other.
    one.is_enabled = false;
    one.name = name("uno");
    for change in [
        TenantChange {
            is_enabled: Some(false),
            ..TenantChange::default()
        },
        renamed("uno"),
    ] {
        store.update_tenant(&one.id, &change).await.unwrap();
    }
    assert_eq!(
        store.list_tenants(None, 9).await.unwrap(),
        [tenant("another"), one.clone()]
    );
    let first = store.list_tenants(None, 1).await.unwrap();
    assert_eq!(first, [tenant("another")]);
    let next = store.list_tenants(Some("another"), 9).await.unwrap();
    assert_eq!(next, [one.clone()]);

    let taken = store.update_tenant(&one.id, &renamed("another")).await;
    assert!(
        matches!(taken, Err(StoreError::AlreadyExists { .. })),
        "{taken:?}"
    );
    let nobody = tenant("nobody").id;
    let missing = store.update_tenant(&nobody, &renamed("x")).await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );
    let again = store.insert_tenant(&tenant("another")).await;
    assert!(
        matches!(again, Err(StoreError::AlreadyExists { .. })),
        "{again:?}"
    );

    store.delete_tenant(&one.id, at(1)).await.unwrap();
    store.delete_tenant(&one.id, at(1)).await.unwrap();
    assert_eq!(store.find_tenant(&one.id).await.unwrap(), None);
}

pub(crate) async fn users_are_kept(fixture: &Fixture) {
    let store = fixture.store();
    store.insert_tenant(&tenant("one")).await.unwrap();
    let mut alice = user("alice");
    alice.default_tenant_id = Some(tenant("one").id);
    store.insert_user(&alice).await.unwrap();
    assert_eq!(
        store.find_user(&alice.id).await.unwrap(),
        Some(alice.clone())
    );
    assert_eq!(
        store.find_user_by_name("alice").await.unwrap(),
        Some(alice.clone())
    );

    // Two changes that know nothing of each other.
    alice.password_hash = "other".to_owned();
    alice.is_enabled = false;
    let password = UserChange {
        password_hash: Some(alice.password_hash.clone()),
        ..UserChange::default()
    };
    let closed = UserChange {
        is_enabled: Some(false),
        ..UserChange::default()
    };
    for change in [&password, &closed] {
        store.update_user(&alice.id, change).await.unwrap();
    }
    assert_eq!(store.list_users(None, 9).await.unwrap(), [alice.clone()]);

    let taken = store.insert_user(&user("alice")).await;
    assert!(
        matches!(taken, Err(StoreError::AlreadyExists { .. })),
        "{taken:?}"
    );
    let mut bob = user("bob");
    bob.default_tenant_id = Some(tenant("nowhere").id);
    let missing = store.insert_user(&bob).await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );
    let missing = store.update_user(&bob.id, &password).await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );

    store.delete_tenant(&tenant("one").id, at(1)).await.unwrap();
    let unscoped = store.find_user(&alice.id).await.unwrap().unwrap();
    assert_eq!(unscoped.default_tenant_id, None);
    store.delete_user(&alice.id).await.unwrap();
    assert_eq!(store.find_user(&alice.id).await.unwrap(), None);
}

fn held(user_id: &str, tenant_id: &str, role: &str) -> RoleAssignment {
    RoleAssignment {
        user_id: user_id.parse().unwrap(),
        tenant_id: tenant_id.parse().unwrap(),
        role: role.to_owned(),
    }
}

pub(crate) async fn roles_are_held_in_projects(fixture: &Fixture) {
    let store = fixture.store();
    for role in ["member", "admin"] {
        store.insert_role(role, at(0)).await.unwrap();
    }
    let again = store.insert_role("admin", at(0)).await;
    assert!(
        matches!(again, Err(StoreError::AlreadyExists { .. })),
        "{again:?}"
    );
    assert_eq!(store.list_known_roles().await.unwrap(), ["admin", "member"]);
    for one in ["one", "two"] {
        store.insert_tenant(&tenant(one)).await.unwrap();
    }
    store.insert_user(&user("alice")).await.unwrap();
    let all = [
        held("alice", "one", "admin"),
        held("alice", "one", "member"),
        held("alice", "two", "member"),
    ];
    for one in all.iter().rev().chain(&all) {
        store.assign_role(one).await.unwrap();
    }
    let (alice, one) = (user("alice").id, tenant("one").id);
    assert_eq!(store.list_assignments(&alice).await.unwrap(), all);
    assert_eq!(
        store.list_roles(&alice, &one).await.unwrap(),
        ["admin", "member"]
    );
    assert_eq!(store.list_tenant_assignments(&one).await.unwrap(), all[..2]);
    for bad in [
        held("bob", "one", "admin"),
        held("alice", "x", "admin"),
        held("alice", "one", "x"),
    ] {
        let missing = store.assign_role(&bad).await;
        assert!(
            matches!(missing, Err(StoreError::NotFound { .. })),
            "{missing:?}"
        );
    }
    let in_use = store.delete_role("admin").await;
    assert!(
        matches!(in_use, Err(StoreError::InUse { .. })),
        "{in_use:?}"
    );
    for _ in 0..2 {
        store.revoke_role(&all[0]).await.unwrap();
        store.delete_role("admin").await.unwrap();
    }
    assert_eq!(store.list_roles(&alice, &one).await.unwrap(), ["member"]);
    store.delete_user(&alice).await.unwrap();
    assert_eq!(store.list_tenant_assignments(&one).await.unwrap(), []);
}

fn token(hash: &str, tenant_id: Option<&str>, expires: i64) -> Token {
    Token {
        hash: hash.to_owned(),
        user_id: user("alice").id,
        tenant_id: tenant_id.map(|text| text.parse().unwrap()),
        issued_at: at(0),
        expires_at: at(expires),
    }
}

pub(crate) async fn tokens_carry_what_they_stand_for(fixture: &Fixture) {
    let store = fixture.store();
    store.insert_tenant(&tenant("one")).await.unwrap();
    store.insert_user(&user("alice")).await.unwrap();
    let scoped = token("h1", Some("one"), 10);
    store.insert_token(&scoped).await.unwrap();
    store.insert_token(&token("h2", None, 20)).await.unwrap();
    let view = store.find_token("h1").await.unwrap().unwrap();
    assert_eq!((view.token, view.user), (scoped, user("alice")));
    assert_eq!((view.tenant, view.roles.len()), (Some(tenant("one")), 0));

    for role in ["member", "admin"] {
        store.insert_role(role, at(0)).await.unwrap();
        store
            .assign_role(&held("alice", "one", role))
            .await
            .unwrap();
    }
    assert_eq!(
        store.find_token("h1").await.unwrap().unwrap().roles,
        ["admin", "member"]
    );
    let unscoped = store.find_token("h2").await.unwrap().unwrap();
    assert_eq!((unscoped.tenant, unscoped.roles.len()), (None, 0));
    assert!(store.find_token("h3").await.unwrap().is_none());

    let missing = store.insert_token(&token("h4", Some("nowhere"), 1)).await;
    assert!(
        matches!(missing, Err(StoreError::NotFound { .. })),
        "{missing:?}"
    );
    assert_eq!(store.delete_expired_tokens(at(10)).await.unwrap(), 1);
    assert!(store.find_token("h1").await.unwrap().is_none());
    store.delete_token("h2").await.unwrap();
    assert!(store.find_token("h2").await.unwrap().is_none());
    store.insert_token(&token("h5", None, 9)).await.unwrap();
    store.delete_user_tokens(&user("alice").id).await.unwrap();
    assert!(store.find_token("h5").await.unwrap().is_none());
}

pub(crate) async fn projects_with_instances_stay(fixture: &Fixture) {
    let store = fixture.store();
    store.insert_tenant(&tenant("one")).await.unwrap();
    let world = World::new(store, "one").await;
    world.create(store, "db").await;
    let in_use = store.delete_tenant(&tenant("one").id, at(1)).await;
    assert!(
        matches!(in_use, Err(StoreError::InUse { .. })),
        "{in_use:?}"
    );
    assert_eq!(
        store.list_networks(&tenant("one").id).await.unwrap(),
        [world.network]
    );
}
