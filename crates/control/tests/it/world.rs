//! A small world: three projects' worth of users, what the operator offers, and a router over a
//! store in memory. Time stands still until a test moves it; ids are the same in every run.

use std::path::Path;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use coffer_control::api::router;
use coffer_control::app::{ApiConfig, AppState};
use coffer_control::auth::token::token_hash;
use coffer_control::clock::{Clock, Entropy};
use coffer_control::secrets::SecretBox;
use coffer_control::supervise::Supervisor;
use coffer_core::datastore::{Datastore, DatastoreVersion};
use coffer_core::event::Event;
use coffer_core::flavor::{Flavor, VolumeType, Zone};
use coffer_core::id::{DatastoreId, DatastoreVersionId, InstanceId, TenantId};
use coffer_core::instance::{Health, Lifecycle, Observation};
use coffer_core::name::Name;
use coffer_core::task::{Task, TaskState};
use coffer_core::tenant::{RoleAssignment, Tenant, Token, User};
use coffer_core::time::Timestamp;
use coffer_core::units::{Generation, IoLimits};
use coffer_store::inventory::{StoredDatabase, StoredInventory, StoredUser};
use coffer_store::status::Report;
use coffer_store::task::{StepCommit, TaskUpdate};
use coffer_store::{Durability, Store, StoreOptions, StoreUrl, Write};
use http::{HeaderMap, Method, Request, StatusCode};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt;
use uuid::Uuid;

/// 2026-11-21T04:09:23Z.
pub(crate) const EPOCH: Timestamp = Timestamp::from_micros(1_795_234_163_000_000);
pub(crate) const DATASTORE: Uuid = Uuid::from_u128(0xd5);
pub(crate) const VERSION: Uuid = Uuid::from_u128(0xd517);
pub(crate) const ZONE: &str = "az01.cell01.qhzwy";
/// Password of every user of the world.
pub(crate) const PASSWORD: &str = "correct horse";

/// Stands still until moved.
#[derive(Debug)]
pub(crate) struct TestClock {
    passed: watch::Sender<Duration>,
}

impl TestClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.passed.send_modify(|passed| *passed += by);
    }
}

#[async_trait]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        let micros = i64::try_from(self.passed.borrow().as_micros()).unwrap();
        Timestamp::from_micros(EPOCH.micros() + micros)
    }

    fn monotonic(&self) -> Duration {
        *self.passed.borrow() + Duration::from_secs(1_000)
    }

    async fn sleep(&self, duration: Duration) {
        let until = *self.passed.borrow() + duration;
        let mut passed = self.passed.subscribe();
        passed.wait_for(|passed| *passed >= until).await.unwrap();
    }
}

/// The same bytes in every run.
#[derive(Debug, Default)]
struct CountingEntropy(AtomicU64);

impl Entropy for CountingEntropy {
    fn fill(&self, buffer: &mut [u8]) {
        // The count comes last, so that ids grow with it within a millisecond of the clock.
        let mut seed = Some(self.0.fetch_add(1, Ordering::Relaxed) + 1);
        for chunk in buffer.rchunks_mut(8) {
            let bytes = seed.take().unwrap_or_default().to_be_bytes();
            chunk.copy_from_slice(&bytes[8 - chunk.len()..]);
        }
    }
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes).unwrap_or_else(|error| {
            panic!(
                "{}: {error}: {}",
                self.status,
                String::from_utf8_lossy(&self.bytes)
            )
        })
    }

    /// Checks the status and gives the body, which is `null` when there is none.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        let text = String::from_utf8_lossy(&self.bytes);
        assert_eq!(self.status.as_u16(), status, "{text}");
        if self.bytes.is_empty() {
            Value::Null
        } else {
            self.json()
        }
    }

    /// Checks the status and the fault's shape and key; gives the fault.
    #[track_caller]
    pub(crate) fn fault(&self, status: u16, key: &str) -> Value {
        let body = self.expect(status);
        let fault = &body[key];
        assert_eq!(fault["code"], status, "{body}");
        for field in ["message", "request_id", "reason"] {
            assert!(
                fault[field].as_str().is_some_and(|text| !text.is_empty()),
                "{field}: {body}"
            );
        }
        assert_eq!(self.header("content-type"), "application/json");
        assert_eq!(self.header("x-openstack-request-id"), fault["request_id"]);
        fault.clone()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }
}

/// The world.
pub(crate) struct World {
    pub(crate) app: AppState,
    pub(crate) store: Store,
    pub(crate) clock: Arc<TestClock>,
    router: Router,
    /// Tokens that were issued without a login, by user.
    tokens: Mutex<Vec<String>>,
}

/// Somebody with a token, and the project in its paths.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) token: String,
    pub(crate) project: String,
}

pub(crate) fn tenant_id(name: &str) -> TenantId {
    // 32 digits, like Keystone's.
    let hex: String = name.bytes().map(|b| format!("{b:02x}")).collect();
    format!("{hex:0<32}").parse().unwrap()
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(ApiConfig {
            rate_per_minute: 0,
            ..ApiConfig::default()
        })
        .await
    }

    pub(crate) async fn with(config: ApiConfig) -> Self {
        Self::on(&StoreUrl::SqliteMemory, config).await
    }

    /// A world whose store lies in this directory, where `rows` reads it from outside.
    pub(crate) async fn in_dir(dir: &Path) -> Self {
        let config = ApiConfig {
            rate_per_minute: 0,
            ..ApiConfig::default()
        };
        let url = format!("sqlite://{}", dir.join("store.db").display());
        Self::on(&url.parse().unwrap(), config).await
    }

    async fn on(url: &StoreUrl, config: ApiConfig) -> Self {
        let options = StoreOptions {
            durability: Durability::Off,
            ..StoreOptions::default()
        };
        let store = Store::open(url, options).await.unwrap();
        let clock = Arc::new(TestClock {
            passed: watch::channel(Duration::ZERO).0,
        });
        let entropy: Arc<dyn Entropy> = Arc::new(CountingEntropy::default());
        let secrets = SecretBox::new([7; 32], Arc::clone(&entropy));
        let supervisor = Supervisor::new();
        let doors = (store.clone(), clock.clone());
        let app = AppState::new(doors.0, doors.1, entropy, secrets, config, supervisor);
        let world = Self {
            router: router(app.clone()),
            app,
            store,
            clock,
            tokens: Mutex::default(),
        };
        world.people().await;
        world.offers().await;
        world
    }

    /// Projects demo and other; alice (member) and rita (reader) of demo, bob (member) of other,
    /// root (admin) of admin.
    async fn people(&self) {
        for role in ["admin", "member", "reader"] {
            self.store.insert_role(role, EPOCH).await.unwrap();
        }
        for name in ["admin", "demo", "other"] {
            let tenant = Tenant {
                id: tenant_id(name),
                name: Name::parse("name", name).unwrap(),
                is_enabled: true,
                description: format!("project {name}"),
                created_at: EPOCH,
            };
            self.store.insert_tenant(&tenant).await.unwrap();
        }
        // One hash for all: it takes its time.
        let password = coffer_core::secret::Secret::new(PASSWORD.to_owned());
        let hash = self
            .app
            .logins
            .passwords()
            .hash(&*self.app.entropy, &password)
            .await
            .unwrap();
        for (user, project, role) in [
            ("root", "admin", "admin"),
            ("alice", "demo", "member"),
            ("rita", "demo", "reader"),
            ("bob", "other", "member"),
        ] {
            let row = User {
                id: user.parse().unwrap(),
                name: Name::parse("name", user).unwrap(),
                password_hash: hash.clone(),
                is_enabled: true,
                default_tenant_id: None,
                created_at: EPOCH,
            };
            self.store.insert_user(&row).await.unwrap();
            let assignment = RoleAssignment {
                user_id: row.id,
                tenant_id: tenant_id(project),
                role: role.to_owned(),
            };
            self.store.assign_role(&assignment).await.unwrap();
        }
    }

    async fn offers(&self) {
        for (id, name, memory_mib) in [("1", "m1.tiny", 512), ("6.1", "m6.small", 1_024)] {
            let flavor = Flavor {
                id: id.parse().unwrap(),
                name: Name::parse("name", name).unwrap(),
                memory_mib,
                vcpus: 1,
                disk_gib: 5,
                created_at: EPOCH,
            };
            self.store.insert_flavor(&flavor).await.unwrap();
        }
        let zone = Zone {
            name: Name::parse("name", ZONE).unwrap(),
            created_at: EPOCH,
        };
        self.store.insert_zone(&zone).await.unwrap();
        let kind = VolumeType {
            name: Name::parse("name", "cow").unwrap(),
            description: "copy on write".to_owned(),
            io: IoLimits::NONE,
            created_at: EPOCH,
        };
        self.store.insert_volume_type(&kind).await.unwrap();
        self.datastore().await;
    }

    async fn datastore(&self) {
        let id = DatastoreId::from_uuid(DATASTORE);
        let version_id = DatastoreVersionId::from_uuid(VERSION);
        let datastore = Datastore {
            id,
            name: Name::parse("name", "postgresql").unwrap(),
            default_version_id: None,
            created_at: EPOCH,
        };
        self.store.upsert_datastore(&datastore).await.unwrap();
        let version = DatastoreVersion {
            id: version_id,
            datastore_id: id,
            name: Name::parse("name", "17").unwrap(),
            number: "17.6".to_owned(),
            manager: "postgresql".to_owned(),
            is_active: true,
            image: "postgresql-17".to_owned(),
            root: None,
            created_at: EPOCH,
        };
        self.store.upsert_datastore_version(&version).await.unwrap();
        self.store
            .set_default_version(id, version_id)
            .await
            .unwrap();
    }

    /// A token without a login: hashing passwords takes its time.
    pub(crate) async fn token(&self, user: &str, project: &str) -> Caller {
        let text = {
            let mut tokens = self.tokens.lock().unwrap();
            let text = format!("token-{user}-{project}-{}", tokens.len());
            tokens.push(text.clone());
            text
        };
        let now = self.clock.now();
        let token = Token {
            hash: token_hash(&text),
            user_id: user.parse().unwrap(),
            tenant_id: Some(tenant_id(project)),
            issued_at: now,
            expires_at: now.plus_seconds(3_600),
        };
        self.store.insert_token(&token).await.unwrap();
        Caller {
            token: text,
            project: tenant_id(project).to_string(),
        }
    }

    pub(crate) async fn alice(&self) -> Caller {
        self.token("alice", "demo").await
    }

    pub(crate) async fn rita(&self) -> Caller {
        self.token("rita", "demo").await
    }

    pub(crate) async fn bob(&self) -> Caller {
        self.token("bob", "other").await
    }

    pub(crate) async fn root(&self) -> Caller {
        self.token("root", "admin").await
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, 16 * 1024 * 1024).await.unwrap().to_vec();
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes,
        }
    }

    /// Sends a request below the caller's project; `Null` is no body.
    pub(crate) async fn call(&self, who: &Caller, method: &str, path: &str, body: Value) -> Answer {
        let path = format!("/v1.0/{}{path}", who.project);
        let request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header("host", "db.test:8779")
            .header("x-auth-token", &who.token);
        let request = match body {
            Value::Null => request.body(Body::empty()),
            body => request
                .header("content-type", "application/json")
                .body(Body::from(body.to_string())),
        };
        self.send(request.unwrap()).await
    }

    pub(crate) async fn get(&self, who: &Caller, path: &str) -> Answer {
        self.call(who, "GET", path, Value::Null).await
    }

    pub(crate) async fn post(&self, who: &Caller, path: &str, body: Value) -> Answer {
        self.call(who, "POST", path, body).await
    }

    pub(crate) async fn put(&self, who: &Caller, path: &str, body: Value) -> Answer {
        self.call(who, "PUT", path, body).await
    }

    pub(crate) async fn delete(&self, who: &Caller, path: &str) -> Answer {
        self.call(who, "DELETE", path, Value::Null).await
    }

    /// Asks for an instance and gives its id.
    pub(crate) async fn create(&self, who: &Caller, name: &str) -> String {
        let body = json!({ "instance": {
            "name": name,
            "flavorRef": "1",
            "volume": { "size": 1 },
            "datastore": { "type": "postgresql", "version": "17" },
        } });
        let answer = self.post(who, "/instances", body).await.expect(200);
        answer["instance"]["id"].as_str().unwrap().to_owned()
    }

    /// Asks for an instance and does what the task manager and the conductor would: it is ACTIVE
    /// and HEALTHY, with a database and two users inside.
    pub(crate) async fn active(&self, who: &Caller, name: &str) -> String {
        let id = self.create(who, name).await;
        self.finish(&id, Lifecycle::Active).await;
        self.heal(&id, Health::Healthy).await;
        let instance_id: InstanceId = id.parse().unwrap();
        let inventory = StoredInventory {
            counter: 1,
            databases: vec![database("app"), database("logs")],
            users: vec![user("ann", &["app"]), user("bea@x", &[])],
            is_root_enabled: false,
        };
        self.store
            .put_inventory(instance_id, &inventory, EPOCH)
            .await
            .unwrap();
        id
    }

    /// Ends all tasks of an instance as done, and leaves the instance in `lifecycle`.
    pub(crate) async fn finish(&self, id: &str, lifecycle: Lifecycle) {
        let instance_id = id.parse().unwrap();
        let write = Write::SetLifecycle {
            instance_id,
            lifecycle,
            fault: None,
        };
        for task in self.claim(id).await {
            self.end(&task, TaskState::Done, None, vec![write.clone()])
                .await;
        }
    }

    /// Claims all tasks and gives those of an instance.
    pub(crate) async fn claim(&self, id: &str) -> Vec<Task> {
        let instance_id: InstanceId = id.parse().unwrap();
        let claimed = self
            .store
            .claim_tasks("w", self.clock.now(), 100)
            .await
            .unwrap();
        claimed
            .into_iter()
            .filter(|task| task.instance_id == Some(instance_id))
            .collect()
    }

    /// Ends a claimed task.
    pub(crate) async fn end(
        &self,
        task: &Task,
        state: TaskState,
        error: Option<&str>,
        writes: Vec<Write>,
    ) {
        let now = self.clock.now();
        let commit = StepCommit {
            task_id: task.id,
            version: task.version,
            owner: "w".to_owned(),
            update: TaskUpdate {
                step: task.step.clone(),
                state,
                attempt: 0,
                run_at: now,
                wait: None,
                step_at: now,
                deadline: None,
                error: error.map(ToOwned::to_owned),
                output: None,
                release_locks: true,
            },
            record: None,
            writes,
            now,
        };
        self.store.commit_step(&commit).await.unwrap();
    }

    /// Reports health as the conductor would.
    pub(crate) async fn heal(&self, id: &str, health: Health) {
        self.hear(id, health, Vec::new()).await;
    }

    /// The same with what goes into its history.
    pub(crate) async fn hear(&self, id: &str, health: Health, events: Vec<Event>) {
        let observation = Observation {
            instance_id: id.parse().unwrap(),
            generation: Generation(1),
            health,
            volume_used_bytes: 300 << 20,
            volume_total_bytes: 1 << 30,
            inventory_counter: 1,
            engine_run: None,
            at: self.clock.now(),
        };
        let report = Report::Heard {
            seen: observation,
            is_turn: true,
            events,
        };
        self.store.record_reports(&[report]).await.unwrap();
    }
}

pub(crate) fn database(name: &str) -> StoredDatabase {
    StoredDatabase {
        name: name.to_owned(),
        character_set: "UTF8".to_owned(),
        collate: "C.UTF-8".to_owned(),
    }
}

pub(crate) fn user(name: &str, databases: &[&str]) -> StoredUser {
    StoredUser {
        name: name.to_owned(),
        host: "%".to_owned(),
        databases: databases.iter().map(|&name| name.to_owned()).collect(),
    }
}
