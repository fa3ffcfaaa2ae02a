//! Every limit of the control plane that is not configuration: queues, loops, retries, messages.

use std::time::Duration;

/// Idle connections to guests that are kept for the next call.
pub const IDLE_GUEST_CONNECTIONS_MAX: usize = 64;
/// Buffer of one connection to a guest; unit: bytes.
pub const GUEST_CONNECTION_BUFFER_BYTES: usize = 16 * 1024;
/// Largest answer of a guest; unit: bytes.
pub const GUEST_ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// Names in one page of a guest's inventory.
pub const INVENTORY_PAGE: u32 = 200;
/// Pages of a guest's inventory that are read in one go.
pub const INVENTORY_PAGES_MAX: usize = 500;
/// Longest call to a provider or guest inside a step; below the lease by more than a margin.
pub const CALL_MAX: Duration = Duration::from_secs(10);
/// Time after which an unmoved lease may be taken over, unless configured otherwise.
pub const LEASE: Duration = Duration::from_secs(20);
/// Pause of a worker before it asks again for tasks that the store would not give.
pub const CLAIM_RETRY: Duration = Duration::from_secs(1);
/// Difference from which the time of day was set and not corrected; unit: milliseconds.
pub const CLOCK_JUMP_MS: i64 = 10_000;
/// What a lease must have left after a call's deadline.
pub const LEASE_MARGIN: Duration = Duration::from_secs(3);
/// Tasks that one worker runs at once, unless configured otherwise.
pub const TASKS_AT_ONCE: usize = 32;
/// Longest time between two looks for work when no wake-up came.
pub const POLL_SAFETY_NET: Duration = Duration::from_secs(2);
/// Port the guest agent listens on.
pub const AGENT_PORT: u16 = 7070;
/// How long a step waits inside one status call for news of the guest.
pub const STATUS_WAIT: Duration = Duration::from_millis(1_500);
/// Longest wait of a request for the conductor's first word of an instance that has just become
/// ACTIVE.
pub const NEWS_WAIT: Duration = Duration::from_secs(1);
/// Pause between two looks for it.
pub const NEWS_PACE: Duration = Duration::from_millis(20);
/// How long a guest that is just starting is dialled closely before its step waits.
pub const START_PATIENCE: Duration = Duration::from_millis(300);
/// Pause between two of those dials.
pub const START_PACE: Duration = Duration::from_millis(10);
/// How long a step waits inside one call for the end of a command.
pub const COMMAND_WAIT: Duration = Duration::from_secs(2);
/// Longest time a guest may take for one command; unit: milliseconds.
pub const COMMAND_TIMEOUT_MS: u64 = 60_000;
/// Time an engine has for a clean stop before its server is killed; unit: milliseconds.
pub const STOP_GRACE_MS: u64 = 60_000;
/// Time between two looks at something that does not wake us; unit: milliseconds.
pub const POLL_MS: u64 = 50;
/// Rows on one page of a list, at most and by default.
pub const PAGE: u32 = 20;
/// Rows on one page of events and audit.
pub const HISTORY_PAGE: u32 = 100;
/// Projects, and users, in one answer of the identity service.
pub const IDENTITY_LIST: u32 = 1_000;
/// Databases, and users, in one request.
pub const CONTENT_ITEMS_MAX: usize = 100;
/// Address ranges in one `access`.
pub const CIDRS_MAX: usize = 64;
/// Longest token that is looked at; unit: characters.
pub const TOKEN_CHARS_MAX: usize = 128;
/// Tokens whose meaning is kept in memory.
pub const TOKENS_CACHED: usize = 10_000;
/// How long a token's meaning is kept: what was revoked elsewhere may work that long.
pub const TOKEN_CACHE_AGE: Duration = Duration::from_secs(5);
/// Time between two looks whether the session behind an open connection or visit still holds.
pub const OPEN_SESSION_LOOK: Duration = Duration::from_secs(5);
/// Time between two removals of tokens that have ended.
pub const TOKEN_CLEANUP_PERIOD: Duration = Duration::from_secs(600);
/// Time between two removals of old history.
pub const RETENTION_PERIOD: Duration = Duration::from_secs(600);
/// Rows of old history that are removed in one transaction.
pub const RETENTION_BITE: u32 = 500;
/// Such transactions in one run, for each kind of row.
pub const RETENTION_BITES: u32 = 20;
/// Time between two looks for certificates that are due.
pub const CERTIFICATE_PERIOD: Duration = Duration::from_secs(3_600);
/// Instances that are given new certificates after one look.
pub const CERTIFICATES_AT_ONCE: u32 = 100;
/// Bytes of an agent's binary that are sent in one call.
pub const AGENT_PIECE_BYTES: usize = 512 * 1024;
/// How often one task sends an agent again that was lost with the one that had it.
pub const AGENT_ROUNDS_MAX: u32 = 5;
/// Time between two looks at an agent on trial; unit: milliseconds.
pub const AGENT_POLL_MS: u64 = 250;
/// Time between two guests whose agents are replaced.
pub const AGENT_PACE: Duration = Duration::from_secs(1);
/// How often one conductor has one guest's agent replaced.
pub const AGENT_TRIES_MAX: u32 = 3;
/// Time between two of those.
pub const AGENT_RETRY: Duration = Duration::from_secs(600);
/// Guests that went back from an agent before no other is given it.
pub const AGENT_REFUSALS_MAX: usize = 3;
/// Requests that change something and are under way at the same time.
pub const WRITES_AT_ONCE: usize = 1_024;
/// Time a client has for the body of a request.
pub const BODY_MAX: Duration = Duration::from_secs(15);
/// Password hashes computed at the same time; each takes 19 MiB.
pub const PASSWORD_HASHES_AT_ONCE: usize = 1;
/// Logins of one client address that wait for a hash, or compute one.
pub const LOGINS_PER_ADDRESS: usize = 64;
/// The same of all addresses together.
pub const LOGINS_AT_ONCE: usize = 256;
/// User and address pairs whose failed logins are remembered.
pub const FAILED_LOGINS_KEPT: usize = 10_000;
/// Failed logins before the next ones have to wait.
pub const FAILED_LOGINS_FREE: u32 = 3;
/// Longest wait after failed logins.
pub const FAILED_LOGIN_DELAY_MAX: Duration = Duration::from_secs(60);
/// How long failed logins are remembered.
pub const FAILED_LOGIN_MEMORY: Duration = Duration::from_secs(900);
/// Shortest password of an API user; unit: bytes.
pub const API_PASSWORD_BYTES_MIN: usize = 8;
/// Projects whose request rate is measured at the same time.
pub const RATE_BUCKETS: usize = 10_000;
/// Tasks that `explain` follows from the blocked one to the root cause.
pub const EXPLAIN_DEPTH: usize = 8;
/// Steps of a task's history that `explain` shows.
pub const EXPLAIN_STEPS: u32 = 20;
/// How long the API waits for the end of commands before it answers that they were accepted.
pub const COMMANDS_ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long it waits for commands of which it must know the end: a password given out has to hold.
pub const COMMANDS_END_WAIT: Duration = Duration::from_secs(30);
/// How often a process that plays a role renews it.
pub const ROLE_RENEWAL: Duration = Duration::from_secs(5);
/// Least time between two looks of the conductor at the list of links.
pub const CONDUCTOR_PACE: Duration = Duration::from_millis(20);
/// How long a guest may hold the conductor's question when nothing changes, by default.
pub const LONG_POLL: Duration = Duration::from_secs(10);
/// Silence after which a guest counts as lost, whatever the provider says, by default.
pub const LOST_AFTER: Duration = Duration::from_secs(90);
/// Silence up to which the conductor asks at the short pace: an agent that was restarted.
pub const SILENCE_SHORT: Duration = Duration::from_secs(12);
/// Pause before the conductor asks a silent guest again, at first.
pub const SILENT_PACE_SHORT: Duration = Duration::from_millis(20);
/// Pause before the conductor asks a silent guest again, later.
pub const SILENT_PACE: Duration = Duration::from_millis(500);
/// Longest time for reading a guest's whole inventory, all pages together.
pub const INVENTORY_READ_MAX: Duration = Duration::from_secs(30);
/// Least time between two looks of the conductor at one guest's inventory.
pub const INVENTORY_PACE: Duration = Duration::from_secs(1);
/// How many times longer than it takes to read and write an inventory it is left alone then.
pub const INVENTORY_REST: u32 = 10;
/// Pause before reports that could not be written are written again.
pub const INGEST_RETRY: Duration = Duration::from_secs(1);
/// Reports of guests that wait to be written.
pub const INGEST_QUEUE: usize = 4_096;
/// Time from one transaction with reports of guests to the next.
pub const INGEST_PACE: Duration = Duration::from_millis(10);
/// Reports of guests written in one transaction.
pub const INGEST_BATCH: usize = 512;
/// Time between two runs of the reconciler.
pub const RECONCILE_PERIOD: Duration = Duration::from_secs(15);
/// Rows on one page of the management list, at most.
pub const MANAGEMENT_PAGE: u32 = 1_000;
/// How long a stuck task rests before a worker looks at it again; unit: milliseconds.
pub const STUCK_REST_MS: i64 = 60_000;
/// Interactive connections and visits at the same time, in one tracker and in one API each.
pub const RELAYS_MAX: usize = 256;
/// The same to the instances of one project.
pub const RELAYS_PER_PROJECT: usize = 128;
/// The same to one instance.
pub const RELAYS_PER_INSTANCE: usize = 64;
/// Longest time in which nothing goes through an interactive connection.
pub const RELAY_IDLE_MAX: Duration = Duration::from_secs(2 * 3600);
/// How often it is looked whether anything did.
pub const RELAY_IDLE_LOOK: Duration = Duration::from_secs(60);
/// Streams from APIs that a tracker has accepted and that have not said what they want.
pub const RELAY_HANDSHAKES_MAX: usize = 64;
/// Time for that, and for its TLS.
pub const RELAY_HEAD_WAIT: Duration = Duration::from_secs(10);
/// Trackers that an API asks, one after the other, until one can be reached.
pub const TRACKERS_TRIED: u32 = 4;
/// How long a tracker may take to be reached by an API.
pub const TRACKER_DIAL_WAIT: Duration = Duration::from_secs(3);
/// Trackers whose reach is looked at for one answer, at the same time.
pub const TRACKERS_SHOWN: usize = 64;
/// How often a tracker gives a sign of life.
pub const TRACKER_BEAT: Duration = Duration::from_secs(5);
/// Signs of life of its tracker that a grant outlives.
pub const GRANT_BEATS: u64 = 4;
/// Longest interactive connection, or visit.
pub const RELAY_MAX: Duration = Duration::from_secs(12 * 3600);
/// Bytes that a relay reads at once.
pub const RELAY_PIECE_BYTES: usize = 16 * 1024;
/// Bytes that a relay passes on before it tells the guest to forget them.
pub const RELAY_ACK_BYTES: u64 = 64 * 1024;
/// How long a guest may take to open a stream to its engine.
pub const RELAY_OPEN_WAIT: Duration = Duration::from_secs(10);
/// How long a guest may take to end a stream that its relay has left.
pub const RELAY_CANCEL_WAIT: Duration = Duration::from_secs(2);
/// How long a guest may take to make a visitor.
pub const VISIT_WAIT: Duration = Duration::from_secs(25);
/// How long a tracker may take to answer an API; longer than its guest.
pub const RELAY_REPLY_WAIT: Duration = Duration::from_secs(28);
/// Time between signs of life in the answer to a visit; a client that is gone is noticed by them.
pub const VISIT_BEAT: Duration = Duration::from_secs(5);
