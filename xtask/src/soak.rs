//! Repeated tests run as often as is promised: `./test --soak NAME`, which can be interrupted and
//! goes on where it stopped.
//!
//! What is stored: for each test one progress file below the build directory, with the commit, how
//! many rounds are done, the seconds they took and what failed. It is written after each batch, so
//! that a batch at the most is repeated. A soak is of one commit: its program is copied beside the
//! progress file when it begins, and a tree that moved on begins another. `docs/soak.md` is
//! written from the progress files and keeps the rows of other commits.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::process::{Program, Stopwatch};
use crate::roots::{Roots, Versions};
use crate::runners::{self, Runner};
use crate::{built, setup};

/// Where the results are shown.
const PAGE: &str = "docs/soak.md";
/// What stands above its table.
const HEAD: &str = "\
# Soak

Repeated tests, as often as `tests/counts.toml` promises, by `./test --soak NAME`; it goes on where
it was stopped. A failure is kept with its seed (`SEED=n` plays it again at that commit) or the
round whose log is in the build directory under `soak/`.

| test | done | of | failures | commit | until (UTC) | hours | which |
| --- | --- | --- | --- | --- | --- | --- | --- |
";

/// A repeated test.
struct Soak {
    /// Its name in `tests/counts.toml`.
    name: &'static str,
    /// Package whose program `it` has it.
    package: &'static str,
    /// The tests, which share the count.
    tests: &'static [&'static str],
    /// Rounds of one batch: what is repeated at the most after an interruption.
    batch: u64,
    /// Whether rounds are told by seed, and not only by number.
    has_seeds: bool,
    /// Whether the rounds are versions of engines, and need the root of each.
    has_roots: bool,
}

const fn kill(name: &'static str, tests: &'static [&'static str]) -> Soak {
    Soak {
        name,
        package: runners::E2E,
        tests,
        batch: 10,
        has_seeds: false,
        has_roots: false,
    }
}

/// A soak of versions of engines: a batch is all of them, because a round is one.
const fn versions(
    name: &'static str,
    package: &'static str,
    tests: &'static [&'static str],
) -> Soak {
    Soak {
        name,
        package,
        tests,
        batch: VERSIONS_MAX,
        has_seeds: false,
        has_roots: true,
    }
}

/// More versions than there are recipes.
const VERSIONS_MAX: u64 = 100;

const SOAKS: &[Soak] = &[
    Soak {
        name: "simulation_seeds",
        package: "coffer-testkit",
        tests: &["seeds::random_schedules_leave_nothing_stuck_and_nothing_leaked"],
        batch: 1_000,
        has_seeds: true,
        has_roots: false,
    },
    kill(
        "kill_create_delete",
        &["kills::creates_and_deletes_outlive_kills"],
    ),
    kill("kill_restart", &["kills::restarts_outlive_kills"]),
    kill(
        "kill_other_engines",
        &["kills::the_other_engines_outlive_kills"],
    ),
    Soak {
        // One round each, because the test has one.
        batch: 1,
        ..kill(
            "full_volume_of_mariadb",
            &["full_volume::a_full_volume_is_its_tenants_own_and_goes_on_with_space"],
        )
    },
    versions(
        "conforming_versions",
        "coffer-guest",
        &[
            "engine::postgresql_conforms",
            "engine::postgresql_names_its_spare_database",
            "engine::mysql_conforms",
            "engine::mariadb_conforms",
            "engine::redis_conforms",
            "engine::valkey_conforms",
            "engine::postgresql_outlives_the_host",
            "engine::mysql_outlives_the_host",
            "engine::mariadb_outlives_the_host",
            "engine::mysql_bounds_its_root",
            "engine::mariadb_bounds_its_root",
            "engine::redis_refuses_what_reaches_the_process",
            "engine::valkey_refuses_what_reaches_the_process",
        ],
    ),
    versions(
        "living_versions",
        runners::E2E,
        &[
            "engines::every_version_lives_through_the_api",
            "sql_engines::mysql_lives_through_the_api",
            "sql_engines::mariadb_lives_through_the_api",
            "keyvalue::redis_and_valkey_live_through_the_api",
            "images::all_roots_of_this_machine_are_small",
        ],
    ),
];

/// Names of the repeated tests.
pub fn names() -> Vec<&'static str> {
    SOAKS.iter().map(|soak| soak.name).collect()
}

/// How far a soak is.
#[derive(Debug, Clone, Default, PartialEq)]
struct Progress {
    commit: String,
    done: u64,
    seconds: f64,
    failures: Vec<String>,
    until: String,
}

impl Progress {
    fn of(commit: &str) -> Self {
        Self {
            commit: commit.to_owned(),
            ..Self::default()
        }
    }

    fn read(path: &Path) -> Option<Self> {
        let value: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).ok()?;
        let failures = value["failures"].as_array()?.iter();
        Some(Self {
            commit: value["commit"].as_str()?.to_owned(),
            done: value["done"].as_u64()?,
            seconds: value["seconds"].as_f64()?,
            failures: failures
                .filter_map(|f| f.as_str().map(str::to_owned))
                .collect(),
            until: value["until"].as_str()?.to_owned(),
        })
    }

    fn write(&self, path: &Path) -> Result<()> {
        let value = json!({
            "commit": self.commit,
            "done": self.done,
            "seconds": self.seconds,
            "failures": self.failures,
            "until": self.until,
        });
        // Renamed, so that an interruption leaves the old one or the new one.
        let new = path.with_extension("new");
        fs::write(&new, format!("{value:#}\n"))
            .and_then(|()| fs::rename(&new, path))
            .with_context(|| format!("write {}", path.display()))
    }
}

/// Runs a repeated test to its promised count, or on to it.
pub fn run(root: &Path, name: &str) -> Result<ExitCode> {
    let Some(soak) = SOAKS.iter().find(|soak| soak.name == name) else {
        bail!(
            "there is no repeated test '{name}'; there are {}",
            names().join(", ")
        );
    };
    let promised = promised(root, name)?;
    let dir = built()?.join("soak").join(name);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let file = dir.join("progress.json");
    let (runner, mut progress) = begin(root, soak, &dir, &file)?;
    if soak.has_roots && progress.done < promised {
        build_roots(root)?;
    }
    while progress.done < promised {
        let rounds = soak.batch.min(promised - progress.done);
        let watch = Stopwatch::start();
        let failed = batch(soak, &runner, &dir, progress.done, rounds)?;
        progress.seconds += watch.elapsed().as_secs_f64();
        progress.done += rounds;
        progress.failures.extend(failed);
        progress.until = now()?;
        progress.write(&file)?;
        show(root, soak, promised, &progress)?;
        println!(
            "{name}: {} of {promised}, {} failed, {:.1} min",
            progress.done,
            progress.failures.len(),
            progress.seconds / 60.0
        );
    }
    Ok(if progress.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The program of this commit, and how far it is; begins anew when the tree has moved on.
fn begin(root: &Path, soak: &Soak, dir: &Path, file: &Path) -> Result<(Runner, Progress)> {
    let commit = commit(root, PAGE)?;
    let log = dir.join("build.log");
    let mut runners = runners::build(root, &log)?.into_iter();
    let mut runner = runners
        .find(|one| one.package == soak.package && one.target == "it")
        .with_context(|| format!("{} has no program of tests 'it'", soak.package))?;
    let kept: PathBuf = dir.join("it");
    let known = Progress::read(file).filter(|known| known.commit == commit && kept.is_file());
    if known.is_none() {
        let _ = fs::remove_file(&kept);
        fs::copy(&runner.path, &kept).with_context(|| format!("keep {}", kept.display()))?;
    }
    // What drives the real Coffer has to stand where Coffer was built.
    if soak.has_seeds {
        runner.path = kept;
    }
    Ok((runner, known.unwrap_or_else(|| Progress::of(&commit))))
}

/// Builds the root of every version, unless this machine has it.
fn build_roots(root: &Path) -> Result<()> {
    let roots = Roots::default();
    roots.begin(root, &built()?, Versions::All)?;
    roots.end()
}

/// Runs some rounds and answers what failed.
fn batch(soak: &Soak, runner: &Runner, dir: &Path, from: u64, rounds: u64) -> Result<Vec<String>> {
    let log = dir.join(format!("{from}.log"));
    let seeds = format!("{from}..{}", from + rounds);
    let words = [soak.tests, &["--exact", "--nocapture"]].concat();
    let mut program = runner.program(&words);
    program = match soak.has_seeds {
        true => program.with("SEEDS", &seeds),
        false => program
            .with("COFFER_ROUNDS", &rounds.to_string())
            .with_first_in_path(&setup::clients()?),
    };
    let ended = program.logged(&log);
    let text = fs::read_to_string(&log).unwrap_or_default();
    let failed = failures(&text, &seeds, ended.is_ok());
    if !has_begun(&text, soak.tests.len()) {
        let tests = soak.tests.join(", ");
        bail!("of {tests} not all did run; see {}", log.display());
    }
    if failed.is_empty() {
        let _ = fs::remove_file(&log);
    }
    Ok(failed)
}

/// Whether the program of tests knew all of so many.
fn has_begun(log: &str, tests: usize) -> bool {
    let known = log.lines().find_map(|line| {
        let rest = line.strip_prefix("running ")?;
        rest.split(' ').next()?.parse().ok()
    });
    known == Some(tests)
}

/// What failed, from the log of a batch: `seed N`, or the rounds themselves.
fn failures(log: &str, rounds: &str, is_good: bool) -> Vec<String> {
    let seeds = log.lines().filter_map(|line| {
        let rest = line.strip_prefix("failed seed ")?;
        Some(format!("seed {}", rest.split_once(':')?.0))
    });
    let mut failed: Vec<_> = seeds.collect();
    if failed.is_empty() && !is_good {
        failed.push(format!("rounds {rounds}"));
    }
    failed
}

/// Writes the test's row; rows of other tests and other commits stay.
fn show(root: &Path, soak: &Soak, promised: u64, progress: &Progress) -> Result<()> {
    let page = root.join(PAGE);
    let old = fs::read_to_string(&page).unwrap_or_default();
    let text = with_row(&old, soak.name, promised, progress);
    fs::write(&page, text).with_context(|| format!("write {PAGE}"))
}

fn with_row(page: &str, name: &str, promised: u64, progress: &Progress) -> String {
    let Progress {
        commit,
        done,
        seconds,
        failures,
        until,
    } = progress;
    let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| test |");
    let is_this = |line: &&str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        cells.get(1) == Some(&name) && cells.get(5) == Some(&commit.as_str())
    };
    let others = page
        .lines()
        .filter(is_row)
        .filter(|l| !l.starts_with("| --- |"));
    let mut rows: Vec<String> = others
        .filter(|line| !is_this(line))
        .map(str::to_owned)
        .collect();
    let which = failures.join(", ");
    let (failed, hours) = (failures.len(), seconds / 3_600.0);
    rows.push(format!(
        "| {name} | {done} | {promised} | {failed} | {commit} | {until} | {hours:.2} | {which} |"
    ));
    rows.sort();
    format!("{HEAD}{}\n", rows.join("\n"))
}

fn promised(root: &Path, name: &str) -> Result<u64> {
    let text = fs::read_to_string(root.join("tests/counts.toml")).context("read counts")?;
    let counts: toml::Table = text.parse().context("read tests/counts.toml")?;
    let count = counts.get(name).and_then(|one| one.get("soak"));
    let count = count.and_then(toml::Value::as_integer);
    count
        .and_then(|count| u64::try_from(count).ok())
        .with_context(|| format!("tests/counts.toml has no soak for [{name}]"))
}

/// The commit of the tree, in which nothing but a page of results may have changed.
pub(crate) fn commit(root: &Path, page: &str) -> Result<String> {
    let words = [
        "describe",
        "--always",
        "--dirty",
        "--abbrev=12",
        "--exclude=*",
    ];
    let text = Program::new("git", &words).in_dir(root).output()?;
    let text = text.trim();
    if text.ends_with("-dirty") && !is_only_page(root, page)? {
        bail!("the tree has changes of its own: commit them, so that the result has a name");
    }
    Ok(text.trim_end_matches("-dirty").to_owned())
}

/// Whether nothing but the page of results has changed.
fn is_only_page(root: &Path, page: &str) -> Result<bool> {
    let words = ["status", "--porcelain", "--untracked-files=no"];
    let text = Program::new("git", &words).in_dir(root).output()?;
    Ok(text.lines().all(|line| line.ends_with(page)))
}

/// The time of day, UTC, to the minute.
pub(crate) fn now() -> Result<String> {
    let text = Program::new("date", &["-u", "+%Y-%m-%d %H:%M"]).output()?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(commit: &str, done: u64, failures: &[&str]) -> Progress {
        Progress {
            commit: commit.to_owned(),
            done,
            seconds: 1_800.0,
            failures: failures.iter().map(|&f| f.to_owned()).collect(),
            until: "2026-11-21 12:00".to_owned(),
        }
    }

    #[test]
    fn a_row_takes_the_place_of_the_same_tests_and_commits_row() {
        let page = with_row("", "kill_create", 200, &progress("aaa", 10, &[]));
        let page = with_row(
            &page,
            "kill_create",
            200,
            &progress("aaa", 20, &["rounds 10..20"]),
        );
        let page = with_row(&page, "kill_create", 200, &progress("bbb", 10, &[]));
        let rows: Vec<_> = page.lines().filter(|l| l.starts_with("| kill")).collect();
        assert_eq!(
            rows,
            [
                "| kill_create | 10 | 200 | 0 | bbb | 2026-11-21 12:00 | 0.50 |  |",
                "| kill_create | 20 | 200 | 1 | aaa | 2026-11-21 12:00 | 0.50 | rounds 10..20 |",
            ]
        );
        assert!(page.starts_with(HEAD));
    }

    #[test]
    fn progress_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("progress.json");
        assert_eq!(Progress::read(&file), None);
        let written = progress("abc", 3_000, &["seed 7"]);
        written.write(&file).unwrap();
        assert_eq!(Progress::read(&file), Some(written));
    }

    #[test]
    fn failures_are_named_by_seed_or_by_rounds() {
        let log = "running 1 test\nfailed seed 12: stuck\nfailed seed 40: leaked: x\n";
        assert_eq!(failures(log, "0..100", false), ["seed 12", "seed 40"]);
        assert_eq!(failures("Killed", "10..20", false), ["rounds 10..20"]);
        assert!(failures("test result: ok", "10..20", true).is_empty());
    }

    #[test]
    fn a_test_that_is_not_there_is_noticed() {
        assert!(has_begun("\nrunning 1 test\ntest a ... ok\n", 1));
        assert!(has_begun("running 9 tests\n", 9));
        assert!(!has_begun("running 8 tests\n", 9));
        assert!(!has_begun("running 0 tests\n", 1));
        assert!(!has_begun("", 0));
    }

    #[test]
    fn a_soak_of_versions_is_one_batch_of_as_many_as_there_are_recipes() {
        let root = crate::root().unwrap();
        let recipes = fs::read_dir(root.join("images")).unwrap().flatten();
        let recipes = recipes.filter(|one| one.path().extension().is_some_and(|e| e == "toml"));
        let recipes = u64::try_from(recipes.count()).unwrap();
        for soak in SOAKS.iter().filter(|soak| soak.has_roots) {
            let promised = promised(&root, soak.name).unwrap();
            assert!(
                promised == recipes && promised <= soak.batch,
                "{}",
                soak.name
            );
        }
    }

    #[test]
    fn every_repeated_test_has_a_promised_count() {
        let root = crate::root().unwrap();
        for name in names() {
            assert!(promised(&root, name).unwrap() > 0, "{name}");
        }
    }
}
