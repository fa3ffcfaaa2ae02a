//! Whether each row of `docs/comparison.md` names tests, and whether each test it names is there.
//! What is claimed beside others has to be shown; a test that was renamed shows nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Source;

const DOCUMENT: &str = "docs/comparison.md";

/// What is wrong with the document.
pub fn check(root: &Path, sources: &[Source]) -> Result<Vec<String>> {
    let text = fs::read_to_string(root.join(DOCUMENT)).context("read docs/comparison.md")?;
    Ok(findings(&text, sources))
}

fn findings(text: &str, sources: &[Source]) -> Vec<String> {
    let unshown = rows(text).filter(|row| tests(row).next().is_none());
    let unshown = unshown.map(|row| {
        let title = row.split('|').nth(1).unwrap_or_default().trim();
        format!("{DOCUMENT}: no test is named for '{title}'")
    });
    let lost = tests(text).filter(|(path, name)| !is_there(sources, path, name));
    let lost = lost.map(|(path, name)| format!("{DOCUMENT}: there is no test {path}::{name}"));
    unshown.chain(lost).collect()
}

/// Lines of tables, without titles and rules.
fn rows(text: &str) -> impl Iterator<Item = &str> {
    let is_row = |line: &&str| line.starts_with('|');
    let is_rule = |line: &str| line.starts_with("| ---");
    let next = text.lines().skip(1).chain([""]);
    text.lines()
        .zip(next)
        .filter(move |(line, next)| is_row(line) && !is_rule(line) && !is_rule(next))
        .map(|(line, _)| line)
}

/// Tests that stand in code marks: file and function.
fn tests(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let marked = text.split('`').skip(1).step_by(2);
    marked
        .filter_map(|mark| mark.split_once("::"))
        .filter(|(path, _)| Path::new(path).extension().is_some_and(|e| e == "rs"))
}

fn is_there(sources: &[Source], path: &str, name: &str) -> bool {
    let source = sources.iter().find(|source| source.path == path);
    source.is_some_and(|source| has_test(&source.text, name))
}

/// Whether a function of this name is marked as a test.
fn has_test(text: &str, name: &str) -> bool {
    let declaration = format!("fn {name}(");
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    let mut declared = lines.iter().enumerate();
    declared.any(|(at, line)| line.contains(&declaration) && is_marked(&lines[..at]))
}

/// Whether the attributes above a function, which end the lines, have a test's.
fn is_marked(before: &[&str]) -> bool {
    before
        .iter()
        .rev()
        .take_while(|line| !line.is_empty() && !line.starts_with('}'))
        .any(|line| *line == "#[test]" || line.starts_with("#[tokio::test"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "| | ours | shown by |\n| --- | --- | --- |\n";

    fn sources() -> [Source; 1] {
        let text = "fn helper() {}\n\n#[test]\nfn a() {}\n\n#[tokio::test]\n\
                    #[expect(\n    lint\n)]\nasync fn b() {}\n";
        [Source {
            path: "tests/x.rs".to_owned(),
            text: text.to_owned(),
        }]
    }

    #[test]
    fn tests_that_are_there_are_found() {
        let text = format!("{HEAD}| one | x | `tests/x.rs::a`, `tests/x.rs::b` |\n");
        assert!(findings(&text, &sources()).is_empty());
    }

    #[test]
    fn a_row_without_a_test_and_a_test_that_is_gone_are_told() {
        let text = format!("{HEAD}| one | `Store::open` | - |\n| two | x | `tests/x.rs::c` |\n");
        let told = findings(&text, &sources());
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].contains("'one'") && told[1].contains("tests/x.rs::c"),
            "{told:?}"
        );
        // Neither a function that helps nor another file's counts.
        for other in ["tests/x.rs::helper", "tests/y.rs::a"] {
            let text = format!("{HEAD}| one | x | `{other}` |\n");
            assert_eq!(findings(&text, &sources()).len(), 1, "{other}");
        }
    }
}
