//! Real agents over engines in memory, and the conductor that holds their links: the example
//! `held_links` of `coffer-testkit`, started and read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Bench, place};
use crate::process::{Program, stop, tail, wait_for};

/// Longest time until all agents are enrolled.
const START_MAX: Duration = Duration::from_secs(180);
/// Longest time for them to end.
const STOP_MAX: Duration = Duration::from_secs(20);
/// Raises the limit of open files as far as it goes: each agent has two.
const WITH_FILES: &str = "ulimit -S -n \"$(ulimit -H -n)\" && exec \"$@\"";
/// Size of the volume that all agents share.
const VOLUME: &str = "size=16m";

/// Agents that run; ended when dropped.
#[derive(Debug)]
pub struct Links {
    child: Child,
    dir: PathBuf,
    program: PathBuf,
}

/// What was seen of a conductor while it held them.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    /// Memory, its part of what is shared counted in parts; unit: bytes.
    pub pss_bytes: f64,
    /// Answers with news.
    pub told: f64,
    /// Time of a processor.
    pub cpu_seconds: f64,
}

impl Links {
    /// Starts so many agents; with `is_churned` each has news about once a second.
    pub fn start(bench: &Bench, name: &str, count: u32, is_churned: bool) -> Result<Self> {
        let dir = place::make(name)?;
        let volume = dir.join("volume");
        fs::create_dir_all(&volume).with_context(|| format!("make {}", volume.display()))?;
        let at = volume.display().to_string();
        Program::new("mount", &["-t", "tmpfs", "-o", VOLUME, "tmpfs", &at]).output()?;
        let program = bench.built.join("examples/held_links");
        let how = if is_churned { "churn" } else { "agents" };
        let (words, number) = (dir.display().to_string(), count.to_string());
        let child = with_files(&program, &[how, &words, &number, &at]).start(&dir.join("log"));
        let made = Self {
            child: child?,
            program,
            dir,
        };
        let addresses = made.dir.join("addresses");
        wait_for("the agents", START_MAX, || addresses.exists().then_some(()))
            .with_context(|| tail(&made.dir.join("log")))?;
        Ok(made)
    }

    /// Lets a conductor hold them for so long after it has them all.
    pub fn hold(&self, seconds: u32) -> Result<Held> {
        let (dir, seconds) = (self.dir.display().to_string(), seconds.to_string());
        let text = with_files(&self.program, &["hold", &dir, &seconds]).output()?;
        let numbers = text.split_whitespace().map(str::parse);
        let numbers: Vec<f64> = numbers.collect::<Result<_, _>>().context("read numbers")?;
        match numbers[..] {
            [pss_bytes, told, cpu_seconds, _] => Ok(Held {
                pss_bytes,
                told,
                cpu_seconds,
            }),
            _ => anyhow::bail!("held_links printed '{}'", text.trim()),
        }
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        let _ = stop(&mut self.child, STOP_MAX);
        let _ = Program::new("umount", &[self.dir.join("volume")]).output();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn with_files(program: &Path, words: &[&str]) -> Program {
    let program = program.display().to_string();
    Program::new("sh", &[&["-c", WITH_FILES, "sh", &program], words].concat())
}
