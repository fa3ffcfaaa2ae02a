//! The engines that quickstart makes an instance of, and how each is asked something by its own
//! client.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Host;
use crate::process::Program;

/// An engine.
#[derive(Debug)]
pub(super) struct Engine {
    /// Name of its datastore.
    pub(super) name: &'static str,
    /// Its name for people.
    pub(super) title: &'static str,
    port: u64,
    has_databases: bool,
    /// What its client is told, to ask for the version.
    question: &'static [&'static str],
    /// The version in what the client printed.
    answer: fn(&str) -> Option<String>,
}

/// The engine whose time to an answer is promised.
pub(super) const POSTGRESQL: Engine = Engine {
    name: "postgresql",
    title: "PostgreSQL",
    port: 5432,
    has_databases: true,
    question: &["-X", "-At", "-c", "select version()"],
    answer: |said| said.lines().next().map(str::to_owned),
};

/// The engines beside it.
pub(super) const OTHERS: &[Engine] = &[
    Engine {
        name: "mysql",
        title: "MySQL",
        port: 3306,
        has_databases: true,
        question: SQL,
        answer: sql_answer,
    },
    Engine {
        name: "mariadb",
        title: "MariaDB",
        port: 3306,
        has_databases: true,
        question: SQL,
        answer: sql_answer,
    },
    Engine {
        name: "redis",
        title: "Redis",
        port: 6379,
        has_databases: false,
        question: INFO,
        answer: |said| info_answer(said, "redis_version:"),
    },
    Engine {
        name: "valkey",
        title: "Valkey",
        port: 6379,
        has_databases: false,
        question: INFO,
        answer: |said| info_answer(said, "valkey_version:"),
    },
];

const SQL: &[&str] = &[
    "-N",
    "-B",
    "-e",
    "SELECT VERSION(); SHOW STATUS LIKE 'Ssl_version'",
];
const INFO: &[&str] = &["INFO", "server"];

/// The first word is the version, the last that of TLS.
fn sql_answer(said: &str) -> Option<String> {
    let mut words = said.split_whitespace();
    let (version, tls) = (words.next()?, words.next_back()?);
    Some(format!("{version}, {tls}"))
}

fn info_answer(said: &str, key: &str) -> Option<String> {
    let version = |line: &str| line.trim().strip_prefix(key).map(str::to_owned);
    said.lines().find_map(version)
}

/// An instance of an engine.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) engine: &'static Engine,
    pub(super) name: String,
    pub(super) address: String,
    pub(super) port: u64,
    /// Password of its user, which is told once, when the instance is made.
    pub(super) password: Option<String>,
}

impl Database {
    /// Reads an instance as the API shows it.
    pub(super) fn read(engine: &'static Engine, shown: &Value) -> Result<Self> {
        let addresses = shown["addresses"].as_array().cloned().unwrap_or_default();
        let public = addresses.iter().find(|address| address["type"] == "public");
        let address = public.and_then(|address| address["address"].as_str());
        let port = public.and_then(|address| address["port"].as_u64());
        let name = shown["name"].as_str();
        let password = shown.pointer("/passwords/demo").and_then(Value::as_str);
        Ok(Self {
            engine,
            name: name.context("find the instance's name")?.to_owned(),
            address: address.context("find the published address")?.to_owned(),
            port: port.unwrap_or(engine.port),
            password: password.map(str::to_owned),
        })
    }

    /// Asks for its version with the client that `coffer connect` finds: as the user `demo` where
    /// the password is known, else as a user made for the occasion.
    pub(super) fn ask(&self, host: &Host) -> Result<String> {
        let credentials = host.credentials();
        let connect = |user: &[&str]| {
            let words = ["--credentials", &credentials, "connect", &self.name];
            let words = [&words[..], user, &["--"], self.engine.question].concat();
            Program::new(&host.coffer, &words).output()
        };
        let said = match &self.password {
            None => connect(&[])?,
            Some(password) => {
                let file = host
                    .state
                    .join(format!("quickstart-{}.password", self.name));
                with_secret(&file, &format!("{password}\n"), |path| {
                    connect(&["--user", "demo", "--password-file", path])
                })?
            }
        };
        let answer = (self.engine.answer)(&said);
        answer.with_context(|| format!("find the version in what {} said: {said}", self.name))
    }

    /// What a person needs of it, in a line or two.
    pub(super) fn line(&self, answer: &str) -> String {
        let Self {
            engine,
            name,
            address,
            port,
            password,
        } = self;
        let password = password.as_deref().unwrap_or("told when it was made");
        let at = format!("{address}:{port}");
        format!(
            "{:<11} {name:<12} {at:<22} user demo, password {password}\n{:<11} {answer}",
            engine.title, ""
        )
    }
}

/// What a new instance of the engine is made with, beside its name.
pub(super) fn wanted(engine: &Engine) -> Vec<&'static str> {
    let mut words = vec![
        "--datastore",
        engine.name,
        "--user",
        "demo",
        "--public",
        "--wait",
    ];
    if engine.has_databases {
        words.extend(["--database", "demo"]);
    }
    words
}

/// Does something while a secret lies in a file that only we may read.
pub(super) fn with_secret<T>(
    file: &Path,
    secret: &str,
    work: impl FnOnce(&str) -> Result<T>,
) -> Result<T> {
    let _ = fs::remove_file(file);
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(file);
    made.and_then(|mut made| made.write_all(secret.as_bytes()))
        .context("write the password")?;
    let done = work(&file.display().to_string());
    fs::remove_file(file).context("remove the password")?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_found_in_what_clients_print() {
        let said = "9.7.4\nSsl_version\tTLSv1.3\n";
        assert_eq!(sql_answer(said).as_deref(), Some("9.7.4, TLSv1.3"));
        assert_eq!(sql_answer("\n"), None);
        let said = "# Server\r\nredis_version:7.2.4\r\nvalkey_version:9.1.0\r\n";
        let found = info_answer(said, "valkey_version:");
        assert_eq!(found.as_deref(), Some("9.1.0"));
        assert_eq!(info_answer("NOPERM", "redis_version:"), None);
    }

    #[test]
    fn an_instance_is_read_as_it_is_shown() {
        let shown = serde_json::json!({
            "name": "mysql1",
            "addresses": [
                {"type": "private", "address": "10.80.0.3"},
                {"type": "public", "address": "100.72.1.2"},
            ],
            "passwords": {"demo": "s3cret"},
        });
        let read = Database::read(&OTHERS[0], &shown).unwrap();
        assert_eq!((read.address.as_str(), read.port), ("100.72.1.2", 3306));
        let line = read.line("9.7.4");
        assert!(
            line.contains("100.72.1.2:3306") && line.contains("s3cret"),
            "{line}"
        );
        let private = serde_json::json!({"name": "db", "addresses": []});
        assert!(Database::read(&OTHERS[0], &private).is_err());
    }

    #[test]
    fn every_engine_that_is_offered_is_shown() {
        let images = crate::root().unwrap().join("images");
        let mut known: Vec<&str> = OTHERS.iter().map(|one| one.name).collect();
        known.push(POSTGRESQL.name);
        for recipe in fs::read_dir(images).unwrap().flatten() {
            let name = recipe.file_name().to_string_lossy().into_owned();
            let engine = name.split('-').next().unwrap().to_owned();
            assert!(known.contains(&engine.as_str()), "{engine}");
        }
    }
}
