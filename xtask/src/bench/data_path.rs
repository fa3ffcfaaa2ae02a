//! The data path of the engines beside PostgreSQL: sysbench against MySQL and MariaDB, and the
//! benchmark of Redis's and Valkey's own against these; each against the same engine by hand in a
//! network namespace of its own, as `pgbench.rs` does.
//!
//! By hand it has the instance's own command line, configuration, TLS files and users, the same
//! binaries, kind of volume and template, and no sandbox and no limits. One engine is there at a
//! time, because all of them together would wait for one another.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::by_hand::{ByHand, Ground};
use super::client::{Client, Entry, with_password};
use super::engine::{self, Engine};
use super::instance::{Instance, Service};
use super::namespace::{Namespace, inside};
use super::row::{Limit, Pair, Row, Unit};
use super::running::Running;
use super::{Bench, Measure, Subject, key_value, sysbench, turns};
use crate::process::Program;

/// Two processors, which is all of a small machine, and four GiB.
const FLAVOR: &str = "xlarge";
/// Size of a volume: MySQL's and MariaDB's binary logs are kept for a day; unit: GiB.
const VOLUME_GIB: u32 = 4;
/// Room of the pool: an instance, one by hand, and the templates.
const POOL_GIB: u32 = 12;
/// How all rows are named: `data/ENGINE-KIND-PLACE`.
const DATA: &str = "data/";

const REFERENCE: &str = "the same engine by hand in its own namespace";

const fn row(name: &'static str, what: &'static str, floor: f64, goal: f64) -> Row {
    Row {
        name,
        what,
        reference: REFERENCE,
        unit: Unit::PerSecond,
        limit: Limit::RatioAtLeast { floor, goal },
        pairs: 6,
    }
}

const SELECT_INSIDE: &str = "sysbench oltp_point_select in the sandbox, 4 clients beside it";
const SELECT_OUTSIDE: &str =
    "sysbench oltp_point_select at the published address, 4 clients elsewhere";
const WRITE_INSIDE: &str = "sysbench oltp_read_write in the sandbox, 4 clients beside it";
const WRITE_OUTSIDE: &str =
    "sysbench oltp_read_write at the published address, 4 clients elsewhere";
const PLAIN_INSIDE: &str = "SET and GET in the sandbox, 50 clients beside it";
const PLAIN_OUTSIDE: &str = "SET and GET at the published address, 50 clients elsewhere";
const PIPED_INSIDE: &str = "the same by 16 in a pipeline (-P 16), in the sandbox";
const PIPED_OUTSIDE: &str = "the same by 16 in a pipeline (-P 16), at the published address";

/// The rows of this file.
pub const SUBJECT: Subject = Subject {
    title: "Data path of the other engines",
    rows: &[
        row("data/mysql-select-sandbox", SELECT_INSIDE, 0.97, 0.97),
        row("data/mysql-select-published", SELECT_OUTSIDE, 0.9, 0.9),
        row("data/mysql-write-sandbox", WRITE_INSIDE, 0.97, 0.97),
        row("data/mysql-write-published", WRITE_OUTSIDE, 0.9, 0.9),
        row("data/mariadb-select-sandbox", SELECT_INSIDE, 0.97, 0.97),
        row("data/mariadb-select-published", SELECT_OUTSIDE, 0.9, 0.9),
        row("data/mariadb-write-sandbox", WRITE_INSIDE, 0.97, 0.97),
        row("data/mariadb-write-published", WRITE_OUTSIDE, 0.9, 0.9),
        row("data/redis-plain-sandbox", PLAIN_INSIDE, 0.97, 0.97),
        row("data/redis-plain-published", PLAIN_OUTSIDE, 0.5, 0.65),
        row("data/redis-piped-sandbox", PIPED_INSIDE, 0.97, 0.97),
        row("data/redis-piped-published", PIPED_OUTSIDE, 0.9, 0.9),
        row("data/valkey-plain-sandbox", PLAIN_INSIDE, 0.97, 0.97),
        row("data/valkey-plain-published", PLAIN_OUTSIDE, 0.5, 0.65),
        row("data/valkey-piped-sandbox", PIPED_INSIDE, 0.97, 0.97),
        row("data/valkey-piped-published", PIPED_OUTSIDE, 0.9, 0.9),
    ],
    open,
};

fn open(bench: &Bench) -> Result<Box<dyn Measure>> {
    for engine in engine::ALL {
        engine.build(bench)?;
    }
    Ok(Box::new(DataPath {
        rig: None,
        namespace: Namespace::alone("hand-data")?,
        service: bench.service("data", POOL_GIB)?,
        bench: bench.clone(),
    }))
}

struct DataPath {
    /// Lies in the pool of the service and in the namespace: it has to go first.
    rig: Option<Rig>,
    namespace: Namespace,
    service: Service,
    bench: Bench,
}

/// An engine twice: as an instance and by hand.
struct Rig {
    client: Client,
    instance: Instance,
    /// The instance's network namespace.
    inside: PathBuf,
    hand: ByHand,
}

/// A server, from where its clients are.
#[derive(Debug)]
pub struct Target<'a> {
    /// Where the clients are.
    pub namespace: PathBuf,
    /// Where they find it.
    pub address: &'a str,
    /// Its port.
    pub port: u16,
    /// The file with the authority's certificate.
    pub ca: &'a Path,
}

impl Target<'_> {
    /// A program of a client's.
    pub fn program(&self, words: &[String]) -> Program {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        with_password(inside(&self.namespace, &words))
    }

    /// What a program of a client's prints.
    pub fn output(&self, words: &[String]) -> Result<String> {
        self.program(words).output()
    }
}

/// What a row's name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked<'a> {
    engine: &'a str,
    kind: &'a str,
    is_published: bool,
}

impl<'a> Asked<'a> {
    fn read(name: &'a str) -> Option<Self> {
        let mut words = name.strip_prefix(DATA)?.split('-');
        let (engine, kind, place) = (words.next()?, words.next()?, words.next()?);
        Some(Self {
            engine,
            kind,
            is_published: place == "published",
        })
    }
}

impl DataPath {
    /// The engine of a row twice, new and filled, as `pgbench.rs` has it for each pair.
    fn renew(&mut self, name: &str) -> Result<()> {
        let is_there = |rig: &Rig| rig.client.engine.name == name;
        if self.bench.is_smoke && self.rig.as_ref().is_some_and(is_there) {
            return Ok(());
        }
        self.clear()?;
        let client = Client::of(engine::named(name)?)?;
        let engine = client.engine;
        let service = &self.service;
        let id = service.order(engine, "measured", FLAVOR, VOLUME_GIB)?;
        let instance = service.answered_by(&client, &id)?;
        if !engine.has_databases {
            service.enable_root(&id)?;
        }
        let running = Running::of(service, engine)?;
        let likeness = running.likeness(engine, VOLUME_GIB)?;
        let ground = Ground::of(&service.coffer.state, engine)?;
        let mut hand = ground.clone_in(&self.namespace, "data", &likeness)?;
        hand.answered_in(&self.namespace, Entry::Encrypted(service.ca()))?;
        let rig = self.rig.insert(Rig {
            client,
            instance,
            inside: running.namespace,
            hand,
        });
        if engine.has_databases {
            for target in [
                rig.sandbox(service),
                by_hand(&self.namespace, service, engine),
            ] {
                sysbench::prepare(&target, self.bench.is_smoke)?;
            }
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

    /// Both sides by turns; the rates of the one and of the other.
    fn rates(&mut self, row: &Row, is_ours_first: bool) -> Result<Pair> {
        let asked = Asked::read(row.name).context("read a row's name")?;
        self.renew(asked.engine)?;
        let rig = self.rig.as_ref().context("find the engine")?;
        let (client, service) = (&rig.client, &self.service);
        let instance = match asked.is_published {
            true => rig.published(service),
            false => rig.sandbox(service),
        };
        let hand = by_hand(&self.namespace, service, client.engine);
        let is_smoke = self.bench.is_smoke;
        let load = |target: &Target<'_>| asked.load(client, target, is_smoke);
        let dir = &service.coffer.state;
        turns::pair(load(&instance), load(&hand), is_ours_first, dir, |text| {
            asked.count(text, is_smoke)
        })
    }
}

impl Asked<'_> {
    fn load(self, client: &Client, target: &Target<'_>, is_smoke: bool) -> Program {
        match self.kind {
            "select" => sysbench::load(target, "oltp_point_select", is_smoke),
            "write" => sysbench::load(target, "oltp_read_write", is_smoke),
            _ => key_value::load(client, target, self.depth(), is_smoke),
        }
    }

    /// How much a load has done that has printed this.
    fn count(self, text: &str, is_smoke: bool) -> Result<f64> {
        match self.kind {
            "select" | "write" => sysbench::read(text),
            _ => key_value::read(text, self.depth(), is_smoke),
        }
    }

    /// Requests in a pipeline.
    fn depth(self) -> u32 {
        match self.kind {
            "plain" => 1,
            _ => 16,
        }
    }
}

impl Rig {
    /// The instance, from beside it.
    fn sandbox<'a>(&self, service: &'a Service) -> Target<'a> {
        Target {
            namespace: self.inside.clone(),
            address: "127.0.0.1",
            port: self.client.engine.port,
            ca: service.ca(),
        }
    }

    /// The instance, from elsewhere.
    fn published<'a>(&'a self, service: &'a Service) -> Target<'a> {
        Target {
            namespace: service.client.path(),
            address: &self.instance.address,
            port: self.client.engine.port,
            ca: service.ca(),
        }
    }
}

/// The one by hand, from beside it.
fn by_hand<'a>(namespace: &Namespace, service: &'a Service, engine: &Engine) -> Target<'a> {
    Target {
        namespace: namespace.path(),
        address: "127.0.0.1",
        port: engine.port,
        ca: service.ca(),
    }
}

impl Measure for DataPath {
    fn pair(&mut self, row: &Row, is_ours_first: bool) -> Result<Pair> {
        self.rates(row, is_ours_first)
    }

    fn conditions(&self) -> String {
        format!(
            "{}, both servers new for each pair, the versions that are offered first, the same \
             command line, configuration and TLS on both sides, flavor `{FLAVOR}` (4 GiB, 2 \
             processors), volumes of {VOLUME_GIB} GiB, sysbench 1.0 with {}, redis-benchmark and \
             valkey-benchmark of the engine's own version with {} keys, {}",
            turns::WORDS,
            sysbench::SIZE_WORDS,
            key_value::KEYS,
            self.service.volume_mode()
        )
    }

    fn close(mut self: Box<Self>) -> Result<()> {
        self.clear()?;
        let Self { service, bench, .. } = *self;
        bench.done(service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_names_what_is_measured() {
        for row in SUBJECT.rows {
            let asked = Asked::read(row.name).unwrap();
            let has_databases = engine::named(asked.engine).unwrap().has_databases;
            let kinds = match has_databases {
                true => ["select", "write"],
                false => ["plain", "piped"],
            };
            assert!(kinds.contains(&asked.kind), "{}", row.name);
            assert_eq!(asked.is_published, row.name.ends_with("-published"));
        }
    }
}
