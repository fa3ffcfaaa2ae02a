//! Why an instance is as it is, and what happened to it.

use axum::extract::State;
use axum::response::Response;
use coffer_wire::rest::v1::event::EventList;
use coffer_wire::rest::v1::explain::ExplainEnvelope;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::instances::OneInstance;
use crate::api::extract::Segments;
use crate::api::links::{Links, Page};
use crate::api::respond::ok;
use crate::api::views;
use crate::app::{AppState, RequestContext, explain, instance};
use crate::error::Result;
use crate::limits;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(show))
        .routes(routes!(events))
}

/// Why the instance is as it is, in words and in fields.
#[utoipa::path(get, path = "/v1.0/{project_id}/instances/{instance_id}/explain",
    tag = "instances", params(("instance_id" = String, Path)),
    responses((status = 200, body = ExplainEnvelope)))]
async fn show(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let found = explain::explain(&app, view).await?;
    let explanation = views::explain::explanation(&found, context.is_admin());
    Ok(ok(&ExplainEnvelope { explanation }))
}

/// What happened to the instance, oldest first, 100 on a page.
#[utoipa::path(get, path = "/v1.0/{project_id}/instances/{instance_id}/events",
    tag = "instances",
    params(("instance_id" = String, Path), ("limit" = Option<u32>, Query),
        ("marker" = Option<String>, Query)),
    responses((status = 200, body = EventList)))]
async fn events(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    page: Page,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let limit = page.limit_up_to(limits::HISTORY_PAGE);
    let (rows, next) = explain::events(&app, view.instance.id, page.id()?, limit).await?;
    let next = next.map(|id| id.to_string());
    Ok(ok(&EventList {
        events: rows.iter().map(views::history::event).collect(),
        links: Links::new(&app, &context).next(&page, next.as_deref()),
    }))
}
