//! Users of the API, for the operator.

use axum::extract::State;
use axum::response::Response;
use coffer_core::name::Name;
use coffer_core::secret::Secret;
use coffer_wire::rest::v1::admin::{
    ApiUserEnvelope, ApiUserList, ApiUserUpdateRequest, NewApiUserRequest,
};
use http::StatusCode;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::extract::{Json, Segments};
use crate::api::links::{Links, Page};
use crate::api::respond::{empty, ok};
use crate::api::views::accounts as views;
use crate::app::account::{self, Change, NewUser};
use crate::app::{AppState, RequestContext};
use crate::error::Result;
use crate::limits;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, post))
        .routes(routes!(show, patch, delete))
}

#[derive(Debug, Deserialize)]
struct OneUser {
    user: String,
}

/// Users of the API, in pages by name; the parameter `name` picks one.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/users", tag = "operator",
    params(("name" = Option<String>, Query), ("limit" = Option<u32>, Query),
        ("marker" = Option<String>, Query)),
    responses((status = 200, body = ApiUserList)))]
async fn list(
    State(app): State<AppState>,
    context: RequestContext,
    mut page: Page,
) -> Result<Response> {
    page.limit = page.limit_up_to(limits::HISTORY_PAGE);
    let (all, next) = match page.parameter("name") {
        Some(name) => (
            account::find_by_name(&app, name)
                .await?
                .into_iter()
                .collect(),
            None,
        ),
        None => account::list(&app, page.marker.as_deref(), page.limit).await?,
    };
    Ok(ok(&ApiUserList {
        users: all.iter().map(views::user).collect(),
        links: Links::new(&app, &context).next(&page, next.as_deref()),
    }))
}

/// Makes a user of the API.
#[utoipa::path(post, path = "/v1.0/{project_id}/admin/users", tag = "operator",
    request_body = NewApiUserRequest, responses((status = 200, body = ApiUserEnvelope)))]
async fn post(
    State(app): State<AppState>,
    Json(request): Json<NewApiUserRequest>,
) -> Result<Response> {
    let new = NewUser {
        name: Name::parse("user['name']", &request.user.name)?,
        password: Secret::new(request.user.password),
        default_project: request.user.default_project_id,
    };
    let user = account::create(&app, new).await?;
    Ok(ok(&ApiUserEnvelope {
        user: views::user(&user),
    }))
}

/// One user of the API.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/users/{user}", tag = "operator",
    params(("user" = String, Path)), responses((status = 200, body = ApiUserEnvelope)))]
async fn show(State(app): State<AppState>, Segments(path): Segments<OneUser>) -> Result<Response> {
    let user = account::get(&app, &path.user).await?;
    Ok(ok(&ApiUserEnvelope {
        user: views::user(&user),
    }))
}

/// Changes a user of the API.
#[utoipa::path(patch, path = "/v1.0/{project_id}/admin/users/{user}", tag = "operator",
    params(("user" = String, Path)), request_body = ApiUserUpdateRequest,
    responses((status = 200, body = ApiUserEnvelope)))]
async fn patch(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneUser>,
    Json(request): Json<ApiUserUpdateRequest>,
) -> Result<Response> {
    let asked = request.user;
    let change = Change {
        name: asked
            .name
            .map(|name| Name::parse("user['name']", &name))
            .transpose()?,
        password: asked.password.map(Secret::new),
        is_enabled: asked.enabled,
        default_project: asked.default_project_id,
    };
    let user = account::update(&app, &context.session, &path.user, change).await?;
    Ok(ok(&ApiUserEnvelope {
        user: views::user(&user),
    }))
}

/// Deletes a user of the API with its tokens and roles.
#[utoipa::path(delete, path = "/v1.0/{project_id}/admin/users/{user}", tag = "operator",
    params(("user" = String, Path)), responses((status = 204)))]
async fn delete(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneUser>,
) -> Result<Response> {
    account::delete(&app, &context.session, &path.user).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
