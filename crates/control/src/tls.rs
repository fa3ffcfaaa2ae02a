//! Certificate authorities and TLS configurations: Coffer's own API, the guests' links, and one
//! authority per project for its engines.
//!
//! Keys of authorities are stored sealed; keys of guests and engines never leave the guest.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use coffer_core::secret::Secret;
use coffer_core::time::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
};
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::clock::Clock;

/// Days that an authority's certificate is valid.
const AUTHORITY_DAYS: i64 = 3_650;
/// Days that a leaf certificate is valid.
const LEAF_DAYS: i64 = 398;
/// Days after which it is made anew: a third of its time is left for whatever goes wrong.
pub const RENEW_DAYS: i64 = 265;

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

/// The bytes that these hexadecimal digits stand for.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

/// The one cryptography provider of the process.
pub fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A leaf of ours with its key, made anew when a third of its time is left, by whoever shows it
/// next: a process that runs for years shows one that is good.
#[derive(Debug)]
pub struct Renewed {
    authority: Authority,
    name: String,
    alt: AltNames,
    usage: Usage,
    clock: Arc<dyn Clock>,
    held: Mutex<(Timestamp, Arc<CertifiedKey>)>,
}

impl Renewed {
    /// A leaf of this authority, and all that will follow it.
    pub fn new(
        authority: Authority,
        name: &str,
        alt: AltNames,
        usage: Usage,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let now = clock.now();
        let first = certified(&authority.issue(name, &alt, usage, now)?)?;
        Ok(Self {
            authority,
            name: name.to_owned(),
            alt,
            usage,
            clock,
            held: Mutex::new((now, Arc::new(first))),
        })
    }

    /// The leaf for a handshake that begins now.
    pub fn current(&self) -> Arc<CertifiedKey> {
        let now = self.clock.now();
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if is_due(held.0, now) {
            let next = self
                .authority
                .issue(&self.name, &self.alt, self.usage, now)
                .and_then(|identity| certified(&identity));
            match next {
                Ok(next) => *held = (now, Arc::new(next)),
                // The one at hand is good for months.
                Err(error) => tracing::warn!(name = self.name, %error, "renew a certificate"),
            }
        }
        Arc::clone(&held.1)
    }
}

impl ResolvesServerCert for Renewed {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl ResolvesClientCert for Renewed {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[rustls::SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Whether a leaf that was made at `made` should be made anew.
pub fn is_due(made: Timestamp, now: Timestamp) -> bool {
    now >= made.plus_seconds(RENEW_DAYS * 86_400)
}

fn certified(identity: &Identity) -> Result<CertifiedKey> {
    let key = provider()
        .key_provider
        .load_private_key(private_key(&identity.key_pem)?)
        .map_err(failed("use a key"))?;
    Ok(CertifiedKey::new(certificates(&identity.cert_pem)?, key))
}

/// Whether a server's leaf is one of this authority's that is good at `at`; both in PEM.
pub fn is_good(leaf_pem: &str, authority_pem: &str, at: Timestamp) -> Result<bool> {
    let (leaf, root) = (certificates(leaf_pem)?, certificates(authority_pem)?);
    let missing = || failed("read certificate")("it is empty");
    let root = root.first().ok_or_else(missing)?;
    let anchor = webpki::anchor_from_trusted_cert(root).map_err(failed("read authority"))?;
    let leaf = leaf.first().ok_or_else(missing)?;
    let leaf = webpki::EndEntityCert::try_from(leaf).map_err(failed("read certificate"))?;
    let seconds = u64::try_from(at.micros() / 1_000_000).unwrap_or(0);
    let then = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
    let usage = webpki::KeyUsage::server_auth();
    let anchors = [anchor];
    let verified = leaf.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &anchors,
        &[],
        then,
        usage,
        None,
        None,
    );
    Ok(verified.is_ok())
}

/// TLS of a relay: only who shows a certificate of this authority is heard.
pub fn relay_server_config(own: Arc<Renewed>, authority_pem: &str) -> Result<rustls::ServerConfig> {
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots(authority_pem)?), provider())
            .build()
            .map_err(failed("verify clients"))?;
    let config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed("configure TLS"))?;
    Ok(config
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(own))
}

/// TLS towards relays of the same authority.
pub fn relay_client_config(own: Arc<Renewed>, authority_pem: &str) -> Result<rustls::ClientConfig> {
    let config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed("configure TLS"))?;
    let mut config = config
        .with_root_certificates(roots(authority_pem)?)
        .with_client_cert_resolver(own);
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn roots(authority_pem: &str) -> Result<rustls::RootCertStore> {
    let mut roots = rustls::RootCertStore::empty();
    for cert in certificates(authority_pem)? {
        roots.add(cert).map_err(failed("use an authority"))?;
    }
    Ok(roots)
}

/// TLS of a server of ours that asks clients for no certificate: the API.
pub fn server_config(own: Arc<Renewed>) -> Result<rustls::ServerConfig> {
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(failed("configure TLS"))?
        .with_no_client_auth()
        .with_cert_resolver(own);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use async_trait::async_trait;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn pem(cert: &CertificateDer<'_>) -> String {
        let text = STANDARD.encode(cert);
        format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
    }

    /// A clock that stands at a day.
    #[derive(Debug, Default)]
    struct Days(AtomicI64);

    #[async_trait]
    impl Clock for Days {
        fn now(&self) -> Timestamp {
            let start = Timestamp::from_micros(1_795_234_163_000_000);
            start.plus_seconds(self.0.load(Ordering::Relaxed) * 86_400)
        }

        fn monotonic(&self) -> Duration {
            Duration::ZERO
        }

        async fn sleep(&self, _duration: Duration) {}
    }

    #[test]
    fn a_leaf_is_made_anew_long_before_it_ends() {
        let clock = Arc::new(Days::default());
        let authority = Authority::generate("test", clock.now()).unwrap();
        let alt = AltNames {
            names: vec!["api.example".to_owned()],
            addresses: vec![],
        };
        let usage = Usage::Server;
        let own = Renewed::new(authority, "api", alt, usage, clock.clone()).unwrap();
        let mut shown = Vec::new();
        for day in [0, 264, 265, 500, 529, 530, 3_000] {
            clock.0.store(day, Ordering::Relaxed);
            let leaf = own.current().cert[0].clone();
            let pem = pem(&leaf);
            let months = |count: i64| clock.now().plus_seconds(count * 30 * 86_400);
            let is_good = |at| is_good(&pem, &own.authority.cert_pem, at).unwrap();
            assert!(is_good(months(0)) && is_good(months(4)), "day {day}");
            assert!(!is_good(months(14)), "day {day}");
            shown.push(leaf);
        }
        let is_same: Vec<_> = shown.windows(2).map(|pair| pair[0] == pair[1]).collect();
        assert_eq!(is_same, [true, false, true, true, false, false]);
    }

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
