//! `kill -9` of Coffer, of agents and of engines, at random moments, while a client writes: nothing
//! leaks, nothing is stuck, every acknowledged write is there.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use coffer_testkit::counts::count;
use e2e::coffer::Coffer;
use e2e::host;
use e2e::lines::LOST;
use e2e::run::{Background, Program, random_pause, wait_until};
use e2e::writer::Writer;

/// A create takes about this long; kills come within it.
const WINDOW: Duration = Duration::from_millis(1_500);
/// How long what was killed or deleted may take to be gone from the host.
const LEAVE_MAX: Duration = Duration::from_secs(20);
/// An engine that dies more often than twice in ten minutes is not started in place again.
const ROUNDS_OF_ONE: u64 = 6;

/// A Coffer that says what it loses.
fn start() -> Result<Coffer> {
    let mut coffer = Coffer::start()?;
    coffer.expect_lines(LOST);
    Ok(coffer)
}

/// Who dies, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    Coffer,
    Agent,
    Engine,
}

impl Victim {
    fn of(round: u64) -> Self {
        match round % 3 {
            0 => Self::Coffer,
            1 => Self::Agent,
            _ => Self::Engine,
        }
    }

    /// Kills it at a random moment; says whether there was something to kill.
    fn strike(self, coffer: &mut Coffer, instance_id: &str, window: Duration) -> Result<String> {
        let pause = random_pause(window)?;
        let word = match self {
            Self::Coffer => {
                coffer.kill()?;
                coffer.up()?;
                return Ok(format!("coffer after {pause:?}"));
            }
            Self::Agent => "coffer-guest agent",
            Self::Engine => "bin/postgres -D",
        };
        let pids = processes(coffer, instance_id, word)?;
        kill(&pids)?;
        Ok(format!("{self:?} {pids:?} after {pause:?}"))
    }
}

/// Processes of an instance whose command line has this word; none while it has no server.
pub(crate) fn processes(coffer: &Coffer, instance_id: &str, word: &str) -> Result<Vec<u32>> {
    // A record may be there before its boot data, and go at any moment.
    let servers = host::servers(coffer.dir()).unwrap_or_default();
    let server = servers.iter().find(|s| s.instance_id == instance_id);
    server.map_or(Ok(Vec::new()), |s| {
        host::processes_of(&coffer.tag()?, &s.id, word)
    })
}

pub(crate) fn kill(pids: &[u32]) -> Result<()> {
    for pid in pids {
        Program::new("kill", ["-KILL", &pid.to_string()]).run()?;
    }
    Ok(())
}

/// The host and the quota are as they were.
fn as_before(coffer: &Coffer, before: &BTreeSet<String>, quota: &str) -> Result<()> {
    let same = || Ok((coffer.traces()? == *before && held(coffer)? == quota).then_some(()));
    wait_until(LEAVE_MAX, same)
        .with_context(|| format!("left: {:#?}, held: {:?}", coffer.traces(), held(coffer)))
}

/// What the project holds of its quota.
fn held(coffer: &Coffer) -> Result<String> {
    let status = coffer.coffer(&["status"])?.ok()?;
    let lines = status.lines();
    let quota = lines.filter(|l| l.starts_with("instances") || l.starts_with("volumes"));
    Ok(quota.collect::<Vec<_>>().join("\n"))
}

#[test]
fn creates_and_deletes_outlive_kills() -> Result<()> {
    let mut coffer = start()?;
    // The first create makes the template; the kills are to meet every later step.
    let warm = coffer.create("warm")?;
    let writer = Writer::start(&warm, coffer.dir())?;
    let (before, quota) = (coffer.traces()?, held(&coffer)?);
    for round in 0..count("kill_create_delete") {
        let name = format!("db{round}");
        let words = [
            "--json", "instance", "create", &name, "--flavor", "tiny", "--public",
        ];
        let made = coffer.coffer(&words)?.json()?;
        let id = made["id"].as_str().context("no id")?.to_owned();
        let mut struck = Victim::of(round).strike(&mut coffer, &id, WINDOW)?;
        coffer.await_active(&id).with_context(|| struck.clone())?;
        coffer.coffer(&["instance", "delete", &id])?.ok()?;
        struck += &Victim::of(round).strike(&mut coffer, &id, WINDOW / 3)?;
        coffer.await_gone(&id).with_context(|| struck.clone())?;
        as_before(&coffer, &before, &quota).with_context(|| struck)?;
        writer.verify()?;
    }
    ensure!(writer.count()? > 0, "nothing was written meanwhile");
    warm.await_answer()
}

#[test]
fn restarts_outlive_kills() -> Result<()> {
    let mut coffer = start()?;
    let rounds = count("kill_restart");
    let mut round = 0;
    while round < rounds {
        let db = coffer.create(&format!("db{round}"))?;
        let writer = Writer::start(&db, coffer.dir())?;
        let (before, quota) = (coffer.traces()?, held(&coffer)?);
        for _ in 0..ROUNDS_OF_ONE.min(rounds - round) {
            let written = writer.count()?;
            coffer.coffer(&["instance", "restart", &db.id])?.ok()?;
            let struck = Victim::of(round).strike(&mut coffer, &db.id, WINDOW)?;
            coffer
                .await_active(&db.id)
                .with_context(|| struck.clone())?;
            db.await_answer()?;
            let goes_on = || Ok((writer.count()? > written).then_some(()));
            wait_until(LEAVE_MAX, goes_on).context("the writer goes on")?;
            writer.verify().with_context(|| struck.clone())?;
            as_before(&coffer, &before, &quota).with_context(|| struck)?;
            round += 1;
        }
        drop(writer);
        coffer
            .coffer(&["instance", "delete", &db.id, "--wait"])?
            .ok()?;
    }
    Ok(())
}

#[test]
fn an_agent_that_dies_leaves_its_engine_alone() -> Result<()> {
    let coffer = start()?;
    let db = coffer.create("db1")?;
    let engine = || processes(&coffer, &db.id, "bin/postgres -D");
    let agent = || processes(&coffer, &db.id, "coffer-guest agent");
    let (engines, agents) = (engine()?, agent()?);
    ensure!(!agents.is_empty() && !engines.is_empty());
    kill(&agents)?;
    wait_until(LEAVE_MAX, || {
        let now = agent()?;
        Ok((!now.is_empty() && now != agents).then_some(()))
    })
    .context("the agent is started again")?;
    ensure!(engine()? == engines, "the engine outlives its agent");
    kill(&engines)?;
    wait_until(LEAVE_MAX, || {
        let now = engine()?;
        Ok((!now.is_empty() && now != engines).then_some(()))
    })
    .context("the engine is started again")?;
    db.await_answer()
}

/// Starts a process with this very pid, which is free.
fn reuse(pid: u32) -> Result<Background> {
    // The kernel gives pids in their order; others may take one in between.
    for _ in 0..200 {
        std::fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string())?;
        let sleeper = Background::start("sleep", &["600"])?;
        if sleeper.id() == pid {
            return Ok(sleeper);
        }
    }
    bail!("pid {pid} could not be had again")
}

#[test]
fn an_engine_that_was_started_again_while_coffer_was_away_is_noticed() -> Result<()> {
    let mut coffer = start()?;
    let db = coffer.create("db1")?;
    let engines = processes(&coffer, &db.id, "bin/postgres -D")?;
    coffer.kill()?;
    kill(&engines)?;
    // The agent starts it again, with nobody to tell.
    wait_until(LEAVE_MAX, || {
        let now = processes(&coffer, &db.id, "bin/postgres -D")?;
        Ok((!now.is_empty() && now != engines).then_some(()))
    })?;
    db.await_answer()?;
    coffer.up()?;
    wait_until(LEAVE_MAX, || {
        let words = ["--json", "instance", "events", &db.id];
        let told = coffer.coffer(&words)?.json()?.to_string();
        Ok(told.contains("engine.started_again").then_some(()))
    })
    .context("the history says so")
}

#[test]
fn a_sandbox_that_died_while_coffer_was_away_is_noticed() -> Result<()> {
    let mut coffer = start()?;
    let db = coffer.create("db1")?;
    db.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")?
        .ok()?;
    let server = host::servers(coffer.dir())?.remove(0).id;
    let note = coffer.dir().join("local/sandboxes").join(server);
    let note = std::fs::read_to_string(note.join("launched.json"))?;
    let launched: serde_json::Value = serde_json::from_str(&note)?;
    let init = u32::try_from(launched["pid"].as_u64().context("no pid")?)?;
    coffer.kill()?;
    // The whole sandbox dies: nothing inside can start the engine again.
    kill(&host::sandbox_processes(&coffer.tag()?)?)?;
    wait_until(LEAVE_MAX, || {
        let left = host::sandbox_processes(&coffer.tag()?)?;
        Ok(left.is_empty().then_some(()))
    })?;
    // Another process gets the pid that was noted, and is not taken for the sandbox.
    let mut stranger = reuse(init)?;
    coffer.up()?;
    db.await_answer()?;
    coffer.await_active(&db.id)?;
    ensure!(
        db.psql("TABLE t")?.ok()?.trim() == "1",
        "the data are there"
    );
    ensure!(stranger.is_running()?, "a stranger was killed for its pid");
    Ok(())
}
