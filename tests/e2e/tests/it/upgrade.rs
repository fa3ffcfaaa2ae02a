//! An upgrade in the middle of everything: the Coffer of before is killed with a task of each
//! workflow in flight, the store is brought to this build's schema, and the new Coffer ends every
//! task well, while databases serve.
//!
//! The Coffer of before is this build, with its last migration taken back; or the one whose
//! programs are in the directory that `COFFER_PREVIOUS` names, as `cargo xtask upgrade-from` does.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use coffer_testkit::counts::versions;
use e2e::coffer::{Coffer, binary};
use e2e::host;
use e2e::keyvalue::{KeyValue, build_root, tree};
use e2e::lines::LOST;
use e2e::run::{Background, Program, random_pause, wait_until};
use serde_json::Value;

use crate::agents::other_build;
use crate::kills::{kill, processes};
use crate::state::{BACK, tool};

/// Instance, workflow, and the step at which its task is held up until the Coffer of before is
/// dead. A replaced agent takes its time by itself: its task may be at any step.
const STORIES: [(&str, &str, &str); 11] = [
    ("created", "create_instance", "ensure_volume"),
    ("deleted", "delete_instance", "delete_volume"),
    ("stopped", "stop_instance", "stop_server"),
    ("started", "start_instance", "ensure_server"),
    ("recovered", "recover_instance", "ensure_server"),
    ("restarted", "restart_instance", "push_spec"),
    ("opened", "update_access", "push_spec"),
    ("renewed", "renew_certificates", "enrol_guest"),
    ("peopled", "run_commands", "run"),
    ("peopled", "run_commands", "check"),
    ("replaced", "replace_agent", ""),
];
/// Instances that are there before.
const MADE: [&str; 9] = [
    "deleted",
    "stopped",
    "started",
    "recovered",
    "restarted",
    "opened",
    "renewed",
    "peopled",
    "replaced",
];
/// Instances whose databases are asked all the time; nothing that is done with them stops those.
const ASKED: [&str; 3] = ["renewed", "peopled", "replaced"];
/// The engine's process, by which another run is told.
const ENGINE: &str = "bin/redis-server";
const AGENT: &str = "coffer-guest agent";
/// How long something small may take.
const SOON: Duration = Duration::from_secs(30);
/// How long all tasks together may take to come to their steps, and to end.
const ALL_MAX: Duration = Duration::from_secs(120);
/// Longest time between two questions.
const PACE: Duration = Duration::from_millis(150);

/// Every task with its instance's name.
const TASKS: &str = "
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=10)
rows = db.execute('SELECT i.name, t.workflow, t.step, t.state, t.id, t.error FROM tasks t'
                  ' JOIN instances i ON i.id = t.instance_id ORDER BY t.id')
print(json.dumps([row[:2] + (json.loads(row[2])['step'],) + row[3:] for row in rows]))
";
/// Makes the certificates of an instance as old as they get.
const AGE: &str = "
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute('UPDATE tasks SET updated_at = 1 WHERE instance_id = ?', (sys.argv[2],))
db.commit()
db.close()
";

/// A task as the store has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) workflow: String,
    pub(crate) step: String,
    pub(crate) state: String,
    pub(crate) id: String,
    pub(crate) error: String,
}

impl Stored {
    fn is_ended(&self) -> bool {
        ["done", "failed", "cancelled"].contains(&self.state.as_str())
    }

    /// Whether it is what a story tells of.
    fn is_at(&self, (name, workflow, step): (&str, &str, &str)) -> bool {
        let is_its = self.name == name && self.workflow == workflow && !self.is_ended();
        is_its && (step.is_empty() || self.step == step)
    }
}

pub(crate) fn store(coffer: &Coffer) -> String {
    coffer.dir().join("coffer.db").display().to_string()
}

pub(crate) fn tasks(coffer: &Coffer) -> Result<Vec<Stored>> {
    let told = Program::new("python3", ["-c", TASKS, &store(coffer)]);
    let rows: Vec<Vec<Value>> = serde_json::from_value(told.run()?.json()?)?;
    let stored = |row: Vec<Value>| {
        let text = |n: usize| row[n].as_str().unwrap_or_default().to_owned();
        Stored {
            name: text(0),
            workflow: text(1),
            step: text(2),
            state: text(3),
            id: text(4),
            error: text(5),
        }
    };
    Ok(rows.into_iter().map(stored).collect())
}

/// Programs of the Coffer of before, if whoever runs the test names them.
#[expect(
    clippy::disallowed_methods,
    reason = "whoever runs the test says which Coffer was before"
)]
fn previous() -> Option<PathBuf> {
    std::env::var("COFFER_PREVIOUS").ok().map(PathBuf::from)
}

/// An object of the local provider that nobody else can work with until this is dropped.
pub(crate) struct Hold {
    _file: File,
}

impl Hold {
    pub(crate) fn take(coffer: &Coffer, key: &str) -> Result<Self> {
        let path = coffer.dir().join("local/locks").join(key);
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("open {}", path.display()))?;
        wait_until(SOON, || Ok(file.try_lock().is_ok().then_some(())))
            .with_context(|| format!("hold {key}"))?;
        Ok(Self { _file: file })
    }
}

/// Lets processes stand still.
fn freeze(pids: &[u32]) -> Result<()> {
    for pid in pids {
        Program::new("kill", ["-STOP", &pid.to_string()])
            .run()?
            .ok()?;
    }
    Ok(())
}

/// Lets them go on; those that ended meanwhile do not.
fn thaw(pids: &[u32]) -> Result<()> {
    for pid in pids {
        Program::new("kill", ["-CONT", &pid.to_string()]).run()?;
    }
    Ok(())
}

/// Asks several databases, one after the other, each time on a new connection.
struct Asking {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<usize>>,
}

impl Asking {
    fn start(databases: Vec<KeyValue>) -> Self {
        let is_over = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut round = 0;
            while !over.load(Ordering::Relaxed) {
                round += 1;
                for one in &databases {
                    let told = one.told(&["INCR", "asked"])?;
                    ensure!(told == round.to_string(), "{told}, not {round}: {one:?}");
                }
                random_pause(PACE)?;
            }
            Ok(round)
        });
        Self { is_over, thread }
    }

    /// How often each was asked; that any question failed is an error.
    fn end(self) -> Result<usize> {
        self.is_over.store(true, Ordering::Relaxed);
        let ended = self.thread.join();
        ended.map_err(|_| anyhow::anyhow!("the client panicked"))?
    }
}

/// The Coffer under test, with what it runs.
struct World {
    coffer: Coffer,
    redis: String,
    valkey: String,
    /// What was answered when each was asked for.
    answers: BTreeMap<&'static str, Value>,
}

impl World {
    /// The Coffer of before, with instances in service.
    fn start() -> Result<Self> {
        let first = |engine| versions("living_versions", engine).into_iter().next();
        let redis = first("redis").context("no redis")?;
        let valkey = first("valkey").context("no valkey")?;
        build_root(&format!("redis-{redis}"))?;
        build_root(&format!("valkey-{valkey}"))?;
        // Volumes for all of them would not fit into the pool that tests have otherwise.
        let mut coffer = Coffer::prepare("up", &["--set", "local.volume_mode=fast"])?;
        coffer.expect_lines(LOST);
        coffer.expect_lines(&["remove what a killed process was writing"]);
        coffer.use_programs(previous());
        coffer.up()?;
        let mut world = Self {
            coffer,
            redis,
            valkey,
            answers: BTreeMap::new(),
        };
        for name in MADE {
            world.ask(name, "redis")?;
        }
        for name in MADE {
            world.coffer.await_active(world.id(name)?)?;
        }
        Ok(world)
    }

    /// Asks for an instance and does not wait; all but one are published from the start.
    fn ask(&mut self, name: &'static str, engine: &str) -> Result<()> {
        let version = match engine {
            "redis" => self.redis.as_str(),
            _ => self.valkey.as_str(),
        };
        let mut words = vec!["--json", "instance", "create", name, "--flavor", "tiny"];
        words.extend(["--datastore", engine, "--datastore-version", version]);
        words.extend(["--user", "joe"]);
        words.extend((name != "opened").then_some("--public"));
        let answer = self.coffer.coffer(&words)?.json()?;
        self.answers.insert(name, answer);
        Ok(())
    }

    fn answer(&self, name: &str) -> Result<&Value> {
        let found = self.answers.get(name);
        found.with_context(|| format!("{name} was not asked for"))
    }

    fn id(&self, name: &str) -> Result<&str> {
        self.answer(name)?["id"].as_str().context("no id")
    }

    fn database(&self, name: &str) -> Result<KeyValue> {
        let kind = match name {
            "created" => ("valkey", self.valkey.as_str()),
            _ => ("redis", self.redis.as_str()),
        };
        KeyValue::of(&self.coffer, kind, self.id(name)?, self.answer(name)?)
    }

    /// Processes of an instance, of which there are some. While records of others come and go
    /// none may be found.
    fn processes(&self, name: &str, word: &str) -> Result<Vec<u32>> {
        let id = self.id(name)?;
        wait_until(SOON, || {
            let found = processes(&self.coffer, id, word)?;
            Ok((!found.is_empty()).then_some(found))
        })
        .with_context(|| format!("nothing of {name} is '{word}'"))
    }

    /// Runs the verb of an instance and does not wait for what it begins.
    fn verb(&self, words: &[&str]) -> Result<()> {
        let words: Vec<_> = ["instance"]
            .into_iter()
            .chain(words.iter().copied())
            .collect();
        self.coffer.coffer(&words)?.ok().map(drop)
    }

    /// Ids of an instance's server and volume.
    fn parts(&self, name: &str) -> Result<(String, String)> {
        let id = self.id(name)?;
        let server = host::servers(self.coffer.dir())?;
        let server = server.into_iter().find(|one| one.instance_id == id);
        let server = server.with_context(|| format!("{name} has no server"))?.id;
        let record = self.coffer.dir().join("local/servers");
        let record = fs::read_to_string(record.join(format!("{server}.json")))?;
        let record: Value = serde_json::from_str(&record)?;
        let volume = record["volume_id"]
            .as_str()
            .context("no volume")?
            .to_owned();
        Ok((server, volume))
    }

    /// Starts the Coffer of before once more, with agents to replace and certificates that are old.
    /// Agents that stand still hear of neither.
    fn start_again(&mut self) -> Result<Vec<u32>> {
        self.verb(&["stop", "started", "--wait"])?;
        self.coffer.stop()?;
        let aged = self.id("renewed")?;
        let age = Program::new("python3", ["-c", AGE, &store(&self.coffer), aged]);
        age.run()?.ok()?;
        let mut still = Vec::new();
        for name in MADE.into_iter().filter(|name| *name != "started") {
            still.extend(self.processes(name, AGENT)?);
        }
        freeze(&still)?;
        let next = other_build(&self.coffer)?.display().to_string();
        let word = format!("local.guest_binary={next}");
        self.coffer.add_words(&["--set", &word]);
        self.coffer.up()?;
        Ok(still)
    }

    /// What keeps tasks from going on that need no guest.
    fn hold(&self) -> Result<Vec<Hold>> {
        let volume = |name: &str| Ok::<_, anyhow::Error>(format!("volume-{}", self.parts(name)?.1));
        let server = |name: &str| Ok::<_, anyhow::Error>(format!("server-{}", self.parts(name)?.0));
        let root = tree(&self.coffer, &format!("valkey-{}", self.valkey))?;
        let root = root.parent().and_then(Path::file_name).context("no root")?;
        let keys = [
            format!("template-{}", root.to_string_lossy()),
            volume("deleted")?,
            volume("stopped")?,
            server("started")?,
            server("recovered")?,
        ];
        keys.iter()
            .map(|key| Hold::take(&self.coffer, key))
            .collect()
    }

    /// Asks for something of each kind, and waits until every task is where it is held up.
    fn begin(&mut self) -> Result<Vec<Background>> {
        kill(&self.processes("recovered", "")?)?;
        self.ask("created", "valkey")?;
        self.verb(&["delete", "deleted"])?;
        self.verb(&["stop", "stopped"])?;
        self.verb(&["start", "started"])?;
        self.verb(&["restart", "restarted"])?;
        self.verb(&["set", "opened", "--public", "true"])?;
        // These answer when they are done, which they are not before the end of who would answer.
        let mut waiting = vec![self.coffer.begin(&["root", "enable", "peopled"])?];
        self.await_stories(|story| story.2 == "run")?;
        let user = ["database-user", "create", "peopled", "ann"];
        waiting.push(self.coffer.begin(&user)?);
        self.await_stories(|story| !story.2.is_empty())?;
        Ok(waiting)
    }

    fn await_stories(&self, is_wanted: impl Fn(&(&str, &str, &str)) -> bool) -> Result<()> {
        let wanted: Vec<_> = STORIES.into_iter().filter(|one| is_wanted(one)).collect();
        wait_until(ALL_MAX, || {
            let tasks = tasks(&self.coffer)?;
            let is_there = |story| tasks.iter().any(|task| task.is_at(story));
            Ok(wanted.iter().copied().all(is_there).then_some(()))
        })
        .with_context(|| {
            format!(
                "{wanted:?}\n{:#?}\n{}",
                tasks(&self.coffer),
                self.coffer.log()
            )
        })
    }

    /// Kills the Coffer of before as soon as it has begun to replace an agent, which then takes it
    /// seconds; gives the tasks that it had in hand.
    fn cut_off(&mut self) -> Result<Vec<Stored>> {
        thaw(&self.processes("replaced", AGENT)?)?;
        let is_asked = || {
            let log = self.coffer.log();
            Ok(log.contains("replace the agent").then_some(()))
        };
        wait_until(SOON, is_asked).with_context(|| self.coffer.log())?;
        self.coffer.kill()?;
        let all = tasks(&self.coffer)?;
        let failed: Vec<_> = all.iter().filter(|task| task.state == "failed").collect();
        ensure!(failed.is_empty(), "{failed:#?}\n{}", self.coffer.log());
        let open: Vec<_> = all.into_iter().filter(|task| !task.is_ended()).collect();
        for story in STORIES {
            let is_there = open.iter().any(|task| task.is_at(story));
            ensure!(is_there, "nothing of {story:?} is in flight: {open:#?}");
        }
        Ok(open)
    }

    /// Brings the store to this build's schema, and starts this build.
    fn upgrade(&mut self) -> Result<()> {
        if previous().is_none() {
            let back = Program::new("python3", ["-c", BACK, &store(&self.coffer)]);
            back.run()?.ok()?;
        }
        self.coffer.use_programs(None);
        let told = tool(&self.coffer, &["upgrade"])?.ok()?;
        let is_moved = told.contains("from schema ");
        ensure!(is_moved || previous().is_some(), "{told}");
        println!("{}", told.trim());
        let own = binary("coffer-guest")?.display().to_string();
        let word = format!("local.guest_binary={own}");
        self.coffer.add_words(&["--set", &word]);
        self.coffer.up()
    }

    /// Waits until the tasks have ended, and sees that they ended well.
    fn await_ends(&self, in_flight: &[Stored]) -> Result<()> {
        let ended = wait_until(ALL_MAX, || {
            let now = tasks(&self.coffer)?;
            let of_then = now
                .into_iter()
                .filter(|task| in_flight.iter().any(|then| then.id == task.id));
            let of_then: Vec<_> = of_then.collect();
            let is_over = of_then.len() == in_flight.len() && of_then.iter().all(Stored::is_ended);
            Ok(is_over.then_some(of_then))
        });
        let ended =
            ended.with_context(|| format!("{:#?}\n{}", tasks(&self.coffer), self.coffer.log()))?;
        match ended.iter().find(|task| task.state != "done") {
            None => Ok(()),
            Some(bad) => bail!("{bad:#?}\n{}", self.coffer.log()),
        }
    }

    /// Everything is as it was asked for.
    fn check(&self) -> Result<()> {
        let coffer = &self.coffer;
        let shown = coffer.show(self.id("stopped")?)?.context("it is gone")?;
        ensure!(shown["status"] == "SHUTDOWN", "{shown}");
        coffer.await_gone(self.id("deleted")?)?;
        let active = MADE
            .into_iter()
            .filter(|name| !["deleted", "stopped"].contains(name));
        for name in active.chain(["created"]) {
            coffer.await_active(self.id(name)?)?;
            self.database(name)?.await_answer()?;
        }
        for name in ["started", "restarted", "recovered"] {
            let kept = self.database(name)?.told(&["GET", "kept"])?;
            ensure!(kept == name, "{name} holds {kept}");
        }
        let root = coffer
            .coffer(&["--json", "root", "show", "peopled"])?
            .json()?;
        ensure!(root["rootEnabled"] == true, "{root}");
        let users = coffer.coffer(&["database-user", "list", "peopled"])?.ok()?;
        ensure!(users.contains("ann"), "{users}");
        for (name, code) in [
            ("renewed", "instance.certified"),
            ("replaced", "agent.replace"),
            ("recovered", "instance.recovered"),
        ] {
            let words = ["--json", "instance", "events", name];
            let events = coffer.coffer(&words)?.json()?.to_string();
            ensure!(events.contains(code), "no {code} in {events}");
        }
        Ok(())
    }
}

#[test]
fn a_task_of_each_workflow_in_flight_is_ended_well_after_an_upgrade() -> Result<()> {
    let mut world = World::start()?;
    for name in ["started", "restarted", "recovered"] {
        world.database(name)?.told(&["SET", "kept", name])?;
    }
    let asked: Result<Vec<_>> = ASKED.into_iter().map(|name| world.database(name)).collect();
    let engines = |world: &World, names: &[&str]| -> Result<Vec<Vec<u32>>> {
        names
            .iter()
            .map(|name| world.processes(name, ENGINE))
            .collect()
    };
    let stay = [&ASKED[..], &["opened"][..]].concat();
    let before = (engines(&world, &stay)?, engines(&world, &["restarted"])?);
    let asking = Asking::start(asked?);

    let still = world.start_again()?;
    let holds = world.hold()?;
    let waiting = world.begin()?;
    let in_flight = world.cut_off()?;
    drop(waiting);
    drop(holds);
    thaw(&still)?;
    world.upgrade()?;
    world.await_ends(&in_flight)?;
    world.check()?;

    let rounds = asking.end().context("a query failed")?;
    println!(
        "{} tasks in flight, {rounds} rounds of queries",
        in_flight.len()
    );
    ensure!(rounds > 20, "it was asked {rounds} times only");
    ensure!(
        engines(&world, &stay)? == before.0,
        "an engine was restarted"
    );
    ensure!(
        engines(&world, &["restarted"])? != before.1,
        "it was not restarted"
    );
    Ok(())
}
