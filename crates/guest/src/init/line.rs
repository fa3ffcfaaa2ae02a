//! A non-blocking socket that carries lines both ways, with a bound on what waits.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

use crate::limits::{INIT_LINE_BYTES_MAX, INIT_QUEUE_BYTES_MAX};

/// Init's end of the socket pair.
#[derive(Debug)]
pub(super) struct Lines {
    pub(super) socket: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
}

impl Lines {
    /// Takes a non-blocking socket.
    pub(super) fn new(socket: UnixStream) -> Self {
        Self {
            socket,
            incoming: Vec::new(),
            outgoing: Vec::new(),
        }
    }

    /// Whether bytes wait to be written.
    pub(super) fn has_outgoing(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Queues a line; an error when the reader is too slow.
    pub(super) fn push(&mut self, line: &[u8]) -> io::Result<()> {
        if self.outgoing.len() + line.len() > INIT_QUEUE_BYTES_MAX {
            return Err(io::Error::other("the agent does not read"));
        }
        self.outgoing.extend_from_slice(line);
        self.outgoing.push(b'\n');
        self.flush()
    }

    /// Writes what the socket takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            match self.socket.write(&self.outgoing) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what is there; complete lines come back, an error when the other end is gone.
    pub(super) fn read(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut piece = [0_u8; 4096];
        loop {
            match self.socket.read(&mut piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.incoming.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if self.incoming.len() > INIT_LINE_BYTES_MAX {
                return Err(io::Error::other("a line is too long"));
            }
        }
        let Some(end) = self.incoming.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let rest = self.incoming.split_off(end + 1);
        let whole = std::mem::replace(&mut self.incoming, rest);
        Ok(whole
            .split(|b| *b == b'\n')
            .filter(|l| !l.is_empty())
            .map(<[u8]>::to_vec)
            .collect())
    }
}
