//! Instances: finding, listing and renaming them. Asking for one, beginning something with one,
//! and ending one are in the files below.

mod begin;
mod certificates;
mod create;
mod delete;
mod graph;
mod managed;

use std::net::IpAddr;

use coffer_core::access::Access;
use coffer_core::id::{InstanceId, TenantId};
use coffer_core::instance::{Fault, Instance, InstanceSpec, Lifecycle};
use coffer_core::name::Name;
use coffer_core::replication::Published;
use coffer_core::time::Timestamp;
use coffer_core::units::{Incarnation, Turn};

pub use begin::{BeginTask, SpecChange};
pub use certificates::Uncertified;
pub use create::NewInstance;
pub use graph::InstanceGraph;
pub use managed::{ManagedFilter, ManagedView};

pub(crate) use begin::{count_turn, set_incarnation, set_lifecycle, set_spec};
pub(crate) use create::insert;
pub(crate) use delete::finish_delete;

use crate::endpoint;
use crate::error::{Result, StoreError};
use crate::row::{Reader, args};
use crate::sql::{Columns, Row};
use crate::store::Store;

/// An instance with what a client is shown beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// The instance.
    pub instance: Instance,
    /// Name of its datastore.
    pub datastore_name: String,
    /// Name of its datastore version.
    pub version_name: String,
    /// The engine's version number.
    pub version_number: String,
    /// Engine that runs it.
    pub manager: String,
    /// Address in its tenant network.
    pub network_address: Option<IpAddr>,
    /// Published address and port.
    pub published: Option<Published>,
    /// The engine's port; 0 when it has no endpoint.
    pub port: u16,
}

/// Which instances to list; deleted ones never.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct InstanceFilter {
    /// Only this project's.
    pub tenant: Option<TenantId>,
}

macro_rules! columns {
    () => {
        "i.id, i.tenant_id, i.set_id, i.name, i.flavor_id, i.volume_gib, i.volume_type, \
         i.datastore_version_id, i.network_id, i.zone, i.is_public, i.allowed_cidrs, \
         i.lifecycle, COALESCE(s.health, 'unknown'), i.incarnation, i.fault_message, \
         i.fault_details, i.fault_at, s.volume_used_bytes, i.created_at, i.updated_at, \
         COALESCE(s.health_at, i.updated_at)"
    };
}

macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            ", i.turn FROM instances i LEFT JOIN statuses s ON s.instance_id = i.id ",
            $rest
        )
    };
}

/// Outer joins only, so that no planner begins with anything but the page of instances.
macro_rules! select_views {
    ($rest:literal) => {
        concat!(
            "SELECT ",
            columns!(),
            ", d.name, v.name, v.number, v.manager, e.network_address, e.published_address, \
             e.published_port, e.port \
             FROM instances i LEFT JOIN statuses s ON s.instance_id = i.id \
             LEFT JOIN datastore_versions v ON v.id = i.datastore_version_id \
             LEFT JOIN datastores d ON d.id = v.datastore_id \
             LEFT JOIN endpoints e ON e.set_id = i.set_id AND e.kind = 'write' \
             WHERE ",
            $rest
        )
    };
}

/// Statement that finds an instance by its id, also a deleted one.
const BY_ID: &str = select!("WHERE i.id = $1");
const PAGE_OF_TENANT: &str =
    select_views!("i.is_deleted = 0 AND i.tenant_id = $1 AND i.id > $2 ORDER BY i.id LIMIT $3");
const PAGE_OF_ALL: &str = select_views!("i.is_deleted = 0 AND i.id > $1 ORDER BY i.id LIMIT $2");
const VIEW: &str = select_views!("i.is_deleted = 0 AND i.id = $1");
/// The same of an instance that may be deleted.
const VIEW_ANY: &str = select_views!("i.id = $1");

fn instance(row: &Row) -> Result<Instance> {
    decode(&mut Reader::new(row, "instances"))
}

/// An instance with the number of the tasks that had it to themselves.
fn with_turn(row: &Row) -> Result<(Instance, Turn)> {
    let mut row = Reader::new(row, "instances");
    Ok((decode(&mut row)?, Turn(row.number("turn")?)))
}

fn decode(row: &mut Reader<'_>) -> Result<Instance> {
    Ok(Instance {
        id: row.parse("id")?,
        tenant_id: row.parse("tenant_id")?,
        set_id: row.parse("set_id")?,
        spec: spec(row)?,
        lifecycle: row.parse("lifecycle")?,
        health: row.parse("health")?,
        incarnation: Incarnation(row.number("incarnation")?),
        fault: fault(row)?,
        volume_used_bytes: row.opt_number("volume_used_bytes")?,
        created_at: row.time("created_at")?,
        updated_at: row.time("updated_at")?,
        health_at: row.time("health_at")?,
    })
}

fn spec(row: &mut Reader<'_>) -> Result<InstanceSpec> {
    Ok(InstanceSpec {
        name: row.name("name")?,
        flavor_id: row.parse("flavor_id")?,
        volume: row.size("volume_gib")?,
        volume_type: row.opt_text("volume_type")?,
        datastore_version_id: row.parse("datastore_version_id")?,
        network_id: row.parse("network_id")?,
        zone: row.opt_text("zone")?,
        access: Access {
            is_public: row.bool("is_public")?,
            allowed_cidrs: row.list("allowed_cidrs")?,
        },
    })
}

fn fault(row: &mut Reader<'_>) -> Result<Option<Fault>> {
    let message = row.opt_text("fault_message")?;
    let details = row.opt_text("fault_details")?;
    let at = row.opt_time("fault_at")?;
    let Some(message) = message else {
        return Ok(None);
    };
    let at = at.ok_or_else(|| row.corrupt("fault_at"))?;
    Ok(Some(Fault {
        message,
        details: details.unwrap_or_default(),
        at,
    }))
}

/// An instance from a row of `PAGE_OF_TENANT`, `PAGE_OF_ALL`, `VIEW` or `VIEW_ANY`.
fn view(columns: Columns<'_>) -> Result<InstanceView> {
    let mut row = Reader::new(columns, "instances");
    Ok(InstanceView {
        instance: decode(&mut row)?,
        datastore_name: row.text("datastore_name")?,
        version_name: row.text("version_name")?,
        version_number: row.text("version_number")?,
        manager: row.text("manager")?,
        network_address: row.opt_parse::<IpAddr>("network_address")?,
        published: endpoint::published(&mut row)?,
        port: row.opt_number("port")?.unwrap_or_default(),
    })
}

impl Store {
    /// A page of instances by id, after `marker`, and whether there are more. Its cost depends on
    /// `limit`, not on how many instances there are.
    pub async fn list_instances(
        &self,
        filter: &InstanceFilter,
        marker: Option<InstanceId>,
        limit: u32,
    ) -> Result<(Vec<InstanceView>, bool)> {
        let after = marker.map(|id| id.to_string()).unwrap_or_default();
        // One row more than the page tells whether there is another page.
        let count = u64::from(limit) + 1;
        let (sql, args) = match &filter.tenant {
            Some(tenant) => (PAGE_OF_TENANT, args![tenant, after, count]),
            None => (PAGE_OF_ALL, args![after, count]),
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        self.db().fetch_short(sql, args, limit, view).await
    }

    /// The instance with this id, of the project if one is given; not a deleted one.
    pub async fn get_instance_view(
        &self,
        tenant: Option<&TenantId>,
        id: InstanceId,
    ) -> Result<Option<InstanceView>> {
        let (mut found, _) = self.db().fetch_short(VIEW, args![id], 1, view).await?;
        let found = found.pop();
        Ok(found.filter(|view| tenant.is_none_or(|tenant| view.instance.tenant_id == *tenant)))
    }

    /// The instance with this id; not a deleted one.
    pub async fn find_instance(&self, id: InstanceId) -> Result<Option<Instance>> {
        let sql = select!("WHERE i.id = $1 AND i.is_deleted = 0");
        self.db()
            .fetch_optional(sql, args![id])
            .await?
            .as_ref()
            .map(instance)
            .transpose()
    }

    /// Id, project and lifecycle of all instances that are not deleted, by id; for periodic work.
    pub async fn list_instance_ids(&self) -> Result<Vec<(InstanceId, TenantId, Lifecycle)>> {
        let sql = "SELECT id, tenant_id, lifecycle FROM instances WHERE is_deleted = 0
            ORDER BY id";
        let short = |row| {
            let mut row = Reader::new(row, "instances");
            Ok((
                row.parse("id")?,
                row.parse("tenant_id")?,
                row.parse("lifecycle")?,
            ))
        };
        self.db()
            .fetch_all(sql, args![])
            .await?
            .iter()
            .map(short)
            .collect()
    }

    /// Gives an instance of the project another name.
    pub async fn rename_instance(
        &self,
        id: InstanceId,
        tenant_id: &TenantId,
        name: &Name,
        now: Timestamp,
    ) -> Result<()> {
        let sql = "UPDATE instances SET name = $3, updated_at = $4
            WHERE id = $1 AND tenant_id = $2 AND is_deleted = 0";
        match self
            .db()
            .execute(sql, args![id, tenant_id, name, now])
            .await?
        {
            0 => Err(StoreError::NotFound { what: "instance" }),
            _ => Ok(()),
        }
    }
}
