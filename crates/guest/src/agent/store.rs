//! What the agent remembers over its own death and over a restart of the sandbox.
//!
//! Stored is what would otherwise be lost or done twice: the newest spec, the identity that was
//! applied, the link certificate, the newest task versions, the outcomes of commands (never their
//! content, which may hold passwords), and the inventory's counter. One file, replaced as a whole;
//! a change is told to nobody before it is on disk. A file that belongs to another server (the
//! volume was cloned) is not used.

use std::path::PathBuf;

use coffer_wire::guest::v1::{CommandState, Fencing, Spec};
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use crate::agent::file::{self, Durable};
use crate::error::{GuestError, Result};
use crate::limits::{COMMANDS_KEPT_MAX, TASKS_KEPT_MAX};

/// Everything that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Memory {
    pub(crate) server_id: String,
    /// Whether the keys beside the file belong to this server.
    pub(crate) has_keys: bool,
    pub(crate) spec: Option<Spec>,
    pub(crate) identity: Option<String>,
    pub(crate) link_cert_pem: Option<String>,
    pub(crate) generation: u64,
    pub(crate) tasks: Vec<Fencing>,
    pub(crate) commands: Vec<(String, CommandState)>,
    pub(crate) inventory_counter: u64,
    pub(crate) inventory_mark: String,
}

/// Why a command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fenced {
    OlderGeneration,
    OlderTask,
}

impl Memory {
    /// Checks who gives a command against what was seen, and remembers it. Returns whether
    /// anything is new.
    pub(crate) fn fence(&mut self, by: &Fencing) -> std::result::Result<bool, Fenced> {
        if by.generation < self.generation {
            return Err(Fenced::OlderGeneration);
        }
        let key = |of: &Fencing| (of.generation, of.task_version);
        match self
            .tasks
            .iter()
            .position(|seen| seen.task_id == by.task_id)
        {
            Some(index) if key(&self.tasks[index]) > key(by) => return Err(Fenced::OlderTask),
            Some(index) if self.tasks[index] == *by => return Ok(false),
            Some(index) => drop(self.tasks.remove(index)),
            None => {}
        }
        self.generation = by.generation;
        self.tasks.push(by.clone());
        let excess = self.tasks.len().saturating_sub(TASKS_KEPT_MAX);
        self.tasks.drain(..excess);
        Ok(true)
    }

    /// The outcome of a command.
    pub(crate) fn outcome(&self, id: &str) -> Option<&CommandState> {
        self.commands
            .iter()
            .find(|(known, _)| known == id)
            .map(|(_, state)| state)
    }

    /// Remembers the outcome of a command.
    pub(crate) fn conclude(&mut self, id: &str, state: CommandState) {
        self.commands.retain(|(known, _)| known != id);
        self.commands.push((id.to_owned(), state));
        let excess = self.commands.len().saturating_sub(COMMANDS_KEPT_MAX);
        self.commands.drain(..excess);
    }
}

/// The memory and its file.
#[derive(Debug)]
pub(crate) struct Store {
    path: Option<PathBuf>,
    memory: Mutex<Memory>,
}

impl Store {
    /// Reads the file; without a path the memory is gone with the process.
    pub(crate) fn load(path: Option<PathBuf>, server_id: &str) -> Self {
        let text = path.as_deref().and_then(file::read_if_there);
        let known = text.and_then(|text| serde_json::from_str::<Memory>(&text).ok());
        let memory = match known {
            Some(memory) if memory.server_id == server_id => memory,
            _ => Memory {
                server_id: server_id.to_owned(),
                ..Memory::default()
            },
        };
        Self {
            path,
            memory: Mutex::new(memory),
        }
    }

    /// Looks at the memory.
    pub(crate) async fn look<T>(&self, look: impl FnOnce(&Memory) -> T) -> T {
        look(&*self.memory.lock().await)
    }

    /// Changes the memory; it is on disk when this returns. An error leaves it as it was.
    pub(crate) async fn change<T, E>(
        &self,
        change: impl FnOnce(&mut Memory) -> std::result::Result<T, E>,
    ) -> Result<std::result::Result<T, E>> {
        let mut memory = self.memory.lock().await;
        let mut changed = memory.clone();
        let result = change(&mut changed);
        if result.is_err() || changed == *memory {
            return Ok(result);
        }
        if let Some(path) = self.path.clone() {
            let text = serde_json::to_vec(&changed).expect("plain data become JSON");
            tokio::task::spawn_blocking(move || file::replace(&path, &text, 0o600, Durable::Whole))
                .await
                .map_err(|error| GuestError::Init {
                    why: error.to_string(),
                })??;
        }
        *memory = changed;
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(task: &str, version: u64, generation: u64) -> Fencing {
        Fencing {
            task_id: task.to_owned(),
            task_version: version,
            generation,
        }
    }

    #[test]
    fn refuses_what_is_older() {
        let mut memory = Memory::default();
        assert_eq!(memory.fence(&by("a", 2, 1)), Ok(true));
        assert_eq!(memory.fence(&by("a", 2, 1)), Ok(false));
        assert_eq!(memory.fence(&by("a", 1, 1)), Err(Fenced::OlderTask));
        assert_eq!(memory.fence(&by("b", 1, 1)), Ok(true));
        assert_eq!(memory.fence(&by("b", 1, 2)), Ok(true));
        assert_eq!(memory.fence(&by("a", 9, 1)), Err(Fenced::OlderGeneration));
        for i in 0..1000 {
            memory.fence(&by(&i.to_string(), 1, 2)).unwrap();
            memory.conclude(&i.to_string(), CommandState::Done);
        }
        assert_eq!(memory.tasks.len(), TASKS_KEPT_MAX);
        assert_eq!(memory.commands.len(), COMMANDS_KEPT_MAX);
        assert_eq!(memory.outcome("999"), Some(&CommandState::Done));
        assert_eq!(memory.outcome("1"), None);
    }

    #[tokio::test]
    async fn forgets_what_belongs_to_another_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let store = Store::load(Some(path.clone()), "one");
        let change = |memory: &mut Memory| -> std::result::Result<(), ()> {
            memory.generation = 7;
            Ok(())
        };
        store.change(change).await.unwrap().unwrap();
        assert_eq!(
            Store::load(Some(path.clone()), "one")
                .look(|m| m.generation)
                .await,
            7
        );
        assert_eq!(
            Store::load(Some(path), "two").look(|m| m.generation).await,
            0
        );
    }
}
