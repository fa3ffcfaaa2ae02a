//! The state of a Coffer as a whole: backed up while it runs, restored, and confirmed.

pub(crate) mod backup;
pub(crate) mod bundle;
mod restore;
mod settle;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use coffer_cli::Options;

use crate::args::{Place, StateCommand};

/// Setting with the time of the last backup, for the doctor.
pub(crate) const BACKED_UP: &str = "state/backed_up";
/// The SQLite file in the state directory.
pub(crate) const STORE_FILE: &str = "coffer.db";

/// Directory below the state directory of what the local provider remembers.
pub(crate) const LOCAL: &str = "local";
/// Directories there that hold it.
const RECORDS: [&str; 5] = ["networks", "volumes", "servers", "endpoints", TOMBSTONES];
/// The one of what was deleted.
const TOMBSTONES: &str = "tombstones";

/// Says that what the provider remembers is being put back by a restore: it may not be all there.
pub(crate) const RECORDS_MARK: &str = "restoring-records";

/// Whether the provider remembers anything that was not deleted.
pub(crate) fn has_records(local: &Path) -> bool {
    let kept = RECORDS.iter().filter(|name| **name != TOMBSTONES);
    let mut dirs = kept.map(|name| fs::read_dir(local.join(name)));
    dirs.any(|entries| entries.is_ok_and(|mut entries| entries.next().is_some()))
}

/// Works on the state.
pub(crate) async fn state(
    place: &Place,
    command: &StateCommand,
    options: &Options,
) -> anyhow::Result<ExitCode> {
    match command {
        StateCommand::Backup {
            target,
            seal,
            passphrase_file,
        } => {
            let passphrase = backup::passphrase(*seal, passphrase_file.as_deref())?;
            backup::backup(place, target, passphrase).await
        }
        StateCommand::Restore {
            file,
            passphrase_file,
            master_key,
        } => {
            restore::restore(
                place,
                file,
                passphrase_file.as_deref(),
                master_key.as_deref(),
            )
            .await
        }
        StateCommand::Report => settle::report(place, options).await,
        StateCommand::Confirm { discard_unknown } => {
            settle::confirm(place, *discard_unknown, options).await
        }
    }
}
