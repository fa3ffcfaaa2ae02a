//! What a user inside an instance is granted.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use coffer_wire::rest::v1::database::GrantRequest;
use coffer_wire::rest::v1::user::GrantList;
use http::StatusCode;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::users::OneUser;
use crate::api::extract::{Json, Segments};
use crate::api::respond::{empty, ok};
use crate::api::router::no_route;
use crate::api::rules::PREFIX;
use crate::api::views::inventory::named;
use crate::app::inventory::{self, UserName};
use crate::app::{AppState, RequestContext, instance};
use crate::error::Result;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, put))
        .routes(routes!(delete))
}

#[derive(Debug, Deserialize)]
struct OneGrant {
    instance_id: String,
    user: String,
    name: String,
}

/// Trove's router takes the action's name behind the path.
pub(in crate::api) fn aliases() -> Router<AppState> {
    let path = format!("{PREFIX}/instances/{{instance_id}}/users/{{user}}/databases/{{name}}");
    Router::new().route(&path, axum::routing::put(put_alias))
}

/// The databases that a user is granted.
#[utoipa::path(get, path = "/v1.0/{project_id}/instances/{instance_id}/users/{user}/databases",
    tag = "users", params(("instance_id" = String, Path), ("user" = String, Path)),
    responses((status = 200, body = GrantList)))]
async fn list(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneUser>,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let name = UserName::parse(&view, &path.user);
    let user = inventory::get_user(&app, &view, &name).await?;
    Ok(ok(&GrantList {
        databases: named(&user.databases),
    }))
}

/// Grants databases beside those the user has.
#[utoipa::path(put, path = "/v1.0/{project_id}/instances/{instance_id}/users/{user}/databases",
    tag = "users", params(("instance_id" = String, Path), ("user" = String, Path)),
    request_body = GrantRequest, responses((status = 202)))]
async fn put(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneUser>,
    Json(request): Json<GrantRequest>,
) -> Result<Response> {
    granted(&app, &context, path, request).await
}

async fn put_alias(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneGrant>,
    Json(request): Json<GrantRequest>,
) -> Result<Response> {
    if path.name != "update" {
        return Err(no_route());
    }
    let user = OneUser {
        instance_id: path.instance_id,
        user: path.user,
    };
    granted(&app, &context, user, request).await
}

async fn granted(
    app: &AppState,
    context: &RequestContext,
    path: OneUser,
    request: GrantRequest,
) -> Result<Response> {
    let view = instance::get(app, context, &path.instance_id).await?;
    let name = UserName::parse(&view, &path.user);
    let databases = request
        .databases
        .into_iter()
        .map(|database| database.name)
        .collect();
    inventory::grant(app, context, &view, &name, databases).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Takes a database from a user.
#[utoipa::path(delete,
    path = "/v1.0/{project_id}/instances/{instance_id}/users/{user}/databases/{name}",
    tag = "users",
    params(("instance_id" = String, Path), ("user" = String, Path), ("name" = String, Path)),
    responses((status = 202)))]
async fn delete(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneGrant>,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let name = UserName::parse(&view, &path.user);
    inventory::revoke(&app, &context, &view, &name, &path.name).await?;
    Ok(empty(StatusCode::ACCEPTED))
}
