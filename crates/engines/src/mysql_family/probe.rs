//! The probe: a real commit, answered, and what the status tells beside it.

use super::session::{self, Session};
use super::{Dialect, names};
use crate::error::{EngineError, Result};
use crate::runtime::{EngineHost, ProbeReport};

/// A beat is no change that replicas need, so it is in no binary log.
const LOCAL: &str = "SET SESSION sql_log_bin = 0";
const IS_READ_ONLY: &str = "SELECT @@GLOBAL.read_only";
const BEAT: &str = "UPDATE coffer.probe SET beats = beats + 1, at = NOW(6) WHERE id = 1";

/// Commits and reports.
pub(super) async fn probe(dialect: &dyn Dialect, host: &dyn EngineHost) -> Result<ProbeReport> {
    let kept = match session::take_kept(host) {
        Some(mut kept) => match report(dialect, &mut kept).await {
            // The kept connection may be of a server that was restarted since.
            Err(EngineError::Down { .. }) => None,
            other => Some((kept, other?)),
        },
        None => None,
    };
    let (own, report) = match kept {
        Some(answered) => answered,
        None => {
            let mut own = session::open(host).await?;
            own.run("prepare the probe", LOCAL).await?;
            let report = report(dialect, &mut own).await?;
            (own, report)
        }
    };
    session::keep(host, own);
    Ok(report)
}

async fn report(dialect: &dyn Dialect, own: &mut Session) -> Result<ProbeReport> {
    let read_only = own.row("look at the role", IS_READ_ONLY).await?;
    if read_only
        .first()
        .is_some_and(|value| value.as_deref() == Some("0"))
    {
        own.run("commit the probe", BEAT).await?;
    }
    let sql = format!(
        "SELECT VERSION(), {}, {}",
        dialect.position_sql(),
        mark_sql()
    );
    let row = own.row("read the probe's report", &sql).await?;
    match row.as_slice() {
        [Some(version), position, Some(mark)] => Ok(ProbeReport {
            // Debian's and the maker's words stand behind the number.
            version: version.split('-').next().unwrap_or_default().to_owned(),
            position: position.clone().filter(|position| !position.is_empty()),
            inventory_mark: mark.clone(),
        }),
        _ => Err(EngineError::Failed {
            what: "read the probe's report",
            why: "a value is missing".to_owned(),
        }),
    }
}

/// A sum over every row that an inventory is read from. SHA-2 because MySQL has no other digest.
fn mark_sql() -> String {
    let sum = |row: &str, from: &str| {
        let digest = format!("SHA2(CONCAT_WS('|', {row}), 256)");
        let number = format!("CAST(CONV(LEFT({digest}, 15), 16, 10) AS UNSIGNED)");
        format!("(SELECT COALESCE(BIT_XOR({number}), 0) FROM {from})")
    };
    let schemata = format!(
        "information_schema.SCHEMATA WHERE SCHEMA_NAME <> '{}'",
        names::COFFER
    );
    let sums = [
        sum(
            "SCHEMA_NAME, DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME",
            &schemata,
        ),
        sum("User, Host, authentication_string", "mysql.user"),
        sum(
            "User, Host, Db, Select_priv, Insert_priv, Create_priv",
            "mysql.db",
        ),
    ];
    format!("CONCAT_WS('.', {})", sums.join(", "))
}
