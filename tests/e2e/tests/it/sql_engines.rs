//! MySQL and MariaDB the whole way through: the stock API makes them, their own clients use them
//! over verified TLS, and what a hostile root tries is refused.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use coffer_testkit::counts::versions;
use e2e::coffer::{Coffer, binary};
use e2e::run::{Program, wait_until};
use e2e::sql::{Login, Stream, tree_of};

use crate::kills::{kill, processes};
use crate::sql_root;

/// Longest time until an engine that died is at work again.
pub(crate) const BACK_MAX: Duration = Duration::from_secs(60);

/// An engine of the family, and one version of it.
#[derive(Debug)]
pub(crate) struct Version {
    pub(crate) engine: &'static str,
    version: String,
    /// Word in the command line of the server.
    pub(crate) server: &'static str,
    client: &'static str,
}

fn build(version: &Version) -> Result<()> {
    let coffer = binary("coffer")?.display().to_string();
    let recipe = format!("{}-{}", version.engine, version.version);
    let built = Program::new(&coffer, ["image", "build", &recipe]);
    built.limit_seconds(600).run()?.ok().map(drop)
}

/// Creates a published instance and logs in as its user.
fn create(coffer: &Coffer, version: &Version, name: &str) -> Result<(String, Login)> {
    let words = [
        "--datastore",
        version.engine,
        "--datastore-version",
        &version.version,
    ];
    let db = coffer.create_published(name, &words)?;
    let login = Login {
        tree: tree_of(&format!("{}-{}", version.engine, version.version))?,
        program: version.client,
        address: db.address.clone(),
        ca: coffer.project_ca("demo")?,
        user: "joe".to_owned(),
        password: db.password.clone(),
        database: "app".to_owned(),
    };
    Ok((db.id, login))
}

/// The first answer over verified TLS, and none without.
fn is_encrypted(version: &Version, joe: &Login) -> Result<()> {
    let show = joe
        .run("SELECT VERSION(); SHOW STATUS LIKE 'Ssl_version'")?
        .ok()?;
    ensure!(show.starts_with(&version.version), "{show}");
    ensure!(show.contains("TLSv1."), "{show}");
    let plain = match version.client {
        "mysql" => "ssl-mode=DISABLED\n",
        _ => "skip-ssl\n",
    };
    let refused = joe.run_with(plain, "SELECT 1")?;
    ensure!(refused.code != 0, "let in without TLS");
    let settings = "SELECT @@log_bin, @@sync_binlog, @@innodb_flush_log_at_trx_commit, \
                    @@binlog_checksum, @@binlog_format, @@server_id > 1";
    let settings = joe.run(settings)?.ok()?;
    ensure!(settings.trim() == "1\t1\t1\tCRC32\tROW\t1", "{settings}");
    Ok(())
}

/// Users, databases and grants.
fn users_and_databases(coffer: &Coffer, name: &str, joe: &Login) -> Result<()> {
    let words = ["database", "create", name, "second-`db`_%"];
    coffer.coffer(&words)?.ok()?;
    let words = [
        "--json",
        "database-user",
        "create",
        name,
        "ann",
        "--database",
        "second-`db`_%",
    ];
    let made = coffer.coffer(&words)?.json()?;
    let password = made.pointer("/password").and_then(|p| p.as_str());
    let ann = joe.as_user("ann", password.context("no password")?, "second-`db`_%");
    ann.run("CREATE TABLE mine (a INT)")?.ok()?;
    let foreign = ann.as_user("ann", &ann.password, "app").run("SELECT 1")?;
    ensure!(
        foreign.code != 0,
        "let into a database that was not granted"
    );
    coffer
        .coffer(&["database-user", "delete", name, "ann"])?
        .ok()?;
    ensure!(ann.run("SELECT 1")?.code != 0, "a deleted user is out");
    Ok(())
}

/// The engine's own client through Coffer's relay, as a user made for the occasion.
fn connects(coffer: &Coffer, name: &str) -> Result<()> {
    let sql = "SELECT DATABASE(), CURRENT_USER()";
    let words = ["connect", name, "--database", "app", "--", "-N", "-e", sql];
    let told = coffer.coffer(&words)?.ok()?;
    ensure!(
        told.contains("app") && told.contains("coffer_visitor_"),
        "{told}"
    );
    Ok(())
}

/// The engine's log is where logs are looked for, and tells no password.
fn logs(coffer: &Coffer, id: &str, joe: &Login) -> Result<()> {
    let inside = format!("/proc/{}/root/data/log/error.log", coffer.sandbox(id)?);
    let log = std::fs::read_to_string(&inside).with_context(|| inside.clone())?;
    ensure!(log.contains("ready for connections"), "{log}");
    ensure!(!log.contains(&joe.password), "the log shows a password");
    let own = coffer.log();
    ensure!(!own.contains(&joe.password), "Coffer's log shows it");
    Ok(())
}

fn lives(version: &Version) -> Result<()> {
    build(version)?;
    let mut coffer = Coffer::start()?;
    // Whether the conductor knows of a stop before it misses the guest is a matter of moments.
    coffer.expect_lines(&["guest is not heard"]);
    let before = coffer.traces()?;
    let name = "db1";
    let (id, joe) = create(&coffer, version, name)?;
    is_encrypted(version, &joe)?;
    joe.run("CREATE TABLE t (a INT); INSERT INTO t VALUES (7)")?
        .ok()?;
    users_and_databases(&coffer, name, &joe)?;
    connects(&coffer, name)?;
    let (_, neighbour) = create(&coffer, version, "neighbour")?;
    sql_root::all(&coffer, version, &id, &joe, &neighbour)?;

    let instance = |verb: &str| coffer.coffer(&["instance", verb, name, "--wait"])?.ok();
    instance("restart")?;
    coffer.await_active(&id)?;
    let has_data = || Ok::<_, anyhow::Error>(joe.run("SELECT a FROM t")?.ok()?.trim() == "7");
    ensure!(has_data()?, "data outlive a restart");
    instance("stop")?;
    ensure!(joe.run("SELECT 1")?.code != 0, "what is stopped answers");
    instance("start")?;
    coffer.await_active(&id)?;
    ensure!(has_data()?, "data outlive a stop and start");

    let stream = Stream::start(&joe)?;
    wait_until(BACK_MAX, || Ok((stream.count() > 200).then_some(())))?;
    let engines = processes(&coffer, &id, version.server)?;
    ensure!(engines.len() == 1, "{engines:?}");
    kill(&engines)?;
    wait_until(BACK_MAX, || {
        Ok((joe.run("SELECT 1")?.code == 0).then_some(()))
    })
    .context("the engine is started again")?;
    stream.verify(&joe)?;
    logs(&coffer, &id, &joe)?;

    for name in [name, "neighbour"] {
        coffer
            .coffer(&["instance", "delete", name, "--wait"])?
            .ok()?;
    }
    let left = coffer.traces()?;
    ensure!(left == before, "left on the host: {left:#?}");
    Ok(())
}

/// Each version that is asked for, one after the other.
fn all_live(engine: &'static str, server: &'static str, client: &'static str) -> Result<()> {
    for version in versions("living_versions", engine) {
        let named = format!("{engine} {version}");
        let version = Version {
            engine,
            version,
            server,
            client,
        };
        lives(&version).context(named)?;
    }
    Ok(())
}

#[test]
fn mysql_lives_through_the_api() -> Result<()> {
    all_live("mysql", "sbin/mysqld ", "mysql")
}

#[test]
fn mariadb_lives_through_the_api() -> Result<()> {
    all_live("mariadb", "sbin/mariadbd ", "mariadb")
}
