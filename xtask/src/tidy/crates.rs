//! Checks of the workspace: which crate may use which, and what may not be in a tree at all.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process::Program;

/// Which crates of ours a crate may use when it ships.
const ARROWS: &[(&str, &[&str])] = &[
    ("coffer-core", &[]),
    ("coffer-wire", &[]),
    ("coffer-store", &["coffer-core"]),
    ("coffer-engines", &["coffer-core"]),
    ("coffer-infra", &["coffer-core"]),
    (
        "coffer-control",
        &[
            "coffer-store",
            "coffer-infra",
            "coffer-engines",
            "coffer-wire",
            "coffer-core",
        ],
    ),
    (
        "coffer-guest",
        &["coffer-engines", "coffer-wire", "coffer-core"],
    ),
    ("coffer-cli", &["coffer-wire"]),
    (
        "coffer-server",
        &[
            "coffer-cli",
            "coffer-control",
            "coffer-store",
            "coffer-infra",
            "coffer-engines",
            "coffer-wire",
            "coffer-core",
        ],
    ),
    ("xtask", &[]),
];

/// Crates that only tests are made of: they may use everything and nothing that ships uses them.
const TEST_CRATES: &[&str] = &["coffer-testkit", "e2e"];

/// What may not stand in the tree of a crate, with the reason.
const BANNED: &[(&str, &[&str], &str)] = &[
    (
        "coffer-control",
        &["tokio-postgres", "mysql_async", "redis"],
        "only the guest speaks to engines",
    ),
    (
        "coffer-server",
        &["ring", "openssl-sys", "native-tls"],
        "one TLS stack: rustls on aws-lc",
    ),
    (
        "coffer-guest",
        &["ring", "openssl-sys", "native-tls"],
        "one TLS stack: rustls on aws-lc",
    ),
    (
        "coffer-guest",
        &["reqwest", "sqlx", "clap"],
        "the guest dials nobody and stays small",
    ),
    (
        "coffer-core",
        &["tokio", "serde_json"],
        "core does no I/O and holds no JSON",
    ),
];

/// Most direct dependencies that are not ours; a change is reviewed like an API.
const DIRECT_MAX: &[(&str, usize)] = &[
    ("coffer-guest", 15),
    ("coffer-cli", 12),
    ("coffer-core", 6),
    ("coffer-wire", 5),
];

/// What `cargo metadata` says, as far as it is looked at.
#[derive(Debug)]
pub struct Metadata {
    /// Shipped dependencies of each of our crates, by name.
    pub direct: BTreeMap<String, BTreeSet<String>>,
    /// Every crate that any of ours names, also for builds and tests.
    pub named: BTreeSet<String>,
    /// Names of everything in the shipped tree of each crate that something is banned from.
    pub trees: BTreeMap<String, BTreeSet<String>>,
}

impl Metadata {
    /// Asks cargo, for the platform that Coffer runs on.
    pub fn load(root: &Path) -> Result<Self> {
        let words = ["metadata", "--format-version=1", "--no-deps", "--locked"];
        let text = Program::new("cargo", &words).in_dir(root).output()?;
        let mut metadata = Self::parse(&serde_json::from_str(&text).context("read metadata")?);
        let watched: BTreeSet<&str> = BANNED.iter().map(|(name, ..)| *name).collect();
        for name in watched {
            // Not from the metadata, which holds the features that all crates want together.
            let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
            let words = ["tree", "--locked", "--package", name, "--edges", "normal"];
            let more = ["--prefix", "none", "--format", "{p}", "--target", &platform];
            let text = Program::new("cargo", &[&words[..], &more].concat())
                .in_dir(root)
                .output()?;
            let names = text.lines().filter_map(|line| line.split(' ').next());
            metadata
                .trees
                .insert(name.to_owned(), names.map(str::to_owned).collect());
        }
        Ok(metadata)
    }

    fn parse(value: &Value) -> Self {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut metadata = Self {
            direct: BTreeMap::new(),
            named: BTreeSet::new(),
            trees: BTreeMap::new(),
        };
        for package in list(&value["packages"]) {
            let direct = metadata.direct.entry(text(&package["name"])).or_default();
            for dependency in list(&package["dependencies"]) {
                let name = text(&dependency["name"]);
                if dependency["kind"].is_null() {
                    direct.insert(name.clone());
                }
                metadata.named.insert(name);
            }
        }
        metadata
    }

    /// Names of our crates.
    pub fn ours(&self) -> BTreeSet<&str> {
        self.direct.keys().map(String::as_str).collect()
    }

    /// What is wrong with the arrows, the trees and the numbers.
    pub fn check(&self) -> Vec<String> {
        let mut findings = self.check_arrows();
        for (name, banned, reason) in BANNED {
            let Some(tree) = self.trees.get(*name) else {
                continue;
            };
            let found = banned.iter().filter(|banned| tree.contains(**banned));
            findings.extend(found.map(|found| format!("{name}: {found} is in its tree; {reason}")));
        }
        for (name, most) in DIRECT_MAX {
            let ours = self.ours();
            let direct = self.direct.get(*name).into_iter().flatten();
            let count = direct.filter(|d| !ours.contains(d.as_str())).count();
            if count > *most {
                findings.push(format!(
                    "{name}: {count} direct dependencies; at most {most}"
                ));
            }
        }
        findings
    }

    fn check_arrows(&self) -> Vec<String> {
        let ours = self.ours();
        let mut findings = Vec::new();
        for (name, direct) in &self.direct {
            if TEST_CRATES.contains(&name.as_str()) {
                continue;
            }
            let Some((_, allowed)) = ARROWS.iter().find(|(from, _)| from == name) else {
                findings.push(format!("{name}: a crate that the layout does not know"));
                continue;
            };
            let used = direct.iter().filter(|to| ours.contains(to.as_str()));
            let wrong = used.filter(|to| !allowed.contains(&to.as_str()));
            findings.extend(wrong.map(|to| format!("{name}: it may not use {to}")));
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(from: &str, to: &str, kind: Value) -> Metadata {
        let package = |name: &str, deps: Value| json!({"name": name, "dependencies": deps});
        Metadata::parse(&json!({"packages": [
            package(from, json!([{"name": to, "kind": kind}])),
            package("coffer-store", json!([])),
            package("coffer-core", json!([])),
        ]}))
    }

    #[test]
    fn a_wrong_arrow_is_found_and_a_right_one_is_not() {
        let wrong = metadata("coffer-cli", "coffer-store", Value::Null).check();
        assert_eq!(wrong, ["coffer-cli: it may not use coffer-store"]);
        assert!(
            metadata("coffer-infra", "coffer-core", Value::Null)
                .check()
                .is_empty()
        );
        assert!(
            metadata("coffer-cli", "coffer-store", json!("dev"))
                .check()
                .is_empty()
        );
        assert_eq!(metadata("coffer-extra", "x", Value::Null).check().len(), 1);
    }

    #[test]
    fn what_is_banned_in_a_tree_is_found() {
        let mut metadata = metadata("coffer-guest", "serde", Value::Null);
        assert!(metadata.check().is_empty());
        let tree = BTreeSet::from(["rustls".to_owned(), "ring".to_owned()]);
        metadata.trees.insert("coffer-guest".to_owned(), tree);
        let found = metadata.check();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("ring"), "{found:?}");
    }
}
