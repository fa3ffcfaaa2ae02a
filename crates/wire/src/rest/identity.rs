//! The subset of Keystone's version 3 that `openstack` and keystoneauth need.
//!
//! One domain, `default`. Requests ignore keys that are not read, as Keystone does.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Body of `POST /v3/auth/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuthRequest {
    /// Who and for what.
    pub auth: Auth,
}

/// Who wants a token, and for what.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Auth {
    /// Who.
    pub identity: AuthIdentity,
    /// For what; a token without it belongs to no project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<AuthScope>,
}

/// How the user proves itself.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuthIdentity {
    /// `password` or `token`.
    pub methods: Vec<String>,
    /// For the method `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<AuthPassword>,
    /// For the method `token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<AuthToken>,
}

/// The method `password`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AuthPassword {
    /// The user.
    pub user: AuthUser,
}

/// A user by id, or by name and domain. `Debug` leaves the password out.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct AuthUser {
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Domain of the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainRef>,
    /// Its password.
    pub password: String,
}

impl fmt::Debug for AuthUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthUser")
            .field("id", &self.id)
            .field("name", &self.name)
            .finish()
    }
}

/// The method `token`. `Debug` leaves it out.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
pub struct AuthToken {
    /// The token.
    pub id: String,
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(***)")
    }
}

/// What a token is for: a project, or the word `unscoped`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum AuthScope {
    /// An object that names the scope.
    Object(ScopeObject),
    /// `unscoped`.
    Word(String),
}

/// The scope of a token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ScopeObject {
    /// A project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<ProjectRef>,
    /// A whole domain; refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Value>,
    /// The whole system; refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<Value>,
    /// Explicitly none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unscoped: Option<Value>,
}

/// A project by id, or by name and domain.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ProjectRef {
    /// Its id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Domain of the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<DomainRef>,
}

/// A domain by id or name.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DomainRef {
    /// `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// `Default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Something with an id and a name.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IdName {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// Something with an id and a name in a domain.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DomainIdName {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its domain.
    pub domain: IdName,
    /// Always null for users: passwords do not expire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_expires_at: Option<Value>,
}

/// Answer of `POST` and `GET /v3/auth/tokens`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TokenEnvelope {
    /// The token's content; the token itself is in the header `X-Subject-Token`.
    pub token: Token,
}

/// What a token stands for.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// How it was got.
    pub methods: Vec<String>,
    /// The user.
    pub user: DomainIdName,
    /// An id for audits; not the token.
    pub audit_ids: Vec<String>,
    /// When it ends.
    pub expires_at: String,
    /// When it was issued.
    pub issued_at: String,
    /// The project; an unscoped token has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<DomainIdName>,
    /// Always false with a project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub is_domain: Option<bool>,
    /// Roles in the project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roles: Option<Vec<IdName>>,
    /// Where services are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalog: Option<Vec<Service>>,
}

/// A service of the catalog.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its id.
    pub id: String,
    /// Its type: `identity` or `database`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Where it is.
    pub endpoints: Vec<ServiceEndpoint>,
}

/// Where a service is.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ServiceEndpoint {
    /// Its id.
    pub id: String,
    /// `public`, `internal` or `admin`.
    pub interface: String,
    /// Region.
    pub region: String,
    /// Region again.
    pub region_id: String,
    /// URL.
    pub url: String,
}

/// Answer of `GET /v3/auth/catalog`.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct CatalogDocument {
    /// The services.
    pub catalog: Vec<Service>,
    /// Where the document is.
    pub links: Value,
}

/// A project as Keystone shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IdentityProject {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its domain.
    pub domain_id: String,
    /// What it is for.
    pub description: String,
    /// Whether its users may log in.
    pub enabled: bool,
    /// Its domain again: projects do not nest.
    pub parent_id: String,
    /// Always false.
    pub is_domain: bool,
    /// Always empty.
    pub tags: Vec<String>,
    /// Always empty.
    pub options: Value,
    /// Where it is.
    pub links: Value,
}

/// One project.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IdentityProjectEnvelope {
    /// The project.
    pub project: IdentityProject,
}

/// Projects.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IdentityProjectList {
    /// The projects.
    pub projects: Vec<IdentityProject>,
    /// Where the list is.
    pub links: Value,
    /// Whether there are more than one answer holds: look for one by its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// A user as Keystone shows it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IdentityUser {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its domain.
    pub domain_id: String,
    /// Whether it may log in.
    pub enabled: bool,
    /// Project it is scoped to when it names none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_project_id: Option<String>,
    /// Always null.
    pub password_expires_at: Option<String>,
    /// Always empty.
    pub options: Value,
    /// Where it is.
    pub links: Value,
}

/// One user.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IdentityUserEnvelope {
    /// The user.
    pub user: IdentityUser,
}

/// Users.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IdentityUserList {
    /// The users.
    pub users: Vec<IdentityUser>,
    /// Where the list is.
    pub links: Value,
    /// Whether there are more than one answer holds: look for one by its name.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
}

/// Keystone's error body.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IdentityError {
    /// The error.
    pub error: IdentityErrorBody,
}

/// What went wrong.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct IdentityErrorBody {
    /// HTTP status.
    pub code: u16,
    /// Its words.
    pub title: String,
    /// What is wrong and what to do.
    pub message: String,
    /// The request.
    #[serde(default)]
    pub request_id: String,
}
