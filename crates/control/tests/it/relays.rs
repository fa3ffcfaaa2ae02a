//! A tracker's relay and the API's door to it, over real sockets: who is heard, which grants
//! count, and what is said when no tracker is there.

use std::sync::Arc;
use std::time::Duration;

use coffer_control::auth::token::token_hash;
use coffer_control::authority;
use coffer_control::clock::{Clock, Entropy, SystemClock, SystemEntropy};
use coffer_control::guest::LinkGuests;
use coffer_control::supervise::Supervisor;
use coffer_control::tls::{self, AltNames, Authority, Renewed, Usage};
use coffer_control::tracker::Links;
use coffer_control::tracker::door::Door;
use coffer_control::tracker::listener::{Listener, Settings};
use coffer_control::tracker::relay::{Doors, Relays};
use coffer_core::actor::Actor;
use coffer_core::id::{InstanceId, ServerId, TenantId, TrackerId};
use coffer_core::tracker::{Grant, RelayPurpose, Tracker};
use coffer_infra::link::GuestLink;
use coffer_wire::relay::{Opening, Purpose, Refusal, Reply};
use rustls::pki_types::ServerName;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

use crate::world::{World, tenant_id};

const ID: TrackerId = TrackerId::from_uuid(Uuid::from_u128(0x77));

/// Nothing leads to any guest.
#[derive(Debug)]
struct NoLinks;

impl Links for NoLinks {
    fn link(&self, _server_id: ServerId) -> GuestLink {
        GuestLink::None
    }

    fn provider(&self) -> &'static str {
        "local"
    }
}

/// A tracker that listens beside an API which knows the way to it.
struct Beside {
    world: World,
    clock: Arc<dyn Clock>,
    authority: Authority,
    supervisor: Supervisor,
    address: String,
}

impl Beside {
    async fn new() -> Self {
        let world = World::new().await;
        // TLS looks at the real time.
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
        let (store, now) = (world.store.clone(), clock.now());
        let ca = authority::ensure(&store, &world.app.secrets, authority::RELAY, now);
        let authority = ca.await.unwrap();
        let supervisor = Supervisor::new();
        let client = Renewed::new(
            authority.clone(),
            "coffer",
            AltNames::default(),
            Usage::Client,
            Arc::clone(&clock),
        );
        let guests = LinkGuests::new(
            supervisor.clone(),
            Arc::new(client.unwrap()),
            authority.cert_pem.clone(),
        );
        let doors = Doors {
            store: store.clone(),
            guests: Arc::new(guests),
            links: Arc::new(NoLinks),
            clock: Arc::clone(&clock),
            entropy: Arc::clone(&entropy),
            token: supervisor.token(),
        };
        let settings = Settings {
            id: ID,
            provider: "local".to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            lease: Duration::from_secs(20),
            is_alone: true,
        };
        let relays = Relays::new(ID, doors);
        let ca = authority.clone();
        let listener = Listener::bind(settings, store.clone(), ca, Arc::clone(&clock), relays);
        let listener = listener.await.unwrap();
        let address = listener.address().unwrap().to_string();
        supervisor.start("tracker", listener.run(supervisor.clone()));
        let (ca, ours) = (authority.clone(), supervisor.clone());
        let door = Door::new(store, ca, Arc::clone(&clock), entropy, ours).unwrap();
        world.app.door.set(door).unwrap();
        Self {
            world,
            clock,
            authority,
            supervisor,
            address,
        }
    }

    /// What the relay answers to whoever shows a certificate of this authority.
    async fn answer(&self, authority: &Authority, opening: &Opening) -> std::io::Result<Reply> {
        let clock = Arc::clone(&self.clock);
        let (none, usage) = (AltNames::default(), Usage::Client);
        let own = Renewed::new(authority.clone(), "api", none, usage, clock).unwrap();
        let config = tls::relay_client_config(Arc::new(own), &self.authority.cert_pem).unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = ServerName::try_from(format!("{ID}.tracker.coffer")).unwrap();
        let stream = TcpStream::connect(&self.address).await?;
        let mut stream = connector.connect(name, stream).await?;
        let mut line = serde_json::to_vec(opening)?;
        line.push(b'\n');
        stream.write_all(&line).await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Why the relay is refused.
    async fn refusal(&self, opening: &Opening) -> Refusal {
        match self.answer(&self.authority, opening).await.unwrap() {
            Reply::Refused { why, .. } => why,
            Reply::Opened => panic!("nothing leads to a guest, and the relay is open"),
        }
    }

    async fn grant(&self, secret: &str, instance_id: InstanceId, until: u64) {
        let grant = Grant {
            hash: token_hash(secret),
            tracker_id: ID,
            tenant_id: tenant_id("demo"),
            instance_id,
            purpose: RelayPurpose::Connect,
            until,
            actor: actor(),
        };
        self.world.store.insert_grant(&grant).await.unwrap();
    }
}

fn actor() -> Actor {
    Actor {
        tenant_id: tenant_id("demo"),
        user_id: "alice".parse().unwrap(),
        roles: vec!["member".to_owned()],
        request_id: "req-1".to_owned(),
        client_address: String::new(),
    }
}

fn opening(grant: &str, tenant: &TenantId, instance_id: InstanceId) -> Opening {
    Opening {
        grant: grant.to_owned(),
        project_id: tenant.to_string(),
        instance_id: instance_id.to_string(),
        purpose: Purpose::Connect,
    }
}

#[tokio::test]
async fn a_relay_takes_a_grant_once_and_for_what_it_names() {
    let beside = Beside::new().await;
    let alice = beside.world.alice().await;
    let id: InstanceId = beside.world.active(&alice, "db").await.parse().unwrap();
    let (demo, other) = (tenant_id("demo"), tenant_id("other"));
    beside.grant("secret", id, 100).await;
    beside.grant("ended", id, 0).await;
    for unknown in [
        opening("unknown", &demo, id),
        opening("ended", &demo, id),
        opening("secret", &other, id),
        Opening {
            purpose: Purpose::Visit(coffer_wire::guest::v1::UserSpec {
                name: "v".to_owned(),
                host: None,
                password: "p".to_owned(),
                databases: vec![],
            }),
            ..opening("secret", &demo, id)
        },
        Opening {
            instance_id: "x".to_owned(),
            ..opening("secret", &demo, id)
        },
    ] {
        assert_eq!(
            beside.refusal(&unknown).await,
            Refusal::Grant,
            "{unknown:?}"
        );
    }
    let ours = opening("secret", &demo, id);
    assert!(!format!("{ours:?}").contains("secret"), "it is printed");
    // The grant counts: only the guest is not there.
    assert_eq!(beside.refusal(&ours).await, Refusal::NotReachable);
    assert_eq!(beside.refusal(&ours).await, Refusal::Grant, "a second time");
    beside.supervisor.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_relay_hears_only_those_whom_coffer_has_signed() {
    let beside = Beside::new().await;
    let alice = beside.world.alice().await;
    let id: InstanceId = beside.world.active(&alice, "db").await.parse().unwrap();
    beside.grant("secret", id, 100).await;
    let ours = opening("secret", &tenant_id("demo"), id);
    let stranger = Authority::generate("Coffer relay", beside.clock.now()).unwrap();
    let answer = beside.answer(&stranger, &ours).await;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(beside.refusal(&ours).await, Refusal::NotReachable, "unused");
}

#[tokio::test]
async fn who_connects_is_told_what_is_not_there() {
    let beside = Beside::new().await;
    let (world, alice) = (&beside.world, beside.world.alice().await);
    let id = world.active(&alice, "db").await;
    let visit = async || {
        let path = format!("/instances/{id}/visits");
        world.post(&alice, &path, json!({"visit": {}})).await
    };
    let fault = visit().await.fault(422, "unprocessableEntity");
    assert_eq!(fault["reason"], "not-reachable", "{fault}");

    let root = world.root().await;
    let listed = world.get(&root, "/admin/trackers").await.expect(200);
    let shown = &listed["trackers"][0];
    assert_eq!(
        (&shown["address"], &shown["answers"], &shown["provider"]),
        (&json!(beside.address), &json!(true), &json!("local"))
    );

    // One that is gone without a farewell; a living one is found beside it.
    let gone = Tracker {
        id: TrackerId::from_uuid(Uuid::from_u128(0x78)),
        provider: "local".to_owned(),
        address: "127.0.0.1:1".to_owned(),
        beat: 7,
        started_at: beside.clock.now(),
    };
    world.store.insert_tracker(&gone).await.unwrap();
    let fault = visit().await.fault(422, "unprocessableEntity");
    assert_eq!(fault["reason"], "not-reachable", "{fault}");
    let listed = world.get(&root, "/admin/trackers").await.expect(200);
    assert_eq!(listed["trackers"][1]["answers"], false);

    assert!(beside.supervisor.stop(Duration::from_secs(5)).await);
    let fault = visit().await.fault(503, "serviceUnavailable");
    assert_eq!(fault["reason"], "tracker-unreachable");
    let message = fault["message"].as_str().unwrap();
    assert!(message.contains("does not answer"), "{message}");
    world.store.delete_tracker(gone.id).await.unwrap();
    let fault = visit().await.fault(503, "serviceUnavailable");
    assert_eq!(
        fault["reason"], "no-tracker",
        "one that stops takes its leave"
    );
    assert!(fault["hint"].as_str().unwrap().contains("coffer tracker"));
}
