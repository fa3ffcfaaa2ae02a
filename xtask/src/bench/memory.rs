//! Memory, as PSS: what a process has alone, and its part of what it shares with others.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::coffer::{Coffer, Login};
use super::http::{Connection, request};
use super::instance::Service;
use super::links::Links;
use super::row::{Limit, Row, Unit};
use super::{Bench, Measure, Subject};
use crate::process::{Program, Stopwatch, pause};

/// A KiB; unit: bytes.
pub const KIB: f64 = 1024.0;
/// A MiB; unit: bytes.
pub const MIB: f64 = 1024.0 * KIB;

/// Instances of the store that is not empty.
const ROWS: u32 = 10_000;
/// Links that are held, few and many; their difference is judged.
const LINKS: (u32, u32) = (10, 1_000);
/// How long links are held before memory is looked at: more than a long poll.
const HELD_SECONDS: u32 = 12;
/// How long a Coffer is asked for lists before its memory is looked at: more than the reconciler's
/// period, so that all that looks at every row has done so.
const ASKED: Duration = Duration::from_secs(20);
/// How long a guest has been idle.
const IDLE: Duration = Duration::from_secs(5);

const EMPTY: &str = "memory/empty";
const ROW: &str = "memory/row";
const LINK: &str = "memory/link";
const GUEST: &str = "memory/guest";

const fn row(name: &'static str, what: &'static str, most: f64) -> Row {
    Row {
        name,
        what,
        reference: "",
        unit: Unit::Bytes,
        limit: Limit::AtMost(most),
        pairs: 6,
    }
}

/// The rows of this file.
pub const SUBJECT: Subject = Subject {
    title: "Memory (PSS)",
    rows: &[
        row(EMPTY, "`coffer up` without instances, in use", 40.0 * MIB),
        row(
            ROW,
            "more of `coffer up` for each of 10,000 instances",
            12.0 * KIB,
        ),
        row(
            LINK,
            "more of the conductor for each held link, from 10 to 1,000 real agents",
            25.0 * KIB,
        ),
        row(GUEST, "agent and init of an instance together", 8.0 * MIB),
    ],
    open,
};

fn open(bench: &Bench) -> Result<Box<dyn Measure>> {
    Ok(Box::new(Memory {
        bench: bench.clone(),
        empty: None,
        filled: None,
        links: None,
        service: None,
    }))
}

/// What the rows need is made when the first of them is measured.
struct Memory {
    bench: Bench,
    empty: Option<Coffer>,
    filled: Option<Coffer>,
    links: Option<(Links, Links)>,
    service: Option<Service>,
}

impl Memory {
    fn empty(&mut self) -> Result<f64> {
        let bench = &self.bench;
        let coffer = match &mut self.empty {
            Some(coffer) => {
                coffer.restart(bench, "up", SMALL)?;
                coffer
            }
            empty => empty.insert(Coffer::start(bench, "empty", "up", SMALL)?),
        };
        in_use(bench, coffer)
    }

    fn filled(&mut self) -> Result<f64> {
        let bench = &self.bench;
        let coffer = match &mut self.filled {
            Some(coffer) => coffer,
            filled => filled.insert(fill(bench)?),
        };
        // Not what filling it took, but what having it takes.
        coffer.restart(bench, "up", SMALL)?;
        in_use(bench, coffer)
    }

    fn row(&mut self) -> Result<f64> {
        let empty = self.empty()?;
        let more = self.filled()? - empty;
        Ok(more / f64::from(self.rows()))
    }

    fn rows(&self) -> u32 {
        self.bench.size(ROWS, 100)
    }

    fn link(&mut self) -> Result<f64> {
        let (few, many) = self.bench.size(LINKS, (2, 20));
        let links = match &self.links {
            Some(links) => links,
            None => self.links.insert((
                Links::start(&self.bench, "few", few, false)?,
                Links::start(&self.bench, "many", many, false)?,
            )),
        };
        let seconds = self.bench.size(HELD_SECONDS, 1);
        let few_held = links.0.hold(seconds)?.pss_bytes;
        let many_held = links.1.hold(seconds)?.pss_bytes;
        Ok((many_held - few_held) / f64::from(many - few))
    }

    fn guest(&mut self) -> Result<f64> {
        let service = match &self.service {
            Some(service) => service,
            None => {
                let service = Service::start(&self.bench, "guest", 4)?;
                let id = service.ask("guest", "small")?;
                service.answered(&id)?;
                pause(self.bench.size(IDLE, Duration::from_millis(100)));
                self.service.insert(service)
            }
        };
        let pids = service.processes("coffer-guest")?;
        anyhow::ensure!(pids.len() == 2, "agent and init are {pids:?}");
        pids.into_iter().map(pss).sum()
    }
}

/// A pool that costs nothing: nothing is made in it.
const SMALL: &[&str] = &["--set", "local.cow_pool_gib=4"];

/// A Coffer whose store is full of instances that nobody has to look after.
fn fill(bench: &Bench) -> Result<Coffer> {
    let coffer = Coffer::start(bench, "filled", "up", SMALL)?;
    let login = coffer.login()?;
    let count = bench.size(ROWS, 100).to_string();
    let database = coffer.state.join("coffer.db").display().to_string();
    let words = [&database, &login.project_id, &count];
    Program::new(bench.built.join("examples/seed_instances"), &words).output()?;
    Ok(coffer)
}

/// Memory of a Coffer after logins and lists of every page, and after its periodic work.
pub fn in_use(bench: &Bench, coffer: &Coffer) -> Result<f64> {
    let login = coffer.login()?;
    let time = bench.size(ASKED, Duration::from_millis(500));
    let watch = Stopwatch::start();
    let mut connection = Connection::open(coffer.address)?;
    let mut marker = None;
    while watch.elapsed() < time {
        marker = next_page(&mut connection, &login, marker.as_deref())?;
        pause(Duration::from_millis(5));
    }
    pss(coffer.pid())
}

/// Asks for a page; gives the marker of the one after it.
fn next_page(
    connection: &mut Connection,
    login: &Login,
    marker: Option<&str>,
) -> Result<Option<String>> {
    let after = marker.map(|id| format!("?marker={id}")).unwrap_or_default();
    let path = format!("/v1.0/{}/instances{after}", login.project_id);
    connection.send(&request("GET", &path, &[&login.header], ""))?;
    let answer = connection.answer()?;
    anyhow::ensure!(answer.status == 200, "a list is answered {}", answer.status);
    let body: serde_json::Value = serde_json::from_slice(&answer.body).context("read a list")?;
    let last = body["instances"].as_array().and_then(|rows| rows.last());
    Ok(last.and_then(|row| Some(row["id"].as_str()?.to_owned())))
}

/// Memory of a process; unit: bytes.
pub fn pss(pid: u32) -> Result<f64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    let kib: f64 = kib.context("find Pss")?.parse().context("read Pss")?;
    Ok(kib * KIB)
}

impl Measure for Memory {
    fn ours(&mut self, row: &Row) -> Result<f64> {
        match row.name {
            EMPTY => self.empty(),
            ROW => self.row(),
            LINK => self.link(),
            _ => self.guest(),
        }
    }

    fn conditions(&self) -> String {
        "SQLite; rows after 20 s of lists over all pages; agents are real ones over real sockets \
         with mutual TLS, their engines in memory"
            .to_owned()
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Self {
            empty,
            filled,
            service,
            ..
        } = *self;
        empty.map_or(Ok(()), Coffer::remove)?;
        filled.map_or(Ok(()), Coffer::remove)?;
        service.map_or(Ok(()), Service::remove)
    }
}
