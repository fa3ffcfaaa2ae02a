//! PostgreSQL the whole way through: the versions that `living_versions` in `tests/counts.toml`
//! asks for, and in every run those that no other test meets.

use anyhow::{Context, Result, ensure};
use coffer_testkit::counts::versions;
use e2e::coffer::{Coffer, binary};
use e2e::run::Program;

/// The support matrix says that every run of the tests meets these; the version that is offered
/// first is what all other tests run on.
const ALWAYS: [&str; 2] = ["15", "18"];

/// Builds the root of a version, unless this machine has it.
fn build(version: &str) -> Result<()> {
    let coffer = binary("coffer")?.display().to_string();
    let recipe = format!("postgresql-{version}");
    let built = Program::new(&coffer, ["image", "build", &recipe]);
    built.limit_seconds(600).run()?.ok().map(drop)
}

/// Creates, asks, makes users, restarts and deletes.
fn lives(coffer: &Coffer, version: &str) -> Result<()> {
    let name = format!("db{version}");
    let db = coffer.create_published(&name, &["--datastore-version", version])?;
    let show = |what: &str| Ok::<_, anyhow::Error>(db.psql(what)?.ok()?.trim().to_owned());
    let number = show("SHOW server_version_num")?;
    ensure!(number.starts_with(version), "{number} is not {version}");
    ensure!(show("SHOW data_checksums")? == "on");
    ensure!(show("SHOW wal_level")? == "replica");
    let locale = "SELECT pg_encoding_to_char(encoding), datcollate FROM pg_database \
                  WHERE datname = 'app'";
    ensure!(show(locale)? == "UTF8|C.UTF-8", "{}", show(locale)?);
    if version != "15" {
        ensure!(show("SHOW summarize_wal")? == "on");
    }
    show("CREATE TABLE t (a int); INSERT INTO t VALUES (7)")?;

    coffer
        .coffer(&["database", "create", &name, "second"])?
        .ok()?;
    let words = [
        "--json",
        "database-user",
        "create",
        &name,
        "ann",
        "--database",
        "second",
    ];
    let made = coffer.coffer(&words)?.json()?;
    let password = made.pointer("/password").and_then(|p| p.as_str());
    let ann = e2e::coffer::Database {
        password: password
            .with_context(|| format!("no password: {made}"))?
            .to_owned(),
        ..db.clone()
    };
    let line = "dbname=second user=ann sslmode=require";
    ann.psql_with(line, "CREATE TABLE mine (a int)")?.ok()?;

    let started = "SELECT pg_postmaster_start_time()";
    let before = show(started)?;
    let instance = |verb: &str| coffer.coffer(&["instance", verb, &name, "--wait"])?.ok();
    instance("restart")?;
    coffer.await_active(&db.id)?;
    ensure!(show(started)? != before, "the engine was restarted");
    ensure!(show("TABLE t")? == "7", "data outlive a restart");
    instance("stop")?;
    ensure!(db.psql("SELECT 1")?.code != 0, "what is stopped answers");
    instance("start")?;
    coffer.await_active(&db.id)?;
    ensure!(show("TABLE t")? == "7", "data outlive a stop and start");

    coffer
        .coffer(&["database-user", "delete", &name, "ann"])?
        .ok()?;
    ensure!(
        ann.psql_with(line, "SELECT 1")?.code != 0,
        "a deleted user is out"
    );
    coffer
        .coffer(&["instance", "delete", &name, "--wait"])?
        .ok()?;
    Ok(())
}

#[test]
fn every_version_lives_through_the_api() -> Result<()> {
    let mut versions = versions("living_versions", "postgresql");
    versions.extend(ALWAYS.map(str::to_owned));
    versions.sort_unstable();
    versions.dedup();
    for version in &versions {
        build(version)?;
    }
    let mut coffer = Coffer::start()?;
    // Whether the conductor knows of a stop before it misses the guest is a matter of moments.
    coffer.expect_lines(&["guest is not heard"]);
    let before = coffer.traces()?;
    for version in &versions {
        lives(&coffer, version).with_context(|| format!("PostgreSQL {version}"))?;
    }
    let left = coffer.traces()?;
    ensure!(left == before, "left on the host: {left:#?}");
    Ok(())
}
