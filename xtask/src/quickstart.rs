//! From this tree to a PostgreSQL that answers, in one command; what `./quickstart` does.
//!
//! Every step says what it does and may be repeated. With `--once` a Coffer of its own, on a free
//! port and in a directory of its own, is started, used, stopped and removed.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{Program, Stopwatch, stop, tail, wait_closely};
use crate::{built, leftovers, setup};

/// Recipe of the engine root.
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
/// What the second run may take until its database answers, the build aside: 5 s are promised, and
/// three times as much is forgiven a machine that is busy.
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
    /// From the start to the answer.
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
    let database = host.create()?;
    let answer = database.ask(host)?;
    let took = watch.elapsed();
    println!("{:.1} s to an answering database\n", took.as_secs_f64());
    let words = database.describe(host, answer.trim());
    println!("{words}");
    Ok(Stayed { took, words })
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
    let database = host.create()?;
    let answer = database.ask(host)?;
    let seconds = watch.elapsed().as_secs_f64();
    Ok(format!(
        "{}\nanswered after {seconds:.1} s; stopped, and nothing is left",
        answer.trim()
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

    /// Creates a published instance with a database and a user.
    fn create(&self) -> Result<Database> {
        let count = self
            .run(&["instance", "list"])?
            .as_array()
            .map_or(0, Vec::len);
        let name = format!("db{}", count + 1);
        println!("creating the PostgreSQL instance {name}");
        let made = self.run(&[
            "instance",
            "create",
            &name,
            "--datastore",
            "postgresql",
            "--database",
            "demo",
            "--user",
            "demo",
            "--public",
            "--wait",
        ])?;
        let text = |place: &str| {
            let value = made
                .pointer(place)
                .and_then(Value::as_str)
                .map(str::to_owned);
            value.with_context(|| format!("find {place} in {made}"))
        };
        let addresses = made["addresses"].as_array().cloned().unwrap_or_default();
        let public = addresses.iter().find(|address| address["type"] == "public");
        let address = public.and_then(|address| address["address"].as_str());
        let port = public
            .and_then(|address| address["port"].as_u64())
            .unwrap_or(5432);
        Ok(Database {
            name,
            address: address.context("find the published address")?.to_owned(),
            port,
            password: text("/passwords/demo")?,
        })
    }
}

/// A database that was made.
struct Database {
    name: String,
    address: String,
    port: u64,
    password: String,
}

impl Database {
    /// Asks it something over TLS, its certificate checked against the project's CA.
    fn ask(&self, host: &Host) -> Result<String> {
        let ca = host.state.join("demo-ca.pem");
        let state = host.state.display().to_string();
        let words = ["ca", "--state-dir", &state, "--project", "demo"];
        fs::write(&ca, Program::new(&host.coffer, &words).output()?).context("write the CA")?;
        let passwords = host.state.join("quickstart.pgpass");
        let _ = fs::remove_file(&passwords);
        let file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&passwords);
        let line = format!("*:*:*:demo:{}\n", self.password);
        file.and_then(|mut file| file.write_all(line.as_bytes()))
            .context("write the password")?;
        let query = "select version() || ', TLS ' || (select version from pg_stat_ssl where \
                     pid = pg_backend_pid())";
        let answer = Program::new("psql", &["-X", "-At", "-d", &self.url(&ca), "-c", query])
            .with("PGPASSFILE", &passwords.display().to_string())
            .output();
        fs::remove_file(&passwords).context("remove the password")?;
        answer
    }

    fn url(&self, ca: &Path) -> String {
        let Self { address, port, .. } = self;
        let ca = ca.display();
        format!("postgresql://demo@{address}:{port}/demo?sslmode=verify-full&sslrootcert={ca}")
    }

    fn describe(&self, host: &Host, answer: &str) -> String {
        let Self {
            name,
            address,
            port,
            password,
            ..
        } = self;
        let (coffer, ca) = (host.coffer.display(), host.state.join("demo-ca.pem"));
        let (url, state) = (self.url(&ca), host.state.display());
        format!(
            "{answer}\n\n\
             instance   {name}\n\
             address    {address}:{port}\n\
             database   demo\n\
             user       demo\n\
             password   {password}\n\n\
             connect:\n  psql '{url}'\n\n\
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
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_start_that_fails_leaves_nothing() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (coffer, state) = (dir.path().join("coffer"), dir.path().join("state"));
        // As far as a Coffer comes that fails late: its pool is mounted.
        let script = "#!/bin/bash\nmkdir \"$3/pool\" && mount -t tmpfs none \"$3/pool\" && \
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
