//! `coffer connect`: the real psql through the relay, as a user with its password and as a user
//! made for the occasion, who is gone however the visit ends.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use e2e::coffer::{Coffer, Database};
use e2e::host;
use e2e::run::{Background, Ended, Program, timed, wait_until};

use crate::kills;

/// Longest time until a visitor is gone, the slowest case being an agent that starts again.
pub(crate) const GONE_MAX: Duration = Duration::from_secs(30);
/// LIMIT: pages of the audit trail that are read.
const PAGES_MAX: usize = 50;
/// Words for psql that leave nothing but the answer.
pub(crate) const PLAIN: [&str; 3] = ["-XAtq", "-v", "ON_ERROR_STOP=1"];

fn password_file(coffer: &Coffer, password: &str) -> Result<PathBuf> {
    let file = coffer.dir().join("password");
    fs::write(&file, format!("{password}\n"))?;
    Ok(file)
}

#[test]
fn a_user_connects_where_nothing_is_published() -> Result<()> {
    let coffer = Coffer::start()?;
    let made = coffer.create_with("db1", &["--database", "app", "--user", "joe"])?;
    let id = made["id"].as_str().context("no id")?;
    let password = made["passwords"]["joe"].as_str().context("no password")?;
    ensure!(coffer.address(id).is_err(), "it is published");
    let connect = |password: &str, more: &[&str]| -> Result<Ended> {
        let file = password_file(&coffer, password)?.display().to_string();
        let words = [
            "connect",
            "db1",
            "--user",
            "joe",
            "--password-file",
            &file,
            "--",
        ];
        let words: Vec<&str> = words.iter().chain(&PLAIN).chain(more).copied().collect();
        coffer.coffer(&words)
    };
    let sql = "SELECT current_user, current_database(), ssl FROM pg_stat_ssl \
               WHERE pid = pg_backend_pid()";
    let told = connect(password, &["-c", sql])?.ok()?;
    ensure!(told.trim() == "joe|app|t", "{told}");
    // More than any buffer on the way, in both directions.
    let script = coffer.dir().join("large.sql");
    let large = "x".repeat(3_000_000);
    fs::write(&script, format!("SELECT '{large}';\n"))?;
    let script = script.display().to_string();
    let told = connect(password, &["-f", &script])?.ok()?;
    ensure!(told.trim() == large, "{} bytes came back", told.len());
    let refused = connect("wrong", &["-c", "SELECT 1"])?;
    ensure!(
        refused.code == 2 && refused.err.contains("password"),
        "{refused:?}"
    );
    let failed = connect(password, &["-c", "SELECT 1/0"])?;
    ensure!(
        failed.code == 1,
        "the exit code is the client's: {failed:?}"
    );
    audited(&coffer, id)?;
    without_a_client_of_the_host(&coffer, password)
}

/// The audit trail of all projects, as the administrator reads it.
pub(crate) fn audit_trail(coffer: &Coffer) -> Result<String> {
    let issue = ["token", "issue", "-f", "json"];
    let token = coffer.client_of("admin", "openstack", &issue)?.json()?;
    let (token, project) = (token["id"].as_str(), token["project_id"].as_str());
    let token = format!("X-Auth-Token: {}", token.context("no token")?);
    let project = project.context("no project")?;
    let mut url = format!(
        "https://127.0.0.1:{}/v1.0/{project}/admin/audit",
        coffer.port()
    );
    let ca = coffer.dir().join("ca.pem").display().to_string();
    let mut trail = String::new();
    for _ in 0..PAGES_MAX {
        let words = ["-s", "--cacert", &ca, "-H", &token, &url];
        let page = Program::new("curl", words).run()?.json()?;
        trail.push_str(&page["audit"].to_string());
        let links = page["links"].as_array().into_iter().flatten();
        let next = links.into_iter().find(|link| link["rel"] == "next");
        match next.and_then(|link| link["href"].as_str()) {
            Some(next) => url = next.to_owned(),
            None => return Ok(trail),
        }
    }
    bail!("the audit trail has more than {PAGES_MAX} pages")
}

/// Every connection is in the audit trail, with its bytes and how it ended.
fn audited(coffer: &Coffer, id: &str) -> Result<()> {
    wait_until(GONE_MAX, || {
        let shown = audit_trail(coffer)?;
        let has = |action: &str| shown.contains(&format!("\"coffer:instance:{action}\""));
        let counts = shown.contains(&format!("instances/{id}/connect?sent="))
            && shown.contains("&ended=client\"")
            && shown.contains("\"client_address\":\"127.0.0.1\"");
        Ok((has("connect") && has("disconnect") && counts).then_some(()))
    })
}

/// A host without psql uses the one of the engine root.
fn without_a_client_of_the_host(coffer: &Coffer, password: &str) -> Result<()> {
    let file = password_file(coffer, password)?.display().to_string();
    let credentials = coffer.credentials("demo").display().to_string();
    let program = e2e::coffer::binary("coffer")?.display().to_string();
    let words = [
        "--credentials",
        &credentials,
        "connect",
        "db1",
        "--user",
        "joe",
    ];
    let more = [
        "--password-file",
        &file,
        "--",
        "-XAtq",
        "-c",
        "SELECT 40 + 2",
    ];
    let run = Program::new(&program, words.into_iter().chain(more)).env("PATH", "/nonexistent");
    let told = run.run()?.ok()?;
    ensure!(told.trim() == "42", "{told}");
    Ok(())
}

/// Visitors in the engine, asked at its published address: Coffer may be away.
fn visitors(db: &Database) -> Result<String> {
    let sql = "SELECT count(*) FROM pg_roles WHERE starts_with(rolname, 'coffer_visitor_')";
    Ok(db.psql(sql)?.ok()?.trim().to_owned())
}

pub(crate) fn await_gone(db: &Database) -> Result<()> {
    wait_until(GONE_MAX, || Ok((visitors(db)? == "0").then_some(())))
}

/// A visit whose client is in the middle of a query.
pub(crate) fn stay(coffer: &Coffer, db: &Database) -> Result<Background> {
    let words = ["connect", "db1", "--", "-X", "-c", "SELECT pg_sleep(600)"];
    let client = coffer.begin(&words)?;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE starts_with(usename, 'coffer_visitor_')";
    let is_there = || Ok((db.psql(sql)?.ok()?.trim() == "1").then_some(()));
    wait_until(GONE_MAX, is_there).context("the visitor comes")?;
    Ok(client)
}

/// Whether the secret of a visit shows where others look.
fn keeps_its_secret(coffer: &Coffer, client: &Background) -> Result<()> {
    let psql = host::children(client.id(), "psql")?;
    let psql = *psql.first().context("no psql runs")?;
    let words = |pid: u32, file: &str| -> Result<String> {
        let bytes = fs::read(format!("/proc/{pid}/{file}"))?;
        Ok(String::from_utf8_lossy(&bytes).replace('\0', "\n"))
    };
    let line = words(psql, "cmdline")?;
    let file = line.split_once("passfile='").context("no passfile")?.1;
    let file = file.split_once('\'').context("no passfile")?.0;
    let secret = fs::read_to_string(file)?;
    let secret = secret.trim().rsplit(':').next().unwrap_or_default();
    ensure!(secret.len() >= 32, "the password is short");
    for pid in [psql, client.id()] {
        for place in ["cmdline", "environ"] {
            let shown = words(pid, place)?;
            ensure!(!shown.contains(secret), "{place} of {pid} shows it");
        }
    }
    ensure!(!coffer.log().contains(secret), "the log shows it");
    Ok(())
}

#[test]
fn a_visitor_is_gone_however_the_visit_ends() -> Result<()> {
    let mut coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    let made = [
        "-c",
        "CREATE TABLE t AS SELECT 7 AS a",
        "-c",
        "SELECT current_user",
    ];
    let words: Vec<&str> = ["connect", "db1", "--"]
        .iter()
        .chain(&PLAIN)
        .chain(&made)
        .copied()
        .collect();
    let told = coffer.coffer(&words)?.ok()?;
    ensure!(told.starts_with("coffer_visitor_"), "{told}");
    await_gone(&db).context("after the client's end")?;
    let left = db.psql("TABLE t")?.ok()?;
    ensure!(
        left.trim() == "7",
        "what it made stays, and the others may use it"
    );
    wait_until(GONE_MAX, || {
        let shown = audit_trail(&coffer)?;
        let left = format!("instances/{}/visits?user=coffer_visitor_", db.id);
        Ok((shown.contains("coffer:instance:leave") && shown.contains(&left)).then_some(()))
    })
    .context("the end of a visit is in the audit trail")?;
    let users = coffer.coffer(&["database-user", "list", "db1"])?.ok()?;
    ensure!(!users.contains("coffer_visitor_"), "{users}");

    let client = stay(&coffer, &db)?;
    keeps_its_secret(&coffer, &client)?;
    kills::kill(&[client.id()])?;
    await_gone(&db).context("after kill -9 of the client")?;

    let mut client = stay(&coffer, &db)?;
    kills::kill(&kills::processes(&coffer, &db.id, "coffer-guest agent")?)?;
    await_gone(&db).context("after kill -9 of the agent")?;
    wait_until(GONE_MAX, || Ok((!client.is_running()?).then_some(())))
        .context("its client ends")?;

    let mut client = stay(&coffer, &db)?;
    coffer.kill()?;
    await_gone(&db).context("after kill -9 of Coffer, which is away")?;
    wait_until(GONE_MAX, || Ok((!client.is_running()?).then_some(())))
        .context("its client ends")?;
    coffer.up()?;

    let mut client = stay(&coffer, &db)?;
    let (took, stopped) = timed(|| coffer.stop());
    stopped?;
    ensure!(
        took < Duration::from_secs(10),
        "a visit held Coffer up: {took:?}"
    );
    await_gone(&db).context("after a stop of Coffer")?;
    wait_until(GONE_MAX, || Ok((!client.is_running()?).then_some(())))
        .context("its client ends")?;
    Ok(())
}

/// Who may no longer ask Coffer has no business in an instance that it opened by Coffer.
#[test]
fn a_closed_user_is_sent_away() -> Result<()> {
    let coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    let mut client = stay(&coffer, &db)?;
    let set = |enabled: &str| {
        coffer
            .admin(&["user", "set", "demo", "--enabled", enabled])?
            .ok()
    };
    set("false")?;
    wait_until(GONE_MAX, || Ok((!client.is_running()?).then_some(())))
        .context("its client ends")?;
    await_gone(&db)?;
    set("true")?;
    coffer
        .coffer(&["connect", "db1", "--", "-XAtq", "-c", "SELECT 1"])?
        .ok()?;
    wait_until(GONE_MAX, || {
        let shown = audit_trail(&coffer)?;
        let has = |action: &str| shown.contains(&format!("\"coffer:instance:{action}\""));
        Ok((has("disconnect") && has("leave")).then_some(()))
    })
    .context("its end is in the audit trail")
}
