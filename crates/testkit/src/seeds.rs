//! Random schedules: several instances, random faults, everything at once, by seed.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::chaos::{Faults, Kind};
use crate::mutants::Mutant;
use crate::time::Seeded;
use crate::world::World;

/// Faults that may strike in one schedule.
const FAULTS_MAX: u32 = 40;

/// Faults that struck, by kind and `workflow/step`.
pub type Fired = BTreeMap<(Kind, String), u64>;

/// What came of a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Played {
    /// Faults that struck.
    pub fired: Fired,
    /// Every line of every task's history.
    pub history: Vec<String>,
    /// Statements that a mutant weakened.
    pub rewritten: u64,
}

/// What came of many.
#[derive(Debug, Default)]
pub struct Report {
    /// Faults that struck.
    pub fired: Fired,
    /// Seeds that failed, and what did not hold.
    pub failures: BTreeMap<u64, String>,
}

/// Plays the schedule of one seed and checks what is left.
pub async fn play(seed: u64, mutant: Option<&'static Mutant>) -> Result<Played, String> {
    let world = world(seed, mutant).await;
    play_in(&world, seed).await?;
    Ok(Played {
        fired: world.faults.fired(),
        history: history(&world).await?,
        rewritten: hits(&world),
    })
}

/// What happened in the schedule of a seed, line by line, however it ended: to find out why.
pub async fn story(seed: u64) -> Result<Vec<String>, String> {
    let world = world(seed, None).await;
    // How it ended is known: this tells what led there.
    play_in(&world, seed).await.ok();
    history(&world).await
}

async fn world(seed: u64, mutant: Option<&'static Mutant>) -> World {
    let faults = Faults::random(seed, FAULTS_MAX);
    let faults = match mutant {
        Some(mutant) => faults.over(mutant),
        None => faults,
    };
    World::new(seed, faults).await
}

async fn history(world: &World) -> Result<Vec<String>, String> {
    let mut history = Vec::new();
    for id in world.instances() {
        let tasks = world.services.store.list_tasks(id).await;
        for task in tasks.map_err(|e| e.to_string())? {
            let lines = world.services.store.list_history(task.id).await;
            let lines = lines.map_err(|e| e.to_string())?;
            let kind = &task.workflow;
            history.extend(
                lines
                    .iter()
                    .map(|line| format!("{} {kind} {line:?}", task.id)),
            );
        }
    }
    Ok(history)
}

fn hits(world: &World) -> u64 {
    let hits = world.rewrites.iter();
    hits.map(|one| one.hits.load(Ordering::Relaxed)).sum()
}

async fn play_in(world: &World, seed: u64) -> Result<(), String> {
    let random = Seeded::new(seed ^ 0x00c0_ffe4);
    let mut ids = Vec::new();
    for _ in 0..=random.below(3) {
        ids.push(world.ask_create().await?);
    }
    for _ in 0..random.below(7) {
        if random.percent(70) {
            world.settle().await?;
        }
        let id = ids[usize::try_from(random.below(ids.len() as u64)).unwrap_or(0)];
        // What the present state does not allow is refused; that is an answer too.
        // Stops often: a stop hardly ever fails for good, and that end wants to be seen too.
        let _refused = match random.below(10) {
            0 => world.ask_delete(id).await,
            1 => world.ask_restart(id).await,
            2 => world.ask_access(id).await,
            3 => world.ask_root(id).await,
            4 | 8 => world.ask_stop(id).await,
            5 => world.ask_start(id).await,
            6 => world.pass_months().await.map(drop),
            7 => world.ask_agent(id).await,
            _ => {
                let graph = world.services.store.get_instance_graph(id).await;
                for server in graph.map(|g| g.servers).unwrap_or_default() {
                    world.provider.kill_server(server.id);
                }
                world.reconcile().await.map(drop)
            }
        };
    }
    world.settle().await?;
    world.check().await
}

/// Plays one seed on a runtime; a panic counts as a failure.
fn play_caught(
    runtime: &tokio::runtime::Runtime,
    seed: u64,
    mutant: Option<&'static Mutant>,
) -> Result<Played, String> {
    let once = AssertUnwindSafe(|| runtime.block_on(play(seed, mutant)));
    std::panic::catch_unwind(once).unwrap_or_else(|_| Err("it panicked".to_owned()))
}

/// A runtime of one thread, with nothing but timers.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime of one thread needs nothing")
}

/// Plays these seeds on all cores.
pub fn play_all(seeds: std::ops::Range<u64>) -> Report {
    let next = AtomicU64::new(seeds.start);
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let work = || {
        let runtime = runtime();
        let mut report = Report::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return report;
            }
            match play_caught(&runtime, seed, None) {
                Ok(played) => report.add(played.fired),
                Err(problem) => {
                    report.failures.insert(seed, problem);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let mut whole = Report::default();
        for part in parts {
            let part = part.join().expect("panics are caught for each seed");
            whole.add(part.fired);
            whole.failures.extend(part.failures);
        }
        whole
    })
}

impl Report {
    fn add(&mut self, fired: Fired) {
        for (place, times) in fired {
            *self.fired.entry(place).or_default() += times;
        }
    }
}

/// The first seed below `limit` that notices the mutant, and what it noticed.
pub fn catch(mutant: &'static Mutant, limit: u64) -> Result<(u64, String), String> {
    let runtime = runtime();
    let mut rewritten = 0;
    for seed in 0..limit {
        match play_caught(&runtime, seed, Some(mutant)) {
            Err(noticed) => return Ok((seed, noticed)),
            Ok(played) => rewritten += played.rewritten,
        }
    }
    if mutant.weakens() && rewritten == 0 {
        return Err("no statement has the text that it weakens".to_owned());
    }
    Err(format!("{limit} seeds noticed nothing"))
}

/// A table of faults that struck: a line for each step, a column for each kind.
pub fn table(fired: &Fired) -> String {
    let mut steps: BTreeMap<&str, BTreeMap<Kind, u64>> = BTreeMap::new();
    for ((kind, step), times) in fired {
        *steps.entry(step).or_default().entry(*kind).or_default() += times;
    }
    let lines = steps.iter().map(|(step, kinds)| {
        let counts = kinds
            .iter()
            .map(|(kind, times)| format!("{kind:?} {times}"));
        format!("{step}: {}\n", counts.collect::<Vec<_>>().join(", "))
    });
    lines.collect()
}
