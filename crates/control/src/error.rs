//! What a use case refuses: a dozen kinds, a public message, a private context.
//!
//! Nothing here knows HTTP; `api::error` alone turns a kind into a status and a body.

use coffer_engines::EngineError;
use coffer_store::StoreError;
use thiserror::Error;

/// What kind of refusal it is; clients tell them apart by status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The request breaks a rule.
    BadRequest,
    /// Nobody valid asks, or the asker is not the one it takes.
    Unauthorized,
    /// The asker may not.
    Forbidden,
    /// There is no such thing, or it belongs to somebody else.
    NotFound,
    /// The answer cannot have the form asked for.
    NotAcceptable,
    /// It contradicts what is there.
    Conflict,
    /// A quota or a size limit.
    OverLimit,
    /// Too many requests in too short a time.
    RateLimited,
    /// The body has a form that is not read.
    BadMediaType,
    /// The object is not in a state for it.
    Unprocessable,
    /// This is known, and not there.
    NotImplemented,
    /// A part of Coffer that it takes does not run, or nothing can be written until the operator
    /// has mended something.
    Unavailable,
    /// Our own failure.
    Internal,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::BadRequest,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NotFound,
        Self::NotAcceptable,
        Self::Conflict,
        Self::OverLimit,
        Self::RateLimited,
        Self::BadMediaType,
        Self::Unprocessable,
        Self::NotImplemented,
        Self::Unavailable,
        Self::Internal,
    ];
}

/// A refusal.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{message}")]
#[expect(
    clippy::error_impl_error,
    reason = "outside it is read as control::Error"
)]
pub struct Error {
    /// What kind.
    pub kind: Kind,
    /// Stable code of the cause, for programs.
    pub reason: &'static str,
    /// What is wrong, where, and what to do: for whoever asked.
    pub message: String,
    /// What to do next.
    pub hint: Option<String>,
    /// Seconds after which it may be tried again.
    pub retry_after: Option<u32>,
    /// The private cause: for the log.
    pub context: Option<String>,
}

/// Result of a use case.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A refusal of this kind.
    pub fn new(kind: Kind, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            kind,
            reason,
            message: message.into(),
            hint: None,
            retry_after: None,
            context: None,
        }
    }

    /// The request breaks a rule; the message gets Trove's beginning.
    pub fn invalid(message: impl AsRef<str>) -> Self {
        let message = format!("Validation error: {}", message.as_ref());
        Self::new(Kind::BadRequest, "invalid", message)
    }

    /// There is no `kind` with this id or name in the project; in Trove's words where it has any.
    pub fn not_found(kind: &str, id: &str) -> Self {
        let id = coffer_core::name::shown(id);
        let message = match kind {
            "instance" | "flavor" => format!("Resource {id} cannot be found."),
            "database" => format!("Database {id} cannot be found on the instance."),
            "database user" => format!("User {id} cannot be found on the instance."),
            "datastore" => format!("Datastore '{id}' cannot be found."),
            kind => format!("{kind} '{id}' cannot be found"),
        };
        Self::new(Kind::NotFound, "not-found", message)
    }

    /// Our own failure; `context` is logged and not shown. Whoever writes the body adds the id.
    pub fn internal(context: impl Into<String>) -> Self {
        let message = "Internal Server Error. Please keep this ID to help us figure out what \
                       went wrong:";
        Self::new(Kind::Internal, "internal", message).with_context(context)
    }

    /// The same with what to do next.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with its private cause.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }
}

impl From<coffer_core::Error> for Error {
    fn from(error: coffer_core::Error) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<EngineError> for Error {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Invalid { .. } => Self::invalid(error.to_string()),
            EngineError::Unsupported { .. } => {
                Self::new(Kind::NotImplemented, "unsupported", error.to_string())
            }
            EngineError::Missing { .. } => Self::new(Kind::NotFound, "missing", error.to_string()),
            EngineError::Down { .. } | EngineError::Failed { .. } => {
                Self::internal(error.to_string())
            }
        }
    }
}

/// What to do when the store's disk is full.
const FULL: &str = "nothing was changed: the operator has to free space there (`coffer doctor` \
                    names the disk); then repeat the request";
/// What to do when it cannot be written, or hardly.
const READ_ONLY: &str = "nothing was changed, and databases go on serving: the operator has to \
                         make the file system of the store writable again (the kernel's log says \
                         why it is not, `coffer doctor` looks at it); then repeat the request";
/// What to do when it is damaged.
const DAMAGED: &str = "databases go on serving: the operator has to stop Coffer, keep the store \
                       aside, and restore the newest backup (`coffer state restore`)";

/// The store's own trouble, which nobody who asks can do anything about.
fn store_fails(
    message: String,
    reason: &'static str,
    hint: &'static str,
    source: &dyn std::error::Error,
) -> Error {
    Error::new(Kind::Unavailable, reason, message)
        .with_hint(hint)
        .with_context(source.to_string())
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::AlreadyExists { .. } => Self::new(Kind::Conflict, "exists", message),
            StoreError::NotFound { .. } => Self::new(Kind::NotFound, "not-found", message),
            StoreError::QuotaExceeded { resources } => {
                let names: Vec<_> = resources
                    .iter()
                    .map(|resource| format!("'{resource}'"))
                    .collect();
                let message = format!("Quota exceeded for resources: [{}].", names.join(", "));
                Self::new(Kind::OverLimit, "quota-exceeded", message)
                    .with_hint("delete what is not needed, or ask the operator for a higher quota")
            }
            StoreError::Stale { .. } => Self::new(Kind::Conflict, "changed-meanwhile", message)
                .with_hint("read it again and repeat the request"),
            StoreError::NotAllowed { .. } => Self::new(Kind::Unprocessable, "busy", message),
            StoreError::InUse { .. } => Self::new(Kind::Conflict, "in-use", message),
            StoreError::AddressesExhausted { .. } => {
                Self::new(Kind::OverLimit, "addresses-exhausted", message)
            }
            StoreError::Corrupt { .. }
            | StoreError::Open { .. }
            | StoreError::OtherSchema { .. }
            | StoreError::DamagedFile { .. } => Self::internal(message),
            StoreError::Full(source) => store_fails(message, "store-full", FULL, &source),
            StoreError::ReadOnly(source) => {
                store_fails(message, "store-read-only", READ_ONLY, &source)
            }
            StoreError::Failing(source) => {
                store_fails(message, "store-failing", READ_ONLY, &source)
            }
            StoreError::Damaged(source) => store_fails(message, "store-damaged", DAMAGED, &source),
            StoreError::Database(source) => Self::internal(format!("{message}: {source}")),
        }
    }
}
