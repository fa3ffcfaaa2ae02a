//! Measures a page of 20 instances, and one instance, at 400 and at 10,000 rows on SQLite.
//!
//! `cargo run -p coffer-store --example list_speed`
#![expect(
    clippy::disallowed_methods,
    reason = "this program measures with the machine's clock"
)]

use std::error::Error;
use std::future::Future;
use std::time::Instant;

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
use coffer_core::replication::{EndpointKind, ReplicationSet, SetMode};
use coffer_core::server::{Link, LinkForm, Presence, Server, ServerPurpose, Volume, VolumeRole};
use coffer_core::task::{PRIORITY_NORMAL, Task, TaskState};
use coffer_core::time::Timestamp;
use coffer_core::units::{Generation, Incarnation, Timeline, VolumeSize};
use coffer_store::instance::{InstanceFilter, NewInstance};
use coffer_store::{Durability, Store, StoreOptions, StoreUrl};
use uuid::Uuid;

type Outcome<T> = Result<T, Box<dyn Error>>;

const TENANTS: u128 = 20;
const ROUNDS: usize = 2_000;

fn id<T>(make: fn(Uuid) -> T, number: u128) -> T {
    make(Uuid::from_u128(number))
}

fn tenant(number: u128) -> Outcome<TenantId> {
    Ok(format!("{:032x}", number % TENANTS).parse()?)
}

fn version() -> DatastoreVersionId {
    id(DatastoreVersionId::from_uuid, 1)
}

async fn seed_catalogue(store: &Store) -> Outcome<()> {
    let now = Timestamp::default();
    let datastore = Datastore {
        id: id(DatastoreId::from_uuid, 1),
        name: Name::parse("name", "postgresql")?,
        default_version_id: Some(version()),
        created_at: now,
    };
    store.upsert_datastore(&datastore).await?;
    let version = DatastoreVersion {
        id: version(),
        datastore_id: datastore.id,
        name: Name::parse("name", "17")?,
        number: "17.6".to_owned(),
        manager: "postgresql".to_owned(),
        is_active: true,
        image: "postgresql-17".to_owned(),
        root: None,
        created_at: now,
    };
    store.upsert_datastore_version(&version).await?;
    for number in 0..TENANTS {
        let network = Network {
            id: id(NetworkId::from_uuid, number),
            tenant_id: tenant(number)?,
            name: Name::parse("name", "default")?,
            subnet: "10.0.0.0/16".parse()?,
            is_default: true,
            created_at: now,
        };
        store.insert_network(&network).await?;
    }
    Ok(())
}

fn instance(number: u128) -> Outcome<Instance> {
    let now = Timestamp::from_micros(1_795_234_163_000_000);
    Ok(Instance {
        id: id(InstanceId::from_uuid, number),
        tenant_id: tenant(number)?,
        set_id: id(SetId::from_uuid, number),
        spec: InstanceSpec {
            name: Name::parse("name", &format!("database-{number}"))?,
            flavor_id: "6.1".parse()?,
            volume: VolumeSize::gib(20)?,
            volume_type: None,
            datastore_version_id: version(),
            network_id: id(NetworkId::from_uuid, number % TENANTS),
            zone: Some("az01.cell01.qhzwy".to_owned()),
            access: Access::default(),
        },
        lifecycle: Lifecycle::Active,
        health: Health::Healthy,
        incarnation: Incarnation(1),
        fault: None,
        volume_used_bytes: Some(1 << 30),
        created_at: now,
        updated_at: now,
        health_at: now,
    })
}

fn task(number: u128) -> Outcome<Task> {
    let now = Timestamp::default();
    Ok(Task {
        id: id(TaskId::from_uuid, number),
        tenant_id: tenant(number)?,
        instance_id: Some(id(InstanceId::from_uuid, number)),
        workflow: "create_instance".to_owned(),
        input: "{}".to_owned(),
        step: "\"Begin\"".to_owned(),
        state: TaskState::Done,
        version: 1,
        owner: None,
        lease: 0,
        attempt: 0,
        run_at: now,
        priority: PRIORITY_NORMAL,
        has_locks: false,
        wait: None,
        step_at: now,
        deadline: None,
        error: None,
        output: None,
        actor: Actor::system(tenant(number)?, "system".parse()?),
        created_at: now,
        updated_at: now,
    })
}

fn server(instance: &Instance, number: u128) -> Server {
    Server {
        id: id(ServerId::from_uuid, number),
        tenant_id: instance.tenant_id.clone(),
        instance_id: Some(instance.id),
        purpose: ServerPurpose::Instance,
        provider: "local".to_owned(),
        provider_ref: None,
        incarnation: Incarnation(1),
        host: None,
        roots: vec!["root".to_owned()],
        presence: Presence::Present,
        created_at: instance.created_at,
    }
}

fn volume(instance: &Instance, server: &Server, number: u128) -> Volume {
    Volume {
        id: id(VolumeId::from_uuid, number),
        tenant_id: instance.tenant_id.clone(),
        instance_id: Some(instance.id),
        server_id: Some(server.id),
        role: VolumeRole::Data,
        provider: "local".to_owned(),
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

fn new_instance(number: u128) -> Outcome<NewInstance> {
    let instance = instance(number)?;
    let server = server(&instance, number);
    Ok(NewInstance {
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
        port: 5432,
        volume: volume(&instance, &server, number),
        link: Some(Link {
            id: id(LinkId::from_uuid, number),
            server_id: server.id,
            form: LinkForm::Netns,
            address: "127.0.0.1:7070".to_owned(),
            key_fingerprint: None,
            agent_version: None,
            position: 0,
        }),
        task: task(number)?,
        charges: Vec::new(),
        event: None,
        instance,
        server,
    })
}

/// Runs a request `ROUNDS` times; prints three percentiles.
async fn measure<F: Future<Output = Outcome<()>>>(
    what: &str,
    request: impl Fn(usize) -> F,
) -> Outcome<()> {
    let mut micros = Vec::with_capacity(ROUNDS);
    for round in 0..ROUNDS + 100 {
        let begin = Instant::now();
        request(round).await?;
        if round >= 100 {
            micros.push(begin.elapsed().as_micros());
        }
    }
    micros.sort_unstable();
    let [low, median, high] = [10, 50, 99].map(|percent| micros[ROUNDS * percent / 100]);
    println!("{what}: p10 {low} us, p50 {median} us, p99 {high} us");
    Ok(())
}

async fn measure_all(store: &Store, rows: u128) -> Outcome<()> {
    measure(
        &format!("list of 20 of a project at {rows} rows"),
        async |round| {
            let tenant = Some(tenant(round as u128)?);
            // Five markers, each with a full page behind it.
            let first = (rows - 20 * TENANTS) / 5 * (round as u128 / TENANTS % 5);
            let marker = Some(id(InstanceId::from_uuid, first));
            let page = store
                .list_instances(&InstanceFilter { tenant }, marker, 20)
                .await?;
            if page.len() == 20 {
                Ok(())
            } else {
                Err("the page is not full".into())
            }
        },
    )
    .await?;
    measure(&format!("list of 20 of all at {rows} rows"), async |_| {
        store
            .list_instances(&InstanceFilter::default(), None, 20)
            .await?;
        Ok(())
    })
    .await?;
    measure(&format!("show of one at {rows} rows"), async |round| {
        let number = 1 + round as u128 % rows;
        let found = store
            .get_instance_view(None, id(InstanceId::from_uuid, number))
            .await?;
        found.map(drop).ok_or_else(|| "instance is missing".into())
    })
    .await
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let url = StoreUrl::SqliteFile(directory.path().join("coffer.db"));
    let options = StoreOptions {
        durability: Durability::Off,
        ..StoreOptions::default()
    };
    let store = Store::open(&url, options).await?;
    seed_catalogue(&store).await?;
    let mut rows = 0;
    // The first figure has just as many rows as full pages need.
    for goal in [20 * TENANTS, 10_000] {
        while rows < goal {
            rows += 1;
            store.create_instance(&new_instance(rows)?, |_| -1).await?;
        }
        measure_all(&store, rows).await?;
    }
    store.close().await;
    Ok(())
}
