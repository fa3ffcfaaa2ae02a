//! What an engine that runs keeps of what was promised: settings, log, certificate, and the hold of
//! its data files.

use std::fs;
use std::path::Path;
use std::time::Duration;

use coffer_core::secret::Secret;

use super::{Access, Fixture, World, access, granted, user};
use crate::error::EngineError;

/// LIMIT: how long an engine may take to do what it was told without an answer.
const SOON: Duration = Duration::from_secs(20);
/// How long a write has to have waited to be called held back.
const STALLED: Duration = Duration::from_millis(500);

/// What was rendered is in force, and what is promised beside it.
pub(super) async fn promises(world: &dyn World, fixture: &dyn Fixture) {
    let (runtime, host) = (world.runtime(), fixture.host());
    let secret = Secret::new("looks".to_owned());
    let enabled = runtime.enable_root(host, &secret).await;
    enabled.expect("enable root");
    let root = access(world.engine().root_user(), "looks", "");
    if let Err(broken) = fixture.keeps_promises(&root).await {
        panic!("{broken}");
    }
    runtime.disable_root(host).await.expect("disable root");
}

/// The engine's messages are in files of the log directory; no password is, neither a good one nor
/// one that was refused.
pub(super) async fn log(world: &dyn World, fixture: &dyn Fixture) {
    let Some(ready) = fixture.ready_words() else {
        return;
    };
    let (runtime, host) = (world.runtime(), fixture.host());
    let (good, bad) = ("told-in-no-log", "refused-in-no-log");
    let created = runtime
        .create_users(host, &[user("logged", good, granted(world, &["a"]))])
        .await;
    created.expect("create a user");
    let login = fixture.login(&access("logged", good, "a")).await;
    login.expect("log in");
    let refused = fixture.login(&access("logged", bad, "a")).await;
    assert!(refused.is_err(), "a wrong password lets in");
    let dropped = runtime.drop_user(host, "logged", None).await;
    dropped.expect("drop the user");
    let text = read_all(&host.layout().log_dir);
    assert!(text.contains(ready), "no '{ready}' in the log: {text}");
    for password in [good, bad] {
        assert!(!text.contains(password), "the log tells {password}");
    }
}

fn read_all(dir: &Path) -> String {
    let entries = fs::read_dir(dir).expect("list the logs").flatten();
    let files = entries.map(|entry| entry.path());
    let bytes = files.map(|path| fs::read(&path).expect("read a log"));
    bytes
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect()
}

/// A certificate that was renewed is shown to whoever comes after the reload; the process goes on,
/// as nobody but the suite would start another.
pub(super) async fn certificate(world: &dyn World, fixture: &dyn Fixture) {
    let Some(before) = fixture.served_certificate().await else {
        return;
    };
    let renewed = fixture.renew_certificate().await;
    assert_ne!(before, renewed, "it was not renewed");
    let reloaded = world.runtime().reload(fixture.host()).await;
    reloaded.expect("reload");
    let mut served = None;
    let wait = async {
        while served.as_ref() != Some(&renewed) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            served = fixture.served_certificate().await;
        }
    };
    let waited = tokio::time::timeout(SOON, wait).await;
    assert!(waited.is_ok(), "the old certificate is served still");
    let probed = world.runtime().probe(fixture.host()).await;
    probed.expect("probe after the reload");
}

/// The data files are held until the hold is released, or until its connection goes.
pub(super) async fn hold(world: &dyn World, fixture: &dyn Fixture) {
    let (runtime, host) = (world.runtime(), fixture.host());
    let there = access("u3", "p3", "a");
    fixture.make(&there, "held").await.expect("make a table");
    let held = match runtime.quiesce(host).await {
        Err(EngineError::Unsupported { .. }) => return,
        held => held.expect("hold the data files"),
    };
    let first = held.facts();
    assert!(first.contains_key("position"), "no position: {first:?}");
    let release = async || held.release().await.expect("release");
    written_after(fixture, &there, 1, release).await;

    let held = runtime.quiesce(host).await.expect("hold them again");
    let second = held.facts();
    assert_ne!(first, second, "a write has not moved the position");
    written_after(fixture, &there, 2, async || drop(held)).await;
}

/// A write is acknowledged in the end: when the hold has ended, if it stalls writes, and there
/// is nothing of it before.
async fn written_after(
    fixture: &dyn Fixture,
    there: &Access,
    number: u64,
    end: impl AsyncFnOnce(),
) {
    let write = fixture.write(there, "held", 1);
    tokio::pin!(write);
    let early = tokio::time::timeout(STALLED, &mut write).await;
    let is_stalled = early.is_err();
    if fixture.stalls_when_held() {
        assert!(is_stalled, "written to what is held");
        let count = fixture.count(there, "held").await;
        assert_eq!(count, Ok(number - 1), "reads go on, and show no write");
    }
    end().await;
    let written = match early {
        Ok(written) => written,
        Err(_) => {
            let late = tokio::time::timeout(SOON, write).await;
            late.expect("the hold has ended, and the write waits still")
        }
    };
    assert_eq!(written, 1);
    assert_eq!(fixture.count(there, "held").await, Ok(number));
}
