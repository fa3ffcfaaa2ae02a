//! `coffer doctor`: what is found of this Coffer and its host, what each finding means, and what to
//! do. Everything is looked at that can be, also when the rest is lost; nothing is changed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use coffer_cli::Options;
use coffer_cli::output::emit;
use coffer_control::authority;
use coffer_control::clock::{Clock, SystemClock, SystemEntropy};
use coffer_control::config::Config;
use coffer_control::secrets::SecretBox;
use coffer_control::supervise::Supervisor;
use coffer_control::taskmanager::periodic::certificates;
use coffer_core::time::Timestamp;
use coffer_infra::image::Roots;
use coffer_infra::image::tree::Depth;
use coffer_infra::local::doctor::{Finding, Level, advice, good, problem};
use coffer_store::tracker::TrackerView;
use coffer_store::{Store, StoreError, StoreUrl, file};

use crate::args::Place;
use crate::state::BACKED_UP;
use crate::state_dir::{MASTER_KEY, StateDir, TAG};
use crate::{assemble, keys};

/// Age of the last backup of the state beyond which a new one is due; unit: hours.
const BACKUP_HOURS: i64 = 24;
/// By how much the clock may stand before what the store has seen; unit: seconds.
const CLOCK_SECONDS: i64 = 60;
/// What is found where the key opens what is in the store.
const READY: &str = "store: the master key opens what is sealed in it";
/// Stands for the tag where there is none: nothing on the host carries it.
const NO_TAG: &str = "none";
/// What a lost master key means, in the order in which an operator asks.
const KEY_LOST: &str = "goes on: every database, with its users, passwords, certificates and \
    addresses, until its host reboots or its certificate ends\n\
    can be recovered: tenants' data, which are not encrypted under it (dump them as the engine's \
    own users, or take the volumes); names, owners, flavors and history, which stand in the clear\n\
    cannot be recovered: the keys of Coffer's and the projects' certificate authorities, commands \
    that were waiting with passwords in them, the way into guests that run";
/// Version of the guests that belong to this Coffer.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Prints what was found. Fails when something does not work.
pub(crate) async fn doctor(place: &Place, options: &Options) -> anyhow::Result<ExitCode> {
    let config = place.load()?;
    let state = StateDir::existing(&config.state.dir)?;
    let mut findings = own(&config, &state).await?;
    let tag = state.known_tag().unwrap_or_else(|| NO_TAG.to_owned());
    let local = assemble::local_config(&config, &state, tag)?;
    let host = tokio::task::spawn_blocking(move || coffer_infra::local::doctor::doctor(&local));
    findings.extend(host.await?);
    if findings.iter().any(is_ready) {
        findings.extend(trackers(&config, &state).await);
    }
    findings.sort_by_key(|finding| std::cmp::Reverse(weight(finding.level)));
    if options.json {
        let all: Vec<_> = findings.iter().map(finding_json).collect();
        emit(&format!("{}\n", serde_json::to_string_pretty(&all)?))?;
    } else {
        emit(&findings.iter().map(in_words).collect::<String>())?;
    }
    let is_broken = findings.iter().any(|f| f.level == Level::Problem);
    Ok(if is_broken {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

const fn weight(level: Level) -> u8 {
    match level {
        Level::Problem => 2,
        Level::Advice => 1,
        Level::Good => 0,
    }
}

/// Whether it says that store and key can be used: only then the store is asked for more.
fn is_ready(finding: &Finding) -> bool {
    finding.level == Level::Good && finding.what == READY
}

/// What is found of Coffer itself.
async fn own(config: &Config, state: &StateDir) -> anyhow::Result<Vec<Finding>> {
    let url: StoreUrl = config.store_url().parse()?;
    let mut findings = vec![key_file(state)];
    if keys::is_rotating(state) {
        findings.push(advice(
            "master key: a rotation was begun and not ended",
            "the old key still opens what it sealed, and no backup of the state can be made",
            "coffer key rotate, which goes on with it",
        ));
    }
    if let StoreUrl::SqliteFile(path) = &url {
        let (one, schema) = file_findings(path);
        findings.extend(one);
        if !schema {
            return Ok(findings);
        }
    }
    let store = match Store::open_as_is(&url).await {
        Ok(store) => store,
        Err(error) => {
            findings.push(unreadable(&error));
            return Ok(findings);
        }
    };
    findings.extend(opened(&store, state, config, &url).await);
    store.close().await;
    Ok(findings)
}

/// What is found in a store that could be opened.
async fn opened(store: &Store, state: &StateDir, config: &Config, url: &StoreUrl) -> Vec<Finding> {
    let mut findings = Vec::new();
    if matches!(url, StoreUrl::Postgres(_)) {
        let found = store.schema().await;
        let is_ours = found
            .as_ref()
            .is_ok_and(|found| *found == file::newest_schema());
        findings.push(schema(found));
        if !is_ours {
            return findings;
        }
    }
    let now = SystemClock::new().now();
    match in_store(store, state, config, now).await {
        Ok(more) => findings.extend(more),
        Err(error) => findings.push(unreadable(&error)),
    }
    findings
}

/// What it means which schema a store has.
fn schema(found: Result<i64, StoreError>) -> Finding {
    let newest = file::newest_schema();
    match found {
        Ok(found) if found == newest => good(
            "store: whole, with the schema of this version",
            "it can be used",
        ),
        Ok(0) => advice(
            "store: it has no schema yet",
            "the first start did not come to its end",
            "coffer up, which makes it",
        ),
        Ok(found) if found < newest => problem(
            format!("store: its schema is {found}, this version's is {newest}"),
            "it was written by an older Coffer, and this one does not start on it; databases go on \
             serving",
            "coffer upgrade, which keeps a way back",
        ),
        Ok(found) => problem(
            format!("store: its schema is {found}, this version knows {newest}"),
            "a newer Coffer upgraded it, and this one does not start on it",
            "run the newer one, or put back the store that its upgrade kept in 'upgrades'",
        ),
        Err(error) => unreadable(&error),
    }
}

fn unreadable(error: &StoreError) -> Finding {
    problem(
        format!("store: it cannot be read: {}", chain(error)),
        "Coffer does not start; databases go on serving",
        "if its file is damaged or lost: coffer state restore, from the newest backup",
    )
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(one) = source {
        text.push_str(&format!(": {one}"));
        source = one.source();
    }
    text
}

fn key_file(state: &StateDir) -> Finding {
    let path = state.join(MASTER_KEY);
    if !path.exists() {
        return lost(state);
    }
    if let Err(error) = state.master_keys() {
        return problem(
            format!("master key: {error:#}"),
            "no stored secret can be read; databases go on serving",
            "put back the file, from where you keep it or out of a sealed backup of the state",
        );
    }
    let mode = fs::metadata(&path).map_or(0, |facts| facts.permissions().mode());
    if mode & 0o077 != 0 {
        return problem(
            format!("master key: others may read {}", path.display()),
            "whoever reads it and the store reads every secret",
            format!("chmod 600 {}, then coffer key rotate", path.display()),
        );
    }
    good(
        "master key: there, and its owner's only",
        "stored secrets can be read",
    )
}

fn lost(state: &StateDir) -> Finding {
    problem(
        assemble::key_lost(state),
        KEY_LOST,
        "put it back, from where you keep it or out of a sealed backup of the state; if it is \
         really gone, docs/operations.md says how to go on",
    )
}

/// What is found of the file, and whether this build can read what is in it.
fn file_findings(path: &Path) -> (Vec<Finding>, bool) {
    let mut findings = Vec::new();
    if let Err(error) = file::quick_check(path) {
        return (vec![no_store(path, &error)], false);
    }
    let is_writable = fs::OpenOptions::new().append(true).open(path).is_ok();
    if !is_writable {
        findings.push(problem(
            format!("store: {} cannot be written", path.display()),
            "nothing can be changed and no health is recorded; databases go on serving",
            "mount its file system read-write, or give the file to the user that runs coffer",
        ));
    }
    let found = file::schema(path);
    let is_ours = found
        .as_ref()
        .is_ok_and(|found| *found == file::newest_schema());
    findings.push(schema(found));
    (findings, is_ours && is_writable)
}

/// What it means that there is no whole store in its file.
fn no_store(path: &Path, error: &StoreError) -> Finding {
    if matches!(error, StoreError::DamagedFile { .. }) {
        return problem(
            format!("store: {error}"),
            "what is stored cannot be relied on; databases go on serving",
            "stop Coffer, keep the file aside, and coffer state restore from the newest backup",
        );
    }
    if file::is_there(path).is_none() {
        return problem(
            format!("store: {} is not there", path.display()),
            "Coffer does not start where instances are; databases go on serving",
            "see that state.store_url names the right file; if it was lost: coffer state restore, \
             from the newest backup",
        );
    }
    problem(
        format!("store: {error}"),
        "Coffer does not start; databases go on serving",
        "mount its file system, and give the file and its directory to the user that runs coffer; \
         if the disk fails: coffer state restore on another, from the newest backup",
    )
}

async fn in_store(
    store: &Store,
    state: &StateDir,
    config: &Config,
    now: Timestamp,
) -> Result<Vec<Finding>, StoreError> {
    let noted = store.get_setting(BACKED_UP).await?;
    let url: Result<StoreUrl, _> = config.store_url().parse();
    let is_apart = matches!(url, Ok(StoreUrl::Postgres(_)));
    let mut findings = vec![backup(noted, now, is_apart)];
    match key_fits(store, state).await {
        true => findings.push(good(READY, "what Coffer has sealed can be read")),
        // That there is none, or a damaged one, is found without the store.
        false if state.master_keys().is_err() => {}
        false => findings.push(lost(state)),
    }
    findings.extend(tag(store.get_setting(assemble::HOST).await?, state));
    if let Some(mark) = store.restored().await? {
        findings.push(problem(
            format!("state: restored at {} and not confirmed", mark.restored_at),
            "Coffer only looks: nothing is created, recovered or removed, and changes are refused",
            "coffer state report, then coffer state confirm",
        ));
    }
    findings.extend(clock(store.newest_time().await?, now));
    findings.extend(guests(store).await?);
    findings.extend(overdue(store, now).await?);
    findings.extend(roots(store, config).await?);
    Ok(findings)
}

/// What it means when the state was backed up last. A store that is `apart`, in PostgreSQL, is not
/// in that backup, and Coffer does not know whether its own was made.
fn backup(noted: Option<String>, now: Timestamp, is_apart: bool) -> Finding {
    let means = "what was created or changed since would have to be adopted by hand";
    let todo = "coffer state backup DIR --passphrase-file FILE, every day (docs/operations.md)";
    let at = noted
        .and_then(|text| text.parse().ok())
        .map(Timestamp::from_micros);
    match at {
        None => advice("state backup: none was ever made", means, todo),
        Some(at) if now > at.plus_seconds(BACKUP_HOURS * 3_600) => {
            let hours = now.millis_since(at) / 3_600_000;
            advice(format!("state backup: {hours} hours old"), means, todo)
        }
        Some(at) if is_apart => good(
            format!("state backup: made at {at}, without the store, which is PostgreSQL"),
            "with a pg_dump of the same time the state of then can be restored; whether one was \
             made Coffer does not know",
        ),
        Some(at) => good(
            format!("state backup: made at {at}"),
            "the state of then can be restored",
        ),
    }
}

/// Whether the state directory is that of the store.
fn tag(of_store: Option<String>, state: &StateDir) -> Option<Finding> {
    let wanted = of_store.filter(|wanted| state.known_tag().as_ref() != Some(wanted))?;
    let file = state.join(TAG);
    let file = file.display();
    Some(problem(
        format!("tag: {file} does not hold '{wanted}', the tag of this store's instances"),
        "task manager, conductor and tracker do not start here; databases go on serving",
        format!("name the state directory of that Coffer, or write {wanted} into {file}"),
    ))
}

async fn key_fits(store: &Store, state: &StateDir) -> bool {
    let Ok(keys) = state.master_keys() else {
        return false;
    };
    let source = Arc::new(state.key_files());
    let secrets = SecretBox::following(keys, source, Arc::new(SystemEntropy));
    authority::probe(store, &secrets).await.is_ok()
}

fn clock(newest: Option<Timestamp>, now: Timestamp) -> Option<Finding> {
    let newest = newest.filter(|newest| *newest > now.plus_seconds(CLOCK_SECONDS))?;
    Some(problem(
        format!("clock: it stands at {now}, and the store has seen {newest}"),
        "tasks that are due wait until then, tokens live longer, new certificates begin too early",
        "set the clock right (systemd-timesyncd or chrony); leases do not depend on it",
    ))
}

async fn guests(store: &Store) -> Result<Option<Finding>, StoreError> {
    let links = store.list_live_links().await?;
    let other = links.iter().filter(|live| {
        let version = live.link.agent_version.as_deref();
        version.is_some_and(|version| version != VERSION)
    });
    let count = other.count();
    Ok((count > 0).then(|| {
        advice(
            format!(
                "guests: {count} of {} run another version than {VERSION}",
                links.len()
            ),
            "they go on serving, and lack what is new in this version",
            "a running Coffer replaces their agents, one after the other; where coffer instance \
             events NAME says that this failed: coffer instance stop NAME, and start it again",
        )
    }))
}

async fn overdue(store: &Store, now: Timestamp) -> Result<Option<Finding>, StoreError> {
    let overdue = certificates::list_overdue(store, now).await?;
    Ok((!overdue.is_empty()).then(|| {
        problem(
            format!(
                "certificates: {} instances have had no new ones for too long",
                overdue.len()
            ),
            "when they end, clients that check them cannot connect any more",
            "see why they are not renewed: coffer instance explain NAME",
        )
    }))
}

/// Looks at the engine roots that anything runs from or is offered from.
async fn roots(store: &Store, config: &Config) -> Result<Vec<Finding>, StoreError> {
    let mut wanted = Vec::new();
    for server in store.list_servers().await? {
        wanted.extend(server.roots);
    }
    for datastore in store.list_datastores().await? {
        let versions = store.list_datastore_versions(datastore.id).await?;
        wanted.extend(versions.into_iter().filter_map(|version| version.root));
    }
    wanted.sort();
    wanted.dedup();
    let dir = assemble::roots_dir(config);
    let looked = tokio::task::spawn_blocking(move || {
        let roots = match Roots::new(&dir) {
            Ok(roots) => roots,
            Err(error) => return vec![damaged_root(&error.to_string())],
        };
        let bad = wanted
            .iter()
            .filter_map(|root| roots.verify(root, Depth::Quick).err());
        bad.map(|error| damaged_root(&error.to_string())).collect()
    });
    Ok(looked.await.unwrap_or_default())
}

fn damaged_root(why: &str) -> Finding {
    problem(
        format!("engine root: {why}"),
        "what runs from it goes on as long as it runs; nothing can be started from it",
        "coffer image build NAME --again, with the name of its recipe",
    )
}

/// The trackers that the store knows, and whether they can be reached from here.
async fn trackers(config: &Config, state: &StateDir) -> Vec<Finding> {
    let found = async {
        let base = assemble::tool_base(config, state).await?;
        let door = assemble::door(&base, &Supervisor::new()).await?;
        let trackers = door.trackers().await?;
        base.store.close().await;
        anyhow::Ok(trackers)
    };
    match found.await {
        Err(error) => vec![Finding {
            what: format!("the store does not open: {error:#}"),
            means: "no role of Coffer can start".to_owned(),
            todo: "mend state.store_url, or the store".to_owned(),
            level: Level::Problem,
        }],
        Ok(trackers) if trackers.is_empty() => vec![Finding {
            what: "no tracker runs".to_owned(),
            means: "`coffer connect` is refused; all else works".to_owned(),
            todo: "run `coffer up`, or `coffer tracker` on the instances' host".to_owned(),
            level: Level::Advice,
        }],
        Ok(trackers) => trackers.iter().map(tracker).collect(),
    }
}

fn tracker((view, answers): &(TrackerView, bool)) -> Finding {
    let (address, links) = (&view.tracker.address, view.links);
    if *answers {
        return Finding {
            what: format!("the tracker at {address} answers; it leads to {links} instances"),
            means: "`coffer connect` goes through it".to_owned(),
            todo: String::new(),
            level: Level::Good,
        };
    }
    Finding {
        what: format!("the tracker at {address} does not answer; {links} instances' links name it"),
        means: "another one is asked instead; with none, `coffer connect` is refused".to_owned(),
        todo: "start it again, or wait until the others have forgotten it".to_owned(),
        level: Level::Advice,
    }
}

const fn level(finding: &Finding) -> &'static str {
    match finding.level {
        Level::Good => "good",
        Level::Advice => "advice",
        Level::Problem => "problem",
    }
}

fn finding_json(finding: &Finding) -> serde_json::Value {
    serde_json::json!({
        "level": level(finding),
        "what": finding.what,
        "means": finding.means,
        "todo": finding.todo,
    })
}

fn in_words(finding: &Finding) -> String {
    let mut text = format!("{:8} {}\n", level(finding), finding.what);
    for line in finding.means.lines() {
        text.push_str(&format!("         {line}\n"));
    }
    if !finding.todo.is_empty() {
        text.push_str(&format!("         to do: {}\n", finding.todo));
    }
    text
}

#[cfg(test)]
mod tests {
    use coffer_store::StoreOptions;

    use super::*;

    async fn new(dir: &Path) -> (StateDir, Config, Store) {
        let state = StateDir::open(dir, false).unwrap();
        state.new_master_keys().unwrap();
        let mut config = Config::default();
        config.state.dir = dir.to_owned();
        config.local.roots_dir = dir.join("roots");
        let url: StoreUrl = config.store_url().parse().unwrap();
        let store = Store::open(&url, StoreOptions::default()).await.unwrap();
        (state, config, store)
    }

    async fn found(config: &Config, state: &StateDir, words: &str) -> Finding {
        let all = own(config, state).await.unwrap();
        // Whatever is no good says what to do.
        assert!(
            all.iter()
                .all(|f| (f.level == Level::Good) == f.todo.is_empty())
        );
        assert!(state.known_tag().is_none(), "who looks makes nothing");
        let one = all.iter().find(|finding| finding.what.contains(words));
        one.cloned()
            .unwrap_or_else(|| panic!("no '{words}' in {all:#?}"))
    }

    #[tokio::test]
    async fn a_backup_is_missed_after_a_day() {
        let now = Timestamp::from_micros(1_795_000_000_000_000);
        let noted = |hours: i64| Some(now.plus_seconds(-hours * 3_600).micros().to_string());
        assert_eq!(backup(None, now, false).level, Level::Advice);
        assert_eq!(backup(noted(23), now, false).level, Level::Good);
        let old = backup(noted(25), now, false);
        assert_eq!(old.level, Level::Advice);
        assert!(old.what.contains("25 hours"), "{old:?}");
        // A clock that went back makes no backup old.
        assert_eq!(backup(noted(-5), now, false).level, Level::Good);
        // It says nothing of a store that is not in it.
        let apart = backup(noted(23), now, true);
        assert!(apart.what.contains("without the store"), "{apart:?}");
        assert!(apart.means.contains("does not know"), "{apart:?}");
    }

    #[tokio::test]
    async fn key_store_mark_and_clock_are_looked_at() {
        let dir = tempfile::tempdir().unwrap();
        let (state, config, store) = new(dir.path()).await;
        assert_eq!(
            found(&config, &state, "master key: there").await.level,
            Level::Good
        );
        assert_eq!(
            found(&config, &state, "store: whole").await.level,
            Level::Good
        );
        let never = found(&config, &state, "none was ever made").await;
        assert_eq!(never.level, Level::Advice);
        let now = SystemClock::new().now();
        store.mark_restored(now, now).await.unwrap();
        let mark = found(&config, &state, "not confirmed").await;
        assert_eq!(mark.level, Level::Problem);
        // The store has seen a time that has not come.
        let secrets = SecretBox::following(
            state.master_keys().unwrap(),
            Arc::new(state.key_files()),
            Arc::new(SystemEntropy),
        );
        authority::ensure(&store, &secrets, authority::API, now)
            .await
            .unwrap();
        store
            .insert_role("late", now.plus_seconds(7_200))
            .await
            .unwrap();
        assert!(clock(Some(now.plus_seconds(30)), now).is_none());
        let ahead = found(&config, &state, "clock: it stands").await;
        assert!(ahead.means.contains("tasks that are due"), "{ahead:?}");
        // A key that is another's, one that others read, and none.
        let path = state.join(MASTER_KEY);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        found(&config, &state, "others may read").await;
        fs::write(&path, [9; 32]).unwrap();
        found(&config, &state, "is not the key of this store").await;
        fs::write(&path, b"short").unwrap();
        found(&config, &state, "is damaged").await;
        fs::remove_file(&path).unwrap();
        let lost = found(&config, &state, "the master key is lost").await;
        assert_eq!(lost.level, Level::Problem);
        for words in ["goes on: ", "can be recovered: ", "cannot be recovered: "] {
            assert!(lost.means.contains(words), "{lost:?}");
        }
        let state = StateDir::existing(dir.path()).unwrap();
        let error = assemble::base(&config, &state)
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("is lost") && error.contains("go on serving"),
            "{error}"
        );
        assert!(!path.exists(), "no other key is made");
        store.close().await;
    }

    #[tokio::test]
    async fn an_older_schema_and_another_tag_are_said_and_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (state, config, store) = new(dir.path()).await;
        found(&config, &state, READY).await;
        store.put_setting(assemble::HOST, "other").await.unwrap();
        let tag = found(&config, &state, "'other'").await;
        assert_eq!(tag.level, Level::Problem);
        store.close().await;
        let path = dir.path().join("coffer.db");
        file::remove(&path).unwrap();
        let url = StoreUrl::SqliteFile(path.clone());
        let older = file::newest_schema() - 1;
        let store = Store::open_at(&url, StoreOptions::default(), older).await;
        store.unwrap().close().await;
        let schema = found(&config, &state, "its schema is").await;
        assert!(schema.todo.contains("coffer upgrade"), "{schema:?}");
        assert_eq!(schema.level, Level::Problem);
        let all = own(&config, &state).await.unwrap();
        assert!(
            !all.iter().any(is_ready),
            "nothing more is asked of it: {all:#?}"
        );
        assert_eq!(file::schema(&path).unwrap(), older);
    }

    #[tokio::test]
    async fn a_store_that_is_not_there_or_cannot_be_read_is_not_called_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let (state, config, store) = new(dir.path()).await;
        store.close().await;
        let path = dir.path().join("coffer.db");
        fs::rename(&path, dir.path().join("aside")).unwrap();
        let gone = found(&config, &state, "coffer.db is not there").await;
        assert!(gone.todo.contains("state.store_url"), "{gone:?}");
        // As another user's file would be, also for root.
        fs::create_dir(&path).unwrap();
        let closed = found(&config, &state, "cannot be read").await;
        assert!(closed.todo.contains("the user that runs"), "{closed:?}");
        let all = own(&config, &state).await.unwrap();
        assert!(!all.iter().any(|f| f.what.contains("damaged")), "{all:#?}");
    }

    #[tokio::test]
    async fn a_damaged_store_is_said_and_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let (state, config, store) = new(dir.path()).await;
        store.close().await;
        let path = dir.path().join("coffer.db");
        let mut bytes = fs::read(&path).unwrap();
        let end = bytes.len().min(40_000);
        bytes[8_192..end].fill(0x5a);
        fs::write(&path, &bytes).unwrap();
        let damaged = found(&config, &state, "is damaged").await;
        assert_eq!(damaged.level, Level::Problem);
        assert!(damaged.todo.contains("state restore"), "{damaged:?}");
        fs::write(
            &path,
            b"this is no database at all, and long enough to be read as one",
        )
        .unwrap();
        found(&config, &state, "is damaged").await;
        let error = assemble::base(&config, &state).await.unwrap_err();
        let error = format!("{error:#}");
        assert!(
            error.contains("coffer.db") && error.contains("go on serving"),
            "{error}"
        );
    }
}
