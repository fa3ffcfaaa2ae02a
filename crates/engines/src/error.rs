//! What an engine refuses or fails at; public messages, no secrets in them.

use thiserror::Error;

/// A refusal or failure of an engine.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A name, parameter or option that the engine does not take.
    #[error("{field} '{value}' is not valid: {rule}")]
    Invalid {
        /// The field in the request.
        field: &'static str,
        /// What was given, cut to a printable length.
        value: String,
        /// The rule in words.
        rule: String,
    },
    /// The engine does not have this operation.
    #[error("{engine} does not support {operation}: {reason}")]
    Unsupported {
        /// The engine.
        engine: &'static str,
        /// The operation.
        operation: &'static str,
        /// Why.
        reason: &'static str,
    },
    /// The object is not there.
    #[error("{kind} '{name}' does not exist")]
    Missing {
        /// `database` or `user`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The engine does not run or does not answer.
    #[error("the engine is down: {why}")]
    Down {
        /// The cause.
        why: String,
    },
    /// The engine answered with an error.
    #[error("{what}: {why}")]
    Failed {
        /// What was being done.
        what: &'static str,
        /// What the engine said.
        why: String,
    },
}

impl EngineError {
    /// Stable code for the guest protocol.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Invalid { .. } => "invalid",
            Self::Unsupported { .. } => "unsupported",
            Self::Missing { .. } => "missing",
            Self::Down { .. } => "engine-down",
            Self::Failed { .. } => "engine-failed",
        }
    }
}

/// Result of engine code.
pub type Result<T> = std::result::Result<T, EngineError>;
