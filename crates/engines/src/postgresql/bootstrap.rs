//! Making a data directory, and making a clone of one unlike every other.
//!
//! A template holds an initialised cluster that was stopped cleanly: the role and database
//! `coffer`, the role `postgres` without login, the probe's table. Personalising changes the
//! system identifier, by a program under the engine's user that may be repeated.

use std::path::PathBuf;

use crate::error::{EngineError, Result};
use crate::postgresql::names::{COFFER, ROOT, SPARE};
use crate::runtime::{EngineHost, Program, ProgramOutput};

/// Statements in Coffer's own database; single-user mode takes one a line.
const OWN_SCHEMA: &str = "\
REVOKE ALL ON DATABASE coffer FROM PUBLIC;
CREATE TABLE IF NOT EXISTS public.probe \
(id int PRIMARY KEY, beats bigint NOT NULL, at timestamptz NOT NULL) WITH (fillfactor = 10);
INSERT INTO public.probe VALUES (1, 0, now()) ON CONFLICT DO NOTHING;
CHECKPOINT;
";

/// The data directory.
pub(super) fn pgdata(host: &dyn EngineHost) -> String {
    host.layout()
        .data_dir
        .join("engine")
        .join("pgdata")
        .display()
        .to_string()
}

/// A program of this version of PostgreSQL.
pub(super) fn program(host: &dyn EngineHost, name: &str, args: Vec<String>) -> Program {
    let major = host.version().split('.').next().unwrap_or_default();
    Program {
        path: PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/{name}")),
        args,
        env: environment(),
        stdin: Vec::new(),
    }
}

fn environment() -> Vec<(String, String)> {
    [
        ("PATH", "/usr/bin:/bin"),
        ("LANG", "C.UTF-8"),
        ("LC_ALL", "C.UTF-8"),
        ("TZ", "UTC"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// Makes the cluster of a template.
pub(super) async fn bootstrap(host: &dyn EngineHost) -> Result<()> {
    let data = pgdata(host);
    check(
        "make the cluster",
        host.run(program(host, "initdb", initdb_args(host, &data)))
            .await?,
    )?;
    let first = format!(
        "CREATE ROLE {ROOT} SUPERUSER CREATEDB CREATEROLE REPLICATION BYPASSRLS NOLOGIN;\n\
         CREATE DATABASE {COFFER};\n\
         CREATE DATABASE {SPARE};\n\
         REVOKE ALL ON DATABASE {SPARE} FROM PUBLIC;\n"
    );
    single(host, "template1", first).await?;
    single(host, COFFER, OWN_SCHEMA.to_owned()).await
}

fn initdb_args(host: &dyn EngineHost, data: &str) -> Vec<String> {
    let major: u32 = host
        .version()
        .split('.')
        .next()
        .and_then(|v| v.parse().ok())
        .unwrap_or(0);
    let mut args = vec!["-D", data, "-U", COFFER, "-E", "UTF8", "--locale=C.UTF-8"];
    args.extend(["--data-checksums", "--auth=peer"]);
    if major >= 17 {
        args.extend(["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]);
    }
    args.into_iter().map(str::to_owned).collect()
}

/// Runs statements in single-user mode, which recovers the cluster first if it must and stops it
/// cleanly after. An error in a statement does not show in the exit code, so the output is read.
async fn single(host: &dyn EngineHost, database: &str, sql: String) -> Result<()> {
    let args = ["--single", "-D", &pgdata(host), database]
        .map(str::to_owned)
        .to_vec();
    let mut program = program(host, "postgres", args);
    program.stdin = sql.into_bytes();
    let output = check("run the cluster alone", host.run(program).await?)?;
    match output
        .lines()
        .find(|line| line.contains("ERROR:") || line.contains("FATAL:"))
    {
        Some(line) if !line.contains("already exists") => Err(EngineError::Failed {
            what: "prepare the cluster",
            why: line.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Gives the stopped cluster the system identifier that belongs to `identity`.
pub(super) async fn personalise(host: &dyn EngineHost, identity: &str) -> Result<()> {
    let mut state = tool(host, &["identity", &pgdata(host), identity]).await?;
    if state == "unclean" {
        // A copy of a running cluster: its log must be replayed before it is replaced.
        single(host, "template1", String::new()).await?;
        state = tool(host, &["identity", &pgdata(host), identity]).await?;
    }
    match state.as_str() {
        "done" => Ok(()),
        other => Err(EngineError::Failed {
            what: "give the cluster its identity",
            why: format!("its state is {other}"),
        }),
    }
}

/// Runs one of [`crate::tool`]'s operations; its last line is the answer.
async fn tool(host: &dyn EngineHost, args: &[&str]) -> Result<String> {
    let ended = host.run(tool_program(host, args)).await?;
    let output = check("change the cluster's identity", ended)?;
    Ok(output
        .lines()
        .next_back()
        .unwrap_or_default()
        .trim()
        .to_owned())
}

/// One of our own programs that work on the cluster's files.
pub(super) fn tool_program(host: &dyn EngineHost, args: &[&str]) -> Program {
    let words = ["engine-tool", "postgresql"].iter().chain(args);
    Program {
        path: host.tool(),
        args: words.map(|word| (*word).to_owned()).collect(),
        env: environment(),
        stdin: Vec::new(),
    }
}

/// The output of a program that succeeded.
fn check(what: &'static str, output: ProgramOutput) -> Result<String> {
    match output.code {
        Some(0) => Ok(output.output),
        code => {
            let lines: Vec<&str> = output.output.lines().rev().take(5).collect();
            let said = lines.into_iter().rev().collect::<Vec<_>>().join("; ");
            let ended = code.map_or_else(|| "a signal".to_owned(), |code| format!("code {code}"));
            Err(EngineError::Failed {
                what,
                why: format!("ended by {ended}: {said}"),
            })
        }
    }
}
