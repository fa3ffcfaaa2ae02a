//! What a project sees beside its instances: networks, datastores, quotas, and `coffer status`.

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::Options;
use crate::client::{Client, segment};
use crate::credentials::Credentials;
use crate::failure::{Failure, Kind, Result};
use crate::operator;
use crate::output::{self, Column};

const NETWORK: &[Column] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("subnet", "/subnet"),
    ("default", "/is_default"),
    ("created", "/created"),
];
const QUOTA: &[Column] = &[
    ("resource", "/resource"),
    ("in use", "/in_use"),
    ("reserved", "/reserved"),
    ("limit", "/limit"),
];

const VERSION: &[Column] = &[
    ("id", "/id"),
    ("datastore", "/datastore"),
    ("version", "/name"),
    ("number", "/version"),
    ("port", "/capabilities/port"),
    ("TLS only", "/capabilities/tls"),
    ("root", "/capabilities/root_user"),
    ("users", "/capabilities/users"),
    ("hosts of users", "/capabilities/user_hosts"),
    ("databases", "/capabilities/databases"),
    ("grants", "/capabilities/grants"),
    ("provision", "/operations/provision"),
    ("resize", "/operations/resize"),
    ("schema", "/operations/schema"),
    ("user", "/operations/user"),
    ("backup", "/operations/backup"),
    ("configuration", "/operations/configuration"),
    ("cluster", "/operations/cluster"),
];

/// Verbs of networks.
#[derive(Debug, Subcommand)]
pub enum NetworkCommand {
    /// List the project's networks
    List,
    /// Show a network
    Show {
        /// Name or id of the network
        network: String,
    },
}

/// Verbs of datastores.
#[derive(Debug, Subcommand)]
pub enum DatastoreCommand {
    /// List engines and their versions
    List,
    /// Show what can be done with a version
    Show {
        /// Name or id of the datastore
        datastore: String,
        /// Name or id of the version; without it, the default one
        version: Option<String>,
    },
}

/// Verbs of quotas.
#[derive(Debug, Subcommand)]
pub enum QuotaCommand {
    /// Show the quotas of a project
    Show {
        /// Name or id of the project (for the operator); without it, one's own
        project: Option<String>,
    },
    /// Change the quotas of a project (for the operator)
    Set(SetQuota),
}

/// New quotas.
#[derive(Debug, Args)]
pub struct SetQuota {
    /// Name or id of the project
    project: String,
    /// Instances; -1 for no limit
    #[arg(long, allow_negative_numbers = true)]
    instances: Option<i64>,
    /// All volumes together, in GiB; -1 for no limit
    #[arg(long, allow_negative_numbers = true)]
    volumes: Option<i64>,
    /// Memory of all instances together, in MiB; -1 for no limit
    #[arg(long, allow_negative_numbers = true)]
    ram: Option<i64>,
    /// Backups; -1 for no limit
    #[arg(long, allow_negative_numbers = true)]
    backups: Option<i64>,
}

/// Runs `coffer network`.
pub async fn run_network(
    client: &Client,
    options: &Options,
    command: NetworkCommand,
) -> Result<()> {
    match command {
        NetworkCommand::List => {
            output::rows(
                options,
                NETWORK,
                &client.list("/networks", "networks").await?,
            )?;
        }
        NetworkCommand::Show { network } => {
            let id = find_network(client, &network).await?;
            let answer = client.get(&format!("/networks/{}", segment(&id))).await?;
            output::object(options, NETWORK, &answer["network"])?;
        }
    }
    Ok(())
}

/// The id of the network that a name or id stands for.
pub async fn find_network(client: &Client, name: &str) -> Result<String> {
    let rows = client.list("/networks", "networks").await?;
    let found = rows
        .iter()
        .find(|row| row["id"] == name || row["name"] == name);
    let id = found.and_then(|row| row["id"].as_str()).map(str::to_owned);
    id.ok_or_else(|| Failure::new(Kind::NotFound, format!("there is no network '{name}'")))
}

/// Runs `coffer datastore`.
pub async fn run_datastore(
    client: &Client,
    options: &Options,
    command: DatastoreCommand,
) -> Result<()> {
    match command {
        DatastoreCommand::List => list_datastores(client, options).await,
        DatastoreCommand::Show { datastore, version } => {
            show_version(client, options, &datastore, version).await
        }
    }
}

async fn list_datastores(client: &Client, options: &Options) -> Result<()> {
    let mut rows = Vec::new();
    for datastore in client.list("/datastores", "datastores").await? {
        let default = &datastore["default_version"];
        for version in datastore["versions"]
            .as_array()
            .map_or(&[][..], Vec::as_slice)
        {
            rows.push(json!({
                "datastore": datastore["name"],
                "version": version["name"],
                "id": version["id"],
                "is_default": !default.is_null() && version["id"] == *default,
            }));
        }
    }
    let columns: &[Column] = &[
        ("datastore", "/datastore"),
        ("version", "/version"),
        ("id", "/id"),
        ("default", "/is_default"),
    ];
    output::rows(options, columns, &rows)?;
    Ok(())
}

async fn show_version(
    client: &Client,
    options: &Options,
    datastore: &str,
    version: Option<String>,
) -> Result<()> {
    let base = format!("/datastores/{}", segment(datastore));
    let answer = client.get(&base).await?;
    let default = || Some(answer["datastore"]["default_version"].as_str()?.to_owned());
    let version = version.or_else(default).ok_or_else(|| {
        let message = format!("datastore '{datastore}' has no default version: name one");
        Failure::new(Kind::NotFound, message)
    })?;
    let path = format!("{base}/versions/{}", segment(&version));
    let mut shown = client.get(&path).await?["version"].take();
    if !options.json {
        shown["datastore"] = answer["datastore"]["name"].clone();
        shown["operations"] = operations_in_words(&shown);
    }
    output::object(options, VERSION, &shown)
}

/// How far each operation goes, with the reason: by name, as a table has a line for each.
fn operations_in_words(version: &Value) -> Value {
    let all = version.pointer("/capabilities/operations");
    let all = all.and_then(Value::as_array).into_iter().flatten();
    let in_words = |one: &Value| {
        let support = one["support"].as_str()?.replace('-', " ");
        let words = match one["reason"].as_str() {
            Some(reason) => format!("{support}: {reason}"),
            None => support,
        };
        Some((one["operation"].as_str()?.to_owned(), json!(words)))
    };
    all.filter_map(in_words).collect::<Map<_, _>>().into()
}

/// Runs `coffer quota`.
pub async fn run_quota(client: &Client, options: &Options, command: QuotaCommand) -> Result<()> {
    match command {
        QuotaCommand::Show { project } => {
            let project = match project {
                Some(name) => operator::find_project(client, &name).await?,
                None => client.project_id.clone(),
            };
            let rows = client
                .list(&format!("/mgmt/quotas/{}", segment(&project)), "quotas")
                .await?;
            output::rows(options, QUOTA, &rows)?;
        }
        QuotaCommand::Set(set) => {
            let all = [
                ("instances", set.instances),
                ("volumes", set.volumes),
                ("ram", set.ram),
                ("backups", set.backups),
            ];
            let given = all
                .into_iter()
                .filter_map(|(name, limit)| Some((name, limit?)));
            let quotas: Map<String, Value> = given
                .map(|(name, limit)| (name.to_owned(), json!(limit)))
                .collect();
            if quotas.is_empty() {
                return Err(Failure::usage("there is nothing to change: give a quota"));
            }
            let project = operator::find_project(client, &set.project).await?;
            let path = format!("/mgmt/quotas/{}", segment(&project));
            client.put(&path, Some(&json!({"quotas": quotas}))).await?;
            output::rows(options, QUOTA, &client.list(&path, "quotas").await?)?;
        }
    }
    Ok(())
}

const TRACKER: &[Column] = &[
    ("tracker", "/address"),
    ("provider", "/provider"),
    ("instances", "/links"),
    ("answers", "/answers"),
    ("started", "/started"),
];

/// Runs `coffer status`.
pub async fn status(client: &Client, options: &Options, credentials: &Credentials) -> Result<()> {
    let instances = client.list("/instances", "instances").await?;
    let quotas = client
        .list(
            &format!("/mgmt/quotas/{}", segment(&client.project_id)),
            "quotas",
        )
        .await?;
    let mut by_status = Map::new();
    for instance in &instances {
        let word = instance["status"].as_str().unwrap_or("UNKNOWN").to_owned();
        let count = by_status.get(&word).and_then(Value::as_u64).unwrap_or(0);
        by_status.insert(word, json!(count + 1));
    }
    let in_words: Vec<_> = by_status
        .iter()
        .map(|(word, n)| format!("{n} {word}"))
        .collect();
    // Trackers are the operator's business.
    let trackers = match client.roles.iter().any(|role| role == "admin") {
        true => client.list("/admin/trackers", "trackers").await?,
        false => Vec::new(),
    };
    let value = json!({
        "trackers": trackers,
        "api": credentials.auth_url,
        "user": credentials.username,
        "project": credentials.project_name,
        "project_id": client.project_id,
        "roles": client.roles,
        "instances": if options.json { by_status.into() } else { json!(in_words) },
        "quotas": quotas,
    });
    let columns: &[Column] = &[
        ("api", "/api"),
        ("user", "/user"),
        ("project", "/project"),
        ("project id", "/project_id"),
        ("roles", "/roles"),
        ("instances", "/instances"),
    ];
    output::object(options, columns, &value)?;
    if !options.json {
        output::emit("\n")?;
        output::rows(options, QUOTA, &quotas)?;
        if !trackers.is_empty() {
            output::emit("\n")?;
            output::rows(options, TRACKER, &trackers)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_told_with_their_reasons() {
        let version = json!({"capabilities": {"operations": [
            {"operation": "provision", "support": "yes"},
            {"operation": "backup", "support": "not-yet", "reason": "there are none"},
        ]}});
        let expected = json!({"provision": "yes", "backup": "not yet: there are none"});
        assert_eq!(operations_in_words(&version), expected);
        // Of another Coffer that does not tell.
        assert_eq!(operations_in_words(&json!({})), json!({}));
    }
}
