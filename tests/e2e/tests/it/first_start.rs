//! What the first start makes, and that it is the first start only.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use e2e::coffer::Coffer;

#[test]
fn what_the_operator_deleted_stays_deleted_and_the_directory_is_closed() -> Result<()> {
    let mut coffer = Coffer::start()?;
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(coffer.dir(), open)?;
    coffer.admin(&["flavor", "delete", "xlarge"])?.ok()?;
    coffer.admin(&["user", "delete", "demo"])?.ok()?;
    coffer.admin(&["project", "delete", "demo"])?.ok()?;
    coffer.kill()?;
    coffer.up()?;
    for (list, gone, kept) in [
        ("flavor", "xlarge", "tiny"),
        ("user", "demo", "admin"),
        ("project", "demo", "admin"),
    ] {
        let found = coffer.admin(&[list, "list"])?.ok()?;
        ensure!(
            found.contains(kept) && !found.contains(gone),
            "{list}: {found}"
        );
    }
    let mode = |name: &str| fs::metadata(coffer.dir().join(name)).map(|m| m.permissions().mode());
    ensure!(mode("")? & 0o777 == 0o700, "the state directory is open");
    for secret in ["admin.toml", "master.key"] {
        ensure!(mode(secret)? & 0o777 == 0o600, "{secret} is open");
    }
    Ok(())
}
