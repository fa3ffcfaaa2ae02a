//! The stock clients, verb by verb: `openstack database …` and the legacy `trove`.
//!
//! docs/clients.md lists the verbs. Each command line runs the client's own `main` in a process
//! of its own; `legacy.rs` runs the installed programs themselves.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, binary};
use e2e::run::{Program, wait_until};
use serde_json::{Value, json};

/// Where the clients are installed.
const VENV: &str = "/var/cache/coffer/venv/bin";
/// The stock clients one after the other.
const DRIVER: &str = include_str!("python/clients.py");
/// openstacksdk's database proxy.
const SDK: &str = include_str!("python/sdk.py");

/// A command line, and what its output must and must not hold.
struct Step {
    program: &'static str,
    words: Vec<String>,
    is_admin: bool,
    /// Whether it has to fail.
    fails: bool,
    /// Part of what it prints: on standard output, or of the message when it has to fail.
    holds: &'static str,
}

fn step(program: &'static str, line: &str, holds: &'static str) -> Step {
    let words = line.split_whitespace().map(str::to_owned).collect();
    Step {
        program,
        words,
        is_admin: false,
        fails: false,
        holds,
    }
}

fn openstack(line: &str, holds: &'static str) -> Step {
    step("openstack", line, holds)
}

fn trove(line: &str, holds: &'static str) -> Step {
    step("trove", line, holds)
}

impl Step {
    fn by_admin(self) -> Self {
        Self {
            is_admin: true,
            ..self
        }
    }

    fn refused(self) -> Self {
        Self {
            fails: true,
            ..self
        }
    }
}

/// Runs the steps in order and looks at what each says.
fn run(coffer: &Coffer, steps: &[Step]) -> Result<()> {
    let member = coffer.variables("demo")?;
    let admin = coffer.variables("admin")?;
    let asked: Vec<Value> = steps
        .iter()
        .map(|step| {
            let env = if step.is_admin { &admin } else { &member };
            json!({ "program": step.program, "words": step.words, "env": env })
        })
        .collect();
    let (driver, list) = (
        file(coffer, "clients.py", DRIVER)?,
        json!(asked).to_string(),
    );
    let list = file(coffer, "steps.json", &list)?;
    let words = [driver.as_os_str(), list.as_os_str()];
    let ended = Program::new(&format!("{VENV}/python"), words)
        .limit_seconds(240)
        .run()?
        .json()?;
    let ended = ended.as_array().context("the driver gave no list")?;
    ensure!(
        ended.len() == steps.len(),
        "{} of {} steps ran",
        ended.len(),
        steps.len()
    );
    for (step, end) in steps.iter().zip(ended) {
        let line = format!("{} {}", step.program, step.words.join(" "));
        let part = if step.fails { "err" } else { "out" };
        ensure!((end["code"] != 0) == step.fails, "{line}: {end}");
        let text = end[part].as_str().unwrap_or_default();
        ensure!(
            text.contains(step.holds),
            "{line}: '{}' not in {end}",
            step.holds
        );
    }
    Ok(())
}

fn file(coffer: &Coffer, name: &str, text: &str) -> Result<PathBuf> {
    let path = coffer.dir().join(name);
    fs::write(&path, text)?;
    Ok(path)
}

/// The id of the instance with this name.
fn id_of(coffer: &Coffer, name: &str) -> Result<String> {
    let all = coffer.coffer(&["--json", "instance", "list"])?.json()?;
    let found = all
        .as_array()
        .into_iter()
        .flatten()
        .find(|one| one["name"] == name);
    let id = found
        .and_then(|one| one["id"].as_str())
        .context("no such instance")?;
    Ok(id.to_owned())
}

#[test]
fn openstack_verbs() -> Result<()> {
    let coffer = Coffer::start()?;
    run(
        &coffer,
        &[
            openstack("datastore list", "postgresql"),
            openstack("datastore show postgresql", "postgresql"),
            openstack("datastore version list postgresql", "17"),
            openstack("datastore version show 17 --datastore postgresql", "17"),
            openstack("database flavor list", "small"),
            openstack("database flavor show small", "512"),
            openstack("database limit list", "ABSOLUTE"),
            openstack("database quota show demo", "instances"),
            openstack("database quota update demo instances 12", "12").by_admin(),
            openstack("database quota update demo instances 13", "privileges").refused(),
            openstack("database quota show demo", "12"),
            openstack(
                "database instance create o1 --flavor small --size 1 --datastore postgresql \
                 --datastore-version 17 --databases app --users joe:a-password --is-public \
                 --allowed-cidr 127.0.0.0/8 --allowed-cidr 100.64.0.0/10",
                "BUILD",
            ),
            openstack("database instance list", "o1"),
        ],
    )?;
    let id = id_of(&coffer, "o1")?;
    coffer.await_active(&id)?;
    run(
        &coffer,
        &[
            openstack("database instance show o1", "HEALTHY"),
            openstack("database instance list --limit 1", "o1"),
            openstack("database instance list --all-projects", "o1").by_admin(),
            openstack("database instance show nobody", "No instance").refused(),
            openstack("database db create o1 shop", ""),
            openstack("database db list o1", "shop"),
            openstack("database db create o1 shop", "already exists").refused(),
            openstack("database user create o1 ann a-password --databases app", ""),
            openstack("database user list o1", "ann"),
            openstack("database user show o1 ann", "app"),
            openstack("database user grant access o1 ann shop", ""),
            openstack("database user show access o1 ann", "shop"),
            openstack("database user revoke access o1 ann shop", ""),
            openstack(
                "database user update attributes o1 ann --new_password another",
                "",
            ),
            openstack("database user update attributes o1 ann --new_name eve", ""),
            openstack("database user show o1 eve", "eve"),
            openstack("database user delete o1 eve", ""),
            openstack("database db delete o1 shop", ""),
            openstack("database root show o1", "False"),
            openstack("database root enable o1", "postgres"),
            openstack("database root show o1", "True"),
            openstack("database root disable o1", ""),
            openstack("database root show o1", "False"),
            openstack("database instance update o1 --name o2", ""),
            openstack("database instance update o2 --is-private", ""),
        ],
    )?;
    coffer.await_active(&id)?;
    run(
        &coffer,
        &[
            openstack("database instance show o2", "HEALTHY"),
            openstack("database instance restart o2", ""),
        ],
    )?;
    coffer.await_active(&id)?;
    let reset = format!("database instance reset status {id}");
    run(
        &coffer,
        &[
            openstack(&reset, "").by_admin(),
            openstack("database instance reset status o2", "allow").refused(),
            openstack("database backup list", "backups are not there yet").refused(),
            openstack("database instance resize volume o2 2", "resizing").refused(),
            openstack("database instance delete o2", ""),
        ],
    )?;
    coffer.await_gone(&id)
}

#[test]
fn trove_verbs() -> Result<()> {
    let coffer = Coffer::start()?;
    let project = coffer.coffer(&["--json", "status"])?.json()?;
    let project = project["project_id"]
        .as_str()
        .context("no project")?
        .to_owned();
    run(
        &coffer,
        &[
            trove("datastore-list", "postgresql"),
            trove("datastore-show postgresql", "postgresql"),
            trove("datastore-version-list postgresql", "17"),
            trove("datastore-version-show 17 --datastore postgresql", "17"),
            trove("flavor-list", "small"),
            trove("flavor-show small", "small"),
            trove("limit-list", "max_instances"),
            trove(&format!("quota-show {project}"), "instances"),
            trove(&format!("quota-update {project} instances 12"), "12").by_admin(),
            trove(
                "create t1 small --size 1 --datastore postgresql --datastore_version 17 \
                 --databases app --users joe:a-password",
                "BUILD",
            ),
            trove("list", "t1"),
        ],
    )?;
    let id = id_of(&coffer, "t1")?;
    coffer.await_active(&id)?;
    run(
        &coffer,
        &[
            trove("show t1", "ACTIVE"),
            trove("database-create t1 shop", ""),
            trove("database-list t1", "shop"),
            trove("user-create t1 ann a-password --databases app", ""),
            trove("user-list t1", "ann"),
            trove("user-show t1 ann", "ann"),
            trove("user-grant-access t1 ann shop", ""),
            trove("user-show-access t1 ann", "shop"),
            trove("user-revoke-access t1 ann shop", ""),
            trove("user-update-attributes t1 ann --new_name eve", ""),
            trove("user-delete t1 eve", ""),
            trove("database-delete t1 shop", ""),
            trove("root-show t1", "False"),
            trove("root-enable t1", "postgres"),
            trove("root-show t1", "True"),
            trove("root-disable t1", ""),
            // The client's own mistake: it calls a method that it does not have.
            trove("update t1 --name t2", "no attribute 'edit'").refused(),
            trove("restart t1", ""),
        ],
    )?;
    coffer.await_active(&id)?;
    run(
        &coffer,
        &[
            trove(&format!("reset-status {id}"), "").by_admin(),
            trove("reset-status t1", "allow").refused(),
            trove("backup-list", "backups are not there yet").refused(),
            trove("delete t1", ""),
        ],
    )?;
    coffer.await_gone(&id)
}

#[test]
fn openstacksdk_verbs() -> Result<()> {
    let coffer = Coffer::start()?;
    let script = file(&coffer, "sdk.py", SDK)?;
    let mut program = Program::new(&format!("{VENV}/python"), [script.as_os_str()]);
    for (name, value) in coffer.variables("demo")? {
        program = program.env(&name, &value);
    }
    let ended = program.limit_seconds(240).run()?;
    ensure!(
        ended.code == 0 && ended.out.contains("sdk done"),
        "{ended:?}\n{}",
        coffer.log()
    );
    Ok(())
}

/// What a person types, in a real shell.
#[test]
fn eval_coffer_env_and_then_openstack() -> Result<()> {
    let coffer = Coffer::start()?;
    let (program, credentials) = (binary("coffer")?, coffer.credentials("demo"));
    let shell = |line: &str| {
        let line = format!("PATH={}:{VENV}:$PATH; {line}", parent(&program).display());
        Program::new("bash", ["-euo", "pipefail", "-c", &line]).run()
    };
    let env = format!(
        "eval \"$(coffer --credentials {} env)\"",
        credentials.display()
    );
    let listed = shell(&format!("{env}; openstack database instance list -f json"))?;
    ensure!(listed.json()? == json!([]), "there are instances");
    // A reader that leaves early ends `coffer` quietly, whatever it had to say.
    let admin = format!("--credentials {}", coffer.credentials("admin").display());
    for words in [
        "flavor list",
        "--json flavor list",
        "config",
        "config show",
        "--help",
        "openapi",
    ] {
        let options = if words.contains("flavor") {
            admin.as_str()
        } else {
            ""
        };
        let line = format!("coffer {options} {words} | true; coffer {options} {words} | head -n 1");
        for _ in 0..3 {
            let ended = shell(&line)?;
            ensure!(ended.code == 0 && ended.err.is_empty(), "{ended:?}");
        }
    }
    // What cannot be written at all is a failure.
    let full = shell(&format!("coffer {admin} flavor list > /dev/full"))?;
    ensure!(
        full.code == 1 && full.err.contains("standard output"),
        "{full:?}"
    );
    Ok(())
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(path)
}

/// Takes the locks under which templates are made, as a process that never ends making them.
fn hold_templates(coffer: &Coffer) -> Result<Vec<File>> {
    let locks = coffer.dir().join("local/locks");
    let mut held = Vec::new();
    for root in fs::read_dir("/var/cache/coffer/roots")? {
        let name = root?.file_name().to_string_lossy().into_owned();
        let file = File::create(locks.join(format!("template-{name}")))?;
        file.try_lock().context("hold a template")?;
        held.push(file);
    }
    ensure!(!held.is_empty(), "no engine root is built");
    Ok(held)
}

/// A task under way is cancelled by the operator: a create is undone, and the owner can delete
/// what is left.
#[test]
fn a_reset_ends_a_create_that_hangs() -> Result<()> {
    let coffer = Coffer::start()?;
    let held = hold_templates(&coffer)?;
    let body = [
        "--json", "instance", "create", "r1", "--flavor", "small", "--size", "1",
    ];
    let made = coffer.coffer(&body)?.json()?;
    let id = made["id"].as_str().context("no id")?.to_owned();
    wait_until(Duration::from_secs(30), || {
        let explained = coffer.coffer(&["instance", "explain", "r1"])?.ok()?;
        Ok(explained.contains("is being made").then_some(()))
    })
    .context("the create hangs")?;
    let reset = format!("database instance reset status {id}");
    run(&coffer, &[openstack(&reset, "").by_admin()])?;
    let settled = wait_until(Duration::from_secs(60), || {
        let shown = coffer.show(&id)?.context("it is gone")?;
        Ok((shown["status"] != "BUILD").then_some(shown))
    })?;
    let message = settled["fault"]["message"].as_str().unwrap_or_default();
    ensure!(
        settled["status"] == "ERROR",
        "nothing was cancelled: {settled}"
    );
    ensure!(message.contains("cancelled on request"), "{settled}");
    drop(held);
    run(&coffer, &[openstack("database instance delete r1", "")])?;
    coffer.await_gone(&id)?;
    let is_clean = || Ok(coffer.traces()?.is_empty().then_some(()));
    wait_until(Duration::from_secs(60), is_clean).with_context(|| format!("{:?}", coffer.traces()))
}
