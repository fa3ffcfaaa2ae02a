//! `cargo xtask upgrade-from [REV]`: the upgrade of an earlier commit's Coffer to this tree's, with
//! a task of each workflow in flight (`tests/e2e/tests/it/upgrade.rs`).
//!
//! What is stored, below the build directory in `upgrade-from/`: a work tree of the earlier commit,
//! what was built of it, and the log of each run. `docs/upgrades.md` has a row for each pair of
//! commits; a pair that is tried again takes its row's place.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::process::{Program, Stopwatch, tail};
use crate::roots::{Roots, Versions};
use crate::runners::{self, Runner};
use crate::{built, setup, soak};

/// Where the results are shown.
const PAGE: &str = "docs/upgrades.md";
/// What stands above its table.
const HEAD: &str = "\
# Upgrades

Upgrades of an earlier commit's Coffer, killed with a task of each workflow in flight, to a later
one's, which ended each of them well while databases were asked all the time: `cargo xtask
upgrade-from [REV]` (`tests/e2e/tests/it/upgrade.rs`). What CI tries is the same with one build and
its last migration taken back.

| from | to | schema | tasks in flight | rounds of queries | result | until (UTC) | seconds |
| --- | --- | --- | --- | --- | --- | --- | --- |
";
/// The test.
const TEST: &str = "upgrade::a_task_of_each_workflow_in_flight_is_ended_well_after_an_upgrade";

/// Tries the upgrade from a revision; from what was before the newest change of what is shipped, if
/// none is named.
pub fn run(root: &Path, revision: Option<&str>) -> Result<ExitCode> {
    if !setup::is_root()? {
        bail!("the test makes namespaces and mounts: run cargo xtask upgrade-from as root");
    }
    let (from, to) = (earlier(root, revision)?, soak::commit(root, PAGE)?);
    let dir = built()?.join("upgrade-from");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    println!("building {from}, which takes as long as a first build");
    let programs = build(root, &dir, &from)?;
    println!("building {to} and its tests");
    let runner = test_program(root, &dir)?;
    let roots = Roots::default();
    roots.begin(root, &built()?, Versions::First)?;
    roots.end()?;

    let log = dir.join(format!("{from}-{to}.log"));
    let watch = Stopwatch::start();
    let program = runner.program(&[TEST, "--exact", "--nocapture"]);
    let program = program.with("COFFER_PREVIOUS", &programs.to_string_lossy());
    let ended = program.with_first_in_path(&setup::clients()?).logged(&log);
    let text = fs::read_to_string(&log).unwrap_or_default();
    if !text.contains("running 1 test") {
        bail!("{TEST} did not run; {}", tail(&log));
    }
    let row = Row {
        from,
        to,
        seen: Seen::of(&text),
        is_good: ended.is_ok(),
        until: soak::now()?,
        seconds: watch.elapsed().as_secs(),
    };
    show(root, &row)?;
    println!("{}", row.line());
    ended.map(|()| ExitCode::SUCCESS)
}

/// The commit that is upgraded from.
fn earlier(root: &Path, revision: Option<&str>) -> Result<String> {
    let git = |words: &[&str]| Program::new("git", words).in_dir(root).output();
    let named = match revision {
        Some(revision) => format!("{revision}^{{commit}}"),
        None => {
            let all = git(&["rev-list", "--max-count=2", "HEAD", "--", "crates"])?;
            let last = all.lines().nth(1);
            last.context("nothing that is shipped was ever changed: name a revision")?
                .to_owned()
        }
    };
    let commit = git(&["rev-parse", "--verify", "--short=12", &named])?;
    Ok(commit.trim().to_owned())
}

/// Builds the programs of a commit, in a work tree and a build directory of its own; gives the
/// directory that they are in.
fn build(root: &Path, dir: &Path, commit: &str) -> Result<PathBuf> {
    let (tree, target) = (dir.join("tree"), dir.join("target"));
    let place = tree.to_string_lossy();
    // A tree that was removed by hand is known to git all the same.
    Program::new("git", &["worktree", "prune"])
        .in_dir(root)
        .output()?;
    match tree.join(".git").exists() {
        true => {
            let words = ["checkout", "--quiet", "--force", "--detach", commit];
            Program::new("git", &words).in_dir(&tree).output()?;
        }
        false => {
            let words = ["worktree", "add", "--quiet", "--detach", &place, commit];
            Program::new("git", &words).in_dir(root).output()?;
        }
    }
    let words = [
        "build",
        "--workspace",
        "--bin",
        "coffer",
        "--bin",
        "coffer-guest",
    ];
    Program::new("cargo", &words)
        .in_dir(&tree)
        .with("CARGO_TARGET_DIR", &target.to_string_lossy())
        .logged(&dir.join("build-earlier.log"))?;
    Ok(target.join("debug"))
}

/// The program of end-to-end tests of this tree.
fn test_program(root: &Path, dir: &Path) -> Result<Runner> {
    let mut runners = runners::build(root, &dir.join("build.log"))?.into_iter();
    let found = runners.find(|one| one.package == runners::E2E && one.target == "it");
    found.context("there is no program of end-to-end tests")
}

/// What the test says of its run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Seen {
    schema: String,
    tasks: String,
    rounds: String,
}

impl Seen {
    fn of(log: &str) -> Self {
        let mut seen = Self::default();
        for line in log.lines() {
            if let Some((_, rest)) = line.split_once("brought from schema ") {
                let moved = rest.split(';').next().unwrap_or_default();
                moved.clone_into(&mut seen.schema);
            } else if let Some((_, rest)) = line.split_once("the store has schema ") {
                let same = rest.split(' ').next().unwrap_or_default();
                same.clone_into(&mut seen.schema);
            } else if let Some((tasks, rest)) = line.split_once(" tasks in flight, ") {
                let number = tasks.rsplit(' ').next().unwrap_or_default();
                number.clone_into(&mut seen.tasks);
                let rounds = rest.split(' ').next().unwrap_or_default();
                rounds.clone_into(&mut seen.rounds);
            }
        }
        seen
    }
}

/// A line of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    from: String,
    to: String,
    seen: Seen,
    is_good: bool,
    until: String,
    seconds: u64,
}

impl Row {
    fn line(&self) -> String {
        let Self {
            from,
            to,
            seen:
                Seen {
                    schema,
                    tasks,
                    rounds,
                },
            until,
            seconds,
            ..
        } = self;
        let result = if self.is_good { "ended well" } else { "FAILED" };
        format!(
            "| {from} | {to} | {schema} | {tasks} | {rounds} | {result} | {until} | {seconds} |"
        )
    }
}

/// Writes the pair's row; those of other pairs stay.
fn show(root: &Path, row: &Row) -> Result<()> {
    let page = root.join(PAGE);
    let old = fs::read_to_string(&page).unwrap_or_default();
    fs::write(&page, with_row(&old, row)).with_context(|| format!("write {PAGE}"))
}

fn with_row(page: &str, row: &Row) -> String {
    let is_row = |line: &&str| {
        line.starts_with("| ") && !line.starts_with("| from |") && !line.starts_with("| --- |")
    };
    let is_this = |line: &&str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        cells.get(1) == Some(&row.from.as_str()) && cells.get(2) == Some(&row.to.as_str())
    };
    let others = page.lines().filter(is_row).filter(|line| !is_this(line));
    let mut rows: Vec<_> = others.map(str::to_owned).collect();
    rows.push(row.line());
    format!("{HEAD}{}\n", rows.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_test_says_is_read() {
        let log = "running 1 test\nthe store was brought from schema 4 to 5; as it was it is kept \
                   in /x\n11 tasks in flight, 123 rounds of queries\ntest a ... ok\n";
        let seen = Seen::of(log);
        assert_eq!(seen.schema, "4 to 5");
        assert_eq!((seen.tasks.as_str(), seen.rounds.as_str()), ("11", "123"));
        let same = Seen::of("the store has schema 5 already: nothing to do\n");
        assert_eq!(same.schema, "5");
    }

    #[test]
    fn a_row_takes_the_place_of_the_same_pairs_row() {
        let row = |from: &str, is_good| Row {
            from: from.to_owned(),
            to: "ccc".to_owned(),
            seen: Seen::default(),
            is_good,
            until: "2026-11-29 17:00".to_owned(),
            seconds: 60,
        };
        let page = with_row("", &row("aaa", false));
        let page = with_row(&page, &row("bbb", true));
        let page = with_row(&page, &row("aaa", true));
        assert!(page.starts_with(HEAD));
        let rows = page.lines().filter(|line| line.ends_with("| 60 |"));
        assert_eq!(rows.count(), 2, "{page}");
        assert!(!page.contains("FAILED"), "{page}");
    }
}
