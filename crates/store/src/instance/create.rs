//! Asking for an instance: one transaction that writes all of it or nothing.

use coffer_core::event::Event;
use coffer_core::id::EndpointId;
use coffer_core::instance::Instance;
use coffer_core::quota::{Amount, Resource};
use coffer_core::replication::{Endpoint, EndpointKind, ReplicationSet};
use coffer_core::server::{Link, Server, Volume};
use coffer_core::task::Task;

use crate::error::Result;
use crate::row::{args, list_text};
use crate::secret::StoredSecret;
use crate::sql::{Tx, transact};
use crate::store::Store;
use crate::{endpoint, event, link, network, quota, secret, server, set, status, task, volume};

/// Everything that is written when an instance is asked for, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewInstance {
    /// The instance; its set and network are named in it. Whether its endpoint is to be
    /// published, and for whom, is in its `spec.access`.
    pub instance: Instance,
    /// The set it is alone in.
    pub set: ReplicationSet,
    /// Id of the set's endpoint, which gets a free address of the network.
    pub endpoint_id: EndpointId,
    /// Writes or reads.
    pub endpoint_kind: EndpointKind,
    /// The engine's port.
    pub port: u16,
    /// Its server, planned.
    pub server: Server,
    /// Its data volume, planned.
    pub volume: Volume,
    /// The way into the server; none if a step of the workflow is to write it.
    pub link: Option<Link>,
    /// The task that makes it.
    pub task: Task,
    /// What the task needs and only it may read; kept until the task erases it.
    pub secret: Option<StoredSecret>,
    /// What it takes of the project's quotas; given back when it is gone.
    pub charges: Vec<Amount>,
    /// What its history begins with.
    pub event: Option<Event>,
}

/// Writes the row of a new instance.
pub(crate) async fn insert(tx: &mut Tx, instance: &Instance) -> Result<()> {
    let sql = "INSERT INTO instances (id, tenant_id, set_id, name, flavor_id, volume_gib,
            volume_type, datastore_version_id, network_id, zone, is_public, allowed_cidrs,
            is_protected, lifecycle, incarnation, is_deleted, created_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, 0, $13, $14, 0, $15, $16)";
    let (i, spec) = (instance, &instance.spec);
    let mut args = args![
        i.id,
        i.tenant_id,
        i.set_id,
        spec.name,
        spec.flavor_id,
        spec.volume
    ];
    args.extend(args![
        spec.volume_type,
        spec.datastore_version_id,
        spec.network_id,
        spec.zone
    ]);
    args.extend(args![
        spec.access.is_public,
        list_text(&spec.access.allowed_cidrs)
    ]);
    args.extend(args![
        i.lifecycle,
        i.incarnation,
        i.created_at,
        i.updated_at
    ]);
    let done = tx.execute(sql, args).await.map(drop);
    done.map_err(|e| {
        e.or_exists("instance with this id")
            .or_missing("datastore version")
    })
}

async fn create(
    tx: &mut Tx,
    new: &NewInstance,
    default_limit: impl Fn(Resource) -> i64 + Copy + Send + Sync,
) -> Result<()> {
    let NewInstance {
        instance,
        endpoint_id,
        ..
    } = new;
    let (id, tenant_id, network_id) = (instance.id, &instance.tenant_id, instance.spec.network_id);
    let address = network::take_address(tx, tenant_id, network_id, *endpoint_id).await?;
    set::insert(tx, &new.set).await?;
    insert(tx, instance).await?;
    quota::charge(tx, tenant_id, id, &new.charges, default_limit).await?;
    status::insert(tx, instance).await?;
    let endpoint = Endpoint {
        id: *endpoint_id,
        set_id: new.set.id,
        kind: new.endpoint_kind,
        network_id,
        network_address: address,
        port: new.port,
        published: None,
        allowed_cidrs: instance.spec.access.allowed_cidrs.clone(),
        target: Some(id),
    };
    endpoint::put(tx, &endpoint).await?;
    server::put(tx, &new.server).await?;
    volume::put(tx, &new.volume).await?;
    if let Some(link) = &new.link {
        link::put(tx, link).await?;
    }
    if let Some(event) = &new.event {
        event::insert(tx, event).await?;
    }
    if let Some(secret) = &new.secret {
        secret::put(tx, secret).await?;
    }
    task::insert(tx, &new.task).await
}

impl Store {
    /// Writes an instance with all that belongs to it: checks and takes quota, takes a free
    /// address of the network for its endpoint, enqueues its task. `NotFound` when the network is
    /// none of the project's; on `QuotaExceeded` nothing is written.
    pub async fn create_instance(
        &self,
        new: &NewInstance,
        default_limit: impl Fn(Resource) -> i64 + Copy + Send + Sync,
    ) -> Result<Instance> {
        let done: Result<()> = transact!(self, tx => {
            create(&mut tx, new, default_limit).await
        });
        done.map(|()| new.instance.clone())
    }
}
