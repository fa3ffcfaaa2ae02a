//! What a restored state does not know: found, reported, and settled once the operator confirms.
//!
//! Until then nothing outside is touched. What the provider holds and the store does not know was
//! made since the backup and is adopted; what the store believes and the provider has deleted was
//! deleted since and is forgotten; what is simply not there any more is shown as failed. Whatever
//! is left is brought into service again by its ordinary recovery, under a turn beyond any that
//! the provider has heard of.

use std::collections::BTreeSet;

use coffer_core::access::Access;
use coffer_core::actor::Actor;
use coffer_core::event::{Event, Severity};
use coffer_core::id::{EventId, InstanceId, TaskId, UserId};
use coffer_core::instance::{Fault, Instance, Lifecycle};
use coffer_core::server::VolumeRole;
use coffer_core::task::Task;
use coffer_infra::provider::{Held, HeldEndpoint, Owned};
use coffer_store::instance::{InstanceGraph, SpecChange};
use coffer_store::restored::{Confirmed, Restored, Settled};
use serde::{Deserialize, Serialize};

use super::adopt::adopt;
use super::reconcile::{Known, ReconcileError};
use crate::card::{self, Card};
use crate::services::Services;
use crate::workflow::recover_instance::{self, RecoverInstanceInput};
use crate::workflow::{NewTask, encode};

/// Why tasks of the older state are ended.
const OLD_TASK: &str = "the state was restored from a backup; what this task was to do was done or \
                        undone since";

/// What was found in a restored state, and at the end what was done about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestoreReport {
    /// Whether it has been settled.
    pub is_settled: bool,
    /// Made since the backup: held by the provider, not known to the store.
    pub created_since: Vec<Line>,
    /// Deleted since the backup.
    pub deleted_since: Vec<Line>,
    /// Not there any more, and nobody remembers having deleted them.
    pub lost: Vec<Line>,
    /// Size or access changed since the backup.
    pub changed_since: Vec<Line>,
    /// Held under Coffer's tag, without anything that would tell what it is.
    pub unknown: Vec<String>,
    /// Tasks that had not ended when the state was backed up.
    pub open_tasks: usize,
    /// Why the last confirmation could not be followed.
    pub refused: Option<String>,
}

/// An instance of the report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// The instance.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its project.
    pub project_id: String,
    /// What was found, in words.
    pub what: String,
}

impl RestoreReport {
    /// A report from the store's text.
    pub fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

/// Everything that was looked at.
struct Found {
    report: RestoreReport,
    adoptable: Vec<(Card, Held)>,
    present: Vec<(InstanceGraph, Held)>,
    deleted: Vec<InstanceGraph>,
    lost: Vec<InstanceGraph>,
}

/// Looks, reports, and settles if the operator has confirmed. Gives whether the mark is gone.
///
/// The report is written before the confirmation is taken back or the mark goes: who waits for
/// either then reads why.
pub(super) async fn once(services: &Services, mark: Restored) -> Result<bool, ReconcileError> {
    let mut found = look(services).await?;
    let store = &services.store;
    let is_confirmed = mark.confirmed.is_some();
    found.report.refused = refusal(services, &found, mark.confirmed).await?;
    let is_settled = is_confirmed && found.report.refused.is_none();
    found.report.is_settled = is_settled;
    let is_news = store.put_restore_report(&encode(&found.report)).await?;
    match is_settled {
        true => store.end_restored().await?,
        false if is_confirmed => store.refuse_confirmation().await?,
        false => {}
    }
    if is_news {
        tracing::warn!(
            created_since = found.report.created_since.len(),
            deleted_since = found.report.deleted_since.len(),
            lost = found.report.lost.len(),
            unknown = found.report.unknown.len(),
            is_settled,
            "the state was restored from a backup: 'coffer state report' says what was found"
        );
    }
    Ok(is_settled)
}

/// Follows a confirmation; why it could not be followed, or the one before, if there is none.
async fn refusal(
    services: &Services,
    found: &Found,
    confirmed: Option<Confirmed>,
) -> Result<Option<String>, ReconcileError> {
    match confirmed {
        None => {
            let before = services.store.restore_report().await?;
            let before = before.as_deref().and_then(RestoreReport::read);
            Ok(before.and_then(|before| before.refused))
        }
        Some(Confirmed::Keep) if !found.report.unknown.is_empty() => {
            let why = "some of what the provider holds cannot be told what it is: see 'unknown'. \
                       It is removed if you confirm with --discard-unknown; a volume that may hold \
                       a tenant's data is kept if its file is moved out of the pool before";
            Ok(Some(why.to_owned()))
        }
        // What was settled is settled again: nothing of it is lost by trying anew.
        Some(_) => Ok(settle(services, found).await.err().map(|e| e.to_string())),
    }
}

async fn look(services: &Services) -> Result<Found, ReconcileError> {
    let held = services.provider.list_held().await?;
    let owned = services.provider.list_owned().await?;
    let known = Known::read(services).await?;
    let mut found = Found {
        report: RestoreReport::default(),
        adoptable: Vec::new(),
        present: Vec::new(),
        deleted: Vec::new(),
        lost: Vec::new(),
    };
    for (id, ..) in services.store.list_instance_ids().await? {
        sort(services, id, &held, &mut found).await?;
        let tasks = services.store.list_tasks(id).await?;
        found.report.open_tasks += tasks.iter().filter(|t| !t.state.is_ended()).count();
    }
    let unknown: Vec<Owned> = owned.into_iter().filter(|one| !known.has(one)).collect();
    let mut explained = BTreeSet::new();
    for one in &held {
        let owned = Owned::Server(one.id, one.incarnation);
        if !unknown.contains(&owned) {
            continue;
        }
        if let (Some(card), true) = (card::read(&one.card), one.volume.found.is_some()) {
            explained.extend(parts_of(&card, one));
            let what = "made since the backup; it is adopted on confirmation";
            found.report.created_since.push(card_line(&card, what));
            found.adoptable.push((card, one.clone()));
        }
    }
    let left = unknown.into_iter().filter(|one| !explained.contains(one));
    found.report.unknown = left.map(|one| riddle(&one, &held)).collect();
    Ok(found)
}

/// What cannot be adopted, in words, with all that is known of it.
fn riddle(one: &Owned, held: &[Held]) -> String {
    let (kind, id) = match one {
        Owned::Network(id) => ("network", id.to_string()),
        Owned::Endpoint(id) => ("endpoint", id.to_string()),
        Owned::Volume(id, _) => ("volume", id.to_string()),
        Owned::Server(id, _) => ("server", id.to_string()),
    };
    let of = held.iter().find(|held| match one {
        Owned::Server(id, _) => held.id == *id,
        Owned::Volume(id, _) => held.volume.id == *id,
        Owned::Network(_) | Owned::Endpoint(_) => false,
    });
    let lost = of.is_some_and(|held| held.volume.found.is_none());
    let why = if lost {
        ", whose volume is not there"
    } else {
        ""
    };
    match of.and_then(|held| card::read(&held.card)) {
        Some(Card {
            name,
            instance_id,
            tenant_id,
            ..
        }) => format!("{kind} {id} of {name} ({instance_id}) of project {tenant_id}{why}"),
        None => format!("{kind} {id}{why}"),
    }
}

/// What is held for an instance that can be adopted.
fn parts_of(card: &Card, held: &Held) -> Vec<Owned> {
    let mut parts = vec![
        Owned::Server(held.id, held.incarnation),
        Owned::Network(card.network_id),
    ];
    let volume = held.volume.found;
    parts.extend(volume.map(|(incarnation, _)| Owned::Volume(held.volume.id, incarnation)));
    parts.extend(held.endpoints.iter().map(|e| Owned::Endpoint(e.id)));
    parts
}

/// Finds out what became of an instance of the store.
async fn sort(
    services: &Services,
    id: InstanceId,
    held: &[Held],
    found: &mut Found,
) -> Result<(), ReconcileError> {
    let graph = services.store.get_instance_graph(id).await?;
    let server = graph.servers.iter().find(|s| s.instance_id == Some(id));
    let held = server.and_then(|server| held.iter().find(|h| h.id == server.id));
    let volume = graph.volumes.iter().find(|v| v.role == VolumeRole::Data);
    if let Some(held) = held.filter(|held| held.volume.found.is_some()) {
        let change = change(&graph, held);
        if change != SpecChange::default() {
            let line = line(&graph, "its size or access is not that of the backup");
            found.report.changed_since.push(line);
        }
        found.present.push((graph, held.clone()));
        return Ok(());
    }
    let provider = &services.provider;
    let was_deleted = match volume {
        Some(volume) => provider.was_deleted(volume.id, volume.incarnation).await?,
        None => false,
    };
    if was_deleted {
        let line = line(
            &graph,
            "deleted since the backup; it is forgotten on confirmation",
        );
        found.report.deleted_since.push(line);
        found.deleted.push(graph);
    } else {
        let line = line(
            &graph,
            "its server or volume is not there; it is shown as failed on confirmation",
        );
        found.report.lost.push(line);
        found.lost.push(graph);
    }
    Ok(())
}

fn line(graph: &InstanceGraph, what: &str) -> Line {
    Line {
        id: graph.instance.id.to_string(),
        name: graph.instance.spec.name.to_string(),
        project_id: graph.instance.tenant_id.to_string(),
        what: what.to_owned(),
    }
}

fn card_line(card: &Card, what: &str) -> Line {
    Line {
        id: card.instance_id.to_string(),
        name: card.name.clone(),
        project_id: card.tenant_id.to_string(),
        what: what.to_owned(),
    }
}

/// What of an instance's spec is otherwise where it runs. What is there holds: an access that was
/// narrowed since is not widened again, and a volume does not shrink.
fn change(graph: &InstanceGraph, held: &Held) -> SpecChange {
    let spec = &graph.instance.spec;
    let mut change = SpecChange::default();
    if let Some((_, size)) = held.volume.found
        && size > spec.volume
    {
        change.volume = Some(size);
    }
    let card = card::read(&held.card);
    if let Some(card) = &card
        && card.flavor_id != spec.flavor_id
    {
        change.flavor_id = Some(card.flavor_id.clone());
    }
    let endpoint = graph.endpoints.first();
    let endpoint = endpoint.and_then(|e| held.endpoints.iter().find(|held| held.id == e.id));
    if let Some(endpoint) = endpoint {
        let access = access(endpoint);
        change.access = (access != spec.access).then_some(access);
    }
    change
}

pub(super) fn access(held: &HeldEndpoint) -> Access {
    Access {
        is_public: held.published.is_some(),
        allowed_cidrs: held.allowed_cidrs.clone(),
    }
}

async fn settle(services: &Services, found: &Found) -> Result<(), ReconcileError> {
    let store = &services.store;
    store.end_old_tasks(OLD_TASK, services.clock.now()).await?;
    for graph in &found.deleted {
        let why = "it was deleted after the backup from which the state was restored";
        let event = event(services, &graph.instance, "instance.deleted", why);
        let now = services.clock.now();
        store
            .forget_instance(graph.instance.id, &event, now)
            .await?;
    }
    for graph in &found.lost {
        lose(services, graph).await?;
    }
    for (graph, held) in &found.present {
        bring_back(services, graph, held).await?;
    }
    for (card, held) in &found.adoptable {
        adopt(services, card, held).await?;
    }
    Ok(())
}

pub(super) fn event(services: &Services, instance: &Instance, code: &str, message: &str) -> Event {
    Event {
        id: EventId::from_uuid(services.new_uuid()),
        tenant_id: instance.tenant_id.clone(),
        instance_id: Some(instance.id),
        task_id: None,
        code: code.to_owned(),
        severity: Severity::Warning,
        message: message.to_owned(),
        actor: None,
        at: services.clock.now(),
    }
}

async fn lose(services: &Services, graph: &InstanceGraph) -> Result<(), ReconcileError> {
    let now = services.clock.now();
    let message = "its server or volume was not there when the state was restored from a backup";
    let fault = Fault {
        message: message.to_owned(),
        details: "restore the volume's pool, or a backup of the database, or delete it".to_owned(),
        at: now,
    };
    let event = event(services, &graph.instance, "instance.lost", message);
    let settled = Settled {
        instance_id: graph.instance.id,
        lifecycle: Lifecycle::Failed,
        fault: Some(&fault),
        change: &SpecChange::default(),
        task: None,
        event: &event,
        now,
    };
    Ok(services.store.settle_instance(&settled).await?)
}

async fn bring_back(
    services: &Services,
    graph: &InstanceGraph,
    held: &Held,
) -> Result<(), ReconcileError> {
    let instance = &graph.instance;
    let was_stopped = matches!(instance.lifecycle, Lifecycle::Stopped | Lifecycle::Stopping);
    let is_stopped = was_stopped && !held.is_running;
    let task = (!is_stopped).then(|| recovery(services, instance));
    let message = "the state was restored from a backup";
    let event = event(services, instance, "instance.state-restored", message);
    let settled = Settled {
        instance_id: instance.id,
        lifecycle: lifecycle(is_stopped),
        fault: None,
        change: &change(graph, held),
        task: task.as_ref(),
        event: &event,
        now: services.clock.now(),
    };
    Ok(services.store.settle_instance(&settled).await?)
}

pub(super) const fn lifecycle(is_stopped: bool) -> Lifecycle {
    if is_stopped {
        Lifecycle::Stopped
    } else {
        Lifecycle::Active
    }
}

pub(super) fn recovery(services: &Services, instance: &Instance) -> Task {
    let user: UserId = "system".parse().expect("'system' is a valid user id");
    let new = NewTask {
        id: TaskId::from_uuid(services.new_uuid()),
        tenant_id: instance.tenant_id.clone(),
        instance_id: instance.id,
        actor: Actor::system(instance.tenant_id.clone(), user),
        now: services.clock.now(),
    };
    let input = RecoverInstanceInput {
        instance_id: instance.id,
        set_id: instance.set_id,
        cause: "the state was restored from a backup".to_owned(),
    };
    recover_instance::task(new, &input)
}
