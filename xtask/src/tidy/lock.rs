//! Checks of everything that is linked or run in a build: licences, and crates that stand there
//! twice. `deny.toml` says the same to cargo-deny, which also knows advisories.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use crate::process::Program;

/// Licences that fit Apache-2.0 code which is given away as source and as executables.
const LICENCES: &[&str] = &[
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-3-Clause",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
];

/// Heading of `docs/dependencies.md` below which crates in two versions are listed.
pub const TWICE: &str = "## Twice in the tree";

/// Asks cargo for the tree on the platform that Coffer runs on; what is wrong with it.
pub fn check(root: &Path, explained: &BTreeSet<&str>) -> Result<Vec<String>> {
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let words = [
        "tree",
        "--locked",
        "--workspace",
        "--edges",
        "normal,build,dev",
    ];
    let more = [
        "--prefix", "none", "--format", "{p}|{l}", "--target", &platform,
    ];
    let text = Program::new("cargo", &[&words[..], &more].concat())
        .in_dir(root)
        .output()?;
    let packages = parse(&text);
    let mut findings = unfit(&packages);
    findings.extend(twice(&packages, explained));
    Ok(findings)
}

/// Versions by name, each with its licence.
type Packages = BTreeMap<String, BTreeMap<String, String>>;

fn parse(text: &str) -> Packages {
    let mut packages = Packages::new();
    for line in text.lines() {
        let (package, licence) = line.split_once('|').unwrap_or((line, ""));
        let licence = licence.trim_end_matches(" (*)");
        let mut words = package.split(' ');
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            let versions = packages.entry(name.to_owned()).or_default();
            versions.insert(version.to_owned(), licence.to_owned());
        }
    }
    packages
}

fn unfit(packages: &Packages) -> Vec<String> {
    let all = packages
        .iter()
        .flat_map(|(name, versions)| versions.values().map(move |l| (name, l)));
    let unfit = all.filter(|(_, licence)| !is_fit(licence));
    unfit
        .map(|(name, licence)| format!("{name}: its licence '{licence}' is not allowed"))
        .collect()
}

/// Whether an SPDX expression can be met by [`LICENCES`]. A slash is an old way to write OR.
fn is_fit(expression: &str) -> bool {
    let text = expression.replace('/', " OR ");
    let all = split_outside(&text, " AND ");
    if all.len() > 1 {
        return all.iter().all(|part| is_fit(part));
    }
    let any = split_outside(&text, " OR ");
    if any.len() > 1 {
        return any.iter().any(|part| is_fit(part));
    }
    match text
        .trim()
        .strip_prefix('(')
        .and_then(|inner| inner.strip_suffix(')'))
    {
        Some(inner) => is_fit(inner),
        None => LICENCES.contains(&text.trim()),
    }
}

/// Splits at a word that stands outside parentheses.
fn split_outside<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let (mut parts, mut depth, mut begin) = (Vec::new(), 0_i32, 0);
    for (index, c) in text.char_indices() {
        depth += match c {
            '(' => 1,
            ')' => -1,
            _ => 0,
        };
        if depth == 0 && index >= begin && text[index..].starts_with(word) {
            parts.push(&text[begin..index]);
            begin = index + word.len();
        }
    }
    parts.push(&text[begin..]);
    parts
}

fn twice(packages: &Packages, explained: &BTreeSet<&str>) -> Vec<String> {
    let twice = packages.iter().filter(|(_, versions)| versions.len() > 1);
    let twice: BTreeSet<&str> = twice.map(|(name, _)| name.as_str()).collect();
    let place = "docs/dependencies.md";
    let new = twice.difference(explained);
    let new = new.map(|name| format!("{place}: {name} is in the tree twice without a reason"));
    let gone = explained.difference(&twice);
    new.chain(gone.map(|name| format!("{place}: {name} is in the tree once")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_of_ours_is_given_away() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        assert!(read(&root.join("LICENSE")).contains("Apache License"));
        assert!(read(&root.join("Cargo.toml")).contains("\nlicense = \"Apache-2.0\"\n"));
        let crates = std::fs::read_dir(root.join("crates")).unwrap();
        let crates = crates.map(|entry| entry.unwrap().path());
        let others = [root.join("xtask"), root.join("tests/e2e")];
        for dir in crates.chain(others) {
            let manifest = read(&dir.join("Cargo.toml"));
            assert!(manifest.contains("\nlicense.workspace = true\n"), "{dir:?}");
        }
    }

    #[test]
    fn licences_are_read_as_expressions() {
        for fit in [
            "MIT",
            "MIT/Apache-2.0",
            "GPL-3.0 OR MIT",
            "(MIT OR Apache-2.0) AND Unicode-3.0",
            "ISC AND (Apache-2.0 OR GPL-2.0)",
        ] {
            assert!(is_fit(fit), "{fit}");
        }
        for unfit in [
            "",
            "GPL-3.0",
            "MIT AND GPL-3.0",
            "(MIT OR ISC) AND (GPL-2.0 OR AGPL-3.0)",
        ] {
            assert!(!is_fit(unfit), "{unfit}");
        }
    }

    #[test]
    fn two_versions_need_a_reason_and_a_reason_needs_two_versions() {
        let text = "a v1.0.0|MIT\na v2.0.0|MIT\nb v1.0.0 (proc-macro)|MIT (*)\nb v1.0.0|MIT\n";
        let packages = parse(text);
        assert!(unfit(&packages).is_empty());
        assert_eq!(
            twice(&packages, &BTreeSet::from(["a"])),
            Vec::<String>::new()
        );
        let findings = twice(&packages, &BTreeSet::from(["b"]));
        assert_eq!(findings.len(), 2, "{findings:?}");
    }
}
