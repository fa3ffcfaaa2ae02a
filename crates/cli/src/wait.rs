//! Waits for an instance to become what was asked, and shows the step it is at: a line that moves
//! on a terminal, a line for each new step elsewhere; on standard error, which is not the output.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::client::{Client, segment};
use crate::failure::{Failure, Kind, Result};
use crate::output::{complain, printable};

/// Time between two looks.
const POLL: Duration = Duration::from_millis(300);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// It runs and its engine is healthy.
    Healthy,
    /// It is stopped on request.
    Stopped,
    /// It is gone.
    Gone,
}

/// Waits until the goal is reached; fails when the instance ends in ERROR or time is up.
pub async fn until(client: &Client, id: &str, goal: Goal, limit: Duration) -> Result<()> {
    let bar = ProgressBar::new_spinner();
    let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
    bar.set_style(style.expect("the template is constant"));
    let mut last = String::new();
    let result = tokio::time::timeout(limit, watch(client, id, goal, &bar, &mut last)).await;
    bar.finish_and_clear();
    match result {
        Ok(result) => result,
        Err(_) => Err(Failure::failed(format!(
            "instance {id} is not there yet after {} s, and goes on: {last}; see \
             `coffer instance explain {id}`",
            limit.as_secs()
        ))),
    }
}

async fn watch(
    client: &Client,
    id: &str,
    goal: Goal,
    bar: &ProgressBar,
    last: &mut String,
) -> Result<()> {
    let path = format!("/instances/{}/explain", segment(id));
    loop {
        let explanation = match client.get(&path).await {
            Ok(mut answer) => answer["explanation"].take(),
            Err(failure) if failure.kind == Kind::NotFound && goal == Goal::Gone => return Ok(()),
            Err(failure) => return Err(failure),
        };
        if let Some(result) = verdict(&explanation, goal) {
            return result;
        }
        let line = progress(&explanation);
        if line != *last && !stderr().is_terminal() {
            complain(&line);
        }
        *last = line;
        bar.set_message(last.clone());
        bar.tick();
        tokio::time::sleep(POLL).await;
    }
}

/// Whether the wait is over, and how.
fn verdict(explanation: &Value, goal: Goal) -> Option<Result<()>> {
    let word = |key: &str| explanation[key].as_str().unwrap_or_default();
    let state = explanation.pointer("/task/state").and_then(Value::as_str);
    let is_worked_on = matches!(state, Some("ready" | "running"));
    match (word("status"), goal) {
        ("ACTIVE", Goal::Healthy) if word("operating_status") == "HEALTHY" => Some(Ok(())),
        ("SHUTDOWN", Goal::Stopped) if !is_worked_on => Some(Ok(())),
        // It gave up and is wanted running again.
        ("ACTIVE", Goal::Stopped) if !is_worked_on => Some(Err(Failure::failed(word("summary")))),
        ("ERROR" | "FAILED", _) if !is_worked_on => Some(Err(Failure::failed(word("summary")))),
        _ => None,
    }
}

/// The step and why it waits, in a line.
fn progress(explanation: &Value) -> String {
    let text = |place: &str| explanation.pointer(place).and_then(Value::as_str);
    let (step, wait) = (text("/task/step"), text("/task/wait/message"));
    let line = match (step, wait) {
        (Some(step), Some(wait)) => format!("{step}: {wait}"),
        (Some(step), None) => step.to_owned(),
        (None, _) => text("/summary").unwrap_or_default().to_owned(),
    };
    printable(&line).replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_healthy_engine_ends_the_wait_for_one() {
        let at = |status: &str, operating: &str| {
            let mut explanation = json!({"status": status, "operating_status": operating});
            explanation["summary"] = json!("it failed");
            explanation
        };
        assert_eq!(
            verdict(&at("ACTIVE", "HEALTHY"), Goal::Healthy),
            Some(Ok(()))
        );
        assert_eq!(verdict(&at("ACTIVE", "SHUTDOWN"), Goal::Healthy), None);
        assert_eq!(verdict(&at("BUILD", ""), Goal::Healthy), None);
        assert_eq!(verdict(&at("ACTIVE", "HEALTHY"), Goal::Gone), None);
        let failure = verdict(&at("ERROR", ""), Goal::Healthy)
            .unwrap()
            .unwrap_err();
        assert_eq!(failure.message, "it failed");
        let mut undoing = at("ERROR", "");
        undoing["task"] = json!({"step": "undo_volume", "state": "running"});
        assert_eq!(verdict(&undoing, Goal::Healthy), None);
        undoing["task"]["state"] = json!("failed");
        assert!(verdict(&undoing, Goal::Healthy).is_some());
    }

    #[test]
    fn the_step_and_its_wait_are_shown() {
        let mut explanation = json!({"summary": "all is well", "task": null});
        assert_eq!(progress(&explanation), "all is well");
        explanation["task"] = json!({"step": "await_guest", "wait": {"message": "it is silent"}});
        assert_eq!(progress(&explanation), "await_guest: it is silent");
    }
}
