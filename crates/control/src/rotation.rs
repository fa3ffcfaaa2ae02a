//! Keys that are rotated while everything runs: what is sealed under an old one stays readable
//! until it is sealed anew, piece by piece. Each piece is compared and set by itself, so that a
//! rotation may stop anywhere and is gone on with by being asked for again.

use coffer_core::id::{ProjectKeyId, TenantId};
use coffer_store::secret::{ProjectKey, StoredSecret};
use coffer_store::{Store, StoreError};
use thiserror::Error;

use crate::authority::{self, AuthorityError};
use crate::clock::new_uuid;
use crate::secrets::{DataKey, SecretBox, SecretError};
use crate::vault::{Vault, key_purpose};

/// Ciphertexts that are sealed anew between two looks at the store.
const BATCH: u32 = 100;

/// A rotation that stopped; asked for again, it goes on.
#[derive(Debug, Error)]
pub enum RotationError {
    /// The store failed.
    #[error("rotate keys: {0}")]
    Store(#[from] StoreError),
    /// Something cannot be opened, so that it cannot be sealed anew.
    #[error("rotate keys: {0}")]
    Secret(#[from] SecretError),
    /// An authority cannot be read.
    #[error("rotate keys: {0}")]
    Authority(#[from] AuthorityError),
}

/// Wraps every project key and every authority's key under the master key in use; gives how many
/// were under another.
pub async fn rewrap(store: &Store, secrets: &SecretBox) -> Result<usize, RotationError> {
    let mut moved = 0;
    for key in store.list_project_keys().await? {
        let purpose = key_purpose(&key.tenant_id);
        if let Some(wrapped) = secrets.rewrap(&purpose, &key.wrapped)? {
            // One that another process has replaced meanwhile is seen by the next look.
            store
                .rewrap_project_key(key.id, &key.wrapped, &wrapped)
                .await?;
            moved += 1;
        }
    }
    for (name, text) in store.list_settings(authority::PREFIX).await? {
        let short = name.strip_prefix(authority::PREFIX).unwrap_or(&name);
        if let Some(fresh) = authority::rewrapped(secrets, short, &text)? {
            store.swap_setting(&name, &text, &fresh).await?;
            moved += 1;
        }
    }
    Ok(moved)
}

/// What a rotation of a project's key did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectRotation {
    /// Whether it went on with one that had been begun.
    pub was_begun: bool,
    /// Ciphertexts that were sealed anew.
    pub resealed: usize,
    /// Retired keys that are left, because something was sealed under them a moment ago.
    pub left: usize,
}

impl Vault<'_> {
    /// Gives a project a new key, seals anew what is under the old one, and destroys that. One that
    /// was begun is ended, and no other begun.
    pub async fn rotate(&self, tenant_id: &TenantId) -> Result<ProjectRotation, RotationError> {
        let was_begun = !self.store.list_retired_keys(tenant_id).await?.is_empty();
        if !was_begun {
            self.retire(tenant_id).await?;
        }
        let (mut resealed, mut left) = (0, 0);
        for old in self.store.list_retired_keys(tenant_id).await? {
            resealed += self.reseal_all(&old).await?;
            let is_gone = self.store.destroy_retired_key(old.id, self.clock.now());
            left += usize::from(!is_gone.await?);
        }
        Ok(ProjectRotation {
            was_begun,
            resealed,
            left,
        })
    }

    async fn retire(&self, tenant_id: &TenantId) -> Result<(), RotationError> {
        // A project that has sealed nothing yet has no key, and gets a new one when it does.
        let Some(old) = self.store.find_project_key(tenant_id).await? else {
            return Ok(());
        };
        let now = self.clock.now();
        let (_, wrapped) = self.secrets.new_data_key(&key_purpose(tenant_id));
        let new = ProjectKey {
            id: ProjectKeyId::from_uuid(new_uuid(self.clock, self.entropy)),
            tenant_id: tenant_id.clone(),
            wrapped,
            created_at: now,
        };
        match self.store.replace_project_key(old.id, &new, now).await {
            // Somebody else rotates the same key: it is gone on with here.
            Ok(()) | Err(StoreError::Stale { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn reseal_all(&self, old: &ProjectKey) -> Result<usize, RotationError> {
        let purpose = key_purpose(&old.tenant_id);
        let from = self.secrets.open_data_key(&purpose, &old.wrapped)?;
        let mut resealed = 0;
        loop {
            let batch = self.store.list_sealed_under(old.id, BATCH).await?;
            if batch.is_empty() {
                return Ok(resealed);
            }
            let Some(new) = self.store.find_project_key(&old.tenant_id).await? else {
                // The project was deleted meanwhile, and all its keys with it.
                return Ok(resealed);
            };
            let to = self.secrets.open_data_key(&purpose, &new.wrapped)?;
            for secret in &batch {
                resealed += usize::from(self.reseal(secret, &from, (new.id, &to)).await?);
            }
        }
    }

    async fn reseal(
        &self,
        secret: &StoredSecret,
        from: &DataKey,
        (key_id, to): (ProjectKeyId, &DataKey),
    ) -> Result<bool, RotationError> {
        let purpose = format!("{} {}", secret.purpose, secret.id);
        let plain = self.secrets.open(from, &purpose, &secret.ciphertext)?;
        let fresh = StoredSecret {
            key_id,
            ciphertext: self.secrets.seal(to, &purpose, &plain),
            ..secret.clone()
        };
        Ok(self.store.reseal_secret(secret, &fresh).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use coffer_core::secret::Secret;
    use coffer_store::{StoreOptions, StoreUrl};

    use super::*;
    use crate::clock::{Clock as _, SystemClock, SystemEntropy};
    use crate::secrets::{KeySource, MasterKeys};

    #[derive(Debug)]
    struct Source(Mutex<MasterKeys>);

    impl KeySource for Source {
        fn read(&self) -> Option<MasterKeys> {
            self.0.lock().ok().map(|keys| keys.clone())
        }
    }

    fn keys(current: u8, previous: Option<u8>) -> MasterKeys {
        MasterKeys {
            current: [current; 32],
            previous: previous.map(|byte| [byte; 32]),
        }
    }

    struct World {
        store: Store,
        source: Arc<Source>,
        secrets: SecretBox,
        clock: SystemClock,
        tenant_id: TenantId,
    }

    impl World {
        async fn new() -> Self {
            let options = StoreOptions::default();
            let store = Store::open(&StoreUrl::SqliteMemory, options).await.unwrap();
            let source = Arc::new(Source(Mutex::new(keys(1, None))));
            let entropy = Arc::new(SystemEntropy);
            let secrets = SecretBox::following(keys(1, None), source.clone(), entropy);
            Self {
                store,
                source,
                secrets,
                clock: SystemClock::new(),
                tenant_id: "p".parse().unwrap(),
            }
        }

        fn vault(&self) -> Vault<'_> {
            Vault {
                store: &self.store,
                secrets: &self.secrets,
                clock: &self.clock,
                entropy: &SystemEntropy,
            }
        }

        async fn seal(&self, text: &str) -> StoredSecret {
            let plain = Secret::new(text.to_owned());
            let vault = self.vault();
            let sealed = vault.seal(&self.tenant_id, None, "commands", &plain).await;
            let sealed = sealed.unwrap();
            self.store.put_secret(&sealed).await.unwrap();
            sealed
        }

        async fn opened(&self, sealed: &StoredSecret) -> String {
            let plain = self.vault().open(sealed.id).await.unwrap();
            plain.expose().to_owned()
        }
    }

    #[tokio::test]
    async fn everything_is_under_the_new_master_key_and_was_readable_all_the_time() {
        let world = World::new().await;
        let sealed = world.seal("one").await;
        let now = world.clock.now();
        let ca = authority::ensure(&world.store, &world.secrets, authority::API, now).await;
        let ca = ca.unwrap().cert_pem;
        *world.source.0.lock().unwrap() = keys(2, Some(1));
        // Stopped after the first piece: a project key is moved, the authority is not.
        let purpose = key_purpose(&world.tenant_id);
        let key = world.store.list_project_keys().await.unwrap().remove(0);
        let moved = world
            .secrets
            .rewrap(&purpose, &key.wrapped)
            .unwrap()
            .unwrap();
        let store = &world.store;
        store
            .rewrap_project_key(key.id, &key.wrapped, &moved)
            .await
            .unwrap();
        assert_eq!(world.opened(&sealed).await, "one");
        authority::probe(store, &world.secrets).await.unwrap();
        // Gone on with, there is one piece left, and then none.
        assert_eq!(rewrap(store, &world.secrets).await.unwrap(), 1);
        assert_eq!(rewrap(store, &world.secrets).await.unwrap(), 0);
        *world.source.0.lock().unwrap() = keys(2, None);
        let fresh = SecretBox::new([2; 32], Arc::new(SystemEntropy));
        let again = authority::ensure(store, &fresh, authority::API, now).await;
        assert_eq!(again.unwrap().cert_pem, ca, "it is the same authority");
        assert_eq!(world.opened(&sealed).await, "one");
        let lost = SecretBox::new([1; 32], Arc::new(SystemEntropy));
        assert!(authority::probe(store, &lost).await.is_err());
    }

    #[tokio::test]
    async fn a_projects_key_is_replaced_and_what_it_sealed_stays_readable() {
        let world = World::new().await;
        let nothing = world.vault().rotate(&world.tenant_id).await.unwrap();
        assert_eq!(nothing.resealed, 0, "it has no key yet");
        let mut all = Vec::new();
        for n in 0..250 {
            all.push(world.seal(&format!("secret {n}")).await);
        }
        let old = world
            .store
            .find_project_key(&world.tenant_id)
            .await
            .unwrap();
        let old = old.unwrap();
        // Killed when it had begun: what is old is read, what is new is under the new key.
        world.vault().retire(&world.tenant_id).await.unwrap();
        let late = world.seal("late").await;
        assert_ne!(late.key_id, old.id);
        assert_eq!(world.opened(&all[0]).await, "secret 0");
        let done = world.vault().rotate(&world.tenant_id).await.unwrap();
        assert_eq!((done.was_begun, done.resealed, done.left), (true, 250, 0));
        let gone = world.store.find_project_key_by_id(old.id).await.unwrap();
        assert_eq!(gone, None);
        for (n, sealed) in all.iter().enumerate() {
            assert_eq!(world.opened(sealed).await, format!("secret {n}"));
            let row = world.store.find_secret(sealed.id).await.unwrap().unwrap();
            assert_eq!(row.key_id, late.key_id, "every ciphertext names its key");
        }
        let again = world.vault().rotate(&world.tenant_id).await.unwrap();
        assert_eq!((again.was_begun, again.resealed), (false, 251));
    }
}
