//! What the servers store instead of a password, made here, so that no server and no log of one
//! ever sees a password.

use aws_lc_rs::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use aws_lc_rs::rand;

use crate::error::{EngineError, Result};

/// Rounds of the digest that MySQL uses, in thousands, as it writes them.
const ROUNDS_THOUSANDS: &str = "005";
const ROUNDS: usize = 5000;
const SALT_BYTES: usize = 20;
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The verifier of `mysql_native_password`: `*` and twice SHA-1 in upper-case hex.
pub(crate) fn native(password: &str) -> String {
    let sha1 = |bytes: &[u8]| digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes);
    let twice = sha1(sha1(password.as_bytes()).as_ref());
    let hex: String = twice.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    format!("*{hex}")
}

/// The verifier of `caching_sha2_password`, with a new salt.
pub(crate) fn caching_sha2(password: &str) -> Result<String> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt).map_err(|_| EngineError::Failed {
        what: "make a salt",
        why: "the system gives no randomness".to_owned(),
    })?;
    for byte in &mut salt {
        *byte = ALPHABET[usize::from(*byte & 63)];
    }
    let salt = String::from_utf8_lossy(&salt).into_owned();
    let digest = sha256_crypt(password.as_bytes(), salt.as_bytes());
    Ok(format!("$A${ROUNDS_THOUSANDS}${salt}{digest}"))
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

fn stretch(digest: &[u8; 32], length: usize) -> Vec<u8> {
    digest.iter().copied().cycle().take(length).collect()
}

/// SHA-crypt of 256 bits, as its public specification has it, with MySQL's longer salt.
fn sha256_crypt(password: &[u8], salt: &[u8]) -> String {
    let alternate = sha256(&[password, salt, password]);
    let mut first = [password, salt, &stretch(&alternate, password.len())].concat();
    let mut bits = password.len();
    while bits > 0 {
        match bits & 1 {
            1 => first.extend_from_slice(&alternate),
            _ => first.extend_from_slice(password),
        }
        bits >>= 1;
    }
    let mut sum = sha256(&[&first]);
    let passwords = sha256(&vec![password; password.len()]);
    let passwords = stretch(&passwords, password.len());
    let salts = sha256(&vec![salt; 16 + usize::from(sum[0])]);
    let salts = stretch(&salts, salt.len());
    for round in 0..ROUNDS {
        let odd = round % 2 == 1;
        let mut parts: Vec<&[u8]> = vec![if odd { &passwords } else { &sum }];
        if round % 3 != 0 {
            parts.push(&salts);
        }
        if round % 7 != 0 {
            parts.push(&passwords);
        }
        parts.push(if odd { &sum } else { &passwords });
        sum = sha256(&parts);
    }
    encode(&sum)
}

/// The order in which the specification takes the bytes.
fn encode(sum: &[u8; 32]) -> String {
    let mut text = String::with_capacity(43);
    let (mut a, mut b, mut c) = (0, 10, 20);
    for _ in 0..10 {
        push(&mut text, [sum[a], sum[b], sum[c]], 4);
        (a, b, c) = (c + 1, a + 1, b + 1);
    }
    push(&mut text, [0, sum[31], sum[30]], 3);
    text
}

/// The low `count` times 6 bits, lowest first.
fn push(text: &mut String, bytes: [u8; 3], count: usize) {
    let [a, b, c] = bytes.map(usize::from);
    let mut word = (a << 16) | (b << 8) | c;
    for _ in 0..count {
        text.push(char::from(ALPHABET[word & 63]));
        word >>= 6;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn native_is_as_published() {
        // The example of the manual of both servers.
        assert_eq!(
            native("password"),
            "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"
        );
    }

    #[test]
    fn sha256_crypt_is_as_published() {
        // The first example of the specification of SHA-crypt.
        assert_eq!(
            sha256_crypt(b"Hello world!", b"saltstring"),
            "5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
        );
        let verifier = caching_sha2("s3cret").unwrap();
        assert_eq!(verifier.len(), 7 + SALT_BYTES + 43);
        assert!(verifier.starts_with("$A$005$"), "{verifier}");
    }
}
