//! The suite that every engine's working half passes, with the real engine.
//!
//! A [`World`] makes templates and clones of one engine version and runs their processes; the
//! cases here say what has to hold. A case panics with what did not.

mod hosts;
mod names;
mod running;

use std::fmt::Debug;
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use coffer_core::secret::Secret;

use crate::engine::{Engine, Operation, Support};
use crate::error::EngineError;
use crate::runtime::{EngineHost, EngineRuntime, NewUser, UserChange};

/// How a client logs in.
#[derive(Debug, Clone)]
pub struct Access {
    /// User.
    pub user: String,
    /// Password.
    pub password: String,
    /// Database.
    pub database: String,
}

/// One engine on one data directory.
#[async_trait]
pub trait Fixture: Send + Sync + Debug {
    /// What the runtime is given.
    fn host(&self) -> &dyn EngineHost;
    /// Starts the engine's process; does not wait for it to answer.
    async fn start(&self);
    /// Stops it by the runtime's stop plan; returns whether it exited cleanly within its grace.
    async fn stop(&self) -> bool;
    /// Kills its process.
    async fn kill(&self);
    /// What tells this clone from every other, from its files or the engine's own mouth.
    async fn fingerprint(&self) -> String;
    /// What the server itself says that tells it from every other and follows from its UUID;
    /// `None` for one that numbers each of its runs anew.
    async fn served_identity(&self, root: &Access) -> Option<String>;
    /// Whether the client is let in.
    async fn login(&self, access: &Access) -> Result<(), String>;
    /// Makes something that belongs to the user (a table).
    async fn make(&self, access: &Access, name: &str) -> Result<(), String>;
    /// Writes records one commit each until `count` are acknowledged or the engine is gone;
    /// returns how many were acknowledged.
    async fn write(&self, access: &Access, name: &str, count: u64) -> u64;
    /// Counts the records of a table.
    async fn count(&self, access: &Access, name: &str) -> Result<u64, String>;
    /// A number in what the engine keeps on disk that each commit of the probe raises; root, who
    /// is enabled, may look for it.
    async fn beats(&self, root: &Access) -> Result<u64, String>;
    /// Whether the client is let in when it comes from this address, for engines whose users have
    /// hosts.
    async fn login_from(&self, access: &Access, from: IpAddr) -> Result<(), String>;
    /// Whether everything that was rendered, and what is promised beside it, is in force.
    async fn keeps_promises(&self, root: &Access) -> Result<(), String>;
    /// Words in the log of an engine that answers; `None` for one that writes none.
    fn ready_words(&self) -> Option<&'static str>;
    /// The certificate that clients are shown, as PEM; `None` for an engine without TLS.
    async fn served_certificate(&self) -> Option<String>;
    /// Puts another key and certificate in the place of the engine's; the certificate as PEM.
    async fn renew_certificate(&self) -> String;
    /// Whether writes wait while the data files are held.
    fn stalls_when_held(&self) -> bool;
}

/// Makes data directories of one engine version.
#[async_trait]
pub trait World: Send + Sync + Debug {
    /// The pure half.
    fn engine(&self) -> &'static dyn Engine;
    /// The working half.
    fn runtime(&self) -> &'static dyn EngineRuntime;
    /// A clone of the template, which is made by `bootstrap` at the first call; configuration and
    /// TLS material are in place, the engine is stopped.
    async fn clone_template(&self, name: &str) -> Box<dyn Fixture>;
}

const IDENTITIES: [&str; 2] = [
    "01890a5d-ac96-774b-bcce-b302099a8057",
    "01890a5d-ac96-774b-bcce-b302099a8058",
];

/// LIMIT: how long an engine may take to answer after its start.
const START_SECONDS_MAX: u64 = 60;

/// Runs every case.
pub async fn all(world: &dyn World) {
    eprintln!("case: clones are unlike each other");
    clones_differ(world).await;
    let fixture = world.clone_template("cases").await;
    let fixture = fixture.as_ref();
    personalise(world, fixture, IDENTITIES[0]).await;
    fixture.start().await;
    wait_answering(world, fixture).await;
    eprintln!("case: the probe commits");
    probe_commits(world, fixture).await;
    eprintln!("case: the probe tells of changes");
    probe_tells(world, fixture).await;
    eprintln!("case: hostile names");
    names::hostile(world, fixture).await;
    eprintln!("case: users and grants");
    users_and_grants(world, fixture).await;
    eprintln!("case: users of one name at several hosts");
    hosts::all(world, fixture).await;
    eprintln!("case: what a dropped user made stays");
    dropped_user(world, fixture).await;
    eprintln!("case: visitors come and go");
    visitors(world, fixture).await;
    eprintln!("case: root on and off");
    root(world, fixture).await;
    eprintln!("case: reserved names are refused");
    reserved(world, fixture).await;
    eprintln!("case: what runs is what was promised");
    running::promises(world, fixture).await;
    eprintln!("case: the log is found, and tells no password");
    running::log(world, fixture).await;
    eprintln!("case: a renewed certificate is served without a restart");
    running::certificate(world, fixture).await;
    eprintln!("case: data files are held");
    running::hold(world, fixture).await;
    eprintln!("case: clean stop");
    assert!(
        fixture.stop().await,
        "the clean stop took too long or failed"
    );
    fixture.start().await;
    wait_answering(world, fixture).await;
    eprintln!("case: kill under writes");
    kill_under_writes(world, fixture).await;
    assert!(
        fixture.stop().await,
        "the clean stop after a kill took too long or failed"
    );
}

/// Whether users have databases by name; an engine without them refuses each call on one.
fn has_databases(world: &dyn World) -> bool {
    world.engine().support(Operation::Schema) == Support::Yes
}

/// The databases that a user is granted, where there are any.
fn granted<'a>(world: &dyn World, databases: &'a [&'a str]) -> &'a [&'a str] {
    if has_databases(world) { databases } else { &[] }
}

async fn personalise(world: &dyn World, fixture: &dyn Fixture, identity: &str) {
    world
        .runtime()
        .personalise(fixture.host(), identity)
        .await
        .expect("personalise");
}

/// Waits until the probe is answered.
pub async fn wait_answering(world: &dyn World, fixture: &dyn Fixture) {
    let mut last = String::new();
    let wait = async {
        loop {
            match world.runtime().probe(fixture.host()).await {
                Ok(_) => return,
                Err(error) => last = error.to_string(),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(START_SECONDS_MAX), wait).await;
    assert!(waited.is_ok(), "the engine did not answer: {last}");
}

async fn clones_differ(world: &dyn World) {
    let (one, two) = (
        world.clone_template("one").await,
        world.clone_template("two").await,
    );
    let before = one.fingerprint().await;
    personalise(world, one.as_ref(), IDENTITIES[0]).await;
    personalise(world, two.as_ref(), IDENTITIES[1]).await;
    let (first, second) = (one.fingerprint().await, two.fingerprint().await);
    assert_ne!(
        first, before,
        "a personalised clone still looks like its template"
    );
    assert_ne!(first, second, "two clones share an identity");
    personalise(world, one.as_ref(), IDENTITIES[0]).await;
    assert_eq!(
        one.fingerprint().await,
        first,
        "the same identity again changed something"
    );
    one.start().await;
    wait_answering(world, one.as_ref()).await;
    assert_eq!(
        one.fingerprint().await,
        first,
        "the engine changed its identity"
    );
    two.start().await;
    wait_answering(world, two.as_ref()).await;
    let served = served_identity(world, one.as_ref()).await;
    let other = served_identity(world, two.as_ref()).await;
    assert!(
        served.is_none() || served != other,
        "two servers say the same of themselves: {served:?}"
    );
    assert!(two.stop().await, "the other clone does not stop cleanly");
    // A clone of a running engine has to recover before it is given another identity.
    one.kill().await;
    personalise(world, one.as_ref(), IDENTITIES[1]).await;
    assert_eq!(
        one.fingerprint().await,
        second,
        "the identity does not follow from its UUID"
    );
    one.start().await;
    wait_answering(world, one.as_ref()).await;
    let served = served_identity(world, one.as_ref()).await;
    assert_eq!(served, other, "it does not serve the identity it was given");
    assert!(
        one.stop().await,
        "a clone with a new identity does not stop cleanly"
    );
}

/// What a server says of itself when root asks.
async fn served_identity(world: &dyn World, fixture: &dyn Fixture) -> Option<String> {
    let (runtime, host) = (world.runtime(), fixture.host());
    let secret = Secret::new("looks".to_owned());
    let enabled = runtime.enable_root(host, &secret).await;
    enabled.expect("enable root");
    let root = access(world.engine().root_user(), "looks", "");
    let told = fixture.served_identity(&root).await;
    runtime.disable_root(host).await.expect("disable root");
    told
}

/// A probe that only asked would call an engine healthy that takes no write.
async fn probe_commits(world: &dyn World, fixture: &dyn Fixture) {
    let (runtime, host) = (world.runtime(), fixture.host());
    let secret = Secret::new("looks".to_owned());
    let enabled = runtime.enable_root(host, &secret).await;
    enabled.expect("enable root");
    let root = access(world.engine().root_user(), "looks", "");
    let mut before = fixture.beats(&root).await.expect("look for beats");
    for _ in 0..3 {
        runtime.probe(host).await.expect("probe");
        let after = fixture.beats(&root).await.expect("look for beats");
        assert!(
            after > before,
            "a probe left nothing behind: {before}, {after}"
        );
        before = after;
    }
    runtime.disable_root(host).await.expect("disable root");
}

async fn probe_tells(world: &dyn World, fixture: &dyn Fixture) {
    let (runtime, host) = (world.runtime(), fixture.host());
    let first = runtime.probe(host).await.expect("probe");
    assert!(
        first.version.starts_with(host.version()),
        "version is {}",
        first.version
    );
    let second = runtime.probe(host).await.expect("probe");
    assert_eq!(
        first.inventory_mark, second.inventory_mark,
        "the mark moves by itself"
    );
    let mut mark = second.inventory_mark;
    let mut is_moved = async |what: &str| {
        let found = runtime.probe(host).await.expect("probe").inventory_mark;
        assert_ne!(mark, found, "the mark missed {what}");
        mark = found;
    };
    let marked = [user("mark", "first", &[])];
    runtime.create_users(host, &marked).await.expect("a user");
    is_moved("a user").await;
    let dropped = runtime.drop_user(host, "mark", None).await;
    dropped.expect("drop a user");
    is_moved("a user's removal").await;
    if !has_databases(world) {
        return;
    }
    let database = ("mark".to_owned(), None, None);
    runtime
        .create_databases(host, &[database])
        .await
        .expect("create a database");
    is_moved("a database").await;
    for _ in 0..2 {
        let dropped = runtime.drop_database(host, "mark").await;
        dropped.expect("drop a database, twice");
    }
    is_moved("a removal").await;
}

/// Calls on databases are refused as what the engine does not have.
async fn no_databases(world: &dyn World, fixture: &dyn Fixture) {
    let (runtime, host) = (world.runtime(), fixture.host());
    let database = ("a".to_owned(), None, None);
    let names = ["a".to_owned()];
    let users = [user("u9", "p9", &["a"])];
    let refusals = [
        world.engine().check_database("a", None, None),
        runtime.create_databases(host, &[database]).await,
        runtime.drop_database(host, "a").await,
        runtime.create_users(host, &users).await,
        runtime.grant(host, "u3", None, &names).await,
        runtime.revoke(host, "u3", None, "a").await,
    ];
    for refusal in refusals {
        let error = refusal.expect_err("there are no databases");
        assert_eq!(error.reason(), "unsupported", "{error}");
    }
    let found = runtime.inventory(host).await.expect("inventory");
    assert!(found.databases.is_empty(), "{found:?}");
    assert!(found.users.iter().all(|(name, ..)| name != "u9"));
}

fn user(name: &str, password: &str, databases: &[&str]) -> NewUser {
    NewUser {
        name: name.to_owned(),
        host: None,
        password: Secret::new(password.to_owned()),
        databases: databases.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn access(user: &str, password: &str, database: &str) -> Access {
    Access {
        user: user.to_owned(),
        password: password.to_owned(),
        database: database.to_owned(),
    }
}

/// Users of an engine without databases: what one makes, the others use.
async fn users_alone(world: &dyn World, fixture: &dyn Fixture) {
    let users = [user("u1", "p1", &[]), user("u2", "p2", &[])];
    let created = world.runtime().create_users(fixture.host(), &users).await;
    created.expect("create users");
    let (one, two) = (access("u1", "p1", ""), access("u2", "p2", ""));
    fixture.login(&one).await.expect("a user is let in");
    let wrong = fixture.login(&access("u1", "p2", "")).await;
    assert!(wrong.is_err(), "a wrong password lets in");
    fixture.make(&one, "shared").await.expect("use it fully");
    let written = fixture.write(&two, "shared", 3).await;
    assert_eq!(written, 3, "a second user cannot use what the first made");
    changed_user(world, fixture).await;
    no_databases(world, fixture).await;
}

async fn users_and_grants(world: &dyn World, fixture: &dyn Fixture) {
    if !has_databases(world) {
        return users_alone(world, fixture).await;
    }
    let (runtime, host) = (world.runtime(), fixture.host());
    let databases = ["a", "b"].map(|name| (name.to_owned(), None, None));
    runtime
        .create_databases(host, &databases)
        .await
        .expect("create databases");
    runtime
        .create_users(host, &[user("u1", "p1", &["a"]), user("u2", "p2", &[])])
        .await
        .expect("create users");
    fixture
        .login(&access("u1", "p1", "a"))
        .await
        .expect("a granted database lets in");
    assert!(
        fixture.login(&access("u1", "wrong", "a")).await.is_err(),
        "a wrong password lets in"
    );
    assert!(
        fixture.login(&access("u1", "p1", "b")).await.is_err(),
        "no grant, and let in"
    );
    assert!(
        fixture.login(&access("u2", "p2", "a")).await.is_err(),
        "no grant, and let in"
    );
    let both = ["a", "b"].map(str::to_owned);
    runtime.grant(host, "u2", None, &both).await.expect("grant");
    runtime
        .grant(host, "u2", None, &both)
        .await
        .expect("grant again");
    assert_eq!(grants_of(world, fixture, "u2").await, both);
    fixture
        .make(&access("u1", "p1", "a"), "shared")
        .await
        .expect("use the database fully");
    let written = fixture.write(&access("u2", "p2", "a"), "shared", 3).await;
    assert_eq!(written, 3, "a second user cannot use what the first made");
    runtime.revoke(host, "u2", None, "a").await.expect("revoke");
    runtime
        .revoke(host, "u2", None, "a")
        .await
        .expect("revoke again");
    assert!(
        fixture.login(&access("u2", "p2", "a")).await.is_err(),
        "revoked, and let in"
    );
    assert_eq!(grants_of(world, fixture, "u2").await, ["b"]);
    changed_user(world, fixture).await;
    assert!(
        runtime.grant(host, "nobody", None, &both).await.is_err(),
        "granted to nobody"
    );
    let nowhere = ["nowhere".to_owned()];
    let error = runtime
        .grant(host, "u3", None, &nowhere)
        .await
        .expect_err("granted nowhere");
    assert_eq!(error.reason(), "missing");
}

async fn changed_user(world: &dyn World, fixture: &dyn Fixture) {
    let (runtime, host) = (world.runtime(), fixture.host());
    let change = UserChange {
        name: "u1".to_owned(),
        host: None,
        new_name: Some("u3".to_owned()),
        new_host: None,
        new_password: Some(Secret::new("p3".to_owned())),
    };
    runtime
        .change_user(host, &change)
        .await
        .expect("change a user");
    runtime
        .change_user(host, &change)
        .await
        .expect("change a user again");
    fixture
        .login(&access("u3", "p3", "a"))
        .await
        .expect("the changed user is let in");
    assert!(
        fixture.login(&access("u1", "p1", "a")).await.is_err(),
        "the old name is let in"
    );
    let onto = UserChange {
        name: "u2".to_owned(),
        new_password: None,
        ..change
    };
    let refused = runtime.change_user(host, &onto).await;
    refused.expect_err("a user was renamed onto another");
    let there = granted(world, &["a", "b"]);
    for (name, password) in [("u2", "p2"), ("u3", "p3")] {
        let database = if name == "u2" { "b" } else { "a" };
        let login = fixture.login(&access(name, password, database)).await;
        login.unwrap_or_else(|why| panic!("{name} is out, of {there:?}: {why}"));
    }
}

async fn grants_of(world: &dyn World, fixture: &dyn Fixture, name: &str) -> Vec<String> {
    let found = world
        .runtime()
        .inventory(fixture.host())
        .await
        .expect("inventory");
    let user = found.users.into_iter().find(|(user, _, _)| user == name);
    user.expect("the user is listed").2
}

async fn dropped_user(world: &dyn World, fixture: &dyn Fixture) {
    let (runtime, host) = (world.runtime(), fixture.host());
    runtime
        .create_users(host, &[user("u4", "p4", granted(world, &["a", "b"]))])
        .await
        .expect("create a user");
    let (there, other) = (access("u4", "p4", "a"), access("u3", "p3", "a"));
    fixture.make(&there, "left").await.expect("make a table");
    assert_eq!(fixture.write(&there, "left", 5).await, 5);
    runtime
        .drop_user(host, "u4", None)
        .await
        .expect("drop a user who owns a table");
    assert!(
        fixture.login(&there).await.is_err(),
        "a dropped user is let in"
    );
    assert_eq!(
        fixture.count(&other, "left").await,
        Ok(5),
        "the table went with its maker"
    );
}

/// Users made for the occasion: nobody's inventory shows them, nobody else's are touched, and what
/// they made stays. An engine without them says so.
async fn visitors(world: &dyn World, fixture: &dyn Fixture) {
    let (runtime, host) = (world.runtime(), fixture.host());
    let (first, second) = ("coffer_visitor_1", "coffer_visitor_2");
    let admitted = runtime
        .admit_visitor(host, &user(first, "v1", granted(world, &["a"])))
        .await;
    if matches!(admitted, Err(EngineError::Unsupported { .. })) {
        return;
    }
    admitted.expect("admit a visitor");
    runtime
        .admit_visitor(host, &user(second, "v2", &[]))
        .await
        .expect("admit another");
    let wrong = runtime.admit_visitor(host, &user("u3", "v3", &[])).await;
    assert!(wrong.is_err(), "a user who is no visitor was made over");
    let there = access(first, "v1", "a");
    fixture
        .make(&there, "souvenir")
        .await
        .expect("make a table");
    assert_eq!(fixture.write(&there, "souvenir", 3).await, 3);
    let inventory = runtime.inventory(host).await.expect("inventory");
    let shown = |name: &str| inventory.users.iter().any(|(user, _, _)| user == name);
    assert!(!shown(first) && !shown(second), "{:?}", inventory.users);
    assert!(world.engine().is_reserved_user(first));
    for _ in 0..2 {
        runtime
            .dismiss_visitors(host, Some(second))
            .await
            .expect("dismiss one");
    }
    fixture.login(&there).await.expect("the other one stays");
    runtime
        .dismiss_visitors(host, None)
        .await
        .expect("dismiss all");
    assert!(fixture.login(&there).await.is_err(), "a visitor stayed");
    let count = fixture.count(&access("u3", "p3", "a"), "souvenir").await;
    assert_eq!(count, Ok(3), "the table went with its maker");
}

async fn root(world: &dyn World, fixture: &dyn Fixture) {
    let (runtime, host) = (world.runtime(), fixture.host());
    let root = world.engine().root_user();
    let is_enabled = async || {
        runtime
            .inventory(host)
            .await
            .expect("inventory")
            .is_root_enabled
    };
    assert!(!is_enabled().await, "root is enabled from the start");
    for password in ["first", "second ' \" %"] {
        let secret = Secret::new(password.to_owned());
        runtime
            .enable_root(host, &secret)
            .await
            .expect("enable root");
        fixture
            .login(&access(root, password, "a"))
            .await
            .expect("root is let in");
    }
    assert!(is_enabled().await);
    assert!(
        fixture.login(&access(root, "first", "a")).await.is_err(),
        "the old password is good"
    );
    runtime.disable_root(host).await.expect("disable root");
    runtime
        .disable_root(host)
        .await
        .expect("disable root again");
    assert!(!is_enabled().await);
    let again = fixture.login(&access(root, "second ' \" %", "a")).await;
    assert!(again.is_err(), "root was disabled, and let in");
}

async fn reserved(world: &dyn World, fixture: &dyn Fixture) {
    let (runtime, host) = (world.runtime(), fixture.host());
    let root = world.engine().root_user();
    assert!(world.engine().is_reserved_user(root));
    assert!(
        runtime
            .create_users(host, &[user(root, "x", &[])])
            .await
            .is_err()
    );
    assert!(runtime.drop_user(host, root, None).await.is_err());
}

async fn kill_under_writes(world: &dyn World, fixture: &dyn Fixture) {
    let there = access("u3", "p3", "a");
    fixture.make(&there, "acked").await.expect("make a table");
    let before = fixture.write(&there, "acked", 20).await;
    assert_eq!(before, 20);
    let (acknowledged, ()) = tokio::join!(fixture.write(&there, "acked", u64::MAX), async {
        wait_count(fixture, &there, 60).await;
        fixture.kill().await;
    });
    assert!(acknowledged >= 30, "the writer wrote only {acknowledged}");
    fixture.start().await;
    wait_answering(world, fixture).await;
    let found = fixture
        .count(&there, "acked")
        .await
        .expect("count after recovery");
    let acknowledged = before + acknowledged;
    assert!(
        found >= acknowledged,
        "{acknowledged} were acknowledged, {found} are there"
    );
    assert!(
        found <= acknowledged + 1,
        "{found} are there, {acknowledged} were acknowledged"
    );
}

async fn wait_count(fixture: &dyn Fixture, access: &Access, least: u64) {
    let wait = async {
        while fixture.count(access, "acked").await.unwrap_or(0) < least {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(START_SECONDS_MAX), wait).await;
    assert!(waited.is_ok(), "the writer does not get on");
}
