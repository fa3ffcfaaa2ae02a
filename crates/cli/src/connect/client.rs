//! The client programs of engines: found, told where to connect, run to their end.
//!
//! The one module that starts processes.

use std::env;
use std::ffi::OsString;
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use coffer_wire::rest::v1::connection::Connection;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use super::Connect;
use crate::failure::{Failure, Kind, Result};

/// The client program of PostgreSQL.
const PSQL: &str = "psql";
/// Loader of programs in an engine root.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
/// Where an engine root keeps its libraries.
const LIBRARIES: [&str; 3] = [
    "usr/lib/x86_64-linux-gnu",
    "lib/x86_64-linux-gnu",
    "usr/lib",
];

/// Where and as whom the client connects.
pub(super) struct Login {
    pub(super) at: SocketAddr,
    pub(super) user: String,
    pub(super) database: String,
    pub(super) secret: String,
}

/// A program with the words that come before its own arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    path: PathBuf,
    words: Vec<OsString>,
}

/// The client: as given, in PATH, or in an engine root of this host.
pub(super) fn find(known: &Connection, wanted: &Connect) -> Result<Program> {
    if known.engine != "postgresql" {
        let message = format!(
            "coffer connect knows no client of the engine '{}'",
            known.engine
        );
        return Err(Failure::new(Kind::Refused, message));
    }
    let plain = |path: PathBuf| Program {
        path,
        words: Vec::new(),
    };
    if let Some(path) = &wanted.client {
        return Ok(plain(path.clone()));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path)
        .map(|dir| dir.join(PSQL))
        .find(|path| path.is_file());
    let found = found
        .map(plain)
        .or_else(|| in_root(&wanted.roots_dir, &known.version));
    found.ok_or_else(|| {
        Failure::usage(format!(
            "there is no {PSQL} in PATH and no engine root in {}: install postgresql-client, or \
             give --client",
            wanted.roots_dir.display()
        ))
    })
}

/// The client in an engine root, run by the root's own loader with the root's own libraries.
fn in_root(roots_dir: &Path, version: &str) -> Option<Program> {
    let trees = std::fs::read_dir(roots_dir).ok()?.flatten();
    trees
        .map(|entry| entry.path().join("tree"))
        .find_map(|tree| {
            let program = tree
                .join("usr/lib/postgresql")
                .join(version)
                .join("bin")
                .join(PSQL);
            let path = tree.join(LOADER);
            let libraries = LIBRARIES.map(|dir| tree.join(dir));
            (program.is_file() && path.is_file()).then(|| Program {
                path,
                words: vec![
                    "--library-path".into(),
                    env::join_paths(libraries).unwrap_or_default(),
                    program.into(),
                ],
            })
        })
}

/// Runs the client to its end.
#[expect(
    clippy::disallowed_methods,
    reason = "the one module that starts processes"
)]
pub(super) async fn run(
    program: &Program,
    known: &Connection,
    login: &Login,
    words: &[String],
) -> Result<ExitCode> {
    let secret = login.secret.replace('\\', "\\\\").replace(':', "\\:");
    let secret = in_memory("password", &format!("*:*:*:*:{secret}\n"))?;
    let ca = in_memory("ca", &known.ca_pem)?;
    let line = conninfo(known, login, &secret.path, &ca.path);
    // What the terminal sends is the client's to act on; a request to end ends both.
    let stop = |e: std::io::Error| Failure::failed(format!("watch for signals: {e}"));
    let _interrupt = signal(SignalKind::interrupt()).map_err(stop)?;
    let _quit = signal(SignalKind::quit()).map_err(stop)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(stop)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(stop)?;
    let mut child = Command::new(&program.path)
        .args(&program.words)
        .args(["-d", &line])
        .args(words)
        .env_remove("PGPASSWORD")
        .env_remove("PGSERVICE")
        .kill_on_drop(true)
        .spawn()
        .map_err(|e| Failure::usage(format!("run {}: {e}", program.path.display())))?;
    let status = tokio::select! {
        status = child.wait() => status,
        _ = terminate.recv() => return Ok(ExitCode::from(143)),
        _ = hang_up.recv() => return Ok(ExitCode::from(129)),
    };
    let status = status.map_err(|e| Failure::failed(format!("wait for the client: {e}")))?;
    let by_signal = || status.signal().map(|number| 128 + number);
    let code = status.code().or_else(by_signal);
    let code = code.and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::from(code.unwrap_or(1)))
}

/// How to connect, in libpq's words; no secret is among them.
fn conninfo(known: &Connection, login: &Login, secret: &str, ca: &str) -> String {
    let pairs = [
        ("host", known.host_name.as_str()),
        ("hostaddr", &login.at.ip().to_string()),
        ("port", &login.at.port().to_string()),
        ("user", &login.user),
        ("dbname", &login.database),
        ("sslmode", "verify-full"),
        ("sslrootcert", ca),
        ("passfile", secret),
    ];
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let pairs = pairs.map(|(name, value)| format!("{name}='{}'", quoted(value)));
    pairs.join(" ")
}

/// A file that is nowhere but in this process; its path works for the same user while we live.
struct InMemory {
    _file: std::fs::File,
    path: String,
}

fn in_memory(name: &str, text: &str) -> Result<InMemory> {
    let failed = |e: &dyn std::fmt::Display| Failure::failed(format!("keep the {name}: {e}"));
    let made = memfd_create(name, MFdFlags::MFD_CLOEXEC).map_err(|e| failed(&e))?;
    // libpq reads no passwords that others may read.
    fchmod(&made, Mode::S_IRUSR | Mode::S_IWUSR).map_err(|e| failed(&e))?;
    let mut file = std::fs::File::from(made);
    file.write_all(text.as_bytes()).map_err(|e| failed(&e))?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    Ok(InMemory { _file: file, path })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_by_its_path_and_stands_nowhere_else() {
        let known = Connection {
            engine: "postgresql".to_owned(),
            version: "17".to_owned(),
            host_name: "i.coffer".to_owned(),
            ca_pem: String::new(),
            databases: Vec::new(),
        };
        let login = Login {
            at: "127.0.0.1:5".parse().unwrap(),
            user: "o'neil\\".to_owned(),
            database: "app".to_owned(),
            secret: "s3cret".to_owned(),
        };
        let kept = in_memory("password", &login.secret).unwrap();
        assert_eq!(std::fs::read_to_string(&kept.path).unwrap(), "s3cret");
        let line = conninfo(&known, &login, &kept.path, "/ca");
        assert!(
            line.contains(r"user='o\'neil\\'") && line.contains("verify-full"),
            "{line}"
        );
        assert!(!line.contains("s3cret"), "{line}");
        let path = kept.path.clone();
        drop(kept);
        assert!(std::fs::read_to_string(path).is_err());
    }
}
