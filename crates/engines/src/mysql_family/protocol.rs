//! The client's side of the family's protocol, as much of it as an agent needs: over the local
//! socket, as an account that the server knows by its process's user, statements and rows as text.
//!
//! No passwords, no TLS, no prepared statements, and files are never sent. Every length that the
//! server names is bounded. Why this is no crate: `docs/adr/0005-own-mysql-client.md`.

use std::io;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};
use tokio::net::UnixStream;

/// LIMIT: bytes of one packet; the server is told no more than this is taken.
const PACKET_BYTES_MAX: usize = 4 << 20;
/// LIMIT: rows of one answer.
const ROWS_MAX: usize = 200_000;
/// LIMIT: bytes of all rows of one answer.
const ANSWER_BYTES_MAX: usize = 32 << 20;

/// `utf8mb4_general_ci`, which both servers have under this number.
const COLLATION: u8 = 45;
/// Long password, long flags, protocol 4.1, transactions, the new handshake, authentication by
/// plugins.
const CAPABILITIES: u32 = 0x1 | 0x4 | 0x200 | 0x2000 | 0x8000 | 0x8_0000;
/// The method by which the server asks the kernel who is at the other end; both call it so.
const AUTHENTICATION: &str = "auth_socket";
const COM_QUERY: u8 = 3;
const OK: u8 = 0x00;
const EOF: u8 = 0xfe;
const ERROR: u8 = 0xff;
const FILE_WANTED: u8 = 0xfb;
const NULL: u8 = 0xfb;

/// A row: text, or `None` for NULL.
pub(super) type Row = Vec<Option<String>>;

/// What went wrong.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The server answered with an error.
    Refused {
        /// Its number.
        code: u16,
        /// Its text.
        message: String,
    },
    /// The connection is of no more use.
    Lost(io::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

type Result<T> = std::result::Result<T, Trouble>;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufStream<UnixStream>,
    sequence: u8,
}

impl Connection {
    /// Logs in as `user`.
    pub(super) async fn open(socket: &Path, user: &str) -> Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let mut connection = Self {
            stream: BufStream::with_capacity(4096, 4096, stream),
            sequence: 0,
        };
        let greeting = connection.receive().await?;
        match greeting.first() {
            Some(10) => {}
            Some(&ERROR) => return Err(refusal(&greeting)),
            _ => return Err(strange("the greeting")),
        }
        let mut login = Vec::with_capacity(64);
        login.extend(CAPABILITIES.to_le_bytes());
        login.extend(
            u32::try_from(PACKET_BYTES_MAX)
                .unwrap_or(u32::MAX)
                .to_le_bytes(),
        );
        login.push(COLLATION);
        login.extend([0; 23]);
        login.extend(user.as_bytes());
        // The end of the name, and an empty answer to the server's challenge.
        login.extend([0, 0]);
        login.extend(AUTHENTICATION.as_bytes());
        login.push(0);
        connection.send(&login).await?;
        loop {
            let answer = connection.receive().await?;
            match answer.first() {
                Some(&OK) => return Ok(connection),
                // The server names its method: to this one there is nothing to say.
                Some(&EOF) if names_method(&answer) => connection.send(&[]).await?,
                Some(&ERROR) => return Err(refusal(&answer)),
                _ => return Err(strange("the answer to the login")),
            }
        }
    }

    /// Runs one statement; its rows, if it has any.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        self.sequence = 0;
        self.send(&[&[COM_QUERY], sql.as_bytes()].concat()).await?;
        let first = self.receive().await?;
        match first.first() {
            Some(&OK) => return Ok(Vec::new()),
            Some(&ERROR) => return Err(refusal(&first)),
            // It wants a file of ours, which it may not have.
            Some(&FILE_WANTED) | None => return Err(strange("the answer to a statement")),
            Some(_) => {}
        }
        let mut rest = first.as_slice();
        let columns = take_length(&mut rest).ok_or_else(|| strange("the number of columns"))?;
        if columns > 4096 {
            return Err(strange("the number of columns"));
        }
        for _ in 0..columns {
            self.receive().await?;
        }
        if !is_end(&self.receive().await?) {
            return Err(strange("the end of the columns"));
        }
        self.rows(columns).await
    }

    async fn rows(&mut self, columns: usize) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        loop {
            let packet = self.receive().await?;
            if is_end(&packet) {
                return Ok(rows);
            }
            if packet.first() == Some(&ERROR) {
                return Err(refusal(&packet));
            }
            bytes += packet.len();
            if rows.len() >= ROWS_MAX || bytes > ANSWER_BYTES_MAX {
                return Err(strange("the length of the answer"));
            }
            rows.push(parse_row(&packet, columns).ok_or_else(|| strange("a row"))?);
        }
    }

    async fn receive(&mut self) -> Result<Vec<u8>> {
        let mut head = [0; 4];
        self.stream.read_exact(&mut head).await?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        self.sequence = head[3].wrapping_add(1);
        if length > PACKET_BYTES_MAX {
            return Err(strange("the length of a packet"));
        }
        let mut packet = vec![0; length];
        self.stream.read_exact(&mut packet).await?;
        Ok(packet)
    }

    async fn send(&mut self, packet: &[u8]) -> Result<()> {
        let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
        if packet.len() > PACKET_BYTES_MAX {
            return Err(strange("the length of a statement"));
        }
        let [a, b, c, _] = length.to_le_bytes();
        self.stream.write_all(&[a, b, c, self.sequence]).await?;
        self.stream.write_all(packet).await?;
        self.stream.flush().await?;
        self.sequence = self.sequence.wrapping_add(1);
        Ok(())
    }
}

fn names_method(answer: &[u8]) -> bool {
    let rest = answer.get(1..).unwrap_or_default();
    let name = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    name == AUTHENTICATION.as_bytes()
}

/// The end of columns or rows is short; a long value of a row begins with the same byte.
fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&EOF) && packet.len() < 9
}

fn strange(what: &str) -> Trouble {
    Trouble::Lost(io::Error::new(
        io::ErrorKind::InvalidData,
        format!("{what} is not as expected"),
    ))
}

fn refusal(packet: &[u8]) -> Trouble {
    let code = match packet {
        [_, low, high, ..] => u16::from_le_bytes([*low, *high]),
        _ => 0,
    };
    let rest = packet.get(3..).unwrap_or_default();
    // A mark and five characters of SQL state stand before the text.
    let text = match rest.first() {
        Some(b'#') => rest.get(6..).unwrap_or_default(),
        _ => rest,
    };
    Trouble::Refused {
        code,
        message: String::from_utf8_lossy(text).into_owned(),
    }
}

fn take_length(rest: &mut &[u8]) -> Option<usize> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    let bytes = match first {
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        0xfb | 0xff => return None,
        small => return Some(usize::from(*small)),
    };
    let (number, after) = rest.split_at_checked(bytes)?;
    *rest = after;
    let mut wide = [0; 8];
    wide[..bytes].copy_from_slice(number);
    usize::try_from(u64::from_le_bytes(wide)).ok()
}

fn parse_row(packet: &[u8], columns: usize) -> Option<Row> {
    let mut rest = packet;
    let mut row = Vec::with_capacity(columns);
    for _ in 0..columns {
        if rest.first() == Some(&NULL) {
            rest = &rest[1..];
            row.push(None);
            continue;
        }
        let length = take_length(&mut rest)?;
        let (value, after) = rest.split_at_checked(length)?;
        rest = after;
        row.push(Some(String::from_utf8_lossy(value).into_owned()));
    }
    Some(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_and_torn_ones_refused() {
        let packet = [1, b'a', NULL, 0xfc, 2, 0, b'b', b'c'];
        let row = parse_row(&packet, 3).unwrap();
        assert_eq!(row, [Some("a".to_owned()), None, Some("bc".to_owned())]);
        for end in 0..packet.len() {
            assert!(parse_row(&packet[..end], 3).is_none(), "{end}");
        }
        assert!(parse_row(&[0xfe, 255, 255, 255, 255, 255, 255, 255, 255], 1).is_none());
    }

    #[test]
    fn a_refusal_loses_its_mark() {
        let Trouble::Refused { code, message } = refusal(b"\xff\x15\x04#28000Access denied") else {
            panic!("it is one");
        };
        assert_eq!((code, message.as_str()), (1045, "Access denied"));
    }

    #[test]
    fn only_the_sockets_method_is_answered() {
        assert!(names_method(b"\xfeauth_socket\0"));
        assert!(!names_method(b"\xfemysql_native_password\0salt"));
        assert!(!names_method(b"\xfe"));
    }
}
