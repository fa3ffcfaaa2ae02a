//! PostgreSQL: the suite's client of it, over TCP without TLS, which is tested in the sandbox.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coffer_core::secret::Secret;
use coffer_engines::Engine;
use coffer_engines::conformance::{self, Access, Fixture, World};
use coffer_engines::postgresql::{Postgresql, identity};
use coffer_engines::runtime::{DatabaseInfo, NewUser};
use tokio_postgres::NoTls;

use super::direct::{Client, Direct, DirectWorld};
use crate::support::process;

/// What an instance has from its first day.
const BORN: &[(&str, &str)] = &[
    ("wal_level", "replica"),
    ("data_checksums", "on"),
    ("full_page_writes", "on"),
    ("ssl", "on"),
];
/// The same from version 17 on.
const SUMMARIES: (&str, &str) = ("summarize_wal", "on");

/// The database that every template has beside the engine's own.
const SPARE: &str = "coffer_spare";

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
            // The suite's client speaks no TLS; that is tested in the sandbox.
            "pg_hba.conf" => content.push_str("host all all 127.0.0.0/8 scram-sha-256\n"),
            // The test runs as root where an agent would.
            "pg_ident.conf" => content.push_str("coffer root coffer\n"),
            _ => {}
        }
        content
    }

    fn hasten(&self, _name: &str, content: String) -> String {
        // A killed process loses nothing that it wrote: only a lost machine would.
        content.replace("\nfsync = on\n", "\nfsync = off\n")
    }

    fn defer(&self, name: &str, mut content: String) -> String {
        if name == "postgresql.conf" {
            content.push_str("synchronous_commit = off\nwal_writer_delay = 10s\n");
        }
        content
    }

    async fn fingerprint(&self, at: &Direct) -> String {
        identity::read(&pgdata(at))
            .expect("read the identifier")
            .to_string()
    }

    async fn served_identity(&self, at: &Direct, _root: &Access) -> Option<String> {
        let connection = connect_own(at).await.expect("ask the server");
        let sql = "SELECT system_identifier::text FROM pg_control_system()";
        let row = connection.client.query_one(sql, &[]).await;
        Some(row.expect("it has an identifier").get(0))
    }

    async fn login(&self, at: &Direct, access: &Access) -> Result<(), String> {
        let connection = connect(at, access).await?;
        let answer = connection.client.simple_query("SELECT 1").await;
        answer.map(|_| ()).map_err(|e| e.to_string())
    }

    async fn make(&self, at: &Direct, access: &Access, name: &str) -> Result<(), String> {
        let connection = connect(at, access).await?;
        // Where a test defers flushes, what is written to it may be lost with the host, it may not.
        let sql = format!(
            "SET synchronous_commit = on; CREATE TABLE {} (n bigint)",
            quote(name)
        );
        let made = connection.client.batch_execute(&sql).await;
        made.map_err(|e| format!("{e:?}"))
    }

    async fn write(&self, at: &Direct, access: &Access, name: &str, count: u64, told: &AtomicU64) {
        let connection = connect(at, access).await.expect("log in to write");
        let sql = format!("INSERT INTO {} VALUES (1)", quote(name));
        for _ in 0..count {
            if connection.client.batch_execute(&sql).await.is_err() {
                break;
            }
            told.fetch_add(1, Ordering::Relaxed);
        }
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

    /// Each line of the configuration is in force as far as the server itself can tell, and so is
    /// what an instance is born with.
    async fn keeps_promises(&self, at: &Direct, _root: &Access) -> Result<(), String> {
        let connection = connect_own(at).await?;
        let rows = async |sql: &str| {
            let rows = connection.client.query(sql, &[]).await;
            rows.map_err(|e| format!("{e:?}"))
        };
        let idle = "SELECT name || ' = ' || setting FROM pg_file_settings \
                    WHERE sourcefile LIKE '%/postgresql.conf' AND NOT applied";
        let idle = rows(idle).await?;
        let idle: Vec<String> = idle.iter().map(|row| row.get(0)).collect();
        if !idle.is_empty() {
            return Err(format!("rendered and not in force: {idle:?}"));
        }
        let is_newer = at.host().version() != "15";
        let born = BORN.iter().chain(is_newer.then_some(&SUMMARIES));
        for (name, wanted) in born {
            let shown = rows(&format!("SHOW {name}")).await?;
            let shown: String = shown[0].get(0);
            if shown != *wanted {
                return Err(format!("{name} is {shown}, {wanted} is promised"));
            }
        }
        Ok(())
    }

    fn ready_words(&self) -> Option<&'static str> {
        Some("ready to accept connections")
    }

    fn tls_words(&self) -> Option<&'static [&'static str]> {
        Some(&["-starttls", "postgres"])
    }
}

/// The template's spare database: nobody sees it or gets in, the first database is that one by
/// another name, and enabling root takes it away.
pub(super) async fn spare(world: &DirectWorld) {
    let server = &world.direct("spare").await;
    let (runtime, host) = (world.runtime(), server.host());
    let id = "01890a5d-ac96-774b-bcce-b302099a8061";
    runtime.personalise(host, id).await.expect("personalise");
    server.start().await;
    conformance::wait_answering(world, server).await;
    let spare = number(server, SPARE).await.expect("a template has one");
    let seen = runtime.inventory(host).await.unwrap().databases;
    assert!(seen.is_empty(), "{seen:?}");
    let joe = NewUser {
        name: "joe".to_owned(),
        host: None,
        password: Secret::new("pw".to_owned()),
        databases: Vec::new(),
    };
    runtime.create_users(host, &[joe]).await.unwrap();
    let access = Access {
        user: "joe".to_owned(),
        password: "pw".to_owned(),
        database: SPARE.to_owned(),
    };
    let refused = Psql.login(server, &access).await.unwrap_err();
    assert!(refused.contains("CONNECT"), "{refused}");
    for reserved in [SPARE, "template1"] {
        let refused = runtime.create_databases(host, &[named(reserved)]).await;
        assert!(refused.is_err(), "{reserved} was made");
    }
    // One with a locale of its own cannot be the spare.
    let greek = (
        "greek".to_owned(),
        Some("UTF8".to_owned()),
        Some("C".to_owned()),
    );
    runtime.create_databases(host, &[greek]).await.unwrap();
    assert_eq!(number(server, SPARE).await, Some(spare));
    let both = [named("app"), named("two")];
    for _ in 0..2 {
        runtime.create_databases(host, &both).await.unwrap();
        assert_eq!(number(server, "app").await, Some(spare));
        assert_eq!(number(server, SPARE).await, None);
    }
    assert!(number(server, "two").await.is_some_and(|two| two != spare));
    let another = &world.direct("spare-root").await;
    let host = another.host();
    runtime.personalise(host, id).await.expect("personalise");
    another.start().await;
    conformance::wait_answering(world, another).await;
    assert!(number(another, SPARE).await.is_some());
    let password = Secret::new("pw".to_owned());
    runtime.enable_root(host, &password).await.unwrap();
    assert_eq!(number(another, SPARE).await, None, "root is enabled");
}

/// What a database's users may do to it keeps nobody from being dropped: its group's rights copied
/// into another one (`pg_dump a | psql b`), and a database that they close to everybody, or in
/// which no transaction may last.
pub(super) async fn clears_up(world: &DirectWorld) {
    let server = &world.direct("clears").await;
    let (runtime, host) = (world.runtime(), server.host());
    let id = "01890a5d-ac96-774b-bcce-b302099a8061";
    runtime.personalise(host, id).await.expect("personalise");
    server.start().await;
    conformance::wait_answering(world, server).await;
    let both = ["a", "b"].map(named);
    runtime.create_databases(host, &both).await.unwrap();
    let joe = NewUser {
        name: "joe".to_owned(),
        host: None,
        password: Secret::new("pw".to_owned()),
        databases: vec!["a".to_owned(), "b".to_owned()],
    };
    runtime.create_users(host, &[joe]).await.unwrap();
    let at = |database: &str| Access {
        user: "joe".to_owned(),
        password: "pw".to_owned(),
        database: database.to_owned(),
    };
    let run = async |database: &str, sql: &str| {
        let connection = connect(server, &at(database)).await.unwrap();
        let done = connection.client.batch_execute(sql).await;
        done.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    };
    let group = number(server, "a").await.expect("it is there");
    let copy = format!("CREATE TABLE t (n int); GRANT ALL ON t TO coffer_db_{group}");
    run("b", &copy).await;
    run("a", "ALTER DATABASE b SET statement_timeout = '1ms'").await;
    if host.version() != "15" {
        run("a", "ALTER DATABASE b SET transaction_timeout = '1ms'").await;
    }
    run("a", "ALTER DATABASE b ALLOW_CONNECTIONS false").await;
    for _ in 0..2 {
        runtime.drop_database(host, "a").await.expect("drop a");
    }
    for _ in 0..2 {
        let dropped = runtime.drop_user(host, "joe", None).await;
        dropped.expect("drop who has something in what is closed");
    }
    let closed = Psql.login(server, &at("b")).await;
    assert!(closed.is_err(), "it was left open");
    for _ in 0..2 {
        runtime.drop_database(host, "b").await.expect("drop b");
    }
    assert!(server.stop().await, "it does not stop cleanly");
}

/// A database of this name and no wishes.
fn named(name: &str) -> DatabaseInfo {
    (name.to_owned(), None, None)
}

/// The object id of a database, if it is there.
async fn number(at: &Direct, database: &str) -> Option<u32> {
    let connection = connect_own(at).await.expect("Coffer is let in");
    let sql = "SELECT oid FROM pg_database WHERE datname = $1::text";
    let rows = connection.client.query(sql, &[&database]).await;
    rows.expect("it answers").first().map(|row| row.get(0))
}
