//! Workers that stand still in the middle of a call, while another finishes and the tenant asks for
//! the opposite: what they do when they wake comes too late.

use coffer_core::instance::Lifecycle;
use coffer_testkit::chaos::{Faults, Kind, Strike};
use coffer_testkit::world::World;

/// A worker of `workflow` stands still at `step`, once.
fn paused_at(workflow: &str, step: &str) -> Faults {
    Faults::exact(vec![Strike {
        kind: Kind::Pause,
        workflow: workflow.to_owned(),
        step: step.to_owned(),
        call: None,
        times: 1,
    }])
}

/// Worlds that are played: in some the tenant closes, in some it stops.
const SEEDS: u64 = 8;

#[tokio::test]
async fn a_closed_endpoint_stays_closed() {
    let mut closed = 0;
    for seed in 0..SEEDS {
        // The creation publishes; while its worker stands still, another ends it.
        let world = World::new(seed, paused_at("create_instance", "ensure_endpoint")).await;
        let id = world.ask_create().await.unwrap();
        world.settle().await.unwrap();
        world.check().await.unwrap();
        assert!(world.faults.has_fired(Kind::Pause));
        let graph = world.services.store.get_instance_graph(id).await.unwrap();
        if graph.instance.spec.access.is_public {
            continue;
        }
        closed += 1;
        for endpoint in graph.endpoints {
            let held = world.provider.published(endpoint.id);
            assert_eq!(held, None, "seed {seed}: a late worker published it");
        }
    }
    assert!(closed > 0, "in no world the tenant closed it");
}

#[tokio::test]
async fn a_stopped_server_stays_stopped() {
    let mut stopped = 0;
    for seed in 0..SEEDS {
        let world = World::new(seed, paused_at("restart_instance", "ensure_server")).await;
        let id = world.ask_create().await.unwrap();
        world.settle().await.unwrap();
        world.ask_restart(id).await.unwrap();
        world.settle().await.unwrap();
        world.check().await.unwrap();
        let graph = world.services.store.get_instance_graph(id).await.unwrap();
        if graph.instance.lifecycle != Lifecycle::Stopped {
            continue;
        }
        stopped += 1;
        for server in graph.servers {
            let held = world.provider.server(server.id).unwrap();
            assert!(!held.is_running, "seed {seed}: a late worker started it");
        }
    }
    assert!(stopped > 0, "in no world the tenant stopped it");
}
