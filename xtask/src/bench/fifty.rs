//! Fifty instances at once, ten of each engine in the smallest flavor: what they and Coffer have of
//! memory while nobody asks for anything, and what their users notice of work on Coffer itself.
//!
//! A volume may be filled, so Coffer takes no more of them than its pool has room for. Nothing is
//! filled here: the pool is as large as is asked, and has on the disk what is written.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

use super::client::{Client, Entry, Place, with_password};
use super::engine::{self, ALL, Engine};
use super::instance::{Instance, Service};
use super::load::Load;
use super::memory::{self, KIB, MIB};
use super::row::{Limit, Row, Unit};
use super::{Bench, Measure, Subject};
use crate::process::{Program, pause};

/// Instances of each engine.
const EACH: usize = 10;
/// Flavor of the instances: a quarter of a GiB and one processor.
const FLAVOR: &str = "tiny";
/// How long they are left alone before their memory is looked at.
const IDLE: Duration = Duration::from_secs(20);
/// How long a load is looked at, or longer if the work takes longer.
const WINDOW: Duration = Duration::from_secs(10);
/// Takes the last migration of a store back, as the end-to-end test of `coffer upgrade` does.
const OLDER: &str = "tests/e2e/tests/it/python/older_store.py";

const COFFER: &str = "fifty/coffer";
const UPGRADE: &str = "fifty/upgrade";
const BACKUP: &str = "fifty/backup";

/// An empty Coffer's, and what is promised for each row and each held link.
const COFFER_MOST: f64 = 40.0 * MIB + 50.0 * (12.0 + 25.0) * KIB;

const fn idle(name: &'static str, most_mib: f64) -> Row {
    Row {
        name,
        what: "an idle engine in the smallest flavor, without the guest, mean of ten",
        reference: "",
        unit: Unit::Bytes,
        limit: Limit::Goal(most_mib * MIB),
        pairs: 6,
    }
}

const fn noticed(name: &'static str, what: &'static str) -> Row {
    Row {
        name,
        what,
        reference: "the same load with nothing going on",
        unit: Unit::Seconds,
        limit: Limit::RatioAtMost {
            floor: 1.5,
            goal: 1.5,
        },
        pairs: 6,
    }
}

/// The rows of this file.
pub const SUBJECT: Subject = Subject {
    title: "Fifty instances (PSS, and what users notice)",
    rows: &[
        Row {
            name: COFFER,
            what: "`coffer up` with 50 idle instances and their links, in use",
            reference: "",
            unit: Unit::Bytes,
            limit: Limit::AtMost(COFFER_MOST),
            pairs: 6,
        },
        idle("fifty/postgresql", 30.0),
        idle("fifty/mysql", 220.0),
        idle("fifty/mariadb", 80.0),
        idle("fifty/redis", 10.0),
        idle("fifty/valkey", 10.0),
        noticed(
            UPGRADE,
            "99th percentile of queries to all of them, none failed, while Coffer is stopped, \
             upgraded and started",
        ),
        noticed(
            BACKUP,
            "99th percentile of queries to all of them, none failed, during `coffer state backup`",
        ),
    ],
    open,
};

fn open(bench: &Bench) -> Result<Box<dyn Measure>> {
    for engine in ALL {
        engine.build(bench)?;
    }
    let mut made = Fifty {
        load: None,
        instances: Vec::new(),
        is_idle: false,
        service: bench.wide_service("fifty")?,
        bench: bench.clone(),
    };
    for engine in ALL {
        made.add(engine)?;
    }
    Ok(Box::new(made))
}

struct Fifty {
    /// Its clients have connections to the instances: they go first.
    load: Option<Load>,
    instances: Vec<(Client, Instance)>,
    /// Whether they have been left alone.
    is_idle: bool,
    service: Service,
    bench: Bench,
}

impl Fifty {
    /// Makes the instances of an engine, all at once.
    fn add(&mut self, engine: &'static Engine) -> Result<()> {
        let client = Client::of(engine)?;
        let order = |number| {
            let name = format!("{}-{number}", engine.name);
            self.service.order(engine, &name, FLAVOR, 1)
        };
        let ids: Vec<String> = (0..self.each()).map(order).collect::<Result<_>>()?;
        for id in ids {
            let instance = self.service.answered_by(&client, &id)?;
            self.instances.push((client.clone(), instance));
        }
        Ok(())
    }

    fn each(&self) -> usize {
        self.bench.size(EACH, 1)
    }

    fn rest(&mut self) {
        if !self.is_idle {
            pause(self.bench.size(IDLE, Duration::from_millis(100)));
            self.is_idle = true;
        }
    }

    /// Memory of `coffer up`: not what making them took, but what having them takes.
    fn coffer(&mut self) -> Result<f64> {
        self.service.restart(&self.bench)?;
        memory::in_use(&self.bench, &self.service.coffer)
    }

    /// Memory of an engine, the mean over its instances.
    fn engine(&mut self, row: &Row) -> Result<f64> {
        self.rest();
        let (_, name) = row.name.split_once('/').context("read a row's name")?;
        let engine = engine::named(name)?;
        let pids = self.service.processes(engine.process)?;
        let sum: f64 = pids.into_iter().map(memory::pss).sum::<Result<f64>>()?;
        let count = u32::try_from(self.each()).context("count instances")?;
        Ok(sum / f64::from(count))
    }

    /// Begins to ask every instance.
    fn load(&mut self) -> Result<()> {
        if self.load.is_some() {
            return Ok(());
        }
        let (service, mut clients) = (&self.service, Vec::new());
        for (client, instance) in &self.instances {
            let place = Place {
                address: &instance.address,
                port: client.engine.port,
                entry: Entry::Checked(service.ca()),
            };
            let state = &service.coffer.state;
            let words = client.words(place, state)?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let log = state.join(format!("client-{}.log", instance.id));
            let program = with_password(service.client.program(&words));
            // Elsewhere nobody shares a processor with Coffer.
            let dialogue = program.in_session().talk(&log)?;
            let name = format!("{} {}", client.engine.title, instance.id);
            clients.push((name, client.clone(), dialogue));
        }
        self.load = Some(Load::start(clients)?);
        Ok(())
    }

    fn window(&self) -> Duration {
        self.bench.size(WINDOW, Duration::from_secs(1))
    }

    fn loaded(&mut self, work: fn(&Bench, &mut Service) -> Result<()>) -> Result<f64> {
        self.load()?;
        let window = self.window();
        let load = self.load.as_ref().context("find the load")?;
        let (bench, service) = (&self.bench, &mut self.service);
        load.during(window, || work(bench, service))
    }
}

/// Stops Coffer, upgrades its store, which is made an older one, and starts it.
fn upgrade(bench: &Bench, service: &mut Service) -> Result<()> {
    service.coffer.stop()?;
    let state = service.coffer.state.display().to_string();
    let store = service.coffer.state.join("coffer.db").display().to_string();
    let older = bench.root.join(OLDER).display().to_string();
    Program::new("python3", &[&older, &store])
        .in_session()
        .output()?;
    let words = ["upgrade", "--state-dir", &state];
    let coffer = Program::new(bench.built.join("coffer"), &words);
    let said = coffer.in_session().output()?;
    anyhow::ensure!(said.contains("was brought from schema"), "{said}");
    service.restart(bench)
}

/// Backs the state up, once.
fn back_up(bench: &Bench, service: &mut Service) -> Result<()> {
    let dir = service.coffer.state.join("backups");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let state = service.coffer.state.display().to_string();
    let target = dir.display().to_string();
    let words = ["state", "--state-dir", &state, "backup", &target];
    let coffer = Program::new(bench.built.join("coffer"), &words);
    let file = coffer.in_session().output()?;
    fs::remove_file(file.trim()).with_context(|| format!("remove '{}'", file.trim()))
}

impl Measure for Fifty {
    fn ours(&mut self, row: &Row) -> Result<f64> {
        match row.name {
            COFFER => self.coffer(),
            UPGRADE => self.loaded(upgrade),
            BACKUP => self.loaded(back_up),
            _ => self.engine(row),
        }
    }

    fn reference(&mut self, _row: &Row) -> Result<f64> {
        self.load()?;
        let load = self.load.as_ref().context("find the load")?;
        load.alone(self.window())
    }

    fn conditions(&self) -> String {
        format!(
            "ten of each engine in flavor `{FLAVOR}` (256 MiB, 1 processor) on SQLite, {} in a \
             file that grows; a client of each instance elsewhere, over TLS at its published \
             address, that asks ten times a second; upgrades and backups one after the other",
            self.service.volume_mode()
        )
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Self {
            load,
            service,
            bench,
            ..
        } = *self;
        drop(load);
        bench.done(service)
    }
}
