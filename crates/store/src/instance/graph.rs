//! An instance with everything that hangs on it, read as of one moment.

use coffer_core::datastore::{Datastore, DatastoreVersion};
use coffer_core::flavor::{Flavor, VolumeType};
use coffer_core::id::InstanceId;
use coffer_core::instance::{Instance, InstanceSpec};
use coffer_core::network::Network;
use coffer_core::replication::{Endpoint, ReplicationSet};
use coffer_core::server::{Link, Server, Volume};
use coffer_core::units::Turn;

use crate::error::{Result, StoreError};
use crate::row::args;
use crate::sql::{Arg, Row, Tx};
use crate::store::Store;
use crate::{datastore, endpoint, flavor, link, network, server, set, volume, volume_type};

/// An instance with everything a workflow needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceGraph {
    /// The instance, also when it is deleted.
    pub instance: Instance,
    /// Number of the tasks that had it to themselves.
    pub turn: Turn,
    /// Its set; gone once the instance is deleted.
    pub set: Option<ReplicationSet>,
    /// Endpoints of the set.
    pub endpoints: Vec<Endpoint>,
    /// Its servers.
    pub servers: Vec<Server>,
    /// Its volumes.
    pub volumes: Vec<Volume>,
    /// Links of its servers.
    pub links: Vec<Link>,
    /// Its network.
    pub network: Option<Network>,
    /// Its flavor, unless the operator deleted that.
    pub flavor: Option<Flavor>,
    /// Its volume type, if it was asked with one.
    pub volume_type: Option<VolumeType>,
    /// Its datastore version.
    pub version: DatastoreVersion,
    /// Its datastore.
    pub datastore: Datastore,
}

async fn one<T>(
    tx: &mut Tx,
    sql: &'static str,
    args: Vec<Arg>,
    decode: fn(&Row) -> Result<T>,
) -> Result<Option<T>> {
    tx.fetch_optional(sql, args)
        .await?
        .as_ref()
        .map(decode)
        .transpose()
}

async fn all<T>(
    tx: &mut Tx,
    sql: &'static str,
    args: Vec<Arg>,
    decode: fn(&Row) -> Result<T>,
) -> Result<Vec<T>> {
    tx.fetch_all(sql, args).await?.iter().map(decode).collect()
}

async fn read(tx: &mut Tx, id: InstanceId) -> Result<InstanceGraph> {
    let found = one(tx, super::BY_ID, args![id], super::with_turn).await?;
    let (instance, turn) = found.ok_or(StoreError::NotFound { what: "instance" })?;
    let (spec, set_id) = (&instance.spec, instance.set_id);
    let version_id = spec.datastore_version_id;
    let version = one(
        tx,
        datastore::VERSION_BY_ID,
        args![version_id],
        datastore::version,
    )
    .await?;
    let version = version.ok_or(StoreError::NotFound {
        what: "datastore version",
    })?;
    let datastore_id = version.datastore_id;
    let datastore = one(
        tx,
        datastore::DATASTORE_BY_ID,
        args![datastore_id],
        datastore::datastore,
    )
    .await?;
    let datastore = datastore.ok_or(StoreError::NotFound { what: "datastore" })?;
    Ok(InstanceGraph {
        set: one(tx, set::BY_ID, args![set_id], set::set).await?,
        endpoints: all(tx, endpoint::BY_SET, args![set_id], endpoint::endpoint).await?,
        servers: server::servers(&tx.fetch_all(server::BY_INSTANCE, args![id]).await?)?,
        volumes: all(tx, volume::BY_INSTANCE, args![id], volume::volume).await?,
        links: all(tx, link::BY_INSTANCE, args![id], link::link).await?,
        network: one(tx, network::BY_ID, args![spec.network_id], network::network).await?,
        flavor: one(tx, flavor::BY_ID, args![spec.flavor_id], flavor::flavor).await?,
        volume_type: volume_type_of(tx, spec).await?,
        version,
        datastore,
        instance,
        turn,
    })
}

async fn volume_type_of(tx: &mut Tx, spec: &InstanceSpec) -> Result<Option<VolumeType>> {
    let Some(name) = &spec.volume_type else {
        return Ok(None);
    };
    one(
        tx,
        volume_type::BY_NAME,
        args![name],
        volume_type::volume_type,
    )
    .await
}

impl Store {
    /// The instance with all that hangs on it; `NotFound` if it never was.
    pub async fn get_instance_graph(&self, id: InstanceId) -> Result<InstanceGraph> {
        let mut tx = self.db().begin_read().await?;
        let graph = read(&mut tx, id).await;
        tx.roll_back().await?;
        graph
    }
}
