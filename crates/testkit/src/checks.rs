//! What must hold when a world has settled: nothing stuck, nothing leaked, nothing held, nothing
//! forgotten, nothing done twice.

use std::collections::BTreeMap;

use coffer_core::id::InstanceId;
use coffer_core::instance::{Instance, Lifecycle};
use coffer_core::quota::Resource;
use coffer_core::server::Presence;
use coffer_core::task::{LockKind, TaskState};
use coffer_infra::Provider;
use coffer_infra::provider::Owned;
use coffer_store::StoreError;

use crate::chaos::Kind;
use crate::world::World;

fn failed(error: StoreError) -> String {
    error.to_string()
}

impl World {
    /// What must hold when everything has settled: nothing stuck, nothing leaked, nothing held.
    pub async fn check(&self) -> Result<(), String> {
        self.faults.stop();
        self.settle().await?;
        if !self.faults.has_fired(Kind::Pause) {
            // Only a worker that wakes from a pause may leave what the reconciler has to find.
            self.check_provider().await?;
        }
        self.reconcile().await?;
        self.settle().await?;
        self.check_tasks().await?;
        self.check_provider().await?;
        self.check_quota().await?;
        self.check_secrets().await?;
        for id in self.instances() {
            let instance = self.services.store.find_instance(id).await;
            let Some(instance) = instance.map_err(failed)? else {
                continue;
            };
            if matches!(instance.lifecycle, Lifecycle::Active | Lifecycle::Stopped) {
                self.check_rows(&instance).await?;
                self.check_runs(&instance).await?;
                self.check_guest(id).await?;
            }
        }
        Ok(())
    }

    /// Sealed commands are erased with the end of their task.
    async fn check_secrets(&self) -> Result<(), String> {
        let secrets = self.asked().secrets.clone();
        for id in secrets {
            let found = self.services.store.find_secret(id).await.map_err(failed)?;
            if found.is_some() {
                return Err(format!("the commands {id} were not erased"));
            }
        }
        Ok(())
    }

    /// The rows of an instance in service say where everything is.
    async fn check_rows(&self, instance: &Instance) -> Result<(), String> {
        let graph = self.services.store.get_instance_graph(instance.id).await;
        let graph = graph.map_err(failed)?;
        let is_noted = graph
            .servers
            .iter()
            .all(|s| s.presence == Presence::Present)
            && graph
                .volumes
                .iter()
                .all(|v| v.presence == Presence::Present);
        if !is_noted {
            return Err(format!("servers or volumes are not noted: {graph:#?}"));
        }
        let is_pinned = graph.links.iter().any(|l| l.key_fingerprint.is_some());
        if !is_pinned {
            return Err(format!("the guest's key is not pinned: {graph:#?}"));
        }
        for endpoint in &graph.endpoints {
            let said = endpoint.published.map(|p| (p.address, p.port).into());
            let held = self.provider.published(endpoint.id);
            if said != held {
                return Err(format!("published at {held:?}, the store says {said:?}"));
            }
            // What failed for good is as it was before, and the instance says so; one that is
            // stopped gets what was asked at its start.
            let is_asked = instance.spec.access.is_public;
            let is_due = instance.lifecycle == Lifecycle::Active && instance.fault.is_none();
            if is_asked != held.is_some() && is_due {
                return Err(format!("published at {held:?}, asked was {is_asked}"));
            }
        }
        Ok(())
    }

    /// What is stopped on request stays so, whoever wakes late.
    async fn check_runs(&self, instance: &Instance) -> Result<(), String> {
        let graph = self.services.store.get_instance_graph(instance.id).await;
        for server in graph.map_err(failed)?.servers {
            let held = self.provider.server(server.id);
            let is_running = held.is_some_and(|held| held.is_running);
            if is_running && instance.lifecycle == Lifecycle::Stopped {
                return Err(format!("a stopped instance runs: {instance:#?}"));
            }
        }
        Ok(())
    }

    async fn check_tasks(&self) -> Result<(), String> {
        let store = &self.services.store;
        for id in self.instances() {
            for task in store.list_tasks(id).await.map_err(|e| e.to_string())? {
                if !task.state.is_ended() || task.state == TaskState::Stuck {
                    return Err(format!("task has not ended: {task:#?}"));
                }
            }
            let locks = store
                .list_locks(LockKind::Instance, &id.to_string())
                .await
                .map_err(|e| e.to_string())?;
            if !locks.is_empty() {
                return Err(format!("locks are held: {locks:?}"));
            }
            let instance = store.find_instance(id).await.map_err(|e| e.to_string())?;
            let rests = instance.is_none_or(|i| {
                matches!(
                    i.lifecycle,
                    Lifecycle::Active | Lifecycle::Stopped | Lifecycle::Failed | Lifecycle::Deleted
                )
            });
            if !rests {
                return Err(format!("instance {id} is not at rest"));
            }
        }
        Ok(())
    }

    /// The provider holds exactly what the store says.
    async fn check_provider(&self) -> Result<(), String> {
        let store = &self.services.store;
        let owned = self
            .provider
            .list_owned()
            .await
            .map_err(|e| e.to_string())?;
        let owned: Vec<_> = owned
            .into_iter()
            .filter(|o| !matches!(o, Owned::Network(_)))
            .collect();
        let mut said = Vec::new();
        for server in store.list_servers().await.map_err(failed)? {
            said.push(Owned::Server(server.id, server.incarnation));
        }
        for volume in store.list_volumes().await.map_err(failed)? {
            said.push(Owned::Volume(volume.id, volume.incarnation));
        }
        for endpoint in store.list_endpoints().await.map_err(failed)? {
            let instance = endpoint.target;
            if instance.is_some() {
                said.push(Owned::Endpoint(endpoint.id));
            }
        }
        let (mut owned, mut said) = (owned, said);
        owned.sort();
        said.sort();
        if owned != said {
            return Err(format!("provider holds {owned:#?}\nstore says {said:#?}"));
        }
        Ok(())
    }

    async fn check_quota(&self) -> Result<(), String> {
        let store = &self.services.store;
        let mut held = 0;
        for id in self.instances() {
            let instance = store.find_instance(id).await.map_err(|e| e.to_string())?;
            let takes = |state| matches!(state, Lifecycle::Active | Lifecycle::Stopped);
            if instance.is_some_and(|i| takes(i.lifecycle)) {
                held += 1;
            }
        }
        let quotas = store
            .get_quotas(&self.tenant_id, Resource::default_limit)
            .await
            .map_err(|e| e.to_string())?;
        for quota in quotas {
            let counts = matches!(quota.resource, Resource::Instances | Resource::Volumes);
            if counts && (quota.in_use != held || quota.reserved != 0) {
                return Err(format!("{held} instances, but quota {quota:?}"));
            }
        }
        Ok(())
    }

    /// Every command was applied once for every time it was asked for, at the most, and the store
    /// knows what the engine holds.
    async fn check_guest(&self, id: InstanceId) -> Result<(), String> {
        let store = &self.services.store;
        let graph = store.get_instance_graph(id).await.map_err(failed)?;
        let volume = graph
            .volumes
            .first()
            .ok_or("an instance in service has no volume")?;
        let applied = self.guests.kept(volume.id).applied;
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, name) in &applied {
            *times.entry(name).or_default() += 1;
        }
        for (name, times) in &times {
            let asked = self.asked().commands.get(&(id, *name)).copied();
            if *times > asked.unwrap_or(0) {
                return Err(format!("{name} was applied {times} times: {applied:?}"));
            }
        }
        if !times.contains_key("create-databases") || !times.contains_key("create-users") {
            return Err(format!("databases or users are missing: {applied:?}"));
        }
        let databases = store.list_databases(id, None, 10).await.map_err(failed)?;
        if databases.is_empty() {
            return Err("the store does not know the instance's databases".to_owned());
        }
        Ok(())
    }
}
