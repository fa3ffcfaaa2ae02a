//! How often repeated tests run: read from `tests/counts.toml`.

use std::ops::Range;

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
}
