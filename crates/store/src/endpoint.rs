//! Endpoints of sets, and published addresses.

use std::collections::BTreeSet;
use std::net::IpAddr;

use coffer_core::access::Cidr;
use coffer_core::id::EndpointId;
use coffer_core::replication::{Endpoint, Published};

use crate::error::{Result, StoreError};
use crate::network::{free_addresses, hold_address};
use crate::row::{Reader, args, list_text};
use crate::sql::{Row, Tx, transact};
use crate::store::Store;

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT id, set_id, kind, network_id, network_address, port, published_address, \
             published_port, allowed_cidrs, target_instance_id FROM endpoints ",
            $rest
        )
    };
}

/// Statement that lists the endpoints of a set.
pub(crate) const BY_SET: &str = select!("WHERE set_id = $1 ORDER BY kind DESC, id");

/// An endpoint from a row of `BY_SET`.
pub(crate) fn endpoint(row: &Row) -> Result<Endpoint> {
    let mut row = Reader::new(row, "endpoints");
    Ok(Endpoint {
        id: row.parse("id")?,
        set_id: row.parse("set_id")?,
        kind: row.parse("kind")?,
        network_id: row.parse("network_id")?,
        network_address: row.parse("network_address")?,
        port: row.number("port")?,
        published: published(&mut row)?,
        allowed_cidrs: row.list("allowed_cidrs")?,
        target: row.opt_parse("target_instance_id")?,
    })
}

/// The published form from its two columns.
pub(crate) fn published(row: &mut Reader<'_>) -> Result<Option<Published>> {
    let address = row.opt_parse("published_address")?;
    let port = row.opt_number("published_port")?;
    Ok(address
        .zip(port)
        .map(|(address, port)| Published { address, port }))
}

/// Writes or overwrites an endpoint and holds its network address.
pub(crate) async fn put(tx: &mut Tx, endpoint: &Endpoint) -> Result<()> {
    let e = endpoint;
    hold_address(tx, e.network_id, e.network_address, e.id).await?;
    let sql = "INSERT INTO endpoints (id, set_id, kind, network_id, network_address, port,
            published_address, published_port, allowed_cidrs, target_instance_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (id) DO UPDATE SET set_id = excluded.set_id, kind = excluded.kind,
            network_id = excluded.network_id, network_address = excluded.network_address,
            port = excluded.port, published_address = excluded.published_address,
            published_port = excluded.published_port, allowed_cidrs = excluded.allowed_cidrs,
            target_instance_id = excluded.target_instance_id";
    let published = e.published;
    let args = args![
        e.id,
        e.set_id,
        e.kind,
        e.network_id,
        e.network_address,
        e.port,
        published.map(|p| p.address),
        published.map(|p| p.port),
        list_text(&e.allowed_cidrs),
        e.target
    ];
    let done = tx.execute(sql, args).await.map(drop);
    done.map_err(|error| {
        error
            .or_exists("write endpoint of the set")
            .or_missing("set")
    })
}

/// Removes an endpoint and frees its addresses.
pub(crate) async fn delete(tx: &mut Tx, id: EndpointId) -> Result<()> {
    free_addresses(tx, id).await?;
    tx.execute("DELETE FROM endpoints WHERE id = $1", args![id])
        .await
        .map(drop)
}

/// The lowest address of the pool that nobody has. The first and the last are left out of pools
/// that have more than two.
fn free_in_pool(pool: &Cidr, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let is_small = pool.nth(2).is_none();
    let first = u32::from(!is_small);
    (first..u32::MAX)
        .map_while(|n| {
            pool.nth(n)
                .filter(|_| is_small || pool.nth(n + 1).is_some())
        })
        .find(|address| !taken.contains(address))
}

async fn take_published(tx: &mut Tx, id: EndpointId, pool: &Cidr) -> Result<IpAddr> {
    let sql = "SELECT address, endpoint_id FROM published_addresses";
    let mut taken = BTreeSet::new();
    for row in tx.fetch_all(sql, args![]).await? {
        let mut row = Reader::new(&row, "published_addresses");
        let address: IpAddr = row.parse("address")?;
        if row.parse::<EndpointId>("endpoint_id")? == id {
            return Ok(address);
        }
        taken.insert(address);
    }
    let address = free_in_pool(pool, &taken).ok_or_else(|| StoreError::AddressesExhausted {
        range: pool.to_string(),
    })?;
    let sql = "INSERT INTO published_addresses (address, pool, endpoint_id) VALUES ($1, $2, $3)";
    tx.execute(sql, args![address, pool, id]).await?;
    Ok(address)
}

impl Store {
    /// The endpoint with this id.
    pub async fn find_endpoint(&self, id: EndpointId) -> Result<Option<Endpoint>> {
        let row = self
            .db()
            .fetch_optional(select!("WHERE id = $1"), args![id])
            .await?;
        row.as_ref().map(endpoint).transpose()
    }

    /// Every endpoint; for the reconciler.
    pub async fn list_endpoints(&self) -> Result<Vec<Endpoint>> {
        let rows = self.db().fetch_all(select!("ORDER BY id"), args![]).await?;
        rows.iter().map(endpoint).collect()
    }

    /// The address of `pool` that belongs to the endpoint: the one it has, or the lowest free one.
    /// It stays the same until the endpoint is deleted or `free_published` is called, also when
    /// the pool becomes another.
    pub async fn allocate_published(&self, endpoint_id: EndpointId, pool: Cidr) -> Result<IpAddr> {
        transact!(self, tx => take_published(&mut tx, endpoint_id, &pool).await)
    }

    /// Gives an endpoint's published address back; succeeds when it has none.
    pub async fn free_published(&self, endpoint_id: EndpointId) -> Result<()> {
        let sql = "DELETE FROM published_addresses WHERE endpoint_id = $1";
        self.db().execute(sql, args![endpoint_id]).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_out_each_usable_address_once() {
        for (pool, count) in [("10.1.0.0/29", 6), ("10.1.0.7/32", 1), ("10.1.0.6/31", 2)] {
            let pool: Cidr = pool.parse().unwrap();
            let mut taken = BTreeSet::new();
            while let Some(address) = free_in_pool(&pool, &taken) {
                assert!(taken.insert(address), "{address} of {pool} twice");
            }
            assert_eq!(taken.len(), count, "{pool}");
        }
    }
}
