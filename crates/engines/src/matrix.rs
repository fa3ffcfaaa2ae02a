//! The support matrix of the README: datastores by operations, written out from the registry.
//!
//! It begins with the datastores that users of Trove compare by, whether there is an engine for
//! them or not; other engines of the registry follow. A test compares it with the README.

use std::fmt::Write;

use crate::capability::{self, Capability, Level};
use crate::engine::{Engine, Operation, Support};
use crate::registry::{engine, registry};

/// Titles of datastores, and their names in the registry.
const TITLES: &[(&str, &str)] = &[
    ("MySQL", "mysql"),
    ("PostgreSQL", "postgresql"),
    ("Redis", "redis"),
    ("MongoDB", "mongodb"),
    ("Cassandra", "cassandra"),
    ("Couchbase", "couchbase"),
    ("Oracle", "oracle"),
    ("MariaDB", "mariadb"),
    ("Valkey", "valkey"),
    ("Percona Server", "percona"),
    ("Percona XtraDB Cluster", "pxc"),
];

/// The matrix as Markdown: a table, and a line for each reason that a reader has to know.
pub fn markdown() -> String {
    let operations = Operation::ALL.iter().map(|o| o.as_str());
    let mut text = line(["datastore", "versions"].into_iter().chain(operations));
    let rule = std::iter::repeat_n("---", 2 + Operation::ALL.len());
    text.push_str(&line(rule));
    let rows = rows();
    for (title, name) in &rows {
        let cells = engine(name).map_or_else(absent, cells);
        let cells = cells.iter().map(String::as_str);
        text.push_str(&line(std::iter::once(*title).chain(cells)));
    }
    text.push('\n');
    text.push_str(&notes(&rows));
    text
}

/// Title and registry's name of each row.
fn rows() -> Vec<(&'static str, &'static str)> {
    let mut rows = TITLES.to_vec();
    let names = registry().iter().map(|engine| engine.name());
    let untitled = names.filter(|name| TITLES.iter().all(|(_, known)| known != name));
    rows.extend(untitled.map(|name| (name, name)));
    rows
}

fn line<'a>(cells: impl IntoIterator<Item = &'a str>) -> String {
    let cells: Vec<_> = cells.into_iter().collect();
    format!("| {} |\n", cells.join(" | "))
}

/// The cells of a datastore that there is no engine for.
fn absent() -> Vec<String> {
    let operations = Operation::ALL.iter().map(|_| word(Level::NotYet));
    std::iter::once("-")
        .chain(operations)
        .map(str::to_owned)
        .collect()
}

fn cells(engine: &'static dyn Engine) -> Vec<String> {
    let operations = Operation::ALL
        .iter()
        .map(|operation| cell(engine, *operation));
    std::iter::once(engine.versions().join(", "))
        .chain(operations)
        .collect()
}

/// The level of the newest tested version, and after it the versions that have another.
fn cell(engine: &dyn Engine, operation: Operation) -> String {
    let level = |version: &str| capability::capability(engine, version, operation).level;
    let is_tested = |version: &&&str| !engine.unverified_versions().contains(*version);
    let tested = engine.versions().iter().find(is_tested);
    let main = tested
        .or_else(|| engine.versions().first())
        .copied()
        .map(level);
    let main = main.unwrap_or(Level::NotYet);
    let mut text = word(main).to_owned();
    for version in engine.versions() {
        if level(version) != main {
            let _ = write!(text, "; {version} {}", word(level(version)));
        }
    }
    text
}

/// A level's word for people.
const fn word(level: Level) -> &'static str {
    match level {
        Level::Yes => "yes",
        Level::Partial => "partial",
        Level::Unverified => "`unverified`",
        Level::NotYet => "not yet",
    }
}

/// A reason with the datastores and operations that it is for.
type Note<'a> = (&'a str, Vec<&'a str>, Vec<&'a str>);

/// Why cells are partial, were never tried or will stay empty; that something is not there yet is
/// no news.
fn notes(rows: &[(&'static str, &'static str)]) -> String {
    let mut notes: Vec<Note<'_>> = Vec::new();
    for (title, name) in rows {
        for found in engine(name).into_iter().flat_map(told) {
            let Some(reason) = found.reason else { continue };
            let known = notes.iter().position(|(known, ..)| *known == reason);
            let at = known.unwrap_or(notes.len());
            if known.is_none() {
                notes.push((reason, Vec::new(), Vec::new()));
            }
            let (_, titles, operations) = &mut notes[at];
            add(titles, title);
            add(operations, found.operation.as_str());
        }
    }
    let mut text = String::new();
    for (reason, titles, operations) in notes {
        let (titles, operations) = (titles.join(" and "), operations.join(", "));
        let _ = writeln!(text, "- {titles}, {operations}: {reason}.");
    }
    text
}

fn add<'a>(words: &mut Vec<&'a str>, word: &'a str) {
    if !words.contains(&word) {
        words.push(word);
    }
}

/// Capabilities of an engine's versions that need a word, each once.
fn told(engine: &'static dyn Engine) -> Vec<Capability> {
    let is_told = |found: &Capability| {
        let never = matches!(engine.support(found.operation), Support::Never(_));
        never || found.level == Level::Partial || found.reason == Some(capability::UNTRIED)
    };
    let mut all: Vec<Capability> = Vec::new();
    for version in engine.versions() {
        let new = capability::of(engine, version).operations.into_iter();
        let new: Vec<_> = new.filter(|c| is_told(c) && !all.contains(c)).collect();
        all.extend(new);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- support matrix: begin -->\n";
    const END: &str = "<!-- support matrix: end -->\n";

    /// To accept a change: `COFFER_UPDATE_EXPECTED=1 cargo test -p coffer-engines`.
    #[test]
    fn the_readme_shows_what_the_registry_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md");
        let readme = std::fs::read_to_string(path).unwrap();
        let (before, rest) = readme
            .split_once(BEGIN)
            .expect("the README has the begin mark");
        let (shown, after) = rest.split_once(END).expect("the README has the end mark");
        let current = markdown();
        if std::env::var_os("COFFER_UPDATE_EXPECTED").is_some() {
            std::fs::write(path, format!("{before}{BEGIN}{current}{END}{after}")).unwrap();
            return;
        }
        assert_eq!(shown, current, "the README's support matrix is not current");
    }

    #[test]
    fn every_engine_has_one_row() {
        let rows = rows();
        for engine in registry() {
            let own = rows.iter().filter(|(_, name)| *name == engine.name());
            assert_eq!(own.count(), 1, "{engine:?}");
        }
    }

    #[test]
    fn what_there_is_no_engine_for_is_not_yet_there() {
        let text = markdown();
        for title in ["MongoDB", "Cassandra", "Couchbase", "Oracle"] {
            let row = format!("| {title} | - |{}\n", " not yet |".repeat(7));
            assert!(text.contains(&row), "{text}");
        }
    }
}
