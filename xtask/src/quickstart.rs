//! From this tree to databases that answer, in one command; what `./quickstart` does.
//!
//! PostgreSQL comes first and alone, so that somebody who waits has a database soon; then the other
//! engines' roots are built and an instance of each is made, all at once. Every step says what it
//! does and may be repeated: that makes one more PostgreSQL, and asks the other engines' instances
//! that are there. With `--once` a Coffer of its own, on a free port and in a directory of its own,
//! is started, used, stopped and removed.

mod engine;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{Program, Stopwatch, stop, tail, wait_closely};
use crate::roots::{Roots, Versions};
use crate::{built, leftovers, setup};
use engine::{Database, Engine, FIRST, offered, wanted, with_secret};

/// Recipe of the first engine root.
const RECIPE: &str = "postgresql-17";
/// State directory of the Coffer that stays.
const STATE_DIR: &str = "/var/lib/coffer";
/// Where the Coffer that stays listens.
const LISTEN: &str = "127.0.0.1:8779";
/// A small pool for the Coffer that does not stay.
const SMALL: &[&str] = &["--set", "local.cow_pool_gib=8"];
/// Longest time until the API answers.
const START_MAX: Duration = Duration::from_secs(60);
/// Longest time until a stopped Coffer is gone.
const STOP_MAX: Duration = Duration::from_secs(60);

/// Time between two looks at a Coffer that starts or stops.
const PACE: Duration = Duration::from_millis(50);
/// Longest time until a running Coffer offers what a root was built of.
const OFFER_MAX: Duration = Duration::from_secs(60);
/// What the second run may take until its PostgreSQL answers, the build aside: 5 s are promised,
/// and three times as much is forgiven a machine that is busy.
const SECOND_RUN_MAX: Duration = Duration::from_secs(15);

/// Builds what is shipped.
const SHIPPED: &[&str] = &[
    "build",
    "--quiet",
    "--package",
    "coffer-server",
    "--package",
    "coffer-guest",
];
/// Builds with the features that tests have, which the rings have built already.
const WORKSPACE: &[&str] = &["build", "--quiet", "--workspace", "--all-targets"];

/// What is built first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Only what a user of Coffer needs.
    Shipped,
    /// All of the tree.
    Workspace,
}

/// Does it all.
pub fn run(root: &Path, once: bool, what: Build) -> Result<()> {
    if !setup::is_root()? {
        bail!("quickstart makes namespaces and mounts: run it as root (sudo ./quickstart)");
    }
    setup::packages(setup::RUN)?;
    println!("building coffer (the first time takes minutes)");
    let words = match what {
        Build::Shipped => SHIPPED,
        Build::Workspace => WORKSPACE,
    };
    Program::new("cargo", words).in_dir(root).run()?;
    let coffer = built()?.join("coffer");
    println!("building the engine root {RECIPE} (once on this machine)");
    Program::new(&coffer, &["image", "build", RECIPE]).output()?;
    match once {
        true => run_once(&coffer),
        false => run_and_stay(&coffer),
    }
}

/// The form that stays, at its own place.
fn run_and_stay(coffer: &Path) -> Result<()> {
    let host = Host {
        coffer: coffer.to_owned(),
        state: PathBuf::from(STATE_DIR),
    };
    stay(&host, LISTEN, &[], &mut None).map(drop)
}

/// What a run that stays leaves.
struct Stayed {
    /// From the start to PostgreSQL's answer.
    took: Duration,
    /// What it told.
    words: String,
}

/// Starts Coffer unless it runs, makes one more database, and tells how to go on. A Coffer that it
/// started is put into `child`.
fn stay(host: &Host, listen: &str, more: &[&str], child: &mut Option<Child>) -> Result<Stayed> {
    let watch = Stopwatch::start();
    match host.answers() {
        true => println!("coffer runs already"),
        false => *child = Some(host.start(listen, more)?),
    }
    let (first, rest) = engines()?;
    let database = host.create(&first)?;
    let answer = ask_published(host, &database)?;
    let took = watch.elapsed();
    println!("{:.1} s to an answering PostgreSQL\n", took.as_secs_f64());
    let lines = others(host, &rest)?;
    let first = database.line(answer.trim());
    let words = format!("{first}\n{lines}\n\n{}", how_to_go_on(host, &database));
    println!("{words}");
    Ok(Stayed { took, words })
}

/// The engine that comes first, and the others.
fn engines() -> Result<(Engine, Vec<Engine>)> {
    let mut all = offered(&crate::root()?)?;
    let first = all.iter().position(|engine| engine.name == FIRST);
    let first = all.remove(first.with_context(|| format!("find the recipe of {FIRST}"))?);
    Ok((first, all))
}

/// Has an instance of each other engine and asks it, all at once; what there is to know of them.
fn others(host: &Host, engines: &[Engine]) -> Result<String> {
    println!("building the other engines' roots (once on this machine)");
    let roots = Roots::default();
    roots.begin(&crate::root()?, &built()?, Versions::First)?;
    roots.end()?;
    host.await_offers(engines)?;
    let names: Vec<_> = engines.iter().map(|engine| engine.title.as_str()).collect();
    println!("creating {}, unless they are there", names.join(", "));
    let shown = host.run(&["instance", "list"])?;
    let there = shown.as_array().map_or(&[][..], Vec::as_slice);
    let lines: Vec<Result<String>> = std::thread::scope(|scope| {
        let begun: Vec<_> = engines
            .iter()
            .map(|engine| scope.spawn(move || other(host, engine, there)))
            .collect();
        let ended = begun.into_iter().map(std::thread::ScopedJoinHandle::join);
        ended
            .map(|line| line.expect("a thread reports, and does not panic"))
            .collect()
    });
    let lines: Result<Vec<String>> = lines.into_iter().collect();
    Ok(lines?.join("\n"))
}

/// One of them: the one that is there, or a new one.
fn other(host: &Host, engine: &Engine, there: &[Value]) -> Result<String> {
    let known = there
        .iter()
        .find(|one| one["datastore"]["type"] == *engine.name && one["status"] == "ACTIVE");
    let database = match known.and_then(|one| one["id"].as_str()) {
        Some(id) => {
            let shown = host.run(&["instance", "show", id])?;
            Database::read(engine, shown.get("instance").unwrap_or(&shown))?
        }
        None => host.create(engine)?,
    };
    let answer = database.ask(host)?;
    Ok(database.line(&answer))
}

/// The form that stays, twice, in a directory of its own; then it is stopped as it told, and
/// nothing is left. Fails when the second run takes far longer than what is promised.
pub fn run_twice() -> Result<()> {
    let host = Host {
        coffer: built()?.join("coffer"),
        state: PathBuf::from(format!("/var/tmp/coffer-stay-{}", std::process::id())),
    };
    let mut child = None;
    let result = twice(&host, &mut child);
    // Where its own words did not stop it, or were not reached, it is stopped all the same.
    let cleared = child.as_mut().map_or(Ok(()), |child| {
        let cleared = match result {
            Ok(()) => Ok(()),
            Err(_) => host.clear(),
        };
        let stopped = stop(child, STOP_MAX);
        cleared.and(stopped)
    });
    let result = result.with_context(|| tail(&host.log()));
    let removed = leftovers::remove(&host.state);
    result.and(cleared).and(removed)
}

fn twice(host: &Host, child: &mut Option<Child>) -> Result<()> {
    stay(host, "127.0.0.1:0", SMALL, child)?;
    let first = child.as_ref().map(Child::id);
    let second = stay(host, "127.0.0.1:0", SMALL, child)?;
    if child.as_ref().map(Child::id) != first {
        bail!("the second run started another coffer");
    }
    let seconds = second.took.as_secs_f64();
    let load = fs::read_to_string("/proc/loadavg").context("read the load")?;
    println!("second run: {seconds:.1} s, load {}", load.trim());
    if second.took > SECOND_RUN_MAX {
        bail!(
            "the second run took {seconds:.1} s, more than {} s; load {}",
            SECOND_RUN_MAX.as_secs(),
            load.trim()
        );
    }
    host.clear()?;
    let line = second
        .words
        .lines()
        .find(|line| line.starts_with("  kill "));
    let line = line.context("find how to stop it")?;
    Program::new("bash", &["-c", line]).output()?;
    let child = child.as_mut().context("find the coffer")?;
    let ended = wait_closely("the end of coffer", STOP_MAX, PACE, || {
        child.try_wait().context("look at coffer")
    })?;
    if !ended.success() {
        bail!("told to stop, coffer ended with {ended}");
    }
    Ok(())
}

/// The same with a Coffer of its own, and afterwards nothing is left of it.
fn run_once(coffer: &Path) -> Result<()> {
    let state = format!("/var/tmp/coffer-once-{}", std::process::id());
    run_once_in(coffer, Path::new(&state))
}

fn run_once_in(coffer: &Path, state: &Path) -> Result<()> {
    let host = Host {
        coffer: coffer.to_owned(),
        state: state.to_owned(),
    };
    let mut child = match host.start("127.0.0.1:0", SMALL) {
        Ok(child) => child,
        Err(error) => {
            // It may have come as far as a mounted pool.
            leftovers::remove(state).with_context(|| format!("clean up after: {error:#}"))?;
            return Err(error);
        }
    };
    let result = use_once(&host);
    // Deleted, stopped and removed even when something above failed.
    let cleared = host.clear();
    let stopped = stop(&mut child, STOP_MAX);
    let output = result.with_context(|| tail(&host.log()))?;
    cleared.and(stopped)?;
    leftovers::remove(state)?;
    println!("{output}");
    Ok(())
}

fn use_once(host: &Host) -> Result<String> {
    let watch = Stopwatch::start();
    let (first, rest) = engines()?;
    let database = host.create(&first)?;
    let answer = ask_published(host, &database)?;
    let seconds = watch.elapsed().as_secs_f64();
    let lines = others(host, &rest)?;
    let first = database.line(answer.trim());
    Ok(format!(
        "{first}\n{lines}\n\nPostgreSQL answered after {seconds:.1} s; stopped, and nothing is left"
    ))
}

/// A Coffer on this host.
struct Host {
    coffer: PathBuf,
    state: PathBuf,
}

impl Host {
    fn credentials(&self) -> String {
        self.state.join("demo.toml").display().to_string()
    }

    fn log(&self) -> PathBuf {
        self.state.join("coffer.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.state.join("quickstart.pid")
    }

    /// Runs a verb as the demo user; what it printed as JSON.
    fn run(&self, words: &[&str]) -> Result<Value> {
        let credentials = self.credentials();
        let head = ["--json", "--credentials", &credentials];
        let words: Vec<&str> = head.iter().chain(words).copied().collect();
        let text = Program::new(&self.coffer, &words).output()?;
        serde_json::from_str(&text).with_context(|| format!("read what coffer {words:?} printed"))
    }

    fn answers(&self) -> bool {
        let credentials = self.credentials();
        let words = ["--credentials", &credentials, "status"];
        Path::new(&credentials).exists() && Program::new(&self.coffer, &words).succeeds()
    }

    /// Starts Coffer in the background and waits until it answers.
    fn start(&self, listen: &str, more: &[&str]) -> Result<Child> {
        println!("starting coffer in {}", self.state.display());
        fs::create_dir_all(&self.state)
            .with_context(|| format!("make {}", self.state.display()))?;
        let state = self.state.display().to_string();
        // Of a tree that was brought up to date since the last time.
        let upgrade = ["upgrade", "--if-started", "--state-dir", &state];
        Program::new(&self.coffer, &upgrade).output()?;
        let words = ["up", "--state-dir", &state, "--listen", listen];
        let words = [&words[..], more].concat();
        let mut child = Program::new(&self.coffer, &words).start(&self.log())?;
        if let Err(error) = self.await_answer(&mut child) {
            let _ = stop(&mut child, STOP_MAX);
            return Err(error.context(tail(&self.log())));
        }
        Ok(child)
    }

    fn await_answer(&self, child: &mut Child) -> Result<()> {
        fs::write(self.pid_file(), child.id().to_string()).context("write the pid file")?;
        wait_closely("an answer of coffer", START_MAX, PACE, || {
            if let Some(status) = child.try_wait().context("look at coffer")? {
                bail!("coffer ended with {status}");
            }
            Ok(self.answers().then_some(()))
        })
    }

    /// Deletes every instance.
    fn clear(&self) -> Result<()> {
        for instance in self
            .run(&["instance", "list"])?
            .as_array()
            .into_iter()
            .flatten()
        {
            let id = instance["id"].as_str().context("find the instance's id")?;
            self.run(&["instance", "delete", id, "--wait", "--timeout", "60"])?;
        }
        Ok(())
    }

    /// Waits until Coffer offers every engine: it looks at the roots every few seconds.
    fn await_offers(&self, engines: &[Engine]) -> Result<()> {
        wait_closely("an offer of every engine", OFFER_MAX, PACE, || {
            let offered = self.run(&["datastore", "list"])?;
            let is_offered = |engine: &Engine| {
                let rows = offered.as_array().into_iter().flatten();
                rows.into_iter().any(|row| row["datastore"] == *engine.name)
            };
            Ok(engines.iter().all(is_offered).then_some(()))
        })
    }

    /// Creates a published instance with a user, and a database where the engine has them.
    fn create<'a>(&self, engine: &'a Engine) -> Result<Database<'a>> {
        let shown = self.run(&["instance", "list"])?;
        let there = shown.as_array().map_or(&[][..], Vec::as_slice);
        let name = free_name(&engine.name, there);
        println!("creating the {} instance {name}", engine.title);
        let words = [&["instance", "create", &name][..], &wanted(engine)].concat();
        Database::read(engine, &self.run(&words)?)
    }
}

/// The first name of an engine's that no instance has.
fn free_name(engine: &str, there: &[Value]) -> String {
    let names = (1..).map(|number| format!("{engine}{number}"));
    let is_free = |name: &String| there.iter().all(|one| one["name"] != name.as_str());
    names
        .into_iter()
        .find(is_free)
        .expect("numbers do not end before instances do")
}

/// Asks a new PostgreSQL at its published address over TLS, its certificate checked against the
/// project's CA: as somebody who has nothing of Coffer's.
fn ask_published(host: &Host, database: &Database<'_>) -> Result<String> {
    let ca = ca_file(host);
    let state = host.state.display().to_string();
    let words = ["ca", "--state-dir", &state, "--project", "demo"];
    fs::write(&ca, Program::new(&host.coffer, &words).output()?).context("write the CA")?;
    let password = database.password.as_deref().context("find its password")?;
    let query = "select version() || ', TLS ' || (select version from pg_stat_ssl where \
                 pid = pg_backend_pid())";
    let words = ["-X", "-At", "-d", &url(database, &ca), "-c", query];
    let file = host.state.join("quickstart.pgpass");
    with_secret(&file, &format!("*:*:*:demo:{password}\n"), |file| {
        Program::new("psql", &words)
            .with("PGPASSFILE", file)
            .output()
    })
}

fn ca_file(host: &Host) -> PathBuf {
    host.state.join("demo-ca.pem")
}

fn url(database: &Database<'_>, ca: &Path) -> String {
    let address = &database.address;
    let port = database.port.map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    let ca = ca.display();
    format!("postgresql://demo@{address}{port}/demo?sslmode=verify-full&sslrootcert={ca}")
}

/// What to type next, with PostgreSQL as the example.
fn how_to_go_on(host: &Host, database: &Database<'_>) -> String {
    let (coffer, name) = (host.coffer.display(), &database.name);
    let (url, state) = (url(database, &ca_file(host)), host.state.display());
    format!(
        "connect:\n  psql '{url}'\n\n\
         or to any of them, with the engine's own client and a user made for the occasion:\n  \
         {coffer} connect {name}\n\n\
         the stock OpenStack client, if you have it:\n  \
         eval \"$({coffer} env)\"\n  \
         openstack database instance list\n  \
         openstack database instance show {name}\n\n\
         coffer's own:\n  \
         {coffer} instance list\n  \
         {coffer} instance explain {name}\n  \
         {coffer} instance delete {name} --wait\n\n\
         stop coffer (instances go on serving):\n  \
         kill $(cat {state}/quickstart.pid)\n\
         logs are in {state}/coffer.log"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_name_that_is_taken_is_passed_over() {
        let there = [
            serde_json::json!({"name": "mysql1"}),
            serde_json::json!({"name": "mysql3"}),
        ];
        assert_eq!(free_name("mysql", &there), "mysql2");
        assert_eq!(free_name("redis", &there), "redis1");
    }

    #[test]
    fn a_start_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (coffer, state) = (dir.path().join("coffer"), dir.path().join("state"));
        // As far as a Coffer comes that fails late: its pool is mounted.
        let script = "#!/bin/bash\n[ \"$1\" = up ] || exit 0\n\
                      mkdir \"$3/pool\" && mount -t tmpfs none \"$3/pool\" && \
                      echo the port is taken && exit 3\n";
        fs::write(&coffer, script).unwrap();
        fs::set_permissions(&coffer, fs::Permissions::from_mode(0o755)).unwrap();
        let error = format!("{:#}", run_once_in(&coffer, &state).unwrap_err());
        assert!(
            error.contains("exit status: 3") && error.contains("the port is taken"),
            "{error}"
        );
        assert!(!state.exists());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&state.display().to_string()), "{mounts}");
    }
}
