//! A reboot of the host: processes, namespaces, mounts, loops, cgroups and rules are gone. And
//! before it, for each engine, a stop and a start as its owner asks for them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, wipe_host};
use e2e::engine::{Kind, Served, ask, one_of_each};
use e2e::lines::LOST;
use e2e::run::wait_until;

use crate::kills::processes;

/// How long the host may take until nothing of what was wiped shows.
const WIPED_MAX: Duration = Duration::from_secs(20);
/// How long a stop and a start may take.
const SOON: Duration = Duration::from_secs(30);

/// All of them at once.
fn verb_on_all(coffer: &Coffer, verb: &str, all: &[Served]) -> Result<()> {
    for db in all {
        coffer.coffer(&["instance", verb, &db.id])?.ok()?;
    }
    Ok(())
}

fn await_status(coffer: &Coffer, id: &str, status: &str) -> Result<()> {
    let is_it = || {
        let shown = coffer.show(id)?.context("the instance is gone")?;
        Ok((shown["status"] == status).then_some(()))
    };
    wait_until(SOON, is_it).with_context(|| format!("{id} is not {status}: {:?}", coffer.show(id)))
}

/// Nothing of it runs, and it answers nobody.
fn is_down(coffer: &Coffer, db: &Served) -> Result<()> {
    await_status(coffer, &db.id, "SHUTDOWN")?;
    for words in ["coffer-guest", db.kind.process()] {
        let running = processes(coffer, &db.id, words)?;
        ensure!(running.is_empty(), "{words} of a stopped one: {running:?}");
    }
    ensure!(!db.answers()?, "a stopped {} answers", db.kind.name());
    Ok(())
}

/// It is where it was, its user's password is good, and it has what was written to it.
fn is_as_before(coffer: &Coffer, db: &Served, numbers: u64) -> Result<()> {
    db.await_answer()?;
    coffer.await_active(&db.id)?;
    ensure!(coffer.address(&db.id)? == db.address, "the address stays");
    db.has(1..=numbers)
}

#[test]
fn what_should_run_of_each_engine_is_rebuilt_from_the_store() -> Result<()> {
    let mut coffer = Coffer::start()?;
    coffer.expect_lines(LOST);
    let all = one_of_each(&coffer)?;
    let still = ask(&coffer, Kind::Redis, "still")?;
    all.iter().try_for_each(|db| db.put(1))?;

    verb_on_all(&coffer, "stop", &all)?;
    all.iter().try_for_each(|db| is_down(&coffer, db))?;
    verb_on_all(&coffer, "start", &all)?;
    for db in &all {
        is_as_before(&coffer, db, 1).with_context(|| format!("{db:?} started"))?;
        db.put(2)?;
    }

    let id = still["id"].as_str().context("no id")?;
    coffer.await_active(id)?;
    let still = Served::of(&coffer, Kind::Redis, &still)?;
    still.put(1)?;
    coffer.coffer(&["instance", "stop", id, "--wait"])?.ok()?;

    coffer.kill()?;
    wipe_host(&coffer)?;
    // What a reboot leaves is on the disk. The kernel takes its time with a namespace's links.
    let is_file = |trace: &String| trace.starts_with("file ");
    wait_until(WIPED_MAX, || {
        let left = coffer.traces()?;
        Ok((!left.is_empty() && left.iter().all(is_file)).then_some(()))
    })
    .with_context(|| format!("more than files is left: {:#?}", coffer.traces()))?;
    for db in &all {
        ensure!(!db.answers()?, "the host is not really wiped");
    }
    coffer.up()?;
    for db in &all {
        is_as_before(&coffer, db, 2).with_context(|| format!("{db:?} rebuilt"))?;
        db.put(3)?;
    }
    // It was stopped on request, and starts on request only.
    is_down(&coffer, &still)?;
    coffer.coffer(&["instance", "start", id, "--wait"])?.ok()?;
    is_as_before(&coffer, &still, 1)?;

    for id in all.iter().map(|db| db.id.as_str()).chain([id]) {
        coffer.coffer(&["instance", "delete", id, "--wait"])?.ok()?;
    }
    let left = coffer.traces()?;
    ensure!(left.is_empty(), "left: {left:#?}");
    Ok(())
}
