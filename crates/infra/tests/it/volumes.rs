//! Volumes: a hard limit, growth while in use, no more promised than there is, snapshots.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use coffer_core::id::VolumeId;
use coffer_core::units::VolumeSize;
use coffer_infra::conformance::Bench;
use coffer_infra::error::ProviderError;
use coffer_infra::local::{LocalConfig, LocalProvider, VolumeMode};
use coffer_infra::provider::{Origin, Provider, VolumeSpec};

use crate::guest::SEED;
use crate::world::{World, config, ready};

/// A tenant that fills its volume meets its own limit; growing it helps at once, and a second time
/// while the server is down.
pub(crate) async fn limit_and_growth(w: &World) {
    let net = w.network("10.9.3.0/24");
    w.ensure_network(&net).await;
    let mut volume = w.volume(1);
    w.ensure_volume(&volume).await;
    let server = w.server(&net, &volume, 11);
    w.ensure_server(&server).await;
    assert_eq!(w.ask(server.id, "read seed").await, SEED);
    let fitted: u64 = w.ask(server.id, "fill a 2000").await.parse().unwrap();
    assert!(
        (850..1024).contains(&fitted),
        "{fitted} MiB fitted into a volume of 1 GiB"
    );
    volume.size = VolumeSize::gib(2).unwrap();
    for _ in 0..2 {
        w.ensure_volume(&volume).await;
    }
    let size: u64 = w.ask(server.id, "size").await.parse().unwrap();
    assert!(
        size > 1900 << 20,
        "the file system has {size} bytes after growing to 2 GiB"
    );
    assert_eq!(w.ask(server.id, "fill b 100").await, "100");
    w.stop(server.id, 5_000).await;
    volume.size = VolumeSize::gib(3).unwrap();
    w.ensure_volume(&volume).await;
    w.ensure_server(&server).await;
    let size: u64 = w.ask(server.id, "size").await.parse().unwrap();
    assert!(
        size > 2900 << 20,
        "the file system has {size} bytes after growing to 3 GiB"
    );
    assert_eq!(w.ask(server.id, "read stopped").await, "cleanly");
    // Smaller is not asked of a volume that has data.
    volume.size = VolumeSize::gib(1).unwrap();
    w.ensure_volume(&volume).await;
    assert_eq!(w.ask(server.id, "size").await, size.to_string());
}

/// What all volumes promise never exceeds what the pool has.
pub(crate) async fn overcommit(w: &World) {
    let first = w.volume(1);
    w.ensure_volume(&first).await;
    let huge = w.volume(60_000);
    let answer = w.local().ensure_volume(&huge).await;
    let Err(ProviderError::QuotaExceeded { why, .. }) = answer else {
        panic!("60000 GiB were promised: {answer:?}");
    };
    assert!(why.contains("60000 GiB asked for"), "{why}");
    let grown = VolumeSpec {
        size: VolumeSize::gib(60_000).unwrap(),
        ..first.clone()
    };
    let answer = w.local().ensure_volume(&grown).await;
    assert!(
        matches!(answer, Err(ProviderError::QuotaExceeded { .. })),
        "{answer:?}"
    );
    // A refused one counts for nothing and leaves nothing.
    w.ensure_volume(&w.volume(1)).await;
    let owned = w.local().list_owned().await.unwrap();
    assert_eq!(owned.len(), 2, "{owned:?}");
}

/// A snapshot of a volume in use is what was written before it, and its source goes on.
pub(crate) async fn snapshot(w: &World) {
    if !w.has_snapshots() {
        let answer = w
            .local()
            .snapshot_volume(w.volume(1).id, &w.volume(1))
            .await;
        let Err(ProviderError::Rejected { why, .. }) = answer else {
            panic!("a snapshot in mode fast: {answer:?}");
        };
        assert!(why.contains("reflink"), "{why}");
        return;
    }
    let net = w.network("10.9.4.0/24");
    w.ensure_network(&net).await;
    let server = w.member(&net, 11).await;
    assert_eq!(w.ask(server.id, "write a before").await, "ok");
    let (writes, snapshot) = tokio::join!(w.ask(server.id, "fill big 200"), async {
        let spec = VolumeSpec {
            origin: Origin::Empty,
            ..w.volume(1)
        };
        let provider = w.local();
        ready(|| provider.snapshot_volume(server.volume_id, &spec))
            .await
            .expect("it is made");
        spec
    });
    assert_eq!(writes, "200", "writes went on after the snapshot");
    assert_eq!(w.ask(server.id, "write a after").await, "ok");
    let clone = VolumeSpec {
        id: VolumeId::from_uuid(w.next_id()),
        origin: Origin::Snapshot(snapshot.id),
        ..w.volume(1)
    };
    w.ensure_volume(&clone).await;
    let reader = w.server(&net, &clone, 12);
    w.ensure_server(&reader).await;
    assert_eq!(w.ask(reader.id, "read a").await, "before");
    assert_eq!(w.ask(server.id, "read a").await, "after");
    // A clone goes on without what it was cloned from.
    let provider = w.local();
    ready(|| provider.delete_volume(snapshot.id, snapshot.incarnation))
        .await
        .unwrap();
    assert_eq!(w.ask(reader.id, "read a").await, "before");
    let in_use = provider.delete_volume(clone.id, clone.incarnation).await;
    assert!(
        in_use.is_err(),
        "a volume in use is not deleted: {in_use:?}"
    );
    let second = w.server(&net, &clone, 13);
    let shared = provider.ensure_server(&second).await;
    assert!(
        shared.is_err(),
        "a volume has one server at a time: {shared:?}"
    );
}

/// A volume made from a template shares its blocks where the pool can, and is a copy elsewhere.
pub(crate) async fn sharing(w: &World) {
    let volume = w.volume(1);
    w.ensure_volume(&volume).await;
    let shown = Command::new("filefrag")
        .arg("-v")
        .arg(w.volume_file(volume.id))
        .output()
        .expect("filefrag runs");
    let extents = String::from_utf8_lossy(&shown.stdout);
    assert!(extents.contains("extent"), "{extents}");
    assert_eq!(extents.contains("shared"), w.has_snapshots(), "{extents}");
}

/// Volumes in use have sectors of 4096 bytes, and what is written to them goes past the host's
/// cache of files.
pub(crate) async fn sectors(w: &World) {
    let net = w.network("10.9.6.0/24");
    w.ensure_network(&net).await;
    let members = [w.member(&net, 11).await, w.member(&net, 12).await];
    let shown = Command::new("losetup")
        .args([
            "--list",
            "--noheadings",
            "--output",
            "BACK-FILE,LOG-SEC,DIO",
        ])
        .output()
        .expect("losetup runs");
    let shown = String::from_utf8_lossy(&shown.stdout);
    for member in &members {
        // A sandbox sees its pool elsewhere, so a volume is known by its id.
        let id = member.volume_id.to_string();
        let found: Vec<_> = shown.lines().filter(|line| line.contains(&id)).collect();
        let [line] = found.as_slice() else {
            panic!("volume {id} has one device: {shown}");
        };
        let facts: Vec<_> = line.split_whitespace().rev().take(2).collect();
        assert_eq!(facts, ["1", "4096"], "direct I/O and sector size: {line}");
    }
}

/// Where nobody names a mode and the pool's directory cannot share blocks, volumes share them all
/// the same, in a pool of their own. Every test on an XFS sees what happens where it can.
pub(crate) async fn automatic_mode(w: &World) {
    // Beside a world without a pool of its own: it takes its place on the disk.
    if w.local().volume_mode() != VolumeMode::Fast {
        return;
    }
    let dir = w.dir().join("automatic");
    let tag = format!("a{:04x}", std::process::id() & 0xffff);
    let asked = LocalConfig {
        cow_pool_gib: 2,
        roots_dir: w.config.roots_dir.clone(),
        ..config(&dir, &tag, VolumeMode::Auto)
    };
    std::fs::create_dir_all(&asked.pool_dir).unwrap();
    let (from, to) = (asked.pool_dir.join("from"), asked.pool_dir.join("to"));
    std::fs::write(&from, [1; 4096]).unwrap();
    let copied = Command::new("cp")
        .arg("--reflink=always")
        .args([&from, &to])
        .output()
        .expect("cp runs");
    // A host whose temporary files lie on such a file system has no other place to look at.
    let expected = match copied.status.success() {
        true => VolumeMode::Xfs,
        false => VolumeMode::Cow,
    };
    let provider = LocalProvider::open(asked).await.expect("it opens");
    assert_eq!(provider.volume_mode(), expected);
    assert!(provider.abilities().snapshot);
    provider.close(true).await.expect("the pool is let go");
    std::fs::remove_dir_all(&dir).unwrap();
}

/// What a clone holds belongs to the sandbox that mounts it, and nobody has to give it away: this
/// guest does not. What is written then is found after a restart in the same way.
pub(crate) async fn owners(w: &World) {
    let net = w.network("10.9.8.0/24");
    w.ensure_network(&net).await;
    let (a, b) = (w.member(&net, 11).await, w.member(&net, 12).await);
    let (mut engines, names) = (Vec::new(), ["engine", "engine/first", "engine/new"]);
    for server in [&a, &b] {
        let uid = w.ask(server.id, "boot engine_uid").await;
        assert_eq!(w.ask(server.id, "give engine/new").await, "ok");
        assert_eq!(w.ask(server.id, "write mine x").await, "ok");
        for name in names {
            let owner = w.ask(server.id, &format!("owner {name}")).await;
            assert_eq!(owner, format!("{uid}:{uid}"), "{name}");
        }
        assert_eq!(w.ask(server.id, "owner mine").await, "0:0");
        engines.push(uid);
    }
    assert_ne!(engines[0], engines[1]);
    w.stop(a.id, 5_000).await;
    w.ensure_server(&a).await;
    for name in names {
        let owner = w.ask(a.id, &format!("owner {name}")).await;
        assert_eq!(
            owner,
            format!("{0}:{0}", engines[0]),
            "{name} after a restart"
        );
    }
}

/// Clones run side by side with the uuid of what they were cloned from; each gets one of its own
/// when its server is stopped, and its data are there with it.
pub(crate) async fn uuid(w: &World) {
    let net = w.network("10.9.5.0/24");
    w.ensure_network(&net).await;
    let (a, b) = (w.member(&net, 11).await, w.member(&net, 12).await);
    let of = |id| uuid_of(w, id);
    let first = of(a.volume_id);
    assert_eq!(first, of(b.volume_id), "clones of one template begin alike");
    assert_eq!(w.ask(a.id, "write a kept").await, "ok");
    w.stop(a.id, 5_000).await;
    let own = of(a.volume_id);
    assert_ne!(own, first, "a clean stop gives an own uuid");
    assert_eq!(of(b.volume_id), first, "the other still runs");
    w.ensure_server(&a).await;
    assert_eq!(w.ask(a.id, "read a").await, "kept");
    w.stop(a.id, 5_000).await;
    assert_eq!(of(a.volume_id), own, "once is enough");
    w.stop(b.id, 5_000).await;
    assert!(![first, own].contains(&of(b.volume_id)));
}

/// The uuid in the superblock of a volume's XFS.
fn uuid_of(w: &World, id: VolumeId) -> [u8; 16] {
    let file = File::open(w.volume_file(id)).expect("the volume has a file");
    let mut head = [0; 48];
    file.read_exact_at(&mut head, 0).expect("it is an XFS");
    assert_eq!(&head[..4], b"XFSB");
    head[32..].try_into().expect("16 bytes")
}
