//! What tenants ask of a simulated world.

use coffer_control::workflow::NewTask;
use coffer_control::workflow::create_instance::{self, CreateInstanceInput};
use coffer_control::workflow::delete_instance::{self, DeleteInstanceInput};
use coffer_control::workflow::replace_agent::{self, ReplaceAgentInput};
use coffer_control::workflow::restart_instance::{self, RestartInstanceInput};
use coffer_control::workflow::run_commands::{self, RunCommandsInput};
use coffer_control::workflow::start_instance::{self, StartInstanceInput};
use coffer_control::workflow::stop_instance::{self, StopInstanceInput};
use coffer_control::workflow::update_access::{self, UpdateAccessInput};
use coffer_core::access::Access;
use coffer_core::datastore::{Datastore, DatastoreVersion, EngineRoot};
use coffer_core::event::{Event, Severity};
use coffer_core::flavor::Flavor;
use coffer_core::id::{
    DatastoreId, DatastoreVersionId, EndpointId, EventId, InstanceId, ServerId, SetId, VolumeId,
};
use coffer_core::instance::{Health, Instance, InstanceSpec, Lifecycle};
use coffer_core::name::Name;
use coffer_core::network::Network;
use coffer_core::quota::{Amount, Resource};
use coffer_core::replication::{EndpointKind, ReplicationSet, SetMode};
use coffer_core::server::{Presence, Server, ServerPurpose, Volume, VolumeRole};
use coffer_core::tenant::Tenant;
use coffer_core::units::{Generation, Incarnation, Timeline, VolumeSize};
use coffer_store::instance::{BeginTask, NewInstance, SpecChange};
use coffer_store::secret::StoredSecret;
use coffer_wire::guest::v1::{DatabaseSpec, Operation, UserSpec};
use uuid::Uuid;

use crate::world::World;

const ROOT: &str = "root-checksum";

fn datastore_version_id() -> DatastoreVersionId {
    DatastoreVersionId::from_uuid(Uuid::from_u128(2))
}

fn name(text: &str) -> Name {
    Name::parse("name", text).expect("a valid name")
}

/// Puts project, network, flavor and datastore into a new world.
pub(crate) async fn furnish(world: &World) {
    let store = &world.services.store;
    let now = world.services.clock.now();
    let tenant = Tenant {
        id: world.tenant_id.clone(),
        name: name("tenant"),
        is_enabled: true,
        description: String::new(),
        created_at: now,
    };
    store.insert_tenant(&tenant).await.expect("insert tenant");
    let network = Network {
        id: world.network_id,
        tenant_id: world.tenant_id.clone(),
        name: name("default"),
        subnet: "10.0.0.0/24".parse().expect("a subnet"),
        is_default: true,
        created_at: now,
    };
    store
        .insert_network(&network)
        .await
        .expect("insert network");
    let flavor = Flavor {
        id: "1".parse().expect("a flavor id"),
        name: name("small"),
        memory_mib: 512,
        vcpus: 1,
        disk_gib: 0,
        created_at: now,
    };
    store.insert_flavor(&flavor).await.expect("insert flavor");
    let datastore_id = DatastoreId::from_uuid(Uuid::from_u128(1));
    let datastore = Datastore {
        id: datastore_id,
        name: name("postgresql"),
        default_version_id: None,
        created_at: now,
    };
    store
        .upsert_datastore(&datastore)
        .await
        .expect("insert datastore");
    let root = EngineRoot {
        checksum: ROOT.to_owned(),
        image: "postgresql-17".to_owned(),
        manifest: "{}".to_owned(),
        built_at: now,
    };
    store.insert_root(&root).await.expect("insert root");
    let version = DatastoreVersion {
        id: datastore_version_id(),
        datastore_id,
        name: name("17"),
        number: "17".to_owned(),
        manager: "postgresql".to_owned(),
        is_active: true,
        image: "postgresql-17".to_owned(),
        root: Some(ROOT.to_owned()),
        created_at: now,
    };
    store
        .upsert_datastore_version(&version)
        .await
        .expect("insert version");
}

impl World {
    fn new_task(&self, instance_id: InstanceId) -> NewTask {
        NewTask {
            id: self.task_id(),
            tenant_id: self.tenant_id.clone(),
            instance_id,
            actor: self.actor(),
            now: self.services.clock.now(),
        }
    }

    /// A tenant asks for an instance with a database and a user.
    pub async fn ask_create(&self) -> Result<InstanceId, String> {
        let id = InstanceId::from_uuid(self.uuid());
        let commands = [
            Operation::CreateDatabases {
                databases: vec![DatabaseSpec {
                    name: "app".to_owned(),
                    character_set: None,
                    collate: None,
                }],
            },
            Operation::CreateUsers {
                users: vec![UserSpec {
                    name: "joe".to_owned(),
                    host: None,
                    password: "secret".to_owned(),
                    databases: vec!["app".to_owned()],
                }],
            },
        ];
        let vault = self.services.vault();
        let sealed = vault
            .seal_commands(&self.tenant_id, id, &commands)
            .await
            .map_err(|e| e.to_string())?;
        let secret = sealed.id;
        let new = self.new_instance(id, Some(sealed));
        let store = &self.services.store;
        store
            .create_instance(&new, Resource::default_limit)
            .await
            .map_err(|e| e.to_string())?;
        let mut asked = self.asked();
        asked.instances.push(id);
        asked.secrets.push(secret);
        for command in &commands {
            asked.commands.insert((id, command.name()), 1);
        }
        Ok(id)
    }

    fn new_instance(&self, id: InstanceId, secret: Option<StoredSecret>) -> NewInstance {
        let now = self.services.clock.now();
        let set_id = SetId::from_uuid(self.uuid());
        let server_id = ServerId::from_uuid(self.uuid());
        let size = VolumeSize::gib(1).expect("one GiB");
        let input = CreateInstanceInput {
            instance_id: id,
            set_id,
            commands_secret: secret.as_ref().map(|secret| secret.id),
        };
        NewInstance {
            secret,
            instance: Instance {
                id,
                tenant_id: self.tenant_id.clone(),
                set_id,
                spec: self.spec(size),
                lifecycle: Lifecycle::Building,
                health: Health::Unknown,
                incarnation: Incarnation(1),
                fault: None,
                volume_used_bytes: None,
                created_at: now,
                updated_at: now,
                health_at: now,
            },
            set: ReplicationSet {
                id: set_id,
                tenant_id: self.tenant_id.clone(),
                mode: SetMode::SinglePrimary,
                generation: Generation(1),
                timeline: Timeline(1),
                primary: Some(id),
            },
            endpoint_id: EndpointId::from_uuid(self.uuid()),
            endpoint_kind: EndpointKind::Write,
            port: 5432,
            server: self.server(id, server_id),
            volume: self.volume(id, server_id, size),
            link: None,
            task: create_instance::task(self.new_task(id), &input),
            charges: vec![
                Amount {
                    resource: Resource::Instances,
                    amount: 1,
                },
                Amount {
                    resource: Resource::Volumes,
                    amount: 1,
                },
            ],
            event: None,
        }
    }

    fn spec(&self, volume: VolumeSize) -> InstanceSpec {
        InstanceSpec {
            name: name("db"),
            flavor_id: "1".parse().expect("a flavor id"),
            volume,
            volume_type: self.volume_type.clone(),
            datastore_version_id: datastore_version_id(),
            network_id: self.network_id,
            zone: None,
            access: Access {
                is_public: true,
                allowed_cidrs: Vec::new(),
            },
        }
    }

    fn server(&self, instance_id: InstanceId, id: ServerId) -> Server {
        Server {
            id,
            tenant_id: self.tenant_id.clone(),
            instance_id: Some(instance_id),
            purpose: ServerPurpose::Instance,
            provider: "fake".to_owned(),
            provider_ref: None,
            incarnation: Incarnation(1),
            host: None,
            roots: vec![ROOT.to_owned()],
            presence: Presence::Planned,
            created_at: self.services.clock.now(),
        }
    }

    fn volume(&self, instance_id: InstanceId, server_id: ServerId, size: VolumeSize) -> Volume {
        Volume {
            id: VolumeId::from_uuid(self.uuid()),
            tenant_id: self.tenant_id.clone(),
            instance_id: Some(instance_id),
            server_id: Some(server_id),
            role: VolumeRole::Data,
            provider: "fake".to_owned(),
            provider_ref: None,
            incarnation: Incarnation(1),
            size,
            volume_type: self.volume_type.clone(),
            parent: None,
            template: Some(ROOT.to_owned()),
            presence: Presence::Planned,
            created_at: self.services.clock.now(),
        }
    }

    async fn set_id(&self, id: InstanceId) -> Result<Option<SetId>, String> {
        let instance = self
            .services
            .store
            .find_instance(id)
            .await
            .map_err(|e| e.to_string())?;
        Ok(instance.map(|i| i.set_id))
    }

    /// The tenant asks for the instance's end.
    pub async fn ask_delete(&self, id: InstanceId) -> Result<(), String> {
        let Some(set_id) = self.set_id(id).await? else {
            return Ok(());
        };
        let input = DeleteInstanceInput {
            instance_id: id,
            set_id,
        };
        let task = delete_instance::task(self.new_task(id), &input);
        let now = self.services.clock.now();
        match self.services.store.begin_delete(id, &task, None, now).await {
            Ok(_) => {
                self.asked().deleted.insert(id);
                Ok(())
            }
            Err(coffer_store::StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Asks for a reset of the status: what works on the instance stops and undoes.
    pub async fn ask_cancel(&self, id: InstanceId) -> Result<(), String> {
        let now = self.services.clock.now();
        let event = Event {
            id: EventId::from_uuid(self.uuid()),
            tenant_id: self.tenant_id.clone(),
            instance_id: Some(id),
            task_id: None,
            code: "instance.reset-asked".to_owned(),
            severity: Severity::Info,
            message: "a reset of the status was asked for".to_owned(),
            actor: Some(self.actor()),
            at: now,
        };
        let done = self.services.store.cancel_tasks(id, &event, now).await;
        done.map(drop).map_err(|e| e.to_string())
    }

    async fn begin(
        &self,
        id: InstanceId,
        (from, to): (Lifecycle, Lifecycle),
        task: coffer_core::task::Task,
        change: SpecChange,
    ) -> Result<(), String> {
        let begin = BeginTask {
            instance_id: id,
            expected: &[from],
            to,
            task: &task,
            event: None,
            change,
            now: self.services.clock.now(),
        };
        self.services
            .store
            .begin_task(&begin)
            .await
            .map_err(|e| e.to_string())
    }

    /// The tenant asks for a restart.
    pub async fn ask_restart(&self, id: InstanceId) -> Result<(), String> {
        let Some(set_id) = self.set_id(id).await? else {
            return Ok(());
        };
        let input = RestartInstanceInput {
            instance_id: id,
            set_id,
        };
        let task = restart_instance::task(self.new_task(id), &input);
        let states = (Lifecycle::Active, Lifecycle::Restarting);
        self.begin(id, states, task, SpecChange::default()).await?;
        self.note_command(id, "restart");
        Ok(())
    }

    /// The tenant asks for a stop.
    pub async fn ask_stop(&self, id: InstanceId) -> Result<(), String> {
        let Some(set_id) = self.set_id(id).await? else {
            return Ok(());
        };
        let input = StopInstanceInput {
            instance_id: id,
            set_id,
        };
        let task = stop_instance::task(self.new_task(id), &input);
        let states = (Lifecycle::Active, Lifecycle::Stopping);
        self.begin(id, states, task, SpecChange::default()).await
    }

    /// The tenant asks for a start of what was stopped.
    pub async fn ask_start(&self, id: InstanceId) -> Result<(), String> {
        let Some(set_id) = self.set_id(id).await? else {
            return Ok(());
        };
        let input = StartInstanceInput {
            instance_id: id,
            set_id,
        };
        let task = start_instance::task(self.new_task(id), &input);
        let states = (Lifecycle::Stopped, Lifecycle::Restarting);
        self.begin(id, states, task, SpecChange::default()).await
    }

    /// The tenant asks for the other access: published, or closed again.
    pub async fn ask_access(&self, id: InstanceId) -> Result<(), String> {
        let store = &self.services.store;
        let found = store.find_instance(id).await.map_err(|e| e.to_string())?;
        let Some(Instance { set_id, spec, .. }) = found else {
            return Ok(());
        };
        let access = Access {
            is_public: !spec.access.is_public,
            allowed_cidrs: Vec::new(),
        };
        let input = UpdateAccessInput {
            instance_id: id,
            set_id,
        };
        let task = update_access::task(self.new_task(id), &input);
        let change = SpecChange {
            access: Some(access),
            ..SpecChange::default()
        };
        let states = (Lifecycle::Active, Lifecycle::Updating);
        self.begin(id, states, task, change).await
    }

    /// The tenant asks for root.
    pub async fn ask_root(&self, id: InstanceId) -> Result<(), String> {
        let Some(set_id) = self.set_id(id).await? else {
            return Ok(());
        };
        let commands = [Operation::EnableRoot {
            password: "pw".to_owned(),
        }];
        let vault = self.services.vault();
        let sealed = vault
            .seal_commands(&self.tenant_id, id, &commands)
            .await
            .map_err(|e| e.to_string())?;
        let input = RunCommandsInput {
            instance_id: id,
            set_id,
            commands_secret: sealed.id,
        };
        let task = run_commands::task(self.new_task(id), &input);
        self.services
            .store
            .insert_sealed_task(&task, &sealed)
            .await
            .map_err(|e| e.to_string())?;
        self.note_command(id, "enable-root");
        self.asked().secrets.push(sealed.id);
        Ok(())
    }

    /// The agent of the instance, an older one, is to be replaced by the one that is carried.
    pub async fn ask_agent(&self, id: InstanceId) -> Result<(), String> {
        let Some(set_id) = self.set_id(id).await? else {
            return Ok(());
        };
        let graph = self.services.store.get_instance_graph(id).await;
        for volume in graph.map_err(|e| e.to_string())?.volumes {
            let old = Some("old".to_owned());
            self.guests
                .change_agent(volume.id, |agent| agent.sha256 = old);
        }
        let carried = self.services.agent.as_ref().ok_or("no agent is carried")?;
        let input = ReplaceAgentInput {
            instance_id: id,
            set_id,
            sha256: carried.sha256.clone(),
        };
        let task = replace_agent::task(self.new_task(id), &input);
        let store = &self.services.store;
        let written = store.insert_task_if_idle(id, &task).await;
        written.map(drop).map_err(|e| e.to_string())
    }

    fn note_command(&self, id: InstanceId, name: &'static str) {
        *self.asked().commands.entry((id, name)).or_default() += 1;
    }
}
