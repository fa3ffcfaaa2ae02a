//! Asks the task manager to bring an instance's server back.

use coffer_core::actor::Actor;
use coffer_core::id::{InstanceId, SetId, TaskId, TenantId, UserId};
use coffer_core::instance::Lifecycle;
use coffer_store::StoreError;
use coffer_store::link::LiveLink;

use crate::services::Services;
use crate::workflow::NewTask;
use crate::workflow::recover_instance::{self, RecoverInstanceInput};

/// Asks for the recovery of the instance behind a link, unless something works on it already.
pub(super) async fn ask(services: &Services, link: &LiveLink, cause: &str) {
    if let Err(error) = request(services, link.instance_id, cause).await {
        tracing::error!(instance_id = %link.instance_id, %error, "ask for recovery");
    }
}

/// Writes the recovery's task. Answers whether one was written.
pub async fn request(services: &Services, id: InstanceId, cause: &str) -> Result<bool, StoreError> {
    let store = &services.store;
    let Some(instance) = store.find_instance(id).await? else {
        return Ok(false);
    };
    if instance.lifecycle != Lifecycle::Active || store.find_active_task(id).await?.is_some() {
        return Ok(false);
    }
    let task = task(services, instance.tenant_id, id, instance.set_id, cause);
    tracing::warn!(instance_id = %id, task_id = %task.id, cause, "recover instance");
    store.insert_task(&task).await?;
    Ok(true)
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
