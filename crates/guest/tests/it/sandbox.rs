//! Init, agent and a real PostgreSQL together in a sandbox of their own: namespaces, a read-only
//! root, two users, four capabilities. The provider makes such a sandbox in production; the script
//! here makes the least of it that init needs.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use coffer_core::units::VolumeSize;
use coffer_engines::Engine;
use coffer_engines::engine::RenderContext;
use coffer_engines::postgresql::Postgresql;
use coffer_wire::guest::v1::{
    AgentUpload, Boot, CommandState, ConfigFile, EngineHealth, EngineState, EngineTls,
    InventoryPage, Operation, PROTOCOL, Refusal, Role, SessionEvent, SessionRequest, Spec,
    SpecAccepted, Status, StreamRequest, StreamState, UserSpec,
};
use http_body_util::BodyExt;
use rcgen::ExtendedKeyUsagePurpose;
use tokio::process::Child;

use crate::protocol::{command, conclude, create, enrol};
use crate::support::client::{Client, Dial};
use crate::support::link;
use crate::support::pki::{self, Ca};
use crate::support::process;

const SERVER_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8059";
const AGENT_ADDRESS: &str = "127.0.0.1:8003";

/// Directories and users of one sandbox.
struct Sandbox {
    base: PathBuf,
    data: PathBuf,
    version: &'static str,
    boot: Boot,
}

/// A sandbox that runs.
struct Running {
    outer: Child,
    /// Host's pid of init.
    init: u32,
}

impl Sandbox {
    fn new(base: &Path, name: &str, link_ca_pem: &str, uids: (u32, u32)) -> Self {
        let version = if process::engine_root("postgresql-17").is_some() {
            "17"
        } else {
            "15"
        };
        let boot = Boot {
            protocol: PROTOCOL,
            server_id: SERVER_ID.to_owned(),
            instance_id: None,
            link_ca_pem: link_ca_pem.to_owned(),
            bind: vec![AGENT_ADDRESS.parse().unwrap()],
            engine: "postgresql".to_owned(),
            engine_version: version.to_owned(),
            agent_uid: uids.0,
            engine_uid: uids.1,
            data_dir: "/data".to_owned(),
            memory_mib: 512,
            vcpus: 1,
        };
        let base = base.join(name);
        std::fs::create_dir_all(base.join("usr-lib-coffer")).unwrap();
        std::fs::create_dir_all(base.join("data")).unwrap();
        let guest = base.join("usr-lib-coffer/coffer-guest");
        std::fs::copy(env!("CARGO_BIN_EXE_coffer-guest"), guest).unwrap();
        std::fs::write(base.join("boot.json"), serde_json::to_vec(&boot).unwrap()).unwrap();
        let passwd = format!(
            "root:x:0:0::/:/bin/sh\ncoffer-agent:x:{a}:{a}::/:/bin/false\n\
             engine:x:{e}:{e}::/:/bin/sh\n",
            a = uids.0,
            e = uids.1
        );
        std::fs::write(base.join("passwd"), passwd).unwrap();
        Self {
            data: base.join("data"),
            base,
            version,
            boot,
        }
    }

    /// Runs `coffer-guest MODE` as the first process of a sandbox.
    async fn start(&self, mode: &str) -> Running {
        let pid_file = self.base.join("pid");
        std::fs::remove_file(&pid_file).ok();
        let script = self.script(mode);
        let mut command = process::command("unshare");
        let namespaces = [
            "--mount",
            "--pid",
            "--net",
            "--ipc",
            "--uts",
            "--fork",
            "--kill-child",
        ];
        command
            .args(namespaces)
            .args(["--propagation", "private", "sh", "-c", &script]);
        let console = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.base.join("console.log"))
            .unwrap();
        command
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console);
        let outer = command.spawn().expect("make a sandbox");
        let outer_pid = outer.id().expect("it runs");
        let children = format!("/proc/{outer_pid}/task/{outer_pid}/children");
        let init = || -> Option<u32> {
            let pids = std::fs::read_to_string(&children).ok()?;
            let pid = pids.split_whitespace().next()?.parse().ok()?;
            // The script has become init when its command is.
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            (name.trim() == "coffer-guest").then_some(pid)
        };
        process::until("the sandbox has a first process", async || {
            init().is_some() || !Path::new(&children).exists()
        })
        .await;
        let init = init().unwrap_or_else(|| panic!("no sandbox: {}", self.console()));
        Running { outer, init }
    }

    fn script(&self, mode: &str) -> String {
        let root = process::engine_root("postgresql-17").unwrap_or_else(|| PathBuf::from("/"));
        format!(
            "set -e; {let_go} b={base}; r=$b/root; mkdir -p $r $b/layer $b/work; \
             mount -t tmpfs tmpfs $b/layer; mkdir $b/layer/up $b/layer/work; \
             mount -t overlay -o lowerdir={root},upperdir=$b/layer/up,workdir=$b/layer/work o \
             $r; mkdir -p $r/data $r/usr/lib/coffer; \
             mount --bind $b/usr-lib-coffer $r/usr/lib/coffer; cp $b/passwd $r/etc/passwd; \
             mount -o remount,ro $r; mount --bind $b/data $r/data; \
             mount -t tmpfs -o mode=0755 tmpfs $r/run; mkdir -m 0755 $r/run/coffer; \
             cp $b/boot.json $r/run/coffer/boot.json; \
             mount -t tmpfs -o mode=1777 tmpfs $r/tmp; \
             mount -t proc -o hidepid=2 proc $r/proc; \
             mount -t tmpfs -o mode=0755 tmpfs $r/dev; \
             for d in null zero full random urandom; do touch $r/dev/$d; \
             mount --bind /dev/$d $r/dev/$d; done; mkdir -m 1777 $r/dev/shm; \
             ip link set lo up; \
             exec chroot $r /usr/bin/setpriv --no-new-privs \
             --bounding-set=-all,+setuid,+setgid,+kill,+chown,+setpcap --inh-caps=-all \
             /usr/lib/coffer/coffer-guest {mode}",
            let_go = process::let_go_of_others(&self.base),
            base = self.base.display(),
            root = root.display(),
        )
    }

    fn console(&self) -> String {
        std::fs::read_to_string(self.base.join("console.log")).unwrap_or_default()
    }

    fn spec(&self, version: u64, tls: Option<EngineTls>) -> Spec {
        let context = RenderContext {
            version: self.version.to_owned(),
            memory_mib: 512,
            vcpus: 1,
            volume: VolumeSize::gib(1).unwrap(),
            listen: Vec::new(),
            data_dir: "/data".to_owned(),
        };
        let config = Postgresql.render(&context).into_iter();
        Spec {
            generation: 1,
            version,
            role: Role::Primary,
            engine_state: EngineState::Running,
            identity: SERVER_ID.to_owned(),
            config: config
                .map(|file| ConfigFile {
                    name: file.name.to_owned(),
                    content: file.content,
                })
                .collect(),
            tls,
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the sandbox said: {}", self.console());
        }
    }
}

impl Running {
    fn netns(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.init))
    }

    fn client(&self, config: Arc<tokio_rustls::rustls::ClientConfig>) -> Client {
        let netns = self.netns();
        let address: SocketAddr = AGENT_ADDRESS.parse().unwrap();
        let dial: Dial = Arc::new(move || Box::pin(link::dial(Some(netns.clone()), address)));
        Client {
            dial,
            config,
            server_id: SERVER_ID.to_owned(),
        }
    }

    /// Host's pids of init's children whose command is this.
    fn children(&self, uid: u32) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.init);
        let pids = std::fs::read_to_string(path).unwrap_or_default();
        let pids = pids.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.filter(|pid| uid_of(*pid) == Some(uid)).collect()
    }

    /// Runs psql in the sandbox's network.
    async fn psql(
        &self,
        user: &str,
        password: &str,
        database: &str,
        sql: &str,
        ca: &Path,
    ) -> String {
        let uri = format!(
            "host=localhost hostaddr=127.0.0.1 user={user} dbname={database} \
             sslmode=verify-full sslrootcert={}",
            ca.display()
        );
        let mut command = process::command("nsenter");
        command.arg(format!("--net={}", self.netns().display()));
        command.args(["psql", "-X", "-A", "-t", "-d", &uri, "-c", sql]);
        command.env("PGPASSWORD", password).stdin(Stdio::null());
        let output = command.output().await.expect("run psql");
        let text = [output.stdout, output.stderr].concat();
        String::from_utf8_lossy(&text).trim().to_owned()
    }

    /// Tells init to stop, and waits for its end.
    async fn stop(mut self) -> bool {
        let init = nix::unistd::Pid::from_raw(self.init.try_into().unwrap());
        nix::sys::signal::kill(init, nix::sys::signal::Signal::SIGTERM).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), self.outer.wait()).await;
        ended.expect("init stops in its time").unwrap().success()
    }
}

fn uid_of(pid: u32) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(format!("/proc/{pid}"))
        .ok()
        .map(|meta| meta.uid())
}

fn kill(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(pid.try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
}

fn status_field(pid: u32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .unwrap_or_default();
    line.trim_start_matches(':').trim().to_owned()
}

fn base_dir() -> tempfile::TempDir {
    let base = tempfile::Builder::new()
        .prefix("coffer-it-")
        .tempdir()
        .unwrap();
    std::fs::set_permissions(base.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    base
}

/// Makes a template in a sandbox and a sandbox on a copy of it, under other users.
async fn from_template(base: &Path, ca: &Ca) -> Sandbox {
    let template = Sandbox::new(base, "template", &ca.pem, (61_901, 61_902));
    let mut made = template.start("bootstrap").await;
    let status = made.outer.wait().await.unwrap();
    assert!(status.success(), "bootstrap: {}", template.console());
    let sandbox = Sandbox::new(base, "instance", &ca.pem, (61_911, 61_912));
    let from = format!("{}/.", template.data.display());
    process::succeed(&["cp", "-a", &from, &sandbox.data.display().to_string()]).await;
    sandbox
}

#[tokio::test]
async fn an_instance_lives_in_its_sandbox() {
    process::require_root();
    let base = base_dir();
    let (link_ca, project_ca) = (Ca::new("link"), Ca::new("project"));
    let ca_file = base.path().join("ca.crt");
    std::fs::write(&ca_file, &project_ca.pem).unwrap();
    let sandbox = from_template(base.path(), &link_ca).await;
    let began = tokio::time::Instant::now();
    let running = sandbox.start("init").await;
    let trusting = running.client(pki::trusting(&link_ca));
    process::until("the agent listens", async || {
        trusting.open("GET", "/v1/enrol", Vec::new()).await.is_ok()
    })
    .await;
    let listening = began.elapsed();
    let request = enrol(&link_ca, &trusting, SERVER_ID).await;
    let cert_pem = project_ca.sign(
        &request,
        &["localhost"],
        ExtendedKeyUsagePurpose::ServerAuth,
    );
    let tls = Some(EngineTls {
        cert_pem,
        ca_pem: project_ca.pem.clone(),
    });
    let client = running.client(pki::verifying(&link_ca));
    client
        .send::<SpecAccepted>("PUT", "/v1/spec", &sandbox.spec(1, tls.clone()))
        .await;
    let healthy = client.until_healthy().await;
    println!(
        "times: listening after {listening:?}, healthy after {:?}",
        began.elapsed()
    );
    assert!(
        healthy
            .engine_version
            .as_deref()
            .is_some_and(|v| v.starts_with(sandbox.version))
    );
    assert!(healthy.volume_total_bytes > 0 && healthy.position.is_some());
    users(&running, &client, &ca_file).await;
    wires(&client).await;
    rights(&sandbox, &running);
    hostile(&running, &client, &ca_file).await;
    processes(&sandbox, &running, &client, &ca_file).await;
    assert!(
        running.stop().await,
        "init does not stop cleanly: {}",
        sandbox.console()
    );
    assert!(
        !sandbox.data.join("engine/pgdata/postmaster.pid").exists(),
        "not a clean stop"
    );
    alone(&sandbox, &link_ca, &ca_file).await;
}

async fn users(running: &Running, client: &Client, ca: &Path) {
    let state = conclude(client, &command("d", 1, create("app"))).await;
    assert_eq!(state, CommandState::Done);
    let user = UserSpec {
        name: "ann".to_owned(),
        host: None,
        password: "p w'\"%".to_owned(),
        databases: vec!["app".to_owned()],
    };
    let users = Operation::CreateUsers { users: vec![user] };
    assert_eq!(
        conclude(client, &command("u", 1, users)).await,
        CommandState::Done
    );
    let sql = "CREATE TABLE t (n int); INSERT INTO t VALUES (7); SELECT n FROM t";
    let said = running.psql("ann", "p w'\"%", "app", sql, ca).await;
    assert!(said.ends_with('7'), "{said}");
    let said = running.psql("ann", "wrong", "app", "SELECT 1", ca).await;
    assert!(said.contains("password authentication failed"), "{said}");
    let said = running.psql("coffer", "x", "app", "SELECT 1", ca).await;
    assert!(said.contains("pg_hba.conf rejects"), "{said}");
    let page: InventoryPage = client.ask("GET", "/v1/inventory").await;
    assert_eq!((page.databases.len(), page.users.len()), (1, 1));
    assert_eq!(page.users[0].databases, ["app"]);
}

/// The relay, the log and a session, with the real engine.
async fn wires(client: &Client) {
    let state: StreamState = client
        .send("POST", "/v1/streams", &StreamRequest::Connect)
        .await;
    let path = format!("/v1/streams/{}?offset=0", state.id);
    // An SSLRequest; PostgreSQL says S and waits for a handshake.
    let request = vec![0, 0, 0, 8, 4, 210, 22, 47];
    let (status, _) = client.request("PUT", &path, request).await;
    assert!(status.is_success());
    let mut open = client.open("GET", &path, Vec::new()).await.unwrap();
    let piece = open
        .response
        .body_mut()
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    assert_eq!(&piece[..], b"S");
    client.request("DELETE", &path, Vec::new()).await;
    let log = StreamRequest::Log {
        name: "engine".to_owned(),
    };
    let state: StreamState = client.send("POST", "/v1/streams", &log).await;
    let (_, text) = client
        .request(
            "GET",
            &format!("/v1/streams/{}?offset=0", state.id),
            Vec::new(),
        )
        .await;
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(text.contains("database system is ready"), "{text}");
    assert!(
        !text.contains("p w'") && !text.contains("SCRAM-SHA-256"),
        "a secret is in the log"
    );
    let fencing = command("q", 1, Operation::Restart).fencing;
    let wanted = SessionRequest::Quiesce {
        hold_ms_max: 10_000,
        fencing,
    };
    let body = serde_json::to_vec(&wanted).unwrap();
    let mut open = client.open("POST", "/v1/sessions", body).await.unwrap();
    let line = open
        .response
        .body_mut()
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_data()
        .unwrap();
    match serde_json::from_slice(&line).unwrap() {
        SessionEvent::Held { facts } => assert!(facts.contains_key("position"), "{facts:?}"),
        SessionEvent::Ended { message } => panic!("not held: {message}"),
    }
}

/// Users, capabilities and owners, seen from the host.
fn rights(sandbox: &Sandbox, running: &Running) {
    let (agent, engine) = (sandbox.boot.agent_uid, sandbox.boot.engine_uid);
    for (uid, name) in [(agent, "agent"), (engine, "engine")] {
        let pids = running.children(uid);
        assert_eq!(pids.len(), 1, "{name}: {pids:?}");
        for field in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(
                status_field(pids[0], field),
                "0000000000000000",
                "{name} {field}"
            );
        }
        assert_eq!(status_field(pids[0], "NoNewPrivs"), "1", "{name}");
        assert_eq!(status_field(pids[0], "Groups"), "", "{name}");
    }
    let mode = |path: &str| {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(sandbox.data.join(path)).unwrap();
        (meta.uid(), meta.mode() & 0o777)
    };
    assert_eq!(mode("agent"), (agent, 0o700));
    assert_eq!(mode("agent/link.key"), (agent, 0o600));
    assert_eq!(mode("tls"), (0, 0o755));
    assert_eq!(mode("tls/engine.key"), (engine, 0o400));
    assert_eq!(mode("engine"), (engine, 0o700));
    assert_eq!(mode("config/postgresql.conf"), (agent, 0o644));
}

/// A superuser with a shell, and everything it tries.
async fn hostile(running: &Running, client: &Client, ca: &Path) {
    let root = Operation::EnableRoot {
        password: "root".to_owned(),
    };
    assert_eq!(
        conclude(client, &command("r", 1, root)).await,
        CommandState::Done
    );
    let agent_pid = status_field(running.children(61_911)[0], "NSpid");
    let agent_pid = agent_pid.split_whitespace().last().unwrap().to_owned();
    let attempts = [
        ("read the boot data", "cat /run/coffer/boot.json".to_owned()),
        ("list the agent's directory", "ls /data/agent".to_owned()),
        (
            "read the agent's key",
            "cat /data/agent/link.key".to_owned(),
        ),
        (
            "change its configuration",
            "echo x >> /data/config/pg_hba.conf".to_owned(),
        ),
        (
            "replace its key",
            "echo x > /data/tls/engine.key".to_owned(),
        ),
        ("remove its key", "rm /data/tls/engine.key".to_owned()),
        (
            "write into the root",
            "echo x > /usr/lib/coffer/x".to_owned(),
        ),
        ("write beside its data", "echo x > /data/x".to_owned()),
        ("read the first process", "cat /proc/1/environ".to_owned()),
        ("signal the first process", "kill -9 1".to_owned()),
        ("signal the agent", format!("kill -9 {agent_pid}")),
        (
            "read the agent's memory",
            format!("cat /proc/{agent_pid}/mem"),
        ),
        (
            "execute what it brought",
            "cp /bin/true /tmp/t && /tmp/t".to_owned(),
        ),
        ("mount", "mount -t tmpfs tmpfs /tmp".to_owned()),
        ("make a device", "mknod /tmp/sda b 8 0".to_owned()),
        (
            "become another",
            "setpriv --reuid 0 --clear-groups true".to_owned(),
        ),
    ];
    for (name, shell) in attempts {
        let sql = format!("COPY (SELECT 1) TO PROGRAM $q${shell}$q$");
        let said = running.psql("postgres", "root", "app", &sql, ca).await;
        assert!(
            said.contains("program \""),
            "a superuser can {name}: {said}"
        );
    }
    let works = "COPY (SELECT 1) TO PROGRAM 'cat > /tmp/works && test -s /tmp/works'";
    let said = running.psql("postgres", "root", "app", works, ca).await;
    assert_eq!(
        said, "COPY 1",
        "the attempts prove nothing: no program runs at all"
    );
    let off = conclude(client, &command("ro", 1, Operation::DisableRoot)).await;
    assert_eq!(off, CommandState::Done);
}

/// What dies is started again; what lives is not touched.
async fn processes(sandbox: &Sandbox, running: &Running, client: &Client, ca: &Path) {
    let before = client.until_healthy().await;
    kill(running.children(sandbox.boot.agent_uid)[0]);
    let after = client
        .until("another agent", |s| {
            s.agent_start != before.agent_start && s.health == EngineHealth::Healthy
        })
        .await;
    assert_eq!(
        after.engine_process, before.engine_process,
        "the engine was touched"
    );
    memory(sandbox, running, MEMORY_KIB_MAX);
    replaced_agent(sandbox, running, client).await;
    memory(sandbox, running, REPLACED_KIB_MAX);
    // As an engine leaves it that is killed between making the file and writing it.
    std::fs::write(sandbox.data.join("engine/pgdata/postmaster.pid"), "").unwrap();
    kill(running.children(sandbox.boot.engine_uid)[0]);
    let restarted = client
        .until("the engine again", |s| {
            s.engine_starts > before.engine_starts && s.health == EngineHealth::Healthy
        })
        .await;
    assert_ne!(restarted.engine_process, before.engine_process);
    assert_eq!(restarted.engine_starts, before.engine_starts + 1);
    let console = sandbox.console();
    assert!(!console.contains("does not end"), "init waited: {console}");
    let said = running
        .psql("ann", "p w'\"%", "app", "SELECT n FROM t", ca)
        .await;
    assert_eq!(said, "7");
    let restart = conclude(client, &command("rs", 1, Operation::Restart)).await;
    assert_eq!(restart, CommandState::Done);
    let said = running
        .psql("ann", "p w'\"%", "app", "SELECT n FROM t", ca)
        .await;
    assert_eq!(said, "7");
    let init = status_field(running.init, "Name");
    assert_eq!(init, "coffer-guest", "init was replaced");
}

/// Another binary takes over without touching the engine; a damaged one and one that does not work
/// change nothing.
async fn replaced_agent(sandbox: &Sandbox, running: &Running, client: &Client) {
    let uid = sandbox.boot.agent_uid;
    let before = client
        .until("an agent that knows itself", |s| s.agent.sha256.is_some())
        .await;
    let own = std::fs::read(env!("CARGO_BIN_EXE_coffer-guest")).unwrap();
    assert_eq!(before.agent.sha256, Some(sha256(&own)), "not its own");

    let pid = running.children(uid)[0];
    let (_, refusal) = send(client, &own, &"0".repeat(64)).await.unwrap_err();
    assert_eq!(refusal.reason, "wrong-checksum");
    assert_eq!(running.children(uid), [pid], "a damaged one was run");

    // Bytes after an executable's end make another checksum and nothing else.
    let mut other = own;
    other.extend_from_slice(b"another build");
    let wanted = sha256(&other);
    send(client, &other, &wanted).await.unwrap();
    let after = client
        .until("the other agent", |s| {
            s.agent.sha256.as_ref() == Some(&wanted) && !s.agent.is_on_trial
        })
        .await;
    assert_ne!(after.agent_start, before.agent_start);
    assert_eq!(after.agent.refused, None);
    untouched(&before, &client.until_healthy().await);
    let pid = running.children(uid)[0];
    let executable = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let executable = executable.to_string_lossy();
    assert!(
        executable.starts_with("/memfd:coffer-guest"),
        "{executable}"
    );
    assert_eq!(status_field(pid, "Name"), "coffer-guest");
    rights(sandbox, running);

    let broken = std::fs::read("/bin/false").unwrap();
    send(client, &broken, &sha256(&broken)).await.unwrap();
    let back = client
        .until("the agent before", |s| {
            let refused = s.agent.refused.as_ref();
            refused.is_some_and(|one| one.sha256 == sha256(&broken)) && s.agent.sha256.is_some()
        })
        .await;
    assert_eq!(back.agent.sha256, Some(wanted), "it went back too far");
    assert!(!back.agent.is_on_trial);
    let message = back.agent.refused.unwrap().message;
    assert!(message.contains("exited with code 1, 3 times"), "{message}");
    untouched(&before, &client.until_healthy().await);
}

fn untouched(before: &Status, after: &Status) {
    assert_eq!(after.engine_process, before.engine_process, "not the same");
    assert_eq!(after.engine_starts, before.engine_starts);
}

/// Sends a binary in pieces and asks for it to be run.
async fn send(
    client: &Client,
    binary: &[u8],
    sha256: &str,
) -> Result<AgentUpload, (hyper::StatusCode, Refusal)> {
    let length = binary.len();
    let mut received = 0;
    for piece in binary.chunks(1 << 20) {
        let path = format!("/v1/agent/{sha256}?offset={received}&length={length}");
        let (status, bytes) = client.request("PUT", &path, piece.to_vec()).await;
        assert!(status.is_success(), "{status} {bytes:?}");
        let upload: AgentUpload = serde_json::from_slice(&bytes).unwrap();
        received += piece.len() as u64;
        assert_eq!(upload.received, received);
    }
    let path = format!("/v1/agent/{sha256}");
    let (status, bytes) = client.request("POST", &path, Vec::new()).await;
    match status.is_success() {
        true => Ok(serde_json::from_slice(&bytes).unwrap()),
        false => Err((status, serde_json::from_slice(&bytes).unwrap())),
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// LIMIT: agent and init together, proportional set size.
const MEMORY_KIB_MAX: u64 = 8 * 1024;
/// LIMIT: the same once the agent was replaced: it shares no pages with init any more.
const REPLACED_KIB_MAX: u64 = 12 * 1024;

fn memory(sandbox: &Sandbox, running: &Running, kib_max: u64) {
    let pss = |pid: u32| -> u64 {
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
        let line = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Pss:"))
            .unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    };
    let agent = running.children(sandbox.boot.agent_uid)[0];
    let (init_kib, agent_kib) = (pss(running.init), pss(agent));
    println!("memory: init {init_kib} KiB, agent {agent_kib} KiB");
    assert!(
        init_kib + agent_kib < kib_max,
        "init {init_kib}, agent {agent_kib} KiB"
    );
}

/// Started again, a sandbox serves without anyone dialling it.
async fn alone(sandbox: &Sandbox, link_ca: &Ca, ca: &Path) {
    let running = sandbox.start("init").await;
    process::until("the engine serves by itself", async || {
        running
            .psql("ann", "p w'\"%", "app", "SELECT n FROM t", ca)
            .await
            == "7"
    })
    .await;
    let client = running.client(pki::verifying(link_ca));
    let status = client.until_healthy().await;
    assert_eq!((status.spec_version, status.applied_version), (1, 1));
    assert!(running.stop().await, "{}", sandbox.console());
}
