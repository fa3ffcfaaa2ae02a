//! The engines' conformance suite with the real servers, run directly: each engine's default
//! version from its root; PostgreSQL from the host as well, if it has version 15.

mod direct;
mod keyvalue;
mod mysql_family;
mod postgresql;
mod refusals;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coffer_engines::conformance;
use coffer_engines::redis::REDIS;
use coffer_engines::valkey::VALKEY;

use crate::support::process;
use direct::{Client, DirectWorld, Programs, hold_root};

fn base_dir() -> tempfile::TempDir {
    let base = tempfile::Builder::new()
        .prefix("coffer-it-")
        .tempdir()
        .unwrap();
    std::fs::set_permissions(base.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    base
}

/// The tool where other users can execute it.
fn copy_tool(base: &Path) -> PathBuf {
    let tool = base.join("coffer-guest");
    std::fs::copy(env!("CARGO_BIN_EXE_coffer-guest"), &tool).unwrap();
    tool
}

#[tokio::test]
async fn postgresql_of_the_host_conforms() {
    process::require_root();
    let postgres = Path::new("/usr/lib/postgresql/15/bin/postgres");
    if !postgres.exists() && process::engine_root("postgresql-17").is_some() {
        eprintln!(
            "this machine has no PostgreSQL 15 of its own; version 17 is tested from its root"
        );
        return;
    }
    let user = nix::unistd::User::from_name("postgres").unwrap();
    let user = user.expect("this test needs PostgreSQL: apt-get install postgresql-15");
    let base = base_dir();
    let programs = Programs {
        version: "15",
        prefix: Vec::new(),
        uid: user.uid.as_raw(),
        tool: copy_tool(base.path()),
    };
    conformance::all(&DirectWorld::new(base.path(), &postgresql::Psql, programs)).await;
}

#[tokio::test]
async fn postgresql_of_the_root_conforms() {
    process::require_root();
    if process::engine_root("postgresql-17").is_none() {
        let is_tested = Path::new("/usr/lib/postgresql/15/bin/postgres").exists();
        assert!(
            is_tested,
            "this test needs an engine root with PostgreSQL 17"
        );
        eprintln!("there is no engine root with PostgreSQL 17; version 15 is tested from the host");
        return;
    }
    conforms(&postgresql::Psql, "17").await;
}

#[tokio::test]
async fn mysql_conforms() {
    conforms(&mysql_family::MYSQL, "9.7").await;
}

#[tokio::test]
async fn mariadb_conforms() {
    conforms(&mysql_family::MARIADB, "11.8").await;
    // The older version once its root is there: the rings build the default one only.
    if process::engine_root("mariadb-10.11").is_some() {
        conforms(&mysql_family::MARIADB, "10.11").await;
    }
}

#[tokio::test]
async fn redis_conforms() {
    conforms(&keyvalue::Cli(&REDIS), "8.0").await;
}

#[tokio::test]
async fn valkey_conforms() {
    conforms(&keyvalue::Cli(&VALKEY), "8.1").await;
}

#[tokio::test]
async fn redis_refuses_what_reaches_the_process() {
    in_root(&keyvalue::Cli(&REDIS), "8.0", async |world| {
        refusals::all(&world, &REDIS).await;
    })
    .await;
}

#[tokio::test]
async fn valkey_refuses_what_reaches_the_process() {
    in_root(&keyvalue::Cli(&VALKEY), "8.1", async |world| {
        refusals::all(&world, &VALKEY).await;
    })
    .await;
}

/// Runs the suite with the programs of a version's root.
async fn conforms(client: &'static dyn Client, version: &'static str) {
    in_root(client, version, async |world| {
        conformance::all(&world).await;
    })
    .await;
}

/// Does something with the programs of a version's root.
async fn in_root(
    client: &'static dyn Client,
    version: &'static str,
    work: impl AsyncFnOnce(DirectWorld),
) {
    process::require_root();
    let recipe = format!("{}-{version}", client.engine().name());
    let root = process::engine_root(&recipe)
        .unwrap_or_else(|| panic!("this test needs a root: coffer image build {recipe}"));
    let base = base_dir();
    let tool = copy_tool(base.path());
    let uid = 61_817;
    let (holder, mut prefix) = hold_root(&root, base.path(), uid).await;
    prefix.push(base.path().join("root").display().to_string());
    let programs = Programs {
        version,
        prefix,
        uid,
        tool,
    };
    work(DirectWorld::new(base.path(), client, programs)).await;
    drop(holder);
}
