//! What every provider must do, as one suite that runs against any of them.
//!
//! A bench gives the suite a provider, ids and a root, and speaks to guests where guests are real.
//! The suite says what did not hold; it leaves the provider as it found it when all did.

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;
use coffer_core::id::{EndpointId, InstanceId, NetworkId, ServerId, TenantId, VolumeId};
use coffer_core::server::{ServerPurpose, VolumeRole};
use coffer_core::units::{BytesPerSecond, Incarnation, IoLimits, Turn, VolumeSize};
use uuid::Uuid;

use crate::error::{ProviderError, Result};
use crate::provider::{
    EndpointRef, EndpointSpec, Fence, Limits, NetworkSpec, Origin, Owned, Progress, Provider,
    ServerRef, ServerSpec, ServerState, VolumeRef, VolumeSpec,
};

/// How often a pending answer is asked again.
const POLLS_MAX: u32 = 2_000;
/// The tenant network of the suite.
const SUBNET: &str = "10.77.0.0/24";
/// What a store that lost the server would be told.
const CARD: &str = "{\"name\":\"suite\"}";
/// Port of the endpoint of the suite.
const PORT: u16 = 5432;

/// What the suite is run on.
#[async_trait]
pub trait Bench: Send + Sync {
    /// The provider as it is now.
    fn provider(&self) -> Arc<dyn Provider>;

    /// Lets go of the provider object and opens another on the same state.
    async fn reopen(&self);

    /// An id that was not given before.
    fn next_id(&self) -> Uuid;

    /// Checksum of an engine root that servers can run and templates can be made from.
    fn root(&self) -> String;

    /// Boot data for a server that listens for the suite on its loopback and at this address.
    fn boot(&self, server: ServerId, address: IpAddr) -> String;

    /// Lets time pass; unit: milliseconds.
    async fn pause(&self, ms: u64);

    /// Says a line to the guest and returns its answer; `None` where guests are not real. Lines:
    /// `who`, `write NAME TEXT`, `read NAME`, `size`.
    async fn speak(&self, server: ServerId, line: &str) -> Option<String>;
}

/// What did not hold.
pub type Failure = String;

/// Runs the whole suite.
pub async fn run(bench: &dyn Bench) -> std::result::Result<(), Failure> {
    let before = owned(bench).await?;
    let suite = Suite::new(bench);
    suite.networks().await?;
    suite.volumes().await?;
    suite.servers().await?;
    suite.survives_restart().await?;
    suite.endpoints().await?;
    suite.snapshots().await?;
    suite.fence().await?;
    suite.held(true).await?;
    suite.remove().await?;
    suite.held(false).await?;
    let after = owned(bench).await?;
    check(before == after, || {
        format!("something is left: {after:?}, at first {before:?}")
    })
}

struct Suite<'a> {
    bench: &'a dyn Bench,
    network: NetworkSpec,
    volume: VolumeSpec,
    server: ServerSpec,
}

type Check = std::result::Result<(), Failure>;

impl<'a> Suite<'a> {
    fn new(bench: &'a dyn Bench) -> Self {
        let tenant: TenantId = "conformance".parse().expect("it is a plain word");
        let network = NetworkSpec {
            id: NetworkId::from_uuid(bench.next_id()),
            tenant_id: tenant.clone(),
            subnet: SUBNET.parse().expect("it is a range"),
            tracker_address: address(1),
        };
        let volume = VolumeSpec {
            id: VolumeId::from_uuid(bench.next_id()),
            incarnation: Incarnation(2),
            tenant_id: tenant.clone(),
            role: VolumeRole::Data,
            size: gib(1),
            volume_type: None,
            origin: Origin::Template { root: bench.root() },
        };
        let id = ServerId::from_uuid(bench.next_id());
        let server = ServerSpec {
            id,
            incarnation: Incarnation(2),
            turn: Turn(6),
            tenant_id: tenant,
            instance_id: Some(InstanceId::from_uuid(bench.next_id())),
            purpose: ServerPurpose::Instance,
            roots: vec![bench.root()],
            volume_id: volume.id,
            volume_incarnation: volume.incarnation,
            network_id: network.id,
            network_address: address(5),
            limits: Limits {
                memory_mib: 256,
                vcpus: 1,
                io: io(),
            },
            zone: None,
            boot: bench.boot(id, address(5)),
            card: CARD.to_owned(),
        };
        Self {
            bench,
            network,
            volume,
            server,
        }
    }

    fn provider(&self) -> Arc<dyn Provider> {
        self.bench.provider()
    }

    async fn networks(&self) -> Check {
        for _ in 0..2 {
            self.ensure_network(&self.network).await?;
        }
        self.owns(Owned::Network(self.network.id), true).await?;
        self.delete_network().await?;
        self.delete_network().await?;
        self.owns(Owned::Network(self.network.id), false).await?;
        self.ensure_network(&self.network).await
    }

    /// A volume that was made before is found, and never made anew.
    async fn existing(&self) -> Check {
        let existing = VolumeSpec {
            origin: Origin::Existing,
            ..self.volume.clone()
        };
        self.lost(&existing).await?;
        let first = self.ensure_volume(&self.volume).await?;
        let again = self.ensure_volume(&existing).await?;
        same("a volume that is there", &first, &again)
    }

    async fn lost(&self, existing: &VolumeSpec) -> Check {
        let answer = self.ensure_volume_once(existing).await;
        let is_refused = matches!(answer, Err(ProviderError::Rejected { .. }));
        check(is_refused, || {
            format!("a volume that was lost was answered {answer:?}")
        })?;
        self.owns(Owned::Volume(existing.id, existing.incarnation), false)
            .await
    }

    async fn volumes(&self) -> Check {
        self.existing().await?;
        let first = self.ensure_volume(&self.volume).await?;
        let second = self.ensure_volume(&self.volume).await?;
        same("a volume made twice", &first, &second)?;
        self.owns(Owned::Volume(self.volume.id, Incarnation(2)), true)
            .await?;
        let old = VolumeSpec {
            incarnation: Incarnation(1),
            ..self.volume.clone()
        };
        refused("an older volume", self.ensure_volume_once(&old).await)?;
        self.delete_volume(Incarnation(1)).await?;
        self.owns(Owned::Volume(self.volume.id, Incarnation(2)), true)
            .await?;
        for _ in 0..2 {
            self.delete_volume(Incarnation(2)).await?;
        }
        self.owns(Owned::Volume(self.volume.id, Incarnation(2)), false)
            .await?;
        refused(
            "a deleted volume",
            self.ensure_volume_once(&self.volume).await,
        )?;
        let newer = VolumeSpec {
            incarnation: Incarnation(3),
            ..self.volume.clone()
        };
        self.ensure_volume(&newer).await.map(drop)
    }

    /// The server as it is used after [`Self::volumes`] has counted the volume on.
    fn current(&self) -> ServerSpec {
        ServerSpec {
            volume_incarnation: Incarnation(3),
            ..self.server.clone()
        }
    }

    async fn servers(&self) -> Check {
        let id = self.server.id;
        let first = self.ensure_server(&self.current()).await?;
        let second = self.ensure_server(&self.current()).await?;
        same("a server made twice", &first, &second)?;
        self.is_told_apart(&first)?;
        self.is_running(&first).await?;
        self.owns(Owned::Server(id, Incarnation(2)), true).await?;
        let old = ServerSpec {
            incarnation: Incarnation(1),
            ..self.current()
        };
        refused("an older server", self.provider().ensure_server(&old).await)?;
        self.delete_server(Incarnation(1)).await?;
        self.is_running(&first).await?;
        let busy = self.provider().delete_network(self.network.id).await;
        refused("deleting a network with a member", busy)?;
        self.spoken(id, "who", |answer| answer.starts_with(&id.to_string()))
            .await?;
        self.spoken(id, "write kept hello", |answer| answer == "ok")
            .await?;
        for _ in 0..2 {
            self.stop_server(5_000).await?;
        }
        let state = self.observe().await?;
        same("a stopped server", &state, &ServerState::Stopped)?;
        self.outrun_servers(&ServerState::Stopped).await?;
        let again = self.ensure_server(&self.current()).await?;
        self.outrun_servers(&ServerState::Running(again)).await?;
        self.spoken(id, "read kept", |answer| answer == "hello")
            .await
    }

    /// A provider knows its own servers from those that another one made.
    fn is_told_apart(&self, made: &ServerRef) -> Check {
        let provider = self.provider();
        let elsewhere = format!("elsewhere-{}", made.provider_ref);
        let known = (
            provider.is_mine(made.id, &made.provider_ref),
            provider.is_mine(made.id, &elsewhere),
        );
        same("whose a server is", &known, &(true, false))
    }

    /// A worker that lost its task neither starts nor stops what a later task has changed.
    async fn outrun_servers(&self, state: &ServerState) -> Check {
        let late = ServerSpec {
            turn: Turn(5),
            ..self.current()
        };
        let provider = self.provider();
        refused("a late start", provider.ensure_server(&late).await)?;
        let at = (late.incarnation, late.turn);
        refused("a late stop", provider.stop_server(late.id, at, 0).await)?;
        same("after a late call", state, &self.observe().await?)
    }

    async fn survives_restart(&self) -> Check {
        let link = self.provider().guest_link(self.server.id);
        let ServerState::Running(before) = self.observe().await? else {
            return Err("the server does not run before the restart".to_owned());
        };
        self.bench.reopen().await;
        self.is_running(&before).await?;
        same(
            "the link",
            &link,
            &self.provider().guest_link(self.server.id),
        )?;
        same(
            "the server",
            &before,
            &self.ensure_server(&self.current()).await?,
        )?;
        self.spoken(self.server.id, "read kept", |answer| answer == "hello")
            .await
    }

    async fn endpoints(&self) -> Check {
        let mut spec = EndpointSpec {
            id: EndpointId::from_uuid(self.bench.next_id()),
            turn: Turn(2),
            network_id: self.network.id,
            network_address: self.server.network_address,
            port: PORT,
            is_published: false,
            published: None,
            allowed_cidrs: Vec::new(),
            target: Some(self.server.id),
        };
        same(
            "not published",
            &self.ensure_endpoint(&spec).await?.published,
            &None,
        )?;
        self.owns(Owned::Endpoint(spec.id), true).await?;
        if self.provider().abilities().published_address {
            spec.is_published = true;
            self.published(&spec).await?;
        }
        let late = spec.clone();
        spec.is_published = false;
        spec.turn = Turn(3);
        same(
            "taken back",
            &self.ensure_endpoint(&spec).await?.published,
            &None,
        )?;
        let answer = self.provider().ensure_endpoint(&late).await;
        refused("a late publication", answer)?;
        for _ in 0..2 {
            let provider = self.provider();
            self.ready("delete endpoint", || provider.delete_endpoint(spec.id))
                .await?;
        }
        let answer = self.provider().ensure_endpoint(&spec).await;
        refused("a publication after the end", answer)?;
        self.owns(Owned::Endpoint(spec.id), false).await
    }

    async fn published(&self, spec: &EndpointSpec) -> Check {
        let first = self.ensure_endpoint(spec).await?;
        check(first.published.is_some(), || {
            "a published endpoint has no address".to_owned()
        })?;
        same(
            "published twice",
            &first,
            &self.ensure_endpoint(spec).await?,
        )?;
        self.stop_server(5_000).await?;
        self.bench.reopen().await;
        self.ensure_server(&self.current()).await?;
        same(
            "after a restart",
            &first,
            &self.ensure_endpoint(spec).await?,
        )?;
        let kept = EndpointSpec {
            published: first.published,
            ..spec.clone()
        };
        same(
            "asked for by address",
            &first,
            &self.ensure_endpoint(&kept).await?,
        )
    }

    async fn snapshots(&self) -> Check {
        let spec = VolumeSpec {
            id: VolumeId::from_uuid(self.bench.next_id()),
            role: VolumeRole::Snapshot,
            origin: Origin::Empty,
            ..self.volume.clone()
        };
        let (provider, source) = (self.provider(), self.volume.id);
        if !provider.abilities().snapshot {
            let answer = provider.snapshot_volume(source, &spec).await;
            return check(
                matches!(answer, Err(ProviderError::Rejected { .. })),
                || format!("a snapshot that cannot be made was answered {answer:?}"),
            );
        }
        for _ in 0..2 {
            self.ready("snapshot", || provider.snapshot_volume(source, &spec))
                .await?;
        }
        let id = self.server.id;
        self.spoken(id, "write kept changed", |answer| answer == "ok")
            .await?;
        let clone = VolumeSpec {
            id: VolumeId::from_uuid(self.bench.next_id()),
            size: gib(2),
            origin: Origin::Snapshot(spec.id),
            ..self.volume.clone()
        };
        self.ensure_volume(&clone).await?;
        self.clone_is_read(&clone).await?;
        for volume in [spec.id, clone.id] {
            self.ready("delete", || provider.delete_volume(volume, Incarnation(2)))
                .await?;
        }
        Ok(())
    }

    /// A second server on the clone sees what was there at the snapshot.
    async fn clone_is_read(&self, clone: &VolumeSpec) -> Check {
        let id = ServerId::from_uuid(self.bench.next_id());
        let spec = ServerSpec {
            id,
            volume_id: clone.id,
            volume_incarnation: clone.incarnation,
            network_address: address(6),
            boot: self.bench.boot(id, address(6)),
            ..self.current()
        };
        self.ensure_server(&spec).await?;
        self.spoken(id, "read kept", |answer| answer == "hello")
            .await?;
        let large = |answer: &str| answer.parse::<u64>().is_ok_and(|bytes| bytes > 3 << 29);
        self.spoken(id, "size", large).await?;
        let provider = self.provider();
        self.ready("delete server", || {
            provider.delete_server(id, Incarnation(2))
        })
        .await
    }

    async fn fence(&self) -> Check {
        let server = self.ensure_server(&self.current()).await?;
        for _ in 0..2 {
            let answer = self
                .provider()
                .fence(&server)
                .await
                .map_err(said("fence"))?;
            same("a fence", &answer, &Fence::Fenced)?;
        }
        same(
            "a fenced server",
            &self.observe().await?,
            &ServerState::Stopped,
        )?;
        self.ensure_server(&self.current()).await?;
        self.spoken(self.server.id, "read kept", |answer| {
            answer == "changed" || answer == "hello"
        })
        .await
    }

    /// A store that lost everything can learn of the server, and of what was deleted.
    async fn held(&self, is_there: bool) -> Check {
        let provider = self.provider();
        let all = provider.list_held().await.map_err(said("list held"))?;
        let found = all.iter().find(|held| held.id == self.server.id);
        let volume = (self.volume.id, Incarnation(3));
        let was_deleted = provider.was_deleted(volume.0, volume.1).await;
        let was_deleted = was_deleted.map_err(said("ask for a deletion"))?;
        same("a deletion that is remembered", &was_deleted, &!is_there)?;
        let Some(held) = found else {
            return check(!is_there, || "the server is not held".to_owned());
        };
        check(is_there, || format!("{held:?} was deleted"))?;
        same("its card", &held.card.as_str(), &CARD)?;
        check(held.is_running, || "it does not run".to_owned())?;
        check(held.turn >= self.server.turn, || format!("{held:?}"))?;
        same("its limits", &held.limits, &self.server.limits)?;
        same("its volume", &held.volume.id, &volume.0)?;
        let found = held.volume.found.map(|(incarnation, _)| incarnation);
        same("its volume's rebuild", &found, &Some(volume.1))
    }

    async fn remove(&self) -> Check {
        for _ in 0..2 {
            self.delete_server(Incarnation(2)).await?;
        }
        same(
            "a deleted server",
            &self.observe().await?,
            &ServerState::Absent,
        )?;
        refused(
            "a deleted server",
            self.provider().ensure_server(&self.current()).await,
        )?;
        self.delete_volume(Incarnation(3)).await?;
        self.delete_network().await
    }

    async fn ensure_network(&self, spec: &NetworkSpec) -> Check {
        let provider = self.provider();
        self.ready("ensure network", || provider.ensure_network(spec))
            .await
    }

    async fn delete_network(&self) -> Check {
        let (provider, id) = (self.provider(), self.network.id);
        self.ready("delete network", || provider.delete_network(id))
            .await
    }

    async fn ensure_volume(&self, spec: &VolumeSpec) -> std::result::Result<VolumeRef, Failure> {
        let provider = self.provider();
        self.ready("ensure volume", || provider.ensure_volume(spec))
            .await
    }

    async fn ensure_volume_once(&self, spec: &VolumeSpec) -> Result<Progress<VolumeRef>> {
        self.provider().ensure_volume(spec).await
    }

    async fn delete_volume(&self, incarnation: Incarnation) -> Check {
        let (provider, id) = (self.provider(), self.volume.id);
        self.ready("delete volume", || provider.delete_volume(id, incarnation))
            .await
    }

    async fn ensure_server(&self, spec: &ServerSpec) -> std::result::Result<ServerRef, Failure> {
        let provider = self.provider();
        self.ready("ensure server", || provider.ensure_server(spec))
            .await
    }

    async fn stop_server(&self, grace_ms: u64) -> Check {
        let (provider, spec) = (self.provider(), &self.server);
        self.ready("stop", || {
            provider.stop_server(spec.id, (spec.incarnation, spec.turn), grace_ms)
        })
        .await
    }

    async fn delete_server(&self, incarnation: Incarnation) -> Check {
        let (provider, id) = (self.provider(), self.server.id);
        self.ready("delete server", || provider.delete_server(id, incarnation))
            .await
    }

    async fn ensure_endpoint(
        &self,
        spec: &EndpointSpec,
    ) -> std::result::Result<EndpointRef, Failure> {
        let provider = self.provider();
        self.ready("ensure endpoint", || provider.ensure_endpoint(spec))
            .await
    }

    async fn observe(&self) -> std::result::Result<ServerState, Failure> {
        self.provider()
            .observe_server(self.server.id)
            .await
            .map_err(said("observe"))
    }

    async fn is_running(&self, server: &ServerRef) -> Check {
        same(
            "a running server",
            &self.observe().await?,
            &ServerState::Running(server.clone()),
        )
    }

    async fn owns(&self, what: Owned, is_there: bool) -> Check {
        let all = owned(self.bench).await?;
        check(all.contains(&what) == is_there, || {
            format!(
                "list_owned should {}hold {what:?}",
                if is_there { "" } else { "not " }
            )
        })
    }

    async fn spoken(&self, id: ServerId, line: &str, is_right: impl Fn(&str) -> bool) -> Check {
        match self.bench.speak(id, line).await {
            Some(answer) => check(is_right(&answer), || {
                format!("the guest answers {line} with '{answer}'")
            }),
            None => Ok(()),
        }
    }

    /// Asks until the answer is ready.
    async fn ready<T, F>(
        &self,
        what: &'static str,
        ask: impl Fn() -> F,
    ) -> std::result::Result<T, Failure>
    where
        F: Future<Output = Result<Progress<T>>>,
    {
        for _ in 0..POLLS_MAX {
            match ask().await.map_err(said(what))? {
                Progress::Ready(answer) => return Ok(answer),
                Progress::Pending { poll_after_ms, .. } => self.bench.pause(poll_after_ms).await,
            }
        }
        Err(format!("{what} is still pending after {POLLS_MAX} polls"))
    }
}

async fn owned(bench: &dyn Bench) -> std::result::Result<Vec<Owned>, Failure> {
    let mut all = bench
        .provider()
        .list_owned()
        .await
        .map_err(said("list owned"))?;
    all.sort();
    Ok(all)
}

fn address(n: u8) -> IpAddr {
    IpAddr::from([10, 77, 0, n])
}

/// Limits on I/O that keep nothing of the suite waiting.
fn io() -> IoLimits {
    let parse = BytesPerSecond::parse("suite", 1 << 30);
    IoLimits {
        write_bytes_sec: Some(parse.expect("the suite's rate is in range")),
        ..IoLimits::NONE
    }
}

fn gib(n: i64) -> VolumeSize {
    VolumeSize::gib(n).expect("the suite's sizes are in range")
}

fn said(what: &'static str) -> impl Fn(ProviderError) -> Failure {
    move |error| format!("{what}: {error}")
}

fn check(holds: bool, failure: impl FnOnce() -> Failure) -> Check {
    if holds { Ok(()) } else { Err(failure()) }
}

fn same<T: std::fmt::Debug + PartialEq>(what: &str, a: &T, b: &T) -> Check {
    check(a == b, || format!("{what}: {a:?} is not {b:?}"))
}

fn refused<T: std::fmt::Debug>(what: &str, answer: Result<T>) -> Check {
    check(
        matches!(answer, Err(ProviderError::Conflict { .. })),
        || format!("{what} should be a conflict, was {answer:?}"),
    )
}
