//! Connections to PostgreSQL as `coffer` over the local socket.
//!
//! The options of every connection pin what a tenant's superuser could have set for the role or
//! the database: the search path, quoting, and that no statement is logged (statements hold
//! password verifiers, never passwords). This is the only module of the crate that spawns a task.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Row, SimpleQueryMessage};

use crate::error::{EngineError, Result};
use crate::postgresql::{PORT, names};
use crate::runtime::EngineHost;

const OPTIONS: &str = "-c search_path=pg_catalog -c standard_conforming_strings=on \
     -c log_statement=none -c log_min_error_statement=panic -c log_min_duration_statement=-1 \
     -c default_transaction_read_only=off -c synchronous_commit=on -c statement_timeout=0 \
     -c lock_timeout=30000 -c idle_in_transaction_session_timeout=0 -c role=none";

/// What versions from 17 on know beside them, which is the first of them.
const TRANSACTION_TIMEOUT: (&str, u32) = (" -c transaction_timeout=0", 17);

/// LIMIT: how long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection; dropping it closes it.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    driver: JoinHandle<()>,
    /// Whether all that was asked was answered well.
    is_clean: AtomicBool,
    /// Whether [`Session::prepare_once`] has prepared its statements.
    is_prepared: AtomicBool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects to a database.
pub(super) async fn open(host: &dyn EngineHost, database: &str) -> Result<Session> {
    let mut options = OPTIONS.to_owned();
    if host
        .version()
        .parse()
        .is_ok_and(|version: u32| version >= TRANSACTION_TIMEOUT.1)
    {
        options.push_str(TRANSACTION_TIMEOUT.0);
    }
    let mut config = Config::new();
    config
        .host_path(&host.layout().run_dir)
        .port(PORT)
        .user(names::COFFER)
        .dbname(database)
        .application_name("coffer")
        .connect_timeout(CONNECT_TIMEOUT)
        .options(options);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, config.connect(NoTls)).await;
    let (client, connection) = match connected {
        Ok(result) => result.map_err(|error| failed("connect to the database", &error))?,
        Err(_) => {
            return Err(EngineError::Down {
                why: "no answer to a connection".to_owned(),
            });
        }
    };
    Ok(Session {
        client,
        driver: drive(connection),
        is_clean: AtomicBool::new(true),
        is_prepared: AtomicBool::new(false),
    })
}

/// A connection to Coffer's own database. Dropped, it is kept for the next who asks, if all went
/// well over it: a process of the engine for each command would cost more than most of them.
#[derive(Debug)]
pub(super) struct Own {
    session: Option<Session>,
    run_dir: PathBuf,
}

impl Deref for Own {
    type Target = Session;

    fn deref(&self) -> &Session {
        self.session.as_ref().expect("it is there until the drop")
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let is_good = |session: &Session| {
            session.is_clean.load(Ordering::Relaxed) && !session.client.is_closed()
        };
        if let Some(session) = self.session.take().filter(is_good) {
            let run_dir = std::mem::take(&mut self.run_dir);
            *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some((run_dir, session));
        }
    }
}

/// A kept connection with the socket directory it leads to.
type Kept = Option<(PathBuf, Session)>;

/// The connection that is kept.
static KEPT: Mutex<Kept> = Mutex::new(None);

/// Connects to Coffer's own database, over the connection that is kept or a new one.
pub(super) async fn open_own(host: &dyn EngineHost) -> Result<Own> {
    let run_dir = host.layout().run_dir.clone();
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take();
    let session = match kept {
        Some((path, session)) if path == run_dir && !session.client.is_closed() => session,
        Some(_) | None => open(host, names::COFFER).await?,
    };
    Ok(Own {
        session: Some(session),
        run_dir,
    })
}

/// Connects to Coffer's own database for something that ends with its connection.
pub(super) async fn open_apart(host: &dyn EngineHost) -> Result<Session> {
    open(host, names::COFFER).await
}

#[expect(
    clippy::disallowed_methods,
    reason = "the connection's driver belongs to the session, which aborts it when dropped"
)]
fn drive<S, T>(connection: tokio_postgres::Connection<S, T>) -> JoinHandle<()>
where
    tokio_postgres::Connection<S, T>: Future + Send + 'static,
{
    tokio::spawn(async move {
        // The client learns of a broken connection at its next statement.
        connection.await;
    })
}

impl Session {
    /// Runs statements without results, all in one transaction.
    pub(super) async fn run(&self, what: &'static str, sql: &str) -> Result<()> {
        self.answer(what, self.client.batch_execute(sql)).await
    }

    /// Prepares statements, unless this connection did before.
    pub(super) async fn prepare_once(&self, what: &'static str, sql: &str) -> Result<()> {
        if !self.is_prepared.load(Ordering::Relaxed) {
            self.run(what, sql).await?;
            self.is_prepared.store(true, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Waits for an answer. Whoever does not wait to its end leaves a connection that is not
    /// clean: the next one would wait for that answer, too.
    async fn answer<T>(
        &self,
        what: &'static str,
        asked: impl Future<Output = std::result::Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        let was_clean = self.is_clean.swap(false, Ordering::Relaxed);
        let answer = asked.await.map_err(|error| failed(what, &error))?;
        self.is_clean.store(was_clean, Ordering::Relaxed);
        Ok(answer)
    }

    /// Runs a query with parameters.
    pub(super) async fn rows(
        &self,
        what: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        self.answer(what, self.client.query(sql, parameters)).await
    }

    /// The one row of a batch of statements, as text.
    pub(super) async fn text_row(
        &self,
        what: &'static str,
        sql: &str,
    ) -> Result<Vec<Option<String>>> {
        let answer = self.answer(what, self.client.simple_query(sql)).await?;
        let row = answer.into_iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.ok_or_else(|| EngineError::Failed {
            what,
            why: "no row".to_owned(),
        })?;
        Ok((0..row.len())
            .map(|i| row.get(i).map(str::to_owned))
            .collect())
    }
}

/// What the server said; its text only, as details may quote values.
fn failed(what: &'static str, error: &tokio_postgres::Error) -> EngineError {
    match error.as_db_error() {
        Some(db) if db.code().code().starts_with("57P") => EngineError::Down {
            why: db.message().to_owned(),
        },
        Some(db) => EngineError::Failed {
            what,
            why: format!("{} ({})", db.message(), db.code().code()),
        },
        None => {
            use std::error::Error;
            let why = error
                .source()
                .map_or_else(|| error.to_string(), ToString::to_string);
            EngineError::Down { why }
        }
    }
}
