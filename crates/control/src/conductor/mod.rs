//! The conductor: the only writer of what guests report. It holds one long poll to each guest,
//! ingests what changed in batches, notices loss, and asks the task manager for recovery.
//!
//! Its cost grows with changes, not with instances times seconds. One process plays the role at a
//! time; it never changes an instance's lifecycle.

mod agents;
mod ingest;
pub mod inventory;
mod poll;
pub mod recovery;
pub(crate) mod trouble;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use coffer_core::id::ServerId;
use coffer_store::link::LiveLink;
use coffer_store::singleton::Hold;
use tokio_util::sync::CancellationToken;

use self::agents::Agents;
use crate::limits;
use crate::services::Services;
use crate::supervise::Supervisor;

/// Name of the role in the store.
const ROLE: &str = "conductor";

/// How long guests may say nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long a guest may hold a question when nothing changes.
    pub long_poll: Duration,
    /// Silence after which an instance is lost, whatever its provider says.
    pub lost_after: Duration,
}

impl Patience {
    /// These, with the questions short enough that a guest which is well is never lost.
    pub fn new(long_poll: Duration, lost_after: Duration) -> Self {
        Self {
            long_poll: long_poll.min(lost_after / 2),
            lost_after,
        }
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new(limits::LONG_POLL, limits::LOST_AFTER)
    }
}

/// The conductor of one process.
#[derive(Debug)]
pub struct Conductor {
    services: Services,
    name: String,
    is_alone: bool,
    patience: Patience,
}

impl Conductor {
    /// A conductor; `name` is unique among all on the store, over restarts too. One that knows
    /// itself alone on the store takes the role from a dead predecessor at once.
    pub fn new(services: Services, name: String, is_alone: bool) -> Self {
        Self {
            services,
            name,
            is_alone,
            patience: Patience::default(),
        }
    }

    /// The same with another patience.
    #[must_use]
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// Plays the role whenever nobody else does, until told to stop.
    pub async fn run(self: Arc<Self>, supervisor: Supervisor) {
        let token = supervisor.token();
        let mut watched: Option<(String, u64, Duration)> = None;
        while !token.is_cancelled() {
            match self.try_hold(&mut watched).await {
                true => self.conduct(&supervisor, &token).await,
                false if self.is_alone => self.pause(&token, limits::CONDUCTOR_PACE).await,
                false => self.pause(&token, limits::ROLE_RENEWAL).await,
            }
        }
        if let Err(error) = self.services.store.release_hold(ROLE, &self.name).await {
            tracing::warn!(%error, "give the conductor's role back");
        }
    }

    async fn pause(&self, token: &CancellationToken, pause: Duration) {
        tokio::select! {
            () = token.cancelled() => {}
            () = self.services.clock.sleep(pause) => {}
        }
    }

    /// Takes the role when it is free, ours, or unmoved for a lease's time.
    async fn try_hold(&self, watched: &mut Option<(String, u64, Duration)>) -> bool {
        let now = self.services.clock.monotonic();
        let lost = watched
            .as_ref()
            .filter(|(_, _, since)| {
                self.is_alone || now.saturating_sub(*since) >= self.services.tuning.lease
            })
            .map(|(owner, counter, _)| (owner.as_str(), *counter));
        match self.services.store.try_hold(ROLE, &self.name, lost).await {
            Ok(Hold::Held) => true,
            Ok(Hold::Other { owner, counter }) => {
                let moved = watched
                    .as_ref()
                    .is_none_or(|(o, c, _)| (o, *c) != (&owner, counter));
                if moved {
                    *watched = Some((owner, counter, now));
                }
                false
            }
            Err(error) => {
                tracing::error!(%error, "take the conductor's role");
                self.services.clock.sleep(limits::INGEST_RETRY).await;
                false
            }
        }
    }

    /// Holds the polls while the role is ours.
    async fn conduct(&self, supervisor: &Supervisor, token: &CancellationToken) {
        let (sender, ingest) = ingest::channel(self.services.clone());
        supervisor.start("conductor ingest", ingest);
        let shared = Shared {
            sender,
            agents: Arc::new(Agents::default()),
        };
        let mut polls: HashMap<ServerId, (LinkKey, CancellationToken)> = HashMap::new();
        let mut wakeups = self.services.store.subscribe();
        let mut renewed = self.services.clock.monotonic();
        while !token.is_cancelled() {
            let now = self.services.clock.monotonic();
            if now.saturating_sub(renewed) >= limits::ROLE_RENEWAL {
                match self.services.store.try_hold(ROLE, &self.name, None).await {
                    Ok(Hold::Held) => renewed = now,
                    _ => break,
                }
            }
            self.follow(supervisor, &shared, &mut polls).await;
            tokio::select! {
                () = token.cancelled() => {}
                () = wakeups.wait() => self.pause(token, limits::CONDUCTOR_PACE).await,
                () = self.services.clock.sleep(limits::POLL_SAFETY_NET) => {}
            }
        }
        for (_, poll) in polls.values() {
            poll.cancel();
        }
    }

    /// Whether the guest is one that can be heard from here: what runs on another host that shares
    /// the store is silent here, and not lost for that.
    fn is_here(&self, link: &LiveLink) -> bool {
        let provider = &self.services.provider;
        let provider_ref = link.provider_ref.as_deref();
        let is_mine = |of| provider.is_mine(link.link.server_id, of);
        link.provider == provider.name() && provider_ref.is_none_or(is_mine)
    }

    /// Starts polls for links that are new, ends those of links that are gone or changed.
    async fn follow(
        &self,
        supervisor: &Supervisor,
        shared: &Shared,
        polls: &mut HashMap<ServerId, (LinkKey, CancellationToken)>,
    ) {
        let links = match self.services.store.list_live_links().await {
            Ok(links) => links,
            Err(error) => {
                tracing::error!(%error, "list links");
                return;
            }
        };
        let live: HashMap<ServerId, LiveLink> = links
            .into_iter()
            .filter(|l| l.link.key_fingerprint.is_some())
            .filter(|l| self.is_here(l))
            .map(|l| (l.link.server_id, l))
            .collect();
        polls.retain(|id, (key, poll)| {
            let stays = live.get(id).is_some_and(|l| link_key(l) == *key) && !poll.is_cancelled();
            if !stays {
                poll.cancel();
            }
            stays
        });
        for (id, link) in live {
            polls.entry(id).or_insert_with(|| {
                let token = supervisor.token().child_token();
                let key = link_key(&link);
                let services = self.services.clone();
                let poll = poll::Poll::new(services, self.patience, link, shared.clone());
                supervisor.start("guest poll", poll.run(token.clone()));
                (key, token)
            });
        }
    }
}

/// What the polls share.
#[derive(Debug, Clone)]
struct Shared {
    sender: ingest::Sender,
    agents: Arc<Agents>,
}

type LinkKey = (u64, Option<String>);

fn link_key(link: &LiveLink) -> LinkKey {
    (link.incarnation.0, link.link.key_fingerprint.clone())
}
