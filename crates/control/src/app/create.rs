//! Asking for an instance: everything named is looked up, everything of it is written at once.

use coffer_core::access::Access;
use coffer_core::datastore::{Datastore, DatastoreVersion};
use coffer_core::flavor::Flavor;
use coffer_core::id::{
    EndpointId, FlavorId, InstanceId, NetworkId, ServerId, SetId, TenantId, VolumeId,
};
use coffer_core::instance::{Health, Instance, InstanceSpec, Lifecycle};
use coffer_core::name::Name;
use coffer_core::network::Network;
use coffer_core::quota::{Amount, Resource};
use coffer_core::replication::{EndpointKind, ReplicationSet, SetMode};
use coffer_core::server::{Presence, Server, ServerPurpose, Volume, VolumeRole};
use coffer_core::units::{Generation, Incarnation, Timeline, VolumeSize};
use coffer_engines::Engine;
use coffer_store::instance::{InstanceView, NewInstance};
use coffer_store::secret::StoredSecret;

use super::commands::{Content, operations};
use super::{AppState, RequestContext, datastore, network};
use crate::error::{Error, Kind, Result};
use crate::workflow::NewTask;
use crate::workflow::create_instance::{self, CreateInstanceInput};

/// An instance asked for; what needs the store is still a name.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Its name.
    pub name: Name,
    /// Flavor by id.
    pub flavor: String,
    /// Size of its volume.
    pub volume: Option<VolumeSize>,
    /// Volume type by name.
    pub volume_type: Option<String>,
    /// Datastore by name or id.
    pub datastore: Option<String>,
    /// Datastore version by name or id.
    pub version: Option<String>,
    /// Tells versions of equal name apart.
    pub version_number: Option<String>,
    /// Network by id.
    pub network: Option<String>,
    /// Zone by name.
    pub zone: Option<String>,
    /// Who may reach it.
    pub access: Access,
    /// Databases and users to make in it.
    pub content: Content,
}

/// What the names stand for.
struct Found {
    flavor: Flavor,
    datastore: Datastore,
    version: DatastoreVersion,
    engine: &'static dyn Engine,
    network: Network,
    volume: VolumeSize,
}

/// Writes the instance with its planned parts, its quota and the task that makes it; gives it as
/// it is shown.
pub async fn create(
    app: &AppState,
    context: &RequestContext,
    wanted: Wanted,
) -> Result<InstanceView> {
    let tenant_id = context.tenant_id()?.clone();
    let found = look_up(app, &tenant_id, &wanted).await?;
    let commands = operations(found.engine, &wanted.content)?;
    let instance_id = InstanceId::from_uuid(app.new_uuid());
    let vault = app.vault();
    let secret = match commands.as_slice() {
        [] => None,
        some => Some(Box::pin(vault.seal_commands(&tenant_id, instance_id, some)).await?),
    };
    let new = plan(app, context, instance_id, &wanted, &found, secret)?;
    let limits = |resource| app.config.quotas.of(resource);
    let instance = app.store.create_instance(&new, limits).await?;
    Ok(shown(instance, found))
}

async fn look_up(app: &AppState, tenant_id: &TenantId, wanted: &Wanted) -> Result<Found> {
    let (datastore, version) = datastore::choose(app, wanted).await?;
    let engine = coffer_engines::engine(&version.manager).ok_or_else(|| {
        Error::new(
            Kind::NotImplemented,
            "engine-unknown",
            format!("this build of Coffer has no engine '{}'", version.manager),
        )
    })?;
    let volume = volume_size(app, wanted)?;
    check_volume_type(app, wanted).await?;
    check_zone(app, wanted).await?;
    Ok(Found {
        flavor: find_flavor(app, &wanted.flavor).await?,
        network: find_network(app, tenant_id, wanted.network.as_deref()).await?,
        datastore,
        version,
        engine,
        volume,
    })
}

async fn find_flavor(app: &AppState, text: &str) -> Result<Flavor> {
    let unknown = || {
        let shown = coffer_core::name::shown(text);
        Error::new(
            Kind::BadRequest,
            "unknown-flavor",
            format!("Resource {shown} cannot be found."),
        )
        .with_hint("list the flavors and name one by its id")
    };
    let id: FlavorId = text.parse().map_err(|_| unknown())?;
    app.store.find_flavor(&id).await?.ok_or_else(unknown)
}

async fn find_network(app: &AppState, tenant_id: &TenantId, text: Option<&str>) -> Result<Network> {
    let Some(text) = text else {
        return network::default(app, tenant_id).await;
    };
    let unknown = || {
        let shown = coffer_core::name::shown(text);
        let message = format!("Network Resource {shown} cannot be found.");
        Error::new(Kind::BadRequest, "unknown-network", message)
            .with_hint("list the networks and name one by its id, or leave nics out")
    };
    let id: NetworkId = text.parse().map_err(|_| unknown())?;
    app.store
        .find_network(tenant_id, id)
        .await?
        .ok_or_else(unknown)
}

fn volume_size(app: &AppState, wanted: &Wanted) -> Result<VolumeSize> {
    let default = app
        .config
        .volume_gib_default
        .map(|gib| VolumeSize::gib(i64::from(gib)));
    let size = match (wanted.volume, default) {
        (Some(size), _) => size,
        (None, Some(size)) => size?,
        (None, None) => {
            let message = "Volume size was not specified.";
            let error = Error::new(Kind::BadRequest, "volume-missing", message);
            return Err(error.with_hint("give instance['volume']['size'], in GiB"));
        }
    };
    let max = app.config.volume_gib_max;
    if size.as_gib() > max {
        let message = format!(
            "Volume 'size' cannot exceed maximum of {max} GB, {} cannot be accepted.",
            size.as_gib()
        );
        return Err(Error::new(Kind::OverLimit, "volume-too-large", message));
    }
    Ok(size)
}

async fn check_volume_type(app: &AppState, wanted: &Wanted) -> Result<()> {
    let Some(name) = &wanted.volume_type else {
        return Ok(());
    };
    match app.store.find_volume_type(name).await? {
        Some(_) => Ok(()),
        None => {
            let shown = coffer_core::name::shown(name);
            let message = format!("Volume type {shown} cannot be found.");
            Err(Error::new(Kind::BadRequest, "unknown-volume-type", message))
        }
    }
}

async fn check_zone(app: &AppState, wanted: &Wanted) -> Result<()> {
    let Some(name) = &wanted.zone else {
        return Ok(());
    };
    match app.store.find_zone(name).await? {
        Some(_) => Ok(()),
        None => {
            let message = format!(
                "availability zone {} is not known",
                coffer_core::name::shown(name)
            );
            Err(Error::new(Kind::BadRequest, "unknown-zone", message)
                .with_hint("leave availability_zone out, or ask the operator which there are"))
        }
    }
}

/// Every row of the new instance.
fn plan(
    app: &AppState,
    context: &RequestContext,
    instance_id: InstanceId,
    wanted: &Wanted,
    found: &Found,
    secret: Option<StoredSecret>,
) -> Result<NewInstance> {
    let tenant_id = context.tenant_id()?;
    let set_id = SetId::from_uuid(app.new_uuid());
    let server_id = ServerId::from_uuid(app.new_uuid());
    let new = context.new_task(app, tenant_id, instance_id)?;
    let event = context.event(app, &new, "instance.create-asked", asked_in_words(found));
    let set = ReplicationSet {
        id: set_id,
        tenant_id: tenant_id.clone(),
        mode: SetMode::SinglePrimary,
        generation: Generation::default().next(),
        timeline: Timeline::default().next(),
        primary: Some(instance_id),
    };
    Ok(NewInstance {
        instance: instance_row(&new, set_id, wanted, found),
        set,
        endpoint_id: EndpointId::from_uuid(app.new_uuid()),
        endpoint_kind: EndpointKind::Write,
        port: found.engine.port(),
        server: server_row(app, &new, server_id, found),
        volume: volume_row(app, &new, server_id, wanted, found),
        link: None,
        task: create_instance::task(
            new,
            &CreateInstanceInput {
                instance_id,
                set_id,
                commands_secret: secret.as_ref().map(|secret| secret.id),
            },
        ),
        secret,
        charges: charges(found),
        event: Some(event),
    })
}

fn asked_in_words(found: &Found) -> String {
    format!(
        "{} {} with flavor {} and {} GiB was asked for",
        found.datastore.name,
        found.version.name,
        found.flavor.id,
        found.volume.as_gib()
    )
}

fn instance_row(new: &NewTask, set_id: SetId, wanted: &Wanted, found: &Found) -> Instance {
    Instance {
        id: new.instance_id,
        tenant_id: new.tenant_id.clone(),
        set_id,
        spec: InstanceSpec {
            name: wanted.name.clone(),
            flavor_id: found.flavor.id.clone(),
            volume: found.volume,
            volume_type: wanted.volume_type.clone(),
            datastore_version_id: found.version.id,
            network_id: found.network.id,
            zone: wanted.zone.clone(),
            access: wanted.access.clone(),
        },
        lifecycle: Lifecycle::Building,
        health: Health::Unknown,
        incarnation: Incarnation::default().next(),
        fault: None,
        volume_used_bytes: None,
        created_at: new.now,
        updated_at: new.now,
        health_at: new.now,
    }
}

fn server_row(app: &AppState, new: &NewTask, id: ServerId, found: &Found) -> Server {
    Server {
        id,
        tenant_id: new.tenant_id.clone(),
        instance_id: Some(new.instance_id),
        purpose: ServerPurpose::Instance,
        provider: app.config.provider.clone(),
        provider_ref: None,
        incarnation: Incarnation::default().next(),
        host: None,
        roots: found.version.root.clone().into_iter().collect(),
        presence: Presence::Planned,
        created_at: new.now,
    }
}

fn volume_row(
    app: &AppState,
    new: &NewTask,
    server_id: ServerId,
    wanted: &Wanted,
    found: &Found,
) -> Volume {
    Volume {
        id: VolumeId::from_uuid(app.new_uuid()),
        tenant_id: new.tenant_id.clone(),
        instance_id: Some(new.instance_id),
        server_id: Some(server_id),
        role: VolumeRole::Data,
        provider: app.config.provider.clone(),
        provider_ref: None,
        incarnation: Incarnation::default().next(),
        size: found.volume,
        volume_type: wanted.volume_type.clone(),
        parent: None,
        template: found.version.root.clone(),
        presence: Presence::Planned,
        created_at: new.now,
    }
}

fn charges(found: &Found) -> Vec<Amount> {
    [
        (Resource::Instances, 1),
        (Resource::Ram, i64::from(found.flavor.memory_mib)),
        (Resource::Volumes, i64::from(found.volume.as_gib())),
    ]
    .map(|(resource, amount)| Amount { resource, amount })
    .into()
}

fn shown(instance: Instance, found: Found) -> InstanceView {
    InstanceView {
        instance,
        datastore_name: found.datastore.name.as_str().to_owned(),
        version_name: found.version.name.as_str().to_owned(),
        version_number: found.version.number,
        manager: found.version.manager,
        // Addresses are shown from the day the instance answers there.
        network_address: None,
        published: None,
        port: found.engine.port(),
    }
}
