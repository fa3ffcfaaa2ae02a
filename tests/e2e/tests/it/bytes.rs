//! Coffer is control plane only: what a tenant asks and is answered passes none of its processes.
//!
//! Counted from outside: every byte that the kernel moved for a system call of Coffer's, of the
//! guest's init and of its agent, while a known amount of queries and answers went by. The same
//! counter sees what the API answers, which shows that it counts.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::coffer::{Coffer, Database};
use e2e::host;
use e2e::run::{Program, wait_until};

/// Calls that move bytes between a process and anything else.
const CALLS: &str = "trace=read,readv,pread64,preadv,preadv2,write,writev,pwrite64,pwritev,\
                     pwritev2,sendto,sendmsg,sendmmsg,recvfrom,recvmsg,recvmmsg,sendfile,splice,\
                     tee,copy_file_range,io_uring_enter";
/// Queries and answers; unit: bytes, each way.
const TRAFFIC: usize = 24 << 20;
/// Bytes of one query, and of its answer.
const PIECE: usize = 1 << 20;
/// LIMIT: how often that goes by until the guest was seen at work.
const ROUNDS_MAX: usize = 20;
/// Requests to the API, each an eighth of that.
const ASKS: usize = 20;

/// Watches processes until it is stopped.
struct Watch {
    tracer: Child,
    record: PathBuf,
}

impl Watch {
    #[expect(clippy::disallowed_methods, reason = "the watch outlives one call")]
    fn start(coffer: &Coffer, pids: &BTreeSet<u32>) -> Result<Self> {
        let record = coffer.dir().join("calls");
        let mut words = vec!["-f", "-e", CALLS, "-e", "signal=none", "-s", "0", "-o"];
        let path = record.display().to_string();
        words.push(&path);
        let numbers: Vec<String> = pids.iter().map(ToString::to_string).collect();
        for pid in &numbers {
            words.extend(["-p", pid]);
        }
        let tracer = Command::new("strace")
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("run strace: it is in the package strace")?;
        let watch = Self { tracer, record };
        // Each process has a tracer as soon as it is watched.
        let is_watched = |pid: &u32| {
            let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
            let own = format!("TracerPid:\t{}\n", watch.tracer.id());
            status.is_ok_and(|text| text.contains(&own))
        };
        wait_until(Duration::from_secs(20), || {
            Ok(pids.iter().all(is_watched).then_some(()))
        })
        .context("watch Coffer's processes")?;
        Ok(watch)
    }

    /// Whether a call of one of these processes that moved bytes was seen.
    fn has_seen(&self, pids: &BTreeSet<u32>) -> Result<bool> {
        let text = std::fs::read_to_string(&self.record)?;
        let is_of = |line: &str| {
            let pid = line.split(' ').next().and_then(|word| word.parse().ok());
            pid.is_some_and(|pid: u32| pids.contains(&pid))
        };
        Ok(text
            .lines()
            .any(|line| is_of(line) && moved(line) > Some(0)))
    }

    /// Bytes that were moved while it watched.
    fn stop(mut self) -> Result<usize> {
        Program::new("kill", ["-INT", &self.tracer.id().to_string()])
            .run()?
            .ok()?;
        self.tracer.wait().context("wait for strace")?;
        let text = std::fs::read_to_string(&self.record)?;
        ensure!(
            !text.contains("io_uring_enter"),
            "bytes may move unseen in a ring"
        );
        Ok(text.lines().filter_map(moved).sum())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Ended already where the test went well.
        self.tracer.kill().ok();
        self.tracer.wait().ok();
    }
}

/// What a call returned, if it moved anything: `12 read(5, ""..., 512) = 100`.
fn moved(line: &str) -> Option<usize> {
    line.rsplit_once(" = ")?.1.split(' ').next()?.parse().ok()
}

/// Sends queries and reads answers, of [`TRAFFIC`] bytes each, on one connection.
fn talk(db: &Database) -> Result<usize> {
    let words = "x".repeat(PIECE);
    let rounds = TRAFFIC / PIECE;
    let mut answered = 0;
    // A command line holds 128 KiB: the query goes in by a file.
    let file = tempfile::NamedTempFile::new()?;
    let query = format!("SELECT '{words}';\n").repeat(rounds);
    std::fs::write(file.path(), &query)?;
    let line = format!("host={} dbname=app user=joe sslmode=require", db.address);
    let path = file.path().display().to_string();
    let said = Program::new("psql", ["-XAtq", &line, "-f", &path])
        .env("PGPASSWORD", &db.password)
        .run()?
        .ok()?;
    answered += said.len();
    Ok(query.len() + answered)
}

#[test]
fn no_query_passes_through_coffer() -> Result<()> {
    let coffer = Coffer::start()?;
    let db = coffer.create("db1")?;
    let sandbox = coffer.sandbox(&db.id)?;
    let mut ours = host::children(coffer.pid().context("no pid")?, "coffer")?;
    let guests = host::children(sandbox, "coffer-guest")?;
    ensure!(guests.len() >= 2, "init and agent of the guest: {guests:?}");
    ours.extend(&guests);

    let watch = Watch::start(&coffer, &ours)?;
    // Long enough that the guest's probe and the long poll fall into it: what is watched lives.
    let mut spoken = 0;
    let mut rounds = 0;
    while rounds < ROUNDS_MAX && !watch.has_seen(&guests)? {
        spoken += talk(&db)?;
        rounds += 1;
    }
    ensure!(
        watch.has_seen(&guests)?,
        "the guest did nothing at all: is it watched?"
    );
    let seen = watch.stop()?;
    ensure!(spoken > 2 * TRAFFIC, "only {spoken} bytes were spoken");
    ensure!(
        seen < spoken / 20,
        "Coffer moved {seen} bytes while {spoken} bytes of queries and answers went by"
    );

    // The same counter, while Coffer itself is told something of known size.
    let watch = Watch::start(&coffer, &ours)?;
    let told = tell(&coffer)?;
    let heard = watch.stop()?;
    ensure!(
        told > ASKS * PIECE / 8,
        "the API was told {told} bytes only"
    );
    ensure!(
        heard > told,
        "the API was told {told} bytes, and {heard} were counted"
    );
    println!("queries: {seen} of {spoken} bytes counted; API: {heard} of {told}");
    Ok(())
}

/// Sends the API requests that it reads to their end and refuses; how many bytes they had.
fn tell(coffer: &Coffer) -> Result<usize> {
    let ca = coffer.dir().join("ca.pem").display().to_string();
    let url = format!("https://127.0.0.1:{}/v3/auth/tokens", coffer.port());
    let body = tempfile::NamedTempFile::new()?;
    let content = serde_json::json!({ "auth": "x".repeat(PIECE / 8) }).to_string();
    std::fs::write(body.path(), content)?;
    let data = format!("@{}", body.path().display());
    let mut told = 0;
    for _ in 0..ASKS {
        let form = "%{size_upload}";
        let json = "Content-Type: application/json";
        let words = [
            "-s",
            "-o",
            "/dev/null",
            "-w",
            form,
            "--cacert",
            &ca,
            "-H",
            json,
        ];
        let words = words.into_iter().chain(["--data-binary", &data, &url]);
        let sent = Program::new("curl", words).run()?.ok()?;
        told += sent
            .trim()
            .parse::<usize>()
            .context("curl says how much it sent")?;
    }
    Ok(told)
}
