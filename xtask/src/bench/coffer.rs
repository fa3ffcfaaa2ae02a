//! A Coffer of the benchmark's own: a state directory, a free port, plain HTTP on loopback.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Bench;
use super::http::{Connection, request};
use super::place;
use crate::leftovers;
use crate::process::{Program, stop, tail, wait_for};

/// Longest time until the API answers.
const START_MAX: Duration = Duration::from_secs(60);
/// Longest time until a stopped Coffer is gone.
const STOP_MAX: Duration = Duration::from_secs(60);

/// A running Coffer; stopped and removed when dropped.
#[derive(Debug)]
pub struct Coffer {
    child: Child,
    /// Its state directory.
    pub state: PathBuf,
    /// Where its API listens.
    pub address: SocketAddr,
}

/// What a request of the demo user carries.
#[derive(Debug, Clone)]
pub struct Login {
    /// The project's id.
    pub project_id: String,
    /// The header line with the token.
    pub header: String,
}

impl Coffer {
    /// Starts `coffer ROLE` in a new state directory, with more words of its command line, and
    /// waits until it answers.
    pub fn start(bench: &Bench, name: &str, role: &str, more: &[&str]) -> Result<Self> {
        Self::start_in(bench, place::make(name)?, role, more)
    }

    /// As [`Coffer::start`], in a state directory that is there.
    pub fn start_in(bench: &Bench, state: PathBuf, role: &str, more: &[&str]) -> Result<Self> {
        let launched = launch(bench, &state, role, more).inspect_err(|_| {
            // It may have come as far as a mounted pool.
            let _ = leftovers::remove(&state);
        });
        let (child, address) = launched?;
        Ok(Self {
            child,
            state,
            address,
        })
    }

    /// Stops it, unless it is, and starts it again in its state directory.
    pub fn restart(&mut self, bench: &Bench, role: &str, more: &[&str]) -> Result<()> {
        self.stop()?;
        (self.child, self.address) = launch(bench, &self.state, role, more)?;
        Ok(())
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Logs the demo user in.
    pub fn login(&self) -> Result<Login> {
        let file = fs::read_to_string(self.state.join("demo.toml")).context("read demo.toml")?;
        let file: toml::Table = file.parse().context("read demo.toml")?;
        let word = |key: &str| {
            file.get(key)
                .and_then(toml::Value::as_str)
                .map(str::to_owned)
        };
        let user = json!({
            "name": word("username"), "password": word("password"), "domain": {"id": "default"},
        });
        let project = json!({"name": word("project_name"), "domain": {"id": "default"}});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": project},
        }});
        let mut connection = Connection::open(self.address)?;
        connection.send(&request("POST", "/v3/auth/tokens", &[], &body.to_string()))?;
        let answer = connection.answer()?;
        if answer.status != 201 {
            bail!("the login was answered with {}", answer.status);
        }
        let token = answer.header("x-subject-token").context("find the token")?;
        let header = format!("X-Auth-Token: {token}");
        let body: Value = serde_json::from_slice(&answer.body).context("read the login")?;
        let project_id = body["token"]["project"]["id"].as_str();
        Ok(Login {
            project_id: project_id.context("find the project")?.to_owned(),
            header,
        })
    }

    /// Stops it; the state directory stays.
    pub fn stop(&mut self) -> Result<()> {
        stop(&mut self.child, STOP_MAX)
    }

    /// Stops it and removes what it made.
    pub fn remove(mut self) -> Result<()> {
        self.take_away()
    }

    /// As [`Coffer::remove`], for one that is a part of something.
    pub fn take_away(&mut self) -> Result<()> {
        self.stop()?;
        leftovers::remove(&self.state)
    }
}

impl Drop for Coffer {
    fn drop(&mut self) {
        // After a failure; `remove` tells of mistakes.
        let _ = self.take_away();
    }
}

fn launch(bench: &Bench, state: &Path, role: &str, more: &[&str]) -> Result<(Child, SocketAddr)> {
    let log = state.join("coffer.log");
    // What an earlier one left would be taken for this one's.
    let _ = fs::remove_file(&log);
    let dir = state.display().to_string();
    // The rate is counted as ever, but not reached.
    let rate = "api.rate_limit_per_minute=4000000000";
    let words = [
        role,
        "--state-dir",
        &dir,
        "--listen",
        "127.0.0.1:0",
        "--insecure-http",
    ];
    let words = [&words[..], &["--set", rate], more].concat();
    let mut child = Program::new(bench.built.join("coffer"), &words).start(&log)?;
    let started = wait_for("an answer of coffer", START_MAX, || listening(&log));
    match started {
        Ok(address) => Ok((child, address)),
        Err(error) => {
            let _ = stop(&mut child, STOP_MAX);
            Err(error.context(tail(&log)))
        }
    }
}

/// The address in the line that Coffer logs when it serves.
fn listening(log: &Path) -> Option<SocketAddr> {
    let text = fs::read_to_string(log).ok()?;
    let line = text.lines().find(|line| line.contains("coffer serves"))?;
    let (_, rest) = line.split_once("http://")?;
    let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':'));
    rest[..end.unwrap_or(rest.len())].parse().ok()
}
