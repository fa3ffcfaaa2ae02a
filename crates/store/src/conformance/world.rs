//! Objects for the suite, and its storm: many writers at once.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use coffer_core::access::Access;
use coffer_core::actor::Actor;
use coffer_core::datastore::{Datastore, DatastoreVersion};
use coffer_core::event::{Event, Severity};
use coffer_core::flavor::Flavor;
use coffer_core::id::{EventId, InstanceId, TaskId, TenantId};
use coffer_core::instance::{Health, Instance, InstanceSpec, Lifecycle};
use coffer_core::name::Name;
use coffer_core::network::Network;
use coffer_core::quota::{Amount, Resource};
use coffer_core::replication::{EndpointKind, ReplicationSet, SetMode};
use coffer_core::server::{Link, LinkForm, Presence, Server, ServerPurpose, Volume, VolumeRole};
use coffer_core::task::{PRIORITY_NORMAL, Task, TaskState};
use coffer_core::tenant::{Tenant, User};
use coffer_core::time::Timestamp;
use coffer_core::units::{Generation, Incarnation, Timeline, VolumeSize};
use coffer_store::Store;
use coffer_store::instance::NewInstance;
use coffer_store::task::{RunningTask, StepCommit, TaskUpdate};
use tokio::task::JoinSet;
use uuid::Uuid;

static IDS: AtomicU64 = AtomicU64::new(1);

/// A new id; later ones sort behind earlier ones.
pub(crate) fn id<T>(make: fn(Uuid) -> T) -> T {
    make(Uuid::from_u128(u128::from(
        IDS.fetch_add(1, Ordering::Relaxed),
    )))
}

pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_795_234_163_000_000).plus_seconds(seconds)
}

pub(crate) fn name(text: &str) -> Name {
    Name::parse("name", text).unwrap()
}

pub(crate) fn tenant_id(text: &str) -> TenantId {
    text.parse().unwrap()
}

pub(crate) fn tenant(text: &str) -> Tenant {
    Tenant {
        id: tenant_id(text),
        name: name(text),
        is_enabled: true,
        description: format!("about {text}"),
        created_at: at(0),
    }
}

pub(crate) fn user(text: &str) -> User {
    User {
        id: text.parse().unwrap(),
        name: name(text),
        password_hash: "$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA".to_owned(),
        is_enabled: true,
        default_tenant_id: None,
        created_at: at(0),
    }
}

pub(crate) fn flavor(id: &str, memory_mib: u32) -> Flavor {
    let id = id.parse().unwrap();
    Flavor {
        name: name(&format!("f{id}")),
        id,
        memory_mib,
        vcpus: 1,
        disk_gib: 0,
        created_at: at(0),
    }
}

pub(crate) fn network(tenant: &str, text: &str, subnet: &str, is_default: bool) -> Network {
    Network {
        id: id(coffer_core::id::NetworkId::from_uuid),
        tenant_id: tenant_id(tenant),
        name: name(text),
        subnet: subnet.parse().unwrap(),
        is_default,
        created_at: at(0),
    }
}

pub(crate) fn actor(tenant: &str) -> Actor {
    Actor {
        tenant_id: tenant_id(tenant),
        user_id: "alice".parse().unwrap(),
        roles: vec!["member".to_owned(), "role, with \"signs\"".to_owned()],
        request_id: "req-1".to_owned(),
        client_address: "192.0.2.1".to_owned(),
    }
}

pub(crate) fn task(tenant: &str, instance_id: Option<InstanceId>) -> Task {
    Task {
        id: id(TaskId::from_uuid),
        tenant_id: tenant_id(tenant),
        instance_id,
        workflow: "create_instance".to_owned(),
        input: "{}".to_owned(),
        step: "\"Begin\"".to_owned(),
        state: TaskState::Ready,
        version: 1,
        owner: None,
        lease: 0,
        attempt: 0,
        run_at: at(0),
        priority: PRIORITY_NORMAL,
        has_locks: false,
        wait: None,
        step_at: at(0),
        deadline: Some(at(60)),
        error: None,
        output: None,
        actor: actor(tenant),
        created_at: at(0),
        updated_at: at(0),
    }
}

pub(crate) fn event(tenant: &str, instance_id: InstanceId) -> Event {
    Event {
        id: id(EventId::from_uuid),
        tenant_id: tenant_id(tenant),
        instance_id: Some(instance_id),
        task_id: None,
        code: "instance.asked".to_owned(),
        severity: Severity::Info,
        message: "asked for".to_owned(),
        actor: Some(actor(tenant)),
        at: at(0),
    }
}

/// What a commit makes of a task that goes on, with nothing written beside.
pub(crate) fn commit(task: &Task, owner: &str, state: TaskState) -> StepCommit {
    StepCommit {
        task_id: task.id,
        version: task.version,
        owner: owner.to_owned(),
        update: TaskUpdate {
            step: "\"Next\"".to_owned(),
            state,
            attempt: 0,
            run_at: at(0),
            wait: None,
            step_at: at(1),
            deadline: None,
            error: None,
            output: None,
            release_locks: false,
        },
        record: None,
        writes: Vec::new(),
        now: at(1),
    }
}

/// What another worker sees of a task that was claimed.
pub(crate) fn as_seen(task: &Task) -> RunningTask {
    RunningTask {
        id: task.id,
        owner: task.owner.clone().unwrap(),
        version: task.version,
        lease: task.lease,
    }
}

/// A datastore version and a network in which instances can be asked for.
pub(crate) struct World {
    pub(crate) datastore: Datastore,
    pub(crate) version: DatastoreVersion,
    pub(crate) network: Network,
}

impl World {
    pub(crate) async fn new(store: &Store, tenant: &str) -> Self {
        Self::in_subnet(store, tenant, "10.0.0.0/16").await
    }

    pub(crate) async fn in_subnet(store: &Store, tenant: &str, subnet: &str) -> Self {
        let datastore = Datastore {
            id: id(coffer_core::id::DatastoreId::from_uuid),
            name: name(&format!("engine of {tenant}")),
            default_version_id: None,
            created_at: at(0),
        };
        let version = DatastoreVersion {
            id: id(coffer_core::id::DatastoreVersionId::from_uuid),
            datastore_id: datastore.id,
            name: name("17"),
            number: "17.6".to_owned(),
            manager: "postgresql".to_owned(),
            is_active: true,
            image: "postgresql-17".to_owned(),
            root: None,
            created_at: at(0),
        };
        let network = network(tenant, "default", subnet, true);
        store.upsert_datastore(&datastore).await.unwrap();
        store.upsert_datastore_version(&version).await.unwrap();
        store.insert_network(&network).await.unwrap();
        Self {
            datastore,
            version,
            network,
        }
    }

    pub(crate) fn instance(&self, text: &str) -> Instance {
        Instance {
            id: id(InstanceId::from_uuid),
            tenant_id: self.network.tenant_id.clone(),
            set_id: id(coffer_core::id::SetId::from_uuid),
            spec: InstanceSpec {
                name: name(text),
                flavor_id: "6.1".parse().unwrap(),
                volume: VolumeSize::gib(20).unwrap(),
                volume_type: Some("fast".to_owned()),
                datastore_version_id: self.version.id,
                network_id: self.network.id,
                zone: None,
                access: Access {
                    is_public: true,
                    allowed_cidrs: vec!["192.0.2.0/24".parse().unwrap()],
                },
            },
            lifecycle: Lifecycle::Building,
            health: Health::Unknown,
            incarnation: Incarnation(1),
            fault: None,
            volume_used_bytes: None,
            created_at: at(0),
            updated_at: at(0),
            health_at: at(0),
        }
    }

    pub(crate) fn new_instance(&self, text: &str) -> NewInstance {
        let instance = self.instance(text);
        let tenant_id = instance.tenant_id.clone();
        let server = server(&instance);
        let volume = volume(&instance, &server);
        let link = link(&server);
        NewInstance {
            set: ReplicationSet {
                id: instance.set_id,
                tenant_id: tenant_id.clone(),
                mode: SetMode::SinglePrimary,
                generation: Generation(1),
                timeline: Timeline(1),
                primary: Some(instance.id),
            },
            endpoint_id: id(coffer_core::id::EndpointId::from_uuid),
            endpoint_kind: EndpointKind::Write,
            port: 5432,
            link: Some(link),
            task: task(tenant_id.as_str(), Some(instance.id)),
            charges: vec![
                Amount {
                    resource: Resource::Instances,
                    amount: 1,
                },
                Amount {
                    resource: Resource::Volumes,
                    amount: 20,
                },
            ],
            event: Some(event(tenant_id.as_str(), instance.id)),
            secret: None,
            instance,
            server,
            volume,
        }
    }

    /// An instance that was created.
    pub(crate) async fn create(&self, store: &Store, text: &str) -> NewInstance {
        let new = self.new_instance(text);
        store.create_instance(&new, unlimited).await.unwrap();
        new
    }
}

fn server(instance: &Instance) -> Server {
    Server {
        id: id(coffer_core::id::ServerId::from_uuid),
        tenant_id: instance.tenant_id.clone(),
        instance_id: Some(instance.id),
        purpose: ServerPurpose::Instance,
        provider: "fake".to_owned(),
        provider_ref: None,
        incarnation: Incarnation(1),
        host: None,
        roots: vec!["root-b".to_owned(), "root-a".to_owned()],
        presence: Presence::Planned,
        created_at: at(0),
    }
}

fn volume(instance: &Instance, server: &Server) -> Volume {
    Volume {
        id: id(coffer_core::id::VolumeId::from_uuid),
        tenant_id: instance.tenant_id.clone(),
        instance_id: Some(instance.id),
        server_id: Some(server.id),
        role: VolumeRole::Data,
        provider: "fake".to_owned(),
        provider_ref: None,
        incarnation: Incarnation(1),
        size: instance.spec.volume,
        volume_type: instance.spec.volume_type.clone(),
        parent: None,
        template: Some("root-b".to_owned()),
        presence: Presence::Planned,
        created_at: at(0),
    }
}

fn link(server: &Server) -> Link {
    Link {
        id: id(coffer_core::id::LinkId::from_uuid),
        server_id: server.id,
        form: LinkForm::Netns,
        address: "127.0.0.1:7070".to_owned(),
        key_fingerprint: None,
        agent_version: None,
        position: 0,
    }
}

pub(crate) fn unlimited(_: Resource) -> i64 {
    -1
}

/// Runs 64 writers at once, spread over several stores as over several processes.
pub(crate) async fn storm<T, F>(stores: &[Store], writer: impl Fn(Store, usize) -> F) -> Vec<T>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let mut writers = JoinSet::new();
    for n in 0..64 {
        writers.spawn(writer(stores[n % stores.len()].clone(), n));
    }
    let results = writers.join_all().await;
    assert_eq!(results.len(), 64);
    results
}

/// Asserts that all are different.
pub(crate) fn assert_distinct<T: Ord + std::fmt::Debug + Clone>(items: &[T]) {
    let set: BTreeSet<T> = items.iter().cloned().collect();
    assert_eq!(set.len(), items.len(), "{items:?}");
}
