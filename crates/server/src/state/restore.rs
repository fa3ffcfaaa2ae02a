//! Puts a backup of the state into a state directory that has none. Everything is verified before
//! anything is changed; the store comes last and by one rename, so that a restore that was
//! interrupted is simply done again.
//!
//! The store is marked as restored: Coffer then only reports what is otherwise outside, until the
//! operator confirms.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use coffer_cli::output::{complain, emit};
use coffer_cli::password;
use coffer_control::authority;
use coffer_control::clock::{Clock, SystemClock, SystemEntropy};
use coffer_control::secrets::{KeyId, SecretBox};
use coffer_control::tls::unhex;
use coffer_core::secret::Secret;
use coffer_store::{Store, StoreOptions, StoreUrl, file};

use super::STORE_FILE;
use super::backup::{CONFIG, LOCAL, PLAIN, RECORDS, SEALED, url_kind};
use super::bundle::{Bundle, sync_dir};
use crate::args::Place;
use crate::state_dir::{MASTER_KEY, StateDir, put_new};

/// Where parts lie until they have been verified.
const STAGING: &str = "restoring";
/// Name that the configuration of the backup gets; what holds is where the operator keeps it.
const CONFIG_RESTORED: &str = "config-of-the-backup.toml";

/// Files that came out of the sealed part, by name.
type Opened = BTreeMap<String, Vec<u8>>;

/// Restores a backup.
pub(super) async fn restore(
    place: &Place,
    path: &Path,
    passphrase_file: Option<&Path>,
    master_key: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    let config = place.load()?;
    let url: StoreUrl = config.store_url().parse()?;
    let bundle = Bundle::open(path)?;
    let manifest = &bundle.manifest;
    check_kind(&bundle, &url)?;
    let opened = open_sealed(&bundle, passphrase_file)?;
    let state = StateDir::alone(&config.state.dir)?;
    refuse_used(&state, &bundle, &url)?;
    let key = find_key(&state, &bundle, &opened, master_key)?;
    let staging = state.join(STAGING);
    remove_dir(&staging)?;
    fs::DirBuilder::new().mode(0o700).create(&staging)?;
    let staged = match &url {
        StoreUrl::SqliteFile(_) => {
            let staged = staging.join(STORE_FILE);
            bundle.extract(STORE_FILE, &staged)?;
            file::check(&staged)?;
            mark(&StoreUrl::SqliteFile(staged.clone()), &bundle, key).await?;
            file::settle(&staged)?;
            Some(staged)
        }
        other => {
            mark(other, &bundle, key).await?;
            None
        }
    };
    put_files(&state, &bundle, &opened, key, &staging)?;
    if let (Some(staged), StoreUrl::SqliteFile(target)) = (staged, &url) {
        fs::rename(&staged, target).with_context(|| format!("write {}", target.display()))?;
        sync_dir(target)?;
    }
    remove_dir(&staging)?;
    let made_at = manifest.made_at;
    emit(&format!(
        "restored the state of {made_at}; start coffer, then: coffer state report\n"
    ))?;
    complain(
        "until 'coffer state confirm' Coffer only looks: it removes nothing and begins nothing",
    );
    Ok(ExitCode::SUCCESS)
}

fn check_kind(bundle: &Bundle, url: &StoreUrl) -> anyhow::Result<()> {
    let (kind, configured) = (bundle.manifest.store.as_str(), url_kind(url));
    ensure!(
        kind == configured,
        "the backup is of a Coffer whose store is {kind}, and state.store_url names {configured}"
    );
    let (schema, newest) = (bundle.manifest.schema, file::newest_schema());
    ensure!(
        schema <= newest,
        "the backup's store has schema {schema}, this Coffer knows {newest}: restore it with a \
         newer Coffer"
    );
    Ok(())
}

fn open_sealed(bundle: &Bundle, passphrase_file: Option<&Path>) -> anyhow::Result<Opened> {
    let Some(stretching) = &bundle.manifest.stretching else {
        return Ok(Opened::new());
    };
    let read = password::read("Passphrase of the backup", passphrase_file);
    let passphrase = Secret::new(read.map_err(|e| anyhow::anyhow!(e.message))?);
    let purpose = bundle.manifest.purpose();
    let plain = stretching.open(&passphrase, &purpose, &bundle.bytes(SEALED)?)?;
    let files: BTreeMap<String, String> = serde_json::from_slice(&plain)?;
    let mut opened = Opened::new();
    for (name, digits) in files {
        ensure!(!name.contains('/'), "the sealed part holds a path: {name}");
        let bytes = unhex(&digits).with_context(|| format!("the sealed {name} is damaged"))?;
        opened.insert(name, bytes);
    }
    Ok(opened)
}

/// A state directory is used once it has a store; nothing of it is overwritten.
fn refuse_used(state: &StateDir, bundle: &Bundle, url: &StoreUrl) -> anyhow::Result<()> {
    if let StoreUrl::SqliteFile(path) = url
        && let Some(there) = file::is_there(path)
    {
        bail!(
            "this state directory is in use: {} is there. To replace a lost or damaged store, keep \
             it aside first: mkdir DIR && mv {}* DIR/",
            there.display(),
            path.display()
        );
    }
    let tag = fs::read_to_string(state.join("tag")).unwrap_or_default();
    ensure!(
        tag.is_empty() || tag == bundle.manifest.tag,
        "this state directory belongs to another Coffer: its tag is {tag}, the backup's is {}",
        bundle.manifest.tag
    );
    Ok(())
}

/// The master key: of the backup, of the state directory, or of the file that is named.
fn find_key(
    state: &StateDir,
    bundle: &Bundle,
    opened: &Opened,
    named: Option<&Path>,
) -> anyhow::Result<[u8; 32]> {
    let wanted = &bundle.manifest.master_key;
    let fits = |bytes: &[u8]| {
        let key: [u8; 32] = bytes.try_into().ok()?;
        (KeyId::of(&key).to_string() == *wanted).then_some(key)
    };
    let there = fs::read(state.join(MASTER_KEY)).ok();
    if let Some(there) = &there {
        return fits(there).with_context(|| {
            format!(
                "{MASTER_KEY} in the state directory is not the backup's ({wanted}): move it aside"
            )
        });
    }
    let given = match named {
        Some(path) => Some(fs::read(path).with_context(|| format!("read {}", path.display()))?),
        None => opened.get(MASTER_KEY).cloned(),
    };
    let given = given.with_context(|| {
        "the backup holds no master key: name yours with --master-key; without it no stored \
         secret can be read (docs/operations.md)"
    })?;
    fits(&given).with_context(|| format!("this is not the master key of the backup ({wanted})"))
}

/// Brings a store to this build's schema, sees that the key fits, and marks it.
async fn mark(url: &StoreUrl, bundle: &Bundle, key: [u8; 32]) -> anyhow::Result<()> {
    let store = Store::open(url, StoreOptions::default()).await?;
    let marked = async {
        let secrets = SecretBox::new(key, Arc::new(SystemEntropy));
        authority::probe(&store, &secrets).await?;
        let now = SystemClock::new().now();
        store.mark_restored(bundle.manifest.made_at, now).await?;
        anyhow::Ok(())
    };
    let marked = marked.await;
    store.close().await;
    marked.context("take the backup's store")
}

/// Puts everything but the store in its place. What is there stays: it is newer, or the same.
fn put_files(
    state: &StateDir,
    bundle: &Bundle,
    opened: &Opened,
    key: [u8; 32],
    staging: &Path,
) -> anyhow::Result<()> {
    put_new(&state.join(MASTER_KEY), &key)?;
    for (name, bytes) in opened {
        put_new(&state.join(name), bytes)?;
    }
    for name in PLAIN.into_iter().filter(|name| bundle.has(name)) {
        put_new(&state.join(name), &bundle.bytes(name)?)?;
    }
    if bundle.has(CONFIG) {
        bundle.extract(CONFIG, &state.join(CONFIG_RESTORED))?;
    }
    let local = state.join(LOCAL);
    if has_records(&local) {
        return Ok(());
    }
    let prefix = format!("{LOCAL}/");
    let parts = bundle.manifest.parts.iter();
    let records: Vec<_> = parts
        .filter(|part| part.name.starts_with(&prefix))
        .collect();
    for part in &records {
        bundle.extract(&part.name, &staging.join(&part.name))?;
    }
    for part in records {
        let target = state.join(&part.name);
        if let Some(dir) = target.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)?;
        }
        fs::rename(staging.join(&part.name), &target)?;
    }
    Ok(())
}

/// Whether the provider remembers anything here: then it knows better than the backup.
fn has_records(local: &Path) -> bool {
    RECORDS
        .iter()
        .filter(|name| **name != "tombstones")
        .any(|name| {
            let entries = fs::read_dir(local.join(name));
            entries.is_ok_and(|mut entries| entries.next().is_some())
        })
}

fn remove_dir(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
