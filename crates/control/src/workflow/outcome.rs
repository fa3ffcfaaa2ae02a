//! What a step can answer, built by functions that remember the source line that decided.

use std::panic::Location;

use coffer_store::Write;

/// What becomes of the task.
#[derive(Debug)]
pub enum Outcome<S> {
    /// Go on with this step at once.
    Next(S),
    /// Run the same step again later.
    Wait(WaitFor),
    /// Ended as intended.
    Done,
    /// Give up and undo.
    Unwind(Failure),
    /// Ended after undoing.
    Failed,
}

/// Why a step waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WaitFor {
    /// When to run again; unit: milliseconds.
    pub after_ms: u64,
    /// Stable code (`guest.starting`).
    pub reason: &'static str,
    /// The reason in words.
    pub message: String,
    /// Who can end it.
    pub unblocked_by: String,
}

/// Why a task gives up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What is wrong, where, and what to do: for the tenant.
    pub message: String,
    /// The private cause: for the operator.
    pub details: String,
}

/// An outcome, what is to be written with it, and where in the source it was decided.
#[derive(Debug)]
pub struct Stepped<S> {
    /// What becomes of the task.
    pub outcome: Outcome<S>,
    /// What is written in the same transaction.
    pub writes: Vec<Write>,
    /// Source line.
    pub source: &'static Location<'static>,
}

/// Result of a step.
pub type StepResult<S> = Result<Stepped<S>, StepError>;

/// A step that did not come to an outcome.
#[derive(Debug)]
pub enum StepError {
    /// Try the step again later.
    Retry(Failure),
    /// Trying again is useless: give up and undo.
    Fatal(Failure),
    /// The lease was lost: another worker has the task. Nothing may be committed.
    LeaseLost,
    /// The store failed; the task is left as it is and its lease ends.
    Store {
        /// The cause, for the log.
        why: String,
    },
    /// The stored step or input is not known to this binary.
    Unknown {
        /// The cause, for the log.
        why: String,
    },
    /// The simulated process died.
    Crashed,
}

impl StepError {
    /// A failure that may pass.
    pub fn retry(message: impl Into<String>, details: impl ToString) -> Self {
        Self::Retry(Failure {
            message: message.into(),
            details: details.to_string(),
        })
    }

    /// A failure that will not pass by itself.
    pub fn fatal(message: impl Into<String>, details: impl ToString) -> Self {
        Self::Fatal(Failure {
            message: message.into(),
            details: details.to_string(),
        })
    }
}

impl<S> Stepped<S> {
    #[track_caller]
    fn new(outcome: Outcome<S>, writes: Vec<Write>) -> Self {
        Self {
            outcome,
            writes,
            source: Location::caller(),
        }
    }

    /// Goes on with `step`, writing `writes`.
    #[track_caller]
    pub fn next(step: S, writes: Vec<Write>) -> Self {
        Self::new(Outcome::Next(step), writes)
    }

    /// Waits.
    #[track_caller]
    pub fn wait(wait: WaitFor) -> Self {
        Self::new(Outcome::Wait(wait), Vec::new())
    }

    /// Ends as intended.
    #[track_caller]
    pub fn done(writes: Vec<Write>) -> Self {
        Self::new(Outcome::Done, writes)
    }

    /// Gives up and undoes.
    #[track_caller]
    pub fn unwind(message: impl Into<String>, details: impl ToString) -> Self {
        let failure = Failure {
            message: message.into(),
            details: details.to_string(),
        };
        Self::new(Outcome::Unwind(failure), Vec::new())
    }

    /// Ends after undoing.
    #[track_caller]
    pub fn failed(writes: Vec<Write>) -> Self {
        Self::new(Outcome::Failed, writes)
    }

    /// The same with the step's type changed.
    pub fn map<T>(self, change: impl FnOnce(S) -> T) -> Stepped<T> {
        let outcome = match self.outcome {
            Outcome::Next(step) => Outcome::Next(change(step)),
            Outcome::Wait(wait) => Outcome::Wait(wait),
            Outcome::Done => Outcome::Done,
            Outcome::Unwind(failure) => Outcome::Unwind(failure),
            Outcome::Failed => Outcome::Failed,
        };
        Stepped {
            outcome,
            writes: self.writes,
            source: self.source,
        }
    }
}
