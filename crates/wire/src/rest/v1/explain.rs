//! Why an instance is as it is: in words first, then in fields.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::rest::v1::instance::InstanceFault;

/// Answer of `GET /instances/{id}/explain`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ExplainEnvelope {
    /// The explanation.
    pub explanation: Explanation,
}

/// Why an instance is as it is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The instance.
    pub instance_id: String,
    /// Its name.
    pub name: String,
    /// The whole of it in sentences, the most important first.
    pub summary: String,
    /// Trove's word.
    pub status: String,
    /// Trove's second word.
    pub operating_status: String,
    /// What Coffer does with it.
    pub lifecycle: String,
    /// What its guest says of the engine.
    pub health: String,
    /// When the health last changed.
    pub health_since: String,
    /// Why it is in ERROR.
    pub fault: Option<InstanceFault>,
    /// What works on it now.
    pub task: Option<TaskView>,
    /// The tasks that block that one, nearest first, root cause last.
    pub blocked_by: Vec<TaskView>,
    /// The last steps of that task, oldest first.
    pub history: Vec<StepView>,
    /// What its guest said last of an engine that crashed or does not answer.
    pub trouble: Option<String>,
    /// What its host cannot enforce (limits, volume sizes), where the API runs beside the provider.
    pub not_enforced: Vec<String>,
}

/// A task and why it waits.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TaskView {
    /// Its id.
    pub id: String,
    /// Its workflow.
    pub workflow: String,
    /// Its state.
    pub state: String,
    /// Its step.
    pub step: String,
    /// Tries of the step.
    pub attempt: u32,
    /// Instance it works on.
    pub instance_id: Option<String>,
    /// Why it waits, if it does.
    pub wait: Option<WaitView>,
    /// When the step began.
    pub step_since: String,
    /// When the step must have ended.
    pub deadline: Option<String>,
    /// Why it failed or undoes, if so.
    pub error: Option<String>,
}

/// Why a task waits.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct WaitView {
    /// Stable code.
    pub reason: String,
    /// In words.
    pub message: String,
    /// Who can end the wait.
    pub unblocked_by: String,
    /// Since when.
    pub since: String,
}

/// A step that ran.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// The step.
    pub step: String,
    /// What came of it.
    pub outcome: String,
    /// Why, in words.
    pub message: String,
    /// How long it took; unit: milliseconds.
    pub took_ms: i64,
    /// When.
    pub at: String,
}
