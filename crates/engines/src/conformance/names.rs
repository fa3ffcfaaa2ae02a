//! Names that a careless quoting would trip over, and every character that an engine allows.

use std::collections::BTreeSet;

use super::{Fixture, World, access, has_databases, user};

/// Names as somebody with bad intentions or a rich alphabet would choose them.
const HOSTILE: &[&str] = &[
    "plain",
    "With Space",
    "quote\"double",
    "quote'single",
    "back\\slash",
    "semi;colon--",
    "$dollar$$",
    "50% of us@here",
    "grün-データ-🦀",
    "grün-データ",
    "under_score%",
    "back`tick",
    "dot.and/slash",
    "SELECT",
    "drop table x",
    "-dash",
    "%s%n",
];

/// Fewest of them that an engine has to take; what it does not take its checks refuse.
const HOSTILE_MIN: usize = 12;

/// Printable characters of ASCII: an engine may do without the space.
const ASCII: std::ops::RangeInclusive<char> = ' '..='~';
const ASCII_MIN: usize = 94;

/// Beyond ASCII, where an encoding or a plane ends and begins; one of so many of the others.
const EDGES: &str = "\u{a0}\u{7ff}\u{800}\u{2028}\u{3000}\u{d7ff}\u{e000}\u{fdd0}\u{fffd}\u{fffe}\
                     \u{ffff}\u{10000}\u{1f980}\u{e0001}\u{10ffff}";
const SAMPLE_EACH: usize = 293;
/// Fewest of the samples that an engine has to take.
const SAMPLES_MIN: usize = 200;

/// A name is put together of so many characters and bytes, which every engine has room for.
const CHARS_MAX: usize = 30;
const BYTES_MAX: usize = 60;

/// Whether the engine takes it as the name of a user, and of a database where these have names.
fn is_name(world: &dyn World, name: &str) -> bool {
    let engine = world.engine();
    let is_database = !has_databases(world) || engine.check_database(name, None, None).is_ok();
    is_database && engine.check_user(name, None).is_ok()
}

/// The longest plain name that the engine takes for both.
fn longest(world: &dyn World) -> String {
    let names = (1..=300).rev().map(|length| "x".repeat(length));
    let mut taken = names.filter(|name| is_name(world, name));
    taken.next().expect("an engine takes the name x")
}

/// Names made of all of these characters that the engine allows, of which there have to be some.
fn of_characters(world: &dyn World, all: &[char], least: usize) -> Vec<String> {
    // Between letters, as a name may not begin or end with all that it may hold.
    let is_taken = |c: &&char| is_name(world, &format!("n{c}n"));
    let taken: Vec<char> = all.iter().filter(is_taken).copied().collect();
    let count = taken.len();
    assert!(count >= least, "of {} only {count}: {taken:?}", all.len());
    let mut names = vec![String::new()];
    for c in taken {
        let last = names.last_mut().expect("there is one from the start");
        if last.chars().count() >= CHARS_MAX || last.len() + c.len_utf8() > BYTES_MAX {
            names.push(c.to_string());
        } else {
            last.push(c);
        }
    }
    names.iter().map(|name| format!("n{name}n")).collect()
}

/// Samples of all characters beyond ASCII, and the edges.
fn samples() -> Vec<char> {
    let others = '\u{a1}'..='\u{ffff}';
    others.step_by(SAMPLE_EACH).chain(EDGES.chars()).collect()
}

/// What the engine allows of it all.
fn names(world: &dyn World) -> Vec<String> {
    let hostile = HOSTILE.iter().map(|name| (*name).to_owned());
    let mut names: Vec<String> = hostile.filter(|name| is_name(world, name)).collect();
    assert!(names.len() >= HOSTILE_MIN, "it takes only {names:?}");
    names.push(longest(world));
    let ascii: Vec<char> = ASCII.collect();
    names.extend(of_characters(world, &ascii, ASCII_MIN));
    names.extend(of_characters(world, &samples(), SAMPLES_MIN));
    names
}

/// Makes a database and a user of each name, logs in, lists and drops them.
pub(super) async fn hostile(world: &dyn World, fixture: &dyn Fixture) {
    let (runtime, host) = (world.runtime(), fixture.host());
    let names = names(world);
    for name in &names {
        create(world, fixture, name).await;
        let login = fixture.login(&access(name, name, name)).await;
        login.unwrap_or_else(|why| panic!("log in as {name:?}: {why}"));
    }
    listed(world, fixture, &names).await;
    for name in &names {
        for _ in 0..2 {
            let dropped = runtime.drop_user(host, name, None).await;
            dropped.unwrap_or_else(|why| panic!("drop the user {name:?}: {why}"));
        }
        if has_databases(world) {
            let dropped = runtime.drop_database(host, name).await;
            dropped.unwrap_or_else(|why| panic!("drop the database {name:?}: {why}"));
        }
    }
    let left = runtime.inventory(host).await.expect("inventory");
    assert!(
        left.databases.is_empty() && left.users.is_empty(),
        "something was left: {left:?}"
    );
}

/// Twice, as every command may come twice.
async fn create(world: &dyn World, fixture: &dyn Fixture, name: &str) {
    let (runtime, host) = (world.runtime(), fixture.host());
    let database = (name.to_owned(), None, None);
    let granted = super::granted(world, std::slice::from_ref(&name));
    for _ in 0..2 {
        if has_databases(world) {
            let databases = std::slice::from_ref(&database);
            let created = runtime.create_databases(host, databases).await;
            created.unwrap_or_else(|why| panic!("create the database {name:?}: {why}"));
        }
        let created = runtime
            .create_users(host, &[user(name, name, granted)])
            .await;
        created.unwrap_or_else(|why| panic!("create the user {name:?}: {why}"));
    }
}

async fn listed(world: &dyn World, fixture: &dyn Fixture, names: &[String]) {
    let found = world.runtime().inventory(fixture.host()).await;
    let found = found.expect("inventory");
    let expected: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let databases: BTreeSet<&str> = found.databases.iter().map(|(n, ..)| n.as_str()).collect();
    let users: BTreeSet<&str> = found.users.iter().map(|(n, ..)| n.as_str()).collect();
    assert_eq!(users, expected, "users do not come back as they were named");
    if has_databases(world) {
        let mistake = "databases do not come back as they were named";
        assert_eq!(databases, expected, "{mistake}");
    }
}
