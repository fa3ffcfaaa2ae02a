//! Everything that the provider's parts share: configuration, records, pool, groups, names.

use std::fs;
use std::path::PathBuf;

use coffer_core::access::Cidr;
use coffer_core::id::ServerId;

use super::LocalConfig;
use super::cgroup::{Groups, Version};
use super::failure::{io, rejected};
use super::names::{NETNS_DIR, Names};
use super::pool::Pool;
use super::record::{
    EndpointRecord, Lock, NetworkRecord, Records, ServerRecord, VolumeRecord, lock_object,
    private_dir, sweep,
};
use super::{network, publish, relay, world};
use crate::error::Result;

/// Why I/O cannot be limited where volumes are directories of a file system without a disk.
pub(super) const NO_DISK: &str =
    "volumes are directories, and their file system lies on no disk of its own";
/// What version 1 of control groups charges to nobody.
const WRITTEN_BACK: &str = "what the kernel writes back later by itself, after it was written \
    neither directly nor synced, is not limited by control groups version 1";
/// LIMIT: highest user id given to a sandbox, below those that the kernel reserves.
const UID_MAX: u32 = 2_000_000_000;

/// The open provider.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) config: LocalConfig,
    pub(super) names: Names,
    pub(super) groups: Groups,
    pub(super) pool: Pool,
    pub(super) networks: Records<NetworkRecord>,
    pub(super) volumes: Records<VolumeRecord>,
    pub(super) servers: Records<ServerRecord>,
    pub(super) endpoints: Records<EndpointRecord>,
    /// Range of published addresses.
    pub(super) published_pool: Cidr,
    /// Whether members of a network can be tied to their addresses.
    pub(super) has_bridge_rules: bool,
    /// Whether the kernel has rules for what leaves a single link (Linux 5.16).
    pub(super) has_link_rules: bool,
    /// What this machine calls itself.
    pub(super) host_name: String,
    /// Whether this is no root on the host, but in a user namespace with one user id.
    pub(super) is_without_root: bool,
}

impl Host {
    /// Opens the state directory and the pool.
    pub(super) fn open(mut config: LocalConfig) -> Result<Self> {
        let what = "open local provider";
        let is_without_root = world::has_one_id();
        if is_without_root {
            config.published_ports = Some(relay::ports(&config)?);
        }
        let netns_dir = match is_without_root {
            true => config.state_dir.join("netns"),
            false => NETNS_DIR.into(),
        };
        let names = Names::new(&config.tag, netns_dir).ok_or_else(|| {
            rejected(
                what,
                format!("tag '{}' is not 1 to 5 of a-z and 0-9", config.tag),
            )
        })?;
        let state = config.state_dir.clone();
        private_dir(&state)?;
        for dir in ["locks", "sandboxes", "jail", "making", "relays"] {
            let path = state.join(dir);
            fs::create_dir_all(&path).map_err(io(what, path.display()))?;
        }
        sweep(&state);
        let host_name = nix::unistd::gethostname()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_else(|_| "localhost".to_owned());
        let mut groups = Groups::detect(&names.group());
        groups.try_out();
        Ok(Self {
            groups,
            pool: Pool::open(&config)?,
            networks: Records::open(&state)?,
            volumes: Records::open(&state)?,
            servers: Records::open(&state)?,
            endpoints: Records::open(&state)?,
            published_pool: publish::choose_pool(&config)?,
            has_bridge_rules: network::has_bridge_rules(),
            has_link_rules: network::has_link_rules(),
            names,
            host_name,
            is_without_root,
            config,
        })
    }

    /// Why I/O of volumes cannot be limited here; `None` where it can.
    pub(super) fn io_missing(&self) -> Option<String> {
        let has_none = || self.pool.has_directories() && self.pool.disk().is_none();
        let no_disk = || has_none().then(|| NO_DISK.to_owned());
        self.groups.io_missing().or_else(no_disk)
    }

    /// What limits on I/O leave out here, where there are any.
    pub(super) fn io_gap(&self) -> Option<String> {
        let is_partial = self.groups.version() == Version::V1 && self.io_missing().is_none();
        is_partial.then(|| WRITTEN_BACK.to_owned())
    }

    /// The user ids of a server's agent and engine as its sandbox has them: one without root.
    pub(super) const fn uids_inside(&self, (agent, engine): (u32, u32)) -> (u32, u32) {
        match self.is_without_root {
            true => (engine, engine),
            false => (agent, engine),
        }
    }

    /// Takes the lock of one object.
    pub(super) fn lock(&self, kind: &str, id: &str) -> Result<Lock> {
        lock_object(&self.config.state_dir, kind, id)
    }

    /// Working directory of a server's sandbox.
    pub(super) fn sandbox_dir(&self, id: ServerId) -> PathBuf {
        self.config.state_dir.join("sandboxes").join(id.to_string())
    }

    /// The directory over which each sandbox mounts its own root, unseen by the others.
    pub(super) fn mount_point(&self) -> PathBuf {
        self.config.state_dir.join("jail")
    }

    /// Writes a server's record, with user ids that no other server has if it has none yet.
    pub(super) fn put_server(&self, mut record: ServerRecord) -> Result<ServerRecord> {
        if record.uids == (0, 0) {
            let _lock = Lock::take(&self.config.state_dir, "uids")?;
            let taken: Vec<u32> = self.servers.list()?.iter().map(|s| s.uids.0).collect();
            // The first pair belongs to templates.
            let agent = (self.config.uid_base + 2..UID_MAX)
                .step_by(2)
                .find(|uid| !taken.contains(uid))
                .ok_or_else(|| rejected("choose user ids", "all are taken"))?;
            record.uids = (agent, agent + 1);
            self.servers.put(&record.id.to_string(), &record)?;
            return Ok(record);
        }
        self.servers.put(&record.id.to_string(), &record)?;
        Ok(record)
    }
}
