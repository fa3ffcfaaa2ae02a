//! Users inside an instance.

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use coffer_core::secret::Secret;
use coffer_wire::rest::v1::user::{
    CreateUsersRequest, NewUser, PasswordsRequest, UpdateUserRequest, UserEnvelope, UserList,
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::instances::OneInstance;
use crate::api::extract::{Json, Segments, decoded};
use crate::api::links::{Links, Page};
use crate::api::respond::{empty, ok};
use crate::api::rules::PREFIX;
use crate::api::views::inventory::user as shown;
use crate::app::commands::WantedUser;
use crate::app::inventory::{Change, UserName};
use crate::app::{AppState, RequestContext, instance, inventory};
use crate::error::{Error, Result};

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, post, put_all))
        .routes(routes!(show, put, delete))
}

/// Other ways to the same: openstacksdk makes a user by posting to its name, and Trove's router
/// takes the action's name behind the path.
pub(in crate::api) fn aliases() -> Router<AppState> {
    let path = format!("{PREFIX}/instances/{{instance_id}}/users/{{user}}");
    Router::new()
        .route(&path, axum::routing::post(post_named))
        .route(&format!("{path}/update"), axum::routing::put(put))
}

/// Where a user would stand, the alias of setting passwords.
const UPDATE_ALL: &str = "update_all";

#[derive(Debug, Deserialize)]
pub(in crate::api) struct OneUser {
    pub(in crate::api) instance_id: String,
    pub(in crate::api) user: String,
}

/// A user of a request, not checked yet.
pub(in crate::api) fn wanted_user(user: NewUser) -> WantedUser {
    let databases = user.databases.unwrap_or_default();
    WantedUser {
        name: user.name,
        host: user.host.filter(|host| !host.is_empty()),
        password: Secret::new(user.password),
        databases: databases
            .into_iter()
            .map(|database| database.name)
            .collect(),
    }
}

/// The users of an instance with what they are granted, 20 on a page.
#[utoipa::path(get, path = "/v1.0/{project_id}/instances/{instance_id}/users", tag = "users",
    params(("instance_id" = String, Path), ("limit" = Option<u32>, Query),
        ("marker" = Option<String>, Query)),
    responses((status = 200, body = UserList)))]
async fn list(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    page: Page,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let page = page.usual();
    let marker = page.marker.as_deref();
    let (rows, next) = inventory::list_users(&app, &view, marker, page.limit).await?;
    let next = Links::new(&app, &context).next(&page, next.as_deref());
    let users = rows.iter().map(shown).collect();
    Ok(ok(&UserList {
        users,
        links: next.clone(),
        users_links: next,
    }))
}

/// Makes users.
#[utoipa::path(post, path = "/v1.0/{project_id}/instances/{instance_id}/users", tag = "users",
    params(("instance_id" = String, Path)), request_body = CreateUsersRequest,
    responses((status = 202)))]
async fn post(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    Json(request): Json<CreateUsersRequest>,
) -> Result<Response> {
    create(&app, &context, &path.instance_id, request).await
}

async fn post_named(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneUser>,
    Json(request): Json<CreateUsersRequest>,
) -> Result<Response> {
    create(&app, &context, &path.instance_id, request).await
}

async fn create(
    app: &AppState,
    context: &RequestContext,
    instance_id: &str,
    request: CreateUsersRequest,
) -> Result<Response> {
    let list = request
        .users
        .or(request.user)
        .ok_or_else(|| Error::invalid("'users' is a required property"))?;
    let view = instance::get(app, context, instance_id).await?;
    let wanted: Vec<_> = list.0.into_iter().map(wanted_user).collect();
    inventory::create_users(app, context, &view, &wanted).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Sets passwords of users.
#[utoipa::path(put, path = "/v1.0/{project_id}/instances/{instance_id}/users", tag = "users",
    params(("instance_id" = String, Path)), request_body = PasswordsRequest,
    responses((status = 202)))]
async fn put_all(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    Json(request): Json<PasswordsRequest>,
) -> Result<Response> {
    set_passwords(&app, &context, &path.instance_id, request).await
}

async fn set_passwords(
    app: &AppState,
    context: &RequestContext,
    instance_id: &str,
    request: PasswordsRequest,
) -> Result<Response> {
    let view = instance::get(app, context, instance_id).await?;
    let count = request.users.len();
    if !(1..=crate::limits::CONTENT_ITEMS_MAX).contains(&count) {
        return Err(Error::invalid(format!("users has {count} elements")));
    }
    let changes: Vec<_> = request
        .users
        .into_iter()
        .map(|user| {
            let name = UserName {
                name: user.name,
                host: user.host.filter(|h| !h.is_empty()),
            };
            (name, Secret::new(user.password))
        })
        .collect();
    inventory::set_passwords(app, context, &view, &changes).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// One user.
#[utoipa::path(get, path = "/v1.0/{project_id}/instances/{instance_id}/users/{user}",
    tag = "users", params(("instance_id" = String, Path), ("user" = String, Path)),
    responses((status = 200, body = UserEnvelope)))]
async fn show(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneUser>,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let name = UserName::parse(&view, &path.user);
    let user = inventory::get_user(&app, &view, &name).await?;
    Ok(ok(&UserEnvelope { user: shown(&user) }))
}

/// Changes a user's name, password or host.
#[utoipa::path(put, path = "/v1.0/{project_id}/instances/{instance_id}/users/{user}",
    tag = "users", params(("instance_id" = String, Path), ("user" = String, Path)),
    request_body = UpdateUserRequest, responses((status = 202)))]
async fn put(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneUser>,
    Json(body): Json<Value>,
) -> Result<Response> {
    if path.user == UPDATE_ALL && body.get("users").is_some() {
        return set_passwords(&app, &context, &path.instance_id, decoded(&body)?).await;
    }
    let asked = decoded::<UpdateUserRequest>(&body)?.user;
    if asked.name.is_none() && asked.password.is_none() && asked.host.is_none() {
        return Err(Error::invalid("user {} does not have enough properties"));
    }
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let name = UserName::parse(&view, &path.user);
    let change = Change {
        name: asked.name,
        password: asked.password.map(Secret::new),
        host: asked.host,
    };
    inventory::change_user(&app, &context, &view, &name, &change).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Drops a user.
#[utoipa::path(delete, path = "/v1.0/{project_id}/instances/{instance_id}/users/{user}",
    tag = "users", params(("instance_id" = String, Path), ("user" = String, Path)),
    responses((status = 202)))]
async fn delete(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneUser>,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let name = UserName::parse(&view, &path.user);
    inventory::delete_user(&app, &context, &view, &name).await?;
    Ok(empty(StatusCode::ACCEPTED))
}
