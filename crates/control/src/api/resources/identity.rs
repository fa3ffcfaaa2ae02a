//! The subset of Keystone's version 3: discovery, tokens, catalog, and the asker's own projects.
//!
//! Served under `/v3` and under `/identity/v3`, which the catalog names.

use std::sync::Arc;

use axum::Router;
use axum::extract::{OriginalUri, State};
use axum::response::Response;
use axum::routing::get;
use coffer_core::secret::Secret;
use coffer_core::tenant::Tenant;
use coffer_wire::rest::identity::{
    AuthRequest, AuthScope, AuthUser, CatalogDocument, DomainRef, IdentityProjectEnvelope,
    IdentityProjectList, IdentityUserEnvelope, IdentityUserList, ProjectRef, ScopeObject,
    TokenEnvelope,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::api::extract::{Json, Segments};
use crate::api::guard::{
    Origin, audit_identity, audited_identity, authenticate, base_url, host, not_authenticated,
    token,
};
use crate::api::links::Page;
use crate::api::respond::{empty, json as json_response, ok};
use crate::api::views::identity as views;
use crate::app::{AppState, account, project};
use crate::auth::catalog::catalog;
use crate::auth::login::{self, Named, Proof, Scope};
use crate::auth::{DOMAIN_ID, DOMAIN_NAME, Session};
use crate::error::{Error, Kind, Result};
use crate::limits;

/// The audit trail's action of logging in.
const AUTHENTICATE: &str = "identity:authenticate";

const SUBJECT_TOKEN: HeaderName = HeaderName::from_static("x-subject-token");

pub(in crate::api) fn router() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(version))
        .routes(routes!(issue, validate, revoke))
        .routes(routes!(show_catalog))
        .routes(routes!(own_projects))
        .routes(routes!(list_projects))
        .routes(routes!(show_project))
        .routes(routes!(list_users))
        .routes(routes!(show_user))
        .routes(routes!(user_projects))
}

/// The same under `/identity`, which is where the catalog points.
pub(in crate::api) fn below_identity() -> Router<AppState> {
    let (routes, _) = router().split_for_parts();
    Router::new()
        .route("/v3/", get(version))
        .route("/identity", get(versions))
        .route("/identity/", get(versions))
        .route("/identity/v3/", get(version))
        .nest("/identity", routes)
}

/// Base of the identity's URLs as this request reached it.
fn base(app: &AppState, headers: &HeaderMap, uri: &OriginalUri) -> String {
    let base = base_url(app, &host(headers));
    let below = if uri.path().starts_with("/identity") {
        "/identity/v3"
    } else {
        "/v3"
    };
    format!("{base}{below}")
}

fn version_three(href: &str) -> Value {
    json!({
        "id": "v3.14",
        "status": "stable",
        "updated": "2020-04-07T00:00:00Z",
        "links": [{ "rel": "self", "href": format!("{href}/") }],
        "media-types": [{
            "base": "application/json",
            "type": "application/vnd.openstack.identity-v3+json",
        }],
    })
}

/// The versions of the identity.
async fn versions(State(app): State<AppState>, headers: HeaderMap) -> Response {
    let href = format!("{}/identity/v3", base_url(&app, &host(&headers)));
    let body = json!({ "versions": { "values": [version_three(&href)] } });
    json_response(StatusCode::MULTIPLE_CHOICES, &body)
}

/// Version 3 of the identity.
#[utoipa::path(get, path = "/v3", tag = "identity", responses((status = 200, body = Value)))]
async fn version(State(app): State<AppState>, headers: HeaderMap, uri: OriginalUri) -> Response {
    ok(&json!({ "version": version_three(&base(&app, &headers, &uri)) }))
}

/// The answer to everything about a login that does not fit.
fn refused() -> Error {
    not_authenticated()
}

fn named(id: Option<String>, name: Option<String>, domain: Option<&DomainRef>) -> Result<Named> {
    match (id, name) {
        (Some(id), _) => Ok(Named::Id(id)),
        (None, Some(name)) if is_default(domain) => Ok(Named::Name(plain(name)?)),
        (None, Some(_)) => Err(refused()),
        (None, None) => Err(Error::invalid(
            "auth names an object by neither id nor name",
        )),
    }
}

fn plain(name: String) -> Result<String> {
    if name.contains('\0') {
        Err(refused())
    } else {
        Ok(name)
    }
}

/// There is one domain; who names none means it.
fn is_default(domain: Option<&DomainRef>) -> bool {
    domain.is_none_or(|domain| {
        domain.id.as_ref().is_none_or(|id| id == DOMAIN_ID)
            && domain
                .name
                .as_ref()
                .is_none_or(|name| name.eq_ignore_ascii_case(DOMAIN_NAME))
    })
}

fn proof(request: &AuthRequest) -> Result<Proof> {
    let identity = &request.auth.identity;
    let missing = |what: &str| Error::invalid(format!("auth['identity'] '{what}' is missing"));
    match identity.methods.as_slice() {
        [method] if method == "password" => {
            let user = &identity
                .password
                .as_ref()
                .ok_or_else(|| missing("password"))?
                .user;
            let AuthUser {
                id,
                name,
                domain,
                password,
            } = user.clone();
            Ok(Proof::Password {
                user: named(id, name, domain.as_ref())?,
                password: Secret::new(password),
            })
        }
        [method] if method == "token" => {
            let token = identity.token.as_ref().ok_or_else(|| missing("token"))?;
            Ok(Proof::Token(Secret::new(token.id.clone())))
        }
        _ => Err(Error::new(
            Kind::Unauthorized,
            "method",
            "Attempted to authenticate with an unsupported method.",
        )),
    }
}

fn scope(request: AuthRequest) -> Result<Scope> {
    match request.auth.scope {
        None => Ok(Scope::Default),
        Some(AuthScope::Word(word)) if word == "unscoped" => Ok(Scope::Unscoped),
        Some(AuthScope::Word(_)) => Err(Error::invalid("auth['scope'] is no scope")),
        Some(AuthScope::Object(ScopeObject {
            project: Some(project),
            ..
        })) => {
            let ProjectRef { id, name, domain } = project;
            Ok(Scope::Project(named(id, name, domain.as_ref())?))
        }
        Some(AuthScope::Object(ScopeObject {
            unscoped: Some(_), ..
        })) => Ok(Scope::Unscoped),
        Some(AuthScope::Object(_)) => Err(Error::new(
            Kind::Unauthorized,
            "scope",
            "Tokens are scoped to a project or not at all.",
        )),
    }
}

fn with_token(
    status: StatusCode,
    app: &AppState,
    headers: &HeaderMap,
    session: &Session,
    method: &str,
    text: &str,
) -> Response {
    let base = base_url(app, &host(headers));
    let tenant = session.tenant.as_ref().map(|tenant| tenant.id.as_str());
    let catalog = catalog(&base, &app.config.region, tenant);
    let token = views::token(session, method, catalog);
    let mut response = json_response(status, &TokenEnvelope { token });
    let headers = response.headers_mut();
    headers.extend(
        HeaderValue::from_str(text)
            .ok()
            .map(|value| (SUBJECT_TOKEN, value)),
    );
    headers.insert(http::header::VARY, HeaderValue::from_static("X-Auth-Token"));
    response
}

/// Issues a token for a password or a token.
#[utoipa::path(post, path = "/v3/auth/tokens", tag = "identity", request_body = AuthRequest,
    responses((status = 201, body = TokenEnvelope)))]
async fn issue(
    State(app): State<AppState>,
    headers: HeaderMap,
    origin: Origin,
    Json(request): Json<AuthRequest>,
) -> Result<Response> {
    let proof = proof(&request)?;
    let method = if matches!(proof, Proof::Password { .. }) {
        "password"
    } else {
        "token"
    };
    let scope = scope(request)?;
    let (token, session) = match login::login(&app, proof.clone(), scope, &origin.address).await {
        Ok(issued) => issued,
        Err(error) => return Err(refused_login(&app, &origin, &proof, error).await?),
    };
    let target = format!("users/{}", session.user_id);
    let entry = (AUTHENTICATE, target, StatusCode::CREATED);
    audit_identity(&app, &origin, Some(&session), entry).await?;
    Ok(with_token(
        StatusCode::CREATED,
        &app,
        &headers,
        &session,
        method,
        token.expose(),
    ))
}

/// Notes a login that was refused: whom it named, where that is somebody, and never what was sent,
/// which may be a password in the wrong place. Tries that the throttle turned away are not noted:
/// those it counted were, and a flood would fill the trail.
async fn refused_login(
    app: &AppState,
    origin: &Origin,
    proof: &Proof,
    error: Error,
) -> Result<Error> {
    if error.kind == Kind::Unauthorized {
        let target = match login::named_by(app, proof).await? {
            Some(id) => format!("users/{id}"),
            None => "an unknown user".to_owned(),
        };
        let entry = (AUTHENTICATE, target, StatusCode::UNAUTHORIZED);
        audit_identity(app, origin, None, entry).await?;
    }
    Ok(error)
}

/// The token that a request is about: the asker's own, or any if the asker is an admin.
async fn subject(app: &AppState, headers: &HeaderMap) -> Result<(Arc<Session>, Arc<Session>)> {
    let asker = authenticate(app, headers).await?;
    let missing = || Error::new(Kind::NotFound, "not-found", "Could not find token.");
    let text = token(headers, &SUBJECT_TOKEN).ok_or_else(missing)?;
    let subject = login::session(app, text).await?.ok_or_else(missing)?;
    if subject.user_id != asker.user_id && !asker.is_admin() {
        let message = "You are not authorized to perform the requested action.";
        return Err(Error::new(Kind::Forbidden, "policy", message));
    }
    Ok((asker, subject))
}

/// What a token stands for.
#[utoipa::path(get, path = "/v3/auth/tokens", tag = "identity",
    params(("X-Subject-Token" = String, Header)),
    responses((status = 200, body = TokenEnvelope)))]
async fn validate(State(app): State<AppState>, headers: HeaderMap) -> Result<Response> {
    let (_, session) = subject(&app, &headers).await?;
    let text = token(&headers, &SUBJECT_TOKEN).unwrap_or_default();
    Ok(with_token(
        StatusCode::OK,
        &app,
        &headers,
        &session,
        "password",
        text,
    ))
}

/// Ends a token.
#[utoipa::path(delete, path = "/v3/auth/tokens", tag = "identity",
    params(("X-Subject-Token" = String, Header)), responses((status = 204)))]
async fn revoke(
    State(app): State<AppState>,
    origin: Origin,
    headers: HeaderMap,
) -> Result<Response> {
    let (asker, session) = subject(&app, &headers).await?;
    let target = format!("users/{}", session.user_id);
    let entry = ("identity:revoke_token", target, StatusCode::NO_CONTENT);
    let change = login::revoke(&app, &session);
    audited_identity(&app, (&origin, &asker), entry, change).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Where services are.
#[utoipa::path(get, path = "/v3/auth/catalog", tag = "identity",
    responses((status = 200, body = CatalogDocument)))]
async fn show_catalog(
    State(app): State<AppState>,
    headers: HeaderMap,
    uri: OriginalUri,
) -> Result<Response> {
    let session = authenticate(&app, &headers).await?;
    let tenant = session
        .tenant
        .as_ref()
        .map(|tenant| tenant.id.as_str())
        .ok_or_else(|| {
            Error::new(
                Kind::Forbidden,
                "unscoped",
                "The catalog needs a token with a project.",
            )
        })?;
    let catalog = catalog(
        &base_url(&app, &host(&headers)),
        &app.config.region,
        Some(tenant),
    );
    let links = views::links(format!("{}/auth/catalog", base(&app, &headers, &uri)));
    Ok(ok(&CatalogDocument { catalog, links }))
}

fn projects(projects: &[Tenant], base: &str, path: &str) -> IdentityProjectList {
    IdentityProjectList {
        projects: projects
            .iter()
            .map(|tenant| views::project(tenant, base))
            .collect(),
        links: views::links(format!("{base}/{path}")),
        truncated: false,
    }
}

/// The projects that the asker may scope a token to.
#[utoipa::path(get, path = "/v3/auth/projects", tag = "identity",
    responses((status = 200, body = IdentityProjectList)))]
async fn own_projects(
    State(app): State<AppState>,
    headers: HeaderMap,
    uri: OriginalUri,
) -> Result<Response> {
    let session = authenticate(&app, &headers).await?;
    let own = account::projects_of(&app, &session.user_id).await?;
    let base = base(&app, &headers, &uri);
    Ok(ok(&projects(&own, &base, "auth/projects")))
}

/// Projects that the asker sees: all for an admin, else the asker's own; `name` picks one.
#[utoipa::path(get, path = "/v3/projects", tag = "identity",
    params(("name" = Option<String>, Query)),
    responses((status = 200, body = IdentityProjectList)))]
async fn list_projects(
    State(app): State<AppState>,
    headers: HeaderMap,
    uri: OriginalUri,
    page: Page,
) -> Result<Response> {
    let session = authenticate(&app, &headers).await?;
    let name = page.parameter("name");
    let mut is_cut = false;
    let mut seen = match (session.is_admin(), name) {
        (true, Some(name)) => project::find_by_name(&app, name)
            .await?
            .into_iter()
            .collect(),
        (true, None) => {
            let (seen, next) = project::list(&app, None, limits::IDENTITY_LIST).await?;
            is_cut = next.is_some();
            seen
        }
        (false, _) => account::projects_of(&app, &session.user_id).await?,
    };
    seen.retain(|tenant| name.is_none_or(|name| tenant.name.as_str() == name));
    let mut list = projects(&seen, &base(&app, &headers, &uri), "projects");
    list.truncated = is_cut;
    Ok(ok(&list))
}

#[derive(Debug, Deserialize)]
struct OneProject {
    project: String,
}

/// One project that the asker sees.
#[utoipa::path(get, path = "/v3/projects/{project}", tag = "identity",
    params(("project" = String, Path)),
    responses((status = 200, body = IdentityProjectEnvelope)))]
async fn show_project(
    State(app): State<AppState>,
    headers: HeaderMap,
    uri: OriginalUri,
    Segments(path): Segments<OneProject>,
) -> Result<Response> {
    let session = authenticate(&app, &headers).await?;
    let missing = || Error::not_found("project", &path.project);
    let tenant = project::get(&app, &path.project).await?;
    let is_own = account::projects_of(&app, &session.user_id)
        .await?
        .iter()
        .any(|own| own.id == tenant.id);
    if !is_own && !session.is_admin() {
        return Err(missing());
    }
    let project = views::project(&tenant, &base(&app, &headers, &uri));
    Ok(ok(&IdentityProjectEnvelope { project }))
}

/// Users that the asker sees: all for an admin, else the asker; `name` picks one.
#[utoipa::path(get, path = "/v3/users", tag = "identity",
    params(("name" = Option<String>, Query)),
    responses((status = 200, body = IdentityUserList)))]
async fn list_users(
    State(app): State<AppState>,
    headers: HeaderMap,
    uri: OriginalUri,
    page: Page,
) -> Result<Response> {
    let session = authenticate(&app, &headers).await?;
    let name = page.parameter("name");
    let mut truncated = false;
    let mut seen = match (session.is_admin(), name) {
        (true, Some(name)) => account::find_by_name(&app, name)
            .await?
            .into_iter()
            .collect(),
        (true, None) => {
            let (seen, next) = account::list(&app, None, limits::IDENTITY_LIST).await?;
            truncated = next.is_some();
            seen
        }
        (false, _) => vec![account::get(&app, session.user_id.as_str()).await?],
    };
    seen.retain(|user| name.is_none_or(|name| user.name.as_str() == name));
    let base = base(&app, &headers, &uri);
    Ok(ok(&IdentityUserList {
        users: seen.iter().map(|user| views::user(user, &base)).collect(),
        links: views::links(format!("{base}/users")),
        truncated,
    }))
}

#[derive(Debug, Deserialize)]
struct OneUser {
    user: String,
}

/// The asker, or anybody if the asker is an admin.
async fn seen_user(
    app: &AppState,
    headers: &HeaderMap,
    id: &str,
) -> Result<coffer_core::tenant::User> {
    let session = authenticate(app, headers).await?;
    if session.user_id.as_str() != id && !session.is_admin() {
        return Err(Error::not_found("user", id));
    }
    account::get(app, id).await
}

/// One user that the asker sees.
#[utoipa::path(get, path = "/v3/users/{user}", tag = "identity",
    params(("user" = String, Path)), responses((status = 200, body = IdentityUserEnvelope)))]
async fn show_user(
    State(app): State<AppState>,
    headers: HeaderMap,
    uri: OriginalUri,
    Segments(path): Segments<OneUser>,
) -> Result<Response> {
    let user = seen_user(&app, &headers, &path.user).await?;
    let user = views::user(&user, &base(&app, &headers, &uri));
    Ok(ok(&IdentityUserEnvelope { user }))
}

/// Projects of a user that the asker sees.
#[utoipa::path(get, path = "/v3/users/{user}/projects", tag = "identity",
    params(("user" = String, Path)), responses((status = 200, body = IdentityProjectList)))]
async fn user_projects(
    State(app): State<AppState>,
    headers: HeaderMap,
    uri: OriginalUri,
    Segments(path): Segments<OneUser>,
) -> Result<Response> {
    let user = seen_user(&app, &headers, &path.user).await?;
    let of_user = account::projects_of(&app, &user.id).await?;
    let base = base(&app, &headers, &uri);
    Ok(ok(&projects(
        &of_user,
        &base,
        &format!("users/{}/projects", user.id),
    )))
}
