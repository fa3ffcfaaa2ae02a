//! The reconciler over a provider that lost something, and over one that is another's.

use std::sync::Arc;

use coffer_control::taskmanager::periodic::reconcile::Reconciler;
use coffer_core::task::TaskState;
use coffer_infra::fake::FakeProvider;
use coffer_testkit::chaos::Faults;
use coffer_testkit::world::World;

#[tokio::test]
async fn a_damaged_record_keeps_no_other_server_from_recovery() {
    let world = World::new(1, Faults::exact(Vec::new())).await;
    for _ in 0..3 {
        world.ask_create().await.unwrap();
    }
    world.settle().await.unwrap();
    let servers = world.services.store.list_servers().await.unwrap();
    world.provider.damage_server(servers[0].id);
    for server in &servers {
        world.provider.kill_server(server.id);
    }
    let mut reconciler = Reconciler::new(world.services.clone());
    let status = reconciler.once().await.unwrap();
    assert_eq!((status.failed, status.recovered), (1, 2));
}

/// Creates `count` instances and stops all their servers, as a reboot does.
async fn rebooted(count: usize) -> World {
    let world = World::new(1, Faults::exact(Vec::new())).await;
    for _ in 0..count {
        world.ask_create().await.unwrap();
    }
    world.settle().await.unwrap();
    for server in world.services.store.list_servers().await.unwrap() {
        world.provider.kill_server(server.id);
    }
    world
}

/// A store that was restored without what its provider keeps: the tenant's data are not there, and
/// an empty database in their place would be shown as healthy.
#[tokio::test]
async fn a_volume_that_is_lost_is_told_and_not_made_anew() {
    let world = rebooted(1).await;
    let id = world.instances()[0];
    let graph = world.services.store.get_instance_graph(id).await.unwrap();
    let volume = graph.volumes[0].id;
    world.provider.lose_volume(volume);
    let mut reconciler = Reconciler::new(world.services.clone());
    assert_eq!(reconciler.once().await.unwrap().recovered, 1);
    world.settle().await.unwrap();
    assert!(!world.provider.has_volume(volume), "it was made anew");
    let newest = world.services.store.find_newest_task(id).await.unwrap();
    let newest = newest.unwrap();
    let why = newest.error.unwrap_or_default();
    assert_eq!(newest.state, TaskState::Failed);
    assert!(why.contains("restore it"), "explain says only: {why}");
}

/// Two task managers on one store, each with a host of its own.
#[tokio::test]
async fn what_another_host_runs_is_not_recovered_here() {
    let world = rebooted(2).await;
    let mut services = world.services.clone();
    services.provider = Arc::new(FakeProvider::at("elsewhere", world.faults.clone()));
    let status = Reconciler::new(services).once().await.unwrap();
    assert_eq!((status.failed, status.recovered), (0, 0));
    let status = Reconciler::new(world.services.clone()).once().await;
    assert_eq!(status.unwrap().recovered, 2);
}
