//! The test rings: what `./test` runs, in which order, and how it ends.
//!
//! The first ring that fails ends the run, with the end of its log. The last line is always
//! `N passed, N failed`, added up from what the test runners say; a ring that could not run counts
//! as one failure. Whatever Coffer leaves on the host is a failure of the ring that left it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{self, Program, Stopwatch};
use crate::quickstart::Build;
use crate::roots::{Roots, Versions};
use crate::runners::{self, Runner};
use crate::{bench, built, generated, leftovers, package, quickstart, recipes, setup, tidy};

/// File in which the end-to-end tests collect WARN and ERROR lines.
const UNEXPECTED_LINES: &str = "e2e-unexpected-lines.txt";

/// How long what was ended may take to be gone from the host.
const LEAVE_MAX: Duration = Duration::from_secs(10);

/// LIMIT: how long everything may take on a machine that has built nothing before, xtask itself
/// left out; unit: minutes.
const COLD_MINUTES: f64 = 25.0;

/// How many tests passed and failed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Count {
    passed: u64,
    failed: u64,
}

/// What a ring works with.
struct Run<'a> {
    root: &'a Path,
    log: PathBuf,
    /// Engine roots under way.
    roots: &'a Roots,
}

/// A ring: its name, what it is for, and what it does.
type Ring = (&'static str, fn(&Run<'_>) -> Result<Count>);

/// All rings, in their order: the quick and the cheap first.
const RINGS: &[Ring] = &[
    ("setup", setup_ring),
    ("fmt", |c| {
        cargo(c, &["fmt", "--all", "--check", "--", "--color", "never"])
    }),
    ("tidy", tidy_ring),
    ("clippy", |c| {
        cargo(
            c,
            &[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ],
        )
    }),
    ("build", build_ring),
    ("docs", docs_ring),
    ("package", package_ring),
    ("roots", roots_ring),
    ("recipes", recipes_ring),
    ("unit", |c| tests(c, |one| one.package != runners::E2E)),
    ("e2e", e2e_ring),
    ("bench", bench_ring),
    ("quickstart", quickstart_ring),
];

/// Names of the rings, in their order.
pub fn names() -> Vec<&'static str> {
    RINGS.iter().map(|(name, _)| *name).collect()
}

/// Runs the named rings, all of them when none is named.
pub fn run(root: &Path, wanted: &[&str]) -> Result<ExitCode> {
    if let Some(unknown) = wanted.iter().find(|name| !names().contains(name)) {
        bail!(
            "there is no ring '{unknown}'; there are {}",
            names().join(", ")
        );
    }
    let whole = Stopwatch::start();
    let is_cold = !built()?.join("coffer").exists();
    let roots = Roots::default();
    let mut total = Count::default();
    let is_wanted = |name: &&str| wanted.is_empty() || wanted.contains(name);
    for (name, ring) in RINGS.iter().filter(|(name, _)| is_wanted(name)) {
        let log = built()?.join("rings").join(format!("{name}.log"));
        let context = Run {
            root,
            log,
            roots: &roots,
        };
        let watch = Stopwatch::start();
        let result = ring(&context);
        let minutes = watch.elapsed().as_secs_f64() / 60.0;
        let counted = result
            .as_ref()
            .map_or_else(|_| count_in(&context.log), |count| *count);
        total.passed += counted.passed;
        total.failed += counted.failed.max(u64::from(result.is_err()));
        match result {
            Ok(count) if count.failed == 0 => println!("{name:<11} {minutes:6.2} min  ok"),
            Ok(_) => println!("{name:<11} {minutes:6.2} min  FAILED"),
            Err(error) => println!("{name:<11} {minutes:6.2} min  FAILED\n{error:#}"),
        }
        if total.failed > 0 {
            break;
        }
    }
    // When a ring failed before, the builds that were begun end before we do.
    if let Err(error) = roots.end() {
        println!("{error:#}");
        total.failed += 1;
    }
    let minutes = whole.elapsed().as_secs_f64() / 60.0;
    let is_measured = is_cold && wanted.is_empty();
    let figure = is_measured.then(|| on_an_empty_machine(minutes));
    let (words, is_late) = figure.unwrap_or_default();
    println!("{:<11} {minutes:6.2} min{words}", "all");
    total.failed += u64::from(is_late);
    println!("{} passed, {} failed", total.passed, total.failed);
    Ok(if total.failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// How a whole run on a machine that had built nothing compares with its figure, and whether that
/// is too much: an absolute time depends on the machine and its neighbours.
fn on_an_empty_machine(minutes: f64) -> (String, bool) {
    let most = COLD_MINUTES * bench::row::TIME_SLACK;
    let words = format!(" on an empty machine, {COLD_MINUTES} wanted, {most} at most");
    (words, minutes > most)
}

fn setup_ring(_context: &Run<'_>) -> Result<Count> {
    if !setup::is_root()? {
        bail!("the rings make namespaces and mounts: run ./test as root");
    }
    setup::packages(&[setup::RUN, setup::TEST].concat())?;
    setup::clients()?;
    Ok(Count::default())
}

fn tidy_ring(context: &Run<'_>) -> Result<Count> {
    println!("{}", tidy::run(context.root)?);
    Ok(Count::default())
}

fn docs_ring(context: &Run<'_>) -> Result<Count> {
    generated::check(context.root)?;
    // With the examples come the features that tests ask for: what clippy checked serves here too.
    let words = "doc --workspace --no-deps --document-private-items --lib --bin coffer --examples";
    let words: Vec<_> = words.split(' ').collect();
    let program = Program::new("cargo", &words);
    program
        .with("RUSTDOCFLAGS", "-D warnings")
        .in_dir(context.root)
        .logged(&context.log)?;
    Ok(Count::default())
}

/// Builds Coffer, and then the tests while Coffer builds the engine roots: these wait for the
/// network and the disk, the compiler does not.
fn build_ring(context: &Run<'_>) -> Result<Count> {
    runners::build_coffer(context.root, &context.log.with_extension("coffer.log"))?;
    context
        .roots
        .begin(context.root, &built()?, Versions::First)?;
    runners::build(context.root, &context.log)?;
    Ok(Count::default())
}

/// The package of what was built, looked at by those who would have to install it.
fn package_ring(context: &Run<'_>) -> Result<Count> {
    let passed = package::check(context.root, &context.log)?;
    Ok(Count { passed, failed: 0 })
}

fn roots_ring(context: &Run<'_>) -> Result<Count> {
    context
        .roots
        .begin(context.root, &built()?, Versions::First)?;
    context.roots.end()?;
    Ok(Count::default())
}

/// The recipes of CONTRIBUTING.md, each followed by a toy on a copy of the tree.
fn recipes_ring(context: &Run<'_>) -> Result<Count> {
    // Of an earlier run.
    fs::remove_file(&context.log).ok();
    let before = leftovers::now();
    let ran = recipes::follow(context.root, &built()?.join("recipes"), &context.log)?;
    gather(&ran, &context.log)?;
    runners::problems(&ran)?;
    let is_idle = |one: &&runners::Ran| count_in(&one.log).passed == 0;
    if let Some(idle) = ran.iter().find(is_idle) {
        bail!("no test of {} tells of a toy", idle.name);
    }
    left_nothing(&before)?;
    Ok(count_in(&context.log))
}

/// The end-to-end tests; a Coffer that logged what nobody expected fails them all.
fn e2e_ring(context: &Run<'_>) -> Result<Count> {
    let lines = built()?.join(UNEXPECTED_LINES);
    // Of an earlier run.
    fs::remove_file(&lines).ok();
    let count = tests(context, |one| one.package == runners::E2E)?;
    match fs::read_to_string(&lines) {
        Ok(found) => {
            bail!("lines in Coffer's log that no test expects (tests/e2e/src/lines.rs):\n{found}")
        }
        Err(_) => Ok(count),
    }
}

fn bench_ring(context: &Run<'_>) -> Result<Count> {
    let before = leftovers::now();
    let passed = u64::try_from(bench::smoke(context.root)?).unwrap_or(u64::MAX);
    left_nothing(&before)?;
    Ok(Count { passed, failed: 0 })
}

fn quickstart_ring(context: &Run<'_>) -> Result<Count> {
    let before = leftovers::now();
    quickstart::run(context.root, true, Build::Workspace)?;
    left_nothing(&before)?;
    quickstart::run_twice()?;
    left_nothing(&before)?;
    Ok(Count {
        passed: 2,
        failed: 0,
    })
}

fn cargo(context: &Run<'_>, words: &[&str]) -> Result<Count> {
    Program::new("cargo", words)
        .in_dir(context.root)
        .logged(&context.log)?;
    Ok(Count::default())
}

/// Runs the programs of tests that are wanted, with the real clients at hand, and counts what
/// they say.
fn tests(context: &Run<'_>, is_wanted: impl Fn(&Runner) -> bool) -> Result<Count> {
    let before = leftovers::now();
    let clients = setup::clients()?;
    let build_log = context.log.with_extension("build.log");
    let mut wanted = runners::build(context.root, &build_log)?;
    wanted.retain(|one| is_wanted(one));
    let logs = context.log.with_extension("");
    let ran = runners::run(&wanted, &logs, &clients);
    gather(&ran, &context.log)?;
    runners::problems(&ran)?;
    let count = count_in(&context.log);
    let silent: Vec<_> = ran.iter().filter(|one| !has_counted(&one.log)).collect();
    if count.passed == 0 || !silent.is_empty() {
        bail!("no test ran in: {silent:?}");
    }
    left_nothing(&before)?;
    Ok(count)
}

/// Puts the programs' logs into one, from which the ring is counted.
fn gather(ran: &[runners::Ran], log: &Path) -> Result<()> {
    let mut all = String::new();
    for one in ran {
        all.push_str(&format!("== {}\n", one.name));
        all.push_str(&fs::read_to_string(&one.log).unwrap_or_default());
        let is_counted = count_in(&one.log).failed > 0 || one.problem.is_none();
        if !is_counted {
            all.push_str("test result: FAILED. 0 passed; 1 failed; it did not end\n");
        }
    }
    fs::write(log, all).with_context(|| format!("write {}", log.display()))
}

/// Whether a program of tests said how many ran, even if none is in it.
fn has_counted(log: &Path) -> bool {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines().any(|line| count_of(line).is_some())
}

/// Adds up the runners' last lines in a log.
fn count_in(log: &Path) -> Count {
    let text = fs::read_to_string(log).unwrap_or_default();
    text.lines()
        .filter_map(count_of)
        .fold(Count::default(), |sum, one| Count {
            passed: sum.passed + one.passed,
            failed: sum.failed + one.failed,
        })
}

/// Reads `test result: ok. 3 passed; 0 failed; …`.
fn count_of(line: &str) -> Option<Count> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let number = |what: &str| {
        rest.split("; ")
            .find_map(|p| p.strip_suffix(what)?.trim().parse().ok())
    };
    Some(Count {
        passed: number("passed")?,
        failed: number("failed")?,
    })
}

/// Whether the host looks as it did before.
fn left_nothing(before: &BTreeSet<String>) -> Result<()> {
    let left = || -> Vec<_> { leftovers::now().difference(before).cloned().collect() };
    // What was killed a moment ago may take another moment to be gone.
    let is_clean = || left().is_empty().then_some(());
    match process::wait_for("the host to be as before", LEAVE_MAX, is_clean) {
        Ok(()) => Ok(()),
        Err(_) => Err(anyhow::anyhow!(left().join("\n  "))).context("left on this host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cold_run_fails_at_three_times_its_figure() {
        let (words, is_late) = on_an_empty_machine(33.5);
        assert_eq!(words, " on an empty machine, 25 wanted, 75 at most");
        assert!(!is_late);
        assert!(on_an_empty_machine(75.1).1);
    }

    #[test]
    fn the_runners_lines_are_added_up() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        let text = "test a ... ok\ntest result: ok. 3 passed; 0 failed; 1 ignored; 0 measured\n\
                    test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured\nnoise\n";
        fs::write(&log, text).unwrap();
        assert_eq!(
            count_in(&log),
            Count {
                passed: 7,
                failed: 2
            }
        );
        assert_eq!(count_in(&dir.path().join("none")), Count::default());
    }

    #[test]
    fn an_unknown_ring_is_refused() {
        let error = run(Path::new("/"), &["fmt", "everything"])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("'everything'") && error.contains("clippy"),
            "{error}"
        );
    }
}
