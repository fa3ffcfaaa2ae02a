//! `coffer instance`: create, list, show, change, delete, restart, stop, start, explain, events.

use std::fs::File;
use std::io::Read as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::Options;
use crate::client::{Client, segment};
use crate::failure::{Failure, Kind, Result};
use crate::output::{self, Column};
use crate::wait::{self, Goal};

/// Columns of the list.
const LIST: &[Column] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("datastore", "/datastore/type"),
    ("version", "/datastore/version"),
    ("status", "/status"),
    ("operating status", "/operating_status"),
    ("addresses", "/addresses"),
    ("flavor", "/flavor/id"),
    ("GiB", "/volume/size"),
];

/// Lines of one instance.
const SHOW: &[Column] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("status", "/status"),
    ("operating status", "/operating_status"),
    ("fault", "/fault/message"),
    ("datastore", "/datastore/type"),
    ("version", "/datastore/version"),
    ("flavor", "/flavor/id"),
    ("volume GiB", "/volume/size"),
    ("used GiB", "/volume/used"),
    ("addresses", "/addresses"),
    ("published", "/access/is_public"),
    ("allowed", "/access/allowed_cidrs"),
    ("created", "/created"),
    ("updated", "/updated"),
    ("passwords, shown once", "/passwords"),
];

/// Verbs of instances.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create an instance
    Create(Create),
    /// List the project's instances
    List,
    /// Show an instance
    Show(Which),
    /// Rename an instance, or change who may reach it
    Set(Set),
    /// Delete an instance and its data
    Delete(WhichAndWait),
    /// Restart the engine of an instance; start one that was stopped
    Restart(WhichAndWait),
    /// Stop an instance until it is started; it keeps its data and addresses
    Stop(WhichAndWait),
    /// Start an instance that was stopped
    Start(WhichAndWait),
    /// Say in words why an instance is as it is, and what it waits for
    Explain(Which),
    /// List what happened to an instance
    Events(Which),
}

/// An instance.
#[derive(Debug, Args)]
pub struct Which {
    /// Name or id of the instance
    pub instance: String,
}

/// An instance, and whether to wait.
#[derive(Debug, Args)]
pub struct WhichAndWait {
    /// Name or id of the instance
    pub instance: String,
    #[command(flatten)]
    wait: Wait,
}

/// Whether to wait for the end.
#[derive(Debug, Clone, Args)]
pub struct Wait {
    /// Wait for the end and show the step
    #[arg(long)]
    wait: bool,
    /// Give up waiting after this many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
}

impl Wait {
    async fn until(&self, client: &Client, id: &str, goal: Goal) -> Result<()> {
        match self.wait {
            true => wait::until(client, id, goal, Duration::from_secs(self.timeout)).await,
            false => Ok(()),
        }
    }
}

/// What to create.
#[derive(Debug, Args)]
pub struct Create {
    /// Name of the instance
    name: String,
    /// Flavor id; without it, the one with the least memory
    #[arg(long)]
    flavor: Option<String>,
    /// Size of the volume in GiB
    #[arg(long, default_value_t = 1)]
    size: u32,
    /// Volume type
    #[arg(long)]
    volume_type: Option<String>,
    /// Datastore (`postgresql`)
    #[arg(long)]
    datastore: Option<String>,
    /// Version of the datastore
    #[arg(long = "datastore-version", value_name = "VERSION")]
    version: Option<String>,
    /// A database to make in it; may be repeated
    #[arg(long = "database", value_name = "NAME")]
    databases: Vec<String>,
    /// A user to make in it, with every --database; a password is made and shown once
    #[arg(long = "user", value_name = "NAME")]
    users: Vec<String>,
    /// Network, by name or id
    #[arg(long)]
    network: Option<String>,
    /// Availability zone
    #[arg(long)]
    zone: Option<String>,
    /// Publish it: give it an address that this host and those it routes for can reach
    #[arg(long)]
    public: bool,
    /// Address range that may reach the published address; may be repeated
    #[arg(long = "allow", value_name = "CIDR", requires = "public")]
    allowed: Vec<String>,
    #[command(flatten)]
    wait: Wait,
}

/// What to change.
#[derive(Debug, Args)]
pub struct Set {
    /// Name or id of the instance
    instance: String,
    /// New name
    #[arg(long)]
    name: Option<String>,
    /// Publish it, or not
    #[arg(long, value_name = "true|false")]
    public: Option<bool>,
    /// Address range that may reach the published address, in place of those before; may be
    /// repeated; 0.0.0.0/0 is anyone
    #[arg(long = "allow", value_name = "CIDR")]
    allowed: Vec<String>,
}

/// Runs a verb.
pub async fn run(client: &Client, options: &Options, command: Command) -> Result<()> {
    match command {
        Command::Create(what) => create(client, options, what).await,
        Command::List => {
            let rows = client.list("/instances/detail", "instances").await?;
            output::rows(options, LIST, &rows)?;
            Ok(())
        }
        Command::Show(which) => {
            let id = find(client, &which.instance).await?;
            show(client, options, &id, Map::new()).await
        }
        Command::Set(what) => set(client, options, what).await,
        Command::Delete(which) => delete(client, options, which).await,
        Command::Restart(which) => act(client, options, which, "restart", Goal::Healthy).await,
        Command::Stop(which) => act(client, options, which, "stop", Goal::Stopped).await,
        Command::Start(which) => act(client, options, which, "start", Goal::Healthy).await,
        Command::Explain(which) => explain(client, options, &which.instance).await,
        Command::Events(which) => events(client, options, &which.instance).await,
    }
}

/// The id of the instance that a name or id stands for.
pub async fn find(client: &Client, name: &str) -> Result<String> {
    match client.get(&format!("/instances/{}", segment(name))).await {
        Ok(answer) => return id_of(&answer["instance"]),
        Err(failure) if failure.kind == Kind::NotFound => {}
        Err(failure) => return Err(failure),
    }
    let rows = client.list("/instances", "instances").await?;
    let mut same: Vec<_> = rows.iter().filter(|row| row["name"] == name).collect();
    match (same.len(), same.pop()) {
        (1, Some(row)) => id_of(row),
        (0, _) | (_, None) => Err(Failure::new(
            Kind::NotFound,
            format!("there is no instance '{name}'"),
        )),
        (count, _) => Err(Failure::usage(format!(
            "{count} instances are named '{name}'; give an id from `coffer instance list`"
        ))),
    }
}

fn id_of(row: &Value) -> Result<String> {
    let id = row["id"].as_str().map(str::to_owned);
    id.ok_or_else(|| Failure::failed("the answer names no instance id"))
}

async fn show(
    client: &Client,
    options: &Options,
    id: &str,
    more: Map<String, Value>,
) -> Result<()> {
    let mut answer = client.get(&format!("/instances/{}", segment(id))).await?;
    let mut instance = answer["instance"].take();
    if let Some(fields) = instance.as_object_mut() {
        fields.extend(more);
    }
    output::object(options, SHOW, &instance)?;
    Ok(())
}

async fn create(client: &Client, options: &Options, what: Create) -> Result<()> {
    let mut passwords = Map::new();
    for user in &what.users {
        passwords.insert(user.clone(), Value::String(new_password()?));
    }
    let body = creation(client, &what, &passwords).await?;
    let answer = client.post("/instances", &body).await?;
    let id = id_of(&answer["instance"])?;
    let waited = what.wait.until(client, &id, Goal::Healthy).await;
    let mut more = Map::new();
    if !passwords.is_empty() {
        let shown = passwords
            .iter()
            .map(|(user, p)| format!("{user}: {}", p.as_str().unwrap_or("")));
        let text = Value::String(shown.collect::<Vec<_>>().join(", "));
        more.insert(
            "passwords".to_owned(),
            if options.json { passwords.into() } else { text },
        );
    }
    // Even when the wait failed: the passwords are shown here or nowhere.
    show(client, options, &id, more).await?;
    waited
}

async fn creation(client: &Client, what: &Create, passwords: &Map<String, Value>) -> Result<Value> {
    let named = |name: &String| json!({"name": name});
    let databases: Vec<_> = what.databases.iter().map(named).collect();
    let user = |(name, password): (&String, &Value)| {
        let mut user = json!({"name": name, "password": password});
        user["databases"] = json!(databases);
        user
    };
    let mut instance = json!({
        "name": what.name,
        "flavorRef": flavor(client, what.flavor.as_deref()).await?,
        "volume": {"size": what.size},
        "databases": databases,
        "users": passwords.iter().map(user).collect::<Vec<_>>(),
    });
    if let Some(kind) = &what.volume_type {
        instance["volume"]["type"] = json!(kind);
    }
    if let Some(datastore) = &what.datastore {
        instance["datastore"]["type"] = json!(datastore);
    }
    if let Some(version) = &what.version {
        instance["datastore"]["version"] = json!(version);
    }
    if let Some(network) = &what.network {
        let id = crate::project::find_network(client, network).await?;
        instance["nics"] = json!([{"net-id": id}]);
    }
    if let Some(zone) = &what.zone {
        instance["availability_zone"] = json!(zone);
    }
    if what.public {
        instance["access"] = json!({"is_public": true, "allowed_cidrs": what.allowed});
    }
    Ok(json!({"instance": instance}))
}

/// The flavor asked for, or the smallest.
async fn flavor(client: &Client, asked: Option<&str>) -> Result<String> {
    if let Some(id) = asked {
        return Ok(id.to_owned());
    }
    let rows = client.list("/flavors", "flavors").await?;
    let smallest = rows
        .iter()
        .min_by_key(|row| row["ram"].as_u64().unwrap_or(u64::MAX));
    let id = smallest
        .and_then(|row| row["str_id"].as_str())
        .map(str::to_owned);
    id.ok_or_else(|| {
        Failure::new(
            Kind::NotFound,
            "there are no flavors; the operator makes them",
        )
    })
}

async fn set(client: &Client, options: &Options, what: Set) -> Result<()> {
    let id = find(client, &what.instance).await?;
    let mut instance = Map::new();
    if let Some(name) = what.name {
        instance.insert("name".to_owned(), json!(name));
    }
    let is_access = what.public.is_some() || !what.allowed.is_empty();
    if instance.is_empty() && !is_access {
        return Err(Failure::usage(
            "there is nothing to change: give --name, --public or --allow",
        ));
    }
    // Trove's API changes one thing at a time.
    let path = format!("/instances/{}", segment(&id));
    if !instance.is_empty() {
        client.patch(&path, &json!({"instance": instance})).await?;
    }
    if is_access {
        let access = merged(client, &path, what.public, what.allowed).await?;
        client
            .put(&path, Some(&json!({"instance": {"access": access}})))
            .await?;
    }
    show(client, options, &id, Map::new()).await
}

/// Who may reach an instance after a change. The API replaces both keys, and what is left out
/// would mean private, and anyone: what was not asked to change is read and sent again.
async fn merged(
    client: &Client,
    path: &str,
    public: Option<bool>,
    allowed: Vec<String>,
) -> Result<Value> {
    let answer = client.get(path).await?;
    let now = &answer["instance"]["access"];
    let public = public.unwrap_or_else(|| now["is_public"].as_bool().unwrap_or(false));
    let allowed = match (allowed.is_empty(), &now["allowed_cidrs"]) {
        (true, Value::Array(kept)) => json!(kept),
        _ => json!(allowed),
    };
    Ok(json!({"is_public": public, "allowed_cidrs": allowed}))
}

async fn delete(client: &Client, options: &Options, which: WhichAndWait) -> Result<()> {
    let id = find(client, &which.instance).await?;
    client
        .delete(&format!("/instances/{}", segment(&id)))
        .await?;
    which.wait.until(client, &id, Goal::Gone).await?;
    let words = if which.wait.wait {
        "is deleted"
    } else {
        "is being deleted"
    };
    let state = if which.wait.wait {
        "deleted"
    } else {
        "deleting"
    };
    output::done(
        options,
        &format!("{} {words}", which.instance),
        &json!({"id": id, "state": state}),
    )?;
    Ok(())
}

async fn act(
    client: &Client,
    options: &Options,
    which: WhichAndWait,
    action: &str,
    goal: Goal,
) -> Result<()> {
    let id = find(client, &which.instance).await?;
    let path = format!("/instances/{}/action", segment(&id));
    client.post(&path, &json!({action: {}})).await?;
    which.wait.until(client, &id, goal).await?;
    show(client, options, &id, Map::new()).await
}

async fn explain(client: &Client, options: &Options, name: &str) -> Result<()> {
    let id = find(client, name).await?;
    let mut answer = client
        .get(&format!("/instances/{}/explain", segment(&id)))
        .await?;
    let explanation = answer["explanation"].take();
    if options.json {
        output::json(&explanation)?;
        return Ok(());
    }
    let summary = explanation["summary"].as_str().unwrap_or_default();
    output::emit(&format!("{}\n\n", output::printable(summary)))?;
    let columns: &[Column] = &[
        ("status", "/status"),
        ("operating status", "/operating_status"),
        ("health", "/health"),
        ("since", "/health_since"),
        ("fault", "/fault/message"),
        ("workflow", "/task/workflow"),
        ("step", "/task/step"),
        ("waits for", "/task/wait/message"),
        ("unblocked by", "/task/wait/unblocked_by"),
        ("waiting since", "/task/wait/since"),
        ("deadline", "/task/deadline"),
        ("error", "/task/error"),
    ];
    output::object(options, columns, &explanation)?;
    let history = explanation["history"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    if !history.is_empty() {
        output::emit("\n")?;
        let columns: &[Column] = &[
            ("at", "/at"),
            ("step", "/step"),
            ("outcome", "/outcome"),
            ("ms", "/took_ms"),
            ("why", "/message"),
        ];
        output::rows(options, columns, history)?;
    }
    Ok(())
}

async fn events(client: &Client, options: &Options, name: &str) -> Result<()> {
    let id = find(client, name).await?;
    let rows = client
        .list(&format!("/instances/{}/events", segment(&id)), "events")
        .await?;
    let columns: &[Column] = &[
        ("at", "/created"),
        ("severity", "/severity"),
        ("code", "/code"),
        ("what", "/message"),
    ];
    output::rows(options, columns, &rows)?;
    Ok(())
}

/// A password of 24 letters and digits, 120 bits, none that are mistaken for another.
pub(crate) fn new_password() -> Result<String> {
    let mut bytes = [0_u8; 24];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|e| Failure::failed(format!("read /dev/urandom: {e}")))?;
    let letters = b"abcdefghijkmnpqrstuvwxyz23456789";
    Ok(bytes
        .iter()
        .map(|byte| letters[usize::from(byte & 31)] as char)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_differ_and_are_plain() {
        let (a, b) = (new_password().unwrap(), new_password().unwrap());
        assert_ne!(a, b);
        assert!(
            a.len() == 24
                && a.bytes()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
        );
    }
}
