//! Everything on the host that carries our tag, remembered or not.
//!
//! What no record knows any more is named with incarnation 0: deleting that incarnation removes
//! the remains and nothing newer.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use coffer_core::id::{ServerId, VolumeId};
use coffer_core::units::Incarnation;

use super::host::Host;
use super::record::sweep_writes;
use super::{netns, publish, relay};
use crate::error::Result;
use crate::provider::Owned;

/// Lists what is remembered and what is found. What a process was writing that was killed is no
/// object, and goes now: another that works beside it may not start again for long.
pub(super) fn list(host: &Host) -> Result<Vec<Owned>> {
    sweep_writes(&host.config.state_dir);
    let mut all: BTreeSet<Owned> = BTreeSet::new();
    all.extend(host.networks.list()?.iter().map(|n| Owned::Network(n.id)));
    all.extend(host.endpoints.list()?.iter().map(|e| Owned::Endpoint(e.id)));
    let namespaces = netns::list(host.names.netns_dir());
    all.extend(
        namespaces
            .iter()
            .filter_map(|n| host.names.parse_network_ns(n))
            .map(Owned::Network),
    );
    all.extend(published_links(host));
    all.extend(relay::list(host).into_iter().map(Owned::Endpoint));
    all.extend(servers(host, &namespaces)?);
    all.extend(volumes(host)?);
    Ok(all.into_iter().collect())
}

fn servers(host: &Host, namespaces: &[String]) -> Result<Vec<Owned>> {
    let known = host.servers.list()?;
    let mut all: Vec<Owned> = known
        .iter()
        .map(|s| Owned::Server(s.id, s.incarnation))
        .collect();
    let mut found: BTreeSet<ServerId> = namespaces
        .iter()
        .filter_map(|n| host.names.parse_server_ns(n))
        .collect();
    found.extend(host.groups.list().iter().filter_map(|g| as_id(g)));
    let dirs = names_in(&host.config.state_dir.join("sandboxes"));
    found.extend(dirs.iter().filter_map(|name| as_id(name)));
    found.retain(|id| !known.iter().any(|s| s.id == *id));
    all.extend(
        found
            .into_iter()
            .map(|id| Owned::Server(id, Incarnation(0))),
    );
    Ok(all)
}

fn volumes(host: &Host) -> Result<Vec<Owned>> {
    let known = host.volumes.list()?;
    let mut all: Vec<Owned> = known
        .iter()
        .map(|v| Owned::Volume(v.id, v.incarnation))
        .collect();
    let mut found: BTreeSet<VolumeId> = names_in(&host.pool.volumes())
        .iter()
        .filter_map(|name| name.split('.').next()?.parse().ok())
        .collect();
    found.retain(|id| !known.iter().any(|v| v.id == *id));
    all.extend(
        found
            .into_iter()
            .map(|id| Owned::Volume(id, Incarnation(0))),
    );
    Ok(all)
}

fn published_links(host: &Host) -> Vec<Owned> {
    names_in(Path::new("/sys/class/net"))
        .iter()
        .filter_map(|link| host.names.parse_alias(&publish::alias(link)?))
        .map(Owned::Endpoint)
        .collect()
}

fn as_id(name: &str) -> Option<ServerId> {
    name.parse().ok()
}

fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .collect()
}
