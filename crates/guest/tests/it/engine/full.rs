//! Redis and Valkey that flush each write before they answer it, when their volume is full: the
//! process ends at the write that does not fit, which is not answered, and with space again it has
//! all that was answered. As they are created, which is without that, is tried end to end
//! (`tests/e2e/tests/it/full_volume.rs`).

use std::path::{Path, PathBuf};

use coffer_engines::conformance::{self, Fixture};

use super::direct::{Client, DirectWorld, Flush};
use super::{base_dir, enter_root, power};
use crate::support::process;

/// Size of the volume, and what is left of it when the writes begin; the second in bytes.
const VOLUME: &str = "64m";
const LEFT: u64 = 256 << 10;
/// Fewest writes that fit into what is left.
const WRITTEN_MIN: u64 = 100;

/// A small volume, mounted for as long as this lives.
struct Volume(PathBuf);

impl Volume {
    async fn mount(place: PathBuf) -> Self {
        std::fs::create_dir(&place).unwrap();
        let size = format!("size={VOLUME},mode=755");
        let shown = place.display().to_string();
        process::succeed(&["mount", "-t", "tmpfs", "-o", &size, "tmpfs", &shown]).await;
        Self(place)
    }

    /// Takes what is free but for a little.
    async fn fill(&self) -> PathBuf {
        let facts = nix::sys::statvfs::statvfs(&self.0).unwrap();
        let free = facts.blocks_available() * facts.fragment_size();
        let ballast = self.0.join("ballast");
        let take = free.saturating_sub(LEFT).to_string();
        process::succeed(&["fallocate", "-l", &take, &ballast.display().to_string()]).await;
        ballast
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // After a failure a namespace that just ends may hold it for a moment more.
        process::run(&["umount", "--lazy", &self.0.display().to_string()]);
    }
}

/// Writes until the volume of a version is full, makes space and starts it again.
pub(super) async fn ends(client: &'static dyn Client, version: &'static str) {
    let base = base_dir();
    let volume = Volume::mount(base.path().join("volume")).await;
    let (mut holder, programs) = enter_root(client, version, base.path()).await;
    let world = DirectWorld::flushing(Flush::AsCreated, &volume.0, client, programs);
    let server = world.direct("full").await;
    let there = power::serve(&world, &server, &volume.0).await;
    let ballast = volume.fill().await;
    let acknowledged = server.write(&there, "acked", u64::MAX).await;
    assert!(acknowledged >= WRITTEN_MIN, "it took only {acknowledged}");
    assert!(!server.ended().await, "it ended as if it had been told to");

    std::fs::remove_file(ballast).unwrap();
    serves_again(&world, &server).await;
    let kept = server.count(&there, "acked").await.expect("count");
    eprintln!("{version}: {acknowledged} acknowledged, {kept} there");
    // The one that did not fit may have reached the file; nobody was told that it had not.
    let unanswered = kept.checked_sub(acknowledged);
    assert!(unanswered.is_some_and(|more| more <= 1), "{kept} are there");
    assert_eq!(server.write(&there, "acked", 1).await, 1, "it takes writes");
    assert!(server.stop().await, "it does not stop cleanly");
    holder.kill().await.expect("leave the namespace");
}

async fn serves_again(world: &DirectWorld, server: &super::direct::Direct) {
    let socket: &Path = &server.layout().run_dir.join("engine.sock");
    std::fs::remove_file(socket).ok();
    server.start().await;
    conformance::wait_answering(world, server).await;
}
