//! The guest's binary that this Coffer carries, which guests are given over their links.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};

use crate::tls::hex;

/// Bytes that are read at once for the checksum.
const PIECE: usize = 64 * 1024;

/// A binary, by its checksum. It is read when it is sent, and not kept in memory; the file stays
/// open, so that another one put in its place changes nothing before the next start.
#[derive(Debug)]
pub struct AgentBinary {
    /// Its version: that of the Coffer that it came with.
    pub version: String,
    /// SHA-256, hex.
    pub sha256: String,
    /// Length in bytes.
    pub length: u64,
    content: Content,
}

enum Content {
    File(File),
    Memory(Vec<u8>),
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File(_) => "File",
            Self::Memory(_) => "Memory",
        })
    }
}

impl AgentBinary {
    /// The binary in this file; reads it once.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::new(Content::File(File::open(path)?))
    }

    /// A binary of these bytes, for simulation.
    pub fn in_memory(bytes: Vec<u8>) -> io::Result<Self> {
        Self::new(Content::Memory(bytes))
    }

    fn new(content: Content) -> io::Result<Self> {
        let mut context = Context::new(&SHA256);
        let mut length = 0;
        loop {
            let piece = content.read(length, PIECE)?;
            if piece.is_empty() {
                break;
            }
            context.update(&piece);
            length += piece.len() as u64;
        }
        Ok(Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sha256: hex(context.finish().as_ref()),
            length,
            content,
        })
    }

    /// At most `most` bytes from an offset on; none at the end.
    pub fn read(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        self.content.read(offset, most)
    }

    /// Whether a guest that runs this binary of this version is to run ours instead: never one that
    /// is newer, which another Coffer on the same store may have given it.
    pub fn replaces(&self, sha256: &str, version: &str) -> bool {
        sha256 != self.sha256 && numbers(version) <= numbers(&self.version)
    }
}

impl Content {
    fn read(&self, offset: u64, most: usize) -> io::Result<Vec<u8>> {
        match self {
            Self::File(file) => {
                let mut piece = vec![0; most];
                let length = file.read_at(&mut piece, offset)?;
                piece.truncate(length);
                Ok(piece)
            }
            Self::Memory(bytes) => {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = bytes.get(from..).unwrap_or_default();
                Ok(rest.iter().take(most).copied().collect())
            }
        }
    }
}

/// The numbers of a version, which are compared in their order.
fn numbers(version: &str) -> Vec<u64> {
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let number = |part: &str| part.parse().unwrap_or(0);
    core.split('.').map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_replaces_the_same_or_a_newer_one() {
        let mut own = AgentBinary::in_memory(b"abc".to_vec()).unwrap();
        own.version = "1.9.0".to_owned();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((own.sha256.as_str(), own.length), (known, 3));
        assert_eq!(own.read(1, 9).unwrap(), b"bc");
        assert!(own.read(9, 9).unwrap().is_empty());
        assert!(!own.replaces(known, "1.8.0"));
        assert!(own.replaces("other", "1.9.0") && own.replaces("other", "1.8.12"));
        assert!(!own.replaces("other", "1.10.0") && !own.replaces("other", "2.0.0-rc1"));
    }
}
