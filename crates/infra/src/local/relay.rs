//! Publishing without root: one process for each published endpoint, which listens on a port of the
//! host's and passes bytes on to the engine.
//!
//! It binds its port in the host's network and then enters the instance's namespace, where it
//! connects; so it needs no right in the host's network, only in the namespace, which is Coffer's
//! own. Like a sandbox it belongs to nobody and outlives Coffer. Who may come is decided here, by
//! the client's address; the engine sees the instance's own. Beside each relay's spec lies which
//! process it is.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use coffer_core::access::Cidr;
use coffer_core::id::{EndpointId, ServerId};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, pipe2, setsid};
use serde::{Deserialize, Serialize};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::clock::wait_until;
use super::failure::{conflict, errno, io, rejected, transient};
use super::host::Host;
use super::ports::{self, HostPorts};
use super::record::{
    EndpointRecord, Launched, boot_id, read_json, remove_file, start_time, write_json_for_this_boot,
};
use super::sys::{Side, fork_single_threaded, redirect};
use super::{LocalConfig, limits, netns, process, publish, sandbox, server};
use crate::error::{ProviderError, Result};

const WHAT: &str = "relay";
/// Ports that are published where the configuration names none: other machines do not reach them.
const LOOPBACK: HostPorts = HostPorts {
    address: Ipv4Addr::LOCALHOST,
    first: 20_000,
    last: 29_999,
};
/// LIMIT: connections that one relay carries; more wait until one ends.
const CONNECTIONS_MAX: usize = 1024;
/// How long the engine may take to accept.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which is a shortage of descriptors or memory.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(100);

/// What a relay is told, as a JSON file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct RelaySpec {
    /// Where it listens on the host.
    listen: SocketAddr,
    /// The instance's namespace.
    netns: PathBuf,
    /// Number of that namespace: another one after a restart of the instance.
    inode: Option<u64>,
    /// Where it connects in there.
    to: SocketAddr,
    /// Ranges of clients who may come; nobody named means anyone.
    clients: Vec<String>,
    /// File that says which process it is.
    launched: PathBuf,
}

impl RelaySpec {
    /// A range that cannot be read lets nobody in.
    fn lets_in(&self, client: IpAddr) -> bool {
        let holds = |range: &String| {
            range
                .parse()
                .is_ok_and(|range: Cidr| range.contains(client))
        };
        self.clients.is_empty() || self.clients.iter().any(holds)
    }
}

/// The ports that are published without root.
pub(super) fn ports(config: &LocalConfig) -> Result<HostPorts> {
    if config.published_pool.is_some() {
        let why = "local.published_pool names addresses, which only root can give: run coffer as \
                   root, or name ports in local.published_ports";
        return Err(rejected("open local provider", why));
    }
    Ok(config.published_ports.unwrap_or(LOOPBACK))
}

/// Sees to it that a published endpoint's relay runs as it should; the server's lock is held.
pub(super) fn ensure(host: &Host, endpoint: &EndpointRecord, server: ServerId) -> Result<()> {
    let Some(listen) = endpoint.published else {
        return Ok(());
    };
    let Some(spec) = wanted(host, endpoint, listen, server)? else {
        return Ok(());
    };
    let path = file_of(host, endpoint.id);
    let known: Option<RelaySpec> = read_json(&path).ok().flatten();
    if known.as_ref() == Some(&spec) && Launched::living(&spec.launched).is_some() {
        return Ok(());
    }
    delete(host, endpoint.id)?;
    if let Some(words) = ports::taken(listen)? {
        return Err(conflict(WHAT, words));
    }
    write_json_for_this_boot(&path, &spec)?;
    let (program, words) = sandbox::relay(host, &path)?;
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let ended = process::run_to_end(WHAT, &program, &words, None, limits::LAUNCH)?;
    match ended.code {
        Some(0) => Ok(()),
        _ => Err(transient(WHAT, ended.stderr.trim())),
    }
}

/// Ends an endpoint's relay, with the connections that it carries.
pub(super) fn delete(host: &Host, id: EndpointId) -> Result<()> {
    let path = file_of(host, id);
    let launched = launched_of(&path);
    if let Some(running) = Launched::living(&launched) {
        // It may just have ended.
        kill(Pid::from_raw(running.pid), Signal::SIGKILL).ok();
        if !wait_until(limits::END, || !running.is_alive()) {
            return Err(transient(WHAT, format!("the relay of {id} does not end")));
        }
    }
    remove_file(&launched)?;
    remove_file(&path)
}

/// Starts the relays of servers that run and have none; those of a Coffer before live on.
pub(super) fn open(host: &Host) -> Result<()> {
    for record in host.servers.list()? {
        watch_or_tell(host, record.id);
    }
    Ok(())
}

/// As [`watch`]; what is wrong is for the log.
pub(super) fn watch_or_tell(host: &Host, server: ServerId) {
    match watch(host, server) {
        // Whoever works on it starts them.
        Ok(()) | Err(ProviderError::Busy { .. }) => {}
        Err(error) => tracing::warn!(%server, %error, "not published"),
    }
}

/// Starts what relays of a server are missing, if it runs. One that was killed is noticed so.
fn watch(host: &Host, server: ServerId) -> Result<()> {
    let is_missing = |e: &EndpointRecord| {
        let launched = launched_of(&file_of(host, e.id));
        e.published.is_some() && Launched::living(&launched).is_none()
    };
    let endpoints = publish::leading_to(host, server)?;
    if !endpoints.iter().any(is_missing) || server::launched(host, server).is_none() {
        return Ok(());
    }
    let _lock = host.lock("server", &server.to_string())?;
    // Only now: it may have been stopped meanwhile.
    match server::launched(host, server) {
        Some(_) => endpoints.iter().try_for_each(|e| ensure(host, e, server)),
        None => Ok(()),
    }
}

/// The endpoints that have a relay, or what is left of one.
pub(super) fn list(host: &Host) -> Vec<EndpointId> {
    let entries = fs::read_dir(dir_of(host)).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.path().file_stem()?.to_str()?.parse().ok())
        .collect()
}

fn wanted(
    host: &Host,
    endpoint: &EndpointRecord,
    listen: SocketAddr,
    server: ServerId,
) -> Result<Option<RelaySpec>> {
    let Some(record) = host.servers.find(&server.to_string())? else {
        return Ok(None);
    };
    let netns = host.names.server_path(server);
    Ok(Some(RelaySpec {
        listen,
        inode: netns::inode(&netns),
        netns,
        to: SocketAddr::new(record.network_address, endpoint.port),
        clients: endpoint.allowed_cidrs.clone(),
        launched: launched_of(&file_of(host, endpoint.id)),
    }))
}

fn dir_of(host: &Host) -> PathBuf {
    host.config.state_dir.join("relays")
}

fn file_of(host: &Host, id: EndpointId) -> PathBuf {
    dir_of(host).join(format!("{id}.json"))
}

fn launched_of(spec: &Path) -> PathBuf {
    spec.with_extension("launched")
}

/// The relay's program: `sandbox-relay SPEC`. Returns when the relay listens, in a process of its
/// own. The process must have one thread.
pub fn main(spec: &Path) -> ExitCode {
    match launch(spec) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn launch(path: &Path) -> Result<()> {
    let spec: RelaySpec = read_json(path)?
        .ok_or_else(|| rejected(WHAT, format!("{} is not there", path.display())))?;
    let listener = StdListener::bind(spec.listen).map_err(io(WHAT, spec.listen))?;
    let namespace = File::open(&spec.netns).map_err(io(WHAT, spec.netns.display()))?;
    setns(namespace, CloneFlags::CLONE_NEWNET).map_err(errno(WHAT, spec.netns.display()))?;
    let (go_out, go_in) = pipe2(OFlag::O_CLOEXEC).map_err(errno(WHAT, "pipe"))?;
    match fork_single_threaded().map_err(errno(WHAT, "fork"))? {
        Side::Child => {
            drop(go_in);
            relay(spec, listener, go_out)
        }
        Side::Parent(child) => {
            drop(go_out);
            let pid = child.as_raw();
            let launched = Launched {
                pid,
                start_time: start_time(pid).ok_or_else(|| transient(WHAT, "it ended at once"))?,
                boot_id: boot_id(),
            };
            // A child that hears nothing ends, so that none runs that nobody knows.
            write_json_for_this_boot(&spec.launched, &launched)?;
            File::from(go_in).write_all(b"g").map_err(io(WHAT, "start"))
        }
    }
}

/// The child's side; it ends when it is killed, or cannot begin.
fn relay(spec: RelaySpec, listener: StdListener, go: OwnedFd) -> Result<()> {
    let mut word = [0];
    File::from(go)
        .read_exact(&mut word)
        .map_err(io(WHAT, "start"))?;
    setsid().map_err(errno(WHAT, "session"))?;
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(io(WHAT, "/dev/null"))?;
    for standard in 0..3 {
        redirect(null.as_fd(), standard).map_err(errno(WHAT, "/dev/null"))?;
    }
    listener
        .set_nonblocking(true)
        .map_err(io(WHAT, spec.listen))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(io(WHAT, "runtime"))?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener).map_err(io(WHAT, spec.listen))?;
        serve(&spec, &listener).await
    })
}

async fn serve(spec: &RelaySpec, listener: &TcpListener) -> Result<()> {
    let mut streams = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = streams.join_next() => {}
            accepted = listener.accept(), if streams.len() < CONNECTIONS_MAX => match accepted {
                Ok((client, from)) if spec.lets_in(from.ip()) => {
                    streams.spawn(pass(client, spec.to));
                }
                // Closed at once: the client may not come.
                Ok(_) => {}
                Err(_) => sleep(SHORTAGE_PAUSE).await,
            },
        }
    }
}

/// Passes bytes between a client and the engine until both are done. Failures end the connection,
/// which is all that anybody could be told.
async fn pass(mut client: TcpStream, to: SocketAddr) {
    let Ok(Ok(mut engine)) = timeout(CONNECT_LIMIT, TcpStream::connect(to)).await else {
        return;
    };
    client.set_nodelay(true).ok();
    engine.set_nodelay(true).ok();
    copy_bidirectional(&mut client, &mut engine).await.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_clients_are_let_in() {
        let spec = |clients: &[&str]| RelaySpec {
            listen: "127.0.0.1:20000".parse().unwrap(),
            netns: PathBuf::new(),
            inode: None,
            to: "10.0.0.2:5432".parse().unwrap(),
            clients: clients.iter().map(|&c| c.to_owned()).collect(),
            launched: PathBuf::new(),
        };
        let local = IpAddr::from([127, 0, 0, 1]);
        assert!(spec(&[]).lets_in(local));
        assert!(spec(&["10.0.0.0/8", "127.0.0.1/32"]).lets_in(local));
        assert!(!spec(&["10.0.0.0/8"]).lets_in(local));
        assert!(!spec(&["127.0.0.1/33"]).lets_in(local));
        let text = serde_json::to_string(&spec(&["10.0.0.0/8"])).unwrap();
        assert_eq!(
            serde_json::from_str::<RelaySpec>(&text).unwrap(),
            spec(&["10.0.0.0/8"])
        );
    }
}
