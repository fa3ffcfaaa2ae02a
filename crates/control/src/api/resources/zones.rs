//! Availability zones, for the operator.

use axum::extract::State;
use axum::response::Response;
use coffer_core::name::Name;
use coffer_wire::rest::v1::admin::{NewZoneRequest, ZoneEnvelope, ZoneList};
use http::StatusCode;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::extract::{Json, Segments};
use crate::api::respond::{empty, ok};
use crate::api::views::offers as views;
use crate::app::{AppState, catalogue};
use crate::error::Result;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, post))
        .routes(routes!(show, patch, delete))
}

#[derive(Debug, Deserialize)]
struct OneZone {
    name: String,
}

/// Every zone.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/zones", tag = "operator",
    responses((status = 200, body = ZoneList)))]
async fn list(State(app): State<AppState>) -> Result<Response> {
    let zones = catalogue::list_zones(&app).await?;
    Ok(ok(&ZoneList {
        zones: zones.iter().map(views::zone).collect(),
    }))
}

/// Makes a zone.
#[utoipa::path(post, path = "/v1.0/{project_id}/admin/zones", tag = "operator",
    request_body = NewZoneRequest, responses((status = 200, body = ZoneEnvelope)))]
async fn post(
    State(app): State<AppState>,
    Json(request): Json<NewZoneRequest>,
) -> Result<Response> {
    let name = Name::parse("zone['name']", &request.zone.name)?;
    let zone = catalogue::create_zone(&app, name).await?;
    Ok(ok(&ZoneEnvelope {
        zone: views::zone(&zone),
    }))
}

/// One zone.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/zones/{name}", tag = "operator",
    params(("name" = String, Path)), responses((status = 200, body = ZoneEnvelope)))]
async fn show(State(app): State<AppState>, Segments(path): Segments<OneZone>) -> Result<Response> {
    let zone = catalogue::get_zone(&app, &path.name).await?;
    Ok(ok(&ZoneEnvelope {
        zone: views::zone(&zone),
    }))
}

/// Gives a zone another name, which its instances then carry.
#[utoipa::path(patch, path = "/v1.0/{project_id}/admin/zones/{name}", tag = "operator",
    params(("name" = String, Path)), request_body = NewZoneRequest,
    responses((status = 200, body = ZoneEnvelope)))]
async fn patch(
    State(app): State<AppState>,
    Segments(path): Segments<OneZone>,
    Json(request): Json<NewZoneRequest>,
) -> Result<Response> {
    let name = Name::parse("zone['name']", &request.zone.name)?;
    let zone = catalogue::rename_zone(&app, &path.name, name).await?;
    Ok(ok(&ZoneEnvelope {
        zone: views::zone(&zone),
    }))
}

/// Deletes a zone that no instance names.
#[utoipa::path(delete, path = "/v1.0/{project_id}/admin/zones/{name}", tag = "operator",
    params(("name" = String, Path)), responses((status = 204)))]
async fn delete(
    State(app): State<AppState>,
    Segments(path): Segments<OneZone>,
) -> Result<Response> {
    catalogue::delete_zone(&app, &path.name).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
