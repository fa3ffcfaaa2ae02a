//! What the operator changes of what is offered, and when it reaches a server.

use coffer_core::flavor::{Flavor, VolumeType};
use coffer_core::id::InstanceId;
use coffer_core::name::Name;
use coffer_core::units::{BytesPerSecond, IoLimits, Iops};
use coffer_store::volume_type::VolumeTypeChange;
use coffer_testkit::chaos::Faults;
use coffer_testkit::world::World;

/// Offers a volume type `gold` with these limits; instances asked for from now on have it.
pub(crate) async fn offer_gold(world: &mut World, io: IoLimits) {
    let gold = VolumeType {
        name: Name::parse("name", "gold").unwrap(),
        description: String::new(),
        io,
        created_at: world.services.clock.now(),
    };
    let store = &world.services.store;
    store.insert_volume_type(&gold).await.unwrap();
    world.volume_type = Some("gold".to_owned());
}

/// Limits of one kind each on reads and writes.
pub(crate) fn limits() -> IoLimits {
    IoLimits {
        read_iops_sec: Iops::parse("test", 1_000).ok(),
        write_bytes_sec: BytesPerSecond::parse("test", 1 << 20).ok(),
        ..IoLimits::NONE
    }
}

/// The limits that the provider was last asked for.
async fn at_the_provider(world: &World, id: InstanceId) -> IoLimits {
    let store = &world.services.store;
    let graph = store.get_instance_graph(id).await.unwrap();
    let server = world.provider.server(graph.servers[0].id).unwrap();
    server.spec.limits.io
}

async fn change(world: &World, change: &VolumeTypeChange) {
    let store = &world.services.store;
    store.update_volume_type("gold", change).await.unwrap();
    world.settle().await.unwrap();
}

#[tokio::test]
async fn io_limits_reach_a_server_at_its_next_restart_or_start() {
    let mut world = World::new(1, Faults::exact(Vec::new())).await;
    let plain = world.ask_create().await.unwrap();
    offer_gold(&mut world, limits()).await;
    let id = world.ask_create().await.unwrap();
    world.settle().await.unwrap();
    assert_eq!(at_the_provider(&world, plain).await, IoLimits::NONE);
    assert_eq!(at_the_provider(&world, id).await, limits());

    let slower = VolumeTypeChange {
        write_iops_sec: Some(Iops::parse("test", 50).ok()),
        ..VolumeTypeChange::default()
    };
    change(&world, &slower).await;
    assert_eq!(at_the_provider(&world, id).await, limits(), "not by itself");
    world.ask_restart(id).await.unwrap();
    world.settle().await.unwrap();
    let expected = IoLimits {
        write_iops_sec: Iops::parse("test", 50).ok(),
        ..limits()
    };
    assert_eq!(at_the_provider(&world, id).await, expected);

    let lifted = VolumeTypeChange {
        read_iops_sec: Some(None),
        write_iops_sec: Some(None),
        write_bytes_sec: Some(None),
        ..VolumeTypeChange::default()
    };
    change(&world, &lifted).await;
    world.ask_stop(id).await.unwrap();
    world.settle().await.unwrap();
    assert_eq!(at_the_provider(&world, id).await, expected);
    world.ask_start(id).await.unwrap();
    world.settle().await.unwrap();
    assert_eq!(at_the_provider(&world, id).await, IoLimits::NONE);
    world.check().await.unwrap();
}

/// Memory and processors that the provider was asked for, of an instance in this flavor.
async fn sized(memory_mib: u32, vcpus: u32) -> (u32, u32) {
    let world = World::new(1, Faults::exact(Vec::new())).await;
    let store = &world.services.store;
    let small = store.list_flavors().await.unwrap().remove(0);
    store.delete_flavor(&small.id).await.unwrap();
    let flavor = Flavor {
        memory_mib,
        vcpus,
        ..small
    };
    store.insert_flavor(&flavor).await.unwrap();
    let id = world.ask_create().await.unwrap();
    world.settle().await.unwrap();
    let graph = store.get_instance_graph(id).await.unwrap();
    let limits = world
        .provider
        .server(graph.servers[0].id)
        .unwrap()
        .spec
        .limits;
    (limits.memory_mib, limits.vcpus)
}

#[tokio::test]
async fn a_flavor_is_the_limit_of_its_server() {
    for flavor in [(256, 1), (3_072, 4)] {
        assert_eq!(sized(flavor.0, flavor.1).await, flavor);
    }
}
