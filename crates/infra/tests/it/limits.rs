//! Memory, CPU and I/O limits, as the kernel enforces them.

use coffer_core::units::{BytesPerSecond, IoLimits, Iops};
use coffer_infra::error::ProviderError;
use coffer_infra::provider::{Limits, Provider, ServerSpec};

use crate::guest::BLOCK;
use crate::world::{World, eventually};

/// Blocks of [`io`]: so many that a limit of half of them a second takes two.
const BLOCKS: i64 = 128;
/// How long a limit of half the blocks a second has to hold them up at least, from two seconds less
/// what the kernel lets through at once; unit: milliseconds.
const HELD_UP_MS: u64 = 1_500;
/// By how much a limit has to slow down what it limits, and nothing else.
const RATIO: u64 = 3;

/// The flavor's limits hold, change while the server runs, and are not lowered below use.
pub(crate) async fn enforced(w: &World) {
    let net = w.network("10.9.5.0/24");
    w.ensure_network(&net).await;
    let server = w.member(&net, 11).await;
    assert_eq!(w.local().abilities().not_enforced, Vec::<String>::new());
    let one: u64 = w.ask(server.id, "spin 1000").await.parse().unwrap();
    assert!(
        (50..1250).contains(&one),
        "four threads on one CPU had {one} ms of a second"
    );
    let two = ServerSpec {
        limits: Limits {
            memory_mib: 400,
            vcpus: 2,
            io: IoLimits::NONE,
        },
        ..server.clone()
    };
    w.ensure_server(&two).await;
    let had: u64 = w.ask(server.id, "spin 1000").await.parse().unwrap();
    assert!(
        had < 2300,
        "four threads on two CPUs had {had} ms of a second"
    );
    assert_eq!(w.ask(server.id, "hold 300").await, "held 76800");
    let small = ServerSpec {
        limits: Limits {
            memory_mib: 100,
            vcpus: 1,
            io: IoLimits::NONE,
        },
        ..server.clone()
    };
    let answer = w.local().ensure_server(&small).await;
    let Err(ProviderError::Rejected { why, .. }) = answer else {
        panic!("memory was lowered below what is in use: {answer:?}");
    };
    assert!(why.contains("in use"), "{why}");
    assert!(
        w.is_running(server.id).await,
        "a refused change harms nobody"
    );
    // More than the limit ends the guest (it is the only process), and nobody else.
    let link = w.local().guest_link(server.id);
    let fate = crate::world::say(&link, "hold 600").await;
    assert!(
        fate.is_err(),
        "600 MiB were had under a limit of 400: {fate:?}"
    );
    eventually("the guest is noticed to be gone", async || {
        !w.is_running(server.id).await
    })
    .await;
}

/// Limits on operations and on bytes a second hold for reads and for writes apart, for one server
/// and not for its neighbour; they change while it runs, and are there again after a stop.
pub(crate) async fn io(w: &World) {
    let net = w.network("10.9.22.0/24");
    w.ensure_network(&net).await;
    let (server, neighbour) = (w.member(&net, 11).await, w.member(&net, 12).await);
    let told = w.local().abilities().not_enforced;
    if let Some(why) = told.iter().find(|line| line.starts_with("I/O limits")) {
        // What cannot be limited is no reason not to run.
        ensure(w, &server, every()[0].1).await;
        println!("    not measured: {why}");
        return;
    }
    for one in [&server, &neighbour] {
        took(w, one, "write").await;
    }
    for (how, io) in every() {
        let free = took(w, &server, how).await;
        ensure(w, &server, io).await;
        let held_up = took(w, &server, how).await;
        let other = if how == "read" { "write" } else { "read" };
        let not_meant = took(w, &server, other).await;
        let beside = took(w, &neighbour, how).await;
        ensure(w, &server, IoLimits::NONE).await;
        let lifted = took(w, &server, how).await;
        let figures = format!(
            "{how}: {free} ms free, {held_up} limited, {lifted} lifted; {not_meant} the other way, \
             {beside} the neighbour, under {io:?}"
        );
        println!("    {figures}");
        assert!(held_up >= HELD_UP_MS, "{figures}");
        for fast in [free.min(lifted), not_meant, beside] {
            assert!(held_up >= RATIO * fast, "{figures}");
        }
    }
    let (how, io) = every()[0];
    let limited = ensure(w, &server, io).await;
    w.stop(server.id, 5_000).await;
    w.ensure_server(&limited).await;
    let held_up = took(w, &server, how).await;
    assert!(
        held_up >= HELD_UP_MS,
        "{held_up} ms after a stop and a start"
    );
}

/// One limit of each kind, with what it limits.
fn every() -> [(&'static str, IoLimits); 4] {
    let iops = Iops::parse("test", BLOCKS / 2).ok();
    let block = i64::try_from(BLOCK).unwrap();
    let bytes = BytesPerSecond::parse("test", BLOCKS / 2 * block).ok();
    let none = IoLimits::NONE;
    let write_bytes = IoLimits {
        write_bytes_sec: bytes,
        ..none
    };
    let write_iops = IoLimits {
        write_iops_sec: iops,
        ..none
    };
    let read_bytes = IoLimits {
        read_bytes_sec: bytes,
        ..none
    };
    let read_iops = IoLimits {
        read_iops_sec: iops,
        ..none
    };
    [
        ("write", write_bytes),
        ("write", write_iops),
        ("read", read_bytes),
        ("read", read_iops),
    ]
}

/// Gives a running server these limits on I/O.
async fn ensure(w: &World, server: &ServerSpec, io: IoLimits) -> ServerSpec {
    let limited = ServerSpec {
        limits: Limits {
            io,
            ..server.limits
        },
        ..server.clone()
    };
    w.ensure_server(&limited).await;
    limited
}

/// How long a server takes for its blocks; unit: milliseconds.
async fn took(w: &World, server: &ServerSpec, how: &str) -> u64 {
    let line = format!("direct {how} {BLOCKS}");
    let answer = w.ask(server.id, &line).await;
    answer
        .parse()
        .unwrap_or_else(|_| panic!("{line}: {answer}"))
}
