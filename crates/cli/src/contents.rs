//! What is inside an instance: `coffer database`, `coffer database-user`, `coffer root`.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use crate::Options;
use crate::client::{Client, segment};
use crate::failure::{Failure, Result};
use crate::instance;
use crate::output::{self, Column};

/// Verbs of databases.
#[derive(Debug, Subcommand)]
pub enum DatabaseCommand {
    /// Create a database
    Create(Item),
    /// List the databases of an instance
    List(instance::Which),
    /// Delete a database and what is in it
    Delete(Item),
}

/// Verbs of users inside an instance.
#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Create a user; a password is made and shown once
    Create(NewUser),
    /// List the users of an instance
    List(instance::Which),
    /// Show a user
    Show(Item),
    /// Give a user a new password, shown once
    Password(Item),
    /// Let a user use databases
    Grant(Grant),
    /// Take a database away from a user
    Revoke(Revoke),
    /// Delete a user
    Delete(Item),
}

/// Verbs of the superuser.
#[derive(Debug, Subcommand)]
pub enum RootCommand {
    /// Let the superuser log in; a password is made and shown once
    Enable(instance::Which),
    /// Whether the superuser may log in
    Show(instance::Which),
    /// Shut the superuser out
    Disable(instance::Which),
}

/// Something in an instance.
#[derive(Debug, Args)]
pub struct Item {
    /// Name or id of the instance
    instance: String,
    /// Its name inside the instance
    name: String,
}

/// A user to create.
#[derive(Debug, Args)]
pub struct NewUser {
    #[command(flatten)]
    item: Item,
    /// A database that the user may use; may be repeated
    #[arg(long = "database", value_name = "NAME")]
    databases: Vec<String>,
}

/// Databases to grant.
#[derive(Debug, Args)]
pub struct Grant {
    #[command(flatten)]
    item: Item,
    /// Databases that the user may use from now on
    #[arg(required = true)]
    databases: Vec<String>,
}

/// A database to revoke.
#[derive(Debug, Args)]
pub struct Revoke {
    #[command(flatten)]
    item: Item,
    /// The database that the user may use no longer
    database: String,
}

const USER: &[Column] = &[
    ("name", "/name"),
    ("host", "/host"),
    ("databases", "/databases"),
];
const LOGIN: &[Column] = &[("name", "/name"), ("password, shown once", "/password")];

/// Runs `coffer database`.
pub async fn run_database(
    client: &Client,
    options: &Options,
    command: DatabaseCommand,
) -> Result<()> {
    match command {
        DatabaseCommand::Create(item) => {
            let base = base(client, &item.instance, "databases").await?;
            client
                .post(&base, &json!({"databases": [{"name": item.name}]}))
                .await?;
            report(options, &item, "is created")
        }
        DatabaseCommand::List(which) => {
            let base = base(client, &which.instance, "databases").await?;
            let rows = client.list(&base, "databases").await?;
            output::rows(options, &[("name", "/name")], &rows)?;
            Ok(())
        }
        DatabaseCommand::Delete(item) => {
            let base = base(client, &item.instance, "databases").await?;
            client
                .delete(&format!("{base}/{}", segment(&item.name)))
                .await?;
            report(options, &item, "is deleted")
        }
    }
}

/// Runs `coffer database-user`.
pub async fn run_user(client: &Client, options: &Options, command: UserCommand) -> Result<()> {
    match command {
        UserCommand::Create(new) => create_user(client, options, new).await,
        UserCommand::List(which) => {
            let base = base(client, &which.instance, "users").await?;
            output::rows(options, USER, &client.list(&base, "users").await?)?;
            Ok(())
        }
        UserCommand::Show(item) => {
            let path = user_path(client, &item).await?;
            output::object(options, USER, &client.get(&path).await?["user"])?;
            Ok(())
        }
        UserCommand::Password(item) => {
            let path = user_path(client, &item).await?;
            let password = instance::new_password()?;
            client
                .put(&path, Some(&json!({"user": {"password": password}})))
                .await?;
            output::object(
                options,
                LOGIN,
                &json!({"name": item.name, "password": password}),
            )?;
            Ok(())
        }
        UserCommand::Grant(grant) => {
            let path = user_path(client, &grant.item).await?;
            let body = json!({"databases": named(&grant.databases)});
            client
                .put(&format!("{path}/databases"), Some(&body))
                .await?;
            report(
                options,
                &grant.item,
                &format!("may use {}", grant.databases.join(", ")),
            )
        }
        UserCommand::Revoke(revoke) => {
            let path = user_path(client, &revoke.item).await?;
            client
                .delete(&format!("{path}/databases/{}", segment(&revoke.database)))
                .await?;
            report(
                options,
                &revoke.item,
                &format!("may use {} no longer", revoke.database),
            )
        }
        UserCommand::Delete(item) => {
            client.delete(&user_path(client, &item).await?).await?;
            report(options, &item, "is deleted")
        }
    }
}

/// Runs `coffer root`.
pub async fn run_root(client: &Client, options: &Options, command: RootCommand) -> Result<()> {
    match command {
        RootCommand::Enable(which) => {
            let base = base(client, &which.instance, "root").await?;
            let answer = client.post(&base, &json!({})).await?;
            output::object(options, LOGIN, &answer["user"])?;
        }
        RootCommand::Show(which) => {
            let base = base(client, &which.instance, "root").await?;
            output::object(
                options,
                &[("enabled", "/rootEnabled")],
                &client.get(&base).await?,
            )?;
        }
        RootCommand::Disable(which) => {
            client
                .delete(&base(client, &which.instance, "root").await?)
                .await?;
            let words = format!("the superuser of {} is shut out", which.instance);
            output::done(options, &words, &json!({"rootEnabled": false}))?;
        }
    }
    Ok(())
}

async fn create_user(client: &Client, options: &Options, new: NewUser) -> Result<()> {
    let base = base(client, &new.item.instance, "users").await?;
    let password = instance::new_password()?;
    let user = json!({
        "name": new.item.name,
        "password": password,
        "databases": named(&new.databases),
    });
    client.post(&base, &json!({"users": [user]})).await?;
    output::object(
        options,
        LOGIN,
        &json!({"name": new.item.name, "password": password}),
    )?;
    Ok(())
}

/// The path of a collection inside an instance.
async fn base(client: &Client, name: &str, collection: &str) -> Result<String> {
    let id = instance::find(client, name).await?;
    Ok(format!("/instances/{}/{collection}", segment(&id)))
}

async fn user_path(client: &Client, item: &Item) -> Result<String> {
    if item.name.is_empty() {
        return Err(Failure::usage("the name of a user is not empty"));
    }
    let base = base(client, &item.instance, "users").await?;
    Ok(format!("{base}/{}", segment(&item.name)))
}

fn named(names: &[String]) -> Vec<Value> {
    names.iter().map(|name| json!({"name": name})).collect()
}

fn report(options: &Options, item: &Item, words: &str) -> Result<()> {
    let value = json!({"instance": item.instance, "name": item.name, "result": words});
    output::done(options, &format!("{} {words}", item.name), &value)?;
    Ok(())
}
