//! A host without loop devices and control groups: databases work all the same, and doctor, the API
//! and the log say what is not enforced.

use anyhow::{Result, ensure};
use e2e::coffer::Coffer;

#[test]
fn a_database_works_without_loop_devices_and_control_groups() -> Result<()> {
    let mut coffer = Coffer::start_on_bare_host()?;
    coffer.expect_lines(&["not enforced on this host"]);
    let before = coffer.traces()?;
    let db = coffer.create("db1")?;
    db.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (7)")?
        .ok()?;
    let not_enforced = [
        "memory and CPU",
        "volume sizes",
        "I/O limits of volume types",
    ];
    let explained = coffer.coffer(&["instance", "explain", "db1"])?.ok()?;
    for what in not_enforced {
        let line = format!("not enforced on this host: {what}");
        ensure!(coffer.log().contains(&line), "{}", coffer.log());
        ensure!(explained.contains(what), "{explained}");
    }
    ensure!(
        explained.contains("Not enforced on its host"),
        "{explained}"
    );
    let found = coffer.doctor()?;
    ensure!(found.code == 0, "{found:?}");
    for what in [
        "flavor's memory and CPU are not enforced",
        "volume sizes are not enforced",
        "limits on operations and bytes a second are not enforced",
    ] {
        ensure!(found.out.contains(what), "{found:?}");
    }
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
