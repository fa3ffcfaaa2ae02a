//! The engines' conformance suite with the real servers, run directly: the versions that
//! `conforming_versions` in `tests/counts.toml` asks for, each from its root; PostgreSQL from the
//! host as well, if it has version 15. A version without a root fails its test.

mod controls;
mod direct;
mod keyvalue;
mod mysql_family;
mod postgresql;
mod refusals;
mod sql_controls;
mod sql_refusals;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coffer_engines::conformance;
use coffer_engines::redis::REDIS;
use coffer_engines::valkey::VALKEY;
use coffer_testkit::counts::versions;

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
    every_version_conforms(&postgresql::Psql).await;
}

#[tokio::test]
async fn mysql_conforms() {
    every_version_conforms(&mysql_family::MYSQL).await;
}

#[tokio::test]
async fn mariadb_conforms() {
    every_version_conforms(&mysql_family::MARIADB).await;
}

#[tokio::test]
async fn redis_conforms() {
    every_version_conforms(&keyvalue::Cli(&REDIS)).await;
}

#[tokio::test]
async fn valkey_conforms() {
    every_version_conforms(&keyvalue::Cli(&VALKEY)).await;
}

#[tokio::test]
async fn redis_refuses_what_reaches_the_process() {
    in_each_root(&keyvalue::Cli(&REDIS), async |world| {
        refusals::all(&world, &REDIS).await;
    })
    .await;
}

#[tokio::test]
async fn valkey_refuses_what_reaches_the_process() {
    in_each_root(&keyvalue::Cli(&VALKEY), async |world| {
        refusals::all(&world, &VALKEY).await;
    })
    .await;
}

#[tokio::test]
async fn mysql_bounds_its_root() {
    in_each_root(&mysql_family::MYSQL, async |world| {
        sql_refusals::all(&world, &mysql_family::MYSQL).await;
    })
    .await;
}

#[tokio::test]
async fn mariadb_bounds_its_root() {
    in_each_root(&mysql_family::MARIADB, async |world| {
        sql_refusals::all(&world, &mysql_family::MARIADB).await;
    })
    .await;
}

/// Runs the suite with each version that is asked for.
async fn every_version_conforms(client: &'static dyn Client) {
    in_each_root(client, async |world| {
        conformance::all(&world).await;
    })
    .await;
}

/// Does something with the programs of each version that is asked for.
async fn in_each_root(client: &'static dyn Client, work: impl AsyncFn(DirectWorld)) {
    let engine = client.engine();
    for asked in versions("conforming_versions", engine.name()) {
        let mut known = engine.versions().iter().copied();
        let version = known.find(|known| *known == asked);
        let version = version.unwrap_or_else(|| panic!("{} knows no {asked}", engine.name()));
        eprintln!("{} {version}", engine.name());
        in_root(client, version, &work).await;
    }
}

/// Does something with the programs of a version's root.
async fn in_root(
    client: &'static dyn Client,
    version: &'static str,
    work: &impl AsyncFn(DirectWorld),
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
