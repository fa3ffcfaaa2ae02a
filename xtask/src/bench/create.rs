//! Creating: from the request to the answer of the first query, one and ten at once.
//!
//! Ours is everything a tenant waits for: the API, the volume, the sandbox, a database and a user
//! of their own, and a client in a namespace of its own that asks over TLS at the published
//! address.
//! By hand is less: no sandbox, no limits, no TLS, no user, and a client on the same host.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::by_hand::Ground;
use super::engine::POSTGRESQL;
use super::http::Connection;
use super::instance::Service;
use super::row::{Limit, Row, Unit};
use super::statistics::percentile;
use super::{Bench, Measure, Subject};
use crate::process::{Stopwatch, pause};

/// Instances made at once.
const AT_ONCE: usize = 10;
/// Time between two questions to the API meanwhile.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// Flavor of the instances: half a GiB and one processor.
const FLAVOR: &str = "small";
/// Room of the pool: for those at once, those by hand, and the template.
const POOL_GIB: u32 = 24;

const ONE: &str = "create/first-query";
const TEN: &str = "create/ten";
const API: &str = "create/api-p99";

/// The rows of this file.
pub const SUBJECT: Subject = Subject {
    title: "Creating PostgreSQL",
    rows: &[
        Row {
            name: ONE,
            what: "create to first query (TLS, published address, client elsewhere)",
            reference: "initdb and start by hand on the same kind of volume",
            unit: Unit::Seconds,
            limit: Limit::RatioAtMost {
                floor: 0.7,
                goal: 0.3,
            },
            pairs: 9,
        },
        Row {
            name: TEN,
            what: "ten created at once, until the last one's first query",
            reference: "ten clones of the same template started by hand at once",
            unit: Unit::Seconds,
            limit: Limit::RatioAtMost {
                floor: 2.0,
                goal: 1.2,
            },
            pairs: 6,
        },
        Row {
            name: API,
            what: "answers of the API while ten are created, 99th percentile",
            reference: "",
            unit: Unit::Seconds,
            limit: Limit::Time(0.050),
            pairs: 6,
        },
    ],
    open,
};

fn open(bench: &Bench) -> Result<Box<dyn Measure>> {
    let service = Service::start(bench, "create", POOL_GIB)?;
    // The first one makes the template.
    let id = service.ask("first", FLAVOR)?;
    service.answered(&id)?;
    service.delete(&[id])?;
    let ground = Ground::of(&service.coffer.state, &POSTGRESQL)?;
    Ok(Box::new(Create {
        at_once: bench.size(AT_ONCE, 2),
        service,
        ground,
        made: 0,
    }))
}

struct Create {
    service: Service,
    ground: Ground,
    at_once: usize,
    /// Names by hand that are used up.
    made: usize,
}

impl Create {
    fn one(&self) -> Result<f64> {
        let watch = Stopwatch::start();
        let id = self.service.ask("one", FLAVOR)?;
        self.service.answered(&id)?;
        let seconds = watch.elapsed().as_secs_f64();
        self.service.delete(&[id])?;
        Ok(seconds)
    }

    fn one_by_hand(&mut self) -> Result<f64> {
        self.made += 1;
        let mut hand = self.ground.init(&self.made.to_string())?;
        let watch = Stopwatch::start();
        hand.go()?;
        hand.answered()?;
        let seconds = watch.elapsed().as_secs_f64();
        hand.remove()?;
        Ok(seconds)
    }

    /// So many at once; `meanwhile` runs beside it until told to stop.
    fn many<T: Send>(&self, meanwhile: impl Fn(&AtomicBool) -> T + Sync) -> Result<(f64, T)> {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            let aside = scope.spawn(|| meanwhile(&is_over));
            let made = self.all_answered();
            is_over.store(true, Ordering::Relaxed);
            let aside = aside.join().map_err(|_| anyhow!("a thread met a bug"))?;
            let (seconds, ids) = made?;
            self.service.delete(&ids)?;
            Ok((seconds, aside))
        })
    }

    fn all_answered(&self) -> Result<(f64, Vec<String>)> {
        let watch = Stopwatch::start();
        let ids: Vec<String> = (0..self.at_once)
            .map(|number| self.service.ask(&format!("many-{number}"), FLAVOR))
            .collect::<Result<_>>()?;
        // One client watches all of them: ten that ask every few milliseconds would be a load of
        // their own, and by hand nobody asks an API.
        let query = |id: String| move || self.service.answered(&id).map(drop);
        thread::scope(|scope| {
            let mut threads = Vec::new();
            self.service.each_active(&ids, |id| {
                threads.push(scope.spawn(query(id.to_owned())));
            })?;
            threads.into_iter().try_for_each(ended)
        })?;
        Ok((watch.elapsed().as_secs_f64(), ids))
    }

    fn many_by_hand(&mut self) -> Result<f64> {
        self.made += self.at_once;
        let names = (self.made - self.at_once..self.made).map(|n| format!("many-{n}"));
        let ground = &self.ground;
        let watch = Stopwatch::start();
        let mut hands = names
            .map(|name| ground.clone_template(&name))
            .collect::<Result<Vec<_>>>()?;
        at_once(hands.iter_mut().map(|hand| || hand.answered()))?;
        let seconds = watch.elapsed().as_secs_f64();
        hands.into_iter().try_for_each(|hand| hand.remove())?;
        Ok(seconds)
    }

    /// Lists and single views in turn, until told to stop; how long each took.
    fn ask_api(&self, is_over: &AtomicBool) -> Result<Vec<f64>> {
        let mut connection = Connection::open(self.service.address())?;
        let list = self.service.request("GET", "/instances", "");
        let flavors = self.service.request("GET", "/flavors", "");
        let mut seconds = Vec::new();
        for asked in [&list, &flavors].into_iter().cycle() {
            let watch = Stopwatch::start();
            connection.send(asked)?;
            connection.answer()?;
            seconds.push(watch.elapsed().as_secs_f64());
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            pause(ASK_EVERY);
        }
        Ok(seconds)
    }
}

/// Does everything at once, each on a thread of its own.
fn at_once<F>(work: impl Iterator<Item = F>) -> Result<()>
where
    F: FnOnce() -> Result<()> + Send,
{
    thread::scope(|scope| {
        let threads: Vec<_> = work.map(|one| scope.spawn(one)).collect();
        threads.into_iter().try_for_each(ended)
    })
}

fn ended(thread: thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    let ended = thread.join().map_err(|_| anyhow!("a thread met a bug"))?;
    ended.context("one of those at once")
}

impl Measure for Create {
    fn ours(&mut self, row: &Row) -> Result<f64> {
        match row.name {
            ONE => self.one(),
            TEN => Ok(self.many(|_| ())?.0),
            _ => {
                let (_, answers) = self.many(|is_over| self.ask_api(is_over))?;
                Ok(percentile(&answers?, 0.99))
            }
        }
    }

    fn reference(&mut self, row: &Row) -> Result<f64> {
        match row.name {
            ONE => self.one_by_hand(),
            _ => self.many_by_hand(),
        }
    }

    fn conditions(&self) -> String {
        format!(
            "`coffer up` on SQLite, PostgreSQL 17, flavor `{FLAVOR}` (512 MiB, 1 processor), \
             volumes of 1 GiB, {}",
            self.service.volume_mode()
        )
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.service.remove()
    }
}
