//! Links and pages: URLs that clients follow, and the markers inside them.
//!
//! The scheme of links is always `https` and the marker of a next page is quoted twice: clients
//! decode it once and paste it back unescaped, and depend on both.

use std::borrow::Cow;

use axum::extract::{FromRequestParts, OriginalUri, Query};
use coffer_wire::rest::v1::common::{Link, Reference};
use http::request::Parts;

use crate::app::{AppState, RequestContext};
use crate::error::{Error, Result};
use crate::limits;

/// Writes links for one request.
#[derive(Debug, Clone)]
pub(super) struct Links<'a> {
    host: &'a str,
    project: &'a str,
    region: &'a str,
}

impl<'a> Links<'a> {
    /// For this request: its host, its project.
    pub(super) fn new(app: &'a AppState, context: &'a RequestContext) -> Self {
        let tenant = context.session.tenant.as_ref();
        Self {
            host: &context.host,
            project: tenant.map_or("", |tenant| tenant.id.as_str()),
            region: &app.config.region,
        }
    }

    /// Region that objects are in.
    pub(super) fn region(&self) -> &'a str {
        self.region
    }

    /// `self` and `bookmark` of an object.
    pub(super) fn of(&self, kind: &str, id: &str) -> Vec<Link> {
        let (host, project) = (self.host, self.project);
        let own = ["https://", host, "/v1.0/", project, "/", kind, "/", id].concat();
        let bookmark = ["https://", host, "/", kind, "/", id].concat();
        vec![link("self", own), link("bookmark", bookmark)]
    }

    /// An object by its id.
    pub(super) fn reference(&self, kind: &str, id: &str) -> Reference {
        Reference {
            id: id.to_owned(),
            links: self.of(kind, id),
        }
    }

    /// The next page of a list, if there is one.
    pub(super) fn next(&self, page: &Page, marker: Option<&str>) -> Option<Vec<Link>> {
        let marker = quote(&quote(marker?));
        let mut href = format!("https://{}{}?limit={}", self.host, page.path, page.limit);
        for (key, value) in &page.extra {
            href.push_str(&format!("&{}={}", quote(key), quote(value)));
        }
        href.push_str(&format!("&marker={marker}"));
        Some(vec![link("next", href)])
    }
}

fn link(rel: &'static str, href: String) -> Link {
    Link {
        rel: Cow::Borrowed(rel),
        href,
    }
}

/// The page that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Page {
    /// Rows at most.
    pub(super) limit: u32,
    /// The last row of the page before.
    pub(super) marker: Option<String>,
    /// Other parameters, repeated in the next link.
    pub(super) extra: Vec<(String, String)>,
    path: String,
}

impl Page {
    /// The parameter of this name.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.extra
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The limit where it may exceed the usual page.
    pub(super) fn limit_up_to(&self, max: u32) -> u32 {
        self.limit.min(max)
    }

    /// The usual page: at most [`limits::PAGE`] rows.
    pub(super) fn usual(mut self) -> Self {
        self.limit = self.limit.min(limits::PAGE);
        self
    }

    /// The marker as the id of a row.
    pub(super) fn id<T: std::str::FromStr<Err = coffer_core::Error>>(&self) -> Result<Option<T>> {
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                Error::invalid(format!(
                    "marker '{}' is no id",
                    coffer_core::name::shown(text)
                ))
            })
        };
        self.marker.as_ref().map(parse).transpose()
    }

    /// The marker as the number of rows before the page.
    pub(super) fn offset(&self) -> Result<u64> {
        let Some(text) = &self.marker else {
            return Ok(0);
        };
        // What SQL takes, with room for a page.
        match text.parse::<u64>() {
            Ok(offset) if offset <= u64::from(u32::MAX) => Ok(offset),
            _ => Err(Error::invalid(format!(
                "marker '{}' is no number of rows",
                coffer_core::name::shown(text)
            ))),
        }
    }

    fn read(uri: &http::Uri) -> Result<Self> {
        let mut page = Self {
            limit: limits::PAGE,
            marker: None,
            extra: Vec::new(),
            path: uri.path().to_owned(),
        };
        if uri.query().is_none_or(str::is_empty) {
            return Ok(page);
        }
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|_| Error::invalid("the query string cannot be read"))?;
        for (key, value) in pairs {
            match key.as_str() {
                "limit" => page.limit = limit(&value)?,
                "marker" => page.marker = marker(&value)?,
                _ => page.extra.push((key, value)),
            }
        }
        Ok(page)
    }
}

fn limit(text: &str) -> Result<u32> {
    match text.parse::<u32>() {
        // As in Trove, none is the default.
        Ok(0) => Ok(limits::PAGE),
        Ok(limit) => Ok(limit),
        Err(_) => Err(Error::invalid(format!(
            "limit '{}' is no number from 0 to {}",
            coffer_core::name::shown(text),
            u32::MAX
        ))),
    }
}

fn marker(text: &str) -> Result<Option<String>> {
    let text = unquote(text);
    if text.chars().any(char::is_control) || text.len() > 1_024 {
        return Err(Error::invalid("marker is no marker of a list"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}

impl<S: Send + Sync> FromRequestParts<S> for Page {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        match parts.extensions.get::<OriginalUri>() {
            Some(OriginalUri(uri)) => Self::read(uri),
            None => Self::read(&parts.uri),
        }
    }
}

/// Percent-encoded, all but letters, digits and `_.-~`.
fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => {
                quoted.push(char::from(byte));
            }
            _ => quoted.push_str(&format!("%{byte:02X}")),
        }
    }
    quoted
}

/// Percent-decoded; what is no escape stays, what is no UTF-8 is replaced.
fn unquote(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escaped = (bytes[at] == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match escaped {
            Some(byte) => {
                plain.push(byte);
                at += 3;
            }
            None => {
                plain.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_survive_both_ways_of_pasting_them() {
        let marker = "u1@%";
        let in_link = quote(&quote(marker));
        assert_eq!(in_link, "u1%2540%2525");
        // troveclient decodes once and pastes; the server's query parser decodes that once.
        assert_eq!(unquote("u1@%"), marker);
        // Whoever follows the link as it is has it decoded once by the query parser.
        assert_eq!(unquote("u1%40%25"), marker);
        for odd in ["%", "%4", "%zz", "a%", "ü%C3"] {
            assert!(!unquote(odd).is_empty(), "{odd}");
        }
    }

    #[test]
    fn reads_pages() {
        let read = |text: &str| Page::read(&text.parse().unwrap());
        let page = read("/x?limit=3&marker=a%2540b&include_clustered=False").unwrap();
        assert_eq!((page.limit, page.marker.as_deref()), (3, Some("a@b")));
        assert_eq!(page.parameter("include_clustered"), Some("False"));
        assert_eq!(read("/x").unwrap().limit, limits::PAGE);
        assert_eq!(read("/x?limit=0").unwrap().limit, limits::PAGE);
        assert_eq!(read("/x?limit=100").unwrap().usual().limit, limits::PAGE);
        for bad in [
            "/x?limit=a",
            "/x?limit=-1",
            "/x?limit=1.5",
            "/x?marker=a%00",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
