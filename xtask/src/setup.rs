//! What a machine needs before anything can be built or tested: packages, and the real clients.
//!
//! On Debian and its kin missing packages are installed; elsewhere they are named. The clients
//! live in virtual environments outside the tree, so that they are fetched once.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::process::Program;

/// To build Coffer, to run it, and to ask its databases.
pub const RUN: &[&str] = &[
    "build-essential",
    "ca-certificates",
    "debian-archive-keyring",
    "iproute2",
    "mmdebstrap",
    "nftables",
    "postgresql-client",
    "procps",
    "util-linux",
    "xfsprogs",
];

/// To test it as well: a PostgreSQL server for the store, with pgbench in its package, Python for
/// the clients, what counts the bytes that pass through a process, what sets a process's clock, who
/// looks at the package and its units, and what measures MySQL and MariaDB.
pub const TEST: &[&str] = &[
    "curl",
    "faketime",
    "lintian",
    "postgresql",
    "python3-venv",
    "strace",
    "sysbench",
    "systemd",
];

/// The real clients, in the versions that the tests were written with.
const CLIENTS: &[&str] = &[
    "python-openstackclient==10.5.0",
    "python-troveclient==8.11.0",
];

/// Where the clients live.
const VENV: &str = "/var/cache/coffer/venv";

/// What makes up requests from the API's document; its libraries are not the clients'.
const FUZZER: &[&str] = &["schemathesis==4.32.5"];

/// Where it lives.
const FUZZER_VENV: &str = "/var/cache/coffer/schemathesis";

/// Makes sure that packages are there; asks nothing when they are.
pub fn packages(wanted: &[&str]) -> Result<()> {
    let has_dpkg = Program::new("dpkg-query", &["--version"]).succeeds();
    if !has_dpkg {
        bail!(
            "this is not Debian or Ubuntu; install what these packages hold: {}",
            wanted.join(" ")
        );
    }
    let missing: Vec<&str> = wanted
        .iter()
        .copied()
        .filter(|name| !is_installed(name))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !is_root()? {
        bail!(
            "packages are missing; run: sudo apt-get install {}",
            missing.join(" ")
        );
    }
    println!("installing {}", missing.join(" "));
    let _quiet = QuietServers::begin()?;
    let apt = |words: &[&str]| {
        let base = [
            "-qq",
            "-o",
            "Dpkg::Use-Pty=0",
            "-o",
            "DPkg::Lock::Timeout=300",
        ];
        let words: Vec<&str> = base.iter().chain(words).copied().collect();
        Program::new("apt-get", &words)
            .with("DEBIAN_FRONTEND", "noninteractive")
            .output()
    };
    apt(&["update"]).context("update the package lists")?;
    let install: Vec<&str> = ["install", "-y", "--no-install-recommends"]
        .into_iter()
        .chain(missing)
        .collect();
    apt(&install).context("install packages")?;
    Ok(())
}

/// Makes sure that the real clients are there, and what makes up requests; the directory of the
/// clients' programs.
pub fn clients() -> Result<PathBuf> {
    environment(Path::new(FUZZER_VENV), FUZZER).context("install schemathesis")?;
    environment(Path::new(VENV), CLIENTS).context("install the clients")
}

/// Makes sure that a virtual environment holds these packages; the directory of its programs.
fn environment(dir: &Path, packages: &[&str]) -> Result<PathBuf> {
    let (mark, wanted) = (dir.join("coffer-clients"), packages.join("\n"));
    if !fs::read_to_string(&mark).is_ok_and(|found| found == wanted) {
        let (pip, place) = (dir.join("bin/pip"), dir.display().to_string());
        Program::new("python3", &["-m", "venv", "--clear", &place]).output()?;
        let words: Vec<&str> = ["install", "--quiet", "--disable-pip-version-check"]
            .into_iter()
            .chain(packages.iter().copied())
            .collect();
        Program::new(&pip, &words).output()?;
        fs::write(&mark, wanted).with_context(|| format!("write {}", mark.display()))?;
    }
    Ok(dir.join("bin"))
}

/// Whether this process is root's.
pub fn is_root() -> Result<bool> {
    Ok(Program::new("id", &["-u"]).output()?.trim() == "0")
}

fn is_installed(name: &str) -> bool {
    let status = Program::new("dpkg-query", &["-W", "-f", "${Status}", name]).output();
    status.is_ok_and(|status| status.ends_with(" installed"))
}

/// While it holds, packages do not start the servers that they install.
struct QuietServers {
    policy: Option<PathBuf>,
}

impl QuietServers {
    fn begin() -> Result<Self> {
        let path = PathBuf::from("/usr/sbin/policy-rc.d");
        if path.exists() {
            return Ok(Self { policy: None });
        }
        fs::write(&path, "#!/bin/sh\nexit 101\n").context("keep servers from starting")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
            .context("keep servers from starting")?;
        Ok(Self { policy: Some(path) })
    }
}

impl Drop for QuietServers {
    fn drop(&mut self) {
        if let Some(path) = &self.policy {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shell files in a directory that everybody may read, and what they find in their path:
    /// programs that note how they were called.
    struct Machine(tempfile::TempDir);

    impl Machine {
        fn with(programs: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let place = dir.path().to_owned();
            for made in ["xtask", "bin"] {
                fs::create_dir(place.join(made)).unwrap();
            }
            let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            for file in ["quickstart", "test", "xtask/rust.sh"] {
                fs::copy(tree.join(file), place.join(file)).unwrap();
            }
            std::os::unix::fs::symlink("/usr/bin/dirname", place.join("bin/dirname")).unwrap();
            let machine = Self(dir);
            for name in programs {
                let note = format!(
                    "#!/bin/bash\necho {name} \"$@\" >>\"{}/calls\"\n",
                    place.display()
                );
                fs::write(machine.bin().join(name), note).unwrap();
                Self::open(&machine.bin().join(name));
            }
            for made in [&place, &place.join("xtask"), &machine.bin()] {
                Self::open(made);
            }
            machine
        }

        fn bin(&self) -> PathBuf {
            self.0.path().join("bin")
        }

        fn open(path: &Path) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }

        /// Runs a shell file; what it complained of, and what was called.
        fn run(&self, file: &str, is_root: bool) -> (String, String) {
            let script = self.0.path().join(file).display().to_string();
            let user: &[&str] = match is_root {
                true => &[],
                false => &["--reuid=65534", "--regid=65534", "--clear-groups"],
            };
            let words = [user, &["/bin/bash", &script, "--once"]].concat();
            let ran = Program::new("/usr/bin/setpriv", &words)
                .with("PATH", &self.bin().display().to_string())
                .with("HOME", &self.0.path().display().to_string())
                .output();
            let calls = fs::read_to_string(self.0.path().join("calls")).unwrap_or_default();
            (ran.map_or_else(|e| e.to_string(), |_| String::new()), calls)
        }
    }

    #[test]
    fn the_shell_files_say_what_is_missing_before_anything_fails() {
        for file in ["quickstart", "test"] {
            // Not Debian, and nothing is there.
            let (said, calls) = Machine::with(&[]).run(file, true);
            assert!(
                said.contains("not Debian") && said.contains("C compiler"),
                "{said}"
            );
            assert_eq!(calls, "");
            // Cargo alone cannot link.
            let (said, calls) = Machine::with(&["cargo"]).run(file, true);
            assert!(said.contains("(cc)"), "{said}");
            assert_eq!(calls, "");
            // Debian, but nobody who may install.
            let (said, calls) = Machine::with(&["cargo", "apt-get"]).run(file, false);
            assert!(
                said.contains("sudo apt-get install build-essential"),
                "{said}"
            );
            assert_eq!(calls, "");
        }
    }

    #[test]
    fn the_shell_files_install_what_is_missing_and_go_on() {
        let (said, calls) = Machine::with(&["cargo", "apt-get"]).run("quickstart", true);
        assert_eq!(said, "");
        let calls: Vec<_> = calls.lines().collect();
        assert_eq!(calls.len(), 3, "{calls:?}");
        assert!(calls[1].starts_with("apt-get") && calls[1].ends_with(" build-essential"));
        assert_eq!(
            calls[2],
            "cargo run --quiet --bin xtask -- quickstart --once"
        );
        let (said, calls) = Machine::with(&["cargo", "cc"]).run("test", true);
        assert_eq!(said, "");
        assert_eq!(calls, "cargo run --quiet --bin xtask -- test --once\n");
    }
}
