//! What is sealed by a passphrase: keys that leave their machine in a backup of the state.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use coffer_core::secret::Secret;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::Entropy;
use crate::secrets::open_with;
use crate::tls::hex;

/// Shortest passphrase; unit: bytes.
pub const PASSPHRASE_BYTES_MIN: usize = 12;
/// Memory that one guess costs; unit: KiB.
const MEMORY_KIB: u32 = 64 * 1024;
/// LIMIT: memory that a file may ask for; unit: KiB.
const MEMORY_KIB_MAX: u32 = 1024 * 1024;
/// Passes over that memory.
const PASSES: u32 = 3;
/// LIMIT: passes that a file may ask for.
const PASSES_MAX: u32 = 64;

/// How a passphrase becomes a key; stands in the clear beside what is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stretching {
    memory_kib: u32,
    passes: u32,
    salt: [u8; 16],
}

/// A passphrase that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PassphraseError {
    /// It could be guessed.
    #[error("the passphrase is shorter than {PASSPHRASE_BYTES_MIN} bytes")]
    TooShort,
    /// The file asks for what no machine should do.
    #[error("the sealed part asks for too much memory or time: it is not one of Coffer's")]
    TooCostly,
    /// Another passphrase, or damage.
    #[error("the passphrase does not open the sealed part")]
    Wrong,
}

impl Stretching {
    /// With a new salt.
    pub fn new(entropy: &dyn Entropy) -> Self {
        Self {
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            salt: entropy.bytes16(),
        }
    }

    fn key(&self, passphrase: &Secret) -> Result<[u8; 32], PassphraseError> {
        if self.memory_kib > MEMORY_KIB_MAX || self.passes > PASSES_MAX {
            return Err(PassphraseError::TooCostly);
        }
        let params = Params::new(self.memory_kib, self.passes, 1, Some(32));
        let params = params.map_err(|_| PassphraseError::TooCostly)?;
        let mut key = [0; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose().as_bytes(), &self.salt, &mut key)
            .map_err(|_| PassphraseError::TooCostly)?;
        Ok(key)
    }

    /// Seals bytes for a purpose that has to be named again to open them; takes about a second.
    pub fn seal(
        &self,
        entropy: &dyn Entropy,
        passphrase: &Secret,
        purpose: &str,
        plain: &[u8],
    ) -> Result<Vec<u8>, PassphraseError> {
        if passphrase.expose().len() < PASSPHRASE_BYTES_MIN {
            return Err(PassphraseError::TooShort);
        }
        let key = self.key(passphrase)?;
        let mut nonce = [0; NONCE_LEN];
        entropy.fill(&mut nonce);
        let mut sealed = plain.to_vec();
        let cipher = UnboundKey::new(&AES_256_GCM, &key).expect("the key has 32 bytes");
        LessSafeKey::new(cipher)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(purpose.as_bytes()),
                &mut sealed,
            )
            .expect("AES-GCM seals any length that fits in memory");
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Opens what `seal` made.
    pub fn open(
        &self,
        passphrase: &Secret,
        purpose: &str,
        sealed: &[u8],
    ) -> Result<Vec<u8>, PassphraseError> {
        let key = self.key(passphrase)?;
        open_with(&key, purpose, sealed).map_err(|_| PassphraseError::Wrong)
    }
}

/// A SHA-256 checksum of bytes that come in pieces.
pub struct Checksum(digest::Context);

impl std::fmt::Debug for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Checksum")
    }
}

impl Default for Checksum {
    fn default() -> Self {
        Self(digest::Context::new(&digest::SHA256))
    }
}

impl Checksum {
    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The checksum in hexadecimal digits.
    pub fn finish(self) -> String {
        hex(self.0.finish().as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn only_the_same_passphrase_and_purpose_open_it() {
        let stretching = Stretching::new(&SystemEntropy);
        let right = Secret::new("correct horse battery".to_owned());
        let seal =
            |passphrase: &Secret| stretching.seal(&SystemEntropy, passphrase, "keys", b"secret");
        let sealed = seal(&right).unwrap();
        assert!(!sealed.windows(6).any(|window| window == b"secret"));
        assert_eq!(stretching.open(&right, "keys", &sealed).unwrap(), b"secret");
        let wrong = Secret::new("correct horse batterx".to_owned());
        for (passphrase, purpose) in [(&wrong, "keys"), (&right, "other")] {
            let answer = stretching.open(passphrase, purpose, &sealed);
            assert_eq!(answer, Err(PassphraseError::Wrong));
        }
        let short = Secret::new("short".to_owned());
        assert_eq!(seal(&short), Err(PassphraseError::TooShort));
        let greedy = Stretching {
            memory_kib: u32::MAX,
            ..stretching
        };
        let answer = greedy.open(&right, "keys", &sealed);
        assert_eq!(answer, Err(PassphraseError::TooCostly));
    }
}
