//! The engine roots that the tests run from, built beside other work.
//!
//! One version of each engine is built before the tests; the others are built by the tests that
//! need them. Roots of one suite wait for its base and of their own accord, so two of them at a
//! time are what keeps the machine busy: one fetches or waits for the disk while the other unpacks.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};

use crate::process::{Program, Stopwatch};

/// How many are built at a time.
const LANES: usize = 2;
/// The suite that most people run; of an engine's versions its is tested, or else the newest.
const STABLE: &str = "trixie";

/// Engine roots that are being built, or will be.
#[derive(Debug, Default)]
pub struct Roots {
    lanes: Mutex<Vec<JoinHandle<Result<()>>>>,
}

impl Roots {
    /// Begins to build one version of each engine, unless that has begun.
    pub fn begin(&self, root: &Path, built: &Path) -> Result<()> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if !lanes.is_empty() {
            return Ok(());
        }
        let names = Arc::new(Mutex::new(VecDeque::from(tested(&root.join("images"))?)));
        let (coffer, logs) = (built.join("coffer"), built.join("rings/roots"));
        for _ in 0..LANES {
            let (names, coffer, logs) = (Arc::clone(&names), coffer.clone(), logs.clone());
            lanes.push(std::thread::spawn(move || lane(&names, &coffer, &logs)));
        }
        Ok(())
    }

    /// Waits until all are built; an error names one that is not.
    pub fn end(&self) -> Result<()> {
        let lanes = std::mem::take(&mut *self.lanes.lock().unwrap_or_else(PoisonError::into_inner));
        let ended: Vec<_> = lanes.into_iter().map(JoinHandle::join).collect();
        for one in ended {
            match one {
                Ok(result) => result?,
                Err(_) => bail!("building engine roots: a lane panicked"),
            }
        }
        Ok(())
    }
}

/// Builds one after the other until there are no more.
fn lane(names: &Mutex<VecDeque<String>>, coffer: &PathBuf, logs: &Path) -> Result<()> {
    loop {
        let next = names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(name) = next else {
            return Ok(());
        };
        let watch = Stopwatch::start();
        let log = logs.join(format!("{name}.log"));
        Program::new(coffer, &["image", "build", &name]).logged(&log)?;
        let seconds = watch.elapsed().as_secs_f64();
        println!("    root {name:<27} {seconds:6.1} s");
    }
}

/// Names of the recipes that are tested: one for each engine.
fn tested(images: &Path) -> Result<Vec<String>> {
    let mut chosen: BTreeMap<String, (bool, Vec<u32>, String)> = BTreeMap::new();
    for entry in fs::read_dir(images).with_context(|| format!("read {}", images.display()))? {
        let path = entry.context("read a recipe's name")?.path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let recipe: toml::Table = text
            .parse()
            .with_context(|| format!("read {}", path.display()))?;
        let word = |key: &str| {
            let word = recipe.get(key).and_then(toml::Value::as_str);
            word.with_context(|| format!("{} has no {key}", path.display()))
        };
        let version = word("version")?.split('.').map(|n| n.parse().unwrap_or(0));
        let rank = (
            word("suite")? == STABLE,
            version.collect(),
            word("name")?.to_owned(),
        );
        let best = chosen.entry(word("engine")?.to_owned()).or_default();
        if rank > *best {
            *best = rank;
        }
    }
    Ok(chosen.into_values().map(|(_, _, name)| name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_of_each_engine_is_tested() {
        let dir = tempfile::tempdir().unwrap();
        for (engine, version, suite) in [
            ("a", "15", "bookworm"),
            ("a", "17", "trixie"),
            ("a", "18", "sid"),
            ("b", "9.10", "sid"),
            ("b", "9.7", "sid"),
        ] {
            let text = format!(
                "name = '{engine}-{version}'\nengine = '{engine}'\nversion = '{version}'\n\
                 suite = '{suite}'\n"
            );
            fs::write(dir.path().join(format!("{engine}-{version}.toml")), text).unwrap();
        }
        assert_eq!(tested(dir.path()).unwrap(), ["a-17", "b-9.10"]);
    }

    #[test]
    fn a_root_that_cannot_be_built_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        let text = "name = 'a-1'\nengine = 'a'\nversion = '1'\nsuite = 's'\n";
        fs::write(dir.path().join("images/a-1.toml"), text).unwrap();
        let roots = Roots::default();
        // There is no program there.
        roots.begin(dir.path(), dir.path()).unwrap();
        let error = format!("{:#}", roots.end().unwrap_err());
        assert!(error.contains("image build a-1"), "{error}");
    }
}
