//! Flavors, volume types, zones, networks, quotas, trackers.

use coffer_core::flavor::{Flavor, VolumeType, Zone};
use coffer_core::network::Network;
use coffer_core::quota::Quota;
use coffer_core::units::{BytesPerSecond, Iops};
use coffer_store::tracker::TrackerView;
use coffer_wire::rest::v1::admin::Zone as ShownZone;
use coffer_wire::rest::v1::flavor::{Flavor as ShownFlavor, VolumeType as ShownVolumeType};
use coffer_wire::rest::v1::network::Network as ShownNetwork;
use coffer_wire::rest::v1::quota::Quota as ShownQuota;
use coffer_wire::rest::v1::tracker::Tracker as ShownTracker;

use crate::api::links::Links;

/// A flavor. Its `id` is a number or null, as Trove shows it; `str_id` is the id.
pub(in crate::api) fn flavor(flavor: &Flavor, links: &Links) -> ShownFlavor {
    let id = flavor.id.as_str();
    let is_digits = id.bytes().all(|b| b.is_ascii_digit());
    // A number that reads back as other text (007) would name another flavor.
    let number = id
        .parse::<u64>()
        .ok()
        .filter(|n| is_digits && n.to_string() == id);
    ShownFlavor {
        id: number,
        str_id: id.to_owned(),
        name: flavor.name.as_str().to_owned(),
        ram: flavor.memory_mib,
        vcpus: flavor.vcpus,
        disk: flavor.disk_gib,
        ephemeral: 0,
        links: links.of("flavors", id),
    }
}

/// A tracker, and whether it answers.
pub(in crate::api) fn tracker(view: &TrackerView, answers: bool) -> ShownTracker {
    let tracker = &view.tracker;
    ShownTracker {
        id: tracker.id.to_string(),
        provider: tracker.provider.clone(),
        address: tracker.address.clone(),
        links: view.links,
        answers,
        started: tracker.started_at.trove(),
    }
}

/// A volume type.
pub(in crate::api) fn volume_type(volume_type: &VolumeType) -> ShownVolumeType {
    let io = &volume_type.io;
    ShownVolumeType {
        id: volume_type.name.as_str().to_owned(),
        name: volume_type.name.as_str().to_owned(),
        is_public: true,
        description: volume_type.description.clone(),
        read_iops_sec: io.read_iops_sec.map(Iops::get),
        write_iops_sec: io.write_iops_sec.map(Iops::get),
        read_bytes_sec: io.read_bytes_sec.map(BytesPerSecond::get),
        write_bytes_sec: io.write_bytes_sec.map(BytesPerSecond::get),
    }
}

/// A zone.
pub(in crate::api) fn zone(zone: &Zone) -> ShownZone {
    ShownZone {
        name: zone.name.as_str().to_owned(),
        created: zone.created_at.trove(),
    }
}

/// A network.
pub(in crate::api) fn network(network: &Network) -> ShownNetwork {
    ShownNetwork {
        id: network.id.to_string(),
        name: network.name.as_str().to_owned(),
        project_id: network.tenant_id.to_string(),
        subnet: network.subnet.to_string(),
        is_default: network.is_default,
        created: network.created_at.trove(),
    }
}

/// One resource of a project.
pub(in crate::api) fn quota(quota: &Quota) -> ShownQuota {
    ShownQuota {
        resource: quota.resource.as_str().to_owned(),
        in_use: quota.in_use,
        reserved: quota.reserved,
        limit: quota.limit,
    }
}
