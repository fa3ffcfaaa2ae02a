//! The client: logs in, finds the database service in the catalog, sends requests, reads answers.
//!
//! Answers are JSON values, because what is shown is chosen by name; requests are wire types or
//! small objects. One request at a time, each with a bound; nothing is retried, so that a command
//! does what it says once.

use std::fs;
use std::time::Duration;

use coffer_wire::rest::identity::TokenEnvelope;
use reqwest::{Certificate, Method, Response, Upgraded};
use serde::Serialize;
use serde_json::{Value, json};

use crate::credentials::Credentials;
use crate::failure::{Failure, Kind, Result};

/// Longest time to reach the API.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Longest time for one request; the API itself waits up to thirty seconds for a guest.
const REQUEST_MAX: Duration = Duration::from_secs(40);
/// Longest time that a streaming answer is read.
const STREAM_MAX: Duration = Duration::from_secs(13 * 3600);
/// Pages that one list follows.
const PAGES_MAX: usize = 10_000;

/// A client of one project.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    token: String,
    /// Base of the project's URLs, without a final slash.
    endpoint: String,
    /// Id of the project.
    pub project_id: String,
    /// Roles of the user in the project.
    pub roles: Vec<String>,
}

impl Client {
    /// Logs in.
    pub async fn connect(credentials: &Credentials) -> Result<Self> {
        let http = http_client(credentials)?;
        let domain = json!({"name": "Default"});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": {
                "name": credentials.username,
                "domain": domain,
                "password": credentials.password,
            }}},
            "scope": {"project": {"name": credentials.project_name, "domain": domain}},
        }});
        let url = format!("{}/auth/tokens", identity_url(&credentials.auth_url));
        let answer = http
            .post(&url)
            .json(&body)
            .send()
            .await
            .map_err(|e| unreachable(&url, &e))?;
        let header = answer
            .headers()
            .get("x-subject-token")
            .and_then(|v| v.to_str().ok());
        let token = header.map(str::to_owned);
        let body = checked(&url, answer).await?;
        let envelope: TokenEnvelope = serde_json::from_slice(&body)
            .map_err(|_| Failure::failed(format!("{url} is not an identity service")))?;
        let token = token.ok_or_else(|| Failure::failed(format!("{url} gave no token")))?;
        Self::from_token(http, token, envelope, &credentials.region_name)
    }

    fn from_token(
        http: reqwest::Client,
        token: String,
        envelope: TokenEnvelope,
        region: &str,
    ) -> Result<Self> {
        let services = envelope.token.catalog.unwrap_or_default();
        let endpoints = services.into_iter().filter(|s| s.kind == "database");
        let mut endpoints = endpoints.flat_map(|service| service.endpoints);
        let public = endpoints.find(|e| e.interface == "public" && e.region_id == region);
        let Some(public) = public else {
            return Err(Failure::usage(format!(
                "the catalog has no database service in region {region}; set OS_REGION_NAME"
            )));
        };
        let project = envelope.token.project.ok_or_else(|| {
            Failure::usage("the token belongs to no project; set OS_PROJECT_NAME")
        })?;
        let roles = envelope.token.roles.unwrap_or_default();
        Ok(Self {
            http,
            token,
            endpoint: public.url.trim_end_matches('/').to_owned(),
            project_id: project.id,
            roles: roles.into_iter().map(|role| role.name).collect(),
        })
    }

    /// `GET` of a path below the project's URL.
    pub async fn get(&self, path: &str) -> Result<Value> {
        self.request(Method::GET, path, None::<&Value>).await
    }

    /// `POST` with a body.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Value> {
        self.request(Method::POST, path, Some(body)).await
    }

    /// `PATCH` with a body.
    pub async fn patch(&self, path: &str, body: &impl Serialize) -> Result<Value> {
        self.request(Method::PATCH, path, Some(body)).await
    }

    /// `PUT`, with a body or without.
    pub async fn put(&self, path: &str, body: Option<&impl Serialize>) -> Result<Value> {
        self.request(Method::PUT, path, body).await
    }

    /// `DELETE`.
    pub async fn delete(&self, path: &str) -> Result<Value> {
        self.request(Method::DELETE, path, None::<&Value>).await
    }

    /// Every row of a list below `key`, page after page.
    pub async fn list(&self, path: &str, key: &str) -> Result<Vec<Value>> {
        let mut rows = Vec::new();
        let mut next = path.to_owned();
        for _ in 0..PAGES_MAX {
            let mut page = self.get(&next).await?;
            match page.get_mut(key).map(Value::take) {
                Some(Value::Array(more)) => rows.extend(more),
                _ => return Err(Failure::failed(format!("{path} did not answer with {key}"))),
            }
            match next_query(&page) {
                Some(query) => next = format!("{path}?{query}"),
                None => return Ok(rows),
            }
        }
        Err(Failure::failed(format!(
            "{path} has more than {PAGES_MAX} pages"
        )))
    }

    /// `POST` whose answer goes on for hours: its body, to be read as it comes.
    pub async fn post_streaming(&self, path: &str, body: &impl Serialize) -> Result<Response> {
        let url = format!("{}{path}", self.endpoint);
        let request = self.http.post(&url).header("x-auth-token", &self.token);
        let request = request.timeout(STREAM_MAX).json(body);
        let answer = request.send().await.map_err(|e| unreachable(&url, &e))?;
        match answer.status().is_success() {
            true => Ok(answer),
            false => Err(refused(&url, answer).await),
        }
    }

    /// `POST` that turns its connection into a stream of bytes of another protocol.
    pub async fn upgrade(&self, path: &str, protocol: &str) -> Result<Upgraded> {
        let url = format!("{}{path}", self.endpoint);
        let request = self.http.post(&url).header("x-auth-token", &self.token);
        let request = request
            .header("connection", "upgrade")
            .header("upgrade", protocol);
        let answer = request.send().await.map_err(|e| unreachable(&url, &e))?;
        match answer.status().as_u16() {
            101 => answer.upgrade().await.map_err(|e| unreachable(&url, &e)),
            200..300 => Err(Failure::failed(format!("{url} does not speak {protocol}"))),
            _ => Err(refused(&url, answer).await),
        }
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<Value> {
        let url = format!("{}{path}", self.endpoint);
        let mut request = self
            .http
            .request(method, &url)
            .header("x-auth-token", &self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.map_err(|e| unreachable(&url, &e))?;
        let body = checked(&url, answer).await?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&body)
            .map_err(|_| Failure::failed(format!("{url} did not answer with JSON")))
    }
}

/// A path segment that may hold any name. A dot is escaped too: an API may take what follows one
/// for a format.
pub fn segment(name: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_~".contains(&b);
    name.bytes()
        .fold(String::new(), |text, byte| match plain(byte) {
            true => format!("{text}{}", byte as char),
            false => format!("{text}%{byte:02X}"),
        })
}

/// The query of the page after this one. The marker in it is quoted twice, and is to be sent
/// quoted once: Trove's clients do so.
fn next_query(page: &Value) -> Option<String> {
    let links = page.get("links")?.as_array()?;
    let next = links.iter().find(|link| link["rel"] == "next")?;
    let (_, query) = next["href"].as_str()?.split_once('?')?;
    Some(query.replace("%25", "%"))
}

fn http_client(credentials: &Credentials) -> Result<reqwest::Client> {
    let mut builder = reqwest::Client::builder()
        .connect_timeout(CONNECT_MAX)
        .timeout(REQUEST_MAX)
        .user_agent(concat!("coffer/", env!("CARGO_PKG_VERSION")));
    if let Some(path) = &credentials.ca_file {
        let shown = path.display();
        let pem = fs::read(path).map_err(|e| Failure::usage(format!("read {shown}: {e}")))?;
        let certificates = Certificate::from_pem_bundle(&pem)
            .map_err(|_| Failure::usage(format!("{shown} holds no certificate")))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder
        .build()
        .map_err(|e| Failure::failed(format!("set up the HTTP client: {}", causes(&e))))
}

/// `OS_AUTH_URL` with and without the version are both in use.
fn identity_url(url: &str) -> String {
    let url = url.trim_end_matches('/');
    if url.ends_with("/v3") {
        url.to_owned()
    } else {
        format!("{url}/v3")
    }
}

async fn refused(url: &str, answer: Response) -> Failure {
    match checked(url, answer).await {
        Ok(_) => Failure::failed(format!("{url} answered what was not asked")),
        Err(failure) => failure,
    }
}

async fn checked(url: &str, answer: Response) -> Result<Vec<u8>> {
    let status = answer.status();
    let body = answer.bytes().await.map_err(|e| unreachable(url, &e))?;
    match status.is_success() {
        true => Ok(body.to_vec()),
        false => Err(Failure::from_answer(status.as_u16(), &body)),
    }
}

fn unreachable(url: &str, error: &reqwest::Error) -> Failure {
    let place = url.split('/').take(3).collect::<Vec<_>>().join("/");
    let message = format!(
        "{place} does not answer: {}; is `coffer up` running?",
        causes(error)
    );
    Failure::new(Kind::Unreachable, message)
}

/// The last cause, which says most: reqwest's own words only name the URL.
fn causes(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_may_hold_any_name() {
        assert_eq!(
            segment("a/b?c#d%e@f.g ü"),
            "a%2Fb%3Fc%23d%25e%40f%2Eg%20%C3%BC"
        );
        assert_eq!(segment("plain-1_2~"), "plain-1_2~");
    }

    #[test]
    fn the_next_page_is_asked_for_with_its_marker_quoted_once() {
        let href = "https://host/v1.0/p/instances/i/users?limit=2&marker=u1%2540%2525";
        let page = json!({"users": [], "links": [{"rel": "next", "href": href}]});
        assert_eq!(next_query(&page).unwrap(), "limit=2&marker=u1%40%25");
        assert_eq!(next_query(&json!({"users": []})), None);
    }

    #[test]
    fn the_version_of_the_identity_service_may_be_left_out() {
        for url in [
            "https://a:1",
            "https://a:1/",
            "https://a:1/v3",
            "https://a:1/v3/",
        ] {
            assert_eq!(identity_url(url), "https://a:1/v3");
        }
    }
}
