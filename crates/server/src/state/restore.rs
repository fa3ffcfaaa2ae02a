//! Puts a backup of the state into a state directory that has none. Everything is verified before
//! anything is changed; the store comes last and by one rename, so that a restore that was
//! interrupted is simply done again. While what the provider remembers is being put back a mark
//! says so: a part of it would pass for all of it.
//!
//! The store is marked as restored: Coffer then only reports what is otherwise outside, until the
//! operator confirms.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use coffer_cli::credentials::Credentials;
use coffer_cli::output::{complain, emit};
use coffer_cli::password;
use coffer_control::authority;
use coffer_control::clock::{Clock, SystemClock, SystemEntropy};
use coffer_control::secrets::{KeyId, SecretBox};
use coffer_control::tls::unhex;
use coffer_core::secret::Secret;
use coffer_store::{Store, StoreOptions, StoreUrl, file};

use super::backup::{CONFIG, CONFIG_RESTORED, PLAIN, SEALED, url_kind};
use super::bundle::{Bundle, sync_dir};
use super::{LOCAL, RECORDS_MARK, STORE_FILE, has_records};
use crate::args::Place;
use crate::refusal::refused;
use crate::state_dir::{MASTER_KEY, StateDir, TAG, put_new};

/// Where parts lie until they have been verified.
const STAGING: &str = "restoring";
/// What the store's name goes on with until it has been verified.
const STORE_STAGED: &str = ".restoring";
/// What the names of credentials go on with that were there before.
const BEFORE: &str = ".before-restore";

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
    check_kind(&bundle, &url)?;
    let state = StateDir::alone(&config.state.dir)?;
    refuse_used(&state, &bundle, &url)?;
    let has_key = master_key.is_some() || state.has_master_key();
    let opened = open_sealed(&bundle, passphrase_file, has_key)?;
    let key = find_key(&state, &bundle, &opened, master_key)?;
    let staging = state.join(STAGING);
    remove_dir(&staging)?;
    fs::DirBuilder::new().mode(0o700).create(&staging)?;
    let staged = match &url {
        StoreUrl::SqliteFile(target) => Some(stage_store(&bundle, target, key).await?),
        other => {
            mark(other, &bundle, key).await?;
            None
        }
    };
    put_files(&state, &bundle, &opened, key)?;
    put_records(&state, &bundle, &staging)?;
    if let (Some(staged), StoreUrl::SqliteFile(target)) = (staged, &url) {
        fs::rename(&staged, target).with_context(|| format!("write {}", target.display()))?;
        sync_dir(target)?;
    }
    remove_dir(&staging)?;
    let made_at = bundle.manifest.made_at;
    emit(&format!(
        "restored the state of {made_at}; start coffer, then: coffer state report\n"
    ))?;
    complain(
        "until 'coffer state confirm' Coffer only looks: it removes nothing and begins nothing",
    );
    Ok(ExitCode::SUCCESS)
}

/// The store, whole, of this build's schema and marked, beside the place that it is to take.
async fn stage_store(bundle: &Bundle, target: &Path, key: [u8; 32]) -> anyhow::Result<PathBuf> {
    let staged = file::beside(target, STORE_STAGED);
    file::remove(&staged)?;
    let made = async {
        bundle.extract(STORE_FILE, &staged)?;
        file::check(&staged)?;
        mark(&StoreUrl::SqliteFile(staged.clone()), bundle, key).await?;
        file::settle(&staged)?;
        anyhow::Ok(())
    };
    if let Err(error) = made.await {
        file::remove(&staged)?;
        return Err(error);
    }
    Ok(staged)
}

fn check_kind(bundle: &Bundle, url: &StoreUrl) -> anyhow::Result<()> {
    let (kind, configured) = (bundle.manifest.store.as_str(), url_kind(url));
    if kind != configured {
        return Err(refused(format!(
            "the backup is of a Coffer whose store is {kind}, and state.store_url names \
             {configured}"
        )));
    }
    let (schema, newest) = (bundle.manifest.schema, file::newest_schema());
    match schema <= newest {
        true => Ok(()),
        false => Err(refused(format!(
            "the backup's store has schema {schema}, this Coffer knows {newest}: restore it with \
             a newer Coffer"
        ))),
    }
}

/// What is sealed. With the master key at hand a backup is good without its passphrase, too.
fn open_sealed(
    bundle: &Bundle,
    passphrase_file: Option<&Path>,
    has_key: bool,
) -> anyhow::Result<Opened> {
    let Some(stretching) = &bundle.manifest.stretching else {
        return Ok(Opened::new());
    };
    if passphrase_file.is_none() && has_key {
        complain(
            "the master key is at hand, so that the sealed part is not opened: what else is in it, \
             credentials files, is restored only with --passphrase-file",
        );
        return Ok(Opened::new());
    }
    let passphrase = password::read("Passphrase of the backup", passphrase_file)?;
    let passphrase = Secret::new(passphrase);
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
        return Err(refused(format!(
            "this state directory is in use: {} is there. To replace a lost or damaged store, keep \
             it aside first: mkdir DIR && mv {}* DIR/",
            there.display(),
            path.display()
        )));
    }
    let (wanted, tag) = (&bundle.manifest.tag, state.known_tag());
    let is_other = tag.as_ref().is_some_and(|tag| tag != wanted);
    if !is_other || !knows_records(state) {
        return Ok(());
    }
    Err(refused(format!(
        "this state directory belongs to another Coffer: its tag is {}, the backup's is {wanted}; \
         name another --state-dir, or move what is in this one aside",
        tag.unwrap_or_default()
    )))
}

/// Whether the provider remembers anything here that is not of a restore that was interrupted.
fn knows_records(state: &StateDir) -> bool {
    has_records(&state.join(LOCAL)) && !state.join(RECORDS_MARK).exists()
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

/// Puts files in their places. What is there stays, where it is the same or goes with this host;
/// credentials that are not those of the restored store make way.
fn put_files(
    state: &StateDir,
    bundle: &Bundle,
    opened: &Opened,
    key: [u8; 32],
) -> anyhow::Result<()> {
    put_new(&state.join(MASTER_KEY), &key)?;
    for (name, bytes) in opened {
        put_opened(&state.join(name), bytes)?;
    }
    let (tag, other) = (state.join(TAG), state.known_tag());
    if other.is_some_and(|other| other != bundle.manifest.tag) {
        // It was made by a start without the store, and nothing carries it.
        fs::remove_file(&tag).with_context(|| format!("remove {}", tag.display()))?;
    }
    for name in PLAIN.into_iter().filter(|name| bundle.has(name)) {
        put_new(&state.join(name), &bundle.bytes(name)?)?;
    }
    if bundle.has(CONFIG) {
        put_new(&state.join(CONFIG_RESTORED), &bundle.bytes(CONFIG)?)?;
    }
    Ok(())
}

/// Puts a file of the sealed part in its place. Whose password a start without the store has made,
/// or somebody has changed since the backup, does not open the restored store: it is kept beside.
fn put_opened(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let is_same = fs::read(path).is_ok_and(|there| there == bytes);
    if path.exists() && !is_same {
        let shown = path.display();
        if path.extension().is_none_or(|end| end != "toml") || Credentials::read(path).is_err() {
            complain(&format!(
                "{shown} is not as in the backup: it stays as it is"
            ));
            return Ok(());
        }
        let kept = free_name(path);
        fs::rename(path, &kept).with_context(|| format!("keep {shown} aside"))?;
        complain(&format!(
            "{shown} is the backup's now, with the password of then; what was there is kept in {}",
            kept.display()
        ));
    }
    put_new(path, bytes)
}

/// A name beside for what is kept: what an earlier restore kept is kept as well.
fn free_name(path: &Path) -> PathBuf {
    let named = |number: u32| {
        let mut name = path.as_os_str().to_owned();
        name.push(BEFORE);
        if number > 1 {
            name.push(format!("-{number}"));
        }
        PathBuf::from(name)
    };
    let mut names = (1..).map(named);
    let free = names.find(|name| !name.exists());
    free.expect("numbers do not end before files do")
}

/// Puts back what the provider remembers, where it remembers nothing: else it knows better than
/// the backup.
fn put_records(state: &StateDir, bundle: &Bundle, staging: &Path) -> anyhow::Result<()> {
    if knows_records(state) {
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
    let mark = state.join(RECORDS_MARK);
    put_new(&mark, b"")?;
    let local = state.join(LOCAL);
    let mut changed = BTreeSet::new();
    for part in records {
        let target = state.join(&part.name);
        if let Some(dir) = target.parent() {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)?;
        }
        fs::rename(staging.join(&part.name), &target)?;
        let above = target.ancestors().skip(1);
        let above = above.take_while(|dir| dir.starts_with(&local));
        changed.extend(above.map(Path::to_owned));
    }
    for dir in changed {
        sync_dir(&dir.join("any"))?;
    }
    sync_dir(&mark)?;
    fs::remove_file(&mark).with_context(|| format!("remove {}", mark.display()))?;
    sync_dir(&mark)
}

fn remove_dir(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::bundle::{self, Content, Manifest};

    const OURS: [&str; 2] = ["local/servers/a.json", "local/tombstones/volumes/b"];

    /// A backup that holds records and a tag.
    fn backup(dir: &Path) -> Bundle {
        let parts = [(TAG, "abcde"), (OURS[0], "{}"), (OURS[1], "1")];
        let contents = parts.map(|(_, text)| Content::Bytes(text.as_bytes().to_vec()));
        let listed = parts.iter().zip(&contents);
        let listed = listed.map(|((name, _), content)| bundle::part(name, content).unwrap());
        let manifest = Manifest {
            made_by: "1".to_owned(),
            made_at: SystemClock::new().now(),
            tag: "abcde".to_owned(),
            store: "sqlite".to_owned(),
            schema: 1,
            master_key: KeyId::of(&[7; 32]).to_string(),
            stretching: Some(coffer_control::passphrase::Stretching::new(&SystemEntropy)),
            parts: listed.collect(),
        };
        let path = dir.join("backup");
        bundle::write(&path, &manifest, &contents).unwrap();
        Bundle::open(&path).unwrap()
    }

    fn put(state: &StateDir, bundle: &Bundle) {
        put_files(state, bundle, &Opened::new(), [7; 32]).unwrap();
        let staging = state.join(STAGING);
        put_records(state, bundle, &staging).unwrap();
        remove_dir(&staging).unwrap();
    }

    #[test]
    fn records_are_put_back_whole_also_after_an_interruption() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = backup(dir.path());
        let state = StateDir::open(&dir.path().join("state"), false).unwrap();
        // Killed after the first: it is there, and says nothing of the others.
        let first = state.join(OURS[0]);
        fs::create_dir_all(first.parent().unwrap()).unwrap();
        fs::write(&first, "half").unwrap();
        fs::write(state.join(RECORDS_MARK), "").unwrap();
        put(&state, &bundle);
        for (name, text) in OURS.iter().zip(["{}", "1"]) {
            assert_eq!(fs::read_to_string(state.join(name)).unwrap(), text);
        }
        assert!(!state.join(RECORDS_MARK).exists());
        // Those of a host that has its own are newer than any backup.
        fs::write(&first, "newer").unwrap();
        fs::remove_file(state.join(OURS[1])).unwrap();
        put(&state, &bundle);
        assert_eq!(fs::read_to_string(&first).unwrap(), "newer");
        assert!(!state.join(OURS[1]).exists());
    }

    #[test]
    fn credentials_that_do_not_fit_the_store_make_way_and_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = backup(dir.path());
        let state = StateDir::open(&dir.path().join("state"), false).unwrap();
        let admin = |password: &str| {
            format!(
                "auth_url = \"https://127.0.0.1:1/v3\"\nusername = \"admin\"\n\
                 password = \"{password}\"\nproject_name = \"admin\"\n"
            )
        };
        let place = |name: &str, text: &str| put_new(&state.join(name), text.as_bytes()).unwrap();
        place("admin.toml", &admin("of a start without the store"));
        place("own.toml", "[log]\n");
        let sealed = [
            ("admin.toml", admin("of the backup")),
            ("own.toml", "[api]\n".to_owned()),
            ("demo.toml", admin("demo's")),
        ];
        let opened: Opened = sealed
            .iter()
            .map(|(name, text)| ((*name).to_owned(), text.clone().into_bytes()))
            .collect();
        // Also when it was interrupted and is done again.
        for _ in 0..2 {
            put_files(&state, &bundle, &opened, [7; 32]).unwrap();
        }
        let read = |name: &str| fs::read_to_string(state.join(name)).unwrap();
        assert_eq!(read("admin.toml"), admin("of the backup"));
        let kept = read(&format!("admin.toml{BEFORE}"));
        assert_eq!(kept, admin("of a start without the store"));
        assert_eq!(read("demo.toml"), admin("demo's"));
        // Another backup is restored: the first one's are kept too.
        let other = [("admin.toml".to_owned(), admin("of another").into_bytes())];
        put_files(&state, &bundle, &Opened::from(other), [7; 32]).unwrap();
        let kept = read(&format!("admin.toml{BEFORE}-2"));
        assert_eq!(kept, admin("of the backup"));
        assert_eq!(
            read("own.toml"),
            "[log]\n",
            "a configuration is the operator's"
        );
    }

    #[test]
    fn a_tag_that_nothing_carries_makes_way_and_another_coffers_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = backup(dir.path());
        let state = StateDir::open(&dir.path().join("state"), false).unwrap();
        let url = StoreUrl::SqliteFile(state.join(STORE_FILE));
        fs::write(state.join(TAG), "other").unwrap();
        refuse_used(&state, &bundle, &url).unwrap();
        put(&state, &bundle);
        assert_eq!(state.known_tag().as_deref(), Some("abcde"));
        fs::write(state.join(TAG), "other").unwrap();
        let error = refuse_used(&state, &bundle, &url).unwrap_err().to_string();
        assert!(
            error.contains("another Coffer") && error.contains("aside"),
            "{error}"
        );
        fs::write(state.join(STORE_FILE), "").unwrap();
        let error = refuse_used(&state, &bundle, &url).unwrap_err().to_string();
        assert!(error.contains("is in use"), "{error}");
    }

    #[test]
    fn the_master_key_does_instead_of_the_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = backup(dir.path());
        let state = StateDir::open(&dir.path().join("state"), false).unwrap();
        assert_eq!(open_sealed(&bundle, None, true).unwrap(), Opened::new());
        let named = dir.path().join("key");
        fs::write(&named, [7; 32]).unwrap();
        let key = find_key(&state, &bundle, &Opened::new(), Some(&named));
        assert_eq!(key.unwrap(), [7; 32]);
        fs::write(&named, [8; 32]).unwrap();
        let error = find_key(&state, &bundle, &Opened::new(), Some(&named));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("not the master key of the backup"),
            "{error}"
        );
    }
}
