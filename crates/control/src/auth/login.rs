//! Logging in: a password or a token for a new token, scoped to a project or not.
//!
//! What was wrong is never told apart: unknown user, wrong password, closed user, unknown project
//! and missing role all end in the same 401.

use std::sync::Arc;
use std::time::Duration;

use coffer_core::id::{TenantId, UserId};
use coffer_core::secret::Secret;
use coffer_core::tenant::{Tenant, Token, User};

use super::password::Passwords;
use super::throttle::Throttle;
use super::token::{self, Session, Tokens, new_token, token_hash};
use crate::app::AppState;
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::places::Places;

/// How a user proves itself.
#[derive(Debug, Clone)]
pub enum Proof {
    /// By its password.
    Password {
        /// The user.
        user: Named,
        /// Its password.
        password: Secret,
    },
    /// By a token it has.
    Token(Secret),
}

/// An object by id or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// By id.
    Id(String),
    /// By name.
    Name(String),
}

impl Named {
    fn text(&self) -> &str {
        match self {
            Self::Id(text) | Self::Name(text) => text,
        }
    }
}

/// What a new token is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// A project.
    Project(Named),
    /// The user's default project, if there is one.
    Default,
    /// No project.
    Unscoped,
}

/// The state of logging in that is shared by all requests.
#[derive(Debug)]
pub struct Logins {
    passwords: Passwords,
    throttle: Throttle,
    places: Places,
}

impl Default for Logins {
    fn default() -> Self {
        Self {
            passwords: Passwords::default(),
            throttle: Throttle::default(),
            places: Places::new(limits::LOGINS_AT_ONCE, limits::LOGINS_PER_ADDRESS),
        }
    }
}

impl Logins {
    /// Password hashing, for those who set one.
    pub fn passwords(&self) -> &Passwords {
        &self.passwords
    }
}

/// The one answer to everything that does not fit.
fn refused() -> Error {
    Error::new(
        Kind::Unauthorized,
        "not-authenticated",
        "The request you have made requires authentication.",
    )
}

/// Proves who asks and issues a token: its text, shown this once, and what it stands for.
pub async fn login(
    app: &AppState,
    proof: Proof,
    scope: Scope,
    client_address: &str,
) -> Result<(Secret, Arc<Session>)> {
    let (user, ends_at) = match proof {
        Proof::Password { user, password } => (
            by_password(app, &user, &password, client_address).await?,
            None,
        ),
        Proof::Token(token) => by_token(app, &token).await?,
    };
    let tenant = match scope {
        Scope::Project(named) => Some(project(app, &user, &named).await?),
        Scope::Default => default_project(app, &user).await?,
        Scope::Unscoped => None,
    };
    let now = app.clock.now();
    let full = now.plus_seconds(i64::from(app.config.token_lifetime_seconds));
    let token = new_token(&*app.entropy);
    let row = Token {
        hash: token_hash(token.expose()),
        user_id: user.id.clone(),
        tenant_id: tenant.map(|tenant| tenant.id),
        issued_at: now,
        // A token got by a token ends with it, or it could be renewed for ever.
        expires_at: ends_at.map_or(full, |end| full.min(end)),
    };
    app.store.insert_token(&row).await?;
    let session = app
        .tokens
        .validate(&app.store, &*app.clock, token.expose())
        .await?;
    Ok((token, session.ok_or_else(refused)?))
}

async fn by_password(
    app: &AppState,
    named: &Named,
    password: &Secret,
    client_address: &str,
) -> Result<User> {
    let throttle = &app.logins.throttle;
    let Some(_place) = app.logins.places.take(client_address) else {
        return Err(refused_for("too many logins at once", Duration::ZERO));
    };
    let user = find_user(app, named).await?;
    // One who is known counts once, by whichever name it is called.
    let name = user
        .as_ref()
        .map_or_else(|| named.text(), |user| user.id.as_str());
    let name: String = name.chars().take(80).collect();
    let key = format!("{name} {client_address}");
    let look = || match throttle.wait(&key, app.clock.monotonic()) {
        Some(wait) => Err(refused_for("too many failed logins", wait)),
        None => Ok(()),
    };
    look()?;
    let stored = user.as_ref().map(|user| user.password_hash.as_str());
    let is_enabled = user.as_ref().is_some_and(|user| user.is_enabled);
    // Asked again when it is its turn: of many guesses at once the first ones count for the rest.
    let note = |fits: bool| match fits && is_enabled {
        true => throttle.succeeded(&key),
        false => throttle.failed(&key, app.clock.monotonic()),
    };
    let passwords = &app.logins.passwords;
    let fits = passwords
        .verify_in_turn(password, stored, look, note)
        .await?;
    user.filter(|user| fits && user.is_enabled)
        .ok_or_else(refused)
}

/// The answer to one who has to wait.
fn refused_for(why: &str, wait: Duration) -> Error {
    let seconds = u32::try_from(wait.as_secs() + 1).unwrap_or(u32::MAX);
    let message = format!("{why}: try again in {seconds} s");
    let mut error = Error::new(Kind::RateLimited, "too-many-logins", message);
    error.retry_after = Some(seconds);
    error
}

/// Whom a proof names, whether it proves anything or not; for the audit trail.
pub async fn named_by(app: &AppState, proof: &Proof) -> Result<Option<UserId>> {
    Ok(match proof {
        Proof::Password { user, .. } => find_user(app, user).await?.map(|user| user.id),
        Proof::Token(token) => session(app, token.expose())
            .await?
            .map(|session| session.user_id.clone()),
    })
}

async fn find_user(app: &AppState, named: &Named) -> Result<Option<User>> {
    Ok(match named {
        Named::Name(name) => app.store.find_user_by_name(name).await?,
        Named::Id(id) => match id.parse::<UserId>() {
            Ok(id) => app.store.find_user(&id).await?,
            Err(_) => None,
        },
    })
}

async fn by_token(
    app: &AppState,
    token: &Secret,
) -> Result<(User, Option<coffer_core::time::Timestamp>)> {
    let session = app
        .tokens
        .validate(&app.store, &*app.clock, token.expose())
        .await?;
    let session = session.ok_or_else(refused)?;
    let user = app
        .store
        .find_user(&session.user_id)
        .await?
        .ok_or_else(refused)?;
    Ok((user, Some(session.expires_at)))
}

async fn project(app: &AppState, user: &User, named: &Named) -> Result<Tenant> {
    let found = match named {
        Named::Name(name) => app.store.find_tenant_by_name(name).await?,
        Named::Id(id) => match id.parse::<TenantId>() {
            Ok(id) => app.store.find_tenant(&id).await?,
            Err(_) => None,
        },
    };
    let tenant = found
        .filter(|tenant| tenant.is_enabled)
        .ok_or_else(refused)?;
    match app.store.list_roles(&user.id, &tenant.id).await?.is_empty() {
        true => Err(refused()),
        false => Ok(tenant),
    }
}

async fn default_project(app: &AppState, user: &User) -> Result<Option<Tenant>> {
    let Some(id) = &user.default_tenant_id else {
        return Ok(None);
    };
    // A default that does not work leaves the token unscoped, as in Keystone.
    Ok(project(app, user, &Named::Id(id.to_string())).await.ok())
}

/// Ends a token.
pub async fn revoke(app: &AppState, session: &Session) -> Result<()> {
    app.store.delete_token(&session.hash).await?;
    app.tokens.forget();
    Ok(())
}

/// Comes back when a session is taken away: its token revoked, its user or project closed, its last
/// role in it lost. Its age takes nothing that is open already; that has limits of its own.
pub async fn taken_away(app: &AppState, session: &Session) {
    loop {
        app.clock.sleep(limits::OPEN_SESSION_LOOK).await;
        if app.clock.now() >= session.expires_at {
            return std::future::pending().await;
        }
        match token::holds(&app.store, session).await {
            Ok(true) => {}
            Ok(false) => return,
            // A store that does not answer takes nothing away.
            Err(error) => tracing::debug!(%error, "look whether a session still holds"),
        }
    }
}

/// Validates a token that somebody presents.
pub async fn session(app: &AppState, token: &str) -> Result<Option<Arc<Session>>> {
    let tokens: &Tokens = &app.tokens;
    tokens.validate(&app.store, &*app.clock, token).await
}
