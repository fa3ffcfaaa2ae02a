//! The state of a Coffer as a whole: backed up while it runs, restored, and confirmed.

pub(crate) mod backup;
pub(crate) mod bundle;
mod restore;
mod settle;

use std::process::ExitCode;

use coffer_cli::Options;

use crate::args::{Place, StateCommand};

/// Setting with the time of the last backup, for the doctor.
pub(crate) const BACKED_UP: &str = "state/backed_up";
/// The SQLite file in the state directory.
pub(crate) const STORE_FILE: &str = "coffer.db";

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
