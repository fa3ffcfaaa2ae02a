//! A superuser inside one instance tries to reach another tenant, the host and Coffer.

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, Database};

/// A database whose superuser is hostile.
struct Hostile {
    db: Database,
    words: String,
}

impl Hostile {
    fn new(coffer: &Coffer, db: Database) -> Result<Self> {
        let enabled = coffer
            .openstack(&["database", "root", "enable", &db.id, "-f", "json"])?
            .json()?;
        let password = enabled["password"]
            .as_str()
            .context("no password")?
            .to_owned();
        let name = enabled["name"].as_str().context("no name")?.to_owned();
        let words = format!("user={name} sslmode=require");
        Ok(Self {
            db: Database { password, ..db },
            words,
        })
    }

    /// Runs a shell line as the engine's user; answers what it printed, with its exit code.
    fn shell(&self, line: &str) -> Result<String> {
        let quoted = line.replace('\'', "''");
        let sql = format!(
            "CREATE TEMP TABLE o (l text); COPY o FROM PROGRAM '({quoted}) 2>&1; echo rc=$?'; \
             SELECT string_agg(l, ' / ') FROM o"
        );
        self.db.psql_with(&self.words, &sql)?.ok()
    }

    /// The attempt fails: its exit code is not 0.
    fn refused(&self, attempt: &str, line: &str) -> Result<()> {
        let said = self.shell(line)?;
        ensure!(
            said.contains("rc=") && !said.contains("rc=0"),
            "{attempt}: {said}"
        );
        Ok(())
    }
}

#[test]
fn every_attempt_is_refused() -> Result<()> {
    let coffer = Coffer::start()?;
    let victim = coffer.create("victim")?;
    let db = coffer.create("attacker")?;
    let port = coffer.port();
    let hostile = Hostile::new(&coffer, db)?;
    ensure!(
        hostile.shell("id -u; true")?.contains("rc=0"),
        "the shell itself works"
    );

    hostile.refused("mount", "mount -t tmpfs none /tmp")?;
    hostile.refused("new mount namespace", "unshare -m true")?;
    hostile.refused("new user namespace", "unshare -U true")?;
    hostile.refused("join a namespace", "nsenter -t 1 -m true")?;
    hostile.refused("read init's memory map", "cat /proc/1/maps")?;
    hostile.refused("read the environment of init", "cat /proc/1/environ")?;
    hostile.refused("signal init", "kill -9 1")?;
    hostile.refused("read the agent's keys", "cat /data/agent/* /data/agent/.*")?;
    hostile.refused("list the agent's directory", "ls /data/agent")?;
    hostile.refused("write the root", "touch /usr/x || touch /etc/x")?;
    hostile.refused(
        "write the guest program",
        "sh -c 'echo > /usr/lib/coffer/coffer-guest'",
    )?;
    hostile.refused(
        "see the host's files",
        "ls /var/lib/coffer /work /root/.ssh",
    )?;
    hostile.refused(
        "write a cgroup",
        "sh -c 'echo 1 > /sys/fs/cgroup/memory/memory.limit_in_bytes'",
    )?;
    hostile.refused("make a device", "mknod /tmp/sda b 8 0")?;
    hostile.refused("become root", "su -c true root")?;
    for (attempt, code) in [
        ("vsock", "socket(S, 40, SOCK_STREAM, 0)"),
        ("packet socket", "socket(S, 17, SOCK_RAW, 0)"),
        (
            "raw socket, as ARP and ICMP spoofing need",
            "socket(S, AF_INET, SOCK_RAW, 1)",
        ),
    ] {
        let line = format!("perl -MSocket -e '{code} or exit 7'");
        hostile.refused(attempt, &line)?;
    }
    hostile.refused(
        "ptrace",
        "perl -e 'exit(syscall(101, 16, getppid(), 0, 0) == 0 ? 0 : 7)'",
    )?;
    hostile.refused("bpf", "perl -e 'exit(syscall(321, 0, 0, 0) >= 0 ? 0 : 7)'")?;
    hostile.refused(
        "keyctl",
        "perl -e 'exit(syscall(250, 0, -3, 0) >= 0 ? 0 : 7)'",
    )?;

    // The tools themselves work, so that a refusal is the sandbox's.
    let socket = "perl -MSocket -e 'socket(S, AF_INET, SOCK_STREAM, 0) or exit 7'";
    ensure!(
        hostile.shell(socket)?.contains("rc=0"),
        "a plain socket can be made"
    );
    let dial = |address: &str, port: u16| {
        format!(
            "perl -MIO::Socket::INET -e 'exit(IO::Socket::INET->new(PeerAddr => \"{address}\", \
             PeerPort => {port}, Timeout => 2) ? 0 : 7)'"
        )
    };
    let own = hostile.shell(&dial("127.0.0.1", 5432))?;
    ensure!(
        own.contains("rc=0"),
        "the engine's own port is reached: {own}"
    );
    hostile.refused("the victim's published port", &dial(&victim.address, 5432))?;
    for host in ["127.0.0.1", "100.64.0.1", "10.80.0.1"] {
        hostile.refused("Coffer's API", &dial(host, port))?;
    }
    let private = coffer.show(&victim.id)?.context("the victim is there")?;
    let private = private["addresses"]
        .as_array()
        .and_then(|all| all.iter().find(|a| a["type"] == "private"))
        .and_then(|a| a["address"].as_str())
        .context("no private address")?
        .to_owned();
    hostile.refused("the victim's agent", &dial(&private, 7070))?;
    victim.await_answer()
}
