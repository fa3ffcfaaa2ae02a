//! Projects, for the operator.

use axum::extract::State;
use axum::response::Response;
use coffer_core::name::Name;
use coffer_store::tenant::TenantChange;
use coffer_wire::rest::v1::admin::{
    NewProjectRequest, ProjectEnvelope, ProjectList, ProjectUpdateRequest,
};
use http::StatusCode;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::extract::{Json, Segments};
use crate::api::links::{Links, Page};
use crate::api::respond::{empty, ok};
use crate::api::views::accounts as views;
use crate::app::{AppState, RequestContext, project};
use crate::error::{Error, Result};
use crate::limits;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, post))
        .routes(routes!(show, patch, delete))
}

#[derive(Debug, Deserialize)]
struct OneProject {
    project: String,
}

/// Projects, in pages by name; the parameter `name` picks one.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/projects", tag = "operator",
    params(("name" = Option<String>, Query), ("limit" = Option<u32>, Query),
        ("marker" = Option<String>, Query)),
    responses((status = 200, body = ProjectList)))]
async fn list(
    State(app): State<AppState>,
    context: RequestContext,
    mut page: Page,
) -> Result<Response> {
    page.limit = page.limit_up_to(limits::HISTORY_PAGE);
    let (all, next) = match page.parameter("name") {
        Some(name) => (
            project::find_by_name(&app, name)
                .await?
                .into_iter()
                .collect(),
            None,
        ),
        None => project::list(&app, page.marker.as_deref(), page.limit).await?,
    };
    Ok(ok(&ProjectList {
        projects: all.iter().map(views::project).collect(),
        links: Links::new(&app, &context).next(&page, next.as_deref()),
    }))
}

/// Makes a project.
#[utoipa::path(post, path = "/v1.0/{project_id}/admin/projects", tag = "operator",
    request_body = NewProjectRequest, responses((status = 200, body = ProjectEnvelope)))]
async fn post(
    State(app): State<AppState>,
    Json(request): Json<NewProjectRequest>,
) -> Result<Response> {
    let name = Name::parse("project['name']", &request.project.name)?;
    let description = text("project['description']", request.project.description)?;
    let tenant = project::create(&app, name, description).await?;
    Ok(ok(&ProjectEnvelope {
        project: views::project(&tenant),
    }))
}

/// Free text of bounded length.
pub(in crate::api) fn text(field: &str, text: String) -> Result<String> {
    if text.chars().count() > 1_024 || text.contains('\0') {
        return Err(Error::invalid(format!(
            "{field} is longer than 1024 characters or has NUL"
        )));
    }
    Ok(text)
}

/// One project.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/projects/{project}", tag = "operator",
    params(("project" = String, Path)), responses((status = 200, body = ProjectEnvelope)))]
async fn show(
    State(app): State<AppState>,
    Segments(path): Segments<OneProject>,
) -> Result<Response> {
    let tenant = project::get(&app, &path.project).await?;
    Ok(ok(&ProjectEnvelope {
        project: views::project(&tenant),
    }))
}

/// Changes a project.
#[utoipa::path(patch, path = "/v1.0/{project_id}/admin/projects/{project}", tag = "operator",
    params(("project" = String, Path)), request_body = ProjectUpdateRequest,
    responses((status = 200, body = ProjectEnvelope)))]
async fn patch(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneProject>,
    Json(request): Json<ProjectUpdateRequest>,
) -> Result<Response> {
    let asked = request.project;
    let name = asked
        .name
        .map(|name| Name::parse("project['name']", &name))
        .transpose()?;
    let description = asked
        .description
        .map(|value| text("project['description']", value))
        .transpose()?;
    let change = TenantChange {
        name,
        description,
        is_enabled: asked.enabled,
    };
    let tenant = project::update(&app, &context.session, &path.project, change).await?;
    Ok(ok(&ProjectEnvelope {
        project: views::project(&tenant),
    }))
}

/// Deletes a project without instances.
#[utoipa::path(delete, path = "/v1.0/{project_id}/admin/projects/{project}", tag = "operator",
    params(("project" = String, Path)), responses((status = 204)))]
async fn delete(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneProject>,
) -> Result<Response> {
    project::delete(&app, &context.session, &path.project).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
