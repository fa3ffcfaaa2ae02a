//! The engines' conformance suite with a real PostgreSQL, run directly: version 17 from its root
//! if that is there, the host's version 15 otherwise and beside it.

use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coffer_core::units::VolumeSize;
use coffer_engines::conformance::{self, Access, Fixture, World};
use coffer_engines::engine::RenderContext;
use coffer_engines::postgresql::{PORT, Postgresql, identity};
use coffer_engines::runtime::{
    EngineHost, EngineRuntime, Layout, Program, ProgramOutput, TLS_CERT, TLS_KEY,
};
use coffer_engines::{Engine, EngineError};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio_postgres::NoTls;

use crate::support::process;

/// Where the programs of a version come from, and who runs them.
#[derive(Debug, Clone)]
struct Programs {
    version: &'static str,
    /// Words before the program's path: they enter its root under the user.
    prefix: Vec<String>,
    uid: u32,
    tool: PathBuf,
}

impl Programs {
    fn command(&self, program: &Program) -> Command {
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
struct DirectHost {
    layout: Layout,
    programs: Programs,
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

#[derive(Debug)]
struct Direct {
    host: DirectHost,
    address: SocketAddr,
    child: Mutex<Option<Child>>,
}

impl Direct {
    fn pgdata(&self) -> PathBuf {
        self.host.layout.data_dir.join("engine/pgdata")
    }

    async fn client(&self, access: &Access) -> Result<Client, String> {
        let mut config = tokio_postgres::Config::new();
        config
            .host(self.address.ip().to_string())
            .port(PORT)
            .user(&access.user)
            .password(&access.password)
            .dbname(&access.database)
            .connect_timeout(Duration::from_secs(5));
        let (client, connection) = config.connect(NoTls).await.map_err(|e| format!("{e:?}"))?;
        let driver = process::start(async move {
            connection.await.ok();
        });
        Ok(Client { client, driver })
    }

    /// What the postmaster leaves when it is killed, as init's sweep over the user would find it.
    fn leftovers(&self) -> Vec<i32> {
        let pgdata = self.pgdata();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter(|entry| {
                std::fs::read_link(entry.path().join("cwd"))
                    .is_ok_and(|cwd| cwd.ends_with(pgdata.strip_prefix("/").unwrap()))
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

/// A client that closes when dropped.
struct Client {
    client: tokio_postgres::Client,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[async_trait]
impl Fixture for Direct {
    fn host(&self) -> &dyn EngineHost {
        &self.host
    }

    async fn start(&self) {
        let mut command = self.host.programs.command(&Postgresql.launch(&self.host));
        let log = std::fs::File::create(self.host.layout.data_dir.join("start.log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        *self.child.lock().await = Some(command.spawn().expect("start the engine"));
    }

    async fn stop(&self) -> bool {
        let mut child = self.child.lock().await.take().expect("it runs");
        let plan = Postgresql.stop_plan();
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
        identity::read(&self.pgdata())
            .expect("read the identifier")
            .to_string()
    }

    async fn login(&self, access: &Access) -> Result<(), String> {
        let client = self.client(access).await?;
        client
            .client
            .simple_query("SELECT 1")
            .await
            .map(|_| ())
            .map_err(|e| e.to_string())
    }

    async fn make(&self, access: &Access, name: &str) -> Result<(), String> {
        let client = self.client(access).await?;
        let sql = format!("CREATE TABLE {} (n bigint)", quote(name));
        client
            .client
            .batch_execute(&sql)
            .await
            .map_err(|e| format!("{e:?}"))
    }

    async fn write(&self, access: &Access, name: &str, count: u64) -> u64 {
        let client = self.client(access).await.expect("log in to write");
        let sql = format!("INSERT INTO {} VALUES (1)", quote(name));
        let mut acknowledged = 0;
        while acknowledged < count && client.client.batch_execute(&sql).await.is_ok() {
            acknowledged += 1;
        }
        acknowledged
    }

    async fn count(&self, access: &Access, name: &str) -> Result<u64, String> {
        let client = self.client(access).await?;
        let sql = format!("SELECT count(*) FROM {}", quote(name));
        let row = client
            .client
            .query_one(&sql, &[])
            .await
            .map_err(|e| format!("{e:?}"))?;
        Ok(row.get::<_, i64>(0).try_into().unwrap())
    }
}

#[derive(Debug)]
struct DirectWorld {
    base: PathBuf,
    programs: Programs,
    template: Mutex<Option<PathBuf>>,
}

/// Addresses of loopback: each fixture its own, as the port is fixed.
static NEXT_ADDRESS: AtomicU8 = AtomicU8::new(1);

impl DirectWorld {
    fn new(base: &Path, programs: Programs) -> Self {
        Self {
            base: base.to_owned(),
            programs,
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

    fn configure(&self, host: &DirectHost, address: SocketAddr) {
        let context = RenderContext {
            version: self.programs.version.to_owned(),
            memory_mib: 512,
            vcpus: 1,
            volume: VolumeSize::gib(1).unwrap(),
            listen: vec![address.ip()],
            data_dir: host.layout.data_dir.display().to_string(),
        };
        for file in Postgresql.render(&context) {
            let mut content = file.content.replace("'127.0.0.1,", "'");
            match file.name {
                // A killed process loses nothing that it wrote: only a lost machine would.
                "postgresql.conf" => content.push_str("fsync = off\n"),
                // The suite's client speaks no TLS; that is tested in the sandbox.
                "pg_hba.conf" => content.push_str("host all all 127.0.0.0/8 scram-sha-256\n"),
                // The test runs as root where an agent would.
                "pg_ident.conf" => content.push_str("coffer root coffer\n"),
                _ => {}
            }
            std::fs::write(host.layout.config_dir.join(file.name), content).unwrap();
        }
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        for (name, text) in [
            (TLS_KEY, key.signing_key.serialize_pem()),
            (TLS_CERT, key.cert.pem()),
        ] {
            let path = host.layout.tls_dir.join(name);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            chown(&path, Some(self.programs.uid), Some(self.programs.uid)).unwrap();
        }
    }

    async fn ensure_template(&self) -> PathBuf {
        let mut template = self.template.lock().await;
        if template.is_none() {
            let host = self.host("template");
            Postgresql.bootstrap(&host).await.expect("bootstrap");
            *template = Some(host.layout.data_dir.join("engine"));
        }
        template.clone().expect("made above")
    }
}

#[async_trait]
impl World for DirectWorld {
    fn engine(&self) -> &'static dyn Engine {
        &Postgresql
    }

    fn runtime(&self) -> &'static dyn EngineRuntime {
        &Postgresql
    }

    async fn clone_template(&self, name: &str) -> Box<dyn Fixture> {
        let template = self.ensure_template().await;
        let host = self.host(name);
        let to = host.layout.data_dir.join("engine");
        let from = format!("{}/.", template.display());
        process::succeed(&["cp", "-a", &from, &to.display().to_string()]).await;
        let number = NEXT_ADDRESS.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id().to_le_bytes();
        let address = SocketAddr::from(([127, process[0], process[1].max(1), number], PORT));
        self.configure(&host, address);
        Box::new(Direct {
            host,
            address,
            child: Mutex::new(None),
        })
    }
}

fn base_dir() -> tempfile::TempDir {
    let base = tempfile::Builder::new()
        .prefix("coffer-it-")
        .tempdir()
        .unwrap();
    std::fs::set_permissions(base.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    base
}

/// The tool where other users can execute it.
fn copy_tool(base: &Path) -> PathBuf {
    let tool = base.join("coffer-guest");
    std::fs::copy(env!("CARGO_BIN_EXE_coffer-guest"), &tool).unwrap();
    tool
}

#[tokio::test]
async fn postgresql_of_the_host_conforms() {
    process::require_root();
    let postgres = Path::new("/usr/lib/postgresql/15/bin/postgres");
    if !postgres.exists() && process::engine_root().is_some() {
        eprintln!(
            "this machine has no PostgreSQL 15 of its own; version 17 is tested from its root"
        );
        return;
    }
    let user = nix::unistd::User::from_name("postgres").unwrap();
    let user = user.expect("this test needs PostgreSQL: apt-get install postgresql-15");
    let base = base_dir();
    let programs = Programs {
        version: "15",
        prefix: Vec::new(),
        uid: user.uid.as_raw(),
        tool: copy_tool(base.path()),
    };
    conformance::all(&DirectWorld::new(base.path(), programs)).await;
}

#[tokio::test]
async fn postgresql_of_the_root_conforms() {
    process::require_root();
    let Some(root) = process::engine_root() else {
        let is_tested = Path::new("/usr/lib/postgresql/15/bin/postgres").exists();
        assert!(
            is_tested,
            "this test needs an engine root with PostgreSQL 17"
        );
        eprintln!("there is no engine root with PostgreSQL 17; version 15 is tested from the host");
        return;
    };
    let base = base_dir();
    let tool = copy_tool(base.path());
    let uid = 61_817;
    let (holder, mut prefix) = hold_root(root, base.path(), uid).await;
    prefix.push(base.path().join("root").display().to_string());
    let programs = Programs {
        version: "17",
        prefix,
        uid,
        tool,
    };
    conformance::all(&DirectWorld::new(base.path(), programs)).await;
    drop(holder);
}

/// A mount namespace in which the root, read-only, has the test's directory at its own path.
async fn hold_root(root: &Path, base: &Path, uid: u32) -> (Child, Vec<String>) {
    let passwd = format!("root:x:0:0::/:/bin/sh\nengine:x:{uid}:{uid}::/:/bin/sh\n");
    std::fs::write(base.join("passwd"), passwd).unwrap();
    std::fs::create_dir_all(base.join("root")).unwrap();
    let script = format!(
        "set -e; r={base}/root; mount --bind {root} $r; mount -o remount,ro,bind $r; \
         mount -t tmpfs tmpfs $r/tmp; mkdir -p $r{base}; mount --bind {base} $r{base}; \
         mount --rbind /dev $r/dev; mount --bind {base}/passwd $r/etc/passwd; \
         touch {base}/held; exec sleep 3600",
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
