//! A store in PostgreSQL that an older Coffer left: upgraded only with its operator's word that it
//! is backed up, and with everything that is in it.

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, binary};
use e2e::engine::{Kind, Served, ask};
use e2e::run::{Ended, Program};

use crate::kills::processes;
use crate::processes::Server;
use crate::state::refused;

/// What takes the last migration back; what of it is not SQL is SQLite's.
const BACK: &str = include_str!("python/older_store.py");

/// The same statements as on SQLite.
fn statements() -> Result<&'static str> {
    let mut parts = BACK.split("\"\"\"");
    // The first are the words on what it is for.
    let found = parts.find(|part| part.contains("DELETE FROM schema_version"));
    found.context("no statements")
}

fn schema(store: &Server) -> Result<String> {
    let found = store.query("SELECT max(version) FROM schema_version")?;
    found.into_iter().next().context("no schema")
}

fn upgrade(coffer: &Coffer, store: &Server, more: &[&str]) -> Result<Ended> {
    let (dir, url) = (coffer.dir().display().to_string(), store.url());
    let words = ["upgrade", "--state-dir", &dir, "--set", &url];
    let words = words.into_iter().chain(more.iter().copied());
    Program::new(&binary("coffer")?.display().to_string(), words).run()
}

#[test]
fn a_store_in_postgresql_is_upgraded_once_it_is_said_to_be_backed_up() -> Result<()> {
    let store = Server::start()?;
    let mut coffer = Coffer::start_with(&["--set", &store.url()])?;
    let asked = ask(&coffer, Kind::Postgresql, "db1")?;
    let id = asked["id"].as_str().context("no id")?.to_owned();
    coffer.await_active(&id)?;
    let db = Served::of(&coffer, Kind::Postgresql, &asked)?;
    db.begin()?;
    db.put(1)?;
    let engine = processes(&coffer, &id, Kind::Postgresql.process())?;
    let newest = schema(&store)?;
    refused(
        upgrade(&coffer, &store, &["--store-is-backed-up"])?,
        "in use",
    )?;
    coffer.stop()?;
    let told = upgrade(&coffer, &store, &[])?.ok()?;
    ensure!(told.contains("nothing to do"), "{told}");

    store.query(statements()?)?;
    let older = schema(&store)?;
    ensure!(older != newest, "{older}");
    let (dir, url) = (coffer.dir().display().to_string(), store.url());
    for role in ["up", "api", "conductor"] {
        let words = [role, "--state-dir", &dir, "--set", &url];
        let started = Program::new(&binary("coffer")?.display().to_string(), words).run()?;
        ensure!(
            started.code != 0 && started.err.contains("coffer upgrade"),
            "{started:?}"
        );
    }
    ensure!(schema(&store)? == older, "what was refused was done");
    refused(upgrade(&coffer, &store, &[])?, "pg_dump")?;
    ensure!(schema(&store)? == older, "what was refused was done");
    // A task that this build does not know stands in the way, with the word and without.
    let strange = "UPDATE tasks SET state = 'ready', step = '{\"step\":\"dance\"}', \
                   run_at = 4611686018427387904 WHERE workflow = 'create_instance'";
    let known = store.query("SELECT step FROM tasks WHERE workflow = 'create_instance'")?;
    store.query(strange)?;
    refused(
        upgrade(&coffer, &store, &["--store-is-backed-up"])?,
        "has no step",
    )?;
    ensure!(schema(&store)? == older, "what was refused was done");
    let step = known.first().context("no create")?;
    let back = format!(
        "UPDATE tasks SET state = 'done', step = '{step}' WHERE workflow = 'create_instance'"
    );
    store.query(&back)?;
    let upgraded = upgrade(&coffer, &store, &["--store-is-backed-up"])?;
    ensure!(upgraded.err.contains("pg_restore"), "{upgraded:?}");
    ensure!(upgraded.ok()?.contains("up to date"));
    ensure!(schema(&store)? == newest, "{}", schema(&store)?);

    coffer.up()?;
    coffer.await_active(&id)?;
    db.has([1])?;
    // The server's children come and go; the server has the lowest number.
    let now = processes(&coffer, &id, Kind::Postgresql.process())?;
    ensure!(now.iter().min() == engine.iter().min(), "it was restarted");
    coffer
        .coffer(&["instance", "delete", &id, "--wait"])?
        .ok()?;
    let left = coffer.traces()?;
    ensure!(left.is_empty(), "left: {left:#?}");
    Ok(())
}
