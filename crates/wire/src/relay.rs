//! Between an API and a tracker's relay, over mutual TLS: one line of JSON each way, then what
//! the relay is for. Both ends are of one version of Coffer.
//!
//! After `Opened` a relay of purpose `connect` carries the engine's own bytes both ways. One of
//! purpose `visit` carries empty lines from the tracker, which say that the visit goes on; it
//! ends when either side ends the stream.

use serde::{Deserialize, Serialize};

use crate::guest::v1::UserSpec;

/// LIMIT: longest line of either side; unit: bytes.
pub const LINE_MAX: u64 = 16 * 1024;

/// What the API says first. `Debug` leaves the grant out.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// The grant's secret.
    pub grant: String,
    /// Project of the instance.
    pub project_id: String,
    /// The instance.
    pub instance_id: String,
    /// What for.
    pub purpose: Purpose,
}

impl std::fmt::Debug for Opening {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opening")
            .field("instance_id", &self.instance_id)
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}

/// What a relay is opened for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Bytes to and from the engine's port.
    Connect,
    /// A user of the engine, there as long as the relay.
    Visit(UserSpec),
}

/// What the tracker answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// The relay is open.
    Opened,
    /// It is not.
    Refused {
        /// Why, for programs.
        why: Refusal,
        /// In words, for whoever asked.
        message: String,
        /// The private cause, for the API's log.
        context: Option<String>,
    },
}

/// Why a relay is not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The grant is unknown, used, ended or of something else.
    Grant,
    /// Too many relays are open.
    TooMany,
    /// The instance's guest cannot be reached, or does not do it.
    NotReachable,
    /// The tracker failed.
    Failed,
}
