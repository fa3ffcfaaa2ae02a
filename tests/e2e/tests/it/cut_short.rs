//! A delete while the instance is still being made, at moments all over a create: nothing is left
//! of it, and nothing is held.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coffer_testkit::time::Seeded;
use e2e::coffer::{Coffer, INSTANCE_MAX};
use e2e::lines::LOST;
use e2e::run::wait_until;

use crate::kills::{as_before, ask, held, kill, processes};

/// Creates that are cut short.
const ROUNDS: u64 = 8;
/// How long the last of them may take before its delete.
const PAUSE_MS_MAX: u64 = 700;
/// The round in which the engine is killed before the delete.
const KILL_ROUND: u64 = 4;
const SEED: u64 = 17;

/// Waits until the create is over, at most for this long; answers whether the instance is still
/// being made.
fn is_building(coffer: &Coffer, id: &str, limit: Duration) -> Result<bool> {
    let status = || -> Result<String> {
        let shown = coffer.show(id)?.context("the instance is gone")?;
        Ok(shown["status"].as_str().context("no status")?.to_owned())
    };
    let ended = wait_until(limit, || {
        let now = status()?;
        ensure!(now == "BUILD" || now == "ACTIVE", "it is {now}");
        Ok((now == "ACTIVE").then_some(()))
    });
    // That the time is up is no failure here; a status that it may not have shows again.
    let now = status()?;
    ensure!(now == "BUILD" || now == "ACTIVE", "it is {now}: {ended:?}");
    Ok(now == "BUILD")
}

/// Kills the engine as soon as it is there.
fn kill_engine(coffer: &Coffer, id: &str) -> Result<()> {
    wait_until(INSTANCE_MAX, || {
        let killed = kill(&processes(coffer, id, "bin/postgres -D")?)?;
        Ok((killed > 0).then_some(()))
    })
    .context("the engine is killed")
}

#[test]
fn a_delete_while_it_is_made_leaves_nothing() -> Result<()> {
    let mut coffer = Coffer::start()?;
    coffer.expect_lines(LOST);
    // The first create makes the template, which stays.
    coffer.create("warm")?;
    let (before, quota) = (coffer.traces()?, held(&coffer)?);
    let random = Seeded::new(SEED);
    let part = PAUSE_MS_MAX / ROUNDS;
    let mut building = 0;
    for round in 0..ROUNDS {
        // Early ones and late ones, each at a moment of its own.
        let pause = Duration::from_millis(round * part + random.below(part));
        let id = ask(&coffer, &format!("db{round}"))?;
        if round == KILL_ROUND {
            kill_engine(&coffer, &id)?;
        } else if is_building(&coffer, &id, pause)? {
            building += 1;
        }
        let told = || format!("round {round}, after {pause:?}, seed {SEED}");
        coffer.coffer(&["instance", "delete", &id])?.ok()?;
        coffer.await_gone(&id).with_context(told)?;
        as_before(&coffer, &before, &quota).with_context(told)?;
    }
    println!("{building} of {ROUNDS} deletes came in BUILD");
    ensure!(building > 0, "no delete came while the instance was made");
    // What was cut short is in the way of nothing.
    coffer.create("after").map(drop)
}
