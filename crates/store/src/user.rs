//! Users, roles, and who holds which role where.

use coffer_core::id::{TenantId, UserId};
use coffer_core::name::Name;
use coffer_core::tenant::{RoleAssignment, User};
use coffer_core::time::Timestamp;

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::Row;
use crate::store::Store;

const EXISTS: &str = "user with this id or name";
const MISSING: &str = "project that the user is to be scoped to";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, name, password_hash, is_enabled, default_tenant_id, created_at \
             FROM users ",
            $rest
        )
    };
}

/// A user from the columns at `row`.
pub(crate) fn decode(row: &mut Reader<'_>) -> Result<User> {
    Ok(User {
        id: row.parse("id")?,
        name: row.name("name")?,
        password_hash: row.text("password_hash")?,
        is_enabled: row.bool("is_enabled")?,
        default_tenant_id: row.opt_parse("default_tenant_id")?,
        created_at: row.time("created_at")?,
    })
}

fn user(row: &Row) -> Result<User> {
    decode(&mut Reader::new(row, "users"))
}

fn assignment(row: &Row) -> Result<RoleAssignment> {
    let mut row = Reader::new(row, "assignments");
    Ok(RoleAssignment {
        user_id: row.parse("user_id")?,
        tenant_id: row.parse("tenant_id")?,
        role: row.text("role")?,
    })
}

fn found(changed: u64) -> Result<()> {
    if changed == 0 {
        Err(StoreError::NotFound { what: "user" })
    } else {
        Ok(())
    }
}

/// A change of a user; what is `None` stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UserChange {
    /// New name.
    pub name: Option<Name>,
    /// New password hash, PHC text.
    pub password_hash: Option<String>,
    /// Whether it may log in.
    pub is_enabled: Option<bool>,
    /// New default project.
    pub default_tenant_id: Option<TenantId>,
}

impl Store {
    /// Writes a new user; `AlreadyExists` when its id or name is taken.
    pub async fn insert_user(&self, user: &User) -> Result<()> {
        let sql = "INSERT INTO users
                (id, name, password_hash, is_enabled, default_tenant_id, created_at)
            VALUES ($1, $2, $3, $4, $5, $6)";
        let User {
            id,
            name,
            password_hash,
            is_enabled,
            default_tenant_id,
            created_at,
        } = user;
        let args = args![
            id,
            name,
            password_hash,
            is_enabled,
            default_tenant_id,
            created_at
        ];
        let done = self.db().execute(sql, args).await;
        done.map(drop)
            .map_err(|error| error.or_exists(EXISTS).or_missing(MISSING))
    }

    /// The user with this id.
    pub async fn find_user(&self, id: &UserId) -> Result<Option<User>> {
        let row = self
            .db()
            .fetch_optional(select!("WHERE id = $1"), args![id])
            .await?;
        row.as_ref().map(user).transpose()
    }

    /// The user with this name.
    pub async fn find_user_by_name(&self, name: &str) -> Result<Option<User>> {
        let row = self
            .db()
            .fetch_optional(select!("WHERE name = $1"), args![name])
            .await?;
        row.as_ref().map(user).transpose()
    }

    /// A page of the users by name, after `marker`.
    pub async fn list_users(&self, marker: Option<&str>, limit: u32) -> Result<Vec<User>> {
        let sql = select!("WHERE name > $1 ORDER BY name LIMIT $2");
        let args = args![marker.unwrap_or_default(), limit];
        let rows = self.db().fetch_all(sql, args).await?;
        rows.iter().map(user).collect()
    }

    /// Changes what is given, in one statement: what others change meanwhile stays theirs.
    pub async fn update_user(&self, id: &UserId, change: &UserChange) -> Result<()> {
        let sql = "UPDATE users SET name = COALESCE($2, name),
                password_hash = COALESCE($3, password_hash),
                is_enabled = COALESCE($4, is_enabled),
                default_tenant_id = COALESCE($5, default_tenant_id)
            WHERE id = $1";
        let UserChange {
            name,
            password_hash,
            is_enabled,
            default_tenant_id,
        } = change;
        let args = args![id, name, password_hash, is_enabled, default_tenant_id];
        let done = self.db().execute(sql, args).await;
        found(done.map_err(|error| error.or_exists(EXISTS).or_missing(MISSING))?)
    }

    /// Deletes a user with its assignments and tokens; succeeds when absent.
    pub async fn delete_user(&self, id: &UserId) -> Result<()> {
        self.db()
            .execute("DELETE FROM users WHERE id = $1", args![id])
            .await
            .map(drop)
    }

    /// Makes a role known; `AlreadyExists` when it is.
    pub async fn insert_role(&self, name: &str, now: Timestamp) -> Result<()> {
        let sql = "INSERT INTO roles (name, created_at) VALUES ($1, $2)";
        let done = self.db().execute(sql, args![name, now]).await;
        done.map(drop)
            .map_err(|error| error.or_exists("role with this name"))
    }

    /// All known roles by name.
    pub async fn list_known_roles(&self) -> Result<Vec<String>> {
        let rows = self
            .db()
            .fetch_all("SELECT name FROM roles ORDER BY name", args![])
            .await?;
        rows.iter()
            .map(|row| Reader::new(row, "roles").text("name"))
            .collect()
    }

    /// Deletes a role; `InUse` while somebody holds it; succeeds when absent.
    pub async fn delete_role(&self, name: &str) -> Result<()> {
        let done = self
            .db()
            .execute("DELETE FROM roles WHERE name = $1", args![name])
            .await;
        done.map(drop).map_err(|error| error.or_in_use("role"))
    }

    /// Gives a role; giving it again changes nothing. `NotFound` for an unknown user, project or
    /// role.
    pub async fn assign_role(&self, assignment: &RoleAssignment) -> Result<()> {
        let sql = "INSERT INTO assignments (user_id, tenant_id, role) VALUES ($1, $2, $3)
            ON CONFLICT DO NOTHING";
        let args = args![assignment.user_id, assignment.tenant_id, assignment.role];
        let done = self.db().execute(sql, args).await;
        done.map(drop)
            .map_err(|error| error.or_missing("user, project or role"))
    }

    /// Takes a role away; succeeds when it was not held.
    pub async fn revoke_role(&self, assignment: &RoleAssignment) -> Result<()> {
        let sql = "DELETE FROM assignments WHERE user_id = $1 AND tenant_id = $2 AND role = $3";
        let args = args![assignment.user_id, assignment.tenant_id, assignment.role];
        self.db().execute(sql, args).await.map(drop)
    }

    /// Roles of a user in a project, sorted.
    pub async fn list_roles(&self, user_id: &UserId, tenant_id: &TenantId) -> Result<Vec<String>> {
        let sql = "SELECT role FROM assignments WHERE user_id = $1 AND tenant_id = $2
            ORDER BY role";
        let rows = self.db().fetch_all(sql, args![user_id, tenant_id]).await?;
        rows.iter()
            .map(|row| Reader::new(row, "assignments").text("role"))
            .collect()
    }

    /// All roles of a user, by project and role.
    pub async fn list_assignments(&self, user_id: &UserId) -> Result<Vec<RoleAssignment>> {
        let sql = "SELECT user_id, tenant_id, role FROM assignments WHERE user_id = $1
            ORDER BY tenant_id, role";
        self.db()
            .fetch_all(sql, args![user_id])
            .await?
            .iter()
            .map(assignment)
            .collect()
    }

    /// All roles held in a project, by user and role.
    pub async fn list_tenant_assignments(
        &self,
        tenant_id: &TenantId,
    ) -> Result<Vec<RoleAssignment>> {
        let sql = "SELECT user_id, tenant_id, role FROM assignments WHERE tenant_id = $1
            ORDER BY user_id, role";
        self.db()
            .fetch_all(sql, args![tenant_id])
            .await?
            .iter()
            .map(assignment)
            .collect()
    }
}
