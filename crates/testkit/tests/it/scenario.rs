//! What is played in a world: one scenario per way through the workflows.

use coffer_core::instance::Lifecycle;
use coffer_testkit::chaos::{Faults, Kind, Strike};
use coffer_testkit::world::World;

/// One way through the workflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    Create,
    CreateRefused,
    Delete,
    Restart,
    Access,
    Root,
    Recover,
}

impl Scenario {
    pub(crate) const ALL: &[Self] = &[
        Self::Create,
        Self::CreateRefused,
        Self::Delete,
        Self::Restart,
        Self::Access,
        Self::Root,
        Self::Recover,
    ];

    /// Name of the workflow it is about.
    pub(crate) const fn workflow(self) -> &'static str {
        match self {
            Self::Create | Self::CreateRefused => "create_instance",
            Self::Delete => "delete_instance",
            Self::Restart => "restart_instance",
            Self::Access => "update_access",
            Self::Root => "run_commands",
            Self::Recover => "recover_instance",
        }
    }

    /// Faults that belong to the scenario itself.
    pub(crate) fn strikes(self) -> Vec<Strike> {
        match self {
            Self::CreateRefused => vec![Strike {
                kind: Kind::Rejected,
                workflow: "create_instance".to_owned(),
                step: "ensure_endpoint".to_owned(),
                times: 1,
            }],
            _ => Vec::new(),
        }
    }

    /// Plays it to its end.
    pub(crate) async fn play(self, seed: u64, faults: Faults) -> Result<World, String> {
        let world = World::new(seed, faults).await;
        self.play_in(&world).await?;
        Ok(world)
    }

    /// Plays it to its end or until it is stuck.
    pub(crate) async fn play_until_stuck(self, faults: Faults) -> (World, Result<(), String>) {
        let world = World::new(1, faults).await;
        let ended = self.play_in(&world).await;
        (world, ended)
    }

    async fn play_in(self, world: &World) -> Result<(), String> {
        let id = world.ask_create().await?;
        if matches!(self, Self::Create | Self::CreateRefused) {
            return world.settle().await;
        }
        world.settle().await?;
        if lifecycle(world, id).await? != Lifecycle::Active {
            return Ok(());
        }
        match self {
            Self::Create | Self::CreateRefused => {}
            Self::Delete => world.ask_delete(id).await?,
            Self::Restart => world.ask_restart(id).await?,
            Self::Access => world.ask_access(id).await?,
            Self::Root => world.ask_root(id).await?,
            Self::Recover => {
                let graph = world.services.store.get_instance_graph(id).await;
                for server in graph.map_err(|e| e.to_string())?.servers {
                    world.provider.kill_server(server.id);
                }
                world.reconcile().await?;
            }
        }
        world.settle().await
    }
}

async fn lifecycle(world: &World, id: coffer_core::id::InstanceId) -> Result<Lifecycle, String> {
    let instance = world
        .services
        .store
        .find_instance(id)
        .await
        .map_err(|e| e.to_string())?;
    Ok(instance.map_or(Lifecycle::Deleted, |i| i.lifecycle))
}
