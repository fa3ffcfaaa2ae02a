//! A tenant's own volume that fills up: the engine refuses or ends, everybody else goes on, and
//! with space again it serves what it had acknowledged.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coffer_testkit::counts::count;
use e2e::coffer::Coffer;
use e2e::engine::{Kind, Served, one_of_each};
use e2e::run::{Program, wait_until};
use e2e::writer::Writer;

use crate::kills::processes;

/// What a file leaves of the volume for the engine. Redis and Valkey have to meet the end of it
/// before the end of their memory.
const LEFT_MIB: u64 = 40;
const LEFT_OF_KEY_VALUE_MIB: u64 = 12;
/// LIMIT: numbers with ballast until an engine has to refuse one.
const WRITES_MAX: u64 = 250;
/// How long a status, a start in place, or a write after there is space again may take: MariaDB
/// looks for space once a minute.
const SOON: Duration = Duration::from_secs(90);
const AGENT: &str = "coffer-guest agent";

/// A file of the engine's in an instance's volume, gone when dropped.
struct Ballast(PathBuf);

impl Ballast {
    /// Takes what is free but for some.
    fn put(coffer: &Coffer, db: &Served) -> Result<Self> {
        let data = format!("/proc/{}/root/data", coffer.sandbox(&db.id)?);
        let path = PathBuf::from(&data).join("engine/ballast");
        let free = Program::new("stat", ["-f", "-c", "%a %S", &data])
            .run()?
            .ok()?;
        let (blocks, size) = free.trim().split_once(' ').context("no free space told")?;
        let free = blocks.parse::<u64>()? * size.parse::<u64>()?;
        let left = match db.key_value() {
            Some(_) => LEFT_OF_KEY_VALUE_MIB,
            None => LEFT_MIB,
        };
        let take = free.saturating_sub(left << 20).to_string();
        let file = path.display().to_string();
        Program::new("fallocate", ["-l", &take, &file])
            .run()?
            .ok()?;
        Ok(Self(path))
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.0) {
            eprintln!("remove {}: {error}", self.0.display());
        }
    }
}

/// Writes until it is refused; how many numbers were acknowledged, the last one or two of which a
/// refusal may follow late.
fn fill(db: &Served) -> Result<u64> {
    for n in 1..=WRITES_MAX {
        if let Err(refusal) = db.put_with_ballast(n) {
            println!("{} at {n}: {refusal:#}", db.kind.name());
            return Ok(n - 1);
        }
    }
    anyhow::bail!("{} refuses nothing", db.kind.name())
}

fn agents(coffer: &Coffer, db: &Served) -> Result<Vec<u32>> {
    processes(coffer, &db.id, AGENT)
}

/// One engine's volume is full, and has space again.
fn goes_on(coffer: &Coffer, db: &Served) -> Result<()> {
    let agent = agents(coffer, db)?;
    let ballast = Ballast::put(coffer, db)?;
    let acknowledged = fill(db)?;
    let told = coffer.coffer(&["instance", "explain", &db.id])?.ok()?;
    println!(
        "{}: {}",
        db.kind.name(),
        told.lines().next().unwrap_or_default()
    );
    if db.key_value().is_some() {
        // It has nothing on the disk to do in order to read.
        db.has(1..=acknowledged).context("reads go on")?;
        refuses(coffer, db)?;
    }
    ensure!(agents(coffer, db)? == agent, "the agent ended");
    drop(ballast);
    if db.kind == Kind::Mariadb && count("full_volume_of_mariadb") == 0 {
        return Ok(());
    }
    wait_until(SOON, || Ok(db.put(WRITES_MAX + 1).is_ok().then_some(())))
        .context("it takes writes again")?;
    coffer.await_active(&db.id)?;
    db.has((1..=acknowledged).chain([WRITES_MAX + 1]))
}

/// It takes no write, and whoever asks what is the matter is told.
fn refuses(coffer: &Coffer, db: &Served) -> Result<()> {
    ensure!(db.put(WRITES_MAX + 2).is_err(), "a later write is taken");
    let words = ["instance", "explain", &db.id];
    let is_told = || {
        let told = coffer.coffer(&words)?.ok()?;
        Ok(told.contains("Its guest said").then_some(told))
    };
    let told = wait_until(SOON, is_told).context("the instance shows as blocked, and why")?;
    println!(
        "{}: {}",
        db.kind.name(),
        told.lines().next().unwrap_or_default()
    );
    Ok(())
}

#[test]
fn a_full_volume_is_its_tenants_own_and_goes_on_with_space() -> Result<()> {
    let coffer = Coffer::start()?;
    let all = one_of_each(&coffer)?;
    let neighbour = coffer.create("neighbour")?;
    let writer = Writer::start(&Served::from(&neighbour))?;
    let ended: Vec<_> = std::thread::scope(|scope| {
        let begun = all.iter().map(|db| scope.spawn(|| goes_on(&coffer, db)));
        let begun: Vec<_> = begun.collect();
        begun
            .into_iter()
            .map(std::thread::ScopedJoinHandle::join)
            .collect()
    });
    for (db, ended) in all.iter().zip(ended) {
        let ended = ended.map_err(|_| anyhow::anyhow!("its story panicked"));
        ended
            .and_then(|ended| ended)
            .with_context(|| db.kind.name())?;
    }
    writer.verify()?;
    neighbour.await_answer()
}
