//! Instances as the operator lists them: of all projects, deleted ones too, with their server and
//! volume, the ones that changed last first.

use coffer_core::id::{InstanceId, TenantId, UserId};
use coffer_core::server::{Server, ServerPurpose, Volume, VolumeRole};
use coffer_core::time::Timestamp;

use super::{InstanceView, VIEW_ANY, view};
use crate::error::Result;
use crate::row::{Reader, args};
use crate::sql::{Row, Tx};
use crate::store::Store;
use crate::{server, volume};

/// Which instances to list.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ManagedFilter {
    /// Only this project's.
    pub tenant: Option<TenantId>,
    /// Only deleted ones, or only those that are not.
    pub is_deleted: Option<bool>,
}

/// An instance with what the operator is shown beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManagedView {
    /// The instance as its project is shown it.
    pub view: InstanceView,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// When root was first enabled, and by whom, as far as that is known.
    pub root_enabled: Option<(Timestamp, Option<UserId>)>,
    /// The server that runs it.
    pub server: Option<Server>,
    /// The volume with its data.
    pub volume: Option<Volume>,
}

const PAGE: &str = "SELECT id FROM instances
    WHERE ($1 = '' OR tenant_id = $1) AND ($2 < 0 OR is_deleted = $2)
    ORDER BY updated_at DESC, id DESC LIMIT $3 OFFSET $4";

async fn read(tx: &mut Tx, id: InstanceId) -> Result<Option<ManagedView>> {
    let Some(found) = tx.fetch_optional(VIEW_ANY, args![id]).await? else {
        return Ok(None);
    };
    let view = view((&found).into())?;
    let sql = "SELECT id, deleted_at, root_enabled_at FROM instances WHERE id = $1";
    let Some(row) = tx.fetch_optional(sql, args![id]).await? else {
        return Ok(None);
    };
    let (deleted_at, root_enabled_at) = times(&row)?;
    let root_enabled = match root_enabled_at {
        Some(at) => Some((at, root_enabled_by(tx, id).await?)),
        None => None,
    };
    let servers = server::servers(&tx.fetch_all(server::BY_INSTANCE, args![id]).await?)?;
    let volumes = tx.fetch_all(volume::BY_INSTANCE, args![id]).await?;
    let volumes = volumes
        .iter()
        .map(volume::volume)
        .collect::<Result<Vec<_>>>()?;
    Ok(Some(ManagedView {
        view,
        deleted_at,
        root_enabled,
        server: servers
            .into_iter()
            .find(|s| s.purpose == ServerPurpose::Instance),
        volume: volumes.into_iter().find(|v| v.role == VolumeRole::Data),
    }))
}

/// When it was deleted, and when root was first enabled.
fn times(row: &Row) -> Result<(Option<Timestamp>, Option<Timestamp>)> {
    let mut row = Reader::at(row, "instances", 1);
    Ok((
        row.opt_time("deleted_at")?,
        row.opt_time("root_enabled_at")?,
    ))
}

/// Who enabled root first, by the instance's history.
async fn root_enabled_by(tx: &mut Tx, id: InstanceId) -> Result<Option<UserId>> {
    let sql = "SELECT id, actor_user_id FROM events WHERE instance_id = $1
            AND code = 'commands.done' AND message LIKE '%enable-root%' ORDER BY id LIMIT 1";
    let row = tx.fetch_optional(sql, args![id]).await?;
    let user = row.map(|row| Reader::at(&row, "events", 1).opt_parse("actor_user_id"));
    Ok(user.transpose()?.flatten())
}

impl Store {
    /// A page of instances by their last change, newest first, after `offset` others.
    pub async fn list_managed(
        &self,
        filter: &ManagedFilter,
        offset: u64,
        limit: u32,
    ) -> Result<Vec<ManagedView>> {
        let tenant = filter
            .tenant
            .as_ref()
            .map_or("", |id| id.as_str())
            .to_owned();
        let is_deleted = filter.is_deleted.map_or(-1, i64::from);
        let mut tx = self.db().begin_read().await?;
        let page = async {
            let args = args![tenant, is_deleted, limit, offset];
            let mut all = Vec::new();
            for row in tx.fetch_all(PAGE, args).await? {
                let id = Reader::new(&row, "instances").parse("id")?;
                all.extend(read(&mut tx, id).await?);
            }
            Ok(all)
        }
        .await;
        tx.roll_back().await?;
        page
    }

    /// The instance with this id, also a deleted one.
    pub async fn get_managed(&self, id: InstanceId) -> Result<Option<ManagedView>> {
        let mut tx = self.db().begin_read().await?;
        let found = read(&mut tx, id).await;
        tx.roll_back().await?;
        found
    }
}
