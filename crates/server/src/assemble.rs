//! Puts the parts together from the configuration: store, keys, provider, guests, API.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use coffer_control::app::{ApiConfig, AppState};
use coffer_control::authority;
use coffer_control::clock::{Clock, SystemClock, SystemEntropy};
use coffer_control::config::{Config, TrackerLink, VolumeMode};
use coffer_control::guest::{AgentBinary, LinkGuests};
use coffer_control::secrets::{MasterKeys, SecretBox};
use coffer_control::services::{Services, Tuning};
use coffer_control::supervise::Supervisor;
use coffer_control::tls::{AltNames, Authority, Renewed, Usage};
use coffer_control::tracker::door::Door;
use coffer_control::tracker::relay::Doors;
use coffer_core::quota::DefaultLimits;
use coffer_infra::Provider as _;
use coffer_infra::local::{LocalConfig, LocalProvider};
use coffer_infra::provider::Owned;
use coffer_store::{Store, StoreOptions, StoreUrl, file};

use crate::state::{LOCAL, RECORDS_MARK, has_records};
use crate::state_dir::{MASTER_KEY, StateDir, TAG};

/// What every role needs.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub(crate) store: Store,
    pub(crate) secrets: SecretBox,
    pub(crate) clock: Arc<SystemClock>,
    pub(crate) entropy: Arc<SystemEntropy>,
}

/// Setting with the tag of the host whose instances the store tells of.
pub(crate) const HOST: &str = "local/tag";

/// Opens store and keys; makes them at the first start.
pub(crate) async fn base(config: &Config, state: &StateDir) -> anyhow::Result<Base> {
    let url = store_url(config)?;
    refuse_lost_store(&url, state)?;
    let store = open_store(&url).await?;
    // The store is asked first: whoever makes a new one makes its key before anything is sealed.
    if authority::is_any_known(&store).await? && !state.has_master_key() {
        bail!("{}", key_lost(state));
    }
    with_keys(store, state.new_master_keys()?, state).await
}

/// Opens store and keys for a tool beside a Coffer: it makes neither, and brings no store to
/// another schema.
pub(crate) async fn tool_base(config: &Config, state: &StateDir) -> anyhow::Result<Base> {
    let store = Store::open_present(&store_url(config)?).await?;
    if !state.has_master_key() {
        bail!("{}", key_lost(state));
    }
    with_keys(store, state.master_keys()?, state).await
}

fn store_url(config: &Config) -> anyhow::Result<StoreUrl> {
    let url = config.store_url().parse();
    url.context("read the key state.store_url")
}

async fn with_keys(store: Store, keys: MasterKeys, state: &StateDir) -> anyhow::Result<Base> {
    let entropy = Arc::new(SystemEntropy);
    let source = Arc::new(state.key_files());
    let secrets = SecretBox::following(keys, source, entropy.clone());
    if authority::probe(&store, &secrets).await.is_err() {
        bail!("{}", key_lost(state));
    }
    Ok(Base {
        store,
        secrets,
        clock: Arc::new(SystemClock::new()),
        entropy,
    })
}

/// A new store in the place of one that was lost would know of nothing, and all that is here would
/// be taken for left over.
fn refuse_lost_store(url: &StoreUrl, state: &StateDir) -> anyhow::Result<()> {
    ensure!(
        !state.join(RECORDS_MARK).exists(),
        "a restore was begun here and not ended: do it again, with coffer state restore; databases \
         go on serving"
    );
    let local = state.join(LOCAL);
    if let StoreUrl::SqliteFile(path) = url
        && file::is_there(path).is_none()
        && has_records(&local)
    {
        bail!(
            "the store {} is not there, and {} remembers instances: nothing was changed, and \
             databases go on serving. Put the store back with coffer state restore, from the \
             newest backup; to begin anew without them, move that directory aside",
            path.display(),
            local.display()
        );
    }
    Ok(())
}

/// Opens the store. One that is damaged or cannot be written is refused here, before anything is
/// begun that could not be remembered.
async fn open_store(url: &StoreUrl) -> anyhow::Result<Store> {
    let unusable = || {
        format!(
            "open the store {url}: nothing was changed, and databases go on serving; see 'coffer \
             doctor', and docs/operations.md on a store that is damaged or cannot be written"
        )
    };
    if let StoreUrl::SqliteFile(path) = url
        && path.exists()
    {
        let path = path.clone();
        let checked = tokio::task::spawn_blocking(move || file::quick_check(&path)).await?;
        checked.with_context(unusable)?;
    }
    let store = Store::open_new_or_present(url, StoreOptions::default()).await;
    let store = store.with_context(unusable)?;
    store.probe_write().await.with_context(unusable)?;
    Ok(store)
}

/// Sees that this is the host whose instances the store tells of. A task manager beside another
/// state directory would be given tasks for what lies on the host of the first.
pub(crate) async fn check_host(store: &Store, state: &StateDir) -> anyhow::Result<()> {
    let first = store.get_setting(HOST).await?;
    is_of_host(first, state)
}

fn is_of_host(first: Option<String>, state: &StateDir) -> anyhow::Result<()> {
    let own = state.tag()?;
    let Some(first) = first.filter(|first| *first != own) else {
        return Ok(());
    };
    bail!(
        "the instances of this store are those of the Coffer with the tag '{first}', and {} holds \
         '{own}': run task manager, conductor and tracker on its host, with its state directory. \
         If this is its host and the state directory was lost, write {first} into the file",
        state.join(TAG).display()
    )
}

/// Makes this host the one whose instances the store tells of. A store that is new is refused where
/// there are tenants' volumes already: it would have them removed as left over.
pub(crate) async fn claim_host(
    store: &Store,
    state: &StateDir,
    provider: &LocalProvider,
) -> anyhow::Result<()> {
    let is_new = store.get_setting(HOST).await?.is_none()
        && store.restored().await?.is_none()
        && store.list_volumes().await?.is_empty();
    if is_new {
        let owned = provider.list_owned().await?;
        let volumes = owned.iter().filter(|one| matches!(one, Owned::Volume(..)));
        let count = volumes.count();
        ensure!(
            count == 0,
            "the store is new and knows of no instance, and {count} volumes are here: nothing was \
             changed, and databases go on serving. If the store was lost, move the new one aside \
             and put the newest backup back with coffer state restore; if another one is meant, \
             mend state.store_url; to begin anew without the volumes, move {} and the volumes \
             of local.pool_dir aside",
            state.join(LOCAL).display()
        );
    }
    let first = store.put_setting_once(HOST, &state.tag()?).await?;
    is_of_host(Some(first), state)
}

/// What it means that the master key is not there, or another one is.
pub(crate) fn key_lost(state: &StateDir) -> String {
    let path = state.join(MASTER_KEY);
    let what = match path.exists() {
        true => "is not the key of this store",
        false => "is lost",
    };
    format!(
        "the master key {what}: {}. Put back the file, from where you keep it or out of a sealed \
         backup of the state. Databases go on serving; without the key Coffer reaches none of \
         them, and coffer doctor lists what can be recovered",
        path.display()
    )
}

/// What the local provider is told; `tag` marks what is this Coffer's on the host.
pub(crate) fn local_config(
    config: &Config,
    state: &StateDir,
    tag: String,
) -> anyhow::Result<LocalConfig> {
    let own = std::env::current_exe().context("find the path of coffer itself")?;
    let guest_binary = match &config.local.guest_binary {
        Some(path) => path.clone(),
        None => own.with_file_name("coffer-guest"),
    };
    Ok(LocalConfig {
        state_dir: state.join(LOCAL),
        tag,
        pool_dir: config.pool_dir(),
        volume_mode: match config.local.volume_mode {
            VolumeMode::Auto => coffer_infra::local::VolumeMode::Auto,
            VolumeMode::Xfs => coffer_infra::local::VolumeMode::Xfs,
            VolumeMode::Cow => coffer_infra::local::VolumeMode::Cow,
            VolumeMode::Fast => coffer_infra::local::VolumeMode::Fast,
            VolumeMode::Directory => coffer_infra::local::VolumeMode::Directory,
        },
        cow_pool_gib: config.local.cow_pool_gib,
        roots_dir: roots_dir(config),
        guest_binary,
        launcher: vec![own.display().to_string(), "sandbox-launch".to_owned()],
        published_pool: config.local.published_pool,
        published_ports: config.local.published_ports,
        uid_base: config.local.uid_base,
        tracker_link: match config.tracker.link {
            TrackerLink::Instance => coffer_infra::local::TrackerLink::Instance,
            TrackerLink::Network => coffer_infra::local::TrackerLink::Network,
        },
    })
}

/// Where engine roots are.
pub(crate) fn roots_dir(config: &Config) -> PathBuf {
    config.local.roots_dir.clone()
}

/// What the roles that reach guests work with.
#[derive(Debug)]
pub(crate) struct Workers {
    pub(crate) services: Services,
    pub(crate) provider: Arc<LocalProvider>,
    pub(crate) doors: Doors,
}

/// Opens the provider and the links to guests.
pub(crate) async fn workers(
    base: &Base,
    config: &Config,
    state: &StateDir,
    supervisor: &Supervisor,
) -> anyhow::Result<Workers> {
    let local = local_config(config, state, state.tag()?)?;
    let agent = carried_agent(local.guest_binary.clone()).await;
    let provider = LocalProvider::open(local)
        .await
        .context("open the local provider")?;
    let provider = Arc::new(provider);
    let now = base.clock.now();
    let link = authority::ensure(&base.store, &base.secrets, authority::LINK, now)
        .await
        .context("read the CA of links")?;
    let (link_ca, none) = (link.cert_pem.clone(), AltNames::default());
    let own = Renewed::new(link, "coffer", none, Usage::Client, base.clock.clone())
        .context("make the certificate for links")?;
    let guests = LinkGuests::new(supervisor.clone(), Arc::new(own), link_ca);
    let guests = Arc::new(guests);
    let doors = Doors {
        store: base.store.clone(),
        guests: Arc::clone(&guests),
        links: provider.clone(),
        clock: base.clock.clone(),
        entropy: base.entropy.clone(),
        token: supervisor.token(),
    };
    let services = Services {
        store: base.store.clone(),
        provider: provider.clone(),
        guests,
        agent,
        clock: base.clock.clone(),
        entropy: base.entropy.clone(),
        secrets: base.secrets.clone(),
        chaos: None,
        tuning: Tuning {
            lease: config.taskmanager.lease,
            tasks_at_once: usize::try_from(config.taskmanager.workers).unwrap_or(usize::MAX),
        },
    };
    Ok(Workers {
        services,
        provider,
        doors,
    })
}

/// The binary that guests should run. One that cannot be read is the provider's to complain of,
/// when it starts the next sandbox.
async fn carried_agent(path: PathBuf) -> Option<Arc<AgentBinary>> {
    let shown = path.display().to_string();
    let read = tokio::task::spawn_blocking(move || AgentBinary::open(&path)).await;
    match read.ok()? {
        Ok(agent) => Some(Arc::new(agent)),
        Err(error) => {
            tracing::warn!(path = shown, %error, "agents are not replaced: there is no binary");
            None
        }
    }
}

/// The way of an API, or of an operator's tool, to trackers.
pub(crate) async fn door(base: &Base, supervisor: &Supervisor) -> anyhow::Result<Door> {
    let authority = relay_authority(base).await?;
    Door::new(
        base.store.clone(),
        authority,
        base.clock.clone(),
        base.entropy.clone(),
        supervisor.clone(),
    )
    .context("make the certificate for relays")
}

/// The authority of relays.
pub(crate) async fn relay_authority(base: &Base) -> anyhow::Result<Authority> {
    let now = base.clock.now();
    authority::ensure(&base.store, &base.secrets, authority::RELAY, now)
        .await
        .context("read the CA of relays")
}

/// The API's state.
pub(crate) fn app(base: &Base, config: &Config, supervisor: &Supervisor) -> AppState {
    let api = ApiConfig {
        public_endpoint: config.api.public_endpoint.clone(),
        is_tls: !config.api.insecure_http,
        region: config.api.region.clone(),
        default_datastore: config.api.default_datastore.clone(),
        volume_gib_max: config.limits.max_volume_gib,
        token_lifetime_seconds: u32::try_from(config.api.token_lifetime.as_secs())
            .unwrap_or(u32::MAX),
        rate_per_minute: config.api.rate_limit_per_minute,
        body_bytes_max: usize::try_from(config.api.body_limit.0).unwrap_or(usize::MAX),
        quotas: DefaultLimits {
            instances: config.limits.quota_instances,
            ram_mib: config.limits.quota_ram_mib,
            backups: config.limits.quota_backups,
            volumes_gib: config.limits.quota_volumes_gib,
        },
        ..ApiConfig::default()
    };
    AppState::new(
        base.store.clone(),
        base.clock.clone(),
        base.entropy.clone(),
        base.secrets.clone(),
        api,
        supervisor.clone(),
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn new() -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.state.dir = dir.path().to_owned();
        (dir, config)
    }

    #[tokio::test]
    async fn no_new_store_is_made_where_another_was_lost() {
        let (dir, config) = new();
        let state = StateDir::open(dir.path(), false).unwrap();
        let records = state.join("local/volumes");
        fs::create_dir_all(&records).unwrap();
        base(&config, &state).await.unwrap().store.close().await;
        let store = state.join("coffer.db");
        file::remove(&store).unwrap();
        fs::write(records.join("1.json"), "{}").unwrap();
        let error = base(&config, &state).await.unwrap_err().to_string();
        assert!(
            error.contains("coffer state restore") && error.contains("go on serving"),
            "{error}"
        );
        assert_eq!(file::is_there(&store), None, "it was made");
        // Nor is anything begun on a part of what a restore puts back.
        fs::remove_file(records.join("1.json")).unwrap();
        fs::write(state.join(RECORDS_MARK), "").unwrap();
        let error = base(&config, &state).await.unwrap_err().to_string();
        assert!(error.contains("not ended"), "{error}");
        fs::remove_file(state.join(RECORDS_MARK)).unwrap();
        base(&config, &state).await.unwrap().store.close().await;
    }

    #[tokio::test]
    async fn tools_make_no_store_and_no_key() {
        let (dir, config) = new();
        let state = StateDir::open(dir.path(), false).unwrap();
        let error = tool_base(&config, &state).await.unwrap_err().to_string();
        assert!(error.contains("there is no store"), "{error}");
        base(&config, &state).await.unwrap().store.close().await;
        tool_base(&config, &state)
            .await
            .unwrap()
            .store
            .close()
            .await;
        let key = state.join(MASTER_KEY);
        fs::remove_file(&key).unwrap();
        let error = tool_base(&config, &state).await.unwrap_err().to_string();
        assert!(error.contains("is lost"), "{error}");
        assert!(!key.exists(), "it was made");
    }
}
