//! Files that a root has in common with its base, kept once on disk.
//!
//! A root is a whole tree of its own; what its packages left as the base has it is a hard link to
//! the base's file. So a root needs nothing to be mounted over, its files are in memory once for
//! all roots of the suite, and the base may go or be built anew without any root noticing: its
//! files live as long as somebody links to them. Nothing may write into a finished tree, base or
//! root.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::errno::Errno;

use super::tree::{self, io};
use super::{Result, build};

/// Replaces each file of `root` that is as the base's list `known` has it by a link to the base's;
/// returns how many bytes they share. `spare` is a name that is free on the same file system. May
/// be repeated.
pub(super) fn link(root: &Path, (base, known): (&Path, &[String]), spare: &Path) -> Result<u64> {
    let mut shared = 0;
    for line in known {
        if let Some(path) = tree::plain_file(line) {
            shared += one((root, &tree::inside(root, path)), (base, path, line), spare)?;
        }
    }
    Ok(shared)
}

/// Puts a link to the base's file in the place of `target` if that is the same; returns the bytes
/// that are shared then.
fn one(
    (root, target): (&Path, &Path),
    (base, path, line): (&Path, &str, &str),
    spare: &Path,
) -> Result<u64> {
    let source = &tree::inside(base, path);
    let own = match fs::symlink_metadata(target) {
        Ok(own) => own,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(0);
        }
        Err(e) => return Err(io("look at", target)(e)),
    };
    let there = fs::symlink_metadata(source).map_err(io("look at", source))?;
    // Renaming a link over another to the same file would do nothing and leave both.
    if (there.dev(), there.ino()) == (own.dev(), own.ino()) {
        return Ok(own.len());
    }
    if own.len() != there.len() || tree::line(root, target)? != line {
        return Ok(0);
    }
    build::remove(spare)?;
    match fs::hard_link(source, spare) {
        Ok(()) => fs::rename(spare, target).map_err(io("replace", target))?,
        // A file has a limited number of names; what is over it stays a copy.
        Err(e) if e.raw_os_error() == Some(Errno::EMLINK as i32) => return Ok(0),
        Err(e) => return Err(io("link", source)(e)),
    }
    Ok(own.len())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::tree::Depth;
    use super::*;

    #[test]
    fn only_what_is_the_same_in_every_respect_is_shared() {
        let dir = tempfile::tempdir().unwrap();
        let (base, root) = (dir.path().join("base"), dir.path().join("root"));
        for (name, in_base, in_root) in [
            ("same", "words", "words"),
            ("changed", "words", "other"),
            ("mode", "words", "words"),
            ("größe", "words", "words"),
        ] {
            fs::create_dir_all(base.join("etc")).unwrap();
            fs::create_dir_all(root.join("etc")).unwrap();
            fs::write(base.join("etc").join(name), in_base).unwrap();
            fs::write(root.join("etc").join(name), in_root).unwrap();
        }
        fs::write(base.join("etc/gone"), "words").unwrap();
        fs::set_permissions(root.join("etc/mode"), fs::Permissions::from_mode(0o600)).unwrap();
        let lines = tree::list(&root, Depth::Full).unwrap().0;
        let known = tree::list(&base, Depth::Full).unwrap().0;
        let spare = dir.path().join("spare");
        for _ in 0..2 {
            let shared = link(&root, (&base, &known), &spare).unwrap();
            assert_eq!(shared, 5);
        }
        let number = |path: &Path| fs::metadata(path).unwrap().ino();
        let is_shared = |name: &str| {
            number(&base.join("etc").join(name)) == number(&root.join("etc").join(name))
        };
        assert!(is_shared("same"));
        // A name that its line does not give as it is stays a file of its own.
        for own in ["changed", "mode", "größe"] {
            assert!(!is_shared(own), "{own}");
        }
        assert_eq!(tree::list(&root, Depth::Full).unwrap().0, lines);
        assert!(!spare.exists());
    }
}
