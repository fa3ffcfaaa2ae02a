//! Instances of the benchmark's own Coffer, asked for over its API as a client elsewhere does.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::Bench;
use super::coffer::{Coffer, Login};
use super::http::{Connection, request};
use super::namespace::{Namespace, forward_published};
use crate::process::{Program, wait_closely};

/// Longest time for an instance to serve, or to be gone.
const LIMIT: Duration = Duration::from_secs(120);
/// How often its status is asked for.
const PACE: Duration = Duration::from_millis(10);
/// Who asks for what; of nobody's concern, for the databases are gone with the benchmark.
const PASSWORD: &str = "measured-and-gone";

/// A Coffer with a client that is elsewhere.
#[derive(Debug)]
pub struct Service {
    /// The Coffer.
    pub coffer: Coffer,
    /// Its demo user.
    pub login: Login,
    /// Where clients are.
    pub client: Namespace,
    /// The certificate that its databases show is signed with this file's.
    ca: PathBuf,
    tag: String,
}

/// An instance that answers.
#[derive(Debug, Clone)]
pub struct Instance {
    /// Its id.
    pub id: String,
    /// Where it is published.
    pub address: String,
}

impl Service {
    /// Starts a Coffer; its pool has room for this many GiB.
    pub fn start(bench: &Bench, name: &str, pool_gib: u32) -> Result<Self> {
        let pool = format!("local.cow_pool_gib={pool_gib}");
        let coffer = Coffer::start(bench, name, "up", &["--set", &pool])?;
        let login = coffer.login()?;
        let ca = coffer.state.join("demo-ca.pem");
        let state = coffer.state.display().to_string();
        let words = ["ca", "--state-dir", &state, "--project", "demo"];
        let text = Program::new(bench.built.join("coffer"), &words).output()?;
        fs::write(&ca, text).context("write the CA")?;
        let tag = fs::read_to_string(coffer.state.join("tag")).context("read the tag")?;
        Ok(Self {
            client: Namespace::client()?,
            tag: tag.trim().to_owned(),
            coffer,
            login,
            ca,
        })
    }

    /// The tag of what it makes on the host.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// How its volumes are kept, in words.
    pub fn volume_mode(&self) -> String {
        let file = self.coffer.state.join("local/pool-mode.json");
        let mode = fs::read_to_string(file).unwrap_or_default();
        format!("volume mode `{}`", mode.trim().trim_matches('"'))
    }

    /// Its API.
    pub fn address(&self) -> SocketAddr {
        self.coffer.address
    }

    /// A request of the demo user.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let path = format!("/v1.0/{}{path}", self.login.project_id);
        request(method, &path, &[&self.login.header], body)
    }

    /// Asks for a published PostgreSQL with a database and a user; gives its id.
    pub fn ask(&self, name: &str, flavor: &str) -> Result<String> {
        let body = json!({"instance": {
            "name": name, "flavorRef": flavor, "volume": {"size": 1},
            "datastore": {"type": "postgresql"}, "databases": [{"name": "app"}],
            "users": [{"name": "joe", "password": PASSWORD, "databases": [{"name": "app"}]}],
            "access": {"is_public": true},
        }});
        let mut connection = Connection::open(self.address())?;
        connection.send(&self.request("POST", "/instances", &body.to_string()))?;
        let answer = connection.answer()?;
        let shown: Value = serde_json::from_slice(&answer.body).context("read an instance")?;
        match shown["instance"]["id"].as_str() {
            Some(id) if answer.status < 300 => Ok(id.to_owned()),
            _ => bail!("a create was answered with {}: {shown}", answer.status),
        }
    }

    /// Waits until a client elsewhere has the answer to its first query.
    pub fn answered(&self, id: &str) -> Result<Instance> {
        let mut connection = Connection::open(self.address())?;
        let show = self.request("GET", &format!("/instances/{id}"), "");
        let shown = wait_closely("an instance", LIMIT, PACE, || {
            connection.send(&show)?;
            let shown: Value = serde_json::from_slice(&connection.answer()?.body)?;
            match shown["instance"]["status"].as_str() {
                Some("ACTIVE") => Ok(Some(shown)),
                Some("BUILD") => Ok(None),
                _ => bail!("the instance is {shown}"),
            }
        })?;
        let all = shown["instance"]["addresses"].as_array();
        let public = all
            .into_iter()
            .flatten()
            .find(|one| one["type"] == "public");
        let address = public.and_then(|one| one["address"].as_str());
        let instance = Instance {
            id: id.to_owned(),
            address: address.context("find the published address")?.to_owned(),
        };
        forward_published(&self.tag)?;
        self.query(&instance, "SELECT 1")?;
        Ok(instance)
    }

    /// Asks a query from elsewhere, its answer as text.
    pub fn query(&self, instance: &Instance, sql: &str) -> Result<String> {
        let line = self.line(&instance.address, "verify-full");
        let words = ["psql", "-X", "-q", "-At", "-d", &line, "-c", sql];
        self.client
            .program(&words)
            .with("PGPASSWORD", PASSWORD)
            .output()
    }

    /// A program with the password of an instance's user, in the client's namespace or another.
    pub fn with_password(&self, program: Program) -> Program {
        program.with("PGPASSWORD", PASSWORD)
    }

    /// How libpq is told to reach an instance's database.
    pub fn line(&self, address: &str, mode: &str) -> String {
        let ca = self.ca.display();
        format!("host={address} dbname=app user=joe sslmode={mode} sslrootcert={ca}")
    }

    /// Deletes instances and waits until they are gone.
    pub fn delete(&self, ids: &[String]) -> Result<()> {
        let mut connection = Connection::open(self.address())?;
        for id in ids {
            connection.send(&self.request("DELETE", &format!("/instances/{id}"), ""))?;
            let status = connection.answer()?.status;
            if status >= 300 {
                bail!("a delete was answered with {status}");
            }
        }
        for id in ids {
            let show = self.request("GET", &format!("/instances/{id}"), "");
            wait_closely("the end of an instance", LIMIT, PACE, || {
                connection.send(&show)?;
                Ok((connection.answer()?.status == 404).then_some(()))
            })?;
        }
        Ok(())
    }

    /// Deletes all instances.
    pub fn delete_all(&self) -> Result<()> {
        let mut connection = Connection::open(self.address())?;
        connection.send(&self.request("GET", "/instances", ""))?;
        let shown: Value = serde_json::from_slice(&connection.answer()?.body)?;
        let rows = shown["instances"].as_array().into_iter().flatten();
        let ids = rows.filter_map(|row| Some(row["id"].as_str()?.to_owned()));
        self.delete(&ids.collect::<Vec<_>>())
    }

    /// Ends everything.
    pub fn remove(mut self) -> Result<()> {
        self.delete_all()?;
        self.coffer.take_away()
    }

    /// Ids of the processes of its sandboxes that have this name.
    pub fn processes(&self, name: &str) -> Result<Vec<u32>> {
        let group = format!("coffer-{}/", self.tag);
        let is_wanted = |pid: &u32| {
            let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
            let groups = read("cgroup").unwrap_or_default();
            groups.contains(&group) && read("comm").unwrap_or_default().trim() == name
        };
        let entries = fs::read_dir(Path::new("/proc")).context("list processes")?;
        let pids = entries.flatten().map(|entry| entry.file_name());
        let pids = pids.filter_map(|name| name.to_string_lossy().parse().ok());
        Ok(pids.filter(is_wanted).collect())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // After a failure: a stopped Coffer leaves instances serving.
        let _ = self.delete_all();
    }
}
