//! Checks of documents against the tree: every dependency has its reason, every document is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::crates::Metadata;
use super::lock;

/// Documents that a reader looks for.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "docs/comparison.md",
    "docs/config.md",
    "docs/dependencies.md",
];

/// What is missing or left over.
pub fn check(root: &Path, metadata: &Metadata) -> Result<Vec<String>> {
    let missing = DOCUMENTS.iter().filter(|name| !root.join(name).is_file());
    let mut findings: Vec<_> = missing.map(|name| format!("{name} is missing")).collect();
    let path = root.join("docs/dependencies.md");
    if path.is_file() {
        let text = fs::read_to_string(&path).context("read docs/dependencies.md")?;
        let (direct, twice) = text.split_once(lock::TWICE).unwrap_or((&text, ""));
        findings.extend(dependencies(direct, metadata));
        findings.extend(lock::check(root, &explained(twice))?);
    }
    Ok(findings)
}

/// Compares the table's first column with what the crates name.
fn dependencies(text: &str, metadata: &Metadata) -> Vec<String> {
    let ours = metadata.ours();
    let used: BTreeSet<&str> = metadata
        .named
        .iter()
        .map(String::as_str)
        .filter(|name| !ours.contains(name))
        .collect();
    let rows = text
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let explained: BTreeSet<&str> = rows.collect();
    let unexplained = used.difference(&explained);
    let unexplained =
        unexplained.map(|name| format!("docs/dependencies.md: no reason is given for {name}"));
    let unused = explained.difference(&used);
    let unused = unused.map(|name| format!("docs/dependencies.md: nothing uses {name}"));
    unexplained.chain(unused).collect()
}

/// What stands in the first column of a table, in code marks.
fn explained(text: &str) -> BTreeSet<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_dependency_without_a_reason_and_a_reason_without_one_are_found() {
        let names = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let metadata = Metadata {
            direct: BTreeMap::from([("coffer-core".to_owned(), BTreeSet::new())]),
            named: names(&["coffer-core", "serde", "tokio"]),
            trees: BTreeMap::new(),
        };
        let text = "| crate | reason |\n| --- | --- |\n| `serde` | x |\n| `old` | y |\n";
        let findings = dependencies(text, &metadata);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(
            findings[0].contains("tokio") && findings[1].contains("old"),
            "{findings:?}"
        );
    }
}
