//! Redis and Valkey: the suite's client of them, on the socket inside; TLS is tested in the
//! sandbox.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use coffer_engines::Engine;
use coffer_engines::conformance::Access;
use coffer_engines::keyvalue::resp::{self, Value};
use coffer_engines::keyvalue::{KeyValue, identity};
use coffer_engines::runtime::Layout;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use super::direct::{Client, Direct};

/// The suite's client of one of them.
#[derive(Debug)]
pub(super) struct Cli(pub(super) &'static KeyValue);

/// What an instance has from its first day; when it flushes is the suite's to change.
const BORN: &[(&str, &str)] = &[
    ("appendonly", "yes"),
    ("aof-timestamp-enabled", "yes"),
    ("save", ""),
];

/// A connection that is logged in.
#[derive(Debug)]
pub(super) struct Connection(BufReader<UnixStream>);

impl Connection {
    /// Connects and logs in.
    pub(super) async fn login(layout: &Layout, user: &str, password: &str) -> Result<Self, String> {
        let path = layout.run_dir.join("engine.sock");
        let stream = UnixStream::connect(path).await.map_err(|e| e.to_string())?;
        let mut connection = Self(BufReader::new(stream));
        connection.told(&["AUTH", user, password]).await?;
        Ok(connection)
    }

    /// Sends a request and reads its answer.
    pub(super) async fn ask(&mut self, request: &[&str]) -> std::io::Result<Value> {
        let mut out = Vec::new();
        resp::write(request, &mut out);
        self.0.get_mut().write_all(&out).await?;
        resp::read(&mut self.0).await
    }

    /// The answer; a refusal is an error.
    async fn told(&mut self, request: &[&str]) -> Result<Value, String> {
        match self.ask(request).await {
            Ok(Value::Error(why)) => Err(why),
            Ok(answer) => Ok(answer),
            Err(error) => Err(error.to_string()),
        }
    }
}

async fn connect(at: &Direct, access: &Access) -> Result<Connection, String> {
    Connection::login(at.layout(), &access.user, &access.password).await
}

#[async_trait]
impl Client for Cli {
    fn engine(&self) -> &'static dyn Engine {
        self.0
    }

    fn adapt(&self, _name: &str, content: String) -> String {
        // The address of the test's own, and what is demanded where nothing may be lost.
        content
            .replace("bind 127.0.0.1 ", "bind ")
            .replace("appendfsync everysec", "appendfsync always")
    }

    async fn fingerprint(&self, at: &Direct) -> String {
        let dir = at.layout().data_dir.join("engine");
        identity::read(&dir).unwrap_or_else(|_| "a template".to_owned())
    }

    async fn login(&self, at: &Direct, access: &Access) -> Result<(), String> {
        let mut connection = connect(at, access).await?;
        connection.told(&["PING"]).await.map(|_| ())
    }

    async fn make(&self, at: &Direct, access: &Access, name: &str) -> Result<(), String> {
        let mut connection = connect(at, access).await?;
        connection.told(&["DEL", name]).await.map(|_| ())
    }

    async fn write(&self, at: &Direct, access: &Access, name: &str, count: u64, told: &AtomicU64) {
        let mut connection = connect(at, access).await.expect("log in to write");
        // Two writes at once: the engine's file has them as a transaction, which is read again
        // under rules of its own.
        let both = "redis.call('INCR', 'writes') return redis.call('RPUSH', KEYS[1], '1')";
        for _ in 0..count {
            if connection.told(&["EVAL", both, "1", name]).await.is_err() {
                break;
            }
            told.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn count(&self, at: &Direct, access: &Access, name: &str) -> Result<u64, String> {
        let mut connection = connect(at, access).await?;
        match connection.told(&["LLEN", name]).await? {
            Value::Number(count) => Ok(count.try_into().unwrap()),
            other => Err(format!("{other:?}")),
        }
    }

    /// The probe's key never stays; what it wrote is in the append-only file, which grows.
    async fn beats(&self, at: &Direct, root: &Access) -> Result<u64, String> {
        let mut connection = connect(at, root).await?;
        let Value::Text(told) = connection.told(&["INFO", "persistence"]).await? else {
            return Err("no text".to_owned());
        };
        let mut lines = told.lines();
        let size = lines.find_map(|line| line.strip_prefix("aof_current_size:"));
        let size = size.ok_or_else(|| format!("no append-only file: {told}"))?;
        size.trim()
            .parse()
            .map_err(|_| format!("not a number: {size}"))
    }

    /// The server has each line of its file in force, sizes to the byte, and what an instance is
    /// born with. The append-only file is in parts: a list of them, a base, and what came after.
    async fn keeps_promises(&self, at: &Direct, root: &Access) -> Result<(), String> {
        let mut connection = connect(at, root).await?;
        let text = rendered(&at.layout().config_dir);
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let lines: Vec<_> = lines.collect();
        assert!(lines.len() > 10, "the file is not there: {text}");
        for (name, wanted) in lines.into_iter().chain(BORN.iter().copied()) {
            let found = connection.told(&["CONFIG", "GET", name]).await?;
            let wanted = plain(wanted);
            let is_set = match &found {
                Value::List(pair) => match pair.as_slice() {
                    [_, Value::Text(value)] => *value == wanted,
                    // Valkey 9.1 knows it in its file only.
                    [] => name == "sanitize-dump-payload",
                    _ => false,
                },
                _ => false,
            };
            if !is_set {
                return Err(format!("{name} is {found:?}, {wanted} is promised"));
            }
        }
        let files = parts(&at.layout().data_dir.join("engine"));
        for part in [".manifest", ".base.", ".incr."] {
            if !files.iter().any(|name| name.contains(part)) {
                return Err(format!(
                    "the append-only file has no part {part}: {files:?}"
                ));
            }
        }
        Ok(())
    }

    fn ready_words(&self) -> Option<&'static str> {
        Some("eady to accept connections")
    }

    fn tls_words(&self) -> Option<&'static [&'static str]> {
        Some(&[])
    }
}

/// The file that was rendered for the flavor.
fn rendered(dir: &Path) -> String {
    let files = std::fs::read_dir(dir).unwrap().flatten();
    let mut files = files.map(|entry| entry.path());
    let found = files.find(|path| path.extension().is_some_and(|end| end == "conf"));
    std::fs::read_to_string(found.expect("it was rendered")).unwrap()
}

/// A value as the engine tells it: without quotes, sizes in bytes.
fn plain(value: &str) -> String {
    let value = value.trim_matches('"');
    match value
        .strip_suffix("mb")
        .and_then(|mib| mib.parse::<u64>().ok())
    {
        Some(mib) => (mib << 20).to_string(),
        None => value.to_owned(),
    }
}

/// Names in the directory of the append-only file, wherever the engine has it below `dir`.
fn parts(dir: &Path) -> Vec<String> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            names.extend(parts(&path));
        } else if dir.ends_with("appendonlydir") {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names
}
