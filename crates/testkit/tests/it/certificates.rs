//! Certificates of instances are made anew long before they end, and not sooner.

use std::time::Duration;

use coffer_control::authority;
use coffer_control::taskmanager::periodic::certificates::Renewer;
use coffer_control::tls::{self, RENEW_DAYS};
use coffer_core::id::InstanceId;
use coffer_testkit::chaos::Faults;
use coffer_testkit::world::World;

const DAY: Duration = Duration::from_secs(86_400);

/// Whether the certificates of an instance, its link's and its engine's, are good in so many days.
async fn are_good(world: &World, id: InstanceId, days: i64) -> [bool; 2] {
    let services = &world.services;
    let graph = services.store.get_instance_graph(id).await.unwrap();
    let kept = world.guests.kept(graph.volumes[0].id);
    let engine = kept.spec.unwrap().tls.unwrap();
    let link_ca = authority::link(services).await.unwrap();
    let then = services.clock.now().plus_seconds(days * 86_400);
    [
        tls::is_good(&kept.link_cert.unwrap(), &link_ca.cert_pem, then).unwrap(),
        tls::is_good(&engine.cert_pem, &engine.ca_pem, then).unwrap(),
    ]
}

async fn look(world: &World) -> usize {
    let asked = Renewer::new(world.services.clone()).once().await.unwrap();
    world.settle().await.unwrap();
    asked
}

#[tokio::test]
async fn they_are_made_anew_when_a_third_of_their_time_is_left() {
    let world = World::new(1, Faults::exact(Vec::new())).await;
    let id = world.ask_create().await.unwrap();
    world.settle().await.unwrap();
    let graph = world.services.store.get_instance_graph(id).await.unwrap();
    let starts = world.provider.server(graph.servers[0].id).unwrap().starts;
    for _ in 0..4 {
        world
            .clock
            .advance(DAY * u32::try_from(RENEW_DAYS - 1).unwrap());
        assert_eq!(look(&world).await, 0, "too soon");
        assert_eq!(
            are_good(&world, id, 120).await,
            [true, true],
            "they end soon"
        );
        assert_eq!(are_good(&world, id, 390).await, [false, false]);
        world.clock.advance(DAY + DAY);
        assert_eq!(look(&world).await, 1);
        assert_eq!(look(&world).await, 0, "once is enough");
        assert_eq!(are_good(&world, id, 390).await, [true, true], "no new ones");
    }
    world.check().await.unwrap();
    let now = world.provider.server(graph.servers[0].id).unwrap().starts;
    assert_eq!(now, starts, "it was restarted for that");
}
