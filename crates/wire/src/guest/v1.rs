//! Guest agent protocol, version 1: spec down, status up, commands by id, sessions, streams.
//!
//! HTTP/1.1 with JSON bodies over TLS on both sides; the guest listens, the control side dials.
//!
//! | route | meaning |
//! | --- | --- |
//! | `GET /v1/enrol` | [`Enrolment`]: the guest's certificate requests, made with keys it keeps |
//! | `PUT /v1/enrol` | [`Enrolled`]: the signed certificates; then only pinned peers |
//! | `PUT /v1/spec` | [`Spec`]: what should be; answers [`SpecAccepted`], 409 if older than known |
//! | `GET /v1/status?after=N&wait_ms=M` | [`Status`] once its sequence exceeds N, or at M ms |
//! | `POST /v1/commands` | [`Command`]: starts it once per id; answers [`CommandState`] |
//! | `GET /v1/commands/{id}?wait_ms=M` | [`CommandState`]; 404 if unknown |
//! | `DELETE /v1/commands/{id}` | forget an ended command, stop a running one |
//! | `GET /v1/inventory?after=NAME&limit=N` | [`InventoryPage`] |
//! | `POST /v1/sessions` | [`SessionRequest`]: lines of [`SessionEvent`] until the link dies |
//! | `POST /v1/streams` | [`StreamRequest`]: opens a stream, answers [`StreamState`] |
//! | `GET /v1/streams/{id}?offset=N` | bytes from the offset; back-pressure is TCP's |
//! | `PUT /v1/streams/{id}?offset=N` | bytes towards the guest; answers [`StreamState`] |
//! | `POST /v1/streams/{id}/ack?offset=N` | bytes below the offset may be forgotten |
//! | `DELETE /v1/streams/{id}` | cancel |
//! | `PUT /v1/agent/{sha256}?offset=N&length=L` | bytes of another agent; answers [`AgentUpload`] |
//! | `POST /v1/agent/{sha256}` | init is to run that agent instead; answers [`AgentUpload`] |
//!
//! Every refusal is a [`Refusal`] body. Passwords travel inside commands only.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// Version of this protocol; both sides speak it and its predecessor.
pub const PROTOCOL: u32 = 1;

/// What the guest finds at boot; holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boot {
    /// Version of the protocol that the writer speaks.
    pub protocol: u32,
    /// Our id of the server.
    pub server_id: String,
    /// Our id of the instance, if it runs one.
    pub instance_id: Option<String>,
    /// Certificate of the CA whose clients may talk to the agent, PEM.
    pub link_ca_pem: String,
    /// Addresses the agent listens on.
    pub bind: Vec<SocketAddr>,
    /// Engine to run (`postgresql`).
    pub engine: String,
    /// Its version (`17`).
    pub engine_version: String,
    /// User id of the agent, set by the provider.
    pub agent_uid: u32,
    /// User id of the engine, set by the provider.
    pub engine_uid: u32,
    /// Where the data volume is mounted.
    pub data_dir: String,
    /// Memory the engine may use; unit: MiB.
    pub memory_mib: u32,
    /// CPUs.
    pub vcpus: u32,
}

/// Certificate requests of a guest; the keys never leave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Server id from the boot data.
    pub server_id: String,
    /// Request for the link certificate, PEM.
    pub link_csr_pem: String,
    /// Request for the engine's certificate, PEM.
    pub engine_csr_pem: String,
    /// Version of the agent.
    pub agent_version: String,
    /// Whether certificates were installed before.
    pub is_enrolled: bool,
}

/// Signed certificates for a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolled {
    /// Link certificate, PEM.
    pub link_cert_pem: String,
}

/// Primary or replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Accepts writes.
    Primary,
    /// Follows a primary.
    Replica,
}

/// Whether the engine should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineState {
    /// It should run.
    Running,
    /// It should be stopped, cleanly.
    Stopped,
}

/// A file that the engine reads, rendered by the control side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// Name inside the engine's configuration directory; no `/`.
    pub name: String,
    /// Its content.
    pub content: String,
}

/// The engine's TLS material; its key was made in the guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineTls {
    /// Certificate for the engine's key, PEM, leaf first.
    pub cert_pem: String,
    /// Certificate of the project's CA, PEM.
    pub ca_pem: String,
}

/// Reason of a guest that refuses a spec because it knows another under the same generation and
/// version: whoever waits for a version to be applied may believe that its own content is.
pub const OTHER_CONTENT: &str = "other-content";

/// What should be. A guest refuses a spec whose (generation, version) is older than the one it
/// holds, and persists the newest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Fencing number of the set.
    pub generation: u64,
    /// Grows with every change of the spec within a generation.
    pub version: u64,
    /// Role in the set.
    pub role: Role,
    /// Whether the engine should run.
    pub engine_state: EngineState,
    /// Unique identity of this copy of the template (UUID text); applied once per value.
    pub identity: String,
    /// The engine's configuration.
    pub config: Vec<ConfigFile>,
    /// The engine's certificate.
    pub tls: Option<EngineTls>,
}

/// Answer to a spec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpecAccepted {
    /// Generation held now.
    pub generation: u64,
    /// Version held now.
    pub version: u64,
}

/// What the guest finds of its engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EngineHealth {
    /// No spec was given yet.
    Waiting,
    /// It is being prepared or started.
    Starting,
    /// The last probe (a real commit on a primary) was answered.
    Healthy,
    /// It runs and does not answer its probe.
    Blocked,
    /// It was stopped because the spec says so.
    Stopped,
    /// It exited by itself and was not (yet) restarted.
    Crashed,
}

/// An agent that was tried and given up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedAgent {
    /// SHA-256 of its binary, hex.
    pub sha256: String,
    /// What was wrong with it, in words.
    pub message: String,
}

/// Which binary the agent is. An agent that cannot be replaced does not say it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AgentImage {
    /// SHA-256 of the binary that runs, hex; told once the engine had its turn.
    #[serde(default)]
    pub sha256: Option<String>,
    /// Whether init still watches if it works, and would go back to the one before.
    #[serde(default)]
    pub is_on_trial: bool,
    /// The last one that init went back from.
    #[serde(default)]
    pub refused: Option<RefusedAgent>,
}

/// How much of another agent's binary is there. It is kept by the running agent alone: with it an
/// upload is gone, and begins anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentUpload {
    /// SHA-256 of the whole, hex.
    pub sha256: String,
    /// Length of the whole.
    pub length: u64,
    /// Offset after the last byte that was received.
    pub received: u64,
}

/// Reason of a guest that did not receive what comes before an offset.
pub const WRONG_OFFSET: &str = "wrong-offset";

/// Reason of a guest that holds less of an agent than is asked for: send the rest.
pub const AGENT_INCOMPLETE: &str = "incomplete";

/// What is. The sequence grows whenever anything else in it changes in a way worth telling.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Changes whenever the agent starts.
    pub agent_start: u64,
    /// Sequence number; the long poll's `after`.
    pub sequence: u64,
    /// Generation held.
    pub generation: u64,
    /// Spec version held.
    pub spec_version: u64,
    /// Spec version fully applied.
    pub applied_version: u64,
    /// Role played.
    pub role: Role,
    /// Health of the engine.
    pub health: EngineHealth,
    /// What is wrong, in words, when something is.
    pub message: String,
    /// Times the engine was started by this init.
    pub engine_starts: u64,
    /// Start time of the engine process, clock ticks since boot, and its pid in the sandbox.
    pub engine_process: Option<(u32, u64)>,
    /// Replication position, in the engine's own notation.
    pub position: Option<String>,
    /// Bytes used on the data volume.
    pub volume_used_bytes: u64,
    /// Size of the data volume's file system.
    pub volume_total_bytes: u64,
    /// Change counter of databases, users and grants.
    pub inventory_counter: u64,
    /// Version of the agent.
    pub agent_version: String,
    /// Version the engine says it has.
    pub engine_version: Option<String>,
    /// Binary of the agent.
    #[serde(default)]
    pub agent: AgentImage,
}

/// Who gave a command, so that a worker that wakes from a pause can harm nothing: a guest refuses
/// a pair (generation, task version) older than one it has seen for the same task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fencing {
    /// Task.
    pub task_id: String,
    /// Its version.
    pub task_version: u64,
    /// Generation of the set.
    pub generation: u64,
}

/// A database to create.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseSpec {
    /// Its name.
    pub name: String,
    /// Character set, as the engine names it.
    pub character_set: Option<String>,
    /// Collation, as the engine names it.
    pub collate: Option<String>,
}

/// A user to create.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    /// Its name.
    pub name: String,
    /// Host part, for engines that have one.
    pub host: Option<String>,
    /// Its password.
    pub password: String,
    /// Databases it is granted.
    pub databases: Vec<String>,
}

impl std::fmt::Debug for UserSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserSpec")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A change of a user; what is `None` stays.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserChange {
    /// The user.
    pub name: String,
    /// Its host part.
    pub host: Option<String>,
    /// New name.
    pub new_name: Option<String>,
    /// New host part.
    pub new_host: Option<String>,
    /// New password.
    pub new_password: Option<String>,
}

impl std::fmt::Debug for UserChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserChange")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// What a guest can be told to do once. All are idempotent: repeated after a lost answer, they
/// end as the first time.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "kebab-case")]
pub enum Operation {
    /// Create databases that are not there.
    CreateDatabases {
        /// The databases.
        databases: Vec<DatabaseSpec>,
    },
    /// Drop a database if it is there.
    DropDatabase {
        /// Its name.
        name: String,
    },
    /// Create users, or set the password and grants of those that are there.
    CreateUsers {
        /// The users.
        users: Vec<UserSpec>,
    },
    /// Change users.
    ChangeUsers {
        /// The changes.
        changes: Vec<UserChange>,
    },
    /// Drop a user if it is there.
    DropUser {
        /// Its name.
        name: String,
        /// Its host part.
        host: Option<String>,
    },
    /// Grant a user databases beside those it has.
    Grant {
        /// The user.
        name: String,
        /// Its host part.
        host: Option<String>,
        /// The databases.
        databases: Vec<String>,
    },
    /// Take a database from a user.
    Revoke {
        /// The user.
        name: String,
        /// Its host part.
        host: Option<String>,
        /// The database.
        database: String,
    },
    /// Let the superuser log in with this password.
    EnableRoot {
        /// Its password.
        password: String,
    },
    /// Let the superuser log in no more.
    DisableRoot,
    /// Restart the engine.
    Restart,
}

impl std::fmt::Debug for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Operation {
    /// Its name, for logs: the content may hold passwords.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::CreateDatabases { .. } => "create-databases",
            Self::DropDatabase { .. } => "drop-database",
            Self::CreateUsers { .. } => "create-users",
            Self::ChangeUsers { .. } => "change-users",
            Self::DropUser { .. } => "drop-user",
            Self::Grant { .. } => "grant",
            Self::Revoke { .. } => "revoke",
            Self::EnableRoot { .. } => "enable-root",
            Self::DisableRoot => "disable-root",
            Self::Restart => "restart",
        }
    }
}

/// A command, applied once per id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// Its id (UUID text).
    pub id: String,
    /// Who gives it.
    pub fencing: Fencing,
    /// How long it may take; unit: milliseconds.
    pub timeout_ms: u64,
    /// What to do.
    #[serde(flatten)]
    pub operation: Operation,
}

/// Where a command stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum CommandState {
    /// It runs.
    Running,
    /// It ended as intended.
    Done,
    /// It ended otherwise.
    Failed {
        /// Stable code (`database-missing`, `name-taken`, `engine-down`, `timeout`, …).
        reason: String,
        /// What is wrong and what to do, in words; holds no secret.
        message: String,
    },
}

/// A database as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its name.
    pub name: String,
    /// Its character set.
    pub character_set: Option<String>,
    /// Its collation.
    pub collate: Option<String>,
}

/// A user as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    /// Its name.
    pub name: String,
    /// Its host part; `%` where the engine has none.
    pub host: String,
    /// Databases it was granted.
    pub databases: Vec<String>,
}

/// One page of what an engine holds, names in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryPage {
    /// Counter the page belongs to; a page of another counter must not be mixed with it.
    pub counter: u64,
    /// Databases.
    pub databases: Vec<Database>,
    /// Users.
    pub users: Vec<User>,
    /// Whether the superuser may log in.
    pub is_root_enabled: bool,
    /// `after` of the next page, if there is one.
    pub next: Option<String>,
}

/// What a session holds while its connection lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "session", rename_all = "kebab-case")]
pub enum SessionRequest {
    /// Writes are held back, data files are consistent on disk.
    Quiesce {
        /// Longest hold; unit: milliseconds.
        hold_ms_max: u64,
        /// Who asks.
        fencing: Fencing,
    },
    /// A user exists; it and its connections end with the session.
    Visit {
        /// The user; its name begins with [`VISITOR_PREFIX`].
        user: UserSpec,
        /// Longest visit; unit: milliseconds.
        hold_ms_max: u64,
    },
}

/// Start of the names of users that exist for the length of a session.
pub const VISITOR_PREFIX: &str = "coffer_visitor_";

/// A line of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum SessionEvent {
    /// It is held.
    Held {
        /// Facts to keep (positions).
        facts: BTreeMap<String, String>,
    },
    /// It could not be held or was given up.
    Ended {
        /// Why.
        message: String,
    },
}

/// A stream to open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "stream", rename_all = "kebab-case")]
pub enum StreamRequest {
    /// The engine's log, from the guest.
    Log {
        /// Name of the log.
        name: String,
    },
    /// Interactive bytes to and from the engine's local port.
    Connect,
}

/// Where a stream stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamState {
    /// Its id.
    pub id: String,
    /// First offset that is still kept.
    pub oldest: u64,
    /// Offset after the last byte.
    pub end: u64,
    /// Whether more may come.
    pub is_open: bool,
    /// Offset after the last byte that the guest received on this stream.
    #[serde(default)]
    pub received: u64,
}

/// Why the guest refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable code (`older-generation`, `not-enrolled`, `unknown`, `bad-request`, `busy`).
    pub reason: String,
    /// In words.
    pub message: String,
}
