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

use crate::process::{Program, Stopwatch, stop, tail, wait_for};
use crate::{built, leftovers, setup};

/// Recipe of the engine root.
const RECIPE: &str = "postgresql-17";
/// State directory of the Coffer that stays.
const STATE_DIR: &str = "/var/lib/coffer";
/// Where the Coffer that stays listens.
const LISTEN: &str = "127.0.0.1:8779";
/// A small pool for the Coffer that does not stay.
const SMALL: &[&str] = &["--set", "local.cow_pool_gib=8"];
/// Free space with which the default size of the pool fits; unit: GiB.
const POOL_ROOM_GIB: u64 = 40;
/// Longest time until the API answers.
const START_MAX: Duration = Duration::from_secs(60);
/// Longest time until a stopped Coffer is gone.
const STOP_MAX: Duration = Duration::from_secs(60);

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

/// Starts Coffer unless it runs, makes one more database, and tells how to go on.
fn run_and_stay(coffer: &Path) -> Result<()> {
    let watch = Stopwatch::start();
    let state = Path::new(STATE_DIR);
    let host = Host {
        coffer: coffer.to_owned(),
        state: state.to_owned(),
    };
    if host.answers() {
        println!("coffer runs already");
    } else {
        let pool = pool_for(state)?;
        let more: Vec<&str> = pool
            .iter()
            .flat_map(|pool| ["--set", pool.as_str()])
            .collect();
        host.start(LISTEN, &more)?;
    }
    let database = host.create()?;
    let answer = database.ask(&host)?;
    println!(
        "{:.1} s to an answering database\n",
        watch.elapsed().as_secs_f64()
    );
    println!("{}", database.describe(&host, answer.trim()));
    Ok(())
}

/// The size of a new pool file where the default would not fit: half of what is free.
fn pool_for(state: &Path) -> Result<Option<String>> {
    let place = state
        .parent()
        .context("find where the state directory lies")?;
    let arguments = [
        "--output=avail".as_ref(),
        "-B1G".as_ref(),
        place.as_os_str(),
    ];
    let text = Program::new("df", &arguments).output()?;
    let free: u64 = text
        .lines()
        .last()
        .unwrap_or_default()
        .trim()
        .parse()
        .context("read df")?;
    Ok((free < POOL_ROOM_GIB).then(|| format!("local.cow_pool_gib={}", (free / 2).max(1))))
}

/// The same with a Coffer of its own, and afterwards nothing is left of it.
fn run_once(coffer: &Path) -> Result<()> {
    let state = PathBuf::from(format!("/var/tmp/coffer-once-{}", std::process::id()));
    let host = Host {
        coffer: coffer.to_owned(),
        state: state.clone(),
    };
    let mut child = host.start("127.0.0.1:0", SMALL)?;
    let result = use_once(&host);
    // Deleted, stopped and removed even when something above failed.
    let cleared = host.clear();
    let stopped = stop(&mut child, STOP_MAX);
    let output = result.with_context(|| tail(&host.log()))?;
    cleared.and(stopped)?;
    leftovers::remove(&state)?;
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
        fs::write(self.pid_file(), child.id().to_string()).context("write the pid file")?;
        let started = wait_for("an answer of coffer", START_MAX, || {
            self.answers().then_some(())
        });
        if let Err(error) = started {
            let _ = stop(&mut child, STOP_MAX);
            return Err(error.context(tail(&self.log())));
        }
        Ok(child)
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
