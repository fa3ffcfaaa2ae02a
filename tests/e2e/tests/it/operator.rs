//! The operator's verbs against a real Coffer: every kind of object by every verb, each with its
//! effect, its exit code, and what is refused.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, binary};
use e2e::run::{Ended, Program};
use serde_json::Value;

/// Done.
const DONE: i32 = 0;
/// The command line, or the login, is not right.
const USAGE: i32 = 2;
/// What was named is not there.
const ABSENT: i32 = 3;
/// Understood, and refused.
const REFUSED: i32 = 4;

/// Runs `coffer` as the administrator; the line must end with this code.
fn ends(coffer: &Coffer, line: &str, code: i32) -> Result<Ended> {
    let words: Vec<&str> = line.split(' ').collect();
    let ended = coffer.admin(&words)?;
    ensure!(ended.code == code, "not {code}: {ended:?}");
    ensure!(
        (code == DONE) == ended.err.is_empty(),
        "what goes wrong is said, and nothing else: {ended:?}"
    );
    Ok(ended)
}

/// The same, done, with its answer as JSON.
fn json(coffer: &Coffer, line: &str) -> Result<Value> {
    ends(coffer, &format!("--json {line}"), DONE)?.json()
}

/// Values of a field over a list.
fn listed(coffer: &Coffer, kind: &str, field: &str) -> Result<Vec<String>> {
    let rows = json(coffer, &format!("{kind} list"))?;
    let rows = rows.as_array().context("not a list")?;
    let value = |row: &Value| row[field].as_str().map(str::to_owned);
    Ok(rows.iter().filter_map(value).collect())
}

/// What holds of every kind: it is made once, listed, shown in both forms, refused when it is not
/// there or the line cannot be meant, and gone when it was deleted.
fn common(coffer: &Coffer, kind: &str, create: &str, name: &str) -> Result<Value> {
    let made = json(coffer, create)?;
    ensure!(listed(coffer, kind, "name")?.contains(&name.to_owned()));
    ensure!(
        ends(coffer, &format!("{kind} list"), DONE)?
            .out
            .contains(name)
    );
    let shown = json(coffer, &format!("{kind} show {name}"))?;
    ensure!(shown["name"] == name, "{shown}");
    ensure!(
        ends(coffer, &format!("{kind} show {name}"), DONE)?
            .out
            .contains(name)
    );
    ends(coffer, create, REFUSED)?;
    ends(coffer, &format!("{kind} show nothing"), ABSENT)?;
    ends(coffer, &format!("{kind} delete nothing"), ABSENT)?;
    ends(coffer, &format!("{kind} create"), USAGE)?;
    ends(coffer, &format!("{kind} frobnicate"), USAGE)?;
    // What is the operator's is nobody else's.
    let words: Vec<&str> = create.split(' ').collect();
    let ended = coffer.coffer(&words)?;
    ensure!(ended.code == REFUSED, "{ended:?}");
    Ok(made)
}

/// Deletes an object, which is then not there.
fn deleted(coffer: &Coffer, kind: &str, name: &str) -> Result<()> {
    let done = json(coffer, &format!("{kind} delete {name}"))?;
    ensure!(done["state"] == "deleted", "{done}");
    ensure!(!listed(coffer, kind, "name")?.contains(&name.to_owned()));
    ends(coffer, &format!("{kind} show {name}"), ABSENT)?;
    ends(coffer, &format!("{kind} delete {name}"), ABSENT).map(drop)
}

/// Somebody who logs in by name and password.
struct Login {
    file: PathBuf,
}

impl Login {
    fn new(coffer: &Coffer, user: &str, password: &str, project: &str) -> Result<Self> {
        let demo = fs::read_to_string(coffer.credentials("demo"))?;
        let line = |line: &str| match line.split(" = ").next() {
            Some("username") => format!("username = \"{user}\""),
            Some("password") => format!("password = \"{password}\""),
            Some("project_name") => format!("project_name = \"{project}\""),
            _ => line.to_owned(),
        };
        let text: Vec<String> = demo.lines().map(line).collect();
        let file = coffer.dir().join("somebody.toml");
        // A copy keeps the mode: credentials that others may read are refused.
        fs::copy(coffer.credentials("demo"), &file)?;
        fs::write(&file, text.join("\n"))?;
        Ok(Self { file })
    }

    fn ends(&self, line: &str, code: i32) -> Result<()> {
        let file = self.file.display().to_string();
        let words = ["--credentials", file.as_str()].into_iter();
        let program = binary("coffer")?.display().to_string();
        let ended = Program::new(&program, words.chain(line.split(' '))).run()?;
        ensure!(ended.code == code, "not {code}: {ended:?}");
        Ok(())
    }
}

#[test]
fn projects_users_and_roles() -> Result<()> {
    let coffer = Coffer::start()?;
    let create = "project create shop --description books";
    let project = common(&coffer, "project", create, "shop")?;
    ensure!(project["description"] == "books", "{project}");
    let user = common(&coffer, "user", "user create ada --project shop", "ada")?;
    let password = user["password"].as_str().context("no password")?;
    ensure!(user["default_project_id"] == project["id"], "{user}");
    common(&coffer, "role", "role create auditor", "auditor")?;

    let ada = Login::new(&coffer, "ada", password, "shop")?;
    ada.ends("instance list", USAGE)?;
    let assigned = "--user ada --project shop";
    ends(&coffer, &format!("role set nothing {assigned}"), ABSENT)?;
    ends(
        &coffer,
        "role set reader --user ada --project nothing",
        ABSENT,
    )?;
    json(&coffer, &format!("role set reader {assigned}"))?;
    json(&coffer, &format!("role set auditor {assigned}"))?;
    let held = json(&coffer, &format!("role list {assigned}"))?;
    ensure!(held.as_array().is_some_and(|all| all.len() == 2), "{held}");
    ends(&coffer, "role delete auditor", REFUSED)?;
    ada.ends("instance list", DONE)?;
    // A reader only reads.
    ada.ends("instance create x --flavor small", REFUSED)?;
    json(&coffer, &format!("role unset auditor {assigned}"))?;
    deleted(&coffer, "role", "auditor")?;

    changed(&coffer, &ada, password)?;
    deleted(&coffer, "user", "eve")?;
    ends(&coffer, "project delete demo2", ABSENT)?;
    deleted(&coffer, "project", "store")
}

/// Changes of a user and a project, as the user meets them.
fn changed(coffer: &Coffer, ada: &Login, password: &str) -> Result<()> {
    ends(coffer, "project set shop", USAGE)?;
    ends(coffer, "project set shop --enabled perhaps", USAGE)?;
    ends(coffer, "project set shop --name demo", REFUSED)?;
    json(coffer, "project set shop --enabled false")?;
    ada.ends("instance list", USAGE)?;
    let set = "project set shop --enabled true --name store --description toys";
    let shown = json(coffer, set)?;
    ensure!(
        shown["name"] == "store" && shown["description"] == "toys",
        "{shown}"
    );
    ada.ends("instance list", USAGE)?;
    Login::new(coffer, "ada", password, "store")?.ends("instance list", DONE)?;

    ends(coffer, "user set ada", USAGE)?;
    ends(coffer, "user set ada --password-stdin", USAGE)?;
    ends(coffer, "user set ada --name demo", REFUSED)?;
    json(coffer, "user set ada --enabled false")?;
    Login::new(coffer, "ada", password, "store")?.ends("instance list", USAGE)?;
    let set = "user set ada --enabled true --name eve --new-password";
    let shown = json(coffer, set)?;
    let new = shown["password"].as_str().context("no new password")?;
    Login::new(coffer, "eve", password, "store")?.ends("instance list", USAGE)?;
    Login::new(coffer, "eve", new, "store")?.ends("instance list", DONE)
}

/// Limits of the volume type gold, as the operator sets, sees and lifts them.
fn io_limits(coffer: &Coffer) -> Result<()> {
    let set = "volume-type set gold --read-bytes-sec 1048576 --write-iops-sec none";
    let shown = json(coffer, set)?;
    ensure!(
        shown["read_bytes_sec"] == 1_048_576 && shown["write_iops_sec"].is_null(),
        "{shown}"
    );
    ensure!(
        shown["description"] == "fast",
        "what was not named stays: {shown}"
    );
    let table = ends(coffer, "volume-type list", DONE)?.out;
    ensure!(
        table.contains("read B/s") && table.contains("1048576"),
        "{table}"
    );
    for (limit, code) in [
        ("--read-iops-sec 0", REFUSED),
        ("--write-bytes-sec 9223372036854775807", REFUSED),
        ("--read-iops-sec -1", USAGE),
        ("--read-iops-sec much", USAGE),
        ("--iops 100", USAGE),
    ] {
        ends(coffer, &format!("volume-type set gold {limit}"), code)?;
        ends(coffer, &format!("volume-type create other {limit}"), code)?;
    }
    let refused = ends(coffer, "volume-type set gold --read-iops-sec 0", REFUSED)?;
    let words = "volume_type['read_iops_sec'] 0 is out of range: 10 to 10000000";
    ensure!(refused.err.contains(words), "{refused:?}");
    let lifted = json(coffer, "volume-type set gold --read-bytes-sec none")?;
    ensure!(lifted["read_bytes_sec"].is_null(), "{lifted}");
    Ok(())
}

#[test]
fn flavors_volume_types_and_zones() -> Result<()> {
    let coffer = Coffer::start()?;
    let create = "flavor create mini --id 6.9 --ram 512 --vcpus 1 --disk 3";
    let flavor = common(&coffer, "flavor", create, "mini")?;
    ensure!(flavor["str_id"] == "6.9" && flavor["disk"] == 3, "{flavor}");
    let create = "volume-type create gold --description fast --write-iops-sec 400";
    let kind = common(&coffer, "volume-type", create, "gold")?;
    ensure!(
        kind["description"] == "fast" && kind["write_iops_sec"] == 400,
        "{kind}"
    );
    io_limits(&coffer)?;
    common(&coffer, "zone", "zone create z9", "z9")?;
    ends(
        &coffer,
        "flavor create x --id y --ram much --vcpus 1",
        USAGE,
    )?;
    ends(&coffer, "flavor create x --id y --ram 0 --vcpus 1", REFUSED)?;
    ends(&coffer, "flavor set mini", USAGE)?;
    let shown = json(&coffer, "flavor set 6.9 --ram 768")?;
    ensure!(shown["ram"] == 768, "{shown}");
    let shown = json(&coffer, "volume-type set gold --description slow")?;
    ensure!(shown["description"] == "slow", "{shown}");
    ends(&coffer, "volume-type set gold", USAGE)?;
    ends(&coffer, "zone set z9", USAGE)?;

    // What an instance is made of stays.
    let offers = ["--flavor", "6.9", "--volume-type", "gold", "--zone", "z9"];
    let words = [&["instance", "create", "i1", "--wait"][..], &offers].concat();
    coffer.coffer(&words)?.ok()?;
    let shown = coffer.show("i1")?.context("no instance")?;
    ensure!(shown["flavor"]["id"] == "6.9", "{shown}");
    for line in [
        "flavor set mini --ram 1024",
        "flavor delete mini",
        "zone delete z9",
        "project delete demo",
    ] {
        ends(&coffer, line, REFUSED)?;
    }
    json(&coffer, "flavor set mini --name small9")?;
    let shown = json(&coffer, "zone set z9 --name z10")?;
    ensure!(shown["name"] == "z10", "{shown}");
    ends(&coffer, "zone delete z10", REFUSED)?;
    coffer
        .coffer(&["instance", "delete", "i1", "--wait"])?
        .ok()?;
    for (kind, name) in [
        ("flavor", "small9"),
        ("volume-type", "gold"),
        ("zone", "z10"),
    ] {
        deleted(&coffer, kind, name)?;
    }
    let gone = coffer.coffer(&["instance", "create", "i2", "--flavor", "6.9"])?;
    ensure!(gone.code == ABSENT || gone.code == REFUSED, "{gone:?}");
    Ok(())
}
