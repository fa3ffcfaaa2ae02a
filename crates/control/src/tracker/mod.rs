//! The tracker: the control side's way into tenant networks, and what goes through it by hand.
//!
//! Nothing leads from a guest to the control side; whoever wants to speak to one is brought to it
//! from here. An API, which reaches no guest, opens a stream to a tracker's relay (`door.rs`)
//! and shows a grant that is used once; the tracker hears it (`listener.rs`), opens the way
//! (`relay.rs`), and says in the store that it lives (`register.rs`).

pub mod door;
pub mod listener;
mod register;
pub mod relay;

use std::fmt::Debug;

use coffer_core::id::{ServerId, TrackerId};
use coffer_infra::Provider;
use coffer_infra::link::GuestLink;
use coffer_wire::relay::LINE_MAX;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Knows the way into guests.
pub trait Links: Send + Sync + Debug {
    /// The way into the guest of a server.
    fn link(&self, server_id: ServerId) -> GuestLink;

    /// Name of the provider whose guests these are.
    fn provider(&self) -> &str;
}

impl<P: Provider + ?Sized> Links for P {
    fn link(&self, server_id: ServerId) -> GuestLink {
        self.guest_link(server_id)
    }

    fn provider(&self) -> &str {
        self.name()
    }
}

/// DNS name in a tracker's certificate: whoever takes its port over is not taken for it.
fn tracker_name(id: TrackerId) -> String {
    format!("{id}.tracker.coffer")
}

/// Reads the one line that the other side says before the bytes.
async fn read_line<T: DeserializeOwned>(
    stream: &mut (impl AsyncBufRead + Unpin),
) -> std::io::Result<T> {
    let mut line = Vec::new();
    stream.take(LINE_MAX).read_until(b'\n', &mut line).await?;
    Ok(serde_json::from_slice(&line)?)
}

/// Says the one line before the bytes.
async fn write_line(
    stream: &mut (impl AsyncWrite + Unpin),
    said: &(impl Serialize + Sync),
) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(said)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    stream.flush().await
}
