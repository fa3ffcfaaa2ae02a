//! Engine roots: read-only file trees that instances run from, one for each datastore version.
//!
//! A root lies in `ROOTS/<checksum>/` as `tree/`, `files` (a line for each entry of the tree) and
//! `manifest.json`, and is never changed once it is there. `ROOTS/.recipes/<recipe checksum>` leads
//! to what a recipe made, so that a recipe is built once on a host however many Coffers share the
//! directory. `ROOTS/.bases` holds the bases of suites in the same form; what a root has in common
//! with its base are links to the base's files (`share.rs`, ADR 0004). Whether a root is in use is
//! asked of the caller, who knows the store; mounts of running sandboxes are looked for here as
//! well.
//!
//! Everything here blocks; asynchronous callers use `spawn_blocking`.

mod base;
pub mod build;
pub mod manifest;
mod packages;
pub mod recipe;
mod share;
pub mod tree;

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use thiserror::Error;

use build::Build;
use manifest::Manifest;
use packages::Packages;
use recipe::Recipe;
use tree::Depth;

/// What can be wrong with engine roots and their recipes.
#[derive(Debug, Error)]
pub enum ImageError {
    /// No recipe has this name.
    #[error("there is no recipe '{name}'; there are {known}, or give a path to a .toml file")]
    NoRecipe {
        /// What was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// A recipe cannot be used.
    #[error("recipe {origin}: {why}")]
    Recipe {
        /// Name or path of the recipe.
        origin: String,
        /// What is wrong with it.
        why: String,
    },
    /// A manifest cannot be read.
    #[error("manifest {path}: {why}; remove the root and build it again")]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file or directory cannot be worked with.
    #[error("{what} {path}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The bootstrap program cannot be run.
    #[error(
        "run unshare and mmdebstrap; install util-linux, mmdebstrap and debian-archive-keyring"
    )]
    Tool {
        /// Why not.
        source: io::Error,
    },
    /// Building needs to make files of other users.
    #[error(
        "building an engine root needs root; run it with sudo: what root has built is used by a \
         Coffer without root as well"
    )]
    NotRoot,
    /// The directory cannot hold roots.
    #[error("{path} cannot hold engine roots: {why}")]
    Place {
        /// The directory.
        path: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// The bootstrap ended badly.
    #[error(
        "building {name} ended badly (it needs the packages mmdebstrap and \
         debian-archive-keyring); mmdebstrap said:\n{tail}"
    )]
    Bootstrap {
        /// Name of the recipe.
        name: String,
        /// The end of its output.
        tail: String,
    },
    /// Nothing has this checksum or recipe name.
    #[error("there is no engine root '{name}'; `coffer image list` names those that there are")]
    NotFound {
        /// What was asked for.
        name: String,
    },
    /// More than one root has this name.
    #[error("'{name}' names {count} engine roots; give more of the checksum")]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// How many fit.
        count: usize,
    },
    /// The root cannot be removed or replaced now.
    #[error("engine root {checksum} is in use by {by}; delete what uses it first")]
    InUse {
        /// The root.
        checksum: String,
        /// Who uses it.
        by: String,
    },
    /// The tree is not what was built.
    #[error("engine root {checksum} is damaged: {what}; build it again: coffer image build {name}")]
    Damaged {
        /// The root.
        checksum: String,
        /// Name of its recipe.
        name: String,
        /// What differs.
        what: String,
    },
}

/// Result of working with engine roots.
pub type Result<T> = std::result::Result<T, ImageError>;

/// A directory of engine roots.
#[derive(Debug, Clone)]
pub struct Roots {
    dir: PathBuf,
}

/// A root as it is listed.
#[derive(Debug)]
pub struct Listed {
    /// Checksum by which it is named.
    pub checksum: String,
    /// What it is, or what is wrong with it.
    pub manifest: Result<Manifest>,
}

impl Roots {
    /// The roots in `dir`, which need not exist yet.
    pub fn new(dir: &Path) -> Result<Self> {
        let place = |why| ImageError::Place {
            path: dir.to_owned(),
            why,
        };
        if !dir.is_absolute() {
            return Err(place("the path is not absolute"));
        }
        // The path reaches mmdebstrap's hooks, which split their words at spaces.
        if !dir
            .to_str()
            .is_some_and(|p| p.chars().all(|c| c.is_ascii_graphic() && c != '\''))
        {
            return Err(place("the path has spaces or special characters"));
        }
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// Where the tree of a root is.
    pub fn tree(&self, checksum: &str) -> PathBuf {
        self.dir.join(checksum).join("tree")
    }

    /// Checksum of the root that this recipe made last, if it is there; nothing is compared.
    pub fn last_made(&self, recipe: &Recipe) -> Option<String> {
        let dir = fs::canonicalize(self.recipe_link(recipe)).ok()?;
        Some(dir.file_name()?.to_str()?.to_owned())
    }

    /// The root that this recipe made last, if it is there and looks whole.
    pub fn built(&self, recipe: &Recipe) -> Option<Manifest> {
        self.built_at(recipe, Depth::Quick)
    }

    /// The same, looked at as closely as this.
    fn built_at(&self, recipe: &Recipe, depth: Depth) -> Option<Manifest> {
        self.verify(&self.last_made(recipe)?, depth).ok()
    }

    /// The root of the recipe; built if it is not there or does not look whole.
    pub fn ensure(&self, recipe: &Recipe, progress: &mut dyn FnMut(&str)) -> Result<Manifest> {
        match self.built(recipe) {
            Some(manifest) => Ok(manifest),
            None => self.build(recipe, false, progress),
        }
    }

    /// Builds the root of the recipe, unless a whole one is there, compared in full; with `again`
    /// even then, to take newer packages.
    pub fn build(
        &self,
        recipe: &Recipe,
        again: bool,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Manifest> {
        let whole = || self.built_at(recipe, Depth::Full).filter(|_| !again);
        if let Some(manifest) = whole() {
            return Ok(manifest);
        }
        if !nix::unistd::geteuid().is_root() {
            return Err(ImageError::NotRoot);
        }
        let lock = self.lock(recipe, progress)?;
        // Whoever held the lock may have built it.
        if let Some(manifest) = whole() {
            return Ok(manifest);
        }
        let base = self.hold_base(&recipe.suite, again, progress)?;
        let build = Build {
            recipe,
            base: Some(&base.base),
            packages: &Packages::of(&self.dir, &recipe.suite),
            work: self.dir.join(format!(".build-{}", recipe.checksum())),
            lock: &lock,
        };
        self.finish(&build, progress)
    }

    /// Builds in the working directory, and puts the result in place under its checksum.
    fn finish(&self, build: &Build<'_>, progress: &mut dyn FnMut(&str)) -> Result<Manifest> {
        let manifest = build.run(progress)?;
        self.install(&build.work, &manifest)?;
        self.point(build.recipe, &manifest.checksum)?;
        Ok(manifest)
    }

    /// Every root in the directory, whole or not, in the order of checksums.
    pub fn list(&self) -> Result<Vec<Listed>> {
        let mut found = Vec::new();
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
            Err(e) => return Err(tree::io("read directory", &self.dir)(e)),
        };
        for entry in entries {
            let path = entry.map_err(tree::io("read directory", &self.dir))?.path();
            let name = path
                .file_name()
                .and_then(|n| n.to_str())
                .filter(|n| is_checksum(n));
            if let Some(checksum) = name {
                let manifest = Manifest::read(&path);
                found.push(Listed {
                    checksum: checksum.to_owned(),
                    manifest,
                });
            }
        }
        found.sort_by(|a, b| a.checksum.cmp(&b.checksum));
        Ok(found)
    }

    /// The checksum that a checksum, the beginning of one, or a recipe's name stands for.
    pub fn find(&self, name: &str) -> Result<String> {
        let has_name = |root: &Listed| {
            let recipe = root.manifest.as_ref().ok().map(|m| m.recipe.name.as_str());
            (name.len() >= 6 && root.checksum.starts_with(name)) || recipe == Some(name)
        };
        let mut fitting: Vec<_> = self.list()?.into_iter().filter(has_name).collect();
        // What a recipe made before is still there for those who run from it; its name means the
        // last.
        if fitting.len() > 1 && fitting.iter().any(|root| self.is_latest(root)) {
            fitting.retain(|root| self.is_latest(root));
        }
        match (fitting.len(), fitting.pop()) {
            (1, Some(root)) => Ok(root.checksum),
            (0, _) | (_, None) => Err(ImageError::NotFound {
                name: name.to_owned(),
            }),
            (count, _) => Err(ImageError::Ambiguous {
                name: name.to_owned(),
                count,
            }),
        }
    }

    /// Whether a root is what its recipe made last.
    pub fn is_latest(&self, root: &Listed) -> bool {
        let recipe = root.manifest.as_ref().ok().map(|m| &m.recipe);
        let link = recipe.and_then(|r| fs::read_link(self.recipe_link(r)).ok());
        link.is_some_and(|to| to.ends_with(&root.checksum))
    }

    /// Compares a root with what was built; what differs is named in the error.
    pub fn verify(&self, checksum: &str, depth: Depth) -> Result<Manifest> {
        let dir = self.dir.join(checksum);
        if !dir.is_dir() {
            return Err(ImageError::NotFound {
                name: checksum.to_owned(),
            });
        }
        let manifest = Manifest::read(&dir)?;
        let damaged = |what: String| ImageError::Damaged {
            checksum: checksum.to_owned(),
            name: manifest.recipe.name.clone(),
            what,
        };
        let lines = tree::read_lines(&dir.join("files")).map_err(|e| damaged(told(&e)))?;
        if tree::checksum(&lines) != checksum || manifest.checksum != checksum {
            return Err(damaged(
                "its list of files does not fit its name".to_owned(),
            ));
        }
        let differences =
            tree::differences(&dir.join("tree"), &lines, depth).map_err(|e| damaged(told(&e)))?;
        match differences.is_empty() {
            true => Ok(manifest),
            false => Err(damaged(differences.join(", "))),
        }
    }

    /// Removes a root; refused while `in_use` names a user of it or a sandbox has it mounted.
    pub fn remove(&self, checksum: &str, in_use: &dyn Fn(&str) -> Option<String>) -> Result<()> {
        let dir = self.dir.join(checksum);
        if !is_checksum(checksum) || !dir.is_dir() {
            return Err(ImageError::NotFound {
                name: checksum.to_owned(),
            });
        }
        if let Some(by) = in_use(checksum).or_else(|| mounted_by(checksum)) {
            return Err(ImageError::InUse {
                checksum: checksum.to_owned(),
                by,
            });
        }
        self.discard(&dir, checksum)?;
        self.sweep_bases()
    }

    /// Records what the engine of a root says of itself; replaces what was said on this topic.
    pub fn record_fact(&self, checksum: &str, topic: &str, fact: serde_json::Value) -> Result<()> {
        let dir = self.dir.join(checksum);
        let mut manifest = Manifest::read(&dir)?;
        manifest.facts.insert(topic.to_owned(), fact);
        manifest.write(&dir)
    }

    /// Takes the recipe's lock; waits for another build of it.
    fn lock(&self, recipe: &Recipe, progress: &mut dyn FnMut(&str)) -> Result<File> {
        let dir = self.dir.join(".locks");
        fs::create_dir_all(&dir).map_err(tree::io("make directory", &dir))?;
        let path = dir.join(&recipe.name);
        let file = File::options()
            .create(true)
            .write(true)
            .read(true)
            .truncate(false)
            .open(&path);
        let file = file.map_err(tree::io("open lock", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                progress(&format!("waiting for another build of {}", recipe.name));
                file.lock().map_err(tree::io("lock", &path))?;
            }
            Err(TryLockError::Error(e)) => return Err(tree::io("lock", &path)(e)),
        }
        Ok(file)
    }

    /// Puts a finished working directory in its place, or drops it when the same root is there.
    fn install(&self, work: &Path, manifest: &Manifest) -> Result<()> {
        let place = self.dir.join(&manifest.checksum);
        if self.verify(&manifest.checksum, Depth::Full).is_ok() {
            return build::remove(work);
        }
        if place.exists() {
            if let Some(by) = mounted_by(&manifest.checksum) {
                return Err(ImageError::InUse {
                    checksum: manifest.checksum.clone(),
                    by,
                });
            }
            self.discard(&place, &manifest.checksum)?;
        }
        fs::rename(work, &place).map_err(tree::io("put in place", &place))
    }

    /// Removes a root so that a half-removed one is never taken for whole.
    fn discard(&self, dir: &Path, checksum: &str) -> Result<()> {
        let aside = self.dir.join(format!(".removed-{checksum}"));
        build::remove(&aside)?;
        fs::rename(dir, &aside).map_err(tree::io("put aside", dir))?;
        build::remove(&aside)
    }

    fn recipe_link(&self, recipe: &Recipe) -> PathBuf {
        self.dir.join(".recipes").join(recipe.checksum())
    }

    fn point(&self, recipe: &Recipe, checksum: &str) -> Result<()> {
        let link = self.recipe_link(recipe);
        let next = link.with_extension("new");
        let dir = link.parent().expect("the link lies in a directory");
        fs::create_dir_all(dir).map_err(tree::io("make directory", dir))?;
        build::remove(&next)?;
        symlink(Path::new("..").join(checksum), &next).map_err(tree::io("make link", &next))?;
        fs::rename(&next, &link).map_err(tree::io("replace link", &link))
    }
}

/// An error with its cause, on one line.
fn told(error: &ImageError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn is_checksum(name: &str) -> bool {
    name.len() == 64
        && name
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A process whose mount namespace holds the tree of this root: a running sandbox.
fn mounted_by(checksum: &str) -> Option<String> {
    let part = format!("/{checksum}/tree");
    let processes = fs::read_dir("/proc").ok()?;
    processes
        .filter_map(std::result::Result::ok)
        .find_map(|entry| {
            let pid = entry.file_name().to_str()?.parse::<u32>().ok()?;
            let mounts = fs::read_to_string(entry.path().join("mountinfo")).ok()?;
            mounts.contains(&part).then(|| format!("process {pid}"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with one whole root in it, made without a bootstrap.
    fn with_root() -> (tempfile::TempDir, Roots, Recipe, String) {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::new(dir.path()).unwrap();
        let recipe = Recipe::find("postgresql-17").unwrap();
        let work = dir.path().join(".build-x");
        fs::create_dir_all(work.join("tree/bin")).unwrap();
        fs::write(work.join("tree/bin/postgres"), "binary").unwrap();
        let (lines, extent) = tree::list(&work.join("tree"), Depth::Full).unwrap();
        let manifest = Manifest::new(&recipe, Vec::new(), (tree::checksum(&lines), extent));
        fs::write(work.join("files"), lines.join("\n") + "\n").unwrap();
        manifest.write(&work).unwrap();
        roots.install(&work, &manifest).unwrap();
        roots.point(&recipe, &manifest.checksum).unwrap();
        (dir, roots, recipe, manifest.checksum)
    }

    #[test]
    fn a_built_root_is_found_by_recipe_name_and_checksum() {
        let (_dir, roots, recipe, checksum) = with_root();
        assert_eq!(roots.built(&recipe).unwrap().checksum, checksum);
        assert_eq!(roots.find("postgresql-17").unwrap(), checksum);
        assert_eq!(roots.find(&checksum[..8]).unwrap(), checksum);
        assert!(matches!(
            roots.find("mysql"),
            Err(ImageError::NotFound { .. })
        ));
        assert_eq!(roots.list().unwrap().len(), 1);
        assert!(
            roots
                .ensure(&recipe, &mut |_| panic!("nothing is to be built"))
                .is_ok()
        );
    }

    #[test]
    fn damage_names_the_file_and_is_not_taken_for_built() {
        let (dir, roots, recipe, checksum) = with_root();
        let file = roots.tree(&checksum).join("bin/postgres");
        fs::write(&file, "BINARY").unwrap();
        assert!(roots.verify(&checksum, Depth::Quick).is_ok());
        let error = roots
            .verify(&checksum, Depth::Full)
            .unwrap_err()
            .to_string();
        assert!(error.contains("/bin/postgres was changed"), "{error}");
        assert!(
            error.contains("coffer image build postgresql-17"),
            "{error}"
        );
        fs::remove_file(&file).unwrap();
        assert!(roots.built(&recipe).is_none());
        fs::write(dir.path().join(&checksum).join("files"), "").unwrap();
        let error = roots
            .verify(&checksum, Depth::Quick)
            .unwrap_err()
            .to_string();
        assert!(error.contains("list of files"), "{error}");
    }

    #[test]
    fn a_root_in_use_stays_and_an_unused_one_goes() {
        let (_dir, roots, recipe, checksum) = with_root();
        let error = roots
            .remove(&checksum, &|_| Some("instance db1".to_owned()))
            .unwrap_err();
        assert!(matches!(error, ImageError::InUse { .. }));
        assert!(roots.verify(&checksum, Depth::Full).is_ok());
        roots.remove(&checksum, &|_| None).unwrap();
        assert!(roots.list().unwrap().is_empty());
        assert!(roots.built(&recipe).is_none());
        let error = roots.remove("../etc", &|_| None).unwrap_err();
        assert!(matches!(error, ImageError::NotFound { .. }));
    }

    #[test]
    fn facts_are_kept_in_the_manifest() {
        let (_dir, roots, _, checksum) = with_root();
        roots
            .record_fact(&checksum, "extensions", serde_json::json!(["pgcrypto"]))
            .unwrap();
        let manifest = roots.verify(&checksum, Depth::Full).unwrap();
        assert_eq!(manifest.facts["extensions"][0], "pgcrypto");
    }

    #[test]
    fn a_place_that_the_bootstrap_could_not_name_is_refused() {
        for bad in ["relative", "/with space", "/quote'd"] {
            assert!(
                matches!(Roots::new(Path::new(bad)), Err(ImageError::Place { .. })),
                "{bad}"
            );
        }
    }
}
