//! The tests' executables: found in what one build of the whole workspace says, and run as they
//! are, two beside each other where they do not disturb each other.
//!
//! `cargo test` would choose features for what it is asked for, and compile that again.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{Program, Stopwatch, tail};

/// Packages whose tests make sandboxes or measure: one after the other, in a lane of their own
/// beside the others.
const HOST_PACKAGES: &[&str] = &["coffer-infra", "coffer-engines"];
/// The package of the end-to-end tests, which have the machine to themselves.
pub const E2E: &str = "e2e";

/// End-to-end tests at once: each reserves some 8 GiB of disk, one of them 24. With three, a tenth
/// of two processors is idle.
const E2E_AT_ONCE: &str = "3";

/// A program of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Runner {
    /// Package it belongs to.
    pub package: String,
    /// Name of its target.
    pub target: String,
    /// The package's directory, where its tests run.
    dir: PathBuf,
    /// The executable.
    pub path: PathBuf,
}

/// A program of tests that has run.
#[derive(Debug)]
pub struct Ran {
    /// Which one.
    pub name: String,
    /// Its log.
    pub log: PathBuf,
    /// Why it did not end well.
    pub problem: Option<anyhow::Error>,
}

/// Builds Coffer itself with the features that the tests' build gives it, so that building the
/// tests compiles none of it again.
pub fn build_coffer(root: &Path, log: &Path) -> Result<()> {
    let words = ["build", "--workspace", "--bin", "coffer", "--examples"];
    Program::new("cargo", &words).in_dir(root).logged(log)
}

/// Builds everything and answers the programs of tests.
pub fn build(root: &Path, log: &Path) -> Result<Vec<Runner>> {
    let words = [
        "build",
        "--workspace",
        "--all-targets",
        "--message-format",
        "json-render-diagnostics",
    ];
    let messages = log.with_extension("json");
    Program::new("cargo", &words)
        .in_dir(root)
        .logged_apart(&messages, log)?;
    built(&messages)
}

/// The programs of tests in what cargo said of a build.
pub fn built(messages: &Path) -> Result<Vec<Runner>> {
    let text = fs::read_to_string(messages).context("read what cargo built")?;
    let runners: Vec<_> = text.lines().filter_map(runner).collect();
    if runners.is_empty() {
        bail!("cargo built no tests; see {}", messages.display());
    }
    Ok(runners)
}

/// The program of tests that a line of cargo's messages tells of.
fn runner(line: &str) -> Option<Runner> {
    let message: Value = serde_json::from_str(line).ok()?;
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let dir = Path::new(message["manifest_path"].as_str()?).parent()?;
    let manifest = fs::read_to_string(dir.join("Cargo.toml")).ok()?;
    let manifest: toml::Table = manifest.parse().ok()?;
    Some(Runner {
        package: manifest["package"]["name"].as_str()?.to_owned(),
        target: message["target"]["name"].as_str()?.to_owned(),
        dir: dir.to_owned(),
        path: message["executable"].as_str()?.into(),
    })
}

impl Runner {
    /// Its name, for people and logs.
    pub fn name(&self) -> String {
        format!("{}-{}", self.package, self.target)
    }

    /// The program with the surroundings that cargo would give it.
    pub fn program(&self, words: &[&str]) -> Program {
        let dir = self.dir.to_string_lossy();
        Program::new(&self.path, words)
            .in_dir(&self.dir)
            .with("CARGO_MANIFEST_DIR", &dir)
            .with("CARGO_PKG_NAME", &self.package)
            .with("INSTA_UPDATE", "no")
    }

    /// Runs a program that [`Self::program`] made, with its output in a log of its own.
    pub fn run(&self, program: Program, logs: &Path) -> Ran {
        let log = logs.join(format!("{}.log", self.name()));
        let watch = Stopwatch::start();
        let ended = program.logged(&log);
        let minutes = watch.elapsed().as_secs_f64() / 60.0;
        println!("    {:<32} {minutes:6.2} min", self.name());
        Ran {
            name: self.name(),
            problem: ended.err(),
            log,
        }
    }
}

/// Runs the programs: those that need the host to be quiet in one lane, the others in a second.
pub fn run(runners: &[Runner], logs: &Path, clients: &Path) -> Vec<Ran> {
    let needs_host = |one: &&Runner| HOST_PACKAGES.contains(&one.package.as_str());
    let (host, others): (Vec<_>, Vec<_>) = runners.iter().partition(needs_host);
    let lane = |runners: Vec<&Runner>| -> Vec<Ran> {
        let run = |one: &Runner| {
            let program = match one.package == E2E {
                true => one.program(&[]).with("RUST_TEST_THREADS", E2E_AT_ONCE),
                false => one.program(&[]),
            };
            one.run(program.with_first_in_path(clients), logs)
        };
        runners.into_iter().map(run).collect()
    };
    std::thread::scope(|scope| {
        let beside = scope.spawn(|| lane(host));
        let mut ran = lane(others);
        ran.extend(beside.join().expect("a lane reports, and does not panic"));
        ran
    })
}

/// What failed, with the end of its log.
pub fn problems(ran: &[Ran]) -> Result<()> {
    let failed: Vec<_> = ran.iter().filter(|one| one.problem.is_some()).collect();
    let Some(first) = failed.first() else {
        return Ok(());
    };
    let names: Vec<_> = failed.iter().map(|one| one.name.as_str()).collect();
    bail!("{} failed; {}", names.join(", "), tail(&first.log));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_of_tests_are_found_in_messages() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = dir.path().join("Cargo.toml");
        fs::write(&manifest, "[package]\nname = \"coffer-x\"\n").unwrap();
        let manifest = manifest.to_string_lossy();
        let line = |is_test: bool| {
            serde_json::json!({
                "reason": "compiler-artifact",
                "manifest_path": manifest,
                "target": {"name": "it"},
                "profile": {"test": is_test},
                "executable": "/t/it-1",
            })
            .to_string()
        };
        let found = runner(&line(true)).unwrap();
        assert_eq!(found.name(), "coffer-x-it");
        assert_eq!(found.path, Path::new("/t/it-1"));
        assert_eq!(runner(&line(false)), None);
        assert_eq!(runner("Compiling x"), None);
    }
}
