//! Holding a cluster for a snapshot: the backup mode of PostgreSQL, which lives as long as the
//! connection that began it. Writes go on; a snapshot of the volume taken meanwhile recovers to a
//! point after the checkpoint that began the hold.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::error::Result;
use crate::postgresql::session::{self, Session};
use crate::runtime::{EngineHost, Hold};

const START: &str = "SELECT pg_backup_start('coffer', true)::text, \
    (SELECT system_identifier::text FROM pg_control_system()), \
    (SELECT timeline_id::text FROM pg_control_checkpoint())";

#[derive(Debug)]
struct BackupMode {
    session: Session,
    facts: BTreeMap<String, String>,
}

/// Begins the hold.
pub(super) async fn quiesce(host: &dyn EngineHost) -> Result<Box<dyn Hold>> {
    let session = session::open_apart(host).await?;
    let row = session.text_row("begin backup mode", START).await?;
    let facts = ["position", "system_identifier", "timeline"]
        .into_iter()
        .zip(row)
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    Ok(Box::new(BackupMode { session, facts }))
}

#[async_trait]
impl Hold for BackupMode {
    fn facts(&self) -> BTreeMap<String, String> {
        self.facts.clone()
    }

    async fn release(self: Box<Self>) -> Result<()> {
        let stop = "SELECT lsn::text FROM pg_backup_stop(false)";
        self.session
            .text_row("end backup mode", stop)
            .await
            .map(|_| ())
    }
}
