//! Coffer as a user who is not root: databases work, are published on loopback, outlive Coffer, and
//! leave nothing; doctor, the API and the log say what is not enforced.

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, Database, INSTANCE_MAX};
use e2e::ground::Ground;
use e2e::host;
use e2e::run::{Ended, Program, wait_until};

use crate::bare::is_said;

/// SQL at the published port of this host.
fn psql(coffer: &Coffer, db: &Database, sql: &str) -> Result<Ended> {
    let shown = coffer.show(&db.id)?.context("the instance is gone")?;
    let addresses = shown["addresses"].as_array().context("no addresses")?;
    let public = addresses.iter().find(|one| one["type"] == "public");
    let port = public.context("not published")?["port"].as_u64();
    let port = port.context("no port")?;
    // Of two ports the later holds.
    db.psql_with(&format!("sslmode=require port={port}"), sql)
}

fn relays(uid: u32) -> Result<Vec<u32>> {
    let all = host::processes_of_user(uid)?.into_iter();
    let relays = all.filter(|(_, line)| line.contains("sandbox-relay"));
    Ok(relays.map(|(pid, _)| pid).collect())
}

#[test]
fn a_database_works_without_root() -> Result<()> {
    let ground = Ground::new_user();
    let Ground::User(uid) = ground else {
        unreachable!("a user is asked for")
    };
    let lines = || -> Result<Vec<String>> {
        let all = host::processes_of_user(uid)?.into_iter();
        let mut lines: Vec<String> = all.map(|(_, line)| line).collect();
        lines.sort();
        Ok(lines)
    };
    let mut coffer = Coffer::start_on(ground)?;
    coffer.expect_lines(&["not enforced on this host"]);
    let (before, idle) = (coffer.traces()?, lines()?);
    let db = coffer.create("db1")?;
    ensure!(db.address == "127.0.0.1", "{db:?}");
    psql(
        &coffer,
        &db,
        "CREATE TABLE t (a int); INSERT INTO t VALUES (7)",
    )?
    .ok()?;
    is_said(
        &coffer,
        &[
            "user ids of their own",
            "memory",
            "volume sizes",
            "I/O limits of volume types",
        ],
        &[
            "privileges: no root",
            "user ids of their own",
            "ports of this host, 127.0.0.1:20000-29999",
            "memory and CPU are not enforced",
            "volume sizes are not enforced",
            "limits on operations and bytes a second are not enforced",
        ],
    )?;
    // A relay that is killed is missed.
    let [relay] = relays(uid)?[..] else {
        anyhow::bail!("not one relay: {:?}", lines()?)
    };
    Program::new("kill", ["-KILL", &relay.to_string()])
        .run()?
        .ok()?;
    wait_until(INSTANCE_MAX, || {
        let is_served = psql(&coffer, &db, "SELECT 1")?.code == 0;
        Ok((is_served && relays(uid)?.len() == 1).then_some(()))
    })?;
    // The database outlives Coffer; the next Coffer finds it and leads it.
    let sandbox = coffer.sandbox(&db.id)?;
    let shown = coffer.show(&db.id)?.context("the instance is gone")?;
    let port = shown["addresses"].as_array().and_then(|all| {
        let public = all.iter().find(|one| one["type"] == "public")?;
        public["port"].as_u64()
    });
    let words = format!("sslmode=require port={}", port.context("no port")?);
    coffer.kill()?;
    ensure!(db.psql_with(&words, "TABLE t")?.ok()?.trim() == "7");
    coffer.up()?;
    coffer.await_active(&db.id)?;
    ensure!(coffer.sandbox(&db.id)? == sandbox, "it was started anew");
    ensure!(db.psql_with(&words, "TABLE t")?.ok()?.trim() == "7");
    coffer
        .coffer(&["instance", "restart", "db1", "--wait"])?
        .ok()?;
    coffer.await_active(&db.id)?;
    ensure!(db.psql_with(&words, "TABLE t")?.ok()?.trim() == "7");
    coffer
        .coffer(&["instance", "delete", "db1", "--wait"])?
        .ok()?;
    let left = coffer.traces()?;
    ensure!(left == before, "left on the host: {left:#?}");
    wait_until(INSTANCE_MAX, || Ok((lines()? == idle).then_some(())))
        .with_context(|| format!("left running: {:#?}", lines()))?;
    // With no instance left, the holder of the namespaces goes with Coffer.
    coffer.stop()?;
    wait_until(INSTANCE_MAX, || Ok(lines()?.is_empty().then_some(())))
        .with_context(|| format!("left running: {:#?}", lines()))
}
