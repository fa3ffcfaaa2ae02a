//! Ending an instance: its row stays as history, everything that hung on it goes.

use coffer_core::id::{EndpointId, InstanceId, SetId};
use coffer_core::time::Timestamp;

use crate::error::Result;
use crate::row::{Reader, args};
use crate::sql::Tx;
use crate::{endpoint, inventory, quota};

/// Marks an instance deleted, frees its addresses and quota, and removes what hung on it; the
/// volumes that are left outlive it. Repeating it changes nothing.
pub(crate) async fn finish_delete(tx: &mut Tx, id: InstanceId, at: Timestamp) -> Result<()> {
    let sql = "UPDATE instances SET is_deleted = 1, lifecycle = 'deleted', deleted_at = $2,
            updated_at = $2
        WHERE id = $1 AND is_deleted = 0 RETURNING id, set_id";
    let Some(row) = tx.fetch_optional(sql, args![id, at]).await? else {
        return Ok(());
    };
    let set_id = Reader::at(&row, "instances", 1).parse("set_id")?;
    leave_set(tx, set_id, id).await?;
    quota::release(tx, id).await?;
    inventory::delete(tx, id).await?;
    for sql in [
        "DELETE FROM servers WHERE instance_id = $1",
        "DELETE FROM statuses WHERE instance_id = $1",
        "DELETE FROM secrets WHERE instance_id = $1",
    ] {
        tx.execute(sql, args![id]).await?;
    }
    Ok(())
}

/// Takes an instance out of its set; the last one takes the set and its endpoints with it.
async fn leave_set(tx: &mut Tx, set_id: SetId, id: InstanceId) -> Result<()> {
    let others = "SELECT id FROM instances WHERE set_id = $1 AND is_deleted = 0 LIMIT 1";
    if tx.fetch_optional(others, args![set_id]).await?.is_some() {
        for sql in [
            "UPDATE sets SET primary_instance_id = NULL
                WHERE id = $1 AND primary_instance_id = $2",
            "UPDATE endpoints SET target_instance_id = NULL
                WHERE set_id = $1 AND target_instance_id = $2",
        ] {
            tx.execute(sql, args![set_id, id]).await?;
        }
        return Ok(());
    }
    let sql = "SELECT id FROM endpoints WHERE set_id = $1";
    for row in tx.fetch_all(sql, args![set_id]).await? {
        let id: EndpointId = Reader::new(&row, "endpoints").parse("id")?;
        endpoint::delete(tx, id).await?;
    }
    tx.execute("DELETE FROM sets WHERE id = $1", args![set_id])
        .await
        .map(drop)
}
