//! Engine roots on Coffer's host: built, listed, compared, removed.
//!
//! Building needs no Coffer: it works before the first start. Removing asks the store of this
//! state directory who runs from the root, and takes it out of what is offered.

use std::process::ExitCode;

use coffer_cli::Options;
use coffer_cli::output::{complain, emit};
use coffer_control::config::Config;
use coffer_core::datastore::DatastoreVersion;
use coffer_infra::image::Roots;
use coffer_infra::image::recipe::Recipe;
use coffer_infra::image::tree::Depth;
use coffer_store::Store;

use crate::args::{ImageCommand, Place};
use crate::assemble;
use crate::state_dir::StateDir;

/// Works on engine roots.
pub(crate) async fn image(
    place: &Place,
    command: &ImageCommand,
    options: &Options,
) -> anyhow::Result<ExitCode> {
    let config = place.load()?;
    let roots = Roots::new(&assemble::roots_dir(&config))?;
    match command {
        ImageCommand::Build { name, again } => {
            let recipe = Recipe::find(name)?;
            let mut progress = |line: &str| complain(&format!("{name}: {line}"));
            let manifest = roots.build(&recipe, *again, &mut progress)?;
            emit(&format!("{}\n", manifest.checksum))?;
        }
        ImageCommand::List => list(&roots, options)?,
        ImageCommand::Remove { name } => {
            let checksum = roots.find(name)?;
            remove(&config, &roots, &checksum).await?;
            emit(&format!("removed {checksum}\n"))?;
        }
        ImageCommand::Verify { name } => {
            let checksum = roots.find(name)?;
            roots.verify(&checksum, Depth::Full)?;
            emit(&format!("{checksum} is as it was built\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes a root that nobody runs from; new instances are not offered it any more.
async fn remove(config: &Config, roots: &Roots, checksum: &str) -> anyhow::Result<()> {
    // A host that only builds roots has no store, and is not given one by a removal.
    let state = match StateDir::existing(&config.state.dir) {
        Ok(state) => state,
        Err(_) if config.state.store_url.is_none() => {
            return Ok(roots.remove(checksum, &|_| None)?);
        }
        Err(error) => return Err(error),
    };
    let store = assemble::tool_base(config, &state).await?.store;
    let users = users(&store, checksum).await?;
    roots.remove(checksum, &|_| users.clone())?;
    withdraw(&store, checksum).await?;
    store.close().await;
    Ok(())
}

/// The instances and other servers that run from a root, in words; `None` if nobody does.
async fn users(store: &Store, checksum: &str) -> anyhow::Result<Option<String>> {
    let mut users = Vec::new();
    for server in store.list_servers().await? {
        if !server.roots.iter().any(|root| root == checksum) {
            continue;
        }
        let instance = match server.instance_id {
            Some(id) => store.find_instance(id).await?,
            None => None,
        };
        users.push(match instance {
            Some(found) => format!("instance {} ({})", found.spec.name, found.id),
            None => format!("server {}", server.id),
        });
    }
    Ok((!users.is_empty()).then(|| users.join(", ")))
}

/// Stops offering the versions that would run from a root that is gone.
async fn withdraw(store: &Store, checksum: &str) -> anyhow::Result<()> {
    for datastore in store.list_datastores().await? {
        for version in store.list_datastore_versions(datastore.id).await? {
            if version.root.as_deref() != Some(checksum) {
                continue;
            }
            store.set_version_root(version.id, None).await?;
            let withdrawn = DatastoreVersion {
                is_active: false,
                root: None,
                ..version
            };
            store.upsert_datastore_version(&withdrawn).await?;
        }
    }
    store.delete_root(checksum).await?;
    Ok(())
}

fn list(roots: &Roots, options: &Options) -> anyhow::Result<()> {
    let listed = roots.list()?;
    if options.json {
        let all: Vec<_> = listed
            .iter()
            .map(|root| match &root.manifest {
                Ok(m) => serde_json::json!({
                    "checksum": root.checksum,
                    "image": m.recipe.name,
                    "size_bytes": m.size_bytes,
                    "base": m.base,
                    "shared_bytes": m.shared_bytes,
                    "is_latest": roots.is_latest(root),
                }),
                Err(e) => serde_json::json!({
                    "checksum": root.checksum, "problem": e.to_string(),
                }),
            })
            .collect();
        emit(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
        return Ok(());
    }
    for root in listed {
        let short = root.checksum.get(..12).unwrap_or(&root.checksum);
        let line = match &root.manifest {
            Ok(m) => {
                let own = (m.size_bytes - m.shared_bytes) / 1_000_000;
                let (all, suite) = (m.size_bytes / 1_000_000, &m.recipe.suite);
                let age = match roots.is_latest(&root) {
                    true => "",
                    false => "  replaced by a newer build",
                };
                format!(
                    "{:20} {own:>5} MB over {suite}, {all} MB in all{age}",
                    m.recipe.name
                )
            }
            Err(e) => e.to_string(),
        };
        emit(&format!("{short}  {line}\n"))?;
    }
    Ok(())
}
