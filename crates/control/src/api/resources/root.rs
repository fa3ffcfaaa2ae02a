//! Access as the engine's superuser.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use coffer_core::secret::Secret;
use coffer_wire::rest::v1::root::{EnableRootRequest, RootEnvelope, RootStatus, RootUser};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::instances::OneInstance;
use crate::api::extract::{MaybeJson, Segments};
use crate::api::respond::{empty, ok};
use crate::api::rules::PREFIX;
use crate::app::{AppState, RequestContext, instance, inventory};
use crate::error::Result;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(show, post, delete))
}

/// Trove's router takes the action's name behind the path.
pub(in crate::api) fn aliases() -> Router<AppState> {
    let path = format!("{PREFIX}/instances/{{instance_id}}/root/delete");
    Router::new().route(&path, axum::routing::delete(delete))
}

/// Whether the superuser may log in.
#[utoipa::path(get, path = "/v1.0/{project_id}/instances/{instance_id}/root", tag = "root",
    params(("instance_id" = String, Path)), responses((status = 200, body = RootStatus)))]
async fn show(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let root_enabled = inventory::is_root_enabled(&app, &view).await?;
    Ok(ok(&RootStatus { root_enabled }))
}

/// Lets the superuser log in with a new password, shown this once.
#[utoipa::path(post, path = "/v1.0/{project_id}/instances/{instance_id}/root", tag = "root",
    params(("instance_id" = String, Path)), request_body = Option<EnableRootRequest>,
    responses((status = 200, body = RootEnvelope)))]
async fn post(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    MaybeJson(request): MaybeJson<EnableRootRequest>,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let password = request
        .and_then(|request| request.password)
        .map(Secret::new);
    let (name, password) = inventory::enable_root(&app, &context, &view, password).await?;
    let user = RootUser {
        name: name.to_owned(),
        password: password.expose().to_owned(),
    };
    Ok(ok(&RootEnvelope { user }))
}

/// Lets the superuser log in no more.
#[utoipa::path(delete, path = "/v1.0/{project_id}/instances/{instance_id}/root", tag = "root",
    params(("instance_id" = String, Path)), responses((status = 204)))]
async fn delete(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    inventory::disable_root(&app, &context, &view).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
