//! Networks of a project; the default one is there as soon as somebody looks.

use coffer_core::id::{NetworkId, TenantId};
use coffer_core::name::Name;
use coffer_core::network::Network;

use super::{AppState, RequestContext};
use crate::error::{Error, Result};

/// The project's default network, made when it is first needed.
pub async fn default(app: &AppState, tenant_id: &TenantId) -> Result<Network> {
    let candidate = Network {
        id: NetworkId::from_uuid(app.new_uuid()),
        tenant_id: tenant_id.clone(),
        name: Name::parse("name", "default")?,
        subnet: app.config.default_subnet,
        is_default: true,
        created_at: app.clock.now(),
    };
    Ok(app.store.ensure_default_network(&candidate).await?)
}

/// Every network of the project.
pub async fn list(app: &AppState, context: &RequestContext) -> Result<Vec<Network>> {
    let tenant_id = context.tenant_id()?;
    let networks = app.store.list_networks(tenant_id).await?;
    if networks.iter().any(|network| network.is_default) {
        return Ok(networks);
    }
    default(app, tenant_id).await?;
    Ok(app.store.list_networks(tenant_id).await?)
}

/// The project's network with this id.
pub async fn get(app: &AppState, context: &RequestContext, text: &str) -> Result<Network> {
    let missing = || Error::not_found("network", text);
    let id = text.parse().map_err(|_| missing())?;
    app.store
        .find_network(context.tenant_id()?, id)
        .await?
        .ok_or_else(missing)
}
