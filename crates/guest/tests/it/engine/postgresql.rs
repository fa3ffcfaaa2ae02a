//! PostgreSQL: the suite's client of it, over TCP without TLS, which is tested in the sandbox.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use coffer_engines::Engine;
use coffer_engines::conformance::Access;
use coffer_engines::postgresql::{Postgresql, identity};
use tokio_postgres::NoTls;

use super::direct::{Client, Direct};
use crate::support::process;

/// The suite's client.
#[derive(Debug)]
pub(super) struct Psql;

/// A connection that closes when dropped.
struct Connection {
    client: tokio_postgres::Client,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn pgdata(at: &Direct) -> PathBuf {
    at.layout().data_dir.join("engine/pgdata")
}

async fn connect(at: &Direct, access: &Access) -> Result<Connection, String> {
    let mut config = tokio_postgres::Config::new();
    config
        .host(at.address.ip().to_string())
        .port(at.address.port())
        .user(&access.user)
        .password(&access.password)
        .dbname(&access.database);
    open(config).await
}

/// Connects to Coffer's own database as the agent does: nobody else is let in there.
async fn connect_own(at: &Direct) -> Result<Connection, String> {
    let mut config = tokio_postgres::Config::new();
    config
        .host_path(&at.layout().run_dir)
        .port(at.address.port())
        .user("coffer")
        .dbname("coffer");
    open(config).await
}

async fn open(mut config: tokio_postgres::Config) -> Result<Connection, String> {
    config.connect_timeout(Duration::from_secs(5));
    let (client, connection) = config.connect(NoTls).await.map_err(|e| format!("{e:?}"))?;
    let driver = process::start(async move {
        connection.await.ok();
    });
    Ok(Connection { client, driver })
}

#[async_trait]
impl Client for Psql {
    fn engine(&self) -> &'static dyn Engine {
        &Postgresql
    }

    fn adapt(&self, name: &str, content: String) -> String {
        let mut content = content.replace("'127.0.0.1,", "'");
        match name {
            // A killed process loses nothing that it wrote: only a lost machine would.
            "postgresql.conf" => content.push_str("fsync = off\n"),
            // The suite's client speaks no TLS; that is tested in the sandbox.
            "pg_hba.conf" => content.push_str("host all all 127.0.0.0/8 scram-sha-256\n"),
            // The test runs as root where an agent would.
            "pg_ident.conf" => content.push_str("coffer root coffer\n"),
            _ => {}
        }
        content
    }

    async fn fingerprint(&self, at: &Direct) -> String {
        identity::read(&pgdata(at))
            .expect("read the identifier")
            .to_string()
    }

    async fn login(&self, at: &Direct, access: &Access) -> Result<(), String> {
        let connection = connect(at, access).await?;
        let answer = connection.client.simple_query("SELECT 1").await;
        answer.map(|_| ()).map_err(|e| e.to_string())
    }

    async fn make(&self, at: &Direct, access: &Access, name: &str) -> Result<(), String> {
        let connection = connect(at, access).await?;
        let sql = format!("CREATE TABLE {} (n bigint)", quote(name));
        let made = connection.client.batch_execute(&sql).await;
        made.map_err(|e| format!("{e:?}"))
    }

    async fn write(&self, at: &Direct, access: &Access, name: &str, count: u64) -> u64 {
        let connection = connect(at, access).await.expect("log in to write");
        let sql = format!("INSERT INTO {} VALUES (1)", quote(name));
        let mut acknowledged = 0;
        while acknowledged < count && connection.client.batch_execute(&sql).await.is_ok() {
            acknowledged += 1;
        }
        acknowledged
    }

    async fn count(&self, at: &Direct, access: &Access, name: &str) -> Result<u64, String> {
        let connection = connect(at, access).await?;
        let sql = format!("SELECT count(*) FROM {}", quote(name));
        let row = connection.client.query_one(&sql, &[]).await;
        let row = row.map_err(|e| format!("{e:?}"))?;
        Ok(row.get::<_, i64>(0).try_into().unwrap())
    }

    async fn beats(&self, at: &Direct, _root: &Access) -> Result<u64, String> {
        let connection = connect_own(at).await?;
        let sql = "SELECT beats FROM public.probe WHERE id = 1";
        let row = connection.client.query_one(sql, &[]).await;
        let row = row.map_err(|e| format!("{e:?}"))?;
        Ok(row.get::<_, i64>(0).try_into().unwrap())
    }
}
