//! Backs the state up while Coffer runs: the store as of one moment, what the local provider
//! remembers, configuration and certificate, and, sealed by a passphrase, keys and credentials.
//! Nobody rotates the master key meanwhile: the key that is named has to be that of the copy.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use coffer_cli::output::{complain, emit};
use coffer_cli::password;
use coffer_control::clock::{Clock, SystemClock, SystemEntropy};
use coffer_control::passphrase::Stretching;
use coffer_control::secrets::KeyId;
use coffer_control::tls::hex;
use coffer_core::secret::Secret;
use coffer_core::time::Timestamp;
use coffer_store::{Store, StoreUrl, file};

use super::bundle::{self, Content, Manifest};
use super::{BACKED_UP, LOCAL, RECORDS, STORE_FILE};
use crate::args::Place;
use crate::keys;
use crate::refusal::refused;
use crate::state_dir::StateDir;

/// Part with what only a passphrase opens.
pub(super) const SEALED: &str = "sealed";
/// Part with the file that `--config` named.
pub(super) const CONFIG: &str = "config.toml";
/// Name that it gets when it is restored; what holds is where the operator keeps it.
pub(super) const CONFIG_RESTORED: &str = "config-of-the-backup.toml";
/// The key of the configuration that may hold a password.
const KEY_WITH_PASSWORD: &str = "store_url";
/// Files in the clear beside the store.
pub(super) const PLAIN: [&str; 2] = ["tag", "ca.pem"];

/// What the name of the directory for what is made on the way ends in, before a process id.
const MAKING: &str = "coffer-making-";
/// How long nothing is written to what a killed backup left before it is removed.
const LEFT_AFTER: Duration = Duration::from_secs(3_600);

/// The passphrase that seals, if one is to.
pub(super) fn passphrase(seal: bool, file: Option<&Path>) -> anyhow::Result<Option<Secret>> {
    if file.is_none() && !seal {
        return Ok(None);
    }
    let first = password::read("Passphrase of the backup", file)?;
    if file.is_none() {
        let again = password::read("The same again", None)?;
        ensure!(first == again, "the two passphrases differ");
    }
    Ok(Some(Secret::new(first)))
}

/// Writes a backup to a file, or to a new file in a directory.
pub(crate) async fn backup(
    place: &Place,
    target: &Path,
    passphrase: Option<Secret>,
) -> anyhow::Result<ExitCode> {
    let config = place.load()?;
    let state = StateDir::existing(&config.state.dir)?.keeping_keys()?;
    if keys::is_rotating(&state) {
        return Err(refused(
            "a rotation of the master key was begun and not ended: end it with coffer key rotate",
        ));
    }
    let now = SystemClock::new().now();
    let path = match target.is_dir() {
        true => target.join(format!("coffer-state-{}.backup", in_a_name(now))),
        false => target.to_owned(),
    };
    let url: StoreUrl = config.store_url().parse()?;
    let is_sealed = passphrase.is_some();
    let config_file = place.config.as_deref().map(read).transpose()?;
    let has_password = config_file.as_deref().is_some_and(may_hold_a_password);
    let (store, to) = (url.clone(), path.clone());
    let gathered = tokio::task::spawn_blocking(move || {
        let staging = tempfile_in(&to)?;
        let written = gather(&state, &store, config_file, passphrase, now, &staging)
            .and_then(|(manifest, contents)| bundle::write(&to, &manifest, &contents));
        fs::remove_dir_all(&staging).ok();
        written
    });
    gathered.await??;
    note(&url, now).await;
    emit(&format!("{}\n", path.display()))?;
    for line in left_out(&url, is_sealed, has_password) {
        complain(line);
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a configuration file may hold the password of the store.
fn may_hold_a_password(text: &[u8]) -> bool {
    String::from_utf8_lossy(text).contains(KEY_WITH_PASSWORD)
}

/// What a backup does not hold, and what to do about it.
fn left_out(url: &StoreUrl, is_sealed: bool, has_password: bool) -> Vec<&'static str> {
    let mut lines = Vec::new();
    if has_password && !is_sealed {
        lines.push(
            "it holds no configuration, in which state.store_url may name a password: keep that \
             file somewhere else, or give --passphrase-file to seal it in",
        );
    }
    if !is_sealed {
        lines.push(
            "it holds no master key and no credentials: keep master.key and admin.toml of the \
             state directory somewhere else, or give --passphrase-file to seal them into it",
        );
    }
    if matches!(url, StoreUrl::Postgres(_)) {
        lines.push(
            "the store is PostgreSQL and not in it: back that up with pg_dump --format=custom, \
             before or after; restore it first with pg_restore, then this with coffer state \
             restore",
        );
    }
    lines.push("tenants' data are not in it: they are in the volumes");
    lines
}

/// `20261129-104501`, for a file's name.
fn in_a_name(time: Timestamp) -> String {
    time.trove().replace(['-', ':'], "").replace('T', "-")
}

/// A directory for what is made on the way, beside the target.
fn tempfile_in(target: &Path) -> anyhow::Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt;
    sweep(target);
    let dir = target.with_extension(format!("{MAKING}{}", std::process::id()));
    fs::DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .with_context(|| format!("make {}", dir.display()))?;
    Ok(dir)
}

/// Removes what backups into the same directory left there when they were killed: among it may be
/// a copy of the store. One that goes on writes all the time, also if it runs on another host.
fn sweep(target: &Path) {
    let Some(dir) = target.parent() else { return };
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let ending = path.extension().and_then(|ending| ending.to_str());
        let writer = ending.and_then(|e| {
            e.strip_prefix(MAKING)
                .or_else(|| e.strip_prefix(bundle::PART))
        });
        let is_left = writer.is_some_and(|pid| pid.parse::<u32>().is_ok());
        if is_left && is_old(&path) {
            // What stays is tried again by the next backup.
            fs::remove_dir_all(&path)
                .or_else(|_| fs::remove_file(&path))
                .ok();
        }
    }
}

/// Whether nothing was written to a file, or to one of a directory, for a while.
fn is_old(path: &Path) -> bool {
    let inside = fs::read_dir(path).into_iter().flatten().flatten();
    let mut all = inside.map(|entry| entry.path()).chain([path.to_owned()]);
    all.all(|path| {
        let written = fs::symlink_metadata(path).and_then(|facts| facts.modified());
        let age = written.ok().and_then(|at| at.elapsed().ok());
        age.is_some_and(|age| age > LEFT_AFTER)
    })
}

type Gathered = (Manifest, Vec<Content>);

fn gather(
    state: &StateDir,
    url: &StoreUrl,
    config_file: Option<Vec<u8>>,
    passphrase: Option<Secret>,
    now: Timestamp,
    staging: &Path,
) -> anyhow::Result<Gathered> {
    let mut parts: Vec<(String, Content)> = Vec::new();
    let (mut schema, kind) = (0, url_kind(url));
    if let StoreUrl::SqliteFile(path) = url {
        let copy = staging.join(STORE_FILE);
        // Of what is damaged more can be told than that it could not be copied.
        file::snapshot(path, &copy)
            .map_err(|error| file::quick_check(path).err().unwrap_or(error))?;
        file::check(&copy)?;
        schema = file::schema(&copy)?;
        parts.push((STORE_FILE.to_owned(), Content::File(copy)));
    }
    for name in PLAIN {
        let path = state.join(name);
        if path.exists() {
            parts.push((name.to_owned(), Content::Bytes(read(&path)?)));
        }
    }
    parts.extend(records(&state.join(LOCAL)));
    // What may hold a password is in it only where it is sealed.
    let (sealed_config, open_config) = match config_file {
        Some(text) if may_hold_a_password(&text) => (Some(text), None),
        other => (None, other),
    };
    parts.extend(open_config.map(|text| (CONFIG.to_owned(), Content::Bytes(text))));
    let mut manifest = Manifest {
        made_by: env!("CARGO_PKG_VERSION").to_owned(),
        made_at: now,
        tag: state.known_tag().unwrap_or_default(),
        store: kind.to_owned(),
        schema,
        master_key: KeyId::of(&state.master_keys()?.current).to_string(),
        stretching: None,
        parts: Vec::new(),
    };
    if let Some(passphrase) = passphrase {
        let stretching = Stretching::new(&SystemEntropy);
        let plain = serde_json::to_vec(&secrets(state, sealed_config)?)?;
        let purpose = manifest.purpose();
        let sealed = stretching.seal(&SystemEntropy, &passphrase, &purpose, &plain)?;
        parts.push((SEALED.to_owned(), Content::Bytes(sealed)));
        manifest.stretching = Some(stretching);
    }
    let listed = parts
        .iter()
        .map(|(name, content)| bundle::part(name, content));
    manifest.parts = listed.collect::<anyhow::Result<_>>()?;
    Ok((
        manifest,
        parts.into_iter().map(|(_, content)| content).collect(),
    ))
}

pub(super) const fn url_kind(url: &StoreUrl) -> &'static str {
    match url {
        StoreUrl::SqliteFile(_) | StoreUrl::SqliteMemory => "sqlite",
        StoreUrl::Postgres(_) => "postgres",
    }
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("read {}", path.display()))
}

/// What the local provider remembers: small files that it replaces as a whole, so that each is
/// whole when it is read. One that goes meanwhile is of something that is being deleted.
fn records(local: &Path) -> Vec<(String, Content)> {
    let mut found = Vec::new();
    let mut dirs: Vec<PathBuf> = RECORDS.iter().map(|name| local.join(name)).collect();
    let mut files = files_in(local, &mut Vec::new());
    while let Some(dir) = dirs.pop() {
        files.extend(files_in(&dir, &mut dirs));
    }
    for path in files {
        let (Ok(bytes), Ok(below)) = (fs::read(&path), path.strip_prefix(local)) else {
            continue;
        };
        let name = Path::new(LOCAL).join(below).display().to_string();
        found.push((name, Content::Bytes(bytes)));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// Records in a directory: whole ones, which end in `.json` or, for what was deleted, in nothing.
fn files_in(dir: &Path, below: &mut Vec<PathBuf>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let is_record = path.extension().is_none_or(|e| e == "json");
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => below.push(path),
            Ok(kind) if kind.is_file() && is_record => files.push(path),
            _ => {}
        }
    }
    files
}

/// Keys, credentials and what else may hold a password, by the names of the files, in hexadecimal
/// digits.
fn secrets(state: &StateDir, config: Option<Vec<u8>>) -> anyhow::Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for path in files_by_extension(&state.join(""), &["key", "toml"]) {
        if let Some(name) = path.file_name().and_then(|name| name.to_str()) {
            all.insert(name.to_owned(), hex(&read(&path)?));
        }
    }
    all.extend(config.map(|text| (CONFIG_RESTORED.to_owned(), hex(&text))));
    Ok(all)
}

fn files_by_extension(dir: &Path, wanted: &[&str]) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let is_wanted = |path: &PathBuf| {
        let extension = path.extension().and_then(|e| e.to_str());
        path.is_file() && extension.is_some_and(|e| wanted.contains(&e))
    };
    entries
        .map(|entry| entry.path())
        .filter(is_wanted)
        .collect()
}

/// Notes in the store that there is a backup. A store of another schema is not touched.
async fn note(url: &StoreUrl, now: Timestamp) {
    let noted = async {
        let store = Store::open_present(url).await?;
        let value = now.micros().to_string();
        let noted = store.put_setting(BACKED_UP, &value).await;
        store.close().await;
        noted
    };
    if let Err(error) = noted.await {
        complain(&format!(
            "the backup is good, and the doctor will not know of it: {error}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_stands_in_the_name() {
        let time = Timestamp::from_micros(1_795_000_000_000_000);
        assert_eq!(in_a_name(time), "20261118-110640");
    }

    #[test]
    fn what_killed_backups_left_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let old = std::time::SystemTime::UNIX_EPOCH;
        let make = |name: &str, is_old: bool| {
            let path = dir.path().join(name);
            let file = match name.contains(MAKING) {
                true => {
                    fs::create_dir(&path).unwrap();
                    path.join(STORE_FILE)
                }
                false => path.clone(),
            };
            fs::write(&file, "x").unwrap();
            for path in [&file, &path].into_iter().filter(|_| is_old) {
                fs::File::open(path).unwrap().set_modified(old).unwrap();
            }
        };
        let left = ["coffer-state-1.coffer-making-7", "mine.coffer-part-8"];
        let kept = [
            "coffer-state-1.backup",
            "coffer-state-1.part00",
            "mine.coffer-part-ner",
        ];
        for name in left.iter().chain(&kept) {
            make(name, true);
        }
        make("coffer-state-4.coffer-making-7", false);
        sweep(&dir.path().join("mine.backup"));
        for name in left {
            assert!(!dir.path().join(name).exists(), "{name}");
        }
        for name in kept.iter().chain(&["coffer-state-4.coffer-making-7"]) {
            assert!(dir.path().join(name).exists(), "{name}");
        }
    }

    /// What a backup is made of, of a state directory whose store is elsewhere.
    fn gathered(dir: &Path, config: &str, passphrase: Option<&str>) -> (Manifest, Vec<Content>) {
        let state = StateDir::existing(dir).unwrap();
        let staging = dir.join("staging");
        fs::create_dir(&staging).unwrap();
        let url = "postgres://coffer@host/coffer".parse().unwrap();
        let passphrase = passphrase.map(|text| Secret::new(text.to_owned()));
        let config = Some(config.as_bytes().to_vec());
        let now = Timestamp::from_micros(1);
        let gathered = gather(&state, &url, config, passphrase, now, &staging).unwrap();
        fs::remove_dir(&staging).unwrap();
        gathered
    }

    #[test]
    fn a_configuration_with_a_password_is_sealed_or_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path(), false).unwrap();
        state.new_master_keys().unwrap();
        let (open, secret) = (
            "[log]\n",
            "[state]\nstore_url = \"postgres://c:s3cret@h/c\"\n",
        );
        let names = |gathered: &(Manifest, Vec<Content>)| -> Vec<String> {
            let parts = gathered.0.parts.iter();
            parts.map(|part| part.name.clone()).collect()
        };
        let plain = gathered(dir.path(), open, None);
        assert_eq!(names(&plain), [CONFIG]);
        let without = gathered(dir.path(), secret, None);
        assert_eq!(names(&without), Vec::<String>::new());
        let told = left_out(&"sqlite:/x".parse().unwrap(), false, true);
        assert!(told[0].contains("no configuration"), "{told:?}");
        let words = "correct horse battery";
        let sealed = gathered(dir.path(), secret, Some(words));
        assert_eq!(names(&sealed), [SEALED]);
        let (manifest, Content::Bytes(bytes)) = (&sealed.0, &sealed.1[0]) else {
            panic!("it is sealed in memory")
        };
        assert!(!bytes.windows(6).any(|window| window == b"s3cret"));
        let passphrase = Secret::new(words.to_owned());
        let stretching = manifest.stretching.as_ref().unwrap();
        let plain = stretching.open(&passphrase, &manifest.purpose(), bytes);
        let plain: BTreeMap<String, String> = serde_json::from_slice(&plain.unwrap()).unwrap();
        assert_eq!(plain[CONFIG_RESTORED], hex(secret.as_bytes()));
        assert!(plain.contains_key("master.key"));
        assert_eq!(state.known_tag(), None, "a backup makes no tag");
    }
}
