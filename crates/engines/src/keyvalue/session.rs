//! Connections to the engine as `coffer` over the local socket.
//!
//! One connection is kept and used by all, so that Coffer still gets through when clients have
//! taken every other. Whatever is asked over it may be asked again: a kept connection that turns
//! out to be dead is replaced once.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use crate::error::{EngineError, Result};
use crate::keyvalue::identity;
use crate::keyvalue::names::COFFER;
use crate::keyvalue::resp::{self, Value};
use crate::runtime::EngineHost;

/// LIMIT: how long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// LIMIT: how long an answer may take; a list of users is written to disk in that time.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The kept connection with the socket it leads to.
static KEPT: Mutex<Option<(PathBuf, Session)>> = Mutex::const_new(None);

/// A connection; dropping it closes it.
#[derive(Debug)]
pub(super) struct Session {
    stream: BufReader<UnixStream>,
}

/// The socket on which the engine answers inside the sandbox.
pub(super) fn socket(host: &dyn EngineHost) -> PathBuf {
    host.layout().run_dir.join("engine.sock")
}

/// Sends requests at once and returns their answers, refusals among them.
pub(super) async fn ask_all(host: &dyn EngineHost, requests: &[&[&str]]) -> Result<Vec<Value>> {
    let path = socket(host);
    let mut kept = KEPT.lock().await;
    if let Some((known, mut session)) = kept.take()
        && known == path
        && let Ok(answers) = session.ask_all(requests).await
    {
        *kept = Some((known, session));
        return Ok(answers);
    }
    let mut session = open(host, &path).await?;
    let answers = session.ask_all(requests).await.map_err(down)?;
    *kept = Some((path, session));
    Ok(answers)
}

/// Sends one request; a refusal is an error.
pub(super) async fn ask(
    host: &dyn EngineHost,
    what: &'static str,
    request: &[&str],
) -> Result<Value> {
    let mut answers = ask_all(host, &[request]).await?;
    accept(what, answers.pop().unwrap_or(Value::Nil))
}

async fn open(host: &dyn EngineHost, path: &Path) -> Result<Session> {
    let secret = identity::read_secret(&host.layout().config_dir).map_err(|error| {
        let why = format!("read the password of its own user: {error}");
        EngineError::Down { why }
    })?;
    let mut session = Session::connect(path).await.map_err(down)?;
    let login: [&[&str]; 2] = [
        &["AUTH", COFFER, secret.expose()],
        &["CLIENT", "NO-EVICT", "on"],
    ];
    for answer in session.ask_all(&login).await.map_err(down)? {
        accept("log in to the engine", answer)?;
    }
    Ok(session)
}

impl Session {
    /// Connects without saying who it is.
    pub(super) async fn connect(path: &Path) -> io::Result<Self> {
        let stream = in_time(CONNECT_TIMEOUT, UnixStream::connect(path)).await?;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    /// Sends requests at once and reads their answers.
    pub(super) async fn ask_all(&mut self, requests: &[&[&str]]) -> io::Result<Vec<Value>> {
        let mut out = Vec::new();
        for request in requests {
            resp::write(request, &mut out);
        }
        let work = async {
            self.stream.get_mut().write_all(&out).await?;
            let mut answers = Vec::with_capacity(requests.len());
            for _ in requests {
                answers.push(resp::read(&mut self.stream).await?);
            }
            Ok(answers)
        };
        in_time(ANSWER_TIMEOUT, work).await
    }
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(limit, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer in time")),
    }
}

fn down(error: io::Error) -> EngineError {
    EngineError::Down {
        why: error.to_string(),
    }
}

/// The answer, or the refusal that it is; what passes by itself counts as not being there.
pub(super) fn accept(what: &'static str, answer: Value) -> Result<Value> {
    match answer {
        Value::Error(why) => {
            let code = why.split(' ').next().unwrap_or_default();
            match code {
                "LOADING" | "BUSY" | "TRYAGAIN" => Err(EngineError::Down { why }),
                _ => Err(EngineError::Failed { what, why }),
            }
        }
        answer => Ok(answer),
    }
}
