//! What a step works with: the services, its task, and the lease that guards every outside call.

use std::future::Future;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use coffer_core::event::{Event, Severity};
use coffer_core::id::{CommandId, EventId, InstanceId};
use coffer_core::task::Task;
use coffer_core::time::Timestamp;
use coffer_infra::ProviderError;
use coffer_store::instance::InstanceGraph;
use coffer_store::{StoreError, Write};
use uuid::Uuid;

use super::StepError;
use crate::guest::GuestError;
use crate::limits;
use crate::services::{Guard, Services, Verdict};

/// Context of one run of one step.
#[derive(Debug)]
pub struct Context<'a> {
    /// The doors to the outside.
    pub services: &'a Services,
    /// The task as claimed.
    pub task: &'a Task,
    /// Worker that runs it.
    pub worker: &'a str,
    /// Monotonic time of the last renewal that the store confirmed.
    pub renewed: &'a Mutex<Duration>,
}

impl Context<'_> {
    /// The time of day.
    pub fn now(&self) -> Timestamp {
        self.services.clock.now()
    }

    /// Everything about an instance.
    pub async fn graph(&self, id: InstanceId) -> Result<InstanceGraph, StepError> {
        self.services
            .store
            .get_instance_graph(id)
            .await
            .map_err(|e| store_failed(&e))
    }

    /// A call to the provider, under the lease and bounded in time.
    pub async fn provider<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, ProviderError>> + Send,
    ) -> Result<T, StepError> {
        self.ask_provider(what, call)
            .await?
            .map_err(|error| provider_failed(what, &error))
    }

    /// The same, for a step that has something else to do where the provider refuses.
    pub async fn ask_provider<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<T, ProviderError>> + Send,
    ) -> Result<Result<T, ProviderError>, StepError> {
        match self.outside(call).await? {
            Some(answer) => Ok(answer),
            None => Err(StepError::retry(
                format!(
                    "{what}: the provider has not answered within {} s; it may still be at it, \
                     and is asked again",
                    limits::CALL_MAX.as_secs()
                ),
                "call timed out",
            )),
        }
    }

    /// A call to the guest, under the lease and bounded in time.
    pub async fn guest<T>(
        &self,
        call: impl Future<Output = Result<T, GuestError>> + Send,
    ) -> Result<Result<T, GuestError>, StepError> {
        let late = || GuestError::Unreachable {
            why: "it did not answer in time".to_owned(),
        };
        Ok(self.outside(call).await?.unwrap_or_else(|| Err(late())))
    }

    /// Runs an outside call only when the lease outlives its deadline. `None`: time ran out.
    async fn outside<T>(
        &self,
        call: impl Future<Output = T> + Send,
    ) -> Result<Option<T>, StepError> {
        self.hold_lease().await?;
        if let Some(chaos) = &self.services.chaos
            && chaos.before_call(self.task).await == Verdict::Crash
        {
            return Err(StepError::Crashed);
        }
        tokio::select! {
            answer = call => Ok(Some(answer)),
            () = self.services.clock.sleep(limits::CALL_MAX) => Ok(None),
        }
    }

    /// Renews the lease unless it outlives a call's deadline by a margin.
    async fn hold_lease(&self) -> Result<(), StepError> {
        let now = self.services.clock.monotonic();
        let renewed = *self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        let needed = limits::CALL_MAX + limits::LEASE_MARGIN;
        let outlives = (renewed + self.services.tuning.lease).saturating_sub(now) > needed;
        if outlives || self.services.breaks(Guard::LeaseBeforeCall) {
            return Ok(());
        }
        let task = self.task;
        let is_held = self
            .services
            .store
            .renew_lease(task.id, task.version, self.worker)
            .await
            .map_err(|e| store_failed(&e))?;
        if !is_held {
            return Err(StepError::LeaseLost);
        }
        *self.renewed.lock().unwrap_or_else(PoisonError::into_inner) = now;
        Ok(())
    }

    /// An event in the instance's history.
    pub fn event(&self, code: &str, severity: Severity, message: impl Into<String>) -> Write {
        Write::AddEvent(Event {
            id: EventId::from_uuid(self.services.new_uuid()),
            tenant_id: self.task.tenant_id.clone(),
            instance_id: self.task.instance_id,
            task_id: Some(self.task.id),
            code: code.to_owned(),
            severity,
            message: message.into(),
            actor: Some(self.task.actor.clone()),
            at: self.now(),
        })
    }

    /// The id of this task's `index`th command: the same at every try.
    pub fn command_id(&self, index: usize) -> CommandId {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let mut bytes = self.task.id.uuid().into_bytes();
        for (byte, part) in bytes[12..].iter_mut().zip(index.to_be_bytes()) {
            *byte ^= part;
        }
        // The version nibble tells a command's id from its task's.
        bytes[6] = (bytes[6] & 0x0f) | 0x80;
        CommandId::from_uuid(Uuid::from_bytes(bytes))
    }
}

/// What a step does about a failing store: nothing, its lease ends and another try begins.
pub(super) fn store_failed(error: &StoreError) -> StepError {
    StepError::Store {
        why: error.to_string(),
    }
}

pub(super) fn provider_failed(what: &'static str, error: &ProviderError) -> StepError {
    let message = format!("{what}: {error}");
    match error {
        // What is not there may have been taken by a delete beside us and is made again.
        ProviderError::Transient { .. }
        | ProviderError::Busy { .. }
        | ProviderError::Conflict { .. }
        | ProviderError::NotFound { .. } => StepError::retry(message, error),
        ProviderError::QuotaExceeded { .. }
        | ProviderError::Rejected { .. }
        | ProviderError::Unauthorized { .. }
        | ProviderError::Bug { .. } => StepError::fatal(message, error),
    }
}
