//! The engine roots that the tests run from, built beside other work.
//!
//! The default version of each engine is built before the tests, and the others before a soak that
//! needs them. Roots of one suite wait for its base of their own accord, so two of them at a
//! time are what keeps the machine busy: one fetches or waits for the disk while the other unpacks.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result, bail};

use crate::process::{Program, Stopwatch};

/// How many are built at a time.
const LANES: usize = 2;

/// Which versions' roots are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// The one of each engine that is offered first.
    First,
    /// Every one that there is a recipe of.
    All,
}

/// Engine roots that are being built, or will be.
#[derive(Debug, Default)]
pub struct Roots {
    lanes: Mutex<Vec<JoinHandle<Result<()>>>>,
}

impl Roots {
    /// Begins to build these versions of each engine, unless that has begun. Those that this
    /// machine has are done at once.
    pub fn begin(&self, root: &Path, built: &Path, wanted: Versions) -> Result<()> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if !lanes.is_empty() {
            return Ok(());
        }
        let names = Arc::new(Mutex::new(VecDeque::from(recipes(
            &root.join("images"),
            wanted,
        )?)));
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

/// Names of the recipes of these versions.
fn recipes(images: &Path, wanted: Versions) -> Result<Vec<String>> {
    told_by_recipes(images, wanted, "name")
}

/// Names of the engines, each of which offers one version first.
pub fn engines(images: &Path) -> Result<Vec<String>> {
    told_by_recipes(images, Versions::First, "engine")
}

/// What the recipes of these versions say of something.
fn told_by_recipes(images: &Path, wanted: Versions, key: &str) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(images).with_context(|| format!("read {}", images.display()))? {
        let path = entry.context("read a recipe's name")?.path();
        if path.extension().is_none_or(|e| e != "toml") {
            continue;
        }
        let read = || format!("read {}", path.display());
        let text = fs::read_to_string(&path).with_context(read)?;
        let recipe: toml::Table = text.parse().with_context(read)?;
        let is_default = recipe.get("default").and_then(toml::Value::as_bool);
        if is_default == Some(true) || wanted == Versions::All {
            let value = recipe.get(key).and_then(toml::Value::as_str);
            let value = value.with_context(|| format!("{} has no {key}", path.display()))?;
            found.push(value.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_of_each_engine_is_tested() {
        let dir = tempfile::tempdir().unwrap();
        for (name, more) in [
            ("a-15", ""),
            ("a-17", "default = true\n"),
            ("b-9", "default = true\n"),
        ] {
            let text = format!("name = '{name}'\n{more}");
            fs::write(dir.path().join(format!("{name}.toml")), text).unwrap();
        }
        let first = recipes(dir.path(), Versions::First).unwrap();
        assert_eq!(first, ["a-17", "b-9"]);
        let all = recipes(dir.path(), Versions::All).unwrap();
        assert_eq!(all, ["a-15", "a-17", "b-9"]);
    }

    #[test]
    fn a_root_that_cannot_be_built_is_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        let text = "name = 'a-1'\ndefault = true\n";
        fs::write(dir.path().join("images/a-1.toml"), text).unwrap();
        let roots = Roots::default();
        // There is no program there.
        roots
            .begin(dir.path(), dir.path(), Versions::First)
            .unwrap();
        let error = format!("{:#}", roots.end().unwrap_err());
        assert!(error.contains("image build a-1"), "{error}");
    }
}
