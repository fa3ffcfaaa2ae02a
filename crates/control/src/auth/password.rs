//! Password hashes: argon2id in PHC text form, computed aside and few at a time.
//!
//! A hash takes tens of milliseconds and 19 MiB on purpose, so it runs on a blocking thread and
//! only [`limits::PASSWORD_HASHES_AT_ONCE`] at a time.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use coffer_core::secret::Secret;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::clock::Entropy;
use crate::error::{Error, Result};
use crate::limits;

/// Hash that no password fits, checked where there is no user, so that an unknown name takes as
/// long as a wrong password.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$Y29mZmVyLW5vYm9keS0xNg$\
                      AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Makes and checks password hashes.
#[derive(Debug)]
pub struct Passwords {
    permits: Semaphore,
    params: Params,
}

impl Default for Passwords {
    fn default() -> Self {
        Self::new()
    }
}

impl Passwords {
    /// Hashing at argon2's recommended cost.
    pub fn new() -> Self {
        Self {
            permits: Semaphore::new(limits::PASSWORD_HASHES_AT_ONCE),
            params: Params::default(),
        }
    }

    /// The hash to store for a password.
    pub async fn hash(&self, entropy: &dyn Entropy, password: &Secret) -> Result<String> {
        let salt = entropy.bytes16();
        let password = password.clone();
        let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone());
        let _permit = self.permit().await?;
        aside(move || {
            hasher
                .hash_password_with_salt(password.expose().as_bytes(), &salt)
                .map(|hash: argon2::password_hash::phc::PasswordHash| hash.to_string())
                .map_err(|e| Error::internal(format!("hash a password: {e}")))
        })
        .await?
    }

    /// Whether the password fits the stored hash; without one it never does, in the same time.
    pub async fn verify(&self, password: &Secret, stored: Option<&str>) -> Result<bool> {
        self.verify_in_turn(password, stored, || Ok(()), |_| {})
            .await
    }

    /// The same; `look` is asked once it is its turn, and may refuse, and `note` is told the answer
    /// before the next one's turn.
    pub async fn verify_in_turn(
        &self,
        password: &Secret,
        stored: Option<&str>,
        look: impl FnOnce() -> Result<()> + Send,
        note: impl FnOnce(bool) + Send,
    ) -> Result<bool> {
        let _permit = self.permit().await?;
        look()?;
        let is_known = stored.is_some();
        let stored = stored.unwrap_or(NOBODY).to_owned();
        let password = password.clone();
        let fits = aside(move || {
            let parsed = PasswordHash::new(&stored)
                .map_err(|e| Error::internal(format!("read a stored password hash: {e}")))?;
            let verified = Argon2::default().verify_password(password.expose().as_bytes(), &parsed);
            Ok::<_, Error>(verified.is_ok() && is_known)
        })
        .await??;
        note(fits);
        Ok(fits)
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>> {
        let permit = self.permits.acquire().await;
        permit.map_err(|_| Error::internal("password hashing was stopped"))
    }
}

async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Error::internal(format!("hash a password aside: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemEntropy;

    #[tokio::test]
    async fn only_the_same_password_fits() {
        let passwords = Passwords::new();
        let right = Secret::new("correct horse".to_owned());
        let stored = passwords.hash(&SystemEntropy, &right).await.unwrap();
        assert!(stored.starts_with("$argon2id$"), "{stored}");
        assert!(passwords.verify(&right, Some(&stored)).await.unwrap());
        let wrong = Secret::new("correct horsf".to_owned());
        assert!(!passwords.verify(&wrong, Some(&stored)).await.unwrap());
        assert!(!passwords.verify(&right, None).await.unwrap());
    }
}
