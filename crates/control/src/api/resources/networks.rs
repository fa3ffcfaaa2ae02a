//! Networks of the project.

use axum::extract::State;
use axum::response::Response;
use coffer_wire::rest::v1::network::{NetworkEnvelope, NetworkList};
use serde::Deserialize;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::extract::Segments;
use crate::api::respond::ok;
use crate::api::views::offers;
use crate::app::{AppState, RequestContext, network};
use crate::error::Result;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
}

#[derive(Debug, Deserialize)]
struct OneNetwork {
    network_id: String,
}

/// The networks of the project; their ids are valid in `nics`.
#[utoipa::path(get, path = "/v1.0/{project_id}/networks", tag = "networks",
    responses((status = 200, body = NetworkList)))]
async fn list(State(app): State<AppState>, context: RequestContext) -> Result<Response> {
    let networks = network::list(&app, &context).await?;
    Ok(ok(&NetworkList {
        networks: networks.iter().map(offers::network).collect(),
    }))
}

/// One network.
#[utoipa::path(get, path = "/v1.0/{project_id}/networks/{network_id}", tag = "networks",
    params(("network_id" = String, Path)), responses((status = 200, body = NetworkEnvelope)))]
async fn show(
    State(app): State<AppState>,
    context: RequestContext,
    Segments(path): Segments<OneNetwork>,
) -> Result<Response> {
    let network = network::get(&app, &context, &path.network_id).await?;
    Ok(ok(&NetworkEnvelope {
        network: offers::network(&network),
    }))
}
