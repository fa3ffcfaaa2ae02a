//! Secrets of projects in the store: sealed under the project's own key, opened where they are
//! used, erased when they are no longer needed.

use coffer_core::id::{InstanceId, ProjectKeyId, SecretId, TenantId};
use coffer_core::secret::Secret;
use coffer_store::secret::{ProjectKey, StoredSecret};
use coffer_store::{Store, StoreError};
use coffer_wire::guest::v1::Operation;
use thiserror::Error;

use crate::clock::{Clock, Entropy, new_uuid};
use crate::secrets::{DataKey, SecretBox, SecretError};
use crate::services::Services;
use crate::workflow::{StepError, encode};

/// A secret that could not be kept or read.
#[derive(Debug, Error)]
pub enum VaultError {
    /// The store failed.
    #[error("store a secret")]
    Store(#[from] StoreError),
    /// The stored bytes cannot be opened.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It was erased or never there.
    #[error("the secret is no longer there")]
    Missing,
}

/// What sealing needs: a part of [`Services`] that the API has too.
#[derive(Debug, Clone, Copy)]
pub struct Vault<'a> {
    /// State.
    pub store: &'a Store,
    /// Encryption at rest.
    pub secrets: &'a SecretBox,
    /// Time.
    pub clock: &'a dyn Clock,
    /// Randomness.
    pub entropy: &'a dyn Entropy,
}

pub(crate) fn key_purpose(tenant_id: &TenantId) -> String {
    format!("project-key {tenant_id}")
}

impl Vault<'_> {
    /// The project's key, made when it is first needed.
    async fn project_key(
        &self,
        tenant_id: &TenantId,
    ) -> Result<(ProjectKeyId, DataKey), VaultError> {
        let purpose = key_purpose(tenant_id);
        let row = match self.store.find_project_key(tenant_id).await? {
            Some(row) => row,
            None => {
                let (_, wrapped) = self.secrets.new_data_key(&purpose);
                let candidate = ProjectKey {
                    id: ProjectKeyId::from_uuid(new_uuid(self.clock, self.entropy)),
                    tenant_id: tenant_id.clone(),
                    wrapped,
                    created_at: self.clock.now(),
                };
                self.store.ensure_project_key(&candidate).await?
            }
        };
        Ok((row.id, self.secrets.open_data_key(&purpose, &row.wrapped)?))
    }

    /// A secret sealed under the project's key, ready to be stored.
    pub async fn seal(
        &self,
        tenant_id: &TenantId,
        instance_id: Option<InstanceId>,
        purpose: &str,
        plain: &Secret,
    ) -> Result<StoredSecret, VaultError> {
        let (key_id, key) = self.project_key(tenant_id).await?;
        let id = SecretId::from_uuid(new_uuid(self.clock, self.entropy));
        Ok(StoredSecret {
            id,
            key_id,
            tenant_id: tenant_id.clone(),
            instance_id,
            purpose: purpose.to_owned(),
            ciphertext: self.secrets.seal(&key, &format!("{purpose} {id}"), plain),
            created_at: self.clock.now(),
        })
    }

    /// Seals commands for a guest, to be stored with the task that runs and then erases them.
    pub async fn seal_commands(
        &self,
        tenant_id: &TenantId,
        instance_id: InstanceId,
        commands: &[Operation],
    ) -> Result<StoredSecret, VaultError> {
        let plain = Secret::new(encode(&commands));
        let purpose = "commands";
        self.seal(tenant_id, Some(instance_id), purpose, &plain)
            .await
    }

    /// The plain text of a stored secret.
    pub async fn open(&self, id: SecretId) -> Result<Secret, VaultError> {
        let row = self
            .store
            .find_secret(id)
            .await?
            .ok_or(VaultError::Missing)?;
        let key = self
            .store
            .find_project_key_by_id(row.key_id)
            .await?
            .ok_or(VaultError::Missing)?;
        let key = self
            .secrets
            .open_data_key(&key_purpose(&key.tenant_id), &key.wrapped)?;
        Ok(self.secrets.open(
            &key,
            &format!("{} {}", row.purpose, row.id),
            &row.ciphertext,
        )?)
    }
}

impl Services {
    /// The vault of these services.
    pub fn vault(&self) -> Vault<'_> {
        Vault {
            store: &self.store,
            secrets: &self.secrets,
            clock: &*self.clock,
            entropy: &*self.entropy,
        }
    }
}

/// The commands sealed under `id`, for a step.
pub(crate) async fn open_commands(
    services: &Services,
    id: SecretId,
) -> Result<Vec<Operation>, StepError> {
    let plain = services
        .vault()
        .open(id)
        .await
        .map_err(|error| match error {
            VaultError::Store(_) => StepError::Store {
                why: error.to_string(),
            },
            VaultError::Secret(_) | VaultError::Missing => {
                StepError::fatal("the stored commands cannot be read", error)
            }
        })?;
    serde_json::from_str(plain.expose())
        .map_err(|e| StepError::fatal("the stored commands cannot be read", e))
}
