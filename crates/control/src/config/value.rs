//! Values that a configuration key may hold, each read from text and written as text.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use coffer_core::access::Cidr;
use coffer_infra::local::HostPorts;

/// A value that a key may hold: read from text, written as text.
pub(super) trait Value: Sized {
    /// What may stand there, for documentation and messages.
    const KIND: &'static str;
    /// Whether TOML writes it in quotes.
    const IS_QUOTED: bool = true;

    /// Reads it; the error says what would be right.
    fn parse(text: &str) -> Result<Self, String>;

    /// Writes it so that `parse` gives the same; secrets are masked.
    fn render(&self) -> String;
}

/// A size; written as a number with KiB, MiB, GiB, or plain bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// URL of a database, which may hold a password and therefore does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

impl StoreUrl {
    /// The URL with its password, for the driver only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

/// How volumes are kept in the pool directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VolumeMode {
    /// `xfs` where the pool directory can clone files, else `cow`; without loop devices
    /// `directory`.
    Auto,
    /// A loop file for each volume on XFS with reflink.
    Xfs,
    /// One XFS pool in a loop file: clones and snapshots everywhere, slower commits.
    Cow,
    /// Loop files on the host's file system: full speed, no snapshots.
    Fast,
    /// Directories on the host's file system: nothing enforces their size.
    Directory,
}

/// From where guests are dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrackerLink {
    /// From inside the instance's own namespace.
    Instance,
    /// From a port of the tracker's own in the tenant network.
    Network,
}

/// Which log lines are written: a level, and others for parts of Coffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The text of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The levels of log lines.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object for each line.
    Json,
}

/// Splits a number from its unit.
fn number_and_unit(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, text[end..].trim()))
}

macro_rules! plain_values {
    ($($ty:ty, $kind:literal, $quoted:literal;)*) => {$(
        impl Value for $ty {
            const KIND: &'static str = $kind;
            const IS_QUOTED: bool = $quoted;

            fn parse(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| format!("'{text}' is not {}", $kind))
            }

            fn render(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

plain_values! {
    bool, "true or false", false;
    u32, "a number", false;
    i64, "a whole number", false;
    SocketAddr, "an address and port", true;
    Cidr, "an address range", true;
}

impl Value for HostPorts {
    const KIND: &'static str = "an address and ports";

    fn parse(text: &str) -> Result<Self, String> {
        text.trim()
            .parse()
            .map_err(|why| format!("'{text}': {why}"))
    }

    fn render(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    const KIND: &'static str = "text";

    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }

    fn render(&self) -> String {
        self.escape_default().to_string()
    }
}

impl Value for LogFilter {
    const KIND: &'static str = "a level or filter";

    /// Stricter than the library, to which a misspelt level is the name of a part that logs all.
    fn parse(text: &str) -> Result<Self, String> {
        let is_level = |word: &str| LEVELS.contains(&word.to_lowercase().as_str());
        let is_part = |name: &str| {
            let is_ours = |c: char| c.is_ascii_alphanumeric() || "_:-".contains(c);
            !name.is_empty() && name.chars().all(is_ours)
        };
        let is_right = |one: &str| match one.split_once('=') {
            Some((part, level)) => is_part(part) && is_level(level),
            None => is_level(one),
        };
        match text.split(',').all(is_right) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "'{}' is not a level or filter; write error, warn, info, debug, trace or off, or \
                 a filter such as info,coffer_control=debug",
                coffer_core::name::shown(text)
            )),
        }
    }

    fn render(&self) -> String {
        self.0.clone()
    }
}

impl Value for PathBuf {
    const KIND: &'static str = "a path";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Err("a path must not be empty".to_owned()),
            path => Ok(Self::from(path)),
        }
    }

    fn render(&self) -> String {
        self.display().to_string().escape_default().to_string()
    }
}

impl<T: Value> Value for Option<T> {
    const KIND: &'static str = T::KIND;

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" => Ok(None),
            some => T::parse(some).map(Some),
        }
    }

    fn render(&self) -> String {
        self.as_ref().map_or_else(String::new, T::render)
    }
}

impl Value for Duration {
    const KIND: &'static str = "a duration";

    fn parse(text: &str) -> Result<Self, String> {
        let parsed = number_and_unit(text).and_then(|(number, unit)| {
            let milliseconds = match unit {
                "ms" => 1,
                "s" => 1_000,
                "m" => 60_000,
                "h" => 3_600_000,
                "d" => 86_400_000,
                _ => return None,
            };
            number.checked_mul(milliseconds).map(Self::from_millis)
        });
        parsed.ok_or_else(|| format!("'{text}' is not a duration; write 500ms, 90s, 5m, 12h or 7d"))
    }

    fn render(&self) -> String {
        let milliseconds = self.as_millis();
        let units = [
            (86_400_000, "d"),
            (3_600_000, "h"),
            (60_000, "m"),
            (1_000, "s"),
        ];
        let fits = |size: u128| milliseconds > 0 && milliseconds.is_multiple_of(size);
        match units.into_iter().find(|(size, _)| fits(*size)) {
            Some((size, unit)) => format!("{}{unit}", milliseconds / size),
            None => format!("{milliseconds}ms"),
        }
    }
}

impl Value for ByteSize {
    const KIND: &'static str = "a size";

    fn parse(text: &str) -> Result<Self, String> {
        let parsed = number_and_unit(text).and_then(|(number, unit)| {
            let shift = match unit {
                "" | "B" => 0,
                "KiB" => 10,
                "MiB" => 20,
                "GiB" => 30,
                _ => return None,
            };
            number.checked_mul(1 << shift).map(Self)
        });
        parsed.ok_or_else(|| format!("'{text}' is not a size; write 64KiB, 1MiB or 2GiB"))
    }

    fn render(&self) -> String {
        let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
        let fits = |shift: u32| self.0 > 0 && self.0.is_multiple_of(1 << shift);
        match units.into_iter().find(|(shift, _)| fits(*shift)) {
            Some((shift, unit)) => format!("{}{unit}", self.0 >> shift),
            None => self.0.to_string(),
        }
    }
}

impl Value for StoreUrl {
    const KIND: &'static str = "a database URL";

    fn parse(text: &str) -> Result<Self, String> {
        let known = ["sqlite://", "postgres://", "postgresql://"];
        match known.iter().any(|scheme| text.starts_with(scheme)) {
            true => Ok(Self(text.to_owned())),
            // The text may hold a password, so it is not repeated.
            false => Err("write sqlite:///path or postgresql://user@host/database".to_owned()),
        }
    }

    fn render(&self) -> String {
        let Some((scheme, rest)) = self.0.split_once("://") else {
            return "***".to_owned();
        };
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let rest = match rest.rsplit_once('@') {
            Some((user, place)) if user.contains(':') => {
                format!("{}:***@{place}", user.split(':').next().unwrap_or_default())
            }
            _ => rest.to_owned(),
        };
        let options = if options.is_empty() { "" } else { "?***" };
        format!("{scheme}://{rest}{options}")
    }
}

macro_rules! words {
    ($($ty:ty, $kind:literal: $($word:literal => $variant:path),*;)*) => {$(
        impl Value for $ty {
            const KIND: &'static str = $kind;

            fn parse(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok($variant),)*
                    _ => Err(format!("'{text}' is not {}", $kind)),
                }
            }

            fn render(&self) -> String {
                match self { $($variant => $word,)* }.to_owned()
            }
        }
    )*};
}

words! {
    VolumeMode, "auto, xfs, cow, fast or directory":
        "auto" => Self::Auto, "xfs" => Self::Xfs, "cow" => Self::Cow, "fast" => Self::Fast,
        "directory" => Self::Directory;
    TrackerLink, "instance or network":
        "instance" => Self::Instance, "network" => Self::Network;
    LogFormat, "text or json":
        "text" => Self::Text, "json" => Self::Json;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_are_read_as_they_are_written() {
        for text in ["500ms", "90s", "5m", "12h", "7d", "0ms"] {
            assert_eq!(Duration::parse(text).unwrap().render(), text);
        }
        for text in ["1KiB", "3MiB", "2GiB", "1023"] {
            assert_eq!(ByteSize::parse(text).unwrap().render(), text);
        }
        for bad in [
            "",
            "5",
            "-1s",
            "1.5h",
            "99999999999999999999s",
            "18446744073709551615d",
        ] {
            assert!(Duration::parse(bad).is_err(), "{bad}");
        }
        assert!(ByteSize::parse("18446744073709551615GiB").is_err());
    }
}
