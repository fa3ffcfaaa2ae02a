//! Changing a file of the tree by a script: where a new text goes, found by what stands there.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Where a text goes. What a place is named by stands in the file once, so that a file that has
/// changed its looks is found out and not spoilt.
#[derive(Debug, Clone, Copy)]
pub enum Place {
    /// As a line among those that begin so, in their order.
    Sorted(&'static str),
    /// As lines before the one that this begins in.
    Before(&'static str),
    /// As lines after the one that this ends in.
    After(&'static str),
    /// In the place of this.
    Instead(&'static str),
}

/// Changes a file.
pub fn edit(path: &Path, change: impl Fn(&str) -> Option<String>) -> Result<()> {
    let old = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let new =
        change(&old).with_context(|| format!("{} has no place for its line", path.display()))?;
    fs::write(path, new).with_context(|| format!("write {}", path.display()))
}

/// The text with `new` in its place; `None` if there is no such place, or more than one.
pub fn with(old: &str, place: Place, new: &str) -> Option<String> {
    let (from, to, new) = match place {
        Place::Sorted(start) => return with_sorted(old, start, new),
        Place::Before(anchor) => {
            let at = old[..once(old, anchor)?].rfind('\n').map_or(0, |at| at + 1);
            (at, at, format!("{new}\n"))
        }
        Place::After(anchor) => {
            let last = once(old, anchor)? + anchor.trim_end_matches('\n').len();
            let at = last + old[last..].find('\n')? + 1;
            (at, at, format!("{new}\n"))
        }
        Place::Instead(anchor) => {
            let at = once(old, anchor)?;
            (at, at + anchor.len(), new.to_owned())
        }
    };
    Some([&old[..from], &new, &old[to..]].concat())
}

/// Where the text stands, if it stands there once.
fn once(text: &str, anchor: &str) -> Option<usize> {
    let mut found = text.match_indices(anchor).map(|(at, _)| at);
    let first = found.next()?;
    found.next().is_none().then_some(first)
}

fn with_sorted(old: &str, start: &str, line: &str) -> Option<String> {
    let mut lines: Vec<&str> = old.lines().collect();
    let begins = |line: &&str| line.starts_with(start);
    let first = lines.iter().position(begins)?;
    let last = lines.iter().rposition(begins)? + 1;
    let later = lines[first..last].iter().position(|one| *one > line);
    lines.insert(later.map_or(last, |later| first + later), line);
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_find_their_place() {
        let old = "use x;\npub mod a;\npub mod c;\n\nend\n";
        let sorted = with(old, Place::Sorted("pub mod "), "pub mod b;").unwrap();
        assert_eq!(
            sorted,
            "use x;\npub mod a;\npub mod b;\npub mod c;\n\nend\n"
        );
        let before = with(old, Place::Before("mod c"), "two\nlines").unwrap();
        assert_eq!(
            before,
            "use x;\npub mod a;\ntwo\nlines\npub mod c;\n\nend\n"
        );
        let first = with(old, Place::Before("use"), "new").unwrap();
        assert!(first.starts_with("new\nuse x;\n"), "{first}");
        let after = with(old, Place::After("x;\npub mod a"), "new").unwrap();
        assert_eq!(after, "use x;\npub mod a;\nnew\npub mod c;\n\nend\n");
        let instead = with(old, Place::Instead("mod c;\n\nend"), "mod d;\nend").unwrap();
        assert_eq!(instead, "use x;\npub mod a;\npub mod d;\nend\n");
    }

    #[test]
    fn a_place_that_is_not_there_once_is_none() {
        let old = "a\nb\na\n";
        for anchor in ["a", "c"] {
            assert_eq!(with(old, Place::Before(anchor), "x"), None);
            assert_eq!(with(old, Place::After(anchor), "x"), None);
            assert_eq!(with(old, Place::Instead(anchor), "x"), None);
        }
        assert_eq!(with(old, Place::Sorted("c"), "x"), None);
    }
}
