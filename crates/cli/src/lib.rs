//! The command line for people: verbs over the REST API, and the client under them.
//!
//! The executable is assembled in `coffer-server`, which adds the verbs that run Coffer itself.
//! Nothing here knows the store or a provider; what a verb can do, any client of the API can.

pub mod client;
pub mod connect;
pub mod contents;
pub mod credentials;
pub mod failure;
pub mod instance;
pub mod operator;
pub mod output;
pub mod password;
pub mod project;
pub mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use client::Client;
use credentials::Credentials;
use failure::Result;

/// What every verb takes.
#[derive(Debug, Clone, Default, Args)]
pub struct Options {
    /// Print JSON instead of tables
    #[arg(long, global = true)]
    pub json: bool,
    /// Log in with this credentials file instead of OS_* variables
    #[arg(long, global = true, value_name = "FILE")]
    pub credentials: Option<PathBuf>,
}

/// The verbs that talk to the API.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Database servers
    #[command(subcommand)]
    Instance(instance::Command),
    /// Open the engine's own client on an instance, through Coffer
    Connect(connect::Connect),
    /// Databases in an instance
    #[command(subcommand)]
    Database(contents::DatabaseCommand),
    /// Users in an instance
    #[command(subcommand)]
    DatabaseUser(contents::UserCommand),
    /// The superuser of an instance
    #[command(subcommand)]
    Root(contents::RootCommand),
    /// Networks of the project
    #[command(subcommand)]
    Network(project::NetworkCommand),
    /// Engines and versions that are offered
    #[command(subcommand)]
    Datastore(project::DatastoreCommand),
    /// How much a project may have
    #[command(subcommand)]
    Quota(project::QuotaCommand),
    /// Projects (for the operator)
    #[command(subcommand)]
    Project(operator::ProjectCommand),
    /// Users of Coffer (for the operator)
    #[command(subcommand)]
    User(operator::UserCommand),
    /// Roles, and who has them (for the operator)
    #[command(subcommand)]
    Role(operator::RoleCommand),
    /// Sizes of instances
    #[command(subcommand)]
    Flavor(operator::FlavorCommand),
    /// Kinds of volumes
    #[command(subcommand)]
    VolumeType(operator::VolumeTypeCommand),
    /// Availability zones
    #[command(subcommand)]
    Zone(operator::ZoneCommand),
    /// Print the OS_* variables for `eval`; they hold the password
    Env,
    /// Whether Coffer answers, who is asking, and what the project has
    Status,
}

/// What scripts can act on; shown below the help of every command.
pub const EXIT_CODES: &str = "Exit codes:\n  \
    0  done\n  \
    1  it was tried and did not work\n  \
    2  the command line or the credentials are not right\n  \
    3  what was named is not there\n  \
    4  Coffer understood and will not: role, quota, conflict, state, validation\n  \
    5  Coffer did not answer";

/// Runs a verb and says how it ended: see [`EXIT_CODES`].
pub async fn run(verb: Verb, options: &Options) -> ExitCode {
    let ended = match verb {
        Verb::Connect(wanted) => Box::pin(connect::run(wanted, options)).await,
        verb => Box::pin(execute(verb, options))
            .await
            .map(|()| ExitCode::SUCCESS),
    };
    match ended {
        Ok(code) => code,
        Err(failure) => {
            output::complain(&format!("error: {}", failure.message));
            failure.exit_code()
        }
    }
}

async fn execute(verb: Verb, options: &Options) -> Result<()> {
    let credentials = Credentials::find(options.credentials.as_deref())?;
    if matches!(verb, Verb::Env) {
        return output::emit(&credentials.export_lines());
    }
    let client = &Client::connect(&credentials).await?;
    match verb {
        Verb::Instance(command) => Box::pin(instance::run(client, options, command)).await,
        Verb::Database(command) => contents::run_database(client, options, command).await,
        Verb::DatabaseUser(command) => contents::run_user(client, options, command).await,
        Verb::Root(command) => contents::run_root(client, options, command).await,
        Verb::Network(command) => project::run_network(client, options, command).await,
        Verb::Datastore(command) => project::run_datastore(client, options, command).await,
        Verb::Quota(command) => project::run_quota(client, options, command).await,
        Verb::Project(command) => operator::run_project(client, options, command).await,
        Verb::User(command) => operator::run_user(client, options, command).await,
        Verb::Role(command) => operator::run_role(client, options, command).await,
        Verb::Flavor(command) => operator::run_flavor(client, options, command).await,
        Verb::VolumeType(command) => operator::run_volume_type(client, options, command).await,
        Verb::Zone(command) => operator::run_zone(client, options, command).await,
        Verb::Status => project::status(client, options, &credentials).await,
        Verb::Env | Verb::Connect(_) => Ok(()),
    }
}
