//! Datastores and versions.

use coffer_core::datastore::{Datastore, DatastoreVersion};
use coffer_wire::rest::v1::datastore::{Datastore as Shown, Version};

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
    }
}

/// A version by itself; admins see what it is made from.
pub(in crate::api) fn one_version(
    row: &DatastoreVersion,
    links: &Links,
    is_admin: bool,
) -> Version {
    let mut shown = version(row, links);
    shown.datastore = Some(row.datastore_id.to_string());
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
