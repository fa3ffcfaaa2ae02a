//! Connecting to an instance's engine by hand, through a tracker's relay; and the trackers.

use coffer_core::event::AuditEntry;
use coffer_core::id::{AuditId, InstanceId};
use coffer_core::instance::Lifecycle;
use coffer_core::secret::Secret;
use coffer_store::instance::InstanceView;
use coffer_store::tracker::TrackerView;
use coffer_wire::guest::v1::{UserSpec, VISITOR_PREFIX};
use coffer_wire::relay::Purpose;

use super::{AppState, RequestContext};
use crate::authority;
use crate::clock::random_text;
use crate::error::{Error, Kind, Result};
use crate::guest::{Ending, Meter};
use crate::tracker::door::{Door, Relay, Wanted};

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
    pub relay: Relay,
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
    context: &RequestContext,
    view: &InstanceView,
    database: Option<String>,
) -> Result<Visitor> {
    let id = view.instance.id;
    is_ready(view)?;
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
    let relay = relay(app, context, view, Purpose::Visit(user)).await?;
    Ok(Visitor {
        name,
        password,
        relay,
    })
}

/// Opens a byte stream to the instance's engine.
pub async fn open(app: &AppState, context: &RequestContext, view: &InstanceView) -> Result<Relay> {
    is_ready(view)?;
    relay(app, context, view, Purpose::Connect).await
}

async fn relay(
    app: &AppState,
    context: &RequestContext,
    view: &InstanceView,
    purpose: Purpose,
) -> Result<Relay> {
    let wanted = Wanted {
        tenant_id: view.instance.tenant_id.clone(),
        instance_id: view.instance.id,
        purpose,
        actor: context.actor()?,
    };
    door(app)?.open(&wanted).await
}

/// Notes the end of a connection whose tracker was lost: nobody else can.
pub async fn lost(
    app: &AppState,
    context: &RequestContext,
    instance_id: InstanceId,
    meter: &Meter,
) {
    let Ok(actor) = context.actor() else {
        return;
    };
    let (sent, received) = meter.read();
    let ending = Ending::TrackerLost.as_str();
    let counts = format!("sent={sent}&received={received}&ended={ending}");
    let entry = AuditEntry {
        id: AuditId::from_uuid(app.new_uuid()),
        actor,
        action: "coffer:instance:disconnect".to_owned(),
        target: format!("instances/{instance_id}/connect?{counts}"),
        outcome: 200,
        at: app.clock.now(),
    };
    if let Err(error) = app.store.insert_audit(&entry).await {
        tracing::error!(%error, action = %entry.action, "write the audit trail");
    }
}

/// The trackers, and whether each can be reached from here.
pub async fn trackers(app: &AppState) -> Result<Vec<(TrackerView, bool)>> {
    match app.door.get() {
        Some(door) => door.trackers().await,
        None => {
            let all = app.store.list_trackers().await?;
            Ok(all.into_iter().map(|one| (one, false)).collect())
        }
    }
}

/// The way to trackers.
pub fn door(app: &AppState) -> Result<&Door> {
    let door = app.door.get();
    door.ok_or_else(|| {
        let message = "This API has no way to trackers.";
        Error::new(Kind::Unavailable, "no-tracker", message)
    })
}

/// Whether the instance's engine may be up.
fn is_ready(view: &InstanceView) -> Result<()> {
    let instance = &view.instance;
    if matches!(instance.lifecycle, Lifecycle::Active | Lifecycle::Updating) {
        return Ok(());
    }
    let message = format!(
        "Instance {} is not ready: it is {}.",
        instance.id, instance.lifecycle
    );
    Err(Error::new(Kind::Unprocessable, "not-ready", message)
        .with_hint("wait until the instance is ACTIVE"))
}
