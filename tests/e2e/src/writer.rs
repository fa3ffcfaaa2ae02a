//! A client that writes without pause and notes every commit that was acknowledged.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use anyhow::{Context, Result, ensure};

use crate::coffer::Database;

/// Notices within seconds that the server is gone without a word.
const LINE: &str = "sslmode=require connect_timeout=2 tcp_user_timeout=2000 keepalives_idle=1 \
                    keepalives_interval=1 keepalives_count=2";
/// Between two writes: load, and not the measure of it.
const PACE_SQL: &str = "SELECT pg_sleep(0.005)";

/// Writes in the background until it is told to stop.
#[derive(Debug)]
pub struct Writer {
    db: Database,
    notes: PathBuf,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Makes its table and begins; what was acknowledged is noted in a file of `dir`.
    pub fn start(db: &Database, dir: &Path) -> Result<Self> {
        db.psql("CREATE TABLE acknowledged (n bigint PRIMARY KEY)")?
            .ok()?;
        let notes = dir.join(format!("acknowledged-{}", db.id));
        let file = File::create(&notes)?;
        let is_over = Arc::new(AtomicBool::new(false));
        let (client, over) = (db.clone(), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || write_on(&client, file, &over));
        Ok(Self {
            db: db.clone(),
            notes,
            is_over,
            thread: Some(thread),
        })
    }

    /// How many commits were acknowledged so far.
    pub fn count(&self) -> Result<usize> {
        Ok(fs::read_to_string(&self.notes)?.lines().count())
    }

    /// Every acknowledged commit is there.
    pub fn verify(&self) -> Result<()> {
        let noted = numbers(&fs::read_to_string(&self.notes)?);
        let sql = "SELECT n FROM acknowledged";
        let kept = numbers(&self.db.psql(sql)?.ok()?);
        let lost: Vec<_> = noted.difference(&kept).collect();
        ensure!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the writer panicked");
        }
    }
}

fn numbers(text: &str) -> BTreeSet<u64> {
    // A line that was cut off in the middle was not acknowledged.
    text.lines()
        .filter_map(|line| line.trim().parse().ok())
        .collect()
}

fn write_on(db: &Database, mut notes: File, is_over: &AtomicBool) {
    let mut next = 1;
    while !is_over.load(Ordering::Relaxed) {
        let Ok(mut client) = connect(db) else {
            continue;
        };
        let ended = converse(&mut client, &mut next, &mut notes, is_over);
        // A refused or broken connection is what the kills are for.
        drop(ended);
        client.kill().ok();
        client.wait().ok();
        // Whether the last one was committed is not known: it is not written again.
        next += 1;
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "one client writes for the whole test"
)]
fn connect(db: &Database) -> Result<Child> {
    let line = format!("host={} port=5432 dbname=app user=joe {LINE}", db.address);
    Command::new("psql")
        .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", &line])
        .env("PGPASSWORD", &db.password)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start psql")
}

fn converse(
    client: &mut Child,
    next: &mut u64,
    notes: &mut File,
    is_over: &AtomicBool,
) -> Result<()> {
    let mut ask = client.stdin.take().context("no standard input")?;
    let mut answers = BufReader::new(client.stdout.take().context("no output")?).lines();
    while !is_over.load(Ordering::Relaxed) {
        writeln!(ask, "INSERT INTO acknowledged VALUES ({next}) RETURNING n;")?;
        let answer = answers.next().context("the client ended")??;
        ensure!(answer == next.to_string(), "{answer}");
        writeln!(notes, "{next}")?;
        *next += 1;
        writeln!(ask, "{PACE_SQL};")?;
        answers.next().context("the client ended")??;
    }
    Ok(())
}
