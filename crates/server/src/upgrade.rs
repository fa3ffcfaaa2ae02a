//! `coffer upgrade`: brings an older state to this build, with a way back.
//!
//! The store is never migrated where it lies. A copy is, and is verified; only then it takes the
//! old one's place, by one rename, and the old one is kept beside. So whatever fails or is killed
//! leaves the old store as it was. Nothing of it concerns the databases, which go on serving.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail};
use coffer_cli::output::{complain, emit};
use coffer_control::authority;
use coffer_control::clock::{Clock, SystemClock, SystemEntropy};
use coffer_control::secrets::SecretBox;
use coffer_control::workflow;
use coffer_store::{Migration, Store, StoreOptions, StoreUrl, file};

use crate::args::Place;
use crate::assemble;
use crate::refusal::refused;
use crate::state::bundle::sync_dir;
use crate::state_dir::StateDir;

/// Where the stores of before are kept.
const KEPT: &str = "upgrades";
/// What the name of the copy that is migrated goes on with.
const NEXT: &str = ".next";
/// What the name of a kept store goes on with until it is whole.
const PART: &str = "part";
/// LIMIT: tasks that are named when they are in the way.
const NAMED_MAX: usize = 20;

/// Upgrades the state directory. With `if_started`, where none is, nothing is to do.
pub(crate) async fn upgrade(
    place: &Place,
    store_is_backed_up: bool,
    if_started: bool,
) -> anyhow::Result<ExitCode> {
    let config = place.load()?;
    let url: StoreUrl = config.store_url().parse()?;
    if if_started && !is_started(&config.state.dir, &url) {
        emit("no Coffer has started here yet: nothing to do\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    StateDir::existing(&config.state.dir)?;
    let state = StateDir::alone(&config.state.dir)?;
    match &url {
        StoreUrl::SqliteFile(path) => {
            let done = upgrade_file(&state, path, &[]).await?;
            emit(&in_words(&done))?;
        }
        _ => upgrade_server(&url, store_is_backed_up).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Whether a Coffer has started on the directory, and its store is where it is looked for: of one
/// that was lost, whoever starts tells more.
fn is_started(dir: &Path, url: &StoreUrl) -> bool {
    let has_store = match url {
        StoreUrl::SqliteFile(path) => path.exists(),
        _ => true,
    };
    has_store && StateDir::is_begun(dir)
}

/// What an upgrade did.
#[derive(Debug, PartialEq, Eq)]
struct Upgraded {
    from: i64,
    to: i64,
    /// The store of before.
    kept: Option<PathBuf>,
}

impl Upgraded {
    /// Of a store that nothing was written into, as a first start that was killed leaves it: the
    /// next one makes its schema.
    const NONE: Self = Self {
        from: 0,
        to: 0,
        kept: None,
    };
}

async fn is_used(url: &StoreUrl) -> anyhow::Result<bool> {
    let store = Store::open_as_is(url).await?;
    let is_used = store.is_used().await;
    store.close().await;
    Ok(is_used?)
}

fn refuse_newer(schema: i64, own: i64) -> anyhow::Result<()> {
    match schema <= own {
        true => Ok(()),
        false => Err(refused(format!(
            "the store has schema {schema}, this Coffer knows {own}: run the newer Coffer that \
             upgraded it"
        ))),
    }
}

fn in_words(done: &Upgraded) -> String {
    match &done.kept {
        None if done.to == 0 => "the store is new: nothing to do\n".to_owned(),
        None => format!("the store has schema {} already: nothing to do\n", done.to),
        Some(kept) => format!(
            "the store was brought from schema {} to {}; as it was it is kept in {}\n",
            done.from,
            done.to,
            kept.display()
        ),
    }
}

/// Upgrades a SQLite store that nobody uses. `more` are migrations of a build to come.
async fn upgrade_file(
    state: &StateDir,
    path: &Path,
    more: &[Migration],
) -> anyhow::Result<Upgraded> {
    let from = file::schema(path)?;
    let to = more.last().map_or_else(file::newest_schema, |last| last.0);
    refuse_newer(from, to)?;
    let next = file::beside(path, NEXT);
    // Of an upgrade that was killed.
    file::remove(&next)?;
    if !is_used(&StoreUrl::SqliteFile(path.to_owned())).await? {
        return Ok(Upgraded::NONE);
    }
    refuse_unknown(&StoreUrl::SqliteFile(path.to_owned())).await?;
    if from == to {
        return Ok(Upgraded {
            from,
            to,
            kept: None,
        });
    }
    file::check(path).context("look at the store before the upgrade")?;
    let kept = keep(state, path, from)?;
    let upgraded = migrate_copy(state, path, &next, more).await;
    if let Err(error) = upgraded.and_then(|()| take_place(&next, path)) {
        file::remove(&next)?;
        let why =
            "the upgrade failed, and the store is as it was: run the Coffer of before, or see";
        return Err(error.context(why));
    }
    sync_dir(path)?;
    Ok(Upgraded {
        from,
        to,
        kept: Some(kept),
    })
}

/// Puts the migrated copy in the store's place.
fn take_place(next: &Path, path: &Path) -> anyhow::Result<()> {
    // Nobody has the old one open, so that this ends its log: none may be left beside the new one.
    file::settle(path)?;
    fs::rename(next, path).with_context(|| format!("write {}", path.display()))
}

/// Tasks that this build could not go on with stay with the build that can.
async fn refuse_unknown(url: &StoreUrl) -> anyhow::Result<()> {
    let store = Store::open_as_is(url).await?;
    let tasks = store.list_open_tasks().await;
    store.close().await;
    let unknown: Vec<String> = tasks?
        .into_iter()
        .filter_map(|task| {
            let why = workflow::unknown(&task.workflow, &task.step, &task.input)?;
            Some(format!("task {}: {why}", task.id))
        })
        .collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let named = unknown.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>();
    Err(refused(format!(
        "{} tasks are under way that this Coffer does not know; nothing was changed. Start the \
         Coffer of before and let them end, or cancel them:\n  {}",
        unknown.len(),
        named.join("\n  ")
    )))
}

/// Keeps the store as it is.
fn keep(state: &StateDir, path: &Path, schema: i64) -> anyhow::Result<PathBuf> {
    let dir = state.join(KEPT);
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let now = SystemClock::new().now().micros();
    let kept = dir.join(format!("coffer.db.schema-{schema}.{now}"));
    // Of upgrades that were killed.
    for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|end| end == PART) {
            file::remove(&path)?;
        }
    }
    // Under its name it is whole: a part of it would pass for the way back.
    let part = file::beside(&kept, &format!(".{PART}"));
    let copied = file::snapshot(path, &part).and_then(|()| file::check(&part));
    if let Err(error) = copied {
        file::remove(&part)?;
        return Err(error).context("keep a copy of the store, without which nothing is upgraded");
    }
    fs::rename(&part, &kept).with_context(|| format!("write {}", kept.display()))?;
    sync_dir(&kept)?;
    sync_dir(&dir)?;
    Ok(kept)
}

/// Migrates a copy, and sees that everything in it can be read and nothing is missing.
async fn migrate_copy(
    state: &StateDir,
    path: &Path,
    next: &Path,
    more: &[Migration],
) -> anyhow::Result<()> {
    file::snapshot(path, next)?;
    let before = file::row_counts(next)?;
    let url = StoreUrl::SqliteFile(next.to_owned());
    let store = Store::open_with(&url, StoreOptions::default(), more).await?;
    let read = verify(state, &store).await;
    store.close().await;
    read?;
    refuse_unknown(&url).await?;
    file::settle(next)?;
    file::check(next)?;
    let after = file::row_counts(next)?;
    for (table, rows) in before {
        let left = after.iter().find(|(name, _)| *name == table);
        // A migration may take a table away; it may not lose rows of one that it leaves.
        if let Some((_, left)) = left
            && *left < rows
        {
            bail!("the migration lost rows of {table}: {rows} before, {left} after");
        }
    }
    Ok(())
}

async fn verify(state: &StateDir, store: &Store) -> anyhow::Result<()> {
    for (id, ..) in store.list_instance_ids().await? {
        let read = store.get_instance_graph(id).await;
        read.with_context(|| format!("read instance {id} in the migrated store"))?;
    }
    let keys = state.master_keys()?;
    let source = Arc::new(state.key_files());
    let secrets = SecretBox::following(keys, source, Arc::new(SystemEntropy));
    if authority::probe(store, &secrets).await.is_err() {
        bail!("{}", assemble::key_lost(state));
    }
    Ok(())
}

/// Upgrades a PostgreSQL store, whose snapshot is its operator's own.
async fn upgrade_server(url: &StoreUrl, is_backed_up: bool) -> anyhow::Result<()> {
    let store = Store::open_as_is(url).await?;
    let found = store.schema().await;
    store.close().await;
    let (found, to) = (found?, file::newest_schema());
    refuse_newer(found, to)?;
    if !is_used(url).await? {
        return Ok(emit(&in_words(&Upgraded::NONE))?);
    }
    refuse_unknown(url).await?;
    if found == to {
        let done = Upgraded {
            from: found,
            to: found,
            kept: None,
        };
        return Ok(emit(&in_words(&done))?);
    }
    if !is_backed_up {
        return Err(refused(
            "the store is PostgreSQL, of which Coffer keeps no copy: back it up with pg_dump \
             --format=custom, then give --store-is-backed-up; a migration that fails is rolled \
             back, one that succeeds is not",
        ));
    }
    let store = Store::open(url, StoreOptions::default()).await?;
    for (id, ..) in store.list_instance_ids().await? {
        store.get_instance_graph(id).await?;
    }
    store.close().await;
    complain("the way back is pg_restore");
    Ok(emit("the store is up to date\n")?)
}

#[cfg(test)]
mod tests {
    use coffer_store::file::row_counts;

    use super::*;

    /// A store of the first schema, with a task of each workflow of then under way
    /// (`tests/fixtures/README.md`).
    const FIRST: &[u8] = include_bytes!("../tests/fixtures/schema-1.db");
    /// Stores as earlier Coffers left them: their schema, and how many tasks are under way.
    const STORES: &[(i64, &[u8], usize)] = &[
        (1, FIRST, 6),
        (5, include_bytes!("../tests/fixtures/schema-5.db"), 10),
        (6, include_bytes!("../tests/fixtures/schema-6.db"), 10),
    ];
    /// Stands for the schema of a build to come.
    const NEXT_SCHEMA: Migration = (
        1_000,
        "made up",
        "ALTER TABLE instances ADD COLUMN colour TEXT NOT NULL DEFAULT 'none';
         CREATE TABLE colours (name TEXT NOT NULL PRIMARY KEY);
         INSERT INTO colours (name) SELECT DISTINCT colour FROM instances;",
    );

    struct Fixture {
        dir: tempfile::TempDir,
        state: StateDir,
        path: PathBuf,
    }

    fn fixture() -> Fixture {
        fixture_of(FIRST)
    }

    fn fixture_of(store: &[u8]) -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("master.key"), [1; 32]).unwrap();
        let path = dir.path().join("coffer.db");
        fs::write(&path, store).unwrap();
        let state = StateDir::alone(dir.path()).unwrap();
        Fixture { dir, state, path }
    }

    fn kept(fixture: &Fixture) -> Vec<PathBuf> {
        let dir = fs::read_dir(fixture.dir.path().join(KEPT));
        let entries = dir.into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    }

    async fn open_tasks(path: &Path) -> Vec<String> {
        let url = StoreUrl::SqliteFile(path.to_owned());
        let store = Store::open_as_is(&url).await.unwrap();
        let tasks = store.list_open_tasks().await.unwrap();
        store.close().await;
        tasks.into_iter().map(|task| task.workflow).collect()
    }

    #[tokio::test]
    async fn a_store_of_the_first_schema_is_upgraded_with_its_tasks_and_kept() {
        let fixture = fixture();
        assert_eq!(file::schema(&fixture.path).unwrap(), 1);
        let tasks = open_tasks(&fixture.path).await;
        assert_eq!(tasks.len(), 6, "{tasks:?}");
        let before = row_counts(&fixture.path).unwrap();
        let done = upgrade_file(&fixture.state, &fixture.path, &[])
            .await
            .unwrap();
        assert_eq!((done.from, done.to), (1, file::newest_schema()));
        assert_eq!(file::schema(&fixture.path).unwrap(), file::newest_schema());
        assert_eq!(open_tasks(&fixture.path).await, tasks);
        let kept = kept(&fixture);
        assert_eq!(kept, done.kept.into_iter().collect::<Vec<_>>());
        assert_eq!(file::schema(&kept[0]).unwrap(), 1, "the way back");
        assert_eq!(row_counts(&kept[0]).unwrap(), before);
        // Asked again, it has nothing to do and keeps nothing more.
        let again = upgrade_file(&fixture.state, &fixture.path, &[])
            .await
            .unwrap();
        assert_eq!(again.kept, None);
    }

    /// Each store that a Coffer left behind is brought to the next schema, whatever that is, with
    /// every task and every row; the way back is beside.
    #[tokio::test]
    async fn the_store_of_every_schema_is_upgraded_with_all_that_is_in_it() {
        for (schema, bytes, count) in STORES {
            let fixture = fixture_of(bytes);
            assert_eq!(file::schema(&fixture.path).unwrap(), *schema);
            let tasks = open_tasks(&fixture.path).await;
            assert_eq!(tasks.len(), *count, "{tasks:?}");
            let before = row_counts(&fixture.path).unwrap();
            let done = upgrade_file(&fixture.state, &fixture.path, &[NEXT_SCHEMA]).await;
            let done = done.unwrap();
            assert_eq!((done.from, done.to), (*schema, 1_000));
            assert_eq!(open_tasks(&fixture.path).await, tasks);
            let after = row_counts(&fixture.path).unwrap();
            for (table, rows) in &before {
                let left = after.iter().find(|(name, _)| name == table);
                let is_history = table == "schema_version";
                assert!(
                    left.is_some_and(|(_, left)| is_history || left == rows),
                    "{table}"
                );
            }
            assert_eq!(row_counts(&kept(&fixture)[0]).unwrap(), before);
        }
    }

    /// Whoever adds a migration or a workflow leaves a store of it for the next.
    #[tokio::test]
    async fn there_is_a_store_of_the_newest_schema_with_every_workflow_under_way() {
        let (schema, bytes, _) = STORES.last().unwrap();
        let newest = file::newest_schema();
        let todo = "run crates/server/tests/fixtures/make.py and name its store in STORES";
        assert_eq!(*schema, newest, "{todo}");
        let tasks = open_tasks(&fixture_of(bytes).path).await;
        for one in workflow::registry() {
            let is_there = tasks.iter().any(|task| task == one.name());
            assert!(is_there, "no task of {} is under way: {todo}", one.name());
        }
    }

    /// What a killed upgrade left is no way back, and in nobody's way.
    #[tokio::test]
    async fn an_upgrade_that_was_killed_is_done_again() {
        let fixture = fixture();
        let next = file::beside(&fixture.path, NEXT);
        fs::write(&next, "half").unwrap();
        let dir = fixture.dir.path().join(KEPT);
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("coffer.db.schema-1.1.part"), "half").unwrap();
        let done = upgrade_file(&fixture.state, &fixture.path, &[]).await;
        let whole = done.unwrap().kept.unwrap();
        file::check(&whole).unwrap();
        assert_eq!(kept(&fixture), [whole]);
        assert!(!next.exists());
        // With no place to keep it in, nothing is upgraded.
        let other = self::fixture();
        fs::write(other.dir.path().join(KEPT), "no directory").unwrap();
        let before = fs::read(&other.path).unwrap();
        let error = upgrade_file(&other.state, &other.path, &[]).await;
        assert!(error.is_err());
        assert_eq!(fs::read(&other.path).unwrap(), before);
    }

    #[tokio::test]
    async fn a_made_up_next_schema_is_reached_and_the_present_build_then_refuses() {
        let fixture = fixture();
        let done = upgrade_file(&fixture.state, &fixture.path, &[NEXT_SCHEMA]).await;
        assert_eq!(done.unwrap().to, 1_000);
        let rows = row_counts(&fixture.path).unwrap();
        assert!(rows.contains(&("colours".to_owned(), 1)), "{rows:?}");
        let older = upgrade_file(&fixture.state, &fixture.path, &[]).await;
        let error = older.unwrap_err().to_string();
        assert!(error.contains("schema 1000"), "{error}");
        let url = StoreUrl::SqliteFile(fixture.path.clone());
        let opened = Store::open(&url, StoreOptions::default()).await;
        let error = opened.unwrap_err().to_string();
        assert!(error.contains("a newer one upgraded it"), "{error}");
    }

    #[tokio::test]
    async fn a_migration_that_fails_or_loses_rows_leaves_the_store_as_it_was() {
        for (bad, why) in [
            ("ALTER TABLE nothing ADD COLUMN x TEXT", "nothing"),
            ("DELETE FROM task_steps; DELETE FROM tasks", "lost rows of"),
            ("UPDATE instances SET lifecycle = 'dancing'", "lifecycle"),
            ("UPDATE tasks SET step = '{\"step\":\"waltz\"}'", "waltz"),
        ] {
            let fixture = fixture();
            let before = fs::read(&fixture.path).unwrap();
            let more = [(1_000, "bad", bad)];
            let error = upgrade_file(&fixture.state, &fixture.path, &more).await;
            let error = format!("{:?}", error.unwrap_err());
            assert!(
                error.contains(why) && error.contains("as it was"),
                "{error}"
            );
            assert_eq!(fs::read(&fixture.path).unwrap(), before, "{bad}");
            assert!(!file::beside(&fixture.path, NEXT).exists(), "{bad}");
            assert_eq!(kept(&fixture).len(), 1);
            // Nothing is in the way of the next try.
            upgrade_file(&fixture.state, &fixture.path, &[])
                .await
                .unwrap();
        }
    }

    #[tokio::test]
    async fn tasks_that_this_build_does_not_know_are_named_and_nothing_is_touched() {
        let fixture = fixture();
        let strange = (1_000, "strange", "UPDATE tasks SET workflow = 'dance'");
        let url = StoreUrl::SqliteFile(fixture.path.clone());
        let store = Store::open_with(&url, StoreOptions::default(), &[strange]).await;
        store.unwrap().close().await;
        let later = [strange, (1_001, "later", "SELECT 1")];
        let error = upgrade_file(&fixture.state, &fixture.path, &later).await;
        let error = error.unwrap_err().to_string();
        assert!(error.starts_with("6 tasks are under way"), "{error}");
        assert!(error.contains("no workflow 'dance'"), "{error}");
        assert_eq!(file::schema(&fixture.path).unwrap(), 1_000);
        assert!(kept(&fixture).is_empty());
    }

    #[tokio::test]
    async fn a_service_that_starts_afterwards_is_not_kept_from_its_first_start() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place {
            state_dir: Some(dir.path().join("state")),
            ..Place::default()
        };
        upgrade(&place, false, true).await.unwrap();
        assert!(!dir.path().join("state").exists(), "nothing was made");
        let error = upgrade(&place, false, false).await.unwrap_err().to_string();
        assert!(error.contains("no Coffer has started"), "{error}");
        // Killed before there was a store, and before that had a schema.
        let state = StateDir::open(&dir.path().join("state"), false).unwrap();
        state.new_master_keys().unwrap();
        upgrade(&place, false, true).await.unwrap();
        fs::write(state.join("coffer.db"), "").unwrap();
        upgrade(&place, false, true).await.unwrap();
        let url = StoreUrl::SqliteFile(state.join("coffer.db"));
        let half = Store::open_at(&url, StoreOptions::default(), 3).await;
        half.unwrap().close().await;
        upgrade(&place, false, true).await.unwrap();
        assert!(!state.join(KEPT).exists(), "there is nothing to keep");
        let store = Store::open_new_or_present(&url, StoreOptions::default()).await;
        store.unwrap().close().await;
    }

    #[tokio::test]
    async fn nobody_upgrades_under_a_role_that_runs() {
        let fixture = fixture();
        drop(fixture.state);
        let role = StateDir::enter(fixture.dir.path(), false).unwrap();
        let error = StateDir::alone(fixture.dir.path()).unwrap_err().to_string();
        assert!(error.contains("a role of Coffer runs"), "{error}");
        drop(role);
        let upgrading = StateDir::alone(fixture.dir.path()).unwrap();
        let error = StateDir::enter(fixture.dir.path(), false).unwrap_err();
        assert!(
            error.to_string().contains("restored or upgraded"),
            "{error}"
        );
        drop(upgrading);
    }
}
