//! Users of one name at several hosts, who are several users: passwords, grants and an end of their
//! own. Where the host part means something, who comes from elsewhere is not let in.

use std::net::{IpAddr, Ipv4Addr};

use coffer_core::secret::Secret;

use super::{Access, Fixture, World, access, user};
use crate::runtime::{NewUser, UserChange};

/// Name of both.
const TWIN: &str = "twin";
/// Where the first is at home, and an address there.
const NEAR: &str = "127.8.%";
const FROM_NEAR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 8, 3, 4));
/// Where the second is.
const FAR: &str = "127.9.0.1";
const FROM_FAR: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 9, 0, 1));
/// Where the first moves to.
const MOVED: &str = "127.7.0.0/255.255.0.0";
const FROM_MOVED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 7, 5, 6));

/// A user as the inventory shows it.
type Shown = (String, String, Vec<String>);

fn at(host: &str, password: &str, database: &str) -> NewUser {
    NewUser {
        host: Some(host.to_owned()),
        ..user(TWIN, password, &[database])
    }
}

fn shown(host: &str, databases: &[&str]) -> Shown {
    let databases = databases.iter().map(|name| (*name).to_owned());
    (TWIN.to_owned(), host.to_owned(), databases.collect())
}

/// Runs the case with two users, in the databases `a` and `b`, which are there.
pub(super) async fn all(world: &dyn World, fixture: &dyn Fixture) {
    if !world.engine().has_user_hosts() {
        return;
    }
    let (runtime, host) = (world.runtime(), fixture.host());
    let twins = [at(NEAR, "near", "a"), at(FAR, "far", "b")];
    for _ in 0..2 {
        let created = runtime.create_users(host, &twins).await;
        created.expect("create users of one name, twice");
    }
    let is_there = [shown(NEAR, &["a"]), shown(FAR, &["b"])];
    assert_eq!(twins_of(world, fixture).await, is_there);
    let (near, far) = (access(TWIN, "near", "a"), access(TWIN, "far", "b"));
    is_let_in(fixture, &near, &[FROM_NEAR]).await;
    is_let_in(fixture, &far, &[FROM_FAR]).await;
    let foreign = access(TWIN, "far", "a");
    is_let_in(fixture, &foreign, &[]).await;

    changes(world, fixture, &near, &far).await;
    grants(world, fixture).await;

    let anywhere = runtime.drop_user(host, TWIN, None).await;
    anywhere.expect("drop the one at every host, who is not there");
    assert_eq!(twins_of(world, fixture).await.len(), 2, "it was another");
    for _ in 0..2 {
        let dropped = runtime.drop_user(host, TWIN, Some(FAR)).await;
        dropped.expect("drop one of them, twice");
    }
    assert_eq!(twins_of(world, fixture).await, [shown(MOVED, &["a"])]);
    is_let_in(fixture, &far, &[]).await;
    is_let_in(fixture, &access(TWIN, "nearer", "a"), &[FROM_MOVED]).await;
    let dropped = runtime.drop_user(host, TWIN, Some(MOVED)).await;
    dropped.expect("drop the other");
    assert!(twins_of(world, fixture).await.is_empty());
}

/// One of them gets another host and password; the other stays what it was.
async fn changes(world: &dyn World, fixture: &dyn Fixture, near: &Access, far: &Access) {
    let change = UserChange {
        name: TWIN.to_owned(),
        host: Some(NEAR.to_owned()),
        new_name: None,
        new_host: Some(MOVED.to_owned()),
        new_password: Some(Secret::new("nearer".to_owned())),
    };
    for _ in 0..2 {
        let changed = world.runtime().change_user(fixture.host(), &change).await;
        changed.expect("change one of them, twice");
    }
    is_let_in(fixture, &access(TWIN, "nearer", "a"), &[FROM_MOVED]).await;
    is_let_in(fixture, near, &[]).await;
    is_let_in(fixture, far, &[FROM_FAR]).await;
}

/// What one of them is granted, the other is not.
async fn grants(world: &dyn World, fixture: &dyn Fixture) {
    let (runtime, host) = (world.runtime(), fixture.host());
    let granted = runtime
        .grant(host, TWIN, Some(FAR), &["a".to_owned()])
        .await;
    granted.expect("grant one of them");
    let both = [shown(MOVED, &["a"]), shown(FAR, &["a", "b"])];
    assert_eq!(twins_of(world, fixture).await, both);
    is_let_in(fixture, &access(TWIN, "far", "a"), &[FROM_FAR]).await;
    let revoked = runtime.revoke(host, TWIN, Some(FAR), "a").await;
    revoked.expect("revoke from one of them");
    let both = [shown(MOVED, &["a"]), shown(FAR, &["b"])];
    assert_eq!(twins_of(world, fixture).await, both);
    let nobody = runtime
        .grant(host, TWIN, Some(NEAR), &["a".to_owned()])
        .await;
    assert!(nobody.is_err(), "who has moved is still at the old host");
}

/// The client is let in from these addresses, and from no other of the case.
async fn is_let_in(fixture: &dyn Fixture, access: &Access, from: &[IpAddr]) {
    for address in [FROM_NEAR, FROM_FAR, FROM_MOVED] {
        let answer = fixture.login_from(access, address).await;
        let is_wanted = from.contains(&address);
        assert_eq!(
            answer.is_ok(),
            is_wanted,
            "{address} {access:?}: {answer:?}"
        );
    }
}

async fn twins_of(world: &dyn World, fixture: &dyn Fixture) -> Vec<Shown> {
    let found = world.runtime().inventory(fixture.host()).await;
    let users = found.expect("inventory").users.into_iter();
    users.filter(|(name, ..)| name == TWIN).collect()
}
