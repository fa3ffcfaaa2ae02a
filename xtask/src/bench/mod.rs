//! `cargo xtask bench`: measures what is promised, prints each row, writes `docs/benchmarks.md`.
//!
//! What an earlier run has left that was killed is taken away first (`place.rs`).
//!
//! A subject is a setup with the rows that are measured on it, in a file of its own; `SUBJECTS`
//! names them all. This file measures: pairs in turns, more of them while the interval is wide or
//! lies on both sides of a floor. Programs that need the crates' insides are examples of
//! `coffer-testkit`; this crate only starts them and reads what they print, and so stays quick to
//! build.

pub mod api;
pub mod by_hand;
pub mod client;
pub mod coffer;
pub mod create;
pub mod create_each;
pub mod data_path;
pub mod engine;
pub mod fifty;
pub mod http;
pub mod images;
pub mod instance;
pub mod key_value;
pub mod links;
pub mod load;
pub mod machine;
pub mod memory;
pub mod namespace;
pub mod pgbench;
pub mod place;
pub mod report;
pub mod row;
pub mod running;
pub mod runtime;
pub mod statistics;
pub mod steps;
pub mod sysbench;
pub mod turns;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Program, Stopwatch};
use crate::{built, setup};
use instance::Service;
use report::Results;
use row::{Measured, Pair, Row, Verdict};

/// LIMIT: most pairs of a row, as a multiple of those it asks for.
const MORE_PAIRS: usize = 4;
/// LIMIT: time after which a row gets no more pairs, though fewer than it asks for were measured,
/// unless the command line gives it more.
const ROW_MAX: Duration = Duration::from_secs(60);
/// As much of a checksum as tells builds apart.
const CHECKSUM_DIGITS: usize = 12;
/// Fewest pairs, however long they take: below six no interval holds 95%.
const LEAST_PAIRS: usize = 6;
/// What a row is measured of and with, in the build directory.
const PROGRAMS: &[&str] = &[
    "coffer",
    "coffer-guest",
    "examples/held_links",
    "examples/seed_instances",
    "examples/step_overhead",
];

/// A setup and the rows that are measured on it.
#[derive(Debug)]
pub struct Subject {
    /// Title in the document.
    pub title: &'static str,
    /// Its rows.
    pub rows: &'static [Row],
    /// Sets up what the rows need; dropping it takes it away.
    pub open: fn(&Bench) -> Result<Box<dyn Measure>>,
}

/// All subjects, in the order of the document.
const SUBJECTS: &[Subject] = &[
    create::SUBJECT,
    create_each::SUBJECT,
    api::SUBJECT,
    runtime::SUBJECT,
    memory::SUBJECT,
    pgbench::SUBJECT,
    data_path::SUBJECT,
    fifty::SUBJECT,
    images::SUBJECT,
];

/// Measures the rows of a subject that is set up.
pub trait Measure {
    /// Measures the row once. Called in turns with [`Measure::reference`].
    fn ours(&mut self, row: &Row) -> Result<f64> {
        bail!("row {} is measured in pairs only", row.name)
    }

    /// Measures once what the row is compared with. Not called for rows without a reference.
    fn reference(&mut self, row: &Row) -> Result<f64> {
        bail!("row {} has no reference", row.name)
    }

    /// Measures both once, one after the other, unless a subject can do better; the order changes,
    /// so that neither always comes second.
    fn pair(&mut self, row: &Row, is_ours_first: bool) -> Result<Pair> {
        if row.reference.is_empty() {
            let ours = self.ours(row)?;
            return Ok(Pair {
                ours,
                reference: None,
            });
        }
        let (ours, reference) = if is_ours_first {
            let ours = self.ours(row)?;
            (ours, self.reference(row)?)
        } else {
            let reference = self.reference(row)?;
            (self.ours(row)?, reference)
        };
        Ok(Pair {
            ours,
            reference: Some(reference),
        })
    }

    /// What the row's own value is made of, where that is known; medians. Called when the row is
    /// measured.
    fn parts(&mut self, _row: &Row) -> Vec<(String, f64)> {
        Vec::new()
    }

    /// Store, transport, volume mode: what a reader has to know.
    fn conditions(&self) -> String;

    /// Takes everything away; what is left behind is an error.
    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// What subjects work with.
#[derive(Debug, Clone)]
pub struct Bench {
    /// The tree.
    pub root: PathBuf,
    /// Where cargo's products are: `coffer`, `coffer-guest`, `examples/`.
    pub built: PathBuf,
    /// Each row once and small: only whether it runs is of interest.
    pub is_smoke: bool,
    /// How long a row whose interval is wide may go on; as many pairs as that allows.
    pub row_time: Option<Duration>,
    /// The Coffer that a subject of a smoke run has left for the next: in one of its own each would
    /// wait for the same templates.
    kept: Rc<RefCell<Option<Service>>>,
}

impl Bench {
    fn new(root: &Path, built: PathBuf, asked: &Asked<'_>) -> Self {
        Self {
            root: root.to_owned(),
            built,
            is_smoke: asked.is_smoke,
            row_time: asked.row_time,
            kept: Rc::default(),
        }
    }

    /// A Coffer whose pool has room for this many GiB. [`Bench::done`] ends it.
    pub fn service(&self, name: &str, pool_gib: u32) -> Result<Service> {
        match self.is_smoke {
            true => self.wide_service(name),
            false => Service::start(self, name, pool_gib),
        }
    }

    /// A Coffer without limits, on a pool that grows. [`Bench::done`] ends it.
    pub fn wide_service(&self, name: &str) -> Result<Service> {
        match self.kept.take() {
            Some(service) => Ok(service),
            None => Service::start_wide(self, name),
        }
    }

    /// Takes the instances away, and the Coffer unless the next subject goes on with it.
    pub fn done(&self, service: Service) -> Result<()> {
        if !self.is_smoke {
            return service.remove();
        }
        service.delete_all()?;
        self.kept.replace(Some(service));
        Ok(())
    }

    /// A size for a whole run, or the small one for the smoke run.
    pub fn size<T>(&self, whole: T, smoke: T) -> T {
        match self.is_smoke {
            true => smoke,
            false => whole,
        }
    }
}

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked<'a> {
    is_smoke: bool,
    /// Leave out what has a result of the same programs.
    is_continued: bool,
    /// Time for each row whose interval stays wide.
    row_time: Option<Duration>,
    /// Names of rows, or beginnings of them; all when empty.
    rows: Vec<&'a str>,
}

impl<'a> Asked<'a> {
    fn read(words: &[&'a str]) -> Result<Self> {
        let mut asked = Self::default();
        for &word in words {
            match word {
                "--smoke" => asked.is_smoke = true,
                "--continue" => asked.is_continued = true,
                _ if word.starts_with("--minutes=") => {
                    let minutes: u64 = word["--minutes=".len()..]
                        .parse()
                        .with_context(|| format!("{word}: a whole number of minutes"))?;
                    asked.row_time = Some(Duration::from_secs(60 * minutes));
                }
                _ if word.starts_with('-') => {
                    bail!("{word} is not known; there are --list, --smoke, --continue, --minutes=N")
                }
                _ if !names().any(|name| name.starts_with(word)) => bail!(
                    "no row begins with '{word}'; there are {}",
                    names().collect::<Vec<_>>().join(", ")
                ),
                _ => asked.rows.push(word),
            }
        }
        Ok(asked)
    }

    fn wants(&self, row: &Row) -> bool {
        self.rows.is_empty() || self.rows.iter().any(|word| row.name.starts_with(word))
    }
}

/// Names of all rows.
pub fn names() -> impl Iterator<Item = &'static str> {
    SUBJECTS
        .iter()
        .flat_map(|subject| subject.rows)
        .map(|row| row.name)
}

/// Runs the rows that the words name.
pub fn run(root: &Path, words: &[&str]) -> Result<ExitCode> {
    let asked = Asked::read(words)?;
    let failed = run_asked(root, &asked)?;
    if failed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!("below the floor: {}", Vec::from_iter(failed).join(", "));
    Ok(ExitCode::FAILURE)
}

/// Each row once, small and without limits; gives how many rows ran.
pub fn smoke(root: &Path) -> Result<usize> {
    let asked = Asked {
        is_smoke: true,
        ..Asked::default()
    };
    run_asked(root, &asked)?;
    Ok(names().count())
}

/// Gives the names of rows that failed.
fn run_asked(root: &Path, asked: &Asked<'_>) -> Result<BTreeSet<&'static str>> {
    if setup::is_root()? {
        setup::packages(&[setup::RUN, setup::TEST].concat())?;
    }
    place::clear_dead()?;
    let built = built()?;
    let build = checksum(&built)?;
    let mut results = Results::open(root.join(report::RESULTS), &build)?;
    results.keep_only(&names().collect());
    let bench = Bench::new(root, built, asked);
    let mut failed = BTreeSet::new();
    for subject in SUBJECTS {
        let wanted: Vec<&Row> = subject
            .rows
            .iter()
            .filter(|row| asked.wants(row) && !(asked.is_continued && results.has(row)))
            .collect();
        if wanted.is_empty() {
            continue;
        }
        let all = measure_subject(&bench, subject, &wanted, &mut results)?;
        let is_failed = |one: &&Measured| one.verdict() == Verdict::Fail;
        failed.extend(all.iter().filter(is_failed).map(|one| one.row.name));
        if !bench.is_smoke {
            write_document(&bench, &results)?;
        }
    }
    if let Some(service) = bench.kept.take() {
        service.remove()?;
    }
    match bench.is_smoke {
        true => Ok(BTreeSet::new()),
        false => Ok(failed),
    }
}

/// The beginning of the checksum of all programs that are measured or measure.
fn checksum(built: &Path) -> Result<String> {
    let files: Vec<String> = PROGRAMS
        .iter()
        .map(|name| built.join(name).display().to_string())
        .collect();
    let words: Vec<&str> = ["-c", "cat \"$@\" | sha256sum", "sh"]
        .into_iter()
        .chain(files.iter().map(String::as_str))
        .collect();
    let line = Program::new("sh", &words).output()?;
    Ok(line.chars().take(CHECKSUM_DIGITS).collect())
}

fn write_document(bench: &Bench, results: &Results) -> Result<()> {
    let subjects: Vec<_> = SUBJECTS.iter().map(|s| (s.title, s.rows)).collect();
    let facts = machine::facts(&std::env::temp_dir());
    report::write(&bench.root, &results.document(&facts, &subjects))
}

/// Measures rows; each result is kept at once, so that a run that is ended can go on.
fn measure_subject(
    bench: &Bench,
    subject: &Subject,
    rows: &[&Row],
    results: &mut Results,
) -> Result<Vec<Measured>> {
    let watch = Stopwatch::start();
    let mut measure =
        (subject.open)(bench).with_context(|| format!("set up \"{}\"", subject.title))?;
    let mut all = Vec::new();
    for row in rows {
        let measured = measure_row(bench, measure.as_mut(), row)
            .with_context(|| format!("measure {}", row.name))?;
        println!("{}", report::line(&measured));
        if !bench.is_smoke {
            results.put(&measured)?;
        }
        all.push(measured);
    }
    measure
        .close()
        .with_context(|| format!("take away \"{}\"", subject.title))?;
    let seconds = watch.elapsed().as_secs_f64();
    println!("{}: {} rows, {seconds:.0} s", subject.title, all.len());
    Ok(all)
}

fn measure_row(bench: &Bench, measure: &mut dyn Measure, row: &Row) -> Result<Measured> {
    let before = machine::load();
    let wanted = bench.size(row.pairs, 1);
    let most = match bench.row_time {
        Some(_) => usize::MAX,
        None => bench.size(row.pairs * MORE_PAIRS, 1),
    };
    let time = bench.row_time.unwrap_or(ROW_MAX);
    let watch = Stopwatch::start();
    let mut pairs = Vec::new();
    loop {
        pairs.push(measure.pair(row, pairs.len().is_multiple_of(2))?);
        let load = (before, machine::load());
        let mut measured = Measured::of(*row, &pairs, measure.conditions(), load);
        let is_enough = pairs.len() >= wanted && !measured.is_open();
        let is_late = watch.elapsed() > time && pairs.len() >= LEAST_PAIRS;
        if is_enough || is_late || pairs.len() >= most {
            measured.parts = measure.parts(row);
            return Ok(measured);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::row::{Limit, Unit};
    use super::*;

    const ROW: Row = Row {
        name: "test/row",
        what: "",
        reference: "the other",
        unit: Unit::Seconds,
        limit: Limit::Shown,
        pairs: 3,
    };

    /// Writes down who was asked; answers differ as much as it is told.
    struct Script {
        asked: String,
        spread: f64,
    }

    impl Measure for Script {
        fn ours(&mut self, _row: &Row) -> Result<f64> {
            self.asked.push('o');
            Ok(if self.asked.len() % 4 == 1 {
                1.0 + self.spread
            } else {
                1.0
            })
        }

        fn reference(&mut self, _row: &Row) -> Result<f64> {
            self.asked.push('r');
            Ok(2.0)
        }

        fn conditions(&self) -> String {
            String::new()
        }
    }

    fn measure(is_smoke: bool, spread: f64) -> (String, Measured) {
        let asked = Asked {
            is_smoke,
            ..Asked::default()
        };
        let bench = Bench::new(Path::new(""), PathBuf::new(), &asked);
        let mut script = Script {
            asked: String::new(),
            spread,
        };
        let measured = measure_row(&bench, &mut script, &ROW).unwrap();
        (script.asked, measured)
    }

    #[test]
    fn pairs_take_turns_and_more_are_made_while_the_interval_is_wide() {
        let (asked, measured) = measure(false, 0.0);
        assert_eq!(asked, "orroor");
        assert_eq!(measured.ratio.unwrap().median, 0.5);
        let (asked, measured) = measure(false, 0.5);
        assert_eq!(asked.len(), 24, "four times as many pairs and no more");
        assert!(measured.is_wide());
        let (asked, _) = measure(true, 0.5);
        assert_eq!(asked, "or", "a smoke run measures once");
    }

    #[test]
    fn unknown_words_are_refused_and_names_are_unique() {
        assert!(Asked::read(&["--fast"]).is_err());
        let error = Asked::read(&["nothing/like-it"]).unwrap_err().to_string();
        assert!(error.contains("nothing/like-it"), "{error}");
        assert!(Asked::read(&["--minutes=some"]).is_err());
        let asked = Asked::read(&["--minutes=3"]).unwrap();
        assert_eq!(asked.row_time, Some(Duration::from_secs(180)));
        let asked = Asked::read(&["--smoke", "--continue"]).unwrap();
        assert!(asked.is_smoke && asked.is_continued);
        let unique: BTreeSet<_> = names().collect();
        assert_eq!(unique.len(), names().count());
    }
}
