//! Redis and Valkey as their clients see them: the client program of an engine root, run from
//! this host over TLS.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::coffer::{Coffer, binary};
use crate::run::{Background, Ended, Program, now, wait_until};

/// Where engine roots lie.
const ROOTS: &str = "/var/cache/coffer/roots";

/// An instance with the user `joe`, published.
#[derive(Debug, Clone)]
pub struct KeyValue {
    /// Id of the instance.
    pub id: String,
    /// Published address.
    pub address: String,
    /// Password of joe.
    pub password: String,
    engine: String,
    tree: PathBuf,
    ca: PathBuf,
}

/// Builds the root of a version, unless this machine has it.
pub fn build_root(recipe: &str) -> Result<()> {
    let coffer = binary("coffer")?.display().to_string();
    let built = Program::new(&coffer, ["image", "build", recipe]);
    built.limit_seconds(600).run()?.ok().map(drop)
}

/// The tree of a root that is there.
pub fn tree(coffer: &Coffer, recipe: &str) -> Result<PathBuf> {
    let all = coffer.coffer(&["--json", "image", "list"])?.json()?;
    let found = all
        .as_array()
        .into_iter()
        .flatten()
        .find(|root| root["image"] == recipe);
    let checksum = found.and_then(|root| root["checksum"].as_str());
    let checksum = checksum.with_context(|| format!("no root of {recipe}: {all}"))?;
    Ok(Path::new(ROOTS).join(checksum).join("tree"))
}

impl KeyValue {
    /// Creates one and waits until it serves.
    pub fn create(coffer: &Coffer, engine: &str, version: &str, name: &str) -> Result<Self> {
        let words = [
            "--datastore",
            engine,
            "--datastore-version",
            version,
            "--public",
            "--user",
            "joe",
        ];
        let made = coffer.create_with(name, &words)?;
        let id = made["id"].as_str().context("the answer has no id")?;
        Self::of(coffer, (engine, version), id, &made)
    }

    /// One that is there and published, with the answer of the command line that made it.
    pub fn of(
        coffer: &Coffer,
        (engine, version): (&str, &str),
        id: &str,
        made: &Value,
    ) -> Result<Self> {
        let password = made["passwords"]["joe"].as_str().context("no password")?;
        Ok(Self {
            id: id.to_owned(),
            address: coffer.address(id)?,
            password: password.to_owned(),
            engine: engine.to_owned(),
            tree: tree(coffer, &format!("{engine}-{version}"))?,
            ca: coffer.project_ca("demo")?,
        })
    }

    /// A file with the certificate of the project's CA.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// Path of a program of its own root.
    pub fn program(&self, what: &str) -> String {
        let path = self.tree.join(format!("usr/bin/{}-{what}", self.engine));
        path.display().to_string()
    }

    /// The root's own loader with the root's own libraries, which runs the root's programs here.
    pub fn loader(&self) -> Vec<String> {
        let library = |dir: &str| self.tree.join(dir).display().to_string();
        vec![
            library("lib64/ld-linux-x86-64.so.2"),
            "--library-path".to_owned(),
            ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"]
                .map(library)
                .join(":"),
        ]
    }

    /// Words that lead a client to the published address over TLS, whose certificate it checks.
    fn tls_words(&self, ca: &Path) -> Vec<String> {
        let ca = ca.display().to_string();
        ["-h", &self.address, "-p", "6379", "--tls", "--cacert", &ca]
            .map(str::to_owned)
            .to_vec()
    }

    /// The client as joe over TLS.
    pub fn ask(&self, words: &[&str]) -> Result<Ended> {
        self.ask_as("joe", &self.password, words)
    }

    /// The answer to joe, without the line's end; a refusal is an error.
    pub fn told(&self, words: &[&str]) -> Result<String> {
        let answer = self.ask(words)?.ok()?;
        let answer = answer.trim_end().to_owned();
        let is_refusal = answer.split_once(' ').is_some_and(|(code, _)| {
            code.len() > 2 && code.chars().all(|c| c.is_ascii_uppercase())
        });
        ensure!(!is_refusal, "{words:?}: {answer}");
        Ok(answer)
    }

    /// The client over TLS as somebody.
    pub fn ask_as(&self, user: &str, password: &str, words: &[&str]) -> Result<Ended> {
        self.ask_with(&self.tls_words(&self.ca), user, password, words)
    }

    /// The client with other words on how to connect.
    pub fn ask_with(
        &self,
        how: &[String],
        user: &str,
        password: &str,
        words: &[&str],
    ) -> Result<Ended> {
        let loader = self.loader();
        let mut line = loader[1..].to_vec();
        line.push(self.program("cli"));
        line.extend(how.iter().cloned());
        line.extend(["--no-auth-warning", "--user", user].map(str::to_owned));
        line.extend(words.iter().map(|word| (*word).to_owned()));
        Program::new(&loader[0], line)
            .env("REDISCLI_AUTH", password)
            .run()
    }

    /// Whether a client with this CA's certificate is let in.
    pub fn is_trusted_by(&self, ca: &Path) -> Result<bool> {
        let how = self.tls_words(ca);
        let answer = self.ask_with(&how, "joe", &self.password, &["PING"])?;
        Ok(answer.code == 0 && answer.out.trim() == "PONG")
    }

    /// The client on the socket inside, as Coffer's own user: what only who owns the host can do.
    pub fn ask_inside(&self, coffer: &Coffer, words: &[&str]) -> Result<Ended> {
        let inside = format!("/proc/{}/root", coffer.sandbox(&self.id)?);
        let secret = fs::read_to_string(format!("{inside}/data/config/coffer.secret"))?;
        let secret = secret.split_whitespace().nth(1).context("no password")?;
        let how = ["-s".to_owned(), format!("{inside}/run/engine/engine.sock")];
        self.ask_with(&how, "coffer", secret, words)
    }

    /// Waits until it answers.
    pub fn await_answer(&self) -> Result<()> {
        wait_until(crate::coffer::INSTANCE_MAX, || {
            Ok(self
                .told(&["PING"])
                .is_ok_and(|told| told == "PONG")
                .then_some(()))
        })
        .with_context(|| format!("{self:?} does not answer: {:?}", self.ask(&["PING"])))
    }

    /// Begins a client that appends to a list until it is refused, gone or told to stop.
    pub fn begin_writing(&self, list: &str) -> Writing {
        let is_over = Arc::new(AtomicBool::new(false));
        let (one, list, over) = (self.clone(), list.to_owned(), Arc::clone(&is_over));
        Writing {
            is_over,
            thread: std::thread::spawn(move || one.write_on(&list, &over)),
        }
    }

    /// The client as joe, told what to do on its standard input.
    pub(crate) fn start_client(&self) -> Result<Child> {
        self.client_with(Stdio::piped(), Stdio::null())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "one client writes for the whole test"
    )]
    fn client_with(&self, out: Stdio, err: Stdio) -> Result<Child> {
        let loader = self.loader();
        Command::new(&loader[0])
            .args(&loader[1..])
            .arg(self.program("cli"))
            .args(self.tls_words(&self.ca))
            .args(["--no-auth-warning", "--user", "joe"])
            .env("REDISCLI_AUTH", &self.password)
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(err)
            .spawn()
            .context("start the client")
    }

    fn write_on(&self, list: &str, is_over: &AtomicBool) -> Result<Vec<Instant>> {
        let (answers, said) = std::io::pipe()?;
        // A lost connection is told among the errors only, and ends the writing.
        let mut client = self.client_with(said.try_clone()?.into(), said.into())?;
        let mut ask = client.stdin.take().context("no standard input")?;
        let mut answers = BufReader::new(answers).lines();
        let mut acknowledged = Vec::new();
        while !is_over.load(Ordering::Relaxed) && writeln!(ask, "RPUSH {list} x").is_ok() {
            match answers.next() {
                Some(Ok(line)) if line.parse() == Ok(acknowledged.len() + 1) => {
                    acknowledged.push(now());
                }
                _ => break,
            }
        }
        client.kill().ok();
        client.wait()?;
        Ok(acknowledged)
    }

    /// The engine of this root on a copy of an instance's files, with nobody asked for a password.
    pub fn serve_copy(&self, engine_dir: &Path) -> Result<Copy> {
        let socket = engine_dir.join("copy.sock");
        let mut line = self.loader();
        line.push(self.program("server"));
        let words = ["--port", "0", "--save", "", "--appendonly", "yes"];
        line.extend(words.map(str::to_owned));
        line.extend(["--dir".to_owned(), engine_dir.display().to_string()]);
        line.extend(["--unixsocket".to_owned(), socket.display().to_string()]);
        let words: Vec<&str> = line[1..].iter().map(String::as_str).collect();
        let server = Background::start(&line[0], &words)?;
        let copy = Copy {
            client: self.clone(),
            socket,
            _server: server,
        };
        wait_until(crate::coffer::INSTANCE_MAX, || {
            Ok((copy.ask(&["PING"])?.out.trim() == "PONG").then_some(()))
        })
        .context("the copy answers")?;
        Ok(copy)
    }
}

/// A client that writes in the background.
#[derive(Debug)]
pub struct Writing {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Instant>>>,
}

impl Writing {
    /// Stops it, if it is not gone; when each of its writes was acknowledged.
    pub fn end(self) -> Result<Vec<Instant>> {
        self.is_over.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(acknowledged) => acknowledged,
            Err(_) => bail!("the writer panicked"),
        }
    }
}

/// An engine on copied files, until dropped.
#[derive(Debug)]
pub struct Copy {
    client: KeyValue,
    socket: PathBuf,
    _server: Background,
}

impl Copy {
    /// Asks it.
    pub fn ask(&self, words: &[&str]) -> Result<Ended> {
        let mut line = self.client.loader();
        line.push(self.client.program("cli"));
        line.extend(["-s".to_owned(), self.socket.display().to_string()]);
        line.extend(words.iter().map(|word| (*word).to_owned()));
        Program::new(&line[0], &line[1..]).run()
    }
}
