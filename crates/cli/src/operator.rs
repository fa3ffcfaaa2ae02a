//! The operator's objects: projects, users, roles, flavors, volume types and zones.
//!
//! One table says how each kind is called on the wire; the verbs are the same five for all.
//! Passwords come from standard input or are made here, never from the command line.

use std::io::BufRead as _;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use crate::Options;
use crate::client::{Client, segment};
use crate::failure::{Failure, Kind, Result};
use crate::instance::new_password;
use crate::output::{self, Column};

/// How a kind of object is called on the wire.
#[derive(Debug)]
struct Resource {
    /// Path of the collection for changes.
    path: &'static str,
    /// Path of the collection for reading.
    list_path: &'static str,
    /// Key of the list.
    plural: &'static str,
    /// Key of one.
    singular: &'static str,
    /// Where the id is in a row.
    id: &'static str,
    columns: &'static [Column],
}

const PROJECT: Resource = Resource {
    path: "/admin/projects",
    list_path: "/admin/projects",
    plural: "projects",
    singular: "project",
    id: "id",
    columns: &[
        ("id", "/id"),
        ("name", "/name"),
        ("enabled", "/enabled"),
        ("description", "/description"),
        ("created", "/created"),
    ],
};
const USER: Resource = Resource {
    path: "/admin/users",
    list_path: "/admin/users",
    plural: "users",
    singular: "user",
    id: "id",
    columns: &[
        ("id", "/id"),
        ("name", "/name"),
        ("enabled", "/enabled"),
        ("default project", "/default_project_id"),
        ("created", "/created"),
        ("password, shown once", "/password"),
    ],
};
const ROLE: Resource = Resource {
    path: "/admin/roles",
    list_path: "/admin/roles",
    plural: "roles",
    singular: "role",
    id: "name",
    columns: &[("name", "/name")],
};
const FLAVOR: Resource = Resource {
    path: "/admin/flavors",
    list_path: "/flavors",
    plural: "flavors",
    singular: "flavor",
    id: "str_id",
    columns: &[
        ("id", "/str_id"),
        ("name", "/name"),
        ("MiB", "/ram"),
        ("CPUs", "/vcpus"),
        ("disk GiB", "/disk"),
    ],
};
const VOLUME_TYPE: Resource = Resource {
    path: "/admin/volume-types",
    list_path: "/admin/volume-types",
    plural: "volume_types",
    singular: "volume_type",
    id: "name",
    columns: &[
        ("name", "/name"),
        ("read IOPS", "/read_iops_sec"),
        ("write IOPS", "/write_iops_sec"),
        ("read B/s", "/read_bytes_sec"),
        ("write B/s", "/write_bytes_sec"),
        ("description", "/description"),
    ],
};
const ZONE: Resource = Resource {
    path: "/admin/zones",
    list_path: "/admin/zones",
    plural: "zones",
    singular: "zone",
    id: "name",
    columns: &[("name", "/name"), ("created", "/created")],
};

impl Resource {
    async fn list(&self, client: &Client, options: &Options) -> Result<()> {
        let rows = client.list(self.list_path, self.plural).await?;
        let columns: Vec<Column> = self
            .columns
            .iter()
            .copied()
            .filter(|c| c.1 != "/password")
            .collect();
        output::rows(options, &columns, &rows)?;
        Ok(())
    }

    /// The row that a name or id stands for.
    async fn find(&self, client: &Client, name: &str) -> Result<Value> {
        let rows = client.list(self.list_path, self.plural).await?;
        let by_id = rows.iter().find(|row| row[self.id] == name);
        let found = by_id
            .or_else(|| rows.iter().find(|row| row["name"] == name))
            .cloned();
        let what = self.singular.replace('_', " ");
        found.ok_or_else(|| Failure::new(Kind::NotFound, format!("there is no {what} '{name}'")))
    }

    async fn find_id(&self, client: &Client, name: &str) -> Result<String> {
        let row = self.find(client, name).await?;
        let id = row[self.id].as_str().map(str::to_owned);
        id.ok_or_else(|| Failure::failed(format!("{} '{name}' has no id", self.singular)))
    }

    async fn show(&self, client: &Client, options: &Options, name: &str) -> Result<()> {
        output::object(options, self.columns, &self.find(client, name).await?)?;
        Ok(())
    }

    async fn create(&self, client: &Client, options: &Options, body: Value) -> Result<()> {
        let password = body.get("password").cloned();
        let mut answer = client
            .post(self.path, &json!({self.singular: body}))
            .await?;
        let mut object = answer[self.singular].take();
        if let (Some(fields), Some(password)) = (object.as_object_mut(), password) {
            fields.insert("password".to_owned(), password);
        }
        output::object(options, self.columns, &object)?;
        Ok(())
    }

    async fn set(
        &self,
        client: &Client,
        options: &Options,
        name: &str,
        change: Map<String, Value>,
    ) -> Result<()> {
        if change.is_empty() {
            return Err(Failure::usage("there is nothing to change: see --help"));
        }
        let password = change.get("password").cloned();
        let path = format!(
            "{}/{}",
            self.path,
            segment(&self.find_id(client, name).await?)
        );
        let mut answer = client.patch(&path, &json!({self.singular: change})).await?;
        let mut object = answer[self.singular].take();
        if let (Some(fields), Some(password)) = (object.as_object_mut(), password) {
            fields.insert("password".to_owned(), password);
        }
        output::object(options, self.columns, &object)?;
        Ok(())
    }

    async fn delete(&self, client: &Client, options: &Options, name: &str) -> Result<()> {
        let id = self.find_id(client, name).await?;
        client
            .delete(&format!("{}/{}", self.path, segment(&id)))
            .await?;
        let value = json!({"id": id, "state": "deleted"});
        output::done(options, &format!("{name} is deleted"), &value)?;
        Ok(())
    }
}

/// An object of the operator.
#[derive(Debug, Args)]
pub struct Which {
    /// Its name or id
    name: String,
}

/// Verbs of projects.
#[derive(Debug, Subcommand)]
pub enum ProjectCommand {
    /// Create a project
    Create {
        /// Its name
        name: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List projects
    List,
    /// Show a project
    Show(Which),
    /// Change a project
    Set {
        #[command(flatten)]
        which: Which,
        /// New name
        #[arg(long = "name", value_name = "NAME")]
        new_name: Option<String>,
        /// New description
        #[arg(long)]
        description: Option<String>,
        /// Whether its users may log in
        #[arg(long, value_name = "true|false")]
        enabled: Option<bool>,
    },
    /// Delete a project that holds no instances
    Delete(Which),
}

/// Verbs of users.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Create a user; without --password-stdin a password is made and shown once
    Create {
        /// Its name
        name: String,
        /// Read the password from standard input
        #[arg(long)]
        password_stdin: bool,
        /// Project that it logs in to when it names none
        #[arg(long)]
        project: Option<String>,
    },
    /// List users
    List,
    /// Show a user
    Show(Which),
    /// Change a user
    Set {
        #[command(flatten)]
        which: Which,
        /// New name
        #[arg(long = "name", value_name = "NAME")]
        new_name: Option<String>,
        /// Read a new password from standard input
        #[arg(long)]
        password_stdin: bool,
        /// Make a new password and show it once
        #[arg(long, conflicts_with = "password_stdin")]
        new_password: bool,
        /// Whether it may log in
        #[arg(long, value_name = "true|false")]
        enabled: Option<bool>,
    },
    /// Delete a user
    Delete(Which),
}

/// Who has a role where.
#[derive(Debug, Args)]
pub struct Assignment {
    /// The role
    role: String,
    /// Name or id of the user
    #[arg(long)]
    user: String,
    /// Name or id of the project
    #[arg(long)]
    project: String,
}

/// Verbs of roles.
#[derive(Debug, Subcommand)]
pub enum RoleCommand {
    /// Create a role
    Create(Which),
    /// List roles, or who has them
    List {
        /// Only what this user has, by name or id
        #[arg(long)]
        user: Option<String>,
        /// Only what is held in this project, by name or id
        #[arg(long)]
        project: Option<String>,
    },
    /// Show a role
    Show(Which),
    /// Delete a role that nobody has
    Delete(Which),
    /// Give a user a role in a project
    Set(Assignment),
    /// Take a role in a project away from a user
    Unset(Assignment),
}

/// Verbs of flavors.
#[derive(Debug, Subcommand)]
pub enum FlavorCommand {
    /// Create a flavor
    Create {
        /// Its name
        name: String,
        /// Its id: any text (`6.1`)
        #[arg(long)]
        id: String,
        /// Memory in MiB
        #[arg(long)]
        ram: u32,
        /// CPUs
        #[arg(long)]
        vcpus: u32,
        /// Disk in GiB, shown only
        #[arg(long, default_value_t = 0)]
        disk: u32,
    },
    /// List flavors
    List,
    /// Show a flavor
    Show(Which),
    /// Change a flavor; its memory, CPUs and disk only while no instance has it
    Set {
        #[command(flatten)]
        which: Which,
        /// New name
        #[arg(long = "name", value_name = "NAME")]
        new_name: Option<String>,
        /// New memory in MiB
        #[arg(long)]
        ram: Option<u32>,
        /// New number of CPUs
        #[arg(long)]
        vcpus: Option<u32>,
        /// New disk in GiB
        #[arg(long)]
        disk: Option<u32>,
    },
    /// Delete a flavor that no instance has
    Delete(Which),
}

/// How fast each volume of a type may be read and written; `none` limits nothing.
#[derive(Debug, Args)]
pub struct IoLimits {
    /// Most read operations a second, 10 to 10000000
    #[arg(long, value_name = "NUMBER|none", value_parser = limit)]
    read_iops_sec: Option<Value>,
    /// Most write operations a second, 10 to 10000000
    #[arg(long, value_name = "NUMBER|none", value_parser = limit)]
    write_iops_sec: Option<Value>,
    /// Most bytes read a second, 65536 to 1099511627776
    #[arg(long, value_name = "NUMBER|none", value_parser = limit)]
    read_bytes_sec: Option<Value>,
    /// Most bytes written a second, 65536 to 1099511627776
    #[arg(long, value_name = "NUMBER|none", value_parser = limit)]
    write_bytes_sec: Option<Value>,
}

impl IoLimits {
    /// What was given of a volume type: a description, and these limits.
    fn beside(self, description: Option<String>) -> Map<String, Value> {
        given([
            ("description", description.map(Value::from)),
            ("read_iops_sec", self.read_iops_sec),
            ("write_iops_sec", self.write_iops_sec),
            ("read_bytes_sec", self.read_bytes_sec),
            ("write_bytes_sec", self.write_bytes_sec),
        ])
    }
}

/// A limit as it crosses the wire.
fn limit(text: &str) -> std::result::Result<Value, String> {
    match text {
        "none" => Ok(Value::Null),
        _ => text
            .parse::<u64>()
            .map(Value::from)
            .map_err(|_| "neither a whole number nor none".to_owned()),
    }
}

/// Verbs of volume types.
#[derive(Debug, Subcommand)]
pub enum VolumeTypeCommand {
    /// Create a volume type
    Create {
        /// Its name
        name: String,
        /// What it is
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        limits: IoLimits,
    },
    /// List volume types
    List,
    /// Show a volume type
    Show(Which),
    /// Change a volume type; running instances get new limits at their next restart or start
    Set {
        #[command(flatten)]
        which: Which,
        /// New description
        #[arg(long)]
        description: Option<String>,
        #[command(flatten)]
        limits: IoLimits,
    },
    /// Delete a volume type
    Delete(Which),
}

/// Verbs of zones.
#[derive(Debug, Subcommand)]
pub enum ZoneCommand {
    /// Create a zone
    Create(Which),
    /// List zones
    List,
    /// Show a zone
    Show(Which),
    /// Rename a zone, and with it what its instances name
    Set {
        #[command(flatten)]
        which: Which,
        /// New name
        #[arg(long = "name", value_name = "NAME")]
        new_name: String,
    },
    /// Delete a zone that no instance names
    Delete(Which),
}

/// Runs `coffer project`.
pub async fn run_project(
    client: &Client,
    options: &Options,
    command: ProjectCommand,
) -> Result<()> {
    match command {
        ProjectCommand::Create { name, description } => {
            let body = json!({"name": name, "description": description});
            PROJECT.create(client, options, body).await
        }
        ProjectCommand::List => PROJECT.list(client, options).await,
        ProjectCommand::Show(which) => PROJECT.show(client, options, &which.name).await,
        ProjectCommand::Set {
            which,
            new_name,
            description,
            enabled,
        } => {
            let change = given([
                ("name", new_name.map(Value::from)),
                ("description", description.map(Value::from)),
                ("enabled", enabled.map(Value::from)),
            ]);
            PROJECT.set(client, options, &which.name, change).await
        }
        ProjectCommand::Delete(which) => PROJECT.delete(client, options, &which.name).await,
    }
}

/// Runs `coffer user`.
pub async fn run_user(client: &Client, options: &Options, command: UserCommand) -> Result<()> {
    match command {
        UserCommand::Create {
            name,
            password_stdin,
            project,
        } => {
            let password = if password_stdin {
                read_password()?
            } else {
                new_password()?
            };
            let mut body = json!({"name": name, "password": password});
            if let Some(project) = project {
                body["default_project_id"] = json!(PROJECT.find_id(client, &project).await?);
            }
            USER.create(client, options, body).await
        }
        UserCommand::List => USER.list(client, options).await,
        UserCommand::Show(which) => USER.show(client, options, &which.name).await,
        UserCommand::Set {
            which,
            new_name,
            password_stdin,
            new_password: is_new,
            enabled,
        } => {
            let password = match (password_stdin, is_new) {
                (true, _) => Some(read_password()?),
                (false, true) => Some(new_password()?),
                (false, false) => None,
            };
            let change = given([
                ("name", new_name.map(Value::from)),
                ("password", password.map(Value::from)),
                ("enabled", enabled.map(Value::from)),
            ]);
            USER.set(client, options, &which.name, change).await
        }
        UserCommand::Delete(which) => USER.delete(client, options, &which.name).await,
    }
}

/// Runs `coffer role`.
pub async fn run_role(client: &Client, options: &Options, command: RoleCommand) -> Result<()> {
    match command {
        RoleCommand::Create(which) => {
            ROLE.create(client, options, json!({"name": which.name}))
                .await
        }
        RoleCommand::List {
            user: None,
            project: None,
        } => ROLE.list(client, options).await,
        RoleCommand::List { user, project } => {
            list_assignments(client, options, user.as_deref(), project.as_deref()).await
        }
        RoleCommand::Show(which) => ROLE.show(client, options, &which.name).await,
        RoleCommand::Delete(which) => ROLE.delete(client, options, &which.name).await,
        RoleCommand::Set(assignment) => {
            client
                .put(&assignment.path(client).await?, None::<&Value>)
                .await?;
            assignment.report(options, "has")
        }
        RoleCommand::Unset(assignment) => {
            client.delete(&assignment.path(client).await?).await?;
            assignment.report(options, "no longer has")
        }
    }
}

/// The id of the project that a name or id stands for; for the operator.
pub async fn find_project(client: &Client, name: &str) -> Result<String> {
    PROJECT.find_id(client, name).await
}

/// Lists who has which role, of a user, in a project, or both.
async fn list_assignments(
    client: &Client,
    options: &Options,
    user: Option<&str>,
    project: Option<&str>,
) -> Result<()> {
    let mut query = Vec::new();
    if let Some(user) = user {
        query.push(format!(
            "user={}",
            segment(&USER.find_id(client, user).await?)
        ));
    }
    if let Some(project) = project {
        query.push(format!(
            "project={}",
            segment(&PROJECT.find_id(client, project).await?)
        ));
    }
    let path = format!("/admin/assignments?{}", query.join("&"));
    let rows = client.list(&path, "assignments").await?;
    let columns: &[Column] = &[
        ("user id", "/user_id"),
        ("project id", "/project_id"),
        ("role", "/role"),
    ];
    output::rows(options, columns, &rows)?;
    Ok(())
}

/// Runs `coffer flavor`.
pub async fn run_flavor(client: &Client, options: &Options, command: FlavorCommand) -> Result<()> {
    match command {
        FlavorCommand::Create {
            name,
            id,
            ram,
            vcpus,
            disk,
        } => {
            let body = json!({"id": id, "name": name, "ram": ram, "vcpus": vcpus, "disk": disk});
            FLAVOR.create(client, options, body).await
        }
        FlavorCommand::List => FLAVOR.list(client, options).await,
        FlavorCommand::Show(which) => FLAVOR.show(client, options, &which.name).await,
        FlavorCommand::Set {
            which,
            new_name,
            ram,
            vcpus,
            disk,
        } => {
            let change = given([
                ("name", new_name.map(Value::from)),
                ("ram", ram.map(Value::from)),
                ("vcpus", vcpus.map(Value::from)),
                ("disk", disk.map(Value::from)),
            ]);
            FLAVOR.set(client, options, &which.name, change).await
        }
        FlavorCommand::Delete(which) => FLAVOR.delete(client, options, &which.name).await,
    }
}

/// Runs `coffer volume-type`.
pub async fn run_volume_type(
    client: &Client,
    options: &Options,
    command: VolumeTypeCommand,
) -> Result<()> {
    match command {
        VolumeTypeCommand::Create {
            name,
            description,
            limits,
        } => {
            let mut body = limits.beside(Some(description));
            body.insert("name".to_owned(), Value::from(name));
            VOLUME_TYPE.create(client, options, body.into()).await
        }
        VolumeTypeCommand::List => VOLUME_TYPE.list(client, options).await,
        VolumeTypeCommand::Show(which) => VOLUME_TYPE.show(client, options, &which.name).await,
        VolumeTypeCommand::Set {
            which,
            description,
            limits,
        } => {
            let change = limits.beside(description);
            VOLUME_TYPE.set(client, options, &which.name, change).await
        }
        VolumeTypeCommand::Delete(which) => VOLUME_TYPE.delete(client, options, &which.name).await,
    }
}

/// Runs `coffer zone`.
pub async fn run_zone(client: &Client, options: &Options, command: ZoneCommand) -> Result<()> {
    match command {
        ZoneCommand::Create(which) => {
            ZONE.create(client, options, json!({"name": which.name}))
                .await
        }
        ZoneCommand::List => ZONE.list(client, options).await,
        ZoneCommand::Show(which) => ZONE.show(client, options, &which.name).await,
        ZoneCommand::Set { which, new_name } => {
            let change = given([("name", Some(Value::from(new_name)))]);
            ZONE.set(client, options, &which.name, change).await
        }
        ZoneCommand::Delete(which) => ZONE.delete(client, options, &which.name).await,
    }
}

impl Assignment {
    async fn path(&self, client: &Client) -> Result<String> {
        let project = PROJECT.find_id(client, &self.project).await?;
        let user = USER.find_id(client, &self.user).await?;
        let (project, user, role) = (segment(&project), segment(&user), segment(&self.role));
        Ok(format!(
            "/admin/projects/{project}/users/{user}/roles/{role}"
        ))
    }

    fn report(&self, options: &Options, verb: &str) -> Result<()> {
        let Self {
            role,
            user,
            project,
        } = self;
        let words = format!("{user} {verb} the role {role} in {project}");
        let value = json!({"user": user, "project": project, "role": role, "result": words});
        output::done(options, &words, &value)
    }
}

/// The fields that were given.
fn given<const N: usize>(fields: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let present = fields
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)));
    present.collect()
}

fn read_password() -> Result<String> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|e| Failure::failed(format!("read the password: {e}")))?;
    match line.trim_end_matches(['\n', '\r']) {
        "" => Err(Failure::usage("there is no password on standard input")),
        password => Ok(password.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_changed() {
        let change = given([("name", Some(json!("x"))), ("enabled", None)]);
        assert_eq!(Value::from(change), json!({"name": "x"}));
    }

    #[test]
    fn a_limit_is_a_number_or_none() {
        assert_eq!(limit("500"), Ok(json!(500)));
        assert_eq!(limit("none"), Ok(Value::Null));
        for bad in ["", "-1", "1.5", "fast", "18446744073709551616"] {
            assert!(limit(bad).is_err(), "{bad}");
        }
        let lifted = IoLimits {
            read_iops_sec: Some(json!(500)),
            write_iops_sec: Some(Value::Null),
            read_bytes_sec: None,
            write_bytes_sec: None,
        };
        let change = lifted.beside(None);
        let expected = json!({"read_iops_sec": 500, "write_iops_sec": null});
        assert_eq!(Value::from(change), expected);
    }
}
