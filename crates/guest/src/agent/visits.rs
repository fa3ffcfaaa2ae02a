//! Visits: a user of the engine that exists as long as a connection of the control side lives.
//!
//! The user is dropped when the connection ends, however it ends, and tried again until the engine
//! has done it. What an agent that was killed left behind is dropped before the next one admits
//! anybody.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coffer_core::secret::Secret;
use coffer_engines::EngineError;
use coffer_engines::runtime::NewUser;
use coffer_wire::guest::v1::{EngineHealth, SessionEvent, UserSpec};
use hyper::body::Bytes;
use tokio::sync::{mpsc, watch};

use crate::agent::routes::{Answer, Pieces, Refused};
use crate::agent::{Shared, sessions};
use crate::limits;
use crate::log;

/// Visitors that are there.
#[derive(Debug)]
pub(crate) struct Visits {
    count: AtomicUsize,
    /// Whether those of an earlier agent are gone.
    is_swept: watch::Sender<bool>,
}

impl Default for Visits {
    fn default() -> Self {
        Self {
            count: AtomicUsize::new(0),
            is_swept: watch::Sender::new(false),
        }
    }
}

/// Counts a visitor until dropped.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.visits.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Drops what visitors an earlier agent left.
pub(crate) async fn sweep(shared: Arc<Shared>) {
    dismiss(&shared, None).await;
    shared.visits.is_swept.send_replace(true);
}

/// Admits a visitor; the events are the lines of the body.
pub(crate) fn open(shared: &Arc<Shared>, user: &UserSpec, hold_ms_max: u64) -> Answer<Pieces> {
    let place = Place(Arc::clone(shared));
    if shared.visits.count.fetch_add(1, Ordering::Relaxed) >= limits::VISITS_MAX {
        return Err(Refused::busy("too many visitors are there"));
    }
    let user = NewUser {
        name: user.name.clone(),
        host: user.host.clone(),
        password: Secret::new(user.password.clone()),
        databases: user.databases.clone(),
    };
    let stay_max = Duration::from_millis(hold_ms_max).min(limits::VISIT_MAX);
    let (sender, receiver) = mpsc::channel(4);
    shared
        .tasks
        .start(visit(Arc::clone(shared), user, stay_max, sender, place));
    Ok(Pieces(receiver))
}

async fn visit(
    shared: Arc<Shared>,
    user: NewUser,
    stay_max: Duration,
    sender: mpsc::Sender<Bytes>,
    place: Place,
) {
    let message = match stay(&shared, &user, stay_max, &sender).await {
        Ok(()) => "the visit is over".to_owned(),
        Err(error) => error.to_string(),
    };
    // Also after a failure: half of the work may have been done.
    dismiss(&shared, Some(&user.name)).await;
    let ended = SessionEvent::Ended { message };
    // The caller may be gone.
    sender.send(sessions::line(&ended)).await.ok();
    drop(place);
}

/// Makes the user and waits until the connection ends or the time is over.
async fn stay(
    shared: &Shared,
    user: &NewUser,
    stay_max: Duration,
    sender: &mpsc::Sender<Bytes>,
) -> Result<(), EngineError> {
    let admit = async {
        let mut swept = shared.visits.is_swept.subscribe();
        swept.wait_for(|is_swept| *is_swept).await.ok();
        let _turn = shared.commands.turn().await;
        shared
            .runtime
            .admit_visitor(shared.host.as_ref(), user)
            .await
    };
    let admitted = tokio::select! {
        admitted = tokio::time::timeout(limits::ADMIT_MAX, admit) => admitted,
        () = sender.closed() => return Ok(()),
    };
    admitted.unwrap_or_else(|_| {
        Err(EngineError::Down {
            why: "it took too long to make the user".to_owned(),
        })
    })?;
    let facts = std::collections::BTreeMap::new();
    let held = SessionEvent::Held { facts };
    if sender.send(sessions::line(&held)).await.is_ok() {
        tokio::select! {
            () = sender.closed() => {}
            () = tokio::time::sleep(stay_max) => {}
        }
    }
    Ok(())
}

/// Drops one visitor or all, as soon as the engine does it.
async fn dismiss(shared: &Shared, name: Option<&str>) {
    let mut status = shared.status.watch();
    let mut told = String::new();
    loop {
        let is_up =
            |status: &coffer_wire::guest::v1::Status| status.health == EngineHealth::Healthy;
        if status.wait_for(is_up).await.is_err() {
            return;
        }
        let dismissed = {
            let _turn = shared.commands.turn().await;
            shared
                .runtime
                .dismiss_visitors(shared.host.as_ref(), name)
                .await
        };
        let Err(error) = dismissed else { return };
        let words = error.to_string();
        if words != told {
            log::warn(format_args!("drop a visitor: {words}; tried again"));
            told = words;
        }
        tokio::time::sleep(limits::RETRY_EVERY).await;
    }
}
