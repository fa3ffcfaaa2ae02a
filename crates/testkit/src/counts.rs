//! How often repeated tests run: read from `tests/counts.toml`.

/// The count of `test`: column `ci`, or `soak` when `COFFER_SOAK` is set.
#[expect(
    clippy::disallowed_methods,
    reason = "the test runner chooses the column"
)]
pub fn count(test: &str) -> u64 {
    let column = if std::env::var("COFFER_SOAK").is_ok() {
        "soak"
    } else {
        "ci"
    };
    read(include_str!("../../../tests/counts.toml"), test, column)
        .unwrap_or_else(|| panic!("tests/counts.toml has no {column} for [{test}]"))
}

/// The one seed to run again, from `SEED`.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever repeats a run names its seed"
)]
pub fn seed() -> Option<u64> {
    std::env::var("SEED").ok()?.parse().ok()
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
