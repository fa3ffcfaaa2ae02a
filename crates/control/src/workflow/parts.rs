//! The deeds that several workflows share: each makes one thing so, and says what to write.
//!
//! All are idempotent; a workflow's own file decides the order and what follows.

use coffer_core::event::Severity;
use coffer_core::id::ServerId;
use coffer_core::network::Network;
use coffer_core::replication::{Endpoint, Published};
use coffer_core::server::{Link, LinkForm, Presence, Server, Volume, VolumeRole};
use coffer_core::units::IoLimits;
use coffer_engines::engine::RenderContext;
use coffer_infra::error::ProviderError;
use coffer_infra::provider::{
    EndpointSpec, Limits, NetworkSpec, Origin, Progress, ServerSpec, VolumeSpec,
};
use coffer_store::Write;
use coffer_store::instance::InstanceGraph;
use coffer_store::inventory::StoredInventory;
use coffer_wire::guest::v1::{
    Boot, Command, CommandState, ConfigFile, EngineHealth, EngineState, EngineTls, Enrolled,
    Fencing, OTHER_CONTENT, Operation, PROTOCOL, Role, Spec, Status,
};

use super::context::provider_failed;
use super::{Context, StepError, Stepped, WaitFor};
use crate::authority;
use crate::card;
use crate::guest::{self, GuestAddress, GuestError, guest_name};
use crate::limits;
use crate::tls::{AltNames, Usage};

/// Whether a deed is done.
#[derive(Debug)]
pub(super) enum Part {
    /// It is; these writes say so.
    Ready(Vec<Write>),
    /// Not yet.
    Waiting(WaitFor),
}

impl Part {
    /// Goes on with `step` once the deed is done.
    #[track_caller]
    pub(super) fn then<S>(self, step: S) -> Stepped<S> {
        match self {
            Self::Ready(writes) => Stepped::next(step, writes),
            Self::Waiting(wait) => Stepped::wait(wait),
        }
    }

    fn of_provider<T>(progress: Progress<T>, ready: impl FnOnce(T) -> Vec<Write>) -> Self {
        match progress {
            Progress::Ready(value) => Self::Ready(ready(value)),
            Progress::Pending {
                reason,
                poll_after_ms,
            } => Self::Waiting(WaitFor {
                after_ms: poll_after_ms,
                reason: "provider.working",
                message: reason,
                unblocked_by: "provider".to_owned(),
            }),
        }
    }
}

/// A wait for the guest.
pub(super) fn guest_wait(reason: &'static str, message: impl Into<String>, after_ms: u64) -> Part {
    Part::Waiting(WaitFor {
        after_ms,
        reason,
        message: message.into(),
        unblocked_by: "guest".to_owned(),
    })
}

/// The network the instance is a member of.
pub(super) fn network(graph: &InstanceGraph) -> Result<&Network, StepError> {
    graph
        .network
        .as_ref()
        .ok_or_else(|| StepError::fatal("the instance's network was removed", "no network row"))
}

fn generation(graph: &InstanceGraph) -> u64 {
    graph.set.as_ref().map_or(0, |set| set.generation.0)
}

/// The server that runs the instance.
pub(super) fn server(graph: &InstanceGraph) -> Result<&Server, StepError> {
    graph
        .servers
        .iter()
        .find(|s| s.instance_id == Some(graph.instance.id))
        .ok_or_else(|| StepError::fatal("the instance has no server", "no server row"))
}

/// The volume that holds the data in use.
pub(super) fn data_volume(graph: &InstanceGraph) -> Result<&Volume, StepError> {
    graph
        .volumes
        .iter()
        .find(|v| v.role == VolumeRole::Data)
        .ok_or_else(|| StepError::fatal("the instance has no data volume", "no volume row"))
}

/// Where the instance's guest is.
pub(super) fn guest_address(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<GuestAddress, StepError> {
    let server_id = server(graph)?.id;
    Ok(GuestAddress {
        server_id,
        link: context.services.provider.guest_link(server_id),
        key_fingerprint: link(graph, server_id).and_then(|l| l.key_fingerprint.clone()),
    })
}

fn link(graph: &InstanceGraph, server_id: ServerId) -> Option<&Link> {
    graph.links.iter().find(|l| l.server_id == server_id)
}

/// Makes the tenant network.
pub(super) async fn ensure_network(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Part, StepError> {
    let network = network(graph)?;
    let tracker_address = network
        .tracker_address()
        .ok_or_else(|| StepError::fatal("the network's subnet is too small", "no address 1"))?;
    let spec = NetworkSpec {
        id: network.id,
        tenant_id: network.tenant_id.clone(),
        subnet: network.subnet,
        tracker_address,
    };
    let provider = &context.services.provider;
    let progress = context
        .provider("make network", provider.ensure_network(&spec))
        .await?;
    Ok(Part::of_provider(progress, |()| Vec::new()))
}

/// Makes the data volume, a clone of the template of its root. One that was made before has to be
/// there: a new one in its place would be an empty database that looks well.
pub(super) async fn ensure_volume(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Part, StepError> {
    let volume = data_volume(graph)?;
    let spec = VolumeSpec {
        id: volume.id,
        incarnation: volume.incarnation,
        tenant_id: volume.tenant_id.clone(),
        role: volume.role,
        size: graph.instance.spec.volume,
        volume_type: volume.volume_type.clone(),
        origin: origin(volume),
    };
    let provider = &context.services.provider;
    let progress = context
        .provider("make volume", provider.ensure_volume(&spec))
        .await?;
    let mut row = volume.clone();
    Ok(Part::of_provider(progress, |made| {
        row.presence = Presence::Present;
        row.provider_ref = Some(made.provider_ref);
        vec![Write::PutVolume(row)]
    }))
}

fn origin(volume: &Volume) -> Origin {
    match (volume.presence, &volume.template) {
        (Presence::Present | Presence::Deleting, _) => Origin::Existing,
        (Presence::Planned, Some(root)) => Origin::Template { root: root.clone() },
        (Presence::Planned, None) => Origin::Empty,
    }
}

/// Makes and starts the server, on its network and volume.
pub(super) async fn ensure_server(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Part, StepError> {
    // A delete of the network's last member may have taken the network away meanwhile.
    if let Part::Waiting(wait) = ensure_network(context, graph).await? {
        return Ok(Part::Waiting(wait));
    }
    let spec = server_spec(context, graph).await?;
    let provider = &context.services.provider;
    let progress = context
        .provider("start server", provider.ensure_server(&spec))
        .await?;
    let mut row = server(graph)?.clone();
    let known = link(graph, row.id).cloned();
    let link_id = context.services.new_uuid();
    Ok(Part::of_provider(progress, |made| {
        row.presence = Presence::Present;
        row.provider_ref = Some(made.provider_ref);
        row.host = Some(made.host);
        let mut link = known.unwrap_or_else(|| Link {
            id: coffer_core::id::LinkId::from_uuid(link_id),
            server_id: row.id,
            form: LinkForm::Netns,
            address: format!("127.0.0.1:{}", limits::AGENT_PORT),
            key_fingerprint: None,
            agent_version: None,
            position: 0,
        });
        if let Some((form, address)) = provider.guest_link(row.id).form() {
            (link.form, link.address) = (form, address.to_string());
        }
        vec![Write::PutServer(row), Write::PutLink(link)]
    }))
}

async fn server_spec(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<ServerSpec, StepError> {
    let row = server(graph)?;
    let volume = data_volume(graph)?;
    let address = endpoint(graph)?.network_address;
    let flavor = graph
        .flavor
        .as_ref()
        .ok_or_else(|| StepError::fatal("the instance's flavor was removed", "no flavor row"))?;
    let limits = Limits {
        memory_mib: flavor.memory_mib,
        vcpus: flavor.vcpus,
        io: graph
            .volume_type
            .as_ref()
            .map_or(IoLimits::NONE, |volume_type| volume_type.io),
    };
    let link_ca = authority::link(context.services)
        .await
        .map_err(authority_failed)?;
    let boot = Boot {
        protocol: PROTOCOL,
        server_id: row.id.to_string(),
        instance_id: row.instance_id.map(|id| id.to_string()),
        link_ca_pem: link_ca.cert_pem,
        bind: vec![
            ([127, 0, 0, 1], limits::AGENT_PORT).into(),
            (address, limits::AGENT_PORT).into(),
        ],
        engine: graph.version.manager.clone(),
        engine_version: graph.version.name.to_string(),
        agent_uid: 0,
        engine_uid: 0,
        data_dir: "/data".to_owned(),
        memory_mib: limits.memory_mib,
        vcpus: limits.vcpus,
    };
    Ok(ServerSpec {
        id: row.id,
        incarnation: row.incarnation,
        turn: graph.turn,
        tenant_id: row.tenant_id.clone(),
        instance_id: row.instance_id,
        purpose: row.purpose,
        roots: row.roots.clone(),
        volume_id: volume.id,
        volume_incarnation: volume.incarnation,
        network_id: network(graph)?.id,
        network_address: address,
        limits,
        zone: graph.instance.spec.zone.clone(),
        boot: super::encode(&boot),
        card: card::write(graph),
    })
}

/// Stops the server; its volume is clean after.
pub(super) async fn stop_server(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Part, StepError> {
    let row = server(graph)?;
    let at = (row.incarnation, graph.turn);
    let provider = &context.services.provider;
    let call = provider.stop_server(row.id, at, limits::STOP_GRACE_MS);
    let progress = context.provider("stop server", call).await?;
    Ok(Part::of_provider(progress, |()| Vec::new()))
}

fn endpoint(graph: &InstanceGraph) -> Result<&Endpoint, StepError> {
    graph
        .endpoints
        .first()
        .ok_or_else(|| StepError::fatal("the instance has no endpoint", "no endpoint row"))
}

/// Leads the endpoint to the server, published as the tenant asked.
pub(super) async fn ensure_endpoint(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Part, StepError> {
    let row = endpoint(graph)?;
    let access = &graph.instance.spec.access;
    let spec = EndpointSpec {
        is_published: access.is_public,
        allowed_cidrs: access.allowed_cidrs.clone(),
        target: Some(server(graph)?.id),
        ..as_written(graph, row)?
    };
    let provider = &context.services.provider;
    let progress = context
        .provider("lead endpoint", provider.ensure_endpoint(&spec))
        .await?;
    let mut row = row.clone();
    Ok(Part::of_provider(progress, |made| {
        row.published = made.published.map(|at| Published {
            address: at.ip(),
            port: at.port(),
        });
        row.allowed_cidrs.clone_from(&access.allowed_cidrs);
        row.target = Some(graph.instance.id);
        vec![Write::PutEndpoint(row)]
    }))
}

/// Leads the endpoint as it is written down: what a change that was given up has done of it beside
/// the store is taken back, so that nothing stays open that nobody knows of.
///
/// An address that another endpoint has got meanwhile, or that the pool no longer has, does not
/// come back: the endpoint is closed then, and an event says so.
pub(super) async fn restore_endpoint(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Part, StepError> {
    const WHAT: &str = "take the change back";
    let row = endpoint(graph)?;
    let spec = as_written(graph, row)?;
    let provider = &context.services.provider;
    let call = provider.ensure_endpoint(&spec);
    match context.ask_provider(WHAT, call).await? {
        Ok(progress) => Ok(Part::of_provider(progress, |_| Vec::new())),
        Err(ProviderError::Rejected { why, .. } | ProviderError::Conflict { why, .. })
            if spec.is_published =>
        {
            close_endpoint(context, row, spec, &why).await
        }
        Err(error) => Err(provider_failed(WHAT, &error)),
    }
}

/// Publishes the endpoint no longer, because its address is not to be had: `why`.
async fn close_endpoint(
    context: &Context<'_>,
    row: &Endpoint,
    spec: EndpointSpec,
    why: &str,
) -> Result<Part, StepError> {
    let spec = EndpointSpec {
        is_published: false,
        published: None,
        allowed_cidrs: Vec::new(),
        ..spec
    };
    let call = context.services.provider.ensure_endpoint(&spec);
    let progress = context.provider("close endpoint", call).await?;
    let row = Endpoint {
        published: None,
        allowed_cidrs: Vec::new(),
        ..row.clone()
    };
    let said = format!("no longer published, publish it anew: {why}");
    let event = context.event("instance.access_closed", Severity::Error, said);
    Ok(Part::of_provider(progress, |_| {
        vec![Write::PutEndpoint(row), event]
    }))
}

/// The same at the end of a story that leads the endpoint on its way and failed: where what is
/// asked is not what is written down, the call may have been done all the same.
pub(super) async fn settle_endpoint(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Part, StepError> {
    let access = &graph.instance.spec.access;
    let row = endpoint(graph)?;
    let is_as_asked =
        access.is_public == row.published.is_some() && access.allowed_cidrs == row.allowed_cidrs;
    match is_as_asked || graph.servers.is_empty() {
        true => Ok(Part::Ready(Vec::new())),
        false => restore_endpoint(context, graph).await,
    }
}

fn as_written(graph: &InstanceGraph, row: &Endpoint) -> Result<EndpointSpec, StepError> {
    let target = match row.target {
        Some(_) => Some(server(graph)?.id),
        None => None,
    };
    Ok(EndpointSpec {
        id: row.id,
        turn: graph.turn,
        network_id: row.network_id,
        network_address: row.network_address,
        port: row.port,
        is_published: row.published.is_some(),
        published: row.published.map(|p| (p.address, p.port).into()),
        allowed_cidrs: row.allowed_cidrs.clone(),
        target,
    })
}

/// Signs the guest's link key and pins it, unless that was done.
pub(super) async fn enrol(context: &Context<'_>, graph: &InstanceGraph) -> Result<Part, StepError> {
    let mut guest = guest_address(context, graph)?;
    let guests = &context.services.guests;
    let answer = context.guest(guests.enrolment(&guest)).await?;
    let (asked, shown) = match answered("enrol guest", answer)? {
        Ok(answer) => answer,
        Err(waiting) => return Ok(waiting),
    };
    if asked.server_id != guest.server_id.to_string() {
        return Err(StepError::fatal(
            "another guest answers on the link",
            asked.server_id,
        ));
    }
    let ca = authority::link(context.services)
        .await
        .map_err(authority_failed)?;
    let name = guest_name(guest.server_id);
    let alt = AltNames {
        names: vec![name.clone()],
        addresses: Vec::new(),
    };
    let cert = ca
        .sign_request(
            &asked.link_csr_pem,
            &name,
            &alt,
            Usage::Server,
            context.now(),
        )
        .map_err(|e| StepError::retry("sign the guest's key", e))?;
    let enrolled = Enrolled {
        link_cert_pem: cert,
    };
    let answer = context.guest(guests.enrol(&guest, &enrolled)).await?;
    if let Err(waiting) = answered("enrol guest", answer)? {
        return Ok(waiting);
    }
    guest.key_fingerprint = Some(shown);
    let mut row = link(graph, guest.server_id)
        .cloned()
        .ok_or_else(|| StepError::fatal("the server has no link", "no link row"))?;
    row.key_fingerprint = guest.key_fingerprint;
    row.agent_version = Some(asked.agent_version);
    Ok(Part::Ready(vec![Write::PutLink(row)]))
}

fn not_yet(why: &str) -> Part {
    tracing::debug!(why, "guest does not answer yet");
    guest_wait(
        "guest.starting",
        "the guest does not answer yet",
        limits::POLL_MS,
    )
}

/// Tells the guest what should be. Answers the version that it then has to reach.
pub(super) async fn push_spec(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Result<u64, Part>, StepError> {
    let guest = guest_address(context, graph)?;
    let guests = &context.services.guests;
    let answer = context
        .guest(guests.status(&guest, 0, std::time::Duration::ZERO))
        .await?;
    let current = match answered("ask guest", answer)? {
        Ok(status) => status,
        Err(waiting) => return Ok(Err(waiting)),
    };
    let answer = context.guest(guests.enrolment(&guest)).await?;
    let (asked, _) = match answered("ask guest", answer)? {
        Ok(answer) => answer,
        Err(waiting) => return Ok(Err(waiting)),
    };
    let version = current.spec_version + 1;
    let spec = spec(context, graph, version, &asked.engine_csr_pem).await?;
    let answer = context.guest(guests.put_spec(&guest, &spec)).await?;
    // A worker that lost the task has told the guest something under the same number.
    if let Err(GuestError::Refused { reason, message }) = &answer
        && reason == OTHER_CONTENT
    {
        return Ok(Err(guest_wait("spec.raced", message, limits::POLL_MS)));
    }
    Ok(answered("tell guest what should be", answer)?.map(|accepted| accepted.version))
}

async fn spec(
    context: &Context<'_>,
    graph: &InstanceGraph,
    version: u64,
    engine_csr_pem: &str,
) -> Result<Spec, StepError> {
    let manager = &graph.version.manager;
    let engine = coffer_engines::engine(manager)
        .ok_or_else(|| StepError::fatal(format!("no engine '{manager}'"), "not registered"))?;
    let flavor = graph
        .flavor
        .as_ref()
        .ok_or_else(|| StepError::fatal("the instance's flavor was removed", "no flavor row"))?;
    let endpoint = endpoint(graph)?;
    let config = engine.render(&RenderContext {
        version: graph.version.name.to_string(),
        memory_mib: flavor.memory_mib,
        vcpus: flavor.vcpus,
        volume: graph.instance.spec.volume,
        // An address that is published later must be answered without a restart. Which of its
        // addresses an instance is reached at is the provider's to decide, by rules that keep
        // every port shut that was not asked for.
        listen: vec![std::net::Ipv4Addr::UNSPECIFIED.into()],
        data_dir: "/data".to_owned(),
    });
    let ca = authority::project(context.services, &graph.instance.tenant_id)
        .await
        .map_err(authority_failed)?;
    let name = format!("{}.coffer", graph.instance.id);
    let alt = AltNames {
        names: vec![name.clone()],
        addresses: reached_at(endpoint),
    };
    let cert_pem = ca
        .sign_request(engine_csr_pem, &name, &alt, Usage::Server, context.now())
        .map_err(|e| StepError::retry("sign the engine's key", e))?;
    Ok(Spec {
        generation: generation(graph),
        version,
        role: Role::Primary,
        engine_state: EngineState::Running,
        identity: data_volume(graph)?.id.to_string(),
        config: config
            .into_iter()
            .map(|f| ConfigFile {
                name: f.name.to_owned(),
                content: f.content,
            })
            .collect(),
        tls: Some(EngineTls {
            cert_pem,
            ca_pem: ca.cert_pem,
        }),
    })
}

/// Addresses at which the engine is reached: its certificate names them. Loopback is where the
/// clients of `coffer connect` dial, some of which look for nothing but the address they dialled.
fn reached_at(endpoint: &Endpoint) -> Vec<std::net::IpAddr> {
    let published = endpoint.published.map(|p| p.address);
    [
        endpoint.network_address,
        std::net::Ipv4Addr::LOCALHOST.into(),
    ]
    .into_iter()
    .chain(published)
    .collect()
}

/// Waits until the guest has applied `version` and its engine answers.
pub(super) async fn await_healthy(
    context: &Context<'_>,
    graph: &InstanceGraph,
    version: u64,
) -> Result<Part, StepError> {
    let guest = guest_address(context, graph)?;
    let guests = &context.services.guests;
    let clock = &context.services.clock;
    let end = clock.monotonic() + limits::STATUS_WAIT;
    let mut after = 0;
    // A starting engine has more than one piece of news.
    while clock.monotonic() < end {
        let answer = context
            .guest(guests.status(&guest, after, limits::STATUS_WAIT))
            .await?;
        match answered("ask guest", answer)? {
            Ok(status) if is_healthy(&status, version) => return Ok(Part::Ready(Vec::new())),
            Ok(status) if status.health == EngineHealth::Crashed => {
                return Err(StepError::retry(
                    format!("the engine does not stay up: {}", status.message),
                    "crashed",
                ));
            }
            // The first answer may be of any age; one without news says that the wait is over.
            Ok(status) if status.sequence <= after => break,
            Ok(status) => after = status.sequence,
            Err(waiting) => return Ok(waiting),
        }
    }
    Ok(guest_wait(
        "engine.starting",
        "the engine does not answer its probe yet",
        limits::POLL_MS,
    ))
}

fn is_healthy(status: &Status, version: u64) -> bool {
    status.applied_version >= version && status.health == EngineHealth::Healthy
}

/// Runs one command to its end.
pub(super) async fn run_command(
    context: &Context<'_>,
    graph: &InstanceGraph,
    index: usize,
    operation: Operation,
) -> Result<Part, StepError> {
    let guest = guest_address(context, graph)?;
    let guests = &context.services.guests;
    let name = operation.name();
    let command = Command {
        id: context.command_id(index).to_string(),
        fencing: Fencing {
            task_id: context.task.id.to_string(),
            task_version: context.task.version,
            generation: generation(graph),
        },
        timeout_ms: limits::COMMAND_TIMEOUT_MS,
        operation,
    };
    let state = match context
        .guest(guests.start_command(&guest, &command))
        .await?
    {
        Ok(CommandState::Running) => {
            let polled = guests.poll_command(&guest, &command.id, limits::COMMAND_WAIT);
            match context.guest(polled).await? {
                // Its agent died meanwhile; the next run of this step sends it again.
                Err(GuestError::Refused { reason, .. }) if reason == "unknown" => {
                    Ok(CommandState::Running)
                }
                polled => polled,
            }
        }
        other => other,
    };
    match answered(name, state)? {
        Ok(CommandState::Done) => Ok(Part::Ready(Vec::new())),
        Ok(CommandState::Running) => Ok(guest_wait(
            "command.running",
            format!("{name} is running"),
            limits::POLL_MS,
        )),
        Ok(CommandState::Failed { reason, message }) => {
            Err(StepError::fatal(message, format!("{name}: {reason}")))
        }
        Err(waiting) => Ok(waiting),
    }
}

/// Reads what the engine holds into the store.
pub(super) async fn read_inventory(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Part, StepError> {
    Ok(match inventory(context, graph).await? {
        Ok(inventory) => Part::Ready(vec![put_inventory(graph, inventory)]),
        Err(waiting) => waiting,
    })
}

/// What the engine holds, or why that has to wait.
pub(super) async fn inventory(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Result<StoredInventory, Part>, StepError> {
    let guest = guest_address(context, graph)?;
    let call = crate::conductor::inventory::read(&*context.services.guests, &guest);
    answered("read inventory", context.guest(call).await?)
}

fn put_inventory(graph: &InstanceGraph, inventory: StoredInventory) -> Write {
    Write::PutInventory {
        instance_id: graph.instance.id,
        inventory,
    }
}

/// Takes the endpoints' addresses away.
pub(super) async fn delete_endpoints(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Part, StepError> {
    let provider = &context.services.provider;
    let mut writes = Vec::new();
    for row in &graph.endpoints {
        let call = provider.delete_endpoint(row.id);
        if let Progress::Pending {
            reason,
            poll_after_ms,
        } = context.provider("take endpoint away", call).await?
        {
            return Ok(pending(reason, poll_after_ms));
        }
        // Without its row, what a late worker still makes of it is found as left over.
        writes.push(Write::DeleteEndpoint(row.id));
    }
    Ok(Part::Ready(writes))
}

/// Deletes the servers.
pub(super) async fn delete_servers(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Part, StepError> {
    let provider = &context.services.provider;
    for row in &graph.servers {
        let call = provider.delete_server(row.id, row.incarnation);
        if let Progress::Pending {
            reason,
            poll_after_ms,
        } = context.provider("delete server", call).await?
        {
            return Ok(pending(reason, poll_after_ms));
        }
    }
    let gone = graph
        .servers
        .iter()
        .flat_map(|s| [Write::DeleteLink(s.id), Write::DeleteServer(s.id)]);
    Ok(Part::Ready(gone.collect()))
}

/// Deletes the volumes.
pub(super) async fn delete_volumes(
    context: &Context<'_>,
    graph: &InstanceGraph,
) -> Result<Part, StepError> {
    let provider = &context.services.provider;
    for row in &graph.volumes {
        let call = provider.delete_volume(row.id, row.incarnation);
        if let Progress::Pending {
            reason,
            poll_after_ms,
        } = context.provider("delete volume", call).await?
        {
            return Ok(pending(reason, poll_after_ms));
        }
    }
    Ok(Part::Ready(
        graph
            .volumes
            .iter()
            .map(|v| Write::DeleteVolume(v.id))
            .collect(),
    ))
}

fn pending(reason: String, after_ms: u64) -> Part {
    Part::Waiting(WaitFor {
        after_ms,
        reason: "provider.working",
        message: reason,
        unblocked_by: "provider".to_owned(),
    })
}

/// What a guest answered, or the wait for one that cannot do it now.
pub(super) fn answered<T>(
    what: &str,
    answer: guest::Result<T>,
) -> Result<Result<T, Part>, StepError> {
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(GuestError::Unreachable { why }) => Ok(Err(not_yet(&why))),
        Err(error) if error.is_for_now() => Ok(Err(guest_wait(
            "guest.busy",
            format!("{what}: {error}"),
            limits::POLL_MS,
        ))),
        Err(error) => Err(guest_failed(what, &error)),
    }
}

/// What a step does about a refusing guest.
pub(super) fn guest_failed(what: &str, error: &GuestError) -> StepError {
    match error {
        GuestError::Unreachable { .. } | GuestError::Protocol { .. } => {
            StepError::retry(format!("{what}: {error}"), error)
        }
        GuestError::Impostor { .. } | GuestError::Refused { .. } => {
            StepError::fatal(format!("{what}: {error}"), error)
        }
    }
}

fn authority_failed(error: authority::AuthorityError) -> StepError {
    StepError::retry("read Coffer's certificate authority", error)
}
