//! Redis and Valkey the whole way through: created, used over TLS by their own clients, killed,
//! deleted.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use coffer_testkit::counts::versions;
use e2e::coffer::Coffer;
use e2e::keyvalue::{KeyValue, Writing, build_root};
use e2e::run::{Ended, Program, wait_until};

use crate::kills;

/// Bound of whatever the guest does by itself.
const GUEST_MAX: Duration = Duration::from_secs(30);
/// What a flush each second may lose: the engine begins one each second and holds its writes back
/// for two while one lasts; a busy machine is a moment late.
const EVERYSEC_LOSS_MAX: Duration = Duration::from_secs(3);
/// Clients that write at once, and what they have written when the engine is killed.
const WRITERS: usize = 4;
const WRITTEN_MIN: u64 = 50;

#[expect(
    clippy::disallowed_methods,
    reason = "tests of real processes measure real time"
)]
fn now() -> Instant {
    Instant::now()
}

/// Creates, asks, makes users, restarts, kills and deletes.
fn lives(coffer: &Coffer, engine: &str, version: &str) -> Result<()> {
    let name = format!("{engine}-{}", version.replace('.', "-"));
    let db = KeyValue::create(coffer, engine, version, &name)?;
    is_encrypted(coffer, &db)?;
    as_configured(&db, engine, version)?;
    db.told(&["SET", "kept", "7"])?;
    // A script's writes are one transaction in the engine's file.
    let both = "redis.call('SET', 'both', '8') return redis.call('SET', 'kept', '7')";
    db.told(&["EVAL", both, "0"])?;
    users(coffer, &db, &name)?;
    if engine == "redis" {
        // One code answers for both, and the stock clients take their time.
        no_databases(coffer, &name)?;
    }
    root(coffer, &db, &name)?;
    restarts(coffer, &db, &name)?;
    visits(coffer, &db, &name)?;
    outlives_kills(coffer, &db, engine)?;
    outlives_the_host(coffer, &db, engine)?;
    logs(coffer, &db, engine)?;
    coffer
        .coffer(&["instance", "delete", &name, "--wait"])?
        .ok()?;
    Ok(())
}

/// Nothing is answered without TLS; the certificate is of the project's CA and names the address.
fn is_encrypted(coffer: &Coffer, db: &KeyValue) -> Result<()> {
    ensure!(db.told(&["PING"])? == "PONG");
    ensure!(db.is_trusted_by(db.ca())?);
    let other = coffer.dir().join("ca.pem");
    ensure!(
        !db.is_trusted_by(&other)?,
        "another CA's certificate is good"
    );
    let plain = ["-h", &db.address, "-p", "6379"].map(str::to_owned);
    let answer = db.ask_with(&plain, "joe", &db.password, &["PING"])?;
    ensure!(answer.out.trim() != "PONG", "answered without TLS");
    let (at, ca) = (
        format!("{}:6379", db.address),
        db.ca().display().to_string(),
    );
    let verify = |name: &str| {
        let words = ["s_client", "-connect", &at, "-CAfile", &ca, "-brief"];
        let more = ["-verify_return_error", "-verify_ip", name];
        Program::new("openssl", words.into_iter().chain(more)).run()
    };
    ensure!(verify(&db.address)?.code == 0, "{:?}", verify(&db.address)?);
    ensure!(verify("192.0.2.1")?.code != 0, "any address is good");
    let nobody = db.ask_as("joe", "wrong", &["PING"])?;
    ensure!(nobody.out.trim() != "PONG", "a wrong password is good");
    Ok(())
}

/// It is the version asked for, and born ready for what comes.
fn as_configured(db: &KeyValue, engine: &str, version: &str) -> Result<()> {
    let server = db.told(&["INFO", "server"])?;
    ensure!(
        server.contains(&format!("{engine}_version:{version}.")),
        "{server}"
    );
    let persistence = db.told(&["INFO", "persistence"])?;
    ensure!(persistence.contains("aof_enabled:1"), "{persistence}");
    let memory = db.told(&["INFO", "memory"])?;
    // The flavor `small`: half of what 512 MiB leave.
    ensure!(memory.contains("maxmemory:251658240"), "{memory}");
    ensure!(memory.contains("maxmemory_policy:noeviction"), "{memory}");
    Ok(())
}

fn users(coffer: &Coffer, db: &KeyValue, name: &str) -> Result<()> {
    let made = coffer
        .coffer(&["--json", "database-user", "create", name, "ann"])?
        .json()?;
    let password = made["password"].as_str().context("no password")?.to_owned();
    let is_in = |user: &str, password: &str| -> Result<bool> {
        Ok(db.ask_as(user, password, &["GET", "kept"])?.out.trim() == "7")
    };
    ensure!(is_in("ann", &password)?);
    let openstack = |words: &str| -> Result<String> {
        let words: Vec<&str> = ["database", "user"]
            .into_iter()
            .chain(words.split(' '))
            .collect();
        coffer.openstack(&words)?.ok()
    };
    let renamed = format!("update attributes {name} ann --new_name grün-'1\"#>");
    openstack(&renamed)?;
    ensure!(
        is_in("grün-'1\"#>", &password)?,
        "renamed with its password"
    );
    ensure!(!is_in("ann", &password)?, "the old name is good");
    let listed = openstack(&format!("list {name}"))?;
    ensure!(
        listed.contains("grün-'1\"#>") && listed.contains("joe"),
        "{listed}"
    );
    ensure!(
        !listed.contains("coffer") && !listed.contains("default"),
        "{listed}"
    );
    coffer
        .client("trove", &["user-delete", name, "grün-'1\"#>"])?
        .ok()?;
    ensure!(!is_in("grün-'1\"#>", &password)?, "a deleted user is in");
    let refused = coffer.openstack(&["database", "user", "create", name, "default", "pw"])?;
    ensure!(
        refused.code != 0 && refused.err.contains("400"),
        "{refused:?}"
    );
    Ok(())
}

/// Databases and grants are refused with the reason, by every client.
fn no_databases(coffer: &Coffer, name: &str) -> Result<()> {
    let openstack = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        coffer.openstack(&words)
    };
    let refused = [
        openstack(&format!("database db create {name} shop"))?,
        openstack(&format!("database db list {name}"))?,
        openstack(&format!(
            "database user create {name} eve pw --databases shop"
        ))?,
        openstack(&format!("database user grant access {name} joe shop"))?,
        openstack(&format!("database user revoke access {name} joe shop"))?,
        coffer.client("trove", &["database-create", name, "shop"])?,
    ];
    for ended in refused {
        let text = format!("{}{}", ended.out, ended.err);
        ensure!(
            ended.code != 0 && text.contains("numbered") && text.contains("501"),
            "{ended:?}"
        );
    }
    Ok(())
}

fn root(coffer: &Coffer, db: &KeyValue, name: &str) -> Result<()> {
    let closed = db.ask_as("default", "x", &["PING"])?;
    ensure!(
        closed.out.trim() != "PONG",
        "root is enabled from the start"
    );
    let words = ["database", "root", "enable", name, "-f", "json"];
    let made = coffer.openstack(&words)?.json()?;
    ensure!(made["name"] == "default", "{made}");
    let password = made["password"].as_str().context("no password")?.to_owned();
    let get = |what: &str| -> Result<String> {
        db.ask_as("default", &password, &["CONFIG", "GET", what])?
            .ok()
    };
    for (setting, value) in [
        ("appendonly", "yes"),
        ("appendfsync", "everysec"),
        ("aof-timestamp-enabled", "yes"),
        ("port", "0"),
        ("enable-debug-command", "no"),
    ] {
        let found = get(setting)?;
        ensure!(found.trim() == format!("{setting}\n{value}"), "{found}");
    }
    let refused = db.ask_as("default", &password, &["CONFIG", "SET", "dir", "/tmp"])?;
    ensure!(refused.out.starts_with("NOPERM"), "{refused:?}");
    let shown = coffer
        .openstack(&["database", "root", "show", name])?
        .ok()?;
    ensure!(shown.contains("True"), "{shown}");
    coffer
        .openstack(&["database", "root", "disable", name])?
        .ok()?;
    let closed = db.ask_as("default", &password, &["PING"])?;
    ensure!(closed.out.trim() != "PONG", "root was disabled, and let in");
    Ok(())
}

/// Data, users and the certificate outlive a restart, and a stop and start.
fn restarts(coffer: &Coffer, db: &KeyValue, name: &str) -> Result<()> {
    let run_id = || -> Result<String> {
        let server = db.told(&["INFO", "server"])?;
        let line = server.lines().find(|line| line.starts_with("run_id:"));
        Ok(line.context("no run id")?.trim().to_owned())
    };
    for verbs in [["restart", ""], ["stop", "start"]] {
        let before = run_id()?;
        for verb in verbs.iter().filter(|verb| !verb.is_empty()) {
            coffer.coffer(&["instance", verb, name, "--wait"])?.ok()?;
        }
        coffer.await_active(&db.id)?;
        ensure!(run_id()? != before, "the engine was restarted");
        ensure!(db.told(&["GET", "kept"])? == "7", "data outlive {verbs:?}");
        ensure!(
            db.told(&["GET", "both"])? == "8",
            "transactions outlive {verbs:?}"
        );
    }
    Ok(())
}

/// `coffer connect` runs the engine's client as a user who is gone after.
fn visits(coffer: &Coffer, db: &KeyValue, name: &str) -> Result<()> {
    let words = ["connect", name, "--", "ACL", "WHOAMI"];
    let told = coffer.coffer(&words)?.ok()?;
    ensure!(told.trim().starts_with("coffer_visitor_"), "{told}");
    let gone = || {
        let users = db.ask_inside(coffer, &["ACL", "USERS"])?.ok()?;
        Ok((!users.contains("coffer_visitor_")).then_some(()))
    };
    wait_until(GUEST_MAX, gone).context("the visitor goes")?;
    let file = coffer.dir().join("password");
    std::fs::write(&file, format!("{}\n", db.password))?;
    let file = file.display().to_string();
    let words = ["connect", name, "--user", "joe", "--password-file", &file];
    let words: Vec<&str> = words.into_iter().chain(["--", "GET", "kept"]).collect();
    let told = coffer.coffer(&words)?.ok()?;
    ensure!(told.trim() == "7", "{told}");
    Ok(())
}

/// Clients that write, each to a list of its own, after they have begun.
fn begin_writing(db: &KeyValue, why: &str) -> Result<Vec<(String, Writing)>> {
    let lists = (0..WRITERS).map(|n| format!("{why}-{n}"));
    let writers: Vec<_> = lists
        .map(|list| (list.clone(), db.begin_writing(&list)))
        .collect();
    let has_begun = || {
        let mut least = u64::MAX;
        for (list, _) in &writers {
            least = least.min(db.told(&["LLEN", list])?.parse()?);
        }
        Ok((least >= WRITTEN_MIN).then_some(()))
    };
    wait_until(GUEST_MAX, has_begun).context("the writers get on")?;
    Ok(writers)
}

/// What was lost of what was acknowledged: how long before `end` the first lost one was
/// acknowledged.
fn loss(found: usize, acknowledged: &[Instant], end: Instant) -> Option<Duration> {
    let lost = acknowledged.get(found..).and_then(<[_]>::first);
    lost.map(|first| end.saturating_duration_since(*first))
}

/// A kill of the process: with every write flushed before it is acknowledged none is lost; with a
/// flush each second only what the engine had not given to the kernel yet.
fn outlives_kills(coffer: &Coffer, db: &KeyValue, engine: &str) -> Result<()> {
    for (policy, loss_max) in [("always", Duration::ZERO), ("everysec", EVERYSEC_LOSS_MAX)] {
        let set = ["CONFIG", "SET", "appendfsync", policy];
        db.ask_inside(coffer, &set)?.ok()?;
        let writers = begin_writing(db, &format!("kill-{policy}"))?;
        let process = format!("bin/{engine}-server");
        let engines = kills::processes(coffer, &db.id, &process)?;
        ensure!(!engines.is_empty(), "no {process} runs");
        kills::kill(&engines)?;
        let killed = now();
        db.await_answer()?;
        for (list, writer) in writers {
            let acknowledged = writer.end()?;
            let found: usize = db.told(&["LLEN", &list])?.parse()?;
            let lost = loss(found, &acknowledged, killed);
            let count = acknowledged.len();
            eprintln!("{engine}, kill, {policy}: {count} acknowledged, {found} there, {lost:?}");
            // The client asks once more when its connection breaks, without a word.
            ensure!(found <= count + 2, "{list}: {found} of {count} are there");
            let is_good = lost.is_none_or(|age| !loss_max.is_zero() && age <= loss_max);
            ensure!(
                is_good,
                "{list}: {found} of {count}, the first lost {lost:?} before"
            );
        }
        ensure!(db.told(&["GET", "kept"])? == "7");
        coffer.await_active(&db.id)?;
    }
    Ok(())
}

/// A mount that goes with the test.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        let path = self.0.display().to_string();
        if let Err(error) = Program::new("umount", ["-d", &path])
            .run()
            .and_then(Ended::ok)
        {
            eprintln!("{error:#}");
        }
    }
}

/// The volume's blocks as they are at one instant, mounted: what a power cut would leave, without
/// what only the file system in the sandbox holds in memory.
fn cut_power(coffer: &Coffer) -> Result<(Mounted, Instant)> {
    let pool = coffer.dir().join("local/pool");
    let all = std::fs::read_dir(pool.join("volumes"))?.flatten();
    let images: Vec<_> = all
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "img"))
        .collect();
    let [image] = images.as_slice() else {
        anyhow::bail!("one volume was expected: {images:?}")
    };
    let copy = pool.join("cut.img");
    let (from, to) = (image.display().to_string(), copy.display().to_string());
    let cut = now();
    Program::new("cp", ["--reflink=always", &from, &to])
        .run()?
        .ok()?;
    let at = coffer.dir().join("cut");
    std::fs::create_dir_all(&at)?;
    let place = at.display().to_string();
    // The same file system is mounted twice now, so that its number is not unique.
    Program::new("mount", ["-o", "loop,nouuid", &to, &place])
        .run()?
        .ok()?;
    let mounted = Mounted(at);
    std::fs::remove_file(copy)?;
    Ok((mounted, cut))
}

/// The end of the host's power: as the end of the process, but what the kernel had not written
/// to the disk is gone too.
fn outlives_the_host(coffer: &Coffer, db: &KeyValue, engine: &str) -> Result<()> {
    for (policy, loss_max) in [("always", Duration::ZERO), ("everysec", EVERYSEC_LOSS_MAX)] {
        let set = ["CONFIG", "SET", "appendfsync", policy];
        db.ask_inside(coffer, &set)?.ok()?;
        let writers = begin_writing(db, &format!("cut-{policy}"))?;
        let begun = now();
        wait_until(GUEST_MAX, || {
            Ok((begun.elapsed() > EVERYSEC_LOSS_MAX).then_some(()))
        })?;
        let (mounted, cut) = cut_power(coffer)?;
        let mut acknowledged = Vec::new();
        for (list, writer) in writers {
            acknowledged.push((list, writer.end()?));
        }
        let copy = db.serve_copy(&mounted.0.join("engine"))?;
        for (list, acknowledged) in acknowledged {
            let found: usize = copy.ask(&["LLEN", &list])?.ok()?.trim().parse()?;
            let before = acknowledged.iter().filter(|at| **at < cut).count();
            let lost = loss(found, &acknowledged[..before], cut);
            eprintln!("{engine}, power, {policy}: {before} acknowledged, {found} there, {lost:?}");
            let is_good = lost.is_none_or(|age| !loss_max.is_zero() && age <= loss_max);
            ensure!(
                is_good,
                "{list}: {found} of {before}, the first lost {lost:?} before"
            );
        }
        drop(copy);
        drop(mounted);
    }
    Ok(())
}

/// The engine writes its log where logs are looked for, and no password into it.
fn logs(coffer: &Coffer, db: &KeyValue, engine: &str) -> Result<()> {
    let inside = format!(
        "/proc/{}/root/data/log/{engine}.log",
        coffer.sandbox(&db.id)?
    );
    let log = std::fs::read_to_string(&inside).with_context(|| inside.clone())?;
    ensure!(log.to_lowercase().contains("ready to accept"), "{log}");
    ensure!(!log.contains(&db.password), "the log shows a password");
    ensure!(
        !coffer.log().contains(&db.password),
        "Coffer's log shows it"
    );
    Ok(())
}

#[test]
fn redis_and_valkey_live_through_the_api() -> Result<()> {
    let of_engine = |engine: &'static str| {
        let versions = versions("living_versions", engine).into_iter();
        versions.map(move |version| (engine, version))
    };
    let versions: Vec<_> = of_engine("redis").chain(of_engine("valkey")).collect();
    for (engine, version) in &versions {
        build_root(&format!("{engine}-{version}"))?;
    }
    let mut coffer = Coffer::start()?;
    // Whether the conductor knows of a stop before it misses the guest is a matter of moments.
    coffer.expect_lines(&["guest is not heard"]);
    let before = coffer.traces()?;
    for (engine, version) in &versions {
        lives(&coffer, engine, version).with_context(|| format!("{engine} {version}"))?;
    }
    let left = coffer.traces()?;
    ensure!(left == before, "left on the host: {left:#?}");
    Ok(())
}
