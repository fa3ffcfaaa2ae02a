//! `coffer key`: the master key and the projects' keys, rotated while everything runs.
//!
//! The master key is rotated in steps that each leave a state from which the next run goes on: a
//! new key lies beside (`master.key.next`), the old one gets its second name (`master.key.old`),
//! the new one takes its place, everything is wrapped anew, the old one is removed. One run of it
//! at a time: two would each bring a key into use, and one of them would be lost.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use coffer_cli::output::{complain, emit};
use coffer_control::clock::{Clock, Entropy, SystemEntropy};
use coffer_control::rotation;
use coffer_control::vault::Vault;

use crate::args::{KeyCommand, Place};
use crate::assemble::{self, Base};
use crate::refusal::missing;
use crate::state::bundle::sync_dir;
use crate::state_dir::{MASTER_KEY, MASTER_KEY_OLD, StateDir, put_new};

/// A new master key before it is in use.
const MASTER_KEY_NEXT: &str = "master.key.next";
/// How long something that was sealed under the old key may take to reach the store.
const UNDER_WAY: Duration = Duration::from_secs(5);
/// LIMIT: looks until nothing new under the old key is found.
const LOOKS_MAX: u32 = 20;

/// Works on keys.
pub(crate) async fn key(place: &Place, command: &KeyCommand) -> anyhow::Result<ExitCode> {
    let config = place.load()?;
    let state = match command {
        KeyCommand::Rotate { project: None } => {
            StateDir::change(&config.state.dir)?.rotating_keys()?
        }
        KeyCommand::Rotate { project: Some(_) } => StateDir::change(&config.state.dir)?,
        KeyCommand::Status => StateDir::existing(&config.state.dir)?,
    };
    let base = assemble::tool_base(&config, &state).await?;
    let done = match command {
        KeyCommand::Rotate { project: None } => rotate_master_key(&base, &state).await,
        KeyCommand::Rotate {
            project: Some(project),
        } => rotate_project(&base, project).await,
        KeyCommand::Status => status(&base, &state).await,
    };
    base.store.close().await;
    done.map(|()| ExitCode::SUCCESS)
}

/// Brings a new master key into use; one that lies there already is taken. Gives whether a
/// rotation was under way.
fn promote(state: &StateDir) -> anyhow::Result<bool> {
    let [current, old, next] =
        [MASTER_KEY, MASTER_KEY_OLD, MASTER_KEY_NEXT].map(|name| state.join(name));
    let was_begun = old.exists() || next.exists();
    if old.exists() && !next.exists() {
        return Ok(true);
    }
    if !next.exists() {
        let mut key = [0; 32];
        SystemEntropy.fill(&mut key);
        put_new(&next, &key)?;
    }
    if !old.exists() {
        fs::hard_link(&current, &old).context("keep the old master key")?;
        sync_dir(&old)?;
    }
    fs::rename(&next, &current).context("bring the new master key into use")?;
    sync_dir(&current)?;
    Ok(was_begun)
}

async fn rotate_master_key(base: &Base, state: &StateDir) -> anyhow::Result<()> {
    if promote(state)? {
        complain("a rotation had been begun: it is ended, and no other begun");
    }
    let moved = rewrap_all(base, UNDER_WAY).await?;
    let old = state.join(MASTER_KEY_OLD);
    fs::remove_file(&old).with_context(|| format!("remove {}", old.display()))?;
    sync_dir(&old)?;
    emit(&format!(
        "master key {} is in use; {moved} keys are under it now\n",
        base.secrets.key_id()
    ))?;
    complain(
        "backups of the state that were made before need the old key (sealed ones hold it): make a \
         new one, and keep the new master.key where you keep it",
    );
    Ok(())
}

/// Wraps everything anew until nothing has come under the old key for a while.
async fn rewrap_all(base: &Base, pause: Duration) -> anyhow::Result<usize> {
    let mut all = rotation::rewrap(&base.store, &base.secrets).await?;
    for _ in 0..LOOKS_MAX {
        base.clock.sleep(pause).await;
        match rotation::rewrap(&base.store, &base.secrets).await? {
            0 => return Ok(all),
            moved => all += moved,
        }
    }
    bail!("something is sealed under the old key all the time: run it again")
}

async fn rotate_project(base: &Base, project: &str) -> anyhow::Result<()> {
    let by_name = base.store.find_tenant_by_name(project).await?;
    let by_id = match project.parse() {
        Ok(id) => base.store.find_tenant(&id).await?,
        Err(_) => None,
    };
    let tenant = by_name.or(by_id);
    let tenant = tenant.ok_or_else(|| missing(format!("no project '{project}'")))?;
    if base.store.find_project_key(&tenant.id).await?.is_none() {
        return Ok(emit(&format!(
            "project {} has sealed nothing yet and has no key: it gets a new one when it does\n",
            tenant.name
        ))?);
    }
    let vault = Vault {
        store: &base.store,
        secrets: &base.secrets,
        clock: &*base.clock,
        entropy: &*base.entropy,
    };
    let mut resealed = 0;
    for _ in 0..LOOKS_MAX {
        let done = vault.rotate(&tenant.id).await?;
        if done.was_begun && resealed == 0 {
            complain("a rotation had been begun: it is ended, and no other begun");
        }
        resealed += done.resealed;
        if done.left == 0 {
            let name = &tenant.name;
            emit(&format!(
                "project {name} has a new key; {resealed} secrets are under it now\n"
            ))?;
            return Ok(());
        }
        base.clock.sleep(Duration::from_millis(200)).await;
    }
    bail!("something is sealed under the old key all the time: run it again")
}

async fn status(base: &Base, state: &StateDir) -> anyhow::Result<()> {
    let keys = base.store.list_project_keys().await?;
    let mut retired = 0;
    for key in &keys {
        let of_project = base.store.list_retired_keys(&key.tenant_id).await?;
        retired += usize::from(of_project.iter().any(|one| one.id == key.id));
    }
    emit(&format!(
        "master key    {}\nrotation      {}\nproject keys  {} in use, {retired} retired\n",
        base.secrets.key_id(),
        if is_rotating(state) {
            "begun and not ended: coffer key rotate"
        } else {
            "none under way"
        },
        keys.len() - retired,
    ))?;
    Ok(())
}

/// Whether a rotation of the master key was begun and not ended.
pub(crate) fn is_rotating(state: &StateDir) -> bool {
    [MASTER_KEY_OLD, MASTER_KEY_NEXT]
        .iter()
        .any(|name| state.join(name).exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rotation_that_was_killed_anywhere_goes_on_with_the_same_key() {
        let files = [MASTER_KEY, MASTER_KEY_OLD, MASTER_KEY_NEXT];
        // What lies there after each of its steps: the key, its second name, the next one.
        let states: [[Option<u8>; 3]; 4] = [
            [Some(1), None, None],
            [Some(1), None, Some(2)],
            [Some(1), Some(1), Some(2)],
            [Some(2), Some(1), None],
        ];
        for state_of_files in states {
            let dir = tempfile::tempdir().unwrap();
            for (name, byte) in files.iter().zip(state_of_files) {
                if let Some(byte) = byte {
                    fs::write(dir.path().join(name), [byte; 32]).unwrap();
                }
            }
            let state = StateDir::existing(dir.path()).unwrap();
            let was_begun = promote(&state).unwrap();
            assert_eq!(was_begun, state_of_files != states[0]);
            let keys = state.master_keys().unwrap();
            assert_eq!(keys.previous, Some([1; 32]), "{state_of_files:?}");
            if was_begun {
                assert_eq!(keys.current, [2; 32], "{state_of_files:?}");
            }
            assert_ne!(keys.current, [1; 32]);
            assert!(!dir.path().join(MASTER_KEY_NEXT).exists());
        }
    }
}
