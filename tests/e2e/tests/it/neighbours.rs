//! Two Coffers on one host: neither reaches what is the other's.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, Database};
use e2e::host;
use e2e::run::{Program, wait_until};

const STARTED: &str = "SELECT pg_postmaster_start_time()";
/// Two pools are reserved on the disk at once, of which neither holds much.
const SMALL: &[&str] = &["--set", "local.cow_pool_gib=4"];

/// As the superuser, a signal to every process that the engine's user may reach.
fn kill_everything(coffer: &Coffer, db: &Database) -> Result<()> {
    let enabled = coffer.openstack(&["database", "root", "enable", &db.id, "-f", "json"])?;
    let enabled = enabled.json()?;
    let text = |key: &str| enabled[key].as_str().map(str::to_owned);
    let root = Database {
        password: text("password").context("no password")?,
        ..db.clone()
    };
    let line = format!(
        "user={} sslmode=require",
        text("name").context("no root name")?
    );
    // Its own session dies of it.
    let sql = "COPY (SELECT 1) TO PROGRAM 'kill -KILL -1'";
    root.psql_with(&line, sql).map(drop)
}

#[test]
fn two_coffers_share_a_host_and_no_process() -> Result<()> {
    let (one, other) = (Coffer::start_with(SMALL)?, Coffer::start_with(SMALL)?);
    let attacker = one.create("attacker")?;
    // The other's first create makes its template meanwhile, in a sandbox under the same users.
    let (victim, rounds) = std::thread::scope(|scope| {
        let made = scope.spawn(|| other.create("victim"));
        let mut rounds = 0;
        while !made.is_finished() {
            one.coffer(&["instance", "restart", &attacker.id])?.ok()?;
            one.await_active(&attacker.id)?;
            rounds += 1;
        }
        let victim = made.join().expect("the create does not panic")?;
        anyhow::Ok((victim, rounds))
    })?;
    ensure!(rounds > 0, "no engine ended while the template was made");
    let uids = |coffer: &Coffer| -> Result<(u64, u64)> {
        let servers = host::servers(coffer.dir())?;
        Ok(servers.first().context("no server")?.uids)
    };
    ensure!(
        uids(&one)? == uids(&other)?,
        "the test shows nothing: the user ids differ"
    );
    let (before, own) = (victim.psql(STARTED)?.ok()?, attacker.psql(STARTED)?.ok()?);
    kill_everything(&one, &attacker)?;
    wait_until(Duration::from_secs(60), || {
        let now = attacker.psql(STARTED)?;
        Ok((now.code == 0 && now.out != own).then_some(()))
    })
    .context("the attacker's own engine was killed and is started again")?;
    ensure!(
        victim.psql(STARTED)?.ok()? == before,
        "another Coffer's engine was killed"
    );
    Ok(())
}

/// Makes one of everything that a Coffer makes, under its tag and without a record.
fn plant(coffer: &Coffer, id: &str) -> Result<BTreeSet<String>> {
    let tag = coffer.tag()?;
    let plain = id.replace('-', "");
    let run = |program: &str, words: &[&str]| Program::new(program, words).run()?.ok();
    for kind in ["i", "n"] {
        let name = format!("coffer-{tag}-{kind}-{plain}");
        run("ip", &["netns", "add", &name])?;
        run(
            "ip",
            &[
                "netns", "exec", &name, "nft", "add", "table", "inet", "coffer",
            ],
        )?;
    }
    let link = format!("c{tag}p{}", &plain[24..]);
    run(
        "ip",
        &[
            "link",
            "add",
            &link,
            "type",
            "veth",
            "peer",
            "name",
            &format!("x{tag}"),
        ],
    )?;
    run(
        "ip",
        &[
            "link",
            "set",
            &link,
            "alias",
            &format!("coffer-{tag}-e-{plain}"),
        ],
    )?;

    let volume = coffer.dir().join(format!("local/pool/volumes/{id}.img"));
    let volume = volume.display().to_string();
    run("truncate", &["-s", "320M", &volume])?;
    run("mkfs.xfs", &["-q", "-s", "size=4096", &volume])?;
    let device = run(
        "losetup",
        &["--find", "--show", "--sector-size", "4096", &volume],
    )?;
    let sandbox = coffer.dir().join(format!("local/sandboxes/{id}/data"));
    std::fs::create_dir_all(&sandbox)?;
    let at = sandbox.display().to_string();
    run("mount", &["-o", "nouuid", device.trim(), &at])?;

    // What a killed process was writing, and a lock that it held; no process has this id.
    for name in [
        format!("servers/{id}.part99999999"),
        format!("locks/server-{id}"),
    ] {
        std::fs::write(coffer.dir().join("local").join(name), "")?;
    }

    let found = Program::new(
        "find",
        [
            "/sys/fs/cgroup",
            "-type",
            "d",
            "-name",
            &format!("coffer-{tag}.*"),
        ],
    );
    let name = format!("coffer-{tag}.{id}");
    for group in found.run()?.out.lines() {
        let own = Path::new(group).with_file_name(&name);
        if !own.exists() {
            std::fs::create_dir(own)?;
        }
    }
    let groups = Program::new("find", ["/sys/fs/cgroup", "-type", "d", "-name", &name])
        .run()?
        .out;
    let group = groups.lines().next().context("no control group")?;
    let line = format!("echo $$ > {group}/cgroup.procs; exec sleep 600 > /dev/null 2>&1 &");
    run("sh", &["-c", &line])?;
    wait_until(Duration::from_secs(5), || {
        Ok((!host::processes_of(&tag, id, "sleep 600")?.is_empty()).then_some(()))
    })?;
    let mut all = coffer.traces()?;
    all.extend(
        host::processes_of(&tag, id, "sleep")?
            .iter()
            .map(u32::to_string),
    );
    Ok(all)
}

#[test]
fn what_no_row_knows_is_removed_and_nothing_else() -> Result<()> {
    let (mut one, other) = (Coffer::start_with(SMALL)?, Coffer::start_with(SMALL)?);
    one.expect_lines(&[
        "remove what the store does not know",
        "remove what a killed process",
    ]);
    let db = one.create("db1")?;
    other.create("db1")?;
    let (own, others) = (one.traces()?, other.traces()?);
    let id = "01900000-0000-7000-8000-00000000beef";
    let planted = plant(&one, id)?;
    let new = planted.difference(&own).count();
    // Two namespaces, a link, a mount, a loop device, a process, a group in each tree, and files:
    // a volume's, a sandbox's, a part, a lock.
    ensure!(new >= 12, "only {new} were planted: {planted:#?}");
    one.stop()?;
    one.up()?;
    wait_until(Duration::from_secs(60), || {
        Ok((one.traces()? == own).then_some(()))
    })
    .with_context(|| format!("left: {:#?}\n{}", one.traces(), one.log()))?;
    ensure!(host::processes_of(&one.tag()?, id, "sleep")?.is_empty());
    let volume = one.dir().join(format!("local/pool/volumes/{id}.img"));
    ensure!(!volume.exists(), "the volume's file is still there");
    ensure!(other.traces()? == others, "another Coffer lost something");
    db.await_answer()
}
