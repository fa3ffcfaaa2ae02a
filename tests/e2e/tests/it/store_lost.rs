//! The store taken away from a Coffer at work: its file system takes no more changes, or its pages
//! are overwritten. Databases go on serving, the API says what is wrong and what to do, and mended
//! it goes on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::Coffer;
use e2e::engine::Served;
use e2e::run::{Ended, wait_until};
use e2e::writer::Writer;

use crate::disk::Disk;
use crate::kills::processes;
use crate::state::tool;

/// How long a Coffer may take to meet what is wrong.
const SOON: Duration = Duration::from_secs(20);
/// What of a file is left as it is; unit: bytes.
const DAMAGED_FROM: u64 = 4_096;

/// What the log says as long as the store fails, in the log and to those who ask.
const TROUBLE: [&str; 3] = [
    "store-",
    "the database can only be read",
    "the disk of the database fails",
];

/// Asks again and again until it is refused, with these words.
fn await_refusal(words: &[&str], mut ask: impl FnMut() -> Result<Ended>) -> Result<()> {
    let refused = wait_until(SOON, || {
        let ended = ask()?;
        Ok((ended.code != 0).then_some(ended))
    });
    let refused = refused.context("nothing is refused")?;
    for word in words {
        ensure!(refused.err.contains(word), "no '{word}': {refused:?}");
    }
    Ok(())
}

/// The client goes on, and has lost nothing.
fn goes_on(writer: &Writer) -> Result<()> {
    let written = writer.count();
    wait_until(SOON, || Ok((writer.count() > written).then_some(()))).context("it writes on")?;
    writer.verify()
}

#[test]
fn a_store_that_becomes_read_only_refuses_changes_and_goes_on_when_it_is_mended() -> Result<()> {
    let disk = Disk::new(256)?;
    let store = disk.path().join("coffer.db");
    let word = format!("state.store_url=sqlite://{}", store.display());
    let mut coffer = Coffer::start_with(&["--set", &word])?;
    coffer.expect_lines(&TROUBLE);
    let db = coffer.create("db1")?;
    let writer = Writer::start(&Served::from(&db))?;
    let engine = processes(&coffer, &db.id, "bin/postgres -D")?;

    disk.fail()?;
    let ask = || coffer.coffer(&["instance", "create", "db2", "--flavor", "small"]);
    await_refusal(&["databases go on serving", "writable again"], ask)?;
    goes_on(&writer)?;

    coffer.stop()?;
    disk.mend()?;
    coffer.up()?;
    coffer.await_active(&db.id)?;
    coffer.create("db3")?;
    goes_on(&writer)?;
    let now = processes(&coffer, &db.id, "bin/postgres -D")?;
    ensure!(now.iter().min() == engine.iter().min(), "it was restarted");
    Ok(())
}

/// Overwrites what a store holds, in its file and in what was not yet brought into it, but for how
/// each begins.
fn damage(dir: &Path) -> Result<()> {
    for name in ["coffer.db", "coffer.db-wal"] {
        let file = File::options().write(true).open(dir.join(name))?;
        let length = file.metadata()?.len().saturating_sub(DAMAGED_FROM);
        let nonsense = vec![0x5a; usize::try_from(length)?];
        file.write_all_at(&nonsense, DAMAGED_FROM)?;
        file.sync_all()?;
    }
    Ok(())
}

/// Keeps the store aside, as the operator is told to.
fn keep_aside(coffer: &Coffer, aside: &Path) -> Result<()> {
    for end in ["", "-wal", "-shm"] {
        let name = format!("coffer.db{end}");
        let from = coffer.dir().join(&name);
        if from.exists() {
            fs::rename(from, aside.join(name))?;
        }
    }
    Ok(())
}

#[test]
fn a_store_that_is_damaged_at_work_is_told_and_restored_from_its_backup() -> Result<()> {
    let mut coffer = Coffer::start()?;
    coffer.expect_lines(&TROUBLE);
    coffer.expect_lines(&[
        "the database is damaged",
        "the state was restored",
        "state-restored",
    ]);
    let db = coffer.create("db1")?;
    let writer = Writer::start(&Served::from(&db))?;
    let engine = processes(&coffer, &db.id, "bin/postgres -D")?;
    let aside = tempfile::tempdir()?;
    let to = aside.path().display().to_string();
    let backup = tool(&coffer, &["state", "backup", &to])?.ok()?;

    damage(coffer.dir())?;
    let ask = || coffer.coffer(&["instance", "create", "db2", "--flavor", "small"]);
    await_refusal(&["is damaged", "restore the newest backup"], ask)?;
    let doctor = tool(&coffer, &["doctor"])?;
    ensure!(
        format!("{doctor:?}").contains("coffer state restore"),
        "{doctor:?}"
    );
    goes_on(&writer)?;

    coffer.stop()?;
    keep_aside(&coffer, aside.path())?;
    tool(&coffer, &["state", "restore", backup.trim()])?.ok()?;
    coffer.up()?;
    let report = || {
        let told = tool(&coffer, &["state", "report"])?.ok()?;
        Ok(told.contains("created since").then_some(()))
    };
    wait_until(SOON, report).context("the report")?;
    tool(&coffer, &["state", "confirm"])?.ok()?;
    coffer.await_active(&db.id)?;
    coffer.create("db3")?;
    goes_on(&writer)?;
    let now = processes(&coffer, &db.id, "bin/postgres -D")?;
    ensure!(now.iter().min() == engine.iter().min(), "it was restarted");
    Ok(())
}
