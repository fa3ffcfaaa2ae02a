//! Names: which are allowed, which are reserved, and how they are quoted.

use std::net::IpAddr;
#[cfg(feature = "guest")]
use std::net::Ipv4Addr;

use super::Dialect;
use crate::error::{EngineError, Result};

/// Coffer's own database.
pub(crate) const COFFER: &str = "coffer";
/// Coffer's own account, named as the agent's user in the sandbox: MariaDB 10.11 lets nobody else
/// in by the user of a process.
#[cfg(feature = "guest")]
pub(super) const ACCOUNT: &str = "coffer-agent";
/// The superuser that `root` enables.
pub(crate) const ROOT: &str = "root";
/// Start of the names of users that live as long as a visit; reserved, as all that begin so.
#[cfg(feature = "guest")]
pub(super) const VISITOR_PREFIX: &str = "coffer_visitor_";

/// LIMIT: characters of a database's name.
const DATABASE_CHARS_MAX: usize = 64;
/// LIMIT: a database is a directory, in whose name a character that is no ASCII letter, digit or
/// underscore takes up to this many bytes, and the file system ends at 255.
const ENCODED_BYTES: usize = 5;
const FILE_NAME_BYTES_MAX: usize = 255;
/// LIMIT: bytes of a host part.
const HOST_BYTES_MAX: usize = 60;

/// Character sets that both servers have.
const CHARACTER_SETS: &[&str] = &[
    "armscii8", "ascii", "big5", "binary", "cp1250", "cp1251", "cp1256", "cp1257", "cp850",
    "cp852", "cp866", "cp932", "dec8", "eucjpms", "euckr", "gb2312", "gbk", "geostd8", "greek",
    "hebrew", "hp8", "keybcs2", "koi8r", "koi8u", "latin1", "latin2", "latin5", "latin7", "macce",
    "macroman", "sjis", "swe7", "tis620", "ucs2", "ujis", "utf16", "utf16le", "utf32", "utf8",
    "utf8mb3", "utf8mb4",
];

/// Refuses names of databases that the server would not take.
pub(crate) fn check_database(name: &str) -> Result<()> {
    let encoded: usize = name
        .chars()
        .map(|c| match c.is_ascii_alphanumeric() || c == '_' {
            true => 1,
            false => ENCODED_BYTES,
        })
        .sum();
    let rule = if name.is_empty() || name.chars().count() > DATABASE_CHARS_MAX {
        "must have 1 to 64 characters"
    } else if encoded > FILE_NAME_BYTES_MAX {
        "is too long: characters that are no letters a to z, digits or underscores count five \
         times, and there is room for 255"
    } else if name.ends_with(' ') {
        "must not end with a space"
    } else {
        return check_characters("database name", name);
    };
    Err(invalid("database name", name, rule))
}

/// Refuses names and hosts of users that the server would not take, or that it would never let in.
pub(crate) fn check_user(dialect: &dyn Dialect, name: &str, host: Option<&str>) -> Result<()> {
    let max = dialect.user_chars_max();
    if name.is_empty() || name.chars().count() > max {
        let rule = format!("must have 1 to {max} characters");
        return Err(invalid("user name", name, &rule));
    }
    if name.ends_with(' ') || name.starts_with(' ') {
        return Err(invalid(
            "user name",
            name,
            "must not begin or end with a space",
        ));
    }
    check_characters("user name", name)?;
    match host.filter(|host| !host.is_empty()) {
        Some(host) => check_host(host),
        None => Ok(()),
    }
}

fn check_characters(field: &'static str, name: &str) -> Result<()> {
    let rule = if name.chars().any(char::is_control) {
        "must not hold control characters"
    } else if name.chars().any(|c| u32::from(c) > 0xffff) {
        "must not hold characters above U+FFFF, which names of this engine cannot have"
    } else {
        return Ok(());
    };
    Err(invalid(field, name, rule))
}

/// A host part is an address, a network or a pattern: in an instance no names are resolved.
fn check_host(host: &str) -> Result<()> {
    let (address, mask) = host.split_once('/').unwrap_or((host, "0.0.0.0"));
    let is_plain = host.len() <= HOST_BYTES_MAX
        && host
            .chars()
            .all(|c| c.is_ascii_hexdigit() || ".:%_/".contains(c));
    let is_pattern = address.contains(['%', '_']) && !host.contains('/');
    let is_address = address.parse::<IpAddr>().is_ok() && mask.parse::<IpAddr>().is_ok();
    if is_plain && (is_pattern || is_address) {
        return Ok(());
    }
    let rule = "must be an address, an address/netmask, or a pattern of one with % and _: names of \
                hosts are not resolved";
    Err(invalid("host", host, rule))
}

/// Refuses character sets and collations that the server does not have.
pub(crate) fn check_locale(character_set: Option<&str>, collate: Option<&str>) -> Result<()> {
    if let Some(wanted) = character_set
        && !CHARACTER_SETS.contains(&wanted.to_ascii_lowercase().as_str())
    {
        let rule = "must be a character set of the server, as utf8mb4";
        return Err(invalid("character_set", wanted, rule));
    }
    let Some(collate) = collate else {
        return Ok(());
    };
    let set = collate.split('_').next().unwrap_or_default();
    let is_plain = !collate.is_empty()
        && collate.len() <= 64
        && collate
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_');
    let is_known = CHARACTER_SETS.contains(&set.to_ascii_lowercase().as_str());
    if !is_plain || !is_known {
        let rule = "must be a collation of the server, as utf8mb4_bin";
        return Err(invalid("collate", collate, rule));
    }
    match character_set {
        Some(wanted) if !is_same_set(wanted, set) => Err(invalid(
            "collate",
            collate,
            &format!("does not go with the character set {wanted}"),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Whether a collation of one set goes with another name of it.
fn is_same_set(one: &str, other: &str) -> bool {
    let plain = |set: &str| match set.to_ascii_lowercase().as_str() {
        "utf8" => "utf8mb3".to_owned(),
        other => other.to_owned(),
    };
    plain(one) == plain(other)
}

/// Databases that are hidden from tenants.
pub(crate) fn is_reserved_database(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    matches!(
        lower.as_str(),
        "mysql" | "information_schema" | "performance_schema" | "sys" | "lost+found" | "#mysql50#"
    ) || name == COFFER
        || lower.starts_with("#mysql50#")
}

/// Users that are hidden from tenants: the server's own, Trove's, and ours.
pub(crate) fn is_reserved_user(name: &str) -> bool {
    matches!(
        name,
        COFFER | ROOT | "os_admin" | "mariadb.sys" | "PUBLIC" | "event_scheduler"
    ) || name.starts_with("mysql.")
        || name.starts_with("coffer_")
        || name.starts_with("coffer-")
}

/// An identifier for SQL text; accounts are quoted so as well. No SQL mode changes its meaning.
#[cfg(feature = "guest")]
pub(super) fn quote(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// `name@host` for SQL text.
#[cfg(feature = "guest")]
pub(super) fn account(name: &str, host: &str) -> String {
    format!("{}@{}", quote(name), quote(host))
}

/// A string for SQL text, in which no quoting can go wrong.
#[cfg(feature = "guest")]
pub(super) fn text(value: &str) -> String {
    use std::fmt::Write;
    let mut sql = "_utf8mb4 X'".to_owned();
    for byte in value.bytes() {
        let _ = write!(sql, "{byte:02x}");
    }
    sql.push('\'');
    sql
}

/// A database in a grant is a pattern: here one that only this database matches.
#[cfg(feature = "guest")]
pub(super) fn pattern(name: &str) -> String {
    let mut pattern = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '_' | '%' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// The host part that is meant.
#[cfg(feature = "guest")]
pub(super) fn host_or_any(host: Option<&str>) -> &str {
    host.filter(|host| !host.is_empty()).unwrap_or("%")
}

/// Whether a client, at its address and port, is where a host part says.
#[cfg(feature = "guest")]
pub(super) fn is_from(client: &str, host: &str) -> bool {
    let port = client.rsplit_once(':');
    let address = port.map_or(client, |(address, _)| address);
    let Some((net, mask)) = host.split_once('/') else {
        return is_like(host.as_bytes(), address.as_bytes());
    };
    let bits = |text: &str| text.parse::<Ipv4Addr>().map(u32::from).ok();
    match (bits(address), bits(net), bits(mask)) {
        (Some(address), Some(net), Some(mask)) => address & mask == net,
        _ => false,
    }
}

/// Whether a name matches a pattern of `%`, `_` and `\`. It takes a time of their lengths' product
/// at the most: a tenant's root may have granted any pattern.
#[cfg(feature = "guest")]
pub(super) fn is_like(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    // Where to go on when the last `%` has to take one byte more.
    let mut again: Option<(usize, usize)> = None;
    while n < name.len() {
        let (is_escaped, wanted) = match pattern.get(p..) {
            Some([b'\\', c, ..]) => (true, Some(*c)),
            Some([c, ..]) => (false, Some(*c)),
            _ => (false, None),
        };
        if wanted == Some(b'%') && !is_escaped {
            again = Some((p + 1, n));
            p += 1;
        } else if wanted.is_some_and(|c| c == name[n] || (c == b'_' && !is_escaped)) {
            p += 1 + usize::from(is_escaped);
            n += 1;
        } else if let Some((after, taken)) = again {
            again = Some((after, taken + 1));
            (p, n) = (after, taken + 1);
        } else {
            return false;
        }
    }
    pattern
        .get(p..)
        .is_none_or(|rest| rest.iter().all(|c| *c == b'%'))
}

/// The refusal of a value, cut to a printable length.
pub(super) fn invalid(field: &'static str, value: &str, rule: &str) -> EngineError {
    let value: String = value.chars().filter(|c| !c.is_control()).take(80).collect();
    EngineError::Invalid {
        field,
        value,
        rule: rule.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mariadb::Mariadb;
    use crate::mysql::MYSQL;

    #[test]
    fn names_at_their_limits() {
        assert!(check_database(&"x".repeat(64)).is_ok());
        assert!(check_database(&"x".repeat(65)).is_err());
        assert!(check_database(&"ж".repeat(51)).is_ok());
        assert!(check_database(&"ж".repeat(52)).is_err());
        assert!(check_database("a ").is_err() && check_database("").is_err());
        assert!(check_database("a\nb").is_err() && check_database("🦀").is_err());
        assert!(check_database("50% \"of\" `us`/..\\'; --").is_ok());
        assert!(check_user(&MYSQL, &"x".repeat(32), None).is_ok());
        assert!(check_user(&MYSQL, &"x".repeat(33), None).is_err());
        assert!(check_user(&Mariadb, &"x".repeat(33), None).is_ok());
    }

    #[test]
    fn hosts_are_addresses_and_patterns() {
        for host in [
            "%",
            "10.%",
            "10.0.0.0/255.0.0.0",
            "10.1.2.3",
            "fe80::1",
            "10.1.2._",
        ] {
            assert!(check_host(host).is_ok(), "{host}");
        }
        for host in [
            "localhost",
            "example.org",
            "10.0.0.0/8'",
            "' or 1",
            "10.0.0.1/x",
            "a.b",
        ] {
            assert!(check_host(host).is_err(), "{host}");
        }
    }

    #[cfg(feature = "guest")]
    #[test]
    fn clients_are_where_a_host_part_says() {
        for (host, is_there) in [
            ("%", true),
            ("10.1.%", true),
            ("10.1.2._", true),
            ("10.1.2.3", true),
            ("10.1.0.0/255.255.0.0", true),
            ("10.2.%", false),
            ("10.1.2.33", false),
            ("10.1.2.0/255.255.255.254", false),
        ] {
            assert_eq!(is_from("10.1.2.3:4711", host), is_there, "{host}");
        }
        assert!(is_from("fe80::1:4711", "fe80::1") && is_from("localhost", "%"));
    }

    #[test]
    fn locales() {
        assert!(check_locale(Some("utf8mb4"), Some("utf8mb4_bin")).is_ok());
        assert!(check_locale(Some("utf8"), Some("utf8mb3_general_ci")).is_ok());
        assert!(check_locale(None, Some("latin1_swedish_ci")).is_ok());
        assert!(check_locale(Some("latin1"), Some("utf8mb4_bin")).is_err());
        assert!(check_locale(Some("klingon"), None).is_err());
        assert!(check_locale(None, Some("utf8mb4_bin; DROP")).is_err());
    }

    #[cfg(feature = "guest")]
    #[test]
    fn a_pattern_takes_no_more_time_than_its_length() {
        let (many, long) = ("%a".repeat(32), "a".repeat(64));
        assert!(is_like(many.as_bytes(), long.as_bytes()));
        assert!(!is_like(format!("{many}b").as_bytes(), long.as_bytes()));
    }

    #[cfg(feature = "guest")]
    #[test]
    fn quotes_what_hurts() {
        assert_eq!(quote("a`b"), "`a``b`");
        assert_eq!(pattern("a_b%c\\d"), "a\\_b\\%c\\\\d");
        assert_eq!(text("a'"), "_utf8mb4 X'6127'");
    }
}
