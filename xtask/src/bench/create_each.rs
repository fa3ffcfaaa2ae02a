//! Creating the engines beside PostgreSQL: from the request to the answer of the first query.
//!
//! Ours is what `create.rs` says: everything a tenant waits for. MySQL and MariaDB are compared
//! with their own making of a data directory and start by hand, which has no sandbox, no limits, no
//! TLS, no user, and a client on the same host. Redis and Valkey have nothing to make, so that
//! nearly all of the time is Coffer's; it is listed step by step.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};

use super::by_hand::Ground;
use super::client::Client;
use super::engine::{self, Engine};
use super::instance::Service;
use super::row::{Limit, Row, Unit};
use super::statistics::estimate;
use super::{Bench, Measure, Subject, steps};
use crate::process::Stopwatch;

/// Flavor of the instances: a quarter of a GiB and one processor.
const FLAVOR: &str = "tiny";
/// Room of the pool: for one of each engine, one by hand, and the templates.
const POOL_GIB: u32 = 8;
/// How all rows are named.
const CREATE: &str = "create/";

const WHAT: &str = "create to first query (TLS, published address, client elsewhere)";
/// The parts that a SQL engine's own making and start leave to be better than.
const SQL: Limit = Limit::RatioAtMost {
    floor: 0.7,
    goal: 0.3,
};
const KEY_VALUE: Limit = Limit::Goal(0.300);

const fn row(
    name: &'static str,
    what: &'static str,
    reference: &'static str,
    limit: Limit,
    pairs: usize,
) -> Row {
    Row {
        name,
        what,
        reference,
        unit: Unit::Seconds,
        limit,
        pairs,
    }
}

/// The rows of this file.
pub const SUBJECT: Subject = Subject {
    title: "Creating the other engines",
    rows: &[
        row(
            "create/mysql",
            WHAT,
            "`mysqld --initialize-insecure` and start by hand on the same kind of volume",
            SQL,
            7,
        ),
        row(
            "create/mariadb",
            WHAT,
            "`mariadb-install-db` and start by hand on the same kind of volume",
            SQL,
            7,
        ),
        row("create/redis", WHAT, "", KEY_VALUE, 21),
        row("create/valkey", WHAT, "", KEY_VALUE, 21),
    ],
    open,
};

fn open(bench: &Bench) -> Result<Box<dyn Measure>> {
    for engine in engine::ALL {
        engine.build(bench)?;
    }
    Ok(Box::new(CreateEach {
        bench: bench.clone(),
        service: bench.service("create-each", POOL_GIB)?,
        known: BTreeSet::new(),
        made: 0,
        parts: BTreeMap::new(),
    }))
}

struct CreateEach {
    bench: Bench,
    service: Service,
    /// Engines whose template is made.
    known: BTreeSet<&'static str>,
    /// Names by hand that are used up.
    made: usize,
    /// What each creating was made of, by the row.
    parts: BTreeMap<&'static str, Vec<Vec<(String, f64)>>>,
}

impl CreateEach {
    /// One from the request to its first answer, which is deleted again.
    fn one(&mut self, row: &Row) -> Result<f64> {
        let client = Client::of(engine_of(row)?)?;
        let service = &self.service;
        let watch = Stopwatch::start();
        let id = service.order(client.engine, "one", FLAVOR, 1)?;
        service.answered_by(&client, &id)?;
        let seconds = watch.elapsed().as_secs_f64();
        let steps = steps::of(&service.coffer.state.join("coffer.db"), &id, seconds)?;
        service.delete(&[id])?;
        self.parts.entry(row.name).or_default().push(steps);
        Ok(seconds)
    }

    fn by_hand(&mut self, engine: &'static Engine) -> Result<f64> {
        self.made += 1;
        let ground = Ground::of(&self.service.coffer.state, engine)?;
        let mut hand = ground.init(&format!("each-{}", self.made))?;
        let watch = Stopwatch::start();
        hand.go()?;
        hand.answered()?;
        let seconds = watch.elapsed().as_secs_f64();
        hand.remove()?;
        Ok(seconds)
    }
}

/// The engine of a row.
fn engine_of(row: &Row) -> Result<&'static Engine> {
    let name = row.name.strip_prefix(CREATE);
    engine::named(name.context("read a row's name")?)
}

impl Measure for CreateEach {
    fn ours(&mut self, row: &Row) -> Result<f64> {
        // The first one makes the template; a smoke run has no time for it to be apart.
        let is_first = self.known.insert(engine_of(row)?.name);
        if is_first && !self.bench.is_smoke {
            self.one(row)?;
            self.parts.remove(row.name);
        }
        self.one(row)
    }

    fn reference(&mut self, row: &Row) -> Result<f64> {
        self.by_hand(engine_of(row)?)
    }

    fn parts(&mut self, row: &Row) -> Vec<(String, f64)> {
        let all = self.parts.remove(row.name).unwrap_or_default();
        let Some(first) = all.first() else {
            return Vec::new();
        };
        let median = |step: &String| {
            let of_one = |one: &Vec<(String, f64)>| {
                let found = one.iter().find(|(name, _)| name == step);
                found.map(|(_, seconds)| *seconds)
            };
            estimate(&all.iter().filter_map(of_one).collect::<Vec<_>>()).median
        };
        let steps = first.iter().map(|(step, _)| step);
        steps.map(|step| (step.clone(), median(step))).collect()
    }

    fn conditions(&self) -> String {
        format!(
            "`coffer up` on SQLite, the versions that are offered first, flavor `{FLAVOR}` (256 \
             MiB, 1 processor), volumes of 1 GiB, {}; each step with its waits",
            self.service.volume_mode()
        )
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.bench.done(self.service)
    }
}
