//! APIs and task managers as processes of their own on PostgreSQL, one of them killed at work.

use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, INSTANCE_MAX, binary};
use e2e::run::{Ended, Program, free_port, wait_until};
use tempfile::TempDir;

use crate::connect::{self, GONE_MAX, PLAIN};

/// A PostgreSQL for the store.
pub(crate) struct Server {
    dir: TempDir,
    port: u16,
}

/// Where Debian's packages put each version of the server.
const INSTALLED: &str = "/usr/lib/postgresql";
/// Two looks for what a killed process was writing, and some time.
const SWEPT: Duration = Duration::from_secs(45);

/// The newest version's directory of programs.
fn newest_bin() -> Result<String> {
    let versions = std::fs::read_dir(INSTALLED)
        .with_context(|| format!("read {INSTALLED}: install postgresql"))?;
    let number = |entry: std::fs::DirEntry| -> Option<u32> {
        let is_server = entry.path().join("bin/initdb").exists();
        let number = entry.file_name().to_str()?.parse().ok()?;
        is_server.then_some(number)
    };
    let newest = versions.flatten().filter_map(number).max();
    let newest = newest.with_context(|| format!("{INSTALLED} has no server"))?;
    Ok(format!("{INSTALLED}/{newest}/bin"))
}

fn as_postgres(program: &str, args: &[&str]) -> Result<String> {
    let path = format!("{}/{program}", newest_bin()?);
    let words = ["-u", "postgres", "--", &path]
        .into_iter()
        .chain(args.iter().copied());
    Program::new("runuser", words).run()?.ok()
}

impl Server {
    pub(crate) fn start() -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("coffer-store-")
            .tempdir_in("/var/tmp")?;
        let port = free_port()?;
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

    /// The setting that names it.
    pub(crate) fn url(&self) -> String {
        format!(
            "state.store_url=postgres://coffer@127.0.0.1:{}/coffer",
            self.port
        )
    }
}

impl Server {
    /// The first column of what a query finds.
    pub(crate) fn query(&self, sql: &str) -> Result<Vec<String>> {
        let port = self.port.to_string();
        let words = [
            "-h",
            "127.0.0.1",
            "-p",
            &port,
            "-U",
            "coffer",
            "-d",
            "coffer",
            "-Atc",
            sql,
        ];
        let found = as_postgres("psql", &words)?;
        Ok(found.lines().map(str::to_owned).collect())
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
    fn start(role: &str, more: &[&str], coffer: &Coffer, store: &Server) -> Result<Self> {
        let path = coffer.dir().join(format!("{role}.log"));
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(path)?;
        let child = Command::new(binary("coffer")?)
            .args([role, "--state-dir"])
            .arg(coffer.dir())
            .args(["--set", &store.url()])
            .args(more)
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

/// The same `coffer` command as of the demo user, sent to the API on another port.
fn at(coffer: &Coffer, port: u16, args: &[&str]) -> Result<Ended> {
    let own = std::fs::read_to_string(coffer.credentials("demo"))?;
    // They name the API that started last.
    let (head, tail) = own
        .split_once("127.0.0.1:")
        .context("the credentials name no port")?;
    let tail = tail.trim_start_matches(|c: char| c.is_ascii_digit());
    let file = coffer.dir().join(format!("demo-{port}.toml"));
    std::fs::write(&file, format!("{head}127.0.0.1:{port}{tail}"))?;
    // Credentials that others may read are refused.
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
    let file = file.display().to_string();
    let words = ["--credentials", &file].into_iter();
    let program = binary("coffer")?.display().to_string();
    Program::new(&program, words.chain(args.iter().copied())).run()
}

fn signal(name: &str, pid: u32) -> Result<()> {
    let words = [format!("-{name}"), pid.to_string()];
    Program::new("kill", &words).run()?.ok().map(drop)
}

/// A second API, on this port.
fn other_api(port: u16, coffer: &Coffer, store: &Server) -> Result<Role> {
    let listen = format!("127.0.0.1:{port}");
    let rate = "api.rate_limit_per_minute=1000000";
    let words = ["--listen", &listen, "--set", rate];
    Role::start("api", &words, coffer, store)
}

/// Waits until both APIs offer versions: once a task manager has registered the engine roots.
fn await_offers(ports: [u16; 2], coffer: &Coffer) -> Result<()> {
    for port in ports {
        wait_until(Duration::from_secs(30), || {
            let listed = at(coffer, port, &["--json", "datastore", "list"])?.out;
            Ok(listed.contains("\"17\"").then_some(()))
        })
        .with_context(|| {
            let log = |role: &str| {
                std::fs::read_to_string(coffer.dir().join(format!("{role}.log")))
                    .unwrap_or_default()
            };
            format!("{}{}{}", log("api"), log("task-manager"), log("conductor"))
        })?;
    }
    Ok(())
}

/// Kills a task manager in the middle of a task, and gives it one with `more` as long as nothing is
/// left that it could take; answers the tasks that it held.
fn kill_at_work(
    manager: &mut Role,
    store: &Server,
    mut more: impl FnMut() -> Result<()>,
) -> Result<Vec<String>> {
    let pid = manager.0.id();
    let sql = format!("SELECT id FROM tasks WHERE state = 'running' AND owner LIKE '{pid}-%'");
    let under_way = "SELECT id FROM tasks WHERE state NOT IN ('done', 'failed')";
    let held = wait_until(INSTANCE_MAX, || {
        if store.query(&sql)?.is_empty() {
            if store.query(under_way)?.is_empty() {
                more()?;
            }
            return Ok(None);
        }
        // While it stands still, what the store says of it stays true.
        signal("STOP", pid)?;
        let held = store.query(&sql)?;
        if held.is_empty() {
            signal("CONT", pid)?;
        }
        Ok((!held.is_empty()).then_some(held))
    });
    let held = held.context("the task manager never held a task")?;
    manager.kill()?;
    ensure!(store.query(&sql)? == held, "it let go of them as it died");
    Ok(held)
}

#[test]
fn two_apis_and_two_task_managers_on_postgresql_and_one_is_killed() -> Result<()> {
    let store = Server::start()?;
    let url = store.url();
    let coffer = Coffer::start_role("api", &["--set", &url])?;
    let port = free_port()?;
    let _other_api = other_api(port, &coffer, &store)?;
    let mut first = Role::start("task-manager", &[], &coffer, &store)?;
    let second = Role::start("task-manager", &[], &coffer, &store)?;
    let _conductor = Role::start("conductor", &[], &coffer, &store)?;
    let ports = [coffer.port(), port];
    await_offers(ports, &coffer)?;
    await_refusal_of_another_host(&coffer, &store)?;
    let mut ids = Vec::new();
    let mut numbered = (0..).zip(ports.into_iter().cycle());
    let mut more = || {
        let (n, port) = numbered.next().context("numbers do not end")?;
        let name = format!("db{n}");
        let words = [
            "--json", "instance", "create", &name, "--flavor", "tiny", "--public",
        ];
        let made = at(&coffer, port, &words)?.json()?;
        ids.push(made["id"].as_str().context("no id")?.to_owned());
        Ok(())
    };
    for _ in 0..4 {
        more()?;
    }
    let held = kill_at_work(&mut first, &store, more)?;
    for id in &ids {
        coffer
            .await_active(id)
            .with_context(|| format!("within {INSTANCE_MAX:?}"))?;
    }
    // Who went on with what it held.
    for task in &held {
        let sql = format!("SELECT owner FROM tasks WHERE id = '{task}' AND state = 'done'");
        let owners = store.query(&sql)?;
        let pid = second.0.id();
        ensure!(owners.len() == 1, "task {task} is not done");
        ensure!(
            owners[0].is_empty() || owners[0].starts_with(&format!("{pid}-")),
            "task {task} was ended by {owners:?}"
        );
    }
    // Each API says the same of what the other was asked.
    for port in ports {
        let listed = at(&coffer, port, &["--json", "instance", "list"])?.ok()?;
        ensure!(ids.iter().all(|id| listed.contains(id)), "{port}: {listed}");
    }
    for (id, port) in ids.iter().zip(ports.into_iter().cycle()) {
        at(&coffer, port, &["instance", "delete", id, "--wait"])?.ok()?;
    }
    // The file that the killed one was just writing goes when the other looks for such.
    let is_clean = || Ok(coffer.traces()?.is_empty().then_some(()));
    wait_until(SWEPT, is_clean).with_context(|| format!("left: {:#?}", coffer.traces()))
}

/// A task manager beside another state directory, as on another host, with this Coffer's key.
fn await_refusal_of_another_host(coffer: &Coffer, store: &Server) -> Result<()> {
    let other = coffer.dir().join("other-host");
    std::fs::create_dir(&other)?;
    std::fs::copy(coffer.dir().join("master.key"), other.join("master.key"))?;
    let dir = other.display().to_string();
    let words = [
        "60",
        "coffer",
        "task-manager",
        "--state-dir",
        &dir,
        "--set",
        &store.url(),
    ]
    .map(str::to_owned);
    let program = binary("coffer")?.display().to_string();
    let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
    words[1] = &program;
    let ended = Program::new("timeout", words).run()?;
    ensure!(ended.code == 1, "{ended:?}");
    ensure!(ended.err.contains("holds '"), "{ended:?}");
    ensure!(ended.err.contains("run task manager"), "{ended:?}");
    Ok(())
}

/// A query as a user made for the occasion, through the API on this port.
fn visit(coffer: &Coffer, port: u16) -> Result<Ended> {
    let sql = "SELECT current_user || ' ' || repeat('x', 300000)";
    let words = ["connect", "db1", "--"].iter().chain(&PLAIN);
    let words: Vec<&str> = words.chain(&["-c", sql]).copied().collect();
    at(coffer, port, &words)
}

fn is_visited(ended: &Ended) -> bool {
    ended.out.starts_with("coffer_visitor_") && ended.out.len() > 300_000
}

#[test]
fn an_api_alone_connects_through_a_tracker_and_the_tracker_is_killed() -> Result<()> {
    let store = Server::start()?;
    let mut coffer = Coffer::start_role("api", &["--set", &store.url()])?;
    coffer.expect_lines(&["no-tracker", "tracker-unreachable", "tracker-lost"]);
    let ports = [coffer.port(), free_port()?];
    let _other_api = other_api(ports[1], &coffer, &store)?;
    let _managers = [
        Role::start("task-manager", &[], &coffer, &store)?,
        Role::start("task-manager", &[], &coffer, &store)?,
    ];
    let _conductor = Role::start("conductor", &[], &coffer, &store)?;
    await_offers(ports, &coffer)?;
    let db = coffer.create("db1")?;

    let refused = visit(&coffer, ports[0])?;
    ensure!(
        refused.code != 0 && refused.err.contains("No tracker is there"),
        "{refused:?}"
    );
    ensure!(
        refused.err.contains("start `coffer tracker`"),
        "{refused:?}"
    );

    let mut tracker = Role::start("tracker", &[], &coffer, &store)?;
    let first = wait_until(Duration::from_secs(30), || {
        let ended = visit(&coffer, ports[0])?;
        Ok(is_visited(&ended).then_some(ended))
    });
    first.with_context(|| format!("{:?}", visit(&coffer, ports[0])))?;
    for port in ports {
        let ended = visit(&coffer, port)?;
        ensure!(is_visited(&ended), "{port}: {ended:?}");
    }
    let named = "SELECT count(*) FROM links l JOIN trackers t ON t.id = l.tracker_id";
    ensure!(store.query(named)? == ["1"], "the link names its relay");
    let unused = store.query("SELECT count(*) FROM relay_grants")?;
    ensure!(unused == ["0"], "grants that were used stay: {unused:?}");
    ensure!(trackers(&coffer)? == [true], "status shows it");

    let mut client = connect::stay(&coffer, &db)?;
    tracker.kill()?;
    wait_until(GONE_MAX, || Ok((!client.is_running()?).then_some(())))
        .context("the client of a lost tracker ends")?;
    connect::await_gone(&db).context("the visitor of a lost tracker")?;
    wait_until(GONE_MAX, || {
        let shown = connect::audit_trail(&coffer)?;
        Ok(shown.contains("&ended=tracker-lost\"").then_some(()))
    })
    .with_context(|| format!("how it ended: {:?}", connect::audit_trail(&coffer)))?;
    for port in ports {
        let refused = visit(&coffer, port)?;
        ensure!(
            refused.code != 0 && refused.err.contains("does not answer"),
            "{port}: {refused:?}"
        );
    }
    ensure!(
        trackers(&coffer)? == [false],
        "status shows that it is lost"
    );

    let _tracker = Role::start("tracker", &[], &coffer, &store)?;
    let again = wait_until(Duration::from_secs(30), || {
        Ok(is_visited(&visit(&coffer, ports[1])?).then_some(()))
    });
    again.context("after the tracker's start")?;
    // The living one forgets the lost one, whose counter stands still.
    wait_until(Duration::from_secs(60), || {
        Ok((trackers(&coffer)? == [true]).then_some(()))
    })
    .context("the lost tracker is forgotten")?;
    connect::await_gone(&db)?;
    coffer
        .coffer(&["instance", "delete", "db1", "--wait"])?
        .ok()?;
    let left = coffer.traces()?;
    ensure!(left.is_empty(), "left: {left:#?}");
    Ok(())
}

/// Which of the trackers that status shows answer.
fn trackers(coffer: &Coffer) -> Result<Vec<bool>> {
    let shown = coffer.admin(&["--json", "status"])?.json()?;
    let listed = shown["trackers"].as_array().context("no trackers")?;
    Ok(listed.iter().map(|one| one["answers"] == true).collect())
}
