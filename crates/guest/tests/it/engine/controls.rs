//! That what Redis and Valkey refuse works where it is allowed: so a refusal is for the reason that
//! is named, and not for an attempt that could never succeed.
//!
//! What a right is missing for, the engine itself says: `ACL DRYRUN` answers whether a user could
//! run a command, and runs nothing. What is switched off at the start works on a server that was
//! started without these words. What Lua does not have is shown by what it has.

use std::path::Path;

use coffer_engines::conformance::{self, Fixture};
use coffer_engines::keyvalue::resp::Value;

use super::direct::{Direct, DirectWorld};
use super::keyvalue::Connection;
use super::refusals::{ATTEMPTS, NO_RIGHT, OFF};

/// Coffer's own user, who has every right.
const OWN: &str = "coffer";

/// What is close to an attempt and has to be done: by a user, or by Coffer's own.
const CONTROLS: &[(&str, &str, &[&str])] = &[
    ("login-as-coffer", OWN, &["ACL", "WHOAMI"]),
    ("script-runs-program", "joe", &["EVAL", "return 1", "0"]),
    ("script-opens-file", "joe", &["EVAL", "return 1", "0"]),
    ("script-loads-library", "joe", &["EVAL", "return 1", "0"]),
    ("script-loads-code", "joe", &["EVAL", "return 1", "0"]),
    ("script-reads-code", "joe", &["EVAL", "return 1", "0"]),
    (
        "script-calls-refused",
        "joe",
        &["EVAL", "return redis.call('SET', 'k', 'v')", "0"],
    ),
    (
        "script-has-no-more-rights",
        OWN,
        &[
            "EVAL",
            "return redis.call('MIGRATE', '192.0.2.1', '6379', 'none', '0', '1')",
            "0",
        ],
    ),
    (
        "script-changes-globals",
        "joe",
        &["EVAL", "local own = {} own.rep = 1 return own.rep", "0"],
    ),
    (
        "function-runs-program",
        "joe",
        &[
            "FUNCTION",
            "LOAD",
            "#!lua name=harmless\nredis.register_function('one', function() return 1 end)",
        ],
    ),
    (
        "restore-damaged",
        "joe",
        &[
            "EVAL",
            "redis.call('SET', 'k', 'v') \
             return redis.call('RESTORE', 'copy', '0', redis.call('DUMP', 'k'))",
            "0",
        ],
    ),
];

/// What is tried where nothing is switched off, and how the answer begins. The module is none,
/// which the engine finds only after it was allowed to look.
const SWITCHED_ON: &[(&str, &[&str], &str)] = &[
    ("module-load", &["MODULE", "LOAD", "/tmp/x.so"], "ERR Error"),
    (
        "module-loadex",
        &["MODULE", "LOADEX", "/tmp/x.so"],
        "ERR Error",
    ),
    ("debug-sleep", &["DEBUG", "SLEEP", "0"], "OK"),
];

/// Shows it, and leaves the engine dead.
pub(super) async fn all(world: &DirectWorld, fixture: &Direct) {
    let mut own = log_in_as_coffer(fixture).await;
    for (attempt, request, reason) in ATTEMPTS {
        if *reason == NO_RIGHT {
            let may = dry_run(&mut own, OWN, request).await;
            assert_eq!(may, "OK", "{attempt}: who has the right is refused");
            let may = dry_run(&mut own, "joe", request).await;
            assert!(may.contains("permission"), "{attempt}: {may}");
        }
    }
    for (attempt, user, request) in CONTROLS {
        let answer = match *user {
            OWN => own.ask(request).await,
            user => {
                let mut client = Connection::login(fixture.layout(), user, "pw")
                    .await
                    .expect("log in");
                client.ask(request).await
            }
        };
        let answer = answer.expect("an answer");
        assert!(!is_refused(&answer), "{attempt}: {answer:?}");
    }
    drop(own);
    assert!(fixture.stop().await, "it does not stop cleanly");
    switched_on(world, fixture).await;
}

fn is_refused(answer: &Value) -> bool {
    matches!(answer, Value::Error(_))
}

/// What the engine says to whether a user could run this.
async fn dry_run(own: &mut Connection, user: &str, request: &[&str]) -> String {
    let words = [&["ACL", "DRYRUN", user], request].concat();
    match own.ask(&words).await.expect("an answer") {
        Value::Text(text) => text,
        other => format!("{other:?}"),
    }
}

/// The engine without what switches commands off.
async fn switched_on(world: &DirectWorld, fixture: &Direct) {
    let on = |args: &mut Vec<String>| {
        for at in 1..args.len() {
            if args[at - 1].starts_with("--enable-") {
                args[at] = "yes".to_owned();
            }
        }
    };
    fixture.start_with(on).await;
    conformance::wait_answering(world, fixture).await;
    let mut own = log_in_as_coffer(fixture).await;
    for (attempt, request, begins) in SWITCHED_ON {
        let answer = own.ask(request).await.expect("an answer");
        let (Value::Text(said) | Value::Error(said)) = &answer else {
            panic!("{attempt}: {answer:?}");
        };
        assert!(
            said.starts_with(begins) && !said.contains(OFF),
            "{attempt}: {said}"
        );
    }
    let crashed = own.ask(&["DEBUG", "SEGFAULT"]).await;
    assert!(crashed.is_err(), "debug-crash: it lives: {crashed:?}");
    fixture.kill().await;
}

async fn log_in_as_coffer(fixture: &Direct) -> Connection {
    let secret = own_password(&fixture.layout().config_dir);
    Connection::login(fixture.layout(), OWN, &secret)
        .await
        .expect("log in as Coffer's own user")
}

/// The password of Coffer's own user, as it lies in a file of the agent's: the second word.
fn own_password(config_dir: &Path) -> String {
    let text = std::fs::read_to_string(config_dir.join("coffer.secret")).unwrap();
    text.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn every_attempt_has_its_control() {
    let is_shown = |name: &str, reason: &str| {
        reason == NO_RIGHT
            || name == "debug-crash"
            || CONTROLS.iter().any(|(known, ..)| *known == name)
            || SWITCHED_ON.iter().any(|(known, ..)| *known == name)
    };
    for (name, _, reason) in ATTEMPTS {
        assert!(is_shown(name, reason), "{name} has no control");
    }
}
