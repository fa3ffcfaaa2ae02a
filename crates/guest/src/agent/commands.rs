//! Commands: each id applied once, its outcome remembered.
//!
//! A command that runs when the agent dies is unknown to the next one; the control side sends it
//! again, which is safe because every operation is idempotent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use coffer_core::secret::Secret;
use coffer_engines::EngineError;
use coffer_engines::runtime as engine;
use coffer_wire::guest::v1::{Command, CommandState, EngineHealth, Operation};
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};
use tokio::task::AbortHandle;

use crate::agent::Shared;
use crate::agent::routes::{Answer, Refused};
use crate::agent::store::{Fenced, Memory};
use crate::error::GuestError;
use crate::limits;
use crate::log;

/// A command that runs.
#[derive(Debug)]
struct Running {
    task: Option<AbortHandle>,
    ended: watch::Receiver<bool>,
}

/// Commands that run.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    running: Mutex<HashMap<String, Running>>,
    /// One at a time: they change the same catalogs.
    turn: AsyncMutex<()>,
}

impl Commands {
    /// Waits for the turn to change the engine's catalogs.
    pub(crate) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts a command, or tells where it stands if its id is known.
pub(crate) async fn start(shared: &Arc<Shared>, command: Command) -> Answer<CommandState> {
    if command.id.is_empty() || command.id.len() > limits::ID_BYTES_MAX {
        return Err(Refused::bad_request("a command's id has 1 to 64 bytes"));
    }
    fence(shared, &command).await?;
    if let Some(state) = find(shared, &command.id).await {
        return Ok(state);
    }
    let (ended_sender, ended) = watch::channel(false);
    let id = command.id.clone();
    {
        let mut running = shared.commands.running();
        if running.len() >= limits::COMMANDS_RUNNING_MAX {
            return Err(Refused::busy("too many commands run"));
        }
        running.insert(id.clone(), Running { task: None, ended });
    }
    let task = shared
        .tasks
        .start(run(Arc::clone(shared), command, ended_sender));
    if let Some(known) = shared.commands.running().get_mut(&id) {
        known.task = Some(task);
    }
    Ok(CommandState::Running)
}

async fn fence(shared: &Shared, command: &Command) -> Answer<()> {
    let fenced = shared
        .store
        .change(|memory| memory.fence(&command.fencing))
        .await;
    match fenced.map_err(|error| Refused::failed(&error))? {
        Ok(_) => Ok(()),
        Err(Fenced::OlderGeneration) => Err(Refused::older("a newer generation is known")),
        Err(Fenced::OlderTask) => Err(Refused::older("a newer version of this task is known")),
    }
}

/// Where a command stands.
pub(crate) async fn find(shared: &Shared, id: &str) -> Option<CommandState> {
    if shared.commands.running().contains_key(id) {
        return Some(CommandState::Running);
    }
    shared
        .store
        .look(|memory| memory.outcome(id).cloned())
        .await
}

/// Where a command stands when it has ended, or after `wait`.
pub(crate) async fn wait(shared: &Shared, id: &str, wait: Duration) -> Option<CommandState> {
    let ended = shared
        .commands
        .running()
        .get(id)
        .map(|running| running.ended.clone());
    if let Some(mut ended) = ended {
        // Whether it ended or not is looked up below.
        tokio::time::timeout(wait, ended.wait_for(|ended| *ended))
            .await
            .map(|_| ())
            .unwrap_or(());
    }
    find(shared, id).await
}

/// Stops a running command, forgets an ended one.
pub(crate) async fn forget(shared: &Shared, id: &str) -> Answer<()> {
    if let Some(running) = shared.commands.running().remove(id)
        && let Some(task) = running.task
    {
        task.abort();
    }
    let remove = |memory: &mut Memory| -> Result<(), GuestError> {
        memory.commands.retain(|(known, _)| known != id);
        Ok(())
    };
    let removed = shared
        .store
        .change(remove)
        .await
        .and_then(|removed| removed);
    removed.map_err(|error| Refused::failed(&error))
}

async fn run(shared: Arc<Shared>, command: Command, ended: watch::Sender<bool>) {
    let name = command.operation.name();
    let time = Duration::from_millis(command.timeout_ms).min(limits::COMMAND_MAX);
    let work = async {
        let _turn = shared.commands.turn().await;
        until_engine_answers(&shared, &command.operation).await
    };
    let state = match tokio::time::timeout(time, work).await {
        Ok(Ok(())) => CommandState::Done,
        Ok(Err(error)) => failed(&error),
        Err(_) => CommandState::Failed {
            reason: "timeout".to_owned(),
            message: format!("{name} took longer than {} ms", command.timeout_ms),
        },
    };
    if let CommandState::Failed { message, .. } = &state {
        log::warn(format_args!("command {} ({name}): {message}", command.id));
    }
    let conclude = |memory: &mut Memory| -> Result<(), GuestError> {
        memory.conclude(&command.id, state);
        Ok(())
    };
    if let Err(error) = shared.store.change(conclude).await {
        // Unknown from now on: the control side sends it again.
        log::warn(format_args!("remember command {}: {error}", command.id));
    }
    shared.commands.running().remove(&command.id);
    ended.send_replace(true);
    shared.probe_now.notify_one();
}

/// Applies an operation; while the engine is down, waits for it. The caller bounds the time.
async fn until_engine_answers(shared: &Shared, operation: &Operation) -> Result<(), EngineError> {
    if matches!(operation, Operation::Restart) {
        return restart(shared).await;
    }
    let mut status = shared.status.watch();
    loop {
        let is_settled = |health| matches!(health, EngineHealth::Healthy | EngineHealth::Stopped);
        let health = match status.wait_for(|status| is_settled(status.health)).await {
            Ok(status) => status.health,
            Err(_) => EngineHealth::Stopped,
        };
        if health == EngineHealth::Stopped {
            return Err(EngineError::Down {
                why: "the spec says that it is stopped".to_owned(),
            });
        }
        match apply(shared, operation).await {
            Err(EngineError::Down { .. }) => tokio::time::sleep(limits::COMMAND_RETRY).await,
            result => return result,
        }
    }
}

async fn restart(shared: &Shared) -> Result<(), EngineError> {
    let down = |why: String| EngineError::Down { why };
    let before = shared.status.now().engine_starts;
    let (sender, done) = oneshot::channel();
    let gone = || down("the agent ends".to_owned());
    shared.restarts.send(sender).await.map_err(|_| gone())?;
    done.await
        .map_err(|_| gone())?
        .map_err(|error| down(error.to_string()))?;
    let is_back = |status: &coffer_wire::guest::v1::Status| {
        status.engine_starts > before && status.health == EngineHealth::Healthy
    };
    let mut status = shared.status.watch();
    let back = status.wait_for(is_back).await.map(|_| ());
    back.map_err(|_| gone())
}

async fn apply(shared: &Shared, operation: &Operation) -> Result<(), EngineError> {
    let (runtime, host) = (&shared.runtime, shared.host.as_ref());
    match operation {
        Operation::CreateDatabases { databases } => {
            let databases: Vec<_> = databases
                .iter()
                .map(|d| (d.name.clone(), d.character_set.clone(), d.collate.clone()))
                .collect();
            runtime.create_databases(host, &databases).await
        }
        Operation::DropDatabase { name } => runtime.drop_database(host, name).await,
        Operation::CreateUsers { users } => {
            let users: Vec<_> = users.iter().map(new_user).collect();
            runtime.create_users(host, &users).await
        }
        Operation::ChangeUsers { changes } => {
            for change in changes {
                runtime.change_user(host, &user_change(change)).await?;
            }
            Ok(())
        }
        Operation::DropUser { name, host: from } => {
            runtime.drop_user(host, name, from.as_deref()).await
        }
        Operation::Grant {
            name,
            host: from,
            databases,
        } => runtime.grant(host, name, from.as_deref(), databases).await,
        Operation::Revoke {
            name,
            host: from,
            database,
        } => runtime.revoke(host, name, from.as_deref(), database).await,
        Operation::EnableRoot { password } => {
            runtime
                .enable_root(host, &Secret::new(password.clone()))
                .await
        }
        Operation::DisableRoot => runtime.disable_root(host).await,
        Operation::Restart => restart(shared).await,
    }
}

fn new_user(user: &coffer_wire::guest::v1::UserSpec) -> engine::NewUser {
    engine::NewUser {
        name: user.name.clone(),
        host: user.host.clone(),
        password: Secret::new(user.password.clone()),
        databases: user.databases.clone(),
    }
}

fn user_change(change: &coffer_wire::guest::v1::UserChange) -> engine::UserChange {
    engine::UserChange {
        name: change.name.clone(),
        host: change.host.clone(),
        new_name: change.new_name.clone(),
        new_host: change.new_host.clone(),
        new_password: change.new_password.clone().map(Secret::new),
    }
}

fn failed(error: &EngineError) -> CommandState {
    let reason = match error {
        EngineError::Missing { kind, .. } => format!("{kind}-missing"),
        other => other.reason().to_owned(),
    };
    CommandState::Failed {
        reason,
        message: error.to_string(),
    }
}
