//! Tenant networks and the addresses held in them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use coffer_core::id::{EndpointId, NetworkId, TenantId};
use coffer_core::network::Network;

use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::{Arg, Row, Tx};
use crate::store::Store;

const EXISTS: &str = "network with this name";

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, tenant_id, name, subnet, is_default, created_at FROM networks ",
            $rest
        )
    };
}

macro_rules! insert {
    ($rest:literal) => {
        concat!(
            "INSERT INTO networks (id, tenant_id, name, subnet, is_default, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6) ",
            $rest
        )
    };
}

/// Statement that finds a network by its id.
pub(crate) const BY_ID: &str = select!("WHERE id = $1");
const DEFAULT: &str = select!("WHERE tenant_id = $1 AND is_default = 1");
const BY_NAME: &str = select!("WHERE tenant_id = $1 AND name = $2");

/// A network from a row of `BY_ID`.
pub(crate) fn network(row: &Row) -> Result<Network> {
    let mut row = Reader::new(row, "networks");
    Ok(Network {
        id: row.parse("id")?,
        tenant_id: row.parse("tenant_id")?,
        name: row.name("name")?,
        subnet: row.parse("subnet")?,
        is_default: row.bool("is_default")?,
        created_at: row.time("created_at")?,
    })
}

fn values(network: &Network) -> Vec<Arg> {
    let Network {
        id,
        tenant_id,
        name,
        subnet,
        is_default,
        created_at,
    } = network;
    args![id, tenant_id, name, subnet, is_default, created_at]
}

/// Writes or overwrites a network.
pub(crate) async fn put(tx: &mut Tx, network: &Network) -> Result<()> {
    let sql = insert!(
        "ON CONFLICT (id) DO UPDATE SET name = excluded.name, subnet = excluded.subnet,
            is_default = excluded.is_default"
    );
    tx.execute(sql, values(network))
        .await
        .map(drop)
        .map_err(|error| error.or_exists(EXISTS))
}

/// Writes a network unless it is there. It is the project's default one only if there is none, and
/// gets a name of its own where another of the project has its name.
pub(crate) async fn insert_missing(tx: &mut Tx, network: &Network) -> Result<()> {
    if tx.fetch_optional(BY_ID, args![network.id]).await?.is_some() {
        return Ok(());
    }
    let tenant = args![network.tenant_id];
    let has_default = tx.fetch_optional(DEFAULT, tenant).await?.is_some();
    let named = args![network.tenant_id, network.name];
    let is_taken = tx.fetch_optional(BY_NAME, named).await?.is_some();
    let network = Network {
        is_default: network.is_default && !has_default,
        name: match is_taken {
            true => network.name.beside(&network.id.to_string()),
            false => network.name.clone(),
        },
        ..network.clone()
    };
    put(tx, &network).await
}

/// Takes the lowest free address of the project's network for an endpoint.
pub(crate) async fn take_address(
    tx: &mut Tx,
    tenant_id: &TenantId,
    id: NetworkId,
    endpoint_id: EndpointId,
) -> Result<IpAddr> {
    let row = tx.fetch_optional(BY_ID, args![id]).await?;
    let network = row.as_ref().map(network).transpose()?;
    let network = network.filter(|network| network.tenant_id == *tenant_id);
    let network = network.ok_or(StoreError::NotFound { what: "network" })?;
    let sql = "SELECT address FROM network_addresses WHERE network_id = $1";
    let rows = tx.fetch_all(sql, args![id]).await?;
    let taken = rows
        .iter()
        .map(|row| Reader::new(row, "network_addresses").parse("address"))
        .collect::<Result<BTreeSet<IpAddr>>>()?;
    let address = network
        .free_address(&taken)
        .ok_or_else(|| StoreError::AddressesExhausted {
            range: network.subnet.to_string(),
        })?;
    hold_address(tx, id, address, endpoint_id).await?;
    Ok(address)
}

/// Holds this address for an endpoint, and lets go of any other that it held.
pub(crate) async fn hold_address(
    tx: &mut Tx,
    id: NetworkId,
    address: IpAddr,
    endpoint_id: EndpointId,
) -> Result<()> {
    let exists = |error: StoreError| error.or_exists("endpoint with this address");
    let sql = "DELETE FROM network_addresses WHERE endpoint_id = $3
        AND NOT (network_id = $1 AND address = $2)";
    tx.execute(sql, args![id, address, endpoint_id]).await?;
    let sql = "SELECT endpoint_id FROM network_addresses
        WHERE network_id = $1 AND address = $2 AND endpoint_id = $3";
    if tx
        .fetch_optional(sql, args![id, address, endpoint_id])
        .await?
        .is_some()
    {
        return Ok(());
    }
    let sql = "INSERT INTO network_addresses (network_id, address, endpoint_id)
        VALUES ($1, $2, $3)";
    tx.execute(sql, args![id, address, endpoint_id])
        .await
        .map(drop)
        .map_err(exists)
}

/// Lets go of every address of an endpoint, the published one included.
pub(crate) async fn free_addresses(tx: &mut Tx, endpoint_id: EndpointId) -> Result<()> {
    let sql = "DELETE FROM network_addresses WHERE endpoint_id = $1";
    tx.execute(sql, args![endpoint_id]).await?;
    let sql = "DELETE FROM published_addresses WHERE endpoint_id = $1";
    tx.execute(sql, args![endpoint_id]).await.map(drop)
}

impl Store {
    /// Writes a new network; `AlreadyExists` when its name is taken in the project, or when it is
    /// a second default.
    pub async fn insert_network(&self, network: &Network) -> Result<()> {
        let done = self.db().execute(insert!(""), values(network)).await;
        done.map(drop).map_err(|error| error.or_exists(EXISTS))
    }

    /// All networks of a project by name.
    pub async fn list_networks(&self, tenant_id: &TenantId) -> Result<Vec<Network>> {
        let sql = select!("WHERE tenant_id = $1 ORDER BY name");
        self.db()
            .fetch_all(sql, args![tenant_id])
            .await?
            .iter()
            .map(network)
            .collect()
    }

    /// Every network of every project; for the reconciler.
    pub async fn list_all_networks(&self) -> Result<Vec<Network>> {
        let rows = self.db().fetch_all(select!("ORDER BY id"), args![]).await?;
        rows.iter().map(network).collect()
    }

    /// The project's network with this id.
    pub async fn find_network(
        &self,
        tenant_id: &TenantId,
        id: NetworkId,
    ) -> Result<Option<Network>> {
        let sql = select!("WHERE id = $1 AND tenant_id = $2");
        self.db()
            .fetch_optional(sql, args![id, tenant_id])
            .await?
            .as_ref()
            .map(network)
            .transpose()
    }

    /// The project's default network; writes `candidate` as it when there is none. Atomic: any
    /// number of callers get the same network. `AlreadyExists` when another network that is no
    /// default has the candidate's name.
    pub async fn ensure_default_network(&self, candidate: &Network) -> Result<Network> {
        let tenant = || args![candidate.tenant_id];
        if let Some(row) = self.db().fetch_optional(DEFAULT, tenant()).await? {
            return network(&row);
        }
        let insert = insert!("ON CONFLICT DO NOTHING");
        let candidate = Network {
            is_default: true,
            ..candidate.clone()
        };
        self.db().execute(insert, values(&candidate)).await?;
        match self.db().fetch_optional(DEFAULT, tenant()).await? {
            Some(row) => network(&row),
            None => Err(StoreError::AlreadyExists { what: EXISTS }),
        }
    }

    /// Deletes a network; `InUse` while an address in it is held; succeeds when absent.
    pub async fn delete_network(&self, tenant_id: &TenantId, id: NetworkId) -> Result<()> {
        let sql = "DELETE FROM networks WHERE id = $1 AND tenant_id = $2";
        let done = self.db().execute(sql, args![id, tenant_id]).await;
        done.map(drop).map_err(|error| error.or_in_use("network"))
    }
}
