//! What the engine holds, without what is reserved.

use std::collections::BTreeMap;

use crate::error::Result;
use crate::postgresql::{names, session};
use crate::runtime::{EngineHost, Inventory};

const DATABASES: &str = "SELECT datname::text, pg_encoding_to_char(encoding)::text, \
    datcollate::text FROM pg_database WHERE NOT datistemplate ORDER BY datname::text COLLATE \"C\"";

const USERS: &str = "SELECT rolname::text FROM pg_roles WHERE rolcanlogin";

/// Granted is what a user owns, what it is a member of the group of, and what it was given a right
/// on by name.
const GRANTS: &str = "\
    SELECT u.rolname::text, d.datname::text FROM pg_database d \
    JOIN pg_roles g ON g.rolname = 'coffer_db_' || d.oid::text \
    JOIN pg_auth_members m ON m.roleid = g.oid JOIN pg_roles u ON u.oid = m.member \
    UNION SELECT u.rolname::text, d.datname::text FROM pg_database d \
    JOIN pg_roles u ON u.oid = d.datdba \
    UNION SELECT u.rolname::text, d.datname::text FROM pg_database d \
    CROSS JOIN aclexplode(d.datacl) a JOIN pg_roles u ON u.oid = a.grantee";

const ROOT: &str = "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'postgres'";

/// Databases, users with their grants, and whether root may log in.
pub(super) async fn inventory(host: &dyn EngineHost) -> Result<Inventory> {
    let own = session::open_own(host).await?;
    let databases = own
        .rows("list databases", DATABASES, &[])
        .await?
        .iter()
        .map(|row| (row.get::<_, String>(0), row.get(1), row.get(2)))
        .filter(|(name, _, _)| !names::is_reserved_database(name))
        .collect();
    let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in own.rows("list users", USERS, &[]).await? {
        let name: String = row.get(0);
        if !names::is_reserved_user(&name) {
            users.insert(name, Vec::new());
        }
    }
    for row in own.rows("list grants", GRANTS, &[]).await? {
        let (user, database): (String, String) = (row.get(0), row.get(1));
        if let Some(granted) = users.get_mut(&user)
            && !names::is_reserved_database(&database)
        {
            granted.push(database);
        }
    }
    let root = own.rows("look at root", ROOT, &[]).await?;
    Ok(Inventory {
        databases,
        users: users.into_iter().map(sorted).collect(),
        is_root_enabled: root.first().is_some_and(|row| row.get(0)),
    })
}

fn sorted((name, mut databases): (String, Vec<String>)) -> (String, String, Vec<String>) {
    databases.sort();
    (name, "%".to_owned(), databases)
}
