//! What goes wrong in the guest.

use thiserror::Error;

/// A failure of init or agent.
#[derive(Debug, Error)]
pub enum GuestError {
    /// A system call or file operation.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, to what.
        what: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The boot data cannot be used.
    #[error("the boot data are not usable: {why}")]
    Boot {
        /// What is wrong in them.
        why: String,
    },
    /// The other one of init and agent refused or is gone.
    #[error("{why}")]
    Init {
        /// What it said.
        why: String,
    },
    /// Keys or certificates.
    #[error("{what}: {why}")]
    Tls {
        /// What was being done.
        what: &'static str,
        /// The cause.
        why: String,
    },
    /// The engine.
    #[error(transparent)]
    Engine(#[from] coffer_engines::EngineError),
}

impl GuestError {
    /// For `map_err`: names what was being done.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// As [`GuestError::io`], for errors of system calls.
    pub(crate) fn sys(what: impl Into<String>) -> impl FnOnce(nix::errno::Errno) -> Self {
        let what = what.into();
        move |errno| Self::Io {
            what,
            source: errno.into(),
        }
    }

    /// For `map_err` around keys and certificates.
    pub(crate) fn tls<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Tls {
            what,
            why: error.to_string(),
        }
    }
}

/// Result of guest code.
pub type Result<T> = std::result::Result<T, GuestError>;
