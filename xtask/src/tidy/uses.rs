//! Whether what a crate names as a dependency is used by any file of it, and what the workspace
//! names by any crate. What nobody uses is built and updated all the same.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use toml::Table;

use super::Source;

/// Crates whose library has another name than they have.
const OTHER_NAMES: &[(&str, &str)] = &[("rustls-webpki", "webpki")];
/// Tables of a manifest that name dependencies.
const TABLES: &[&str] = &["dependencies", "dev-dependencies", "build-dependencies"];

/// What is named and not used.
pub fn check(root: &Path, sources: &[Source]) -> Result<Vec<String>> {
    let mut findings = Vec::new();
    let mut named = BTreeSet::new();
    for dir in crates(root)? {
        let manifest = read(&root.join(&dir).join("Cargo.toml"))?;
        let own = || sources.iter().filter(|s| s.path.starts_with(&dir));
        for name in dependencies(&manifest) {
            if !own().any(|source| uses(&source.text, &name)) {
                findings.push(format!("{dir}Cargo.toml: no file uses {name}"));
            }
            named.insert(name);
        }
    }
    let workspace = read(&root.join("Cargo.toml"))?;
    let shared = workspace["workspace"]["dependencies"].as_table();
    let unused = shared.into_iter().flat_map(Table::keys);
    let unused = unused.filter(|name| !named.contains(*name));
    findings.extend(unused.map(|name| format!("Cargo.toml: no crate uses {name}")));
    Ok(findings)
}

/// Directories of our crates, from the root, with a slash at the end.
fn crates(root: &Path) -> Result<Vec<String>> {
    let mut all = vec!["xtask/".to_owned(), "tests/e2e/".to_owned()];
    for entry in fs::read_dir(root.join("crates")).context("read crates")? {
        let name = entry.context("read crates")?.file_name();
        all.push(format!("crates/{}/", name.to_string_lossy()));
    }
    all.sort();
    Ok(all)
}

fn read(path: &Path) -> Result<Table> {
    let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    text.parse()
        .with_context(|| format!("read {}", path.display()))
}

fn dependencies(manifest: &Table) -> BTreeSet<String> {
    let tables = TABLES.iter().filter_map(|name| manifest.get(*name));
    let tables = tables.filter_map(toml::Value::as_table);
    tables.flat_map(|table| table.keys().cloned()).collect()
}

/// Whether the text has the library's name as a word.
fn uses(text: &str, name: &str) -> bool {
    let other = OTHER_NAMES.iter().find(|(of, _)| *of == name);
    let library = other.map_or(name, |(_, library)| library).replace('-', "_");
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    text.match_indices(&library).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + library.len()..].chars().next();
        !is_word(before) && !is_word(after)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_used_by_its_own_name() {
        assert!(uses("use tokio_util::sync;", "tokio-util"));
        assert!(!uses("use tokio_utility::sync;", "tokio-util"));
        assert!(!uses("let my_nix = 1;", "nix"));
        assert!(uses("webpki::Error", "rustls-webpki"));
    }

    #[test]
    fn all_tables_of_a_manifest_count() {
        let text = "[dependencies]\na = {}\n[dev-dependencies]\nb = {}\n[lints]\nc = {}\n";
        let names = dependencies(&text.parse().unwrap());
        assert_eq!(names.into_iter().collect::<Vec<_>>(), ["a", "b"]);
    }
}
