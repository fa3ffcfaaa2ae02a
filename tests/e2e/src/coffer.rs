//! One real Coffer under test.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use crate::ground::Ground;
use crate::run::{Background, Ended, Program, free_port, wait_until};
use crate::{host, lines};

/// Where the stock clients are installed.
const VENV: &str = "/var/cache/coffer/venv/bin";
/// How long Coffer may take to start.
const START_MAX: Duration = Duration::from_secs(60);
/// How long Coffer may take to end when it is told to: what it gives its tasks, and some more.
const STOP_MAX: Duration = Duration::from_secs(30);
/// How long an instance may take to reach a state.
pub const INSTANCE_MAX: Duration = Duration::from_secs(120);

/// A published PostgreSQL with the database `app` and the user `joe`.
#[derive(Debug, Clone)]
pub struct Database {
    /// Id of the instance.
    pub id: String,
    /// Published address.
    pub address: String,
    /// Password of the user.
    pub password: String,
}

impl Database {
    /// Runs SQL over TLS at the published address.
    pub fn psql(&self, sql: &str) -> Result<Ended> {
        self.psql_with("sslmode=require", sql)
    }

    /// The same with other connection words.
    pub fn psql_with(&self, words: &str, sql: &str) -> Result<Ended> {
        let line = format!(
            "host={} port=5432 dbname=app user=joe connect_timeout=5 {words}",
            self.address
        );
        Program::new(
            "psql",
            [
                "-X",
                "-A",
                "-t",
                "-q",
                "-v",
                "ON_ERROR_STOP=1",
                &line,
                "-c",
                sql,
            ],
        )
        .env("PGPASSWORD", &self.password)
        .run()
    }

    /// The client, told what to do on its standard input; it notices within seconds that the server
    /// is gone without a word.
    #[expect(
        clippy::disallowed_methods,
        reason = "one client writes for the whole test"
    )]
    pub(crate) fn start_client(&self) -> Result<Child> {
        let line = format!(
            "host={} port=5432 dbname=app user=joe sslmode=require connect_timeout=2 \
             tcp_user_timeout=2000 keepalives_idle=1 keepalives_interval=1 keepalives_count=2",
            self.address
        );
        Command::new("psql")
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", &line])
            .env("PGPASSWORD", &self.password)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("start psql")
    }

    /// Waits until it answers.
    pub fn await_answer(&self) -> Result<()> {
        wait_until(INSTANCE_MAX, || {
            Ok((self.psql("SELECT 1")?.code == 0).then_some(()))
        })
        .with_context(|| format!("{self:?} does not answer: {:?}", self.psql("SELECT 1")))
    }
}

/// A Coffer in a directory of its own.
#[derive(Debug)]
pub struct Coffer {
    dir: TempDir,
    /// Directory of its programs, where they are not this workspace's.
    programs: Option<PathBuf>,
    host: &'static str,
    port: u16,
    child: Option<Child>,
    role: String,
    extra: Vec<String>,
    /// `NAME=value` of its environment.
    variables: Vec<String>,
    expected: Vec<String>,
    ground: Ground,
}

/// Path of an executable of this workspace.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("find the test's own path")?;
    let dir = own.ancestors().find(|d| d.join(name).is_file());
    let dir = dir.with_context(|| format!("{name} is not built: run cargo build --workspace"))?;
    Ok(dir.join(name))
}

impl Coffer {
    /// Starts one and waits until it answers.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts one with more words on its command line.
    pub fn start_with(extra: &[&str]) -> Result<Self> {
        Self::start_role("up", extra)
    }

    /// Starts one whose API listens on every address of the host.
    pub fn start_everywhere() -> Result<Self> {
        let mut coffer = Self::prepare("up", &[])?;
        coffer.host = "0.0.0.0";
        let endpoint = format!("api.public_endpoint=https://127.0.0.1:{}", coffer.port);
        coffer.extra.extend(["--set".to_owned(), endpoint]);
        coffer.up()?;
        Ok(coffer)
    }

    /// Starts one role of it (`up` is all of them).
    pub fn start_role(role: &str, extra: &[&str]) -> Result<Self> {
        let mut coffer = Self::prepare(role, extra)?;
        coffer.up()?;
        Ok(coffer)
    }

    /// Starts one on a host that lacks something.
    pub fn start_on(ground: Ground) -> Result<Self> {
        let mut coffer = Self::prepare("up", &[])?;
        coffer.ground = ground;
        if ground == Ground::ReadOnlyGroups {
            // Each start has mounts of its own, and the next one could not let go of a pool's.
            coffer.add_words(&["--set", "local.volume_mode=directory"]);
        }
        let programs = [binary("coffer")?, binary("coffer-guest")?];
        ground.prepare(coffer.dir.path(), [&programs[0], &programs[1]])?;
        coffer.up()?;
        Ok(coffer)
    }

    /// Starts one whose state directory lies in this one.
    pub fn start_in(place: &Path, extra: &[&str]) -> Result<Self> {
        let mut coffer = Self::prepare_in(place, "up", extra)?;
        coffer.up()?;
        Ok(coffer)
    }

    /// Runs `coffer doctor` where this one runs.
    pub fn doctor(&self) -> Result<Ended> {
        let dir = self.dir.path().display().to_string();
        let words = self.words_on_ground()?;
        let words = words.iter().map(String::as_str);
        let more = ["doctor", "--state-dir", &dir];
        Program::new("env", words.chain(more)).run()
    }

    /// One that was not started yet.
    pub fn prepare(role: &str, extra: &[&str]) -> Result<Self> {
        Self::prepare_in(Path::new("/var/tmp"), role, extra)
    }

    fn prepare_in(place: &Path, role: &str, extra: &[&str]) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("coffer-e2e-")
            .tempdir_in(place)?;
        let port = free_port()?;
        let extra = extra.iter().map(|&w| w.to_owned()).collect();
        Ok(Self {
            dir,
            programs: None,
            host: "127.0.0.1",
            port,
            child: None,
            role: role.to_owned(),
            extra,
            variables: Vec::new(),
            expected: Vec::new(),
            ground: Ground::Root,
        })
    }

    /// Uses the programs of this directory from now on; with none, this workspace's.
    pub fn use_programs(&mut self, dir: Option<PathBuf>) {
        self.programs = dir;
    }

    /// Path of one of its programs.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        match &self.programs {
            Some(dir) => Ok(dir.join(name)),
            None => binary(name),
        }
    }

    fn own(&self) -> Result<String> {
        Ok(self.program("coffer")?.display().to_string())
    }

    /// Expects WARN and ERROR lines that hold one of these: what the test does makes them.
    pub fn expect_lines(&mut self, parts: &[&str]) {
        self.expected
            .extend(parts.iter().map(|&part| part.to_owned()));
    }

    /// Adds words to its command line from the next start on.
    pub fn add_words(&mut self, words: &[&str]) {
        self.extra.extend(words.iter().map(|&word| word.to_owned()));
    }

    /// Adds variables to its environment from the next start on.
    pub fn add_variables(&mut self, variables: &[(&str, &str)]) {
        let lines = variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        self.variables.extend(lines);
    }

    /// Starts the process again on the same state directory.
    pub fn up(&mut self) -> Result<()> {
        self.spawn()?;
        let started = wait_until(START_MAX, || {
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait()?
            {
                bail!("coffer ended with {status}\n{}", self.log());
            }
            let answer = self.admin(&["status"])?;
            Ok((answer.code == 0).then_some(()))
        });
        started.with_context(|| format!("start coffer\n{}", self.log()))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the Coffer under test outlives one call"
    )]
    fn spawn(&mut self) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path())?;
        let listen = format!("{}:{}", self.host, self.port);
        let child = Command::new("env")
            .args(&self.variables)
            .args(self.words_on_ground()?)
            .args([self.role.as_str(), "--state-dir"])
            .arg(self.dir.path())
            .args([
                "--listen",
                &listen,
                "--set",
                "api.rate_limit_per_minute=1000000",
                // It is reserved on the disk, and several run at a time.
                "--set",
                "local.cow_pool_gib=8",
            ])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("spawn coffer")?;
        self.child = Some(child);
        Ok(())
    }

    /// What runs `coffer` where this one runs, itself the last of the words.
    fn words_on_ground(&self) -> Result<Vec<String>> {
        let mut words = self.ground.words();
        words.push(match self.ground {
            Ground::User(_) => self.dir.path().join("bin/coffer").display().to_string(),
            _ => self.own()?,
        });
        Ok(words)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("coffer.log")
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Its state directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The tag of what it makes on the host.
    pub fn tag(&self) -> Result<String> {
        let tag = fs::read_to_string(self.dir.path().join("tag"))?;
        // With an empty one everything on the host would seem to be ours.
        if tag.len() != 5 {
            bail!("the tag is '{tag}'");
        }
        Ok(tag)
    }

    /// The port its API listens on.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its process id.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("kill coffer")?;
            child.wait().context("wait for coffer")?;
            // It may have hit in the middle of a write; the next one says that it cleaned up.
            self.expect_lines(&["remove what a killed process was writing"]);
        }
        Ok(())
    }

    /// Stops it as an operator would.
    pub fn stop(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        Program::new("kill", ["-TERM", &child.id().to_string()])
            .run()?
            .ok()?;
        let ended = wait_until(STOP_MAX, || Ok(child.try_wait()?));
        let ended = ended.with_context(|| format!("stop coffer\n{}", self.log()))?;
        if !ended.success() {
            bail!("told to stop, coffer ended with {ended}\n{}", self.log());
        }
        Ok(())
    }

    /// Starts `coffer` as the demo user and leaves it running.
    pub fn begin(&self, args: &[&str]) -> Result<Background> {
        let words = self.words(args);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Background::start(&self.own()?, &words)
    }

    fn words<'a>(&self, args: &[&'a str]) -> Vec<String> {
        let file = self.credentials("demo").display().to_string();
        let mut words = vec!["--credentials".to_owned(), file];
        words.extend(args.iter().map(|&a: &&'a str| a.to_owned()));
        words
    }

    /// Where the credentials of a user of the first start are.
    pub fn credentials(&self, user: &str) -> PathBuf {
        self.dir.path().join(format!("{user}.toml"))
    }

    /// Runs `coffer` as the demo user.
    pub fn coffer(&self, args: &[&str]) -> Result<Ended> {
        Program::new(&self.own()?, self.words(args)).run()
    }

    /// Runs `coffer` as the administrator.
    pub fn admin(&self, args: &[&str]) -> Result<Ended> {
        let file = self.credentials("admin").display().to_string();
        let words = ["--credentials", &file]
            .into_iter()
            .chain(args.iter().copied());
        Program::new(&self.own()?, words).run()
    }

    /// The `OS_*` variables of a user of the first start, as `coffer env` prints them.
    pub fn variables(&self, user: &str) -> Result<BTreeMap<String, String>> {
        let file = self.credentials(user).display().to_string();
        let printed = Program::new(&self.own()?, ["--credentials", &file, "env"]);
        let pair = |line: &str| {
            let (name, value) = line.strip_prefix("export ")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        };
        Ok(printed.run()?.ok()?.lines().filter_map(pair).collect())
    }

    /// Runs a stock client of the venv with the demo user's `OS_*` variables.
    pub fn client(&self, program: &str, args: &[&str]) -> Result<Ended> {
        self.client_of("demo", program, args)
    }

    /// The same as a user of the first start.
    pub fn client_of(&self, user: &str, program: &str, args: &[&str]) -> Result<Ended> {
        let run = Program::new(&format!("{VENV}/{program}"), args.iter().copied());
        let variables = self.variables(user)?;
        let with = variables
            .iter()
            .fold(run, |run, (name, value)| run.env(name, value));
        with.run()
    }

    /// Runs `openstack`.
    pub fn openstack(&self, args: &[&str]) -> Result<Ended> {
        self.client("openstack", args)
    }

    /// Creates a published PostgreSQL with a database and a user, and waits until it serves.
    pub fn create(&self, name: &str) -> Result<Database> {
        self.create_published(name, &[])
    }

    /// The same, with more words on the command line.
    pub fn create_published(&self, name: &str, more: &[&str]) -> Result<Database> {
        self.create_published_for("demo", name, more)
    }

    /// The same in the project of the user with these credentials.
    pub fn create_for(&self, user: &str, name: &str) -> Result<Database> {
        self.create_published_for(user, name, &[])
    }

    fn create_published_for(&self, user: &str, name: &str, more: &[&str]) -> Result<Database> {
        let words = ["--public", "--database", "app", "--user", "joe"];
        let words: Vec<&str> = words.iter().chain(more).copied().collect();
        let made = self.create_with_for(user, name, &words)?;
        let id = made["id"].as_str().context("the answer has no id")?;
        let password = made["passwords"]["joe"].as_str().context("no password")?;
        Ok(Database {
            address: self.address_for(user, id, "public")?,
            id: id.to_owned(),
            password: password.to_owned(),
        })
    }

    /// Creates an instance with these words on the command line, and waits until it serves; the
    /// answer of the command line.
    pub fn create_with(&self, name: &str, more: &[&str]) -> Result<serde_json::Value> {
        self.create_with_for("demo", name, more)
    }

    fn create_with_for(&self, user: &str, name: &str, more: &[&str]) -> Result<serde_json::Value> {
        let file = self.credentials(user).display().to_string();
        let words = [
            "--credentials",
            &file,
            "--json",
            "instance",
            "create",
            name,
            "--flavor",
            "small",
            "--wait",
        ];
        let words: Vec<&str> = words.iter().chain(more).copied().collect();
        let made = Program::new(&self.own()?, words).run()?.json();
        made.with_context(|| format!("create {name}\n{}", self.log()))
    }

    /// A file with the certificate of the CA of a project's databases.
    pub fn project_ca(&self, project: &str) -> Result<PathBuf> {
        let dir = self.dir().display().to_string();
        let words = ["ca", "--state-dir", &dir, "--project", project];
        let file = self.dir().join("project-ca.pem");
        fs::write(&file, self.coffer(&words)?.ok()?)?;
        Ok(file)
    }

    /// Pid of the first process of the sandbox that runs an instance.
    pub fn sandbox(&self, id: &str) -> Result<u32> {
        let dir = self.dir.path().join("local/sandboxes");
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let read = |name: &str| -> Result<serde_json::Value> {
                Ok(serde_json::from_str(&fs::read_to_string(path.join(name))?)?)
            };
            if read("launch.json")?.to_string().contains(id) {
                let pid = read("launched.json")?["pid"].as_u64();
                return Ok(u32::try_from(pid.context("no pid")?)?);
            }
        }
        bail!("no sandbox of instance {id} in {}", dir.display())
    }

    /// An instance as the API shows it; `None` when there is none.
    pub fn show(&self, id: &str) -> Result<Option<serde_json::Value>> {
        self.show_for("demo", id)
    }

    fn show_for(&self, user: &str, id: &str) -> Result<Option<serde_json::Value>> {
        let file = self.credentials(user).display().to_string();
        let words = ["--credentials", &file, "--json", "instance", "show", id];
        let shown = Program::new(&self.own()?, words).run()?;
        if shown.code == 3 {
            return Ok(None);
        }
        let value = shown.json()?;
        Ok(Some(value.get("instance").cloned().unwrap_or(value)))
    }

    /// The published address of an instance.
    pub fn address(&self, id: &str) -> Result<String> {
        self.address_for("demo", id, "public")
    }

    /// The address of this type (`public`, `private`) of an instance of this user's project.
    pub fn address_for(&self, user: &str, id: &str, kind: &str) -> Result<String> {
        let instance = self.show_for(user, id)?.context("the instance is gone")?;
        let all = instance["addresses"].as_array().context("no addresses")?;
        let found = all
            .iter()
            .find(|a| a["type"] == kind)
            .with_context(|| format!("no {kind} address"))?;
        Ok(found["address"].as_str().context("no address")?.to_owned())
    }

    /// Waits until the instance is gone.
    pub fn await_gone(&self, id: &str) -> Result<()> {
        wait_until(INSTANCE_MAX, || Ok(self.show(id)?.is_none().then_some(())))
            .with_context(|| format!("instance {id} does not go\n{}", self.log()))
    }

    /// Waits until the instance is in service.
    pub fn await_active(&self, id: &str) -> Result<()> {
        let ended = wait_until(INSTANCE_MAX, || {
            let Some(shown) = self.show(id)? else {
                bail!("instance {id} is gone")
            };
            let is_up = shown["status"] == "ACTIVE" && shown["operating_status"] == "HEALTHY";
            Ok(is_up.then_some(()))
        });
        ended.with_context(|| {
            format!(
                "instance {id} is not in service: {:?}\n{:?}\n{}",
                self.show(id),
                self.coffer(&["instance", "explain", id]),
                self.log()
            )
        })
    }

    /// What it has on the host.
    pub fn traces(&self) -> Result<std::collections::BTreeSet<String>> {
        host::traces(&self.tag()?, self.dir.path())
    }
}

impl Drop for Coffer {
    fn drop(&mut self) {
        if let Err(error) = lines::collect(&self.log(), &self.expected) {
            eprintln!("look at the log: {error:#}");
        }
        if let Err(error) = crate::coffer::tear_down(self) {
            eprintln!("tear down: {error:#}");
        }
    }
}

/// Stops everything that the test left, in a way that does not need Coffer to work.
fn tear_down(coffer: &mut Coffer) -> Result<()> {
    coffer.kill()?;
    coffer.ground.clear()?;
    let Ok(tag) = coffer.tag() else {
        return Ok(());
    };
    wipe_host(coffer)?;
    // It is there where ports of the host were published.
    Program::new("nft", ["delete", "table", "ip", &format!("coffer_{tag}")]).run()?;
    // The guard of the pool of published addresses belongs to the Coffer, not to a server.
    let pool = coffer.dir.path().join("local/published-pool.json");
    let pool = fs::read_to_string(pool).unwrap_or_default();
    Program::new(
        "ip",
        ["route", "del", "unreachable", pool.trim().trim_matches('"')],
    )
    .run()
    .map(drop)
}

/// Takes away what a reboot of the host would: processes, namespaces, cgroups, mounts, loops.
pub fn wipe_host(coffer: &Coffer) -> Result<()> {
    wipe_servers(&coffer.tag()?)?;
    let dir = coffer.dir.path().display().to_string();
    let mounts = fs::read_to_string("/proc/mounts")?;
    let ours = mounts
        .lines()
        .filter_map(|l| l.split(' ').nth(1))
        .filter(|m| m.contains(&dir));
    for mount in ours.collect::<Vec<_>>().into_iter().rev() {
        Program::new("umount", ["-l", mount]).run()?;
    }
    let loops = Program::new("losetup", ["-a"]).run()?.out;
    for line in loops.lines().filter(|l| l.contains(&dir)) {
        if let Some((device, _)) = line.split_once(':') {
            Program::new("losetup", ["-d", device]).run()?;
        }
    }
    Ok(())
}

fn wipe_servers(tag: &str) -> Result<()> {
    for pid in host::sandbox_processes(tag)? {
        Program::new("kill", ["-KILL", &pid.to_string()]).run()?;
    }
    wait_until(Duration::from_secs(10), || {
        Ok(host::sandbox_processes(tag)?.is_empty().then_some(()))
    })?;
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.contains(tag) {
            Program::new("ip", ["netns", "del", &name]).run()?;
        }
    }
    let line = [
        "/sys/fs/cgroup",
        "-depth",
        "-type",
        "d",
        "-path",
        // An earlier Coffer's lie in one directory.
        &format!("*coffer-{tag}*"),
    ];
    for group in Program::new("find", line).run()?.out.lines() {
        Program::new("rmdir", [group]).run()?;
    }
    Ok(())
}
