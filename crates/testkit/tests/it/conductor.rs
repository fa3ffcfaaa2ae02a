//! The conductor over guests in memory: what it hears, what it misses, what it notices late.

use std::sync::Arc;
use std::time::Duration;

use coffer_control::clock::Clock;
use coffer_control::conductor::{Conductor, Patience};
use coffer_control::supervise::Supervisor;
use coffer_core::event::Event;
use coffer_core::id::InstanceId;
use coffer_core::instance::{Health, Instance};
use coffer_testkit::chaos::Faults;
use coffer_testkit::world::World;

/// Longest a condition may take to hold; virtual time.
const BOUND: Duration = Duration::from_secs(600);

/// A world with an instance in service, and what runs in it.
pub(crate) struct Conducted {
    pub(crate) world: World,
    pub(crate) id: InstanceId,
    pub(crate) supervisor: Supervisor,
}

impl Conducted {
    pub(crate) async fn new() -> Self {
        let world = World::new(1, Faults::exact(Vec::new())).await;
        let id = world.ask_create().await.unwrap();
        world.settle().await.unwrap();
        world.guests.hold_polls();
        Self {
            world,
            id,
            supervisor: Supervisor::new(),
        }
    }

    /// Starts a conductor as a process of its own would; knows itself alone.
    pub(crate) fn start(&self, name: &str) {
        let patience = Patience::new(Duration::from_secs(10), Duration::from_secs(30));
        let conductor = Conductor::new(self.world.services.clone(), name.to_owned(), true)
            .with_patience(patience);
        let run = Arc::new(conductor).run(self.supervisor.clone());
        self.supervisor.start("conductor", run);
    }

    /// Ends the conductor and what it started.
    pub(crate) async fn stop(&mut self) {
        let old = std::mem::take(&mut self.supervisor);
        let mut stopping = std::pin::pin!(old.stop(Duration::from_secs(20)));
        loop {
            tokio::select! {
                biased;
                ended = &mut stopping => return assert!(ended, "the conductor does not stop"),
                () = tokio::task::yield_now() => self.world.clock.advance(STEP),
            }
        }
    }

    pub(crate) async fn instance(&self) -> Instance {
        let found = self.world.services.store.find_instance(self.id).await;
        found.unwrap().unwrap()
    }

    pub(crate) async fn events(&self, code: &str) -> Vec<Event> {
        let all = self.world.services.store.list_events(self.id, None, 100);
        let all = all.await.unwrap();
        all.into_iter().filter(|e| e.code == code).collect()
    }

    /// Moves the clock until the instance has this health; gives how long that took.
    pub(crate) async fn until(&self, health: Health) -> Duration {
        let begun = self.world.clock.monotonic();
        loop {
            let now = self.instance().await.health;
            let took = self.world.clock.monotonic() - begun;
            if now == health {
                return took;
            }
            assert!(took < BOUND, "it is {now}, not {health}");
            self.pass().await;
        }
    }

    /// Lets what runs go on and a little time pass.
    pub(crate) async fn pass(&self) {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        self.world.clock.advance(STEP);
    }
}

/// What the clock moves by.
const STEP: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_frozen_guest_is_lost_in_time_and_heard_again() {
    let conducted = Conducted::new().await;
    conducted.start("c");
    conducted.until(Health::Healthy).await;
    let before = conducted.instance().await;

    conducted.world.guests.freeze(true);
    let took = conducted.until(Health::Lost).await;
    let (least, most) = (Duration::from_secs(19), Duration::from_secs(45));
    assert!(took >= least && took <= most, "lost after {took:?}");
    let lost = conducted.instance().await;
    assert_eq!(lost.volume_used_bytes, before.volume_used_bytes);
    let tasks = conducted.world.unended().await.unwrap();
    assert!(tasks.is_empty(), "its server runs: {tasks:?}");

    conducted.world.guests.freeze(false);
    let took = conducted.until(Health::Healthy).await;
    assert!(took < Duration::from_secs(15), "heard after {took:?}");
}

#[tokio::test]
async fn a_lost_server_is_lost_at_once_and_healthy_after_recovery() {
    let conducted = Conducted::new().await;
    conducted.start("c");
    conducted.until(Health::Healthy).await;
    let store = &conducted.world.services.store;
    let graph = store.get_instance_graph(conducted.id).await.unwrap();
    for server in graph.servers {
        conducted.world.provider.kill_server(server.id);
    }
    let took = conducted.until(Health::Lost).await;
    assert!(took < Duration::from_secs(15), "lost after {took:?}");
    while conducted.world.unended().await.unwrap().is_empty() {
        conducted.pass().await;
    }
    conducted.world.settle().await.unwrap();
    conducted.until(Health::Healthy).await;
    assert_eq!(conducted.events("instance.recovered").await.len(), 1);
}

#[tokio::test]
async fn an_engine_started_again_while_nobody_looked_is_noticed() {
    let mut conducted = Conducted::new().await;
    conducted.start("before");
    conducted.until(Health::Healthy).await;
    conducted.stop().await;
    let store = &conducted.world.services.store;
    let graph = store.get_instance_graph(conducted.id).await.unwrap();
    assert!(conducted.events("engine.started_again").await.is_empty());

    conducted.world.guests.restart_engine(graph.volumes[0].id);
    conducted.start("after");
    let begun = conducted.world.clock.monotonic();
    while conducted.events("engine.started_again").await.is_empty() {
        let took = conducted.world.clock.monotonic() - begun;
        assert!(took < BOUND, "nobody noticed");
        conducted.pass().await;
    }
    for _ in 0..100 {
        conducted.pass().await;
    }
    let events = conducted.events("engine.started_again").await;
    assert_eq!(events.len(), 1, "it is told once: {events:?}");
}

#[tokio::test]
async fn what_a_guest_says_of_its_engine_is_told_once() {
    let mut conducted = Conducted::new().await;
    conducted.start("before");
    conducted.until(Health::Healthy).await;
    let store = &conducted.world.services.store;
    let volume = store
        .get_instance_graph(conducted.id)
        .await
        .unwrap()
        .volumes[0]
        .id;
    let said = async |conducted: &Conducted| {
        let events = conducted.events("engine.trouble").await;
        events
            .into_iter()
            .map(|event| event.message)
            .collect::<Vec<_>>()
    };
    conducted.world.guests.trouble(volume, "it exited");
    conducted.until(Health::Crashed).await;
    assert_eq!(said(&conducted).await, ["it exited"]);

    // Another conductor knows it from the history.
    conducted.stop().await;
    conducted.start("after");
    for _ in 0..100 {
        conducted.pass().await;
    }
    assert_eq!(said(&conducted).await, ["it exited"]);

    // The same again after it served is told again.
    conducted.world.guests.trouble(volume, "");
    conducted.until(Health::Healthy).await;
    conducted.world.guests.trouble(volume, "it exited");
    conducted.until(Health::Crashed).await;
    assert_eq!(said(&conducted).await, ["it exited", "it exited"]);
}
