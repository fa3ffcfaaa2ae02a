//! Instances of all projects, for admins.

use axum::extract::State;
use axum::response::Response;
use coffer_store::instance::InstanceFilter;
use coffer_wire::rest::v1::instance::{InstanceEnvelope, InstanceList};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::instances::OneInstance;
use crate::api::extract::Segments;
use crate::api::links::{Links, Page};
use crate::api::missing::not_there;
use crate::api::respond::ok;
use crate::api::views::instances::{Detail, managed};
use crate::app::{AppState, RequestContext, instance};
use crate::error::{Error, Result};
use crate::limits;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
}

/// The instances of all projects, or of one.
#[utoipa::path(get, path = "/v1.0/{project_id}/mgmt/instances", tag = "management",
    params(("project_id" = Option<String>, Query), ("deleted" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("marker" = Option<String>, Query)),
    responses((status = 200, body = InstanceList)))]
async fn list(
    State(app): State<AppState>,
    context: RequestContext,
    mut page: Page,
) -> Result<Response> {
    if page.parameter("deleted").is_some_and(is_yes) {
        return Err(not_there(
            "deleted instances are not listed: the audit trail names them",
        ));
    }
    let tenant = page.parameter("project_id").map(str::parse).transpose();
    let tenant = tenant.map_err(|_| Error::invalid("project_id is no id of a project"))?;
    page.limit = page.limit_up_to(limits::MANAGEMENT_PAGE);
    let filter = InstanceFilter { tenant };
    let (rows, next) = instance::page(&app, &filter, page.id()?, page.limit).await?;
    let links = Links::new(&app, &context);
    let next = links.next(&page, next.map(|id| id.to_string()).as_deref());
    let instances = rows
        .iter()
        .rev()
        .map(|row| managed(row, &links, Detail::Full))
        .collect();
    Ok(ok(&InstanceList {
        instances,
        links: next.clone(),
        instances_links: next,
    }))
}

/// Python clients write booleans as Python does.
fn is_yes(text: &str) -> bool {
    matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "1" | "yes" | "on"
    )
}

/// One instance of whichever project.
#[utoipa::path(get, path = "/v1.0/{project_id}/mgmt/instances/{instance_id}",
    tag = "management", params(("instance_id" = String, Path)),
    responses((status = 200, body = InstanceEnvelope)))]
async fn show(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let links = Links::new(&app, &context);
    Ok(ok(&InstanceEnvelope {
        instance: managed(&view, &links, Detail::Full),
    }))
}
