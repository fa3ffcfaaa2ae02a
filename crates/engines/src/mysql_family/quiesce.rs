//! Holding the data files for a snapshot: a lock on every table, which lives as long as the
//! connection that took it. A snapshot taken meanwhile is at the position that is told.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::Dialect;
use super::session::{self, Session};
use crate::error::Result;
use crate::runtime::{EngineHost, Hold};

/// A statement that runs for long would let everybody behind the lock wait for it.
const PATIENCE: &str = "SET SESSION lock_wait_timeout = 5";

#[derive(Debug)]
struct Lock {
    session: Session,
    facts: BTreeMap<String, String>,
}

/// Begins the hold.
pub(super) async fn quiesce(dialect: &dyn Dialect, host: &dyn EngineHost) -> Result<Box<dyn Hold>> {
    let mut session = session::open(host).await?;
    session.run("prepare the hold", PATIENCE).await?;
    session
        .run("lock the tables", "FLUSH TABLES WITH READ LOCK")
        .await?;
    let gtid = format!("SELECT {}", dialect.position_sql());
    let gtid = session.row("read the position", &gtid).await?;
    let log = session
        .row("read the log's position", dialect.log_position_sql())
        .await?;
    let names = ["position", "log_file", "log_position"];
    let facts = names
        .into_iter()
        .zip(gtid.into_iter().take(1).chain(log))
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    Ok(Box::new(Lock { session, facts }))
}

#[async_trait]
impl Hold for Lock {
    fn facts(&self) -> BTreeMap<String, String> {
        self.facts.clone()
    }

    async fn release(mut self: Box<Self>) -> Result<()> {
        self.session.run("unlock the tables", "UNLOCK TABLES").await
    }
}
