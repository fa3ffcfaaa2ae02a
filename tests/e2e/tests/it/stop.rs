//! Stopping and starting: what is stopped on request stays so, over kills and a reboot of the host,
//! and the others go on serving.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, Database, wipe_host};
use e2e::lines::LOST;
use e2e::run::wait_until;
use serde_json::Value;

use crate::kills::{kill, processes};

/// How long something small may take.
const SOON: Duration = Duration::from_secs(20);

fn is_status(coffer: &Coffer, id: &str, status: &str) -> Result<bool> {
    let shown = coffer.show(id)?.context("the instance is gone")?;
    Ok(shown["status"] == status)
}

/// It is SHUTDOWN, nothing of it runs, and nothing has tried to make it run.
fn is_down(coffer: &Coffer, db: &Database) -> Result<()> {
    ensure!(
        is_status(coffer, &db.id, "SHUTDOWN")?,
        "{:?}",
        coffer.show(&db.id)
    );
    // Ended processes that nobody has reaped yet have no command line.
    for word in ["coffer-guest", "postgres"] {
        let running = processes(coffer, &db.id, word)?;
        ensure!(running.is_empty(), "{word} of a stopped one: {running:?}");
    }
    ensure!(db.psql("SELECT 1")?.code != 0, "a stopped one answers");
    let words = ["--json", "instance", "events", &db.id];
    let told = coffer.coffer(&words)?.json()?.to_string();
    ensure!(!told.contains("recover"), "it was recovered: {told}");
    Ok(())
}

fn explained(coffer: &Coffer, id: &str) -> Result<String> {
    let words = ["--json", "instance", "explain", id];
    let answer: Value = coffer.coffer(&words)?.json()?;
    Ok(answer["summary"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn what_is_stopped_stays_so_over_kills_and_a_reboot() -> Result<()> {
    let mut coffer = Coffer::start()?;
    coffer.expect_lines(LOST);
    let (db, other) = (coffer.create("db1")?, coffer.create("db2")?);
    db.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)")?
        .ok()?;
    // By its owner; its engine is killed while it stops, and nothing starts it again.
    let engines = processes(&coffer, &db.id, "bin/postgres -D")?;
    coffer.coffer(&["instance", "stop", "db1"])?.ok()?;
    kill(&engines)?;
    wait_until(SOON, || {
        Ok(is_status(&coffer, &db.id, "SHUTDOWN")?.then_some(()))
    })?;
    is_down(&coffer, &db)?;
    let why = explained(&coffer, &db.id)?;
    ensure!(why.starts_with("db1 is stopped on request since"), "{why}");

    // The other is recovered by the same run of the reconciler that leaves this one alone.
    coffer.kill()?;
    wipe_host(&coffer)?;
    coffer.up()?;
    other.await_answer()?;
    coffer.await_active(&other.id)?;
    is_down(&coffer, &db)?;

    // A restart starts it, with its data and where it was.
    coffer
        .coffer(&["instance", "restart", "db1", "--wait"])?
        .ok()?;
    ensure!(
        db.psql("TABLE t")?.ok()?.trim() == "1",
        "the data are there"
    );
    ensure!(coffer.address(&db.id)? == db.address, "the address stays");

    // By the operator, in Trove's way; started by the owner; deleted while stopped.
    let stop = format!(
        "import openstack\n\
         asked = openstack.connect().database.post('/mgmt/instances/{}/action', \
         json={{'stop': {{}}}})\n\
         assert asked.status_code == 202, asked.text",
        db.id
    );
    coffer.client_of("admin", "python", &["-c", &stop])?.ok()?;
    wait_until(SOON, || {
        Ok(is_status(&coffer, &db.id, "SHUTDOWN")?.then_some(()))
    })?;
    is_down(&coffer, &db)?;
    coffer
        .coffer(&["instance", "start", "db1", "--wait"])?
        .ok()?;
    ensure!(
        db.psql("TABLE t")?.ok()?.trim() == "1",
        "the data are there"
    );
    coffer
        .coffer(&["instance", "stop", "db1", "--wait"])?
        .ok()?;
    for id in [&db.id, &other.id] {
        coffer.coffer(&["instance", "delete", id, "--wait"])?.ok()?;
    }
    let left = coffer.traces()?;
    ensure!(left.is_empty(), "left: {left:#?}");
    Ok(())
}
