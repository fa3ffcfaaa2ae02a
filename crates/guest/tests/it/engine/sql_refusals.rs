//! What a tenant's root may do in MySQL and MariaDB, and what not, tried on real servers: the lines
//! of the table in `docs/security.md` that the engine itself decides. What the sandbox decides, and
//! what Coffer does about an engine that is gone, is tried end to end
//! (`tests/e2e/tests/it/sql_root.rs`). That the attempts themselves work is `sql_controls.rs`.

use coffer_core::secret::Secret;
use coffer_engines::conformance::{self, Access, Fixture, World};

use super::direct::{Direct, DirectWorld, rows};
use super::mysql_family::Known;
use super::sql_controls;

/// What root tries, by the name that the document has, and what the answer holds then.
pub(super) const ATTEMPTS: &[(&str, &str, &str)] = &[
    ("read-file", "SELECT LOAD_FILE('/etc/passwd') IS NULL;", "1"),
    (
        "read-file-into-table",
        "LOAD DATA INFILE '/etc/passwd' INTO TABLE app.lines;",
        "secure",
    ),
    ("write-file", "SELECT 1 INTO OUTFILE '/tmp/out';", "secure"),
    ("dump-file", "SELECT 1 INTO DUMPFILE '/tmp/dump';", "secure"),
    (
        "library",
        "CREATE FUNCTION f RETURNS INTEGER SONAME 'evil.so';",
        "an't open",
    ),
    (
        "library-by-path",
        "CREATE FUNCTION f RETURNS INTEGER SONAME '../../../../data/engine/evil.so';",
        "path",
    ),
    (
        "plugin",
        "INSTALL PLUGIN evil SONAME 'evil.so';",
        "an't open",
    ),
    (
        "file-directory",
        "SET GLOBAL secure_file_priv = '';",
        "read only",
    ),
    (
        "plugin-directory",
        "SET GLOBAL plugin_dir = '/tmp';",
        "read only",
    ),
    ("init-file", "SET GLOBAL init_file = '/tmp/x';", "read only"),
];

/// Attempts that work until the next start.
const UNTIL_RESTART: &[&str] = &[
    "tls-off",
    "persist-settings",
    "own-account-by-tables",
    "own-account-of-mariadb",
];

/// What root of MySQL says about Coffer's own account, which needs a privilege that it has not.
const OWN_ACCOUNT: (&str, &[&str]) = (
    "own-account-of-mysql",
    &[
        "ALTER USER `coffer-agent`@`localhost` ACCOUNT LOCK;",
        "ALTER USER `coffer-agent`@`localhost` IDENTIFIED BY 'mine';",
        "RENAME USER `coffer-agent`@`localhost` TO `mine`@`localhost`;",
        "DROP USER `coffer-agent`@`localhost`;",
    ],
);

/// The same with an account of its own, where it has to work.
const ACCOUNT_OF_ITS_OWN: &str = "\
CREATE USER `mine`@`localhost` IDENTIFIED BY 'first';
ALTER USER `mine`@`localhost` ACCOUNT LOCK;
ALTER USER `mine`@`localhost` IDENTIFIED BY 'second';
RENAME USER `mine`@`localhost` TO `still-mine`@`localhost`;
DROP USER `still-mine`@`localhost`;
";

/// How root spoils Coffer's account all the same: name of the line, and statements.
fn spoils(known: &Known) -> (&'static str, &'static str) {
    match known.engine_name() {
        "mysql" => (
            "own-account-by-tables",
            "GRANT SYSTEM_USER ON *.* TO `root`@`%`; \
             UPDATE mysql.user SET account_locked = 'Y', ssl_type = 'X509', max_questions = 1, \
             max_user_connections = 1 WHERE User = 'coffer-agent'; FLUSH PRIVILEGES;",
        ),
        _ => (
            "own-account-of-mariadb",
            "ALTER USER `coffer-agent`@`localhost` ACCOUNT LOCK;",
        ),
    }
}

/// A server whose root is enabled, and what is asked of it as root.
#[derive(Debug)]
pub(super) struct Rooted<'a> {
    pub(super) world: &'a DirectWorld,
    pub(super) known: &'a Known,
    pub(super) server: &'a Direct,
}

impl Rooted<'_> {
    fn access() -> Access {
        Access {
            user: "root".to_owned(),
            password: "pw".to_owned(),
            database: "mysql".to_owned(),
        }
    }

    /// What root is answered.
    pub(super) async fn ask(&self, sql: &str) -> Result<String, String> {
        self.known.ask(self.server, &Self::access(), sql).await
    }

    /// The same without TLS.
    async fn ask_plain(&self, sql: &str) -> Result<String, String> {
        // Over TLS first: MySQL checks no password in the clear but one that it has checked before.
        self.ask("SELECT 1;").await.expect("root is let in");
        self.known
            .ask_plain(self.server, &Self::access(), sql)
            .await
    }

    /// An answer that has to come.
    pub(super) async fn told(&self, what: &str, sql: &str) -> String {
        let answer = self.ask(sql).await;
        answer.unwrap_or_else(|why| panic!("{what}: {sql} {why}"))
    }

    /// What Coffer's agent would do when it is asked for users: a new session of its own.
    async fn is_coffer_let_in(&self) -> bool {
        let host = self.server.host();
        self.world.runtime().inventory(host).await.is_ok()
    }

    async fn restart(&self) {
        assert!(self.server.stop().await, "it does not stop cleanly");
        self.server.start().await;
        conformance::wait_answering(self.world, self.server).await;
    }
}

/// Tries everything.
pub(super) async fn all(world: &DirectWorld, known: &Known) {
    let server = &world.direct("bounds").await;
    let (runtime, host) = (world.runtime(), server.host());
    let id = "01890a5d-ac96-774b-bcce-b302099a8060";
    runtime.personalise(host, id).await.expect("personalise");
    server.start().await;
    conformance::wait_answering(world, server).await;
    let password = Secret::new("pw".to_owned());
    let enabled = runtime.enable_root(host, &password).await;
    enabled.expect("enable root");
    let rooted = Rooted {
        world,
        known,
        server,
    };
    let sql = "CREATE DATABASE app; CREATE TABLE app.lines (a TEXT);";
    rooted.told("prepare", sql).await;
    for (attempt, sql, refusal) in ATTEMPTS {
        let said = rooted.ask(sql).await.unwrap_or_else(|why| why);
        assert!(said.contains(refusal), "{attempt}: {sql} {said}");
    }
    tls_off(&rooted).await;
    if known.engine_name() == "mysql" {
        own_account_by_statement(&rooted).await;
    }
    own_account_spoilt(&rooted).await;
    let is_persisted = known.engine_name() == "mysql";
    if is_persisted {
        persist_settings(&rooted).await;
    }
    sql_controls::all(&rooted, is_persisted).await;
}

/// Clients are let in without TLS until the next start.
async fn tls_off(rooted: &Rooted<'_>) {
    let refused = async || {
        let answer = rooted.ask_plain("SELECT 1;").await;
        // MariaDB 10.11 says no more than that the access is denied.
        let is_told = |why: &&String| {
            ["insecure transport", "denied"]
                .iter()
                .any(|w| why.contains(w))
        };
        let is_refused = answer.as_ref().err().as_ref().is_some_and(is_told);
        (is_refused, answer)
    };
    let (is_refused, answer) = refused().await;
    assert!(is_refused, "tls-off: let in without TLS: {answer:?}");
    let sql = "SET GLOBAL require_secure_transport = OFF;";
    rooted.told("tls-off", sql).await;
    let answer = rooted.ask_plain("SELECT 1;").await;
    assert!(
        answer.is_ok(),
        "tls-off: the attempt does not work: {answer:?}"
    );
    rooted.restart().await;
    let (is_refused, answer) = refused().await;
    assert!(is_refused, "tls-off: it outlives a start: {answer:?}");
}

/// Nothing is said about Coffer's account that could be said about another.
async fn own_account_by_statement(rooted: &Rooted<'_>) {
    let (attempt, statements) = OWN_ACCOUNT;
    for sql in statements {
        let answer = rooted.ask(sql).await;
        let is_refused = matches!(&answer, Err(why) if why.contains("ccess denied"));
        assert!(is_refused, "{attempt}: {sql} {answer:?}");
    }
    rooted.told(attempt, ACCOUNT_OF_ITS_OWN).await;
    assert!(rooted.is_coffer_let_in().await, "{attempt}: Coffer is out");
}

/// Coffer is locked out of its own server, until the next start.
async fn own_account_spoilt(rooted: &Rooted<'_>) {
    let (attempt, sql) = spoils(rooted.known);
    assert!(rooted.is_coffer_let_in().await, "{attempt}: from the start");
    rooted.told(attempt, sql).await;
    assert!(
        !rooted.is_coffer_let_in().await,
        "{attempt}: the attempt does not work"
    );
    rooted.restart().await;
    for _ in 0..3 {
        assert!(
            rooted.is_coffer_let_in().await,
            "{attempt}: it outlives a start"
        );
    }
}

/// What is persisted is in force until the next start, which does not load it.
async fn persist_settings(rooted: &Rooted<'_>) {
    let attempt = "persist-settings";
    let persist = "SET PERSIST max_connect_errors = 77;";
    rooted.told(attempt, persist).await;
    let value = async || {
        let show = "SELECT @@GLOBAL.max_connect_errors;";
        rooted.told(attempt, show).await.trim().to_owned()
    };
    assert_eq!(value().await, "77", "{attempt}: the attempt does not work");
    rooted.restart().await;
    assert_ne!(value().await, "77", "{attempt}: it outlives a start");
}

#[test]
fn the_document_names_every_attempt() {
    let named = rows("## What a tenant's root may do");
    let attempts = ATTEMPTS.iter().map(|(name, ..)| *name);
    let others = UNTIL_RESTART.iter().copied().chain([OWN_ACCOUNT.0]);
    let missing: Vec<_> = attempts
        .chain(others)
        .filter(|name| !named.contains(name))
        .collect();
    assert!(
        missing.is_empty(),
        "docs/security.md does not name {missing:?}"
    );
}
