//! A light HTTP/1.1 client over plain TCP for measuring: one thread, two system calls a request.
//!
//! [`Load`] keeps one request under way on each of its connections: it reads the oldest answer,
//! then sends that connection's next request. Nothing is parsed but the status line and the length
//! of the body, so that the client takes as little as it can of the machine that it shares with
//! the server.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::Stopwatch;

/// LIMIT: longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// LIMIT: longest head of an answer; unit: bytes.
const HEAD_MAX: usize = 16 * 1024;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    head: String,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// A kept connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).with_context(|| format!("dial {address}"))?;
        stream.set_nodelay(true).context("set no delay")?;
        let limit = Some(ANSWER_MAX);
        stream.set_read_timeout(limit).context("set a time limit")?;
        Ok(Self {
            stream,
            buffer: vec![0; 64 * 1024],
            filled: 0,
        })
    }

    /// Sends a whole request.
    pub fn send(&mut self, request: &[u8]) -> Result<()> {
        self.stream.write_all(request).context("send a request")
    }

    /// Reads one answer.
    pub fn answer(&mut self) -> Result<Answer> {
        let (end, length) = self.head()?;
        self.fill(end + length)?;
        let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        let body = self.buffer[end..end + length].to_vec();
        let status = status(&self.buffer)?;
        self.take(end + length);
        Ok(Answer { status, head, body })
    }

    /// Reads one answer of status 200 and forgets it.
    fn skip_good(&mut self) -> Result<()> {
        let (end, length) = self.head()?;
        self.fill(end + length)?;
        let status = status(&self.buffer)?;
        if status != 200 {
            let text = String::from_utf8_lossy(&self.buffer[..end + length]);
            bail!("the server answered {text}");
        }
        self.take(end + length);
        Ok(())
    }

    /// Reads a head; gives where it ends and the length of the body.
    fn head(&mut self) -> Result<(usize, usize)> {
        let mut searched = 0;
        loop {
            let found = find(&self.buffer[searched..self.filled], b"\r\n\r\n");
            if let Some(at) = found {
                let end = searched + at + 4;
                let head = std::str::from_utf8(&self.buffer[..end]).context("read a head")?;
                let length = header(head, "content-length").map_or(Ok(0), str::parse);
                return Ok((end, length.context("read the length of a body")?));
            }
            if self.filled > HEAD_MAX {
                bail!("the head of an answer is longer than {HEAD_MAX} bytes");
            }
            searched = self.filled.saturating_sub(3);
            self.fill(self.filled + 1)?;
        }
    }

    /// Reads until there are this many bytes.
    fn fill(&mut self, wanted: usize) -> Result<()> {
        if wanted > self.buffer.len() {
            self.buffer.resize(wanted, 0);
        }
        while self.filled < wanted {
            let room = &mut self.buffer[self.filled..];
            match self.stream.read(room).context("read an answer")? {
                0 => bail!("the server closed the connection"),
                count => self.filled += count,
            }
        }
        Ok(())
    }

    fn take(&mut self, count: usize) {
        self.buffer.copy_within(count..self.filled, 0);
        self.filled -= count;
    }
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len()).position(|part| part == wanted)
}

fn status(head: &[u8]) -> Result<u16> {
    let digits = head.get(9..12).and_then(|d| std::str::from_utf8(d).ok());
    let status = digits.and_then(|digits| digits.parse().ok());
    status.context("read a status line")
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (left, right) = line.split_once(':')?;
        left.eq_ignore_ascii_case(name).then(|| right.trim())
    })
}

/// The bytes of a request; `headers` are whole lines without their ends.
pub fn request(method: &str, path: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for header in headers {
        text.push_str(header);
        text.push_str("\r\n");
    }
    if !body.is_empty() {
        let length = body.len();
        text.push_str("Content-Type: application/json\r\n");
        text.push_str(&format!("Content-Length: {length}\r\n"));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

/// Connections that ask as fast as they are answered.
#[derive(Debug)]
pub struct Load {
    connections: Vec<Connection>,
}

impl Load {
    /// Opens so many connections.
    pub fn open(address: SocketAddr, count: usize) -> Result<Self> {
        let connections = (0..count)
            .map(|_| Connection::open(address))
            .collect::<Result<_>>()?;
        Ok(Self { connections })
    }

    /// Asks for so long, each of the requests in turn; gives answers per second. Every answer has
    /// to be of status 200.
    pub fn run(&mut self, requests: &[Vec<u8>], time: Duration) -> Result<f64> {
        let mut next = requests.iter().cycle();
        let mut ask = || next.next().context("there is no request");
        for connection in &mut self.connections {
            connection.send(ask()?)?;
        }
        let watch = Stopwatch::start();
        let mut answers = 0_u32;
        while watch.elapsed() < time {
            for connection in &mut self.connections {
                connection.skip_good()?;
                connection.send(ask()?)?;
                answers += 1;
            }
        }
        let seconds = watch.elapsed().as_secs_f64();
        for connection in &mut self.connections {
            connection.skip_good()?;
        }
        Ok(f64::from(answers) / seconds)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Answers one connection, in parts that break where it hurts.
    fn serve(answers: &'static [&'static [u8]]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                stream.write_all(answer).unwrap();
            }
        });
        address
    }

    #[test]
    fn answers_are_put_together_from_parts() {
        let address = serve(&[
            b"HTTP/1.1 201 Created\r\nX-Subject-",
            b"Token: abc\r\ncontent-length: 4\r\n\r",
            b"\nbodyHTTP/1.1 404 Not Found\r\n\r\n",
        ]);
        let mut connection = Connection::open(address).unwrap();
        let first = connection.answer().unwrap();
        assert_eq!(first.status, 201);
        assert_eq!(first.header("x-subject-token"), Some("abc"));
        assert_eq!(first.body, b"body");
        let second = connection.answer().unwrap();
        assert_eq!((second.status, second.body.len()), (404, 0));
        assert!(connection.answer().is_err(), "the server has gone");
    }

    #[test]
    fn a_load_refuses_a_bad_answer() {
        let address = serve(&[b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n"]);
        let mut load = Load::open(address, 1).unwrap();
        let asked = [request("GET", "/", &[], "")];
        let error = load.run(&asked, Duration::from_secs(1)).unwrap_err();
        assert!(error.to_string().contains("503"), "{error}");
    }
}
