//! The data path: pgbench against an instance, and against the same PostgreSQL by hand in a network
//! namespace of its own.
//!
//! By hand it has the same binaries, configuration file, kind of volume, template and TLS, and no
//! sandbox and no limits; its client is beside it on loopback. The instance's client is beside it
//! too for the sandbox's part, and elsewhere for the published address.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::by_hand::{ByHand, Ground};
use super::instance::{Instance, Service};
use super::namespace::{Namespace, inside};
use super::row::{Limit, Row, Unit};
use super::{Bench, Measure, Subject};
use crate::process::Program;

/// Two processors, which is all of a small machine, and four GiB.
const FLAVOR: &str = "xlarge";
/// Room of the pool: two volumes and the template.
const POOL_GIB: u32 = 6;
/// Size of the tables; 15 MiB each.
const SCALE: &str = "10";
/// Clients at once.
const CLIENTS: &str = "4";

const REFERENCE: &str = "the same PostgreSQL by hand in its own namespace";

const fn row(name: &'static str, what: &'static str, limit: Limit) -> Row {
    Row {
        name,
        what,
        reference: REFERENCE,
        unit: Unit::PerSecond,
        limit,
        pairs: 6,
    }
}

const SANDBOX: Limit = Limit::RatioAtLeast {
    floor: 0.97,
    goal: 0.97,
};
const PUBLISHED: Limit = Limit::RatioAtLeast {
    floor: 0.9,
    goal: 0.9,
};

/// The rows of this file.
pub const SUBJECT: Subject = Subject {
    title: "Data path",
    rows: &[
        row(
            "pgbench/sandbox",
            "pgbench in the sandbox with its limits, 4 clients beside it",
            SANDBOX,
        ),
        row(
            "pgbench/published",
            "pgbench at the published address, 4 clients elsewhere",
            PUBLISHED,
        ),
        row(
            "pgbench/sandbox-select",
            "the same, single selects only",
            Limit::Shown,
        ),
        row(
            "pgbench/published-select",
            "the same, single selects only",
            Limit::Shown,
        ),
    ],
    open,
};

fn open(bench: &Bench) -> Result<Box<dyn Measure>> {
    let service = Service::start(bench, "pgbench", POOL_GIB)?;
    let id = service.ask("measured", FLAVOR)?;
    let instance = service.answered(&id)?;
    let engine = Engine::of(&service)?;
    let namespace = Namespace::alone("hand")?;
    let ground = Ground::of(&service.coffer.state)?;
    let (files, settings) = (engine.files()?, SETTINGS);
    let mut hand = ground.clone_in(&namespace, "pgbench", &files, settings)?;
    hand.answered_in(&namespace)?;
    let create = "CREATE DATABASE app";
    let words = [
        "psql",
        "-X",
        "-q",
        "-d",
        "host=127.0.0.1 user=coffer dbname=template1",
    ];
    let words = [&words[..], &["-c", create]].concat();
    namespace.program(&words).output()?;
    let made = Pgbench {
        seconds: bench.size("4", "1"),
        inside: engine.namespace,
        service,
        instance,
        namespace,
        hand: Some(hand),
    };
    let fill = ["-i", "-q", "-s", bench.size(SCALE, "1")];
    made.run(Where::Sandbox, &fill)?;
    made.run(Where::ByHand, &fill)?;
    Ok(Box::new(made))
}

/// The instance's settings, for the one by hand.
const SETTINGS: &[&str] = &[
    "-c",
    "config_file=/run/engine.conf",
    "-c",
    "ssl=on",
    "-c",
    "ssl_cert_file=/run/tls.crt",
    "-c",
    "ssl_key_file=/run/tls.key",
];

/// The engine of the one instance, seen from outside.
struct Engine {
    root: PathBuf,
    words: Vec<String>,
    namespace: PathBuf,
}

impl Engine {
    fn of(service: &Service) -> Result<Self> {
        let words_of = |pid: &u32| -> Vec<String> {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.split('\0').map(str::to_owned).collect()
        };
        let is_first = |words: &[String]| words.iter().any(|word| word.starts_with("config_file="));
        let pids = service.processes("postgres")?;
        let mut all = pids.into_iter().map(|pid| (pid, words_of(&pid)));
        let (pid, words) = all
            .find(|(_, words)| is_first(words))
            .context("find the engine's process")?;
        Ok(Self {
            root: PathBuf::from(format!("/proc/{pid}/root")),
            namespace: PathBuf::from(format!("/proc/{pid}/ns/net")),
            words,
        })
    }

    /// Its configuration and its TLS files.
    fn files(&self) -> Result<Vec<(&'static str, Vec<u8>)>> {
        let named = [
            ("engine.conf", "config_file="),
            ("tls.crt", "ssl_cert_file="),
            ("tls.key", "ssl_key_file="),
        ];
        let read = |(file, setting)| {
            let mut paths = self
                .words
                .iter()
                .filter_map(|word| word.strip_prefix(setting));
            let path = paths.next().with_context(|| format!("find {setting}"))?;
            let path = self.root.join(path.trim_start_matches('/'));
            let content = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            Ok((file, content))
        };
        named.into_iter().map(read).collect()
    }
}

/// What pgbench is run against, and from where.
#[derive(Clone, Copy)]
enum Where {
    /// The instance, from beside it.
    Sandbox,
    /// The instance, from elsewhere.
    Published,
    /// The one by hand, from beside it.
    ByHand,
}

struct Pgbench {
    /// Lies in the pool of the service: it has to go first.
    hand: Option<ByHand>,
    service: Service,
    instance: Instance,
    /// The instance's network namespace.
    inside: PathBuf,
    namespace: Namespace,
    seconds: &'static str,
}

impl Pgbench {
    fn run(&self, at: Where, words: &[&str]) -> Result<String> {
        let program = |namespace: &Path, line: &str| -> Program {
            inside(namespace, &[&["pgbench"], words, &[line]].concat())
        };
        let program = match at {
            Where::Sandbox => program(&self.inside, &self.service.line("127.0.0.1", "require")),
            Where::Published => {
                let line = self.service.line(&self.instance.address, "verify-full");
                program(&self.service.client.path(), &line)
            }
            Where::ByHand => {
                let line = "host=127.0.0.1 user=coffer dbname=app sslmode=require";
                program(&self.namespace.path(), line)
            }
        };
        self.service.with_password(program).output()
    }

    /// Transactions per second.
    fn rate(&self, at: Where, row: &Row) -> Result<f64> {
        let mut words = vec!["-n", "-M", "prepared", "-c", CLIENTS, "-T", self.seconds];
        if row.name.ends_with("-select") {
            words.push("-S");
        }
        let text = self.run(at, &words)?;
        let line = text.lines().find_map(|line| line.strip_prefix("tps = "));
        let number = line.and_then(|rest| rest.split(' ').next());
        number
            .context("find what pgbench measured")?
            .parse()
            .context("read what pgbench measured")
    }
}

impl Measure for Pgbench {
    fn ours(&mut self, row: &Row) -> Result<f64> {
        let at = match row.name.starts_with("pgbench/published") {
            true => Where::Published,
            false => Where::Sandbox,
        };
        self.rate(at, row)
    }

    fn reference(&mut self, row: &Row) -> Result<f64> {
        self.rate(Where::ByHand, row)
    }

    fn conditions(&self) -> String {
        format!(
            "PostgreSQL 17, the same configuration and TLS on both sides, flavor `{FLAVOR}` \
             (4 GiB, 2 processors), pgbench scale {SCALE}, prepared statements, {}",
            self.service.volume_mode()
        )
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        if let Some(hand) = self.hand.take() {
            hand.remove()?;
        }
        self.service.remove()
    }
}
