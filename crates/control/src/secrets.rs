//! Encryption at rest: a master key wraps one key per project, which seals that project's
//! secrets. Every ciphertext is bound to what it is for by associated data.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::digest;
use coffer_core::secret::Secret;
use thiserror::Error;

use crate::clock::Entropy;
use crate::tls::hex;

/// What a ciphertext under a master key begins with, before the key's name.
const NAMED: &[u8] = b"CK1:";
/// Length of a master key's name; unit: bytes.
const KEY_ID_LEN: usize = 8;

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

/// The name of a master key: tells which one a ciphertext needs, and nothing about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyId([u8; KEY_ID_LEN]);

impl KeyId {
    /// The name of this key.
    pub fn of(key: &[u8; 32]) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(b"coffer master key ");
        context.update(key);
        let mut id = [0; KEY_ID_LEN];
        id.copy_from_slice(&context.finish().as_ref()[..KEY_ID_LEN]);
        Self(id)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

/// The master keys that there are: one in use and, while they are rotated, the one before.
#[derive(Clone, PartialEq, Eq)]
pub struct MasterKeys {
    /// What is sealed now is sealed under it.
    pub current: [u8; 32],
    /// Opens what was sealed before.
    pub previous: Option<[u8; 32]>,
}

impl fmt::Debug for MasterKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKeys(***)")
    }
}

/// Where master keys are read; asked again when a ciphertext names one that is not known, and
/// before anything new is sealed.
pub trait KeySource: Send + Sync + fmt::Debug {
    /// The keys as they are now; `None` if they cannot be read, and then those known last hold.
    fn read(&self) -> Option<MasterKeys>;
}

/// Seals and opens with the master key.
#[derive(Clone)]
pub struct SecretBox {
    keys: Arc<RwLock<MasterKeys>>,
    source: Option<Arc<dyn KeySource>>,
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
        let keys = MasterKeys {
            current: master,
            previous: None,
        };
        Self {
            keys: Arc::new(RwLock::new(keys)),
            source: None,
            entropy,
        }
    }

    /// A box that follows the keys of this source while they are rotated.
    pub fn following(
        keys: MasterKeys,
        source: Arc<dyn KeySource>,
        entropy: Arc<dyn Entropy>,
    ) -> Self {
        Self {
            keys: Arc::new(RwLock::new(keys)),
            source: Some(source),
            entropy,
        }
    }

    /// A new project key and its wrapped form for the store.
    pub fn new_data_key(&self, purpose: &str) -> (DataKey, Vec<u8>) {
        let mut key = [0; 32];
        self.entropy.fill(&mut key);
        (DataKey(key), self.seal_named(purpose, &key))
    }

    /// The project key inside its wrapped form.
    pub fn open_data_key(&self, purpose: &str, wrapped: &[u8]) -> Result<DataKey, SecretError> {
        let bytes = self.open_named(purpose, wrapped)?;
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
        text(open_with(&key.0, purpose, sealed)?, purpose)
    }

    /// Seals text under the master key itself: keys of Coffer's own authorities.
    pub fn seal_own(&self, purpose: &str, plain: &Secret) -> Vec<u8> {
        self.seal_named(purpose, plain.expose().as_bytes())
    }

    /// Opens what `seal_own` made.
    pub fn open_own(&self, purpose: &str, sealed: &[u8]) -> Result<Secret, SecretError> {
        text(self.open_named(purpose, sealed)?, purpose)
    }

    /// The same bytes under the master key in use; `None` if they are already.
    pub fn rewrap(&self, purpose: &str, sealed: &[u8]) -> Result<Option<Vec<u8>>, SecretError> {
        self.refresh();
        let current = KeyId::of(&self.keys().current);
        if named(sealed).is_some_and(|(id, _)| id == current) {
            return Ok(None);
        }
        let plain = self.open_named(purpose, sealed)?;
        Ok(Some(self.seal_named(purpose, &plain)))
    }

    /// The name of the master key in use.
    pub fn key_id(&self) -> KeyId {
        self.refresh();
        KeyId::of(&self.keys().current)
    }

    fn keys(&self) -> MasterKeys {
        let keys = self.keys.read();
        keys.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn refresh(&self) {
        if let Some(read) = self.source.as_ref().and_then(|source| source.read()) {
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = read;
        }
    }

    /// Seals under the master key in use, whose name stands before the rest.
    fn seal_named(&self, purpose: &str, plain: &[u8]) -> Vec<u8> {
        self.refresh();
        let current = self.keys().current;
        let sealed = self.seal_with(&current, purpose, plain);
        [NAMED, &KeyId::of(&current).0, &sealed].concat()
    }

    fn open_named(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, SecretError> {
        if let Ok(plain) = self.keys().open(purpose, sealed) {
            return Ok(plain);
        }
        self.refresh();
        self.keys().open(purpose, sealed)
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

impl MasterKeys {
    /// Opens with the key that is named. What was sealed before keys had names is tried with each.
    fn open(&self, purpose: &str, sealed: &[u8]) -> Result<Vec<u8>, SecretError> {
        let all = || std::iter::once(&self.current).chain(&self.previous);
        if let Some((id, rest)) = named(sealed)
            && let Some(key) = all().find(|key| KeyId::of(key) == id)
        {
            return open_with(key, purpose, rest);
        }
        let unnamed = all().find_map(|key| open_with(key, purpose, sealed).ok());
        unnamed.ok_or_else(|| SecretError::Unreadable {
            purpose: purpose.to_owned(),
        })
    }
}

/// The name of the master key that a ciphertext carries, and what is sealed.
fn named(sealed: &[u8]) -> Option<(KeyId, &[u8])> {
    let (id, rest) = sealed.strip_prefix(NAMED)?.split_at_checked(KEY_ID_LEN)?;
    Some((KeyId(id.try_into().ok()?), rest))
}

fn text(bytes: Vec<u8>, purpose: &str) -> Result<Secret, SecretError> {
    String::from_utf8(bytes)
        .map(Secret::new)
        .map_err(|_| SecretError::Unreadable {
            purpose: purpose.to_owned(),
        })
}

pub(crate) fn open_with(
    key: &[u8; 32],
    purpose: &str,
    sealed: &[u8],
) -> Result<Vec<u8>, SecretError> {
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

    #[derive(Debug)]
    struct Source(RwLock<MasterKeys>);

    impl KeySource for Source {
        fn read(&self) -> Option<MasterKeys> {
            self.0.read().ok().map(|keys| keys.clone())
        }
    }

    #[test]
    fn a_rotated_master_key_is_followed_and_named_by_what_it_seals() {
        let keys = |current, previous: Option<u8>| MasterKeys {
            current: [current; 32],
            previous: previous.map(|byte| [byte; 32]),
        };
        let source = Arc::new(Source(RwLock::new(keys(1, None))));
        let entropy = Arc::new(SystemEntropy);
        let own = SecretBox::following(keys(1, None), source.clone(), entropy);
        let secret = Secret::new("ca".to_owned());
        // As it was sealed before master keys had names.
        let unnamed = own.seal(&DataKey([1; 32]), "own", &secret);
        let before = own.seal_own("own", &secret);
        assert_eq!(named(&before).unwrap().0, KeyId::of(&[1; 32]));
        // Another process rotates: old and new are read, and what is sealed now names the new one.
        *source.0.write().unwrap() = keys(2, Some(1));
        let after = own.seal_own("own", &secret);
        assert_eq!(named(&after).unwrap().0, KeyId::of(&[2; 32]));
        for sealed in [&unnamed, &before, &after] {
            assert_eq!(own.open_own("own", sealed).unwrap(), secret);
        }
        assert_eq!(own.rewrap("own", &after).unwrap(), None);
        let moved = own.rewrap("own", &before).unwrap().unwrap();
        let moved_too = own.rewrap("own", &unnamed).unwrap().unwrap();
        // The old one is gone: what was moved is read, what was not is lost.
        *source.0.write().unwrap() = keys(2, None);
        let fresh = SecretBox::new([2; 32], Arc::new(SystemEntropy));
        assert_eq!(fresh.open_own("own", &moved).unwrap(), secret);
        assert_eq!(fresh.open_own("own", &moved_too).unwrap(), secret);
        assert!(fresh.open_own("own", &before).is_err());
        assert!(fresh.open_own("own", &unnamed).is_err());
    }
}
