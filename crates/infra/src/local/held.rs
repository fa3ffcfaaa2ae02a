//! What is remembered of servers beyond their ids: for a store that was restored from an older
//! state and has to learn what happened since.

use coffer_core::id::VolumeId;
use coffer_core::units::{Incarnation, VolumeSize};

use super::failure::rejected;
use super::host::Host;
use super::record::{EndpointRecord, ServerRecord};
use super::server;
use crate::error::Result;
use crate::provider::{Held, HeldEndpoint, HeldVolume, Limits};

/// Lists the servers that have a record.
pub(super) fn list(host: &Host) -> Result<Vec<Held>> {
    let endpoints = host.endpoints.list()?;
    let servers = host.servers.list()?.into_iter();
    servers.map(|one| held(host, one, &endpoints)).collect()
}

/// Whether a volume was deleted on request.
pub(super) fn was_deleted(host: &Host, id: VolumeId, incarnation: Incarnation) -> Result<bool> {
    let buried = host.volumes.buried(&id.to_string())?;
    Ok(buried.is_some_and(|gone| gone >= incarnation))
}

fn held(host: &Host, record: ServerRecord, endpoints: &[EndpointRecord]) -> Result<Held> {
    let leading = || endpoints.iter().filter(|e| e.target == Some(record.id));
    let turn = leading().map(|e| e.turn).fold(record.turn, Ord::max);
    Ok(Held {
        id: record.id,
        incarnation: record.incarnation,
        turn,
        is_running: server::launched(host, record.id).is_some(),
        limits: Limits {
            memory_mib: record.memory_mib,
            vcpus: record.vcpus,
            io: record.io,
        },
        volume: HeldVolume {
            id: record.volume_id,
            found: volume(host, record.volume_id)?,
        },
        endpoints: leading().map(endpoint).collect::<Result<_>>()?,
        card: record.card,
    })
}

fn volume(host: &Host, id: VolumeId) -> Result<Option<(Incarnation, VolumeSize)>> {
    let Some(record) = host.volumes.find(&id.to_string())? else {
        return Ok(None);
    };
    if !record.is_ready || !super::volume::file_of(host, id).exists() {
        return Ok(None);
    }
    let gib = i64::try_from(record.size_bytes >> 30).unwrap_or(i64::MAX);
    let size = VolumeSize::gib(gib).map_err(|e| rejected("read volume record", e))?;
    Ok(Some((record.incarnation, size)))
}

fn endpoint(record: &EndpointRecord) -> Result<HeldEndpoint> {
    let cidr = |text: &String| {
        text.parse()
            .map_err(|e| rejected("read endpoint record", e))
    };
    Ok(HeldEndpoint {
        id: record.id,
        published: record.published,
        allowed_cidrs: record
            .allowed_cidrs
            .iter()
            .map(cidr)
            .collect::<Result<_>>()?,
    })
}
