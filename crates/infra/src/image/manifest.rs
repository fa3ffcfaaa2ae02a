//! The manifest beside each engine root: what it is, what is in it, and what its engine says.
//!
//! Stored: recipe and packages, because they answer "which version runs here" without starting
//! anything; facts of the engine, because asking it costs a start. Not stored: when and where it
//! was built, so that equal trees have equal manifests.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::recipe::Recipe;
use super::{ImageError, Result, tree};

/// Format of the manifest file; a reader refuses a newer one.
const FORMAT: u32 = 2;

/// What an engine root is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Format of this file.
    pub format: u32,
    /// Checksum of the tree; the root's name.
    pub checksum: String,
    /// Checksum of the recipe and the builder's format.
    pub recipe_checksum: String,
    /// What it was made from.
    pub recipe: Recipe,
    /// Checksum of the base that it was made over; none for a base, and for what older programs
    /// built.
    #[serde(default)]
    pub base: Option<String>,
    /// Packages in it, by name.
    pub packages: Vec<Package>,
    /// Sum of the files' sizes; unit: bytes.
    pub size_bytes: u64,
    /// How much of that lies in files of its base; unit: bytes.
    #[serde(default)]
    pub shared_bytes: u64,
    /// Files, directories and links in it.
    pub entries: u64,
    /// What the engine says of itself, by topic (parameters, extensions).
    #[serde(default)]
    pub facts: BTreeMap<String, Value>,
}

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture.
    pub architecture: String,
}

impl Manifest {
    /// The manifest of a finished tree.
    pub fn new(recipe: &Recipe, packages: Vec<Package>, sums: (String, tree::Extent)) -> Self {
        let (checksum, extent) = sums;
        Self {
            format: FORMAT,
            checksum,
            recipe_checksum: recipe.checksum(),
            recipe: recipe.clone(),
            base: None,
            packages,
            size_bytes: extent.bytes,
            shared_bytes: 0,
            entries: extent.entries,
            facts: BTreeMap::new(),
        }
    }

    /// Full version of the first package that the recipe names.
    pub fn engine_version(&self) -> Option<&str> {
        let name = self.recipe.packages.first()?;
        self.packages
            .iter()
            .find(|p| p.name == *name)
            .map(|p| p.version.as_str())
    }

    /// Reads the manifest of the root in `dir`.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join("manifest.json");
        let text = fs::read_to_string(&path).map_err(tree::io("read manifest", &path))?;
        let manifest: Self = serde_json::from_str(&text).map_err(|e| ImageError::Manifest {
            path: path.clone(),
            why: e.to_string(),
        })?;
        if manifest.format > FORMAT {
            let why = format!(
                "format {} is newer than this program knows",
                manifest.format
            );
            return Err(ImageError::Manifest { path, why });
        }
        Ok(manifest)
    }

    /// Writes it into `dir`, whole or not at all.
    pub fn write(&self, dir: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).expect("a manifest is plain data");
        text.push('\n');
        let (path, next) = (dir.join("manifest.json"), dir.join("manifest.json.new"));
        fs::write(&next, text).map_err(tree::io("write manifest", &next))?;
        fs::rename(&next, &path).map_err(tree::io("replace manifest", &path))
    }
}

/// Packages named as installed in a tree's dpkg status file, by name.
pub fn packages(root: &Path) -> Result<Vec<Package>> {
    let path = tree::inside(root, "/var/lib/dpkg/status");
    let text = fs::read_to_string(&path).map_err(tree::io("read package list", &path))?;
    let mut found: Vec<Package> = text.split("\n\n").filter_map(package).collect();
    found.sort();
    Ok(found)
}

fn package(paragraph: &str) -> Option<Package> {
    let field = |name: &str| {
        let mut lines = paragraph.lines();
        lines
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
            .map(str::to_owned)
    };
    let is_installed = field("Status")?.ends_with(" installed");
    let (name, version, architecture) =
        (field("Package")?, field("Version")?, field("Architecture")?);
    is_installed.then_some(Package {
        name,
        version,
        architecture,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_installed_packages_are_listed() {
        let dir = tempfile::tempdir().unwrap();
        let status = dir.path().join("var/lib/dpkg");
        fs::create_dir_all(&status).unwrap();
        let text = "Package: b\nStatus: install ok installed\nVersion: 2-1\nArchitecture: all\n\
                    Description: x\n Version: 9\n\n\
                    Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\
                    Architecture: all\n\n\
                    Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:3\n";
        fs::write(status.join("status"), text).unwrap();
        let names: Vec<_> = packages(dir.path())
            .unwrap()
            .into_iter()
            .map(|p| format!("{} {} {}", p.name, p.version, p.architecture))
            .collect();
        assert_eq!(names, ["a 1:3 amd64", "b 2-1 all"]);
    }

    #[test]
    fn a_manifest_survives_the_file_and_a_newer_format_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = Recipe::find("postgresql-18").unwrap();
        let sums = (
            "ab".to_owned(),
            tree::Extent {
                entries: 1,
                bytes: 2,
            },
        );
        let mut manifest = Manifest::new(&recipe, Vec::new(), sums);
        manifest.facts.insert(
            "parameters".to_owned(),
            serde_json::json!(["shared_buffers"]),
        );
        manifest.write(dir.path()).unwrap();
        assert_eq!(Manifest::read(dir.path()).unwrap(), manifest);
        manifest.format = FORMAT + 1;
        manifest.write(dir.path()).unwrap();
        let error = Manifest::read(dir.path()).unwrap_err().to_string();
        assert!(error.contains("newer"), "{error}");
    }
}
