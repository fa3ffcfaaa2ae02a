//! Datastores and versions.

use coffer_core::datastore::{Datastore, DatastoreVersion};
use coffer_engines::capability;
use coffer_wire::rest::v1::datastore::{Capabilities, Capability, Datastore as Shown, Version};

use crate::api::links::Links;

/// A datastore with its versions.
pub(in crate::api) fn datastore(
    datastore: &Datastore,
    versions: &[DatastoreVersion],
    links: &Links,
) -> Shown {
    let id = datastore.id.to_string();
    Shown {
        links: links.of("datastores", &id),
        id,
        name: datastore.name.as_str().to_owned(),
        versions: versions
            .iter()
            .map(|version| self::version(version, links))
            .collect(),
        default_version: datastore.default_version_id.map(|id| id.to_string()),
    }
}

/// A version inside a list.
pub(in crate::api) fn version(version: &DatastoreVersion, links: &Links) -> Version {
    let id = version.id.to_string();
    Version {
        links: links.of(
            &format!("datastores/{}/versions", version.datastore_id),
            &id,
        ),
        id,
        name: version.name.as_str().to_owned(),
        version: version.number.clone(),
        datastore: None,
        active: None,
        image: None,
        image_tags: None,
        packages: None,
        registry_ext: None,
        repl_strategy: None,
        capabilities: None,
    }
}

/// A version by itself, with what can be done with it; admins see what it is made from.
pub(in crate::api) fn one_version(
    row: &DatastoreVersion,
    able: Option<&capability::Capabilities>,
    links: &Links,
    is_admin: bool,
) -> Version {
    let mut shown = version(row, links);
    shown.datastore = Some(row.datastore_id.to_string());
    shown.capabilities = able.map(capabilities);
    if is_admin {
        shown.active = Some(row.is_active);
        shown.image = Some(row.image.clone());
        shown.image_tags = Some(Vec::new());
        shown.packages = Some(Vec::new());
        shown.registry_ext = Some(None);
        shown.repl_strategy = Some(None);
    }
    shown
}

fn capabilities(able: &capability::Capabilities) -> Capabilities {
    Capabilities {
        operations: able.operations.iter().map(self::capability).collect(),
        databases: able.has_databases,
        users: able.has_users,
        user_hosts: able.has_user_hosts,
        grants: able.has_grants,
        root: able.root_user.is_some(),
        root_user: able.root_user.map(str::to_owned),
        tls: able.requires_tls,
        start: able.has_power,
        stop: able.has_power,
        restart: able.has_power,
        port: able.port,
    }
}

fn capability(one: &capability::Capability) -> Capability {
    Capability {
        operation: one.operation.as_str().to_owned(),
        support: one.level.as_str().to_owned(),
        reason: one.reason.map(str::to_owned),
    }
}
