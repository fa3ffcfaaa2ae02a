//! Instances: reading them, renaming, restarting, stopping, changing access, deleting.

use coffer_core::access::Access;
use coffer_core::event::Event;
use coffer_core::id::InstanceId;
use coffer_core::instance::{Instance, Lifecycle};
use coffer_core::name::Name;
use coffer_core::task::Task;
use coffer_store::instance::{
    BeginTask, InstanceFilter, InstanceView, ManagedFilter, ManagedView, SpecChange,
};

use super::{AppState, RequestContext};
use crate::error::{Error, Kind, Result};
use crate::workflow::delete_instance::{self, DeleteInstanceInput};
use crate::workflow::restart_instance::{self, RestartInstanceInput};
use crate::workflow::start_instance::{self, StartInstanceInput};
use crate::workflow::stop_instance::{self, StopInstanceInput};
use crate::workflow::update_access::{self, UpdateAccessInput};

/// A page of the project's instances by id, and the marker of the next page.
pub async fn list(
    app: &AppState,
    context: &RequestContext,
    marker: Option<InstanceId>,
    limit: u32,
) -> Result<(Vec<InstanceView>, Option<InstanceId>)> {
    let filter = InstanceFilter {
        tenant: Some(context.tenant_id()?.clone()),
    };
    page(app, &filter, marker, limit).await
}

/// A page of the instances that a filter lets through, and the marker of the next page.
pub async fn page(
    app: &AppState,
    filter: &InstanceFilter,
    marker: Option<InstanceId>,
    limit: u32,
) -> Result<(Vec<InstanceView>, Option<InstanceId>)> {
    let (rows, is_more) = app.store.list_instances(filter, marker, limit).await?;
    let last = rows.last().filter(|_| is_more);
    let next = last.map(|row| row.instance.id);
    Ok((rows, next))
}

/// The instance with this id, if the asker may see it.
pub async fn get(app: &AppState, context: &RequestContext, id: &str) -> Result<InstanceView> {
    let missing = || Error::not_found("instance", id);
    // Clients look names up by asking for them as ids first: no id is a 404, not a 400.
    let parsed: InstanceId = id.parse().map_err(|_| missing())?;
    let view = app
        .store
        .get_instance_view(context.visible()?, parsed)
        .await?;
    view.ok_or_else(missing)
}

/// Gives the instance another name.
pub async fn rename(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    name: &Name,
) -> Result<()> {
    let instance = &view.instance;
    context.actor()?;
    let now = app.clock.now();
    app.store
        .rename_instance(instance.id, &instance.tenant_id, name, now)
        .await?;
    Ok(())
}

/// Restarts the engine of an instance that nothing else is done with; starts one that was stopped.
pub async fn restart(app: &AppState, context: &RequestContext, view: &InstanceView) -> Result<()> {
    if view.instance.lifecycle == Lifecycle::Stopped {
        return start(app, context, view).await;
    }
    let Instance { id, set_id, .. } = view.instance;
    let new = context.new_task(app, &view.instance.tenant_id, id)?;
    let event = context.event(
        app,
        &new,
        "instance.restart-asked",
        "a restart was asked for",
    );
    let input = RestartInstanceInput {
        instance_id: id,
        set_id,
    };
    let task = restart_instance::task(new, &input);
    let states = (Lifecycle::Active, Lifecycle::Restarting);
    begin(app, view, states, (&task, &event)).await
}

/// Stops an instance that nothing else is done with: it serves nobody until it is started.
pub async fn stop(app: &AppState, context: &RequestContext, view: &InstanceView) -> Result<()> {
    let Instance { id, set_id, .. } = view.instance;
    let new = context.new_task(app, &view.instance.tenant_id, id)?;
    let event = context.event(app, &new, "instance.stop-asked", "a stop was asked for");
    let input = StopInstanceInput {
        instance_id: id,
        set_id,
    };
    let task = stop_instance::task(new, &input);
    let states = (Lifecycle::Active, Lifecycle::Stopping);
    begin(app, view, states, (&task, &event)).await
}

/// Starts an instance that was stopped.
pub async fn start(app: &AppState, context: &RequestContext, view: &InstanceView) -> Result<()> {
    let Instance { id, set_id, .. } = view.instance;
    let new = context.new_task(app, &view.instance.tenant_id, id)?;
    let event = context.event(app, &new, "instance.start-asked", "a start was asked for");
    let input = StartInstanceInput {
        instance_id: id,
        set_id,
    };
    let task = start_instance::task(new, &input);
    let states = (Lifecycle::Stopped, Lifecycle::Restarting);
    begin(app, view, states, (&task, &event)).await
}

/// Begins what changes nothing of the spec.
async fn begin(
    app: &AppState,
    view: &InstanceView,
    (from, to): (Lifecycle, Lifecycle),
    (task, event): (&Task, &Event),
) -> Result<()> {
    let begin = BeginTask {
        instance_id: view.instance.id,
        expected: &[from],
        to,
        task,
        event: Some(event),
        change: SpecChange::default(),
        now: task.created_at,
    };
    app.store
        .begin_task(&begin)
        .await
        .map_err(|error| not_available(error, view))
}

/// Changes who may reach the instance from outside its network.
pub async fn set_access(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    access: Access,
) -> Result<()> {
    let instance = &view.instance;
    let new = context.new_task(app, &instance.tenant_id, instance.id)?;
    let event = context.event(app, &new, "instance.access-asked", access_in_words(&access));
    let now = new.now;
    let input = UpdateAccessInput {
        instance_id: instance.id,
        set_id: instance.set_id,
    };
    let task = update_access::task(new, &input);
    let begin = BeginTask {
        instance_id: instance.id,
        expected: &[Lifecycle::Active],
        to: Lifecycle::Updating,
        task: &task,
        event: Some(&event),
        change: SpecChange {
            access: Some(access),
            ..SpecChange::default()
        },
        now,
    };
    app.store
        .begin_task(&begin)
        .await
        .map_err(|error| not_available(error, view))
}

fn access_in_words(access: &Access) -> String {
    let who: Vec<_> = access
        .allowed_cidrs
        .iter()
        .map(ToString::to_string)
        .collect();
    match (access.is_public, who.is_empty()) {
        (false, _) => "access from its own network only was asked for".to_owned(),
        (true, true) => "access from anywhere was asked for".to_owned(),
        (true, false) => format!("access from {} was asked for", who.join(", ")),
    }
}

fn not_available(error: coffer_store::StoreError, view: &InstanceView) -> Error {
    match error {
        coffer_store::StoreError::NotAllowed { lifecycle } => {
            let message = format!(
                "Instance {} is not currently available for an action to be performed ({}).",
                view.instance.id,
                status_was(lifecycle)
            );
            Error::new(Kind::Unprocessable, "not-available", message)
                .with_hint("wait until that ends, or ask explain what it waits for")
        }
        other => other.into(),
    }
}

/// Why nothing may begin, in Trove's words: the task under way, or the state without one.
fn status_was(lifecycle: Lifecycle) -> String {
    let word = match lifecycle {
        Lifecycle::Building => "BUILDING",
        Lifecycle::Restarting | Lifecycle::Stopping => "REBOOTING",
        Lifecycle::Resizing => "RESIZING",
        Lifecycle::Updating => "UPDATING",
        Lifecycle::Upgrading => "UPGRADING",
        Lifecycle::Promoting => "PROMOTING",
        Lifecycle::Ejecting => "EJECTING",
        Lifecycle::Detaching => "DETACHING",
        Lifecycle::Deleting | Lifecycle::Deleted => "DELETING",
        Lifecycle::Active => return "instance status was ACTIVE".to_owned(),
        Lifecycle::Stopped => return "instance status was SHUTDOWN".to_owned(),
        Lifecycle::Failed => return "instance status was ERROR".to_owned(),
    };
    format!("task status was {word}")
}

/// Deletes the instance, in whatever state it is; asking again changes nothing.
pub async fn delete(app: &AppState, context: &RequestContext, view: &InstanceView) -> Result<()> {
    let instance = &view.instance;
    let new = context.new_task(app, &instance.tenant_id, instance.id)?;
    let event = context.event(app, &new, "instance.delete-asked", "deletion was asked for");
    let now = new.now;
    let input = DeleteInstanceInput {
        instance_id: instance.id,
        set_id: instance.set_id,
    };
    let task = delete_instance::task(new, &input);
    match app
        .store
        .begin_delete(instance.id, &task, Some(&event), now)
        .await
    {
        // It went between the look and this.
        Ok(_) | Err(coffer_store::StoreError::NotFound { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Cancels whatever works on the instance: the task undoes what it did, and the instance says so in
/// its fault. What guests report is not overwritten: it is what they see.
pub async fn reset_status(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
) -> Result<()> {
    let instance = &view.instance;
    let mut event = context.event(
        app,
        &context.new_task(app, &instance.tenant_id, instance.id)?,
        "instance.reset-asked",
        "a reset of the status was asked for: what is under way is cancelled",
    );
    event.task_id = None;
    app.store
        .cancel_tasks(instance.id, &event, app.clock.now())
        .await?;
    Ok(())
}

/// A page of the instances of all projects, deleted ones too.
pub async fn list_managed(
    app: &AppState,
    filter: &ManagedFilter,
    offset: u64,
    limit: u32,
) -> Result<Vec<ManagedView>> {
    Ok(app.store.list_managed(filter, offset, limit).await?)
}

/// An instance with its server and volume, for the operator.
pub async fn get_managed(app: &AppState, id: &str, with_deleted: bool) -> Result<ManagedView> {
    let missing = || Error::not_found("instance", id);
    let parsed: InstanceId = id.parse().map_err(|_| missing())?;
    let found = app.store.get_managed(parsed).await?;
    found
        .filter(|one| with_deleted || one.deleted_at.is_none())
        .ok_or_else(missing)
}
