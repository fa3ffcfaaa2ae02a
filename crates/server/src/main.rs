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
mod refusal;
mod roles;
mod serve;
mod state;
mod state_dir;
mod upgrade;
mod without_root;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use coffer_cli::output;
use coffer_infra::local;

use args::{Args, Command, ConfigCommand};

/// How long what still runs beside may take when all else has ended.
const LEAVE_MAX: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    // What makes sandboxes has to stay single-threaded: nothing may run before it.
    let mut words = std::env::args_os().skip(1);
    if let Some(tool) = words.next().and_then(|word| sandbox_tool(&word)) {
        return match words.next() {
            Some(path) => tool(Path::new(&path)),
            None => ExitCode::from(2),
        };
    }
    local::memory::be_frugal();
    let args = Args::parse();
    if let Err(error) = without_root::enter(&args.command) {
        output::complain(&format!("error: {error:#}"));
        return refusal::exit_code(&error);
    }
    let runtime = runtime(&args);
    let ended = runtime.block_on(run(args));
    // A call to the host that hangs does not keep a Coffer that was told to stop.
    runtime.shutdown_timeout(LEAVE_MAX);
    match ended {
        Ok(code) => code,
        Err(error) => {
            output::complain(&format!("error: {error:#}"));
            refusal::exit_code(&error)
        }
    }
}

/// Programs of the local provider's, which it starts with a path.
fn sandbox_tool(word: &OsStr) -> Option<fn(&Path) -> ExitCode> {
    match word.to_str()? {
        "sandbox-launch" => Some(local::launch::main),
        "sandbox-relay" => Some(local::relay::main),
        "sandbox-hold" => Some(local::world::hold),
        _ => None,
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
            if_started,
        } => upgrade::upgrade(&place, store_is_backed_up, if_started).await,
        Command::Openapi => {
            output::emit(&format!("{}\n", coffer_control::api::openapi_json()))?;
            Ok(ExitCode::SUCCESS)
        }
    }
}
