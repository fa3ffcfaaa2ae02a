//! Coffer without root: what reaches this host's instances enters the user namespace in which they
//! run. It has to happen before the first thread starts.

use std::path::PathBuf;

use anyhow::Context;
use coffer_infra::local::world;

use crate::args::{Command, Place};

/// Enters it if need be; a process of root's, or one that reaches no instances, goes on as it is.
pub(crate) fn enter(command: &Command) -> anyhow::Result<()> {
    if !world::is_without_root() {
        return Ok(());
    }
    match command {
        Command::Up(place)
        | Command::TaskManager(place)
        | Command::Conductor(place)
        | Command::Tracker(place) => {
            let own = std::env::current_exe().context("find the path of coffer itself")?;
            world::enter(&local_dir(place)?, &own)?;
        }
        // Where there is none, that is what it finds.
        Command::Doctor(place) => {
            world::visit(&local_dir(place)?).ok();
        }
        _ => {}
    }
    Ok(())
}

fn local_dir(place: &Place) -> anyhow::Result<PathBuf> {
    Ok(place.load()?.state.dir.join("local"))
}
