//! Every step of every workflow under every kind of fault, one at a time: each step twice, a crash
//! before and after each commit and call, each call failing once, always and after it did its
//! work, a delete and a server's death at each step, a pause at each call.

use std::collections::{BTreeMap, BTreeSet};

use coffer_control::workflow;
use coffer_testkit::chaos::{Call, Faults, Kind, Strike, step_name};
use coffer_testkit::scenario::Scenario;
use coffer_testkit::seeds::{Fired, table};
use coffer_testkit::world::World;

/// Kinds that strike at every step.
const AT_EVERY_STEP: &[Kind] = &[
    Kind::CrashBeforeCommit,
    Kind::CrashAfterCommit,
    Kind::StoreFails,
    Kind::Delete,
    Kind::Cancel,
    Kind::ServerDies,
];

/// Kinds that strike before each outside call of a step.
const BEFORE_CALLS: &[Kind] = &[Kind::CrashBeforeCall, Kind::Pause];

/// Kinds that strike each outside call, and how often.
const AT_CALLS: &[(Kind, u32)] = &[
    (Kind::CallFails, 1),
    (Kind::LostReply, 1),
    (Kind::Late, 1),
    (Kind::Pending, 2),
    (Kind::Conflict, 2),
    (Kind::Rejected, 1),
    (Kind::CallFails, u32::MAX),
    (Kind::Pending, u32::MAX),
];

/// Kinds after which nothing is as it would have been without.
const LASTING: &[Kind] = &[
    Kind::Delete,
    Kind::Cancel,
    Kind::ServerDies,
    Kind::Rejected,
    // The tenant goes on meanwhile.
    Kind::Pause,
];

/// How the tasks of a world ended.
async fn ends(world: &World) -> Vec<String> {
    let mut ends = Vec::new();
    for id in world.instances() {
        let tasks = world.services.store.list_tasks(id).await.unwrap();
        ends.extend(
            tasks
                .iter()
                .map(|t| format!("{} {:?}", t.workflow, t.state)),
        );
    }
    ends.sort();
    ends
}

/// Plays a scenario with one more fault; answers how often that struck. What passes may delay the
/// scenario, but its tasks end as they do (`undisturbed`) without it.
async fn strike(
    scenario: Scenario,
    undisturbed: &[String],
    (step, call, kind, times): (&str, Option<Call>, Kind, u32),
) -> u64 {
    let label = format!("{scenario:?} at {step} {call:?} under {kind:?} x{times}");
    let mut strikes = scenario.strikes();
    strikes.push(Strike {
        kind,
        workflow: scenario.workflow().to_owned(),
        step: step.to_owned(),
        call,
        times,
    });
    let world = play(scenario, Faults::exact(strikes), times == u32::MAX)
        .await
        .unwrap_or_else(|e| panic!("{label}: {e}"));
    world
        .check()
        .await
        .unwrap_or_else(|e| panic!("{label}: {e}"));
    // A scenario's own fault strikes once: a step that runs twice meets it no more.
    let is_alone = scenario.strikes().is_empty();
    if is_alone && times < u32::MAX && !LASTING.contains(&kind) {
        assert_eq!(ends(&world).await, undisturbed, "{label}");
    }
    let at = format!("{}/{step}", scenario.workflow());
    let fired = world.faults.fired();
    fired.get(&(kind, at)).copied().unwrap_or(0)
}

/// Plays it; a fault that never ends is taken away after a while, as an operator would.
async fn play(scenario: Scenario, faults: Faults, is_endless: bool) -> Result<World, String> {
    if !is_endless {
        return scenario.play(1, faults).await;
    }
    match scenario.play_until_stuck(faults).await {
        (world, Ok(())) => Ok(world),
        (world, Err(problem)) if problem.starts_with("stuck") => {
            world.faults.stop();
            world.settle().await?;
            Ok(world)
        }
        (_, Err(problem)) => Err(problem),
    }
}

async fn exhaust(scenario: Scenario) {
    let path = scenario.path().await.unwrap();
    assert!(!path.steps.is_empty(), "{scenario:?} ran no step");
    let mut planned = Vec::new();
    for step in &path.steps {
        let at_step = AT_EVERY_STEP.iter().map(|kind| (*kind, 1));
        planned.extend(at_step.map(|(kind, times)| (step, None, kind, times)));
    }
    let own = scenario.strikes();
    // Calls that the scenario's own fault strikes are struck in the scenario without it.
    let is_own = |step: &String| own.iter().any(|own| own.step == *step);
    for (step, call) in path.calls.iter().filter(|(step, _)| !is_own(step)) {
        let kinds: Vec<_> = match call {
            Call::Nth(_) => BEFORE_CALLS.iter().map(|kind| (*kind, 1)).collect(),
            Call::Named(_) => AT_CALLS.to_vec(),
        };
        let at_call = kinds.into_iter();
        planned.extend(at_call.map(|(kind, times)| (step, Some(call.clone()), kind, times)));
    }
    let world = scenario.play(1, Faults::exact(own)).await.unwrap();
    let undisturbed = ends(&world).await;
    let mut fired: Fired = BTreeMap::new();
    for (step, call, kind, times) in planned {
        let struck = strike(scenario, &undisturbed, (step, call.clone(), kind, times)).await;
        assert!(
            struck > 0,
            "{scenario:?}: {kind:?} never struck at {step} {call:?}"
        );
        let at = format!("{}/{step}", scenario.workflow());
        *fired.entry((kind, at)).or_default() += struck;
    }
    println!("{scenario:?}\n{}", table(&fired));
}

#[tokio::test]
async fn scenarios_go_through_every_step() {
    let mut seen = BTreeSet::new();
    for &scenario in Scenario::ALL {
        let path = scenario.path().await.unwrap();
        let steps = path.steps.into_iter();
        seen.extend(steps.map(|step| (scenario.workflow(), step)));
    }
    let mut listed = BTreeSet::new();
    for workflow in workflow::registry() {
        let steps = workflow.steps().into_iter();
        listed.extend(steps.map(|step| (workflow.name(), step_name(&step.stored))));
    }
    assert_eq!(seen, listed, "scenarios, and the workflows' lists of steps");
}

macro_rules! exhaust {
    ($($name:ident: $scenario:ident,)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                exhaust(Scenario::$scenario).await;
            }
        )*

        #[test]
        fn every_scenario_is_exhausted() {
            assert_eq!(Scenario::ALL, &[$(Scenario::$scenario),*]);
        }
    };
}

exhaust! {
    create_under_every_fault: Create,
    failed_create_under_every_fault: CreateRefused,
    delete_under_every_fault: Delete,
    restart_under_every_fault: Restart,
    failed_restart_under_every_fault: RestartRefused,
    stop_under_every_fault: Stop,
    failed_stop_under_every_fault: StopRefused,
    start_under_every_fault: Start,
    failed_start_under_every_fault: StartRefused,
    access_under_every_fault: Access,
    failed_access_under_every_fault: AccessRefused,
    commands_under_every_fault: Root,
    failed_commands_under_every_fault: RootRefused,
    recovery_under_every_fault: Recover,
    failed_recovery_under_every_fault: RecoverRefused,
    renewal_under_every_fault: Renew,
    failed_renewal_under_every_fault: RenewRefused,
    replacement_under_every_fault: Replace,
    failed_replacement_under_every_fault: ReplaceRefused,
}
