//! A reboot of the host: processes, namespaces, mounts, loops, cgroups and rules are gone.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, wipe_host};
use e2e::lines::LOST;
use e2e::run::wait_until;

/// How long the host may take until nothing of what was wiped shows.
const WIPED_MAX: Duration = Duration::from_secs(20);

#[test]
fn everything_that_should_run_is_rebuilt_from_the_store() -> Result<()> {
    let mut coffer = Coffer::start()?;
    coffer.expect_lines(LOST);
    let all = (0..3)
        .map(|n| coffer.create(&format!("db{n}")))
        .collect::<Result<Vec<_>>>()?;
    for (n, db) in all.iter().enumerate() {
        db.psql(&format!(
            "CREATE TABLE t (a int); INSERT INTO t VALUES ({n})"
        ))?
        .ok()?;
    }
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
        ensure!(
            db.psql("SELECT 1")?.code != 0,
            "the host is not really wiped"
        );
    }
    coffer.up()?;
    for (n, db) in all.iter().enumerate() {
        db.await_answer()?;
        coffer.await_active(&db.id)?;
        ensure!(coffer.address(&db.id)? == db.address, "the address stays");
        ensure!(
            db.psql("TABLE t")?.ok()?.trim() == n.to_string(),
            "the data are there"
        );
    }
    for db in &all {
        coffer
            .coffer(&["instance", "delete", &db.id, "--wait"])?
            .ok()?;
    }
    let left = coffer.traces()?;
    ensure!(left.is_empty(), "left: {left:#?}");
    Ok(())
}
