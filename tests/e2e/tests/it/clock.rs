//! The clock set by an hour, ahead and back, while Coffer works: tasks in flight end well, nobody
//! takes anything for dead, and what follows the clock follows it.
//!
//! Only this Coffer's clock is set, by libfaketime, and only the time of day: the machine's own is
//! left alone, and so are the sandboxes.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::Coffer;
use e2e::engine::{Kind, Served, ask};
use e2e::run::{Program, wait_until};
use e2e::writer::Writer;
use serde_json::Value;

use crate::drain::{hold_templates, task_of};
use crate::kills::processes;
use crate::state::tool;
use crate::upgrade::tasks;

const HOUR: i64 = 3_600;
/// Engines that are there from the start; the others are made while the clock is set.
const THERE: [Kind; 3] = [Kind::Postgresql, Kind::Mysql, Kind::Mariadb];
/// How long something small may take.
const SOON: Duration = Duration::from_secs(30);
/// What is logged of a clock that was set.
const NOTICED: &str = "the clock was set";

/// Where Debian's package puts the library, below the directory of the machine's kind.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

fn library() -> Result<String> {
    let kinds = fs::read_dir("/usr/lib")?.flatten();
    let mut all = kinds.map(|kind| kind.path().join(LIBRARY));
    let found = all.find(|path| path.exists());
    let found = found.with_context(|| format!("no {LIBRARY}: install faketime"))?;
    Ok(found.display().to_string())
}

/// The clock of a Coffer.
struct Clock(PathBuf);

impl Clock {
    /// Gives a Coffer that was not started yet a clock of its own.
    fn of(coffer: &mut Coffer) -> Result<Self> {
        let clock = Self(coffer.dir().join("clock"));
        clock.set(0)?;
        coffer.add_variables(&[
            ("LD_PRELOAD", &library()?),
            ("FAKETIME_TIMESTAMP_FILE", &clock.0.display().to_string()),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
        ]);
        Ok(clock)
    }

    /// Sets it to so many seconds beside the machine's.
    fn set(&self, seconds: i64) -> Result<()> {
        let next = self.0.with_extension("next");
        fs::write(&next, format!("{seconds:+}\n"))?;
        Ok(fs::rename(next, &self.0)?)
    }
}

/// A token of the demo user's.
fn token(coffer: &Coffer) -> Result<String> {
    let ask = "import openstack\nprint(openstack.connect().session.get_token())";
    Ok(coffer
        .client("python", &["-c", ask])?
        .ok()?
        .trim()
        .to_owned())
}

/// Whether the API takes a token.
fn is_good(coffer: &Coffer, token: &str) -> Result<bool> {
    let url = format!(
        "https://127.0.0.1:{}/identity/v3/auth/tokens",
        coffer.port()
    );
    let ca = coffer.dir().join("ca.pem").display().to_string();
    let (own, subject) = (
        format!("X-Auth-Token: {token}"),
        format!("X-Subject-Token: {token}"),
    );
    let words = [
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_code}",
        "--cacert",
        &ca,
    ];
    let more = ["-H", own.as_str(), "-H", subject.as_str(), url.as_str()];
    let code = Program::new("curl", words.into_iter().chain(more))
        .run()?
        .ok()?;
    match code.as_str() {
        "200" => Ok(true),
        "401" => Ok(false),
        other => anyhow::bail!("answered {other}"),
    }
}

/// The clock is set while an instance is made, which ends well.
fn set_under_a_create(coffer: &Coffer, clock: &Clock, seconds: i64, kind: Kind) -> Result<Served> {
    let noticed = || coffer.log().matches(NOTICED).count();
    let name = format!("at{seconds}");
    let before = noticed();
    let holds = hold_templates(coffer, kind)?;
    let asked = ask(coffer, kind, &name)?;
    let is_in_flight = || Ok((task_of(coffer, &name)?.step == "ensure_volume").then_some(()));
    wait_until(SOON, is_in_flight).with_context(|| format!("{:?}", tasks(coffer)))?;
    clock.set(seconds)?;
    wait_until(SOON, || Ok((noticed() > before).then_some(()))).context("it is noticed")?;
    drop(holds);
    let id = asked["id"].as_str().context("no id")?;
    coffer.await_active(id)?;
    let task = task_of(coffer, &name)?;
    ensure!(task.state == "done", "{task:?}");
    Served::of(coffer, kind, &asked)
}

/// Nothing else than that the clock was set is worth a warning.
fn is_quiet(coffer: &Coffer) -> Result<()> {
    let log = coffer.log();
    let is_loud = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    let mut loud = log.lines().filter(is_loud);
    let strange = loud.find(|line| !line.contains(NOTICED));
    ensure!(strange.is_none(), "{strange:?}\n{log}");
    Ok(())
}

/// An instance with somebody who writes to it, which does not mind what the clock does.
struct Unmoved {
    kind: Kind,
    id: String,
    writer: Writer,
    process: u32,
}

impl Unmoved {
    fn watch(coffer: &Coffer, kind: Kind, asked: &Value) -> Result<Self> {
        let id = asked["id"].as_str().context("no id")?.to_owned();
        coffer.await_active(&id)?;
        let writer = Writer::start(&Served::of(coffer, kind, asked)?)?;
        let process = Self::process(coffer, kind, &id)?;
        Ok(Self {
            kind,
            id,
            writer,
            process,
        })
    }

    /// The server: its children come and go, with titles of their own, and it has the lowest
    /// number.
    fn process(coffer: &Coffer, kind: Kind, id: &str) -> Result<u32> {
        let all = processes(coffer, id, kind.process())?;
        all.into_iter().min().context("it has no process")
    }

    fn verify(self, coffer: &Coffer) -> Result<()> {
        let name = self.kind.name();
        coffer.await_active(&self.id)?;
        self.writer.verify().context(name)?;
        let now = Self::process(coffer, self.kind, &self.id)?;
        ensure!(now == self.process, "{name} was restarted");
        Ok(())
    }
}

#[test]
fn the_clock_is_set_by_an_hour_ahead_and_back_with_a_task_in_flight() -> Result<()> {
    let mut coffer = Coffer::prepare("up", &["--set", "api.token_lifetime=30m"])?;
    let clock = Clock::of(&mut coffer)?;
    coffer.expect_lines(&[NOTICED]);
    coffer.up()?;
    let there = THERE.map(|kind| Ok((kind, ask(&coffer, kind, kind.name())?)));
    let there = there.into_iter().collect::<Result<Vec<_>>>()?;
    let there = there
        .iter()
        .map(|(kind, asked)| Unmoved::watch(&coffer, *kind, asked));
    let there = there.collect::<Result<Vec<_>>>()?;
    let early = token(&coffer)?;
    ensure!(is_good(&coffer, &early)?);

    set_under_a_create(&coffer, &clock, HOUR, Kind::Redis)?.await_answer()?;
    ensure!(!is_good(&coffer, &early)?, "tokens follow the clock");
    let late = token(&coffer)?;
    for one in &there {
        coffer.await_active(&one.id)?;
    }
    is_quiet(&coffer)?;

    let back = set_under_a_create(&coffer, &clock, 0, Kind::Valkey)?;
    ensure!(
        is_good(&coffer, &late)?,
        "a token of a time to come is good"
    );
    let doctor = tool(&coffer, &["doctor"])?;
    ensure!(
        format!("{doctor:?}").contains("clock: it stands at"),
        "{doctor:?}"
    );
    is_quiet(&coffer)?;
    // What was not in flight does not mind either: a whole life after the clock went back. Whether
    // the conductor knows of the stop before it misses the guest is a matter of moments.
    coffer.expect_lines(&["guest is not heard"]);
    coffer.create("after")?;
    for verb in ["restart", "stop", "start", "delete"] {
        coffer
            .coffer(&["instance", verb, &back.id, "--wait"])?
            .ok()?;
    }
    there.into_iter().try_for_each(|one| one.verify(&coffer))
}
