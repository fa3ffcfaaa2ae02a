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
    let why = if boot.agent_uid == boot.engine_uid || boot.agent_uid == 0 || boot.engine_uid == 0 {
        "agent and engine need two user ids, neither of them 0"
    } else if !Path::new(&boot.data_dir).is_absolute() {
        "data_dir is not an absolute path"
    } else {
        return Ok(boot);
    };
    Err(GuestError::Boot {
        why: why.to_owned(),
    })
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
