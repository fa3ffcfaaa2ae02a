//! What is inside an instance.

use coffer_store::inventory::StoredUser;
use coffer_wire::rest::v1::common::Named;
use coffer_wire::rest::v1::user::User;

/// Names as objects.
pub(in crate::api) fn named(names: &[String]) -> Vec<Named> {
    names
        .iter()
        .map(|name| Named { name: name.clone() })
        .collect()
}

/// A user.
pub(in crate::api) fn user(user: &StoredUser) -> User {
    User {
        name: user.name.clone(),
        host: user.host.clone(),
        databases: named(&user.databases),
    }
}
