//! Connections to PostgreSQL as `coffer` over the local socket.
//!
//! The options of every connection pin what a tenant's superuser could have set for the role or
//! the database: the search path, quoting, and that no statement is logged (statements hold
//! password verifiers, never passwords). This is the only module of the crate that spawns a task.

use std::sync::Mutex;
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

/// LIMIT: how long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection; dropping it closes it.
#[derive(Debug)]
pub(super) struct Session {
    client: Client,
    driver: JoinHandle<()>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Connects to a database.
pub(super) async fn open(host: &dyn EngineHost, database: &str) -> Result<Session> {
    let mut config = Config::new();
    config
        .host_path(&host.layout().run_dir)
        .port(PORT)
        .user(names::COFFER)
        .dbname(database)
        .application_name("coffer")
        .connect_timeout(CONNECT_TIMEOUT)
        .options(OPTIONS);
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
    })
}

/// Connects to Coffer's own database.
pub(super) async fn open_own(host: &dyn EngineHost) -> Result<Session> {
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
        self.client
            .batch_execute(sql)
            .await
            .map_err(|error| failed(what, &error))
    }

    /// Runs a query with parameters.
    pub(super) async fn rows(
        &self,
        what: &'static str,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>> {
        self.client
            .query(sql, parameters)
            .await
            .map_err(|error| failed(what, &error))
    }

    /// The one row of a batch of statements, as text.
    pub(super) async fn text_row(
        &self,
        what: &'static str,
        sql: &str,
    ) -> Result<Vec<Option<String>>> {
        let answer = self
            .client
            .simple_query(sql)
            .await
            .map_err(|error| failed(what, &error))?;
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

/// A kept connection with the socket directory it leads to.
type Kept = Option<(std::path::PathBuf, Session)>;

/// The connection kept for probes, so that a probe costs no process of the engine.
static KEPT: Mutex<Kept> = Mutex::new(None);

/// Takes the kept connection, or makes one; given back by [`keep`] only after an answer.
pub(super) async fn take_kept(host: &dyn EngineHost) -> Result<Session> {
    let kept = KEPT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .take();
    match kept {
        Some((path, session)) if path == host.layout().run_dir && !session.client.is_closed() => {
            Ok(session)
        }
        Some(_) | None => open_own(host).await,
    }
}

/// Keeps a connection for the next probe.
pub(super) fn keep(host: &dyn EngineHost, session: Session) {
    let mut kept = KEPT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    *kept = Some((host.layout().run_dir.clone(), session));
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
