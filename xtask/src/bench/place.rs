//! Where a benchmark puts what it makes: names that hold its process's id, so that another run
//! finds and takes away what one has left that was killed.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::leftovers::{self, names};

/// Where directories are made.
pub const STATES: &str = "/var/tmp";
/// Where `ip netns` puts namespaces.
const NAMESPACES: &str = "/run/netns";
/// How all names begin.
const MARK: &str = "coffer-bench-";
/// The program whose id stands in a name.
const PROGRAM: &str = "xtask";

/// The name for something of this process.
pub fn name(what: &str) -> String {
    format!("{MARK}{}-{what}", std::process::id())
}

/// Makes a directory of this process.
pub fn make(what: &str) -> Result<PathBuf> {
    let dir = Path::new(STATES).join(name(what));
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    Ok(dir)
}

/// Ends and takes away what benchmarks have left that were killed.
pub fn clear_dead() -> Result<()> {
    let dirs = [STATES, NAMESPACES].map(Path::new);
    let dead: BTreeSet<u32> = dirs.into_iter().flat_map(dead_in).collect();
    for pid in dead {
        println!("taking away what the benchmark {pid} has left, which was killed");
        take_away(pid).with_context(|| format!("take away what {pid} has left"))?;
    }
    Ok(())
}

/// Processes that left something here and are no more.
fn dead_in(dir: &Path) -> BTreeSet<u32> {
    let owners = names(dir).into_iter().filter_map(|name| owner(&name));
    owners.filter(|pid| !is_alive(*pid)).collect()
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(MARK)?.split_once('-')?.0.parse().ok()
}

/// Whether a benchmark has this id; another program may have got it since.
fn is_alive(pid: u32) -> bool {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.starts_with(PROGRAM)
}

fn take_away(pid: u32) -> Result<()> {
    let of_it = |dir: &str| {
        let all = names(Path::new(dir)).into_iter();
        all.filter(|name| owner(name) == Some(pid))
            .collect::<Vec<_>>()
    };
    for namespace in of_it(NAMESPACES) {
        // Clients run in there, and engines by hand.
        leftovers::remove_namespace(&namespace)?;
    }
    for state in of_it(STATES) {
        leftovers::wipe(&Path::new(STATES).join(state))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_living_have_made_stays() {
        let dir = tempfile::tempdir().unwrap();
        // Above the largest id that the kernel gives.
        let dead = u32::MAX;
        let names = [
            format!("{MARK}{dead}-create"),
            format!("{MARK}{dead}-pgbench"),
            name("create"),
            format!("{MARK}-create"),
            "coffer-e2e-1-create".to_owned(),
        ];
        for name in &names {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(dead_in(dir.path()), BTreeSet::from([dead]));
    }
}
