//! Programs of the family's servers, and what their making of a data directory has in common.

use std::path::PathBuf;

use super::Dialect;
use super::identity::TEMP;
use crate::error::{EngineError, Result};
use crate::runtime::{EngineHost, Program, ProgramOutput};

/// A directory of the engine's beside its data.
fn beside(host: &dyn EngineHost, name: &str) -> String {
    let dir = host.layout().data_dir.join("engine").join(name);
    dir.display().to_string()
}

/// The data directory.
pub(crate) fn datadir(dialect: &dyn Dialect, host: &dyn EngineHost) -> String {
    beside(host, dialect.name())
}

/// The directory for files of statements.
pub(super) fn tempdir(host: &dyn EngineHost) -> String {
    beside(host, TEMP)
}

/// A program of the root.
pub(crate) fn program(path: &str, args: Vec<String>, stdin: &str) -> Program {
    let env = [
        ("PATH", "/usr/bin:/bin:/usr/sbin"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
        ("HOME", "/nonexistent"),
    ];
    Program {
        path: PathBuf::from(path),
        args,
        env: env
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        stdin: stdin.as_bytes().to_vec(),
    }
}

/// Runs one of [`crate::tool`]'s operations of this engine.
pub(crate) async fn tool(
    dialect: &dyn Dialect,
    host: &dyn EngineHost,
    what: &'static str,
    words: &[&str],
) -> Result<()> {
    let first = ["engine-tool", dialect.name()];
    let all = first.iter().chain(words);
    let args = all.map(|word| (*word).to_owned()).collect();
    let mut program = program("", args, "");
    program.path = host.tool();
    check(what, host.run(program).await?)
}

/// The refusal of a program that did not succeed.
pub(crate) fn check(what: &'static str, output: ProgramOutput) -> Result<()> {
    if output.code == Some(0) {
        return Ok(());
    }
    let lines: Vec<&str> = output.output.lines().rev().take(5).collect();
    let said = lines.into_iter().rev().collect::<Vec<_>>().join("; ");
    let ended = output
        .code
        .map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
    Err(EngineError::Failed {
        what,
        why: format!("ended by {ended}: {said}"),
    })
}
