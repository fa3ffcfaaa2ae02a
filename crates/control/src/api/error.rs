//! Refusals on the wire: the only place that knows which HTTP status and body a kind has.
//!
//! A handler's error travels as a response extension to `finish`, which writes the body: Trove's
//! fault object, or Keystone's error object on identity routes.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use coffer_wire::fault::{Fault, FaultBody};
use coffer_wire::rest::identity::{IdentityError, IdentityErrorBody};
use http::{HeaderValue, StatusCode, header};

use super::respond::json;
use crate::error::{Error, Kind};

/// The refusal that a response stands for, until it is written.
#[derive(Debug, Clone)]
pub(super) struct Refused(pub(super) Arc<Error>);

/// Status and key of a kind.
pub(super) const fn status(kind: Kind) -> (StatusCode, &'static str) {
    match kind {
        Kind::BadRequest => (StatusCode::BAD_REQUEST, "badRequest"),
        Kind::Unauthorized => (StatusCode::UNAUTHORIZED, "unauthorized"),
        Kind::Forbidden => (StatusCode::FORBIDDEN, "forbidden"),
        Kind::NotFound => (StatusCode::NOT_FOUND, "itemNotFound"),
        Kind::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "notAcceptable"),
        Kind::Conflict => (StatusCode::CONFLICT, "conflict"),
        // Trove limits with 413, rates as well as quotas.
        Kind::OverLimit | Kind::RateLimited => (StatusCode::PAYLOAD_TOO_LARGE, "overLimit"),
        Kind::BadMediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "badMediaType"),
        Kind::Unprocessable => (StatusCode::UNPROCESSABLE_ENTITY, "unprocessableEntity"),
        Kind::NotImplemented => (StatusCode::NOT_IMPLEMENTED, "notImplemented"),
        Kind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "serviceUnavailable"),
        Kind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "instanceFault"),
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = status(self.kind).0.into_response();
        response.extensions_mut().insert(Refused(Arc::new(self)));
        response
    }
}

/// What is said of a refusal. Trove's clients show no header, so that the id of a failure of ours
/// stands in the words too.
fn message(error: &Error, request_id: &str) -> String {
    match error.kind {
        Kind::Internal => format!("{} ({request_id}).", error.message),
        _ => error.message.clone(),
    }
}

/// The same where the body has no field for a hint and the hint is all there is to do.
fn whole_message(error: &Error, request_id: &str) -> String {
    match (&error.hint, error.kind) {
        (Some(hint), Kind::Unavailable) => format!("{}: {hint}", error.message),
        _ => message(error, request_id),
    }
}

/// Trove's body of a refusal.
pub fn fault(error: &Error, request_id: &str) -> (StatusCode, FaultBody) {
    let (status, key) = status(error.kind);
    let is_rate = error.kind == Kind::RateLimited;
    let fault = Fault {
        code: status.as_u16(),
        message: match error.kind {
            Kind::RateLimited => "This request was rate-limited.".to_owned(),
            _ => message(error, request_id),
        },
        details: is_rate.then(|| error.message.clone()),
        retry_after: error.retry_after.map(|seconds| seconds.to_string()),
        request_id: request_id.to_owned(),
        reason: error.reason.to_owned(),
        hint: error.hint.clone(),
    };
    (status, FaultBody::new(key, fault))
}

/// Keystone's body of a refusal.
pub fn identity_error(error: &Error, request_id: &str) -> (StatusCode, IdentityError) {
    let status = match error.kind {
        Kind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        kind => status(kind).0,
    };
    let body = IdentityErrorBody {
        code: status.as_u16(),
        title: status.canonical_reason().unwrap_or("Error").to_owned(),
        message: whole_message(error, request_id),
        request_id: request_id.to_owned(),
    };
    (status, IdentityError { error: body })
}

/// The response that a refusal ends in. `auth_url` is where tokens are had.
pub(super) fn written(
    error: &Error,
    request_id: &str,
    is_identity: bool,
    auth_url: &str,
) -> Response {
    if matches!(error.kind, Kind::Internal | Kind::Unavailable) {
        tracing::error!(
            request_id,
            reason = error.reason,
            error = error.context.as_deref().unwrap_or(&error.message),
            "request failed"
        );
    }
    // A request without a valid token is answered in Keystone's shape everywhere, as
    // keystonemiddleware does before Trove sees it.
    let is_keystone = is_identity || error.reason == super::guard::NOT_AUTHENTICATED;
    let mut response = if is_keystone {
        let (status, body) = identity_error(error, request_id);
        json(status, &body)
    } else {
        let (status, body) = fault(error, request_id);
        json(status, &body)
    };
    let headers = response.headers_mut();
    if is_keystone && error.kind == Kind::Unauthorized {
        let challenge = HeaderValue::try_from(format!("Keystone uri=\"{auth_url}\""));
        headers.extend(
            challenge
                .ok()
                .map(|value| (header::WWW_AUTHENTICATE, value)),
        );
    }
    headers.extend(
        error
            .retry_after
            .map(|seconds| (header::RETRY_AFTER, seconds.into())),
    );
    response
}
