//! Users of the API, roles, and who holds which role in which project.

use coffer_core::id::{TenantId, UserId};
use coffer_core::name::Name;
use coffer_core::secret::Secret;
use coffer_core::tenant::{RoleAssignment, User};
use coffer_store::user::UserChange;

use super::{AppState, project};
use crate::auth::Session;
use crate::error::{Error, Kind, Result};
use crate::limits;

/// Roles that the rules themselves name; they cannot be deleted.
pub const BUILT_IN_ROLES: [&str; 3] = ["admin", "member", "reader"];

/// A user to make.
#[derive(Debug, Clone)]
pub struct NewUser {
    /// Its name.
    pub name: Name,
    /// Its password.
    pub password: Secret,
    /// Default project by id.
    pub default_project: Option<String>,
}

/// A change of a user; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// New name.
    pub name: Option<Name>,
    /// New password.
    pub password: Option<Secret>,
    /// Whether it may log in.
    pub is_enabled: Option<bool>,
    /// New default project by id.
    pub default_project: Option<String>,
}

fn check_password(password: &Secret) -> Result<()> {
    let bytes = password.expose().len();
    if (limits::API_PASSWORD_BYTES_MIN..=512).contains(&bytes) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "user['password'] must have {} to 512 bytes",
        limits::API_PASSWORD_BYTES_MIN
    )))
}

/// Makes a user.
pub async fn create(app: &AppState, new: NewUser) -> Result<User> {
    check_password(&new.password)?;
    let default_tenant_id = match &new.default_project {
        Some(id) => Some(project::get(app, id).await?.id),
        None => None,
    };
    let user = User {
        id: app.new_hex_id().parse()?,
        name: new.name,
        password_hash: app
            .logins
            .passwords()
            .hash(&*app.entropy, &new.password)
            .await?,
        is_enabled: true,
        default_tenant_id,
        created_at: app.clock.now(),
    };
    app.store.insert_user(&user).await?;
    Ok(user)
}

/// A page of the users by name, and the marker of the next page.
pub async fn list(
    app: &AppState,
    marker: Option<&str>,
    limit: u32,
) -> Result<(Vec<User>, Option<String>)> {
    let marker = marker.filter(|name| !name.contains('\0'));
    let mut rows = app.store.list_users(marker, limit + 1).await?;
    let is_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next = rows
        .last()
        .filter(|_| is_more)
        .map(|last| last.name.to_string());
    Ok((rows, next))
}

/// The user with this name.
pub async fn find_by_name(app: &AppState, name: &str) -> Result<Option<User>> {
    if name.contains('\0') {
        return Ok(None);
    }
    Ok(app.store.find_user_by_name(name).await?)
}

/// The user with this id.
pub async fn get(app: &AppState, text: &str) -> Result<User> {
    let missing = || Error::not_found("user", text);
    let id: UserId = text.parse().map_err(|_| missing())?;
    app.store.find_user(&id).await?.ok_or_else(missing)
}

/// Changes a user. A new password, and closing, end its tokens.
pub async fn update(app: &AppState, asker: &Session, text: &str, change: Change) -> Result<User> {
    let user = get(app, text).await?;
    project::keep_the_asker(change.is_enabled == Some(false) && asker.user_id == user.id)?;
    let ends_tokens = change.password.is_some() || change.is_enabled == Some(false);
    let default_tenant_id = match &change.default_project {
        Some(id) => Some(project::get(app, id).await?.id),
        None => None,
    };
    let password_hash = match &change.password {
        Some(password) => {
            check_password(password)?;
            let passwords = app.logins.passwords();
            Some(passwords.hash(&*app.entropy, password).await?)
        }
        None => None,
    };
    let change = UserChange {
        name: change.name,
        password_hash,
        is_enabled: change.is_enabled,
        default_tenant_id,
    };
    app.store.update_user(&user.id, &change).await?;
    if ends_tokens {
        app.store.delete_user_tokens(&user.id).await?;
    }
    app.tokens.forget();
    get(app, text).await
}

/// Deletes a user with its tokens and roles.
pub async fn delete(app: &AppState, asker: &Session, text: &str) -> Result<()> {
    let user = get(app, text).await?;
    project::keep_the_asker(asker.user_id == user.id)?;
    app.store.delete_user(&user.id).await?;
    app.tokens.forget();
    Ok(())
}

/// Every role.
pub async fn list_roles(app: &AppState) -> Result<Vec<String>> {
    Ok(app.store.list_known_roles().await?)
}

/// Makes a role.
pub async fn create_role(app: &AppState, name: &Name) -> Result<()> {
    Ok(app
        .store
        .insert_role(name.as_str(), app.clock.now())
        .await?)
}

/// Deletes a role that nobody holds.
pub async fn delete_role(app: &AppState, name: &str) -> Result<()> {
    if BUILT_IN_ROLES.contains(&name) {
        let message = format!("the role '{name}' is built in and cannot be deleted");
        return Err(Error::new(Kind::Conflict, "in-use", message));
    }
    get_role(app, name).await?;
    Ok(app.store.delete_role(name).await?)
}

/// The role of this name.
pub async fn get_role(app: &AppState, name: &str) -> Result<String> {
    let known = app.store.list_known_roles().await?;
    known
        .into_iter()
        .find(|role| role == name)
        .ok_or_else(|| Error::not_found("role", name))
}

/// Who asks for which role where.
async fn assignment(
    app: &AppState,
    user: &str,
    project: &str,
    role: &str,
) -> Result<RoleAssignment> {
    Ok(RoleAssignment {
        user_id: get(app, user).await?.id,
        tenant_id: project::get(app, project).await?.id,
        role: get_role(app, role).await?,
    })
}

/// Gives a role.
pub async fn assign(app: &AppState, user: &str, project: &str, role: &str) -> Result<()> {
    app.store
        .assign_role(&assignment(app, user, project, role).await?)
        .await?;
    app.tokens.forget();
    Ok(())
}

/// Takes a role away.
pub async fn revoke(
    app: &AppState,
    asker: &Session,
    user: &str,
    project: &str,
    role: &str,
) -> Result<()> {
    let assignment = assignment(app, user, project, role).await?;
    let is_own = asker
        .tenant
        .as_ref()
        .is_some_and(|own| own.id == assignment.tenant_id)
        && asker.user_id == assignment.user_id;
    project::keep_the_asker(is_own && role == "admin")?;
    app.store.revoke_role(&assignment).await?;
    app.tokens.forget();
    Ok(())
}

/// Roles that a user holds, or that are held in a project, or both.
pub async fn assignments(
    app: &AppState,
    user: Option<&str>,
    project: Option<&str>,
) -> Result<Vec<RoleAssignment>> {
    match (user, project) {
        (Some(user), project) => {
            let mut all = app
                .store
                .list_assignments(&get(app, user).await?.id)
                .await?;
            all.retain(|one| project.is_none_or(|id| one.tenant_id.as_str() == id));
            Ok(all)
        }
        (None, Some(project)) => {
            let tenant = project::get(app, project).await?;
            Ok(app.store.list_tenant_assignments(&tenant.id).await?)
        }
        (None, None) => {
            let message = "name a user or a project, or both, by id";
            Err(Error::new(Kind::BadRequest, "invalid", message))
        }
    }
}

/// Projects in which a user holds a role and may log in.
pub async fn projects_of(
    app: &AppState,
    user_id: &UserId,
) -> Result<Vec<coffer_core::tenant::Tenant>> {
    let mut ids: Vec<TenantId> = app
        .store
        .list_assignments(user_id)
        .await?
        .into_iter()
        .map(|assignment| assignment.tenant_id)
        .collect();
    ids.dedup();
    let mut projects = Vec::new();
    for id in ids {
        projects.extend(
            app.store
                .find_tenant(&id)
                .await?
                .filter(|tenant| tenant.is_enabled),
        );
    }
    Ok(projects)
}
