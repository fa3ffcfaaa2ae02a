//! The audit trail, for the operator.

use axum::extract::State;
use axum::response::Response;
use coffer_wire::rest::v1::event::AuditList;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::links::{Links, Page};
use crate::api::respond::ok;
use crate::api::views::history;
use crate::app::{AppState, RequestContext, explain};
use crate::error::{Error, Result};
use crate::limits;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// Who did what, oldest first, 100 on a page; the parameter `project` picks one project.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/audit", tag = "operator",
    params(("project" = Option<String>, Query), ("limit" = Option<u32>, Query),
        ("marker" = Option<String>, Query)),
    responses((status = 200, body = AuditList)))]
async fn list(
    State(app): State<AppState>,
    context: RequestContext,
    page: Page,
) -> Result<Response> {
    let tenant = page.parameter("project").map(str::parse).transpose();
    let tenant = tenant.map_err(|_| Error::invalid("project is no id of a project"))?;
    let limit = page.limit_up_to(limits::HISTORY_PAGE);
    let (rows, next) = explain::audit(&app, tenant.as_ref(), page.id()?, limit).await?;
    let next = next.map(|id| id.to_string());
    Ok(ok(&AuditList {
        audit: rows.iter().map(history::audit).collect(),
        links: Links::new(&app, &context).next(&page, next.as_deref()),
    }))
}
