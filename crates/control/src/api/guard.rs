//! What every request passes: its id, its token, its project, its rate, its rule, the audit trail.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use coffer_core::actor::Actor;
use coffer_core::event::AuditEntry;
use coffer_core::id::AuditId;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tokio::sync::oneshot;

use super::error::{Refused, status, written};
use super::{negotiate, rules};
use crate::app::policy::{Rule, authorise};
use crate::app::{AppState, AuditNote, RequestContext};
use crate::auth::Session;
use crate::auth::login;
use crate::error::{Error, Kind, Result};

/// Reason of a request without a valid token.
pub(super) const NOT_AUTHENTICATED: &str = "not-authenticated";

const REQUEST_ID: HeaderName = HeaderName::from_static("x-openstack-request-id");
const AUTH_TOKEN: HeaderName = HeaderName::from_static("x-auth-token");

/// Where a request came from; whoever accepts connections puts it among the extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

/// The id of a request, among its extensions.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) Arc<str>);

/// Outermost: gives the request its id and writes the body of a refusal.
pub(super) async fn finish(
    State(app): State<AppState>,
    mut request: Request,
    next: Next,
) -> Response {
    let id = request_id(&app, request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let is_identity = is_identity(&path);
    let host = host(request.headers());
    request.extensions_mut().insert(RequestId(Arc::clone(&id)));
    let mut response = match negotiate::check(request.headers(), request.uri()) {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if let Some(Refused(error)) = response.extensions_mut().remove::<Refused>() {
        let auth_url = format!("{}/identity/v3", base_url(&app, &host));
        response = written(&error, &id, is_identity, &auth_url);
    }
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let status = response.status().as_u16();
    tracing::debug!(request_id = &*id, %method, path, status, "request answered");
    response
}

/// The client's id if it has OpenStack's form, else one of ours.
fn request_id(app: &AppState, headers: &HeaderMap) -> Arc<str> {
    let given = headers
        .get(&REQUEST_ID)
        .and_then(|value| value.to_str().ok());
    let is_ours = |text: &&str| {
        text.strip_prefix("req-").is_some_and(|id| {
            id.len() == 36 && id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
        })
    };
    match given.filter(is_ours) {
        Some(text) => text.into(),
        None => format!("req-{}", app.new_uuid()).into(),
    }
}

fn is_identity(path: &str) -> bool {
    let path = path.strip_prefix("/identity").unwrap_or(path);
    path == "/v3" || path.starts_with("/v3/") || path.is_empty()
}

/// The request's `Host`, as far as it can stand in a URL.
pub(super) fn host(headers: &HeaderMap) -> Arc<str> {
    let fits = |text: &&str| {
        !text.is_empty()
            && text.len() <= 255
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b))
    };
    let given = headers
        .get(header::HOST)
        .and_then(|value| value.to_str().ok());
    given.filter(fits).unwrap_or("localhost").into()
}

/// Base of the URLs in discovery and catalog.
pub(super) fn base_url(app: &AppState, host: &str) -> String {
    match &app.config.public_endpoint {
        Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
        None if app.config.is_tls => format!("https://{host}"),
        None => format!("http://{host}"),
    }
}

/// The token in a header.
pub(super) fn token<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The answer to a request without a valid token.
pub(super) fn not_authenticated() -> Error {
    Error::new(
        Kind::Unauthorized,
        NOT_AUTHENTICATED,
        "The request you have made requires authentication.",
    )
}

/// Who asks, by the header `X-Auth-Token`.
pub(super) async fn authenticate(app: &AppState, headers: &HeaderMap) -> Result<Arc<Session>> {
    let token = token(headers, &AUTH_TOKEN).ok_or_else(not_authenticated)?;
    login::session(app, token)
        .await?
        .ok_or_else(not_authenticated)
}

/// Around every route: what changes something runs in a task of its own, to its end also when the
/// client goes away meanwhile. No change is made by half, and none escapes the audit trail.
pub(super) async fn guard(State(app): State<AppState>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return guarded(&app, request, next).await;
    }
    let Ok(slot) = Arc::clone(&app.writes).acquire_owned().await else {
        return Error::internal("writes are stopped").into_response();
    };
    let (answer, answered) = oneshot::channel();
    let supervisor = app.supervisor.clone();
    supervisor.start("api write", async move {
        let response = guarded(&app, request, next).await;
        drop(slot);
        // Whoever asked may have gone.
        answer.send(response).ok();
    });
    answered
        .await
        .unwrap_or_else(|_| Error::internal("the write met a bug").into_response())
}

/// Below a project: lets in who may, and notes who changes something.
async fn guarded(app: &AppState, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let Some(project) = project_in(parts.uri.path()) else {
        return next.run(Request::from_parts(parts, body)).await;
    };
    let context = match context(app, &parts).await {
        Ok(context) => context,
        Err(error) => return error.into_response(),
    };
    let is_write = !matches!(parts.method, Method::GET | Method::HEAD);
    let rule = rule(&parts);
    let audit = rule
        .filter(|_| is_write)
        .and_then(|rule| entry(app, &context, rule, target(parts.uri.path())));
    let admitted = match admit(app, &context, &parts.method, project, rule) {
        Ok(()) if is_write => settled(app).await,
        other => other,
    };
    parts.extensions.insert(context.clone());
    let request = Request::from_parts(parts, body);
    match (admitted, audit) {
        (Ok(()), None) => next.run(request).await,
        (Ok(()), Some(entry)) => match app.store.insert_audit(&entry).await {
            Ok(()) => concluded(app, &context, entry, next.run(request).await).await,
            Err(error) => Error::from(error).into_response(),
        },
        (Err(refusal), None) => refusal.into_response(),
        (Err(refusal), Some(entry)) => noted(app, entry, refusal.into_response()).await,
    }
}

/// The project in the path; `None` where no token is needed.
fn project_in(path: &str) -> Option<&str> {
    let (project, rest) = path.strip_prefix("/v1.0/")?.split_once('/')?;
    (!project.is_empty() && !rest.is_empty()).then_some(project)
}

async fn context(app: &AppState, parts: &Parts) -> Result<RequestContext> {
    let session = authenticate(app, &parts.headers).await?;
    let id = parts
        .extensions
        .get::<RequestId>()
        .map(|id| Arc::clone(&id.0));
    let address = parts.extensions.get::<ClientAddress>();
    Ok(RequestContext {
        session,
        request_id: id.unwrap_or_else(|| "".into()),
        client_address: address.map(|address| address.0),
        host: host(&parts.headers),
        audit: Arc::new(AuditNote::default()),
    })
}

fn rule(parts: &Parts) -> Option<Rule> {
    let path = parts.extensions.get::<MatchedPath>()?;
    rules::find(&parts.method, path.as_str())
}

fn admit(
    app: &AppState,
    context: &RequestContext,
    method: &Method,
    project: &str,
    rule: Option<Rule>,
) -> Result<()> {
    let tenant_id = context.tenant_id()?;
    if tenant_id.as_str() != project {
        let message = format!("User with tenant id {tenant_id} cannot access this resource.");
        let error = Error::new(Kind::Forbidden, "other-project", message);
        return Err(error.with_hint("the path names another project than the token"));
    }
    if let Some(wait) = app.rates.take(tenant_id, method, app.clock.monotonic()) {
        return Err(rate_limited(app, method, wait));
    }
    match rule {
        Some(rule) => authorise(
            &context.session,
            rule,
            !matches!(*method, Method::GET | Method::HEAD),
        ),
        // Nothing is behind it: the fallback says so.
        None => Ok(()),
    }
}

/// Refuses changes of a state that was restored and not confirmed: addresses and names that seem
/// free may be taken by what was made since.
async fn settled(app: &AppState) -> Result<()> {
    if !app.store.is_restored().await? {
        return Ok(());
    }
    let message =
        "Coffer's state was restored from a backup and its operator has not confirmed it.";
    let error = Error::new(Kind::Unavailable, "state-restored", message);
    Err(error.with_hint("databases go on serving; the operator runs 'coffer state report'"))
}

fn rate_limited(app: &AppState, method: &Method, wait: std::time::Duration) -> Error {
    let message = format!(
        "Only {} {method} request(s) can be made to * every minute.",
        app.rates.per_minute()
    );
    let mut error = Error::new(Kind::RateLimited, "rate-limited", message);
    error.retry_after = Some(u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX));
    error
}

/// The object that a path names: everything after the project.
fn target(path: &str) -> String {
    let rest = path
        .strip_prefix("/v1.0/")
        .and_then(|path| path.split_once('/'));
    rest.map_or("", |(_, rest)| rest)
        .chars()
        .take(255)
        .collect()
}

/// The line of the audit trail of a change that is about to be tried. It is written before the
/// change: a trail that cannot be written refuses the request, and nothing goes unnoticed.
fn entry(
    app: &AppState,
    context: &RequestContext,
    rule: Rule,
    target: String,
) -> Option<AuditEntry> {
    Some(AuditEntry {
        id: AuditId::from_uuid(app.new_uuid()),
        actor: context.actor().ok()?,
        action: rule.name.to_owned(),
        target,
        outcome: AuditEntry::UNKNOWN,
        at: app.clock.now(),
    })
}

/// Completes a line by what came of it. The change is made: what cannot be written now is logged,
/// and the line stays with its outcome unknown.
async fn concluded(
    app: &AppState,
    context: &RequestContext,
    mut entry: AuditEntry,
    response: Response,
) -> Response {
    if let Some(action) = context.audit.action.get() {
        (*action).clone_into(&mut entry.action);
    }
    if let Some(target) = context.audit.target.get() {
        entry.target.clone_from(target);
    }
    entry.outcome = response.status().as_u16();
    if let Err(error) = app.store.conclude_audit(&entry).await {
        tracing::error!(%error, id = %entry.id, "complete a line of the audit trail");
    }
    response
}

/// Appends a line of what was refused before it began.
async fn noted(app: &AppState, mut entry: AuditEntry, response: Response) -> Response {
    entry.outcome = response.status().as_u16();
    match app.store.insert_audit(&entry).await {
        Ok(()) => response,
        Err(error) => Error::from(error).into_response(),
    }
}

/// Stands in the audit trail for a project or user that nobody knows.
const NOBODY: &str = "-";

/// Appends what somebody did with the identity to the audit trail, where no project need be known.
pub(super) async fn audit_identity(
    app: &AppState,
    from: &Origin,
    asker: Option<&Session>,
    entry: (&'static str, String, StatusCode),
) -> Result<()> {
    let (action, target, outcome) = entry;
    let entry = identity_entry(app, from, asker, (action, target, outcome.as_u16()))?;
    Ok(app.store.insert_audit(&entry).await?)
}

/// Makes a change of the identity with its line in the audit trail, which is written before the
/// change begins and completed by what came of it.
pub(super) async fn audited_identity(
    app: &AppState,
    (from, asker): (&Origin, &Session),
    (action, target, outcome): (&'static str, String, StatusCode),
    change: impl Future<Output = Result<()>>,
) -> Result<()> {
    let begun = (action, target, AuditEntry::UNKNOWN);
    let mut entry = identity_entry(app, from, Some(asker), begun)?;
    app.store.insert_audit(&entry).await?;
    let done = change.await;
    entry.outcome = match &done {
        Ok(()) => outcome.as_u16(),
        Err(error) => status(error.kind).0.as_u16(),
    };
    if let Err(error) = app.store.conclude_audit(&entry).await {
        tracing::error!(%error, id = %entry.id, "complete a line of the audit trail");
    }
    done
}

fn identity_entry(
    app: &AppState,
    from: &Origin,
    asker: Option<&Session>,
    (action, target, outcome): (&'static str, String, u16),
) -> Result<AuditEntry> {
    let tenant = asker.and_then(|session| session.tenant.as_ref());
    let nobody = || NOBODY.parse().map_err(Error::from);
    let actor = Actor {
        tenant_id: tenant.map_or_else(nobody, |tenant| Ok(tenant.id.clone()))?,
        user_id: match asker {
            Some(session) => session.user_id.clone(),
            None => NOBODY.parse()?,
        },
        roles: asker.map_or_else(Vec::new, |session| session.roles.clone()),
        request_id: from.request_id.to_string(),
        client_address: from.address.clone(),
    };
    Ok(AuditEntry {
        id: AuditId::from_uuid(app.new_uuid()),
        actor,
        action: action.to_owned(),
        target,
        outcome,
        at: app.clock.now(),
    })
}

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(super) struct Origin {
    /// Its id.
    pub(super) request_id: Arc<str>,
    /// The client's address; empty when it is not known.
    pub(super) address: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        _state: &S,
    ) -> std::result::Result<Self, Infallible> {
        let address = parts.extensions.get::<ClientAddress>();
        let id = parts.extensions.get::<RequestId>();
        Ok(Self {
            request_id: id.map_or_else(|| "".into(), |id| Arc::clone(&id.0)),
            address: address.map_or_else(String::new, |address| address.0.to_string()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_which_paths_need_a_token() {
        assert_eq!(project_in("/v1.0/p/instances"), Some("p"));
        for open in [
            "/",
            "/v1.0",
            "/v1.0/",
            "/v1.0/p",
            "/v1.0/p/",
            "/v3/auth/tokens",
            "/v1.0//x",
        ] {
            assert_eq!(project_in(open), None, "{open}");
        }
        assert!(is_identity("/v3") && is_identity("/identity/v3/auth/tokens"));
        assert!(is_identity("/identity") && !is_identity("/v1.0/v3/x"));
        assert_eq!(target("/v1.0/p/instances/1/action"), "instances/1/action");
    }
}
