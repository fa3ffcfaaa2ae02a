//! The engines' own clients, as they ask once or are kept and asked line by line.
//!
//! psql is this host's. The others are run from the engine's root, by the root's own loader, so
//! that nothing has to be installed and client and server are of one version.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::engine::{Engine, MARIADB, MYSQL, POSTGRESQL};
use crate::process::Program;

/// Loader of programs in a root, and where it finds libraries.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Where the root's library of MariaDB has its ways to log in.
const PLUGINS: &str = "usr/lib/x86_64-linux-gnu/libmariadb3/plugin";

/// User of every instance.
pub const USER: &str = "joe";
/// Its password, and root's; of nobody's concern, for the databases are gone with the benchmark.
pub const PASSWORD: &str = "measured-and-gone";
/// Database of every instance whose engine has them.
pub const DATABASE: &str = "app";

/// Where a client finds a server, and how it is let in.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its address.
    pub address: &'a str,
    /// Its port.
    pub port: u16,
    /// How one is let in.
    pub entry: Entry<'a>,
}

/// How a client is let in.
#[derive(Debug, Clone, Copy)]
pub enum Entry<'a> {
    /// The instance's user, over TLS; certificate and address are compared with this file.
    Checked(&'a Path),
    /// The same, whatever the certificate says of addresses.
    Encrypted(&'a Path),
    /// Without TLS, as whoever needs no password.
    Open,
}

/// The client of an engine.
#[derive(Debug, Clone)]
pub struct Client {
    /// The engine.
    pub engine: &'static Engine,
    /// Tree of its root.
    pub tree: PathBuf,
}

impl Client {
    /// That of an engine whose root is built.
    pub fn of(engine: &'static Engine) -> Result<Self> {
        let tree = engine.tree()?;
        Ok(Self { engine, tree })
    }

    /// Its command line, to be asked line by line. What cannot be said there is put into a file
    /// in `dir`.
    pub fn words(&self, place: Place<'_>, dir: &Path) -> Result<Vec<String>> {
        match self.engine.name {
            name if name == POSTGRESQL.name => Ok(psql(place)),
            name if name == MYSQL.name || name == MARIADB.name => self.sql(place, dir),
            _ => Ok(self.key_value(place)),
        }
    }

    /// The same, to ask once whether it answers.
    pub fn question(&self, place: Place<'_>, dir: &Path) -> Result<Vec<String>> {
        let mut words = self.words(place, dir)?;
        let more: &[&str] = match self.engine.name {
            name if name == POSTGRESQL.name => &["-c", "SELECT 1"],
            name if name == MYSQL.name || name == MARIADB.name => &["-e", "SELECT 1"],
            _ => &["PING"],
        };
        words.extend(more.iter().map(|&word| word.to_owned()));
        Ok(words)
    }

    /// Whether this is the answer to that.
    pub fn is_answer(&self, said: &str) -> bool {
        said.trim()
            == if self.engine.has_databases {
                "1"
            } else {
                "PONG"
            }
    }

    /// A line that is answered with this number.
    pub fn ask_for(&self, number: u64) -> String {
        match self.engine.has_databases {
            true => format!("SELECT {number};"),
            false => format!("ECHO {number}"),
        }
    }

    /// A program of the root, run here.
    pub fn program(&self, name: &str) -> Vec<String> {
        let at = |path: &str| self.tree.join(path).display().to_string();
        vec![
            at(LOADER),
            "--library-path".to_owned(),
            at(LIBRARIES),
            at(&format!("usr/bin/{name}")),
        ]
    }

    /// `mysql` and `mariadb`.
    fn sql(&self, place: Place<'_>, dir: &Path) -> Result<Vec<String>> {
        let file = dir.join(format!("client-{}-{}.cnf", place.address, place.port));
        let Place { address, port, .. } = place;
        let (user, password) = match place.entry {
            Entry::Open => ("root", ""),
            Entry::Checked(_) | Entry::Encrypted(_) => (USER, PASSWORD),
        };
        let tls = self.tls(place.entry);
        let text = format!(
            "[client]\nprotocol=TCP\nhost={address}\nport={port}\nuser={user}\n\
             password=\"{password}\"\nconnect-timeout=5\n{tls}"
        );
        fs::write(&file, text).with_context(|| format!("write {}", file.display()))?;
        let mut words = self.program(self.engine.name);
        let plugins = self.tree.join(PLUGINS).display().to_string();
        words.push(format!("--defaults-file={}", file.display()));
        words.push(format!("--plugin-dir={plugins}"));
        let plain = ["--batch", "--skip-column-names", "--unbuffered"];
        words.extend(plain.map(str::to_owned));
        if !matches!(place.entry, Entry::Open) {
            words.push(format!("--database={DATABASE}"));
        }
        Ok(words)
    }

    /// What the file of the family's clients says of TLS.
    fn tls(&self, entry: Entry<'_>) -> String {
        let is_mysql = self.engine.name == MYSQL.name;
        match (entry, is_mysql) {
            (Entry::Checked(ca), true) => {
                format!("ssl-ca={}\nssl-mode=VERIFY_IDENTITY\n", ca.display())
            }
            (Entry::Checked(ca), false) => {
                format!("ssl-ca={}\nssl-verify-server-cert\n", ca.display())
            }
            (Entry::Encrypted(_), true) => "ssl-mode=REQUIRED\n".to_owned(),
            (Entry::Encrypted(_), false) => "ssl\nskip-ssl-verify-server-cert\n".to_owned(),
            (Entry::Open, true) => "ssl-mode=DISABLED\n".to_owned(),
            (Entry::Open, false) => "skip-ssl\n".to_owned(),
        }
    }

    /// `redis-cli` and `valkey-cli`, which look at the certificate's authority only.
    fn key_value(&self, place: Place<'_>) -> Vec<String> {
        let mut words = self.program(&format!("{}-cli", self.engine.name));
        let port = place.port.to_string();
        let at = ["-h", place.address, "-p", &port, "--no-auth-warning"];
        words.extend(at.map(str::to_owned));
        if let Entry::Checked(ca) | Entry::Encrypted(ca) = place.entry {
            let ca = ca.display().to_string();
            let more = ["--tls", "--cacert", &ca, "--user", USER];
            words.extend(more.map(str::to_owned));
        }
        words
    }
}

/// A program with the password of an instance's user.
pub fn with_password(program: Program) -> Program {
    program
        .with("PGPASSWORD", PASSWORD)
        .with("REDISCLI_AUTH", PASSWORD)
}

fn psql(place: Place<'_>) -> Vec<String> {
    let Place { address, port, .. } = place;
    let line = match place.entry {
        Entry::Open => format!("host={address} port={port} user=coffer dbname=template1"),
        Entry::Checked(ca) => {
            let ca = ca.display();
            format!(
                "host={address} port={port} user={USER} dbname={DATABASE} sslmode=verify-full \
                 sslrootcert={ca}"
            )
        }
        Entry::Encrypted(_) => {
            format!("host={address} port={port} user={USER} dbname={DATABASE} sslmode=require")
        }
    };
    ["psql", "-X", "-q", "-At", "-d", &line]
        .map(str::to_owned)
        .to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::engine::{REDIS, VALKEY};

    fn words(engine: &'static Engine, entry: Entry<'_>) -> (String, String) {
        let dir = tempfile::tempdir().unwrap();
        let client = Client {
            engine,
            tree: PathBuf::from("/root"),
        };
        let place = Place {
            address: "10.0.0.1",
            port: engine.port,
            entry,
        };
        let words = client.question(place, dir.path()).unwrap().join(" ");
        let file = dir
            .path()
            .join(format!("client-10.0.0.1-{}.cnf", engine.port));
        (words, fs::read_to_string(file).unwrap_or_default())
    }

    #[test]
    fn every_client_asks_over_tls_and_without() {
        let ca = Path::new("/ca.pem");
        let (line, _) = words(&POSTGRESQL, Entry::Checked(ca));
        assert!(
            line.contains("sslmode=verify-full sslrootcert=/ca.pem"),
            "{line}"
        );
        for (engine, checked, open) in [
            (&MYSQL, "ssl-mode=VERIFY_IDENTITY", "ssl-mode=DISABLED"),
            (&MARIADB, "ssl-verify-server-cert", "skip-ssl\n"),
        ] {
            let (line, file) = words(engine, Entry::Checked(ca));
            assert!(
                line.contains("--database=app") && line.ends_with("-e SELECT 1"),
                "{line}"
            );
            assert!(
                file.contains(checked) && file.contains("user=joe"),
                "{file}"
            );
            let (line, file) = words(engine, Entry::Open);
            assert!(!line.contains("--database"), "{line}");
            assert!(file.contains(open) && file.contains("user=root"), "{file}");
        }
        for engine in [&REDIS, &VALKEY] {
            let (line, _) = words(engine, Entry::Encrypted(ca));
            assert!(
                line.contains("--tls --cacert /ca.pem --user joe PING"),
                "{line}"
            );
        }
    }
}
