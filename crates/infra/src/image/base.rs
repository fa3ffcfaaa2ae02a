//! Bases: for each suite the minimal system that its engine roots stand on, built once.
//!
//! A directory of bases is one of roots, below that of the roots. A base is held with a shared lock
//! while something is built over it, so that nobody builds it twice at once, replaces it or takes
//! it away meanwhile. A root that is finished does not need its base: it only shares its files.

use std::collections::BTreeSet;
use std::fs::File;

use super::build::{Base, Build};
use super::manifest::Manifest;
use super::packages::Packages;
use super::recipe::Recipe;
use super::tree::{self, Depth};
use super::{ImageError, Result, Roots};

/// LIMIT: how often a base may be taken away between its building and its holding.
const TAKEN_AWAY_MAX: u32 = 8;

/// A base that stays while this is there.
#[derive(Debug)]
pub(super) struct Held {
    /// The base.
    pub base: Base,
    _lock: File,
}

impl Roots {
    /// The directory of the suites' bases.
    pub(super) fn bases(&self) -> Self {
        Self {
            dir: self.dir.join(".bases"),
        }
    }

    /// The whole base of a suite; built if it is not there or is damaged, or if it is wanted
    /// `again`.
    pub(super) fn hold_base(
        &self,
        suite: &str,
        again: bool,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Held> {
        let bases = self.bases();
        let recipe = Recipe::base(suite);
        for _ in 0..TAKEN_AWAY_MAX {
            let lock = bases.lock(&recipe, progress)?;
            let whole = bases.built_at(&recipe, Depth::Full).filter(|_| !again);
            let manifest = match whole {
                Some(manifest) => manifest,
                None => self.build_base(&recipe, &lock, progress)?,
            };
            // The kernel may give the lock to somebody else before it is shared.
            lock.lock_shared()
                .map_err(tree::io("share lock", &bases.dir))?;
            let dir = bases.dir.join(&manifest.checksum);
            if dir.exists() {
                let base = Base { dir, manifest };
                return Ok(Held { base, _lock: lock });
            }
        }
        Err(ImageError::NotFound { name: recipe.name })
    }

    fn build_base(
        &self,
        recipe: &Recipe,
        lock: &File,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Manifest> {
        let bases = self.bases();
        let build = Build {
            recipe,
            base: None,
            packages: &Packages::of(&self.dir, &recipe.suite),
            work: bases.dir.join(format!(".build-{}", recipe.checksum())),
            lock,
        };
        let name = &recipe.name;
        bases.finish(&build, &mut |line| progress(&format!("{name}: {line}")))
    }

    /// Removes the bases that no root shares and nobody builds over, and with a suite's last one
    /// the package files that were kept for it.
    pub(super) fn sweep_bases(&self) -> Result<()> {
        let bases = self.bases();
        for base in bases.list()? {
            let Ok(manifest) = &base.manifest else {
                continue;
            };
            let Some(_lock) = bases.try_lock(&manifest.recipe)? else {
                continue;
            };
            // Only now: what was built over it in the meantime counts.
            if self.used_bases()?.contains(&base.checksum) {
                continue;
            }
            bases.discard(&bases.dir.join(&base.checksum), &base.checksum)?;
            let suite = &manifest.recipe.suite;
            let left = bases.list()?;
            let is_of_suite = |m: &Manifest| m.recipe.suite == *suite;
            if !left
                .iter()
                .any(|b| b.manifest.as_ref().is_ok_and(is_of_suite))
            {
                Packages::of(&self.dir, suite).forget()?;
            }
        }
        Ok(())
    }

    fn used_bases(&self) -> Result<BTreeSet<String>> {
        let roots = self.list()?.into_iter();
        Ok(roots.filter_map(|root| root.manifest.ok()?.base).collect())
    }

    /// Takes a recipe's lock if nobody has it, not even shared.
    fn try_lock(&self, recipe: &Recipe) -> Result<Option<File>> {
        let path = self.dir.join(".locks").join(&recipe.name);
        let file = File::open(&path).map_err(tree::io("open lock", &path))?;
        Ok(file.try_lock().is_ok().then_some(file))
    }
}
