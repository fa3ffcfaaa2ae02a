//! What the engine holds, without what is reserved.

use std::collections::{BTreeMap, BTreeSet};

use super::{Dialect, names, session};
use crate::error::Result;
use crate::runtime::{EngineHost, Inventory};

const DATABASES: &str = "SELECT SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME \
    FROM information_schema.SCHEMATA";

const GRANTS: &str = "SELECT User, Host, Db FROM mysql.db";

/// Databases, users with their grants, and whether root may log in.
pub(super) async fn inventory(dialect: &dyn Dialect, host: &dyn EngineHost) -> Result<Inventory> {
    let mut own = session::open(host).await?;
    let mut databases = Vec::new();
    for row in own.rows("list databases", DATABASES).await? {
        if let [Some(name), set, collate] = row.as_slice()
            && !names::is_reserved_database(name)
        {
            databases.push((name.clone(), set.clone(), collate.clone()));
        }
    }
    databases.sort();
    let known: BTreeSet<&str> = databases.iter().map(|(name, _, _)| name.as_str()).collect();
    let mut users: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for row in own.rows("list users", dialect.users_sql()).await? {
        if let [Some(name), Some(from)] = row.as_slice()
            && !names::is_reserved_user(name)
        {
            users.insert((name.clone(), from.clone()), BTreeSet::new());
        }
    }
    for row in own.rows("list grants", GRANTS).await? {
        if let [Some(name), Some(from), Some(on)] = row.as_slice()
            && let Some(granted) = users.get_mut(&(name.clone(), from.clone()))
        {
            granted.extend(matching(on, &known));
        }
    }
    let root = own.rows("look at root", dialect.root_sql()).await?;
    let user = |((name, from), granted): (_, BTreeSet<String>)| {
        (name, from, granted.into_iter().collect())
    };
    Ok(Inventory {
        users: users.into_iter().map(user).collect(),
        is_root_enabled: root.first().is_some_and(|row| {
            row.first()
                .is_some_and(|value| value.as_deref() == Some("1"))
        }),
        databases,
    })
}

/// The databases that a grant is for: a grant names a pattern.
fn matching(on: &str, known: &BTreeSet<&str>) -> Vec<String> {
    let matches =
        |name: &&str| names::pattern(name) == on || names::is_like(on.as_bytes(), name.as_bytes());
    known
        .iter()
        .filter(|name| matches(name))
        .map(|name| (*name).to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_patterns() {
        let known = BTreeSet::from(["a_b", "axb", "b\\c", "50%"]);
        assert_eq!(matching("a\\_b", &known), ["a_b"]);
        assert_eq!(matching("a_b", &known), ["a_b", "axb"]);
        assert_eq!(matching("b\\\\c", &known), ["b\\c"]);
        assert_eq!(matching("50\\%", &known), ["50%"]);
        assert_eq!(matching("%", &known).len(), 4);
        assert_eq!(matching("%b%", &known), ["a_b", "axb", "b\\c"]);
    }
}
