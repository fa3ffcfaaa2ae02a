//! A PostgreSQL server for the tests: `COFFER_TEST_POSTGRES` if set, else a throw-away one.
//!
//! A shell started with the server waits for the end of its standard input, which ends with this
//! process however that ends; then it stops the server and removes its files.
#![expect(
    clippy::disallowed_methods,
    reason = "the one module of these tests that reads the environment and starts a process"
)]

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use coffer_core::secret::Secret;
use coffer_store::StoreUrl;

const SERVER: &str = r#"
set -eu
bin=$1 dir=$2
as_postgres() { if [ "$(id -u)" = 0 ]; then runuser -u postgres -- "$@"; else "$@"; fi; }
trap 'rm -rf "$dir"' EXIT
[ "$(id -u)" != 0 ] || chown postgres "$dir"
as_postgres "$bin/initdb" -D "$dir/data" -U postgres -A trust -N -E UTF8 \
        --locale=C.UTF-8 >"$dir/log" 2>&1 \
    || { cat "$dir/log" >&2; exit 1; }
as_postgres "$bin/pg_ctl" -D "$dir/data" -w -t 60 -l "$dir/data/log" start >"$dir/log" 2>&1 -o \
    "-c listen_addresses= -c unix_socket_directories=$dir -c max_connections=400 -c fsync=off" \
    || { cat "$dir/log" "$dir/data/log" >&2; exit 1; }
echo ready
while read -r _; do :; done
as_postgres "$bin/pg_ctl" -D "$dir/data" -w -m immediate stop >/dev/null 2>&1 || true
"#;

static URL: OnceLock<(String, Option<Child>)> = OnceLock::new();
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// The newest server installed by Debian's packages.
fn newest_bin() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect(
        "the PostgreSQL half of the store's tests needs a server: install postgresql, or set \
         COFFER_TEST_POSTGRES to the url of one",
    );
    let mut bins: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            path.join("bin/initdb")
                .exists()
                .then(|| (version, path.join("bin")))
        })
        .collect();
    bins.sort();
    bins.pop()
        .expect("/usr/lib/postgresql has no server with initdb: install postgresql")
        .1
}

/// Starts the throw-away server; gives the url of its maintenance database.
fn start() -> (String, Option<Child>) {
    if let Ok(url) = std::env::var("COFFER_TEST_POSTGRES") {
        return (url, None);
    }
    let directory = tempfile::Builder::new()
        .prefix("coffer-test-pg-")
        .tempdir()
        .unwrap()
        .keep();
    let mut child = Command::new("sh")
        .args(["-c", SERVER, "sh"])
        .arg(newest_bin())
        .arg(&directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(line, "ready\n", "the PostgreSQL server does not start");
    let host = directory.to_str().unwrap().to_owned();
    (
        format!("postgres://postgres@localhost/postgres?host={host}"),
        Some(child),
    )
}

/// A database that no other test uses.
pub(crate) async fn new_database() -> StoreUrl {
    let started = tokio::task::spawn_blocking(|| &URL.get_or_init(start).0);
    let url = started.await.unwrap();
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let name = format!("coffer_test_{}_{number}", std::process::id());
    let server = sqlx::PgPool::connect(url).await.unwrap();
    for sql in [
        format!("DROP DATABASE IF EXISTS {name}"),
        format!("CREATE DATABASE {name}"),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(sql))
            .execute(&server)
            .await
            .unwrap();
    }
    server.close().await;
    let (server, options) = url.split_once('?').unwrap_or((url, ""));
    let (server, _) = server.rsplit_once('/').unwrap();
    StoreUrl::Postgres(Secret::new(format!("{server}/{name}?{options}")))
}
