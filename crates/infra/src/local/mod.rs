//! The local provider: instances as sandboxes on this host.
//!
//! One sandbox is a network namespace of its own, tied into a tenant network (a bridge in another
//! namespace), a volume (an XFS in a file, mounted inside the sandbox only), control groups with
//! the flavor's limits, and mount, pid, ipc and uts namespaces over a read-only engine root. It is
//! started by a launcher program and belongs to no process of ours: stopping Coffer leaves it.
//! What is done here blocks, so every call runs on the blocking pool and is bounded.

mod cgroup;
mod clock;
mod device;
pub mod doctor;
mod failure;
mod firewall;
mod held;
mod host;
mod jail;
pub mod launch;
mod limits;
mod loops;
pub mod memory;
mod names;
pub(crate) mod netns;
mod network;
mod owned;
mod owners;
mod pool;
mod ports;
mod process;
mod publish;
mod record;
pub mod relay;
mod sandbox;
mod seccomp;
mod server;
mod sys;
mod template;
mod volume;
pub mod world;

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use coffer_core::access::Cidr;
use coffer_core::id::{EndpointId, NetworkId, ServerId, VolumeId};
use coffer_core::units::{Incarnation, Turn};
use tokio::task::{JoinHandle, spawn_blocking};

pub use pool::VolumeMode;
pub use ports::HostPorts;
pub use record::Launched;

use crate::error::{ProviderError, Result};
use crate::link::GuestLink;
use crate::provider::{
    Abilities, EndpointRef, EndpointSpec, Fence, Held, NetworkSpec, Origin, Owned, Progress,
    Provider, ServerRef, ServerSpec, ServerState, VolumeRef, VolumeSpec,
};
use host::Host;

/// Port on which every guest's agent listens.
pub const AGENT_PORT: u16 = 7070;
/// When to ask again for a template that is being made; unit: milliseconds.
const TEMPLATE_POLL_MS: u64 = 200;
/// How often the making of a template is interrupted until it gives up.
const INTERRUPT_STEP: Duration = Duration::from_millis(20);

/// What the local provider needs to know.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Where records, locks, consoles and (in mode `cow`) the pool are kept.
    pub state_dir: PathBuf,
    /// 1 to 5 lower-case letters or digits that mark everything of this Coffer on the host.
    pub tag: String,
    /// Where volumes are kept in the modes `xfs` and `fast`; what it can do decides `auto`.
    pub pool_dir: PathBuf,
    /// How volumes are kept.
    pub volume_mode: VolumeMode,
    /// Size of the pool in mode `cow`, 0 for half of what is free; unit: GiB.
    pub cow_pool_gib: u32,
    /// Engine roots: `<checksum>/tree` and `<checksum>/manifest.json`.
    pub roots_dir: PathBuf,
    /// The `coffer-guest` program on the host.
    pub guest_binary: PathBuf,
    /// Program and first arguments of the launcher; the path of a spec is added. It calls
    /// [`launch::main`].
    pub launcher: Vec<String>,
    /// Range of published addresses; with `None` a free one is chosen once and kept.
    pub published_pool: Option<Cidr>,
    /// Ports of a host's address instead of addresses of their own, by translation.
    pub published_ports: Option<HostPorts>,
    /// First user id for sandboxes; each takes two, templates the first two.
    pub uid_base: u32,
    /// From where the tracker dials guests.
    pub tracker_link: TrackerLink,
}

/// From where the tracker dials guests. Both ways lead into every guest at any time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackerLink {
    /// From inside the instance's own namespace, where only its own host can go.
    Instance,
    /// From the tracker's own port in the tenant network, as on a cloud.
    Network,
}

/// Sandboxes on this host.
#[derive(Debug)]
pub struct LocalProvider {
    host: Arc<Host>,
    templates: Mutex<HashMap<String, JoinHandle<Result<bool>>>>,
}

impl LocalProvider {
    /// Opens the provider on its state directory; what runs already is found as it is.
    pub async fn open(config: LocalConfig) -> Result<Self> {
        let host = blocking(move || {
            let host = Host::open(config)?;
            host.servers.prune_tombstones();
            host.volumes.prune_tombstones();
            host.endpoints.prune_tombstones();
            volume::thaw_all(&host);
            template::sweep(&host)?;
            publish::open(&host)?;
            Ok(host)
        })
        .await?;
        Ok(Self {
            host: Arc::new(host),
            templates: Mutex::default(),
        })
    }

    /// The second way into a guest: from the tracker's address in the tenant network to the
    /// instance's own address there.
    pub fn tracker_link(&self, network: NetworkId, address: IpAddr) -> GuestLink {
        let path = self.host.names.network_path(network);
        GuestLink::TrackerPort {
            path: path.display().to_string(),
            address: SocketAddr::new(address, AGENT_PORT),
        }
    }

    /// Range of published addresses in use.
    pub fn published_pool(&self) -> Cidr {
        self.host.published_pool
    }

    /// How volumes are kept; never `Auto`.
    pub fn volume_mode(&self) -> VolumeMode {
        self.host.pool.mode()
    }

    /// What a server's guest printed, for its operator; empty if nothing.
    pub async fn console(&self, id: ServerId) -> Result<String> {
        let path = self.host.sandbox_dir(id).join("console.log");
        let text = blocking(move || Ok(std::fs::read(path).unwrap_or_default())).await?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    /// Ends the making of templates (it begins anew next time), and lets the host's route and a
    /// pool in a file go if `is_final`: for a Coffer that leaves the host, after its servers are
    /// gone.
    pub async fn close(&self, is_final: bool) -> Result<()> {
        let making: Vec<_> = self.making().drain().collect();
        for (root, job) in making {
            while !job.is_finished() {
                let name = root.clone();
                self.on_host(move |host| {
                    template::interrupt(host, &name);
                    Ok(())
                })
                .await?;
                tokio::time::sleep(INTERRUPT_STEP).await;
            }
            if let Ok(Err(error)) = job.await {
                tracing::warn!(%root, %error, "template not made");
            }
        }
        if !is_final {
            return Ok(());
        }
        self.on_host(|host| {
            publish::close(host);
            host.pool.close()?;
            match host.is_without_root {
                true => world::release(&host.config.state_dir),
                false => Ok(()),
            }
        })
        .await
    }

    fn making(&self) -> std::sync::MutexGuard<'_, HashMap<String, JoinHandle<Result<bool>>>> {
        // A panic while it was held leaves a map that is still whole.
        self.templates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn on_host<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Host) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let host = Arc::clone(&self.host);
        blocking(move || work(&host)).await
    }

    /// Sees to it that a root's template is there; `false` while it is being made.
    async fn ensure_template(&self, root: &str) -> Result<bool> {
        if template::file_of(&self.host, root).exists() {
            self.making().remove(root);
            return Ok(true);
        }
        let ended = {
            let mut making = self.making();
            match making.get(root) {
                Some(job) if !job.is_finished() => return Ok(false),
                Some(_) => making.remove(root),
                None => {
                    let (host, name) = (Arc::clone(&self.host), root.to_owned());
                    let job = spawn_blocking(move || template::make(&host, &name));
                    making.insert(root.to_owned(), job);
                    return Ok(false);
                }
            }
        };
        match ended {
            Some(job) => job.await.map_err(panicked)?,
            None => Ok(false),
        }
    }
}

#[async_trait]
impl Provider for LocalProvider {
    fn name(&self) -> &'static str {
        "local"
    }

    fn abilities(&self) -> Abilities {
        let has_reflink = self.host.pool.has_reflink();
        let mut not_enforced = self.host.groups.not_enforced();
        let io_missing = self.host.io_missing();
        let io = io_missing.as_ref();
        not_enforced.extend(io.map(|why| format!("I/O limits of volume types: {why}")));
        if self.host.pool.has_directories() {
            not_enforced.push(
                "volume sizes: there are no loop devices, so volumes are directories".to_owned(),
            );
        }
        not_enforced.extend(self.host.is_without_root.then(world::shared_user));
        if !self.host.has_bridge_rules {
            let why = "anti-spoofing in tenant networks: nft has no bridge family here";
            not_enforced.push(why.to_owned());
        }
        Abilities {
            online_volume_growth: true,
            hot_volume_attach: false,
            online_resize: true,
            snapshot: has_reflink,
            clone: has_reflink,
            fence: true,
            published_address: self.host.config.published_ports.is_none(),
            not_enforced,
            io_gap: self.host.io_gap(),
        }
    }

    fn is_mine(&self, id: ServerId, provider_ref: &str) -> bool {
        self.host.names.server_ns(id) == provider_ref
    }

    async fn ensure_network(&self, spec: &NetworkSpec) -> Result<Progress<()>> {
        let spec = spec.clone();
        let ended = self.on_host(move |host| network::ensure(host, &spec)).await;
        progress(ended)
    }

    async fn delete_network(&self, id: NetworkId) -> Result<Progress<()>> {
        let ended = self.on_host(move |host| network::delete(host, id)).await;
        progress(ended)
    }

    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<Progress<VolumeRef>> {
        if let Origin::Template { root } = &spec.origin
            && !self.ensure_template(root).await?
        {
            let reason = "the template of this datastore version is being made".to_owned();
            return Ok(Progress::Pending {
                reason,
                poll_after_ms: TEMPLATE_POLL_MS,
            });
        }
        let spec = spec.clone();
        let ended = self.on_host(move |host| volume::ensure(host, &spec)).await;
        progress(ended)
    }

    async fn snapshot_volume(
        &self,
        source: VolumeId,
        snapshot: &VolumeSpec,
    ) -> Result<Progress<VolumeRef>> {
        let spec = snapshot.clone();
        let made = self
            .on_host(move |host| volume::snapshot(host, source, &spec))
            .await;
        progress(made)
    }

    async fn delete_volume(&self, id: VolumeId, incarnation: Incarnation) -> Result<Progress<()>> {
        let ended = self
            .on_host(move |host| volume::delete(host, id, incarnation))
            .await;
        progress(ended)
    }

    async fn ensure_server(&self, spec: &ServerSpec) -> Result<Progress<ServerRef>> {
        let spec = spec.clone();
        let ended = self.on_host(move |host| server::ensure(host, &spec)).await;
        progress(ended)
    }

    async fn stop_server(
        &self,
        id: ServerId,
        at: (Incarnation, Turn),
        grace_ms: u64,
    ) -> Result<Progress<()>> {
        let ended = self.on_host(move |host| server::stop(host, id, at, grace_ms));
        match progress(ended.await)? {
            Progress::Ready(stopped) => Ok(stopped),
            Progress::Pending {
                reason,
                poll_after_ms,
            } => Ok(Progress::Pending {
                reason,
                poll_after_ms,
            }),
        }
    }

    async fn delete_server(&self, id: ServerId, incarnation: Incarnation) -> Result<Progress<()>> {
        let ended = self
            .on_host(move |host| server::delete(host, id, incarnation))
            .await;
        progress(ended)
    }

    async fn observe_server(&self, id: ServerId) -> Result<ServerState> {
        self.on_host(move |host| server::observe(host, id)).await
    }

    async fn fence(&self, server: &ServerRef) -> Result<Fence> {
        let server = server.clone();
        self.on_host(move |host| server::fence(host, &server)).await
    }

    async fn ensure_endpoint(&self, spec: &EndpointSpec) -> Result<Progress<EndpointRef>> {
        let spec = spec.clone();
        let ended = self.on_host(move |host| publish::ensure(host, &spec)).await;
        progress(ended)
    }

    async fn delete_endpoint(&self, id: EndpointId) -> Result<Progress<()>> {
        let ended = self.on_host(move |host| publish::delete(host, id)).await;
        progress(ended)
    }

    fn guest_link(&self, id: ServerId) -> GuestLink {
        // Without a record there is no server to reach: its own namespace is not there either.
        let record = self.host.servers.find(&id.to_string()).ok().flatten();
        if let (TrackerLink::Network, Some(record)) = (self.host.config.tracker_link, record) {
            return self.tracker_link(record.network_id, record.network_address);
        }
        let path = self.host.names.server_path(id);
        GuestLink::Netns {
            path: path.display().to_string(),
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), AGENT_PORT),
        }
    }

    async fn list_owned(&self) -> Result<Vec<Owned>> {
        self.on_host(owned::list).await
    }

    async fn list_held(&self) -> Result<Vec<Held>> {
        self.on_host(held::list).await
    }

    async fn was_deleted(&self, volume: VolumeId, incarnation: Incarnation) -> Result<bool> {
        self.on_host(move |host| held::was_deleted(host, volume, incarnation))
            .await
    }
}

/// What came of a call. One that an earlier call on the same object keeps waiting is pending, and
/// says so: that is no failed try.
fn progress<T>(ended: Result<T>) -> Result<Progress<T>> {
    match ended {
        Err(ProviderError::Busy { why, .. }) => Ok(Progress::Pending {
            reason: why,
            poll_after_ms: limits::BUSY_POLL_MS,
        }),
        ended => ended.map(Progress::Ready),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.map_err(panicked)?
}

fn panicked(error: tokio::task::JoinError) -> ProviderError {
    ProviderError::Bug {
        what: "local provider",
        why: error.to_string(),
    }
}
