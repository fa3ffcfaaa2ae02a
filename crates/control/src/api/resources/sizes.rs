//! Flavors and volume types, for the operator.

use axum::extract::State;
use axum::response::Response;
use coffer_core::flavor::Flavor;
use coffer_core::name::Name;
use coffer_core::units::{BytesPerSecond, IoLimits, Iops};
use coffer_store::flavor::FlavorChange;
use coffer_store::volume_type::VolumeTypeChange;
use coffer_wire::rest::v1::admin::{
    FlavorUpdateRequest, NewFlavorRequest, NewVolumeTypeRequest, VolumeTypeEnvelope,
    VolumeTypeUpdateRequest,
};
use coffer_wire::rest::v1::flavor::{FlavorEnvelope, FlavorList, VolumeTypeList};
use http::StatusCode;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::projects::text;
use crate::api::extract::{Json, Segments};
use crate::api::links::Links;
use crate::api::respond::{empty, ok};
use crate::api::views::offers as views;
use crate::app::{AppState, RequestContext, catalogue};
use crate::error::Result;

const DESCRIPTION: &str = "volume_type['description']";
const READ_IOPS: &str = "volume_type['read_iops_sec']";
const WRITE_IOPS: &str = "volume_type['write_iops_sec']";
const READ_BYTES: &str = "volume_type['read_bytes_sec']";
const WRITE_BYTES: &str = "volume_type['write_bytes_sec']";

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list_flavors, post_flavor))
        .routes(routes!(show_flavor, patch_flavor, delete_flavor))
        .routes(routes!(list_volume_types, post_volume_type))
        .routes(routes!(
            show_volume_type,
            patch_volume_type,
            delete_volume_type
        ))
}

#[derive(Debug, Deserialize)]
struct OneFlavor {
    flavor: String,
}

#[derive(Debug, Deserialize)]
struct OneVolumeType {
    name: String,
}

/// Every flavor.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/flavors", tag = "operator",
    responses((status = 200, body = FlavorList)))]
async fn list_flavors(State(app): State<AppState>, context: RequestContext) -> Result<Response> {
    let links = Links::new(&app, &context);
    let flavors = catalogue::list_flavors(&app).await?;
    Ok(ok(&FlavorList {
        flavors: flavors
            .iter()
            .map(|one| views::flavor(one, &links))
            .collect(),
    }))
}

/// Makes a flavor.
#[utoipa::path(post, path = "/v1.0/{project_id}/admin/flavors", tag = "operator",
    request_body = NewFlavorRequest, responses((status = 200, body = FlavorEnvelope)))]
async fn post_flavor(
    State(app): State<AppState>,
    context: RequestContext,
    Json(request): Json<NewFlavorRequest>,
) -> Result<Response> {
    let asked = request.flavor;
    let flavor = Flavor {
        id: asked.id.parse()?,
        name: Name::parse("flavor['name']", &asked.name)?,
        memory_mib: asked.ram,
        vcpus: asked.vcpus,
        disk_gib: asked.disk,
        created_at: app.clock.now(),
    };
    let flavor = catalogue::create_flavor(&app, flavor).await?;
    Ok(ok(&FlavorEnvelope {
        flavor: views::flavor(&flavor, &Links::new(&app, &context)),
    }))
}

/// One flavor.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/flavors/{flavor}", tag = "operator",
    params(("flavor" = String, Path)), responses((status = 200, body = FlavorEnvelope)))]
async fn show_flavor(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneFlavor>,
) -> Result<Response> {
    let flavor = catalogue::get_flavor(&app, &path.flavor).await?;
    Ok(ok(&FlavorEnvelope {
        flavor: views::flavor(&flavor, &Links::new(&app, &context)),
    }))
}

/// Changes a flavor; instances get the new size when their server starts again.
#[utoipa::path(patch, path = "/v1.0/{project_id}/admin/flavors/{flavor}", tag = "operator",
    params(("flavor" = String, Path)), request_body = FlavorUpdateRequest,
    responses((status = 200, body = FlavorEnvelope)))]
async fn patch_flavor(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneFlavor>,
    Json(request): Json<FlavorUpdateRequest>,
) -> Result<Response> {
    let asked = request.flavor;
    let change = FlavorChange {
        name: asked
            .name
            .map(|name| Name::parse("flavor['name']", &name))
            .transpose()?,
        memory_mib: asked.ram,
        vcpus: asked.vcpus,
        disk_gib: asked.disk,
    };
    let flavor = catalogue::update_flavor(&app, &path.flavor, change).await?;
    Ok(ok(&FlavorEnvelope {
        flavor: views::flavor(&flavor, &Links::new(&app, &context)),
    }))
}

/// Deletes a flavor that no instance has.
#[utoipa::path(delete, path = "/v1.0/{project_id}/admin/flavors/{flavor}", tag = "operator",
    params(("flavor" = String, Path)), responses((status = 204)))]
async fn delete_flavor(
    State(app): State<AppState>,
    Segments(path): Segments<OneFlavor>,
) -> Result<Response> {
    catalogue::delete_flavor(&app, &path.flavor).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Every volume type.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/volume-types", tag = "operator",
    responses((status = 200, body = VolumeTypeList)))]
async fn list_volume_types(State(app): State<AppState>) -> Result<Response> {
    let types = catalogue::list_volume_types(&app).await?;
    Ok(ok(&VolumeTypeList {
        volume_types: types.iter().map(views::volume_type).collect(),
    }))
}

/// Makes a volume type.
#[utoipa::path(post, path = "/v1.0/{project_id}/admin/volume-types", tag = "operator",
    request_body = NewVolumeTypeRequest, responses((status = 200, body = VolumeTypeEnvelope)))]
async fn post_volume_type(
    State(app): State<AppState>,
    Json(request): Json<NewVolumeTypeRequest>,
) -> Result<Response> {
    let asked = request.volume_type;
    let name = Name::parse("volume_type['name']", &asked.name)?;
    let description = text(DESCRIPTION, asked.description)?;
    let io = IoLimits {
        read_iops_sec: iops(READ_IOPS, asked.read_iops_sec)?,
        write_iops_sec: iops(WRITE_IOPS, asked.write_iops_sec)?,
        read_bytes_sec: bytes(READ_BYTES, asked.read_bytes_sec)?,
        write_bytes_sec: bytes(WRITE_BYTES, asked.write_bytes_sec)?,
    };
    let made = catalogue::create_volume_type(&app, name, description, io).await?;
    Ok(ok(&VolumeTypeEnvelope {
        volume_type: views::volume_type(&made),
    }))
}

/// One volume type.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/volume-types/{name}", tag = "operator",
    params(("name" = String, Path)), responses((status = 200, body = VolumeTypeEnvelope)))]
async fn show_volume_type(
    State(app): State<AppState>,
    Segments(path): Segments<OneVolumeType>,
) -> Result<Response> {
    let found = catalogue::get_volume_type(&app, &path.name).await?;
    Ok(ok(&VolumeTypeEnvelope {
        volume_type: views::volume_type(&found),
    }))
}

/// Changes a volume type; a running instance gets new limits at its next restart or start.
#[utoipa::path(patch, path = "/v1.0/{project_id}/admin/volume-types/{name}", tag = "operator",
    params(("name" = String, Path)), request_body = VolumeTypeUpdateRequest,
    responses((status = 200, body = VolumeTypeEnvelope)))]
async fn patch_volume_type(
    State(app): State<AppState>,
    Segments(path): Segments<OneVolumeType>,
    Json(request): Json<VolumeTypeUpdateRequest>,
) -> Result<Response> {
    let asked = request.volume_type;
    let change = VolumeTypeChange {
        description: asked
            .description
            .map(|one| text(DESCRIPTION, one))
            .transpose()?,
        read_iops_sec: changed(asked.read_iops_sec, |to| iops(READ_IOPS, to))?,
        write_iops_sec: changed(asked.write_iops_sec, |to| iops(WRITE_IOPS, to))?,
        read_bytes_sec: changed(asked.read_bytes_sec, |to| bytes(READ_BYTES, to))?,
        write_bytes_sec: changed(asked.write_bytes_sec, |to| bytes(WRITE_BYTES, to))?,
    };
    let changed = catalogue::update_volume_type(&app, &path.name, change).await?;
    Ok(ok(&VolumeTypeEnvelope {
        volume_type: views::volume_type(&changed),
    }))
}

/// Deletes a volume type that no instance has.
#[utoipa::path(delete, path = "/v1.0/{project_id}/admin/volume-types/{name}", tag = "operator",
    params(("name" = String, Path)), responses((status = 204)))]
async fn delete_volume_type(
    State(app): State<AppState>,
    Segments(path): Segments<OneVolumeType>,
) -> Result<Response> {
    catalogue::delete_volume_type(&app, &path.name).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// A limit on operations.
fn iops(field: &'static str, asked: Option<i64>) -> Result<Option<Iops>> {
    Ok(asked.map(|value| Iops::parse(field, value)).transpose()?)
}

/// A limit on bytes.
fn bytes(field: &'static str, asked: Option<i64>) -> Result<Option<BytesPerSecond>> {
    let parse = |value| BytesPerSecond::parse(field, value);
    Ok(asked.map(parse).transpose()?)
}

/// A limit that may change: what was not given stays, `null` lifts it.
fn changed<T>(
    asked: Option<Option<i64>>,
    parse: impl FnOnce(Option<i64>) -> Result<Option<T>>,
) -> Result<Option<Option<T>>> {
    asked.map(parse).transpose()
}
