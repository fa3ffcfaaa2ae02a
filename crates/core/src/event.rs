//! What happened: an instance's own history, and the audit trail.

use crate::actor::Actor;
use crate::id::{AuditId, EventId, InstanceId, TaskId, TenantId};
use crate::time::Timestamp;
use crate::word_enum;

word_enum! {
    /// How much an event matters.
    Severity, "severity" {
        /// Something changed as intended.
        Info = "info",
        /// Something failed and work goes on.
        Warning = "warning",
        /// A human should look.
        Error = "error",
    }
}

/// One line of an instance's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id, growing with time.
    pub id: EventId,
    /// Project of the instance.
    pub tenant_id: TenantId,
    /// Instance it is about.
    pub instance_id: Option<InstanceId>,
    /// Task that wrote it.
    pub task_id: Option<TaskId>,
    /// Stable code (`instance.created`, `step.waiting`).
    pub code: String,
    /// How much it matters.
    pub severity: Severity,
    /// What happened, in words.
    pub message: String,
    /// Who asked.
    pub actor: Option<Actor>,
    /// When.
    pub at: Timestamp,
}

/// One line of the audit trail: who did what to which object, with which result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its id, growing with time.
    pub id: AuditId,
    /// Who.
    pub actor: Actor,
    /// What: Trove's policy name (`instance:create`).
    pub action: String,
    /// To which object.
    pub target: String,
    /// HTTP status that was answered; [`Self::UNKNOWN`] until then.
    pub outcome: u16,
    /// When.
    pub at: Timestamp,
}

impl AuditEntry {
    /// Outcome of what is under way, or was when Coffer ended.
    pub const UNKNOWN: u16 = 0;
}
