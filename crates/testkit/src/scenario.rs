//! What is played in a world: one scenario per way through the workflows.

use std::collections::BTreeSet;

use coffer_core::instance::Lifecycle;
use coffer_core::task::TaskStepRecord;

use crate::chaos::{Call, Faults, Kind, Strike, step_name};
use crate::world::World;

/// One way through the workflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    /// An instance is created.
    Create,
    /// A creation is refused by the provider and undone.
    CreateRefused,
    /// An instance is deleted.
    Delete,
    /// Its engine is restarted.
    Restart,
    /// Restarting it fails.
    RestartRefused,
    /// It is stopped.
    Stop,
    /// Stopping it fails.
    StopRefused,
    /// It is started after a stop.
    Start,
    /// Starting it fails.
    StartRefused,
    /// Its access changes.
    Access,
    /// Changing its access fails.
    AccessRefused,
    /// Root is enabled.
    Root,
    /// Enabling root fails.
    RootRefused,
    /// Its server died and is made again.
    Recover,
    /// Making it again fails.
    RecoverRefused,
    /// Its certificates are made anew.
    Renew,
    /// Making them anew fails.
    RenewRefused,
    /// Its guest's agent is replaced.
    Replace,
    /// Replacing it fails.
    ReplaceRefused,
}

/// What a plain run of a scenario goes through.
#[derive(Debug, Default)]
pub struct Path {
    /// Names of the steps.
    pub steps: BTreeSet<String>,
    /// Every outside call, with the step that makes it.
    pub calls: BTreeSet<(String, Call)>,
    /// Steps that follow each other, in any task of the workflow.
    pub edges: BTreeSet<(String, String)>,
    /// Steps that end the task, and how.
    pub ends: BTreeSet<(String, String)>,
}

impl Scenario {
    /// All of them.
    pub const ALL: &[Self] = &[
        Self::Create,
        Self::CreateRefused,
        Self::Delete,
        Self::Restart,
        Self::RestartRefused,
        Self::Stop,
        Self::StopRefused,
        Self::Start,
        Self::StartRefused,
        Self::Access,
        Self::AccessRefused,
        Self::Root,
        Self::RootRefused,
        Self::Recover,
        Self::RecoverRefused,
        Self::Renew,
        Self::RenewRefused,
        Self::Replace,
        Self::ReplaceRefused,
    ];

    /// Name of the workflow it is about.
    pub const fn workflow(self) -> &'static str {
        match self {
            Self::Create | Self::CreateRefused => "create_instance",
            Self::Delete => "delete_instance",
            Self::Restart | Self::RestartRefused => "restart_instance",
            Self::Stop | Self::StopRefused => "stop_instance",
            Self::Start | Self::StartRefused => "start_instance",
            Self::Access | Self::AccessRefused => "update_access",
            Self::Root | Self::RootRefused => "run_commands",
            Self::Recover | Self::RecoverRefused => "recover_instance",
            Self::Renew | Self::RenewRefused => "renew_certificates",
            Self::Replace | Self::ReplaceRefused => "replace_agent",
        }
    }

    /// Faults that belong to the scenario itself.
    pub fn strikes(self) -> Vec<Strike> {
        let (kind, step, times) = match self {
            Self::CreateRefused
            | Self::RestartRefused
            | Self::StartRefused
            | Self::AccessRefused
            | Self::RecoverRefused => (Kind::Rejected, "ensure_endpoint", 1),
            Self::StopRefused => (Kind::Rejected, "stop_server", 1),
            // A guest does not refuse; it is away until the step is given up.
            Self::RootRefused => (Kind::CallFails, "run", 10_000),
            Self::RenewRefused => (Kind::CallFails, "push_spec", 10_000),
            Self::ReplaceRefused => (Kind::CallFails, "send_binary", 10_000),
            Self::Create
            | Self::Delete
            | Self::Restart
            | Self::Stop
            | Self::Start
            | Self::Access
            | Self::Root
            | Self::Recover
            | Self::Renew
            | Self::Replace => return Vec::new(),
        };
        vec![Strike {
            kind,
            workflow: self.workflow().to_owned(),
            step: step.to_owned(),
            call: None,
            times,
        }]
    }

    /// Plays it once without other faults, and notes what it goes through.
    pub async fn path(self) -> Result<Path, String> {
        let world = self.play(1, Faults::exact(self.strikes())).await?;
        let mut path = Path::default();
        for (workflow, step, call) in world.faults.calls() {
            if workflow == self.workflow() {
                path.calls.insert((step, call));
            }
        }
        for id in world.instances() {
            let tasks = world.services.store.list_tasks(id).await;
            for task in tasks.map_err(|e| e.to_string())? {
                if task.workflow != self.workflow() {
                    continue;
                }
                let history = world.services.store.list_history(task.id).await;
                let history = history.map_err(|e| e.to_string())?;
                let steps: Vec<_> = history.iter().map(|line| step_name(&line.step)).collect();
                for pair in steps.windows(2).filter(|pair| pair[0] != pair[1]) {
                    path.edges.insert((pair[0].clone(), pair[1].clone()));
                }
                let ending =
                    |line: &&TaskStepRecord| matches!(line.outcome.as_str(), "done" | "failed");
                if let Some(last) = history.last().filter(ending) {
                    let step = step_name(&last.step);
                    path.ends.insert((step, last.outcome.clone()));
                }
                path.steps.extend(steps);
            }
        }
        world.check().await?;
        Ok(path)
    }

    /// Plays it to its end.
    pub async fn play(self, seed: u64, faults: Faults) -> Result<World, String> {
        let world = World::new(seed, faults).await;
        self.play_in(&world).await?;
        Ok(world)
    }

    /// Plays it to its end or until it is stuck.
    pub async fn play_until_stuck(self, faults: Faults) -> (World, Result<(), String>) {
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
            Self::Restart | Self::RestartRefused => world.ask_restart(id).await?,
            Self::Stop | Self::StopRefused => world.ask_stop(id).await?,
            Self::Start | Self::StartRefused => {
                world.ask_stop(id).await?;
                world.settle().await?;
                world.ask_start(id).await?;
            }
            Self::Access | Self::AccessRefused => world.ask_access(id).await?,
            Self::Root | Self::RootRefused => world.ask_root(id).await?,
            Self::Recover | Self::RecoverRefused => {
                let graph = world.services.store.get_instance_graph(id).await;
                for server in graph.map_err(|e| e.to_string())?.servers {
                    world.provider.kill_server(server.id);
                }
                world.reconcile().await?;
            }
            Self::Replace | Self::ReplaceRefused => world.ask_agent(id).await?,
            Self::Renew | Self::RenewRefused => {
                if world.pass_months().await? != 1 {
                    return Err("no new certificates were asked for".to_owned());
                }
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
