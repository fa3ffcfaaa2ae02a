//! Projects and their quotas.

use coffer_core::id::TenantId;
use coffer_core::name::Name;
use coffer_core::quota::{Quota, Resource};
use coffer_core::tenant::Tenant;
use coffer_store::tenant::TenantChange;

use super::AppState;
use crate::auth::Session;
use crate::error::{Error, Kind, Result};

/// Makes a project.
pub async fn create(app: &AppState, name: Name, description: String) -> Result<Tenant> {
    let tenant = Tenant {
        id: app.new_hex_id().parse()?,
        name,
        is_enabled: true,
        description,
        created_at: app.clock.now(),
    };
    app.store.insert_tenant(&tenant).await?;
    Ok(tenant)
}

/// A page of the projects by name, and the marker of the next page.
pub async fn list(
    app: &AppState,
    marker: Option<&str>,
    limit: u32,
) -> Result<(Vec<Tenant>, Option<String>)> {
    let marker = marker.filter(|name| !name.contains('\0'));
    let mut rows = app.store.list_tenants(marker, limit + 1).await?;
    let is_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows
        .last()
        .filter(|_| is_more)
        .map(|last| last.name.to_string());
    Ok((rows, next))
}

/// The project with this id.
pub async fn get(app: &AppState, text: &str) -> Result<Tenant> {
    let missing = || Error::not_found("project", text);
    let id: TenantId = text.parse().map_err(|_| missing())?;
    app.store.find_tenant(&id).await?.ok_or_else(missing)
}

/// The project with this name.
pub async fn find_by_name(app: &AppState, name: &str) -> Result<Option<Tenant>> {
    if name.contains('\0') {
        return Ok(None);
    }
    Ok(app.store.find_tenant_by_name(name).await?)
}

/// Refuses what would lock the asker out: with the last admin gone, nobody lets anybody in.
pub fn keep_the_asker(locks_out: bool) -> Result<()> {
    match locks_out {
        false => Ok(()),
        true => Err(Error::new(
            Kind::Conflict,
            "locks-out",
            "this would end your own access: let another admin do it",
        )),
    }
}

fn is_own(asker: &Session, tenant: &Tenant) -> bool {
    asker.tenant.as_ref().is_some_and(|own| own.id == tenant.id)
}

/// Changes a project; a closed one's tokens work no more.
pub async fn update(
    app: &AppState,
    asker: &Session,
    text: &str,
    change: TenantChange,
) -> Result<Tenant> {
    let tenant = get(app, text).await?;
    keep_the_asker(change.is_enabled == Some(false) && is_own(asker, &tenant))?;
    app.store.update_tenant(&tenant.id, &change).await?;
    app.tokens.forget();
    get(app, text).await
}

/// Deletes a project that has no instances.
pub async fn delete(app: &AppState, asker: &Session, text: &str) -> Result<()> {
    let tenant = get(app, text).await?;
    keep_the_asker(is_own(asker, &tenant))?;
    app.store.delete_tenant(&tenant.id, app.clock.now()).await?;
    app.tokens.forget();
    Ok(())
}

/// What a project holds and may hold. A project that only a real Keystone knows has the defaults.
pub async fn quotas(app: &AppState, tenant_id: &TenantId) -> Result<Vec<Quota>> {
    Ok(app
        .store
        .get_quotas(tenant_id, |resource| app.config.quotas.of(resource))
        .await?)
}

/// Sets limits; all are checked before the first is written.
pub async fn set_quotas(
    app: &AppState,
    tenant_id: &TenantId,
    limits: &[(String, i64)],
) -> Result<()> {
    let mut parsed = Vec::new();
    for (name, limit) in limits {
        let shown = coffer_core::name::shown(name);
        if *limit < -1 {
            let message = format!(
                "Quota limit '{limit}' for '{shown}' is too small - must be at least '-1'."
            );
            return Err(Error::new(Kind::BadRequest, "invalid", message));
        }
        let unknown = |_| {
            let message = format!("Unknown quota resources {shown}.");
            Error::new(Kind::NotFound, "unknown-resource", message)
        };
        parsed.push((name.parse::<Resource>().map_err(unknown)?, *limit));
    }
    for (resource, limit) in parsed {
        app.store.set_quota(tenant_id, resource, limit).await?;
    }
    Ok(())
}
