//! Binaries of agents that came over the link: sealed files in memory, which only init holds.
//!
//! The volume is mounted such that nothing on it runs, and the root is read-only. A running agent
//! is given an inbox, an empty file in memory, and writes the binary into it; init seals the file,
//! so that nobody can change it any more, and only then compares its checksum. The engine's user
//! has no way to it: it has no name, and `/proc` shows that user nothing of others' processes.
//! A restart of the sandbox forgets it, and then runs what the provider binds into the root.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc;
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::checksum;
use crate::error::{GuestError, Result};
use crate::limits;

/// A binary that was checked and can change no more.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) file: File,
    pub(super) sha256: String,
}

/// An empty file in memory whose content may be executed.
pub(super) fn inbox() -> Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let executable = MFdFlags::from_bits_retain(libc::MFD_EXEC);
    let made = memfd_create(c"coffer-guest", flags | executable);
    // Kernels before 6.3 do not know the flag, and need none.
    let made = made.or_else(|_| memfd_create(c"coffer-guest", flags));
    made.map(File::from)
        .map_err(GuestError::sys("make a file for another agent"))
}

/// Seals what is in an inbox and checks it. An inbox that is refused is of no more use.
pub(super) fn accept(inbox: File, length: u64, sha256: &str) -> Result<Image> {
    let what = "take another agent";
    let seals = SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_SEAL;
    fcntl(inbox.as_fd(), FcntlArg::F_ADD_SEALS(seals)).map_err(GuestError::sys(what))?;
    let found = inbox.metadata().map_err(GuestError::io(what))?.len();
    if found != length || length > limits::AGENT_BYTES_MAX {
        return Err(GuestError::Init {
            why: format!("the other agent is {found} bytes long, and {length} were promised"),
        });
    }
    let is = checksum::of(&inbox).map_err(GuestError::io(what))?;
    if is != sha256 {
        return Err(GuestError::Init {
            why: format!("the other agent's checksum is {is}, and {sha256} was promised"),
        });
    }
    let mut magic = [0; 4];
    let read: io::Result<()> = inbox.read_exact_at(&mut magic, 0);
    if read.is_err() || magic != *b"\x7fELF" {
        return Err(GuestError::Init {
            why: "the other agent is no executable".to_owned(),
        });
    }
    Ok(Image {
        file: inbox,
        sha256: is,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(content: &[u8]) -> File {
        let inbox = inbox().unwrap();
        inbox.write_all_at(content, 0).unwrap();
        inbox
    }

    #[test]
    fn takes_what_was_promised_and_lets_nobody_change_it() {
        let content = b"\x7fELF and the rest";
        let inbox = filled(content);
        let sha256 = checksum::of(&inbox).unwrap();
        let writer = inbox.try_clone().unwrap();
        let image = accept(inbox, content.len() as u64, &sha256).unwrap();
        assert_eq!(image.sha256, sha256);
        assert!(writer.write_all_at(b"x", 0).is_err(), "it can be changed");
        assert!(writer.set_len(0).is_err(), "it can be emptied");
    }

    #[test]
    fn refuses_another_length_checksum_or_kind() {
        let sha256 = |content: &[u8]| checksum::of(&filled(content)).unwrap();
        let (good, script) = (b"\x7fELF".as_slice(), b"#!/bin/sh".as_slice());
        for (content, length, sum, why) in [
            (good, 5, sha256(good), "bytes long"),
            (good, 4, sha256(script), "checksum"),
            (script, 9, sha256(script), "no executable"),
        ] {
            let refused = accept(filled(content), length, &sum).unwrap_err();
            assert!(refused.to_string().contains(why), "{refused}");
        }
    }
}
