//! A Coffer that is told to stop with a task in hand: the task comes to its next commit and is
//! given back, the process ends well and in time, and the next one ends the task.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::Coffer;
use e2e::engine::{Kind, Served, ask};
use e2e::host;
use e2e::lines::LOST;
use e2e::run::{Program, timed, wait_until};
use serde_json::Value;

use crate::upgrade::{Hold, Stored, tasks};

/// How long a task may take to come into somebody's hand.
const SOON: Duration = Duration::from_secs(30);
/// How long Coffer may take once what the task waits for is there: far less than the 15 seconds
/// after which it would leave the task behind.
const STOP_MAX: Duration = Duration::from_secs(5);

/// Keeps everybody from making the template of an engine's volumes, which the first create needs.
pub(crate) fn hold_templates(coffer: &Coffer, kind: Kind) -> Result<Vec<Hold>> {
    let roots = coffer.coffer(&["--json", "image", "list"])?.json()?;
    let start = format!("{}-", kind.name());
    let is_its = |root: &&Value| {
        let name = root["image"].as_str();
        name.is_some_and(|name| name.starts_with(&start))
    };
    let its = roots.as_array().into_iter().flatten().filter(is_its);
    let holds = its.map(|root| {
        let checksum = root["checksum"].as_str().context("no checksum")?;
        Hold::take(coffer, &format!("template-{checksum}"))
    });
    holds.collect()
}

/// The task of an instance that was begun last.
pub(crate) fn task_of(coffer: &Coffer, name: &str) -> Result<Stored> {
    let mut all = tasks(coffer)?.into_iter();
    let found = all.rfind(|task| task.name == name);
    found.with_context(|| format!("{name} has no task"))
}

#[test]
fn a_task_in_hand_is_given_back_and_ends_well_after_the_next_start() -> Result<()> {
    let mut coffer = Coffer::start()?;
    // A server that is stopped, and is to start, does not come for as long as it is held.
    coffer.expect_lines(LOST);
    let asked = ask(&coffer, Kind::Redis, "db1")?;
    let id = asked["id"].as_str().context("no id")?;
    coffer.await_active(id)?;
    let db = Served::of(&coffer, Kind::Redis, &asked)?;
    coffer.coffer(&["instance", "stop", id, "--wait"])?.ok()?;
    // A call on its server waits for an earlier one for seconds.
    let server = host::servers(coffer.dir())?;
    let server = server.first().context("no server")?.id.clone();
    let hold = Hold::take(&coffer, &format!("server-{server}"))?;
    coffer.coffer(&["instance", "start", id])?.ok()?;
    let is_in_hand = || {
        let task = task_of(&coffer, "db1")?;
        let is_it = task.state == "running" && task.step == "ensure_server";
        Ok(is_it.then_some(()))
    };
    wait_until(SOON, is_in_hand).with_context(|| format!("{:?}", tasks(&coffer)))?;

    // It is told while the step is under way; the step ends when the lock is let go of.
    let pid = coffer.pid().context("it runs")?.to_string();
    Program::new("kill", ["-TERM", &pid]).run()?.ok()?;
    let told = || {
        Ok(coffer
            .log()
            .contains("stopping; instances go on")
            .then_some(()))
    };
    wait_until(SOON, told)?;
    ensure!(
        task_of(&coffer, "db1")?.state == "running",
        "it was let go of in the middle of a step"
    );
    drop(hold);
    let (took, ended) = timed(|| coffer.stop());
    ended.context("it ends well")?;
    ensure!(took < STOP_MAX, "it took {took:?} to stop");
    let log = coffer.log();
    ensure!(!log.contains("not all work came to an end"), "{log}");
    let given = task_of(&coffer, "db1")?;
    ensure!(
        given.state == "ready" && given.step != "ensure_server",
        "it came to its commit and was given back: {given:?}"
    );

    coffer.up()?;
    coffer.await_active(id)?;
    db.await_answer()?;
    let ended = task_of(&coffer, "db1")?;
    ensure!(ended.id == given.id && ended.state == "done", "{ended:?}");
    ensure!(!coffer.log().contains("take over"), "{}", coffer.log());
    let delete = ["instance", "delete", id, "--wait"];
    coffer.coffer(&delete)?.ok().map(drop)
}
