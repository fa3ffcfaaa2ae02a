//! Responses: JSON written straight to bytes, and those without a body.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

/// Room that most bodies fit in, so that they are not copied while they grow.
const BODY_BYTES: usize = 2 * 1_024;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Room that most rows of a list fit in.
const ROW_BYTES: usize = 1_024;

/// A JSON body.
pub(super) fn json<T: Serialize>(status: StatusCode, body: &T) -> Response {
    written(status, body, BODY_BYTES)
}

/// 200 with a JSON body of so many rows.
pub(super) fn rows<T: Serialize>(body: &T, count: usize) -> Response {
    written(StatusCode::OK, body, BODY_BYTES + count * ROW_BYTES)
}

fn written<T: Serialize>(status: StatusCode, body: &T, room: usize) -> Response {
    let mut bytes = Vec::with_capacity(room);
    match serde_json::to_writer(&mut bytes, body) {
        Ok(()) => with_body(status, Body::from(bytes)),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// 200 with a JSON body.
pub(super) fn ok<T: Serialize>(body: &T) -> Response {
    json(StatusCode::OK, body)
}

/// A status without a body; of type JSON all the same, as Trove's are.
pub(super) fn empty(status: StatusCode) -> Response {
    with_body(status, Body::empty())
}

fn with_body(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, JSON);
    response
}
