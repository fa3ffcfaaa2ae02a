//! Names that people give, checked once at the border and never again.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Longest name of an object of ours, in characters (Trove's column).
pub const NAME_CHARS_MAX: usize = 255;

/// Name of an instance, network, project, …: 1 to 255 characters with at least one alphanumeric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(String);

impl Name {
    /// Checks `text` as the value of the request's `field`. The rule is said as jsonschema says it,
    /// which is what Trove's clients show.
    pub fn parse(field: &'static str, text: &str) -> Result<Self> {
        let rule = if text.is_empty() {
            "should be non-empty"
        } else if text.chars().count() > NAME_CHARS_MAX {
            "is too long: 255 characters are the most"
        } else if !text.chars().any(|c| c.is_ascii_alphanumeric()) {
            "does not match '^.*[0-9a-zA-Z]+.*$'"
        } else if text.chars().any(char::is_control) {
            "must not contain control characters"
        } else {
            return Ok(Self(text.to_owned()));
        };
        Err(Error::Name {
            field,
            value: shown(text),
            rule,
        })
    }

    /// The name of something else that has this one too, told apart by what only it has.
    pub fn beside(&self, id: &str) -> Self {
        let room = NAME_CHARS_MAX.saturating_sub(id.chars().count() + 3);
        let name: String = self.0.chars().take(room).collect();
        let text = format!("{name} ({id})");
        Self::parse("name", &text).unwrap_or_else(|_| self.clone())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `text` cut to a length that fits an error message, control characters made visible.
pub fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().count() > 64 {
        cut.push('…');
    }
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_trove_accepts() {
        for good in ["a", "6", "db 1!", "ü1", &"x".repeat(255)] {
            assert!(Name::parse("name", good).is_ok(), "{good}");
        }
    }

    #[test]
    fn refuses_empty_long_and_symbols() {
        for bad in ["", "---", "ü", "a\nb", &"x".repeat(256)] {
            assert!(Name::parse("name", bad).is_err(), "{bad}");
        }
    }
}
