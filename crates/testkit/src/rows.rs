//! Rows of instances as a finished creation leaves them, with nothing behind them: what the
//! benchmark fills a store with.

use std::net::{IpAddr, Ipv4Addr};

use coffer_core::access::Access;
use coffer_core::actor::Actor;
use coffer_core::datastore::{Datastore, DatastoreVersion};
use coffer_core::id::{
    DatastoreId, DatastoreVersionId, EndpointId, InstanceId, LinkId, NetworkId, ServerId, SetId,
    TaskId, TenantId, VolumeId,
};
use coffer_core::instance::{Health, Instance, InstanceSpec, Lifecycle};
use coffer_core::name::Name;
use coffer_core::network::Network;
use coffer_core::replication::{Endpoint, EndpointKind, Published, ReplicationSet, SetMode};
use coffer_core::server::{Link, LinkForm, Presence, Server, ServerPurpose, Volume, VolumeRole};
use coffer_core::task::{PRIORITY_NORMAL, Task, TaskState};
use coffer_core::time::Timestamp;
use coffer_core::units::{Generation, Incarnation, Timeline, VolumeSize};
use coffer_store::instance::NewInstance;
use coffer_store::task::{StepCommit, TaskUpdate};
use coffer_store::{Store, StoreError, Write};
use uuid::Uuid;

const WORKER: &str = "rows";
const PORT: u16 = 5_432;

/// What the rows are like.
#[derive(Debug, Clone)]
pub struct Rows {
    /// Project of all of them.
    pub tenant_id: TenantId,
    /// Provider that their servers name; one that nobody is leaves them alone.
    pub provider: String,
    /// SHA-256 of the key that the guest of an instance shows, by its number; none: no link.
    pub keys: Vec<String>,
}

fn id<T>(make: fn(Uuid) -> T, number: u32) -> T {
    make(Uuid::from_u128(u128::from(number)))
}

fn name(text: &str) -> Name {
    Name::parse("name", text).expect("a name of letters, digits and dashes")
}

/// Id of the instance with this number.
pub fn instance_id(number: u32) -> InstanceId {
    id(InstanceId::from_uuid, number)
}

/// Id of the server with this number.
pub fn server_id(number: u32) -> ServerId {
    id(ServerId::from_uuid, number)
}

impl Rows {
    /// Writes the catalogue and `count` instances, numbered from 1.
    pub async fn write(&self, store: &Store, count: u32) -> Result<(), StoreError> {
        self.write_catalogue(store).await?;
        for number in 1..=count {
            let new = self.new_instance(number);
            store.create_instance(&new, |_| -1).await?;
            store.commit_step(&self.end(&new, number)).await?;
        }
        Ok(())
    }

    async fn write_catalogue(&self, store: &Store) -> Result<(), StoreError> {
        let now = Timestamp::default();
        let version_id = id(DatastoreVersionId::from_uuid, 1);
        let datastore = Datastore {
            id: id(DatastoreId::from_uuid, 1),
            name: name("measured"),
            default_version_id: Some(version_id),
            created_at: now,
        };
        store.upsert_datastore(&datastore).await?;
        let version = DatastoreVersion {
            id: version_id,
            datastore_id: datastore.id,
            name: name("17"),
            number: "17.6".to_owned(),
            manager: "postgresql".to_owned(),
            is_active: true,
            image: "postgresql-17".to_owned(),
            root: None,
            created_at: now,
        };
        store.upsert_datastore_version(&version).await?;
        let network = Network {
            id: id(NetworkId::from_uuid, 1),
            tenant_id: self.tenant_id.clone(),
            name: name("measured"),
            subnet: "10.0.0.0/16".parse().expect("a subnet"),
            is_default: false,
            created_at: now,
        };
        store.insert_network(&network).await
    }

    fn instance(&self, number: u32) -> Instance {
        let now = Timestamp::from_micros(1_795_234_163_000_000);
        Instance {
            id: instance_id(number),
            tenant_id: self.tenant_id.clone(),
            set_id: id(SetId::from_uuid, number),
            spec: InstanceSpec {
                name: name(&format!("database-{number}")),
                flavor_id: "6.1".parse().expect("a flavor id"),
                volume: VolumeSize::gib(20).expect("a size"),
                volume_type: None,
                datastore_version_id: id(DatastoreVersionId::from_uuid, 1),
                network_id: id(NetworkId::from_uuid, 1),
                zone: Some("az01.cell01.qhzwy".to_owned()),
                access: Access {
                    is_public: true,
                    ..Access::default()
                },
            },
            lifecycle: Lifecycle::Active,
            health: Health::Healthy,
            incarnation: Incarnation(1),
            fault: None,
            volume_used_bytes: Some(1 << 30),
            created_at: now,
            updated_at: now,
            health_at: now,
        }
    }

    fn server(&self, instance: &Instance, number: u32) -> Server {
        Server {
            id: server_id(number),
            tenant_id: self.tenant_id.clone(),
            instance_id: Some(instance.id),
            purpose: ServerPurpose::Instance,
            provider: self.provider.clone(),
            provider_ref: None,
            incarnation: Incarnation(1),
            host: None,
            roots: vec!["root".to_owned()],
            presence: Presence::Present,
            created_at: instance.created_at,
        }
    }

    fn volume(&self, instance: &Instance, server: &Server, number: u32) -> Volume {
        Volume {
            id: id(VolumeId::from_uuid, number),
            tenant_id: self.tenant_id.clone(),
            instance_id: Some(instance.id),
            server_id: Some(server.id),
            role: VolumeRole::Data,
            provider: self.provider.clone(),
            provider_ref: None,
            incarnation: Incarnation(1),
            size: instance.spec.volume,
            volume_type: None,
            parent: None,
            template: None,
            presence: Presence::Present,
            created_at: instance.created_at,
        }
    }

    fn link(&self, number: u32) -> Option<Link> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        Some(Link {
            id: id(LinkId::from_uuid, number),
            server_id: server_id(number),
            form: LinkForm::Netns,
            address: "127.0.0.1:7070".to_owned(),
            key_fingerprint: Some(self.keys.get(index)?.clone()),
            agent_version: Some("1".to_owned()),
            position: 0,
        })
    }

    /// The creation's task, in its last step.
    fn task(&self, instance: &Instance, number: u32) -> Task {
        let now = instance.created_at;
        Task {
            id: id(TaskId::from_uuid, number),
            tenant_id: self.tenant_id.clone(),
            instance_id: Some(instance.id),
            workflow: "create_instance".to_owned(),
            input: "{}".to_owned(),
            step: "\"Finish\"".to_owned(),
            state: TaskState::Running,
            version: 1,
            owner: Some(WORKER.to_owned()),
            lease: 1,
            attempt: 0,
            run_at: now,
            priority: PRIORITY_NORMAL,
            has_locks: false,
            wait: None,
            step_at: now,
            deadline: None,
            error: None,
            output: None,
            actor: Actor::system(self.tenant_id.clone(), "system".parse().expect("a user id")),
            created_at: now,
            updated_at: now,
        }
    }

    fn new_instance(&self, number: u32) -> NewInstance {
        let instance = self.instance(number);
        let server = self.server(&instance, number);
        NewInstance {
            set: ReplicationSet {
                id: instance.set_id,
                tenant_id: instance.tenant_id.clone(),
                mode: SetMode::SinglePrimary,
                generation: Generation(1),
                timeline: Timeline(1),
                primary: Some(instance.id),
            },
            endpoint_id: id(EndpointId::from_uuid, number),
            endpoint_kind: EndpointKind::Write,
            port: PORT,
            volume: self.volume(&instance, &server, number),
            link: self.link(number),
            task: self.task(&instance, number),
            charges: Vec::new(),
            secret: None,
            event: None,
            instance,
            server,
        }
    }

    /// The end of the creation: the endpoint gets its addresses.
    fn end(&self, new: &NewInstance, number: u32) -> StepCommit {
        let endpoint = Endpoint {
            id: new.endpoint_id,
            set_id: new.set.id,
            kind: new.endpoint_kind,
            network_id: new.instance.spec.network_id,
            network_address: address([10, 0], number),
            port: PORT,
            published: Some(Published {
                address: address([100, 64], number),
                port: PORT,
            }),
            allowed_cidrs: Vec::new(),
            target: Some(new.instance.id),
        };
        StepCommit {
            task_id: new.task.id,
            version: new.task.version,
            owner: WORKER.to_owned(),
            update: TaskUpdate {
                step: new.task.step.clone(),
                state: TaskState::Done,
                attempt: 0,
                run_at: new.task.run_at,
                wait: None,
                step_at: new.task.step_at,
                deadline: None,
                error: None,
                output: None,
                release_locks: true,
            },
            record: None,
            writes: vec![Write::PutEndpoint(endpoint)],
            now: new.task.created_at,
        }
    }
}

fn address(network: [u8; 2], number: u32) -> IpAddr {
    let [_, _, third, fourth] = number.to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(network[0], network[1], third, fourth))
}
