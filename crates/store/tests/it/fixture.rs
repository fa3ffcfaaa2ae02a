//! Databases for tests: a SQLite file or a PostgreSQL database of its own for each test.

use std::pin::Pin;

use coffer_store::{Durability, Store, StoreOptions, StoreUrl};
use tempfile::TempDir;

use crate::postgres;

/// LIMIT: connections of each store on PostgreSQL; the server allows 400.
const CONNECTIONS: u32 = 16;

/// What a fixture does. Boxed, or each test that awaits it compiles the drivers again.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A database of one test; gone when dropped.
pub(crate) struct Fixture {
    url: StoreUrl,
    /// Opened more than once, as several processes would.
    pub(crate) stores: Vec<Store>,
    directory: Option<TempDir>,
}

impl Fixture {
    pub(crate) fn sqlite() -> Boxed<'static, Self> {
        let directory = tempfile::tempdir().unwrap();
        let url = StoreUrl::SqliteFile(directory.path().join("coffer.db"));
        Self::open(url, Some(directory))
    }

    pub(crate) fn postgres() -> Boxed<'static, Self> {
        Box::pin(async { Self::open(postgres::new_database().await, None).await })
    }

    /// All of its stores share one connection; damage cannot be done behind its back.
    pub(crate) fn memory() -> Boxed<'static, Self> {
        Box::pin(async {
            let store = Store::open(&StoreUrl::SqliteMemory, StoreOptions::default()).await;
            let store = store.unwrap();
            Self {
                url: StoreUrl::SqliteMemory,
                stores: vec![store.clone(), store],
                directory: None,
            }
        })
    }

    fn open(url: StoreUrl, directory: Option<TempDir>) -> Boxed<'static, Self> {
        Box::pin(async move {
            let mut fixture = Self {
                url,
                stores: Vec::new(),
                directory,
            };
            for _ in 0..2 {
                fixture.stores.push(fixture.another().await);
            }
            fixture
        })
    }

    /// One more store on the same database.
    pub(crate) fn another(&self) -> Boxed<'_, Store> {
        let options = StoreOptions {
            durability: Durability::Off,
            connections: CONNECTIONS,
            ..StoreOptions::default()
        };
        Box::pin(async move { Store::open(&self.url, options).await.unwrap() })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.stores[0]
    }

    pub(crate) fn url(&self) -> &StoreUrl {
        &self.url
    }

    /// Whether processes hear of each other's commits.
    pub(crate) fn has_notify(&self) -> bool {
        self.directory.is_none() && !matches!(self.url, StoreUrl::SqliteMemory)
    }

    /// Whether anything can be done behind the store's back: one in memory is nobody else's.
    pub(crate) const fn has_back_door(&self) -> bool {
        !matches!(self.url, StoreUrl::SqliteMemory)
    }

    /// Runs a statement behind the store's back.
    pub(crate) fn raw<'a>(&'a self, sql: &'static str) -> Boxed<'a, ()> {
        Box::pin(async move {
            match &self.url {
                StoreUrl::SqliteFile(path) => {
                    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
                    let pool = sqlx::SqlitePool::connect_with(options).await.unwrap();
                    sqlx::query(sql).execute(&pool).await.unwrap();
                    pool.close().await;
                }
                StoreUrl::Postgres(url) => {
                    let pool = sqlx::PgPool::connect(url.expose()).await.unwrap();
                    sqlx::query(sql).execute(&pool).await.unwrap();
                    pool.close().await;
                }
                StoreUrl::SqliteMemory => unreachable!("fixtures are files or PostgreSQL"),
            }
        })
    }
}
