//! Connecting to an instance's engine by hand, through the tracker's relay.

use coffer_core::event::AuditEntry;
use coffer_core::id::{AuditId, InstanceId};
use coffer_core::instance::Lifecycle;
use coffer_core::secret::Secret;
use coffer_store::instance::InstanceView;
use coffer_wire::guest::v1::{UserSpec, VISITOR_PREFIX};

use super::{AppState, RequestContext};
use crate::authority;
use crate::clock::random_text;
use crate::error::{Error, Kind, Result};
use crate::guest::{Counted, GuestStream, Visit};
use crate::tracker::relay::{Place, Relays};

/// Length of a visitor's password.
const PASSWORD_CHARS: usize = 36;
/// Random part of a visitor's name.
const NAME_CHARS: usize = 12;
/// Databases that a client is told of.
const DATABASES_TOLD: u32 = 100;

/// What a client has to know.
#[derive(Debug, Clone)]
pub struct Connection {
    /// Name in the engine's certificate.
    pub host_name: String,
    /// Certificate of the CA that signed it, PEM.
    pub ca_pem: String,
    /// Databases.
    pub databases: Vec<String>,
}

/// A user made for the occasion.
#[derive(Debug)]
pub struct Visitor {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: Secret,
    /// What keeps it.
    pub visit: Visit,
    /// Its place among the relays.
    pub place: Place,
}

/// What a client has to know of an instance.
pub async fn describe(app: &AppState, view: &InstanceView) -> Result<Connection> {
    let tenant = &view.instance.tenant_id;
    let ca = authority::project_in(&app.store, &app.secrets, tenant, app.clock.now())
        .await
        .map_err(|error| Error::internal(error.to_string()))?;
    let id = view.instance.id;
    let databases = app.store.list_databases(id, None, DATABASES_TOLD).await?;
    Ok(Connection {
        host_name: format!("{id}.coffer"),
        ca_pem: ca.cert_pem,
        databases: databases.into_iter().map(|one| one.name).collect(),
    })
}

/// Makes a user for the occasion, with the rights of one database or none.
pub async fn visit(
    app: &AppState,
    view: &InstanceView,
    database: Option<String>,
) -> Result<Visitor> {
    let relays = relays(app, view)?;
    let id = view.instance.id;
    if let Some(name) = &database
        && app.store.find_database(id, name).await?.is_none()
    {
        return Err(Error::not_found("database", name));
    }
    let name = format!("{VISITOR_PREFIX}{}", random_text(&*app.entropy, NAME_CHARS));
    let password = Secret::new(random_text(&*app.entropy, PASSWORD_CHARS));
    let user = UserSpec {
        name: name.clone(),
        host: None,
        password: password.expose().to_owned(),
        databases: database.into_iter().collect(),
    };
    let (visit, place) = relays.visit(id, user).await?;
    Ok(Visitor {
        name,
        password,
        visit,
        place,
    })
}

/// Opens a byte stream to the instance's engine.
pub async fn open(app: &AppState, view: &InstanceView) -> Result<(GuestStream, Place)> {
    relays(app, view)?.open(view.instance.id).await
}

/// Notes the end of a relay in the audit trail, with its bytes.
pub async fn ended(
    app: &AppState,
    context: &RequestContext,
    instance_id: InstanceId,
    counted: Counted,
) {
    let (Ok(actor), Some(relays)) = (context.actor(), app.relays.get()) else {
        return;
    };
    let Counted { sent, received } = counted;
    let entry = AuditEntry {
        id: AuditId::from_uuid(app.new_uuid()),
        actor,
        action: "coffer:instance:disconnect".to_owned(),
        target: format!("instances/{instance_id}/connect?sent={sent}&received={received}"),
        outcome: 200,
        at: app.clock.now(),
    };
    relays.note(&entry).await;
}

/// The relays, if this process has any and the instance's engine may be up.
pub fn relays<'a>(app: &'a AppState, view: &InstanceView) -> Result<&'a Relays> {
    let instance = &view.instance;
    if !matches!(instance.lifecycle, Lifecycle::Active | Lifecycle::Updating) {
        let message = format!(
            "Instance {} is not ready: it is {}.",
            instance.id, instance.lifecycle
        );
        return Err(Error::new(Kind::Unprocessable, "not-ready", message)
            .with_hint("wait until the instance is ACTIVE"));
    }
    app.relays.get().ok_or_else(|| {
        let message = "This process of Coffer has no tracker, so it knows no way into instances.";
        Error::new(Kind::Unprocessable, "no-tracker", message)
            .with_hint("ask one that runs all roles (`coffer up`), or publish the instance")
    })
}
