//! Engine roots: what all versions take of the disk, and how long one more takes to build.
//!
//! The suite's base and the package files are there: what the network takes is not Coffer's.

use std::path::Path;

use anyhow::{Context, Result};

use super::engine::ROOTS;
use super::row::{Limit, Row, Unit};
use super::{Bench, Measure, Subject};
use crate::process::{Program, Stopwatch};
use crate::roots::{Roots, Versions};

const ALL: &str = "roots/all";
const ONE: &str = "roots/one-more";
/// The version that is built again and again: of those measured it took longest.
const BUILT: &str = "postgresql-15";
/// Package files that are kept for later builds are none of a root's.
const KEPT: &str = "--exclude=.packages";

/// The rows of this file.
pub const SUBJECT: Subject = Subject {
    title: "Engine roots",
    rows: &[
        Row {
            name: ALL,
            what: "roots of all versions and their bases on the disk",
            reference: "",
            unit: Unit::Bytes,
            limit: Limit::AtMost(2.5e9),
            pairs: 1,
        },
        Row {
            name: ONE,
            what: "building one more version over a base that is there, from kept package files",
            reference: "",
            unit: Unit::Seconds,
            limit: Limit::Time(20.0),
            pairs: 6,
        },
    ],
    open,
};

fn open(bench: &Bench) -> Result<Box<dyn Measure>> {
    let roots = Roots::default();
    let wanted = bench.size(Versions::All, Versions::First);
    roots.begin(&bench.root, &bench.built, wanted)?;
    roots.end()?;
    Ok(Box::new(Images {
        bench: bench.clone(),
    }))
}

struct Images {
    bench: Bench,
}

impl Images {
    fn image(&self, words: &[&str]) -> Result<String> {
        let words = [&["image"], words].concat();
        Program::new(self.bench.built.join("coffer"), &words).output()
    }

    fn size(&self) -> Result<f64> {
        let text = Program::new("du", &["-s", "--block-size=1", KEPT, ROOTS]).output()?;
        let number = text.split_whitespace().next();
        let number = number.context("find what du measured")?;
        number.parse().context("read what du measured")
    }

    /// A smoke run leaves what is there, and builds nothing.
    fn one_more(&self) -> Result<f64> {
        let is_there = self.image(&["list"])?.contains(BUILT);
        if is_there && !self.bench.is_smoke {
            self.image(&["remove", BUILT])?;
        }
        let built = match self.bench.is_smoke {
            true => "postgresql-17",
            false => BUILT,
        };
        let watch = Stopwatch::start();
        self.image(&["build", built])?;
        Ok(watch.elapsed().as_secs_f64())
    }
}

impl Measure for Images {
    fn ours(&mut self, row: &Row) -> Result<f64> {
        match row.name {
            ALL => self.size(),
            _ => self.one_more(),
        }
    }

    fn conditions(&self) -> String {
        let versions = std::fs::read_dir(Path::new(&self.bench.root).join("images"));
        let count = versions.map_or(0, Iterator::count);
        format!("{count} recipes; {BUILT} is the one that is built again")
    }
}
