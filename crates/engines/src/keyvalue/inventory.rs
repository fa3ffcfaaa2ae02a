//! What the engine holds, without what is reserved: users, and whether root may log in.

use crate::error::Result;
use crate::keyvalue::{accounts, names};
use crate::runtime::{EngineHost, Inventory};

/// Users in order of name, and root. There are no databases.
pub(super) async fn inventory(host: &dyn EngineHost) -> Result<Inventory> {
    let mut users = accounts::list(host).await?;
    users.retain(|name| !names::is_reserved(name));
    users.sort();
    let user = |name| (name, "%".to_owned(), Vec::new());
    Ok(Inventory {
        databases: Vec::new(),
        users: users.into_iter().map(user).collect(),
        is_root_enabled: accounts::is_root_enabled(host).await?,
    })
}
