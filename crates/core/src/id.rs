//! Identifiers: one type per kind of object, so that no id is passed for another.
//!
//! Ids are made by the control plane from its seeded entropy (never here). UUID ids print in the
//! canonical 8-4-4-4-12 form that Trove's clients expect; Keystone's ids (projects, users) are
//! free text because a real Keystone chooses them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::{Error, Result};

macro_rules! uuid_id {
    ($($(#[$doc:meta])* $name:ident, $word:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The id for these bytes (a version 7 UUID made by the caller's entropy).
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// The UUID inside, for wire types.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// Accepts the canonical hyphenated form only, in either case.
            fn from_str(text: &str) -> Result<Self> {
                if text.len() != 36 {
                    return Err(Error::Id { kind: $word });
                }
                Uuid::try_parse(text).map(Self).map_err(|_| Error::Id { kind: $word })
            }
        }
    )*};
}

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident, $word:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = Error;

            /// 1 to 64 printable ASCII characters without space, `/`, `%` and `?`.
            fn from_str(text: &str) -> Result<Self> {
                let fits = (1..=64).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_graphic() && !b"/%?".contains(&b));
                if fits { Ok(Self(text.to_owned())) } else { Err(Error::Id { kind: $word }) }
            }
        }
    )*};
}

uuid_id! {
    /// One managed database server, as the tenant sees it.
    InstanceId, "instance";
    /// A primary and its replicas.
    SetId, "set";
    /// The stable address of a set.
    EndpointId, "endpoint";
    /// The provider's machine or process under an instance.
    ServerId, "server";
    /// A data disk.
    VolumeId, "volume";
    /// A tenant network.
    NetworkId, "network";
    /// An engine offered.
    DatastoreId, "datastore";
    /// A version of an engine offered.
    DatastoreVersionId, "datastore version";
    /// One stored run of a workflow.
    TaskId, "task";
    /// One command given to a guest.
    CommandId, "command";
    /// One line of an instance's history.
    EventId, "event";
    /// One line of the audit trail.
    AuditId, "audit";
    /// A tracker's way into a server.
    LinkId, "link";
    /// One run of a tracker.
    TrackerId, "tracker";
    /// The key under which a project's secrets are encrypted.
    ProjectKeyId, "project key";
    /// A stored ciphertext.
    SecretId, "secret";
}

text_id! {
    /// A project: the owner of resources.
    TenantId, "project";
    /// A user of the API.
    UserId, "user";
    /// CPU and memory size; free text, `6.1` is one.
    FlavorId, "flavor";
}
