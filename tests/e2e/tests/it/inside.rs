//! What several ask of one engine at the same time.

use std::thread;

use anyhow::{Result, ensure};
use e2e::coffer::Coffer;

/// One makes the user and knows its password; the other is told that it is there, and changes
/// nothing of it.
#[test]
fn of_two_who_make_the_same_user_one_is_refused() -> Result<()> {
    let coffer = Coffer::start()?;
    let database = coffer.create("db")?;
    let words = [
        "--json",
        "database-user",
        "create",
        "db",
        "ann",
        "--database",
        "app",
    ];
    let (first, second) = thread::scope(|scope| {
        let first = scope.spawn(|| coffer.coffer(&words));
        let second = scope.spawn(|| coffer.coffer(&words));
        (first.join(), second.join())
    });
    let both = [first, second].map(|one| one.expect("no thread panics"));
    let [first, second] = both;
    let (mut made, mut refused) = (first?, second?);
    if made.code != 0 {
        (made, refused) = (refused, made);
    }
    ensure!(refused.code != 0, "both made it: {made:?} {refused:?}");
    ensure!(refused.err.contains("already exists"), "{refused:?}");
    let password = made.json()?["password"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let ann = e2e::coffer::Database {
        password,
        ..database
    };
    let asked = ann.psql_with("sslmode=require user=ann", "SELECT 1")?;
    ensure!(asked.code == 0, "the password is another: {asked:?}");
    Ok(())
}
