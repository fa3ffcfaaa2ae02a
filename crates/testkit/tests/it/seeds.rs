//! Random schedules: several instances, random faults, everything at once, by seed.
//! `SEED=n cargo test -p coffer-testkit seeds` runs one seed again.

use std::collections::BTreeMap;

use coffer_testkit::chaos::{Faults, Kind};
use coffer_testkit::counts::count;
use coffer_testkit::time::Seeded;
use coffer_testkit::world::World;

async fn run(seed: u64) -> Result<BTreeMap<(Kind, String), u64>, String> {
    let world = World::new(seed, Faults::random(seed, 40)).await;
    let random = Seeded::new(seed ^ 0x00c0_ffe4);
    let mut ids = Vec::new();
    for _ in 0..=random.below(3) {
        ids.push(world.ask_create().await?);
    }
    for _ in 0..random.below(5) {
        if random.percent(70) {
            world.settle().await?;
        }
        let id = ids[usize::try_from(random.below(ids.len() as u64)).unwrap_or(0)];
        // What the present state does not allow is refused; that is an answer too.
        let _refused = match random.below(5) {
            0 => world.ask_delete(id).await,
            1 => world.ask_restart(id).await,
            2 => world.ask_access(id).await,
            3 => world.ask_root(id).await,
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
    world.check().await?;
    Ok(world.faults.fired())
}

fn seeds() -> Vec<u64> {
    match coffer_testkit::counts::seed() {
        Some(seed) => vec![seed],
        None => (0..count("simulation_seeds")).collect(),
    }
}

#[test]
fn random_schedules_leave_nothing_stuck_and_nothing_leaked() {
    let seeds = seeds();
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let fired = std::thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|part| {
                let seeds: Vec<u64> = seeds.iter().copied().skip(part).step_by(threads).collect();
                scope.spawn(move || run_all(&seeds))
            })
            .collect();
        let mut fired: BTreeMap<(Kind, String), u64> = BTreeMap::new();
        for part in parts {
            for (place, n) in part.join().expect("no seed panicked") {
                *fired.entry(place).or_default() += n;
            }
        }
        fired
    });
    report(&fired);
    if seeds.len() > 100 {
        for kind in Kind::ALL {
            let total: u64 = fired
                .iter()
                .filter(|((k, _), _)| k == kind)
                .map(|(_, n)| n)
                .sum();
            assert!(total > 0, "{kind:?} never struck");
        }
    }
}

fn run_all(seeds: &[u64]) -> BTreeMap<(Kind, String), u64> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let mut all = BTreeMap::new();
    for &seed in seeds {
        let fired = runtime
            .block_on(run(seed))
            .unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        for (place, n) in fired {
            *all.entry(place).or_default() += n;
        }
    }
    all
}

fn report(fired: &BTreeMap<(Kind, String), u64>) {
    let mut steps: BTreeMap<&str, BTreeMap<Kind, u64>> = BTreeMap::new();
    for ((kind, step), n) in fired {
        *steps.entry(step).or_default().entry(*kind).or_default() += n;
    }
    for (step, kinds) in steps {
        println!("{step}: {kinds:?}");
    }
}
