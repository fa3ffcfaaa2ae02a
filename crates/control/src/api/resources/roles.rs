//! Roles and who holds them, for the operator.

use axum::extract::State;
use axum::response::Response;
use coffer_core::name::Name;
use coffer_wire::rest::v1::admin::{AssignmentList, Role, RoleEnvelope, RoleList};
use http::StatusCode;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::extract::{Json, Segments};
use crate::api::links::Page;
use crate::api::respond::{empty, ok};
use crate::api::views::accounts as views;
use crate::app::{AppState, RequestContext, account};
use crate::error::Result;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, post))
        .routes(routes!(show, delete))
        .routes(routes!(list_assignments))
        .routes(routes!(assign, revoke))
}

#[derive(Debug, Deserialize)]
struct OneRole {
    role: String,
}

#[derive(Debug, Deserialize)]
struct OneAssignment {
    project: String,
    user: String,
    role: String,
}

/// Every role.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/roles", tag = "operator",
    responses((status = 200, body = RoleList)))]
async fn list(State(app): State<AppState>) -> Result<Response> {
    let names = account::list_roles(&app).await?;
    Ok(ok(&RoleList {
        roles: names.into_iter().map(|name| Role { name }).collect(),
    }))
}

/// Makes a role.
#[utoipa::path(post, path = "/v1.0/{project_id}/admin/roles", tag = "operator",
    request_body = RoleEnvelope, responses((status = 200, body = RoleEnvelope)))]
async fn post(State(app): State<AppState>, Json(request): Json<RoleEnvelope>) -> Result<Response> {
    let name = Name::parse("role['name']", &request.role.name)?;
    account::create_role(&app, &name).await?;
    Ok(ok(&request))
}

/// One role.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/roles/{role}", tag = "operator",
    params(("role" = String, Path)), responses((status = 200, body = RoleEnvelope)))]
async fn show(State(app): State<AppState>, Segments(path): Segments<OneRole>) -> Result<Response> {
    let name = account::get_role(&app, &path.role).await?;
    Ok(ok(&RoleEnvelope {
        role: Role { name },
    }))
}

/// Deletes a role that nobody holds.
#[utoipa::path(delete, path = "/v1.0/{project_id}/admin/roles/{role}", tag = "operator",
    params(("role" = String, Path)), responses((status = 204)))]
async fn delete(
    State(app): State<AppState>,
    Segments(path): Segments<OneRole>,
) -> Result<Response> {
    account::delete_role(&app, &path.role).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Roles that a user holds, or that are held in a project, or both.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/assignments", tag = "operator",
    params(("user" = Option<String>, Query), ("project" = Option<String>, Query)),
    responses((status = 200, body = AssignmentList)))]
async fn list_assignments(State(app): State<AppState>, page: Page) -> Result<Response> {
    let (user, project) = (page.parameter("user"), page.parameter("project"));
    let all = account::assignments(&app, user, project).await?;
    Ok(ok(&AssignmentList {
        assignments: all.iter().map(views::assignment).collect(),
    }))
}

/// Gives a user a role in a project.
#[utoipa::path(put,
    path = "/v1.0/{project_id}/admin/projects/{project}/users/{user}/roles/{role}",
    tag = "operator",
    params(("project" = String, Path), ("user" = String, Path), ("role" = String, Path)),
    responses((status = 204)))]
async fn assign(
    State(app): State<AppState>,
    Segments(path): Segments<OneAssignment>,
) -> Result<Response> {
    account::assign(&app, &path.user, &path.project, &path.role).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Takes a role from a user.
#[utoipa::path(delete,
    path = "/v1.0/{project_id}/admin/projects/{project}/users/{user}/roles/{role}",
    tag = "operator",
    params(("project" = String, Path), ("user" = String, Path), ("role" = String, Path)),
    responses((status = 204)))]
async fn revoke(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneAssignment>,
) -> Result<Response> {
    account::revoke(
        &app,
        &context.session,
        &path.user,
        &path.project,
        &path.role,
    )
    .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
