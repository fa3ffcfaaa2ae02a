//! A host that has neither loop devices nor control groups, as many containers: everything works,
//! and what is not enforced is said.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use coffer_infra::conformance::Bench;
use coffer_infra::local::VolumeMode;
use coffer_infra::local::doctor::{Level, doctor};
use coffer_infra::provider::Provider;

use crate::world::{ROOT, World, make_root};

/// Makes such a host of a mount namespace of its own, and goes on there.
const STRIP: &str = "umount --recursive /sys/fs/cgroup
mount -t tmpfs none /dev
mkdir /dev/shm
mknod -m 666 /dev/null c 1 3
mknod -m 666 /dev/zero c 1 5
mknod -m 666 /dev/random c 1 8
mknod -m 666 /dev/urandom c 1 9
exec \"$@\"";
/// Where the ids of that world begin.
const SEED: u64 = 0x7000;

/// Runs [`run`] on such a host.
pub(crate) fn host(w: &World) {
    let dir = w.dir().join("bare");
    let own = std::env::current_exe().unwrap();
    make_root(&dir.join("roots").join(ROOT), &own, "1");
    let tag = format!("b{:04x}", std::process::id() & 0xffff);
    let ended = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--", "sh", "-ec"])
        .args([STRIP, "strip"])
        .arg(own)
        .arg("bare")
        .arg(&dir)
        .arg(tag)
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{words}");
    fs::remove_dir_all(&dir).unwrap();
}

/// The other process of [`host`].
pub(crate) fn run(dir: &str, tag: &str) -> ExitCode {
    assert!(!Path::new("/dev/loop-control").exists());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let w = World::join(dir, tag, VolumeMode::Auto, SEED).await;
        assert_eq!(w.local().volume_mode(), VolumeMode::Directory);
        let told = w.local().abilities().not_enforced;
        for what in ["memory and CPU", "volume sizes", "I/O limits"] {
            assert!(told.iter().any(|line| line.starts_with(what)), "{told:?}");
        }
        doctor_says_so(&w);
        w.conformance().await;
        whole_life(&w).await;
        w.clean().await;
        w.local().close(true).await.unwrap();
    });
    ExitCode::SUCCESS
}

fn doctor_says_so(w: &World) {
    let found = doctor(&w.config);
    let problems: Vec<_> = found.iter().filter(|f| f.level == Level::Problem).collect();
    assert!(problems.is_empty(), "{problems:?}");
    for what in ["limits:", "I/O limits:", "volumes: mode directory"] {
        let one = found.iter().find(|f| f.what.starts_with(what)).unwrap();
        assert_eq!(one.level, Level::Advice);
        assert!(one.means.contains("not enforced"), "{one:?}");
    }
}

/// A server keeps its data over a stop, is not started beside another on its volume, and is bounded
/// in the processes it may have; a volume that holds more than its size is noticed.
async fn whole_life(w: &World) {
    let net = w.network("10.9.21.0/24");
    w.ensure_network(&net).await;
    let volume = w.volume(1);
    w.ensure_volume(&volume).await;
    let server = w.server(&net, &volume, 11);
    w.ensure_server(&server).await;
    assert_eq!(w.ask(server.id, "write a kept").await, "ok");
    let limits = w.ask(server.id, "show /proc/self/limits").await;
    let tasks = limits.split("Max processes").nth(1).unwrap();
    assert_eq!(tasks.split_whitespace().next(), Some("4096"), "{limits}");
    let second = w.server(&net, &volume, 12);
    let refused = w.local().ensure_server(&second).await.unwrap_err();
    assert!(refused.to_string().contains("used by another"), "{refused}");
    assert_eq!(w.ask(server.id, "fill much 1100").await, "1100");
    let found = doctor(&w.config);
    let over = found
        .iter()
        .find(|f| f.what.starts_with("volumes:"))
        .unwrap();
    assert_eq!(over.level, Level::Problem);
    assert!(over.what.contains(&volume.id.to_string()), "{over:?}");
    w.stop(server.id, 5_000).await;
    assert_eq!(
        fs::read_to_string(w.volume_file(volume.id).join("stopped")).unwrap(),
        "cleanly"
    );
    w.reopen().await;
    w.ensure_server(&server).await;
    assert_eq!(w.ask(server.id, "read a").await, "kept");
}
