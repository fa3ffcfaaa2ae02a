//! sysbench against a server of MySQL's family.
//!
//! Debian's sysbench 1.0.20 speaks through libmariadb, which knows how MySQL lets users in
//! (`caching_sha2_password`). Its own switch for TLS does not fit: it demands a certificate of the
//! client's, in files of fixed names, which a server without a CA for clients refuses. But the
//! library takes a whole list of settings in the place of a host, TLS among them.

use anyhow::{Context, Result};

use super::client::{DATABASE, PASSWORD, USER};
use super::data_path::Target;
use crate::process::Program;

/// Clients at once.
const CLIENTS: u32 = 4;
/// Tables, and the rows of each.
const SIZE: (u32, u32) = (4, 25_000);
/// The same in words.
pub const SIZE_WORDS: &str = "4 tables of 25,000 rows and prepared statements";
/// The same for a smoke run.
const SMALL: (u32, u32) = (1, 100);
/// How long the two of a pair take together; unit: seconds.
const SECONDS: u32 = 8;
/// Transactions of a smoke run.
const FEW: u32 = 20;

/// Makes and fills the tables.
pub fn prepare(target: &Target<'_>, is_smoke: bool) -> Result<()> {
    let mut words = words(target, "oltp_read_write", is_smoke);
    words.push("prepare".to_owned());
    target.output(&words).map(drop)
}

/// A load of a script's transactions; [`read`] finds in its output how many there were.
pub fn load(target: &Target<'_>, script: &str, is_smoke: bool) -> Program {
    let mut words = words(target, script, is_smoke);
    let (seconds, events) = match is_smoke {
        true => (0, FEW),
        false => (SECONDS, 0),
    };
    words.push(format!("--time={seconds}"));
    words.push(format!("--events={events}"));
    words.push("run".to_owned());
    target.program(&words)
}

fn words(target: &Target<'_>, script: &str, is_smoke: bool) -> Vec<String> {
    let (tables, rows) = if is_smoke { SMALL } else { SIZE };
    vec![
        "sysbench".to_owned(),
        script.to_owned(),
        "--db-driver=mysql".to_owned(),
        format!("--mysql-host=host={};ssl-enforce=1", target.address),
        format!("--mysql-port={}", target.port),
        format!("--mysql-user={USER}"),
        format!("--mysql-password={PASSWORD}"),
        format!("--mysql-db={DATABASE}"),
        format!("--threads={CLIENTS}"),
        format!("--tables={tables}"),
        format!("--table-size={rows}"),
    ]
}

/// How many transactions a load has made:
/// `    transactions:                        1234   (617.00 per sec.)`
pub fn read(text: &str) -> Result<f64> {
    let mut lines = text.lines().map(str::trim);
    let rest = lines.find_map(|line| line.strip_prefix("transactions:"));
    let count = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    count.with_context(|| format!("find what sysbench measured: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transactions_are_found_in_what_it_prints() {
        let text = "SQL statistics:\n    queries performed:\n        read:     14\n    \
                    transactions:                        9     (617.05 per sec.)\n    \
                    queries:                             180   (12341.00 per sec.)\n";
        assert_eq!(read(text).unwrap(), 9.0);
        assert!(read("FATAL: unable to connect").is_err());
    }
}
