//! Instances as Trove's clients read them.

use std::borrow::Cow;

use coffer_core::instance::{Lifecycle, public_status};
use coffer_core::server::{Presence, Server, Volume};
use coffer_core::time::Timestamp;
use coffer_store::instance::{InstanceView, ManagedView};
use coffer_wire::rest::v1::instance::{
    AccessField, Address, Attachment, GuestStatus, Instance, InstanceDatastore, InstanceFault,
    InstanceVolume, ManagedServer, RootHistory,
};
use serde_json::{Value, json};

use crate::api::links::Links;

/// How much of an instance is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Detail {
    /// As lists show it.
    Brief,
    /// As detail lists and single views show it.
    Full,
}

/// An instance.
pub(in crate::api) fn instance(
    view: &InstanceView,
    links: &Links,
    detail: Detail,
    is_admin: bool,
) -> Instance {
    let instance = &view.instance;
    let spec = &instance.spec;
    let id = instance.id.to_string();
    let (status, operating_status) = instance.public_status();
    let is_full = detail == Detail::Full;
    let addresses = addresses(view);
    Instance {
        links: links.of("instances", &id),
        id,
        name: spec.name.as_str().to_owned(),
        status: Cow::Borrowed(status.as_str()),
        operating_status: Cow::Borrowed(operating_status.0.unwrap_or_default()),
        flavor: links.reference("flavors", spec.flavor_id.as_str()),
        datastore: InstanceDatastore {
            datastore: view.datastore_name.clone(),
            version: view.version_name.clone(),
            version_number: is_full.then(|| view.version_number.clone()),
        },
        region: links.region().to_owned(),
        access: access(view),
        volume: volume(view, is_full),
        ip: addresses
            .as_ref()
            .map(|all| all.iter().map(|one| one.address.clone()).collect()),
        addresses,
        tenant_id: is_admin.then(|| instance.tenant_id.to_string()),
        created: is_full.then(|| instance.created_at.trove()),
        updated: is_full.then(|| instance.updated_at.trove()),
        service_status_updated: is_full.then(|| instance.health_at.trove()),
        fault: if is_full { fault(view, is_admin) } else { None },
        deleted: None,
        deleted_at: None,
        task_description: None,
        service_status: None,
        server: None,
        server_id: None,
        volume_id: None,
        encrypted_rpc_messaging: None,
        guest_status: None,
        root_enabled: None,
        root_enabled_by: None,
    }
}

/// An instance as admins see it on the routes of everybody.
pub(in crate::api) fn detailed(one: &ManagedView, links: &Links) -> Instance {
    let mut shown = instance(&one.view, links, Detail::Full, true);
    shown.server_id = Some(one.server.as_ref().map(|server| server.id.to_string()));
    shown.volume_id = Some(one.volume.as_ref().map(|volume| volume.id.to_string()));
    shown.encrypted_rpc_messaging = Some(true);
    shown
}

/// An instance with what the management routes add.
pub(in crate::api) fn managed(one: &ManagedView, links: &Links) -> Instance {
    let view = &one.view;
    let mut shown = detailed(one, links);
    // Unlike the operating status, this word is not empty while a task runs.
    let (_, service_status) = public_status(Lifecycle::Active, view.instance.health);
    shown.deleted = Some(one.deleted_at.is_some());
    shown.deleted_at = Some(one.deleted_at.map(Timestamp::trove));
    shown.task_description = Some(task_description(view.instance.lifecycle).into());
    shown.service_status = Some(service_status.0.unwrap_or_default().into());
    shown.server = Some(one.server.as_ref().map(|found| server(found, view)));
    shown
}

/// The same where one instance is shown.
pub(in crate::api) fn managed_detail(one: &ManagedView, links: &Links) -> Instance {
    let mut shown = managed(one, links);
    if let Some(Some(server)) = &mut shown.server {
        server.addresses = Some(addresses_by_network(&one.view));
    }
    if let Some(found) = &one.volume {
        shown.volume = managed_volume(found, &one.view);
    }
    shown.guest_status = Some(GuestStatus {
        state_description: one.view.instance.health.to_string(),
    });
    if let Some((at, user)) = &one.root_enabled {
        shown.root_enabled = Some(at.trove());
        shown.root_enabled_by = user.as_ref().map(ToString::to_string);
    }
    shown
}

/// When root was enabled, and by whom.
pub(in crate::api) fn root_history(one: &ManagedView) -> RootHistory {
    let enabled = one.root_enabled.as_ref();
    let user = enabled.and_then(|(_, user)| user.as_ref());
    RootHistory {
        id: one.view.instance.id.to_string(),
        enabled: enabled.map_or_else(|| "Never".to_owned(), |(at, _)| at.trove()),
        user: user.map_or_else(|| "Nobody".to_owned(), ToString::to_string),
    }
}

fn server(server: &Server, view: &InstanceView) -> ManagedServer {
    let status = match server.presence {
        Presence::Planned => "BUILD",
        Presence::Present => "ACTIVE",
        Presence::Deleting => "DELETED",
    };
    ManagedServer {
        id: server.id.to_string(),
        name: view.instance.spec.name.as_str().to_owned(),
        status: status.into(),
        tenant_id: server.tenant_id.to_string(),
        host: server.host.clone(),
        addresses: None,
    }
}

/// Nova's form: a list for each network.
fn addresses_by_network(view: &InstanceView) -> Value {
    let network = view.instance.spec.network_id.to_string();
    let all = addresses(view).unwrap_or_default().into_iter();
    let of = |one: Address| {
        let version = if one.address.contains(':') { 6 } else { 4 };
        json!({ "addr": one.address, "version": version })
    };
    json!({ network: all.map(of).collect::<Vec<_>>() })
}

fn managed_volume(found: &Volume, view: &InstanceView) -> InstanceVolume {
    let attached = found.server_id.map(|id| Attachment {
        server_id: id.to_string(),
    });
    InstanceVolume {
        id: Some(found.id.to_string()),
        status: Some(
            if attached.is_some() {
                "in-use"
            } else {
                "available"
            }
            .into(),
        ),
        attachments: Some(attached.into_iter().collect()),
        availability_zone: Some(view.instance.spec.zone.clone()),
        created_at: Some(found.created_at.trove()),
        total: Some(two_decimals(gib(found.size.as_bytes()))),
        ..volume(view, true)
    }
}

/// Trove's words for what is being done.
fn task_description(lifecycle: Lifecycle) -> &'static str {
    match lifecycle {
        Lifecycle::Building => "Building the instance.",
        Lifecycle::Active | Lifecycle::Stopped => "No tasks for the instance.",
        Lifecycle::Restarting | Lifecycle::Stopping => "Rebooting the instance.",
        Lifecycle::Resizing => "Resizing the instance.",
        Lifecycle::Updating => "Updating the instance.",
        Lifecycle::Upgrading => "Upgrading the instance.",
        Lifecycle::Promoting => "Promoting the instance to replica source.",
        Lifecycle::Ejecting => "Ejecting the replica source.",
        Lifecycle::Detaching => "Detaching the instance from replica source.",
        Lifecycle::Deleting | Lifecycle::Deleted => "Deleting the instance.",
        Lifecycle::Failed => "The last task failed.",
    }
}

fn access(view: &InstanceView) -> AccessField {
    let access = &view.instance.spec.access;
    let cidrs: Vec<_> = access
        .allowed_cidrs
        .iter()
        .map(ToString::to_string)
        .collect();
    AccessField {
        is_public: Some(access.is_public),
        allowed_cidrs: Some(cidrs).filter(|cidrs| !cidrs.is_empty()),
    }
}

/// The published address comes first: Terraform and people take the first, and from outside the
/// network no other works.
fn addresses(view: &InstanceView) -> Option<Vec<Address>> {
    if view.instance.lifecycle == Lifecycle::Building {
        return None;
    }
    let published = view.published.map(|published| Address {
        address: published.address.to_string(),
        kind: "public".into(),
        network: None,
        port: Some(published.port),
    });
    let private = view.network_address.map(|address| Address {
        address: address.to_string(),
        kind: "private".into(),
        network: Some(view.instance.spec.network_id.to_string()),
        port: Some(view.port),
    });
    let all: Vec<_> = published.into_iter().chain(private).collect();
    Some(all).filter(|all| !all.is_empty())
}

fn volume(view: &InstanceView, is_full: bool) -> InstanceVolume {
    let size = view.instance.spec.volume;
    let used = view.instance.volume_used_bytes.filter(|_| is_full);
    InstanceVolume {
        size: size.as_gib(),
        used: used.map(|bytes| two_decimals(gib(bytes))),
        used_percent: used.map(|bytes| two_decimals(gib(bytes) * 100.0 / gib(size.as_bytes()))),
        id: None,
        status: None,
        attachments: None,
        availability_zone: None,
        created_at: None,
        total: None,
    }
}

fn gib(bytes: u64) -> f64 {
    let mib = u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
    f64::from(mib) / 1_024.0
}

fn two_decimals(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

/// Why it is in ERROR; the private cause is the operator's.
pub(in crate::api) fn fault(view: &InstanceView, is_admin: bool) -> Option<InstanceFault> {
    view.instance.fault.as_ref().map(|fault| InstanceFault {
        message: fault.message.clone(),
        created: fault.at.trove(),
        details: is_admin.then(|| fault.details.clone()),
    })
}
