//! Tokens, projects and users as Keystone shows them.

use coffer_core::tenant::{Tenant, User};
use coffer_wire::rest::identity::{
    DomainIdName, IdName, IdentityProject, IdentityUser, Service, Token,
};
use serde_json::{Value, json};

use crate::auth::{DOMAIN_ID, DOMAIN_NAME, Session};

fn domain() -> IdName {
    IdName {
        id: DOMAIN_ID.to_owned(),
        name: DOMAIN_NAME.to_owned(),
    }
}

fn in_domain(id: &str, name: &str) -> DomainIdName {
    DomainIdName {
        id: id.to_owned(),
        name: name.to_owned(),
        domain: domain(),
        password_expires_at: None,
    }
}

/// What a token stands for.
pub(in crate::api) fn token(session: &Session, method: &str, catalog: Vec<Service>) -> Token {
    let tenant = session.tenant.as_ref();
    let role = |name: &String| IdName {
        id: name.clone(),
        name: name.clone(),
    };
    Token {
        methods: vec![method.to_owned()],
        user: in_domain(session.user_id.as_str(), &session.user_name),
        // Enough of the hash to find the token in a log, too little to be anything else.
        audit_ids: vec![session.hash.chars().take(22).collect()],
        expires_at: session.expires_at.keystone(),
        issued_at: session.issued_at.keystone(),
        project: tenant.map(|tenant| in_domain(tenant.id.as_str(), &tenant.name)),
        is_domain: tenant.map(|_| false),
        roles: tenant.map(|_| session.roles.iter().map(role).collect()),
        catalog: tenant.map(|_| catalog),
    }
}

/// Where a document is.
pub(in crate::api) fn links(href: String) -> Value {
    json!({ "self": href, "previous": null, "next": null })
}

/// A project.
pub(in crate::api) fn project(tenant: &Tenant, base: &str) -> IdentityProject {
    IdentityProject {
        id: tenant.id.to_string(),
        name: tenant.name.as_str().to_owned(),
        domain_id: DOMAIN_ID.to_owned(),
        description: tenant.description.clone(),
        enabled: tenant.is_enabled,
        parent_id: DOMAIN_ID.to_owned(),
        is_domain: false,
        tags: Vec::new(),
        options: json!({}),
        links: json!({ "self": format!("{base}/projects/{}", tenant.id) }),
    }
}

/// A user.
pub(in crate::api) fn user(user: &User, base: &str) -> IdentityUser {
    IdentityUser {
        id: user.id.to_string(),
        name: user.name.as_str().to_owned(),
        domain_id: DOMAIN_ID.to_owned(),
        enabled: user.is_enabled,
        default_project_id: user.default_tenant_id.as_ref().map(ToString::to_string),
        password_expires_at: None,
        options: json!({}),
        links: json!({ "self": format!("{base}/users/{}", user.id) }),
    }
}
