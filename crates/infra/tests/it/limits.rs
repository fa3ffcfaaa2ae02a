//! Memory and CPU limits, as the kernel enforces them.

use coffer_infra::error::ProviderError;
use coffer_infra::provider::{Limits, Provider, ServerSpec};

use crate::world::{World, eventually};

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
