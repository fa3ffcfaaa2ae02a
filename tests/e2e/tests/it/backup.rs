//! Backups of the state while others write to the store as fast as they can: each is whole, and of
//! one moment.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, binary};
use e2e::run::{Background, Program, wait_until};
use serde_json::Value;

use crate::state::tool;
use crate::upgrade::store;

/// Backups that are made one after the other.
const BACKUPS: u64 = 3;
/// Transactions that are there before the first; as many projects stay.
const KEPT: u64 = 100;
/// How long the writers may take to come that far.
const SOON: Duration = Duration::from_secs(30);
/// Beside the API another process writes, whose every transaction touches several tables.
const WRITER: &str = include_str!("python/store_writer.py");
const LOOK: &str = include_str!("python/store_look.py");

fn look(store: &str) -> Result<Value> {
    Program::new("python3", ["-c", LOOK, store]).run()?.json()
}

/// The store in a backup, restored into a directory of its own.
fn restored(coffer: &Coffer, backup: &str, to: &Path) -> Result<Value> {
    fs::create_dir(to)?;
    let (dir, key) = (to.display().to_string(), coffer.dir().join("master.key"));
    let key = key.display().to_string();
    let words = [
        "state",
        "--state-dir",
        &dir,
        "restore",
        backup,
        "--master-key",
        &key,
    ];
    let coffer = binary("coffer")?.display().to_string();
    Program::new(&coffer, words).run()?.ok()?;
    look(&to.join("coffer.db").display().to_string())
}

/// Makes and deletes projects over the API until it is told to stop; how many.
fn change_projects(coffer: &Coffer, is_over: &AtomicBool) -> Result<u64> {
    let mut made = 0;
    while !is_over.load(Ordering::Relaxed) {
        let name = format!("project-{made}");
        coffer.admin(&["project", "create", &name])?.ok()?;
        coffer.admin(&["project", "delete", &name])?.ok()?;
        made += 1;
    }
    Ok(made)
}

/// Makes one backup after the other; the numbers of the transactions that each is as of.
fn back_up(coffer: &Coffer, dir: &Path) -> Result<Vec<u64>> {
    let mut moments = Vec::new();
    for n in 0..BACKUPS {
        let to = dir.join(format!("{n}.backup")).display().to_string();
        let made = tool(coffer, &["state", "backup", &to])?.ok()?;
        let copy = restored(coffer, made.trim(), &dir.join(format!("restored-{n}")))?;
        ensure!(copy["integrity"] == "ok" && copy["broken"] == 0, "{copy}");
        let moment = copy["a"].as_u64().context("no number")?;
        ensure!(copy["z"] == moment && copy["newest"] == moment, "{copy}");
        ensure!(copy["tenants"] == KEPT && copy["users"] == KEPT, "{copy}");
        moments.push(moment);
    }
    Ok(moments)
}

#[test]
fn backups_under_writes_are_whole_and_of_one_moment() -> Result<()> {
    let mut coffer = Coffer::start()?;
    // Coffer's only writer waits for the other process, and says so where the machine is slow.
    coffer.expect_lines(&["time to acquire exceeded slow threshold"]);
    let path = store(&coffer);
    let writer = Background::start("python3", &["-c", WRITER, &path])?;
    let has_begun = || {
        let written = look(&path).ok().and_then(|found| found["a"].as_u64());
        Ok(written.is_some_and(|n| n > KEPT).then_some(()))
    };
    wait_until(SOON, has_begun).context("the writer gets on")?;
    let dir = tempfile::tempdir_in("/var/tmp")?;
    let is_over = AtomicBool::new(false);
    let (made, moments) = std::thread::scope(|scope| {
        let changing = scope.spawn(|| change_projects(&coffer, &is_over));
        let moments = back_up(&coffer, dir.path());
        is_over.store(true, Ordering::Relaxed);
        (changing.join(), moments)
    });
    let moments = moments?;
    let made = made.map_err(|_| anyhow::anyhow!("a client panicked"))??;
    drop(writer);
    println!("{made} projects meanwhile; backups as of {moments:?}");
    ensure!(made > 0, "nothing was asked of the API meanwhile");
    ensure!(moments.is_sorted_by(|a, b| a < b), "{moments:?}");
    Ok(())
}
