//! What handlers take: the context of the request, path segments, and a JSON body that says where
//! it is wrong.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, header};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::strict::{Strict, in_words};
use crate::app::{AppState, RequestContext};
use crate::error::{Error, Kind, Result};
use crate::limits;

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        let context = parts.extensions.get::<Self>().cloned();
        context.ok_or_else(|| Error::internal("a route outside the guard asks who asks"))
    }
}

/// Longest place in a message; unit: characters.
const PLACE_CHARS_MAX: usize = 200;

/// The segments of the path, decoded once.
#[derive(Debug, Clone)]
pub(super) struct Segments<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Segments<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        let found = Path::<T>::from_request_parts(parts, state).await;
        found.map(|Path(inner)| Self(inner)).map_err(|_| {
            Error::new(
                Kind::NotFound,
                "not-found",
                "The resource could not be found.",
            )
        })
    }
}

/// A JSON body.
#[derive(Debug, Clone)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<AppState> for Json<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &AppState) -> Result<Self> {
        parse(&read(request, app).await?).map(Self)
    }
}

/// A JSON body that may be left out.
#[derive(Debug, Clone)]
pub(super) struct MaybeJson<T>(pub(super) Option<T>);

impl<T: DeserializeOwned> FromRequest<AppState> for MaybeJson<T> {
    type Rejection = Error;

    async fn from_request(request: Request, app: &AppState) -> Result<Self> {
        let bytes = read(request, app).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) || bytes.trim_ascii() == b"null" {
            return Ok(Self(None));
        }
        parse(&bytes).map(|body| Self(Some(body)))
    }
}

/// The whole body, bounded in size and time, of a type that is read.
async fn read(request: Request, app: &AppState) -> Result<Bytes> {
    let bytes_max = app.config.body_bytes_max;
    let (parts, body) = request.into_parts();
    check_type(&parts.headers)?;
    check_length(&parts.headers, bytes_max)?;
    let read = tokio::select! {
        read = to_bytes(Body::new(body), bytes_max) => read,
        () = app.clock.sleep(limits::BODY_MAX) => return Err(too_slow()),
    };
    read.map_err(|error| {
        // The limit is the usual cause; a connection that breaks off reads no answer anyway.
        too_large(bytes_max).with_context(error.to_string())
    })
}

fn too_slow() -> Error {
    let seconds = limits::BODY_MAX.as_secs();
    let message = format!("the body did not come within {seconds} s");
    Error::new(Kind::BadRequest, "body-too-slow", message)
}

fn check_type(headers: &HeaderMap) -> Result<()> {
    let Some(value) = headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let media = value
        .to_str()
        .unwrap_or("")
        .split(';')
        .next()
        .unwrap_or("")
        .trim();
    let media = media.to_ascii_lowercase();
    if media == "application/json" || media.ends_with("+json") {
        return Ok(());
    }
    let message = format!(
        "a body of type '{}' is not read: send application/json",
        coffer_core::name::shown(&media)
    );
    Err(Error::new(Kind::BadMediaType, "media-type", message))
}

fn check_length(headers: &HeaderMap, bytes_max: usize) -> Result<()> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|text| text.parse::<usize>().ok());
    match length {
        Some(bytes) if bytes > bytes_max => Err(too_large(bytes_max)),
        _ => Ok(()),
    }
}

fn too_large(bytes_max: usize) -> Error {
    let message = format!("the body is larger than {bytes_max} bytes");
    Error::new(Kind::OverLimit, "body-too-large", message)
}

/// Reads JSON; what does not fit is named by its place, in Trove's form.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let body: Value = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
    decoded(&body)
}

/// The same of a body that was read before.
pub(super) fn decoded<T: DeserializeOwned>(body: &Value) -> Result<T> {
    serde_path_to_error::deserialize(Strict(body)).map_err(|error| {
        let words = in_words(&error.inner().to_string(), error.path(), body);
        match place(error.path()).as_str() {
            "" => Error::invalid(words),
            place => Error::invalid(format!("{place} {words}")),
        }
    })
}

fn malformed(error: &serde_json::Error) -> Error {
    Error::new(
        Kind::BadRequest,
        "malformed",
        "The server could not comply with the request since it is either malformed or otherwise \
         incorrect.",
    )
    .with_hint(format!("the body is no JSON: {error}"))
}

/// `instance['volume']['size']`, as jsonschema writes places.
fn place(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut place = String::new();
    for segment in path {
        match segment {
            Segment::Map { key } if place.is_empty() => place.push_str(key),
            Segment::Map { key } => place.push_str(&format!("['{key}']")),
            Segment::Seq { index } => place.push_str(&format!("[{index}]")),
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    // Keys may be a client's own text.
    place
        .chars()
        .filter(|c| !c.is_control())
        .take(PLACE_CHARS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use coffer_wire::rest::v1::instance::{CreateInstanceRequest, UpdateInstanceRequest};

    use super::*;

    #[test]
    fn says_where_a_body_is_wrong() {
        let why = |text: &str| parse::<CreateInstanceRequest>(text.as_bytes()).unwrap_err();
        assert_eq!(
            why("{}").message,
            "Validation error: 'instance' is a required property"
        );
        assert_eq!(
            why(r#"{"instance": {"name": 5}}"#).message,
            "Validation error: instance['name'] 5 is not of type 'string'"
        );
        let nic = why(r#"{"instance": {"nics": [{"net-id": "a"}, {"mac": "b"}]}}"#).message;
        assert!(nic.contains("instance['nics'][1]"), "{nic}");
        assert_eq!(
            why(r#"[{"name": "a"}]"#).message,
            "Validation error: [{'name': 'a'}] is not of type 'object'"
        );
        assert_eq!(
            why(r#"{"instance": {"access": {"is_public": "yes"}}}"#).message,
            "Validation error: instance['access']['is_public'] 'yes' is not of type 'boolean'"
        );
        let secret = why(r#"{"instance": {"users": [{"name": "u", "password": ["hunter2"]}]}}"#);
        assert_eq!(
            secret.message,
            "Validation error: instance['users'][0]['password'] '***' is not of type 'string'"
        );
        let secret = why(r#"{"instance": {"name": {"password": "hunter2"}}}"#);
        assert!(!secret.message.contains("hunter2"), "{}", secret.message);
        for wrong in [r#"{"instance": []}"#, r#"{"instance": {"volume": [1]}}"#] {
            assert!(why(wrong).message.contains("is not of type"), "{wrong}");
        }
        for malformed in ["", "{", "{\"instance\": }", "[1,]", "{} x", "\u{0}"] {
            let error = why(malformed);
            assert_eq!(error.kind, Kind::BadRequest, "{malformed}");
        }
    }

    #[test]
    fn refuses_unknown_keys_of_updates() {
        let body = br#"{"instance": {"flavor": "1"}}"#;
        let error = parse::<UpdateInstanceRequest>(body).unwrap_err();
        assert!(
            error
                .message
                .contains("Additional properties are not allowed ('flavor' was"),
            "{}",
            error.message
        );
    }
}
