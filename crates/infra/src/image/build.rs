//! Builds one engine root from its recipe, or the base that the roots of a suite stand on: packages
//! into a working directory, then cleaning, mount points, checksum and manifest.
//!
//! A base is bootstrapped by `mmdebstrap`. A root begins as a copy of its base, gets its recipe's
//! packages, and at the end what it left of the base as it was is linked to the base (`share.rs`).
//!
//! The working directory belongs to the recipe and is guarded by a lock whose open file the
//! bootstrap inherits as its standard input: a build that outlives its parent still holds it. A
//! build that was cut short begins again, but what was bootstrapped completely is not done twice,
//! and what was fetched is not fetched twice. Putting the result in place is `mod.rs`.

use std::collections::VecDeque;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, umount2};

use super::manifest::{self, Manifest};
use super::packages::Packages;
use super::recipe::Recipe;
use super::share;
use super::tree::{self, Depth, io};
use super::{ImageError, Result};

/// Lines of the bootstrap's output kept for the error message.
const TAIL_LINES: usize = 12;

/// Directories that the sandbox mounts over, or that the engine writes to.
const MOUNT_POINTS: &[&str] = &[
    "/data",
    "/dev",
    "/proc",
    "/run",
    "/sys",
    "/tmp",
    "/usr/lib/coffer",
];

/// Files that the sandbox binds its own over, and what they hold until then.
const BOUND_FILES: &[(&str, &str)] = &[
    ("/etc/hostname", "localhost\n"),
    ("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
    ("/etc/machine-id", ""),
    ("/etc/resolv.conf", ""),
];

/// What a base must not have either: traces of the host, lists that age, and devices. Other things
/// that roots lose below are what installing packages over it needs.
const BASE_TRACES: &[&str] = &[
    "/etc/.pwd.lock",
    "/etc/apt/apt.conf.d/99mmdebstrap",
    "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/var/cache/apt",
    "/var/cache/ldconfig",
    "/var/lib/apt/lists",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/status-old",
];

/// Directories of a base that stand, but have nothing in them.
const BASE_EMPTY: &[&str] = &[
    "/dev",
    "/run",
    "/tmp",
    "/usr/share/info",
    "/usr/share/lintian",
    "/usr/share/locale",
    "/usr/share/man",
    "/var/log",
];

/// Where packages have their documents; what is kept of them in a base is [`KEPT_DOCUMENT`].
const DOCUMENTS: &str = "/usr/share/doc";
/// The one that has to go with the package.
const KEPT_DOCUMENT: &str = "copyright";

/// What holds traces of the host or of the moment, or would be the same secret in every instance.
const TRACES: &[&str] = &[
    "/etc/.pwd.lock",
    "/etc/apt/apt.conf.d/99mmdebstrap",
    "/etc/dpkg/dpkg.cfg.d/99mmdebstrap",
    "/etc/group-",
    "/etc/gshadow-",
    "/etc/passwd-",
    "/etc/shadow-",
    "/etc/ssh",
    "/etc/subgid-",
    "/etc/subuid-",
    "/var/backups",
    "/var/cache",
    "/var/lib/apt",
    "/var/lib/dbus/machine-id",
    "/var/lib/dpkg/lock",
    "/var/lib/dpkg/lock-frontend",
    "/var/lib/dpkg/status-old",
    "/var/lib/systemd/random-seed",
    "/var/lib/ucf/cache",
    "/var/log",
];

/// Installs packages into the tree `$1` with the package manager of the host, whose configuration
/// for that tree is the bootstrap's. What is fetched and what is unpacked are told apart. An
/// unpacked file need not reach the disk before the next one: a build that a power cut struck
/// begins again.
const INSTALL: &str = "\
export APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\"
set -e -- \"$1\" PACKAGES
tree=\"$1\"
shift
echo 'I: fetching packages' >&2
apt-get --yes --download-only install \"$@\" >&2
echo 'I: installing packages' >&2
apt-get --yes -oDir::Bin::dpkg=env -oDPkg::Options::=--unset=TMPDIR \\
  -oDPkg::Options::=--unset=APT_CONFIG -oDPkg::Options::=dpkg \\
  -oDPkg::Chroot-Directory=\"$tree\" install \"$@\" >&2";

/// A whole base, held so that it stays.
#[derive(Debug)]
pub(super) struct Base {
    /// Its directory.
    pub dir: PathBuf,
    /// What it is.
    pub manifest: Manifest,
}

/// A build in its working directory.
#[derive(Debug)]
pub(super) struct Build<'a> {
    /// What is built.
    pub recipe: &'a Recipe,
    /// What it is built over; `None` builds a base.
    pub base: Option<&'a Base>,
    /// Package files of the suite that are on this host.
    pub packages: &'a Packages,
    /// Working directory, on the file system of the finished root.
    pub work: PathBuf,
    /// The lock of this recipe, held.
    pub lock: &'a File,
}

impl Build<'_> {
    /// Builds up to the manifest; afterwards the working directory is the finished root.
    pub(super) fn run(&self, progress: &mut dyn FnMut(&str)) -> Result<Manifest> {
        let marker = self.work.join("bootstrapped");
        let root = self.work.join("tree");
        // What was bootstrapped over another base could not be told from what the recipe made.
        let over = self.base.map_or("", |base| &base.manifest.checksum);
        if fs::read_to_string(&marker).ok().as_deref() != Some(over) {
            self.packages.keep(&root)?;
            remove(&self.work)?;
            self.bootstrap(&root, progress)?;
            self.packages.keep(&root)?;
            // Before it is written to disk, what is only the base's once more need not be written
            // at all.
            self.share(&root)?;
            // After a power cut the mark must not stand before files that never reached the disk.
            self.flush()?;
            fs::write(&marker, over).map_err(io("mark the bootstrap as done", &marker))?;
        }
        progress("removing what belongs to no instance");
        match self.base {
            Some(_) => clean(&root, &self.recipe.remove)?,
            None => clean_base(&root)?,
        }
        progress("checksumming");
        let packages = manifest::packages(&root)?;
        let (lines, extent) = tree::list(&root, Depth::Full)?;
        let mut manifest = Manifest::new(self.recipe, packages, (tree::checksum(&lines), extent));
        manifest.shared_bytes = self.share(&root)?;
        manifest.base = self.base.map(|base| base.manifest.checksum.clone());
        let files = self.work.join("files");
        fs::write(&files, lines.join("\n") + "\n").map_err(io("write file list", &files))?;
        manifest.write(&self.work)?;
        remove(&marker)?;
        self.flush()?;
        Ok(manifest)
    }

    /// Links what is still as in the base; returns how many bytes that is.
    fn share(&self, root: &Path) -> Result<u64> {
        let Some(base) = self.base else {
            return Ok(0);
        };
        let known = tree::read_lines(&base.dir.join("files"))?;
        let of_base = base.dir.join("tree");
        share::link(root, (&of_base, &known), &self.work.join("spare"))
    }

    /// Waits until everything on the working directory's file system is on disk.
    fn flush(&self) -> Result<()> {
        let work = File::open(&self.work).map_err(io("open", &self.work))?;
        nix::unistd::syncfs(&work).map_err(|e| io("flush", &self.work)(e.into()))
    }

    fn bootstrap(&self, root: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
        fs::create_dir_all(&self.work).map_err(io("make directory", &self.work))?;
        if let Some(base) = self.base {
            progress("copying the base");
            self.copy(&base.dir.join("tree"), root)?;
            self.put_files(root)?;
        }
        self.packages.lend(root)?;
        let result = self.fill(root, progress);
        if result.is_err() {
            // It may be one of the files that were lent which cannot be used.
            self.packages.forget()?;
        }
        result
    }

    /// Copies the base, sharing blocks where the file system can: what packages do to their tree
    /// must not reach it.
    #[expect(
        clippy::disallowed_methods,
        reason = "with `spawn`, the image builder's one place that spawns"
    )]
    fn copy(&self, from: &Path, to: &Path) -> Result<()> {
        let status = Command::new("cp")
            .args(["--archive", "--reflink=auto", "--"])
            .args([from, to])
            .stdin(self.inherited_lock()?)
            .status()
            .map_err(io("copy", from))?;
        match status.success() {
            true => Ok(()),
            false => Err(ImageError::Bootstrap {
                name: self.recipe.name.clone(),
                tail: format!("cp of {} ended with {status}", from.display()),
            }),
        }
    }

    /// The lock as a child's standard input: it is held until the child has ended too.
    fn inherited_lock(&self) -> Result<Stdio> {
        let lock = self.lock.try_clone();
        Ok(lock.map_err(io("share the build lock", &self.work))?.into())
    }

    /// Writes the recipe's own files.
    fn put_files(&self, root: &Path) -> Result<()> {
        for (path, content) in &self.recipe.files {
            let path = tree::inside(root, path);
            let parent = path.parent().expect("a path inside the tree has a parent");
            fs::create_dir_all(parent).map_err(io("make directory", parent))?;
            fs::write(&path, content).map_err(io("write", &path))?;
        }
        Ok(())
    }

    /// Runs the bootstrap on the tree and passes on what it says.
    fn fill(&self, root: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
        let mut child = self.spawn(&self.arguments(root))?;
        let output = child
            .stderr
            .take()
            .expect("standard error was asked for as a pipe");
        let mut tail = VecDeque::with_capacity(TAIL_LINES);
        for line in BufReader::new(output)
            .lines()
            .map_while(std::result::Result::ok)
        {
            if let Some(words) = line.strip_prefix("I: ") {
                progress(words);
            }
            if tail.len() == TAIL_LINES {
                tail.pop_front();
            }
            tail.push_back(line);
        }
        let status = child.wait().map_err(io("wait for mmdebstrap", root))?;
        if status.success() {
            return Ok(());
        }
        let tail: Vec<_> = tail.into();
        Err(ImageError::Bootstrap {
            name: self.recipe.name.clone(),
            tail: tail.join("\n"),
        })
    }

    fn arguments(&self, root: &Path) -> Vec<String> {
        let recipe = self.recipe;
        let mut arguments: Vec<String> = [
            // The tree has package files in it, and a root's has its base.
            "--skip=check/empty,essential/unlink,cleanup/apt/cache",
            // A mirror may be a frozen copy, whose release file is past its date.
            "--aptopt=Acquire::Check-Valid-Until \"false\"",
            "--aptopt=Acquire::Retries \"3\"",
            "--aptopt=APT::Install-Recommends \"false\"",
            "--dpkgopt=force-unsafe-io",
        ]
        .map(str::to_owned)
        .into();
        arguments.extend(match self.base {
            None => vec!["--variant=minbase".to_owned()],
            Some(_) => {
                let install = INSTALL.replace("PACKAGES", &recipe.packages.join(" "));
                vec![
                    "--variant=custom".to_owned(),
                    format!("--customize-hook={install}"),
                ]
            }
        });
        arguments.extend(
            recipe
                .excludes
                .iter()
                .map(|p| format!("--dpkgopt=path-exclude={p}")),
        );
        arguments.extend(
            recipe
                .includes
                .iter()
                .map(|p| format!("--dpkgopt=path-include={p}")),
        );
        arguments.extend([recipe.suite.clone(), root.display().to_string()]);
        arguments
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the image builder's one place that spawns"
    )]
    fn spawn(&self, arguments: &[String]) -> Result<Child> {
        // A mount namespace of its own: what a killed build had mounted goes with its last process.
        Command::new("unshare")
            .args(["--mount", "--", "mmdebstrap"])
            .args(arguments)
            // One value for every date that a package's scripts write down.
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(self.inherited_lock()?)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| ImageError::Tool { source })
    }
}

/// Removes a file or directory tree if it is there; never reaches into what is mounted below it.
pub(super) fn remove(path: &Path) -> Result<()> {
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(io("look at", path)(e)),
    };
    if meta.is_dir() {
        unmount_below(path)?;
    }
    let result = if meta.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    result.map_err(io("remove", path))
}

/// Detaches whatever is mounted at or below a directory that is about to be removed.
fn unmount_below(dir: &Path) -> Result<()> {
    let table = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(table).map_err(io("read mounts", table))?;
    let points = text
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(Path::new);
    let mut points: Vec<_> = points.filter(|point| point.starts_with(dir)).collect();
    points.sort();
    for point in points.into_iter().rev() {
        umount2(point, MntFlags::MNT_DETACH).map_err(|e| io("unmount", point)(e.into()))?;
    }
    Ok(())
}

/// Takes away from a base what its roots do not need or cannot share. May be repeated. (Leaving
/// documents out while the bootstrap unpacks would cost it more time than all of them.)
fn clean_base(root: &Path) -> Result<()> {
    for path in BASE_TRACES {
        remove(&tree::inside(root, path))?;
    }
    for path in BASE_EMPTY {
        let path = tree::inside(root, path);
        remove(&path)?;
        make_directory(&path, if path.ends_with("tmp") { 0o1777 } else { 0o755 })?;
    }
    for package in entries(&tree::inside(root, DOCUMENTS))? {
        // A package may have a link to another's documents.
        if !package.is_symlink() {
            for document in entries(&package)? {
                if !document.ends_with(KEPT_DOCUMENT) {
                    remove(&document)?;
                }
            }
        }
    }
    drop_privileged_bits(root)
}

/// Paths of what is in a directory.
fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let found = fs::read_dir(dir).map_err(io("read directory", dir))?;
    let paths: std::io::Result<_> = found.map(|entry| entry.map(|e| e.path())).collect();
    paths.map_err(io("read directory", dir))
}

/// Takes away what the recipe and [`TRACES`] name, and makes what the sandbox mounts over. May be
/// repeated.
fn clean(root: &Path, unwanted: &[String]) -> Result<()> {
    for path in TRACES
        .iter()
        .copied()
        .chain(unwanted.iter().map(String::as_str))
    {
        remove(&tree::inside(root, path))?;
    }
    for path in MOUNT_POINTS {
        let path = tree::inside(root, path);
        remove(&path)?;
        make_directory(&path, if path.ends_with("tmp") { 0o1777 } else { 0o755 })?;
    }
    for path in ["/var/cache", "/var/log", "/var/lib/apt"] {
        make_directory(&tree::inside(root, path), 0o755)?;
    }
    for (path, content) in BOUND_FILES {
        let path = tree::inside(root, path);
        remove(&path)?;
        fs::write(&path, content).map_err(io("write", &path))?;
        set_mode(&path, 0o644)?;
    }
    drop_privileged_bits(root)
}

fn make_directory(path: &Path, mode: u32) -> Result<()> {
    fs::create_dir_all(path).map_err(io("make directory", path))?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, Permissions::from_mode(mode)).map_err(io("set mode", path))
}

/// No file in a root may raise privileges, even if it is ever mounted without `nosuid`.
fn drop_privileged_bits(dir: &Path) -> Result<()> {
    for path in entries(dir)? {
        let meta = fs::symlink_metadata(&path).map_err(io("look at", &path))?;
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_dir() {
            drop_privileged_bits(&path)?;
        } else if meta.is_file() && mode & 0o6000 != 0 {
            set_mode(&path, mode & 0o1777)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_keeps_of_documents_what_it_has_to() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for path in [
            "usr/share/doc/a/more",
            "usr/share/man/man1",
            "dev",
            "var/log",
        ] {
            fs::create_dir_all(root.join(path)).unwrap();
        }
        for path in ["a/copyright", "a/changelog.gz", "a/more/examples"] {
            fs::write(root.join("usr/share/doc").join(path), "x").unwrap();
        }
        std::os::unix::fs::symlink("a", root.join("usr/share/doc/b")).unwrap();
        fs::write(root.join("usr/share/man/man1/a.1.gz"), "x").unwrap();
        fs::write(root.join("dev/null"), "x").unwrap();
        for _ in 0..2 {
            clean_base(root).unwrap();
            let left = fs::read_dir(root.join("usr/share/doc/a")).unwrap();
            let left: Vec<_> = left.map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left, ["copyright"]);
        }
        assert!(root.join("usr/share/doc/b").is_symlink());
        for empty in ["usr/share/man", "dev", "run", "tmp"] {
            let mut left = fs::read_dir(root.join(empty)).unwrap();
            assert!(left.next().is_none(), "{empty}");
        }
    }

    #[test]
    fn cleaning_leaves_no_trace_and_may_be_repeated() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for path in [
            "/etc/ssh",
            "/var/log/postgresql",
            "/usr/bin",
            "/dev",
            "/var/lib/x",
        ] {
            fs::create_dir_all(tree::inside(root, path)).unwrap();
        }
        for path in [
            "/etc/ssh/ssh_host_rsa_key",
            "/etc/machine-id",
            "/var/log/postgresql/a.log",
            "/dev/null",
        ] {
            fs::write(tree::inside(root, path), "host").unwrap();
        }
        let tool = tree::inside(root, "/usr/bin/su");
        fs::write(&tool, "x").unwrap();
        set_mode(&tool, 0o4755).unwrap();
        clean(root, &["/var/lib/x".to_owned()]).unwrap();
        let (once, _) = tree::list(root, Depth::Full).unwrap();
        clean(root, &["/var/lib/x".to_owned()]).unwrap();
        assert_eq!(once, tree::list(root, Depth::Full).unwrap().0);
        let text = once.join("\n");
        for gone in ["ssh_host", "a.log", "/dev/null", "/var/lib/x", " 4755 "] {
            assert!(!text.contains(gone), "{gone} in {text}");
        }
        for there in ["/data", "/proc", "/usr/lib/coffer", "/etc/resolv.conf"] {
            assert!(text.contains(there), "{there} not in {text}");
        }
        assert_eq!(fs::read_to_string(root.join("etc/machine-id")).unwrap(), "");
    }
}
