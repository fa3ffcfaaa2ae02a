//! Logs within their bounds: the server's messages, whose file is begun anew when it was renamed,
//! and the binary logs, of which the server itself knows an age and no size.

use super::session::{self, Session};
use crate::error::Result;
use crate::runtime::EngineHost;

const LOCAL: &str = "SET SESSION sql_log_bin = 0";
/// Opens the file of messages again, under the name that it has.
const REOPEN: &str = "FLUSH LOCAL ERROR LOGS";
const FILE_BYTES: &str = "SELECT @@GLOBAL.max_binlog_size";
const LIST: &str = "SHOW BINARY LOGS";
/// Files of the greatest size that all logs together may be as big as: a file is a twentieth of the
/// volume (`parameters.rs`), so that it is a tenth.
const FILES_MAX: u64 = 2;

/// Begins a file of messages, and purges the oldest binary logs.
pub(super) async fn keep(host: &dyn EngineHost) -> Result<()> {
    let mut own = session::open(host).await?;
    own.run("keep house", LOCAL).await?;
    own.run("open the log again", REOPEN).await?;
    purge(&mut own).await
}

async fn purge(own: &mut Session) -> Result<()> {
    let size = own.row("look at the size of logs", FILE_BYTES).await?;
    let size = size
        .first()
        .and_then(|value| value.as_deref()?.parse().ok());
    let rows = own.rows("list the binary logs", LIST).await?;
    let logs: Vec<(String, u64)> = rows
        .iter()
        .filter_map(|row| {
            let size = row.get(1)?.as_deref()?.parse().ok()?;
            Some((row.first()?.clone()?, size))
        })
        .collect();
    let oldest = size.and_then(|size: u64| oldest_kept(&logs, size.saturating_mul(FILES_MAX)));
    match oldest {
        // It is a name that the server made: letters, a dot and digits.
        Some(name) => {
            let sql = format!("PURGE BINARY LOGS TO '{}'", name.replace('\'', "''"));
            own.run("purge binary logs", &sql).await
        }
        None => Ok(()),
    }
}

/// The oldest log that is kept where not all can be: those from it on are within the bound, and the
/// newest, which is written to, stays whatever its size.
fn oldest_kept(logs: &[(String, u64)], bytes_max: u64) -> Option<&str> {
    let (newest, older) = logs.split_last()?;
    let mut kept = newest;
    let mut total = newest.1;
    for log in older.iter().rev() {
        total = total.saturating_add(log.1);
        if total > bytes_max {
            return Some(&kept.0);
        }
        kept = log;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_logs_beyond_the_bound_go_and_the_newest_stays() {
        let logs = |sizes: &[u64]| -> Vec<(String, u64)> {
            let named = sizes.iter().enumerate();
            named
                .map(|(n, size)| (format!("binlog.{n}"), *size))
                .collect()
        };
        for (sizes, oldest) in [
            (&[][..], None),
            (&[500], None),
            (&[60, 40], None),
            (&[60, 41], Some("binlog.1")),
            (&[10, 20, 30, 40], None),
            (&[10, 21, 30, 40], Some("binlog.1")),
            (&[10, 20, 30, 500], Some("binlog.3")),
        ] {
            assert_eq!(oldest_kept(&logs(sizes), 100), oldest, "{sizes:?}");
        }
    }
}
