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

/// A change is given up, and the provider refuses to lead the endpoint where it led before: the
/// address is gone. Where it was published it is closed, and the instance's history says so.
#[tokio::test]
async fn an_endpoint_that_cannot_be_led_back_is_closed() {
    let strike = |step: &str| Strike {
        kind: Kind::Rejected,
        workflow: "update_access".to_owned(),
        step: step.to_owned(),
        call: None,
        times: 1,
    };
    let mut closed = 0;
    for seed in 0..SEEDS {
        let faults = Faults::exact(vec![strike("ensure_endpoint"), strike("restore_endpoint")]);
        let world = World::new(seed, faults).await;
        let id = world.ask_create().await.unwrap();
        world.settle().await.unwrap();
        let graph = world.services.store.get_instance_graph(id).await.unwrap();
        let was_published = graph.endpoints[0].published.is_some();
        world.ask_access(id).await.unwrap();
        world.settle().await.unwrap();
        world.check().await.unwrap();
        let graph = world.services.store.get_instance_graph(id).await.unwrap();
        assert!(
            graph.instance.fault.is_some(),
            "seed {seed}: it was given up"
        );
        let endpoint = &graph.endpoints[0];
        assert_eq!(endpoint.published, None, "seed {seed}");
        assert_eq!(world.provider.published(endpoint.id), None, "seed {seed}");
        closed += u64::from(was_published);
    }
    assert!(closed > 0, "in no world it was published");
}

/// A call outlives its limit, the change is given up, and its undoing finds the endpoint as it was:
/// the call is done after that.
#[tokio::test]
async fn a_change_that_was_taken_back_does_not_come_late() {
    let strike = |kind| Strike {
        kind,
        workflow: "update_access".to_owned(),
        step: "ensure_endpoint".to_owned(),
        call: None,
        times: 1,
    };
    for seed in 0..SEEDS {
        let faults = Faults::exact(vec![strike(Kind::Late), strike(Kind::Rejected)]);
        let world = World::new(seed, faults).await;
        let id = world.ask_create().await.unwrap();
        world.settle().await.unwrap();
        world.ask_access(id).await.unwrap();
        world.settle().await.unwrap();
        assert!(world.faults.has_fired(Kind::Late) && world.faults.has_fired(Kind::Rejected));
        let instance = world.services.store.find_instance(id).await.unwrap();
        assert!(
            instance.unwrap().fault.is_some(),
            "seed {seed}: it was given up"
        );
        world.check().await.unwrap();
    }
}
