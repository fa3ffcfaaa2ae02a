//! Why an instance is as it is, in sentences and in fields.

use coffer_core::instance::{Health, Lifecycle};
use coffer_core::task::{Task, TaskStepRecord, Wait};
use coffer_core::time::Timestamp;
use coffer_wire::rest::v1::explain::{Explanation as Shown, StepView, TaskView, WaitView};

use super::instances::fault;
use crate::app::explain::Explanation;

/// An explanation.
pub(in crate::api) fn explanation(explanation: &Explanation, is_admin: bool) -> Shown {
    let view = &explanation.view;
    let instance = &view.instance;
    let (status, operating_status) = instance.public_status();
    Shown {
        instance_id: instance.id.to_string(),
        name: instance.spec.name.as_str().to_owned(),
        summary: summary(explanation),
        status: status.as_str().to_owned(),
        operating_status: operating_status.to_string(),
        lifecycle: instance.lifecycle.as_str().to_owned(),
        health: instance.health.as_str().to_owned(),
        health_since: instance.health_at.trove(),
        fault: fault(view, is_admin),
        task: explanation.task.as_ref().map(task),
        blocked_by: explanation.blocked_by.iter().map(task).collect(),
        history: explanation.history.iter().map(step).collect(),
        trouble: explanation
            .trouble
            .as_ref()
            .map(|said| said.message.clone()),
        not_enforced: explanation.not_enforced.clone(),
    }
}

/// The whole of it in sentences: what is being done, what it waits for, what that waits for.
fn summary(explanation: &Explanation) -> String {
    let instance = &explanation.view.instance;
    let now = explanation.now;
    let mut text = format!("{} {}", instance.spec.name, doing(instance.lifecycle));
    let active = explanation
        .task
        .as_ref()
        .filter(|task| !task.state.is_ended());
    match active {
        Some(task) => text.push_str(&format!(": {}", progress(task, now))),
        None if instance.lifecycle == Lifecycle::Stopped => {
            text.push_str(&stopped(explanation.stopped_by.as_ref(), now));
        }
        None if instance.lifecycle.is_at_rest() => {
            text.push_str(&format!(
                " and its engine {}",
                health_in_words(instance.health)
            ));
        }
        None => text.push_str(", but no task does it: that is a bug, or an operator removed it"),
    }
    text.push('.');
    if let Some(said) = &explanation.trouble {
        text.push_str(&format!(
            " Its guest said {} ago: {}.",
            lasting(said.at, now),
            said.message.trim_end_matches('.')
        ));
    }
    for blocker in &explanation.blocked_by {
        text.push_str(&format!(
            " Task {} ({}) holds what it needs: {}.",
            blocker.id,
            blocker.workflow,
            progress(blocker, now)
        ));
    }
    if let Some(fault) = &instance.fault {
        text.push_str(&format!(
            " It failed {} ago: {}.",
            lasting(fault.at, now),
            fault.message.trim_end_matches('.')
        ));
    } else if let Some(error) = explanation
        .task
        .as_ref()
        .and_then(|task| task.error.as_ref())
    {
        text.push_str(&format!(
            " What went wrong: {}.",
            error.trim_end_matches('.')
        ));
    }
    if !explanation.not_enforced.is_empty() {
        text.push_str(&format!(
            " Not enforced on its host: {}.",
            explanation.not_enforced.join("; ")
        ));
    }
    text
}

/// Since when an instance is stopped, at whose request, and what brings it back.
fn stopped(by: Option<&Task>, now: Timestamp) -> String {
    let since = by.map(|task| {
        let user = &task.actor.user_id;
        format!(
            " since {} (asked by user {user})",
            lasting(task.updated_at, now)
        )
    });
    let since = since.unwrap_or_default();
    format!("{since} and stays so, over restarts of the host too, until its action start")
}

/// What a task does now, and until when.
fn progress(task: &Task, now: Timestamp) -> String {
    let mut text = match &task.wait {
        Some(wait) => format!(
            "{} since {}, to be ended by {}",
            wait.message,
            lasting(wait.since, now),
            wait.unblocked_by
        ),
        None => format!(
            "step {} since {}",
            step_name(&task.step),
            lasting(task.step_at, now)
        ),
    };
    if task.attempt > 1 {
        text.push_str(&format!(", try {}", task.attempt));
    }
    match task.deadline {
        Some(deadline) if deadline > now => {
            text.push_str(&format!(", deadline in {}", lasting(now, deadline)));
        }
        Some(deadline) => {
            text.push_str(&format!(", {} past its deadline", lasting(deadline, now)));
        }
        None => {}
    }
    text
}

fn doing(lifecycle: Lifecycle) -> &'static str {
    match lifecycle {
        Lifecycle::Building => "is being created",
        Lifecycle::Active => "is in service",
        Lifecycle::Restarting => "is being restarted",
        Lifecycle::Resizing => "is being resized",
        Lifecycle::Updating => "is getting other access",
        Lifecycle::Upgrading => "is being upgraded",
        Lifecycle::Promoting => "is being made the primary",
        Lifecycle::Ejecting => "is being removed from its set",
        Lifecycle::Detaching => "is being cut from its replica source",
        Lifecycle::Stopping => "is being stopped",
        Lifecycle::Stopped => "is stopped on request",
        Lifecycle::Deleting => "is being deleted",
        Lifecycle::Failed => "is in ERROR",
        Lifecycle::Deleted => "is gone",
    }
}

fn health_in_words(health: Health) -> &'static str {
    match health {
        Health::Unknown => "has not been heard of yet",
        Health::Starting => "is starting",
        Health::Healthy => "answers",
        Health::Blocked => "runs but does not answer its probe",
        Health::Shutdown => "is stopped",
        Health::Crashed => "exited by itself",
        Health::Lost => "has not been heard of for too long",
        Health::RestartRequired => "waits for a restart",
    }
}

/// `3 s`, `2 min 5 s`, `4 h 10 min`.
fn lasting(from: Timestamp, to: Timestamp) -> String {
    let seconds = to.millis_since(from) / 1_000;
    match (seconds / 3_600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// The name inside a stored step.
fn step_name(step: &str) -> String {
    let parsed: Option<serde_json::Value> = serde_json::from_str(step).ok();
    let name = parsed.as_ref().and_then(|value| match value {
        serde_json::Value::String(name) => Some(name.as_str()),
        other => other.get("step").and_then(serde_json::Value::as_str),
    });
    name.unwrap_or(step).to_owned()
}

fn task(task: &Task) -> TaskView {
    TaskView {
        id: task.id.to_string(),
        workflow: task.workflow.clone(),
        state: task.state.as_str().to_owned(),
        step: step_name(&task.step),
        attempt: task.attempt,
        instance_id: task.instance_id.map(|id| id.to_string()),
        wait: task.wait.as_ref().map(wait),
        step_since: task.step_at.trove(),
        deadline: task.deadline.map(Timestamp::trove),
        error: task.error.clone(),
    }
}

fn wait(wait: &Wait) -> WaitView {
    WaitView {
        reason: wait.reason.clone(),
        message: wait.message.clone(),
        unblocked_by: wait.unblocked_by.clone(),
        since: wait.since.trove(),
    }
}

fn step(record: &TaskStepRecord) -> StepView {
    StepView {
        step: step_name(&record.step),
        outcome: record.outcome.clone(),
        message: record.message.clone(),
        took_ms: record.took_ms,
        at: record.at.trove(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        let at = |seconds: i64| Timestamp::default().plus_seconds(seconds);
        assert_eq!(lasting(at(0), at(3)), "3 s");
        assert_eq!(lasting(at(0), at(125)), "2 min 5 s");
        assert_eq!(lasting(at(0), at(15_000)), "4 h 10 min");
        assert_eq!(lasting(at(9), at(3)), "0 s");
    }

    #[test]
    fn steps_are_shown_by_name() {
        assert_eq!(
            step_name(r#"{"step":"await_engine","version":3}"#),
            "await_engine"
        );
        assert_eq!(step_name("\"finish\""), "finish");
        assert_eq!(step_name("?"), "?");
    }
}
