//! What the store refuses or finds broken. Callers decide on the variant; only `Database` hides
//! a driver's error, which is opaque outside this crate.

use coffer_core::instance::Lifecycle;
use coffer_core::quota::Resource;
use thiserror::Error;

use crate::sql::DriverError;

/// Result of every function of the store.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Why the store did not do what it was asked; nothing was written then.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A stored value that the domain type refuses: a bug or a damaged database.
    #[error("table {table}, row {id}: column {column} holds a value that cannot be read")]
    Corrupt {
        /// Table of the row.
        table: &'static str,
        /// Key of the row.
        id: String,
        /// Column that does not decode.
        column: &'static str,
    },
    /// The id or name is taken.
    #[error("{what} already exists")]
    AlreadyExists {
        /// What was to be written, in words (`network with this name`).
        what: &'static str,
    },
    /// There is no such row, or it is deleted.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for, in words.
        what: &'static str,
    },
    /// The project may not hold that much.
    #[error("quota exceeded for {}", join(resources))]
    QuotaExceeded {
        /// Every resource that does not suffice.
        resources: Vec<Resource>,
    },
    /// A compare-and-set lost: somebody else owns or changed the row.
    #[error("{what} was changed by somebody else")]
    Stale {
        /// What was compared.
        what: &'static str,
    },
    /// The instance is not in a state in which this may begin.
    #[error("instance is {lifecycle}: wait until that ends and try again")]
    NotAllowed {
        /// What is being done with the instance.
        lifecycle: Lifecycle,
    },
    /// Something else still refers to the row.
    #[error("{what} is in use")]
    InUse {
        /// What was to be deleted.
        what: &'static str,
    },
    /// No address is left in a range.
    #[error("no free address is left in {range}: delete what is not needed or use a larger range")]
    AddressesExhausted {
        /// The range.
        range: String,
    },
    /// The database cannot be opened.
    #[error("{problem}")]
    Open {
        /// What is wrong, where, and what to do.
        problem: String,
    },
    /// The database is another version's: an older one that was used, or a newer one.
    #[error("{problem}")]
    OtherSchema {
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A SQLite file that was looked at as a whole holds no whole database.
    #[error("{problem}")]
    DamagedFile {
        /// What is wrong, and where.
        problem: String,
    },
    /// The disk that the database lies on is full; reads go on, and writes will again.
    #[error("the disk of the database is full")]
    Full(#[source] DriverError),
    /// The file system or the server that the database is on takes no changes; reads may go on.
    #[error("the database can only be read")]
    ReadOnly(#[source] DriverError),
    /// The disk that the database lies on fails.
    #[error("the disk of the database fails")]
    Failing(#[source] DriverError),
    /// What the database holds is not what was written to it.
    #[error("the database is damaged")]
    Damaged(#[source] DriverError),
    /// The database did not do it; the source says why.
    #[error("query the database")]
    Database(#[source] DriverError),
}

fn join(resources: &[Resource]) -> String {
    resources
        .iter()
        .map(|resource| resource.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}
