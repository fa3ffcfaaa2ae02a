//! Runs roles of the control plane in this process until it is told to stop.

use std::fs;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use coffer_control::clock::{Clock, new_uuid};
use coffer_control::conductor::Conductor;
use coffer_control::config::Config;
use coffer_control::supervise::Supervisor;
use coffer_control::taskmanager::Worker;
use coffer_control::taskmanager::periodic::reconcile::Reconciler;
use coffer_control::tls::{self, AltNames, Usage};
use coffer_control::{api, authority};
use coffer_infra::local::LocalProvider;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Place;
use crate::assemble::{self, Base};
use crate::first_start::{self, Door};
use crate::serve::Server;
use crate::state_dir::StateDir;
use crate::{catalogue, log};

/// How long tasks may take to come to their next commit when Coffer stops.
const DRAIN: Duration = Duration::from_secs(15);

/// Which roles run in one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Roles {
    api: bool,
    task_manager: bool,
    conductor: bool,
    /// Whether the process alone uses the state directory.
    is_exclusive: bool,
}

impl Roles {
    pub(crate) const ALL: Self = Self {
        api: true,
        task_manager: true,
        conductor: true,
        is_exclusive: true,
    };
    pub(crate) const API: Self = Self {
        api: true,
        task_manager: false,
        conductor: false,
        is_exclusive: false,
    };
    pub(crate) const TASK_MANAGER: Self = Self {
        api: false,
        task_manager: true,
        conductor: false,
        is_exclusive: false,
    };
    pub(crate) const CONDUCTOR: Self = Self {
        api: false,
        task_manager: false,
        conductor: true,
        is_exclusive: false,
    };
}

/// Runs the roles until SIGTERM or SIGINT. Instances go on serving after it.
pub(crate) async fn run(place: &Place, roles: Roles) -> anyhow::Result<ExitCode> {
    let config = place.load()?;
    log::start(&config);
    let state = StateDir::open(&config.state.dir, roles.is_exclusive)?;
    let base = assemble::base(&config, &state).await?;
    let supervisor = Supervisor::new();
    let provider = match roles.task_manager || roles.conductor {
        true => Some(start_workers(&base, &config, &state, roles, &supervisor).await?),
        false => None,
    };
    if roles.api {
        start_api(&base, &config, &state, &supervisor).await?;
    }
    wait_for_end(&supervisor).await?;
    tracing::info!("stopping; instances go on serving");
    let is_drained = supervisor.stop(DRAIN).await;
    if !is_drained {
        tracing::warn!("not all work came to an end in time; it goes on at the next start");
    }
    if let Some(provider) = provider {
        // With no server left, nothing has to stay on the host either.
        let is_final = roles.is_exclusive && base.store.list_servers().await?.is_empty();
        provider.close(is_final).await.context("leave the host")?;
    }
    base.store.close().await;
    Ok(ExitCode::SUCCESS)
}

async fn wait_for_end(supervisor: &Supervisor) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = supervisor.token().cancelled_owned() => {}
    }
    Ok(())
}

async fn start_workers(
    base: &Base,
    config: &Config,
    state: &StateDir,
    roles: Roles,
    supervisor: &Supervisor,
) -> anyhow::Result<Arc<LocalProvider>> {
    let (services, provider) = assemble::services(base, config, state, supervisor).await?;
    let roots_dir = assemble::roots_dir(config);
    catalogue::register(base, &roots_dir).await?;
    let name = || {
        let unique = new_uuid(&*base.clock, &*base.entropy).simple().to_string();
        format!("{}-{unique}", std::process::id())
    };
    let is_alone = roles.is_exclusive && config.state.store_url.is_none();
    if roles.task_manager {
        let worker = Arc::new(Worker::new(services.clone(), name()));
        // With the lock on the state directory and SQLite in it, nobody else can be at work.
        let inherited = if is_alone {
            worker.take_over_all().await?
        } else {
            Vec::new()
        };
        supervisor.start("task manager", worker.run(supervisor.clone(), inherited));
        let reconciler = Reconciler::new(services.clone());
        supervisor.start("reconciler", reconciler.run(supervisor.clone()));
        let watch = catalogue::watch(base.clone(), roots_dir, supervisor.clone());
        supervisor.start("engine roots", watch);
    }
    if roles.conductor {
        let conductor = Arc::new(Conductor::new(services, name(), is_alone));
        supervisor.start("conductor", conductor.run(supervisor.clone()));
    }
    Ok(provider)
}

async fn start_api(
    base: &Base,
    config: &Config,
    state: &StateDir,
    supervisor: &Supervisor,
) -> anyhow::Result<()> {
    let now = base.clock.now();
    let ca = authority::ensure(&base.store, &base.secrets, authority::API, now).await?;
    let ca_file = state.join("ca.pem");
    fs::write(&ca_file, &ca.cert_pem).with_context(|| format!("write {}", ca_file.display()))?;
    let tls = if config.api.insecure_http {
        None
    } else {
        let identity = ca.issue("api.coffer", &api_names(config), Usage::Server, now)?;
        Some(tls::server_config(&identity)?)
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let server = Server::bind(config.api.listen, tls).await?;
    let address = server.address()?;
    let url = config
        .api
        .public_endpoint
        .clone()
        .unwrap_or_else(|| format!("{scheme}://{address}"));
    let door = Door {
        url: url.clone(),
        ca_file: (scheme == "https").then_some(ca_file),
        region: config.api.region.clone(),
    };
    let app = assemble::app(base, config);
    first_start::ensure(base, &app, state, &door).await?;
    supervisor.start("api", server.run(api::router(app), supervisor.clone()));
    tracing::info!(%url, state_dir = %config.state.dir.display(), "coffer serves");
    Ok(())
}

/// What the API's certificate is good for.
fn api_names(config: &Config) -> AltNames {
    let mut names = vec!["localhost".to_owned()];
    if let Some(endpoint) = &config.api.public_endpoint {
        let host = endpoint.split("://").nth(1).unwrap_or(endpoint);
        let host = host.split(['/', ':']).next().unwrap_or(host);
        names.push(host.to_owned());
    }
    let mut addresses = vec![[127, 0, 0, 1].into()];
    let listen = config.api.listen.ip();
    if !listen.is_unspecified() && !addresses.contains(&listen) {
        addresses.push(listen);
    }
    names.dedup();
    AltNames { names, addresses }
}
