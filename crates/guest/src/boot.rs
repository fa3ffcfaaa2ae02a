//! The boot data, and where things are in the sandbox.

use std::fs;
use std::path::{Path, PathBuf};

use coffer_engines::runtime::Layout;
use coffer_wire::guest::v1::Boot;

use crate::error::{GuestError, Result};

/// Where the provider puts the boot data.
pub const BOOT_PATH: &str = "/run/coffer/boot.json";
/// The executable inside the root.
pub const GUEST_PATH: &str = "/usr/lib/coffer/coffer-guest";

/// Reads and checks the boot data.
pub fn read(path: &Path) -> Result<Boot> {
    let text = fs::read(path).map_err(GuestError::io(format!("read {}", path.display())))?;
    let boot: Boot = serde_json::from_slice(&text).map_err(|error| GuestError::Boot {
        why: error.to_string(),
    })?;
    let why = if boot.agent_uid == 0 || boot.engine_uid == 0 {
        "agent and engine need user ids other than 0"
    } else if is_shared(&boot) && !has_one_id(&boot) {
        "agent and engine need two user ids"
    } else if !Path::new(&boot.data_dir).is_absolute() {
        "data_dir is not an absolute path"
    } else {
        return Ok(boot);
    };
    Err(GuestError::Boot {
        why: why.to_owned(),
    })
}

/// Whether agent and engine are one user, as in a sandbox that was made without root.
pub fn is_shared(boot: &Boot) -> bool {
    boot.agent_uid == boot.engine_uid
}

/// Whether init itself is that user already: then it could not become another.
fn has_one_id(boot: &Boot) -> bool {
    nix::unistd::geteuid().as_raw() == boot.engine_uid
}

/// Directories of the sandbox.
pub fn layout(boot: &Boot) -> Layout {
    let data_dir = PathBuf::from(&boot.data_dir);
    Layout {
        config_dir: data_dir.join("config"),
        tls_dir: data_dir.join("tls"),
        run_dir: PathBuf::from("/run/engine"),
        log_dir: data_dir.join("log"),
        data_dir,
    }
}

/// The agent's own directory.
pub fn agent_dir(boot: &Boot) -> PathBuf {
    Path::new(&boot.data_dir).join("agent")
}
