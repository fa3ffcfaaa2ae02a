//! The tests' processes and tasks; nothing else in them spawns.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

/// A command that dies with the test.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is the tests' only spawner"
)]
pub(crate) fn command(program: impl AsRef<std::ffi::OsStr>) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(program);
    command.kill_on_drop(true);
    command
}

/// Runs a command to its end.
pub(crate) async fn output(words: &[&str]) -> Output {
    let mut command = command(words[0]);
    command.args(&words[1..]).stdin(Stdio::null());
    command
        .output()
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", words[0]))
}

/// Runs a command that has to succeed; its standard output.
pub(crate) async fn succeed(words: &[&str]) -> String {
    let output = output(words).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command where nothing can be waited for otherwise; a failure is shown.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is the tests' only spawner"
)]
pub(crate) fn run(words: &[&str]) {
    let status = std::process::Command::new(words[0])
        .args(&words[1..])
        .status();
    if !status.as_ref().is_ok_and(std::process::ExitStatus::success) {
        eprintln!("{words:?}: {status:?}");
    }
}

/// Lines of a shell that let go, in a mount namespace of its own, of what other tests than that in
/// `own` have mounted and mean to unmount.
pub(crate) fn let_go_of_others(own: &Path) -> String {
    format!(
        "awk '$5 ~ \"^/tmp/\" && index($5, \"{}/\") != 1 {{ print $5 }}' /proc/self/mountinfo | \
         tac | while read m; do umount -l $m; done;",
        own.display()
    )
}

/// Starts a task of the test's.
#[expect(
    clippy::disallowed_methods,
    reason = "this module is the tests' only spawner"
)]
pub(crate) fn start<T: Send + 'static>(
    task: impl Future<Output = T> + Send + 'static,
) -> tokio::task::JoinHandle<T> {
    tokio::spawn(task)
}

/// Waits until something holds, at most a minute.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let wait = async {
        while !holds().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
    assert!(waited.is_ok(), "waited a minute for: {what}");
}

/// These tests change users and mounts.
pub(crate) fn require_root() {
    assert!(
        nix::unistd::geteuid().is_root(),
        "this test needs root: run it as root"
    );
}

/// The tree of the engine root of a recipe, if this machine has it.
pub(crate) fn engine_root(recipe: &str) -> Option<PathBuf> {
    let name = format!("\"name\": \"{recipe}\"");
    let roots = std::fs::read_dir("/var/cache/coffer/roots").ok()?;
    let is_it = |dir: &PathBuf| {
        std::fs::read_to_string(dir.join("manifest.json")).is_ok_and(|text| text.contains(&name))
    };
    let found = roots.flatten().map(|entry| entry.path()).find(is_it);
    found.map(|dir| dir.join("tree"))
}
