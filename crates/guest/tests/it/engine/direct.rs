//! An engine's real server, run directly: without a sandbox, under a user of its own, with its
//! programs from the host or from an engine root.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coffer_core::units::VolumeSize;
use coffer_engines::conformance::{Access, Fixture, World};
use coffer_engines::engine::RenderContext;
use coffer_engines::runtime::{
    EngineHost, EngineRuntime, Layout, Program, ProgramOutput, TLS_CA, TLS_CERT, TLS_KEY,
};
use coffer_engines::{Engine, EngineError};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;

use crate::support::process;

/// What the suite needs to know of one engine: how a client of it works.
#[async_trait]
pub(super) trait Client: Send + Sync + Debug {
    /// The engine.
    fn engine(&self) -> &'static dyn Engine;
    /// A configuration file as the test wants it: with its addresses, as durable as an instance's.
    fn adapt(&self, name: &str, content: String) -> String;
    /// The same where only processes die, so that nothing has to reach the disk.
    fn hasten(&self, _name: &str, content: String) -> String {
        content
    }
    /// The same where the end of the host would cost what was acknowledged last, and nothing else.
    fn defer(&self, name: &str, content: String) -> String {
        self.hasten(name, content)
    }
    /// What tells the data directory from every other.
    async fn fingerprint(&self, at: &Direct) -> String;
    /// See [`Fixture::served_identity`].
    async fn served_identity(&self, _at: &Direct, _root: &Access) -> Option<String> {
        None
    }
    /// See [`Fixture::login`].
    async fn login(&self, at: &Direct, access: &Access) -> Result<(), String>;
    /// See [`Fixture::make`].
    async fn make(&self, at: &Direct, access: &Access, name: &str) -> Result<(), String>;
    /// See [`Fixture::write`]; each record is counted when it is acknowledged.
    async fn write(&self, at: &Direct, access: &Access, name: &str, count: u64, told: &AtomicU64);
    /// See [`Fixture::count`].
    async fn count(&self, at: &Direct, access: &Access, name: &str) -> Result<u64, String>;
    /// See [`Fixture::beats`].
    async fn beats(&self, at: &Direct, root: &Access) -> Result<u64, String>;
    /// See [`Fixture::login_from`].
    async fn login_from(&self, _: &Direct, _: &Access, _: IpAddr) -> Result<(), String> {
        Err("its users have no hosts".to_owned())
    }
    /// See [`Fixture::keeps_promises`].
    async fn keeps_promises(&self, _at: &Direct, _root: &Access) -> Result<(), String> {
        Ok(())
    }
    /// See [`Fixture::ready_words`].
    fn ready_words(&self) -> Option<&'static str> {
        None
    }
    /// What `openssl s_client` is told beside the address; `None` for an engine without TLS.
    fn tls_words(&self) -> Option<&'static [&'static str]> {
        None
    }
    /// See [`Fixture::stalls_when_held`].
    fn stalls_when_held(&self) -> bool {
        false
    }
}

/// Where the programs of a version come from, and who runs them.
#[derive(Debug, Clone)]
pub(super) struct Programs {
    pub(super) version: &'static str,
    /// Words before the program's path: they enter its root under the user.
    pub(super) prefix: Vec<String>,
    pub(super) uid: u32,
    pub(super) tool: PathBuf,
}

impl Programs {
    pub(super) fn command(&self, program: &Program) -> Command {
        let mut command = match self.prefix.split_first() {
            Some((first, rest)) => {
                let mut command = process::command(first);
                command.args(rest).arg(&program.path);
                command
            }
            None => {
                let mut command = process::command(&program.path);
                command.uid(self.uid).gid(self.uid);
                command
            }
        };
        command
            .args(&program.args)
            .env_clear()
            .envs(program.env.iter().cloned());
        command.current_dir("/");
        command
    }
}

#[derive(Debug)]
pub(super) struct DirectHost {
    layout: Layout,
    programs: Programs,
}

impl DirectHost {
    /// A new key with its certificate, which it is its own authority of; the certificate as PEM.
    fn write_tls(&self) -> String {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let uid = Some(self.programs.uid);
        for (name, text) in [
            (TLS_KEY, made.signing_key.serialize_pem()),
            (TLS_CERT, made.cert.pem()),
            (TLS_CA, made.cert.pem()),
        ] {
            let path = self.layout.tls_dir.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            chown(&path, uid, uid).unwrap();
        }
        made.cert.pem().replace("\r\n", "\n")
    }
}

#[async_trait]
impl EngineHost for DirectHost {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn version(&self) -> &str {
        self.programs.version
    }

    fn tool(&self) -> PathBuf {
        self.programs.tool.clone()
    }

    async fn run(&self, program: Program) -> coffer_engines::Result<ProgramOutput> {
        let failed = |error: std::io::Error| EngineError::Failed {
            what: "run a program",
            why: error.to_string(),
        };
        let mut command = self.programs.command(&program);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let mut stdin = child.stdin.take().expect("it is piped");
        // A program that does not read its input ends all the same.
        stdin.write_all(&program.stdin).await.ok();
        drop(stdin);
        let output = child.wait_with_output().await.map_err(failed)?;
        let text = [output.stdout, output.stderr].concat();
        let output_text = String::from_utf8_lossy(&text).into_owned();
        Ok(ProgramOutput {
            code: output.status.code(),
            output: output_text,
        })
    }
}

/// One data directory with its process.
#[derive(Debug)]
pub(super) struct Direct {
    host: DirectHost,
    pub(super) address: SocketAddr,
    client: &'static dyn Client,
    child: Mutex<Option<Child>>,
}

impl Direct {
    pub(super) fn layout(&self) -> &Layout {
        &self.host.layout
    }

    /// A program of the version, as the engine's user.
    pub(super) fn command(&self, program: &Program) -> Command {
        self.host.programs.command(program)
    }

    fn runtime(&self) -> &'static dyn EngineRuntime {
        self.client.engine().runtime()
    }

    /// The same data, served by the programs of another namespace.
    pub(super) fn moved_to(mut self, programs: Programs) -> Self {
        self.host.programs = programs;
        self
    }

    /// Starts the engine with other words than an instance's: a test's way to show that something
    /// is refused because of Coffer's words.
    pub(super) async fn start_with(&self, change: impl FnOnce(&mut Vec<String>)) {
        let mut program = self.runtime().launch(&self.host);
        change(&mut program.args);
        let mut command = self.host.programs.command(&program);
        let log = std::fs::File::create(self.host.layout.data_dir.join("start.log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        *self.child.lock().await = Some(command.spawn().expect("start the engine"));
    }

    /// Waits until the process has ended by itself; whether it was well.
    pub(super) async fn ended(&self) -> bool {
        let mut child = self.child.lock().await.take().expect("it runs");
        let ended = tokio::time::timeout(END_MAX, child.wait()).await;
        ended.expect("it goes on").expect("wait for it").success()
    }

    /// What an engine's first process leaves when it is killed, as init's sweep over the user would
    /// find it.
    fn leftovers(&self) -> Vec<i32> {
        let data = self.host.layout.data_dir.join("engine");
        let inside = data.strip_prefix("/").unwrap().display().to_string();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| {
                std::fs::read_link(entry.path().join("cwd"))
                    .is_ok_and(|cwd| cwd.display().to_string().contains(&inside))
            })
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect()
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.host.layout.data_dir.join("start.log"));
            eprintln!("the engine said: {}", log.unwrap_or_default());
        }
    }
}

#[async_trait]
impl Fixture for Direct {
    fn host(&self) -> &dyn EngineHost {
        &self.host
    }

    async fn start(&self) {
        self.start_with(|_| ()).await;
    }

    async fn stop(&self) -> bool {
        let mut child = self.child.lock().await.take().expect("it runs");
        let plan = self.runtime().stop_plan();
        let pid = nix::unistd::Pid::from_raw(child.id().expect("it runs").try_into().unwrap());
        let signal = nix::sys::signal::Signal::try_from(plan.signal).unwrap();
        nix::sys::signal::kill(pid, signal).unwrap();
        let grace = Duration::from_millis(plan.grace_ms);
        let ended = tokio::time::timeout(grace, child.wait()).await;
        ended.is_ok_and(|status| status.unwrap().success())
    }

    async fn kill(&self) {
        let mut child = self.child.lock().await.take().expect("it runs");
        child.kill().await.unwrap();
        process::until("nothing of the engine is left", async || {
            let left = self.leftovers();
            for pid in &left {
                let pid = nix::unistd::Pid::from_raw(*pid);
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).ok();
            }
            left.is_empty()
        })
        .await;
    }

    async fn fingerprint(&self) -> String {
        self.client.fingerprint(self).await
    }

    async fn served_identity(&self, root: &Access) -> Option<String> {
        self.client.served_identity(self, root).await
    }

    async fn login(&self, access: &Access) -> Result<(), String> {
        self.client.login(self, access).await
    }

    async fn make(&self, access: &Access, name: &str) -> Result<(), String> {
        self.client.make(self, access, name).await
    }

    async fn write(&self, access: &Access, name: &str, count: u64) -> u64 {
        let told = AtomicU64::new(0);
        self.client.write(self, access, name, count, &told).await;
        told.into_inner()
    }

    async fn count(&self, access: &Access, name: &str) -> Result<u64, String> {
        self.client.count(self, access, name).await
    }

    async fn beats(&self, root: &Access) -> Result<u64, String> {
        self.client.beats(self, root).await
    }

    async fn login_from(&self, access: &Access, from: IpAddr) -> Result<(), String> {
        self.client.login_from(self, access, from).await
    }

    async fn keeps_promises(&self, root: &Access) -> Result<(), String> {
        self.client.keeps_promises(self, root).await
    }

    fn ready_words(&self) -> Option<&'static str> {
        self.client.ready_words()
    }

    async fn served_certificate(&self) -> Option<String> {
        let words = self.client.tls_words()?;
        let at = self.address.to_string();
        let words = [&["openssl", "s_client", "-connect", &at], words].concat();
        let shown = process::succeed(&words).await;
        let begin = shown.find("-----BEGIN CERTIFICATE-----")?;
        let end = "-----END CERTIFICATE-----\n";
        let length = shown[begin..].find(end)? + end.len();
        Some(shown[begin..begin + length].to_owned())
    }

    async fn renew_certificate(&self) -> String {
        self.host.write_tls()
    }

    fn stalls_when_held(&self) -> bool {
        self.client.stalls_when_held()
    }
}

#[derive(Debug)]
pub(super) struct DirectWorld {
    base: PathBuf,
    client: &'static dyn Client,
    programs: Programs,
    flush: Flush,
    template: Mutex<Option<PathBuf>>,
}

/// When what an engine acknowledges reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flush {
    /// As in every instance: before it is acknowledged.
    AsCreated,
    /// Some time; the kernel has it when the process dies.
    ForProcesses,
    /// Some time after it was acknowledged, in an order that a start can make use of.
    Deferred,
}

/// LIMIT: how long an engine may take to end that does so by itself.
const END_MAX: Duration = Duration::from_secs(20);

/// Addresses of loopback: each fixture its own, as the port is fixed.
static NEXT_ADDRESS: AtomicU8 = AtomicU8::new(1);

impl DirectWorld {
    pub(super) fn new(base: &Path, client: &'static dyn Client, programs: Programs) -> Self {
        Self::flushing(Flush::ForProcesses, base, client, programs)
    }

    pub(super) fn flushing(
        flush: Flush,
        base: &Path,
        client: &'static dyn Client,
        programs: Programs,
    ) -> Self {
        Self {
            base: base.to_owned(),
            client,
            programs,
            flush,
            template: Mutex::new(None),
        }
    }

    fn host(&self, name: &str) -> DirectHost {
        let data_dir = self.base.join(name);
        let layout = Layout {
            config_dir: data_dir.join("config"),
            tls_dir: data_dir.join("tls"),
            run_dir: data_dir.join("run"),
            log_dir: data_dir.join("log"),
            data_dir,
        };
        for dir in [
            &layout.config_dir,
            &layout.tls_dir,
            &layout.run_dir,
            &layout.log_dir,
        ] {
            self.own_dir(dir);
        }
        self.own_dir(&layout.data_dir.join("engine"));
        DirectHost {
            layout,
            programs: self.programs.clone(),
        }
    }

    fn own_dir(&self, dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        chown(dir, Some(self.programs.uid), Some(self.programs.uid)).unwrap();
    }

    fn configure(&self, host: &DirectHost, address: IpAddr) {
        let context = RenderContext {
            version: self.programs.version.to_owned(),
            memory_mib: 512,
            vcpus: 1,
            volume: VolumeSize::gib(1).unwrap(),
            listen: vec![address],
            data_dir: host.layout.data_dir.display().to_string(),
        };
        for file in self.client.engine().render(&context) {
            let content = self.client.adapt(file.name, file.content);
            let content = match self.flush {
                Flush::AsCreated => content,
                Flush::ForProcesses => self.client.hasten(file.name, content),
                Flush::Deferred => self.client.defer(file.name, content),
            };
            std::fs::write(host.layout.config_dir.join(file.name), content).unwrap();
        }
        host.write_tls();
    }

    /// A data directory of its own, cloned from the template.
    pub(super) async fn direct(&self, name: &str) -> Direct {
        let template = self.ensure_template().await;
        let host = self.host(name);
        let to = host.layout.data_dir.join("engine");
        let from = format!("{}/.", template.display());
        process::succeed(&["cp", "-a", &from, &to.display().to_string()]).await;
        let number = NEXT_ADDRESS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id().to_le_bytes();
        let address = [127, process[0], process[1].max(1), number];
        let address = SocketAddr::from((address, self.client.engine().port()));
        self.configure(&host, address.ip());
        Direct {
            host,
            address,
            client: self.client,
            child: Mutex::new(None),
        }
    }

    async fn ensure_template(&self) -> PathBuf {
        let mut template = self.template.lock().await;
        if template.is_none() {
            let host = self.host("template");
            let runtime = self.runtime();
            runtime.bootstrap(&host).await.expect("bootstrap");
            *template = Some(host.layout.data_dir.join("engine"));
        }
        template.clone().expect("made above")
    }
}

#[async_trait]
impl World for DirectWorld {
    fn engine(&self) -> &'static dyn Engine {
        self.client.engine()
    }

    fn runtime(&self) -> &'static dyn EngineRuntime {
        self.client.engine().runtime()
    }

    async fn clone_template(&self, name: &str) -> Box<dyn Fixture> {
        Box::new(self.direct(name).await)
    }
}

/// A mount namespace in which the root, read-only, has the test's directory at its own path.
pub(super) async fn hold_root(root: &Path, base: &Path, uid: u32) -> (Child, Vec<String>) {
    let passwd = format!(
        "coffer-agent:x:0:0::/:/bin/sh\nroot:x:0:0::/:/bin/sh\nengine:x:{uid}:{uid}::/:/bin/sh\n"
    );
    std::fs::write(base.join("passwd"), passwd).unwrap();
    std::fs::create_dir_all(base.join("root")).unwrap();
    std::fs::remove_file(base.join("held")).ok();
    let script = format!(
        "set -e; {let_go} r={base}/root; mount --bind {root} $r; mount -o remount,ro,bind $r; \
         mount -t tmpfs tmpfs $r/tmp; mkdir -p $r{base}; mount --rbind {base} $r{base}; \
         mount --rbind /dev $r/dev; mount --bind {base}/passwd $r/etc/passwd; \
         touch {base}/held; exec sleep 3600",
        let_go = process::let_go_of_others(base),
        base = base.display(),
        root = root.display(),
    );
    let mut command = process::command("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", &script]);
    let holder = command
        .stdin(Stdio::null())
        .spawn()
        .expect("make a mount namespace");
    process::until("the root is mounted", async || base.join("held").exists()).await;
    let pid = holder.id().expect("it runs");
    let prefix = [
        "nsenter".to_owned(),
        format!("--mount=/proc/{pid}/ns/mnt"),
        "/usr/sbin/chroot".to_owned(),
        format!("--userspec={uid}:{uid}"),
    ];
    (holder, prefix.to_vec())
}

/// Names of the attempts that `docs/security.md` has in the section of this heading: the first
/// column of its table.
pub(super) fn rows(heading: &str) -> Vec<&'static str> {
    let text = include_str!("../../../../../docs/security.md");
    let sections = text.split("\n## ");
    let title = heading.trim_start_matches("## ");
    let section = sections.filter(|section| section.starts_with(title));
    section
        .flat_map(str::lines)
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect()
}
