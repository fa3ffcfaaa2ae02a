//! Datastores, their versions, and what those can be had with.

use axum::extract::State;
use axum::response::Response;
use coffer_wire::rest::v1::datastore::{
    DatastoreEnvelope, DatastoreList, VersionEnvelope, VersionList,
};
use coffer_wire::rest::v1::flavor::{FlavorList, VolumeTypeList};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::extract::Segments;
use crate::api::links::Links;
use crate::api::respond::ok;
use crate::api::views::{datastores as views, offers};
use crate::app::{AppState, RequestContext, catalogue, datastore};
use crate::error::Result;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(list_versions))
        .routes(routes!(show_version))
        .routes(routes!(show_version_by_id))
        .routes(routes!(list_flavors))
        .routes(routes!(list_volume_types))
}

#[derive(Debug, Deserialize)]
struct OneDatastore {
    datastore: String,
}

#[derive(Debug, Deserialize)]
struct OneVersion {
    datastore: String,
    version: String,
}

#[derive(Debug, Deserialize)]
struct VersionById {
    version: String,
}

/// The datastores with their versions.
#[utoipa::path(get, path = "/v1.0/{project_id}/datastores", tag = "datastores",
    responses((status = 200, body = DatastoreList)))]
async fn list(State(app): State<AppState>, context: RequestContext) -> Result<Response> {
    let all = datastore::list(&app, &context).await?;
    let links = Links::new(&app, &context);
    let datastores = all
        .iter()
        .map(|(one, versions)| views::datastore(one, versions, &links))
        .collect();
    Ok(ok(&DatastoreList { datastores }))
}

/// One datastore, by id or name.
#[utoipa::path(get, path = "/v1.0/{project_id}/datastores/{datastore}", tag = "datastores",
    params(("datastore" = String, Path)), responses((status = 200, body = DatastoreEnvelope)))]
async fn show(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneDatastore>,
) -> Result<Response> {
    let one = datastore::get(&app, &path.datastore).await?;
    let versions = datastore::versions(&app, &context, &one).await?;
    let links = Links::new(&app, &context);
    Ok(ok(&DatastoreEnvelope {
        datastore: views::datastore(&one, &versions, &links),
    }))
}

/// The versions of a datastore.
#[utoipa::path(get, path = "/v1.0/{project_id}/datastores/{datastore}/versions",
    tag = "datastores", params(("datastore" = String, Path)),
    responses((status = 200, body = VersionList)))]
async fn list_versions(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneDatastore>,
) -> Result<Response> {
    let one = datastore::get(&app, &path.datastore).await?;
    let versions = datastore::versions(&app, &context, &one).await?;
    let links = Links::new(&app, &context);
    let versions = versions
        .iter()
        .map(|version| views::version(version, &links))
        .collect();
    Ok(ok(&VersionList { versions }))
}

/// One version, by id or name.
#[utoipa::path(get, path = "/v1.0/{project_id}/datastores/{datastore}/versions/{version}",
    tag = "datastores", params(("datastore" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = VersionEnvelope)))]
async fn show_version(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneVersion>,
) -> Result<Response> {
    let one = datastore::get(&app, &path.datastore).await?;
    let row = datastore::get_version(&app, &context, &one, &path.version).await?;
    let links = Links::new(&app, &context);
    let able = datastore::capabilities(&row);
    Ok(ok(&VersionEnvelope {
        version: views::one_version(&row, able.as_ref(), &links, context.is_admin()),
    }))
}

/// One version, by id alone.
#[utoipa::path(get, path = "/v1.0/{project_id}/datastores/versions/{version}",
    tag = "datastores", params(("version" = String, Path)),
    responses((status = 200, body = VersionEnvelope)))]
async fn show_version_by_id(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<VersionById>,
) -> Result<Response> {
    let row = datastore::get_version_by_id(&app, &context, &path.version).await?;
    let links = Links::new(&app, &context);
    let able = datastore::capabilities(&row);
    Ok(ok(&VersionEnvelope {
        version: views::one_version(&row, able.as_ref(), &links, context.is_admin()),
    }))
}

/// The flavors that a version can be had with: all.
#[utoipa::path(get,
    path = "/v1.0/{project_id}/datastores/{datastore}/versions/{version}/flavors",
    tag = "datastores", params(("datastore" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = FlavorList)))]
async fn list_flavors(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneVersion>,
) -> Result<Response> {
    let one = datastore::get(&app, &path.datastore).await?;
    datastore::get_version(&app, &context, &one, &path.version).await?;
    let links = Links::new(&app, &context);
    let flavors = catalogue::list_flavors(&app).await?;
    let flavors = flavors
        .iter()
        .map(|flavor| offers::flavor(flavor, &links))
        .collect();
    Ok(ok(&FlavorList { flavors }))
}

/// The volume types that a version can be had with: all.
#[utoipa::path(get,
    path = "/v1.0/{project_id}/datastores/{datastore}/versions/{version}/volume-types",
    tag = "datastores", params(("datastore" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = VolumeTypeList)))]
async fn list_volume_types(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneVersion>,
) -> Result<Response> {
    let one = datastore::get(&app, &path.datastore).await?;
    datastore::get_version(&app, &context, &one, &path.version).await?;
    let types = catalogue::list_volume_types(&app).await?;
    Ok(ok(&VolumeTypeList {
        volume_types: types.iter().map(offers::volume_type).collect(),
    }))
}
