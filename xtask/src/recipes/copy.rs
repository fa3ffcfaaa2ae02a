//! Copies of the tree: which files it has, what they hold, and how one copy becomes like another.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::named::Change;
use crate::process::Program;

/// Files of a tree: path from its root, and content.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// The files of the project: those that git knows, and new ones that it does not ignore.
pub(super) fn project(root: &Path) -> Result<Vec<String>> {
    let words = [
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
    ];
    let listed = Program::new("git", &words).in_dir(root).output()?;
    let files = listed.split('\0').filter(|file| root.join(file).is_file());
    Ok(files.map(str::to_owned).collect())
}

/// Copies files into a directory, which holds nothing else afterwards.
pub(super) fn fill(root: &Path, files: &[String], to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to).with_context(|| format!("remove {}", to.display()))?;
    }
    for file in files {
        let path = to.join(file);
        make_dir_of(&path)?;
        fs::copy(root.join(file), &path).with_context(|| format!("copy {file}"))?;
    }
    Ok(())
}

/// Makes a directory hold what another holds. What is the same already stays untouched, with its
/// time: whoever compiles it has nothing to do.
pub(super) fn follow(from: &Path, to: &Path) -> Result<()> {
    let (new, old) = (read(from)?, read(to).unwrap_or_default());
    for path in old.keys().filter(|path| !new.contains_key(*path)) {
        fs::remove_file(to.join(path)).with_context(|| format!("remove {path}"))?;
    }
    for (path, content) in &new {
        if old.get(path) == Some(content) {
            continue;
        }
        let target = to.join(path);
        make_dir_of(&target)?;
        fs::copy(from.join(path), &target).with_context(|| format!("copy {path}"))?;
    }
    Ok(())
}

fn make_dir_of(path: &Path) -> Result<()> {
    let dir = path.parent().context("find the file's directory")?;
    fs::create_dir_all(dir).with_context(|| format!("make {}", dir.display()))
}

/// Reads a copy.
pub(super) fn read(root: &Path) -> Result<Files> {
    let mut files = Files::new();
    let mut dirs = vec![PathBuf::new()];
    while let Some(dir) = dirs.pop() {
        let at = root.join(&dir);
        for entry in fs::read_dir(&at).with_context(|| format!("read {}", at.display()))? {
            let entry = entry.with_context(|| format!("read {}", at.display()))?;
            let path = dir.join(entry.file_name());
            if root.join(&path).is_dir() {
                dirs.push(path);
                continue;
            }
            let content = fs::read(root.join(&path));
            let content = content.with_context(|| format!("read {}", path.display()))?;
            files.insert(path.display().to_string(), content);
        }
    }
    Ok(files)
}

/// What is not in both as it is in the other.
pub(super) fn changes(old: &Files, new: &Files) -> Vec<Change> {
    let paths = old
        .keys()
        .chain(new.keys().filter(|p| !old.contains_key(*p)));
    let differs = |path: &&String| old.get(*path) != new.get(*path);
    let text = |files: &Files, path: &String| {
        let content = files.get(path).map(Vec::as_slice);
        String::from_utf8_lossy(content.unwrap_or_default()).into_owned()
    };
    let change = |path: &String| Change {
        path: path.clone(),
        old: text(old, path),
        new: text(new, path),
    };
    paths.filter(differs).map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_follows_and_leaves_alone_what_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            make_dir_of(&path).unwrap();
            fs::write(path, text).unwrap();
        };
        write("from/a/same", "1");
        write("from/changed", "2");
        follow(&from, &to).unwrap();
        let before = fs::metadata(to.join("a/same")).unwrap().modified().unwrap();
        write("from/changed", "3");
        write("from/b/new", "4");
        write("to/a/gone", "5");
        let old = read(&to).unwrap();
        follow(&from, &to).unwrap();
        let new = read(&to).unwrap();
        assert_eq!(new, read(&from).unwrap());
        let changes = changes(&old, &new);
        let told: Vec<_> = changes
            .iter()
            .map(|c| (c.path.as_str(), c.old.as_str(), c.new.as_str()))
            .collect();
        let expected = [
            ("a/gone", "5", ""),
            ("changed", "2", "3"),
            ("b/new", "", "4"),
        ];
        assert_eq!(told, expected);
        let after = fs::metadata(to.join("a/same")).unwrap().modified().unwrap();
        assert_eq!(before, after);
    }
}
