//! Actions on an instance.

use axum::extract::State;
use axum::response::Response;
use coffer_wire::rest::v1::action::ActionRequest;
use http::StatusCode;
use serde_json::Value;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::instances::OneInstance;
use crate::api::extract::{Json, Segments};
use crate::api::missing::not_there;
use crate::api::respond::empty;
use crate::app::policy::{Rule, authorise};
use crate::app::{AppState, RequestContext, instance};
use crate::error::{Error, Kind, Result};

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(post))
}

/// Does one thing to an instance.
#[utoipa::path(post, path = "/v1.0/{project_id}/instances/{instance_id}/action",
    tag = "instances", params(("instance_id" = String, Path)), request_body = ActionRequest,
    responses((status = 202)))]
async fn post(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    Json(request): Json<ActionRequest>,
) -> Result<Response> {
    let (action, value) = one(&request)?;
    let rule = rule(action, value);
    context.audit.action.get_or_init(|| rule.name);
    authorise(&context.session, rule, true)?;
    let view = instance::get(&app, &context, &path.instance_id).await?;
    match action {
        "restart" => {
            no_options(action, value)?;
            instance::restart(&app, &context, &view).await?;
        }
        "stop" => {
            no_options(action, value)?;
            instance::stop(&app, &context, &view).await?;
        }
        "start" => {
            no_options(action, value)?;
            instance::start(&app, &context, &view).await?;
        }
        "reset_status" => {
            no_options(action, &without_force(value))?;
            instance::reset_status(&app, &context, &view).await?;
        }
        "resize" => return Err(not_there("resizing is not there yet")),
        _ => {
            let kind = match action {
                "eject_replica_source" => "replica source",
                _ => "replica",
            };
            let message = format!("Instance {} is not a {kind}.", view.instance.id);
            return Err(Error::new(Kind::BadRequest, "no-replicas", message));
        }
    }
    Ok(empty(StatusCode::ACCEPTED))
}

/// The one action that a body names.
fn one(request: &ActionRequest) -> Result<(&'static str, &Value)> {
    match request.given().as_slice() {
        [(action, value)] => Ok((action, value)),
        [] => Err(bad_action("Invalid request body.")),
        _ => Err(bad_action("Only one action can be specified per request.")),
    }
}

/// A body that names no action, or none that there is.
pub(in crate::api) fn bad_action(message: impl Into<String>) -> Error {
    Error::new(Kind::BadRequest, "invalid", message)
}

/// Whether a reset is asked for before a delete, which the owner may do.
fn is_forced(value: &Value) -> bool {
    value.get("force_delete").is_some()
}

fn without_force(value: &Value) -> Value {
    let mut rest = value.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.remove("force_delete");
    }
    rest
}

fn rule(action: &str, value: &Value) -> Rule {
    match action {
        "reset_status" if is_forced(value) => Rule::project("instance:force_delete"),
        "restart" => Rule::project("instance:restart"),
        "stop" => Rule::project("instance:stop"),
        "start" => Rule::project("instance:start"),
        "resize" => Rule::project("instance:resize_flavor"),
        "promote_to_replica_source" => Rule::project("instance:promote_to_replica_source"),
        "eject_replica_source" => Rule::project("instance:eject_replica_source"),
        _ => Rule::admin("instance:reset_status"),
    }
}

/// `{}`; some clients send `null` for it.
pub(in crate::api) fn no_options(action: &str, value: &Value) -> Result<()> {
    match value {
        Value::Null => Ok(()),
        Value::Object(options) if options.is_empty() => Ok(()),
        _ => Err(Error::invalid(format!("{action} takes an empty object"))),
    }
}
