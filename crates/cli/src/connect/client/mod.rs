//! The client programs of engines: found, told where to connect, run to their end. What is of one
//! program only stands in a file beside this.
//!
//! The one module that starts processes. Which program is run is never the API's to say.

mod keyvalue;
mod mysql;
mod psql;

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
use crate::failure::{self, Failure, Result};

/// The clients that are known, by the engine they are for.
const KINDS: &[Kind] = &[
    psql::KIND,
    mysql::MYSQL,
    mysql::MARIADB,
    mysql::PERCONA,
    mysql::PXC,
    keyvalue::REDIS,
    keyvalue::VALKEY,
];

/// What is of one client program only.
struct Kind {
    /// Engine whose client it is.
    engine: &'static str,
    /// Name of the program; the first that is found is taken.
    programs: &'static [&'static str],
    /// Debian's package that has it.
    package: &'static str,
    /// Where it is in the engine's root, for a version.
    in_root: fn(&str) -> String,
    /// Variables that would tell it something else.
    env_remove: &'static [&'static str],
    /// How it gets its password.
    secret: Secret,
    /// What it is told on its command line; no secret is among it.
    words: fn(&Told<'_>) -> Vec<OsString>,
}

/// Ways in which clients read passwords, the better one first.
enum Secret {
    /// From a file with this content, for the program that is run.
    File(fn(&Login, &Path) -> String),
    /// From this variable of its environment, because it reads no file. As the file, only the same
    /// user can look at it, and it is gone with the client.
    Variable(&'static str),
}

/// What goes into a command line.
struct Told<'a> {
    host_name: &'a str,
    login: &'a Login,
    /// Path of the file with the secret.
    secret: &'a str,
    /// Path of the file with the CA's certificate.
    ca: &'a str,
}

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
    pub(super) database: Option<String>,
    pub(super) secret: String,
}

/// A program with the words that come before its own arguments.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Program {
    path: PathBuf,
    words: Vec<OsString>,
}

impl Program {
    /// The client itself; the loader that runs it is not.
    fn client(&self) -> &Path {
        self.words.last().map_or(&self.path, Path::new)
    }
}

fn kind_of(engine: &str) -> Result<&'static Kind> {
    KINDS
        .iter()
        .find(|kind| kind.engine == engine)
        .ok_or_else(|| {
            let message = format!("coffer connect knows no client of the engine '{engine}'");
            Failure::new(failure::Kind::Refused, message)
        })
}

/// The client: as given, in PATH, or in an engine root of this host.
pub(super) fn find(known: &Connection, wanted: &Connect) -> Result<Program> {
    let kind = kind_of(&known.engine)?;
    let plain = |path: PathBuf| Program {
        path,
        words: Vec::new(),
    };
    if let Some(path) = &wanted.client {
        return Ok(plain(path.clone()));
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let found = kind
        .programs
        .iter()
        .flat_map(|name| env::split_paths(&path).map(move |dir| dir.join(name)))
        .find(|path| path.is_file());
    let in_root = || in_root(&wanted.roots_dir, kind, &known.version);
    found.map(plain).or_else(in_root).ok_or_else(|| {
        Failure::usage(format!(
            "there is no {} in PATH and no engine root in {}: install {}, or give --client",
            kind.programs.join(" and no "),
            wanted.roots_dir.display(),
            kind.package
        ))
    })
}

/// The client in a root of its engine, run by the root's own loader with the root's own libraries.
/// A kin's root may have a client of the same name that lacks what this engine asks of it.
fn in_root(roots_dir: &Path, kind: &Kind, version: &str) -> Option<Program> {
    let client = (kind.in_root)(version);
    let roots = std::fs::read_dir(roots_dir).ok()?.flatten();
    roots
        .map(|entry| entry.path())
        .filter(|root| is_of(root, kind.engine))
        .find_map(|root| {
            let tree = root.join("tree");
            let program = tree.join(&client);
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

/// Whether a root's manifest says that it is of this engine.
fn is_of(root: &Path, engine: &str) -> bool {
    let text = std::fs::read_to_string(root.join("manifest.json")).unwrap_or_default();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    manifest["recipe"]["engine"] == engine
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
    let kind = kind_of(&known.engine)?;
    let (content, variable) = match kind.secret {
        Secret::File(content) => (content(login, program.client()), None),
        Secret::Variable(name) => (String::new(), Some((name, &login.secret))),
    };
    let secret = in_memory("password", &content)?;
    let ca = in_memory("ca", &known.ca_pem)?;
    let told = Told {
        host_name: &known.host_name,
        login,
        secret: &secret.path,
        ca: &ca.path,
    };
    // What the terminal sends is the client's to act on; a request to end ends both.
    let stop = |e: std::io::Error| Failure::failed(format!("watch for signals: {e}"));
    let _interrupt = signal(SignalKind::interrupt()).map_err(stop)?;
    let _quit = signal(SignalKind::quit()).map_err(stop)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(stop)?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(stop)?;
    let mut command = Command::new(&program.path);
    for name in kind.env_remove {
        command.env_remove(name);
    }
    let mut child = command
        .envs(variable)
        .args(&program.words)
        .args((kind.words)(&told))
        .args(words)
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

/// A file that is nowhere but in this process; its path works for the same user while we live.
struct InMemory {
    _file: std::fs::File,
    path: String,
}

fn in_memory(name: &str, text: &str) -> Result<InMemory> {
    let failed = |e: &dyn std::fmt::Display| Failure::failed(format!("keep the {name}: {e}"));
    let made = memfd_create(name, MFdFlags::MFD_CLOEXEC).map_err(|e| failed(&e))?;
    // Clients read no passwords that others may read.
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
        let kept = in_memory("password", "s3cret").unwrap();
        assert_eq!(std::fs::read_to_string(&kept.path).unwrap(), "s3cret");
        let path = kept.path.clone();
        drop(kept);
        assert!(std::fs::read_to_string(path).is_err());
    }

    #[test]
    fn no_client_is_told_a_secret_in_words() {
        let login = Login {
            at: "127.0.0.1:5".parse().unwrap(),
            user: "o'neil\\".to_owned(),
            database: Some("app".to_owned()),
            secret: "s3cret".to_owned(),
        };
        let told = Told {
            host_name: "i.coffer",
            login: &login,
            secret: "/secret",
            ca: "/ca",
        };
        for kind in KINDS {
            let line = format!("{:?}", (kind.words)(&told));
            assert!(!line.contains("s3cret"), "{line}");
            assert!(line.contains("/ca"), "{line}");
            if let Secret::File(content) = kind.secret {
                assert!(line.contains("/secret"), "{line}");
                let content = content(&login, Path::new("/client"));
                assert!(content.contains("s3cret"), "{}", kind.engine);
            }
        }
    }
}
