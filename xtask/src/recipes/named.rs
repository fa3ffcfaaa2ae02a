//! What a recipe of CONTRIBUTING.md names, and whether what follows it touches anything else.
//!
//! A recipe is the numbered list under its heading. Paths in code marks, from the root of the tree,
//! are what may be touched: a folder ends in `/`, and `<word>` stands for what is chosen. A point
//! that begins with "If" is for some only; all others every newcomer needs.

use anyhow::{Context, Result, ensure};

/// A recipe's paths.
#[derive(Debug)]
pub(super) struct Recipe {
    paths: Vec<Named>,
}

#[derive(Debug, PartialEq, Eq)]
struct Named {
    path: String,
    /// Whether only some need it.
    is_optional: bool,
}

/// A file that was touched.
#[derive(Debug)]
pub(super) struct Change {
    /// Its path from the root of the tree.
    pub(super) path: String,
    /// As it was; empty if it is new.
    pub(super) old: String,
    /// As it is; empty if it is gone.
    pub(super) new: String,
}

impl Recipe {
    /// Reads the recipe under a heading; `is_top` knows the names in the root of the tree.
    pub(super) fn read(text: &str, heading: &str, is_top: impl Fn(&str) -> bool) -> Result<Self> {
        let title = format!("### {heading}\n");
        let (_, rest) = text
            .split_once(&title)
            .with_context(|| format!("CONTRIBUTING.md has no '{heading}'"))?;
        let section = rest.split("\n#").next().unwrap_or(rest);
        let mut paths = Vec::new();
        for point in points(section) {
            let is_optional = point.starts_with("If ");
            // Every second piece stands between code marks.
            let marked = point.split('`').skip(1).step_by(2);
            let named = marked.filter(|word| is_top(word.split('/').next().unwrap_or(word)));
            paths.extend(named.map(|path| Named {
                path: path.to_owned(),
                is_optional,
            }));
        }
        ensure!(!paths.is_empty(), "the recipe '{heading}' names no path");
        Ok(Self { paths })
    }

    /// Whether it names this file.
    pub(super) fn names(&self, path: &str) -> bool {
        self.paths.iter().any(|named| fits(&named.path, path))
    }

    /// What was touched and is not named, and what is named for all and was not touched.
    pub(super) fn check(&self, changes: &[Change]) -> Vec<String> {
        let strays = changes
            .iter()
            .filter(|change| !self.names(&change.path) && !is_module_line(change));
        let strays = strays.map(|change| format!("{} is touched and not named", change.path));
        let is_touched = |named: &&Named| changes.iter().any(|c| fits(&named.path, &c.path));
        let needed = self.paths.iter().filter(|named| !named.is_optional);
        let idle = needed.filter(|named| !is_touched(named));
        let idle = idle.map(|named| format!("{} is named and not touched", named.path));
        strays.chain(idle).collect()
    }
}

/// The points of a numbered list, each as one line.
fn points(section: &str) -> Vec<String> {
    let mut points: Vec<String> = Vec::new();
    let mut is_in_list = false;
    for line in section.lines() {
        if let Some(text) = numbered(line) {
            points.push(text.to_owned());
            is_in_list = true;
            continue;
        }
        is_in_list &= line.starts_with("   ");
        if let Some(point) = points.last_mut().filter(|_| is_in_list) {
            point.push(' ');
            point.push_str(line.trim());
        }
    }
    points
}

/// What stands behind a number and a dot.
fn numbered(line: &str) -> Option<&str> {
    let (number, text) = line.split_once(". ")?;
    number.parse::<u32>().is_ok().then_some(text)
}

/// Whether a path is one that the pattern stands for.
fn fits(pattern: &str, path: &str) -> bool {
    if pattern == "/" {
        return path.len() > 1 && path.starts_with('/');
    }
    if let Some((_, rest)) = pattern.strip_prefix('<').and_then(|p| p.split_once('>')) {
        let is_chosen = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let chosen = path.find(|c: char| !is_chosen(c)).unwrap_or(path.len());
        return (1..=chosen).any(|length| fits(rest, &path[length..]));
    }
    let mut rest = pattern.chars();
    match rest.next() {
        None => path.is_empty(),
        Some(first) => path
            .strip_prefix(first)
            .is_some_and(|path| fits(rest.as_str(), path)),
    }
}

/// Whether it is nothing but the line of a new module, which no recipe repeats.
fn is_module_line(change: &Change) -> bool {
    let name = change.path.rsplit('/').next().unwrap_or_default();
    let is_list = matches!(name, "lib.rs" | "mod.rs");
    let mut old = change.old.lines().peekable();
    let mut is_plain = true;
    for line in change.new.lines() {
        if old.peek() == Some(&line) {
            old.next();
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        is_plain &= matches!(words[..], [.., "mod", name] if name.ends_with(';'));
    }
    is_list && !change.old.is_empty() && is_plain && old.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# x\n\n### A thing\n\nWords about `crates/other.rs`.\n\n\
        1. `crates/<thing>/` with `mod.rs`, and one line to\n   `crates/list.rs`.\n\
        2. `docs/<number>_<things>.md`, `Enum::Variant`.\n\
        3. If it is large: `README.md`.\n\nTold by `crates/told.rs`.\n\n### Another\n\n\
        1. `crates/another.rs`\n";

    fn recipe() -> Recipe {
        let is_top = |name: &str| matches!(name, "crates" | "docs" | "README.md");
        Recipe::read(TEXT, "A thing", is_top).unwrap()
    }

    fn change(path: &str, old: &str, new: &str) -> Change {
        Change {
            path: path.to_owned(),
            old: old.to_owned(),
            new: new.to_owned(),
        }
    }

    #[test]
    fn a_recipe_names_what_its_list_names() {
        let recipe = recipe();
        let named: Vec<_> = recipe
            .paths
            .iter()
            .map(|named| (named.path.as_str(), named.is_optional))
            .collect();
        let expected = [
            ("crates/<thing>/", false),
            ("crates/list.rs", false),
            ("docs/<number>_<things>.md", false),
            ("README.md", true),
        ];
        assert_eq!(named, expected);
        assert!(Recipe::read(TEXT, "Nothing", |_| true).is_err());
    }

    #[test]
    fn paths_fit_their_patterns() {
        let recipe = recipe();
        for path in [
            "crates/a_b/mod.rs",
            "crates/a/b/c.rs",
            "docs/0001_a_bs.md",
            "README.md",
        ] {
            assert!(recipe.names(path), "{path}");
        }
        for path in [
            "crates/mod.rs",
            "crates/a",
            "crates/A/mod.rs",
            "docs/0001.md",
            "docs/a/1_b.md",
            "crates/list.rs.orig",
            "crates/told.rs",
            "crates/another.rs",
        ] {
            assert!(!recipe.names(path), "{path}");
        }
    }

    #[test]
    fn what_is_touched_and_not_named_is_found_and_the_other_way_round() {
        let good = [
            change("crates/a/mod.rs", "", "x\n"),
            change("crates/list.rs", "x\n", "y\n"),
            change("docs/1_a.md", "", "x\n"),
            change("crates/lib.rs", "mod b;\n", "pub mod a;\nmod b;\n"),
        ];
        assert_eq!(recipe().check(&good), Vec::<String>::new());
        let bad = [
            change("crates/a/mod.rs", "", "x\n"),
            change("crates/other.rs", "x\n", "x\npub mod y;\n"),
            change("crates/list.rs", "x\n", "y\n"),
        ];
        let expected = [
            "crates/other.rs is touched and not named",
            "docs/<number>_<things>.md is named and not touched",
        ];
        assert_eq!(recipe().check(&bad), expected);
    }

    #[test]
    fn only_lines_of_modules_are_of_no_account() {
        let old = "mod a;\nfn f() {}\n";
        for new in [
            "mod a;\npub(super) mod b;\nfn f() {}\n",
            "mod a;\nmod b;\nfn f() {}\n",
        ] {
            assert!(is_module_line(&change("x/mod.rs", old, new)), "{new}");
        }
        for new in ["mod a;\nfn f() {}\nfn g() {}\n", "mod b;\nfn f() {}\n", ""] {
            assert!(!is_module_line(&change("x/mod.rs", old, new)), "{new}");
        }
        assert!(!is_module_line(&change(
            "x/b.rs",
            old,
            "mod a;\nmod b;\nfn f() {}\n"
        )));
        assert!(!is_module_line(&change("x/mod.rs", "", "mod a;\n")));
    }
}
