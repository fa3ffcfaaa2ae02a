//! What a step may write: applied in the transaction that commits the step.

use coffer_core::event::Event;
use coffer_core::id::{EndpointId, InstanceId, SecretId, ServerId, SetId, TaskId, VolumeId};
use coffer_core::instance::{Fault, Lifecycle};
use coffer_core::network::Network;
use coffer_core::replication::Endpoint;
use coffer_core::server::{Link, Server, Volume};
use coffer_core::task::{Signal, Task};
use coffer_core::time::Timestamp;
use coffer_core::units::{Generation, Incarnation};

use crate::error::Result;
use crate::instance::{self, SpecChange};
use crate::inventory::{self, StoredInventory};
use crate::secret::{self, StoredSecret};
use crate::sql::Tx;
use crate::{endpoint, event, link, network, quota, server, set, signal, task, volume};

/// One write of a step. Each may be repeated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets what Coffer is doing with an instance. Ignored once the instance is being deleted,
    /// unless the task is the one that deletes it.
    SetLifecycle {
        /// The instance.
        instance_id: InstanceId,
        /// What is being done.
        lifecycle: Lifecycle,
        /// Why it failed; `None` clears it.
        fault: Option<Fault>,
    },
    /// Changes what is asked of an instance.
    SetSpec {
        /// The instance.
        instance_id: InstanceId,
        /// What changes.
        change: SpecChange,
    },
    /// Sets the number of an instance's rebuilds.
    SetIncarnation {
        /// The instance.
        instance_id: InstanceId,
        /// Its number.
        incarnation: Incarnation,
    },
    /// Counts an instance's turn on: providers refuse what was called in an earlier one and arrives
    /// late.
    CountTurn(InstanceId),
    /// Ends an instance: marks it deleted, frees its addresses and quota, removes its set (if it
    /// was the last member), endpoints, links, servers, status, inventory and secrets.
    FinishDelete {
        /// The instance.
        instance_id: InstanceId,
        /// When.
        at: Timestamp,
    },
    /// Gives back all quota that the instance holds, while its row stays (a failed creation).
    ReleaseQuota {
        /// The instance.
        instance_id: InstanceId,
    },
    /// Writes or overwrites a server.
    PutServer(Server),
    /// Removes a server and its link.
    DeleteServer(ServerId),
    /// Writes or overwrites a volume.
    PutVolume(Volume),
    /// Removes a volume.
    DeleteVolume(VolumeId),
    /// Writes or overwrites the link of a server, with its key and position.
    PutLink(Link),
    /// Removes the link of a server.
    DeleteLink(ServerId),
    /// Writes or overwrites an endpoint; takes its network address if nobody holds it.
    PutEndpoint(Endpoint),
    /// Removes an endpoint and frees its addresses.
    DeleteEndpoint(EndpointId),
    /// Writes or overwrites a network.
    PutNetwork(Network),
    /// Changes who is primary; `Stale` unless the generation is newer than the set's.
    SetPrimary {
        /// The set.
        set_id: SetId,
        /// The member, or none.
        instance_id: Option<InstanceId>,
        /// The new generation.
        generation: Generation,
    },
    /// Replaces what is known of an instance's inside.
    PutInventory {
        /// The instance.
        instance_id: InstanceId,
        /// All of it.
        inventory: StoredInventory,
    },
    /// Remembers that root was enabled; the first time stays.
    SetRootEnabled {
        /// The instance.
        instance_id: InstanceId,
        /// When.
        at: Timestamp,
    },
    /// Writes an event.
    AddEvent(Event),
    /// Enqueues a task.
    AddTask(Box<Task>),
    /// Tells another task something.
    SendSignal {
        /// The task.
        task_id: TaskId,
        /// What.
        signal: Signal,
    },
    /// Forgets a signal of the task itself.
    ClearSignal(Signal),
    /// Writes or replaces a ciphertext.
    PutSecret(StoredSecret),
    /// Erases a ciphertext.
    EraseSecret(SecretId),
}

/// Applies a write of a step of `task_id`.
pub(crate) async fn apply(
    tx: &mut Tx,
    write: &Write,
    task_id: TaskId,
    now: Timestamp,
) -> Result<()> {
    match write {
        Write::SetLifecycle {
            instance_id,
            lifecycle,
            fault,
        } => {
            let to = (*lifecycle, fault.as_ref());
            instance::set_lifecycle(tx, *instance_id, to, task_id, now).await
        }
        Write::SetSpec {
            instance_id,
            change,
        } => instance::set_spec(tx, *instance_id, change, now).await,
        Write::SetIncarnation {
            instance_id,
            incarnation,
        } => instance::set_incarnation(tx, *instance_id, *incarnation).await,
        Write::CountTurn(id) => instance::count_turn(tx, &id.to_string()).await,
        Write::FinishDelete { instance_id, at } => {
            instance::finish_delete(tx, *instance_id, *at).await
        }
        Write::ReleaseQuota { instance_id } => quota::release(tx, *instance_id).await,
        Write::PutServer(server) => server::put(tx, server).await,
        Write::DeleteServer(id) => server::delete(tx, *id).await,
        Write::PutVolume(volume) => volume::put(tx, volume).await,
        Write::DeleteVolume(id) => volume::delete(tx, *id).await,
        Write::PutLink(link) => link::put(tx, link).await,
        Write::DeleteLink(server_id) => link::delete(tx, *server_id).await,
        Write::PutEndpoint(endpoint) => endpoint::put(tx, endpoint).await,
        Write::DeleteEndpoint(id) => endpoint::delete(tx, *id).await,
        Write::PutNetwork(network) => network::put(tx, network).await,
        Write::SetPrimary {
            set_id,
            instance_id,
            generation,
        } => set::set_primary(tx, *set_id, *instance_id, *generation).await,
        Write::PutInventory {
            instance_id,
            inventory,
        } => inventory::put(tx, *instance_id, inventory, now).await,
        Write::SetRootEnabled { instance_id, at } => {
            inventory::mark_root_enabled(tx, *instance_id, *at).await
        }
        Write::AddEvent(event) => event::insert(tx, event).await,
        Write::AddTask(task) => task::insert(tx, task).await,
        Write::SendSignal { task_id, signal } => signal::send(tx, *task_id, *signal, now).await,
        Write::ClearSignal(signal) => signal::clear(tx, task_id, *signal).await,
        Write::PutSecret(secret) => secret::put(tx, secret).await,
        Write::EraseSecret(id) => secret::erase(tx, *id).await,
    }
}
