//! Package files that were fetched once, kept beside the roots of their suite for the next build.
//!
//! A build is lent links to all of them and gives links to what it fetched, so builds that run at
//! once share what the earlier one has and never see a file half written. What a bootstrap could
//! not use is not kept: a file that a power cut left with the right size and wrong bytes must not
//! fail every build after.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::tree::{self, io};
use super::{Result, build};

/// Where the package manager looks for them in a tree, and leaves what it has fetched and checked.
const ARCHIVES: &str = "/var/cache/apt/archives";
/// LIMIT: what is kept of one suite; unit: bytes.
const KEPT_BYTES_MAX: u64 = 256 << 20;

/// The kept package files of one suite.
#[derive(Debug, Clone)]
pub(super) struct Packages {
    dir: PathBuf,
}

impl Packages {
    /// Those of a suite, below a directory of roots.
    pub(super) fn of(roots: &Path, suite: &str) -> Self {
        Self {
            dir: roots.join(".packages").join(suite),
        }
    }

    /// Gives a tree links to all of them.
    pub(super) fn lend(&self, root: &Path) -> Result<()> {
        let target = tree::inside(root, ARCHIVES);
        fs::create_dir_all(&target).map_err(io("make directory", &target))?;
        files(&self.dir)?
            .iter()
            .try_for_each(|file| link(file, &target))
    }

    /// Keeps what was fetched into a tree, if there is one.
    pub(super) fn keep(&self, root: &Path) -> Result<()> {
        let fetched = files(&tree::inside(root, ARCHIVES))?;
        fs::create_dir_all(&self.dir).map_err(io("make directory", &self.dir))?;
        for file in fetched {
            link(&file, &self.dir)?;
        }
        self.trim(KEPT_BYTES_MAX)
    }

    /// Lets all of them go.
    pub(super) fn forget(&self) -> Result<()> {
        build::remove(&self.dir)
    }

    /// Lets those go that were lent or kept longest ago, as many as are over the limit.
    fn trim(&self, bytes_max: u64) -> Result<()> {
        let mut known = Vec::new();
        for file in files(&self.dir)? {
            // Another build may be at it.
            if let Ok(facts) = fs::metadata(&file) {
                known.push((facts.ctime(), facts.len(), file));
            }
        }
        known.sort();
        let mut kept: u64 = known.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, file) in known {
            if kept <= bytes_max {
                break;
            }
            build::remove(&file)?;
            kept -= bytes;
        }
        Ok(())
    }
}

/// Links a file into a directory unless its name is there already.
fn link(file: &Path, dir: &Path) -> Result<()> {
    let name = file.file_name().expect("a listed file has a name");
    match fs::hard_link(file, dir.join(name)) {
        Ok(()) => Ok(()),
        // It is there, or another build has just let it go.
        Err(e) if matches!(e.kind(), ErrorKind::AlreadyExists | ErrorKind::NotFound) => Ok(()),
        Err(e) => Err(io("link", file)(e)),
    }
}

/// The package files in a directory; none if there is no directory.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io("read directory", dir)(e)),
    };
    let paths = entries
        .map(|entry| entry.map(|e| e.path()))
        .collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.map_err(io("read directory", dir))?;
    paths.retain(|path| path.extension().is_some_and(|e| e == "deb"));
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_build_fetched_the_next_one_has() {
        let dir = tempfile::tempdir().unwrap();
        let packages = Packages::of(dir.path(), "trixie");
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        packages.lend(&first).unwrap();
        let archives = tree::inside(&first, ARCHIVES);
        fs::write(archives.join("a_1_all.deb"), "a").unwrap();
        fs::write(archives.join("lock"), "").unwrap();
        packages.keep(&first).unwrap();
        packages.keep(&first).unwrap();
        packages.lend(&second).unwrap();
        let lent = tree::inside(&second, ARCHIVES);
        assert_eq!(fs::read_to_string(lent.join("a_1_all.deb")).unwrap(), "a");
        assert!(!lent.join("lock").exists());
        packages.forget().unwrap();
        packages.lend(&dir.path().join("third")).unwrap();
        assert!(lent.join("a_1_all.deb").exists(), "what is lent stays");
        packages.keep(&dir.path().join("none")).unwrap();
    }

    #[test]
    fn no_more_is_kept_than_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let packages = Packages::of(dir.path(), "sid");
        fs::create_dir_all(&packages.dir).unwrap();
        for n in 0..4 {
            fs::write(packages.dir.join(format!("{n}.deb")), "12345").unwrap();
        }
        packages.trim(12).unwrap();
        assert_eq!(files(&packages.dir).unwrap().len(), 2);
    }
}
