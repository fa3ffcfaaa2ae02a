//! The executable `coffer`: the roles of the control plane, the operator's tools on its host, and
//! the verbs for people.

mod args;
mod assemble;
mod catalogue;
mod doctor;
mod first_start;
mod host_tools;
mod images;
mod keys;
mod log;
mod roles;
mod serve;
mod state;
mod state_dir;
mod upgrade;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use coffer_cli::output;

use args::{Args, Command, ConfigCommand};

/// How long what still runs beside may take when all else has ended.
const LEAVE_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    // The launcher of sandboxes has to stay single-threaded: nothing may run before it.
    let mut words = std::env::args_os().skip(1);
    if words.next().is_some_and(|word| word == "sandbox-launch") {
        return match words.next() {
            Some(spec) => coffer_infra::local::launch::main(Path::new(&spec)),
            None => ExitCode::from(2),
        };
    }
    coffer_infra::local::memory::be_frugal();
    let args = Args::parse();
    let runtime = runtime(&args);
    let ended = runtime.block_on(run(args));
    // A call to the host that hangs does not keep a Coffer that was told to stop.
    runtime.shutdown_timeout(LEAVE_MAX);
    match ended {
        Ok(code) => code,
        Err(error) => {
            output::complain(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn runtime(args: &Args) -> tokio::runtime::Runtime {
    let mut builder = match args.command {
        Command::Verb(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    builder
        .enable_all()
        .build()
        .expect("the system gives threads and descriptors at start")
}

async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { options, command } = args;
    match command {
        Command::Verb(verb) => Ok(coffer_cli::run(verb, &options).await),
        Command::Up(place) => roles::run(&place, roles::Roles::ALL).await,
        Command::Api(place) => roles::run(&place, roles::Roles::API).await,
        Command::TaskManager(place) => roles::run(&place, roles::Roles::TASK_MANAGER).await,
        Command::Conductor(place) => roles::run(&place, roles::Roles::CONDUCTOR).await,
        Command::Tracker(place) => roles::run(&place, roles::Roles::TRACKER).await,
        Command::Migrate(place) => host_tools::migrate(&place).await,
        Command::Config { place, command } => host_tools::config(match &command {
            Some(ConfigCommand::Show(place)) => place,
            None => &place,
        }),
        Command::Doctor(place) => doctor::doctor(&place, &options).await,
        Command::Ca(ca) => host_tools::ca(&ca).await,
        Command::Image { place, command } => images::image(&place, &command, &options).await,
        Command::State { place, command } => state::state(&place, &command, &options).await,
        Command::Key { place, command } => keys::key(&place, &command).await,
        Command::Upgrade {
            place,
            store_is_backed_up,
        } => upgrade::upgrade(&place, store_is_backed_up).await,
        Command::Openapi => {
            output::emit(&format!("{}\n", coffer_control::api::openapi_json()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
