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
        |name: &&str| names::pattern(name) == on || is_like(on.as_bytes(), name.as_bytes());
    known
        .iter()
        .filter(|name| matches(name))
        .map(|name| (*name).to_owned())
        .collect()
}

/// Whether a name matches a pattern of `%`, `_` and `\`. It takes a time of their lengths' product
/// at the most: a tenant's root may have granted any pattern.
fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when the last `%` has to take one byte more.
    let mut again: Option<(usize, usize)> = None;
    while n < name.len() {
        let (is_escaped, wanted) = match pattern.get(p..) {
            Some([b'\\', c, ..]) => (true, Some(*c)),
            Some([c, ..]) => (false, Some(*c)),
            _ => (false, None),
        };
        if wanted == Some(b'%') && !is_escaped {
            again = Some((p + 1, n));
            p += 1;
        } else if wanted.is_some_and(|c| c == name[n] || (c == b'_' && !is_escaped)) {
            p += 1 + usize::from(is_escaped);
            n += 1;
        } else if let Some((after, taken)) = again {
            again = Some((after, taken + 1));
            (p, n) = (after, taken + 1);
        } else {
            return false;
        }
    }
    pattern
        .get(p..)
        .is_none_or(|rest| rest.iter().all(|c| *c == b'%'))
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
        let (many, long) = ("%a".repeat(32), "a".repeat(64));
        assert!(is_like(many.as_bytes(), long.as_bytes()));
        assert!(!is_like(format!("{many}b").as_bytes(), long.as_bytes()));
    }
}
