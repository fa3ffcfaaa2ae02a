//! Every bound of the guest, in one place.

use std::time::Duration;

/// How long after the engine's start the agent computes the checksum of its own binary, some 30 ms
/// of a processor.
pub const OWN_SUM_AFTER: Duration = Duration::from_secs(3);
/// Connections to the agent at once; more wait in the kernel's queue.
pub const CONNECTIONS_MAX: usize = 64;
/// Pause before an address that cannot be listened on is tried again.
pub const BIND_RETRY: Duration = Duration::from_millis(100);
/// Time for a TLS handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// Time for a request's head.
pub const REQUEST_HEAD: Duration = Duration::from_secs(75);
/// Size of a JSON body, in bytes.
pub const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest wait of a long poll.
pub const POLL_MAX: Duration = Duration::from_secs(60);

/// Commands that run or wait at once.
pub const COMMANDS_RUNNING_MAX: usize = 32;
/// Outcomes of commands that are kept.
pub const COMMANDS_KEPT_MAX: usize = 256;
/// Tasks whose newest version is kept.
pub const TASKS_KEPT_MAX: usize = 256;
/// Longest time for a command.
pub const COMMAND_MAX: Duration = Duration::from_secs(24 * 3600);
/// Pause before a command is tried again after the engine went away.
pub const COMMAND_RETRY: Duration = Duration::from_millis(100);
/// Length of ids given by the control side, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// Streams at once.
pub const STREAMS_MAX: usize = 16;
/// Bytes of a stream that were not acknowledged; above it the source is not read.
pub const STREAM_BYTES_MAX: usize = 256 * 1024;
/// Size of one piece of a stream, in bytes.
pub const STREAM_PIECE_BYTES: usize = 16 * 1024;
/// A stream that nobody is attached to is cancelled after this.
pub const STREAM_IDLE_MAX: Duration = Duration::from_secs(120);
/// Sessions at once.
pub const SESSIONS_MAX: usize = 4;
/// Longest hold of a session.
pub const SESSION_MAX: Duration = Duration::from_secs(600);
/// Visitors at once.
pub const VISITS_MAX: usize = 8;
/// Longest visit.
pub const VISIT_MAX: Duration = Duration::from_secs(12 * 3600);
/// Time for making a visitor.
pub const ADMIT_MAX: Duration = Duration::from_secs(20);
/// Names on a page of the inventory.
pub const INVENTORY_PAGE_MAX: usize = 1000;
/// Names on a page of the inventory, together; unit: bytes. The control side reads 1 MiB.
pub const INVENTORY_PAGE_BYTES: usize = 256 * 1024;

/// Files of a spec's configuration, and their size in bytes.
pub const CONFIG_FILES_MAX: usize = 32;
/// See [`CONFIG_FILES_MAX`].
pub const CONFIG_FILE_BYTES_MAX: usize = 256 * 1024;

/// Time between probes of an engine that answers.
pub const PROBE_EVERY: Duration = Duration::from_secs(1);
/// Time between probes of an engine that starts.
pub const PROBE_STARTING_EVERY: Duration = Duration::from_millis(20);
/// Time for a probe's answer.
pub const PROBE_MAX: Duration = Duration::from_secs(3);
/// Probes without answer in a row that make an engine blocked.
pub const PROBE_MISSES_MAX: u32 = 3;
/// Restarts after a crash within [`CRASH_WINDOW`].
pub const CRASH_RESTARTS_MAX: usize = 2;
/// See [`CRASH_RESTARTS_MAX`].
pub const CRASH_WINDOW: Duration = Duration::from_secs(600);
/// With less free space than this a volume counts as full; unit: bytes.
pub const FULL_BYTES: u64 = 64 << 20;
/// How much more has to be free until an engine that ended in a full volume is tried again; unit:
/// bytes.
pub const SPACE_AGAIN_BYTES: u64 = 16 << 20;
/// Time for the clean stop of an engine that does not answer yet, at most.
pub const STOP_STARTING_MAX: Duration = Duration::from_secs(5);
/// Pause before what failed is tried again.
pub const RETRY_EVERY: Duration = Duration::from_secs(2);
/// Time for preparing an engine: identity, configuration.
pub const PREPARE_MAX: Duration = Duration::from_secs(600);
/// Time for an engine to read its configuration again: one that hangs is not looked at meanwhile.
pub const RELOAD_MAX: Duration = Duration::from_secs(30);

/// Bytes of the engine's logs that are kept.
pub const LOG_BYTES_MAX: u64 = 64 << 20;
/// Time between looks at the logs' size.
pub const LOG_TRIM_EVERY: Duration = Duration::from_secs(60);

/// Time for what an engine does about its logs at such a look.
pub const HOUSE_MAX: Duration = Duration::from_secs(10);

/// A line between agent and init, in bytes.
pub const INIT_LINE_BYTES_MAX: usize = 4 << 20;
/// Bytes waiting for an agent that does not read; above it, it is killed.
pub const INIT_QUEUE_BYTES_MAX: usize = 8 << 20;
/// Programs that run under the engine's user at once.
pub const PROGRAMS_MAX: usize = 16;
/// What is kept of a program's output, in bytes.
pub const PROGRAM_OUTPUT_BYTES: usize = 64 * 1024;
/// What is kept of the engine's own output, in bytes.
pub const ENGINE_OUTPUT_BYTES: usize = 4 * 1024;
/// First and longest pause before an agent that ended is started again.
pub const AGENT_RESTART_FIRST: Duration = Duration::from_millis(100);
/// See [`AGENT_RESTART_FIRST`].
pub const AGENT_RESTART_MAX: Duration = Duration::from_secs(5);
/// An agent that lived this long is taken to work.
pub const AGENT_WORKS_AFTER: Duration = Duration::from_secs(10);
/// Starts of a replaced agent in a row that may fail before the one before it is used again.
pub const AGENT_REPLACED_FAILURES_MAX: u32 = 3;
/// Size of another agent's binary, in bytes.
pub const AGENT_BYTES_MAX: u64 = 64 << 20;
/// Time for another agent to say that it serves, all its starts together.
pub const AGENT_READY_MAX: Duration = Duration::from_secs(20);
/// How long another agent has to live after it has said so.
pub const AGENT_TRIAL: Duration = Duration::from_secs(3);
/// Time for the agent that is replaced to give its last answer.
pub const AGENT_FAREWELL: Duration = Duration::from_millis(200);
/// Longest wait for processes that an engine left and that were killed.
pub const ENGINE_REMAINS_MAX: Duration = Duration::from_secs(5);
/// Longest time that init gives to an engine for its clean stop.
pub const STOP_MAX: Duration = Duration::from_secs(300);
/// Time for the agent to end when the sandbox stops.
pub const AGENT_STOP: Duration = Duration::from_secs(2);
/// Time for a bootstrap's agent to end after it has left its line to init.
pub const BOOTSTRAP_END: Duration = Duration::from_secs(60);
