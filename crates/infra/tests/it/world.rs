//! The world of a test: a provider on a directory of its own, a root, and guests to speak to.

use std::fs;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use coffer_core::id::{NetworkId, ServerId, VolumeId};
use coffer_core::server::{ServerPurpose, VolumeRole};
use coffer_core::units::{Incarnation, IoLimits, Turn, VolumeSize};
use coffer_infra::conformance::{self, Bench};
use coffer_infra::error::Result;
use coffer_infra::link::GuestLink;
use coffer_infra::local::{LocalConfig, LocalProvider, TrackerLink, VolumeMode};
use coffer_infra::provider::{
    EndpointSpec, Limits, NetworkSpec, Origin, Owned, Progress, Provider, ServerSpec, ServerState,
    VolumeSpec,
};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use uuid::Uuid;

use crate::Test;

/// A test under way.
pub(crate) type Step<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// The root that tests use.
pub(crate) const ROOT: &str = "testroot";
/// How long anything may take that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// What is run on a pool directory that is an XFS of its own, beside the two modes that every host
/// can have: what depends on how volumes are kept.
const ON_XFS: [&str; 9] = [
    "conformance",
    "volume_limit_and_growth",
    "overcommit_is_refused",
    "snapshot_under_writes",
    "clones_share_blocks",
    "volumes_have_large_sectors_and_direct_io",
    "clones_belong_to_their_sandbox",
    "clones_get_their_own_uuid",
    "io_limits",
];
/// What is run with volumes that are directories.
const ON_DIRECTORIES: [&str; 7] = [
    "conformance",
    "clones_belong_to_their_sandbox",
    "killed_guest_is_noticed",
    "broken_roots_are_explained",
    "remains_are_found_and_removed",
    "io_limits",
    BARE,
];
/// What is run in that mode only: on a host that has no other.
const BARE: &str = "bare_host";
/// Size of that XFS.
const XFS_BYTES: u64 = 12 << 30;

/// A provider and what belongs to it.
#[derive(Debug)]
pub(crate) struct World {
    /// Unmounted before the directory below it is removed.
    own_xfs: Option<OwnXfs>,
    dir: TempDir,
    pub(crate) config: LocalConfig,
    /// The link form of the next provider that is opened.
    tracker_link: RwLock<TrackerLink>,
    provider: RwLock<Arc<LocalProvider>>,
    ids: AtomicU64,
}

/// An XFS with reflink in a file, mounted where the pool is to be.
#[derive(Debug)]
struct OwnXfs(PathBuf);

impl OwnXfs {
    fn mount(dir: &Path) -> Self {
        let (image, at) = (dir.join("own.xfs"), dir.join("pool"));
        let file = fs::File::create(&image).expect("a file is made");
        file.set_len(XFS_BYTES).expect("it is sparse");
        fs::create_dir(&at).expect("a directory is made");
        let image = image.display().to_string();
        let words = ["-q", "-s", "size=4096", "-m", "reflink=1", &image];
        let made = Command::new("mkfs.xfs").args(words).status();
        assert!(made.expect("mkfs.xfs runs").success());
        let mounted = Command::new("mount")
            .args(["-o", "loop", &image])
            .arg(&at)
            .status();
        assert!(mounted.expect("mount runs").success());
        Self(at)
    }
}

impl Drop for OwnXfs {
    fn drop(&mut self) {
        let done = Command::new("umount").arg(&self.0).status();
        if !done.is_ok_and(|status| status.success()) {
            eprintln!("{} stays mounted", self.0.display());
        }
    }
}

/// Runs the tests that the words select: in both modes that every host can have, and those of
/// [`ON_XFS`] and [`ON_DIRECTORIES`] in the others.
pub(crate) fn run(tests: &[Test], words: &[&str]) -> ExitCode {
    let is_listing = words.contains(&"--list");
    let filters: Vec<&&str> = words.iter().filter(|w| !w.starts_with('-')).collect();
    let chosen: Vec<&Test> = tests
        .iter()
        .filter(|(name, _)| filters.is_empty() || filters.iter().any(|f| name.contains(**f)))
        .collect();
    if is_listing {
        chosen.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    assert!(
        nix::unistd::geteuid().is_root(),
        "these tests make sandboxes: run them as root"
    );
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    let mut failed = Vec::new();
    let mut count = 0;
    for mode in [
        VolumeMode::Cow,
        VolumeMode::Fast,
        VolumeMode::Directory,
        VolumeMode::Xfs,
    ] {
        let is_run = |name: &str| match mode {
            VolumeMode::Xfs => ON_XFS.contains(&name),
            VolumeMode::Directory => ON_DIRECTORIES.contains(&name),
            VolumeMode::Auto | VolumeMode::Cow | VolumeMode::Fast => name != BARE,
        };
        let tests: Vec<_> = chosen.iter().filter(|(name, _)| is_run(name)).collect();
        if tests.is_empty() {
            continue;
        }
        count += tests.len();
        let world = runtime.block_on(World::new(mode));
        for (name, test) in tests {
            let start = Instant::now();
            let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(test(&world))));
            let cleaned = catch_unwind(AssertUnwindSafe(|| runtime.block_on(world.clean())));
            let is_good = ended.is_ok() && cleaned.is_ok();
            let word = if is_good { "ok" } else { "FAILED" };
            println!(
                "test {mode:?} {name} ... {word} ({} ms)",
                start.elapsed().as_millis()
            );
            if !is_good {
                failed.push(format!("{mode:?} {name}"));
            }
        }
        runtime.block_on(world.end());
    }
    println!("{count} tests, failed: {failed:?}");
    let word = if failed.is_empty() { "ok" } else { "FAILED" };
    // As the usual runner ends, so that these tests are counted with the others.
    println!(
        "test result: {word}. {} passed; {} failed; 0 ignored; 0 measured",
        count - failed.len(),
        failed.len()
    );
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

impl World {
    async fn new(mode: VolumeMode) -> Self {
        let dir = TempDir::with_prefix("coffer-infra-").expect("a directory is made");
        let own = std::env::current_exe().expect("this program has a path");
        make_root(&dir.path().join("roots").join(ROOT), &own, "1");
        let tag = format!("t{:04x}", std::process::id() & 0xffff);
        let own_xfs = (mode == VolumeMode::Xfs).then(|| OwnXfs::mount(dir.path()));
        // On such a directory nobody has to name the mode.
        let asked = own_xfs.as_ref().map_or(mode, |_| VolumeMode::Auto);
        let config = config(dir.path(), &tag, asked);
        let provider = LocalProvider::open(config.clone())
            .await
            .expect("the provider opens");
        assert_eq!(provider.volume_mode(), mode);
        let provider = RwLock::new(Arc::new(provider));
        Self {
            own_xfs,
            dir,
            config,
            provider,
            tracker_link: RwLock::new(TrackerLink::Instance),
            ids: AtomicU64::new(1),
        }
    }

    /// A world on a directory that another process made, with ids that depend on the seed only.
    pub(crate) async fn join(dir: &str, tag: &str, mode: VolumeMode, seed: u64) -> Self {
        let config = config(Path::new(dir), tag, mode);
        let opened = LocalProvider::open(config.clone())
            .await
            .expect("the provider opens");
        let provider = RwLock::new(Arc::new(opened));
        // A directory of its own that stays empty: the shared one is not ours to remove.
        let dir = TempDir::new_in(dir).expect("a directory is made");
        Self {
            own_xfs: None,
            dir,
            config,
            provider,
            tracker_link: RwLock::new(TrackerLink::Instance),
            ids: AtomicU64::new(seed),
        }
    }

    /// Goes on with another provider.
    pub(crate) fn put_provider(&self, provider: LocalProvider) {
        *self.provider.write().unwrap() = Arc::new(provider);
    }

    pub(crate) fn local(&self) -> Arc<LocalProvider> {
        Arc::clone(&self.provider.read().unwrap())
    }

    /// The next ids begin here.
    pub(crate) fn count_from(&self, seed: u64) {
        self.ids.store(seed, Ordering::Relaxed);
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// File of a volume in the pool.
    pub(crate) fn volume_file(&self, id: VolumeId) -> PathBuf {
        let pool = match self.local().volume_mode() {
            VolumeMode::Cow => self.config.state_dir.join("pool"),
            VolumeMode::Auto | VolumeMode::Xfs | VolumeMode::Fast | VolumeMode::Directory => {
                self.config.pool_dir.clone()
            }
        };
        let end = match self.local().volume_mode() {
            VolumeMode::Directory => "dir",
            _ => "img",
        };
        pool.join("volumes").join(format!("{id}.{end}"))
    }

    /// Whether volumes share blocks here.
    pub(crate) fn has_snapshots(&self) -> bool {
        self.local().abilities().snapshot
    }

    pub(crate) async fn conformance(&self) {
        conformance::run(self)
            .await
            .expect("the local provider conforms");
    }

    /// The same suite, with guests dialled from the tracker's port in their network.
    pub(crate) async fn conformance_from_the_network(&self) {
        let choose = async |link| {
            *self.tracker_link.write().unwrap() = link;
            self.reopen().await;
        };
        choose(TrackerLink::Network).await;
        self.conformance().await;
        let net = self.network("10.9.7.0/24");
        self.ensure_network(&net).await;
        let member = self.member(&net, 11).await;
        let seen = self.ask(member.id, "who").await;
        assert_eq!(seen, format!("{} {}", member.id, net.tracker_address));
        choose(TrackerLink::Instance).await;
        let seen = self.ask(member.id, "who").await;
        assert_eq!(seen, format!("{} 127.0.0.1", member.id), "the same guest");
    }

    pub(crate) fn network(&self, subnet: &str) -> NetworkSpec {
        let subnet: coffer_core::access::Cidr = subnet.parse().unwrap();
        NetworkSpec {
            id: NetworkId::from_uuid(self.next_id()),
            tenant_id: "tenant".parse().unwrap(),
            subnet,
            tracker_address: subnet.nth(1).unwrap(),
        }
    }

    pub(crate) fn volume(&self, gib: i64) -> VolumeSpec {
        VolumeSpec {
            id: VolumeId::from_uuid(self.next_id()),
            incarnation: Incarnation(1),
            tenant_id: "tenant".parse().unwrap(),
            role: VolumeRole::Data,
            size: VolumeSize::gib(gib).unwrap(),
            volume_type: None,
            origin: Origin::Template {
                root: ROOT.to_owned(),
            },
        }
    }

    pub(crate) fn server(&self, net: &NetworkSpec, volume: &VolumeSpec, n: u32) -> ServerSpec {
        let id = ServerId::from_uuid(self.next_id());
        let address = net.subnet.nth(n).unwrap();
        ServerSpec {
            id,
            incarnation: Incarnation(1),
            turn: Turn(1),
            tenant_id: "tenant".parse().unwrap(),
            instance_id: None,
            purpose: ServerPurpose::Instance,
            roots: vec![ROOT.to_owned()],
            volume_id: volume.id,
            volume_incarnation: volume.incarnation,
            network_id: net.id,
            network_address: address,
            limits: Limits {
                memory_mib: 256,
                vcpus: 1,
                io: IoLimits::NONE,
            },
            zone: None,
            boot: self.boot(id, address),
            card: String::new(),
        }
    }

    /// A network's member with a volume of one GiB, running.
    pub(crate) async fn member(&self, net: &NetworkSpec, n: u32) -> ServerSpec {
        let volume = self.volume(1);
        self.ensure_volume(&volume).await;
        let server = self.server(net, &volume, n);
        self.ensure_server(&server).await;
        server
    }

    pub(crate) fn endpoint(&self, server: &ServerSpec, is_published: bool) -> EndpointSpec {
        EndpointSpec {
            id: coffer_core::id::EndpointId::from_uuid(self.next_id()),
            turn: Turn(1),
            network_id: server.network_id,
            network_address: server.network_address,
            port: 5432,
            is_published,
            published: None,
            allowed_cidrs: Vec::new(),
            target: Some(server.id),
        }
    }

    pub(crate) async fn ensure_network(&self, spec: &NetworkSpec) {
        let provider = self.local();
        ready(|| provider.ensure_network(spec))
            .await
            .expect("the network is made");
    }

    pub(crate) async fn ensure_volume(&self, spec: &VolumeSpec) {
        let provider = self.local();
        ready(|| provider.ensure_volume(spec))
            .await
            .expect("the volume is made");
    }

    pub(crate) async fn ensure_server(&self, spec: &ServerSpec) {
        let provider = self.local();
        ready(|| provider.ensure_server(spec))
            .await
            .expect("the server is made");
    }

    pub(crate) async fn stop(&self, id: ServerId, grace_ms: u64) {
        let provider = self.local();
        let at = (Incarnation(1), Turn(1));
        ready(|| provider.stop_server(id, at, grace_ms))
            .await
            .expect("it stops");
    }

    pub(crate) async fn is_running(&self, id: ServerId) -> bool {
        let state = self
            .local()
            .observe_server(id)
            .await
            .expect("it can be observed");
        matches!(state, ServerState::Running(_))
    }

    /// Says a line to a guest through its own namespace.
    pub(crate) async fn ask(&self, id: ServerId, line: &str) -> String {
        say(&self.local().guest_link(id), line)
            .await
            .expect("the guest answers")
    }

    /// Removes everything that the provider owns, and checks that the host holds nothing more.
    pub(crate) async fn clean(&self) {
        let provider = self.local();
        let all = provider
            .list_owned()
            .await
            .expect("what is owned can be listed");
        for owned in &all {
            if let Owned::Server(id, incarnation) = *owned {
                ready(|| provider.delete_server(id, incarnation))
                    .await
                    .expect("it goes");
            }
        }
        for owned in &all {
            match *owned {
                Owned::Server(..) => {}
                Owned::Endpoint(id) => {
                    ready(|| provider.delete_endpoint(id))
                        .await
                        .expect("it goes");
                }
                Owned::Volume(id, incarnation) => {
                    ready(|| provider.delete_volume(id, incarnation))
                        .await
                        .expect("it goes");
                }
                Owned::Network(id) => {
                    ready(|| provider.delete_network(id))
                        .await
                        .expect("it goes");
                }
            }
        }
        assert_eq!(provider.list_owned().await.expect("it can be listed"), []);
        assert_eq!(self.traces(), Vec::<String>::new());
    }

    /// What on the host carries our tag or lies in our directories, as the host's tools see it.
    pub(crate) fn traces(&self) -> Vec<String> {
        let mark = format!("coffer-{}-", self.config.tag);
        let link = format!("c{}p", self.config.tag);
        let mut found = Vec::new();
        let mut look = |args: &[&str], is_ours: &dyn Fn(&str) -> bool| {
            let shown = Command::new(args[0])
                .args(&args[1..])
                .output()
                .expect("the tool runs");
            let text = String::from_utf8_lossy(&shown.stdout).into_owned();
            found.extend(text.lines().filter(|l| is_ours(l)).map(str::to_owned));
        };
        // A sandbox sees its pool elsewhere, so a volume is known by its id.
        let in_dir = |l: &str| l.contains("/volumes/01900000-0000-7000-8000");
        look(&["ip", "netns", "list"], &|l| l.contains(&mark));
        look(&["ip", "-o", "link"], &|l| l.contains(&link));
        look(&["ip", "route"], &|l| l.contains(&link));
        let table = format!(" coffer_{}", self.config.tag);
        look(&["nft", "list", "tables"], &|l| {
            l.ends_with(&table) && self.local().abilities().published_address
        });
        look(&["losetup", "--list", "--noheadings"], &in_dir);
        look(&["cat", "/proc/self/mounts"], &in_dir);
        let group = format!("/coffer-{}.", self.config.tag);
        look(
            &["find", "/sys/fs/cgroup", "-mindepth", "1", "-type", "d"],
            &|l| l.contains(&group),
        );
        found
    }

    async fn end(mut self) {
        let provider = self.local();
        provider.close(true).await.expect("the pool is let go");
        drop(self.own_xfs.take());
        let routes = Command::new("ip")
            .arg("route")
            .output()
            .expect("ip runs")
            .stdout;
        let pool = provider.published_pool().to_string();
        assert!(
            !String::from_utf8_lossy(&routes).contains(&pool),
            "{pool} is still routed"
        );
        let mounts = fs::read_to_string("/proc/self/mounts").expect("mounts are listed");
        assert!(
            !mounts.contains(&self.dir.path().display().to_string()),
            "{mounts}"
        );
    }

    /// Times of the provider's main calls, printed.
    pub(crate) async fn figures(&self) {
        let net = self.network("10.9.0.0/24");
        let mut took: Vec<(&str, Vec<u128>)> = Vec::new();
        let mut note = |name: &'static str, start: Instant| {
            let ms = start.elapsed().as_millis();
            match took.iter_mut().find(|(n, _)| *n == name) {
                Some((_, all)) => all.push(ms),
                None => took.push((name, vec![ms])),
            }
        };
        let start = Instant::now();
        self.ensure_network(&net).await;
        note("ensure_network", start);
        self.ensure_volume(&self.volume(1)).await;
        let provider = self.local();
        for n in 0..5 {
            let volume = self.volume(2);
            let start = Instant::now();
            self.ensure_volume(&volume).await;
            note("ensure_volume from template", start);
            let server = self.server(&net, &volume, 10 + n);
            let start = Instant::now();
            self.ensure_server(&server).await;
            note("ensure_server to pid", start);
            let start = Instant::now();
            self.ask(server.id, "who").await;
            note("first answer of the guest", start);
            let endpoint = self.endpoint(&server, true);
            let start = Instant::now();
            ready(|| provider.ensure_endpoint(&endpoint)).await.unwrap();
            note("ensure_endpoint published", start);
            let start = Instant::now();
            self.stop(server.id, 5_000).await;
            note("stop_server", start);
            self.ensure_server(&server).await;
            let start = Instant::now();
            ready(|| provider.delete_endpoint(endpoint.id))
                .await
                .unwrap();
            ready(|| provider.delete_server(server.id, server.incarnation))
                .await
                .unwrap();
            ready(|| provider.delete_volume(volume.id, volume.incarnation))
                .await
                .unwrap();
            note("delete all of it", start);
        }
        for (name, all) in took {
            println!("    {name}: {all:?} ms");
        }
    }
}

#[async_trait]
impl Bench for World {
    fn provider(&self) -> Arc<dyn Provider> {
        self.local()
    }

    async fn reopen(&self) {
        self.local().close(false).await.expect("jobs end");
        let mut config = self.config.clone();
        config.tracker_link = *self.tracker_link.read().unwrap();
        let opened = LocalProvider::open(config).await;
        self.put_provider(opened.expect("it opens again"));
    }

    fn next_id(&self) -> Uuid {
        // The process id keeps runs apart that share a host.
        let n = self.ids.fetch_add(1, Ordering::Relaxed);
        Uuid::from_u64_pair(0x0190_0000_0000_7000, 0x8000_0000_0000_0000 | n << 4 | 1)
    }

    fn root(&self) -> String {
        ROOT.to_owned()
    }

    fn boot(&self, server: ServerId, address: IpAddr) -> String {
        let bind = ["127.0.0.1:7070".to_owned(), format!("{address}:7070")];
        serde_json::json!({ "server_id": server.to_string(), "bind": bind }).to_string()
    }

    async fn pause(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    async fn speak(&self, server: ServerId, line: &str) -> Option<String> {
        Some(self.ask(server, line).await)
    }
}

/// A provider's configuration below `dir`; this program is its launcher and its guest.
pub(crate) fn config(dir: &Path, tag: &str, volume_mode: VolumeMode) -> LocalConfig {
    let own = std::env::current_exe().expect("this program has a path");
    LocalConfig {
        state_dir: dir.join("state"),
        tag: tag.to_owned(),
        pool_dir: dir.join("pool"),
        volume_mode,
        cow_pool_gib: 12,
        roots_dir: dir.join("roots"),
        guest_binary: own.clone(),
        launcher: vec![own.display().to_string(), "sandbox-launch".to_owned()],
        published_pool: None,
        published_ports: None,
        uid_base: 700_000,
        tracker_link: TrackerLink::Instance,
    }
}

/// Asks until the answer is ready.
pub(crate) async fn ready<T, F: Future<Output = Result<Progress<T>>>>(
    ask: impl Fn() -> F,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match ask().await? {
            Progress::Ready(answer) => return Ok(answer),
            Progress::Pending {
                poll_after_ms,
                reason,
            } => {
                assert!(start.elapsed() < 4 * SOON, "still pending: {reason}");
                tokio::time::sleep(Duration::from_millis(poll_after_ms)).await;
            }
        }
    }
}

/// Looks until something holds.
pub(crate) async fn eventually(what: &str, holds: impl AsyncFn() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < SOON, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Says one line over a link; a guest that is still starting is tried again.
pub(crate) async fn say(link: &GuestLink, line: &str) -> std::result::Result<String, String> {
    let start = Instant::now();
    let stream = loop {
        match link.dial().await {
            Ok(stream) => break stream,
            Err(e) if start.elapsed() > SOON => return Err(e.to_string()),
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    };
    let mut stream = stream;
    converse(&mut stream, line).await
}

/// Says one line to an address that the host itself reaches, within a bound.
pub(crate) async fn say_to(address: SocketAddr, line: &str) -> std::result::Result<String, String> {
    let dial = tokio::net::TcpStream::connect(address);
    let stream = tokio::time::timeout(Duration::from_secs(2), dial).await;
    let stream = stream
        .map_err(|_| "no answer".to_owned())?
        .map_err(|e| e.to_string())?;
    let mut stream = stream;
    converse(&mut stream, line).await
}

/// Says one line over a connection that stays open.
pub(crate) async fn converse(
    stream: &mut tokio::net::TcpStream,
    line: &str,
) -> std::result::Result<String, String> {
    stream
        .write_all(format!("{line}\n").as_bytes())
        .await
        .map_err(|e| e.to_string())?;
    let mut answer = String::new();
    let mut reader = BufReader::new(stream);
    let read = tokio::time::timeout(4 * SOON, reader.read_line(&mut answer)).await;
    let count = read
        .map_err(|_| "no answer".to_owned())?
        .map_err(|e| e.to_string())?;
    if count == 0 {
        return Err("the guest closed the connection".to_owned());
    }
    Ok(answer.trim_end().to_owned())
}

/// A listener in a namespace of this host.
pub(crate) fn listen_in(namespace: &str, at: SocketAddr) -> std::net::TcpListener {
    in_namespace(namespace, move || std::net::TcpListener::bind(at).unwrap())
}

/// As [`listen_in`], for datagrams; reading waits for a moment only.
pub(crate) fn hear_in(namespace: &str, at: SocketAddr) -> std::net::UdpSocket {
    in_namespace(namespace, move || {
        let socket = std::net::UdpSocket::bind(at).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(300)))
            .unwrap();
        socket
    })
}

/// Connects from an address that a namespace has, within a bound.
pub(crate) fn dial_from(
    namespace: &str,
    from: IpAddr,
    to: SocketAddr,
) -> std::result::Result<(), String> {
    in_namespace(namespace, move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(SocketAddr::new(from, 0)).unwrap();
            let dial = tokio::time::timeout(Duration::from_millis(700), socket.connect(to)).await;
            let answer = dial.map_err(|_| "no answer".to_owned())?;
            answer.map(drop).map_err(|e| e.to_string())
        })
    })
}

fn in_namespace<T: Send + 'static>(
    namespace: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let path = format!("/run/netns/{namespace}");
    let enter = move || {
        let file = fs::File::open(path).unwrap();
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        work()
    };
    std::thread::spawn(enter).join().unwrap()
}

/// A root with just what this program needs to run in it.
pub(crate) fn make_root(dir: &Path, program: &Path, version: &str) {
    let tree = dir.join("tree");
    for sub in [
        "usr/lib/coffer",
        "usr/lib64",
        "usr/bin",
        "etc",
        "var",
        "opt",
    ] {
        fs::create_dir_all(tree.join(sub)).unwrap();
    }
    for name in ["passwd", "group", "hosts", "resolv.conf", "machine-id"] {
        fs::write(tree.join("etc").join(name), "").unwrap();
    }
    for (name, target) in [
        ("lib", "usr/lib"),
        ("lib64", "usr/lib64"),
        ("bin", "usr/bin"),
    ] {
        std::os::unix::fs::symlink(target, tree.join(name)).unwrap();
    }
    let shown = Command::new("ldd").arg(program).output().expect("ldd runs");
    for word in String::from_utf8_lossy(&shown.stdout).split_whitespace() {
        let library = PathBuf::from(word);
        if library.is_absolute() && library.is_file() {
            let target = if word.contains("ld-linux") {
                "usr/lib64"
            } else {
                "usr/lib"
            };
            fs::copy(
                &library,
                tree.join(target).join(library.file_name().unwrap()),
            )
            .unwrap();
        }
    }
    let manifest = serde_json::json!({"recipe": {"engine": "test-engine", "version": version}});
    fs::write(dir.join("manifest.json"), manifest.to_string()).unwrap();
}
