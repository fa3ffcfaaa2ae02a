//! The store's handle: opening, options, closing. What it stores is in the other files, one per
//! resource, each with its own `impl Store`.

use std::fmt;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use coffer_core::secret::Secret;
use coffer_core::time::Timestamp;
use tokio::sync::watch;

use crate::error::{Result, StoreError};
use crate::migrate::{self, Migration};
use crate::row::{Reader, args};
use crate::sql::direct::Rewrite;
use crate::sql::{Db, SqliteTuning};

/// Where the store is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// A SQLite file; made when absent.
    SqliteFile(PathBuf),
    /// SQLite in memory, gone when the store is closed; for simulation and tests.
    SqliteMemory,
    /// A PostgreSQL database, as a `postgres://` URL that may carry a password.
    Postgres(Secret),
}

/// How much of the newest commits may be lost when power fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: every commit is synced.
    Full,
    /// Anything; for simulation and tests.
    Off,
}

/// How a store is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreOptions {
    /// What may be lost (SQLite only; PostgreSQL's own configuration decides there).
    pub durability: Durability,
    /// Connections that read (SQLite file).
    pub readers: u32,
    /// Connections in all (PostgreSQL).
    pub connections: u32,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            durability: Durability::Full,
            readers: 4,
            connections: 8,
        }
    }
}

/// The store. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    db: Db,
    /// Counts the commits that made work.
    commits: watch::Sender<u64>,
    /// Whether it was seen not to be a restored state (`restored.rs`).
    is_unmarked: AtomicBool,
}

impl Store {
    /// Opens the store and runs the migrations it lacks.
    pub async fn open(url: &StoreUrl, options: StoreOptions) -> Result<Self> {
        Self::open_with(url, options, &[]).await
    }

    /// The same with migrations of a later build: to try out an upgrade before there is one.
    pub async fn open_with(
        url: &StoreUrl,
        options: StoreOptions,
        more: &[Migration],
    ) -> Result<Self> {
        let db = Self::connect(url, options).await?;
        migrate::migrate(&db, more).await?;
        Ok(Self::on(db))
    }

    /// The same as a build left it whose newest schema was this: to try out what an upgrade keeps.
    pub async fn open_at(url: &StoreUrl, options: StoreOptions, schema: i64) -> Result<Self> {
        let db = Self::connect(url, options).await?;
        migrate::migrate_to(&db, schema).await?;
        Ok(Self::on(db))
    }

    /// Opens the store for a role: one that is new, or is being made by another role, gets its
    /// schema. One that an older Coffer has used is left to whoever upgrades it, with a way back.
    pub async fn open_new_or_present(url: &StoreUrl, options: StoreOptions) -> Result<Self> {
        let db = Self::connect(url, options).await?;
        // In this order: what makes a store new writes nothing into it before its schema is whole.
        let is_used = migrate::is_used(&db).await;
        let found = match is_used {
            Ok(is_used) => migrate::schema(&db).await.map(|schema| (is_used, schema)),
            Err(error) => Err(error),
        };
        let done = match found {
            Ok((true, schema)) if schema < migrate::newest() => Err(another_schema(schema)),
            Ok(_) => migrate::migrate(&db, &[]).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => Ok(Self::on(db)),
            Err(error) => {
                db.close().await;
                Err(error)
            }
        }
    }

    /// Opens the store for a tool beside a Coffer: one that is not there is not made, and one of
    /// another schema is left to whoever upgrades it, with a way back.
    pub async fn open_present(url: &StoreUrl) -> Result<Self> {
        if let StoreUrl::SqliteFile(path) = url
            && !path.exists()
        {
            let path = path.display();
            let problem = format!(
                "there is no store at {path}: if it was lost, coffer state restore puts a backup \
                 there; a Coffer that is new makes one when it starts"
            );
            return Err(StoreError::Open { problem });
        }
        let store = Self::open_as_is(url).await?;
        let refused = match store.schema().await {
            Ok(schema) if schema == migrate::newest() => return Ok(store),
            Ok(schema) => another_schema(schema),
            Err(error) => error,
        };
        store.close().await;
        Err(refused)
    }

    /// Whether anything was ever written into it, beside its schema.
    pub async fn is_used(&self) -> Result<bool> {
        migrate::is_used(self.db()).await
    }

    /// Number of the last migration that ran; 0 if none ever did.
    pub async fn schema(&self) -> Result<i64> {
        migrate::schema(self.db()).await
    }

    /// Opens the store as it is, whatever its schema: to look at before it is migrated.
    pub async fn open_as_is(url: &StoreUrl) -> Result<Self> {
        let db = Self::connect(url, StoreOptions::default()).await?;
        Ok(Self::on(db))
    }

    async fn connect(url: &StoreUrl, options: StoreOptions) -> Result<Db> {
        Ok(match url {
            StoreUrl::SqliteFile(path) => {
                create_private(path)?;
                let is_durable = options.durability == Durability::Full;
                let tuning = SqliteTuning {
                    is_durable,
                    readers: options.readers,
                };
                Db::open_sqlite(path, &tuning).await?
            }
            StoreUrl::SqliteMemory => Db::open_memory(Vec::new())?,
            StoreUrl::Postgres(url) => Db::open_postgres(url, options.connections).await?,
        })
    }

    /// A store in memory whose statements are weakened on purpose: for simulations that show
    /// that they notice.
    pub fn weakened(rewrites: Vec<Rewrite>) -> Result<Self> {
        Ok(Self::on(Db::open_memory(rewrites)?))
    }

    fn on(db: Db) -> Self {
        Self {
            inner: Arc::new(Inner {
                db,
                commits: watch::Sender::new(0),
                is_unmarked: AtomicBool::new(false),
            }),
        }
    }

    /// Whether the store can be written: something that says nothing is.
    pub async fn probe_write(&self) -> Result<()> {
        self.put_setting("probe", "written").await
    }

    /// The newest time that anything in the store was written at; for whoever looks at the clock.
    pub async fn newest_time(&self) -> Result<Option<Timestamp>> {
        let sql = "SELECT MAX(at) FROM (SELECT MAX(updated_at) AS at FROM tasks
            UNION ALL SELECT MAX(updated_at) FROM instances
            UNION ALL SELECT MAX(at) FROM events
            UNION ALL SELECT MAX(created_at) FROM roles) AS times";
        let row = self.db().fetch_optional(sql, args![]).await?;
        let time = row.map(|row| Reader::new(&row, "tasks").opt_time("updated_at"));
        Ok(time.transpose()?.flatten())
    }

    /// Closes every connection after its present statement.
    pub async fn close(&self) {
        self.inner.db.close().await;
    }

    pub(crate) fn db(&self) -> &Db {
        &self.inner.db
    }

    pub(crate) fn commits(&self) -> &watch::Sender<u64> {
        &self.inner.commits
    }

    pub(crate) fn is_unmarked(&self) -> &AtomicBool {
        &self.inner.is_unmarked
    }

    /// Wakes the subscribers of this process.
    pub(crate) fn announce(&self) {
        self.inner.commits.send_modify(|count| *count += 1);
    }
}

fn another_schema(schema: i64) -> StoreError {
    let own = migrate::newest();
    let todo = match schema < own {
        true => "stop Coffer, then coffer upgrade, which keeps a way back",
        false => "run the newer Coffer that upgraded it",
    };
    StoreError::OtherSchema {
        problem: format!("the store has schema {schema}, and this Coffer's is {own}: {todo}"),
    }
}

/// Makes the file readable by its owner only before SQLite, which would follow the umask, does.
fn create_private(path: &Path) -> Result<()> {
    let mut options = OpenOptions::new();
    options
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map(drop)
        .map_err(|error| {
            let problem = format!("cannot open the store at {}: {error}", path.display());
            StoreError::Open { problem }
        })
}

impl FromStr for StoreUrl {
    type Err = StoreError;

    /// Reads `sqlite:PATH`, `sqlite::memory:` and `postgres://…`.
    fn from_str(text: &str) -> Result<Self> {
        match text.strip_prefix("sqlite:") {
            Some(":memory:") => Ok(Self::SqliteMemory),
            Some(path) if !path.is_empty() => Ok(Self::SqliteFile(
                path.strip_prefix("//").unwrap_or(path).into(),
            )),
            None if text.starts_with("postgres://") || text.starts_with("postgresql://") => {
                Ok(Self::Postgres(Secret::new(text.to_owned())))
            }
            _ => Err(StoreError::Open {
                problem: "store url is neither sqlite:PATH nor postgres://USER@HOST/DATABASE"
                    .to_owned(),
            }),
        }
    }
}

impl fmt::Display for StoreUrl {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SqliteFile(path) => write!(f, "sqlite:{}", path.display()),
            Self::SqliteMemory => f.write_str("sqlite::memory:"),
            Self::Postgres(_) => f.write_str("postgres"),
        }
    }
}
