//! Asks the task manager to bring an instance's server back.

use coffer_core::actor::Actor;
use coffer_core::id::{InstanceId, SetId, TaskId, TenantId, UserId};
use coffer_core::instance::Lifecycle;
use coffer_core::task::TaskState;
use coffer_core::time::Timestamp;
use coffer_store::StoreError;
use coffer_store::link::LiveLink;

use crate::services::Services;
use crate::workflow::recover_instance::{self, RecoverInstance, RecoverInstanceInput};
use crate::workflow::{NewTask, Workflow as _};

/// How long after a failed recovery the next one is asked for; doubled with each that fails.
const PAUSE_MS: i64 = 2_000;
/// Longest time between two recoveries, so that what an operator mended is noticed soon.
const PAUSE_MS_MAX: i64 = 60_000;
/// Failures that lengthen the pause; the pause is at its longest before.
const FAILURES_COUNTED: u32 = 8;

/// Asks for the recovery of the instance behind a link, unless something works on it already.
pub(super) async fn ask(services: &Services, link: &LiveLink, cause: &str) {
    if let Err(error) = request(services, link.instance_id, cause).await {
        tracing::error!(instance_id = %link.instance_id, %error, "ask for recovery");
    }
}

/// Writes the recovery's task, unless something works on the instance, or the last recovery failed
/// only a moment ago. Answers whether one was written.
pub async fn request(services: &Services, id: InstanceId, cause: &str) -> Result<bool, StoreError> {
    let store = &services.store;
    // Over a restored state nothing is begun: what seems lost may have been deleted since.
    if store.is_restored().await? {
        return Ok(false);
    }
    let Some(instance) = store.find_instance(id).await? else {
        return Ok(false);
    };
    if instance.lifecycle != Lifecycle::Active || is_too_soon(services, id).await? {
        return Ok(false);
    }
    let task = task(services, instance.tenant_id, id, instance.set_id, cause);
    let is_written = store.insert_task_if_idle(id, &task).await?;
    if is_written {
        tracing::warn!(instance_id = %id, task_id = %task.id, cause, "recover instance");
    }
    Ok(is_written)
}

/// Whether recoveries failed, and the last one so short ago that another would fail as well.
async fn is_too_soon(services: &Services, id: InstanceId) -> Result<bool, StoreError> {
    let workflow = RecoverInstance::NAME;
    let ends = services.store.list_ends(id, workflow, FAILURES_COUNTED);
    let ends = ends.await?;
    let failed = |end: &&(TaskState, Timestamp)| end.0 == TaskState::Failed;
    let failures = ends.iter().take_while(failed).count();
    let (Some((_, last)), 1..) = (ends.first(), failures) else {
        return Ok(false);
    };
    let doubled = PAUSE_MS << (failures - 1);
    let now = services.clock.now();
    // A failure that lies ahead was before somebody set the clock back.
    Ok(now >= *last && now < last.plus_millis(doubled.min(PAUSE_MS_MAX)))
}

fn task(
    services: &Services,
    tenant_id: TenantId,
    instance_id: InstanceId,
    set_id: SetId,
    cause: &str,
) -> coffer_core::task::Task {
    let user: UserId = "system".parse().expect("'system' is a valid user id");
    let new = NewTask {
        id: TaskId::from_uuid(services.new_uuid()),
        tenant_id: tenant_id.clone(),
        instance_id,
        actor: Actor::system(tenant_id, user),
        now: services.clock.now(),
    };
    recover_instance::task(
        new,
        &RecoverInstanceInput {
            instance_id,
            set_id,
            cause: cause.to_owned(),
        },
    )
}
