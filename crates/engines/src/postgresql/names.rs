//! Names of PostgreSQL: which are allowed, which are reserved, and how they are quoted.

use crate::error::{EngineError, Result};

/// Coffer's own role and database.
pub(super) const COFFER: &str = "coffer";
/// A database of the template's that nobody asked for yet: the first that somebody asks for is this
/// one by another name, which saves the copy of a database.
pub(super) const SPARE: &str = "coffer_spare";
/// The superuser that `root` enables.
pub(super) const ROOT: &str = "postgres";
/// Start of the names of the group roles, one per database; the rest is the database's oid.
#[cfg(feature = "guest")]
pub(super) const GROUP_PREFIX: &str = "coffer_db_";

/// Start of the names of users that live as long as a visit; reserved, as all that begin so.
#[cfg(feature = "guest")]
pub(super) const VISITOR_PREFIX: &str = "coffer_visitor_";

/// LIMIT: names are cut by PostgreSQL above this many bytes, silently; they are refused here.
const NAME_BYTES_MAX: usize = 63;

/// Encodings of PostgreSQL servers beside UTF8; they go with the locale C only.
const OTHER_ENCODINGS: &[&str] = &[
    "SQL_ASCII",
    "LATIN1",
    "LATIN2",
    "LATIN3",
    "LATIN4",
    "LATIN5",
    "LATIN6",
    "LATIN7",
    "LATIN8",
    "LATIN9",
    "LATIN10",
    "ISO_8859_5",
    "ISO_8859_6",
    "ISO_8859_7",
    "ISO_8859_8",
    "KOI8R",
    "KOI8U",
    "WIN866",
    "WIN874",
    "WIN1250",
    "WIN1251",
    "WIN1252",
    "WIN1253",
    "WIN1254",
    "WIN1255",
    "WIN1256",
    "WIN1257",
    "WIN1258",
    "EUC_JP",
    "EUC_CN",
    "EUC_KR",
    "EUC_TW",
];

/// Encoding and locale of a database, as `CREATE DATABASE` takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Locale {
    /// The server encoding.
    pub(super) encoding: &'static str,
    /// The libc locale; `None` takes the template's, which is C.UTF-8.
    pub(super) locale: Option<&'static str>,
}

/// Refuses names that PostgreSQL would cut or not take, and control characters, which would tear
/// lists and logs.
pub(super) fn check(field: &'static str, name: &str) -> Result<()> {
    let rule = if name.is_empty() || name.len() > NAME_BYTES_MAX {
        "must have 1 to 63 bytes"
    } else if name.chars().any(char::is_control) {
        "must not hold control characters"
    } else if field == "user name" && matches!(name, "public" | "none") {
        "is a word that postgresql keeps for itself"
    } else {
        return Ok(());
    };
    Err(invalid(field, name, rule.to_owned()))
}

/// Refuses encodings and collations that the engine root does not have.
pub(super) fn check_locale(character_set: Option<&str>, collate: Option<&str>) -> Result<()> {
    parse_locale(character_set, collate).map(|_| ())
}

/// The encoding and locale asked for; `None` where the template's will do.
pub(super) fn parse_locale(
    character_set: Option<&str>,
    collate: Option<&str>,
) -> Result<Option<Locale>> {
    let encoding = character_set.map(parse_encoding).transpose()?;
    let locale = collate.map(parse_collate).transpose()?;
    match (encoding, locale) {
        (None | Some("UTF8"), None | Some("C.UTF-8")) => Ok(None),
        (None | Some("UTF8"), Some(locale)) => Ok(Some(Locale {
            encoding: "UTF8",
            locale: Some(locale),
        })),
        (Some(encoding), None | Some("C" | "POSIX")) => Ok(Some(Locale {
            encoding,
            locale: Some("C"),
        })),
        (Some(encoding), Some(locale)) => Err(invalid(
            "collate",
            locale,
            format!("goes with the character set UTF8 only, not with {encoding}"),
        )),
    }
}

fn parse_encoding(text: &str) -> Result<&'static str> {
    let plain: String = text.to_ascii_uppercase().replace('-', "");
    if matches!(plain.as_str(), "UTF8" | "UTF8MB4" | "UNICODE") {
        return Ok("UTF8");
    }
    let upper = text.to_ascii_uppercase();
    OTHER_ENCODINGS
        .iter()
        .copied()
        .find(|known| *known == upper)
        .ok_or_else(|| {
            invalid(
                "character_set",
                text,
                "must be UTF8 or another server encoding".to_owned(),
            )
        })
}

fn parse_collate(text: &str) -> Result<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "c.utf-8" | "c.utf8" => Ok("C.UTF-8"),
        "c" => Ok("C"),
        "posix" => Ok("POSIX"),
        _ => Err(invalid(
            "collate",
            text,
            "must be C.UTF-8, C or POSIX".to_owned(),
        )),
    }
}

/// Databases that are hidden from tenants.
pub(super) fn is_reserved_database(name: &str) -> bool {
    matches!(
        name,
        COFFER | SPARE | ROOT | "template0" | "template1" | "os_admin"
    )
}

/// Users that are hidden from tenants: Trove's, PostgreSQL's own, and ours.
pub(super) fn is_reserved_user(name: &str) -> bool {
    matches!(name, COFFER | ROOT | "root" | "os_admin")
        || name.starts_with("pg_")
        || name.starts_with("coffer_")
}

/// An identifier for SQL text.
#[cfg(feature = "guest")]
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The refusal of a value, cut to a printable length.
pub(super) fn invalid(field: &'static str, value: &str, rule: String) -> EngineError {
    let value: String = value.chars().filter(|c| !c.is_control()).take(80).collect();
    EngineError::Invalid { field, value, rule }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_at_their_limits() {
        assert!(check("database name", &"x".repeat(63)).is_ok());
        assert!(check("database name", &"x".repeat(64)).is_err());
        assert!(check("database name", &"é".repeat(32)).is_err());
        assert!(check("database name", "").is_err());
        assert!(check("database name", "a\nb").is_err());
        assert!(check("user name", "public").is_err());
        assert!(check("user name", "50% \"of\" us@here'; --").is_ok());
    }

    #[test]
    fn locales() {
        assert_eq!(parse_locale(None, None).unwrap(), None);
        assert_eq!(parse_locale(Some("utf-8"), Some("C.utf8")).unwrap(), None);
        let latin = parse_locale(Some("latin1"), None).unwrap().unwrap();
        assert_eq!((latin.encoding, latin.locale), ("LATIN1", Some("C")));
        assert!(parse_locale(Some("LATIN1"), Some("C.UTF-8")).is_err());
        assert!(parse_locale(Some("klingon"), None).is_err());
        assert!(parse_locale(None, Some("en_US.UTF-8")).is_err());
    }

    #[cfg(feature = "guest")]
    #[test]
    fn quotes_what_hurts() {
        assert_eq!(quote("a\"b"), "\"a\"\"b\"");
    }
}
