//! A file tree as a list of lines, its checksum, and what differs from an earlier list.
//!
//! A line names kind, mode, owner, size, content and path; times are left out, so that the same
//! packages give the same checksum on another day and host. Extended attributes are left out too:
//! engine roots are mounted `nosuid`, where file capabilities mean nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256, digest};

use super::{ImageError, Result};
use crate::local::world;

/// How much is read at once while hashing; unit: bytes.
const CHUNK: usize = 1 << 20;
/// How many differences are told; the rest is counted.
const DIFFERENCES_MAX: usize = 8;

/// How closely a tree is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Names, modes, owners and sizes: milliseconds.
    Quick,
    /// Contents as well: about a second for each 500 MB.
    Full,
}

/// Size of a tree.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// Files, directories and links.
    pub entries: u64,
    /// Sum of the files' sizes; unit: bytes.
    pub bytes: u64,
}

/// One line for each entry below `root`, in the order of their paths.
pub fn list(root: &Path, depth: Depth) -> Result<(Vec<String>, Extent)> {
    let mut walk = Walk::new(root, depth, false);
    walk.directory(root)?;
    Ok((walk.lines, walk.extent))
}

/// The full line of one entry, whose path is below `root`.
pub fn line(root: &Path, path: &Path) -> Result<String> {
    let mut walk = Walk::new(root, Depth::Full, false);
    let meta = fs::symlink_metadata(path).map_err(io("look at", path))?;
    walk.line(path, &meta)
}

/// Checksum of a list of lines: the name of the root.
pub fn checksum(lines: &[String]) -> String {
    let mut context = Context::new(&SHA256);
    for line in lines {
        context.update(line.as_bytes());
        context.update(b"\n");
    }
    hex(context.finish().as_ref())
}

/// What the tree at `root` has otherwise than `expected` says, in words; empty when nothing.
/// Without root, owners and what lies in directories that others may not read is not compared.
pub fn differences(root: &Path, expected: &[String], depth: Depth) -> Result<Vec<String>> {
    differences_seen(root, expected, depth, world::is_without_root())
}

fn differences_seen(
    root: &Path,
    expected: &[String],
    depth: Depth,
    is_without_root: bool,
) -> Result<Vec<String>> {
    let mut walk = Walk::new(root, depth, is_without_root);
    walk.directory(root)?;
    let is_closed = |path: &str| walk.closed.iter().any(|dir| path.starts_with(dir));
    let expected = by_path(expected, depth, is_without_root);
    let found = by_path(&walk.lines, depth, is_without_root);
    let gone = expected
        .keys()
        .filter(|path| !found.contains_key(*path) && !is_closed(path));
    let new = found.keys().filter(|path| !expected.contains_key(*path));
    let changed = found
        .iter()
        .filter(|(path, line)| expected.get(*path).is_some_and(|e| e != *line));
    let mut all: Vec<String> = gone.map(|path| format!("{path} is missing")).collect();
    all.extend(changed.map(|(path, _)| format!("{path} was changed")));
    all.extend(new.map(|path| format!("{path} was added")));
    if all.len() > DIFFERENCES_MAX {
        let more = all.len() - DIFFERENCES_MAX;
        all.truncate(DIFFERENCES_MAX);
        all.push(format!("and {more} more"));
    }
    Ok(all)
}

/// Reads a list of lines that was kept.
pub fn read_lines(file: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(file).map_err(io("read file list", file))?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The path that a line names, if it is a file's and stands there as it is on disk.
pub fn plain_file(line: &str) -> Option<&str> {
    let path = line.strip_prefix("f ")?.splitn(6, ' ').last()?;
    (path.starts_with('/') && !path.contains('\\')).then_some(path)
}

/// Sha256 of some bytes; lower-case hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Makes an [`ImageError::Io`] of an I/O error, for `map_err`.
pub fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError + use<> {
    let path = path.to_owned();
    move |source| ImageError::Io { what, path, source }
}

/// Lines by path; without the content's hash when only looked at quickly, and without owners where
/// those cannot be told.
fn by_path(lines: &[String], depth: Depth, is_without_root: bool) -> BTreeMap<&str, String> {
    let mut map = BTreeMap::new();
    for line in lines {
        let mut parts = line.splitn(7, ' ');
        let (mut head, hash, path) = (
            parts.by_ref().take(5).collect::<Vec<_>>(),
            parts.next(),
            parts.next(),
        );
        if is_without_root && head.len() == 5 {
            head.drain(2..4);
        }
        let hash = if depth == Depth::Full {
            hash.unwrap_or("-")
        } else {
            "-"
        };
        let path = path.unwrap_or(line.as_str());
        let (name, target) = path.split_once(" -> ").unwrap_or((path, ""));
        map.insert(name, format!("{} {hash} {target}", head.join(" ")));
    }
    map
}

/// A walk under way.
struct Walk<'a> {
    root: &'a Path,
    depth: Depth,
    lines: Vec<String>,
    extent: Extent,
    is_without_root: bool,
    /// Directories that may not be read, as their lines' paths would begin below them.
    closed: Vec<String>,
}

impl<'a> Walk<'a> {
    const fn new(root: &'a Path, depth: Depth, is_without_root: bool) -> Self {
        Self {
            root,
            depth,
            lines: Vec::new(),
            extent: Extent {
                entries: 0,
                bytes: 0,
            },
            is_without_root,
            closed: Vec::new(),
        }
    }

    fn directory(&mut self, dir: &Path) -> Result<()> {
        let mut paths = Vec::new();
        let entries = match fs::read_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && self.is_without_root => {
                let inner = dir.strip_prefix(self.root).unwrap_or(dir);
                self.closed.push(format!("/{}/", escaped(inner)));
                return Ok(());
            }
            other => other.map_err(io("read directory", dir))?,
        };
        for entry in entries {
            paths.push(entry.map_err(io("read directory", dir))?.path());
        }
        paths.sort();
        for path in paths {
            let meta = fs::symlink_metadata(&path).map_err(io("look at", &path))?;
            let line = self.line(&path, &meta)?;
            self.lines.push(line);
            self.extent.entries += 1;
            if meta.is_dir() {
                self.directory(&path)?;
            }
        }
        Ok(())
    }

    fn line(&mut self, path: &Path, meta: &Metadata) -> Result<String> {
        let kind = meta.file_type();
        let mode = meta.permissions().mode() & 0o7777;
        let (uid, gid) = (meta.uid(), meta.gid());
        let inner = path
            .strip_prefix(self.root)
            .expect("the walk stays below its root");
        let name = escaped(inner);
        if kind.is_symlink() {
            let target = fs::read_link(path).map_err(io("read link", path))?;
            return Ok(format!(
                "l {mode:04o} {uid} {gid} 0 - /{name} -> {}",
                escaped(&target)
            ));
        }
        if kind.is_file() {
            self.extent.bytes += meta.len();
            let hash = match self.depth {
                Depth::Full => hash_file(path)?,
                Depth::Quick => "-".to_owned(),
            };
            return Ok(format!(
                "f {mode:04o} {uid} {gid} {} {hash} /{name}",
                meta.len()
            ));
        }
        let letter = match kind {
            k if k.is_dir() => 'd',
            k if k.is_char_device() || k.is_block_device() => 'n',
            _ => 's',
        };
        Ok(format!("{letter} {mode:04o} {uid} {gid} 0 - /{name}"))
    }
}

/// A path on one line: no line break, no second meaning of ` -> `.
fn escaped(path: &Path) -> String {
    path.to_string_lossy()
        .escape_default()
        .to_string()
        .replace(" -> ", "\\u{20}-> ")
}

fn hash_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).map_err(io("open", path))?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = file.read(&mut buffer).map_err(io("read", path))?;
        if count == 0 {
            return Ok(hex(context.finish().as_ref()));
        }
        context.update(&buffer[..count]);
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

/// A path below a root, given as an absolute path inside it.
pub fn inside(root: &Path, inner: &str) -> PathBuf {
    root.join(inner.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn sample() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        fs::write(dir.path().join("bin/tool"), "one").unwrap();
        fs::write(dir.path().join("name with space"), "two").unwrap();
        symlink("bin/tool", dir.path().join("link")).unwrap();
        dir
    }

    #[test]
    fn an_untouched_tree_has_no_differences_and_a_stable_checksum() {
        let dir = sample();
        let (lines, extent) = list(dir.path(), Depth::Full).unwrap();
        assert_eq!(
            extent,
            Extent {
                entries: 4,
                bytes: 6
            }
        );
        assert_eq!(
            checksum(&lines),
            checksum(&list(dir.path(), Depth::Full).unwrap().0)
        );
        for depth in [Depth::Quick, Depth::Full] {
            assert_eq!(
                differences(dir.path(), &lines, depth).unwrap(),
                Vec::<String>::new()
            );
        }
    }

    #[test]
    fn each_kind_of_damage_is_named() {
        let dir = sample();
        let (lines, _) = list(dir.path(), Depth::Full).unwrap();
        fs::write(dir.path().join("bin/tool"), "eno").unwrap();
        assert_eq!(
            differences(dir.path(), &lines, Depth::Quick).unwrap(),
            Vec::<String>::new()
        );
        assert_eq!(
            differences(dir.path(), &lines, Depth::Full).unwrap(),
            ["/bin/tool was changed"]
        );
        fs::remove_file(dir.path().join("link")).unwrap();
        symlink("bin", dir.path().join("link")).unwrap();
        fs::remove_file(dir.path().join("name with space")).unwrap();
        fs::write(dir.path().join("more"), "").unwrap();
        assert_eq!(
            differences(dir.path(), &lines, Depth::Quick).unwrap(),
            [
                "/name with space is missing",
                "/link was changed",
                "/more was added"
            ]
        );
    }

    #[test]
    fn without_root_owners_are_not_compared() {
        let dir = sample();
        let (lines, _) = list(dir.path(), Depth::Full).unwrap();
        let own = fs::metadata(dir.path()).unwrap().uid();
        let others = lines
            .iter()
            .map(|line| line.replacen(&format!(" {own} "), " 65534 ", 1));
        let others: Vec<String> = others.collect();
        let seen = |without| differences_seen(dir.path(), &others, Depth::Full, without).unwrap();
        assert_eq!(seen(true), Vec::<String>::new());
        assert_eq!(seen(false).len(), 4);
    }

    #[test]
    fn a_line_gives_the_path_of_its_file() {
        let dir = sample();
        fs::write(dir.path().join("ü"), "").unwrap();
        let (lines, _) = list(dir.path(), Depth::Full).unwrap();
        let paths: Vec<_> = lines.iter().filter_map(|l| plain_file(l)).collect();
        assert_eq!(paths, ["/bin/tool", "/name with space"]);
    }

    #[test]
    fn a_mode_is_part_of_the_checksum() {
        let dir = sample();
        let before = checksum(&list(dir.path(), Depth::Full).unwrap().0);
        let tool = dir.path().join("bin/tool");
        fs::set_permissions(&tool, fs::Permissions::from_mode(0o700)).unwrap();
        assert_ne!(before, checksum(&list(dir.path(), Depth::Full).unwrap().0));
    }
}
