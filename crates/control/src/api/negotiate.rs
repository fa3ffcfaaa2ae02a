//! Which version of the API an unversioned URL means: the one that `Accept` names.
//!
//! `Accept: application/vnd.openstack.trove+json;version=1.0` on `/PROJECT/instances` reads as
//! `/v1.0/PROJECT/instances`; a version that is not there is 406. A URL that names its version wins
//! over the header. Every other `Accept` is answered with JSON, as in Trove.

use axum::Router;
use axum::extract::{OriginalUri, Request};
use axum::response::{IntoResponse, Response};
use http::uri::PathAndQuery;
use http::{HeaderMap, Uri, header};
use tower::ServiceExt;

use crate::error::{Error, Kind, Result};

/// The only version.
const VERSION: &str = "1.0";
const MEDIA_TYPE: &str = "application/vnd.openstack.trove";

/// Refuses a version that is not there.
pub(super) fn check(headers: &HeaderMap, uri: &Uri) -> Result<()> {
    match accepted(headers) {
        Some(version) if version != VERSION && !is_versioned(uri.path()) => Err(Error::new(
            Kind::NotAcceptable,
            "version-unknown",
            "version not supported",
        )
        .with_hint(format!("the only version is {VERSION}"))),
        _ => Ok(()),
    }
}

/// Serves a request that no route fits: below the version that its `Accept` names, if it names one
/// and its URL does not, else by `routes` as it is.
pub(super) async fn unversioned(routes: Router, mut request: Request) -> Response {
    if accepted(request.headers()) == Some(VERSION)
        && !is_versioned(request.uri().path())
        && let Some(uri) = with_version(request.uri())
    {
        *request.uri_mut() = uri;
        request.extensions_mut().remove::<OriginalUri>();
    }
    match routes.oneshot(request).await {
        Ok(response) => response,
        Err(never) => never.into_response(),
    }
}

/// The version that the header names (`1.0`).
fn accepted(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::ACCEPT)?.to_str().ok()?;
    let (_, rest) = text.split_once(MEDIA_TYPE)?;
    let (_, version) = rest.split_once("version=")?;
    let end = version
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(version.len());
    Some(&version[..end]).filter(|version| !version.is_empty())
}

/// Whether the path names a version of this API or of the identity.
fn is_versioned(path: &str) -> bool {
    path.split('/').any(|part| {
        part.strip_prefix('v')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    })
}

fn with_version(uri: &Uri) -> Option<Uri> {
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    format!("/v{VERSION}{path}").parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn reads_versions_of_header_and_path() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(text).unwrap());
            accepted(&headers).map(str::to_owned)
        };
        let trove = "application/vnd.openstack.trove+json;version=1.0, */*";
        assert_eq!(of(trove).as_deref(), Some("1.0"));
        assert_eq!(
            of("application/vnd.openstack.trove;version=9").as_deref(),
            Some("9")
        );
        for other in [
            "application/json",
            "*/*",
            "application/vnd.openstack.trove+json",
            "",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        assert!(is_versioned("/v1.0/p/instances") && is_versioned("/identity/v3"));
        assert!(!is_versioned("/p/instances") && !is_versioned("/volumes/x"));
    }
}
