//! Instances of the benchmark's own Coffer, asked for over its API as a client elsewhere does.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use super::client::{Client, DATABASE, Entry, PASSWORD, Place, USER, with_password};
use super::coffer::{Coffer, Login};
use super::engine::{Engine, POSTGRESQL};
use super::http::{Answer, Connection, request};
use super::namespace::{Namespace, forward_published};
use super::{Bench, machine, place};
use crate::leftovers;
use crate::process::{Program, wait_closely};

/// Longest time for an instance to serve, or to be gone.
const LIMIT: Duration = Duration::from_secs(120);
/// How often its status is asked for.
const PACE: Duration = Duration::from_millis(10);
/// Size of a pool that has on the disk what is written, and no more; unit: GiB.
const WIDE_GIB: u32 = 64;
/// What has to be free for what is written; fifty instances write about ten GiB; unit: bytes.
const WIDE_LEAST_BYTES: u64 = 16 << 30;
/// Makes such a pool in DIR: an XFS in a sparse file behind a loop device, as Coffer makes its own.
const WIDE: &str = r#"
set -eu
mkdir -p "$1/pool"
truncate -s "$2G" "$1/wide.img"
mkfs.xfs -q -f -s size=4096 -m reflink=1 "$1/wide.img"
device=$(losetup --find --show --direct-io=on --sector-size 4096 "$1/wide.img")
mount -o discard "$device" "$1/pool"
losetup --detach "$device" # when it is unmounted
"#;

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
    /// Words of its command line.
    words: Vec<String>,
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
        Self::start_in(bench, place::make(name)?, &[&pool])
    }

    /// Starts a Coffer without quotas whose pool has room for as many volumes as are asked for, and
    /// on the disk only what is written to them.
    pub fn start_wide(bench: &Bench, name: &str) -> Result<Self> {
        let free = machine::free_bytes(Path::new(place::STATES))?;
        ensure!(
            free >= WIDE_LEAST_BYTES,
            "{} has {} GiB free, and {} GiB may be written",
            place::STATES,
            free >> 30,
            WIDE_LEAST_BYTES >> 30
        );
        let state = place::make(name)?;
        let (dir, gib) = (state.display().to_string(), WIDE_GIB.to_string());
        let made = Program::new("sh", &["-c", WIDE, "wide", &dir, &gib]).output();
        if let Err(error) = made {
            leftovers::remove(&state)?;
            return Err(error.context("make a wide pool"));
        }
        let quotas = ["limits.quota_instances=-1", "limits.quota_volumes_gib=-1"];
        Self::start_in(bench, state, &quotas)
    }

    fn start_in(bench: &Bench, state: PathBuf, settings: &[&str]) -> Result<Self> {
        let words: Vec<&str> = settings.iter().flat_map(|one| ["--set", one]).collect();
        let coffer = Coffer::start_in(bench, state, "up", &words)?;
        let own = words.into_iter().map(str::to_owned).collect();
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
            words: own,
        })
    }

    /// Stops its Coffer, unless it is, and starts it again; the instances go on.
    pub fn restart(&mut self, bench: &Bench) -> Result<()> {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        self.coffer.restart(bench, "up", &words)?;
        self.login = self.coffer.login()?;
        Ok(())
    }

    /// The file with the certificate of its databases' authority.
    pub fn ca(&self) -> &Path {
        &self.ca
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
        self.order(&POSTGRESQL, name, flavor, 1)
    }

    /// The same of any engine, with a database where it has them, and a volume of this size.
    pub fn order(
        &self,
        engine: &Engine,
        name: &str,
        flavor: &str,
        volume_gib: u32,
    ) -> Result<String> {
        let mut user = json!({"name": USER, "password": PASSWORD});
        let mut wish = json!({
            "name": name, "flavorRef": flavor, "volume": {"size": volume_gib},
            "datastore": {"type": engine.name}, "access": {"is_public": true},
        });
        if engine.has_databases {
            user["databases"] = json!([{"name": DATABASE}]);
            wish["databases"] = json!([{"name": DATABASE}]);
        }
        wish["users"] = json!([user]);
        let answer = self.post("/instances", &json!({"instance": wish}))?;
        let shown: Value = serde_json::from_slice(&answer.body).context("read an instance")?;
        match shown["instance"]["id"].as_str() {
            Some(id) if answer.status < 300 => Ok(id.to_owned()),
            _ => bail!("a create was answered with {}: {shown}", answer.status),
        }
    }

    /// Lets the engine's superuser log in with the password of the instance's user.
    pub fn enable_root(&self, id: &str) -> Result<()> {
        let path = format!("/instances/{id}/root");
        // A new instance is in service a moment before its health has been heard of.
        wait_closely("root", LIMIT, PACE, || {
            let answer = self.post(&path, &json!({"password": PASSWORD}))?;
            let said = String::from_utf8_lossy(&answer.body);
            match answer.status {
                200 => Ok(Some(())),
                422 if said.contains("not-ready") => Ok(None),
                status => bail!("root: answered {status} {said}"),
            }
        })
    }

    fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        let mut connection = Connection::open(self.address())?;
        connection.send(&self.request("POST", path, &body.to_string()))?;
        connection.answer()
    }

    /// Waits until a client elsewhere has the answer to its first query to a PostgreSQL.
    pub fn answered(&self, id: &str) -> Result<Instance> {
        let instance = self.active(id)?;
        self.query(&instance, "SELECT 1")?;
        Ok(instance)
    }

    /// The same of any engine, by its own client.
    pub fn answered_by(&self, client: &Client, id: &str) -> Result<Instance> {
        let instance = self.active(id)?;
        let place = Place {
            address: &instance.address,
            port: client.engine.port,
            entry: Entry::Checked(&self.ca),
        };
        let words = client.question(place, &self.coffer.state)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let said = with_password(self.client.program(&words)).output()?;
        ensure!(client.is_answer(&said), "{words:?}: answered '{said}'");
        Ok(instance)
    }

    /// Tells of each of these once, as soon as a list shows that it serves.
    pub fn each_active(&self, ids: &[String], mut tell: impl FnMut(&str)) -> Result<()> {
        let mut connection = Connection::open(self.address())?;
        let list = self.request("GET", "/instances", "");
        let mut waiting: Vec<&str> = ids.iter().map(String::as_str).collect();
        wait_closely("instances", LIMIT, PACE, || {
            connection.send(&list)?;
            let shown: Value = serde_json::from_slice(&connection.answer()?.body)?;
            let all = shown["instances"].as_array().context("read a list")?;
            for one in all {
                let place = waiting.iter().position(|id| one["id"] == **id);
                match (place, one["status"].as_str()) {
                    (Some(place), Some("ACTIVE")) => tell(waiting.swap_remove(place)),
                    (Some(_), Some("BUILD")) | (None, _) => {}
                    _ => bail!("an instance is {one}"),
                }
            }
            Ok(waiting.is_empty().then_some(()))
        })
    }

    /// Waits until it serves, and lets its published address be reached from elsewhere.
    fn active(&self, id: &str) -> Result<Instance> {
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
        Ok(instance)
    }

    /// Asks a query from elsewhere, its answer as text.
    pub fn query(&self, instance: &Instance, sql: &str) -> Result<String> {
        let line = self.line(&instance.address, "verify-full");
        let words = ["psql", "-X", "-q", "-At", "-d", &line, "-c", sql];
        with_password(self.client.program(&words)).output()
    }

    /// How libpq is told to reach an instance's database.
    pub fn line(&self, address: &str, mode: &str) -> String {
        let ca = self.ca.display();
        format!("host={address} dbname={DATABASE} user={USER} sslmode={mode} sslrootcert={ca}")
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

    /// Deletes all instances, a page of the list after the other.
    pub fn delete_all(&self) -> Result<()> {
        loop {
            let mut connection = Connection::open(self.address())?;
            connection.send(&self.request("GET", "/instances", ""))?;
            let shown: Value = serde_json::from_slice(&connection.answer()?.body)?;
            let rows = shown["instances"]
                .as_array()
                .context("find the instances")?;
            let ids = rows
                .iter()
                .filter_map(|row| Some(row["id"].as_str()?.to_owned()));
            let ids: Vec<String> = ids.collect();
            if ids.is_empty() {
                return Ok(());
            }
            self.delete(&ids)?;
        }
    }

    /// Ends everything.
    pub fn remove(mut self) -> Result<()> {
        self.delete_all()?;
        self.coffer.take_away()
    }

    /// Ids of the processes of its sandboxes that have this name.
    pub fn processes(&self, name: &str) -> Result<Vec<u32>> {
        let group = format!("coffer-{}.", self.tag);
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
