//! Injected faults: where they strike, and a count of those that really did.
//!
//! A plan is either exact (this kind, at this point, so often) or random by seed. In a random run
//! whole kinds of faults are switched off, so that rare combinations are not always drowned, and
//! now and then one kind strikes almost every call, so that steps are given up as well.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use coffer_control::services::{Chaos, Guard, Verdict};
use coffer_core::id::{InstanceId, TaskId};
use coffer_core::task::Task;
use coffer_infra::fake::{Fault, FaultSource};
use coffer_store::Store;
use coffer_store::task::StepCommit;
use tokio::sync::Notify;

use crate::mutants::Mutant;
use crate::oracle;
use crate::time::Seeded;

/// What can be injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// The process dies after the step ran and before its commit: the step runs twice.
    CrashBeforeCommit,
    /// The process dies after the commit.
    CrashAfterCommit,
    /// The store does not take the commit; the process lives on.
    StoreFails,
    /// The process dies before an outside call.
    CrashBeforeCall,
    /// The process stops before an outside call until another has finished.
    Pause,
    /// An outside call fails before it did anything.
    CallFails,
    /// An outside call does its work and the answer is lost.
    LostReply,
    /// A call of a provider outlives its limit, and is done after it was asked again.
    Late,
    /// An outside call takes its time.
    Pending,
    /// An outside call conflicts.
    Conflict,
    /// An outside call is refused for good.
    Rejected,
    /// A delete of the instance arrives.
    Delete,
    /// The instance's tasks are told to stop and undo.
    Cancel,
    /// The server under the instance dies.
    ServerDies,
}

impl Kind {
    /// Every kind.
    pub const ALL: &'static [Self] = &[
        Self::CrashBeforeCommit,
        Self::CrashAfterCommit,
        Self::StoreFails,
        Self::CrashBeforeCall,
        Self::Pause,
        Self::CallFails,
        Self::LostReply,
        Self::Late,
        Self::Pending,
        Self::Conflict,
        Self::Rejected,
        Self::Delete,
        Self::Cancel,
        Self::ServerDies,
    ];

    /// Kinds that may strike almost every call of a random run.
    const STUBBORN: &'static [Self] = &[
        Self::CallFails,
        Self::Conflict,
        Self::Pending,
        Self::LostReply,
    ];
}

/// Which outside call of a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Call {
    /// The call of this name.
    Named(&'static str),
    /// The call with this number, from 0, in one run of the step.
    Nth(u32),
}

/// One exact fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strike {
    /// What happens.
    pub kind: Kind,
    /// Workflow it happens in.
    pub workflow: String,
    /// Name of the step it happens at.
    pub step: String,
    /// The call it happens at; `None`: the first, or where no call is meant.
    pub call: Option<Call>,
    /// How often it happens before it stops; `u32::MAX`: always.
    pub times: u32,
}

#[derive(Debug, Default)]
struct Inner {
    strikes: Vec<Strike>,
    random: BTreeMap<Kind, u64>,
    fired: BTreeMap<(Kind, String), u64>,
    /// Workflow and step that make the call which is about to be made.
    at: (String, String),
    /// Task and version that make calls, and how many were made.
    count: Option<(TaskId, u64, u32)>,
    /// Every outside call that was made, with its workflow and step.
    calls: BTreeSet<(String, String, Call)>,
    /// Promises that were seen broken.
    violations: Vec<String>,
    /// How many random faults may still be injected.
    budget: u32,
    /// Whether a worker is paused already: one at a time.
    is_paused: bool,
    reason: Option<PauseReason>,
}

/// Why a worker stands still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PauseReason {
    /// It was paused; another worker should finish first, and the tenant go on.
    Paused(Option<InstanceId>),
    /// A delete of this instance arrives now.
    Delete(InstanceId),
    /// The tasks of this instance are cancelled now.
    Cancel(InstanceId),
    /// The servers of this instance die now.
    ServerDies(InstanceId),
}

/// The source of all faults of one world.
#[derive(Debug)]
pub struct Faults {
    inner: Mutex<Inner>,
    random: Arc<Seeded>,
    mutant: Option<&'static Mutant>,
    store: Mutex<Option<Store>>,
    /// Rung when a worker pauses.
    pub paused: Notify,
    /// Rung to let a paused worker go on.
    pub resume: Notify,
}

impl Faults {
    /// Exact faults only.
    pub fn exact(strikes: Vec<Strike>) -> Self {
        let inner = Inner {
            strikes,
            budget: u32::MAX,
            ..Inner::default()
        };
        Self::with(inner, Arc::new(Seeded::new(0)))
    }

    /// Random faults by seed, with some kinds switched off, `budget` in all.
    pub fn random(seed: u64, budget: u32) -> Self {
        let random = Arc::new(Seeded::new(seed));
        let mut chances = BTreeMap::new();
        for kind in Kind::ALL {
            if random.percent(60) {
                chances.insert(*kind, 1 + random.below(12));
            }
        }
        if random.percent(35) {
            let stubborn = random.below(Kind::STUBBORN.len() as u64);
            let stubborn = usize::try_from(stubborn).unwrap_or(0);
            chances.insert(Kind::STUBBORN[stubborn], 97);
        }
        Self::with(
            Inner {
                random: chances,
                budget,
                ..Inner::default()
            },
            random,
        )
    }

    fn with(inner: Inner, random: Arc<Seeded>) -> Self {
        Self {
            inner: Mutex::new(inner),
            random,
            mutant: None,
            store: Mutex::default(),
            paused: Notify::new(),
            resume: Notify::new(),
        }
    }

    /// The same faults over code that breaks a promise.
    pub fn over(mut self, mutant: &'static Mutant) -> Self {
        self.mutant = Some(mutant);
        self
    }

    /// The promise that is broken.
    pub(crate) const fn mutant(&self) -> Option<&'static Mutant> {
        self.mutant
    }

    /// Lets every outside call be checked against this store.
    pub(crate) fn watch(&self, store: &Store) {
        *self.store.lock().unwrap_or_else(PoisonError::into_inner) = Some(store.clone());
    }

    fn watched(&self) -> Option<Store> {
        let store = self.store.lock();
        store.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A promise that was seen broken, if one was.
    pub(crate) fn violation(&self) -> Option<String> {
        self.lock().violations.first().cloned()
    }

    /// Whether a fault of this kind struck.
    pub fn has_fired(&self, kind: Kind) -> bool {
        self.lock().fired.keys().any(|(fired, _)| *fired == kind)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Faults that really struck, by kind and `workflow/step`.
    pub fn fired(&self) -> BTreeMap<(Kind, String), u64> {
        self.lock().fired.clone()
    }

    /// Every outside call so far, with its workflow and step.
    pub fn calls(&self) -> BTreeSet<(String, String, Call)> {
        self.lock().calls.clone()
    }

    /// Why the worker that rang `paused` stands still.
    pub fn pause_reason(&self) -> Option<PauseReason> {
        self.lock().reason.clone()
    }

    /// Lets the paused worker go on.
    pub fn go_on(&self) {
        let mut inner = self.lock();
        inner.reason = None;
        inner.is_paused = false;
        self.resume.notify_one();
    }

    /// Stops the calling worker until `go_on`, unless one stands still already.
    async fn stand_still(&self, reason: PauseReason) {
        {
            let mut inner = self.lock();
            if inner.is_paused {
                return;
            }
            inner.is_paused = true;
            inner.reason = Some(reason);
        }
        self.paused.notify_one();
        self.resume.notified().await;
    }

    /// No more faults from now on.
    pub fn stop(&self) {
        let mut inner = self.lock();
        inner.strikes.clear();
        inner.random.clear();
    }

    /// Whether a fault of this kind strikes at this point.
    fn strikes(&self, kind: Kind, workflow: &str, step: &str, call: Option<&Call>) -> bool {
        let mut inner = self.lock();
        let stands_still = matches!(
            kind,
            Kind::Pause | Kind::Delete | Kind::Cancel | Kind::ServerDies
        );
        if stands_still && inner.is_paused {
            return false;
        }
        let exact = inner.strikes.iter_mut().find(|s| {
            let is_here = s.kind == kind && s.workflow == workflow && s.step == step;
            is_here && s.times > 0 && (s.call.is_none() || s.call.as_ref() == call)
        });
        let mut strikes = false;
        if let Some(strike) = exact {
            if strike.times != u32::MAX {
                strike.times -= 1;
            }
            strikes = true;
        } else if inner.budget > 0
            && inner
                .random
                .get(&kind)
                .is_some_and(|chance| self.random.percent(*chance))
        {
            inner.budget -= 1;
            strikes = true;
        }
        if strikes {
            *inner
                .fired
                .entry((kind, format!("{workflow}/{step}")))
                .or_default() += 1;
        }
        strikes
    }

    fn strikes_task(&self, kind: Kind, task: &Task) -> bool {
        self.strikes(kind, &task.workflow, &step_name(&task.step), None)
    }

    /// The number of the call that the task is about to make in this run of its step.
    fn number(&self, task: &Task) -> u32 {
        let mut inner = self.lock();
        let next = match inner.count {
            Some((id, version, n)) if id == task.id && version == task.version => n + 1,
            _ => 0,
        };
        inner.count = Some((task.id, task.version, next));
        next
    }
}

/// The name inside a stored step.
pub fn step_name(step: &str) -> String {
    let name = step.split('"').nth(3).unwrap_or(step);
    name.to_owned()
}

#[async_trait]
impl Chaos for Faults {
    async fn before_commit(&self, task: &Task) -> Verdict {
        if let Some(id) = task.instance_id {
            if self.strikes_task(Kind::Delete, task) {
                self.stand_still(PauseReason::Delete(id)).await;
            }
            if self.strikes_task(Kind::Cancel, task) {
                self.stand_still(PauseReason::Cancel(id)).await;
            }
            if self.strikes_task(Kind::ServerDies, task) {
                self.stand_still(PauseReason::ServerDies(id)).await;
            }
        }
        if self.strikes_task(Kind::StoreFails, task) {
            return Verdict::StoreFails;
        }
        crash_if(self.strikes_task(Kind::CrashBeforeCommit, task))
    }

    async fn after_commit(&self, task: &Task) -> Verdict {
        crash_if(self.strikes_task(Kind::CrashAfterCommit, task))
    }

    async fn before_call(&self, task: &Task) -> Verdict {
        let store = self.watched();
        if let Some(store) = store
            && let Err(problem) = oracle::check_call(&store, task).await
        {
            self.lock().violations.push(problem);
        }
        let at = (task.workflow.clone(), step_name(&task.step));
        let call = Call::Nth(self.number(task));
        let place = (at.0.clone(), at.1.clone(), call.clone());
        self.lock().calls.insert(place);
        if self.strikes(Kind::CrashBeforeCall, &at.0, &at.1, Some(&call)) {
            return Verdict::Crash;
        }
        if self.strikes(Kind::Pause, &at.0, &at.1, Some(&call)) {
            self.stand_still(PauseReason::Paused(task.instance_id))
                .await;
        }
        self.lock().at = at;
        Verdict::Go
    }

    fn breaks(&self, guard: Guard) -> bool {
        self.mutant.is_some_and(|mutant| mutant.breaks(guard))
    }

    fn spoil(&self, commit: &mut StepCommit) {
        if let Some(mutant) = self.mutant {
            mutant.spoil(commit);
        }
    }
}

const fn crash_if(crashes: bool) -> Verdict {
    if crashes { Verdict::Crash } else { Verdict::Go }
}

impl FaultSource for Faults {
    fn strike(&self, call: &'static str) -> Fault {
        let call = Call::Named(call);
        let (workflow, step) = {
            let mut inner = self.lock();
            let at = inner.at.clone();
            let place = (at.0.clone(), at.1.clone(), call.clone());
            inner.calls.insert(place);
            at
        };
        let kinds = [
            (Kind::CallFails, Fault::Fails),
            (Kind::LostReply, Fault::LostReply),
            (Kind::Late, Fault::Late),
            (Kind::Pending, Fault::Pending),
            (Kind::Conflict, Fault::Conflict),
            (Kind::Rejected, Fault::Rejected),
        ];
        kinds
            .into_iter()
            .find(|(kind, _)| self.strikes(*kind, &workflow, &step, Some(&call)))
            .map_or(Fault::None, |(_, fault)| fault)
    }
}
