//! Streams: bytes from and to the engine that outlive a connection.
//!
//! What comes from the guest is kept from the last acknowledged offset on, up to a bound; at the
//! bound the source is not read, which holds it up in turn. What goes to the guest is counted, so
//! that a sender who lost an answer may send again from where it was.

use std::collections::{HashMap, VecDeque};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use coffer_engines::runtime::ClientAddress;
use coffer_wire::guest::v1::{StreamRequest, StreamState};
use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use nix::libc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Mutex as AsyncMutex, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;

use crate::agent::Shared;
use crate::agent::routes::{Answer, Pieces, Refused};
use crate::limits;

type Source = Pin<Box<dyn AsyncRead + Send>>;
type Sink = Pin<Box<dyn AsyncWrite + Send>>;

/// Every open stream.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<HashMap<String, Arc<Stream>>>);

struct Stream {
    id: String,
    inner: Mutex<Inner>,
    /// Counts changes of `inner`.
    changes: watch::Sender<u64>,
    /// Connections that read or write it.
    attached: AtomicUsize,
    sink: AsyncMutex<Option<Sink>>,
    pump: Mutex<Option<AbortHandle>>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stream")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Inner {
    oldest: u64,
    kept: VecDeque<u8>,
    is_open: bool,
    received: u64,
    touched: Instant,
}

impl Inner {
    fn end(&self) -> u64 {
        self.oldest + self.kept.len() as u64
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(pump) = self.pump.get_mut().unwrap_or_else(PoisonError::into_inner) {
            pump.abort();
        }
    }
}

/// Counts a connection of a stream until dropped.
struct Attached(Arc<Stream>);

impl Drop for Attached {
    fn drop(&mut self) {
        self.0.inner().touched = Instant::now();
        self.0.attached.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Streams {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Stream>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Answer<Arc<Stream>> {
        self.all()
            .get(id)
            .cloned()
            .ok_or_else(|| Refused::unknown("this stream"))
    }

    /// Cancels what nobody has been attached to for long.
    pub(crate) fn sweep(&self) {
        self.all().retain(|_, stream| {
            stream.attached.load(Ordering::Relaxed) > 0
                || stream.inner().touched.elapsed() < limits::STREAM_IDLE_MAX
        });
    }
}

impl Stream {
    fn new(id: String, sink: Option<Sink>) -> Self {
        let inner = Inner {
            oldest: 0,
            kept: VecDeque::new(),
            is_open: true,
            received: 0,
            touched: Instant::now(),
        };
        Self {
            id,
            inner: Mutex::new(inner),
            changes: watch::Sender::new(0),
            attached: AtomicUsize::new(0),
            sink: AsyncMutex::new(sink),
            pump: Mutex::new(None),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner());
        self.changes.send_modify(|count| *count += 1);
    }

    fn state(&self) -> StreamState {
        let inner = self.inner();
        StreamState {
            id: self.id.clone(),
            oldest: inner.oldest,
            end: inner.end(),
            is_open: inner.is_open,
            received: inner.received,
        }
    }

    fn attach(self: &Arc<Self>) -> Attached {
        self.attached.fetch_add(1, Ordering::Relaxed);
        Attached(Arc::clone(self))
    }
}

/// Opens a stream.
pub(crate) async fn open(shared: &Arc<Shared>, wanted: &StreamRequest) -> Answer<StreamState> {
    if shared.streams.all().len() >= limits::STREAMS_MAX {
        return Err(Refused::busy("too many streams are open"));
    }
    let (source, sink) = match wanted {
        StreamRequest::Connect => connect(shared).await?,
        StreamRequest::Log { name } => (open_log(shared, name)?, None),
    };
    let id = random_id()?;
    let stream = Arc::new(Stream::new(id.clone(), sink));
    // The pump does not keep the stream: dropping the stream ends the pump.
    let pump = shared.tasks.start(pump(Arc::downgrade(&stream), source));
    *stream.pump.lock().unwrap_or_else(PoisonError::into_inner) = Some(pump);
    let state = stream.state();
    shared.streams.all().insert(id, stream);
    Ok(state)
}

/// Names nobody can guess and no two streams share, however close together they are opened.
fn random_id() -> Answer<String> {
    let mut bytes = [0; 16];
    let source = default_provider().secure_random;
    source
        .fill(&mut bytes)
        .map_err(|_| Refused::busy("the machine's random source gives nothing"))?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

async fn connect(shared: &Shared) -> Answer<(Source, Option<Sink>)> {
    let refused = |error: std::io::Error| {
        Refused::engine(&coffer_engines::EngineError::Down {
            why: error.to_string(),
        })
    };
    match shared.runtime.client_address(shared.host.as_ref()) {
        ClientAddress::Unix(path) => {
            let (read, write) = UnixStream::connect(path)
                .await
                .map_err(refused)?
                .into_split();
            Ok((Box::pin(read), Some(Box::pin(write))))
        }
        ClientAddress::Loopback(port) => {
            let socket = TcpStream::connect(("127.0.0.1", port))
                .await
                .map_err(refused)?;
            socket.set_nodelay(true).ok();
            let (read, write) = socket.into_split();
            Ok((Box::pin(read), Some(Box::pin(write))))
        }
    }
}

/// Opens a log of the engine's: by its file's name, or `engine` for the newest.
///
/// The directory belongs to the engine, and what is in it may be a trap: only a regular file that
/// the engine itself owns is read, and no link is followed.
fn open_log(shared: &Shared, name: &str) -> Answer<Source> {
    let path = match name {
        "engine" => newest_log(shared).ok_or_else(|| Refused::unknown("a log of the engine"))?,
        _ if name.is_empty() || name.contains('/') || name.starts_with('.') => {
            return Err(Refused::bad_request("a log's name is the name of a file"));
        }
        _ => shared.host.layout().log_dir.join(name),
    };
    let unknown = |_| Refused::unknown("this log");
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
        .map_err(unknown)?;
    let meta = file.metadata().map_err(unknown)?;
    if !meta.is_file() || meta.uid() != shared.boot.engine_uid {
        return Err(Refused::unknown("this log"));
    }
    // What is written after now is another stream's: a log has an end here.
    Ok(Box::pin(tokio::fs::File::from_std(file).take(meta.len())))
}

fn newest_log(shared: &Shared) -> Option<PathBuf> {
    let entries = std::fs::read_dir(&shared.host.layout().log_dir).ok()?;
    let files = entries.flatten().filter_map(|entry| {
        let meta = entry.path().symlink_metadata().ok()?;
        meta.is_file()
            .then_some((meta.modified().ok()?, entry.path()))
    });
    files.max().map(|(_, path)| path)
}

/// Fills the stream from its source, as far as there is room.
async fn pump(stream: std::sync::Weak<Stream>, mut source: Source) {
    let mut piece = vec![0_u8; limits::STREAM_PIECE_BYTES];
    loop {
        if !wait_for_room(&stream).await {
            return;
        }
        let count = source.read(&mut piece).await.unwrap_or(0);
        let Some(stream) = stream.upgrade() else {
            return;
        };
        if count == 0 {
            stream.change(|inner| inner.is_open = false);
            return;
        }
        stream.change(|inner| inner.kept.extend(&piece[..count]));
    }
}

async fn wait_for_room(stream: &std::sync::Weak<Stream>) -> bool {
    loop {
        let mut changes = match stream.upgrade() {
            Some(stream) => {
                let changes = stream.changes.subscribe();
                if stream.inner().kept.len() < limits::STREAM_BYTES_MAX {
                    return true;
                }
                changes
            }
            None => return false,
        };
        if changes.changed().await.is_err() {
            return false;
        }
    }
}

/// The bytes from an offset on, as they come, until the stream ends.
pub(crate) fn read(shared: &Arc<Shared>, id: &str, offset: u64) -> Answer<Pieces> {
    let stream = shared.streams.get(id)?;
    {
        let inner = stream.inner();
        if offset < inner.oldest || offset > inner.end() {
            let kept = format!("kept is {} to {}", inner.oldest, inner.end());
            return Err(Refused::gap(kept));
        }
    }
    let (sender, receiver) = mpsc::channel(2);
    let attached = stream.attach();
    shared.tasks.start(send(attached, offset, sender));
    Ok(Pieces(receiver))
}

async fn send(attached: Attached, mut offset: u64, sender: mpsc::Sender<Bytes>) {
    let stream = &attached.0;
    let mut changes = stream.changes.subscribe();
    loop {
        changes.mark_unchanged();
        let Some((piece, is_open)) = piece_at(stream, offset) else {
            return;
        };
        if piece.is_empty() {
            if !is_open {
                return;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = sender.closed() => return,
            }
            continue;
        }
        offset += piece.len() as u64;
        if sender.send(piece).await.is_err() {
            return;
        }
    }
}

/// What follows an offset; `None` if it was acknowledged by another reader.
fn piece_at(stream: &Stream, offset: u64) -> Option<(Bytes, bool)> {
    let inner = stream.inner();
    let skip = usize::try_from(offset.checked_sub(inner.oldest)?).ok()?;
    let piece: Vec<u8> = inner
        .kept
        .iter()
        .skip(skip)
        .take(limits::STREAM_PIECE_BYTES)
        .copied()
        .collect();
    Some((Bytes::from(piece), inner.is_open))
}

/// Forgets what is below an offset.
pub(crate) fn acknowledge(shared: &Shared, id: &str, offset: u64) -> Answer<StreamState> {
    let stream = shared.streams.get(id)?;
    if offset > stream.inner().end() {
        return Err(Refused::gap(format!("the stream has not reached {offset}")));
    }
    stream.change(|inner| {
        let below = offset.saturating_sub(inner.oldest);
        let below = usize::try_from(below).unwrap_or(inner.kept.len());
        inner.kept.drain(..below);
        inner.oldest = inner.oldest.max(offset);
        inner.touched = Instant::now();
    });
    Ok(stream.state())
}

/// Passes a body on to the engine, from an offset on; what was received before is skipped.
pub(crate) async fn write(
    shared: &Shared,
    id: &str,
    offset: u64,
    mut body: Incoming,
) -> Answer<StreamState> {
    let stream = shared.streams.get(id)?;
    let _attached = stream.attach();
    let mut sink = stream.sink.lock().await;
    let received = stream.inner().received;
    let mut skip = received
        .checked_sub(offset)
        .ok_or_else(|| Refused::gap(format!("received is {received}")))?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Refused::bad_request("the body is cut short"))?;
        let Ok(mut data) = frame.into_data() else {
            continue;
        };
        let known = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
        skip -= known as u64;
        let fresh = data.split_off(known);
        if fresh.is_empty() {
            continue;
        }
        let Some(open) = sink.as_mut() else {
            return Err(Refused::bad_request("this stream takes no bytes"));
        };
        if open.write_all(&fresh).await.is_err() {
            *sink = None;
            return Err(Refused::unknown("the engine's end of this stream"));
        }
        stream.change(|inner| inner.received += fresh.len() as u64);
    }
    Ok(stream.state())
}

/// Ends a stream; what was not read is gone.
pub(crate) fn cancel(shared: &Shared, id: &str) {
    let stream = shared.streams.all().remove(id);
    if let Some(stream) = stream {
        stream.change(|inner| {
            inner.is_open = false;
            inner.kept.clear();
        });
        if let Some(pump) = stream
            .pump
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
        {
            pump.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn streams_opened_in_the_same_moment_have_names_of_their_own() {
        let names: HashSet<_> = (0..10_000).map(|_| random_id().unwrap()).collect();
        assert_eq!(names.len(), 10_000);
        assert!(names.iter().all(|name| name.len() == 32));
    }
}
