//! Every step of every workflow under every kind of fault, one at a time.

use std::collections::BTreeSet;

use coffer_testkit::chaos::{Faults, Kind, Strike, step_name};
use coffer_testkit::world::World;

use crate::scenario::Scenario;

/// Kinds that strike at every step.
const AT_EVERY_STEP: &[Kind] = &[
    Kind::CrashBeforeCommit,
    Kind::CrashAfterCommit,
    Kind::Delete,
    Kind::ServerDies,
];

/// Kinds that strike at steps that call the outside, and how often.
const AT_CALLS: &[(Kind, u32)] = &[
    (Kind::CrashBeforeCall, 1),
    (Kind::Pause, 1),
    (Kind::CallFails, 1),
    (Kind::LostReply, 1),
    (Kind::Pending, 2),
    (Kind::Conflict, 2),
    (Kind::Rejected, 1),
    (Kind::CallFails, u32::MAX),
];

/// Steps that a plain run of the scenario goes through.
async fn steps(scenario: Scenario) -> (BTreeSet<String>, BTreeSet<String>) {
    let world = scenario
        .play(1, Faults::exact(scenario.strikes()))
        .await
        .unwrap();
    let calls = world
        .faults
        .calls()
        .into_iter()
        .filter(|(workflow, _)| workflow == scenario.workflow())
        .map(|(_, step)| step)
        .collect();
    let mut all = BTreeSet::new();
    for id in world.instances() {
        for task in world.services.store.list_tasks(id).await.unwrap() {
            if task.workflow != scenario.workflow() {
                continue;
            }
            for record in world.services.store.list_history(task.id).await.unwrap() {
                all.insert(step_name(&record.step));
            }
        }
    }
    world.check().await.unwrap();
    (all, calls)
}

async fn strike(scenario: Scenario, step: &str, kind: Kind, times: u32) -> (World, u64) {
    let mut strikes = scenario.strikes();
    strikes.push(Strike {
        kind,
        workflow: scenario.workflow().to_owned(),
        step: step.to_owned(),
        times,
    });
    let label = format!("{scenario:?} at {step} under {kind:?} x{times}");
    let world = scenario
        .play_bounded(Faults::exact(strikes), times == u32::MAX)
        .await
        .unwrap_or_else(|e| panic!("{label}: {e}"));
    world
        .check()
        .await
        .unwrap_or_else(|e| panic!("{label}: {e}"));
    let at = format!("{}/{step}", scenario.workflow());
    let fired = world
        .faults
        .fired()
        .into_iter()
        .filter(|((k, place), _)| *k == kind && *place == at)
        .map(|(_, n)| n)
        .sum();
    (world, fired)
}

impl Scenario {
    /// Plays it; a fault that never ends is taken away after a while, as an operator would.
    async fn play_bounded(self, faults: Faults, is_endless: bool) -> Result<World, String> {
        if !is_endless {
            return self.play(1, faults).await;
        }
        match self.play_until_stuck(faults).await {
            (world, Ok(())) => Ok(world),
            (world, Err(_)) => {
                world.faults.stop();
                world.settle().await?;
                Ok(world)
            }
        }
    }
}

async fn exhaust(scenario: Scenario) {
    let (all, calls) = steps(scenario).await;
    assert!(!all.is_empty(), "{scenario:?} ran no step");
    let mut struck = 0;
    for step in &all {
        for &kind in AT_EVERY_STEP {
            let (_, fired) = strike(scenario, step, kind, 1).await;
            assert!(fired > 0, "{scenario:?}: {kind:?} never struck at {step}");
            struck += fired;
        }
    }
    for step in &calls {
        for &(kind, times) in AT_CALLS {
            let (_, fired) = strike(scenario, step, kind, times).await;
            assert!(fired > 0, "{scenario:?}: {kind:?} never struck at {step}");
            struck += fired;
        }
    }
    println!(
        "{scenario:?}: {} steps, {} with calls, {struck} faults",
        all.len(),
        calls.len()
    );
}

macro_rules! exhaust {
    ($($name:ident: $scenario:ident,)*) => {$(
        #[tokio::test]
        async fn $name() {
            exhaust(Scenario::$scenario).await;
        }
    )*};
}

exhaust! {
    create_under_every_fault: Create,
    failed_create_under_every_fault: CreateRefused,
    delete_under_every_fault: Delete,
    restart_under_every_fault: Restart,
    access_under_every_fault: Access,
    commands_under_every_fault: Root,
    recovery_under_every_fault: Recover,
}

#[test]
fn every_scenario_is_exhausted() {
    assert_eq!(
        Scenario::ALL.len(),
        7,
        "add the new scenario to the list above"
    );
}
