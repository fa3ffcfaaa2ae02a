//! What is removed once it is old: history alone, a bounded number of rows at a time.
//!
//! Never what lives: of an instance that is there, the newest task of each workflow and end stays
//! however old it is, because certificates, pauses between recoveries and `explain` ask for it.

use coffer_core::time::Timestamp;

use crate::error::Result;
use crate::row::args;
use crate::store::Store;

/// Lines of the history of a task that has not ended which stay however old they are.
const STEPS_KEPT: u64 = 100;

impl Store {
    /// Removes at most `limit` tasks that ended before, with their history; gives their number.
    pub async fn delete_old_tasks(&self, before: Timestamp, limit: u32) -> Result<u64> {
        let sql = "DELETE FROM tasks WHERE id IN (SELECT t.id FROM tasks t
            WHERE t.state IN ('done', 'failed', 'cancelled') AND t.updated_at < $1
                AND (NOT EXISTS (SELECT i.id FROM instances i
                        WHERE i.id = t.instance_id AND i.is_deleted = 0)
                    OR EXISTS (SELECT o.id FROM tasks o
                        WHERE o.instance_id = t.instance_id AND o.workflow = t.workflow
                            AND o.state = t.state AND (o.created_at > t.created_at
                                OR (o.created_at = t.created_at AND o.id > t.id))))
            ORDER BY t.updated_at LIMIT $2)";
        self.db().execute(sql, args![before, limit]).await
    }

    /// Removes at most `limit` old lines from the histories of tasks that go on and on; gives
    /// their number.
    pub async fn delete_old_steps(&self, before: Timestamp, limit: u32) -> Result<u64> {
        let sql = "DELETE FROM task_steps WHERE (task_id, version) IN
            (SELECT s.task_id, s.version FROM task_steps s JOIN tasks t ON t.id = s.task_id
                WHERE t.state NOT IN ('done', 'failed', 'cancelled') AND s.at < $1
                    AND s.version < t.version - $2
                ORDER BY s.task_id, s.version LIMIT $3)";
        let args = args![before, STEPS_KEPT, limit];
        self.db().execute(sql, args).await
    }

    /// Removes at most `limit` events of before; gives their number.
    pub async fn delete_old_events(&self, before: Timestamp, limit: u32) -> Result<u64> {
        let sql = "DELETE FROM events WHERE id IN
            (SELECT id FROM events WHERE at < $1 ORDER BY at LIMIT $2)";
        self.db().execute(sql, args![before, limit]).await
    }

    /// Removes at most `limit` lines of the audit trail of before; gives their number.
    pub async fn delete_old_audit(&self, before: Timestamp, limit: u32) -> Result<u64> {
        let sql = "DELETE FROM audit WHERE id IN
            (SELECT id FROM audit WHERE at < $1 ORDER BY at LIMIT $2)";
        self.db().execute(sql, args![before, limit]).await
    }

    /// Removes at most `limit` rows of instances that were deleted before and that nothing names
    /// any more; gives their number.
    pub async fn delete_old_instances(&self, before: Timestamp, limit: u32) -> Result<u64> {
        let sql = "DELETE FROM instances WHERE id IN (SELECT i.id FROM instances i
            WHERE i.is_deleted = 1 AND i.deleted_at < $1
                AND NOT EXISTS (SELECT x.id FROM tasks x WHERE x.instance_id = i.id)
                AND NOT EXISTS (SELECT x.id FROM events x WHERE x.instance_id = i.id)
                AND NOT EXISTS (SELECT x.id FROM servers x WHERE x.instance_id = i.id)
                AND NOT EXISTS (SELECT x.id FROM volumes x WHERE x.instance_id = i.id)
                AND NOT EXISTS (SELECT x.id FROM backups x WHERE x.instance_id = i.id)
                AND NOT EXISTS (SELECT x.id FROM schedules x WHERE x.instance_id = i.id)
                AND NOT EXISTS (SELECT x.resource FROM charges x WHERE x.instance_id = i.id)
            ORDER BY i.deleted_at LIMIT $2)";
        self.db().execute(sql, args![before, limit]).await
    }
}
