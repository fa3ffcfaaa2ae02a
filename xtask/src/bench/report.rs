//! What the benchmark says: a line for each row as it goes, the results in `docs/benchmarks.json`,
//! and `docs/benchmarks.md` made from them.
//!
//! The results are kept in the tree and not in a build directory, so that a row that is measured
//! alone, or elsewhere, leaves the others as they are. Each holds the checksum of the `coffer` that
//! it was measured with: a run that goes on measures the rows that are of another one.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Map, Value};

use super::row::{Limit, Measured, Row, Unit};
use super::statistics::Estimate;

/// Where the results are.
pub const RESULTS: &str = "docs/benchmarks.json";
/// Name of the checksum in a result.
const BUILD: &str = "build";

/// Results by the name of the row.
#[derive(Debug)]
pub struct Results {
    path: PathBuf,
    /// Which `coffer` is measured now.
    build: String,
    rows: Map<String, Value>,
}

impl Results {
    /// Reads the file of results; none is no mistake.
    pub fn open(path: PathBuf, build: &str) -> Result<Self> {
        let rows = match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("read {}: remove it", path.display()))?,
            Err(_) => Map::new(),
        };
        let build = build.to_owned();
        Ok(Self { path, build, rows })
    }

    /// Whether the row has a result of this build.
    pub fn has(&self, row: &Row) -> bool {
        let build = self.rows.get(row.name).map(|found| &found[BUILD]);
        build.is_some_and(|build| build == &self.build) && self.get(*row).is_some()
    }

    /// Forgets the rows that there are no more.
    pub fn keep_only(&mut self, names: &BTreeSet<&str>) {
        self.rows.retain(|name, _| names.contains(name.as_str()));
    }

    /// Keeps a result.
    pub fn put(&mut self, measured: &Measured) -> Result<()> {
        let mut value = measured.to_json();
        value[BUILD] = self.build.clone().into();
        self.rows.insert(measured.row.name.to_owned(), value);
        // A row on a line: what another run has changed is seen.
        let lines = self
            .rows
            .iter()
            .map(|(name, value)| format!("{name:?}: {value}"));
        let text = format!("{{\n{}\n}}\n", lines.collect::<Vec<_>>().join(",\n"));
        fs::write(&self.path, text).with_context(|| format!("write {}", self.path.display()))
    }

    fn get(&self, row: Row) -> Option<Measured> {
        Measured::from_json(row, self.rows.get(row.name)?)
    }

    /// The document: facts of the machine, then a table for each subject.
    pub fn document(&self, facts: &[(&str, String)], subjects: &[(&str, &[Row])]) -> String {
        let mut text = HEAD.to_owned();
        for (name, value) in facts {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        for (title, rows) in subjects {
            let _ = write!(text, "\n## {title}\n\n{TABLE}");
            for row in *rows {
                text.push_str(&self.table_line(*row));
            }
            text.push_str(&self.conditions(rows));
            text.push_str(&self.parts(rows));
        }
        text
    }

    fn table_line(&self, row: Row) -> String {
        let (floor, goal) = row.limit.words(row.unit);
        let what = match row.reference {
            "" => row.what.to_owned(),
            against => format!("{}, against {against}", row.what),
        };
        let Some(measured) = self.get(row) else {
            return format!(
                "| `{}` | {what} | | {floor} | {goal} | not measured | | |\n",
                row.name
            );
        };
        format!(
            "| `{}` | {what} | {} | {floor} | {goal} | {} | {} | {:.1} |\n",
            row.name,
            figure(&measured),
            measured.verdict().word(),
            values(&measured),
            measured.load.0.max(measured.load.1),
        )
    }

    /// What rows are made of, in a table of its own: a line for each part, a column for each row.
    fn parts(&self, rows: &[Row]) -> String {
        let all = rows.iter().filter_map(|row| self.get(*row));
        let all: Vec<Measured> = all.filter(|one| !one.parts.is_empty()).collect();
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in all.iter().flat_map(|one| &one.parts) {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
        if names.is_empty() {
            return String::new();
        }
        let line = |first: &str, cells: &mut dyn Iterator<Item = String>| {
            let cells: String = cells.map(|cell| format!(" {cell} |")).collect();
            format!("| {first} |{cells}\n")
        };
        let mut titles = all.iter().map(|one| format!("`{}`", one.row.name));
        let mut text = format!("\nStep by step, medians:\n\n{}", line("step", &mut titles));
        text.push_str(&line("---", &mut all.iter().map(|_| "---".to_owned())));
        for name in names {
            let cell = |one: &Measured| {
                let found = one.parts.iter().find(|(part, _)| part == name);
                found.map_or_else(String::new, |(_, value)| one.row.unit.show(*value))
            };
            text.push_str(&line(name, &mut all.iter().map(cell)));
        }
        text
    }

    fn conditions(&self, rows: &[Row]) -> String {
        let mut all: Vec<String> = rows
            .iter()
            .filter_map(|row| Some(self.get(*row)?.conditions))
            .filter(|conditions| !conditions.is_empty())
            .collect();
        all.sort();
        all.dedup();
        match all.is_empty() {
            true => String::new(),
            false => format!("\nMeasured with: {}.\n", all.join("; ")),
        }
    }
}

/// One line for the terminal.
pub fn line(measured: &Measured) -> String {
    format!(
        "{:<28} {:<34} {:<24} {} ({} pairs, load {:.1})",
        measured.row.name,
        figure(measured),
        measured.verdict().word(),
        values(measured),
        measured.pairs,
        measured.load.1
    )
}

/// The judged value with its interval.
fn figure(measured: &Measured) -> String {
    match measured.ratio {
        Some(ratio) => ratio_words(ratio, measured.row.limit),
        None => {
            let Estimate { low, median, high } = measured.ours;
            let show = |value| Unit::show(measured.row.unit, value);
            format!("{} [{}, {}]", show(median), show(low), show(high))
        }
    }
}

fn ratio_words(ratio: Estimate, limit: Limit) -> String {
    let Estimate { low, median, high } = ratio;
    match limit {
        // What is to be at least a part of something is easier read as one in so many.
        Limit::RatioAtLeast { goal, .. } if goal < 0.5 => {
            format!("{median:.3} = 1/{:.1} [{low:.3}, {high:.3}]", 1.0 / median)
        }
        _ => format!("{median:.3} [{low:.3}, {high:.3}]"),
    }
}

/// The measured values, where a ratio is judged.
fn values(measured: &Measured) -> String {
    let show = |e: Estimate| measured.row.unit.show(e.median);
    match measured.reference {
        Some(reference) => format!("{} to {}", show(measured.ours), show(reference)),
        None => show(measured.ours),
    }
}

/// Writes the document.
pub fn write(root: &Path, text: &str) -> Result<()> {
    let path = root.join("docs/benchmarks.md");
    fs::write(&path, text).with_context(|| format!("write {}", path.display()))
}

const TABLE: &str = "\
| row | what | median [95% interval] | floor | goal | verdict | values | load |
| --- | --- | --- | --- | --- | --- | --- | --- |
";

const HEAD: &str = "\
# Benchmarks

Written by `cargo xtask bench`; `cargo xtask bench --list` names the rows, and a row's name measures
that row alone and leaves the others as they are. Nothing here is typed in by hand: it is made from
`benchmarks.json`.

A figure is the median of interleaved pairs (ours, then what it is compared with, the other way
round in the next pair) with its 95% interval from the order of the values. A row whose interval is
wider than 10% of its median is not decided; where all of such an interval keeps the floor, it is
said so. The clients of the data path's two sides take turns of 10 ms, because what else a shared
machine does changes within tenths of a second by more than what is to be told apart. Ratios and
sizes pass or fail. Absolute times depend on what else a machine does: they stand beside its load
and fail at three times their figure only. What has a goal and no floor never fails.

Flat lists ask for nine instances, because a list of 20 of ten is half as long an answer as one of
20 of 10,000. Links are held by the conductor of a process of its own, which `coffer up` runs beside
its other parts.

| machine | |
| --- | --- |
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::row::Pair;

    const ROW: Row = Row {
        name: "api/list",
        what: "list",
        reference: "healthcheck",
        unit: Unit::PerSecond,
        limit: Limit::RatioAtLeast {
            floor: 1.0 / 12.0,
            goal: 1.0 / 6.0,
        },
        pairs: 3,
    };

    #[test]
    fn results_are_kept_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("benchmarks.json");
        let mut results = Results::open(path.clone(), "one").unwrap();
        assert!(!results.has(&ROW));
        let before = results.document(&[("processor", "2 x Z80".to_owned())], &[("API", &[ROW])]);
        assert!(before.contains("| processor | 2 x Z80 |") && before.contains("not measured"));
        let pair = Pair {
            ours: 100.0,
            reference: Some(1_000.0),
        };
        let mut measured = Measured::of(ROW, &[pair; 3], "SQLite".to_owned(), (0.5, 1.0));
        measured.parts = vec![("walk".to_owned(), 250.0), ("talk".to_owned(), 3.0)];
        results.put(&measured).unwrap();
        let mut again = Results::open(path.clone(), "one").unwrap();
        assert!(again.has(&ROW));
        assert!(!Results::open(path, "two").unwrap().has(&ROW));
        let text = again.document(&[], &[("API", &[ROW])]);
        for part in [
            "0.100 = 1/10.0",
            "goal not reached",
            "100/s to 1000/s",
            "| 1.0 |",
            "with: SQLite",
            "| step | `api/list` |\n| --- | --- |\n| walk | 250/s |\n| talk | 3.0/s |\n",
        ] {
            assert!(text.contains(part), "{part} not in {text}");
        }
        again.keep_only(&BTreeSet::from(["api/show"]));
        assert!(
            again
                .document(&[], &[("API", &[ROW])])
                .contains("not measured")
        );
    }
}
