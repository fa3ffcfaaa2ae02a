//! Coffer's certificate authorities in the store: made once by whoever needs them first, the same
//! for every process on the store. Keys are sealed under the master key.

use coffer_core::id::TenantId;
use coffer_core::secret::Secret;
use coffer_core::time::Timestamp;
use coffer_store::{Store, StoreError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::secrets::{SecretBox, SecretError};
use crate::services::Services;
use crate::tls::{Authority, TlsError, hex, unhex};
use crate::workflow::encode;

/// An authority that could not be made or read.
#[derive(Debug, Error)]
pub enum AuthorityError {
    /// The store failed.
    #[error("store an authority")]
    Store(#[from] StoreError),
    /// The stored key cannot be opened.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// The certificate could not be made.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The stored text is damaged.
    #[error("authority '{name}' is damaged in the store")]
    Damaged {
        /// Its name.
        name: String,
    },
}

#[derive(Serialize, Deserialize)]
struct Stored {
    cert_pem: String,
    sealed_key: String,
}

/// What the names of their settings begin with.
pub(crate) const PREFIX: &str = "authority/";
/// The authority of the API's own certificate.
pub const API: &str = "api";
/// The authority of guests' links and of those who may dial them.
pub const LINK: &str = "link";
/// The authority of trackers' relays and of the APIs that they hear.
pub const RELAY: &str = "relay";

/// The authority of this name, made if it is not there.
pub async fn ensure(
    store: &Store,
    secrets: &SecretBox,
    name: &str,
    now: Timestamp,
) -> Result<Authority, AuthorityError> {
    let setting = setting(name);
    let text = match store.get_setting(&setting).await? {
        Some(text) => text,
        None => {
            let made = Authority::generate(&format!("Coffer {name}"), now)?;
            let sealed = secrets.seal_own(&setting, &made.key_pem);
            let stored = Stored {
                cert_pem: made.cert_pem,
                sealed_key: hex(&sealed),
            };
            store.put_setting_once(&setting, &encode(&stored)).await?
        }
    };
    opened(secrets, name, &text)
}

/// Name of the setting that holds an authority.
pub(crate) fn setting(name: &str) -> String {
    format!("{PREFIX}{name}")
}

fn opened(secrets: &SecretBox, name: &str, text: &str) -> Result<Authority, AuthorityError> {
    let damaged = || AuthorityError::Damaged {
        name: name.to_owned(),
    };
    let stored: Stored = serde_json::from_str(text).map_err(|_| damaged())?;
    let sealed = unhex(&stored.sealed_key).ok_or_else(damaged)?;
    let key_pem: Secret = secrets.open_own(&setting(name), &sealed)?;
    Ok(Authority {
        cert_pem: stored.cert_pem,
        key_pem,
    })
}

/// An authority's text with its key under the master key in use; `None` if it is already.
pub(crate) fn rewrapped(
    secrets: &SecretBox,
    name: &str,
    text: &str,
) -> Result<Option<String>, AuthorityError> {
    let damaged = || AuthorityError::Damaged {
        name: name.to_owned(),
    };
    let mut stored: Stored = serde_json::from_str(text).map_err(|_| damaged())?;
    let sealed = unhex(&stored.sealed_key).ok_or_else(damaged)?;
    let Some(sealed) = secrets.rewrap(&setting(name), &sealed)? else {
        return Ok(None);
    };
    stored.sealed_key = hex(&sealed);
    Ok(Some(encode(&stored)))
}

/// Whether the store has any authority of Coffer's own: then it has secrets under a master key.
pub async fn is_any_known(store: &Store) -> Result<bool, StoreError> {
    for name in [API, LINK] {
        if store.get_setting(&setting(name)).await?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the master key fits the store: Coffer's own authorities can be opened, those that are
/// there.
pub async fn probe(store: &Store, secrets: &SecretBox) -> Result<(), AuthorityError> {
    for name in [API, LINK] {
        if let Some(text) = store.get_setting(&setting(name)).await? {
            opened(secrets, name, &text)?;
        }
    }
    Ok(())
}

/// The authority of guests' links.
pub async fn link(services: &Services) -> Result<Authority, AuthorityError> {
    ensure(
        &services.store,
        &services.secrets,
        LINK,
        services.clock.now(),
    )
    .await
}

/// The authority of a project's engines, as the API reads it.
pub async fn project_in(
    store: &Store,
    secrets: &SecretBox,
    tenant_id: &TenantId,
    now: Timestamp,
) -> Result<Authority, AuthorityError> {
    ensure(store, secrets, &format!("project {tenant_id}"), now).await
}

/// The authority of a project's engines.
pub async fn project(
    services: &Services,
    tenant_id: &TenantId,
) -> Result<Authority, AuthorityError> {
    let now = services.clock.now();
    project_in(&services.store, &services.secrets, tenant_id, now).await
}
