//! Rows for an instance that its provider holds and a restored store has lost: told by its card
//! and by what is there.

use coffer_core::access::Access;
use coffer_core::flavor::{Flavor, VolumeType};
use coffer_core::id::TenantId;
use coffer_core::instance::{Health, Instance, InstanceSpec};
use coffer_core::name::Name;
use coffer_core::network::Network;
use coffer_core::quota::{Amount, Resource};
use coffer_core::replication::{Endpoint, EndpointKind, Published, ReplicationSet, SetMode};
use coffer_core::server::{Presence, Server, ServerPurpose, Volume, VolumeRole};
use coffer_core::tenant::Tenant;
use coffer_core::time::Timestamp;
use coffer_core::units::{Generation, Incarnation, Timeline, VolumeSize};
use coffer_infra::provider::Held;
use coffer_store::restored::Adopted;

use super::reconcile::ReconcileError;
use super::restored;
use crate::card::Card;
use crate::services::Services;

/// What is said of a project and of a volume type that were lost: what they were for is not kept
/// outside the store.
const ADOPTED: &str = "made after the backup from which the state was restored";

/// Writes an instance that the store has lost, and what brings it into service.
pub(super) async fn adopt(
    services: &Services,
    card: &Card,
    held: &Held,
) -> Result<(), ReconcileError> {
    let rows = Rows::of(services, card, held).await?;
    // One that stands still was stopped on request: whatever stops by itself is recovered at once.
    let task = held
        .is_running
        .then(|| restored::recovery(services, &rows.instance));
    let message = "adopted: it was made after the backup from which the state was restored";
    let event = restored::event(services, &rows.instance, "instance.adopted", message);
    let adopted = Adopted {
        tenant: &rows.tenant,
        network: &rows.network,
        flavor: &rows.flavor,
        volume_type: rows.volume_type.as_ref(),
        instance: &rows.instance,
        set: &rows.set,
        endpoint: &rows.endpoint,
        server: &rows.server,
        volume: &rows.volume,
        charges: &rows.charges,
        turn: held.turn,
        task: task.as_ref(),
        event: &event,
    };
    services.store.adopt_instance(&adopted).await?;
    Ok(())
}

/// The rows of an instance, told by its card and by what is held.
struct Rows {
    tenant: Tenant,
    network: Network,
    flavor: Flavor,
    volume_type: Option<VolumeType>,
    instance: Instance,
    set: ReplicationSet,
    endpoint: Endpoint,
    server: Server,
    volume: Volume,
    charges: Vec<Amount>,
}

impl Rows {
    async fn of(services: &Services, card: &Card, held: &Held) -> Result<Self, ReconcileError> {
        let instance = instance(services, card, held).await?;
        let size = instance.spec.volume;
        let now = instance.updated_at;
        let endpoint = held.endpoints.iter().find(|e| e.id == card.endpoint_id);
        let published = endpoint.and_then(|endpoint| endpoint.published);
        let provider = services.provider.name();
        Ok(Self {
            tenant: tenant(card, instance.created_at)?,
            network: network(card)?,
            flavor: flavor(card, held)?,
            volume_type: volume_type(card, held)?,
            set: ReplicationSet {
                id: card.set_id,
                tenant_id: card.tenant_id.clone(),
                mode: SetMode::SinglePrimary,
                generation: Generation(card.generation),
                timeline: Timeline(card.timeline),
                primary: Some(card.instance_id),
            },
            endpoint: Endpoint {
                id: card.endpoint_id,
                set_id: card.set_id,
                kind: EndpointKind::Write,
                network_id: card.network_id,
                network_address: card.network_address,
                port: card.port,
                published: published.map(|at| Published {
                    address: at.ip(),
                    port: at.port(),
                }),
                allowed_cidrs: instance.spec.access.allowed_cidrs.clone(),
                target: Some(card.instance_id),
            },
            server: Server {
                id: held.id,
                tenant_id: card.tenant_id.clone(),
                instance_id: Some(card.instance_id),
                purpose: ServerPurpose::Instance,
                provider: provider.to_owned(),
                provider_ref: None,
                incarnation: held.incarnation,
                host: None,
                roots: card.roots.clone(),
                presence: Presence::Present,
                created_at: now,
            },
            volume: volume(card, held, size, provider, now),
            charges: charges(held, size),
            instance,
        })
    }
}

fn volume(card: &Card, held: &Held, size: VolumeSize, provider: &str, now: Timestamp) -> Volume {
    Volume {
        id: held.volume.id,
        tenant_id: card.tenant_id.clone(),
        instance_id: Some(card.instance_id),
        server_id: Some(held.id),
        role: VolumeRole::Data,
        provider: provider.to_owned(),
        provider_ref: None,
        incarnation: held.volume.found.map_or(Incarnation(1), |(found, _)| found),
        size,
        volume_type: card.volume_type.clone(),
        parent: None,
        template: card.roots.first().cloned(),
        presence: Presence::Present,
        created_at: now,
    }
}

fn charges(held: &Held, size: VolumeSize) -> Vec<Amount> {
    [
        (Resource::Instances, 1),
        (Resource::Ram, i64::from(held.limits.memory_mib)),
        (Resource::Volumes, i64::from(size.as_gib())),
    ]
    .map(|(resource, amount)| Amount { resource, amount })
    .into()
}

async fn instance(
    services: &Services,
    card: &Card,
    held: &Held,
) -> Result<Instance, ReconcileError> {
    let store = &services.store;
    let datastore = store.find_datastore_by_name(&card.datastore).await?;
    let version = match &datastore {
        Some(found) => {
            let name = &card.datastore_version;
            store.find_datastore_version_by_name(found.id, name).await?
        }
        None => None,
    };
    let version = version.ok_or_else(|| ReconcileError::Adopt {
        id: card.instance_id,
        why: format!(
            "this Coffer does not offer {} {}: build its root with coffer image build, then \
             confirm again",
            card.datastore, card.datastore_version
        ),
    })?;
    let (_, size) = held.volume.found.ok_or_else(|| ReconcileError::Adopt {
        id: card.instance_id,
        why: "its volume is gone".to_owned(),
    })?;
    let endpoint = held.endpoints.iter().find(|e| e.id == card.endpoint_id);
    let now = services.clock.now();
    Ok(Instance {
        id: card.instance_id,
        tenant_id: card.tenant_id.clone(),
        set_id: card.set_id,
        spec: InstanceSpec {
            name: name(card, &card.name)?,
            flavor_id: card.flavor_id.clone(),
            volume: size,
            volume_type: card.volume_type.clone(),
            datastore_version_id: version.id,
            network_id: card.network_id,
            zone: card.zone.clone(),
            access: endpoint.map_or_else(Access::default, restored::access),
        },
        lifecycle: restored::lifecycle(!held.is_running),
        health: Health::Unknown,
        incarnation: Incarnation(1),
        fault: None,
        volume_used_bytes: None,
        created_at: card.created_at,
        updated_at: now,
        health_at: now,
    })
}

fn name(card: &Card, text: &str) -> Result<Name, ReconcileError> {
    Name::parse("name", text).map_err(|error| ReconcileError::Adopt {
        id: card.instance_id,
        why: error.to_string(),
    })
}

/// The project by its id: what it was called is not kept outside the store.
fn tenant(card: &Card, created_at: Timestamp) -> Result<Tenant, ReconcileError> {
    let id: &TenantId = &card.tenant_id;
    Ok(Tenant {
        id: id.clone(),
        name: name(card, &format!("adopted-{id}"))?,
        is_enabled: true,
        description: ADOPTED.to_owned(),
        created_at,
    })
}

fn network(card: &Card) -> Result<Network, ReconcileError> {
    Ok(Network {
        id: card.network_id,
        tenant_id: card.tenant_id.clone(),
        name: name(card, &card.network_name)?,
        subnet: card.subnet.parse().map_err(|_| ReconcileError::Adopt {
            id: card.instance_id,
            why: format!("its network's range '{}' cannot be read", card.subnet),
        })?,
        is_default: card.is_default_network,
        created_at: card.created_at,
    })
}

fn flavor(card: &Card, held: &Held) -> Result<Flavor, ReconcileError> {
    Ok(Flavor {
        id: card.flavor_id.clone(),
        name: name(card, &card.flavor_name)?,
        memory_mib: held.limits.memory_mib,
        vcpus: held.limits.vcpus,
        disk_gib: 0,
        created_at: card.created_at,
    })
}

/// The volume type, with the limits that the server has.
fn volume_type(card: &Card, held: &Held) -> Result<Option<VolumeType>, ReconcileError> {
    let Some(text) = &card.volume_type else {
        return Ok(None);
    };
    Ok(Some(VolumeType {
        name: name(card, text)?,
        description: ADOPTED.to_owned(),
        io: held.limits.io,
        created_at: card.created_at,
    }))
}
