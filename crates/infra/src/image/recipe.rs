//! Recipes: what an engine root is made of. One file under `images/` for each datastore version.
//!
//! The project's own recipes are compiled in, so that the executable needs no files beside it; an
//! operator's recipe is read from a path. A recipe names a suite and never a mirror: which mirror
//! serves it is the host's business. Building is `build.rs`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::{ImageError, Result, tree};

/// Changes when the builder makes another tree from the same recipe, so that caches notice.
const BUILDER_FORMAT: &str = "coffer-root-2";

/// The recipes under `images/`: name and text, in order of name. `build.rs` finds them.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/recipes.rs"));

/// What an engine root is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the recipe, as the command line takes it (`postgresql-17`).
    pub name: String,
    /// Engine that the root carries: a key of the engine registry.
    pub engine: String,
    /// Version of the engine, as the datastore version shows it.
    pub version: String,
    /// Suite of the distribution that the packages come from.
    pub suite: String,
    /// Packages installed over the suite's base.
    pub packages: Vec<String>,
    /// Paths that these packages may not unpack; shell patterns.
    #[serde(default)]
    pub excludes: Vec<String>,
    /// Exceptions from `excludes`.
    #[serde(default)]
    pub includes: Vec<String>,
    /// Paths removed from the finished tree; no patterns.
    #[serde(default)]
    pub remove: Vec<String>,
    /// Files that stand before any of these packages is installed: path and content.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Whether it is the version that its datastore offers first. It decides nothing about the
    /// tree, so neither the checksum nor a manifest has it.
    #[serde(default, skip_serializing)]
    pub default: bool,
}

impl Recipe {
    /// Reads a recipe's text; `origin` names it in messages.
    pub fn parse(text: &str, origin: &str) -> Result<Self> {
        let recipe: Self = toml::from_str(text).map_err(|e| ImageError::Recipe {
            origin: origin.to_owned(),
            why: e.to_string().trim_end().to_owned(),
        })?;
        match recipe.mistake() {
            None => Ok(recipe),
            Some(why) => Err(ImageError::Recipe {
                origin: origin.to_owned(),
                why,
            }),
        }
    }

    /// The recipe of a suite's base: the minimal system that every root of the suite stands on.
    pub(super) fn base(suite: &str) -> Self {
        Self {
            name: format!("base-{suite}"),
            engine: "none".to_owned(),
            version: "0".to_owned(),
            suite: suite.to_owned(),
            packages: Vec::new(),
            excludes: Vec::new(),
            includes: Vec::new(),
            remove: Vec::new(),
            files: BTreeMap::new(),
            default: false,
        }
    }

    /// Finds a recipe: one of the project's by name, or a file when `name` has a `/` or `.toml`.
    pub fn find(name: &str) -> Result<Self> {
        if name.contains('/') || name.ends_with(".toml") {
            let text =
                fs::read_to_string(name).map_err(tree::io("read recipe", Path::new(name)))?;
            return Self::parse(&text, name);
        }
        match EMBEDDED.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => Self::parse(text, name),
            None => Err(ImageError::NoRecipe {
                name: name.to_owned(),
                known: names().join(", "),
            }),
        }
    }

    /// Sha256 over everything that decides what the builder makes; lower-case hex.
    pub fn checksum(&self) -> String {
        let text = serde_json::to_string(self).expect("a recipe is plain strings and lists");
        tree::sha256_hex(format!("{BUILDER_FORMAT}\n{text}").as_bytes())
    }

    /// The first thing in it that must not reach a command line or a path.
    fn mistake(&self) -> Option<String> {
        let words = [&self.name, &self.engine, &self.version, &self.suite];
        if let Some(word) = words
            .into_iter()
            .chain(&self.packages)
            .find(|w| !is_plain_word(w))
        {
            return Some(format!(
                "'{word}' is not a plain name (a-z, 0-9 and .+-_:=~)"
            ));
        }
        if self.packages.is_empty() {
            return Some("it names no packages".to_owned());
        }
        let paths = self
            .excludes
            .iter()
            .chain(&self.includes)
            .chain(&self.remove);
        paths
            .chain(self.files.keys())
            .find(|path| !is_inner_path(path))
            .map(|path| format!("'{path}' is not an absolute path below the root"))
    }
}

/// Names of the project's own recipes, in their order.
pub fn names() -> Vec<&'static str> {
    EMBEDDED.iter().map(|(name, _)| *name).collect()
}

/// The project's own recipes, those first that their datastores offer first.
pub fn all() -> Result<Vec<Recipe>> {
    let all: Result<Vec<Recipe>> = EMBEDDED
        .iter()
        .map(|(name, text)| Recipe::parse(text, name))
        .collect();
    let (first, rest): (Vec<_>, Vec<_>) = all?.into_iter().partition(|recipe| recipe.default);
    Ok(first.into_iter().chain(rest).collect())
}

fn is_plain_word(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && word
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || ".+-_:=~".contains(c))
}

fn is_inner_path(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    parts.next() == Some(Component::RootDir)
        && path.len() > 1
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_recipe_is_valid_and_every_engine_has_one_default() {
        let all = all().unwrap();
        assert_eq!(all.len(), names().len());
        let mut defaults = BTreeMap::new();
        for recipe in &all {
            let named = format!("{}-{}", recipe.engine, recipe.version);
            assert_eq!(recipe.name, named);
            assert!(names().contains(&named.as_str()), "{named}");
            *defaults.entry(&recipe.engine).or_insert(0) += usize::from(recipe.default);
        }
        assert!(defaults.values().all(|count| *count == 1), "{defaults:?}");
        assert!(all[..defaults.len()].iter().all(|recipe| recipe.default));
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let error = Recipe::find("postgres").unwrap_err().to_string();
        assert!(
            error.contains("'postgres'") && error.contains("postgresql-17"),
            "{error}"
        );
    }

    #[test]
    fn what_could_become_an_option_or_leave_the_tree_is_refused() {
        let good = "name='a'\nengine='a'\nversion='1'\nsuite='s'\n";
        for bad in [
            "packages=['--hook']",
            "packages=['a b']",
            "packages=[]",
            "packages=['a']\nremove=['/etc/../../x']",
            "packages=['a']\nremove=['etc']",
            "packages=['a']\nremove=['/']",
            "packages=['a']\nmirror='http://example.org'",
        ] {
            let result = Recipe::parse(&format!("{good}{bad}"), "test");
            assert!(matches!(result, Err(ImageError::Recipe { .. })), "{bad}");
        }
        assert!(Recipe::parse(&format!("{good}packages=['a']"), "test").is_ok());
    }

    #[test]
    fn the_checksum_follows_every_field() {
        let recipe = Recipe::find("postgresql-17").unwrap();
        let mut other = recipe.clone();
        other.default = !recipe.default;
        assert_eq!(recipe.checksum(), other.checksum());
        other.files.clear();
        assert_ne!(recipe.checksum(), other.checksum());
        assert_eq!(
            recipe.checksum(),
            Recipe::find("postgresql-17").unwrap().checksum()
        );
        assert_eq!(recipe.checksum().len(), 64);
    }
}
