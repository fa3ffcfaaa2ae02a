//! A superuser inside one instance tries to reach another tenant, the host and Coffer.
//!
//! The attempts stand in `attempts.pl`. The same text runs as root on the host, where each has to
//! work: so inside, an attempt fails because of the sandbox, and for the reason that is named here.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, Database};
use e2e::host;
use e2e::run::{Ended, Program, wait_until};

const ATTEMPTS: &str = include_str!("../../src/attempts.pl");
const ARP: &str = include_str!("../../src/arp.pl");
const SECURITY: &str = include_str!("../../../../docs/security.md");

/// The system call is refused.
const CALL: &[&str] = &["EPERM"];
/// The file is not there, or not for the engine.
const FILE: &[&str] = &["EACCES", "ENOENT"];
/// The file is there and cannot be written.
const WRITE: &[&str] = &["EACCES", "EROFS"];
/// Allowed on the host, as the tool's own fault would not be.
const DONE: &str = "done";
/// A connection that does not come about: no answer, no way, or nobody who answers for the address
/// in the own network, which the sandbox's own kernel says. A refusal would be an answer of the
/// other side: the wall is then none.
const UNREACHED: &[&str] = &["ETIMEDOUT", "ENETUNREACH", "EHOSTUNREACH"];
/// Addresses of the host that are the sandbox's own inside: its own loopback, where its own kernel
/// refuses what nobody listens on.
const LOOPBACK: &str = "127.";

/// Name, how the sandbox refuses, what the host says to the same attempt by root.
const EXPECTED: &[(&str, &[&str], &str)] = &[
    ("mount", CALL, DONE),
    ("mount-cgroups", CALL, DONE),
    ("remount-root-writable", CALL, DONE),
    ("unmount-proc", CALL, DONE),
    ("chroot", CALL, DONE),
    ("pivot-root", CALL, "EBUSY"),
    ("open-tree", CALL, DONE),
    ("unshare-user", CALL, DONE),
    ("unshare-mount", CALL, DONE),
    ("unshare-net", CALL, DONE),
    ("unshare-pid", CALL, DONE),
    ("clone-user", CALL, DONE),
    ("clone3", &["ENOSYS"], DONE),
    ("setns", CALL, DONE),
    ("ptrace", CALL, DONE),
    ("read-memory-of-another", CALL, DONE),
    ("take-descriptor-of-another", CALL, DONE),
    ("bpf", CALL, DONE),
    ("perf-events", CALL, DONE),
    ("keyctl", CALL, DONE),
    ("add-key", CALL, DONE),
    ("io-uring", CALL, DONE),
    ("userfaultfd", CALL, DONE),
    ("open-by-handle", CALL, "EINVAL"),
    ("load-module", CALL, "EBADF ENOSYS"),
    ("reboot", CALL, "EINVAL"),
    ("set-clock", CALL, "EINVAL"),
    ("set-host-name", CALL, DONE),
    ("kernel-log", CALL, DONE),
    ("become-root", CALL, DONE),
    ("make-device", CALL, DONE),
    ("open-loop-control", FILE, DONE),
    ("open-core-pattern", WRITE, DONE),
    ("cgroup-files", FILE, DONE),
    ("environment-of-init", FILE, DONE),
    ("memory-of-init", FILE, DONE),
    ("root-of-init", FILE, DONE),
    ("processes-of-others", &["EACCES"], DONE),
    ("kill-init", CALL, DONE),
    ("kill-agent", CALL, DONE),
    ("memory-of-agent", FILE, DONE),
    ("descriptors-of-agent", FILE, DONE),
    ("keys-of-agent", &["EACCES"], DONE),
    ("write-usr", WRITE, DONE),
    ("write-etc", WRITE, DONE),
    ("write-root", WRITE, DONE),
    ("write-guest-program", WRITE, DONE),
    ("files-of-host", FILE, DONE),
    ("run-own-program", &["EACCES"], DONE),
    ("vsock", CALL, DONE),
    ("packet-socket", CALL, DONE),
    ("raw-socket", CALL, DONE),
    ("netfilter-socket", CALL, DONE),
    ("set-interface-flags", CALL, DONE),
    ("set-interface-address", CALL, DONE),
    ("add-arp-entry", CALL, "EINVAL"),
    ("transparent-socket", CALL, DONE),
    ("control-open", &[DONE], DONE),
    ("control-write", &[DONE], DONE),
    ("control-run", &[DONE], DONE),
    ("control-kill", &[DONE], DONE),
    ("control-socket", &[DONE], DONE),
];

/// Attempts that are not in the table, because they differ from run to run.
const OTHERS: &[&str] = &[
    "arp-spoofing",
    "agent-without-key",
    "dial.coffer",
    "dial.host",
    "dial.victim-published",
    "dial.victim-private",
    "dial.victim-agent",
    "dial.neighbour-agent",
];

type Said = BTreeMap<String, String>;

fn read(printed: &str) -> Said {
    let lines = printed.lines().filter_map(|l| l.split_once('='));
    lines.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

/// Makes the attempts inside, as the engine's user, by the superuser's own means.
fn inside(coffer: &Coffer, db: &Database, words: &[String]) -> Result<Said> {
    let enabled = coffer.openstack(&["database", "root", "enable", &db.id, "-f", "json"])?;
    let enabled = enabled.json()?;
    let text = |key: &str| enabled[key].as_str().map(str::to_owned);
    let password = text("password").context("no password")?;
    let root = Database {
        password,
        ..db.clone()
    };
    ensure!(!ATTEMPTS.contains('\''), "it could not be quoted");
    let line = format!("perl -e '{ATTEMPTS}' {} 2>&1", words.join(" ")).replace('\'', "''");
    let sql = format!(
        "CREATE TEMP TABLE said (line text); COPY said FROM PROGRAM '{line}' (DELIMITER E'\\x01'); \
         SELECT line FROM said"
    );
    let user = text("name").context("no name")?;
    let words = format!("user={user} sslmode=require");
    Ok(read(&root.psql_with(&words, &sql)?.ok()?))
}

/// Makes the attempts as root in namespaces of their own on the host.
fn on_host(words: &[String]) -> Result<Said> {
    let mut line = vec!["-mnuip", "--fork", "--mount-proc", "perl", "-e", ATTEMPTS];
    line.push("apart=1");
    line.extend(words.iter().map(String::as_str));
    Ok(read(&Program::new("unshare", line).run()?.ok()?))
}

fn cgroup_file() -> &'static str {
    let version_1 = "memory/cgroup.procs";
    match Path::new("/sys/fs/cgroup").join(version_1).exists() {
        true => version_1,
        false => "cgroup.procs",
    }
}

/// What the attempts are told inside. The host's pid of a process is no use there.
fn words_inside(coffer: &Coffer, agent: u32) -> Result<Vec<String>> {
    let status = std::fs::read_to_string(format!("/proc/{agent}/status"))?;
    let pids = status.lines().find_map(|l| l.strip_prefix("NSpid:"));
    let pid = pids.and_then(|p| p.split_whitespace().last());
    Ok(vec![
        format!("cgroup={}", cgroup_file()),
        "init=1".to_owned(),
        format!("agent={}", pid.context("the agent has no pid inside")?),
        "agent_dir=/data/agent".to_owned(),
        "guest=/usr/lib/coffer/coffer-guest".to_owned(),
        format!("state_dir={}", coffer.dir().display()),
        "own_dir=.".to_owned(),
    ])
}

fn words_on_host(dir: &Path) -> Result<Vec<String>> {
    let dir = dir.display();
    std::fs::write(format!("{dir}/guest"), "")?;
    Ok(vec![
        format!("cgroup={}", cgroup_file()),
        "init=1".to_owned(),
        "agent=1".to_owned(),
        "agent_dir=/root".to_owned(),
        format!("guest={dir}/guest"),
        format!("state_dir={dir}"),
        format!("own_dir={dir}"),
    ])
}

fn netns(coffer: &Coffer, kind: &str, id: &str) -> Result<String> {
    let id = id.replace('-', "");
    Ok(format!("coffer-{}-{kind}-{id}", coffer.tag()?))
}

/// Runs something as root in an instance's own network namespace: more than its engine may.
fn in_netns(name: &str, words: &[&str]) -> Result<Ended> {
    let path = format!("--net=/run/netns/{name}");
    let line = [path.as_str()].into_iter().chain(words.iter().copied());
    Program::new("nsenter", line).run()
}

#[test]
fn every_attempt_is_refused() -> Result<()> {
    let coffer = Coffer::start_everywhere()?;
    // Two tenants' networks have the same addresses: the victim is to have one of its own.
    let admin = |name| coffer.admin(&["instance", "create", name, "--flavor", "tiny"]);
    admin("first")?.ok()?;
    admin("second")?.ok()?;
    let victim = coffer.create_for("admin", "victim")?;
    let neighbour = coffer.create("neighbour")?;
    let attacker = coffer.create("attacker")?;
    let servers = host::servers(coffer.dir())?;
    let server = |db: &Database| {
        let found = servers.iter().find(|s| s.instance_id == db.id);
        found.with_context(|| format!("{} has no server", db.id))
    };

    let (own, other) = (server(&attacker)?, server(&neighbour)?);
    let agent = host::process_of(&coffer.tag()?, &own.id, "coffer-guest agent")?;
    let mut words = words_inside(&coffer, agent)?;
    let dials = dials(&coffer, &victim, &other.address)?;
    words.extend(dials.iter().map(|(name, to)| format!("dial.{name}={to}")));
    words.push("dial.own=127.0.0.1:5432".to_owned());
    let said = inside(&coffer, &attacker, &words)?;
    refused(&said, &dials)?;

    let scratch = tempfile::tempdir_in("/var/tmp")?;
    let allowed = on_host(&words_on_host(scratch.path())?)?;
    for (name, _, control) in EXPECTED {
        let answer = allowed.get(*name).map_or("no answer", String::as_str);
        let is_good = control.split(' ').any(|c| c == answer);
        ensure!(
            is_good,
            "the attempt itself does not work: {name}: {answer}"
        );
    }
    reachable_where_allowed(&coffer, &victim, &dials)?;
    agent_wants_a_key(&netns(&coffer, "i", &own.id)?)?;
    arp_is_not_spoofed(&coffer, own, other)?;
    victim.await_answer()
}

fn refused(said: &Said, dials: &[(&'static str, String)]) -> Result<()> {
    for (name, reasons, _) in EXPECTED {
        let answer = said.get(*name).map_or("no answer", String::as_str);
        ensure!(reasons.contains(&answer), "{name}: {answer}; {said:#?}");
    }
    let dialled = |name: &str, to: &str| {
        let answer = said.get(&format!("dial.{name} {to}"));
        answer.map_or("no answer", String::as_str).to_owned()
    };
    ensure!(dialled("own", "127.0.0.1:5432") == DONE, "{said:#?}");
    for (name, to) in dials {
        let answer = dialled(name, to);
        let is_own = to.starts_with(LOOPBACK) && answer == "ECONNREFUSED";
        ensure!(
            is_own || UNREACHED.contains(&answer.as_str()),
            "{name} {to}: {answer}"
        );
    }
    Ok(())
}

/// Every listening port of Coffer's at every address of the host; the victim; the neighbour.
fn dials(
    coffer: &Coffer,
    victim: &Database,
    neighbour: &str,
) -> Result<Vec<(&'static str, String)>> {
    let mut all = Vec::new();
    let ports = host::listening_ports(coffer.pid().context("it runs")?)?;
    ensure!(ports.contains(&coffer.port()), "{ports:?}");
    let mut addresses = host::addresses()?;
    addresses.push("10.80.0.1".to_owned());
    for address in &addresses {
        all.extend(
            ports
                .iter()
                .map(|port| ("coffer", format!("{address}:{port}"))),
        );
        all.push(("host", format!("{address}:22")));
    }
    let private = coffer.address_for("admin", &victim.id, "private")?;
    all.push(("victim-published", format!("{}:5432", victim.address)));
    all.push(("victim-agent", format!("{private}:7070")));
    all.push(("victim-private", format!("{private}:5432")));
    all.push(("neighbour-agent", format!("{neighbour}:7070")));
    ensure!(
        private != neighbour,
        "the victim and the neighbour share an address"
    );
    Ok(all)
}

/// The same ports answer to whoever is allowed: a refusal is not for want of a listener.
fn reachable_where_allowed(
    coffer: &Coffer,
    victim: &Database,
    dials: &[(&'static str, String)],
) -> Result<()> {
    let dial = |to: &str| format!("dial.control={to}");
    let answered = |ended: Ended, to: &str| -> Result<()> {
        let said = read(&ended.ok()?);
        let answer = said.get(&format!("dial.control {to}"));
        ensure!(answer.is_some_and(|a| a == DONE), "{to}: {answer:?}");
        Ok(())
    };
    // Everything before the dials is skipped, so that it runs without namespaces of its own.
    let only_dials = ATTEMPTS.replacen("for (@attempts)", "for (())", 1);
    for (name, to) in dials {
        let is_local = host::addresses()?
            .iter()
            .any(|a| to.starts_with(&format!("{a}:")));
        // The relay's port is for this host's own addresses of loopback alone.
        let is_open = to.ends_with(&format!(":{}", coffer.port())) || to.starts_with("127.");
        if *name == "victim-published" || (*name == "coffer" && is_local && is_open) {
            let line = ["-e", &only_dials, &dial(to)];
            answered(Program::new("perl", line).run()?, to)?;
        }
    }
    let servers = host::servers(coffer.dir())?;
    let server = servers.iter().find(|s| s.instance_id == victim.id);
    let server = server.context("the victim has no server")?;
    let network = netns(coffer, "n", &server.network_id)?;
    for port in [5432, 7070] {
        let to = format!("{}:{port}", server.address);
        answered(
            in_netns(&network, &["perl", "-e", &only_dials, &dial(&to)])?,
            &to,
        )?;
    }
    Ok(())
}

/// The agent's port is reached from inside, and answers nobody without Coffer's key.
fn agent_wants_a_key(netns: &str) -> Result<()> {
    let get = |path: &str| {
        let url = format!("https://127.0.0.1:7070{path}");
        in_netns(
            netns,
            &["curl", "-sk", "-m", "5", "-w", "%{http_code}", &url],
        )
    };
    for path in ["/v1/status", "/v1/spec", "/v1/enrol", "/v1/inventory/users"] {
        let answer = get(path)?;
        // 56: the handshake was refused; 403: no certificate was shown.
        let is_refused = answer.code == 56 || answer.out.ends_with("403");
        ensure!(is_refused, "{path}: {answer:?}");
    }
    Ok(())
}

/// ARP answers in the neighbour's name change nothing; the attacker's own are heard.
fn arp_is_not_spoofed(
    coffer: &Coffer,
    own: &host::ServerFacts,
    neighbour: &host::ServerFacts,
) -> Result<()> {
    let (network, instance) = (
        netns(coffer, "n", &own.network_id)?,
        netns(coffer, "i", &own.id)?,
    );
    let evil = host::hardware_address(&instance)?;
    let true_address = host::hardware_address(&netns(coffer, "i", &neighbour.id)?)?;
    let entry = |address: &str| -> Result<String> {
        let line = ["ip", "neigh", "show", "to", address, "dev", "br0"];
        in_netns(&network, &line)?.ok()
    };
    let wrong = "02:00:00:00:00:99";
    for (address, hardware) in [
        (&neighbour.address, true_address.as_str()),
        (&own.address, wrong),
    ] {
        let line = [
            "ip", "neigh", "replace", address, "lladdr", hardware, "dev", "br0", "nud", "stale",
        ];
        in_netns(&network, &line)?.ok()?;
    }
    let spoof = format!("{}={evil}", neighbour.address);
    let honest = format!("{}={evil}", own.address);
    wait_until(Duration::from_secs(20), || {
        in_netns(&instance, &["perl", "-e", ARP, &spoof, &honest])?.ok()?;
        Ok(entry(&own.address)?.contains(&evil).then_some(()))
    })
    .context("an honest answer is heard")?;
    let now = entry(&neighbour.address)?;
    ensure!(now.contains(&true_address) && !now.contains(&evil), "{now}");
    Ok(())
}

#[test]
fn the_document_names_every_attempt() {
    let names = EXPECTED
        .iter()
        .map(|(name, ..)| *name)
        .chain(OTHERS.iter().copied());
    let mut names: Vec<_> = names.filter(|name| !name.starts_with("control-")).collect();
    let section = SECURITY.split("\n## ").find(|s| s.starts_with("Attempts"));
    let rows = section.into_iter().flat_map(str::lines);
    let mut named: Vec<_> = rows
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    names.sort_unstable();
    named.sort_unstable();
    assert_eq!(names, named, "docs/security.md and the attempts differ");
}
