//! Facts of the machine that stand beside the figures: no dates, no names of hosts.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::process::Program;

/// Load of the machine: the mean of the last minute.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0)
}

/// What is free on the disk that a directory lies on; unit: bytes.
pub fn free_bytes(dir: &Path) -> Result<u64> {
    let words = [
        "--file-system".as_ref(),
        "--format=%a %S".as_ref(),
        dir.as_os_str(),
    ];
    let text = Program::new("stat", &words).output()?;
    let (blocks, size) = text.trim().split_once(' ').context("read what is free")?;
    let number = |word: &str| word.parse::<u64>().context("read what is free");
    Ok(number(blocks)? * number(size)?)
}

/// The facts, each a name and a value. `dir` lies where the measured states lie.
pub fn facts(dir: &Path) -> Vec<(&'static str, String)> {
    vec![
        ("processor", processor()),
        ("memory", memory()),
        ("system", system()),
        ("file system", file_system(dir)),
    ]
}

fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let names: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name.trim())
        .collect();
    format!(
        "{} x {}",
        names.len(),
        names.first().copied().unwrap_or("unknown")
    )
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = total
        .and_then(|rest| rest.trim().split(' ').next()?.parse().ok())
        .unwrap_or(0);
    format!("{} MiB", kib / 1024)
}

fn system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, Linux {}",
        name.unwrap_or("unknown").trim_matches('"'),
        kernel.trim()
    )
}

fn file_system(dir: &Path) -> String {
    let words = [
        "--file-system".as_ref(),
        "--format=%T".as_ref(),
        dir.as_os_str(),
    ];
    let name = Program::new("stat", &words).output().unwrap_or_default();
    name.trim().to_owned()
}
