//! `kill -9` of Coffer, of agents and of engines, at random moments: nothing leaks, nothing is
//! stuck, every acknowledged write is there.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coffer_testkit::counts::count;
use e2e::coffer::Coffer;
use e2e::host;
use e2e::run::{Program, random_pause, wait_until};

/// A create or delete takes about this long; kills come within it.
const WINDOW: Duration = Duration::from_millis(1_500);

#[test]
fn coffer_dies_while_creating() -> Result<()> {
    let mut coffer = Coffer::start()?;
    // The first create makes the template; the kills are to meet every later step.
    let warm = coffer.create("warm")?;
    let before = coffer.traces()?;
    for round in 0..count("kill_create") {
        let name = format!("db{round}");
        let made = coffer
            .coffer(&[
                "--json", "instance", "create", &name, "--flavor", "tiny", "--public",
            ])?
            .json()?;
        let id = made["id"].as_str().context("no id")?.to_owned();
        let pause = random_pause(WINDOW)?;
        coffer.kill()?;
        coffer.up()?;
        coffer
            .await_active(&id)
            .with_context(|| format!("killed after {pause:?}"))?;
        coffer
            .coffer(&["instance", "delete", &id, "--wait"])?
            .ok()?;
        let left = coffer.traces()?;
        ensure!(left == before, "killed after {pause:?}, left: {left:#?}");
    }
    warm.await_answer()
}

#[test]
fn coffer_dies_while_deleting() -> Result<()> {
    let mut coffer = Coffer::start()?;
    let warm = coffer.create("warm")?;
    let before = coffer.traces()?;
    for round in 0..count("kill_delete") {
        let db = coffer.create(&format!("db{round}"))?;
        coffer.coffer(&["instance", "delete", &db.id])?.ok()?;
        let pause = random_pause(WINDOW / 3)?;
        coffer.kill()?;
        coffer.up()?;
        coffer.await_gone(&db.id)?;
        let left = coffer.traces()?;
        ensure!(left == before, "killed after {pause:?}, left: {left:#?}");
    }
    warm.await_answer()
}

#[test]
fn coffer_dies_while_restarting() -> Result<()> {
    let mut coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    db.psql("CREATE TABLE t (a bigint)")?.ok()?;
    for round in 0..count("kill_restart") {
        db.psql(&format!("INSERT INTO t VALUES ({round})"))?.ok()?;
        coffer.coffer(&["instance", "restart", &db.id])?.ok()?;
        random_pause(WINDOW)?;
        coffer.kill()?;
        coffer.up()?;
        coffer.await_active(&db.id)?;
        db.await_answer()?;
        let rows = db.psql("SELECT count(*) FROM t")?.ok()?;
        ensure!(
            rows.trim() == (round + 1).to_string(),
            "{rows} rows after {round} restarts"
        );
    }
    Ok(())
}

/// Processes of the one sandbox whose command line has this word.
fn processes(coffer: &Coffer, word: &str) -> Result<Vec<u32>> {
    let all = host::sandbox_processes(&coffer.tag()?)?;
    let has = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line)
            .replace('\0', " ")
            .contains(word)
    };
    Ok(all.into_iter().filter(has).collect())
}

fn kill(pids: &[u32]) -> Result<()> {
    for pid in pids {
        Program::new("kill", ["-KILL", &pid.to_string()]).run()?;
    }
    Ok(())
}

#[test]
fn agents_and_engines_die_and_come_back() -> Result<()> {
    let coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    db.psql("CREATE TABLE t (a bigint)")?.ok()?;
    let engine = |word| processes(&coffer, word);
    for round in 0..count("kill_restart") {
        db.psql(&format!("INSERT INTO t VALUES ({round})"))?.ok()?;
        let before = engine("bin/postgres -D")?;
        let agents = engine("coffer-guest agent")?;
        ensure!(
            !agents.is_empty() && !before.is_empty(),
            "agent {agents:?}, engine {before:?}"
        );
        kill(&agents)?;
        wait_until(Duration::from_secs(20), || {
            let now = engine("coffer-guest agent")?;
            Ok((!now.is_empty() && now != agents).then_some(()))
        })
        .context("the agent is started again")?;
        ensure!(
            engine("bin/postgres -D")? == before,
            "the engine outlives its agent"
        );
        if round % 2 == 0 {
            kill(&before)?;
            wait_until(Duration::from_secs(30), || {
                let now = engine("bin/postgres -D")?;
                Ok((!now.is_empty() && now != before).then_some(()))
            })
            .context("the engine is started again")?;
        }
        if round % 2 == 0 && round >= 2 {
            // Two restarts in place within ten minutes are all the ladder allows.
            break;
        }
        db.await_answer()?;
        let rows = db.psql("SELECT count(*) FROM t")?.ok()?;
        ensure!(
            rows.trim() == (round + 1).to_string(),
            "an acknowledged write is lost: {rows}"
        );
    }
    Ok(())
}

#[test]
fn an_engine_that_died_while_coffer_was_away_is_noticed() -> Result<()> {
    let mut coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    db.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")?
        .ok()?;
    coffer.kill()?;
    // The whole sandbox dies: nothing inside can start the engine again.
    for pid in host::sandbox_processes(&coffer.tag()?)? {
        Program::new("kill", ["-KILL", &pid.to_string()]).run()?;
    }
    wait_until(Duration::from_secs(10), || {
        Ok((db.psql("SELECT 1")?.code != 0).then_some(()))
    })?;
    coffer.up()?;
    db.await_answer()?;
    coffer.await_active(&db.id)?;
    ensure!(db.psql("TABLE t")?.ok()?.trim() == "1");
    wait_until(Duration::from_secs(30), || {
        let events = coffer.coffer(&["instance", "events", &db.id])?.ok()?;
        Ok(events.contains("recovered").then_some(()))
    })
    .context("the history says that it was recovered")
}
