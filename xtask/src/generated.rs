//! Files in the tree that are written by the program they describe.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::process::Program;

/// Path of each, and the words after `cargo run` that print it.
const GENERATED: &[(&str, &[&str])] = &[
    (
        "docs/config.md",
        &["--package", "coffer-control", "--example", "config-docs"],
    ),
    (
        "docs/api/openapi.json",
        &[
            "--package",
            "coffer-server",
            "--bin",
            "coffer",
            "--",
            "openapi",
        ],
    ),
];

/// Writes those that changed.
pub fn write(root: &Path) -> Result<()> {
    for (name, text) in current(root)? {
        let path = root.join(name);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        let dir = path.parent().context("find the file's directory")?;
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        fs::write(&path, text).with_context(|| format!("write {name}"))?;
        println!("wrote {name}");
    }
    Ok(())
}

/// Fails when one in the tree is not what the program prints.
pub fn check(root: &Path) -> Result<()> {
    let is_stale = |(name, text): &(&str, String)| {
        fs::read_to_string(root.join(name)).map_or(true, |old| old != *text)
    };
    let stale: Vec<_> = current(root)?
        .into_iter()
        .filter(is_stale)
        .map(|(name, _)| name)
        .collect();
    if !stale.is_empty() {
        bail!("not current: {}; run cargo xtask docs", stale.join(", "));
    }
    Ok(())
}

/// What each should hold.
fn current(root: &Path) -> Result<Vec<(&'static str, String)>> {
    let print = |(name, words): &(&'static str, &[&str])| {
        let words: Vec<&str> = ["run", "--quiet"].iter().chain(*words).copied().collect();
        let mut text = Program::new("cargo", &words).in_dir(root).output()?;
        if !text.ends_with('\n') {
            text.push('\n');
        }
        Ok((*name, text))
    };
    GENERATED.iter().map(print).collect()
}
