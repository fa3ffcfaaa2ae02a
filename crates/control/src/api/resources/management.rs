//! Instances of all projects, for admins.

use axum::extract::State;
use axum::response::Response;
use coffer_core::name::shown;
use coffer_store::instance::ManagedFilter;
use coffer_wire::rest::v1::action::ManagementActionRequest;
use coffer_wire::rest::v1::instance::{InstanceEnvelope, InstanceList, RootHistoryEnvelope};
use http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::actions::{bad_action, no_options};
use super::instances::OneInstance;
use crate::api::extract::{Json, Segments};
use crate::api::links::{Links, Page};
use crate::api::missing::not_there;
use crate::api::respond::{empty, ok};
use crate::api::views::instances::{managed, managed_detail, root_history};
use crate::app::{AppState, RequestContext, instance};
use crate::error::{Error, Result};
use crate::limits;

/// What this version has not, with the reason.
const MISSING: &[(&str, &str)] = &[
    (
        "reboot",
        "rebooting is not there yet; restart is an action of /instances",
    ),
    (
        "migrate",
        "migration is not there yet: this Coffer has one host",
    ),
    (
        "rebuild",
        "rebuilding is not there yet: create the instance again",
    ),
];

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(action))
        .routes(routes!(root))
}

/// The instances of all projects, or of one, the ones that changed last first; deleted ones too,
/// unless `deleted` is false.
#[utoipa::path(get, path = "/v1.0/{project_id}/mgmt/instances", tag = "management",
    params(("project_id" = Option<String>, Query), ("deleted" = Option<String>, Query),
        ("limit" = Option<u32>, Query), ("marker" = Option<String>, Query)),
    responses((status = 200, body = InstanceList)))]
async fn list(
    State(app): State<AppState>,
    context: RequestContext,
    mut page: Page,
) -> Result<Response> {
    let tenant = page.parameter("project_id").map(str::parse).transpose();
    let tenant = tenant.map_err(|_| Error::invalid("project_id is no id of a project"))?;
    page.limit = page.limit_up_to(limits::MANAGEMENT_PAGE);
    let filter = ManagedFilter {
        tenant,
        is_deleted: page.parameter("deleted").and_then(truth),
    };
    let offset = page.offset()?;
    let mut rows = instance::list_managed(&app, &filter, offset, page.limit).await?;
    let links = Links::new(&app, &context);
    // As in Trove: a full page has a next one, even where nothing follows.
    let is_full = rows.len() == page.limit as usize;
    let next = is_full.then(|| (offset + u64::from(page.limit)).to_string());
    let next = links.next(&page, next.as_deref());
    rows.sort_by_key(|row| std::cmp::Reverse(row.view.instance.created_at));
    Ok(ok(&InstanceList {
        instances: rows.iter().map(|row| managed(row, &links)).collect(),
        links: next.clone(),
        instances_links: next,
    }))
}

/// Python clients write booleans as Python does; what is neither word is as if it were not there.
fn truth(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// One instance of whichever project; a deleted one with `deleted=true`.
#[utoipa::path(get, path = "/v1.0/{project_id}/mgmt/instances/{instance_id}",
    tag = "management",
    params(("instance_id" = String, Path), ("deleted" = Option<String>, Query)),
    responses((status = 200, body = InstanceEnvelope)))]
async fn show(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    page: Page,
) -> Result<Response> {
    let with_deleted = page.parameter("deleted").and_then(truth) == Some(true);
    let found = instance::get_managed(&app, &path.instance_id, with_deleted).await?;
    let links = Links::new(&app, &context);
    Ok(ok(&InstanceEnvelope {
        instance: managed_detail(&found, &links),
    }))
}

/// Does one thing to an instance of whichever project: `stop` stops it until it is started,
/// `reset-task-status` cancels what is under way.
#[utoipa::path(post, path = "/v1.0/{project_id}/mgmt/instances/{instance_id}/action",
    tag = "management", params(("instance_id" = String, Path)),
    request_body = ManagementActionRequest, responses((status = 202)))]
async fn action(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    Json(ManagementActionRequest(request)): Json<ManagementActionRequest>,
) -> Result<Response> {
    let is_known = |name: &str| {
        matches!(name, "stop" | "reset-task-status")
            || MISSING.iter().any(|(missing, _)| *missing == name)
    };
    if let Some(unknown) = request.keys().find(|name| !is_known(name)) {
        return Err(bad_action(format!(
            "Invalid instance action: {}",
            shown(unknown)
        )));
    }
    let mut asked = request.iter();
    let (Some((name, value)), None) = (asked.next(), asked.next()) else {
        return Err(bad_action(match request.is_empty() {
            true => "Invalid request body.",
            false => "Only one action can be specified per request.",
        }));
    };
    let view = instance::get(&app, &context, &path.instance_id).await?;
    if let Some((_, why)) = MISSING.iter().find(|(missing, _)| missing == name) {
        return Err(not_there(why));
    }
    no_options(name, value)?;
    let audited = &context.audit.action;
    if name == "stop" {
        audited.get_or_init(|| "mgmt:instance:stop");
        instance::stop(&app, &context, &view).await?;
    } else {
        audited.get_or_init(|| "mgmt:instance:reset_task_status");
        instance::reset_status(&app, &context, &view).await?;
    }
    Ok(empty(StatusCode::ACCEPTED))
}

/// When root of an instance was enabled, and by whom.
#[utoipa::path(get, path = "/v1.0/{project_id}/mgmt/instances/{instance_id}/root",
    tag = "management", params(("instance_id" = String, Path)),
    responses((status = 200, body = RootHistoryEnvelope)))]
async fn root(
    State(app): State<AppState>,
    Segments(path): Segments<OneInstance>,
) -> Result<Response> {
    let found = instance::get_managed(&app, &path.instance_id, false).await?;
    Ok(ok(&RootHistoryEnvelope {
        root_history: root_history(&found),
    }))
}
