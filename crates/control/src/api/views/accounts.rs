//! Projects, users and assignments, as the operator reads them.

use coffer_core::tenant::{RoleAssignment, Tenant, User};
use coffer_wire::rest::v1::admin::{ApiUser, Assignment, Project};

/// A project.
pub(in crate::api) fn project(tenant: &Tenant) -> Project {
    Project {
        id: tenant.id.to_string(),
        name: tenant.name.as_str().to_owned(),
        description: tenant.description.clone(),
        enabled: tenant.is_enabled,
        created: tenant.created_at.trove(),
    }
}

/// A user of the API.
pub(in crate::api) fn user(user: &User) -> ApiUser {
    ApiUser {
        id: user.id.to_string(),
        name: user.name.as_str().to_owned(),
        enabled: user.is_enabled,
        default_project_id: user.default_tenant_id.as_ref().map(ToString::to_string),
        created: user.created_at.trove(),
    }
}

/// A role that a user holds.
pub(in crate::api) fn assignment(assignment: &RoleAssignment) -> Assignment {
    Assignment {
        user_id: assignment.user_id.to_string(),
        project_id: assignment.tenant_id.to_string(),
        role: assignment.role.clone(),
    }
}
