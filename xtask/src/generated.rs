//! Files in the tree that are written by the programs they describe.
//!
//! The programs are built with the whole workspace's features, like everything that the rings
//! build, so that nothing is compiled again for them.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::built;
use crate::process::Program;

/// Path of each, the program below the build directory that prints it, and its words. A program
/// with the path `*` prints several files, each after a line with a form feed and its path.
const GENERATED: &[(&str, &str, &[&str])] = &[
    ("docs/config.md", "examples/config-docs", &[]),
    ("docs/api/openapi.json", "coffer", &["openapi"]),
    ("*", "examples/workflow-docs", &[]),
];

/// Writes those that changed; their paths.
pub fn write(root: &Path) -> Result<Vec<String>> {
    build(root)?;
    write_from(root, &built()?)
}

/// The same by programs that were built before, and where.
pub fn write_from(root: &Path, built: &Path) -> Result<Vec<String>> {
    let mut written = Vec::new();
    for (name, text) in current(root, built)? {
        let path = root.join(&name);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        let dir = path.parent().context("find the file's directory")?;
        fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))?;
        fs::write(&path, text).with_context(|| format!("write {name}"))?;
        written.push(name);
    }
    Ok(written)
}

/// Fails when one in the tree is not what the program prints.
pub fn check(root: &Path) -> Result<()> {
    build(root)?;
    let is_stale = |(name, text): &(String, String)| {
        fs::read_to_string(root.join(name)).map_or(true, |old| old != *text)
    };
    let stale: Vec<_> = current(root, &built()?)?
        .into_iter()
        .filter(is_stale)
        .map(|(name, _)| name)
        .collect();
    if !stale.is_empty() {
        bail!("not current: {}; run cargo xtask docs", stale.join(", "));
    }
    Ok(())
}

fn build(root: &Path) -> Result<()> {
    let words = ["build", "--quiet", "--workspace", "--bins", "--examples"];
    Program::new("cargo", &words).in_dir(root).run()
}

/// What each should hold.
fn current(root: &Path, built: &Path) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for (path, program, words) in GENERATED {
        let text = Program::new(built.join(program), &words[..])
            .in_dir(root)
            .output()?;
        match *path {
            "*" => files.extend(several(&text)),
            one => files.push((one.to_owned(), ended(&text))),
        }
    }
    Ok(files)
}

/// Reads the files in the output of a program that prints several.
fn several(text: &str) -> Vec<(String, String)> {
    let parts = text.split('\u{c}').skip(1);
    let file = |part: &str| {
        let (path, text) = part.split_once('\n')?;
        Some((path.to_owned(), ended(text)))
    };
    parts.filter_map(file).collect()
}

fn ended(text: &str) -> String {
    format!("{}\n", text.trim_end_matches('\n'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_files_are_told_apart() {
        let files = several("noise\u{c}docs/a.md\n# a\n\u{c}docs/b.md\n# b\ntext\n\n");
        let expected = [("docs/a.md", "# a\n"), ("docs/b.md", "# b\ntext\n")];
        let expected = expected.map(|(path, text)| (path.to_owned(), text.to_owned()));
        assert_eq!(files, expected);
    }
}
