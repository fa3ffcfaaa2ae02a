//! What the engine's user can reach in the file system, by landlock. Beside it stand the user id,
//! empty capabilities, the provider's seccomp filter and its read-only root.

use std::path::{Path, PathBuf};

use coffer_engines::runtime::Layout;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope, path_beneath_rules,
};

/// The newest set of rights that is asked for; an older kernel enforces what it knows.
const ABI_WANTED: ABI = ABI::V6;

/// Confines the calling process and all it will start. Returns whether the kernel enforces
/// anything. Paths that are not there are left out.
pub(super) fn confine(layout: &Layout) -> Result<bool, RulesetError> {
    let read = AccessFs::from_read(ABI_WANTED);
    let read_only = AccessFs::ReadFile | AccessFs::ReadDir;
    // What is written there cannot be executed.
    let write: BitFlags<AccessFs> = AccessFs::from_all(ABI_WANTED) & !AccessFs::Execute;
    let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let written = [
        layout.data_dir.join("engine"),
        layout.log_dir.clone(),
        layout.run_dir.clone(),
        PathBuf::from("/tmp"),
        PathBuf::from("/dev/shm"),
    ];
    let status = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI_WANTED))?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(root_paths(), read))?
        .add_rules(path_beneath_rules(
            [&layout.config_dir, &layout.tls_dir],
            read_only,
        ))?
        .add_rules(path_beneath_rules(device_paths(), device))?
        .add_rules(path_beneath_rules(written, write))?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

fn root_paths() -> impl Iterator<Item = &'static Path> {
    ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc"]
        .into_iter()
        .map(Path::new)
}

fn device_paths() -> impl Iterator<Item = &'static Path> {
    [
        "/dev/null",
        "/dev/zero",
        "/dev/full",
        "/dev/random",
        "/dev/urandom",
    ]
    .into_iter()
    .map(Path::new)
}
