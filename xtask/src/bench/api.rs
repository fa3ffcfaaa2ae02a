//! The API on SQLite: lists and single views, against the server's own health check.
//!
//! Three servers with 10, 1,000 and 10,000 instances of one project answer in turns. Transport is
//! plain HTTP on loopback for all rows alike: TLS would cost both sides of a ratio the same and
//! make it look better.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::coffer::{Coffer, Login};
use super::http::{Connection, Load, request};
use super::row::{Limit, Pair, Row, Unit};
use super::turns::{self, TURN};
use super::{Bench, Measure, Subject};
use crate::process::{Program, Stopwatch};

/// How long a row is asked for in one half of a pair.
const TIME: Duration = Duration::from_millis(300);
/// Instances whose single views are asked for in turn.
const SHOWN: usize = 20;
/// Instances of the three servers.
const SIZES: [u32; 3] = [10, 1_000, 10_000];

/// Instances of the lists that are compared between servers: fewer than the smallest has, so that
/// both answers say that there are more.
const PAGE: u32 = 9;

const HEALTH: &str = "the server's /healthcheck at as many connections";
const SMALL: &str = "the same answer at 10 rows";

const LIST: Limit = Limit::RatioAtLeast {
    floor: 1.0 / 12.0,
    goal: 1.0 / 6.0,
};
const SHOW: Limit = Limit::RatioAtLeast {
    floor: 1.0 / 4.0,
    goal: 1.0 / 3.0,
};
const AS_FAST: Limit = Limit::RatioAtLeast {
    floor: 0.9,
    goal: 1.0,
};

const fn row(name: &'static str, what: &'static str, reference: &'static str, limit: Limit) -> Row {
    Row {
        name,
        what,
        reference,
        unit: Unit::PerSecond,
        limit,
        pairs: 9,
    }
}

/// The rows of this file.
pub const SUBJECT: Subject = Subject {
    title: "API",
    rows: &[
        row(
            "api/list-64",
            "list of 20 of 10,000, 64 connections",
            HEALTH,
            LIST,
        ),
        row(
            "api/show-64",
            "show of one of 10,000, 64 connections",
            HEALTH,
            SHOW,
        ),
        row(
            "api/list-16",
            "list of 20 of 10,000, 16 connections",
            HEALTH,
            Limit::Shown,
        ),
        row(
            "api/show-16",
            "show of one of 10,000, 16 connections",
            HEALTH,
            Limit::Shown,
        ),
        row(
            "api/list-1",
            "list of 20 of 10,000, 1 connection",
            HEALTH,
            Limit::Shown,
        ),
        row(
            "api/show-1",
            "show of one of 10,000, 1 connection",
            HEALTH,
            Limit::Shown,
        ),
        row(
            "api/list-1000-64",
            "list of 20 of 1,000, 64 connections",
            HEALTH,
            Limit::Shown,
        ),
        row(
            "api/list-1000-16",
            "list of 20 of 1,000, 16 connections",
            HEALTH,
            Limit::Shown,
        ),
        row(
            "api/list-1000-1",
            "list of 20 of 1,000, 1 connection",
            HEALTH,
            Limit::Shown,
        ),
        row(
            "api/list-10-64",
            "list of 20 of 10, which is 10, 64 connections",
            HEALTH,
            Limit::Shown,
        ),
        row(
            "api/list-10-16",
            "list of 20 of 10, which is 10, 16 connections",
            HEALTH,
            Limit::Shown,
        ),
        row(
            "api/list-10-1",
            "list of 20 of 10, which is 10, 1 connection",
            HEALTH,
            Limit::Shown,
        ),
        row(
            "api/list-flat-64",
            "list of 9 of 10,000, 64 connections",
            SMALL,
            AS_FAST,
        ),
        row(
            "api/list-flat-16",
            "list of 9 of 10,000, 16 connections",
            SMALL,
            AS_FAST,
        ),
        row(
            "api/list-flat-1",
            "list of 9 of 10,000, 1 connection",
            SMALL,
            AS_FAST,
        ),
    ],
    open,
};

fn open(bench: &Bench) -> Result<Box<dyn Measure>> {
    let sizes = bench.size(SIZES, [10, 20, 30]);
    let [small, middle, large] = sizes.map(|size| Served::start(bench, size));
    Ok(Box::new(Api {
        small: small?,
        middle: middle?,
        large: large?,
        time: bench.size(TIME, Duration::from_millis(20)),
    }))
}

struct Api {
    small: Served,
    middle: Served,
    large: Served,
    time: Duration,
}

/// A server with its instances.
struct Served {
    coffer: Coffer,
    login: Login,
    instances: Vec<String>,
}

impl Served {
    fn start(bench: &Bench, size: u32) -> Result<Self> {
        let coffer = Coffer::start(bench, &format!("api-{size}"), "api", &[])?;
        let login = coffer.login()?;
        let seed = bench.built.join("examples/seed_instances");
        let database = coffer.state.join("coffer.db").display().to_string();
        let count = size.to_string();
        Program::new(seed, &[&database, &login.project_id, &count]).output()?;
        let mut served = Self {
            coffer,
            login,
            instances: Vec::new(),
        };
        served.instances = served.first_page()?;
        Ok(served)
    }

    /// Ids on the first page, which has to be as full as it can be.
    fn first_page(&self) -> Result<Vec<String>> {
        let mut connection = Connection::open(self.coffer.address)?;
        connection.send(&self.get("/instances"))?;
        let answer = connection.answer()?;
        let body: Value = serde_json::from_slice(&answer.body).context("read a list")?;
        let rows = body["instances"].as_array().context("find the instances")?;
        let ids: Option<Vec<_>> = rows
            .iter()
            .map(|row| row["id"].as_str().map(str::to_owned))
            .collect();
        match ids {
            Some(ids) if ids.len() >= SHOWN / 2 => Ok(ids),
            _ => bail!("the list is not full: {}", rows.len()),
        }
    }

    fn get(&self, path: &str) -> Vec<u8> {
        let path = format!("/v1.0/{}{path}", self.login.project_id);
        request("GET", &path, &[&self.login.header], "")
    }

    fn list(&self, limit: u32) -> Vec<Vec<u8>> {
        vec![self.get(&format!("/instances?limit={limit}"))]
    }

    fn shows(&self) -> Vec<Vec<u8>> {
        let show = |id: &String| self.get(&format!("/instances/{id}"));
        self.instances.iter().map(show).collect()
    }
}

impl Api {
    /// What a row asks a server, over as many connections as its name says.
    fn asker(served: &Served, requests: Vec<Vec<u8>>, row: &Row) -> Result<Asker> {
        let (_, connections) = row.name.rsplit_once('-').context("read a row's name")?;
        let connections = connections.parse().context("read a row's name")?;
        Ok(Asker {
            load: Load::open(served.coffer.address, connections)?,
            requests,
            rates: Vec::new(),
        })
    }

    fn ask_ours(&self, row: &Row) -> Result<Asker> {
        let served = self.server(row);
        let requests = match row.name {
            name if name.starts_with("api/list-flat") => served.list(PAGE),
            name if name.starts_with("api/list") => served.list(20),
            _ => served.shows(),
        };
        Self::asker(served, requests, row)
    }

    fn ask_reference(&self, row: &Row) -> Result<Asker> {
        let health = || vec![request("GET", "/healthcheck", &[], "")];
        match row.reference {
            SMALL => Self::asker(&self.small, self.small.list(PAGE), row),
            _ => Self::asker(self.server(row), health(), row),
        }
    }

    /// The server that a row asks.
    fn server(&self, row: &Row) -> &Served {
        match row.name {
            name if name.starts_with("api/list-10-") => &self.small,
            name if name.starts_with("api/list-1000-") => &self.middle,
            _ => &self.large,
        }
    }
}

/// What asks for one side of a pair.
struct Asker {
    load: Load,
    requests: Vec<Vec<u8>>,
    /// Answers a second, turn by turn.
    rates: Vec<f64>,
}

impl Asker {
    fn take_turn(&mut self) -> Result<()> {
        let rate = self.load.run(&self.requests, TURN)?;
        self.rates.push(rate);
        Ok(())
    }

    /// Turns are alike in length, so that their mean is the whole's rate.
    fn rate(&self) -> f64 {
        let turns = u32::try_from(self.rates.len()).unwrap_or(u32::MAX);
        self.rates.iter().sum::<f64>() / f64::from(turns.max(1))
    }
}

impl Measure for Api {
    fn pair(&mut self, row: &Row, is_ours_first: bool) -> Result<Pair> {
        let (mut ours, mut reference) = (self.ask_ours(row)?, self.ask_reference(row)?);
        let watch = Stopwatch::start();
        while watch.elapsed() < self.time * 2 {
            for is_ours in [is_ours_first, !is_ours_first] {
                match is_ours {
                    true => ours.take_turn()?,
                    false => reference.take_turn()?,
                }
            }
        }
        Ok(Pair {
            ours: ours.rate(),
            reference: Some(reference.rate()),
        })
    }

    fn conditions(&self) -> String {
        format!(
            "{}, `coffer api` on SQLite, every request with a token, plain HTTP on loopback, the \
             client a process of one thread on the same machine",
            turns::WORDS
        )
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Self {
            small,
            middle,
            large,
            ..
        } = *self;
        for served in [small, middle, large] {
            served.coffer.remove()?;
        }
        Ok(())
    }
}
