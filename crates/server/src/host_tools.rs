//! The operator's tools on Coffer's host: migrate, config, ca. Others have files of their own.

use std::process::ExitCode;

use coffer_cli::output::emit;
use coffer_control::authority;
use coffer_control::clock::Clock;

use crate::args::{Ca, Place};
use crate::assemble;
use crate::refusal::missing;
use crate::state_dir::StateDir;

/// Opens the store as a role would, which makes the schema of one that is new.
pub(crate) async fn migrate(place: &Place) -> anyhow::Result<ExitCode> {
    let config = place.load()?;
    let state = StateDir::enter(&config.state.dir, false)?;
    let base = assemble::base(&config, &state).await?;
    base.store.close().await;
    emit("the store is up to date\n")?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the configuration that holds.
pub(crate) fn config(place: &Place) -> anyhow::Result<ExitCode> {
    emit(&place.load()?.render_masked())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints a CA's certificate.
pub(crate) async fn ca(ca: &Ca) -> anyhow::Result<ExitCode> {
    let config = ca.place.load()?;
    let state = StateDir::existing(&config.state.dir)?;
    let base = assemble::tool_base(&config, &state).await?;
    let name = match &ca.project {
        None => authority::API.to_owned(),
        Some(project) => {
            let by_name = base.store.find_tenant_by_name(project).await?;
            let by_id = match project.parse() {
                Ok(id) => base.store.find_tenant(&id).await?,
                Err(_) => None,
            };
            let tenant = by_name
                .or(by_id)
                .ok_or_else(|| missing(format!("no project '{project}'")))?;
            format!("project {}", tenant.id)
        }
    };
    let now = base.clock.now();
    let found = authority::ensure(&base.store, &base.secrets, &name, now).await?;
    emit(&found.cert_pem)?;
    Ok(ExitCode::SUCCESS)
}
