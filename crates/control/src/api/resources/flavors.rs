//! Flavors, as tenants read them.

use axum::extract::State;
use axum::response::Response;
use coffer_wire::rest::v1::flavor::{FlavorEnvelope, FlavorList};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::extract::Segments;
use crate::api::links::Links;
use crate::api::respond::ok;
use crate::api::views::offers;
use crate::app::{AppState, RequestContext, catalogue};
use crate::error::Result;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
}

#[derive(Debug, Deserialize)]
struct OneFlavor {
    flavor: String,
}

/// The flavors.
#[utoipa::path(get, path = "/v1.0/{project_id}/flavors", tag = "flavors",
    responses((status = 200, body = FlavorList)))]
async fn list(State(app): State<AppState>, context: RequestContext) -> Result<Response> {
    let links = Links::new(&app, &context);
    let flavors = catalogue::list_flavors(&app).await?;
    let flavors = flavors
        .iter()
        .map(|flavor| offers::flavor(flavor, &links))
        .collect();
    Ok(ok(&FlavorList { flavors }))
}

/// One flavor, by id.
#[utoipa::path(get, path = "/v1.0/{project_id}/flavors/{flavor}", tag = "flavors",
    params(("flavor" = String, Path)), responses((status = 200, body = FlavorEnvelope)))]
async fn show(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneFlavor>,
) -> Result<Response> {
    let flavor = catalogue::get_flavor(&app, &path.flavor).await?;
    let links = Links::new(&app, &context);
    Ok(ok(&FlavorEnvelope {
        flavor: offers::flavor(&flavor, &links),
    }))
}
