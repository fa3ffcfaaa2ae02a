//! Runs roles of the control plane in this process until it is told to stop.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use coffer_control::clock::{Clock, new_uuid};
use coffer_control::conductor::{Conductor, Patience};
use coffer_control::config::Config;
use coffer_control::supervise::Supervisor;
use coffer_control::taskmanager::Worker;
use coffer_control::taskmanager::periodic::certificates::Renewer;
use coffer_control::taskmanager::periodic::history::HistoryCleaner;
use coffer_control::taskmanager::periodic::reconcile::Reconciler;
use coffer_control::taskmanager::periodic::tokens::TokenCleaner;
use coffer_control::tls::{self, AltNames, Renewed, Usage};
use coffer_control::tracker::listener::{Listener, Settings};
use coffer_control::tracker::relay::{Doors, Relays};
use coffer_control::{api, authority};
use coffer_core::id::TrackerId;
use coffer_infra::Provider as _;
use coffer_infra::local::{self, LocalProvider};
use coffer_infra::provider::Abilities;
use coffer_store::Store;
use hyper::Uri;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Place;
use crate::assemble::{self, Base, Workers};
use crate::first_start::{self, Door};
use crate::serve::Server;
use crate::state_dir::StateDir;
use crate::{catalogue, log};

/// How long tasks may take to come to their next commit when Coffer stops.
const DRAIN: Duration = Duration::from_secs(15);
/// Time between two times at which free memory is given back.
const MEMORY_PACE: Duration = Duration::from_secs(10);

/// Which roles run in one process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Roles {
    api: bool,
    task_manager: bool,
    conductor: bool,
    tracker: bool,
    /// Whether the process alone uses the state directory.
    is_exclusive: bool,
}

impl Roles {
    const NONE: Self = Self {
        api: false,
        task_manager: false,
        conductor: false,
        tracker: false,
        is_exclusive: false,
    };
    pub(crate) const ALL: Self = Self {
        api: true,
        task_manager: true,
        conductor: true,
        tracker: true,
        is_exclusive: true,
    };
    pub(crate) const API: Self = Self {
        api: true,
        ..Self::NONE
    };
    pub(crate) const TASK_MANAGER: Self = Self {
        task_manager: true,
        ..Self::NONE
    };
    pub(crate) const CONDUCTOR: Self = Self {
        conductor: true,
        ..Self::NONE
    };
    pub(crate) const TRACKER: Self = Self {
        tracker: true,
        ..Self::NONE
    };

    /// Whether any of them reaches the host's instances.
    const fn is_on_host(self) -> bool {
        self.task_manager || self.conductor || self.tracker
    }
}

/// Runs the roles until SIGTERM or SIGINT. Instances go on serving after it.
pub(crate) async fn run(place: &Place, roles: Roles) -> anyhow::Result<ExitCode> {
    let config = place.load()?;
    log::start(&config);
    let state = StateDir::enter(&config.state.dir, roles.is_exclusive)?;
    let base = assemble::base(&config, &state).await?;
    let supervisor = Supervisor::new();
    let (store, token) = (base.store.clone(), supervisor.token());
    supervisor.start("wake-ups", async move {
        tokio::select! {
            () = token.cancelled() => {}
            () = store.hear() => {}
        }
    });
    supervisor.start_short(give_memory_back(base.clock.clone()));
    let provider = match roles.is_on_host() {
        true => Some(start_workers(&base, &config, &state, roles, &supervisor).await?),
        false => None,
    };
    if roles.api {
        let abilities = provider.as_ref().map(|p| p.abilities());
        start_api(&base, &config, &state, &supervisor, abilities).await?;
    }
    wait_for_end(&supervisor).await?;
    tracing::info!("stopping; instances go on serving");
    let is_drained = supervisor.stop(DRAIN).await;
    if !is_drained {
        tracing::warn!("not all work came to an end in time; it goes on at the next start");
    }
    if let Some(provider) = provider {
        // With no server left, nothing has to stay on the host either.
        let is_final = roles.is_exclusive && has_no_server(&base.store).await;
        provider.close(is_final).await.context("leave the host")?;
    }
    base.store.close().await;
    // Whoever started this process has to learn that it did not end because it was told to.
    match supervisor.panicked() {
        Some(task) => anyhow::bail!("{task} met a bug and ended; the log above says where"),
        None => Ok(ExitCode::SUCCESS),
    }
}

async fn give_memory_back(clock: Arc<dyn Clock>) {
    loop {
        clock.sleep(MEMORY_PACE).await;
        local::memory::give_back();
    }
}

/// Whether nothing is left that could need the host. A store that cannot be read says nothing.
async fn has_no_server(store: &Store) -> bool {
    match store.list_servers().await {
        Ok(servers) => servers.is_empty(),
        Err(error) => {
            tracing::error!(%error, "look for servers that stay");
            false
        }
    }
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
    assemble::check_host(&base.store, state).await?;
    let Workers {
        services,
        provider,
        doors,
    } = assemble::workers(base, config, state, supervisor).await?;
    assemble::claim_host(&base.store, state, &provider).await?;
    for what in provider.abilities().not_enforced {
        tracing::warn!("not enforced on this host: {what}");
    }
    let is_alone = roles.is_exclusive && config.state.store_url.is_none();
    if roles.tracker {
        start_tracker(base, config, doors, is_alone, supervisor).await?;
    }
    let name = || {
        let unique = new_uuid(&*base.clock, &*base.entropy).simple().to_string();
        format!("{}-{unique}", std::process::id())
    };
    if roles.task_manager {
        let roots_dir = assemble::roots_dir(config);
        catalogue::register(base, &roots_dir).await?;
        let worker = Worker::new(services.clone(), name());
        let worker = Arc::new(worker.stopping_with(supervisor.token()));
        // With the lock on the state directory and SQLite in it, nobody else can be at work.
        let inherited = if is_alone {
            worker.take_over_all().await?
        } else {
            Vec::new()
        };
        supervisor.start("task manager", worker.run(supervisor.clone(), inherited));
        let reconciler = Reconciler::new(services.clone());
        supervisor.start("reconciler", reconciler.run(supervisor.clone()));
        let renewer = Renewer::new(services.clone());
        supervisor.start("certificates", renewer.run(supervisor.clone()));
        let cleaner = TokenCleaner::new(base.store.clone(), base.clock.clone());
        supervisor.start("token cleaner", cleaner.run(supervisor.clone()));
        let (store, clock) = (base.store.clone(), base.clock.clone());
        let cleaner = HistoryCleaner::new(store, clock, config.retention.clone());
        supervisor.start("history cleaner", cleaner.run(supervisor.clone()));
        let watch = catalogue::watch(base.clone(), roots_dir, supervisor.clone());
        supervisor.start("engine roots", watch);
    }
    if roles.conductor {
        let patience = Patience::new(config.conductor.poll, config.conductor.lost_after);
        let conductor =
            Arc::new(Conductor::new(services, name(), is_alone).with_patience(patience));
        supervisor.start("conductor", conductor.run(supervisor.clone()));
    }
    Ok(provider)
}

async fn start_tracker(
    base: &Base,
    config: &Config,
    doors: Doors,
    is_alone: bool,
    supervisor: &Supervisor,
) -> anyhow::Result<()> {
    let id = TrackerId::from_uuid(new_uuid(&*base.clock, &*base.entropy));
    let settings = Settings {
        id,
        provider: doors.links.provider().to_owned(),
        listen: config.tracker.listen,
        lease: config.taskmanager.lease,
        is_alone,
    };
    let authority = assemble::relay_authority(base).await?;
    let (store, clock) = (base.store.clone(), base.clock.clone());
    let relays = Relays::new(id, doors);
    let listener = Listener::bind(settings, store, authority, clock, relays);
    let listener = listener.await.with_context(|| {
        let address = config.tracker.listen;
        format!("start the tracker's relay on {address}: give another tracker.listen")
    })?;
    let address = listener.address()?;
    supervisor.start("tracker", listener.run(supervisor.clone()));
    tracing::info!(%address, tracker = %id, "the tracker's relay listens");
    Ok(())
}

async fn start_api(
    base: &Base,
    config: &Config,
    state: &StateDir,
    supervisor: &Supervisor,
    abilities: Option<Abilities>,
) -> anyhow::Result<()> {
    let now = base.clock.now();
    let ca = authority::ensure(&base.store, &base.secrets, authority::API, now).await?;
    let ca_file = state.join("ca.pem");
    fs::write(&ca_file, &ca.cert_pem).with_context(|| format!("write {}", ca_file.display()))?;
    let tls = if config.api.insecure_http {
        None
    } else {
        let (names, clock) = (api_names(config), base.clock.clone());
        let own = Renewed::new(ca, "api.coffer", names, Usage::Server, clock)?;
        Some(tls::server_config(Arc::new(own))?)
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let server = Server::bind(config.api.listen, tls).await?;
    let address = server.address()?;
    let url = config.api.public_endpoint.clone().unwrap_or_else(|| {
        let client_side = SocketAddr::new(reachable(address.ip()), address.port());
        format!("{scheme}://{client_side}")
    });
    let door = Door {
        url: url.clone(),
        ca_file: (scheme == "https").then_some(ca_file),
        region: config.api.region.clone(),
    };
    let app = assemble::app(base, config, supervisor);
    app.door.set(assemble::door(base, supervisor).await?).ok();
    if let Some(abilities) = abilities {
        app.abilities.set(abilities).ok();
    }
    first_start::ensure(base, &app, state, &door).await?;
    supervisor.start("api", server.run(api::router(app), supervisor.clone()));
    tracing::info!(%url, state_dir = %config.state.dir.display(), "coffer serves");
    Ok(())
}

/// What the API's certificate is good for: what clients may dial, by name or by address.
fn api_names(config: &Config) -> AltNames {
    let mut names = vec!["localhost".to_owned()];
    let mut addresses = vec![IpAddr::from([127, 0, 0, 1])];
    let endpoint = config.api.public_endpoint.as_deref();
    let uri = endpoint.and_then(|endpoint| endpoint.parse::<Uri>().ok());
    if let Some(host) = uri.as_ref().and_then(Uri::host) {
        match host.trim_matches(['[', ']']).parse() {
            Ok(address) => addresses.push(address),
            Err(_) => names.push(host.to_owned()),
        }
    }
    addresses.push(reachable(config.api.listen.ip()));
    names.dedup();
    addresses.dedup();
    AltNames { names, addresses }
}

/// Where a client of this host reaches a listener on `address`.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        one => one,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_for(endpoint: Option<&str>, listen: &str) -> AltNames {
        let mut config = Config::default();
        config.api.public_endpoint = endpoint.map(str::to_owned);
        config.api.listen = listen.parse().unwrap();
        api_names(&config)
    }

    #[test]
    fn the_certificate_names_what_clients_dial() {
        let named = names_for(Some("https://db.example:8779/x"), "127.0.0.1:8779");
        assert_eq!(named.names, ["localhost", "db.example"]);
        let numbered = names_for(Some("https://192.0.2.7:8779"), "0.0.0.0:8779");
        assert_eq!(numbered.names, ["localhost"]);
        let wanted: [IpAddr; 3] = [
            [127, 0, 0, 1].into(),
            [192, 0, 2, 7].into(),
            [127, 0, 0, 1].into(),
        ];
        assert_eq!(numbered.addresses, wanted);
        let v6 = names_for(Some("https://[2001:db8::1]"), "[::]:8779");
        assert!(v6.addresses.contains(&"2001:db8::1".parse().unwrap()));
        assert!(v6.addresses.contains(&Ipv6Addr::LOCALHOST.into()));
    }
}
