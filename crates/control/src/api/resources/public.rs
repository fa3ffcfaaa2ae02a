//! What needs no token: discovery, health, the OpenAPI document.

use axum::Router;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use coffer_wire::rest::v1::common::Link;
use coffer_wire::rest::v1::version::{ApiVersion, VersionDocument, VersionsDocument};
use http::{HeaderMap, header};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::guard::{base_url, host};
use crate::api::openapi::openapi_json;
use crate::api::respond::ok;
use crate::app::AppState;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(versions))
        .routes(routes!(health))
        .routes(routes!(version))
}

/// The same documents under the other paths that clients try, and the OpenAPI document.
pub(in crate::api) fn undocumented() -> Router<AppState> {
    // The document is made once: it does not change while the process runs.
    let document: bytes::Bytes = openapi_json().into();
    Router::new()
        .route("/v1.0/", get(version))
        .route("/v1.0/{project_id}", get(version))
        .route("/v1.0/{project_id}/", get(version))
        .route(
            "/openapi.json",
            get(move || async move {
                ([(header::CONTENT_TYPE, "application/json")], document).into_response()
            }),
        )
}

fn version_one(app: &AppState, headers: &HeaderMap) -> ApiVersion {
    let href = format!("{}/v1.0/", base_url(app, &host(headers)));
    ApiVersion {
        id: "v1.0".to_owned(),
        status: "CURRENT".to_owned(),
        updated: "2012-08-01T00:00:00Z".to_owned(),
        links: vec![Link {
            rel: "self".into(),
            href,
        }],
    }
}

/// The versions of this API.
#[utoipa::path(get, path = "/", tag = "discovery",
    responses((status = 200, body = VersionsDocument)))]
async fn versions(State(app): State<AppState>, headers: HeaderMap) -> Response {
    ok(&VersionsDocument {
        versions: vec![version_one(&app, &headers)],
    })
}

/// Version 1.0.
#[utoipa::path(get, path = "/v1.0", tag = "discovery",
    responses((status = 200, body = VersionDocument)))]
async fn version(State(app): State<AppState>, headers: HeaderMap) -> Response {
    ok(&VersionDocument {
        version: version_one(&app, &headers),
    })
}

/// Whether the API answers.
#[utoipa::path(get, path = "/healthcheck", tag = "discovery",
    responses((status = 200, body = String, content_type = "text/plain")))]
async fn health() -> &'static str {
    "OK"
}
