//! `kill -9` of Coffer, of agents and of engines, at random moments, while a client writes: nothing
//! leaks, nothing is stuck, every acknowledged write is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use coffer_testkit::counts::{count, is_soak};
use e2e::coffer::{Coffer, INSTANCE_MAX};
use e2e::engine::{self, Kind, Served};
use e2e::host;
use e2e::lines::LOST;
use e2e::run::{Background, Program, random_pause, timed, wait_until};
use e2e::writer::Writer;

/// How long what was killed or deleted may take to be gone from the host.
const LEAVE_MAX: Duration = Duration::from_secs(20);
/// An engine that dies more often than twice in ten minutes is not started in place again.
const ROUNDS_OF_ONE: u64 = 6;
/// The engine whose kills are repeated until each met something.
const POSTGRESQL: Kind = Kind::Postgresql;
/// Within which time of a create, restart or delete of whatever engine a kill comes.
const CREATE_KILL_MAX: Duration = Duration::from_millis(600);
const RESTART_KILL_MAX: Duration = Duration::from_millis(600);
const DELETE_KILL_MAX: Duration = Duration::from_millis(200);
/// LIMIT: how often a round is repeated because a kill came when there was nothing to kill.
const REPEATS_MAX: u32 = 3;

/// A Coffer that says what it loses.
fn start() -> Result<Coffer> {
    let mut coffer = Coffer::start()?;
    coffer.expect_lines(LOST);
    Ok(coffer)
}

/// Who dies, in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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

    /// Words in its command line, if it is a process in the sandbox.
    const fn words(self, kind: Kind) -> Option<&'static str> {
        match self {
            Self::Coffer => None,
            Self::Agent => Some("coffer-guest agent"),
            Self::Engine => Some(kind.process()),
        }
    }
}

/// What the kills hit, by victim and by what was going on; shown when it is dropped.
#[derive(Debug, Default)]
struct Tally(BTreeMap<(Victim, &'static str), Hits>);

#[derive(Debug, Default)]
struct Hits {
    /// Kills that were tried.
    kills: u64,
    /// Those that met a process.
    met: u64,
    /// Processes that died.
    processes: usize,
}

impl Tally {
    /// Kills the victim at a random moment of an operation that takes about `window`; answers how
    /// many processes died, and tells of it in words.
    fn strike(
        &mut self,
        (victim, kind): (Victim, Kind),
        (coffer, instance_id): (&mut Coffer, &str),
        (operation, window): (&'static str, Duration),
    ) -> Result<(usize, String)> {
        let pause = random_pause(window)?;
        let killed = match victim.words(kind) {
            Some(words) => kill(&processes(coffer, instance_id, words)?)?,
            None => killed_and_up(coffer)?,
        };
        Ok(self.note(victim, operation, (killed, pause)))
    }

    /// The same, but a process that is not there is waited for: an operation that ends with it
    /// running is always met.
    fn strike_once_there(
        &mut self,
        (victim, kind): (Victim, Kind),
        (coffer, instance_id): (&mut Coffer, &str),
        (operation, window): (&'static str, Duration),
    ) -> Result<String> {
        let pause = random_pause(window)?;
        let killed = match victim.words(kind) {
            Some(words) => wait_until(INSTANCE_MAX, || {
                let killed = kill(&processes(coffer, instance_id, words)?)?;
                Ok((killed > 0).then_some(killed))
            })?,
            None => killed_and_up(coffer)?,
        };
        Ok(self.note(victim, operation, (killed, pause)).1)
    }

    fn note(
        &mut self,
        victim: Victim,
        operation: &'static str,
        (killed, pause): (usize, Duration),
    ) -> (usize, String) {
        let hits = self.0.entry((victim, operation)).or_default();
        hits.kills += 1;
        hits.met += u64::from(killed > 0);
        hits.processes += killed;
        let told = format!("{killed} of {victim:?} after {pause:?} of {operation}; ");
        (killed, told)
    }

    fn table(&self) -> String {
        let mut text = "victim  operation  kills  met  processes\n".to_owned();
        for ((victim, operation), hits) in &self.0 {
            let Hits {
                kills,
                met,
                processes,
            } = hits;
            let name = format!("{victim:?}");
            // Text takes whatever is written to it.
            writeln!(
                text,
                "{name:<7} {operation:<9} {kills:>6} {met:>4} {processes:>10}"
            )
            .ok();
        }
        text
    }

    /// Among as many rounds as a soak has, every victim is hit. The few of every day's tests may
    /// all come too early or too late.
    fn check(&self) -> Result<()> {
        for victim in [Victim::Coffer, Victim::Agent, Victim::Engine] {
            let of_it = || self.0.iter().filter(|((who, _), _)| *who == victim);
            let is_hit = of_it().next().is_none() || of_it().any(|(_, hits)| hits.met > 0);
            ensure!(
                is_hit || !is_soak(),
                "{victim:?} was never hit\n{}",
                self.table()
            );
        }
        Ok(())
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        println!("{}", self.table());
    }
}

/// Kills Coffer and starts it again; how many processes died.
fn killed_and_up(coffer: &mut Coffer) -> Result<usize> {
    coffer.kill()?;
    coffer.up()?;
    Ok(1)
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

/// Kills these; answers how many were still there.
pub(crate) fn kill(pids: &[u32]) -> Result<usize> {
    let mut killed = 0;
    for pid in pids {
        let ended = Program::new("kill", ["-KILL", &pid.to_string()]).run()?;
        killed += usize::from(ended.code == 0);
    }
    Ok(killed)
}

/// The host and the quota are as they were.
pub(crate) fn as_before(coffer: &Coffer, before: &BTreeSet<String>, quota: &str) -> Result<()> {
    let same = || Ok((coffer.traces()? == *before && held(coffer)? == quota).then_some(()));
    wait_until(LEAVE_MAX, same)
        .with_context(|| format!("left: {:#?}, held: {:?}", coffer.traces(), held(coffer)))
}

/// What the project holds of its quota.
pub(crate) fn held(coffer: &Coffer) -> Result<String> {
    let status = coffer.coffer(&["status"])?.ok()?;
    let lines = status.lines();
    let quota = lines.filter(|l| l.starts_with("instances") || l.starts_with("volumes"));
    Ok(quota.collect::<Vec<_>>().join("\n"))
}

/// Asks for a published instance and waits for nothing.
pub(crate) fn ask(coffer: &Coffer, name: &str) -> Result<String> {
    let words = [
        "--json", "instance", "create", name, "--flavor", "tiny", "--public",
    ];
    let made = coffer.coffer(&words)?.json()?;
    Ok(made["id"].as_str().context("no id")?.to_owned())
}

/// How long a create and a delete take here while nobody is killed; kills come within it.
fn windows(coffer: &Coffer) -> Result<(Duration, Duration)> {
    let id = ask(coffer, "measured")?;
    let (create, active) = timed(|| coffer.await_active(&id));
    active?;
    coffer.coffer(&["instance", "delete", &id])?.ok()?;
    let (delete, gone) = timed(|| coffer.await_gone(&id));
    gone?;
    Ok((create, delete))
}

#[test]
fn creates_and_deletes_outlive_kills() -> Result<()> {
    let mut coffer = start()?;
    // The first create makes the template; the kills are to meet every later step.
    let warm = coffer.create("warm")?;
    let writer = Writer::start(&Served::from(&warm))?;
    let (before, quota) = (coffer.traces()?, held(&coffer)?);
    let (create, delete) = windows(&coffer)?;
    let mut tally = Tally::default();
    for round in 0..count("kill_create_delete") {
        let victim = Victim::of(round);
        let (mut met_create, mut met_delete) = (false, false);
        // A kill that met nothing showed nothing: the round is repeated until each met something.
        for repeat in 0..=REPEATS_MAX {
            let id = ask(&coffer, &format!("db{round}-{repeat}"))?;
            let at = ("create", create);
            let (killed, mut struck) =
                tally.strike((victim, POSTGRESQL), (&mut coffer, &id), at)?;
            met_create |= killed > 0;
            coffer.await_active(&id).with_context(|| struck.clone())?;
            coffer.coffer(&["instance", "delete", &id])?.ok()?;
            let at = ("delete", delete);
            let (killed, more) = tally.strike((victim, POSTGRESQL), (&mut coffer, &id), at)?;
            met_delete |= killed > 0;
            struck += &more;
            coffer.await_gone(&id).with_context(|| struck.clone())?;
            as_before(&coffer, &before, &quota).with_context(|| struck)?;
            writer.verify()?;
            if met_create && met_delete {
                break;
            }
        }
    }
    tally.check()?;
    ensure!(writer.count() > 0, "nothing was written meanwhile");
    warm.await_answer()
}

#[test]
fn restarts_outlive_kills() -> Result<()> {
    let mut coffer = start()?;
    let rounds = count("kill_restart");
    let mut tally = Tally::default();
    let mut round = 0;
    while round < rounds {
        let db = coffer.create(&format!("db{round}"))?;
        let writer = Writer::start(&Served::from(&db))?;
        let (before, quota) = (coffer.traces()?, held(&coffer)?);
        let restart = || coffer.coffer(&["instance", "restart", &db.id])?.ok();
        let (window, quiet) = timed(|| restart().and_then(|_| coffer.await_active(&db.id)));
        quiet.context("a restart while nobody is killed")?;
        for _ in 0..ROUNDS_OF_ONE.min(rounds - round) {
            for _ in 0..=REPEATS_MAX {
                let written = writer.count();
                coffer.coffer(&["instance", "restart", &db.id])?.ok()?;
                let (victim, at) = ((Victim::of(round), POSTGRESQL), ("restart", window));
                let (killed, struck) = tally.strike(victim, (&mut coffer, &db.id), at)?;
                coffer
                    .await_active(&db.id)
                    .with_context(|| struck.clone())?;
                db.await_answer()?;
                let goes_on = || Ok((writer.count() > written).then_some(()));
                wait_until(LEAVE_MAX, goes_on).context("the writer goes on")?;
                writer.verify().with_context(|| struck.clone())?;
                as_before(&coffer, &before, &quota).with_context(|| struck)?;
                if killed > 0 {
                    break;
                }
            }
            round += 1;
        }
        drop(writer);
        coffer
            .coffer(&["instance", "delete", &db.id, "--wait"])?
            .ok()?;
    }
    tally.check()
}

/// An instance of an engine is created, restarted while it is written to, and deleted; each time
/// another victim dies.
fn lives_through_kills(
    coffer: &mut Coffer,
    tally: &mut Tally,
    kind: Kind,
    round: u64,
) -> Result<()> {
    let (before, quota) = (coffer.traces()?, held(coffer)?);
    let asked = engine::ask(coffer, kind, &format!("{}-{round}", kind.name()))?;
    let id = asked["id"].as_str().context("no id")?.to_owned();
    let victim = Victim::of(round);
    let at = ("create", CREATE_KILL_MAX);
    let mut struck = tally.strike_once_there((victim, kind), (coffer, &id), at)?;
    coffer.await_active(&id).with_context(|| struck.clone())?;

    let db = Served::of(coffer, kind, &asked)?;
    let writer = Writer::start(&db)?;
    wait_until(LEAVE_MAX, || Ok((writer.count() > 0).then_some(()))).context("it writes")?;
    coffer.coffer(&["instance", "restart", &id])?.ok()?;
    let victim = Victim::of(round + 1);
    let at = ("restart", RESTART_KILL_MAX);
    struck += &tally.strike_once_there((victim, kind), (coffer, &id), at)?;
    if victim == Victim::Engine {
        writer.engine_died();
    }
    coffer.await_active(&id).with_context(|| struck.clone())?;
    let written = writer.count();
    let goes_on = || Ok((writer.count() > written).then_some(()));
    wait_until(LEAVE_MAX, goes_on).with_context(|| format!("{struck}the writer goes on"))?;
    writer.verify().with_context(|| struck.clone())?;
    drop(writer);

    coffer.coffer(&["instance", "delete", &id])?.ok()?;
    let victim = Victim::of(round + 2);
    let at = ("delete", DELETE_KILL_MAX);
    struck += &tally.strike((victim, kind), (coffer, &id), at)?.1;
    coffer.await_gone(&id).with_context(|| struck.clone())?;
    as_before(coffer, &before, &quota).with_context(|| struck)
}

#[test]
fn the_other_engines_outlive_kills() -> Result<()> {
    let mut coffer = start()?;
    // The first creates make the templates; the kills are to meet every later step.
    for one in engine::one_of_each(&coffer)? {
        coffer
            .coffer(&["instance", "delete", &one.id, "--wait"])?
            .ok()?;
    }
    let mut tally = Tally::default();
    for round in 0..count("kill_other_engines") {
        let others = Kind::ALL
            .into_iter()
            .filter(|kind| *kind != Kind::Postgresql);
        for (nth, kind) in (0..).zip(others) {
            lives_through_kills(&mut coffer, &mut tally, kind, round + nth)
                .with_context(|| format!("{}, round {round}", kind.name()))?;
        }
    }
    tally.check()
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
