//! The engines that quickstart makes an instance of, and how each is asked something by its own
//! client.
//!
//! Which there are is told by the recipes of engine roots, and what they have by the README's
//! matrix, which is written from the registry: a new engine is shown without a word here. Only what
//! its client is asked stands here, where somebody has thought of a question.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use super::Host;
use crate::process::Program;
use crate::roots;

/// The engine whose time to an answer is promised.
pub(super) const FIRST: &str = "postgresql";
/// The matrix's column that says whether there are databases by name.
const SCHEMA: &str = "schema";

/// An engine.
#[derive(Debug)]
pub(super) struct Engine {
    /// Name of its datastore.
    pub(super) name: String,
    /// Its name for people.
    pub(super) title: String,
    has_databases: bool,
    question: Option<&'static Question>,
}

/// What an engine is asked.
#[derive(Debug)]
struct Question {
    /// Name of its datastore.
    engine: &'static str,
    port: u64,
    /// What its client is told, to ask for the version.
    words: &'static [&'static str],
    /// The version in what the client printed.
    answer: fn(&str) -> Option<String>,
}

const QUESTIONS: &[Question] = &[
    Question {
        engine: FIRST,
        port: 5432,
        words: &["-X", "-At", "-c", "select version()"],
        answer: |said| said.lines().next().map(str::to_owned),
    },
    Question {
        engine: "mysql",
        port: 3306,
        words: SQL,
        answer: sql_answer,
    },
    Question {
        engine: "mariadb",
        port: 3306,
        words: SQL,
        answer: sql_answer,
    },
    Question {
        engine: "redis",
        port: 6379,
        words: INFO,
        answer: |said| info_answer(said, "redis_version:"),
    },
    Question {
        engine: "valkey",
        port: 6379,
        words: INFO,
        answer: |said| info_answer(said, "valkey_version:"),
    },
];

/// Every engine that a root is built of, and the first one among them.
pub(super) fn offered(root: &Path) -> Result<Vec<Engine>> {
    let readme = fs::read_to_string(root.join("README.md")).context("read README.md")?;
    let names = roots::engines(&root.join("images"))?;
    Ok(names
        .into_iter()
        .map(|name| described(name, &readme))
        .collect())
}

/// An engine as the README's matrix has it.
fn described(name: String, readme: &str) -> Engine {
    let cells = |line: &str| -> Vec<String> {
        line.split('|').map(|cell| cell.trim().to_owned()).collect()
    };
    let mut rows = readme
        .lines()
        .filter(|line| line.starts_with('|'))
        .map(cells);
    let head = rows.find(|cells| cells.get(1).is_some_and(|first| first == "datastore"));
    let column = head.and_then(|head| head.iter().position(|cell| cell == SCHEMA));
    let row = rows.find(|cells| {
        cells
            .get(1)
            .is_some_and(|title| title.to_lowercase() == name)
    });
    let row = row.unwrap_or_default();
    let schema = column.and_then(|column| row.get(column));
    Engine {
        title: row.get(1).unwrap_or(&name).clone(),
        has_databases: schema.is_some_and(|cell| cell.starts_with("yes")),
        question: QUESTIONS.iter().find(|one| one.engine == name),
        name,
    }
}

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
pub(super) struct Database<'a> {
    pub(super) engine: &'a Engine,
    pub(super) name: String,
    pub(super) address: String,
    /// Where that is known.
    pub(super) port: Option<u64>,
    /// Password of its user, which is told once, when the instance is made.
    pub(super) password: Option<String>,
}

impl<'a> Database<'a> {
    /// Reads an instance as the API shows it.
    pub(super) fn read(engine: &'a Engine, shown: &Value) -> Result<Self> {
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
            port: port.or_else(|| engine.question.map(|question| question.port)),
            password: password.map(str::to_owned),
        })
    }

    /// Asks for its version with the client that `coffer connect` finds: as the user `demo` where
    /// the password is known, else as a user made for the occasion. Where nobody knows a question,
    /// that it serves is all there is to tell.
    pub(super) fn ask(&self, host: &Host) -> Result<String> {
        let Some(question) = self.engine.question else {
            return Ok("serves".to_owned());
        };
        let credentials = host.credentials();
        let connect = |user: &[&str]| {
            let words = ["--credentials", &credentials, "connect", &self.name];
            let words = [&words[..], user, &["--"], question.words].concat();
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
        let answer = (question.answer)(&said);
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
        let at = port.map_or_else(|| address.clone(), |port| format!("{address}:{port}"));
        format!(
            "{:<11} {name:<12} {at:<22} user demo, password {password}\n{:<11} {answer}",
            engine.title, ""
        )
    }
}

/// What a new instance of the engine is made with, beside its name.
pub(super) fn wanted(engine: &Engine) -> Vec<&str> {
    let mut words = vec![
        "--datastore",
        &engine.name,
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

    const MATRIX: &str = "| else | schema |\n| --- | --- |\n\n\
        | datastore | versions | schema | user |\n| --- | --- | --- | --- |\n\
        | MySQL | 9.7 | yes; 8.0 `unverified` | yes |\n| Redis | 8.0 | not yet | partial |\n";

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
        let engine = described("mysql".to_owned(), MATRIX);
        let read = Database::read(&engine, &shown).unwrap();
        let at = (read.address.as_str(), read.port);
        assert_eq!(at, ("100.72.1.2", Some(3306)));
        let line = read.line("9.7.4");
        assert!(
            line.contains("100.72.1.2:3306") && line.contains("s3cret"),
            "{line}"
        );
        let private = serde_json::json!({"name": "db", "addresses": []});
        assert!(Database::read(&engine, &private).is_err());
    }

    #[test]
    fn an_engine_is_described_by_the_matrix() {
        let engine = described("mysql".to_owned(), MATRIX);
        assert_eq!(
            (engine.title.as_str(), engine.has_databases),
            ("MySQL", true)
        );
        assert!(wanted(&engine).contains(&"--database") && engine.question.is_some());
        let engine = described("redis".to_owned(), MATRIX);
        assert_eq!(
            (engine.title.as_str(), engine.has_databases),
            ("Redis", false)
        );
        // One that nobody has told of here is shown all the same.
        let engine = described("abacus".to_owned(), MATRIX);
        assert_eq!(
            (engine.title.as_str(), engine.has_databases),
            ("abacus", false)
        );
        assert!(engine.question.is_none());
    }

    #[test]
    fn every_engine_that_is_offered_is_shown() {
        let root = crate::root().unwrap();
        let shown = offered(&root).unwrap();
        assert!(shown.iter().any(|engine| engine.name == FIRST));
        for recipe in fs::read_dir(root.join("images")).unwrap().flatten() {
            let name = recipe.file_name().to_string_lossy().into_owned();
            let engine = name.split('-').next().unwrap();
            let count = shown.iter().filter(|one| one.name == engine).count();
            assert_eq!(count, 1, "{engine}");
        }
    }
}
