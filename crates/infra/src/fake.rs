//! An in-memory provider for simulation: real error habits, no real infrastructure.
//!
//! It answers as real providers do under stress: calls fail before or after having done their
//! work, take their time, or conflict. Which fault strikes is the simulation's decision. It must
//! pass the same conformance suite as every provider.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use coffer_core::id::{EndpointId, NetworkId, ServerId, VolumeId};
use coffer_core::units::{Incarnation, Turn};
use uuid::Uuid;

use crate::error::{ProviderError, Result};
use crate::link::GuestLink;
use crate::provider::{
    Abilities, EndpointRef, EndpointSpec, Fence, Held, HeldEndpoint, HeldVolume, NetworkSpec,
    Origin, Owned, Progress, Provider, ServerRef, ServerSpec, ServerState, VolumeRef, VolumeSpec,
};

/// What goes wrong in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing.
    None,
    /// It fails before anything was done.
    Fails,
    /// It is done, and the answer is lost.
    LostReply,
    /// Nobody hears an answer in time; it is done before the next call for its object, or beside a
    /// call of its kind or a delete of another.
    Late,
    /// It answers that it is being done.
    Pending,
    /// It conflicts with something else.
    Conflict,
    /// It is refused for good.
    Rejected,
}

/// Where faults come from.
pub trait FaultSource: Send + Sync + Debug {
    /// The fault that strikes the next call of this name.
    fn strike(&self, call: &'static str) -> Fault;
}

/// No faults.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFaults;

impl FaultSource for NoFaults {
    fn strike(&self, _call: &'static str) -> Fault {
        Fault::None
    }
}

/// A server of the fake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeServer {
    /// As it was asked for.
    pub spec: ServerSpec,
    /// Whether it runs.
    pub is_running: bool,
    /// Times it was started.
    pub starts: u64,
}

#[derive(Debug, Default)]
struct State {
    networks: BTreeMap<NetworkId, NetworkSpec>,
    volumes: BTreeMap<VolumeId, VolumeSpec>,
    servers: BTreeMap<ServerId, FakeServer>,
    endpoints: BTreeMap<EndpointId, (EndpointSpec, Option<SocketAddr>)>,
    deleted_servers: BTreeMap<ServerId, Incarnation>,
    deleted_volumes: BTreeMap<VolumeId, Incarnation>,
    deleted_endpoints: BTreeSet<EndpointId>,
    next_address: u32,
    damaged: BTreeSet<ServerId>,
    late: Vec<LateDeed>,
}

/// Something that goes on although nobody waits for it any more.
struct LateDeed {
    call: &'static str,
    object: Uuid,
    deed: Box<dyn FnOnce(&mut State) + Send>,
}

impl Debug for LateDeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("LateDeed").field(&self.call).finish()
    }
}

impl State {
    /// Does what is late and for which this holds.
    fn catch_up(&mut self, is_due: impl Fn(&LateDeed) -> bool) {
        let (due, later) = std::mem::take(&mut self.late).into_iter().partition(is_due);
        self.late = later;
        let due: Vec<LateDeed> = due;
        for one in due {
            (one.deed)(self);
        }
    }
}

/// The fake.
#[derive(Debug)]
pub struct FakeProvider {
    /// Begins the `provider_ref` of what it makes.
    home: &'static str,
    state: Arc<Mutex<State>>,
    faults: Arc<dyn FaultSource>,
}

impl FakeProvider {
    /// An empty fake.
    pub fn new(faults: Arc<dyn FaultSource>) -> Self {
        Self::at("fake", faults)
    }

    /// An empty fake on a host of its own.
    pub fn at(home: &'static str, faults: Arc<dyn FaultSource>) -> Self {
        Self {
            home,
            state: Arc::default(),
            faults,
        }
    }

    /// Another fake on the same infrastructure, as after a restart of Coffer.
    pub fn reopened(&self) -> Self {
        Self {
            home: self.home,
            state: Arc::clone(&self.state),
            faults: Arc::clone(&self.faults),
        }
    }

    /// The server, if it is there.
    pub fn server(&self, id: ServerId) -> Option<FakeServer> {
        self.state().servers.get(&id).cloned()
    }

    /// Where the endpoint is published.
    pub fn published(&self, id: EndpointId) -> Option<SocketAddr> {
        self.state().endpoints.get(&id).and_then(|(_, at)| *at)
    }

    /// The server dies by itself, as when its host reboots.
    pub fn kill_server(&self, id: ServerId) {
        if let Some(server) = self.state().servers.get_mut(&id) {
            server.is_running = false;
        }
    }

    /// It forgets a volume, as when its records were not restored with the store.
    pub fn lose_volume(&self, id: VolumeId) {
        self.state().volumes.remove(&id);
    }

    /// Whether it has the volume.
    pub fn has_volume(&self, id: VolumeId) -> bool {
        self.state().volumes.contains_key(&id)
    }

    /// What is kept of the server can no longer be read.
    pub fn damage_server(&self, id: ServerId) {
        self.state().damaged.insert(id);
    }

    /// The volume goes by itself, with what runs on it; nobody remembers having deleted it.
    pub fn lose_volume_and_server(&self, id: VolumeId) {
        let mut state = self.state();
        state.volumes.remove(&id);
        state
            .servers
            .retain(|_, server| server.spec.volume_id != id);
    }

    /// A server and its volume under Coffer's tag that carry no card.
    pub fn strange_server(&self, network_id: NetworkId, id: Uuid) -> ServerId {
        let mut state = self.state();
        let (server_id, volume_id) = (ServerId::from_uuid(id), VolumeId::from_uuid(id));
        let known = state.servers.values().next().cloned();
        let Some(mut server) = known else {
            return server_id;
        };
        if let Some(mut volume) = state.volumes.get(&server.spec.volume_id).cloned() {
            volume.id = volume_id;
            state.volumes.insert(volume_id, volume);
        }
        server.spec.id = server_id;
        server.spec.volume_id = volume_id;
        server.spec.network_id = network_id;
        server.spec.card.clear();
        state.servers.insert(server_id, server);
        server_id
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `deed` under the fault that strikes `call`.
    fn call<T>(
        &self,
        call: &'static str,
        object: Uuid,
        deed: impl FnOnce(&mut State) -> Result<Progress<T>> + Send + 'static,
    ) -> Result<Progress<T>> {
        let lost = |why: &str| ProviderError::Transient {
            what: call,
            why: why.to_owned(),
        };
        let fault = self.faults.strike(call);
        match fault {
            Fault::None | Fault::LostReply => {
                let mut state = self.state();
                // A provider works on one object in the order of the calls, as its trait demands.
                state.catch_up(|late| late.object == object);
                let answer = deed(&mut state);
                state.catch_up(|late| late.call == call || call.starts_with("delete_"));
                match fault {
                    Fault::LostReply => answer.and(Err(lost("the reply was lost"))),
                    _ => answer,
                }
            }
            Fault::Fails => Err(lost("it failed")),
            Fault::Late => {
                let deed = Box::new(move |state: &mut State| {
                    // Nobody hears what comes of it.
                    deed(state).ok();
                });
                self.state().late.push(LateDeed { call, object, deed });
                Err(lost("nobody answered in time"))
            }
            Fault::Pending => Ok(Progress::Pending {
                reason: format!("{call} takes its time"),
                poll_after_ms: 200,
            }),
            Fault::Conflict => Err(ProviderError::Conflict {
                what: call,
                why: "something else".to_owned(),
            }),
            Fault::Rejected => Err(ProviderError::Rejected {
                what: call,
                why: "it is not allowed".to_owned(),
            }),
        }
    }
}

fn stale(what: &'static str) -> ProviderError {
    ProviderError::Conflict {
        what,
        why: "this incarnation was deleted".to_owned(),
    }
}

fn older(what: &'static str) -> ProviderError {
    ProviderError::Conflict {
        what,
        why: "a newer incarnation is there".to_owned(),
    }
}

fn outrun(what: &'static str) -> ProviderError {
    ProviderError::Conflict {
        what,
        why: "a later task has been here".to_owned(),
    }
}

fn missing<T>(what: &'static str) -> Result<T> {
    Err(ProviderError::NotFound { what })
}

fn server_ref(home: &str, spec: &ServerSpec) -> ServerRef {
    ServerRef {
        id: spec.id,
        incarnation: spec.incarnation,
        provider_ref: format!("{home}-{}", spec.id),
        host: format!("{home}-host"),
    }
}

fn volume_ref(id: VolumeId) -> Progress<VolumeRef> {
    Progress::Ready(VolumeRef {
        provider_ref: format!("fake-{id}"),
    })
}

fn put_volume(state: &mut State, spec: &VolumeSpec) -> Result<Progress<VolumeRef>> {
    if state
        .deleted_volumes
        .get(&spec.id)
        .is_some_and(|gone| *gone >= spec.incarnation)
    {
        return Err(stale("volume"));
    }
    if spec.origin == Origin::Existing && !state.volumes.contains_key(&spec.id) {
        return Err(ProviderError::Rejected {
            what: "ensure volume",
            why: "it is lost: restore it".to_owned(),
        });
    }
    let known = state.volumes.entry(spec.id).or_insert_with(|| spec.clone());
    if known.incarnation > spec.incarnation {
        return Err(older("volume"));
    }
    if known.incarnation < spec.incarnation {
        *known = spec.clone();
    }
    known.size = known.size.max(spec.size);
    Ok(volume_ref(spec.id))
}

fn put_server(home: &str, state: &mut State, spec: &ServerSpec) -> Result<Progress<ServerRef>> {
    if state
        .deleted_servers
        .get(&spec.id)
        .is_some_and(|gone| *gone >= spec.incarnation)
    {
        return Err(stale("server"));
    }
    if !state.networks.contains_key(&spec.network_id) {
        return missing("network");
    }
    if !state.volumes.contains_key(&spec.volume_id) {
        return missing("volume");
    }
    let server = state.servers.entry(spec.id).or_insert_with(|| FakeServer {
        spec: spec.clone(),
        is_running: false,
        starts: 0,
    });
    if server.spec.incarnation > spec.incarnation {
        return Err(older("server"));
    }
    if server.spec.turn > spec.turn {
        return Err(outrun("server"));
    }
    server.spec.turn = spec.turn;
    server.spec.limits = spec.limits;
    server.spec.card.clone_from(&spec.card);
    if server.spec.incarnation < spec.incarnation {
        server.spec = spec.clone();
        server.is_running = false;
    }
    if !server.is_running {
        server.is_running = true;
        server.starts += 1;
    }
    Ok(Progress::Ready(server_ref(home, spec)))
}

fn put_endpoint(state: &mut State, spec: &EndpointSpec) -> Result<Progress<EndpointRef>> {
    if !state.networks.contains_key(&spec.network_id) {
        return missing("network");
    }
    if state.deleted_endpoints.contains(&spec.id) {
        return Err(stale("endpoint"));
    }
    let known = state.endpoints.get(&spec.id);
    if known.is_some_and(|(known, _)| known.turn > spec.turn) {
        return Err(outrun("endpoint"));
    }
    let known = known.and_then(|(_, published)| *published);
    let published = spec.is_published.then(|| {
        known.or(spec.published).unwrap_or_else(|| {
            state.next_address += 1;
            let base = u32::from(Ipv4Addr::new(100, 64, 0, 1));
            let address = IpAddr::V4((base + state.next_address).into());
            SocketAddr::new(address, spec.port)
        })
    });
    state.endpoints.insert(spec.id, (spec.clone(), published));
    Ok(Progress::Ready(EndpointRef { published }))
}

fn held(state: &State, server: &FakeServer) -> Held {
    let spec = &server.spec;
    let leading = || {
        let all = state.endpoints.values();
        all.filter(|(endpoint, _)| endpoint.target == Some(spec.id))
    };
    let volume = state.volumes.get(&spec.volume_id);
    Held {
        id: spec.id,
        incarnation: spec.incarnation,
        turn: leading().map(|(e, _)| e.turn).fold(spec.turn, Ord::max),
        is_running: server.is_running,
        card: spec.card.clone(),
        limits: spec.limits,
        volume: HeldVolume {
            id: spec.volume_id,
            found: volume.map(|v| (v.incarnation, v.size)),
        },
        endpoints: leading()
            .map(|(endpoint, published)| HeldEndpoint {
                id: endpoint.id,
                published: *published,
                allowed_cidrs: endpoint.allowed_cidrs.clone(),
            })
            .collect(),
    }
}

#[async_trait]
impl Provider for FakeProvider {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn abilities(&self) -> Abilities {
        Abilities {
            online_volume_growth: true,
            hot_volume_attach: false,
            online_resize: true,
            snapshot: true,
            clone: true,
            fence: true,
            published_address: true,
            not_enforced: vec!["nothing is real".to_owned()],
            io_gap: None,
        }
    }

    fn is_mine(&self, id: ServerId, provider_ref: &str) -> bool {
        format!("{}-{id}", self.home) == provider_ref
    }

    async fn ensure_network(&self, spec: &NetworkSpec) -> Result<Progress<()>> {
        let spec = spec.clone();
        self.call("ensure_network", spec.id.uuid(), move |state| {
            state.networks.insert(spec.id, spec);
            Ok(Progress::Ready(()))
        })
    }

    async fn delete_network(&self, id: NetworkId) -> Result<Progress<()>> {
        self.call("delete_network", id.uuid(), move |state| {
            let is_used = state.servers.values().any(|s| s.spec.network_id == id);
            if is_used {
                let why = "it has members".to_owned();
                return Err(ProviderError::Conflict {
                    what: "delete network",
                    why,
                });
            }
            state.networks.remove(&id);
            Ok(Progress::Ready(()))
        })
    }

    async fn ensure_volume(&self, spec: &VolumeSpec) -> Result<Progress<VolumeRef>> {
        let spec = spec.clone();
        self.call("ensure_volume", spec.id.uuid(), move |state| {
            if let Origin::Snapshot(source) = spec.origin
                && !state.volumes.contains_key(&source)
            {
                return missing("snapshot");
            }
            put_volume(state, &spec)
        })
    }

    async fn snapshot_volume(
        &self,
        source: VolumeId,
        snapshot: &VolumeSpec,
    ) -> Result<Progress<VolumeRef>> {
        let snapshot = snapshot.clone();
        self.call("snapshot_volume", snapshot.id.uuid(), move |state| {
            if !state.volumes.contains_key(&source) {
                return missing("volume");
            }
            put_volume(state, &snapshot)
        })
    }

    async fn delete_volume(&self, id: VolumeId, incarnation: Incarnation) -> Result<Progress<()>> {
        self.call("delete_volume", id.uuid(), move |state| {
            if state
                .servers
                .values()
                .any(|s| s.spec.volume_id == id && s.is_running)
            {
                let why = "a running server uses it".to_owned();
                return Err(ProviderError::Conflict {
                    what: "delete volume",
                    why,
                });
            }
            if state
                .volumes
                .get(&id)
                .is_none_or(|v| v.incarnation <= incarnation)
            {
                state.volumes.remove(&id);
                let gone = state.deleted_volumes.entry(id).or_default();
                *gone = (*gone).max(incarnation);
            }
            Ok(Progress::Ready(()))
        })
    }

    async fn ensure_server(&self, spec: &ServerSpec) -> Result<Progress<ServerRef>> {
        let (spec, home) = (spec.clone(), self.home);
        self.call("ensure_server", spec.id.uuid(), move |state| {
            put_server(home, state, &spec)
        })
    }

    async fn stop_server(
        &self,
        id: ServerId,
        (incarnation, turn): (Incarnation, Turn),
        _grace_ms: u64,
    ) -> Result<Progress<()>> {
        self.call("stop_server", id.uuid(), move |state| {
            if let Some(server) = state.servers.get_mut(&id)
                && server.spec.incarnation <= incarnation
            {
                if server.spec.turn > turn {
                    return Err(outrun("server"));
                }
                server.spec.turn = turn;
                server.is_running = false;
            }
            Ok(Progress::Ready(()))
        })
    }

    async fn delete_server(&self, id: ServerId, incarnation: Incarnation) -> Result<Progress<()>> {
        self.call("delete_server", id.uuid(), move |state| {
            if state
                .servers
                .get(&id)
                .is_none_or(|s| s.spec.incarnation <= incarnation)
            {
                state.servers.remove(&id);
                let gone = state.deleted_servers.entry(id).or_default();
                *gone = (*gone).max(incarnation);
            }
            Ok(Progress::Ready(()))
        })
    }

    async fn observe_server(&self, id: ServerId) -> Result<ServerState> {
        if self.state().damaged.contains(&id) {
            return Err(ProviderError::Bug {
                what: "observe server",
                why: "its record cannot be read".to_owned(),
            });
        }
        Ok(match self.state().servers.get(&id) {
            Some(server) if server.is_running => {
                ServerState::Running(server_ref(self.home, &server.spec))
            }
            Some(_) => ServerState::Stopped,
            None => ServerState::Absent,
        })
    }

    async fn fence(&self, server: &ServerRef) -> Result<Fence> {
        if let Some(known) = self.state().servers.get_mut(&server.id) {
            known.is_running = false;
        }
        Ok(Fence::Fenced)
    }

    async fn ensure_endpoint(&self, spec: &EndpointSpec) -> Result<Progress<EndpointRef>> {
        let spec = spec.clone();
        self.call("ensure_endpoint", spec.id.uuid(), move |state| {
            put_endpoint(state, &spec)
        })
    }

    async fn delete_endpoint(&self, id: EndpointId) -> Result<Progress<()>> {
        self.call("delete_endpoint", id.uuid(), move |state| {
            state.endpoints.remove(&id);
            state.deleted_endpoints.insert(id);
            Ok(Progress::Ready(()))
        })
    }

    fn guest_link(&self, _id: ServerId) -> GuestLink {
        GuestLink::None
    }

    async fn list_owned(&self) -> Result<Vec<Owned>> {
        let state = self.state();
        let networks = state.networks.keys().map(|id| Owned::Network(*id));
        let volumes = state
            .volumes
            .values()
            .map(|v| Owned::Volume(v.id, v.incarnation));
        let servers = state
            .servers
            .values()
            .map(|s| Owned::Server(s.spec.id, s.spec.incarnation));
        let endpoints = state.endpoints.keys().map(|id| Owned::Endpoint(*id));
        Ok(networks
            .chain(volumes)
            .chain(servers)
            .chain(endpoints)
            .collect())
    }

    async fn list_held(&self) -> Result<Vec<Held>> {
        let state = self.state();
        Ok(state.servers.values().map(|s| held(&state, s)).collect())
    }

    async fn was_deleted(&self, volume: VolumeId, incarnation: Incarnation) -> Result<bool> {
        let deleted = &self.state().deleted_volumes;
        Ok(deleted
            .get(&volume)
            .is_some_and(|gone| *gone >= incarnation))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::conformance::{self, Bench};

    #[derive(Debug)]
    struct FakeBench {
        provider: Mutex<Arc<FakeProvider>>,
        ids: AtomicU64,
    }

    #[async_trait]
    impl Bench for FakeBench {
        fn provider(&self) -> Arc<dyn Provider> {
            self.provider.lock().unwrap().clone()
        }

        async fn reopen(&self) {
            let mut provider = self.provider.lock().unwrap();
            *provider = Arc::new(provider.reopened());
        }

        fn next_id(&self) -> Uuid {
            Uuid::from_u128(u128::from(self.ids.fetch_add(1, Ordering::Relaxed)) + 1)
        }

        fn root(&self) -> String {
            "root-checksum".to_owned()
        }

        fn boot(&self, _server: ServerId, _address: IpAddr) -> String {
            "{}".to_owned()
        }

        async fn pause(&self, _ms: u64) {}

        async fn speak(&self, _server: ServerId, _line: &str) -> Option<String> {
            None
        }
    }

    #[tokio::test]
    async fn it_does_what_every_provider_must() {
        let bench = FakeBench {
            provider: Mutex::new(Arc::new(FakeProvider::new(Arc::new(NoFaults)))),
            ids: AtomicU64::new(0),
        };
        conformance::run(&bench).await.unwrap();
    }
}
