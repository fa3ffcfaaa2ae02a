//! A Coffer that survives itself: its state backed up, lost and restored while databases serve; its
//! keys rotated and lost; its store brought to another schema.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, Database, INSTANCE_MAX};
use e2e::lines::LOST;
use e2e::run::{Ended, Program, wait_until};
use serde_json::Value;

use crate::kills::processes;

/// How long something small may take.
const SOON: Duration = Duration::from_secs(30);

/// Runs one of the tools of Coffer's host on the state directory.
pub(crate) fn tool(coffer: &Coffer, words: &[&str]) -> Result<Ended> {
    let dir = coffer.dir().display().to_string();
    let (first, rest) = words.split_first().context("a tool has a name")?;
    let words: Vec<&str> = [*first, "--state-dir", &dir]
        .into_iter()
        .chain(rest.iter().copied())
        .collect();
    coffer.coffer(&words)
}

/// Whether a tool refused, with these words.
pub(crate) fn refused(ended: Ended, words: &str) -> Result<()> {
    ensure!(ended.code != 0, "it was not refused: {ended:?}");
    let told = format!("{ended:?}");
    ensure!(told.contains(words), "no '{words}' in {told}");
    Ok(())
}

fn passphrase(dir: &Path) -> Result<PathBuf> {
    let file = dir.join("passphrase");
    fs::write(&file, "correct horse battery staple\n")?;
    Ok(file)
}

/// Writes on one connection for some seconds; every statement has to succeed.
fn write_on(db: &Database, seconds: u32) -> std::thread::JoinHandle<Result<()>> {
    let db = db.clone();
    let loops = seconds * 10;
    std::thread::spawn(move || {
        let sql = format!(
            "DO $$ BEGIN FOR i IN 1..{loops} LOOP INSERT INTO t VALUES (i); COMMIT; \
             PERFORM pg_sleep(0.1); END LOOP; END $$"
        );
        db.psql(&sql)?.ok().map(drop)
    })
}

fn ended(writing: std::thread::JoinHandle<Result<()>>) -> Result<()> {
    writing
        .join()
        .map_err(|_| anyhow::anyhow!("the writer died"))?
}

/// Moves everything of the state directory that a lost one would lack; what is on the host stays.
fn lose_state(coffer: &Coffer, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    let names = [
        "coffer.db",
        "coffer.db-wal",
        "coffer.db-shm",
        "master.key",
        "tag",
        "ca.pem",
    ];
    for name in names.iter().chain(&["admin.toml", "demo.toml"]) {
        let from = coffer.dir().join(name);
        if from.exists() {
            fs::rename(&from, to.join(name))?;
        }
    }
    Ok(())
}

#[test]
fn a_lost_state_is_restored_and_nothing_of_what_was_made_since_is_deleted() -> Result<()> {
    let mut coffer = Coffer::start()?;
    coffer.expect_lines(LOST);
    // What a restored state says until it is confirmed, in the log and to those who ask.
    coffer.expect_lines(&["the state was restored from a backup", "state-restored"]);
    let aside = tempfile::tempdir()?;
    let secret = passphrase(aside.path())?.display().to_string();
    let (kept, gone) = (coffer.create("kept")?, coffer.create("gone")?);
    kept.psql("CREATE TABLE t (a int)")?.ok()?;
    let engine = processes(&coffer, &kept.id, "bin/postgres -D")?;
    let writing = write_on(&kept, 20);

    let to = aside.path().display().to_string();
    let made = tool(
        &coffer,
        &["state", "backup", &to, "--passphrase-file", &secret],
    )?;
    let file = made.ok()?.trim().to_owned();
    let bytes = fs::read(&file)?;
    let password = fs::read_to_string(coffer.credentials("admin"))?;
    let password = password
        .lines()
        .find(|line| line.starts_with("password"))
        .context("none")?;
    for hidden in [
        fs::read(coffer.dir().join("master.key"))?,
        password.as_bytes().to_vec(),
    ] {
        let is_in_it = bytes.windows(hidden.len()).any(|window| window == hidden);
        ensure!(!is_in_it, "a secret lies open in the backup");
    }
    let doctor = tool(&coffer, &["doctor"])?;
    ensure!(
        format!("{doctor:?}").contains("state backup: made"),
        "{doctor:?}"
    );

    // What happens after the backup.
    let new = coffer.create("new")?;
    new.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (7)")?
        .ok()?;
    coffer
        .coffer(&["instance", "delete", "gone", "--wait"])?
        .ok()?;
    let restore = [
        "state",
        "restore",
        file.as_str(),
        "--passphrase-file",
        secret.as_str(),
    ];
    refused(tool(&coffer, &restore)?, "in use")?;
    coffer.stop()?;
    refused(tool(&coffer, &restore)?, "in use: ")?;
    lose_state(&coffer, &aside.path().join("lost"))?;
    let damaged = aside.path().join("damaged");
    let mut broken = bytes.clone();
    broken[bytes.len() / 2] ^= 1;
    fs::write(&damaged, broken)?;
    let damaged = damaged.display().to_string();
    refused(tool(&coffer, &["state", "restore", &damaged])?, "damaged")?;
    let wrong = aside.path().join("wrong");
    fs::write(&wrong, "another passphrase\n")?;
    let wrong = wrong.display().to_string();
    let words = [
        "state",
        "restore",
        file.as_str(),
        "--passphrase-file",
        wrong.as_str(),
    ];
    refused(tool(&coffer, &words)?, "does not open")?;
    ensure!(
        !coffer.dir().join("coffer.db").exists(),
        "nothing was changed"
    );
    tool(&coffer, &restore)?.ok()?;
    coffer.up()?;

    // It only reports.
    let report = wait_until(SOON, || {
        let shown = tool(&coffer, &["state", "report"])?.ok()?;
        Ok(shown.contains("created since").then_some(shown))
    })?;
    for words in [
        "created since the backup: 1",
        "deleted since the backup: 1",
        "not there any more: 0",
        "not known what it is: 0",
    ] {
        ensure!(report.contains(words), "{report}");
    }
    ensure!(
        report.contains(&new.id) && report.contains(&gone.id),
        "{report}"
    );
    let refusal = coffer.coffer(&["instance", "delete", "kept"])?;
    refused(refusal, "not confirmed")?;
    ended(writing)?;
    ensure!(
        new.psql("TABLE t")?.ok()?.trim() == "7",
        "the new one serves"
    );
    ensure!(coffer.show(&new.id)?.is_none(), "it is not known yet");

    // And settles when that is wanted.
    let settled = tool(&coffer, &["state", "confirm"])?.ok()?;
    ensure!(settled.contains("settled"), "{settled}");
    coffer.await_active(&new.id)?;
    coffer.await_active(&kept.id)?;
    coffer.await_gone(&gone.id)?;
    ensure!(
        new.psql("TABLE t")?.ok()?.trim() == "7",
        "its data are there"
    );
    ensure!(coffer.address(&new.id)? == new.address, "the address stays");
    let name = coffer.show(&new.id)?.context("it is there")?["name"].clone();
    ensure!(name == "new", "{name}");
    ensure!(
        processes(&coffer, &kept.id, "bin/postgres -D")? == engine,
        "nothing was restarted"
    );
    coffer
        .coffer(&["instance", "restart", "new", "--wait"])?
        .ok()?;
    new.await_answer()?;
    for id in [&kept.id, &new.id] {
        coffer.coffer(&["instance", "delete", id, "--wait"])?.ok()?;
    }
    let left = coffer.traces()?;
    ensure!(left.is_empty(), "left: {left:#?}");
    Ok(())
}

#[test]
fn keys_are_rotated_under_work_and_over_kills_and_a_lost_one_is_said_plainly() -> Result<()> {
    let mut coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    db.psql("CREATE TABLE t (a int)")?.ok()?;
    let file = coffer.dir().join("master.key");
    let first = fs::read(&file)?;
    // Killed on its way, and asked for again; meanwhile secrets are sealed and opened.
    let dir = coffer.dir().display().to_string();
    let rotating = coffer.begin(&["key", "--state-dir", &dir, "rotate"])?;
    wait_until(SOON, || Ok((fs::read(&file)? != first).then_some(())))?;
    drop(rotating);
    ensure!(
        coffer.dir().join("master.key.old").exists(),
        "it was not under way"
    );
    let refusal = tool(&coffer, &["state", "backup", "/var/tmp/never"])?;
    refused(refusal, "rotation of the master key")?;
    let other = coffer.create("db2")?;
    let rotated = tool(&coffer, &["key", "rotate"])?;
    ensure!(
        format!("{rotated:?}").contains("had been begun"),
        "{rotated:?}"
    );
    ensure!(
        !coffer.dir().join("master.key.old").exists(),
        "the old key is gone"
    );
    let told = tool(&coffer, &["key", "rotate", "--project", "demo"])?.ok()?;
    ensure!(told.contains("has a new key"), "{told}");
    let grant = [
        "database-user",
        "create",
        "db1",
        "jane",
        "--database",
        "app",
    ];
    coffer.coffer(&grant)?.ok()?;
    coffer.stop()?;
    coffer.up()?;
    coffer
        .coffer(&["instance", "restart", "db2", "--wait"])?
        .ok()?;
    other.await_answer()?;

    // Lost: nothing new is made in its place, and databases go on.
    let writing = write_on(&db, 5);
    coffer.stop()?;
    let kept = coffer.dir().join("kept");
    fs::rename(&file, &kept)?;
    let up = Program::new(
        &e2e::coffer::binary("coffer")?.display().to_string(),
        ["up", "--state-dir", &dir, "--listen", "127.0.0.1:0"],
    );
    refused(up.run()?, "the master key is lost")?;
    ensure!(!file.exists(), "another key was made");
    let doctor = tool(&coffer, &["doctor"])?;
    refused(doctor, "the master key is lost")?;
    fs::write(&file, [7; 32])?;
    refused(
        tool(&coffer, &["key", "status"])?,
        "is not the key of this store",
    )?;
    ended(writing)?;
    fs::rename(&kept, &file)?;
    coffer.up()?;
    for id in [&db.id, &other.id] {
        coffer.coffer(&["instance", "delete", id, "--wait"])?.ok()?;
    }
    Ok(())
}

/// Takes the last migration back, so that the store is as the Coffer before it left it; the
/// benchmark of upgrades does so as well.
pub(crate) const BACK: &str = include_str!("python/older_store.py");

#[test]
fn a_store_of_before_is_upgraded_with_a_create_in_flight_while_databases_serve() -> Result<()> {
    let mut coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    db.psql("CREATE TABLE t (a int)")?.ok()?;
    let engine = processes(&coffer, &db.id, "bin/postgres -D")?;
    let asked = ["--json", "instance", "create", "db2", "--flavor", "small"];
    let made: Value = coffer.coffer(&asked)?.json()?;
    let id = made["id"].as_str().context("no id")?.to_owned();
    coffer.kill()?;
    let store = coffer.dir().join("coffer.db").display().to_string();
    Program::new("python3", ["-c", BACK, &store]).run()?.ok()?;
    let writing = write_on(&db, 10);
    // Only an upgrade, which keeps a way back, brings it to another schema.
    let up = ["up", "--listen", "127.0.0.1:0"];
    refused(tool(&coffer, &up)?, "coffer upgrade")?;
    let told = tool(&coffer, &["upgrade", "--if-started"])?.ok()?;
    ensure!(told.contains("from schema 5 to "), "{told}");
    coffer.up()?;
    refused(tool(&coffer, &["upgrade"])?, "in use by")?;
    coffer.await_active(&id)?;
    ended(writing)?;
    ensure!(
        processes(&coffer, &db.id, "bin/postgres -D")? == engine,
        "nothing was restarted"
    );
    // A build that does not know a task says which, and touches nothing.
    coffer
        .coffer(&["instance", "stop", "db2", "--wait"])?
        .ok()?;
    coffer.stop()?;
    let strange = "import sqlite3, sys\ndb = sqlite3.connect(sys.argv[1])\n\
                   db.execute(\"UPDATE tasks SET state = 'ready', run_at = 1 << 62, \
                   step = '{\\\"step\\\":\\\"dance\\\"}' WHERE workflow = 'stop_instance'\")\n\
                   db.commit()\ndb.close()\n";
    Program::new("python3", ["-c", strange, &store])
        .run()?
        .ok()?;
    refused(tool(&coffer, &["upgrade"])?, "has no step")?;
    coffer.up()?;
    for id in [&db.id, &id] {
        coffer.coffer(&["instance", "delete", id, "--wait"])?.ok()?;
    }
    let left = wait_until(INSTANCE_MAX, || {
        let left = coffer.traces()?;
        Ok(left.is_empty().then_some(left))
    })?;
    ensure!(left.is_empty(), "left: {left:#?}");
    Ok(())
}

#[test]
fn a_store_that_is_read_only_or_damaged_is_refused_and_databases_go_on() -> Result<()> {
    let mut coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    db.psql("CREATE TABLE t (a int)")?.ok()?;
    coffer.stop()?;
    let writing = write_on(&db, 10);
    let path = coffer.dir().join("coffer.db");
    let store = path.display().to_string();
    let dir = coffer.dir().display().to_string();
    let up = || {
        let words = ["up", "--state-dir", &dir, "--listen", "127.0.0.1:0"];
        Program::new(&e2e::coffer::binary("coffer")?.display().to_string(), words).run()
    };
    // Not even root writes to what is mounted read-only.
    let mount = |words: &[&str]| Program::new("mount", words.iter().copied()).run()?.ok();
    mount(&["--bind", &dir, &dir])?;
    mount(&["-o", "remount,bind,ro", &dir])?;
    let backups = tempfile::tempdir()?;
    let target = backups.path().join("read-only.backup");
    let target = target.display().to_string();
    let answers = (
        up(),
        tool(&coffer, &["doctor"]),
        tool(&coffer, &["state", "backup", &target]),
    );
    Program::new("umount", [&dir]).run()?.ok()?;
    let refusal = answers.0?;
    refused(refusal.clone(), "databases go on serving")?;
    refused(refusal, "ead-only")?;
    let doctor = answers.1?;
    refused(doctor.clone(), "cannot be written")?;
    ensure!(!doctor.out.contains("damaged"), "{doctor:?}");
    let backed_up = answers.2?;
    ensure!(backed_up.code == 0, "{backed_up:?}");
    mount(&["--bind", &store, &store])?;
    mount(&["-o", "remount,bind,ro", &store])?;
    let answers = (up(), tool(&coffer, &["doctor"]));
    Program::new("umount", [&store]).run()?.ok()?;
    let refusal = answers.0?;
    refused(refusal.clone(), "databases go on serving")?;
    refused(refusal, "ead-only")?;
    refused(answers.1?, "cannot be written")?;

    let whole = fs::read(&path)?;
    let mut damaged = whole.clone();
    let end = damaged.len().min(200_000);
    damaged[8_192..end].fill(0x5a);
    fs::write(&path, &damaged)?;
    let refusal = up()?;
    refused(refusal.clone(), "is damaged")?;
    refused(refusal, "databases go on serving")?;
    refused(tool(&coffer, &["doctor"])?, "coffer state restore")?;
    refused(
        tool(&coffer, &["state", "backup", "/var/tmp/never"])?,
        "damaged",
    )?;
    ensure!(fs::read(&path)? == damaged, "what is damaged was touched");
    ended(writing)?;
    // Lost altogether, no new one takes its place: it would know of nothing that is here. Nor does
    // an empty one, be it that somebody put it there.
    fs::remove_file(&path)?;
    for refusal in [up()?, tool(&coffer, &["key", "status"])?] {
        refused(refusal, "coffer state restore")?;
        ensure!(!path.exists(), "a new store was made");
    }
    fs::write(&path, "")?;
    refused(up()?, "volumes are here")?;
    refused(up()?, "volumes are here")?;
    ensure!(db.psql("SELECT 1")?.code == 0, "a database was touched");
    for end in ["-wal", "-shm"] {
        fs::remove_file(coffer.dir().join(format!("coffer.db{end}"))).ok();
    }
    fs::write(&path, &whole)?;
    coffer.up()?;
    coffer.await_active(&db.id)?;
    coffer
        .coffer(&["instance", "delete", "db1", "--wait"])?
        .ok()?;
    Ok(())
}
