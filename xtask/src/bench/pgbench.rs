//! The data path: pgbench against an instance, and against the same PostgreSQL by hand in a network
//! namespace of its own.
//!
//! By hand it has the same binaries, configuration file, kind of volume, template and TLS, and no
//! sandbox and no limits; its client is beside it on loopback. The instance's client is beside it
//! too for the sandbox's part, and elsewhere for the published address.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::by_hand::{ByHand, Ground};
use super::client::{DATABASE, Entry, USER, with_password};
use super::engine::POSTGRESQL;
use super::instance::{Instance, Service};
use super::namespace::{Namespace, inside};
use super::row::{Limit, Pair, Row, Unit};
use super::running::{Likeness, Running};
use super::{Bench, Measure, Subject, turns};
use crate::process::Program;

/// Two processors, which is all of a small machine, and four GiB.
const FLAVOR: &str = "xlarge";
/// Room of the pool: two volumes and the template.
const POOL_GIB: u32 = 6;
/// Size of the tables; 15 MiB each.
const SCALE: &str = "10";
/// Clients at once.
const CLIENTS: &str = "4";
/// How long the two of a pair take together; unit: seconds.
const SECONDS: &str = "8";

/// Who owns the database by hand, as a group of the instance's owns it there.
const GROUP: &str = "app_owners";

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
    Ok(Box::new(Pgbench {
        rig: None,
        namespace: Namespace::alone("hand")?,
        service: Service::start(bench, "pgbench", POOL_GIB)?,
        bench: bench.clone(),
    }))
}

/// Makes the instance's user and database in the one by hand, with the rights they have in the
/// instance: what a superuser may is not looked at, which is 3% of a select, and a table that is
/// shared with a group has a list of rights to be looked at, which is 1% of a write.
fn make_user(namespace: &Namespace) -> Result<()> {
    let statements = [
        format!("CREATE ROLE {GROUP} NOLOGIN"),
        format!("CREATE ROLE {USER} LOGIN IN ROLE {GROUP}"),
        format!("CREATE DATABASE {DATABASE} OWNER {GROUP}"),
        format!("\\connect {DATABASE}"),
        format!("ALTER DEFAULT PRIVILEGES FOR ROLE {USER} GRANT ALL ON TABLES TO {GROUP}"),
    ];
    let line = "host=127.0.0.1 user=coffer dbname=template1";
    let mut words = vec!["psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", line];
    words.extend(statements.iter().flat_map(|one| ["-c", one]));
    namespace.program(&words).output().map(drop)
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

/// The instance's configuration and TLS files, for the one by hand.
fn likeness(running: &Running) -> Result<Likeness> {
    let named = [
        ("engine.conf", "config_file="),
        ("tls.crt", "ssl_cert_file="),
        ("tls.key", "ssl_key_file="),
    ];
    let read = |(file, setting): (&str, &str)| Ok((file.to_owned(), running.file_of(setting)?));
    Ok(Likeness {
        files: named.into_iter().map(read).collect::<Result<_>>()?,
        words: SETTINGS.iter().map(|&word| word.to_owned()).collect(),
        volume_gib: 1,
    })
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
    /// Lies in the pool of the service and in the namespace: it has to go first.
    rig: Option<Rig>,
    namespace: Namespace,
    service: Service,
    bench: Bench,
}

/// PostgreSQL twice: as an instance and by hand.
struct Rig {
    instance: Instance,
    /// The instance's network namespace.
    inside: PathBuf,
    hand: ByHand,
}

impl Pgbench {
    /// Both servers, new and filled. Each pair gets its own: where a process happens to lie in
    /// memory, and a table on the disk, is two or three percent for as long as it is there.
    fn renew(&mut self) -> Result<()> {
        if self.bench.is_smoke && self.rig.is_some() {
            return Ok(());
        }
        self.clear()?;
        let id = self.service.ask("measured", FLAVOR)?;
        let instance = self.service.answered(&id)?;
        let running = Running::of(&self.service, &POSTGRESQL)?;
        let ground = Ground::of(&self.service.coffer.state, &POSTGRESQL)?;
        let mut hand = ground.clone_in(&self.namespace, "pgbench", &likeness(&running)?)?;
        hand.answered_in(&self.namespace, Entry::Open)?;
        make_user(&self.namespace)?;
        self.rig = Some(Rig {
            instance,
            inside: running.namespace,
            hand,
        });
        let fill = ["-i", "-q", "-s", self.bench.size(SCALE, "1")];
        for at in [Where::Sandbox, Where::ByHand] {
            self.program(at, &fill)?.output()?;
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<()> {
        let Some(Rig { hand, instance, .. }) = self.rig.take() else {
            return Ok(());
        };
        hand.remove()?;
        self.service.delete(&[instance.id])
    }

    fn program(&self, at: Where, words: &[&str]) -> Result<Program> {
        let rig = self.rig.as_ref().context("find the servers")?;
        let program = |namespace: &Path, line: &str| -> Program {
            inside(namespace, &[&["pgbench"], words, &[line]].concat())
        };
        let program = match at {
            Where::Sandbox => program(&rig.inside, &self.service.line("127.0.0.1", "require")),
            Where::Published => {
                let line = self.service.line(&rig.instance.address, "verify-full");
                program(&self.service.client.path(), &line)
            }
            Where::ByHand => {
                let line = format!("host=127.0.0.1 user={USER} dbname={DATABASE} sslmode=require");
                program(&self.namespace.path(), &line)
            }
        };
        Ok(with_password(program))
    }

    fn load(&self, at: Where, row: &Row) -> Result<Program> {
        let seconds = self.bench.size(SECONDS, "1");
        let mut words = vec!["-n", "-M", "prepared", "-c", CLIENTS, "-T", seconds];
        if row.name.ends_with("-select") {
            words.push("-S");
        }
        self.program(at, &words)
    }
}

/// How many transactions a load has made.
fn read(text: &str) -> Result<f64> {
    const BEGIN: &str = "number of transactions actually processed: ";
    let number = text.lines().find_map(|line| line.strip_prefix(BEGIN));
    let number = number.and_then(|rest| rest.trim().parse().ok());
    number.with_context(|| format!("find what pgbench measured: {text}"))
}

impl Measure for Pgbench {
    fn pair(&mut self, row: &Row, is_ours_first: bool) -> Result<Pair> {
        let at = match row.name.starts_with("pgbench/published") {
            true => Where::Published,
            false => Where::Sandbox,
        };
        self.renew()?;
        let (ours, hand) = (self.load(at, row)?, self.load(Where::ByHand, row)?);
        turns::pair(ours, hand, is_ours_first, &self.service.coffer.state, read)
    }

    fn conditions(&self) -> String {
        format!(
            "{}, both servers new for each pair, PostgreSQL 17, the same configuration and TLS on \
             both sides, flavor `{FLAVOR}` (4 GiB, 2 processors), pgbench scale {SCALE}, prepared \
             statements, {}",
            turns::WORDS,
            self.service.volume_mode()
        )
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.clear()?;
        self.service.remove()
    }
}
