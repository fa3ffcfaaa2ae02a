//! A host without loop devices, without control groups that can be written, or without both:
//! databases work all the same, and doctor, the API and the log say what is not enforced.

use anyhow::{Result, ensure};
use e2e::coffer::Coffer;
use e2e::ground::Ground;

const GROUPS: &str = "flavor's memory and CPU are not enforced";
const LOOPS: &str = "volume sizes are not enforced";
/// How log and API, and doctor, begin what they say of limits on I/O.
const IO_SAID: &str = "I/O limits of volume types";
const IO_FOUND: &str = "limits on operations and bytes a second are not enforced";

#[test]
fn a_database_works_without_loop_devices_and_control_groups() -> Result<()> {
    whole_life(
        Ground::Bare,
        &["memory and CPU", "volume sizes", IO_SAID],
        &[GROUPS, LOOPS, IO_FOUND],
    )
}

#[test]
fn a_database_works_without_loop_devices() -> Result<()> {
    whole_life(Ground::NoLoops, &["volume sizes"], &[LOOPS])
}

#[test]
fn a_database_works_with_control_groups_that_cannot_be_written() -> Result<()> {
    whole_life(
        Ground::ReadOnlyGroups,
        &["memory (", IO_SAID],
        &[GROUPS, IO_FOUND],
    )
}

/// A database's life on a host where `not_enforced` is said by the log and the API, and `found` by
/// the doctor.
fn whole_life(ground: Ground, not_enforced: &[&str], found: &[&str]) -> Result<()> {
    let mut coffer = Coffer::start_on(ground)?;
    coffer.expect_lines(&["not enforced on this host"]);
    let before = coffer.traces()?;
    let db = coffer.create("db1")?;
    db.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (7)")?
        .ok()?;
    is_said(&coffer, not_enforced, found)?;
    // Its sandbox outlives Coffer, and its data outlive a restart.
    coffer.kill()?;
    ensure!(db.psql("TABLE t")?.ok()?.trim() == "7");
    coffer.up()?;
    coffer
        .coffer(&["instance", "restart", "db1", "--wait"])?
        .ok()?;
    coffer.await_active(&db.id)?;
    ensure!(db.psql("TABLE t")?.ok()?.trim() == "7");
    coffer
        .coffer(&["instance", "delete", "db1", "--wait"])?
        .ok()?;
    let left = coffer.traces()?;
    ensure!(left == before, "left on the host: {left:#?}");
    Ok(())
}

/// Whether log, API and doctor say what is not enforced, in these words.
pub(crate) fn is_said(coffer: &Coffer, not_enforced: &[&str], found: &[&str]) -> Result<()> {
    let explained = coffer.coffer(&["instance", "explain", "db1"])?.ok()?;
    let log = coffer.log();
    for what in not_enforced {
        let line = format!("not enforced on this host: {what}");
        ensure!(log.contains(&line), "{line}: {log}");
        ensure!(explained.contains(what), "{explained}");
    }
    ensure!(
        explained.contains("Not enforced on its host"),
        "{explained}"
    );
    let doctor = coffer.doctor()?;
    ensure!(doctor.code == 0, "{doctor:?}");
    for what in found {
        ensure!(doctor.out.contains(what), "{what}: {doctor:?}");
    }
    Ok(())
}
