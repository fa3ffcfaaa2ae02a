//! What agent and init say to each other over a socket pair, one JSON object a line.
//!
//! The agent asks, init answers by id; init also tells the engine's process as soon as it
//! changes. Only the agent holds the other end: it is inherited, not named.
//!
//! Init is never upgraded and agents are: what is here may grow and never change. An init that does
//! not know a question refuses it; an agent passes over what it does not know.

use serde::{Deserialize, Serialize};

/// A program for the engine's user; see [`coffer_engines::runtime::Program`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProgramSpec {
    /// Absolute path in the root.
    pub(crate) path: String,
    /// Arguments after the program's name.
    pub(crate) args: Vec<String>,
    /// Complete environment.
    pub(crate) env: Vec<(String, String)>,
}

/// A question of the agent's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Names the answer.
    pub(crate) id: u64,
    /// What is asked.
    pub(crate) ask: Ask,
}

/// What the agent may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub(crate) enum Ask {
    /// Start the engine; refused while it runs.
    Start {
        /// The engine.
        program: ProgramSpec,
        /// Signal for a clean stop when the sandbox stops.
        stop_signal: i32,
        /// Time for it; unit: milliseconds.
        grace_ms: u64,
    },
    /// Send the engine a signal.
    Signal {
        /// Its number.
        signal: i32,
    },
    /// Run a program to its end.
    Run {
        /// The program.
        program: ProgramSpec,
        /// Its standard input.
        stdin: Vec<u8>,
    },
    /// Kill a program.
    Cancel {
        /// The id of its request.
        run: u64,
    },
    /// Put a file that only the engine may read into the TLS directory.
    Install {
        /// Its name.
        name: String,
        /// Its content.
        content: String,
    },
    /// Say that the agent serves: its trial, if it is on one, goes well.
    Ready,
    /// Run another agent, whose binary is in the inbox, instead of this one.
    Replace {
        /// Its length.
        length: u64,
        /// Its SHA-256, hex.
        sha256: String,
    },
}

/// The number of a request, whatever it asks.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct Numbered {
    /// Names the answer.
    pub(crate) id: u64,
}

/// What init tells.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "tell", rename_all = "kebab-case")]
pub(crate) enum Tell {
    /// The engine's process as it is now.
    Process {
        /// The process.
        process: Process,
    },
    /// The agent's binary.
    Agent {
        /// What init knows of it.
        image: Image,
    },
    /// A request was done.
    Done {
        /// Of the request.
        id: u64,
    },
    /// A program ended.
    Ran {
        /// Of the request.
        id: u64,
        /// Exit code; `None` when a signal ended it.
        code: Option<i32>,
        /// The last of its output.
        output: String,
    },
    /// A request was refused.
    Refused {
        /// Of the request.
        id: u64,
        /// Why.
        message: String,
    },
}

/// What init knows of the agent's binary.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Image {
    /// Whether it may still be given up for the one before.
    pub is_on_trial: bool,
    /// SHA-256 of the last one that was given up, and why.
    pub refused: Option<(String, String)>,
}

/// The engine's process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Process {
    /// Pid in the sandbox and start time in clock ticks since boot, while it runs.
    pub running: Option<(u32, u64)>,
    /// Times it was started.
    pub starts: u64,
    /// How it ended last, in words.
    pub last_end: String,
    /// The last of its output, when it ended.
    pub output: String,
}
