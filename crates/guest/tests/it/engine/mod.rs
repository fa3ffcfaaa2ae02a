//! The engines' conformance suite with the real servers, run directly: the versions that
//! `conforming_versions` in `tests/counts.toml` asks for, each from its root. A version without a
//! root fails its test.

mod controls;
mod direct;
mod full;
mod keyvalue;
mod mysql_family;
mod postgresql;
mod power;
mod refusals;
mod sql_controls;
mod sql_refusals;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use coffer_engines::conformance;
use coffer_engines::redis::REDIS;
use coffer_engines::valkey::VALKEY;
use coffer_testkit::counts::versions;
use tokio::process::Child;

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
async fn postgresql_conforms() {
    every_version_conforms(&postgresql::Psql).await;
}

#[tokio::test]
async fn postgresql_names_its_spare_database() {
    in_each_root(&postgresql::Psql, async |world| {
        postgresql::spare(&world).await;
    })
    .await;
}

#[tokio::test]
async fn postgresql_drops_whom_and_what_users_hold_on_to() {
    in_each_root(&postgresql::Psql, async |world| {
        postgresql::clears_up(&world).await;
    })
    .await;
}

#[tokio::test]
async fn mysql_keeps_its_logs_within_bounds() {
    in_each_root(&mysql_family::MYSQL, async |world| {
        mysql_family::bounded_logs(&world, &mysql_family::MYSQL).await;
    })
    .await;
}

#[tokio::test]
async fn mariadb_keeps_its_logs_within_bounds() {
    in_each_root(&mysql_family::MARIADB, async |world| {
        mysql_family::bounded_logs(&world, &mysql_family::MARIADB).await;
    })
    .await;
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

#[tokio::test]
async fn postgresql_outlives_the_host() {
    each_outlives_the_host(&postgresql::Psql).await;
}

#[tokio::test]
async fn mysql_outlives_the_host() {
    each_outlives_the_host(&mysql_family::MYSQL).await;
}

#[tokio::test]
async fn mariadb_outlives_the_host() {
    each_outlives_the_host(&mysql_family::MARIADB).await;
}

#[tokio::test]
async fn redis_that_flushes_each_write_ends_at_a_full_volume() {
    each_ends_when_full(&keyvalue::Cli(&REDIS)).await;
}

#[tokio::test]
async fn valkey_that_flushes_each_write_ends_at_a_full_volume() {
    each_ends_when_full(&keyvalue::Cli(&VALKEY)).await;
}

/// Fills the volume of each version that is asked for.
async fn each_ends_when_full(client: &'static dyn Client) {
    process::require_root();
    for version in asked(client) {
        full::ends(client, version).await;
    }
}

/// Cuts the power under each version that is asked for.
async fn each_outlives_the_host(client: &'static dyn Client) {
    process::require_root();
    for version in asked(client) {
        power::cut_each(client, version).await;
    }
}

/// Runs the suite with each version that is asked for.
async fn every_version_conforms(client: &'static dyn Client) {
    in_each_root(client, async |world| {
        conformance::all(&world).await;
    })
    .await;
}

/// The versions of the client's engine that are asked for.
fn asked(client: &'static dyn Client) -> Vec<&'static str> {
    let engine = client.engine();
    let known = |asked: String| {
        let mut known = engine.versions().iter().copied();
        let version = known.find(|known| *known == asked);
        version.unwrap_or_else(|| panic!("{} knows no {asked}", engine.name()))
    };
    let asked = versions("conforming_versions", engine.name());
    asked.into_iter().map(known).collect()
}

/// Does something with the programs of each version that is asked for.
async fn in_each_root(client: &'static dyn Client, work: impl AsyncFn(DirectWorld)) {
    process::require_root();
    for version in asked(client) {
        eprintln!("{} {version}", client.engine().name());
        let base = base_dir();
        let (holder, programs) = enter_root(client, version, base.path()).await;
        work(DirectWorld::new(base.path(), client, programs)).await;
        drop(holder);
    }
}

/// The programs of a version's root, and what holds them where they are.
async fn enter_root(
    client: &'static dyn Client,
    version: &'static str,
    base: &Path,
) -> (Child, Programs) {
    let recipe = format!("{}-{version}", client.engine().name());
    let root = process::engine_root(&recipe)
        .unwrap_or_else(|| panic!("this test needs a root: coffer image build {recipe}"));
    let tool = copy_tool(base);
    let uid = 61_817;
    let (holder, mut prefix) = hold_root(&root, base, uid).await;
    prefix.push(base.join("root").display().to_string());
    let programs = Programs {
        version,
        prefix,
        uid,
        tool,
    };
    (holder, programs)
}
