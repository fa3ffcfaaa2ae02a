//! What a tenant's root tries in MySQL and MariaDB, from outside and inside a sandbox: the lines of
//! the table in `docs/security.md`. What the engine itself decides is tried beside this without a
//! sandbox, with each attempt where it works (`crates/guest/tests/it/engine/sql_refusals.rs`).

use anyhow::{Context, Result, ensure};
use e2e::coffer::Coffer;
use e2e::run::wait_until;
use e2e::sql::Login;

use crate::kills::processes;
use crate::sql_engines::{BACK_MAX, Version};

/// The document that names every attempt.
const SECURITY: &str = include_str!("../../../../docs/security.md");

/// What root may not do, by name, each with words of the refusal.
const HOSTILE: &[(&str, &str, &[&str])] = &[
    (
        "read-file",
        "SELECT LOAD_FILE('/etc/passwd') IS NULL AND LOAD_FILE('/data/tls/engine.key') IS NULL",
        &["1"],
    ),
    (
        "read-file-into-table",
        "CREATE TABLE app.l (a TEXT); LOAD DATA INFILE '/etc/passwd' INTO TABLE app.l",
        &["secure"],
    ),
    (
        "write-file",
        "SELECT 1 INTO OUTFILE '/tmp/out'",
        &["secure"],
    ),
    (
        "dump-file",
        "SELECT 1 INTO DUMPFILE '/data/config/my.cnf'",
        &["secure"],
    ),
    (
        "library",
        "CREATE FUNCTION f RETURNS INTEGER SONAME 'evil.so'",
        &["an't open"],
    ),
    (
        "library-by-path",
        "CREATE FUNCTION f RETURNS INTEGER SONAME '../../../../data/engine/evil.so'",
        &["path"],
    ),
    (
        "plugin",
        "INSTALL PLUGIN evil SONAME 'evil.so'",
        &["an't open"],
    ),
    (
        "file-directory",
        "SET GLOBAL secure_file_priv = ''",
        &["read only"],
    ),
    (
        "plugin-directory",
        "SET GLOBAL plugin_dir = '/tmp'",
        &["read only"],
    ),
    (
        "init-file",
        "SET GLOBAL init_file = '/tmp/x'",
        &["read only"],
    ),
    (
        "log-elsewhere",
        "SET GLOBAL general_log_file = '/usr/x.log'; SET GLOBAL general_log = ON",
        &["x.log", "rror"],
    ),
];

/// A plugin that MySQL's root carries, which copies all data to where it is told: name, statement
/// that brings it in, what is refused, and the same where the engine may write.
const CLONE: &str = "clone-elsewhere";
const CLONE_IN: &str = "INSTALL PLUGIN clone SONAME 'mysql_clone.so'";
const CLONE_ELSEWHERE: &str = "CLONE LOCAL DATA DIRECTORY = '/run/evil'";
const CLONE_WHERE_ALLOWED: &str = "CLONE LOCAL DATA DIRECTORY = '/data/engine/copy'; \
                                   UNINSTALL PLUGIN clone";

/// To fetch data from another server, by a connection that the engine makes: name, and how each of
/// them says it. At both addresses is a server: inside its own, outside that of a neighbour.
const REPLICATE: &str = "replicate-from-server";
const REPLICATE_MYSQL: [&str; 3] = [
    "SET GLOBAL replica_net_timeout = 3; \
     CHANGE REPLICATION SOURCE TO SOURCE_HOST = '@', SOURCE_USER = 'nobody', \
     SOURCE_PASSWORD = 'x', SOURCE_SSL = 1, SOURCE_CONNECT_RETRY = 1; START REPLICA",
    "SHOW REPLICA STATUS",
    "STOP REPLICA; RESET REPLICA ALL",
];
const REPLICATE_MARIADB: [&str; 3] = [
    "SET GLOBAL slave_net_timeout = 3; \
     CHANGE MASTER TO MASTER_HOST = '@', MASTER_USER = 'nobody', MASTER_PASSWORD = 'x', \
     MASTER_CONNECT_RETRY = 1; START SLAVE",
    "SHOW SLAVE STATUS",
    "STOP SLAVE; RESET SLAVE ALL",
];
const INSIDE: &str = "127.0.0.1";
/// How the server says that it reaches nobody, and that somebody answers who knows no such user.
const NOT_REACHED: &str = "\t2003\t";
const ANSWERED: &str = "\t1045\t";

/// The log where the engine may write: `log-elsewhere` is refused for its place.
const LOG_WHERE_ALLOWED: &str = "SET GLOBAL general_log_file = '/tmp/x.log'; \
                                 SET GLOBAL general_log = ON; SET GLOBAL general_log = OFF";

/// What works, and is mended by a start.
const SHUTDOWN: &str = "shutdown";
const OWN_ACCOUNT: &str = "own-account-of-mariadb";

/// Root is let in when it is enabled, does no harm that a start does not mend, and is out when it
/// is disabled.
pub(crate) fn all(
    coffer: &Coffer,
    version: &Version,
    id: &str,
    joe: &Login,
    neighbour: &Login,
) -> Result<()> {
    ensure!(
        joe.as_user("root", "", "app").run("SELECT 1")?.code != 0,
        "root from the start"
    );
    let enabled = coffer.coffer(&["--json", "root", "enable", id])?.json()?;
    let password = enabled.pointer("/password").and_then(|p| p.as_str());
    let root = joe.as_user("root", password.context("no password")?, "app");
    ensure!(root.run("SELECT CURRENT_USER()")?.ok()?.trim() == "root@%");
    for (attempt, sql, refusal) in HOSTILE {
        let ended = root.run(sql)?;
        let said = format!("{}{}", ended.out, ended.err);
        let is_refused = refusal.iter().any(|word| said.contains(word));
        ensure!(is_refused, "{attempt}: {sql}: {said}");
    }
    root.run(LOG_WHERE_ALLOWED)?.ok()?;
    if version.engine == "mysql" {
        clones_elsewhere(&root)?;
    }
    replicates(version, &root, neighbour)?;
    shuts_down(coffer, version, id, &root)?;
    if version.engine == "mariadb" {
        locks_coffer_out(coffer, id, &root)?;
    }
    coffer.coffer(&["root", "disable", id])?.ok()?;
    ensure!(
        root.run("SELECT 1")?.code != 0,
        "root was disabled, and let in"
    );
    Ok(())
}

/// A copy of the data gets no further than the engine's own files do.
fn clones_elsewhere(root: &Login) -> Result<()> {
    root.run(CLONE_IN)?.ok().context(CLONE)?;
    let ended = root.run(CLONE_ELSEWHERE)?;
    ensure!(ended.code != 0, "{CLONE}: it works: {ended:?}");
    eprintln!("{CLONE}: {}", ended.err.trim());
    root.run(CLONE_WHERE_ALLOWED)?.ok().context(CLONE).map(drop)
}

/// No connection of the engine's leaves its sandbox.
fn replicates(version: &Version, root: &Login, neighbour: &Login) -> Result<()> {
    neighbour.run("SELECT 1")?.ok().context("it is there")?;
    for (address, wanted) in [(INSIDE, ANSWERED), (&neighbour.address, NOT_REACHED)] {
        replicates_from(version, root, address, wanted).context(REPLICATE)?;
    }
    Ok(())
}

fn replicates_from(version: &Version, root: &Login, address: &str, wanted: &str) -> Result<()> {
    let [begin, show, end] = match version.engine {
        "mysql" => REPLICATE_MYSQL,
        _ => REPLICATE_MARIADB,
    };
    root.run(&begin.replace('@', address))?.ok()?;
    let told = wait_until(BACK_MAX, || {
        let told = root.run(show)?.ok()?;
        let is_told = [NOT_REACHED, ANSWERED]
            .iter()
            .any(|code| told.contains(code));
        Ok(is_told.then_some(told))
    })?;
    ensure!(told.contains(wanted), "from {address}: {told}");
    root.run(end)?.ok().map(drop)
}

/// A server that root shuts down is started again.
fn shuts_down(coffer: &Coffer, version: &Version, id: &str, root: &Login) -> Result<()> {
    let engine = || processes(coffer, id, version.server);
    let before = engine()?;
    ensure!(before.len() == 1, "{before:?}");
    // Whether the client still hears the answer is a matter of moments.
    root.run("SHUTDOWN")?;
    wait_until(BACK_MAX, || {
        let now = engine()?;
        let is_another = !now.is_empty() && now != before;
        Ok((is_another && root.run("SELECT 1")?.code == 0).then_some(()))
    })
    .with_context(|| format!("{SHUTDOWN}: the engine is gone and started again"))?;
    coffer.await_active(id)
}

/// MariaDB's root can lock Coffer's account and end its session: the instance is shown as not
/// answering, serves its users all the same, and a restart gives Coffer its account back.
fn locks_coffer_out(coffer: &Coffer, id: &str, root: &Login) -> Result<()> {
    let account = "`coffer-agent`@`localhost`";
    let sql = format!("ALTER USER {account} ACCOUNT LOCK; KILL USER {account}");
    root.run(&sql)?.ok().context(OWN_ACCOUNT)?;
    wait_until(BACK_MAX, || {
        let shown = coffer.show(id)?.context("the instance is gone")?;
        Ok((shown["operating_status"] != "HEALTHY").then_some(()))
    })
    .with_context(|| format!("{OWN_ACCOUNT}: the instance is shown as not answering"))?;
    root.run("SELECT 1")?.ok()?;
    coffer
        .coffer(&["instance", "restart", id, "--wait"])?
        .ok()
        .context(OWN_ACCOUNT)?;
    coffer.await_active(id).context(OWN_ACCOUNT)
}

#[test]
fn the_document_names_every_attempt() {
    let attempts = HOSTILE.iter().map(|(name, ..)| *name);
    let missing: Vec<_> = attempts
        .chain([CLONE, REPLICATE, SHUTDOWN, OWN_ACCOUNT])
        .filter(|name| !SECURITY.contains(&format!("| `{name}` |")))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/security.md does not name {missing:?}"
    );
}
