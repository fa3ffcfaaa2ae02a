//! One connection to a guest: HTTP/1.1, one question at a time, answers of known length.
//!
//! A link is held for days, nearly all of them inside a question that waits. A general HTTP client
//! keeps 30 KiB meanwhile (a task, a queue, a buffer each way); this keeps the head of the answer.
//! Streams of unknown length are not asked for here.

use bytes::Bytes;
use hyper::{Method, StatusCode};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{GuestError, Result};
use crate::limits;

/// Room for an answer before it comes: most heads fit in.
const ROOM: usize = 512;
/// LIMIT: longest head of an answer; unit: bytes.
const HEAD_MAX: usize = 8 * 1024;
/// What ends a head.
const HEAD_END: &[u8] = b"\r\n\r\n";

/// A status and a whole body.
pub(super) type Answer = (StatusCode, Bytes);

/// A connection on which nothing is asked. One whose question failed, or was not waited for, is
/// of no more use.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Over a stream that the guest serves.
    pub(super) fn new(stream: S) -> Self {
        Self { stream }
    }

    /// Asks and waits for the whole answer.
    pub(super) async fn ask(&mut self, method: &Method, path: &str, body: &[u8]) -> Result<Answer> {
        let question = question(method, path, body);
        let sent = self.stream.write_all(&question).await;
        sent.map_err(|e| super::client::unreachable(&e))?;
        drop(question);
        let sent = self.stream.flush().await;
        sent.map_err(|e| super::client::unreachable(&e))?;
        self.answer().await
    }

    async fn answer(&mut self) -> Result<Answer> {
        let mut bytes = Vec::with_capacity(ROOM);
        let end = loop {
            self.read_more(&mut bytes).await?;
            match bytes.windows(HEAD_END.len()).position(|w| w == HEAD_END) {
                Some(at) => break at + HEAD_END.len(),
                None if bytes.len() > HEAD_MAX => return Err(unlike("its head is too long")),
                None => {}
            }
        };
        let (status, length) = head(&bytes[..end])?;
        if length > limits::GUEST_ANSWER_BYTES_MAX {
            return Err(unlike("it is too long"));
        }
        bytes.reserve_exact((end + length).saturating_sub(bytes.len()));
        while bytes.len() < end + length {
            self.read_more(&mut bytes).await?;
        }
        if bytes.len() > end + length {
            return Err(unlike("it says more than it was asked"));
        }
        Ok((status, Bytes::from(bytes).split_off(end)))
    }

    async fn read_more(&mut self, bytes: &mut Vec<u8>) -> Result<()> {
        let read = self.stream.read_buf(bytes).await;
        match read.map_err(|e| super::client::unreachable(&e))? {
            0 => Err(super::client::unreachable(&"it closed the connection")),
            _ => Ok(()),
        }
    }
}

fn unlike(why: &str) -> GuestError {
    GuestError::Protocol {
        why: why.to_owned(),
    }
}

fn question(method: &Method, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let mut question = format!(
        "{method} {path} HTTP/1.1\r\nhost: guest\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n"
    )
    .into_bytes();
    question.extend_from_slice(body);
    question
}

/// The status and the length of the body.
fn head(bytes: &[u8]) -> Result<(StatusCode, usize)> {
    let text = std::str::from_utf8(bytes).map_err(|_| unlike("its head is no text"))?;
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| {
        let code = line.strip_prefix("HTTP/1.1 ")?.get(..3)?;
        code.parse().ok()
    });
    let status = status.ok_or_else(|| unlike("it has no status"))?;
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse().ok())?
    });
    let length = length.ok_or_else(|| unlike("it does not say how long it is"))?;
    Ok((status, length))
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    /// A connection at whose other end these parts are said, and what was asked there.
    async fn answered(parts: &[&str]) -> (Result<Answer>, String) {
        let (ours, mut theirs): (DuplexStream, DuplexStream) = tokio::io::duplex(64 * 1024);
        let mut connection = Connection::new(ours);
        let ask = async {
            let answer = connection.ask(&Method::PUT, "/v1/spec", b"{}").await;
            drop(connection);
            answer
        };
        let serve = async {
            let mut asked = vec![0; 1024];
            let length = theirs.read(&mut asked).await.unwrap();
            for part in parts {
                theirs.write_all(part.as_bytes()).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(theirs);
            String::from_utf8(asked[..length].to_vec()).unwrap()
        };
        tokio::join!(ask, serve)
    }

    #[tokio::test]
    async fn an_answer_in_parts_is_put_together() {
        let parts = [
            "HTTP/1.1 409 Conf",
            "lict\r\nDate: x\r\nContent-Length: 4\r\n\r",
            "\nab",
            "cd",
        ];
        let (answer, asked) = answered(&parts).await;
        let whole = (StatusCode::CONFLICT, Bytes::from_static(b"abcd"));
        assert_eq!(answer, Ok(whole));
        let (head, body) = asked.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("PUT /v1/spec HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("content-length: 2"), "{head}");
        assert_eq!(body, "{}");
    }

    #[tokio::test]
    async fn what_is_no_answer_is_said() {
        let long = format!("HTTP/1.1 200 OK\r\nx: {}", "y".repeat(HEAD_MAX));
        let huge = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            u64::MAX >> 2
        );
        for (said, why) in [
            (long.as_str(), "head is too long"),
            (&huge, "too long"),
            ("SSH-2.0-x\r\n\r\n", "no status"),
            ("HTTP/1.1 200 OK\r\n\r\n", "how long"),
            ("HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "how long"),
            (
                "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
                "more than",
            ),
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na", "closed"),
            ("", "closed"),
        ] {
            let (answer, _) = answered(&[said]).await;
            let text = answer.unwrap_err().to_string();
            assert!(text.contains(why), "{said}: {text}");
        }
    }
}
