//! Encryption at rest: a master key wraps one key per project, which seals that project's
//! secrets. Every ciphertext is bound to what it is for by associated data.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use coffer_core::secret::Secret;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;

use crate::clock::Entropy;

/// A ciphertext that cannot be opened.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SecretError {
    /// Wrong key, wrong purpose or damaged bytes.
    #[error("open secret '{purpose}': the key does not fit or the stored bytes are damaged")]
    Unreadable {
        /// What the secret is for.
        purpose: String,
    },
}

/// The key of one project, unwrapped.
#[derive(Clone)]
pub struct DataKey([u8; 32]);

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DataKey(***)")
    }
}

/// Seals and opens with the master key.
#[derive(Clone)]
pub struct SecretBox {
    master: [u8; 32],
    entropy: Arc<dyn Entropy>,
}

impl fmt::Debug for SecretBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretBox(***)")
    }
}

impl SecretBox {
    /// A box under this master key.
    pub fn new(master: [u8; 32], entropy: Arc<dyn Entropy>) -> Self {
        Self { master, entropy }
    }

    /// A new project key and its wrapped form for the store.
    pub fn new_data_key(&self, purpose: &str) -> (DataKey, Vec<u8>) {
        let mut key = [0; 32];
        self.entropy.fill(&mut key);
        (DataKey(key), self.seal_with(&self.master, purpose, &key))
    }

    /// The project key inside its wrapped form.
    pub fn open_data_key(&self, purpose: &str, wrapped: &[u8]) -> Result<DataKey, SecretError> {
        let bytes = open_with(&self.master, purpose, wrapped)?;
        let key = bytes.try_into().map_err(|_| SecretError::Unreadable {
            purpose: purpose.to_owned(),
        })?;
        Ok(DataKey(key))
    }

    /// Seals text under a project key.
    pub fn seal(&self, key: &DataKey, purpose: &str, plain: &Secret) -> Vec<u8> {
        self.seal_with(&key.0, purpose, plain.expose().as_bytes())
    }

    /// Opens what `seal` made with the same key and purpose.
    pub fn open(&self, key: &DataKey, purpose: &str, sealed: &[u8]) -> Result<Secret, SecretError> {
        let bytes = open_with(&key.0, purpose, sealed)?;
        String::from_utf8(bytes)
            .map(Secret::new)
            .map_err(|_| SecretError::Unreadable {
                purpose: purpose.to_owned(),
            })
    }

    /// Seals text under the master key itself: keys of Coffer's own authorities.
    pub fn seal_own(&self, purpose: &str, plain: &Secret) -> Vec<u8> {
        self.seal(&DataKey(self.master), purpose, plain)
    }

    /// Opens what `seal_own` made.
    pub fn open_own(&self, purpose: &str, sealed: &[u8]) -> Result<Secret, SecretError> {
        self.open(&DataKey(self.master), purpose, sealed)
    }

    fn seal_with(&self, key: &[u8; 32], purpose: &str, plain: &[u8]) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        self.entropy.fill(&mut nonce);
        let mut sealed = plain.to_vec();
        cipher(key)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(purpose.as_bytes()),
                &mut sealed,
            )
            .expect("AES-GCM seals any length that fits in memory");
        [nonce.as_slice(), &sealed].concat()
    }
}

fn open_with(key: &[u8; 32], purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, SecretError> {
    let unreadable = || SecretError::Unreadable {
        purpose: purpose.to_owned(),
    };
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN).ok_or_else(unreadable)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| unreadable())?;
    let mut body = body.to_vec();
    let plain = cipher(key)
        .open_in_place(nonce, Aad::from(purpose.as_bytes()), &mut body)
        .map_err(|_| unreadable())?;
    Ok(plain.to_vec())
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("the key has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    fn sealed_box(byte: u8) -> SecretBox {
        SecretBox::new([byte; 32], Arc::new(SystemEntropy))
    }

    #[test]
    fn opens_what_it_sealed_and_nothing_else() {
        let own = sealed_box(1);
        let (key, wrapped) = own.new_data_key("project p");
        let again = own.open_data_key("project p", &wrapped).unwrap();
        let sealed = own.seal(&key, "root", &Secret::new("pw".to_owned()));
        assert_eq!(own.open(&again, "root", &sealed).unwrap().expose(), "pw");
        assert!(own.open(&again, "other", &sealed).is_err());
        assert!(sealed_box(2).open_data_key("project p", &wrapped).is_err());
        let mut damaged = sealed;
        damaged[20] ^= 1;
        assert!(own.open(&again, "root", &damaged).is_err());
        assert!(own.open(&again, "root", b"short").is_err());
    }
}
