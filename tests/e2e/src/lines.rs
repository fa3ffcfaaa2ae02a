//! What a Coffer under test logged that nobody expected: a WARN or ERROR line is a finding, unless
//! the test says that what it does makes it.
//!
//! A test that has failed says so itself, so the lines are collected in a file beside the
//! executables, and the ring that runs the tests fails when there are any.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::coffer::binary;

/// What a Coffer says whose instances die under it.
pub const LOST: &[&str] = &["guest is not heard", "recover instance"];

/// How the levels of such lines are written, as text and as JSON.
const LOUD: [&str; 4] = [
    " WARN ",
    " ERROR ",
    "\"level\":\"WARN\"",
    "\"level\":\"ERROR\"",
];

/// Where the lines of all tests are collected; the ring looks for this name.
fn file() -> Result<PathBuf> {
    Ok(binary("coffer")?.with_file_name("e2e-unexpected-lines.txt"))
}

/// Adds what was not expected in a log to the file.
pub fn collect(log: &str, expected: &[String]) -> Result<()> {
    let found = unexpected(log, expected);
    if found.is_empty() {
        return Ok(());
    }
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    let path = file()?;
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    let text: String = found
        .iter()
        .map(|line| format!("{name}: {line}\n"))
        .collect();
    file.write_all(text.as_bytes()).context("keep the lines")
}

fn unexpected<'a>(log: &'a str, expected: &[String]) -> Vec<&'a str> {
    let is_known = |line: &str| expected.iter().any(|part| line.contains(part.as_str()));
    let is_loud = |line: &&str| LOUD.iter().any(|level| line.contains(level));
    log.lines()
        .filter(is_loud)
        .filter(|line| !is_known(line))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loud_lines_are_found_unless_expected() {
        let log = "t  INFO coffer: starts\nt  WARN coffer: one\nt ERROR coffer: two\n";
        assert_eq!(unexpected(log, &[]).len(), 2);
        assert_eq!(
            unexpected(log, &["two".to_owned()]),
            ["t  WARN coffer: one"]
        );
        let log = "{\"level\":\"INFO\"}\n{\"level\":\"WARN\"}\n";
        assert_eq!(unexpected(log, &[]), ["{\"level\":\"WARN\"}"]);
    }
}
