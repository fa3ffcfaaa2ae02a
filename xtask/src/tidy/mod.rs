//! `cargo xtask tidy`: the rules of the house that no compiler checks, each with its reason.
//!
//! Everything wrong is found in one run. Fast enough for every commit: it reads sources and
//! `cargo metadata` and builds nothing.

pub mod comparison;
pub mod crates;
pub mod lock;
pub mod papers;
pub mod security;
pub mod source;
pub mod uses;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Runs all checks over the tree; the error lists every finding.
pub fn run(root: &Path) -> Result<String> {
    let mut findings = Vec::new();
    let sources = read_sources(root)?;
    for file in &sources {
        findings.extend(source::check(file));
    }
    let metadata = crates::Metadata::load(root)?;
    findings.extend(metadata.check());
    findings.extend(papers::check(root, &metadata)?);
    findings.extend(comparison::check(root, &sources)?);
    findings.extend(security::check(root)?);
    findings.extend(uses::check(root, &sources)?);
    findings.extend(shell_files(root)?);
    if !findings.is_empty() {
        bail!(
            "{} finding(s):\n  {}",
            findings.len(),
            findings.join("\n  ")
        );
    }
    Ok(source::summary(&sources))
}

/// A source file of ours.
#[derive(Debug)]
pub struct Source {
    /// Path from the root of the tree.
    pub path: String,
    /// Its text.
    pub text: String,
}

impl Source {
    /// Whether it holds tests only.
    pub fn is_test(&self) -> bool {
        // A conformance suite is a test that lies beside what it tests, for others to run.
        self.path.contains("/tests/")
            || self.path.starts_with("tests/")
            || self.path.contains("/conformance")
    }
}

fn read_sources(root: &Path) -> Result<Vec<Source>> {
    let mut paths = Vec::new();
    for dir in ["crates", "tests", "xtask"] {
        collect(
            &root.join(dir),
            &|path| path.extension().is_some_and(|e| e == "rs"),
            &mut paths,
        )?;
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        Ok(Source {
            path: relative(root, &path),
            text,
        })
    };
    paths.into_iter().map(read).collect()
}

/// Shell is for the three entrances only: what has logic is Rust and tested.
fn shell_files(root: &Path) -> Result<Vec<String>> {
    // What the first two share runs before cargo is there.
    const ENTRANCES: &[&str] = &["quickstart", "test", "xtask/rust.sh", ".ci/run"];
    let mut paths = Vec::new();
    let is_shell = |path: &Path| {
        let is_named = path.extension().is_some_and(|e| e == "sh" || e == "bash");
        is_named || fs::read(path).is_ok_and(|bytes| begins_as_shell(&bytes))
    };
    for dir in ["crates", "tests", "xtask", "docs", "images", ".ci"] {
        collect(&root.join(dir), &is_shell, &mut paths)?;
    }
    for entry in fs::read_dir(root).context("read the tree")? {
        let path = entry.context("read the tree")?.path();
        if path.is_file() && is_shell(&path) {
            paths.push(path);
        }
    }
    let names = paths.iter().map(|path| relative(root, path));
    let stray = names.filter(|name| !ENTRANCES.contains(&name.as_str()));
    Ok(stray
        .map(|name| format!("{name}: a shell file; put its logic into xtask"))
        .collect())
}

fn begins_as_shell(bytes: &[u8]) -> bool {
    let first = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let line = String::from_utf8_lossy(first);
    line.starts_with("#!")
        && line
            .split(['/', ' '])
            .any(|word| matches!(word, "sh" | "bash"))
}

/// Files below `dir` that `wanted` takes, in the order of their paths; a missing `dir` has none.
fn collect(dir: &Path, wanted: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) -> Result<()> {
    if !dir.is_dir() {
        return Ok(());
    }
    let entries = fs::read_dir(dir).with_context(|| format!("read {}", dir.display()))?;
    let mut paths = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(|| format!("read {}", dir.display()))?;
    paths.sort();
    for path in paths {
        if path.is_dir() && !path.ends_with("target") {
            collect(&path, wanted, found)?;
        } else if path.is_file() && wanted(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn relative(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_is_known_by_its_first_line() {
        assert!(begins_as_shell(b"#!/usr/bin/env bash\nx"));
        assert!(begins_as_shell(b"#!/bin/sh"));
        assert!(!begins_as_shell(b"#!/usr/bin/python3"));
        assert!(!begins_as_shell(b"//! sh"));
    }

    #[test]
    fn a_stray_shell_file_is_found() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("test"), "#!/bin/bash\n").unwrap();
        fs::create_dir(dir.path().join("docs")).unwrap();
        fs::write(dir.path().join("docs/x.sh"), "").unwrap();
        let findings = shell_files(dir.path()).unwrap();
        assert_eq!(findings.len(), 1);
        assert!(findings[0].starts_with("docs/x.sh"), "{findings:?}");
    }
}
