//! What a tenant may do with Redis and Valkey, and what not, tried on real servers: each line of
//! the table in `docs/security.md`. That the attempts themselves work is `controls.rs`.

use coffer_core::secret::Secret;
use coffer_engines::Engine;
use coffer_engines::conformance::{self, Fixture, World};
use coffer_engines::keyvalue::KeyValue;
use coffer_engines::keyvalue::resp::Value;
use coffer_engines::runtime::{EngineRuntime, NewUser};

use super::controls;
use super::direct::{DirectWorld, rows};
use super::keyvalue::Connection;

/// No permission: the engine's lists of rights say so before it looks at the arguments.
pub(super) const NO_RIGHT: &str = "NOPERM";
/// Switched off for everybody on the command line.
pub(super) const OFF: &str = "command not allowed";
/// Scripts know no such thing: older versions have none of the library, newer ones its clock only.
const NO_PROGRAMS: &str = "'os'|'execute'";

/// What root tries, and what the refusal says: by name, as the document has it.
pub(super) const ATTEMPTS: &[(&str, &[&str], &str)] = &[
    (
        "config-set-dir",
        &["CONFIG", "SET", "dir", "/tmp"],
        NO_RIGHT,
    ),
    (
        "config-set-file",
        &["CONFIG", "SET", "dbfilename", "x.so"],
        NO_RIGHT,
    ),
    (
        "config-set-log",
        &["CONFIG", "SET", "logfile", "/tmp/x"],
        NO_RIGHT,
    ),
    (
        "config-set-memory",
        &["CONFIG", "SET", "maxmemory", "0"],
        NO_RIGHT,
    ),
    ("config-rewrite", &["CONFIG", "REWRITE"], NO_RIGHT),
    ("module-load", &["MODULE", "LOAD", "/tmp/x.so"], OFF),
    ("module-loadex", &["MODULE", "LOADEX", "/tmp/x.so"], OFF),
    ("debug-crash", &["DEBUG", "SEGFAULT"], OFF),
    ("debug-sleep", &["DEBUG", "SLEEP", "60"], OFF),
    (
        "replicate-from",
        &["REPLICAOF", "192.0.2.1", "6379"],
        NO_RIGHT,
    ),
    (
        "replicate-from-old",
        &["SLAVEOF", "192.0.2.1", "6379"],
        NO_RIGHT,
    ),
    ("replicate-all", &["SYNC"], NO_RIGHT),
    ("replicate-part", &["PSYNC", "?", "-1"], NO_RIGHT),
    (
        "replica-claims",
        &["REPLCONF", "listening-port", "1"],
        NO_RIGHT,
    ),
    ("failover", &["FAILOVER"], NO_RIGHT),
    (
        "migrate",
        &["MIGRATE", "192.0.2.1", "6379", "k", "0", "1"],
        NO_RIGHT,
    ),
    (
        "cluster-meet",
        &["CLUSTER", "MEET", "192.0.2.1", "6379"],
        NO_RIGHT,
    ),
    ("shutdown", &["SHUTDOWN", "NOSAVE"], NO_RIGHT),
    ("save", &["SAVE"], NO_RIGHT),
    ("save-aside", &["BGSAVE"], NO_RIGHT),
    ("pause-clients", &["CLIENT", "PAUSE", "60000"], NO_RIGHT),
    (
        "user-of-coffer",
        &["ACL", "SETUSER", "coffer", "nopass"],
        NO_RIGHT,
    ),
    (
        "user-more-rights",
        &["ACL", "SETUSER", "default", "+@all"],
        NO_RIGHT,
    ),
    ("user-drop", &["ACL", "DELUSER", "coffer"], NO_RIGHT),
    ("user-hashes", &["ACL", "GETUSER", "coffer"], NO_RIGHT),
    ("user-list", &["ACL", "LIST"], NO_RIGHT),
    ("user-load", &["ACL", "LOAD"], NO_RIGHT),
    ("user-save", &["ACL", "SAVE"], NO_RIGHT),
    (
        "login-as-coffer",
        &["AUTH", "coffer", "coffer"],
        "WRONGPASS",
    ),
    (
        "script-runs-program",
        &["EVAL", "return os.execute('true')", "0"],
        NO_PROGRAMS,
    ),
    (
        "script-opens-file",
        &["EVAL", "return io.open('/etc/passwd')", "0"],
        "'io'",
    ),
    (
        "script-loads-library",
        &[
            "EVAL",
            "return package.loadlib('/lib/x86_64-linux-gnu/libc.so.6', '*')",
            "0",
        ],
        "'package'",
    ),
    (
        "script-loads-code",
        &["EVAL", "return require('os')", "0"],
        "'require'",
    ),
    (
        "script-reads-code",
        &["EVAL", "return dofile('/etc/passwd')", "0"],
        "'dofile'",
    ),
    (
        "script-calls-refused",
        &[
            "EVAL",
            "return redis.call('CONFIG', 'SET', 'dir', '/tmp')",
            "0",
        ],
        "not allowed from script",
    ),
    (
        "script-has-no-more-rights",
        &[
            "EVAL",
            "return redis.call('MIGRATE', '192.0.2.1', '6379', 'k', '0', '1')",
            "0",
        ],
        "permission|can't run this command",
    ),
    (
        "script-changes-globals",
        &["EVAL", "string.rep = nil", "0"],
        "readonly table",
    ),
    (
        "function-runs-program",
        &["FUNCTION", "LOAD", "#!lua name=x\nos.execute('true')"],
        NO_PROGRAMS,
    ),
    (
        "restore-damaged",
        &["RESTORE", "k", "0", "no dump"],
        "checksum",
    ),
];

/// What users may do though the engine counts it as dangerous.
const ALLOWED: &[&[&str]] = &[
    &["SET", "k", "v"],
    &["KEYS", "*"],
    &["SORT", "none"],
    &["INFO"],
    &["ROLE"],
    &["CLIENT", "LIST"],
    &["EVAL", "return redis.call('GET', 'k')", "0"],
    &["SWAPDB", "0", "1"],
    &["FLUSHDB"],
    &["FLUSHALL"],
];

/// What root may do beside that.
const ALLOWED_ROOT: &[&[&str]] = &[
    &["CONFIG", "GET", "maxmemory"],
    &["CONFIG", "RESETSTAT"],
    &["SLOWLOG", "GET"],
    &["LATENCY", "LATEST"],
    &["ACL", "USERS"],
    &["ACL", "LOG"],
    &["CLIENT", "NO-EVICT", "off"],
    &["BGREWRITEAOF"],
];

/// Tries everything as root and as a user.
pub(super) async fn all(world: &DirectWorld, kind: &KeyValue) {
    let fixture = &world.direct("refusals").await;
    let host = fixture.host();
    let id = "01890a5d-ac96-774b-bcce-b302099a8059";
    kind.personalise(host, id).await.expect("personalise");
    fixture.start().await;
    conformance::wait_answering(world, fixture).await;
    let password = || Secret::new("pw".to_owned());
    kind.enable_root(host, &password())
        .await
        .expect("enable root");
    let user = NewUser {
        name: "joe".to_owned(),
        host: None,
        password: password(),
        databases: Vec::new(),
    };
    kind.create_users(host, &[user])
        .await
        .expect("create a user");
    for name in [kind.root_user(), "joe"] {
        let mut client = Connection::login(fixture.host().layout(), name, "pw")
            .await
            .expect("log in");
        for (attempt, request, reason) in ATTEMPTS {
            let answer = client.ask(request).await.expect("an answer");
            let is_reason = |why: &String| reason.split('|').any(|one| why.contains(one));
            let is_refused = matches!(&answer, Value::Error(why) if is_reason(why));
            assert!(
                is_refused,
                "{name}, {attempt}: {answer:?} is not '{reason}'"
            );
        }
        for request in ALLOWED {
            let answer = client.ask(request).await.expect("an answer");
            let is_done = !matches!(answer, Value::Error(_));
            assert!(is_done, "{name}, {request:?}: {answer:?}");
        }
        for request in ALLOWED_ROOT {
            let answer = client.ask(request).await.expect("an answer");
            let is_done = !matches!(answer, Value::Error(_));
            assert_eq!(is_done, name != "joe", "{name}, {request:?}: {answer:?}");
        }
    }
    hidden(world, fixture).await;
    controls::all(world, fixture).await;
}

/// Neither the probe nor a password shows.
async fn hidden(world: &dyn World, fixture: &dyn Fixture) {
    world.runtime().probe(fixture.host()).await.expect("probe");
    let mut client = Connection::login(fixture.host().layout(), "joe", "pw")
        .await
        .expect("log in");
    let keys = client.ask(&["KEYS", "*"]).await.expect("an answer");
    assert_eq!(keys, Value::List(Vec::new()), "the probe shows");
    let layout = fixture.host().layout();
    for dir in [&layout.log_dir, &layout.data_dir.join("engine")] {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let text = std::fs::read(entry.path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            assert!(!text.contains(">pw"), "{:?} shows it", entry.path());
        }
    }
}

#[test]
fn the_document_names_every_attempt() {
    let mut names: Vec<_> = ATTEMPTS.iter().map(|(name, ..)| *name).collect();
    let mut named = rows("## Redis and Valkey");
    names.sort_unstable();
    named.sort_unstable();
    assert_eq!(names, named, "docs/security.md and the attempts differ");
}
