//! Databases inside an instance.

use axum::extract::State;
use axum::response::Response;
use coffer_wire::rest::v1::common::Named;
use coffer_wire::rest::v1::database::{CreateDatabasesRequest, DatabaseList, NewDatabase};
use http::StatusCode;
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::instances::OneInstance;
use crate::api::extract::{Json, Segments};
use crate::api::links::{Links, Page};
use crate::api::respond::{empty, ok};
use crate::app::commands::WantedDatabase;
use crate::app::{AppState, RequestContext, instance, inventory};
use crate::error::{Error, Result};

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, post))
        .routes(routes!(delete))
}

#[derive(Debug, Deserialize)]
struct OneDatabase {
    instance_id: String,
    name: String,
}

/// A database of a request, not checked yet.
pub(in crate::api) fn wanted_database(database: NewDatabase) -> WantedDatabase {
    WantedDatabase {
        name: database.name,
        character_set: database.character_set.filter(|text| !text.is_empty()),
        collate: database.collate.filter(|text| !text.is_empty()),
    }
}

/// The databases of an instance, 20 on a page.
#[utoipa::path(get, path = "/v1.0/{project_id}/instances/{instance_id}/databases",
    tag = "databases",
    params(("instance_id" = String, Path), ("limit" = Option<u32>, Query),
        ("marker" = Option<String>, Query)),
    responses((status = 200, body = DatabaseList)))]
async fn list(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    page: Page,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let page = page.usual();
    let marker = page.marker.as_deref();
    let (rows, next) = inventory::list_databases(&app, &view, marker, page.limit).await?;
    let next = Links::new(&app, &context).next(&page, next.as_deref());
    let databases = rows
        .into_iter()
        .map(|row| Named { name: row.name })
        .collect();
    Ok(ok(&DatabaseList {
        databases,
        links: next.clone(),
        databases_links: next,
    }))
}

/// Makes databases.
#[utoipa::path(post, path = "/v1.0/{project_id}/instances/{instance_id}/databases",
    tag = "databases", params(("instance_id" = String, Path)),
    request_body = CreateDatabasesRequest, responses((status = 202)))]
async fn post(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneInstance>,
    Json(request): Json<CreateDatabasesRequest>,
) -> Result<Response> {
    let list = request
        .databases
        .or(request.database)
        .ok_or_else(|| Error::invalid("'databases' is a required property"))?;
    let view = instance::get(&app, &context, &path.instance_id).await?;
    let wanted: Vec<_> = list.0.into_iter().map(wanted_database).collect();
    inventory::create_databases(&app, &context, &view, &wanted).await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// Drops a database.
#[utoipa::path(delete, path = "/v1.0/{project_id}/instances/{instance_id}/databases/{name}",
    tag = "databases", params(("instance_id" = String, Path), ("name" = String, Path)),
    responses((status = 202)))]
async fn delete(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneDatabase>,
) -> Result<Response> {
    let view = instance::get(&app, &context, &path.instance_id).await?;
    inventory::delete_database(&app, &context, &view, &path.name).await?;
    Ok(empty(StatusCode::ACCEPTED))
}
