//! The provider: compute, volumes, networks and addresses behind one object-safe trait.
//!
//! Every call is keyed by our id and incarnation and may be repeated: `ensure_*` creates what is
//! missing and answers `Ready` when it is there; `delete_*` succeeds when it is absent. A call for
//! an incarnation older than one that was deleted answers `Conflict`, and so does what is asked of
//! a server or endpoint under an older turn than was asked before: its worker lost its task to
//! another, and stopped servers stay stopped, closed endpoints closed. Calls for one object are
//! done in the order in which they come: what a call that nobody waits for any more still does, it
//! has done before the next one for that object begins. Nothing here blocks for long: work that
//! takes time answers `Pending` and is asked again. Only the task manager (steps and reconciler)
//! and the tracker call a provider; the API never does.

use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use coffer_core::access::Cidr;
use coffer_core::id::{EndpointId, InstanceId, NetworkId, ServerId, TenantId, VolumeId};
use coffer_core::server::{ServerPurpose, VolumeRole};
use coffer_core::units::{Incarnation, IoLimits, Turn, VolumeSize};

use crate::error::Result;
use crate::link::GuestLink;

/// Answer of an `ensure_*` or `delete_*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress<T> {
    /// It is as asked.
    Ready(T),
    /// It is being done; ask again.
    Pending {
        /// What is being waited for, in words.
        reason: String,
        /// When to ask again; unit: milliseconds.
        poll_after_ms: u64,
    },
}

/// What a provider can do; data, so that the API can say so before anything is tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Abilities {
    /// Volumes grow while the server runs.
    pub online_volume_growth: bool,
    /// A volume can be attached to a running server.
    pub hot_volume_attach: bool,
    /// Memory and CPU change while the server runs.
    pub online_resize: bool,
    /// Instant snapshot of a volume.
    pub snapshot: bool,
    /// Instant clone of a snapshot or template.
    pub clone: bool,
    /// `fence` can confirm.
    pub fence: bool,
    /// Published addresses of their own.
    pub published_address: bool,
    /// What is asked for but not enforced here, each with the reason.
    pub not_enforced: Vec<String>,
    /// What limits on I/O leave out here although they are enforced, with the reason; it matters to
    /// servers that have some.
    pub io_gap: Option<String>,
}

/// A tenant network to ensure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSpec {
    /// Our id.
    pub id: NetworkId,
    /// Project that owns it.
    pub tenant_id: TenantId,
    /// Address range.
    pub subnet: Cidr,
    /// The tracker's own address in it.
    pub tracker_address: IpAddr,
}

/// What a volume begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// An empty file system.
    Empty,
    /// A clone of the initialised data directory made from this engine root.
    Template {
        /// Checksum of the root.
        root: String,
    },
    /// A clone of a snapshot.
    Snapshot(VolumeId),
    /// What it held before: it was made once, and is never made anew. A provider that has lost it
    /// answers `Rejected` with what to restore, because an empty volume in the place of a
    /// tenant's data would look well.
    Existing,
}

/// A volume to ensure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeSpec {
    /// Our id.
    pub id: VolumeId,
    /// Which rebuild.
    pub incarnation: Incarnation,
    /// Project it is accounted to.
    pub tenant_id: TenantId,
    /// What it holds.
    pub role: VolumeRole,
    /// Its size, a hard limit.
    pub size: VolumeSize,
    /// Volume type asked for.
    pub volume_type: Option<String>,
    /// What it begins with.
    pub origin: Origin,
}

/// A volume as the provider has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VolumeRef {
    /// The provider's own id for it.
    pub provider_ref: String,
}

/// Limits of a server, from the flavor and the volume type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Memory; unit: MiB.
    pub memory_mib: u32,
    /// CPUs.
    pub vcpus: u32,
    /// How fast its data volume may be read and written.
    pub io: IoLimits,
}

/// A server to ensure: created if absent, started if stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// Our id.
    pub id: ServerId,
    /// Which rebuild.
    pub incarnation: Incarnation,
    /// Under which task of its instance this is asked.
    pub turn: Turn,
    /// Project it is accounted to.
    pub tenant_id: TenantId,
    /// Instance it runs, if any.
    pub instance_id: Option<InstanceId>,
    /// Why it exists.
    pub purpose: ServerPurpose,
    /// Read-only roots, the engine's own first.
    pub roots: Vec<String>,
    /// Data volume.
    pub volume_id: VolumeId,
    /// Which rebuild of the volume.
    pub volume_incarnation: Incarnation,
    /// Network it is a member of.
    pub network_id: NetworkId,
    /// Its address there.
    pub network_address: IpAddr,
    /// Limits from the flavor and the volume type; of a server that runs they change at once.
    pub limits: Limits,
    /// Zone asked for.
    pub zone: Option<String>,
    /// What the guest is told at boot, as JSON text (`coffer_wire::guest::v1::Boot`); no secret.
    pub boot: String,
    /// What a store that lost the server would have to be told of it; kept as it is, no secret.
    pub card: String,
}

/// A server as the provider has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRef {
    /// Our id.
    pub id: ServerId,
    /// Which rebuild.
    pub incarnation: Incarnation,
    /// The provider's own id for it.
    pub provider_ref: String,
    /// Host it runs on.
    pub host: String,
}

/// What a provider sees of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerState {
    /// Its first process runs.
    Running(ServerRef),
    /// It exists and does not run.
    Stopped,
    /// The provider has nothing with this id.
    Absent,
}

/// Whether a server is known to be unable to do anything more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// Confirmed: stopped, and its addresses are taken away.
    Fenced,
    /// Not confirmed; nothing may be promoted.
    Unknown,
}

/// An endpoint to ensure: address in the tenant network, and published if asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Our id.
    pub id: EndpointId,
    /// Under which task of its instance this is asked.
    pub turn: Turn,
    /// Network it is on.
    pub network_id: NetworkId,
    /// Its address there.
    pub network_address: IpAddr,
    /// The engine's port.
    pub port: u16,
    /// Whether it is published.
    pub is_published: bool,
    /// Published address and port it had before; kept if it can be.
    pub published: Option<SocketAddr>,
    /// Who may reach the published address; empty means anyone.
    pub allowed_cidrs: Vec<Cidr>,
    /// Server it leads to; with `None` it leads nowhere.
    pub target: Option<ServerId>,
}

/// An endpoint as the provider has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointRef {
    /// Published address and port, if published.
    pub published: Option<SocketAddr>,
}

/// Something a provider holds under Coffer's tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owned {
    /// A network.
    Network(NetworkId),
    /// A volume.
    Volume(VolumeId, Incarnation),
    /// A server.
    Server(ServerId, Incarnation),
    /// An endpoint.
    Endpoint(EndpointId),
}

/// A server as its provider remembers it, for a store that may have lost it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Our id.
    pub id: ServerId,
    /// Which rebuild.
    pub incarnation: Incarnation,
    /// Newest turn under which anything was asked of it or of its endpoints.
    pub turn: Turn,
    /// Whether its first process runs.
    pub is_running: bool,
    /// Its card, as the newest `ensure_server` gave it; empty if there was none.
    pub card: String,
    /// Limits it has now.
    pub limits: Limits,
    /// Its data volume.
    pub volume: HeldVolume,
    /// What leads to it.
    pub endpoints: Vec<HeldEndpoint>,
}

/// The volume of a server that is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldVolume {
    /// Our id.
    pub id: VolumeId,
    /// Which rebuild, and its size; `None` when the volume is not there.
    pub found: Option<(Incarnation, VolumeSize)>,
}

/// An endpoint that leads to a server that is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldEndpoint {
    /// Our id.
    pub id: EndpointId,
    /// Published address and port.
    pub published: Option<SocketAddr>,
    /// Who may reach the published address; empty means anyone.
    pub allowed_cidrs: Vec<Cidr>,
}

/// Infrastructure that runs instances.
#[async_trait]
pub trait Provider: Send + Sync + Debug {
    /// Its name, as rows carry it (`local`, `fake`).
    fn name(&self) -> &'static str;

    /// What it can do.
    fn abilities(&self) -> Abilities;

    /// Whether a server with this id and `provider_ref` is one that this provider made or can
    /// see. Several may share a store, each on a host or state directory of its own: what another
    /// runs is not here, and is not lost for that.
    fn is_mine(&self, id: ServerId, provider_ref: &str) -> bool;

    /// Makes the network if it is not there.
    async fn ensure_network(&self, spec: &NetworkSpec) -> Result<Progress<()>>;

    /// Removes the network; `Conflict` while servers are members of it.
    async fn delete_network(&self, id: NetworkId) -> Result<Progress<()>>;

    /// Makes the volume if it is not there, unless its origin says that it must be; grows it to
    /// `spec.size` if it is smaller.
    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<Progress<VolumeRef>>;

    /// Makes an instant, crash-consistent snapshot of `source` as a volume named `snapshot`.
    async fn snapshot_volume(
        &self,
        source: VolumeId,
        snapshot: &VolumeSpec,
    ) -> Result<Progress<VolumeRef>>;

    /// Removes the volume of this incarnation or an older one, and remembers that it did.
    async fn delete_volume(&self, id: VolumeId, incarnation: Incarnation) -> Result<Progress<()>>;

    /// Makes the server if it is not there, and starts it if it does not run.
    async fn ensure_server(&self, spec: &ServerSpec) -> Result<Progress<ServerRef>>;

    /// Stops the server, cleanly if `grace_ms` allows it; its volume is detached and clean after.
    async fn stop_server(
        &self,
        id: ServerId,
        at: (Incarnation, Turn),
        grace_ms: u64,
    ) -> Result<Progress<()>>;

    /// Removes the server of this incarnation or an older one, and remembers that it did.
    async fn delete_server(&self, id: ServerId, incarnation: Incarnation) -> Result<Progress<()>>;

    /// What the provider sees of the server.
    async fn observe_server(&self, id: ServerId) -> Result<ServerState>;

    /// Makes sure from outside that the server can do nothing more; distinct from a stop.
    async fn fence(&self, server: &ServerRef) -> Result<Fence>;

    /// Makes the endpoint as asked: publishes, restricts, leads to the target.
    async fn ensure_endpoint(&self, spec: &EndpointSpec) -> Result<Progress<EndpointRef>>;

    /// Takes the endpoint's addresses away for good: it is not made again.
    async fn delete_endpoint(&self, id: EndpointId) -> Result<Progress<()>>;

    /// The way into the guest of a server.
    fn guest_link(&self, id: ServerId) -> GuestLink;

    /// Everything that carries this Coffer's tag, for the reconciler.
    async fn list_owned(&self) -> Result<Vec<Owned>>;

    /// The servers it remembers, with what a store that was restored from an older state has to
    /// learn of them. Asked only then.
    async fn list_held(&self) -> Result<Vec<Held>>;

    /// Whether it remembers that this volume was deleted on request; `false` if it cannot know.
    async fn was_deleted(&self, volume: VolumeId, incarnation: Incarnation) -> Result<bool>;
}
