//! Puts a configuration together from file, variables and flags, and names every mistake.
//!
//! The one place of this crate that reads the environment.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError, SECTIONS, keys_of};

/// Prefix of environment variables that set a key.
const PREFIX: &str = "COFFER__";

/// The `COFFER__` variables of this process.
pub(super) fn variables() -> impl Iterator<Item = (String, String)> {
    env::vars_os().filter_map(ours)
}

/// The state directory of a user who is not root: in `XDG_DATA_HOME`, or in the home directory.
pub(super) fn own_state_dir() -> Option<PathBuf> {
    if !coffer_infra::local::world::is_without_root() {
        return None;
    }
    let named = |name: &str| {
        let path = PathBuf::from(env::var_os(name)?);
        path.is_absolute().then_some(path)
    };
    let data = named("XDG_DATA_HOME").or_else(|| Some(named("HOME")?.join(".local/share")));
    data.map(|data| data.join("coffer"))
}

/// A configuration being put together, and what was wrong so far.
pub(super) struct Loader {
    pub(super) config: Config,
    pub(super) mistakes: Vec<String>,
}

impl Loader {
    pub(super) fn file(&mut self, name: &str, text: &str) {
        let table = match text.parse::<toml::Table>() {
            Ok(table) => table,
            Err(e) => {
                self.mistakes
                    .push(format!("{name}: {}", e.to_string().trim_end()));
                return;
            }
        };
        for (section, value) in &table {
            match value {
                toml::Value::Table(keys) => self.section(name, section, keys),
                _ => self.mistakes.push(self.stray(name, section)),
            }
        }
    }

    fn section(&mut self, name: &str, section: &str, keys: &toml::Table) {
        if !keys_of(section).is_empty() {
            for (key, value) in keys {
                match plain_text(value) {
                    Some(text) => self.set(name, section, key, &text),
                    None => self.mistakes.push(format!(
                        "{name}: {section}.{key} holds a {}; a single value is meant",
                        value.type_str()
                    )),
                }
            }
            return;
        }
        let near = nearest(section, SECTIONS.iter().copied());
        let hint = near.map_or_else(String::new, |near| format!("; did you mean [{near}]?"));
        self.mistakes
            .push(format!("{name}: there is no section [{section}]{hint}"));
    }

    /// The message for a key outside every section.
    fn stray(&self, name: &str, key: &str) -> String {
        match SECTIONS
            .iter()
            .find(|section| keys_of(section).contains(&key))
        {
            Some(section) => format!("{name}: {key} has to stand below [{section}]"),
            None => format!("{name}: {key} stands outside every section"),
        }
    }

    pub(super) fn variable(&mut self, name: &str, text: &str) {
        let path = name.strip_prefix(PREFIX).unwrap_or(name).to_lowercase();
        let (section, key) = path.split_once("__").unwrap_or((path.as_str(), ""));
        self.set(name, section, key, text);
    }

    pub(super) fn set(&mut self, origin: &str, section: &str, key: &str, text: &str) {
        if keys_of(section).contains(&key) {
            if let Err(why) = self.config.assign(section, key, text) {
                self.mistakes
                    .push(format!("{origin}: {section}.{key}: {why}"));
            }
            return;
        }
        let given = format!("{section}.{key}");
        let known = SECTIONS
            .iter()
            .flat_map(|s| keys_of(s).iter().map(move |k| format!("{s}.{k}")));
        let known: Vec<String> = known.collect();
        let same_key = known
            .iter()
            .find(|k| k.split('.').nth(1) == Some(key))
            .map(String::as_str);
        let near = same_key.or_else(|| nearest(&given, known.iter().map(String::as_str)));
        let hint = near.map_or_else(String::new, |near| format!("; did you mean {near}?"));
        self.mistakes
            .push(format!("{origin}: there is no key {given}{hint}"));
    }
}

pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|e| ConfigError {
        mistakes: vec![format!("{}: it cannot be read: {e}", path.display())],
    })
}

/// A variable of ours, if the pair is one that can be read.
fn ours((name, text): (std::ffi::OsString, std::ffi::OsString)) -> Option<(String, String)> {
    let name = name
        .into_string()
        .ok()
        .filter(|name| name.starts_with(PREFIX))?;
    Some((name, text.to_string_lossy().into_owned()))
}

fn plain_text(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(yes) => Some(yes.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

/// The word with the fewest letters to change, if that is few enough to be a slip.
fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let best = known.map(|k| (distance(word, k), k)).min()?;
    (best.0 <= (word.len() / 3).max(2)).then_some(best.1)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
