//! The reconciler over a provider of which one record is damaged.

use coffer_control::taskmanager::periodic::reconcile::Reconciler;
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
