//! The guest agent protocol's conformance suite: a real agent over real sockets with TLS on both
//! sides, through every form of link. The engine is in memory; the real one is in `sandbox.rs`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use coffer_guest::agent;
use coffer_guest::embed::MemoryEngine;
use coffer_guest::limits;
use coffer_wire::guest::v1::{
    AGENT_INCOMPLETE, Boot, Command, CommandState, DatabaseSpec, EngineHealth, EngineState,
    Enrolled, Enrolment, Fencing, InventoryPage, OTHER_CONTENT, Operation, PROTOCOL, Role,
    SessionEvent, SessionRequest, Spec, SpecAccepted, Status, StreamRequest, StreamState, UserSpec,
    VISITOR_PREFIX, WRONG_OFFSET,
};
use http_body_util::BodyExt;
use hyper::StatusCode;
use rcgen::ExtendedKeyUsagePurpose;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::support::client::{Client, Dial};
use crate::support::link::{self, Link};
use crate::support::pki::{self, Ca};
use crate::support::process;

const SERVER_ID: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

/// An agent that runs, and what it is made of.
struct World {
    dir: tempfile::TempDir,
    ca: Ca,
    engine: MemoryEngine,
    link: Arc<Link>,
    agent: JoinHandle<()>,
    address: SocketAddr,
}

pub(crate) fn boot(ca: &Ca, data_dir: &str) -> Boot {
    Boot {
        protocol: PROTOCOL,
        server_id: SERVER_ID.to_owned(),
        instance_id: None,
        link_ca_pem: ca.pem.clone(),
        bind: Vec::new(),
        engine: "memory".to_owned(),
        engine_version: "1".to_owned(),
        agent_uid: 1,
        engine_uid: 2,
        data_dir: data_dir.to_owned(),
        memory_mib: 512,
        vcpus: 1,
    }
}

impl World {
    async fn new(link: Link, engine: impl FnOnce(MemoryEngine) -> MemoryEngine) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["config", "log", "agent"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let engine = engine(MemoryEngine::new(dir.path().to_owned()));
        let link = Arc::new(link);
        let ca = Ca::new("link");
        let (agent, address) = start_agent(&link, &engine, &ca, dir.path()).await;
        Self {
            dir,
            ca,
            engine,
            link,
            agent,
            address,
        }
    }

    /// Kills the agent and starts another on the same files, as init would.
    async fn replace_agent(&mut self) {
        self.agent.abort();
        // Its listener is gone when the task is.
        (&mut self.agent).await.ok();
        let (agent, address) =
            start_agent(&self.link, &self.engine, &self.ca, self.dir.path()).await;
        (self.agent, self.address) = (agent, address);
    }

    fn client(&self, config: Arc<tokio_rustls::rustls::ClientConfig>) -> Client {
        let (link, address) = (Arc::clone(&self.link), self.address);
        let dial: Dial = Arc::new(move || {
            let link = Arc::clone(&link);
            Box::pin(async move { link.dial(address).await })
        });
        Client {
            dial,
            config,
            server_id: SERVER_ID.to_owned(),
        }
    }

    async fn enrolled(&self) -> Client {
        enrol(&self.ca, &self.client(pki::trusting(&self.ca)), SERVER_ID).await;
        self.client(pki::verifying(&self.ca))
    }

    async fn end(self) {
        self.agent.abort();
        self.agent.await.ok();
    }
}

async fn start_agent(
    link: &Link,
    engine: &MemoryEngine,
    ca: &Ca,
    dir: &std::path::Path,
) -> (JoinHandle<()>, SocketAddr) {
    let listener = link.listen().await;
    let address = listener.local_addr().unwrap();
    let parts = engine.parts(
        boot(ca, &dir.display().to_string()),
        Some(dir.join("agent")),
    );
    let agent = process::start(async move {
        agent::serve(parts, vec![listener])
            .await
            .expect("the agent starts");
    });
    (agent, address)
}

/// Enrols a guest; its engine's request is returned.
pub(crate) async fn enrol(ca: &Ca, client: &Client, server_id: &str) -> String {
    let enrolment: Enrolment = client.ask("GET", "/v1/enrol").await;
    assert_eq!(enrolment.server_id, server_id);
    let link_cert_pem = ca.sign(
        &enrolment.link_csr_pem,
        &[server_id],
        ExtendedKeyUsagePurpose::ServerAuth,
    );
    let after: Enrolment = client
        .send("PUT", "/v1/enrol", &Enrolled { link_cert_pem })
        .await;
    assert!(after.is_enrolled);
    enrolment.engine_csr_pem
}

fn spec(generation: u64, version: u64, state: EngineState) -> Spec {
    Spec {
        generation,
        version,
        role: Role::Primary,
        engine_state: state,
        identity: SERVER_ID.to_owned(),
        config: Vec::new(),
        tls: None,
    }
}

pub(crate) fn command(id: &str, task_version: u64, operation: Operation) -> Command {
    Command {
        id: id.to_owned(),
        fencing: Fencing {
            task_id: "task".to_owned(),
            task_version,
            generation: 1,
        },
        timeout_ms: 30_000,
        operation,
    }
}

pub(crate) fn create(name: &str) -> Operation {
    let name = name.to_owned();
    Operation::CreateDatabases {
        databases: vec![DatabaseSpec {
            name,
            character_set: None,
            collate: None,
        }],
    }
}

/// Gives a command and waits for its end.
pub(crate) async fn conclude(client: &Client, command: &Command) -> CommandState {
    let mut state: CommandState = client.send("POST", "/v1/commands", command).await;
    while state == CommandState::Running {
        let path = format!("/v1/commands/{}?wait_ms=5000", command.id);
        state = client.ask("GET", &path).await;
    }
    state
}

#[tokio::test]
async fn protocol_over_a_plain_link() {
    suite(Link::plain()).await;
}

#[tokio::test]
async fn protocol_over_an_entered_namespace() {
    suite(Link::entered().await).await;
}

#[tokio::test]
async fn protocol_over_a_member_of_the_network() {
    suite(Link::member().await).await;
}

async fn suite(link: Link) {
    eprintln!("link: {}", link.name);
    let mut world = World::new(link, |engine| engine).await;
    only_known_clients(&world).await;
    let client = world.enrolled().await;
    specs(&world, &client).await;
    commands(&world, &client).await;
    inventory(&client).await;
    bad_requests(&client).await;
    sessions(&world, &client).await;
    visits(&world, &client).await;
    crashes(&world, &client).await;
    agent_replaced(&mut world).await;
    world.end().await;
}

async fn only_known_clients(world: &World) {
    let stranger = Ca::new("stranger");
    for config in [pki::anonymous(), pki::trusting(&stranger)] {
        let refused = world
            .client(config)
            .open("GET", "/v1/enrol", Vec::new())
            .await;
        assert!(
            refused.is_err(),
            "a client without our certificate was answered"
        );
    }
    let client = world.client(pki::trusting(&world.ca));
    let (status, refusal) = client.refused("GET", "/v1/status", &()).await;
    assert_eq!(
        (status, refusal.reason.as_str()),
        (StatusCode::FORBIDDEN, "not-enrolled")
    );
    let enrolment: Enrolment = client.ask("GET", "/v1/enrol").await;
    let other = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::new(Vec::new())
        .unwrap()
        .serialize_request(&other);
    let foreign = world.ca.sign(
        &request.unwrap().pem().unwrap(),
        &[SERVER_ID],
        ExtendedKeyUsagePurpose::ServerAuth,
    );
    let wrong = Enrolled {
        link_cert_pem: foreign,
    };
    let (status, _) = client.refused("PUT", "/v1/enrol", &wrong).await;
    assert_eq!(
        status,
        StatusCode::BAD_REQUEST,
        "a certificate of another key was taken"
    );
    let again: Enrolment = client.ask("GET", "/v1/enrol").await;
    let key = |pem: &str| {
        rcgen::CertificateSigningRequestParams::from_pem(pem)
            .unwrap()
            .public_key
    };
    assert_eq!(
        key(&enrolment.link_csr_pem),
        key(&again.link_csr_pem),
        "the key changed"
    );
    let verifying = world.client(pki::verifying(&world.ca));
    assert!(
        verifying
            .open("GET", "/v1/enrol", Vec::new())
            .await
            .is_err(),
        "it was not enrolled"
    );
}

async fn specs(world: &World, client: &Client) {
    let waiting = client.status().await;
    assert_eq!(waiting.health, EngineHealth::Waiting);
    // A long poll is answered by the change, long before its time.
    let poll = {
        let (client, after) = (client.clone(), waiting.sequence);
        process::start(async move {
            let path = format!("/v1/status?after={after}&wait_ms=50000");
            client.ask::<Status>("GET", &path).await
        })
    };
    let running = spec(1, 1, EngineState::Running);
    let accepted: SpecAccepted = client.send("PUT", "/v1/spec", &running).await;
    assert_eq!((accepted.generation, accepted.version), (1, 1));
    let polled = tokio::time::timeout(Duration::from_secs(20), poll).await;
    let polled = polled.expect("the poll ends early").unwrap();
    assert!(polled.sequence > waiting.sequence);
    let healthy = client.until_healthy().await;
    assert_eq!((healthy.applied_version, healthy.engine_starts), (1, 1));
    assert_eq!(world.engine.identity().as_deref(), Some(SERVER_ID));
    // A poll without a change ends at its time.
    let path = format!("/v1/status?after={}&wait_ms=50", healthy.sequence + 100);
    let same: Status = client.ask("GET", &path).await;
    assert_eq!(same.agent_start, healthy.agent_start);
    client
        .send::<SpecAccepted>("PUT", "/v1/spec", &spec(1, 2, EngineState::Stopped))
        .await;
    client
        .until("a stopped engine", |s| s.health == EngineHealth::Stopped)
        .await;
    let (status, refusal) = client.refused("PUT", "/v1/spec", &running).await;
    assert_eq!(
        (status, refusal.reason.as_str()),
        (StatusCode::CONFLICT, "older-generation")
    );
    // A version stands for one content.
    let mut other = spec(1, 2, EngineState::Stopped);
    client.send::<SpecAccepted>("PUT", "/v1/spec", &other).await;
    other.engine_state = EngineState::Running;
    let (status, refusal) = client.refused("PUT", "/v1/spec", &other).await;
    assert_eq!(
        (status, refusal.reason.as_str()),
        (StatusCode::CONFLICT, OTHER_CONTENT)
    );
    client
        .send::<SpecAccepted>("PUT", "/v1/spec", &spec(1, 3, EngineState::Running))
        .await;
    let again = client.until_healthy().await;
    assert_eq!((again.applied_version, again.engine_starts), (3, 2));
}

async fn commands(world: &World, client: &Client) {
    let first = command("c1", 5, create("one"));
    assert_eq!(conclude(client, &first).await, CommandState::Done);
    assert_eq!(conclude(client, &first).await, CommandState::Done);
    assert_eq!(
        world.engine.applied(),
        ["create-databases"],
        "a command was applied twice"
    );
    let (status, refusal) = client
        .refused("POST", "/v1/commands", &command("c2", 4, create("two")))
        .await;
    assert_eq!(
        (status, refusal.reason.as_str()),
        (StatusCode::CONFLICT, "older-generation")
    );
    let mut old = command("c3", 9, create("three"));
    old.fencing.generation = 0;
    let (status, _) = client.refused("POST", "/v1/commands", &old).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, _) = client.refused("GET", "/v1/commands/c2", &()).await;
    assert_eq!(
        status,
        StatusCode::NOT_FOUND,
        "a refused command is remembered"
    );
    let nobody = Operation::Grant {
        name: "nobody".to_owned(),
        host: None,
        databases: vec!["one".to_owned()],
    };
    match conclude(client, &command("c4", 5, nobody)).await {
        CommandState::Failed { reason, .. } => assert_eq!(reason, "user-missing"),
        other => panic!("granted to nobody: {other:?}"),
    }
    let starts = client.status().await.engine_starts;
    let restart = conclude(client, &command("c5", 5, Operation::Restart)).await;
    assert_eq!(restart, CommandState::Done);
    assert_eq!(client.until_healthy().await.engine_starts, starts + 1);
    // While the engine is mute a command waits, and is cancelled by its removal.
    let (status, _) = client
        .request("DELETE", "/v1/commands/c4", Vec::new())
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) = client.refused("GET", "/v1/commands/c4", &()).await;
    assert_eq!(
        status,
        StatusCode::NOT_FOUND,
        "a forgotten command is known"
    );
}

async fn inventory(client: &Client) {
    let before = client.status().await.inventory_counter;
    let user = |name: String| UserSpec {
        name,
        host: None,
        password: "secret".to_owned(),
        databases: vec!["one".to_owned()],
    };
    let users = (0..5).map(|i| user(format!("u{i}"))).collect();
    let state = conclude(client, &command("i1", 5, Operation::CreateUsers { users })).await;
    assert_eq!(state, CommandState::Done);
    let changed = client
        .until("a counted change", |s| s.inventory_counter > before)
        .await;
    let (mut names, mut after) = (Vec::new(), None);
    loop {
        let mut path = "/v1/inventory?limit=2".to_owned();
        if let Some(after) = &after {
            path.push_str(&format!("&after={after}"));
        }
        let page: InventoryPage = client.ask("GET", &path).await;
        assert!(page.counter >= changed.inventory_counter);
        assert!(page.databases.len() + page.users.len() <= 2);
        names.extend(page.databases.into_iter().map(|database| database.name));
        names.extend(page.users.into_iter().map(|user| user.name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names, ["one", "u0", "u1", "u2", "u3", "u4"]);
}

async fn bad_requests(client: &Client) {
    for (method, path) in [("GET", "/"), ("GET", "/v2/status"), ("POST", "/v1/status")] {
        let (status, refusal) = client.refused(method, path, &()).await;
        assert_eq!(
            (status, refusal.reason.as_str()),
            (StatusCode::NOT_FOUND, "unknown"),
            "{path}"
        );
    }
    for path in ["/v1/status?after=x", "/v1/inventory?after=x"] {
        let (status, _) = client.refused("GET", path, &()).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{path}");
    }
    let (status, body) = client
        .request("POST", "/v1/commands", b"{\"password\":\"hu".to_vec())
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        !String::from_utf8_lossy(&body).contains("hu\""),
        "a refusal quotes the body"
    );
    let large = vec![b' '; limits::BODY_BYTES_MAX + 1];
    let (status, _) = client.request("PUT", "/v1/spec", large).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let mut escaping = spec(1, 9, EngineState::Running);
    escaping.config.push(coffer_wire::guest::v1::ConfigFile {
        name: "../agent/link.key".to_owned(),
        content: String::new(),
    });
    let (status, _) = client.refused("PUT", "/v1/spec", &escaping).await;
    assert_eq!(
        status,
        StatusCode::BAD_REQUEST,
        "a file outside its directory was taken"
    );
}

async fn sessions(world: &World, client: &Client) {
    let fencing = command("s", 5, Operation::Restart).fencing;
    let open = async |hold_ms_max| {
        let wanted = SessionRequest::Quiesce {
            hold_ms_max,
            fencing: fencing.clone(),
        };
        let body = serde_json::to_vec(&wanted).unwrap();
        let mut open = client
            .open("POST", "/v1/sessions", body)
            .await
            .expect("a session");
        let held = event(&mut open.response).await.expect("an event");
        assert!(matches!(held, SessionEvent::Held { .. }), "{held:?}");
        assert_eq!(world.engine.holds(), 1);
        open
    };
    drop(open(60_000).await);
    process::until("the hold ends with its connection", async || {
        world.engine.holds() == 0
    })
    .await;
    let mut short = open(50).await;
    let ended = event(&mut short.response).await.expect("an event");
    assert!(matches!(ended, SessionEvent::Ended { .. }), "{ended:?}");
    assert_eq!(world.engine.holds(), 0);
    assert!(event(&mut short.response).await.is_none());
}

/// A visitor is there as long as its connection, and no longer than was agreed.
async fn visits(world: &World, client: &Client) {
    let open = async |name: &str, hold_ms_max| {
        let user = UserSpec {
            name: format!("{VISITOR_PREFIX}{name}"),
            host: None,
            password: "secret".to_owned(),
            databases: Vec::new(),
        };
        let wanted = SessionRequest::Visit { user, hold_ms_max };
        let body = serde_json::to_vec(&wanted).unwrap();
        client
            .open("POST", "/v1/sessions", body)
            .await
            .expect("a session")
    };
    let mut stays = Vec::new();
    for n in 0..limits::VISITS_MAX {
        let mut stay = open(&n.to_string(), 60_000).await;
        let held = event(&mut stay.response).await.expect("an event");
        assert!(matches!(held, SessionEvent::Held { .. }), "{held:?}");
        stays.push(stay);
    }
    assert_eq!(world.engine.visitors().len(), limits::VISITS_MAX);
    let refused = open("more", 60_000).await;
    assert!(!refused.response.status().is_success(), "the bound holds");
    drop(stays.pop());
    process::until("one visitor goes with its connection", async || {
        world.engine.visitors().len() == limits::VISITS_MAX - 1
    })
    .await;
    drop(stays);
    process::until("the others go with theirs", async || {
        world.engine.visitors().is_empty()
    })
    .await;
    let mut short = open("short", 50).await;
    let held = event(&mut short.response).await.expect("an event");
    assert!(matches!(held, SessionEvent::Held { .. }), "{held:?}");
    let ended = event(&mut short.response).await.expect("an event");
    assert!(matches!(ended, SessionEvent::Ended { .. }), "{ended:?}");
    assert!(world.engine.visitors().is_empty());
}

async fn event(response: &mut hyper::Response<hyper::body::Incoming>) -> Option<SessionEvent> {
    let frame = tokio::time::timeout(Duration::from_secs(20), response.body_mut().frame()).await;
    let bytes = frame.expect("an event in time")?.ok()?.into_data().ok()?;
    Some(serde_json::from_slice(&bytes).expect("an event"))
}

async fn crashes(world: &World, client: &Client) {
    let starts = client.status().await.engine_starts;
    world.engine.set_mute(true);
    client
        .until("a blocked engine", |s| s.health == EngineHealth::Blocked)
        .await;
    world.engine.set_mute(false);
    client.until_healthy().await;
    for restarted in 1..=2 {
        world.engine.crash();
        let back =
            |s: &Status| s.health == EngineHealth::Healthy && s.engine_starts == starts + restarted;
        client.until("a restart after a crash", back).await;
    }
    world.engine.crash();
    let left = client
        .until("an engine left alone", |s| {
            s.health == EngineHealth::Crashed
        })
        .await;
    assert_eq!(left.engine_starts, starts + 2);
    assert!(
        left.message.contains("restart the instance"),
        "{}",
        left.message
    );
    let restart = conclude(client, &command("k1", 5, Operation::Restart)).await;
    assert_eq!(restart, CommandState::Done);

    // One that starts loses the signal that would stop it, and is not waited for as long as one
    // that serves.
    let starts = client.status().await.engine_starts;
    world.engine.set_mute(true);
    world.engine.crash();
    let is_starting =
        |s: &Status| s.health == EngineHealth::Starting && s.engine_starts == starts + 1;
    client.until("a start", is_starting).await;
    let restart = command("k2", 5, Operation::Restart);
    let restarted = conclude(client, &restart);
    let heard = async {
        let is_new = |s: &Status| s.engine_starts == starts + 2;
        client.until("a new process", is_new).await;
        world.engine.set_mute(false);
    };
    let (restarted, ()) = tokio::join!(restarted, heard);
    assert_eq!(restarted, CommandState::Done);
}

async fn agent_replaced(world: &mut World) {
    let client = world.client(pki::verifying(&world.ca));
    let before = client.until_healthy().await;
    let applied = world.engine.applied().len();
    world.replace_agent().await;
    let client = world.client(pki::verifying(&world.ca));
    let after = client.until_healthy().await;
    assert_ne!(after.agent_start, before.agent_start);
    assert_eq!(
        after.engine_process, before.engine_process,
        "the engine was touched"
    );
    assert_eq!(after.applied_version, before.applied_version);
    assert!(after.inventory_counter >= before.inventory_counter);
    assert_eq!(
        conclude(&client, &command("c1", 5, create("one"))).await,
        CommandState::Done
    );
    assert_eq!(
        world.engine.applied().len(),
        applied,
        "a known command was applied again"
    );
    let (status, _) = client
        .refused("POST", "/v1/commands", &command("n", 4, create("x")))
        .await;
    assert_eq!(
        status,
        StatusCode::CONFLICT,
        "the task's version was forgotten"
    );
    let (status, _) = client
        .refused("PUT", "/v1/spec", &spec(1, 2, EngineState::Stopped))
        .await;
    assert_eq!(
        status,
        StatusCode::CONFLICT,
        "the spec's version was forgotten"
    );
}

#[tokio::test]
async fn an_agent_starts_its_engine_alone() {
    let mut world = World::new(Link::plain(), |engine| engine).await;
    let client = world.enrolled().await;
    client
        .send::<SpecAccepted>("PUT", "/v1/spec", &spec(1, 1, EngineState::Running))
        .await;
    client.until_healthy().await;
    // The whole sandbox goes down: agent and engine. Nobody speaks to the new agent but to look.
    world.agent.abort();
    world.engine.crash();
    world.replace_agent().await;
    let client = world.client(pki::verifying(&world.ca));
    let status = client.until_healthy().await;
    assert_eq!((status.engine_starts, status.applied_version), (2, 1));
    world.end().await;
}

#[tokio::test]
async fn streams_resume_and_hold_up_their_source() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let world = World::new(Link::plain(), |engine| engine.with_client_port(port)).await;
    let client = world.enrolled().await;
    let state: StreamState = client
        .send("POST", "/v1/streams", &StreamRequest::Connect)
        .await;
    let (mut engine, _) = listener.accept().await.unwrap();
    let path = |tail: &str| format!("/v1/streams/{}{tail}", state.id);
    // Towards the engine: what is sent twice arrives once, a gap is refused.
    for (offset, body) in [(0, "abcdef"), (3, "defghi"), (9, "")] {
        let path = path(&format!("?offset={offset}"));
        let (status, _) = client.request("PUT", &path, body.as_bytes().to_vec()).await;
        assert_eq!(status, StatusCode::OK);
    }
    let (status, _) = client
        .request("PUT", &path("?offset=10"), b"x".to_vec())
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    let mut got = [0; 9];
    engine.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"abcdefghi");
    // From the engine: more than the stream keeps, so the source has to wait.
    let total = limits::STREAM_BYTES_MAX * 32;
    let data: Vec<u8> = (0..total).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let source = data.clone();
    let writer = process::start(async move { engine.write_all(&source).await });
    let bound = (limits::STREAM_BYTES_MAX + limits::STREAM_PIECE_BYTES) as u64;
    let mut offset = 0;
    let mut rounds = 0;
    while offset < data.len() as u64 {
        // Each time a new connection, from where the last one got to; half is acknowledged.
        let tail = format!("?offset={offset}");
        let mut open = client.open("GET", &path(&tail), Vec::new()).await.unwrap();
        assert_eq!(open.response.status(), StatusCode::OK);
        let mut taken = 0;
        while taken < bound / 2 && offset < data.len() as u64 {
            let piece = open.response.body_mut().frame().await.unwrap().unwrap();
            let piece = piece.into_data().unwrap();
            let from = usize::try_from(offset).unwrap();
            assert!(
                piece[..] == data[from..from + piece.len()],
                "bytes differ at {offset}"
            );
            offset += piece.len() as u64;
            taken += piece.len() as u64;
        }
        let kept: StreamState = client
            .ask("POST", &path(&format!("/ack?offset={offset}")))
            .await;
        assert!(
            kept.end - kept.oldest <= bound,
            "{kept:?} is more than is kept"
        );
        rounds += 1;
    }
    assert!(rounds > 10, "the source was not held up");
    writer.await.unwrap().unwrap();
    let (status, _) = client.request("GET", &path("?offset=0"), Vec::new()).await;
    assert_eq!(
        status,
        StatusCode::CONFLICT,
        "acknowledged bytes are still there"
    );
    let (status, _) = client.request("DELETE", &path(""), Vec::new()).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let (status, _) = client.request("GET", &path("?offset=0"), Vec::new()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    world.end().await;
}

#[tokio::test]
async fn a_log_is_read_and_a_trap_is_not() {
    let world = World::new(Link::plain(), |engine| engine).await;
    let client = world.enrolled().await;
    let log_dir = world.dir.path().join("log");
    std::fs::write(log_dir.join("engine.log"), "a line\n").unwrap();
    std::os::unix::fs::chown(log_dir.join("engine.log"), Some(2), Some(2)).unwrap();
    std::os::unix::fs::symlink(
        world.dir.path().join("agent/link.key"),
        log_dir.join("trap"),
    )
    .unwrap();
    std::fs::hard_link(
        world.dir.path().join("agent/link.key"),
        log_dir.join("hard"),
    )
    .unwrap();
    let log = |name: &str| StreamRequest::Log {
        name: name.to_owned(),
    };
    for name in ["trap", "hard", "missing", "../agent/link.key", ".", ""] {
        client.refused("POST", "/v1/streams", &log(name)).await;
    }
    let state: StreamState = client.send("POST", "/v1/streams", &log("engine.log")).await;
    // Read to its end once, all of it is kept: then it is read from any place.
    for (offset, rest) in [(0, &b"a line\n"[..]), (2, b"line\n")] {
        let path = format!("/v1/streams/{}?offset={offset}", state.id);
        let (status, body) = client.request("GET", &path, Vec::new()).await;
        assert_eq!((status, &body[..]), (StatusCode::OK, rest));
    }
    world.end().await;
}

#[tokio::test]
async fn dial_reaches_nothing_elsewhere() {
    // The ways to dial are themselves what the suite relies on: a namespace has its own sockets.
    let link = Link::entered().await;
    let listener = link.listen().await;
    let address = listener.local_addr().unwrap();
    assert!(link.dial(address).await.is_ok());
    assert!(
        link::dial(None, address).await.is_err(),
        "the agent is reached from outside"
    );
}

/// A piece of another agent, as the control side sends it.
async fn send_piece(
    client: &Client,
    (sha256, length): (&str, usize),
    offset: usize,
    piece: &[u8],
) -> (StatusCode, serde_json::Value) {
    let path = format!("/v1/agent/{sha256}?offset={offset}&length={length}");
    let (status, bytes) = client.request("PUT", &path, piece.to_vec()).await;
    (status, serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn another_agent_is_received_in_pieces_and_handed_over_when_it_is_whole() {
    let inbox = tempfile::tempfile().unwrap();
    let kept = inbox.try_clone().unwrap();
    let mut world = World::new(Link::plain(), |engine| engine.with_inbox(inbox)).await;
    let client = world.enrolled().await;
    let binary: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let sum = crate::sandbox::sha256(&binary);
    let of = (sum.as_str(), binary.len());
    let half = binary.len() / 2;

    // Another checksum begins anew; what does not have it is thrown away.
    let wrong = "a".repeat(64);
    let (_, upload) = send_piece(&client, (&wrong, 3), 0, b"abc").await;
    assert_eq!(upload["received"], 3);
    let wrong_path = format!("/v1/agent/{wrong}");
    let (_, refusal) = client.refused("POST", &wrong_path, &()).await;
    assert_eq!(refusal.reason, "wrong-checksum");
    let (_, refusal) = client.refused("POST", &wrong_path, &()).await;
    assert_eq!(refusal.reason, AGENT_INCOMPLETE, "it was kept");
    assert!(world.engine.handed_over().is_empty());
    for (sum, length) in [
        ("short", 3),
        (wrong.as_str(), 0),
        (wrong.as_str(), 65 << 20),
    ] {
        let (status, _) = send_piece(&client, (sum, length), 0, b"abc").await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{sum} {length}");
    }

    let (status, upload) = send_piece(&client, of, 0, &binary[..half]).await;
    assert_eq!(
        (status, &upload["received"]),
        (StatusCode::OK, &half.into())
    );
    // The answer was lost: the same again, and a little more.
    let (_, upload) = send_piece(&client, of, 0, &binary[..half + 7]).await;
    assert_eq!(upload["received"], half + 7);
    let (status, refusal) = send_piece(&client, of, half + 8, &binary[half + 8..]).await;
    assert_eq!(
        (status, &refusal["reason"]),
        (StatusCode::CONFLICT, &WRONG_OFFSET.into())
    );
    let path = format!("/v1/agent/{sum}");
    let (status, refusal) = client.refused("POST", &path, &()).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(refusal.reason, AGENT_INCOMPLETE);
    let (_, upload) = send_piece(&client, of, half, &binary[half..]).await;
    assert_eq!(upload["received"], binary.len());
    let (status, _) = send_piece(&client, of, binary.len(), b"more").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "longer than was said");
    assert!(world.engine.handed_over().is_empty(), "nobody asked");
    client.request("POST", &path, Vec::new()).await;
    assert_eq!(
        world.engine.handed_over(),
        [(binary.len() as u64, sum.clone())]
    );
    let mut content = Vec::new();
    std::io::Read::read_to_end(&mut &kept, &mut content).unwrap();
    assert!(content == binary, "other bytes are in the inbox");

    // Who lost the answer asks again, and nothing is handed over twice.
    let (status, _) = client.request("POST", &path, Vec::new()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(world.engine.handed_over().len(), 1);
    let (status, _) = send_piece(&client, (&"b".repeat(64), 3), 0, b"abc").await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);

    // An agent that was given no inbox says so.
    world.replace_agent().await;
    let client = world.client(pki::verifying(&world.ca));
    let (status, _) = send_piece(&client, of, 0, &binary[..half]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    world.end().await;
}
