//! The agent's keys and certificates.
//!
//! Both keys are made here, at the first start, and never leave the guest: the link key is read by
//! the agent only, the engine's key by the engine too. Until the control side has signed the link
//! key, a certificate signed by itself is shown; a client certificate of the link CA is always
//! required.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, version};

use crate::agent::file::{self, Durable};
use crate::error::{GuestError, Result};

/// Names of the files, in the agent's directory.
pub(crate) const FILES: [&str; 3] = ["link.key", "engine.key", "engine-self-signed.crt"];

/// Keys of this guest, and the certificate it shows.
#[derive(Debug)]
pub struct Identity {
    server_id: String,
    link_key: KeyPair,
    engine_key: KeyPair,
    engine_self_signed: String,
    shown: Arc<Shown>,
    provider: Arc<CryptoProvider>,
}

/// The certificate that the next handshake shows.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(
            &self.0.read().unwrap_or_else(PoisonError::into_inner),
        ))
    }
}

impl Identity {
    /// Reads the keys from the directory, or makes them; without a directory they live in memory.
    pub(crate) fn load(
        dir: Option<&Path>,
        server_id: &str,
        link_cert_pem: Option<&str>,
    ) -> Result<Self> {
        let link_key = key(dir.map(|dir| dir.join(FILES[0])))?;
        let engine_key = key(dir.map(|dir| dir.join(FILES[1])))?;
        let link_self_signed = self_signed(server_id, &link_key)?;
        let path = dir.map(|dir| dir.join(FILES[2]));
        let engine_self_signed = match path.as_deref().and_then(file::read_if_there) {
            Some(pem) => pem,
            None => {
                let pem = self_signed(server_id, &engine_key)?;
                if let Some(path) = &path {
                    file::replace(path, pem.as_bytes(), 0o600, Durable::Content)?;
                }
                pem
            }
        };
        let provider = Arc::new(aws_lc_rs::default_provider());
        let pem = link_cert_pem.unwrap_or(&link_self_signed);
        let certified = certified(&provider, &link_key, pem)?;
        Ok(Self {
            server_id: server_id.to_owned(),
            link_key,
            engine_key,
            engine_self_signed,
            shown: Arc::new(Shown(RwLock::new(Arc::new(certified)))),
            provider,
        })
    }

    /// Requests for certificates: for the link key, for the engine's key; PEM.
    pub(crate) fn requests(&self) -> Result<(String, String)> {
        let request = |key: &KeyPair| {
            let params = parameters(&self.server_id)?;
            let request = params
                .serialize_request(key)
                .map_err(GuestError::tls("sign a request"))?;
            request.pem().map_err(GuestError::tls("write a request"))
        };
        Ok((request(&self.link_key)?, request(&self.engine_key)?))
    }

    /// Checks a certificate for the link key, and shows it from the next handshake on.
    pub(crate) fn show(&self, link_cert_pem: &str) -> Result<()> {
        let certified = certified(&self.provider, &self.link_key, link_cert_pem)?;
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(certified);
        Ok(())
    }

    /// The engine's key, PEM.
    pub(crate) fn engine_key_pem(&self) -> String {
        self.engine_key.serialize_pem()
    }

    /// A certificate for the engine's key, for the time before the control side sends one.
    pub(crate) fn engine_self_signed(&self) -> &str {
        &self.engine_self_signed
    }

    /// The server's side of TLS: clients of the link CA only.
    pub(crate) fn server_config(&self, link_ca_pem: &str) -> Result<ServerConfig> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(link_ca_pem.as_bytes()) {
            let certificate = certificate.map_err(GuestError::tls("read the link CA"))?;
            roots
                .add(certificate)
                .map_err(GuestError::tls("use the link CA"))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&self.provider),
        )
        .build()
        .map_err(GuestError::tls("use the link CA"))?;
        let config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&version::TLS13])
            .map_err(GuestError::tls("set up TLS"))?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&self.shown) as Arc<dyn ResolvesServerCert>);
        Ok(config)
    }
}

fn key(path: Option<PathBuf>) -> Result<KeyPair> {
    if let Some(pem) = path.as_deref().and_then(file::read_if_there) {
        return KeyPair::from_pem(&pem).map_err(GuestError::tls("read a key"));
    }
    let key = KeyPair::generate().map_err(GuestError::tls("make a key"))?;
    if let Some(path) = path {
        file::replace(
            &path,
            key.serialize_pem().as_bytes(),
            0o600,
            Durable::Content,
        )?;
    }
    Ok(key)
}

fn parameters(server_id: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(vec![server_id.to_owned()])
        .map_err(GuestError::tls("name the server in a certificate"))?;
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, server_id);
    Ok(params)
}

fn self_signed(server_id: &str, key: &KeyPair) -> Result<String> {
    let certificate = parameters(server_id)?
        .self_signed(key)
        .map_err(GuestError::tls("sign a certificate"))?;
    Ok(certificate.pem())
}

fn certified(provider: &CryptoProvider, key: &KeyPair, pem: &str) -> Result<CertifiedKey> {
    let chain: std::result::Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let chain = chain.map_err(GuestError::tls("read the link certificate"))?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(GuestError::tls("use a key"))?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(GuestError::tls("use a key"))?;
    let certified = CertifiedKey::new(chain, key);
    certified
        .keys_match()
        .map_err(GuestError::tls("use the link certificate"))?;
    Ok(certified)
}
