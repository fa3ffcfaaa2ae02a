//! SHA-256 of files, a piece at a time.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use aws_lc_rs::digest::{Context, SHA256};

/// Bytes that are read at once.
const PIECE: usize = 64 * 1024;

/// The checksum of a whole file, in lower-case hex. Its position is neither used nor moved.
pub(crate) fn of(file: &File) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut piece = vec![0; PIECE];
    let mut offset = 0;
    loop {
        match file.read_at(&mut piece, offset)? {
            0 => break,
            length => {
                context.update(&piece[..length]);
                offset += length as u64;
            }
        }
    }
    let digest = context.finish();
    Ok(digest.as_ref().iter().map(|b| format!("{b:02x}")).collect())
}

/// The checksum of bytes, in lower-case hex.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    let digest = aws_lc_rs::digest::digest(&SHA256, bytes);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

/// Whether a text has the form of a checksum.
pub(crate) fn is_plain(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn is_the_known_one() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"abc").unwrap();
        let sum = of(&file).unwrap();
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sum, known);
        assert!(is_plain(&sum) && !is_plain("abc") && !is_plain(&sum.to_uppercase()));
    }
}
