//! Agents of guests: which are replaced, by whom, how often, and what the history says of it.

use std::sync::Arc;

use coffer_control::guest::AgentBinary;
use coffer_core::id::{InstanceId, VolumeId};
use coffer_core::instance::Health;
use coffer_core::task::TaskState;
use coffer_testkit::guests::Agent;
use coffer_testkit::world::World;

use crate::conductor::Conducted;

/// Steps of the conductor that are let pass: more virtual time than between two of its tries.
const STEPS: u32 = 6_000;

async fn volume(world: &World, id: InstanceId) -> VolumeId {
    let graph = world.services.store.get_instance_graph(id).await.unwrap();
    graph.volumes[0].id
}

async fn agent(conducted: &Conducted) -> Agent {
    let volume = volume(&conducted.world, conducted.id).await;
    conducted.world.guests.kept(volume).agent
}

/// Lets the conductor look for long, and does what it asks for; gives how many tasks there were.
async fn pass(conducted: &Conducted) -> usize {
    let mut asked = 0;
    for _ in 0..STEPS {
        conducted.pass().await;
        let unended = conducted.world.unended().await.unwrap();
        if !unended.is_empty() {
            asked += unended.len();
            conducted.world.settle().await.unwrap();
        }
    }
    asked
}

#[tokio::test]
async fn an_older_agent_is_replaced_once() {
    let mut conducted = Conducted::new().await;
    let volume = volume(&conducted.world, conducted.id).await;
    let old = |agent: &mut Agent| agent.sha256 = Some("old".to_owned());
    conducted.world.guests.change_agent(volume, old);
    let before = conducted.world.guests.kept(volume);
    conducted.start("c");
    conducted.until(Health::Healthy).await;
    assert_eq!(pass(&conducted).await, 1, "asked for once");
    let carried = conducted.world.services.agent.clone().unwrap();
    let after = agent(&conducted).await;
    assert_eq!(after.sha256, Some(carried.sha256.clone()));
    assert_eq!(after.ran, std::slice::from_ref(&carried.sha256));
    assert_eq!(conducted.events("agent.replaced").await.len(), 1);
    assert_eq!(conducted.events("engine.started_again").await.len(), 0);
    let graph = &conducted.world.services.store;
    let graph = graph.get_instance_graph(conducted.id).await.unwrap();
    assert_eq!(
        graph.links[0].agent_version.as_deref(),
        Some(carried.version.as_str())
    );
    let now = conducted.world.guests.kept(volume);
    assert_eq!(now.spec, before.spec, "it was told something else");
    conducted.world.check().await.unwrap();
    conducted.stop().await;
}

#[tokio::test]
async fn an_agent_that_was_given_up_is_not_tried_again() {
    let mut conducted = Conducted::new().await;
    let volume = volume(&conducted.world, conducted.id).await;
    conducted.world.guests.change_agent(volume, |agent| {
        agent.sha256 = Some("old".to_owned());
        agent.is_refusing = true;
    });
    conducted.start("c");
    conducted.until(Health::Healthy).await;
    assert_eq!(pass(&conducted).await, 1, "asked for once");
    let after = agent(&conducted).await;
    assert_eq!(after.sha256.as_deref(), Some("old"));
    assert_eq!(after.ran.len(), 1);
    let failed = conducted.events("agent.replace_failed").await;
    assert_eq!(failed.len(), 1);
    assert!(failed[0].message.contains("did not serve"), "{failed:?}");
    conducted.world.check().await.unwrap();
    conducted.stop().await;
}

/// What a Coffer of before asked for is no failure of the one that carries another agent.
#[tokio::test]
async fn a_task_for_another_agent_than_is_carried_ends_without_a_failure() {
    let mut conducted = Conducted::new().await;
    conducted.world.ask_agent(conducted.id).await.unwrap();
    let next = AgentBinary::in_memory(b"of the next version".to_vec()).unwrap();
    conducted.world.services.agent = Some(Arc::new(next));
    conducted.world.settle().await.unwrap();
    let store = &conducted.world.services.store;
    let tasks = store.list_tasks(conducted.id).await.unwrap();
    let task = tasks.iter().find(|task| task.workflow == "replace_agent");
    assert_eq!(task.unwrap().state, TaskState::Done);
    let told = conducted.events("agent.replace_superseded").await;
    assert_eq!(told.len(), 1);
    assert!(conducted.events("agent.replace_failed").await.is_empty());
    let after = agent(&conducted).await;
    assert_eq!(after.sha256.as_deref(), Some("old"), "it goes on");
    // The conductor asks for the one that is carried.
    conducted.start("c");
    conducted.until(Health::Healthy).await;
    assert_eq!(pass(&conducted).await, 1, "asked for once");
    let carried = conducted.world.services.agent.clone().unwrap();
    assert_eq!(agent(&conducted).await.sha256, Some(carried.sha256.clone()));
    conducted.world.check().await.unwrap();
    conducted.stop().await;
}
