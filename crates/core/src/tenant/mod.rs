//! Projects, users and roles of the built-in identity; empty where a Keystone owns them.

use crate::id::{TenantId, UserId};
use crate::name::Name;
use crate::time::Timestamp;

/// A project: owner of resources. "Project" on the wire, tenant inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Its id: 32 hexadecimal digits.
    pub id: TenantId,
    /// Its name, unique.
    pub name: Name,
    /// Whether its users may log in.
    pub is_enabled: bool,
    /// What it is for.
    pub description: String,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A user of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id: 32 hexadecimal digits.
    pub id: UserId,
    /// Its name, unique.
    pub name: Name,
    /// argon2 hash of the password, in PHC text form.
    pub password_hash: String,
    /// Whether it may log in.
    pub is_enabled: bool,
    /// Project it is scoped to when it names none.
    pub default_tenant_id: Option<TenantId>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// A role that a user holds in a project.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleAssignment {
    /// User that holds it.
    pub user_id: UserId,
    /// Project it is held in.
    pub tenant_id: TenantId,
    /// The role: `admin`, `member`, `reader` or one that the operator made.
    pub role: String,
}

/// A token that was issued; only its hash is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of the token, hex.
    pub hash: String,
    /// User it stands for.
    pub user_id: UserId,
    /// Project it is scoped to; an unscoped token has none.
    pub tenant_id: Option<TenantId>,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}
