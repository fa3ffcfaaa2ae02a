//! Roles that one process plays at a time: leases as counters, no wall clock.
//!
//! The owner moves the counter; another takes the role only after it has seen the counter unmoved
//! for the lease time on its own monotonic clock. A row is never removed and its counter never
//! goes back, so that what was seen once cannot come again.

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::store::Store;

/// What came of asking for a role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// The asker plays it; ask again before the lease time is over.
    Held,
    /// Another does. Ask again with this after the lease time: if it did not move, it is taken.
    Other {
        /// Who plays it.
        owner: String,
        /// Its counter.
        counter: u64,
    },
}

/// Owner of a role that was given back.
const NOBODY: &str = "";

impl Store {
    /// Takes or keeps a role. `observed` is what the asker saw for a whole lease time on its own
    /// monotonic clock; only if that is still so the role is taken from its owner.
    pub async fn try_hold(
        &self,
        role: &str,
        owner: &str,
        observed: Option<(&str, u64)>,
    ) -> Result<Hold> {
        let keep = "UPDATE singletons SET owner = $2, counter = counter + 1
            WHERE role = $1 AND (owner = $2 OR owner = $3)";
        if self.db().execute(keep, args![role, owner, NOBODY]).await? > 0 {
            return Ok(Hold::Held);
        }
        let first = "INSERT INTO singletons (role, owner, counter) VALUES ($1, $2, 1)
            ON CONFLICT (role) DO NOTHING";
        if self.db().execute(first, args![role, owner]).await? > 0 {
            return Ok(Hold::Held);
        }
        if let Some((from, counter)) = observed {
            let take = "UPDATE singletons SET owner = $2, counter = counter + 1
                WHERE role = $1 AND owner = $3 AND counter = $4";
            if self
                .db()
                .execute(take, args![role, owner, from, counter])
                .await?
                > 0
            {
                return Ok(Hold::Held);
            }
        }
        self.find_hold(role).await
    }

    async fn find_hold(&self, role: &str) -> Result<Hold> {
        let sql = "SELECT owner, counter FROM singletons WHERE role = $1";
        let row = self.db().fetch_optional(sql, args![role]).await?;
        let row = row.ok_or(StoreError::NotFound { what: "role" })?;
        let mut row = Reader::new(&row, "singletons");
        Ok(Hold::Other {
            owner: row.text("owner")?,
            counter: row.number("counter")?,
        })
    }

    /// Gives a role back; succeeds when another has it.
    pub async fn release_hold(&self, role: &str, owner: &str) -> Result<()> {
        let sql = "UPDATE singletons SET owner = $3, counter = counter + 1
            WHERE role = $1 AND owner = $2";
        self.db()
            .execute(sql, args![role, owner, NOBODY])
            .await
            .map(drop)
    }
}
