//! Runs programs to their end, bounded in time.

use std::ffi::OsStr;
use std::fmt;
use std::io::Read;
use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The ports that are given to tests.
const PORTS: std::ops::Range<u32> = 20_000..32_000;

/// A port of loopback that nothing listens on. It is below those that the system gives to whoever
/// asks for any, which could be another's before it is used.
pub fn free_port() -> Result<u16> {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let count = PORTS.end - PORTS.start;
    // Runs beside each other begin elsewhere.
    let first = std::process::id().wrapping_mul(97);
    for _ in 0..count {
        let next = first.wrapping_add(GIVEN.fetch_add(1, Ordering::Relaxed)) % count;
        let port = u16::try_from(PORTS.start + next)?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("all ports of {PORTS:?} are taken")
}

/// How a program ended.
#[derive(Clone)]
pub struct Ended {
    /// The words it was run with.
    pub line: String,
    /// Exit code; -1 for a signal.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "$ {}\n[{}]\n{}{}",
            self.line, self.code, self.out, self.err
        )
    }
}

impl Ended {
    /// Its output, if it ended well.
    pub fn ok(self) -> Result<String> {
        if self.code == 0 {
            Ok(self.out)
        } else {
            bail!("{self:?}")
        }
    }

    /// Its output as JSON, if it ended well.
    pub fn json(self) -> Result<serde_json::Value> {
        let out = self.ok()?;
        serde_json::from_str(&out).with_context(|| format!("read JSON: {out}"))
    }
}

/// A program to run.
#[derive(Debug)]
pub struct Program {
    command: Command,
    line: String,
    limit: Duration,
}

impl Program {
    /// A program with its arguments.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where tests spawn processes"
    )]
    pub fn new<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).args(args);
        let mut words = vec![program.to_owned()];
        words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
        Self {
            command,
            line: words.join(" "),
            limit: Duration::from_secs(120),
        }
    }

    /// With another bound than two minutes.
    #[must_use]
    pub const fn limit_seconds(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// With this variable in its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs it to its end.
    pub fn run(mut self) -> Result<Ended> {
        let mut child = self
            .command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("run {}", self.line))?;
        let out = drain(child.stdout.take());
        let err = drain(child.stderr.take());
        let limit = self.limit;
        let status = wait_until(limit, || Ok(child.try_wait()?));
        if status.is_err() {
            child.kill().context("end a program that took too long")?;
            child.wait()?;
            bail!("{} did not end within {limit:?}", self.line);
        }
        let code = status?.code().unwrap_or(-1);
        let text = |t: std::thread::JoinHandle<String>| t.join().unwrap_or_default();
        Ok(Ended {
            line: self.line,
            code,
            out: text(out),
            err: text(err),
        })
    }
}

fn drain<R: Read + Send + 'static>(stream: Option<R>) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What cannot be read is shown as far as it was.
            stream.read_to_end(&mut bytes).unwrap_or_default();
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Asks until there is an answer, at most for `limit`.
#[expect(
    clippy::disallowed_methods,
    reason = "tests of real processes wait in real time"
)]
pub fn wait_until<T>(limit: Duration, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if start.elapsed() > limit {
            bail!("not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// How long `work` took, and what came of it.
#[expect(
    clippy::disallowed_methods,
    reason = "tests of real processes measure real time"
)]
pub fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let answer = work();
    (start.elapsed(), answer)
}

/// This moment.
#[expect(
    clippy::disallowed_methods,
    reason = "tests of real processes measure real time"
)]
pub fn now() -> Instant {
    Instant::now()
}

/// Waits a random moment below `limit`, drawn from the kernel.
#[expect(
    clippy::disallowed_methods,
    reason = "a kill has to come at a random moment"
)]
pub fn random_pause(limit: Duration) -> Result<Duration> {
    let mut bytes = [0; 4];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let part = f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX);
    let pause = limit.mul_f64(part);
    std::thread::sleep(pause);
    Ok(pause)
}

/// A process that runs beside the test and is killed with it.
#[derive(Debug)]
pub struct Background(std::process::Child);

impl Background {
    /// Starts it, without input or output.
    #[expect(
        clippy::disallowed_methods,
        reason = "this module is where tests spawn processes"
    )]
    pub fn start(program: &str, args: &[&str]) -> Result<Self> {
        let child = Command::new(program)
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("start {program}"))?;
        Ok(Self(child))
    }

    /// Its pid.
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
