//! How often repeated tests run: read from `tests/counts.toml`; and which versions of engines they
//! are for, read from the recipes under `images/`.

use std::fs;
use std::ops::Range;
use std::path::Path;

/// Where the recipes of engine roots are.
const RECIPES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../images");

/// The count of `test` in `./test`; the soak runner, which counts itself, says how many in
/// `COFFER_ROUNDS`.
pub fn count(test: &str) -> u64 {
    if let Some(rounds) = told("COFFER_ROUNDS") {
        return rounds.parse().expect("COFFER_ROUNDS is a number");
    }
    read(include_str!("../../../tests/counts.toml"), test, "ci")
        .unwrap_or_else(|| panic!("tests/counts.toml has no ci for [{test}]"))
}

/// Whether the soak runner said how many.
pub fn is_soak() -> bool {
    told("COFFER_ROUNDS").is_some()
}

/// The seeds to play: one from `SEED=n`, some from `SEEDS=a..b`, or as many as `test` has.
pub fn seeds(test: &str) -> Range<u64> {
    if let Some(seed) = told("SEED") {
        let seed: u64 = seed.parse().expect("SEED is a number");
        return seed..seed + 1;
    }
    if let Some(seeds) = told("SEEDS") {
        let (from, to) = seeds.split_once("..").expect("SEEDS is a..b");
        let number = |text: &str| text.parse().expect("SEEDS is a..b");
        return number(from)..number(to);
    }
    0..count(test)
}

/// The versions of `engine` that `test` is for this time. Its count goes through all versions of
/// all engines: first the one that each engine offers first, then the others.
///
/// That one of them has no root on this machine is for the test to say, and to fail for.
pub fn versions(test: &str, engine: &str) -> Vec<String> {
    let count = usize::try_from(count(test)).unwrap_or(usize::MAX);
    let all = recipes(Path::new(RECIPES));
    assert!(
        count <= all.len() || told("COFFER_ROUNDS").is_some(),
        "tests/counts.toml wants {count} versions for [{test}], there are recipes of {}",
        all.len()
    );
    let chosen = all.into_iter().take(count);
    let of_engine = chosen.filter(|recipe| recipe.engine == engine);
    of_engine.map(|recipe| recipe.version).collect()
}

/// A version of an engine that a root can be built of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Recipe {
    engine: String,
    version: String,
}

/// All of them, those first that their engines offer first.
fn recipes(dir: &Path) -> Vec<Recipe> {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("read {}: {e}", dir.display()));
    let paths = entries.map(|entry| entry.expect("read a recipe's name").path());
    let mut all: Vec<(bool, Recipe)> = paths
        .filter(|path| path.extension().is_some_and(|e| e == "toml"))
        .map(|path| recipe(&fs::read_to_string(path).expect("read a recipe")))
        .collect();
    all.sort_by_key(|(is_default, recipe)| (!is_default, recipe.clone()));
    all.into_iter().map(|(_, recipe)| recipe).collect()
}

/// What a recipe's text says of its version, and whether its engine offers it first.
fn recipe(text: &str) -> (bool, Recipe) {
    let value = |key: &str| {
        text.lines().find_map(|line| {
            let rest = line.strip_prefix(key)?.trim_start();
            rest.strip_prefix('=').map(str::trim)
        })
    };
    let word = |key: &str| {
        let found = value(key).unwrap_or_else(|| panic!("a recipe has no {key}: {text}"));
        found.trim_matches('"').to_owned()
    };
    let is_default = value("default") == Some("true");
    let (engine, version) = (word("engine"), word("version"));
    (is_default, Recipe { engine, version })
}

#[expect(
    clippy::disallowed_methods,
    reason = "whoever runs a test says how often"
)]
fn told(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn read(text: &str, test: &str, column: &str) -> Option<u64> {
    let heading = format!("[{test}]");
    text.lines()
        .skip_while(|line| line.trim() != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .find_map(|line| {
            line.strip_prefix(column)?
                .trim()
                .strip_prefix('=')?
                .trim()
                .parse()
                .ok()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_column_of_the_test() {
        let text = "[a]\nci = 1\nsoak = 2\n\n[b]\nci = 3\n";
        assert_eq!(read(text, "a", "soak"), Some(2));
        assert_eq!(read(text, "b", "ci"), Some(3));
        assert_eq!(read(text, "b", "soak"), None);
    }

    #[test]
    fn in_each_run_one_version_of_each_engine_is_tested_and_in_a_soak_all() {
        let all = recipes(Path::new(RECIPES));
        let mut engines: Vec<_> = all.iter().map(|recipe| recipe.engine.as_str()).collect();
        engines.sort_unstable();
        engines.dedup();
        let mut first: Vec<_> = all[..engines.len()]
            .iter()
            .map(|r| r.engine.as_str())
            .collect();
        first.sort_unstable();
        assert_eq!(first, engines, "each engine offers one version first");
        let counts = include_str!("../../../tests/counts.toml");
        for test in ["conforming_versions", "living_versions"] {
            let wanted = |column| read(counts, test, column).map(|n| usize::try_from(n).unwrap());
            assert_eq!(wanted("ci"), Some(engines.len()), "{test}");
            assert_eq!(wanted("soak"), Some(all.len()), "{test}");
        }
    }

    #[test]
    fn a_recipe_says_its_engine_and_version() {
        let text = "# x\nname = \"a-1\"\nengine = \"a\"\nversion = \"1\"\ndefault = true\n";
        let wanted = Recipe {
            engine: "a".to_owned(),
            version: "1".to_owned(),
        };
        assert_eq!(recipe(text), (true, wanted));
    }
}
