//! The engine's command line; making a data directory, and making a clone of one unlike every
//! other.
//!
//! A template holds an empty append-only file in its parts, made by the engine itself, so that an
//! instance's first start writes nothing.

use std::path::Path;
use std::time::Duration;

use crate::error::{EngineError, Result};
use crate::keyvalue::session::{self, Session};
use crate::keyvalue::{KeyValue, PORT, identity};
use crate::runtime::{EngineHost, Program, ProgramOutput, TLS_CA, TLS_CERT, TLS_KEY};

/// LIMIT: how long the engine may take to make an empty directory and answer.
const BOOTSTRAP_MAX: Duration = Duration::from_secs(60);
/// Pause between two looks whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Makes the directory of a template: the engine runs until it answers, without any network.
pub(super) async fn bootstrap(kind: &KeyValue, host: &dyn EngineHost) -> Result<()> {
    let mut program = program(kind, host);
    let lone = [("--port", "0".to_owned()), ("--logfile", String::new())];
    program.args.extend(words(lone));
    let path = session::socket(host);
    let mut run = host.run(program);
    let mut session = tokio::select! {
        ended = &mut run => {
            check("make the data directory", ended?)?;
            return Err(EngineError::Failed {
                what: "make the data directory",
                why: "the engine ended before it answered".to_owned(),
            });
        }
        session = tokio::time::timeout(BOOTSTRAP_MAX, await_answer(&path)) => {
            session.map_err(|_| EngineError::Down { why: "it does not answer".to_owned() })?
        }
    };
    let shutdown: &[&str] = &["SHUTDOWN"];
    let requests = [shutdown];
    // It ends instead of answering.
    let (ended, _) = tokio::join!(run, session.ask_all(&requests));
    check("make the data directory", ended?).map(drop)
}

/// Waits until the engine answers.
async fn await_answer(path: &Path) -> Session {
    let ping: &[&str] = &["PING"];
    loop {
        if let Ok(mut session) = Session::connect(path).await
            && session.ask_all(&[ping]).await.is_ok()
        {
            return session;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Gives the stopped engine's directory the identity, with a password for Coffer's own user.
pub(super) async fn personalise(kind: &KeyValue, host: &dyn EngineHost, id: &str) -> Result<()> {
    let failed = |error: std::io::Error| EngineError::Failed {
        what: "make the password of Coffer's own user",
        why: error.to_string(),
    };
    let secret = identity::ensure_secret(&host.layout().config_dir, id).map_err(failed)?;
    let dir = engine_dir(host);
    let args = [
        "engine-tool",
        kind.name,
        "identity",
        &dir,
        id,
        &identity::hash(&secret),
    ];
    let program = Program {
        path: host.tool(),
        args: args.map(str::to_owned).to_vec(),
        env: environment(),
        stdin: Vec::new(),
    };
    check("write the list of users", host.run(program).await?).map(drop)
}

/// The engine's own directory.
fn engine_dir(host: &dyn EngineHost) -> String {
    host.layout().data_dir.join("engine").display().to_string()
}

/// The engine as an instance runs it. The command line outranks the file.
pub(super) fn launch(kind: &KeyValue, host: &dyn EngineHost) -> Program {
    let layout = host.layout();
    let file = layout.config_dir.join(kind.config_file);
    let tls = |name: &str| layout.tls_dir.join(name).display().to_string();
    let users = layout.data_dir.join("engine").join(identity::USERS_FILE);
    let log = layout.log_dir.join(format!("{}.log", kind.name));
    let mut program = program(kind, host);
    program.args.insert(0, file.display().to_string());
    program.args.extend(words([
        ("--port", "0".to_owned()),
        ("--tls-port", PORT.to_string()),
        ("--tls-cert-file", tls(TLS_CERT)),
        ("--tls-key-file", tls(TLS_KEY)),
        ("--tls-ca-cert-file", tls(TLS_CA)),
        ("--aclfile", users.display().to_string()),
        ("--logfile", log.display().to_string()),
    ]));
    program
}

/// What template and instance have in common: the data's form, and what keeps the tenant from the
/// process: neither modules nor the debugger, and no change of paths.
fn program(kind: &KeyValue, host: &dyn EngineHost) -> Program {
    let socket = session::socket(host).display().to_string();
    let settings = [
        ("--dir", engine_dir(host)),
        ("--unixsocket", socket),
        // The agent is another user; who connects is told by a password.
        ("--unixsocketperm", "777".to_owned()),
        ("--daemonize", "no".to_owned()),
        ("--set-proc-title", "no".to_owned()),
        ("--always-show-logo", "no".to_owned()),
        ("--enable-protected-configs", "no".to_owned()),
        ("--enable-debug-command", "no".to_owned()),
        ("--enable-module-command", "no".to_owned()),
        ("--save", String::new()),
        ("--appendonly", "yes".to_owned()),
        ("--aof-use-rdb-preamble", "yes".to_owned()),
        ("--aof-timestamp-enabled", "yes".to_owned()),
    ];
    Program {
        path: kind.server.into(),
        args: words(settings),
        env: environment(),
        stdin: Vec::new(),
    }
}

fn words<const N: usize>(settings: [(&str, String); N]) -> Vec<String> {
    settings
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect()
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
