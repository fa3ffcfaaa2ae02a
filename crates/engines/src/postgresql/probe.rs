//! The probe: a real commit, answered, and what the status tells beside it.

use crate::error::{EngineError, Result};
use crate::postgresql::session::{self, Session};
use crate::runtime::{EngineHost, ProbeReport};

const IS_REPLICA: &str = "SELECT pg_is_in_recovery()";

/// The statements of every probe, which an idle instance is asked once a second: planning them
/// costs the server more than running them, so each connection plans them once.
///
/// Every change of a row in the catalogs of the report gives it another `xmin`; a removal changes
/// the sum.
const PREPARE: &str = "\
    PREPARE beat AS UPDATE public.probe SET beats = beats + 1, at = now() WHERE id = 1; \
    PREPARE report AS SELECT current_setting('server_version'), \
    (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() \
    ELSE pg_current_wal_lsn() END)::text, \
    (SELECT md5(coalesce(string_agg(mark, ',' ORDER BY mark), '')) FROM (\
    SELECT 'd' || oid || ':' || xmin AS mark FROM pg_database \
    UNION ALL SELECT 'r' || oid || ':' || xmin FROM pg_authid \
    UNION ALL SELECT 'm' || roleid || ':' || member || ':' || xmin FROM pg_auth_members) marks)";

/// Commits and reports.
pub(super) async fn probe(host: &dyn EngineHost) -> Result<ProbeReport> {
    let own = session::open_own(host).await?;
    own.prepare_once("prepare the probe", PREPARE).await?;
    probe_over(&own).await
}

async fn probe_over(own: &Session) -> Result<ProbeReport> {
    let is_replica = own.text_row("look at the role", IS_REPLICA).await?;
    if is_replica
        .first()
        .is_some_and(|value| value.as_deref() == Some("f"))
    {
        own.run("commit the probe", "EXECUTE beat").await?;
    }
    let row = own
        .text_row("read the probe's report", "EXECUTE report")
        .await?;
    let mut values = row.into_iter();
    match (
        values.next().flatten(),
        values.next().flatten(),
        values.next().flatten(),
    ) {
        (Some(version), position, Some(inventory_mark)) => Ok(ProbeReport {
            // Debian appends its package's version.
            version: version.split(' ').next().unwrap_or_default().to_owned(),
            position,
            inventory_mark,
        }),
        _ => Err(EngineError::Failed {
            what: "read the probe's report",
            why: "a value is missing".to_owned(),
        }),
    }
}
