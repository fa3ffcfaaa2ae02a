//! Datastores and versions: reading them, and choosing one for a new instance.

use coffer_core::datastore::{Datastore, DatastoreVersion};
use coffer_core::name::shown;
use coffer_engines::capability::{self, Capabilities};

use super::create::Wanted;
use super::{AppState, RequestContext};
use crate::error::{Error, Kind, Result};

/// A datastore with its versions.
pub type WithVersions = (Datastore, Vec<DatastoreVersion>);

/// Every datastore. Versions that are not active, and datastores without another, are shown to
/// admins only.
pub async fn list(app: &AppState, context: &RequestContext) -> Result<Vec<WithVersions>> {
    let mut all = Vec::new();
    for datastore in app.store.list_datastores().await? {
        let versions = versions(app, context, &datastore).await?;
        if !versions.is_empty() || context.is_admin() {
            all.push((datastore, versions));
        }
    }
    Ok(all)
}

/// The datastore with this id or name.
pub async fn get(app: &AppState, text: &str) -> Result<Datastore> {
    find(app, text)
        .await?
        .ok_or_else(|| Error::not_found("datastore", text))
}

async fn find(app: &AppState, text: &str) -> Result<Option<Datastore>> {
    if text.contains('\0') {
        return Ok(None);
    }
    Ok(match text.parse() {
        Ok(id) => app.store.find_datastore(id).await?,
        Err(_) => app.store.find_datastore_by_name(text).await?,
    })
}

/// The versions of a datastore that the asker sees.
pub async fn versions(
    app: &AppState,
    context: &RequestContext,
    datastore: &Datastore,
) -> Result<Vec<DatastoreVersion>> {
    let mut versions = app.store.list_datastore_versions(datastore.id).await?;
    versions.retain(|version| version.is_active || context.is_admin());
    Ok(versions)
}

/// The version with this id or name. A version that is not there is a 400, as in Trove.
pub async fn get_version(
    app: &AppState,
    context: &RequestContext,
    datastore: &Datastore,
    text: &str,
) -> Result<DatastoreVersion> {
    find_version(app, datastore, text)
        .await?
        .filter(|version| version.is_active || context.is_admin())
        .ok_or_else(|| no_version(text))
}

/// The version with this id, of whichever datastore.
pub async fn get_version_by_id(
    app: &AppState,
    context: &RequestContext,
    text: &str,
) -> Result<DatastoreVersion> {
    let found = match text.parse() {
        Ok(id) => app.store.find_datastore_version(id).await?,
        Err(_) => None,
    };
    found
        .filter(|version| version.is_active || context.is_admin())
        .ok_or_else(|| no_version(text))
}

/// What can be done with a version; nothing is said of an engine that this build has not.
pub fn capabilities(version: &DatastoreVersion) -> Option<Capabilities> {
    let engine = coffer_engines::engine(&version.manager)?;
    Some(capability::of(engine, &version.number))
}

async fn find_version(
    app: &AppState,
    datastore: &Datastore,
    text: &str,
) -> Result<Option<DatastoreVersion>> {
    if text.contains('\0') {
        return Ok(None);
    }
    let found = match text.parse() {
        Ok(id) => app.store.find_datastore_version(id).await?,
        Err(_) => {
            app.store
                .find_datastore_version_by_name(datastore.id, text)
                .await?
        }
    };
    Ok(found.filter(|version| version.datastore_id == datastore.id))
}

fn no_version(text: &str) -> Error {
    let message = format!("Datastore version '{}' cannot be found.", shown(text));
    Error::new(Kind::BadRequest, "unknown-version", message)
        .with_hint("list the versions of the datastore and name one by name or id")
}

fn no_datastore(text: &str) -> Error {
    let message = format!("Datastore '{}' cannot be found.", shown(text));
    Error::new(Kind::NotFound, "unknown-datastore", message)
        .with_hint("list the datastores and name one by name or id")
}

/// The version that a new instance gets: as named, else the default.
pub async fn choose(app: &AppState, wanted: &Wanted) -> Result<(Datastore, DatastoreVersion)> {
    let datastore = match &wanted.datastore {
        Some(text) => find(app, text).await?.ok_or_else(|| no_datastore(text))?,
        None => unnamed_datastore(app, wanted).await?,
    };
    let version = match (&wanted.version, datastore.default_version_id) {
        (Some(text), _) => find_version(app, &datastore, text).await?,
        (None, Some(id)) => app.store.find_datastore_version(id).await?,
        (None, None) => None,
    };
    let text = wanted.version.as_deref().unwrap_or("default");
    let version = version.ok_or_else(|| no_version(text))?;
    if !version.is_active {
        let message = format!("Datastore version '{}' is not active.", shown(text));
        return Err(Error::new(Kind::BadRequest, "inactive-version", message));
    }
    if wanted
        .version_number
        .as_ref()
        .is_some_and(|number| *number != version.number)
    {
        return Err(no_version(text));
    }
    Ok((datastore, version))
}

/// Without a name: the datastore of the version named by id, else the default, else the only one
/// there is.
async fn unnamed_datastore(app: &AppState, wanted: &Wanted) -> Result<Datastore> {
    if let Some(id) = wanted.version.as_deref().and_then(|text| text.parse().ok())
        && let Some(version) = app.store.find_datastore_version(id).await?
        && let Some(datastore) = app.store.find_datastore(version.datastore_id).await?
    {
        return Ok(datastore);
    }
    if let Some(name) = &app.config.default_datastore {
        return find(app, name).await?.ok_or_else(|| no_datastore(name));
    }
    let mut all = app.store.list_datastores().await?;
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only),
        _ => Err(Error::new(
            Kind::BadRequest,
            "datastore-missing",
            "Please specify datastore. No default datastore is defined.",
        )),
    }
}
