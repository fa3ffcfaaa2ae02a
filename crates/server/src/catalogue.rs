//! Registers what can be offered: a datastore per engine, a version per recipe, and the engine
//! roots that were built, as they appear in the roots' directory.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use coffer_control::clock::{Clock, new_uuid};
use coffer_control::supervise::Supervisor;
use coffer_core::datastore::{Datastore, DatastoreVersion, EngineRoot};
use coffer_core::id::{DatastoreId, DatastoreVersionId};
use coffer_core::name::Name;
use coffer_infra::image::Roots;
use coffer_infra::image::manifest::Manifest;
use coffer_infra::image::recipe::{self, Recipe};

use coffer_store::StoreError;

use crate::assemble::Base;

/// Time between two looks at the roots' directory.
const LOOK: Duration = Duration::from_secs(5);

/// Registers at once what is there.
pub(crate) async fn register(base: &Base, roots_dir: &Path) -> anyhow::Result<()> {
    for recipe in recipe::all().context("read the recipes")? {
        let version = ensure_version(base, &recipe).await?;
        let (dir, known) = (roots_dir.to_owned(), version.root.clone());
        let find =
            move || Roots::new(&dir).map(|roots| new_root(&roots, &recipe, known.as_deref()));
        let found = tokio::task::spawn_blocking(find).await?;
        if let Some(manifest) = found.context("look at engine roots")? {
            use_root(base, &version, &manifest).await?;
        }
    }
    Ok(())
}

/// The root of a recipe, if it is another than the known one and looks whole. Looking through the
/// thousands of files of a root that is known, every few seconds, would be for nothing.
fn new_root(roots: &Roots, recipe: &Recipe, known: Option<&str>) -> Option<Manifest> {
    let made = roots.last_made(recipe)?;
    (known != Some(&made))
        .then(|| roots.built(recipe))
        .flatten()
}

/// Looks again and again, until told to stop.
pub(crate) async fn watch(base: Base, roots_dir: std::path::PathBuf, supervisor: Supervisor) {
    let token = supervisor.token();
    while !token.is_cancelled() {
        if let Err(error) = register(&base, &roots_dir).await {
            tracing::error!(error = format!("{error:#}"), "register engine roots");
        }
        tokio::select! {
            () = token.cancelled() => {}
            () = base.clock.sleep(LOOK) => {}
        }
    }
}

async fn ensure_datastore(base: &Base, engine: &str) -> anyhow::Result<Datastore> {
    if let Some(known) = base.store.find_datastore_by_name(engine).await? {
        return Ok(known);
    }
    let new = Datastore {
        id: DatastoreId::from_uuid(new_uuid(&*base.clock, &*base.entropy)),
        name: Name::parse("name", engine)?,
        default_version_id: None,
        created_at: base.clock.now(),
    };
    match base.store.upsert_datastore(&new).await {
        Ok(()) => Ok(new),
        // Another process starts at the same moment.
        Err(StoreError::AlreadyExists { .. }) => base
            .store
            .find_datastore_by_name(engine)
            .await?
            .context("a datastore that another process registered is gone"),
        Err(error) => Err(error.into()),
    }
}

async fn ensure_version(base: &Base, recipe: &Recipe) -> anyhow::Result<DatastoreVersion> {
    let datastore = ensure_datastore(base, &recipe.engine).await?;
    let known = base
        .store
        .find_datastore_version_by_name(datastore.id, &recipe.version)
        .await?;
    if let Some(known) = known {
        return Ok(known);
    }
    let new = DatastoreVersion {
        id: DatastoreVersionId::from_uuid(new_uuid(&*base.clock, &*base.entropy)),
        datastore_id: datastore.id,
        name: Name::parse("name", &recipe.version)?,
        number: recipe.version.clone(),
        manager: recipe.engine.clone(),
        is_active: false,
        image: recipe.name.clone(),
        root: None,
        created_at: base.clock.now(),
    };
    match base.store.upsert_datastore_version(&new).await {
        Ok(()) => Ok(new),
        Err(StoreError::AlreadyExists { .. }) => base
            .store
            .find_datastore_version_by_name(datastore.id, &recipe.version)
            .await?
            .context("a version that another process registered is gone"),
        Err(error) => Err(error.into()),
    }
}

/// From now on new instances of the version run from this root.
async fn use_root(
    base: &Base,
    version: &DatastoreVersion,
    manifest: &Manifest,
) -> anyhow::Result<()> {
    let root = EngineRoot {
        checksum: manifest.checksum.clone(),
        image: manifest.recipe.name.clone(),
        manifest: serde_json::to_string(manifest)?,
        built_at: base.clock.now(),
    };
    if base.store.find_root(&root.checksum).await?.is_none() {
        match base.store.insert_root(&root).await {
            Ok(()) | Err(StoreError::AlreadyExists { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if !version.is_active {
        let usable = DatastoreVersion {
            is_active: true,
            ..version.clone()
        };
        base.store.upsert_datastore_version(&usable).await?;
    }
    base.store
        .set_version_root(version.id, Some(&root.checksum))
        .await?;
    let datastore = base.store.find_datastore(version.datastore_id).await?;
    if datastore.is_some_and(|d| d.default_version_id.is_none()) {
        base.store
            .set_default_version(version.datastore_id, version.id)
            .await?;
    }
    tracing::info!(image = %root.image, root = %root.checksum, "engine root in use");
    Ok(())
}
