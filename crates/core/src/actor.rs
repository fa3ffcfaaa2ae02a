//! Who asked: carried by tasks, events and audit rows.

use crate::id::{TenantId, UserId};

/// The one on whose behalf something is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// Project of the token.
    pub tenant_id: TenantId,
    /// User of the token.
    pub user_id: UserId,
    /// Roles in that project, sorted.
    pub roles: Vec<String>,
    /// Request that began it.
    pub request_id: String,
    /// Where the request came from; empty for the system itself.
    pub client_address: String,
}

impl Actor {
    /// Coffer itself: repair, reconciliation, periodic work.
    pub fn system(tenant_id: TenantId, user_id: UserId) -> Self {
        Self {
            tenant_id,
            user_id,
            roles: vec!["system".to_owned()],
            request_id: String::new(),
            client_address: String::new(),
        }
    }

    /// Whether the actor holds the role `admin`.
    pub fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == "admin")
    }

    /// Whether the actor may change anything (a reader only reads).
    pub fn may_write(&self) -> bool {
        self.roles.iter().any(|role| role != "reader")
    }
}
