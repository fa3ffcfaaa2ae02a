//! Tokens: made at random, stored hashed, validated from a small cache.
//!
//! The cache holds what the store said at most [`limits::TOKEN_CACHE_AGE`] ago, so that a request
//! costs no query; a revocation in this process empties it at once, one in another process is
//! noticed when the entry has aged.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use coffer_core::actor::Actor;
use coffer_core::id::{TenantId, UserId};
use coffer_core::secret::Secret;
use coffer_core::time::Timestamp;
use coffer_store::Store;
use coffer_store::token::TokenView;

use crate::clock::{Clock, Entropy};
use crate::error::Result;
use crate::limits;

/// Project that a token is scoped to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionTenant {
    /// Its id.
    pub id: TenantId,
    /// Its name.
    pub name: String,
}

/// Who a valid token stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// SHA-256 of the token, hex.
    pub hash: String,
    /// The user.
    pub user_id: UserId,
    /// Its name.
    pub user_name: String,
    /// Project; an unscoped token has none.
    pub tenant: Option<SessionTenant>,
    /// Roles in that project, sorted.
    pub roles: Vec<String>,
    /// When the token was issued.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Session {
    /// Whether the user holds the role `admin` in the project.
    pub fn is_admin(&self) -> bool {
        self.roles.iter().any(|role| role == "admin")
    }

    /// The actor for task, event and audit rows; `None` without a project.
    pub fn actor(&self, request_id: &str, client_address: &str) -> Option<Actor> {
        let tenant = self.tenant.as_ref()?;
        Some(Actor {
            tenant_id: tenant.id.clone(),
            user_id: self.user_id.clone(),
            roles: self.roles.clone(),
            request_id: request_id.to_owned(),
            client_address: client_address.to_owned(),
        })
    }

    /// What the store says of a token; `None` when its user or project may not log in.
    fn of(view: TokenView) -> Option<Self> {
        let is_open = view.user.is_enabled && view.tenant.as_ref().is_none_or(|t| t.is_enabled);
        // A user who lost the last role in a project has no business in it.
        let is_member = view.tenant.is_none() || !view.roles.is_empty();
        (is_open && is_member).then(|| Self {
            hash: view.token.hash,
            user_id: view.user.id,
            user_name: view.user.name.as_str().to_owned(),
            tenant: view.tenant.map(|t| SessionTenant {
                id: t.id,
                name: t.name.as_str().to_owned(),
            }),
            roles: view.roles,
            issued_at: view.token.issued_at,
            expires_at: view.token.expires_at,
        })
    }
}

/// SHA-256 of a token.
type Hash = [u8; 32];

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    read_at: Duration,
}

/// Validates tokens.
#[derive(Debug, Default)]
pub struct Tokens {
    cache: Mutex<Cache>,
}

#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<Hash, Entry>,
    /// Grows when everything is forgotten: what was read from the store before is not kept after.
    epoch: u64,
}

impl Tokens {
    /// Who the token stands for; `None` when it is unknown, ended, or its user or project closed.
    pub async fn validate(
        &self,
        store: &Store,
        clock: &dyn Clock,
        token: &str,
    ) -> Result<Option<Arc<Session>>> {
        if token.is_empty() || token.len() > limits::TOKEN_CHARS_MAX {
            return Ok(None);
        }
        let key = sha256(token);
        let (now, monotonic) = (clock.now(), clock.monotonic());
        let epoch = match self.cached(&key, monotonic) {
            Ok(session) => return Ok((now < session.expires_at).then_some(session)),
            Err(epoch) => epoch,
        };
        let found = store.find_token(&hex(&key)).await?;
        let Some(session) = found.and_then(Session::of).filter(|s| now < s.expires_at) else {
            return Ok(None);
        };
        let session = Arc::new(session);
        self.keep(key, Arc::clone(&session), (epoch, monotonic));
        Ok(Some(session))
    }

    /// Forgets everything: something about tokens, users, roles or projects changed.
    pub fn forget(&self) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        cache.entries.clear();
        cache.epoch += 1;
    }

    /// What is kept, or the epoch in which the store has to be asked.
    fn cached(&self, key: &Hash, now: Duration) -> std::result::Result<Arc<Session>, u64> {
        let cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = |entry: &&Entry| now.saturating_sub(entry.read_at) < limits::TOKEN_CACHE_AGE;
        let found = cache.entries.get(key).filter(is_fresh);
        found
            .map(|entry| Arc::clone(&entry.session))
            .ok_or(cache.epoch)
    }

    /// Keeps what the store said at a time of an epoch, unless it was revoked meanwhile.
    fn keep(&self, key: Hash, session: Arc<Session>, (epoch, now): (u64, Duration)) {
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.epoch != epoch {
            return;
        }
        let cache = &mut cache.entries;
        if cache.len() >= limits::TOKENS_CACHED {
            cache.retain(|_, one| now.saturating_sub(one.read_at) < limits::TOKEN_CACHE_AGE);
        }
        if cache.len() >= limits::TOKENS_CACHED {
            cache.clear();
        }
        cache.insert(
            key,
            Entry {
                session,
                read_at: now,
            },
        );
    }
}

/// Whether the store lets a session be, its age aside; asks it anew.
pub async fn holds(store: &Store, session: &Session) -> Result<bool> {
    let found = store.find_token(&session.hash).await?;
    Ok(found.and_then(Session::of).is_some())
}

/// A new token: 32 random bytes as text.
pub fn new_token(entropy: &dyn Entropy) -> Secret {
    let mut bytes = [0; 32];
    entropy.fill(&mut bytes);
    Secret::new(URL_SAFE_NO_PAD.encode(bytes))
}

/// What is stored of a token: SHA-256, hex.
pub fn token_hash(token: &str) -> String {
    hex(&sha256(token))
}

fn sha256(token: &str) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    hash
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    #[test]
    fn what_was_read_before_a_revocation_is_not_kept_after_it() {
        let tokens = Tokens::default();
        let key = sha256("abc");
        let session = Arc::new(Session {
            hash: hex(&key),
            user_id: "u".parse().unwrap(),
            user_name: "u".to_owned(),
            tenant: None,
            roles: Vec::new(),
            issued_at: Timestamp::from_micros(0),
            expires_at: Timestamp::from_micros(1),
        });
        let now = Duration::ZERO;
        // One request has read the token, then another revokes it, then the first goes on.
        let before = tokens.cached(&key, now).unwrap_err();
        tokens.forget();
        tokens.keep(key, Arc::clone(&session), (before, now));
        let after = tokens.cached(&key, now).unwrap_err();
        tokens.keep(key, session, (after, now));
        assert!(tokens.cached(&key, now).is_ok());
        tokens.forget();
        assert!(tokens.cached(&key, now).is_err());
    }

    #[test]
    fn tokens_are_long_differ_and_hash_as_sha256() {
        let token = new_token(&SystemEntropy);
        assert_eq!(token.expose().len(), 43);
        assert_ne!(token.expose(), new_token(&SystemEntropy).expose());
        assert_eq!(
            token_hash("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
