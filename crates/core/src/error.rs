//! What the pure rules refuse, in words that may be shown to whoever asked.

/// A rule of the domain was broken by the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[expect(
    clippy::error_impl_error,
    reason = "each layer's error is named by its crate"
)]
pub enum Error {
    /// Not the text of an id.
    #[error("{kind} id is not valid")]
    Id {
        /// Which kind of object the id should have named.
        kind: &'static str,
    },
    /// A name breaks the rule for names of its kind.
    #[error("{field} '{value}' {rule}")]
    Name {
        /// The field in the request.
        field: &'static str,
        /// What was given, cut to a printable length.
        value: String,
        /// The rule in words.
        rule: &'static str,
    },
    /// A number outside its bounds.
    #[error("{field} {value} is out of range: {rule}")]
    Range {
        /// The field in the request.
        field: &'static str,
        /// What was given.
        value: i64,
        /// The bounds in words.
        rule: &'static str,
    },
    /// An address or address range that cannot be read.
    #[error("'{value}' is not an IP address or CIDR")]
    Cidr {
        /// What was given.
        value: String,
    },
    /// A stored word that no variant has.
    #[error("unknown {kind} '{value}'")]
    Word {
        /// Which enumeration.
        kind: &'static str,
        /// The word.
        value: String,
    },
}

/// Result of a pure rule.
pub type Result<T> = std::result::Result<T, Error>;
