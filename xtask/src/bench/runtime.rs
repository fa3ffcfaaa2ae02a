//! The control plane's own speed: from step to step of a workflow, and what guests tell.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::links::{Held, Links};
use super::row::{Limit, Row, Unit};
use super::{Bench, Measure, Subject, place};
use crate::process::Program;

/// Instances that are created to measure steps: as many as a project may have.
const CREATED: u32 = 10;
/// Agents that have something to tell about once a second each.
const AGENTS: u32 = 1_000;
/// How long they are listened to.
const SECONDS: u32 = 10;

const STEP: &str = "runtime/step";
const CPU: &str = "runtime/ingest-cpu";
const RATE: &str = "runtime/ingest";

/// The rows of this file.
pub const SUBJECT: Subject = Subject {
    title: "Workflows and status",
    rows: &[
        Row {
            name: STEP,
            what: "from step to step of a create, provider and guest answering at once",
            reference: "",
            unit: Unit::Seconds,
            limit: Limit::Time(0.005),
            pairs: 6,
        },
        Row {
            name: CPU,
            what: "processor time of the conductor for each change that an agent tells",
            reference: "",
            unit: Unit::Seconds,
            limit: Limit::Time(100e-6),
            pairs: 6,
        },
        Row {
            name: RATE,
            what: "changes that one processor takes in, by that time",
            reference: "",
            unit: Unit::PerSecond,
            limit: Limit::Shown,
            pairs: 6,
        },
    ],
    open,
};

fn open(bench: &Bench) -> Result<Box<dyn Measure>> {
    Ok(Box::new(Runtime {
        bench: bench.clone(),
        dir: place::make("steps")?,
        stores: 0,
        links: None,
    }))
}

struct Runtime {
    bench: Bench,
    dir: PathBuf,
    /// Stores that were made in the directory.
    stores: u32,
    links: Option<Links>,
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // After a failure; `close` tells of mistakes.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Runtime {
    fn step(&mut self) -> Result<f64> {
        self.stores += 1;
        let store = self.dir.join(format!("{}.db", self.stores));
        let words = [
            store.display().to_string(),
            self.bench.size(CREATED, 2).to_string(),
        ];
        let program = self.bench.built.join("examples/step_overhead");
        let text = Program::new(program, &words).output()?;
        text.trim().parse().context("read seconds")
    }

    fn ingest(&mut self) -> Result<Held> {
        let links = match &self.links {
            Some(links) => links,
            None => {
                let count = self.bench.size(AGENTS, 10);
                let links = Links::start(&self.bench, "churn", count, true)?;
                self.links.insert(links)
            }
        };
        let held = links.hold(self.bench.size(SECONDS, 3))?;
        anyhow::ensure!(held.told > 0.0, "no agent told anything");
        Ok(held)
    }
}

impl Measure for Runtime {
    fn ours(&mut self, row: &Row) -> Result<f64> {
        if row.name == STEP {
            return self.step();
        }
        let Held {
            told, cpu_seconds, ..
        } = self.ingest()?;
        Ok(match row.name {
            CPU => cpu_seconds / told,
            // So little time passes in a smoke run that no tick of it may be counted.
            _ => told / cpu_seconds.max(0.01),
        })
    }

    fn conditions(&self) -> String {
        "SQLite as durable as in production; changes come from 1,000 real agents over sockets with \
         mutual TLS, by long poll, and each is written"
            .to_owned()
    }

    fn close(self: Box<Self>) -> Result<()> {
        fs::remove_dir_all(&self.dir).with_context(|| format!("remove {}", self.dir.display()))
    }
}
