//! Logs as JSON: each line is an object that tells when, how grave, whence and what, and what a
//! request or a task did can be found by its id.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::coffer::Coffer;
use serde_json::Value;

const LEVELS: [&str; 5] = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"];

/// Every line of the log.
fn lines(coffer: &Coffer) -> Result<Vec<Value>> {
    let log = coffer.log();
    let line = |line: &str| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"));
    log.lines().map(line).collect()
}

/// What every line has.
fn is_whole(line: &Value) -> bool {
    let text = |pointer: &str| line.pointer(pointer).and_then(Value::as_str);
    let is_time = |text: &str| text.ends_with('Z') && text.get(10..11) == Some("T");
    text("/timestamp").is_some_and(is_time)
        && text("/level").is_some_and(|level| LEVELS.contains(&level))
        && text("/target").is_some_and(|target| !target.is_empty())
        && text("/fields/message").is_some_and(|message| !message.is_empty())
}

fn has(line: &Value, fields: &[(&str, &str)]) -> bool {
    let found = |name: &str| match &line["fields"][name] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    fields.iter().all(|(name, value)| found(name) == *value)
}

#[test]
fn each_line_is_an_object_and_requests_and_tasks_are_found_by_their_ids() -> Result<()> {
    let level = "log.level=info,coffer_control=debug";
    let mut coffer = Coffer::start_with(&["--set", "log.format=json", "--set", level])?;
    let db = coffer.create("db1")?;
    let own = format!("req-{}", db.id);
    let ask = format!(
        "import openstack\n\
         asked = openstack.connect().database.get('/instances/nothing', \
         headers={{'X-OpenStack-Request-ID': '{own}'}})\n\
         assert asked.status_code == 404, asked.text"
    );
    coffer.client("python", &["-c", &ask])?.ok()?;
    coffer
        .coffer(&["instance", "delete", &db.id, "--wait"])?
        .ok()?;
    coffer.stop()?;

    let lines = lines(&coffer)?;
    for line in &lines {
        ensure!(is_whole(line), "something is missing: {line}");
    }
    let message = |text: &str| {
        let named = |line: &&Value| line["fields"]["message"] == text;
        lines.iter().filter(named).collect::<Vec<_>>()
    };
    ensure!(message("coffer serves").len() == 1, "{lines:#?}");
    let refused = [
        ("request_id", own.as_str()),
        ("status", "404"),
        ("method", "GET"),
    ];
    let answered = message("request answered");
    let is_told = answered.iter().any(|line| has(line, &refused));
    ensure!(is_told, "no {refused:?} in {answered:#?}");

    // A create's lines have one task's id, and tell of each of its steps.
    let create = [
        ("instance_id", db.id.as_str()),
        ("workflow", "create_instance"),
    ];
    let mut steps = message("step committed");
    steps.retain(|line| has(line, &create));
    let tasks: BTreeSet<_> = steps
        .iter()
        .filter_map(|line| line["fields"]["task_id"].as_str())
        .collect();
    ensure!(tasks.len() == 1 && steps.len() > 3, "{steps:#?}");
    let is_done = steps.iter().any(|line| has(line, &[("outcome", "done")]));
    ensure!(is_done, "how it ended is not told: {steps:#?}");
    ensure!(
        !coffer.log().contains(&db.password),
        "the log shows a password"
    );
    Ok(())
}
