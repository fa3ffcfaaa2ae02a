//! Certificate authorities and TLS configurations: Coffer's own API, the guests' links, and one
//! authority per project for its engines.
//!
//! Keys of authorities are stored sealed; keys of guests and engines never leave the guest.

use std::net::IpAddr;
use std::sync::Arc;

use coffer_core::secret::Secret;
use coffer_core::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use thiserror::Error;

/// Days that an authority's certificate is valid.
const AUTHORITY_DAYS: i64 = 3_650;
/// Days that a leaf certificate is valid.
const LEAF_DAYS: i64 = 398;

/// Certificate work that failed.
#[derive(Debug, Error)]
#[error("{what}: {why}")]
pub struct TlsError {
    what: &'static str,
    why: String,
}

/// Result of certificate work.
pub type Result<T> = std::result::Result<T, TlsError>;

fn failed<E: ToString>(what: &'static str) -> impl Fn(E) -> TlsError {
    move |e| TlsError {
        what,
        why: e.to_string(),
    }
}

/// A certificate authority of ours.
#[derive(Debug, Clone)]
pub struct Authority {
    /// Its certificate, PEM.
    pub cert_pem: String,
    /// Its key, PEM.
    pub key_pem: Secret,
}

/// A certificate with its key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// Certificate, PEM, leaf first.
    pub cert_pem: String,
    /// Key, PEM.
    pub key_pem: Secret,
}

/// Who a leaf certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// A server.
    Server,
    /// A client.
    Client,
}

impl Authority {
    /// A new authority of this name, valid from a day before `now`.
    pub fn generate(name: &str, now: Timestamp) -> Result<Self> {
        let key = KeyPair::generate().map_err(failed("generate authority key"))?;
        let mut params = params(name, now, AUTHORITY_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key).map_err(failed("sign authority"))?;
        Ok(Self {
            cert_pem: cert.pem(),
            key_pem: Secret::new(key.serialize_pem()),
        })
    }

    /// A leaf with a key of its own.
    pub fn issue(
        &self,
        name: &str,
        alt: &AltNames,
        usage: Usage,
        now: Timestamp,
    ) -> Result<Identity> {
        let key = KeyPair::generate().map_err(failed("generate leaf key"))?;
        let cert_pem = self.sign(&key, name, alt, usage, now)?;
        Ok(Identity {
            cert_pem,
            key_pem: Secret::new(key.serialize_pem()),
        })
    }

    /// A leaf for the key in a certificate request. Of the request only the key is taken: what
    /// a guest asks to be called does not count.
    pub fn sign_request(
        &self,
        csr_pem: &str,
        name: &str,
        alt: &AltNames,
        usage: Usage,
        now: Timestamp,
    ) -> Result<String> {
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(failed("read certificate request"))?;
        self.sign(&request.public_key, name, alt, usage, now)
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        name: &str,
        alt: &AltNames,
        usage: Usage,
        now: Timestamp,
    ) -> Result<String> {
        let own = KeyPair::from_pem(self.key_pem.expose()).map_err(failed("read authority key"))?;
        let issuer =
            Issuer::from_ca_cert_pem(&self.cert_pem, own).map_err(failed("read authority"))?;
        let mut params = params(name, now, LEAF_DAYS);
        params.subject_alt_names = alt.to_rcgen()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![match usage {
            Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
            Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        }];
        params.use_authority_key_identifier_extension = true;
        let cert = params
            .signed_by(key, &issuer)
            .map_err(failed("sign leaf"))?;
        Ok(cert.pem())
    }
}

/// Names and addresses that a certificate is good for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AltNames {
    /// DNS names.
    pub names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
}

impl AltNames {
    fn to_rcgen(&self) -> Result<Vec<SanType>> {
        let names = self.names.iter().map(|name| {
            let name = name.as_str().try_into().map_err(failed("read DNS name"))?;
            Ok(SanType::DnsName(name))
        });
        names
            .chain(self.addresses.iter().map(|&ip| Ok(SanType::IpAddress(ip))))
            .collect()
    }
}

fn params(name: &str, now: Timestamp, days: i64) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date(now.plus_seconds(-86_400));
    params.not_after = date(now.plus_seconds(days * 86_400));
    params
}

fn date(at: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(at.micros() / 1_000_000)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

/// The certificates in a PEM text.
pub fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<std::result::Result<_, _>>()
        .map_err(failed("read certificates"))
}

/// The private key in a PEM text.
pub fn private_key(pem: &Secret) -> Result<PrivateKeyDer<'static>> {
    PrivateKeyDer::from_pem_slice(pem.expose().as_bytes()).map_err(failed("read private key"))
}

/// SHA-256 of the public key in a certificate, hex: what a link pins.
pub fn key_fingerprint(cert: &CertificateDer<'_>) -> Result<String> {
    let leaf = webpki::EndEntityCert::try_from(cert).map_err(failed("read certificate"))?;
    let digest = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA256,
        leaf.subject_public_key_info().as_ref(),
    );
    Ok(hex(digest.as_ref()))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The one cryptography provider of the process.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// TLS of a server of ours that asks clients for no certificate: the API.
pub fn server_config(identity: &Identity) -> Result<rustls::ServerConfig> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed("configure TLS"))?
        .with_no_client_auth()
        .with_single_cert(
            certificates(&identity.cert_pem)?,
            private_key(&identity.key_pem)?,
        )
        .map_err(failed("configure TLS"))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_only_the_key_of_a_request() {
        let now = Timestamp::from_micros(1_795_234_163_000_000);
        let authority = Authority::generate("test", now).unwrap();
        let key = KeyPair::generate().unwrap();
        let asked = CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
        let csr = asked.serialize_request(&key).unwrap().pem().unwrap();
        let alt = AltNames {
            names: vec!["good.example".to_owned()],
            addresses: vec![],
        };
        let pem = authority
            .sign_request(&csr, "good", &alt, Usage::Server, now)
            .unwrap();
        let cert = certificates(&pem).unwrap().remove(0);
        let leaf = webpki::EndEntityCert::try_from(&cert).unwrap();
        let names: Vec<_> = leaf.valid_dns_names().collect();
        assert_eq!(names, ["good.example"]);
    }
}
