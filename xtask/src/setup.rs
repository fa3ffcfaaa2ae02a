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
    "util-linux",
    "xfsprogs",
];

/// To test it as well: a PostgreSQL server for the store, Python for the clients, and what counts
/// the bytes that pass through a process.
pub const TEST: &[&str] = &["curl", "postgresql", "python3-venv", "strace"];

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
