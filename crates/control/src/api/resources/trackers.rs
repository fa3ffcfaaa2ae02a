//! The trackers, for the operator.

use axum::extract::State;
use axum::response::Response;
use coffer_wire::rest::v1::tracker::TrackerList;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::respond::ok;
use crate::api::views::offers::tracker;
use crate::app::{AppState, connect};
use crate::error::Result;

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list))
}

/// The trackers, with what each leads to, and whether this API reaches it now.
#[utoipa::path(get, path = "/v1.0/{project_id}/admin/trackers", tag = "operator",
    responses((status = 200, body = TrackerList)))]
async fn list(State(app): State<AppState>) -> Result<Response> {
    let trackers = connect::trackers(&app).await?;
    Ok(ok(&TrackerList {
        trackers: trackers
            .iter()
            .map(|(one, answers)| tracker(one, *answers))
            .collect(),
    }))
}
