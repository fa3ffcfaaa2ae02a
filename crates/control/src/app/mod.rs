//! Use cases: check, write intent and a task in one store transaction, or read what is shown.
//!
//! Nothing here knows HTTP or calls a provider or a guest. Everything begins with the state shared
//! by all requests and the context of one.

pub mod account;
pub mod catalogue;
pub mod commands;
pub mod connect;
pub mod create;
pub mod datastore;
pub mod explain;
pub mod instance;
pub mod inventory;
pub mod network;
pub mod policy;
pub mod project;

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use coffer_core::access::Cidr;
use coffer_core::actor::Actor;
use coffer_core::event::{Event, Severity};
use coffer_core::id::{EventId, InstanceId, TaskId, TenantId};
use coffer_core::quota::DefaultLimits;
use coffer_infra::provider::Abilities;
use coffer_store::Store;
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::api::rate::Rates;
use crate::auth::login::Logins;
use crate::auth::token::Tokens;
use crate::auth::{Session, SessionTenant};
use crate::clock::{Clock, Entropy, new_uuid};
use crate::error::{Error, Kind, Result};
use crate::limits;
use crate::secrets::SecretBox;
use crate::supervise::Supervisor;
use crate::tracker::door::Door;
use crate::vault::{Vault, VaultError};
use crate::workflow::NewTask;

/// What the API is told by configuration.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Base of the URLs in discovery and catalog (`https://db.example:8779`), without a slash at
    /// its end; `None`: scheme below and the request's `Host`.
    pub public_endpoint: Option<String>,
    /// Whether the API listens with TLS; decides the scheme when no endpoint is configured.
    pub is_tls: bool,
    /// Region in views and catalog.
    pub region: String,
    /// Provider that new servers and volumes are made by.
    pub provider: String,
    /// Largest volume; unit: GiB.
    pub volume_gib_max: u32,
    /// Volume of a request that names none; `None`: a volume must be named. Unit: GiB.
    pub volume_gib_default: Option<u32>,
    /// Datastore of a request that names none, by name.
    pub default_datastore: Option<String>,
    /// Address range of a project's default network.
    pub default_subnet: Cidr,
    /// How long a token lasts; unit: seconds.
    pub token_lifetime_seconds: u32,
    /// Requests per minute, project and verb; 0 means no limit.
    pub rate_per_minute: u32,
    /// Largest body of a request; unit: bytes.
    pub body_bytes_max: usize,
    /// Quotas of projects that were given none of their own.
    pub quotas: DefaultLimits,
}

impl Default for ApiConfig {
    fn default() -> Self {
        Self {
            public_endpoint: None,
            is_tls: true,
            region: "RegionOne".to_owned(),
            provider: "local".to_owned(),
            volume_gib_max: 64,
            volume_gib_default: None,
            default_datastore: None,
            default_subnet: "10.80.0.0/24".parse().expect("it is a CIDR"),
            token_lifetime_seconds: 3_600,
            rate_per_minute: 6_000,
            body_bytes_max: 256 * 1024,
            quotas: DefaultLimits::default(),
        }
    }
}

/// The state shared by all requests; cheap to clone.
#[derive(Debug, Clone)]
pub struct AppState(Arc<Shared>);

/// See [`AppState`].
#[derive(Debug)]
pub struct Shared {
    /// State.
    pub store: Store,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
    /// Encryption at rest.
    pub secrets: SecretBox,
    /// Configuration.
    pub config: ApiConfig,
    /// Validated tokens.
    pub tokens: Tokens,
    /// Logging in.
    pub logins: Logins,
    /// Request rates.
    pub rates: Rates,
    /// Where writes run, so that they outlive the connection that asked for them.
    pub supervisor: Supervisor,
    /// Bounds the writes under way, those included that nobody waits for any more.
    pub writes: Arc<Semaphore>,
    /// The way to trackers, and through them into instances.
    pub door: OnceLock<Door>,
    /// What the provider of this process can do, where this process has one.
    pub abilities: OnceLock<Abilities>,
}

impl Deref for AppState {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.0
    }
}

impl AppState {
    /// The state over these doors.
    pub fn new(
        store: Store,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        secrets: SecretBox,
        config: ApiConfig,
        supervisor: Supervisor,
    ) -> Self {
        let rates = Rates::new(config.rate_per_minute);
        Self(Arc::new(Shared {
            store,
            clock,
            entropy,
            secrets,
            config,
            tokens: Tokens::default(),
            logins: Logins::default(),
            rates,
            supervisor,
            writes: Arc::new(Semaphore::new(limits::WRITES_AT_ONCE)),
            door: OnceLock::new(),
            abilities: OnceLock::new(),
        }))
    }

    /// A new id.
    pub fn new_uuid(&self) -> Uuid {
        new_uuid(&*self.clock, &*self.entropy)
    }

    /// An id as Keystone gives them: 32 hexadecimal digits.
    pub fn new_hex_id(&self) -> String {
        self.new_uuid().simple().to_string()
    }

    /// Where secrets are kept.
    pub fn vault(&self) -> Vault<'_> {
        Vault {
            store: &self.store,
            secrets: &self.secrets,
            clock: &*self.clock,
            entropy: &*self.entropy,
        }
    }
}

impl From<VaultError> for Error {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Store(error) => error.into(),
            VaultError::Secret(_) | VaultError::Missing => Self::internal(error.to_string()),
        }
    }
}

/// What a request leaves for the audit trail beside its route.
#[derive(Debug, Default)]
pub struct AuditNote {
    /// The action, where the route alone does not tell.
    pub action: OnceLock<&'static str>,
    /// The object, where the path does not tell.
    pub target: OnceLock<String>,
}

/// Who asks, in which request.
#[derive(Clone)]
pub struct RequestContext {
    /// Who.
    pub session: Arc<Session>,
    /// Id of the request.
    pub request_id: Arc<str>,
    /// Where it came from, if that is known.
    pub client_address: Option<IpAddr>,
    /// The request's `Host`, or the configured one.
    pub host: Arc<str>,
    /// Notes for the audit trail.
    pub audit: Arc<AuditNote>,
}

impl fmt::Debug for RequestContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestContext")
            .field("request_id", &self.request_id)
            .field("user_id", &self.session.user_id)
            .finish_non_exhaustive()
    }
}

impl RequestContext {
    /// The project that the token is scoped to.
    pub fn tenant(&self) -> Result<&SessionTenant> {
        self.session.tenant.as_ref().ok_or_else(|| {
            Error::new(
                Kind::Forbidden,
                "unscoped",
                "the token is not scoped to a project",
            )
            .with_hint("ask for a token with the scope of a project")
        })
    }

    /// Its id.
    pub fn tenant_id(&self) -> Result<&TenantId> {
        Ok(&self.tenant()?.id)
    }

    /// Projects whose objects the asker may see: all for an admin, else the token's own.
    pub fn visible(&self) -> Result<Option<&TenantId>> {
        Ok(if self.session.is_admin() {
            None
        } else {
            Some(self.tenant_id()?)
        })
    }

    /// Whether the asker is an admin.
    pub fn is_admin(&self) -> bool {
        self.session.is_admin()
    }

    /// The actor for task, event and audit rows.
    pub fn actor(&self) -> Result<Actor> {
        self.tenant()?;
        let address = self.client_address.map(|address| address.to_string());
        let actor = self
            .session
            .actor(&self.request_id, address.as_deref().unwrap_or(""));
        Ok(actor.expect("the session has a project"))
    }

    /// What a new task of this request has beside its input. It works for the instance's project,
    /// which an admin need not share.
    pub fn new_task(
        &self,
        app: &AppState,
        tenant_id: &TenantId,
        instance_id: InstanceId,
    ) -> Result<NewTask> {
        Ok(NewTask {
            id: TaskId::from_uuid(app.new_uuid()),
            tenant_id: tenant_id.clone(),
            instance_id,
            actor: self.actor()?,
            now: app.clock.now(),
        })
    }

    /// An event of an instance that this request brings about.
    pub fn event(
        &self,
        app: &AppState,
        task: &NewTask,
        code: &str,
        message: impl Into<String>,
    ) -> Event {
        Event {
            id: EventId::from_uuid(app.new_uuid()),
            tenant_id: task.tenant_id.clone(),
            instance_id: Some(task.instance_id),
            task_id: Some(task.id),
            code: code.to_owned(),
            severity: Severity::Info,
            message: message.into(),
            actor: Some(task.actor.clone()),
            at: task.now,
        }
    }
}
