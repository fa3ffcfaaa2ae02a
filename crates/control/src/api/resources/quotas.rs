//! Quotas of projects: read by their owner, set by the operator.

use axum::extract::State;
use axum::response::Response;
use coffer_core::id::TenantId;
use coffer_wire::rest::v1::quota::{QuotaList, QuotaUpdate};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::extract::{Json, Segments};
use crate::api::respond::ok;
use crate::api::views::offers;
use crate::app::{AppState, RequestContext, project};
use crate::error::{Error, Kind, Result};

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show, put))
}

#[derive(Debug, Deserialize)]
struct OneProject {
    project: String,
}

/// What a project holds and may hold.
#[utoipa::path(get, path = "/v1.0/{project_id}/mgmt/quotas/{project}", tag = "quotas",
    params(("project" = String, Path)), responses((status = 200, body = QuotaList)))]
async fn show(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneProject>,
) -> Result<Response> {
    if context.tenant_id()?.as_str() != path.project && !context.is_admin() {
        let message = format!(
            "Operation not allowed for tenant {}.",
            coffer_core::name::shown(&path.project)
        );
        return Err(Error::new(Kind::Forbidden, "policy", message));
    }
    let quotas = project::quotas(&app, &tenant_id(&app, &path.project).await?).await?;
    Ok(ok(&QuotaList {
        quotas: quotas.iter().map(offers::quota).collect(),
    }))
}

/// Sets limits of a project.
#[utoipa::path(put, path = "/v1.0/{project_id}/mgmt/quotas/{project}", tag = "quotas",
    params(("project" = String, Path)), request_body = QuotaUpdate,
    responses((status = 200, body = QuotaUpdate)))]
async fn put(
    State(app): State<AppState>,
    Segments(path): Segments<OneProject>,
    Json(request): Json<QuotaUpdate>,
) -> Result<Response> {
    let id = tenant_id(&app, &path.project).await?;
    let given: Vec<_> = request
        .quotas
        .into_iter()
        .filter_map(|(name, limit)| Some((name, limit?)))
        .collect();
    project::set_quotas(&app, &id, &given).await?;
    let quotas = given
        .into_iter()
        .map(|(name, limit)| (name, Some(limit)))
        .collect();
    Ok(ok(&QuotaUpdate { quotas }))
}

/// The project that a path names, which has to be there: a limit for nobody would lie.
async fn tenant_id(app: &AppState, text: &str) -> Result<TenantId> {
    Ok(project::get(app, text).await?.id)
}
