//! API and task managers as processes of their own on PostgreSQL, one of them killed.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, INSTANCE_MAX, binary};
use e2e::run::{Program, wait_until};
use tempfile::TempDir;

/// A PostgreSQL for the store.
struct Server {
    dir: TempDir,
    port: u16,
}

const BIN: &str = "/usr/lib/postgresql/15/bin";

fn as_postgres(program: &str, args: &[&str]) -> Result<String> {
    let path = format!("{BIN}/{program}");
    let words = ["-u", "postgres", "--", &path]
        .into_iter()
        .chain(args.iter().copied());
    Program::new("runuser", words).run()?.ok()
}

impl Server {
    fn start() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("coffer-store-")
            .tempdir_in("/var/tmp")?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?
            .local_addr()?
            .port();
        let path = dir.path().display().to_string();
        Program::new("chown", ["postgres", &path]).run()?.ok()?;
        let data = format!("{path}/data");
        as_postgres(
            "initdb",
            &["-D", &data, "-A", "trust", "--no-sync", "-U", "coffer"],
        )?;
        let options = format!("-p {port} -k {path} -c fsync=off");
        let log = format!("{path}/log");
        as_postgres(
            "pg_ctl",
            &["-D", &data, "-w", "-l", &log, "-o", &options, "start"],
        )?;
        as_postgres(
            "createdb",
            &[
                "-h",
                &path,
                "-p",
                &port.to_string(),
                "-U",
                "coffer",
                "coffer",
            ],
        )?;
        Ok(Self { dir, port })
    }

    fn url(&self) -> String {
        format!(
            "state.store_url=postgres://coffer@127.0.0.1:{}/coffer",
            self.port
        )
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let data = format!("{}/data", self.dir.path().display());
        if let Err(error) = as_postgres("pg_ctl", &["-D", &data, "-m", "immediate", "stop"]) {
            eprintln!("stop the store's server: {error:#}");
        }
    }
}

/// A process of one role, ended with the test.
struct Role(Child);

impl Role {
    #[expect(clippy::disallowed_methods, reason = "a role outlives one call")]
    fn start(role: &str, coffer: &Coffer, store: &Server) -> Result<Self> {
        let path = coffer.dir().join(format!("{role}.log"));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)?;
        let child = Command::new(binary("coffer")?)
            .args([role, "--state-dir"])
            .arg(coffer.dir())
            .args(["--set", &store.url()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {role}"))?;
        Ok(Self(child))
    }

    fn kill(&mut self) -> Result<()> {
        self.0.kill().context("kill role")?;
        self.0.wait().context("wait for role").map(drop)
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

#[test]
fn two_task_managers_on_postgresql_and_one_is_killed() -> Result<()> {
    let store = Server::start()?;
    let url = store.url();
    let coffer = Coffer::start_role("api", &["--set", &url])?;
    let mut first = Role::start("task-manager", &coffer, &store)?;
    let _second = Role::start("task-manager", &coffer, &store)?;
    let _conductor = Role::start("conductor", &coffer, &store)?;
    // Versions are offered once a task manager has registered the engine roots.
    wait_until(Duration::from_secs(30), || {
        let listed = coffer.coffer(&["datastore", "list"])?.out;
        Ok(listed.contains("17").then_some(()))
    })
    .with_context(|| {
        let log = |role: &str| {
            std::fs::read_to_string(coffer.dir().join(format!("{role}.log"))).unwrap_or_default()
        };
        format!("{}{}", log("task-manager"), log("conductor"))
    })?;
    let mut ids = Vec::new();
    for n in 0..4 {
        let name = format!("db{n}");
        let words = [
            "--json", "instance", "create", &name, "--flavor", "tiny", "--public",
        ];
        let made = coffer.coffer(&words)?.json()?;
        ids.push(made["id"].as_str().context("no id")?.to_owned());
    }
    first.kill()?;
    for id in &ids {
        coffer
            .await_active(id)
            .with_context(|| format!("within {INSTANCE_MAX:?}"))?;
    }
    for id in &ids {
        coffer.coffer(&["instance", "delete", id, "--wait"])?.ok()?;
    }
    let left = coffer.traces()?;
    ensure!(left.is_empty(), "left: {left:#?}");
    Ok(())
}
