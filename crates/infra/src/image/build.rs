//! Builds one engine root from its recipe: `mmdebstrap` into a working directory, then cleaning,
//! mount points, checksum and manifest.
//!
//! The working directory belongs to the recipe and is guarded by a lock whose open file the
//! bootstrap inherits as its standard input: a build that outlives its parent still holds it. A
//! build that was cut short begins again, but what was bootstrapped completely is not fetched
//! twice. Putting the result in place is `mod.rs`.

use std::collections::VecDeque;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::mount::{MntFlags, umount2};

use super::manifest::{self, Manifest};
use super::recipe::Recipe;
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

/// What holds traces of the host or of the moment, or would be the same secret in every instance.
const TRACES: &[&str] = &[
    "/etc/.pwd.lock",
    "/etc/apt/apt.conf.d/99mmdebstrap",
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

/// A build in its working directory.
#[derive(Debug)]
pub(super) struct Build<'a> {
    /// What is built.
    pub recipe: &'a Recipe,
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
        if !marker.exists() {
            remove(&self.work)?;
            self.bootstrap(&root, progress)?;
            // After a power cut the mark must not stand before files that never reached the disk.
            self.flush()?;
            fs::write(&marker, "").map_err(io("mark the bootstrap as done", &marker))?;
        }
        progress("removing what belongs to no instance");
        clean(&root, &self.recipe.remove)?;
        progress("checksumming");
        let packages = manifest::packages(&root)?;
        let (lines, extent) = tree::list(&root, Depth::Full)?;
        let manifest = Manifest::new(self.recipe, packages, (tree::checksum(&lines), extent));
        let files = self.work.join("files");
        fs::write(&files, lines.join("\n") + "\n").map_err(io("write file list", &files))?;
        manifest.write(&self.work)?;
        remove(&self.work.join("seed"))?;
        remove(&marker)?;
        self.flush()?;
        Ok(manifest)
    }

    /// Waits until everything on the working directory's file system is on disk.
    fn flush(&self) -> Result<()> {
        let work = File::open(&self.work).map_err(io("open", &self.work))?;
        nix::unistd::syncfs(&work).map_err(|e| io("flush", &self.work)(e.into()))
    }

    fn bootstrap(&self, root: &Path, progress: &mut dyn FnMut(&str)) -> Result<()> {
        let seed = self.work.join("seed");
        fs::create_dir_all(&seed).map_err(io("make directory", &seed))?;
        for (path, content) in &self.recipe.files {
            let path = tree::inside(&seed, path);
            let parent = path.parent().expect("a path inside the seed has a parent");
            fs::create_dir_all(parent).map_err(io("make directory", parent))?;
            fs::write(&path, content).map_err(io("write", &path))?;
        }
        let mut child = self.spawn(&self.arguments(root, &seed))?;
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

    fn arguments(&self, root: &Path, seed: &Path) -> Vec<String> {
        let recipe = self.recipe;
        let mut arguments = vec![
            "--variant=minbase".to_owned(),
            // A mirror may be a frozen copy, whose release file is past its date.
            "--aptopt=Acquire::Check-Valid-Until \"false\"".to_owned(),
            "--aptopt=Acquire::Retries \"3\"".to_owned(),
            "--aptopt=APT::Install-Recommends \"false\"".to_owned(),
            format!("--include={}", recipe.packages.join(",")),
            format!("--setup-hook=sync-in {} /", seed.display()),
        ];
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
        let lock = self
            .lock
            .try_clone()
            .map_err(io("share the build lock", &self.work))?;
        // A mount namespace of its own: what a killed build had mounted goes with its last process.
        Command::new("unshare")
            .args(["--mount", "--", "mmdebstrap"])
            .args(arguments)
            // One value for every date that a package's scripts write down.
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .env("LC_ALL", "C.UTF-8")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::from(lock))
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
    for entry in fs::read_dir(dir).map_err(io("read directory", dir))? {
        let path = entry.map_err(io("read directory", dir))?.path();
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
