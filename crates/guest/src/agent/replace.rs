//! Being replaced: takes another agent's binary, a piece at a time, and hands it to init.
//!
//! The bytes go into the inbox that init gave this agent, and nowhere on the volume: a full one
//! does not matter, and a killed agent leaves nothing behind. Who lost an answer sends again; what
//! was received before is skipped.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use coffer_wire::guest::v1::{
    AGENT_INCOMPLETE, AgentImage, AgentUpload, EngineHealth, RefusedAgent,
};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::Mutex;

use crate::agent::Shared;
use crate::agent::routes::{Answer, Refused};
use crate::checksum;
use crate::error::{GuestError, Result};
use crate::init;
use crate::limits;
use crate::log;

/// Another agent's binary as far as it is there.
#[derive(Debug, Default)]
pub(crate) struct Inbox(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Without one this agent cannot be replaced.
    file: Option<File>,
    upload: Option<AgentUpload>,
    /// What init has taken; this agent is about to end.
    handed_over: Option<AgentUpload>,
}

impl Inbox {
    /// In this empty file.
    pub(crate) fn new(file: Option<File>) -> Self {
        Self(Mutex::new(State {
            file,
            ..State::default()
        }))
    }
}

fn no_inbox() -> Refused {
    Refused::bad_request("this agent cannot be replaced: init gave it no inbox")
}

/// Takes bytes from an offset on; another checksum than before begins anew.
pub(crate) async fn take(
    shared: &Shared,
    sha256: &str,
    (offset, length): (u64, Option<u64>),
    mut body: Incoming,
) -> Answer<AgentUpload> {
    let length = length.unwrap_or_default();
    if !checksum::is_plain(sha256) || length == 0 || length > limits::AGENT_BYTES_MAX {
        return Err(Refused::bad_request(format!(
            "an agent has a SHA-256 in hex, and a length of 1 to {} bytes",
            limits::AGENT_BYTES_MAX
        )));
    }
    let mut state = shared.inbox.0.lock().await;
    if state.handed_over.is_some() {
        return Err(Refused::busy("this agent makes way for another"));
    }
    let State { file, upload, .. } = &mut *state;
    let file = file.as_ref().ok_or_else(no_inbox)?;
    let is_known = upload
        .as_ref()
        .is_some_and(|known| known.sha256 == sha256 && known.length == length);
    if !is_known {
        file.set_len(0).map_err(|error| not_kept(&error))?;
        *upload = None;
    }
    let upload = upload.get_or_insert_with(|| AgentUpload {
        sha256: sha256.to_owned(),
        length,
        received: 0,
    });
    let mut skip = upload
        .received
        .checked_sub(offset)
        .ok_or_else(|| Refused::gap(format!("received is {}", upload.received)))?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refused::bad_request("the body is cut short"))?;
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        let known = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
        skip -= known as u64;
        let fresh = data.split_off(known);
        if upload.received + fresh.len() as u64 > length {
            return Err(Refused::bad_request("the agent is longer than was said"));
        }
        file.write_all_at(&fresh, upload.received)
            .map_err(|error| not_kept(&error))?;
        upload.received += fresh.len() as u64;
    }
    Ok(upload.clone())
}

fn not_kept(error: &std::io::Error) -> Refused {
    Refused::busy(&format!("the agent cannot be kept: {error}"))
}

/// Hands the binary to init, which ends this agent a moment later. Asked again by one who lost the
/// answer, the agent that was started from it agrees.
pub(crate) async fn replace(shared: &Shared, sha256: &str) -> Answer<AgentUpload> {
    let now = shared.status.now().agent;
    let mut state = shared.inbox.0.lock().await;
    if now.sha256.as_deref() == Some(sha256) {
        return Ok(AgentUpload {
            sha256: sha256.to_owned(),
            length: 0,
            received: 0,
        });
    }
    if let Some(upload) = &state.handed_over {
        return match upload.sha256 == sha256 {
            true => Ok(upload.clone()),
            false => Err(Refused::busy("this agent makes way for another")),
        };
    }
    if now.is_on_trial {
        return Err(Refused::busy("this agent is on trial itself"));
    }
    let State { file, upload, .. } = &mut *state;
    let file = file.as_ref().ok_or_else(no_inbox)?;
    let Some(upload) = upload.as_ref().filter(|known| known.sha256 == sha256) else {
        return Err(Refused::incomplete("nothing of this agent is here"));
    };
    if upload.received < upload.length {
        let here = format!("{} of {} bytes are here", upload.received, upload.length);
        return Err(Refused::incomplete(here));
    }
    let upload = upload.clone();
    // Checked here first: an inbox that init has sealed takes nothing more.
    let is = sum(file).await.map_err(|error| Refused::failed(&error))?;
    if is != sha256 {
        state.upload = None;
        return Err(Refused::wrong_checksum(format!(
            "the bytes have the checksum {is}: send them again"
        )));
    }
    let replaced = shared.keeper.replace(upload.length, sha256).await;
    replaced.map_err(|error| Refused::failed(&error))?;
    log::info(format_args!("another agent takes over: {sha256}"));
    state.handed_over = Some(upload.clone());
    Ok(upload)
}

async fn sum(file: &File) -> Result<String> {
    let file = file
        .try_clone()
        .map_err(GuestError::io("read the other agent"))?;
    let sum = tokio::task::spawn_blocking(move || checksum::of(&file)).await;
    let stopped = |_| GuestError::Init {
        why: "the agent ends".to_owned(),
    };
    sum.map_err(stopped)?
        .map_err(GuestError::io("read the other agent"))
}

/// Keeps what the status says of the agent's binary. The checksum is computed when the engine has
/// had its turn, and others on the host that are made at once have had theirs: it would compete
/// with starts that somebody waits for.
pub(crate) async fn tell(shared: Arc<Shared>, program: Option<PathBuf>) {
    let mut image = shared.keeper.image();
    let seen = |image: &init::Image, agent: &mut AgentImage| {
        agent.is_on_trial = image.is_on_trial;
        agent.refused = image
            .refused
            .clone()
            .map(|(sha256, message)| RefusedAgent { sha256, message });
    };
    let first = image.borrow_and_update().clone();
    shared
        .status
        .change(|status| seen(&first, &mut status.agent));
    if let Some(program) = program {
        match own_sum(&shared, program).await {
            Ok(sum) => shared
                .status
                .change(|status| status.agent.sha256 = Some(sum)),
            Err(error) => log::warn(format_args!("the agent does not know itself: {error}")),
        }
    }
    while image.changed().await.is_ok() {
        let now = image.borrow_and_update().clone();
        shared.status.change(|status| seen(&now, &mut status.agent));
    }
}

async fn own_sum(shared: &Shared, program: PathBuf) -> Result<String> {
    let is_settled = |health| !matches!(health, EngineHealth::Waiting | EngineHealth::Starting);
    let mut watch = shared.status.watch();
    // The status lives as long as the agent.
    watch
        .wait_for(|status| is_settled(status.health))
        .await
        .map(|_| ())
        .unwrap_or_default();
    tokio::time::sleep(limits::OWN_SUM_AFTER).await;
    let file = File::open(program).map_err(GuestError::io("read the agent's own binary"))?;
    sum(&file).await
}

impl Refused {
    fn incomplete(message: impl Into<String>) -> Self {
        Self::conflict(AGENT_INCOMPLETE, message)
    }

    fn wrong_checksum(message: impl Into<String>) -> Self {
        Self::conflict("wrong-checksum", message)
    }
}
