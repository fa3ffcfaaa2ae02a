//! Every promise of the list, broken, is noticed within the seeds of `./test`.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use coffer_testkit::counts::count;
use coffer_testkit::mutants::{MUTANTS, Mutant};
use coffer_testkit::seeds::catch;

/// How much of what was noticed is shown.
const SHOWN_CHARS: usize = 90;

/// A promise that was broken, and the seed and the words that noticed it.
type Caught = (&'static Mutant, Result<(u64, String), String>);

fn catch_all(limit: u64) -> Vec<Caught> {
    let next = AtomicUsize::new(0);
    let caught = Mutex::new(Vec::new());
    let work = || {
        while let Some(mutant) = MUTANTS.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = catch(mutant, limit);
            caught.lock().unwrap().push((mutant, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    caught.into_inner().unwrap()
}

#[test]
fn every_broken_promise_is_noticed() {
    assert!(MUTANTS.len() >= 20, "at least 20 promises are broken");
    let names: BTreeSet<_> = MUTANTS.iter().map(|mutant| mutant.name).collect();
    assert_eq!(names.len(), MUTANTS.len(), "each has a name of its own");
    let mut missed = Vec::new();
    for (mutant, result) in catch_all(count("mutant_seeds")) {
        match result {
            Ok((seed, noticed)) => {
                let noticed: String = noticed
                    .replace('\n', " ")
                    .chars()
                    .take(SHOWN_CHARS)
                    .collect();
                println!("{}: seed {seed}: {noticed}", mutant.name);
            }
            Err(why) => missed.push(format!("{}: {why}", mutant.name)),
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:#?}");
}
