//! The toys: of each recipe the smallest thing that follows it, as files and as changes of files.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::edit::{Place, edit, with};
use crate::process::Program;
use crate::resource;

/// What follows a recipe.
#[derive(Debug)]
pub(super) struct Toy {
    /// Its name.
    pub(super) name: &'static str,
    /// Heading of its recipe.
    pub(super) heading: &'static str,
    /// Path and content of what is new.
    files: &'static [(&'static str, &'static str)],
    /// File, where, and the text that is added.
    edits: &'static [(&'static str, Place, &'static str)],
    /// What has to be done beside that.
    more: fn(&Path) -> Result<()>,
}

/// All of them.
pub(super) const TOYS: &[Toy] = &[ENGINE, PROVIDER, STEP, RESOURCE];

const ENGINE: Toy = Toy {
    name: "engine",
    heading: "A database engine",
    files: &[
        (
            "crates/engines/src/abacus/mod.rs",
            include_str!("engine/mod.rs.txt"),
        ),
        (
            "crates/engines/src/abacus/runtime.rs",
            include_str!("engine/runtime.rs.txt"),
        ),
        (
            "crates/engines/src/abacus/session.rs",
            include_str!("engine/session.rs.txt"),
        ),
        (
            "crates/engines/src/abacus/server.pl",
            include_str!("engine/server.pl.txt"),
        ),
        (
            "images/abacus-1.toml",
            include_str!("engine/image.toml.txt"),
        ),
        (
            "crates/guest/tests/it/engine/abacus.rs",
            include_str!("engine/test.rs.txt"),
        ),
    ],
    edits: &[
        (
            "crates/engines/src/lib.rs",
            Place::Before("pub mod capability;"),
            "pub mod abacus;",
        ),
        (
            "crates/engines/src/registry.rs",
            Place::After("&crate::valkey::VALKEY,"),
            "        &crate::abacus::Abacus,",
        ),
        (
            "crates/guest/tests/it/engine/mod.rs",
            Place::Before("mod controls;"),
            "mod abacus;",
        ),
    ],
    more: count_its_version,
};

const PROVIDER: Toy = Toy {
    name: "provider",
    heading: "An infrastructure provider",
    files: &[
        (
            "crates/infra/src/toy/mod.rs",
            include_str!("provider/mod.rs.txt"),
        ),
        (
            "crates/infra/src/toy/state.rs",
            include_str!("provider/state.rs.txt"),
        ),
    ],
    edits: &[(
        "crates/infra/src/lib.rs",
        Place::Sorted("pub mod "),
        "pub mod toy;",
    )],
    more: nothing,
};

/// The file of the workflow that gets a step.
const RESTART: &str = "crates/control/src/workflow/restart_instance.rs";

const STEP: Toy = Toy {
    name: "step",
    heading: "A workflow step",
    files: &[],
    edits: &[
        (
            RESTART,
            Place::Before("    /// The server runs."),
            "    /// The tenant network is there.\n    EnsureNetwork,",
        ),
        (
            RESTART,
            Place::Instead("(input, &Step::EnsureServer, "),
            "(input, &Step::EnsureNetwork, ",
        ),
        (
            RESTART,
            Place::Before("        Step::EnsureServer,\n"),
            "        Step::EnsureNetwork,",
        ),
        (
            RESTART,
            Place::Before("Step::EnsureServer => StepPolicy"),
            "            Step::EnsureNetwork => StepPolicy::within(60),",
        ),
        (
            RESTART,
            Place::After("            Step::EnsureServer\n"),
            "            | Step::EnsureNetwork",
        ),
        (
            RESTART,
            Place::Before("Step::EnsureServer => parts::"),
            "            Step::EnsureNetwork => parts::ensure_network(context, &graph)\n\
             \x20               .await?\n\
             \x20               .then(Step::EnsureServer),",
        ),
        (
            "crates/control/src/workflow/mod.rs",
            Place::After("\"restart_instance\",\n            &[\n"),
            "                r#\"{\"step\":\"ensure_network\"}\"#,",
        ),
    ],
    more: nothing,
};

const RESOURCE: Toy = Toy {
    name: "resource",
    heading: "An API resource",
    files: &[],
    edits: &[],
    more: write_resource,
};

impl Toy {
    /// Puts it into a tree.
    pub(super) fn put(&self, root: &Path) -> Result<()> {
        for (path, text) in self.files {
            let path = root.join(path);
            let dir = path.parent().context("find the file's directory")?;
            fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        for (path, place, text) in self.edits {
            edit(&root.join(path), |old| with(old, *place, text))?;
        }
        (self.more)(root)
    }
}

fn nothing(_root: &Path) -> Result<()> {
    Ok(())
}

/// The skeleton, and what it says has to follow. Whatever another toy left in the wrong form is
/// then changed for this one, and found as that.
fn write_resource(root: &Path) -> Result<()> {
    resource::write(root, "sample_thing")?;
    let words = ["fmt", "--all"];
    Program::new("cargo", &words).in_dir(root).output()?;
    Ok(())
}

/// Counts the engine's version on, in both columns of the tests that go through versions.
fn count_its_version(root: &Path) -> Result<()> {
    edit(&root.join("tests/counts.toml"), one_version_more)
}

fn one_version_more(old: &str) -> Option<String> {
    let mut is_of_versions = false;
    let mut lines = Vec::new();
    for line in old.lines() {
        if line.starts_with('[') {
            is_of_versions = line.ends_with("_versions]");
        }
        match line.split_once(" = ").filter(|_| is_of_versions) {
            Some((column, count)) => {
                let count: u64 = count.parse().ok()?;
                lines.push(format!("{column} = {}", count + 1));
            }
            None => lines.push(line.to_owned()),
        }
    }
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_more_is_counted_where_versions_are() {
        let old = "# x\n[a_versions]\nci = 5\nsoak = 10\n\n[seeds]\nci = 3\n";
        let new = one_version_more(old).unwrap();
        assert_eq!(
            new,
            "# x\n[a_versions]\nci = 6\nsoak = 11\n\n[seeds]\nci = 3\n"
        );
    }

    #[test]
    fn every_toy_finds_its_places_in_this_tree() {
        let root = crate::root().unwrap();
        for toy in TOYS {
            let dir = tempfile::tempdir().unwrap();
            for (path, _, _) in toy.edits {
                let to = dir.path().join(path);
                fs::create_dir_all(to.parent().unwrap()).unwrap();
                fs::copy(root.join(path), to).unwrap();
            }
            for (path, place, text) in toy.edits {
                edit(&dir.path().join(path), |old| with(old, *place, text))
                    .unwrap_or_else(|error| panic!("{}: {error}", toy.name));
            }
        }
    }
}
