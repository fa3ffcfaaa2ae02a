//! The story of commands for the engine: databases, users, grants, root. They are applied once,
//! one after the other; then the store learns what the engine holds, and the sealed commands,
//! which may hold passwords, are erased.

use async_trait::async_trait;
use coffer_core::event::Severity;
use coffer_core::id::{InstanceId, SecretId, SetId};
use coffer_core::task::{LockMode, LockRequest, PRIORITY_NORMAL, Task};
use coffer_store::Write;
use coffer_store::instance::InstanceGraph;
use coffer_store::inventory::{StoredInventory, StoredUser};
use coffer_wire::guest::v1::Operation;
use serde::{Deserialize, Serialize};

use super::parts::{self, Part};
use super::{Context, NewTask, StepError, StepPolicy, StepResult, Stepped, Workflow};
use crate::vault;

/// Runs commands on an instance's engine.
#[derive(Debug)]
pub struct RunCommands;

/// What it is given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunCommandsInput {
    /// The instance.
    pub instance_id: InstanceId,
    /// Its set.
    pub set_id: SetId,
    /// Sealed JSON list of the commands.
    pub commands_secret: SecretId,
}

/// Its steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// What is to be made is not there yet. Making it twice succeeds, so that a command may be
    /// repeated; only before the first time can it be told whether somebody else made it.
    Check,
    /// One command after the other.
    Run {
        /// Which command.
        index: usize,
    },
    /// The store knows what the engine holds.
    Finish,
    /// The commands are erased all the same.
    MarkFailed,
}

/// The stored task.
pub fn task(new: NewTask, input: &RunCommandsInput) -> Task {
    new.build::<RunCommands>(input, &Step::Check, PRIORITY_NORMAL)
}

#[async_trait]
impl Workflow for RunCommands {
    const NAME: &'static str = "run_commands";
    type Input = RunCommandsInput;
    type Step = Step;
    const STEPS: &'static [Step] = &[
        Step::Check,
        Step::Run { index: 0 },
        Step::Finish,
        Step::MarkFailed,
    ];

    fn locks(&self, input: &RunCommandsInput) -> Vec<LockRequest> {
        vec![
            LockRequest::set(input.set_id, LockMode::Exclusive),
            LockRequest::instance(input.instance_id, LockMode::Exclusive),
        ]
    }

    fn policy(&self, step: &Step) -> StepPolicy {
        match step {
            Step::Check | Step::Run { .. } | Step::Finish => StepPolicy::within(120),
            Step::MarkFailed => StepPolicy::forever(),
        }
    }

    fn undo(&self, step: &Step) -> Option<Step> {
        match step {
            Step::Check | Step::Run { .. } | Step::Finish => Some(Step::MarkFailed),
            Step::MarkFailed => None,
        }
    }

    async fn step(
        &self,
        context: &Context<'_>,
        input: &RunCommandsInput,
        step: Step,
    ) -> StepResult<Step> {
        let graph = context.graph(input.instance_id).await?;
        Ok(match step {
            Step::Check => {
                let commands =
                    vault::open_commands(context.services, input.commands_secret).await?;
                check(context, &graph, &commands).await?
            }
            Step::Run { index } => {
                let commands =
                    vault::open_commands(context.services, input.commands_secret).await?;
                match commands.into_iter().nth(index) {
                    Some(operation) => parts::run_command(context, &graph, index, operation)
                        .await?
                        .then(Step::Run { index: index + 1 }),
                    None => Stepped::next(Step::Finish, Vec::new()),
                }
            }
            Step::Finish => match parts::read_inventory(context, &graph).await? {
                Part::Ready(writes) => finish(context, input, writes).await?,
                waiting @ Part::Waiting(_) => waiting.then(Step::Finish),
            },
            Step::MarkFailed => {
                let error = context.task.error.clone().unwrap_or_default();
                let event = context.event("commands.failed", Severity::Warning, error);
                Stepped::failed(vec![Write::EraseSecret(input.commands_secret), event])
            }
        })
    }
}

/// The message that a database or user is there already.
pub fn exists(kind: &str, name: &str) -> String {
    let name = coffer_core::name::shown(name);
    format!("A {kind} with the name \"{name}\" already exists.")
}

/// Whether a task failed because something was there already.
pub fn is_exists(message: &str) -> bool {
    message.ends_with("already exists.")
}

/// Looks into the engine for what the commands are to make. The store's inventory is no help: it
/// knows nothing of what was made a moment ago.
async fn check(
    context: &Context<'_>,
    graph: &InstanceGraph,
    commands: &[Operation],
) -> Result<Stepped<Step>, StepError> {
    let makes = |c: &Operation| {
        matches!(
            c,
            Operation::CreateDatabases { .. } | Operation::CreateUsers { .. }
        )
    };
    let first = Step::Run { index: 0 };
    if !commands.iter().any(makes) {
        return Ok(Stepped::next(first, Vec::new()));
    }
    let found = match parts::inventory(context, graph).await? {
        Ok(found) => found,
        Err(waiting) => return Ok(waiting.then(Step::Check)),
    };
    match commands.iter().find_map(|command| taken(command, &found)) {
        Some(message) => Err(StepError::fatal(message, "the engine has it")),
        None => Ok(Stepped::next(first, Vec::new())),
    }
}

/// What of a command is there already, in words.
fn taken(command: &Operation, found: &StoredInventory) -> Option<String> {
    match command {
        Operation::CreateDatabases { databases } => databases
            .iter()
            .find(|new| found.databases.iter().any(|one| one.name == new.name))
            .map(|new| exists("database", &new.name)),
        Operation::CreateUsers { users } => users
            .iter()
            .find(|new| {
                let host = new.host.as_deref().filter(|host| !host.is_empty());
                let is_same =
                    |one: &StoredUser| one.name == new.name && one.host == host.unwrap_or("%");
                found.users.iter().any(is_same)
            })
            .map(|new| exists("user", &new.name)),
        Operation::DropDatabase { .. }
        | Operation::ChangeUsers { .. }
        | Operation::DropUser { .. }
        | Operation::Grant { .. }
        | Operation::Revoke { .. }
        | Operation::EnableRoot { .. }
        | Operation::DisableRoot
        | Operation::Restart => None,
    }
}

async fn finish(
    context: &Context<'_>,
    input: &RunCommandsInput,
    mut writes: Vec<Write>,
) -> Result<Stepped<Step>, StepError> {
    let commands = vault::open_commands(context.services, input.commands_secret).await?;
    if commands
        .iter()
        .any(|c| matches!(c, Operation::EnableRoot { .. }))
    {
        writes.push(Write::SetRootEnabled {
            instance_id: input.instance_id,
            at: context.now(),
        });
    }
    let names: Vec<_> = commands.iter().map(Operation::name).collect();
    writes.push(Write::EraseSecret(input.commands_secret));
    writes.push(context.event("commands.done", Severity::Info, names.join(", ")));
    Ok(Stepped::done(writes))
}
