//! Promises of runtime, store and workflows that are broken on purpose, one at a time. A harness
//! that does not notice would not notice the same mistake in a change either.
//!
//! A promise is broken where it is kept: in the text of a statement, in what a step's commit holds,
//! or at a point of the runtime. Simulation alone can do so.

use coffer_control::services::Guard;
use coffer_store::task::StepCommit;
use coffer_store::{Rewrite, Write};

/// How a promise is broken.
#[derive(Debug, Clone, Copy)]
enum How {
    /// The runtime does not look.
    Runtime(Guard),
    /// A statement lacks a condition: this text becomes that.
    Statement(&'static str, &'static str),
    /// A step's commit lacks what is written.
    Unwritten(fn(&Write) -> bool),
    /// Undoing begins at this step.
    UndoFrom(&'static str),
    /// Every try of a command has an id of its own.
    CommandIds,
}

/// A promise that is broken.
#[derive(Debug)]
pub struct Mutant {
    /// Its name.
    pub name: &'static str,
    how: How,
}

const fn runtime(name: &'static str, guard: Guard) -> Mutant {
    let how = How::Runtime(guard);
    Mutant { name, how }
}

const fn statement(name: &'static str, from: &'static str, to: &'static str) -> Mutant {
    let how = How::Statement(from, to);
    Mutant { name, how }
}

const fn unwritten(name: &'static str, which: fn(&Write) -> bool) -> Mutant {
    let how = How::Unwritten(which);
    Mutant { name, how }
}

const fn undo_from(name: &'static str, step: &'static str) -> Mutant {
    let how = How::UndoFrom(step);
    Mutant { name, how }
}

/// Every promise that is broken in turn.
pub static MUTANTS: &[Mutant] = &[
    runtime("lease before a call", Guard::LeaseBeforeCall),
    runtime("lease unmoved before a takeover", Guard::LeaseUnmoved),
    runtime("locks before the first step", Guard::Locks),
    runtime("delete before the next step", Guard::DeleteFirst),
    runtime("undo of what was done", Guard::Undo),
    runtime("deadline of a step", Guard::Deadline),
    runtime("undo and delete for ever", Guard::NeverGivenUp),
    statement(
        "commit compares version and owner",
        "updated_at = $17\n    WHERE id = $1 AND version = $2 AND owner = $3 AND state = 'running'",
        "updated_at = $17 WHERE id = $1",
    ),
    statement(
        "renewal compares version and owner",
        "SET lease = lease + 1\n            WHERE id = $1 AND version = $2 AND owner = $3 \
         AND state = 'running'",
        "SET lease = lease + 1 WHERE id = $1",
    ),
    statement(
        "claim of what is due",
        "state = 'ready' AND run_at <= $2",
        "state = 'ready'",
    ),
    statement(
        "claim of what nobody runs",
        "WHERE state = 'ready' AND run_at <= $2",
        "WHERE state IN ('ready', 'running') AND run_at <= $2",
    ),
    statement(
        "a deletion keeps its state",
        "AND (lifecycle <> 'deleting' OR delete_task_id = $7)",
        "",
    ),
    statement(
        "exclusive locks exclude",
        "AND (l.mode = 'exclusive' OR $4 = 'exclusive')",
        "AND l.mode = 'none'",
    ),
    statement(
        "locks are let go",
        "DELETE FROM locks WHERE task_id = $1",
        "SELECT $1",
    ),
    statement(
        "letting go wakes who waits",
        "UPDATE tasks SET run_at = $2 WHERE state = 'ready' AND run_at > $2 AND id IN",
        "UPDATE tasks SET run_at = $2 WHERE state = 'none' AND run_at > $2 AND id IN",
    ),
    statement(
        "a delete tells other tasks",
        "WHERE id = $1 AND state NOT IN ('done', 'failed', 'cancelled')\n        ON CONFLICT",
        "WHERE id = $1 AND state = 'none'\n        ON CONFLICT",
    ),
    statement(
        "a signal ends a wait",
        "AND (state = 'stuck' OR (state = 'ready' AND run_at > $2))",
        "AND state = 'none'",
    ),
    statement(
        "a later task has a later turn",
        "SET turn = turn + 1",
        "SET turn = turn",
    ),
    unwritten("passwords are erased", |w| {
        matches!(w, Write::EraseSecret(_))
    }),
    unwritten("quota is given back", |w| {
        matches!(w, Write::ReleaseQuota { .. })
    }),
    unwritten("a deletion ends", |w| {
        matches!(w, Write::FinishDelete { .. })
    }),
    unwritten("endpoints are forgotten", |w| {
        matches!(w, Write::DeleteEndpoint(_))
    }),
    unwritten("servers are forgotten", |w| {
        matches!(w, Write::DeleteServer(_))
    }),
    unwritten("volumes are forgotten", |w| {
        matches!(w, Write::DeleteVolume(_))
    }),
    unwritten("servers are noted", |w| matches!(w, Write::PutServer(_))),
    unwritten("volumes are noted", |w| matches!(w, Write::PutVolume(_))),
    unwritten(
        "keys are pinned",
        |w| matches!(w, Write::PutLink(link) if link.key_fingerprint.is_some()),
    ),
    unwritten("published addresses are noted", |w| {
        matches!(w, Write::PutEndpoint(_))
    }),
    unwritten("contents are noted", |w| {
        matches!(w, Write::PutInventory { .. })
    }),
    unwritten("the end is noted", |w| {
        matches!(w, Write::SetLifecycle { .. })
    }),
    undo_from("undo begins with the endpoint", "undo_server"),
    undo_from("servers are undone before volumes", "undo_volume"),
    Mutant {
        name: "a command keeps its id",
        how: How::CommandIds,
    },
];

impl Mutant {
    /// Whether the runtime breaks this promise.
    pub(crate) fn breaks(&self, guard: Guard) -> bool {
        matches!(self.how, How::Runtime(broken) if broken == guard)
    }

    /// Whether it weakens statements.
    pub(crate) const fn weakens(&self) -> bool {
        matches!(self.how, How::Statement(..))
    }

    /// How statements are weakened.
    pub(crate) fn rewrites(&self) -> Vec<Rewrite> {
        match self.how {
            How::Statement(from, to) => vec![Rewrite::new(from, to)],
            _ => Vec::new(),
        }
    }

    /// Spoils a commit.
    pub(crate) fn spoil(&self, commit: &mut StepCommit) {
        match self.how {
            How::Unwritten(which) => commit.writes.retain(|write| !which(write)),
            How::UndoFrom(step) if commit.update.step.contains("\"undo_endpoint\"") => {
                commit.update.step = format!("{{\"step\":\"{step}\"}}");
            }
            _ => {}
        }
    }

    /// Whether commands get a new id at every try.
    pub(crate) const fn renames_commands(&self) -> bool {
        matches!(self.how, How::CommandIds)
    }
}
