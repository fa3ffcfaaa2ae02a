//! Tokens: only their hashes are stored, so that a stolen store opens nothing.

use coffer_core::id::UserId;
use coffer_core::tenant::{Tenant, Token, User};
use coffer_core::time::Timestamp;

use crate::error::Result;
use crate::row::{Reader, args};
use crate::sql::Row;
use crate::store::Store;
use crate::{tenant, user};

/// A token with what it stands for; the caller checks expiry and whether user and project are
/// enabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenView {
    /// The token.
    pub token: Token,
    /// Its user.
    pub user: User,
    /// The project it is scoped to.
    pub tenant: Option<Tenant>,
    /// Roles of the user in that project, sorted; empty when unscoped.
    pub roles: Vec<String>,
}

/// One row for each role, so that one statement answers.
const FIND: &str = "SELECT t.hash, t.user_id, t.tenant_id, t.issued_at, t.expires_at,
        u.id, u.name, u.password_hash, u.is_enabled, u.default_tenant_id, u.created_at,
        p.id, p.name, p.is_enabled, p.description, p.created_at, a.role
    FROM tokens t
    JOIN users u ON u.id = t.user_id
    LEFT JOIN tenants p ON p.id = t.tenant_id
    LEFT JOIN assignments a ON a.user_id = t.user_id AND a.tenant_id = t.tenant_id
    WHERE t.hash = $1 ORDER BY a.role";
const USER_COLUMN: usize = 5;
const TENANT_COLUMN: usize = 11;
const ROLE_COLUMN: usize = 16;

fn view(row: &Row) -> Result<TokenView> {
    let mut reader = Reader::new(row, "tokens");
    let token = Token {
        hash: reader.text("hash")?,
        user_id: reader.parse("user_id")?,
        tenant_id: reader.opt_parse("tenant_id")?,
        issued_at: reader.time("issued_at")?,
        expires_at: reader.time("expires_at")?,
    };
    let user = user::decode(&mut Reader::at(row, "users", USER_COLUMN))?;
    let tenant = match token.tenant_id {
        Some(_) => Some(tenant::decode(&mut Reader::at(
            row,
            "tenants",
            TENANT_COLUMN,
        ))?),
        None => None,
    };
    Ok(TokenView {
        token,
        user,
        tenant,
        roles: Vec::new(),
    })
}

impl Store {
    /// Writes a new token; `NotFound` when its user or project is gone.
    pub async fn insert_token(&self, token: &Token) -> Result<()> {
        let sql = "INSERT INTO tokens (hash, user_id, tenant_id, issued_at, expires_at)
            VALUES ($1, $2, $3, $4, $5)";
        let Token {
            hash,
            user_id,
            tenant_id,
            issued_at,
            expires_at,
        } = token;
        let args = args![hash, user_id, tenant_id, issued_at, expires_at];
        let done = self.db().execute(sql, args).await;
        done.map(drop)
            .map_err(|error| error.or_exists("token").or_missing("user or project"))
    }

    /// The token with this hash, whether it has expired or not.
    pub async fn find_token(&self, hash: &str) -> Result<Option<TokenView>> {
        let rows = self.db().fetch_all(FIND, args![hash]).await?;
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        let mut view = view(first)?;
        for row in &rows {
            view.roles
                .extend(Reader::at(row, "assignments", ROLE_COLUMN).opt_text("role")?);
        }
        Ok(Some(view))
    }

    /// Revokes a token; succeeds when absent.
    pub async fn delete_token(&self, hash: &str) -> Result<()> {
        self.db()
            .execute("DELETE FROM tokens WHERE hash = $1", args![hash])
            .await
            .map(drop)
    }

    /// Revokes all tokens of a user.
    pub async fn delete_user_tokens(&self, user_id: &UserId) -> Result<()> {
        self.db()
            .execute("DELETE FROM tokens WHERE user_id = $1", args![user_id])
            .await
            .map(drop)
    }

    /// Removes tokens that ended at `now` or before; gives their number.
    pub async fn delete_expired_tokens(&self, now: Timestamp) -> Result<u64> {
        self.db()
            .execute("DELETE FROM tokens WHERE expires_at <= $1", args![now])
            .await
    }
}
