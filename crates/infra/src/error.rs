//! What a provider may answer instead of doing as asked, by what the caller can do about it.

use thiserror::Error;

/// A provider's refusal or failure. Retry decisions match on the variant.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// It may work when tried again.
    #[error("{what}: {why}")]
    Transient {
        /// What was being done.
        what: &'static str,
        /// The cause, for the log.
        why: String,
    },
    /// An earlier call on the same object goes on; it may work when tried again.
    #[error("{what}: {why}")]
    Busy {
        /// What was being done.
        what: &'static str,
        /// What is waited for.
        why: String,
    },
    /// The object is not there.
    #[error("{what} is not there")]
    NotFound {
        /// Which kind of object.
        what: &'static str,
    },
    /// The provider has no room or allows no more.
    #[error("{what}: {why}")]
    QuotaExceeded {
        /// What was being done.
        what: &'static str,
        /// What is used up and who can give more.
        why: String,
    },
    /// Something else holds what is needed, or a newer incarnation is known.
    #[error("{what}: {why}")]
    Conflict {
        /// What was being done.
        what: &'static str,
        /// What is in the way.
        why: String,
    },
    /// The provider understood and will not; trying again is useless until somebody acts.
    #[error("{what}: {why}")]
    Rejected {
        /// What was being done.
        what: &'static str,
        /// What is wrong and what to do.
        why: String,
    },
    /// The provider does not accept our credentials or privileges.
    #[error("{what}: {why}")]
    Unauthorized {
        /// What was being done.
        what: &'static str,
        /// What is missing.
        why: String,
    },
    /// Our own mistake.
    #[error("{what}: {why}")]
    Bug {
        /// What was being done.
        what: &'static str,
        /// What did not hold.
        why: String,
    },
}

impl ProviderError {
    /// Whether the same call may succeed later without anybody acting.
    pub const fn is_retryable(&self) -> bool {
        match self {
            Self::Transient { .. } | Self::Busy { .. } | Self::Conflict { .. } => true,
            Self::NotFound { .. }
            | Self::QuotaExceeded { .. }
            | Self::Rejected { .. }
            | Self::Unauthorized { .. }
            | Self::Bug { .. } => false,
        }
    }
}

/// Result of a provider call.
pub type Result<T> = std::result::Result<T, ProviderError>;
