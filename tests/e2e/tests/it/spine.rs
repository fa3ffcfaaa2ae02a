//! The way through: created by the stock client, answered over verified TLS, still serving without
//! Coffer, deleted without a trace.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::Coffer;
use e2e::run::{Program, wait_until};

#[test]
fn stock_client_creates_uses_and_deletes_a_postgresql() -> Result<()> {
    the_way_through(&Coffer::start()?, "127.0.0.1")
}

#[test]
fn the_same_with_a_tracker_in_the_tenant_network() -> Result<()> {
    let coffer = Coffer::start_with(&["--set", "tracker.link=network"])?;
    the_way_through(&coffer, "10.80.0.1")
}

/// Where the agent sees its control side come from.
fn control_side(coffer: &Coffer, id: &str) -> Result<String> {
    let pid = coffer.sandbox(id)?.to_string();
    let sockets = ["ss", "-Htn", "state", "established", "sport = :7070"];
    let words = ["-t", &pid, "-n"].into_iter().chain(sockets);
    let words: Vec<&str> = words.collect();
    wait_until(Duration::from_secs(10), || {
        let shown = Program::new("nsenter", &words).run()?.ok()?;
        let peer = shown
            .lines()
            .next()
            .and_then(|l| l.split_whitespace().last());
        let address = peer.and_then(|peer| peer.rsplit_once(':'));
        Ok(address.map(|(address, _)| address.to_owned()))
    })
}

fn the_way_through(coffer: &Coffer, tracker: &str) -> Result<()> {
    let before = coffer.traces()?;
    let args = [
        "database",
        "instance",
        "create",
        "db1",
        "--flavor",
        "small",
        "--size",
        "1",
        "--datastore",
        "postgresql",
        "--datastore-version",
        "17",
        "--databases",
        "app",
        "--users",
        "joe:secret-1",
        "--is-public",
        "--allowed-cidr",
        "100.64.0.0/10",
        "-f",
        "json",
    ];
    let made = coffer.openstack(&args)?.json()?;
    ensure!(
        made["status"] == "BUILD",
        "a new instance is in BUILD: {made}"
    );
    let id = made["id"].as_str().context("no id")?.to_owned();
    coffer.await_active(&id)?;
    let db = e2e::coffer::Database {
        address: coffer.address(&id)?,
        id: id.clone(),
        password: "secret-1".to_owned(),
    };

    ensure!(control_side(coffer, &id)? == tracker, "not as configured");
    let ca = coffer.project_ca("demo")?;
    let verified = format!("sslmode=verify-full sslrootcert={}", ca.display());
    let out = db.psql_with(
        &verified,
        "CREATE TABLE t (a int); INSERT INTO t VALUES (7); TABLE t",
    )?;
    ensure!(out.clone().ok()?.trim() == "7", "{out:?}");
    let own_ca = format!(
        "sslmode=verify-full sslrootcert={}/ca.pem",
        coffer.dir().display()
    );
    ensure!(
        db.psql_with(&own_ca, "SELECT 1")?.code != 0,
        "another CA must not verify"
    );
    ensure!(
        db.psql_with("sslmode=disable", "SELECT 1")?.code != 0,
        "TLS is not optional"
    );

    let listed = coffer
        .openstack(&["database", "instance", "list", "-f", "json"])?
        .json()?;
    ensure!(listed[0]["Status"] == "ACTIVE" && listed[0]["Operating Status"] == "HEALTHY");
    contents(coffer, &id, &db)?;

    coffer
        .openstack(&["database", "instance", "delete", &id])?
        .ok()?;
    coffer.await_gone(&id)?;
    let left = coffer.traces()?;
    ensure!(left == before, "left on the host: {left:#?}");
    Ok(())
}

/// Databases, users, grants and root, through the stock client and seen by the engine.
fn contents(coffer: &Coffer, id: &str, db: &e2e::coffer::Database) -> Result<()> {
    let run = |args: &[&str]| coffer.openstack(args)?.ok();
    run(&["database", "db", "create", id, "second"])?;
    run(&[
        "database",
        "user",
        "create",
        id,
        "ann",
        "secret-2",
        "--databases",
        "second",
    ])?;
    let users = coffer
        .openstack(&["database", "user", "list", id, "-f", "json"])?
        .json()?;
    let names: Vec<_> = users
        .as_array()
        .context("no list")?
        .iter()
        .map(|u| &u["Name"])
        .collect();
    ensure!(names == ["ann", "joe"], "{users}");
    let ann = e2e::coffer::Database {
        password: "secret-2".to_owned(),
        ..db.clone()
    };
    let line = "dbname=second user=ann sslmode=require";
    ann.psql_with(line, "CREATE TABLE mine (a int)")?.ok()?;
    run(&["database", "user", "revoke", "access", id, "ann", "second"])?;
    ensure!(
        ann.psql_with(line, "SELECT 1")?.code != 0,
        "a revoked user cannot connect"
    );

    let enabled = coffer
        .openstack(&["database", "root", "enable", id, "-f", "json"])?
        .json()?;
    let password = enabled["password"]
        .as_str()
        .context("no root password")?
        .to_owned();
    let root = e2e::coffer::Database {
        password,
        ..db.clone()
    };
    let name = enabled["name"].as_str().context("no root name")?;
    let line = format!("user={name} sslmode=require");
    let is_super = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user";
    let answer = root.psql_with(&line, is_super)?;
    ensure!(answer.clone().ok()?.trim() == "t", "{answer:?}");
    run(&["database", "root", "disable", id])?;
    ensure!(
        root.psql_with(&line, "SELECT 1")?.code != 0,
        "root is disabled"
    );

    run(&["database", "instance", "restart", id])?;
    coffer.await_active(id)?;
    ensure!(
        db.psql("TABLE t")?.ok()?.trim() == "7",
        "data outlive a restart"
    );
    run(&["database", "user", "delete", id, "ann"])?;
    run(&["database", "db", "delete", id, "second"])?;
    let databases = coffer
        .openstack(&["database", "db", "list", id, "-f", "json"])?
        .json()?;
    ensure!(
        databases.as_array().is_some_and(|d| d.len() == 1),
        "{databases}"
    );
    Ok(())
}

#[test]
fn instances_serve_without_coffer_and_are_adopted() -> Result<()> {
    let mut coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    db.psql("CREATE TABLE t (a int)")?.ok()?;
    let started = "SELECT pg_postmaster_start_time()";
    let before = db.psql(started)?.ok()?;
    coffer.kill()?;
    db.psql("INSERT INTO t VALUES (1)")?.ok()?;
    coffer.up()?;
    coffer.await_active(&db.id)?;
    ensure!(
        db.psql(started)?.ok()? == before,
        "the engine was not restarted"
    );
    coffer.stop()?;
    db.psql("INSERT INTO t VALUES (2)")?.ok()?;
    coffer.up()?;
    coffer
        .coffer(&["instance", "delete", &db.id, "--wait"])?
        .ok()?;
    Ok(())
}

#[test]
fn two_copies_share_no_identity() -> Result<()> {
    let coffer = Coffer::start()?;
    let (a, b) = (coffer.create("a")?, coffer.create("b")?);
    let identity = "SELECT system_identifier FROM pg_control_system()";
    let (first, second) = (a.psql(identity)?.ok()?, b.psql(identity)?.ok()?);
    ensure!(first != second, "both have system identifier {first}");
    for setting in ["data_checksums", "summarize_wal"] {
        ensure!(
            a.psql(&format!("SHOW {setting}"))?.ok()?.trim() == "on",
            "{setting} is off"
        );
    }
    ensure!(a.psql("SHOW wal_level")?.ok()?.trim() == "replica");
    let locale = "SELECT datlocale FROM pg_database WHERE datname = 'app'";
    ensure!(a.psql(locale)?.ok()?.trim() == "C.UTF-8");
    Ok(())
}

#[test]
fn access_is_published_restricted_and_taken_back() -> Result<()> {
    let coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    let update = |args: &[&str]| {
        let words = ["database", "instance", "update", &db.id];
        let all: Vec<&str> = words.into_iter().chain(args.iter().copied()).collect();
        coffer.openstack(&all)?.ok()?;
        coffer.await_active(&db.id)
    };
    update(&["--is-public", "--allowed-cidr", "203.0.113.0/24"])?;
    ensure!(
        db.psql("SELECT 1")?.code != 0,
        "an address outside the range gets no answer"
    );
    update(&["--is-public", "--allowed-cidr", "100.64.0.0/10"])?;
    ensure!(coffer.address(&db.id)? == db.address, "the address stays");
    db.await_answer()?;
    let client =
        db.psql("SELECT client_addr FROM pg_stat_activity WHERE pid = pg_backend_pid()")?;
    ensure!(
        client.ok()?.starts_with("100."),
        "the client's own address is seen"
    );
    Ok(())
}

#[test]
fn publishing_later_needs_no_restart() -> Result<()> {
    let coffer = Coffer::start()?;
    let made = coffer.create_with("db1", &["--database", "app", "--user", "joe"])?;
    let id = made["id"].as_str().context("no id")?;
    ensure!(
        coffer.address(id).is_err(),
        "nothing is open that was not asked for"
    );
    let server = e2e::host::servers(coffer.dir())?.remove(0).id;
    let engine = || e2e::host::process_of(&coffer.tag()?, &server, "bin/postgres -D");
    let before = engine()?;
    coffer
        .coffer(&["instance", "set", id, "--public", "true"])?
        .ok()?;
    coffer.await_active(id)?;
    let db = e2e::coffer::Database {
        id: id.to_owned(),
        address: coffer.address(id)?,
        password: made["passwords"]["joe"]
            .as_str()
            .context("no password")?
            .to_owned(),
    };
    let ca = coffer.project_ca("demo")?;
    let verified = format!("sslmode=verify-full sslrootcert={}", ca.display());
    db.psql_with(&verified, "SELECT 1")?.ok()?;
    ensure!(engine()? == before, "the engine was restarted");
    coffer
        .coffer(&["instance", "set", id, "--public", "false"])?
        .ok()?;
    coffer.await_active(id)?;
    ensure!(
        db.psql("SELECT 1")?.code != 0,
        "what was taken back is shut"
    );
    Ok(())
}
