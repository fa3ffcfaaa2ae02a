//! A newer Coffer gives the guests that run already its own agent, over their links: the engine and
//! its clients notice nothing.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, Database};
use e2e::engine::Served;
use e2e::run::{Program, wait_until};
use e2e::writer::Writer;

use crate::kills;

/// Longest time until an agent is replaced after a start of Coffer, its trial included.
const REPLACED_MAX: Duration = Duration::from_secs(90);
/// Words for either form of link.
const LINKS: [&[&str]; 2] = [&[], &["--set", "tracker.link=network"]];

/// A copy of the guest's binary whose checksum is another: what follows an executable's end is not
/// read by anybody.
pub(crate) fn other_build(coffer: &Coffer) -> Result<PathBuf> {
    let path = coffer.dir().join("coffer-guest-next");
    fs::copy(coffer.program("coffer-guest")?, &path)?;
    fs::File::options()
        .append(true)
        .open(&path)?
        .write_all(b"another build")?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

fn sha256(path: &Path) -> Result<String> {
    let path = path.display().to_string();
    let said = Program::new("sha256sum", [path.as_str()]).run()?.ok()?;
    let sum = said.split_whitespace().next();
    Ok(sum.context("no checksum")?.to_owned())
}

/// The agent of an instance: its pid, and the checksum of what it runs.
fn agent(coffer: &Coffer, db: &Database) -> Result<(u32, String)> {
    let pids = kills::processes(coffer, &db.id, "coffer-guest agent")?;
    let pid = *pids.first().context("no agent runs")?;
    let exe = PathBuf::from(format!("/proc/{pid}/exe"));
    Ok((pid, sha256(&exe)?))
}

/// Pid and start time of the postmaster, as the host and as the engine tell them. A child of its
/// shows the same words until it has changed its title.
fn postmaster(coffer: &Coffer, db: &Database) -> Result<(u32, String)> {
    let pids = kills::processes(coffer, &db.id, "bin/postgres -D")?;
    let pid = pids.into_iter().min().context("no engine runs")?;
    let started = db.psql("SELECT pg_postmaster_start_time()")?.ok()?;
    Ok((pid, started.trim().to_owned()))
}

fn events(coffer: &Coffer, db: &Database) -> Result<String> {
    let words = ["--json", "instance", "events", &db.id];
    Ok(coffer.coffer(&words)?.json()?.to_string())
}

fn replaced_over(link: &[&str]) -> Result<()> {
    let mut coffer = Coffer::start_with(link)?;
    let db = coffer.create("db1")?;
    let writer = Writer::start(&Served::from(&db))?;
    let (before, engine) = (agent(&coffer, &db)?, postmaster(&coffer, &db)?);
    let next = other_build(&coffer)?;
    let wanted = sha256(&next)?;
    ensure!(before.1 != wanted, "it is no other build");
    let backend = "SELECT pid, backend_start FROM pg_stat_activity WHERE query LIKE \
                   'INSERT INTO kept%'";
    // Before its first statement it shows none.
    let client = || {
        wait_until(REPLACED_MAX, || {
            let now = db.psql(backend)?.ok()?.trim().to_owned();
            Ok((!now.is_empty()).then_some(now))
        })
    };
    let connected = client()?;

    coffer.stop()?;
    let words = format!("local.guest_binary={}", next.display());
    coffer.add_words(&["--set", &words]);
    coffer.up()?;
    wait_until(REPLACED_MAX, || {
        let is_told = events(&coffer, &db)?.contains("agent.replaced");
        Ok(is_told.then_some(()))
    })
    .with_context(|| format!("no agent was replaced\n{}", coffer.log()))?;
    let after = agent(&coffer, &db)?;
    ensure!(after.1 == wanted && after.0 != before.0, "{after:?}");
    ensure!(postmaster(&coffer, &db)? == engine, "not the same engine");
    ensure!(client()? == connected, "the client was cut off");
    let written = writer.count();
    wait_until(
        REPLACED_MAX,
        || Ok((writer.count() > written).then_some(())),
    )?;
    writer.verify()?;
    // It does what agents do, also where it runs a tool under the engine's user.
    coffer
        .coffer(&["instance", "restart", &db.id, "--wait"])?
        .ok()?;
    coffer.await_active(&db.id)?;
    // A delete is not held up, and nothing is left of either binary.
    drop(writer);
    coffer
        .coffer(&["instance", "delete", &db.id, "--wait"])?
        .ok()
        .map(drop)
}

#[test]
fn a_newer_agent_takes_over_beside_a_running_engine() -> Result<()> {
    LINKS.into_iter().try_for_each(replaced_over)
}

#[test]
fn a_broken_agent_is_given_up_and_the_one_before_goes_on() -> Result<()> {
    let mut coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    let (before, engine) = (agent(&coffer, &db)?, postmaster(&coffer, &db)?);
    coffer.kill()?;
    coffer.add_words(&["--set", "local.guest_binary=/bin/false"]);
    coffer.up()?;
    wait_until(REPLACED_MAX, || {
        let is_told = events(&coffer, &db)?.contains("agent.replace_failed");
        Ok(is_told.then_some(()))
    })
    .with_context(|| format!("nothing failed\n{}", coffer.log()))?;
    ensure!(agent(&coffer, &db)?.1 == before.1, "another agent runs");
    ensure!(postmaster(&coffer, &db)? == engine, "not the same engine");
    coffer.await_active(&db.id)
}

#[test]
fn a_kill_of_coffer_in_the_middle_of_it_does_not_matter() -> Result<()> {
    let mut coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    let engine = postmaster(&coffer, &db)?;
    let next = other_build(&coffer)?;
    let wanted = sha256(&next)?;
    coffer.kill()?;
    let words = format!("local.guest_binary={}", next.display());
    coffer.add_words(&["--set", &words]);
    // Killed as soon as it has asked for it, and then twice as soon as it is up again.
    coffer.up()?;
    let is_asked = || Ok(coffer.log().contains("replace the agent").then_some(()));
    wait_until(REPLACED_MAX, is_asked).with_context(|| coffer.log())?;
    coffer.kill()?;
    for _ in 0..2 {
        coffer.up()?;
        coffer.kill()?;
    }
    coffer.up()?;
    wait_until(REPLACED_MAX, || {
        Ok((agent(&coffer, &db).is_ok_and(|now| now.1 == wanted)).then_some(()))
    })
    .with_context(|| coffer.log())?;
    coffer.await_active(&db.id)?;
    ensure!(postmaster(&coffer, &db)? == engine, "not the same engine");
    Ok(())
}
