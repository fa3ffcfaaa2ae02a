//! Random schedules, as many as `tests/counts.toml` says.
//!
//! `SEED=n cargo test -p coffer-testkit seeds` plays one seed again; `SEEDS=a..b` some of them.

use std::collections::BTreeSet;

use coffer_control::workflow;
use coffer_testkit::chaos::{Kind, step_name};
use coffer_testkit::counts;
use coffer_testkit::seeds::{play, play_all, runtime, story, table};

/// From this number on every kind has to strike, and every step has to be struck.
const MANY: u64 = 2_000;

#[test]
fn random_schedules_leave_nothing_stuck_and_nothing_leaked() {
    let seeds = counts::seeds("simulation_seeds");
    let number = seeds.end - seeds.start;
    let report = play_all(seeds);
    println!("{}", table(&report.fired));
    for (seed, problem) in &report.failures {
        println!("failed seed {seed}: {problem}");
        if number == 1 {
            let story = runtime().block_on(story(*seed)).unwrap();
            println!("{}", story.join("\n"));
        }
    }
    if number >= MANY {
        for kind in Kind::ALL {
            let has_struck = report.fired.keys().any(|(k, _)| k == kind);
            assert!(has_struck, "{kind:?} never struck");
        }
        let struck: BTreeSet<&str> = report.fired.keys().map(|(_, at)| at.as_str()).collect();
        for workflow in workflow::registry() {
            for step in workflow.steps() {
                let at = format!("{}/{}", workflow.name(), step_name(&step.stored));
                assert!(struck.contains(at.as_str()), "{at} was never struck");
            }
        }
    }
    let failed: Vec<_> = report.failures.keys().collect();
    assert!(failed.is_empty(), "seeds that failed: {failed:?}");
    println!("{number} seeds played");
}

#[test]
fn a_seed_plays_the_same_again() {
    let runtime = runtime();
    for seed in 0..10 {
        let first = runtime.block_on(play(seed, None)).unwrap();
        let second = runtime.block_on(play(seed, None)).unwrap();
        assert_eq!(first, second, "seed {seed}");
    }
}
