//! Connections as `coffer-agent` over the local socket.
//!
//! Every session pins what a tenant's superuser could have set for all: how text is quoted, read
//! and compared, that it may write, and how long it may wait.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::names;
use super::protocol::{Connection, Row, Trouble};
use crate::error::{EngineError, Result};
use crate::runtime::EngineHost;

/// Name of the socket in the run directory.
pub(super) const SOCKET: &str = "mysqld.sock";

const PIN: &str = "SET SESSION sql_mode = 'NO_AUTO_VALUE_ON_ZERO', SESSION autocommit = 1, \
    SESSION lock_wait_timeout = 30, SESSION wait_timeout = 28800, \
    SESSION foreign_key_checks = 1, SESSION collation_connection = utf8mb4_bin";

/// LIMIT: how long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The server ends, or refuses since it ends or begins.
const GOES_DOWN: [u16; 2] = [1053, 3168];

/// A connection; dropping it closes it.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
}

fn socket(host: &dyn EngineHost) -> PathBuf {
    host.layout().run_dir.join(SOCKET)
}

/// Connects.
pub(super) async fn open(host: &dyn EngineHost) -> Result<Session> {
    let path = socket(host);
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, Connection::open(&path, names::ACCOUNT));
    let connection = match opened.await {
        Ok(result) => result.map_err(|trouble| failed("connect to the database", trouble))?,
        Err(_) => {
            return Err(EngineError::Down {
                why: "no answer to a connection".to_owned(),
            });
        }
    };
    let mut session = Session { connection };
    session.run("prepare the session", PIN).await?;
    Ok(session)
}

impl Session {
    /// Runs a statement without result.
    pub(super) async fn run(&mut self, what: &'static str, sql: &str) -> Result<()> {
        self.rows(what, sql).await.map(drop)
    }

    /// Runs a query.
    pub(super) async fn rows(&mut self, what: &'static str, sql: &str) -> Result<Vec<Row>> {
        let answer = self.connection.query(sql).await;
        answer.map_err(|trouble| failed(what, trouble))
    }

    /// The first row of a query.
    pub(super) async fn row(&mut self, what: &'static str, sql: &str) -> Result<Row> {
        let rows = self.rows(what, sql).await?;
        rows.into_iter().next().ok_or_else(|| EngineError::Failed {
            what,
            why: "no row".to_owned(),
        })
    }

    /// Whether a query has any row.
    pub(super) async fn has(&mut self, what: &'static str, sql: &str) -> Result<bool> {
        Ok(!self.rows(what, sql).await?.is_empty())
    }
}

/// The connection kept for probes, with the socket it leads to.
static KEPT: Mutex<Option<(PathBuf, Session)>> = Mutex::new(None);

/// Takes the kept connection if it leads there; given back by [`keep`] only after an answer.
pub(super) fn take_kept(host: &dyn EngineHost) -> Option<Session> {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take();
    kept.filter(|(path, _)| *path == socket(host))
        .map(|(_, session)| session)
}

/// Keeps a connection for the next probe.
pub(super) fn keep(host: &dyn EngineHost, session: Session) {
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    *kept = Some((socket(host), session));
}

fn failed(what: &'static str, trouble: Trouble) -> EngineError {
    match trouble {
        Trouble::Refused { code, message } if GOES_DOWN.contains(&code) => {
            EngineError::Down { why: message }
        }
        Trouble::Refused { code, message } => EngineError::Failed {
            what,
            why: format!("{message} ({code})"),
        },
        Trouble::Lost(error) => EngineError::Down {
            why: error.to_string(),
        },
    }
}
