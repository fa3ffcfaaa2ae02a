//! Sessions: something is held for as long as a connection lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use coffer_wire::guest::v1::{SessionEvent, SessionRequest};
use hyper::body::Bytes;
use tokio::sync::mpsc;

use crate::agent::routes::{Answer, Pieces, Refused};
use crate::agent::store::Fenced;
use crate::agent::{Shared, visits};
use crate::limits;
use crate::log;

/// How many sessions are open.
#[derive(Debug, Default)]
pub(crate) struct Sessions(AtomicUsize);

/// Counts a session until dropped.
struct Place(Arc<Shared>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.sessions.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Opens a session; its events are the lines of the body.
pub(crate) async fn open(shared: &Arc<Shared>, wanted: SessionRequest) -> Answer<Pieces> {
    let (hold_ms_max, fencing) = match wanted {
        SessionRequest::Quiesce {
            hold_ms_max,
            fencing,
        } => (hold_ms_max, fencing),
        SessionRequest::Visit { user, hold_ms_max } => {
            return visits::open(shared, &user, hold_ms_max);
        }
    };
    let fenced = shared.store.change(|memory| memory.fence(&fencing)).await;
    match fenced.map_err(|error| Refused::failed(&error))? {
        Ok(_) => {}
        Err(Fenced::OlderGeneration | Fenced::OlderTask) => {
            return Err(Refused::older(
                "a newer generation or version of this task is known",
            ));
        }
    }
    let place = Place(Arc::clone(shared));
    if shared.sessions.0.fetch_add(1, Ordering::Relaxed) >= limits::SESSIONS_MAX {
        return Err(Refused::busy("too many sessions are open"));
    }
    let (sender, receiver) = mpsc::channel(4);
    let hold_max = Duration::from_millis(hold_ms_max).min(limits::SESSION_MAX);
    shared
        .tasks
        .start(hold(Arc::clone(shared), sender, hold_max, place));
    Ok(Pieces(receiver))
}

async fn hold(shared: Arc<Shared>, sender: mpsc::Sender<Bytes>, hold_max: Duration, place: Place) {
    let message = match hold_until_closed(&shared, &sender, hold_max).await {
        Ok(true) => format!("held for {} ms, its longest time", hold_max.as_millis()),
        Ok(false) => return,
        Err(error) => error.to_string(),
    };
    log::info(format_args!("a session ended: {message}"));
    // The caller may be gone.
    sender
        .send(line(&SessionEvent::Ended { message }))
        .await
        .ok();
    drop(place);
}

/// Holds until the connection is gone (`false`) or the time is over (`true`).
async fn hold_until_closed(
    shared: &Shared,
    sender: &mpsc::Sender<Bytes>,
    hold_max: Duration,
) -> coffer_engines::Result<bool> {
    let hold = tokio::select! {
        hold = shared.runtime.quiesce(shared.host.as_ref()) => hold?,
        () = sender.closed() => return Ok(false),
    };
    let facts = hold.facts();
    let is_told = sender
        .send(line(&SessionEvent::Held { facts }))
        .await
        .is_ok();
    let is_over = is_told
        && tokio::select! {
            () = sender.closed() => false,
            () = tokio::time::sleep(hold_max) => true,
        };
    hold.release().await?;
    Ok(is_over)
}

/// A line of a session's body.
pub(crate) fn line(event: &SessionEvent) -> Bytes {
    let mut text = serde_json::to_vec(event).expect("wire types become JSON");
    text.push(b'\n');
    Bytes::from(text)
}
