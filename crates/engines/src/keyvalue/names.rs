//! Names of users: which are allowed, which are reserved.

use crate::error::{EngineError, Result};

/// Coffer's own user.
pub(super) const COFFER: &str = "coffer";
/// The user that `root` enables: who logs in with a password and no name.
pub(super) const ROOT: &str = "default";
/// Start of the names of users that live as long as a visit; reserved, as all that begin so.
#[cfg(feature = "guest")]
pub(super) const VISITOR_PREFIX: &str = "coffer_visitor_";

/// LIMIT: the engine has none; a name stands in every list and log. Unit: bytes.
const NAME_BYTES_MAX: usize = 128;

/// Refuses what the engine does not take: its list of users has one to a line, its words parted
/// by spaces.
pub(super) fn check(name: &str) -> Result<()> {
    let rule = if name.is_empty() || name.len() > NAME_BYTES_MAX {
        "must have 1 to 128 bytes"
    } else if name.chars().any(|c| c == ' ' || c.is_control()) {
        "must not hold spaces or control characters"
    } else {
        return Ok(());
    };
    Err(invalid(name, rule.to_owned()))
}

/// Users that are hidden from tenants: Trove's, the engine's own, and ours.
pub(super) fn is_reserved(name: &str) -> bool {
    matches!(name, COFFER | ROOT | "root" | "os_admin") || name.starts_with("coffer_")
}

/// The refusal of a name, cut to a printable length.
pub(super) fn invalid(name: &str, rule: String) -> EngineError {
    let value: String = name.chars().filter(|c| !c.is_control()).take(80).collect();
    EngineError::Invalid {
        field: "user name",
        value,
        rule,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_their_limits() {
        for good in ["x", "50%-\"of\"-us@here';--", "grün-データ-🦀", ">#~&"] {
            assert!(check(good).is_ok(), "{good}");
        }
        assert!(check(&"x".repeat(128)).is_ok());
        for bad in ["", "with space", "a\tb", "a\nb", "nul\0", "\u{85}"] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
        assert!(check(&"x".repeat(129)).is_err());
    }

    #[test]
    fn the_engines_own_users_are_reserved() {
        for name in ["default", "coffer", "coffer_visitor_1", "root", "os_admin"] {
            assert!(is_reserved(name), "{name}");
        }
        assert!(!is_reserved("joe") && !is_reserved("coffee"));
    }
}
