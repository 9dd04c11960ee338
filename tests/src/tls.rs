//! A certificate authority of the lab's own, and TLS on both sides.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::PrivateKeyDer,
    server::{ResolvesServerCert, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};

/// Whether a certificate's time is now or was once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Validity {
    /// From 2020 to 2099.
    Now,
    /// From 2020 to 2098: another one than [`Validity::Now`].
    Renewed,
    /// From 2020 to tomorrow.
    Brief,
    /// The year 2020.
    Expired,
}

/// An authority that nothing outside the lab trusts.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// Makes one, with a key of its own.
    ///
    /// # Errors
    ///
    /// If there are no random numbers to be had.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "exogate lab");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        Ok(Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Its certificate.
    #[must_use]
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// A certificate and its key for the given host names and addresses.
    ///
    /// # Errors
    ///
    /// If a name cannot be a host name.
    pub fn issue(&self, names: &[&str], validity: Validity) -> Result<Arc<CertifiedKey>> {
        let (certificate, key) = self.sign(names, validity)?;
        let chain = vec![certificate.der().clone()];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        Ok(Arc::new(CertifiedKey::from_der(chain, key, &provider())?))
    }

    /// The same as two PEM texts: the certificate with this authority's, and the key.
    ///
    /// # Errors
    ///
    /// If a name cannot be a host name.
    pub fn issue_pem(&self, names: &[&str], validity: Validity) -> Result<(String, String)> {
        let (certificate, key) = self.sign(names, validity)?;
        Ok((format!("{}{}", certificate.pem(), self.pem()), key.serialize_pem()))
    }

    fn sign(&self, names: &[&str], validity: Validity) -> Result<(Certificate, KeyPair)> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = match validity {
            Validity::Now => date_time_ymd(2099, 1, 1),
            Validity::Renewed => date_time_ymd(2098, 1, 1),
            Validity::Brief => {
                let day = Duration::from_secs(86_400);
                SystemTime::now().checked_add(day).context("no time is left")?.into()
            }
            Validity::Expired => date_time_ymd(2020, 12, 31),
        };
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.issuer)?, key))
    }

    /// A client that trusts this authority and no other.
    ///
    /// # Errors
    ///
    /// If the authority's own certificate is refused.
    pub fn client(&self) -> Result<Arc<ClientConfig>> {
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?)
            .with_no_client_auth();
        Ok(Arc::new(config))
    }
}

impl Authority {
    /// A client that also shows a certificate of this authority.
    ///
    /// # Errors
    ///
    /// If there is none to be had.
    pub fn client_with_certificate(&self) -> Result<Arc<ClientConfig>> {
        let (certificate, key) = self.sign(&["client.example.com"], Validity::Now)?;
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(vec![certificate.der().clone()], key)?;
        Ok(Arc::new(config))
    }

    /// A server of these names or addresses; it may ask its clients for a certificate of this
    /// authority.
    ///
    /// # Errors
    ///
    /// If the name cannot be one.
    pub fn server(&self, names: &[&str], asks_clients: bool) -> Result<Arc<ServerConfig>> {
        let key = self.issue(names, Validity::Now)?;
        if !asks_clients {
            return server(key);
        }
        let roots = Arc::new(self.roots()?);
        let clients = WebPkiClientVerifier::builder_with_provider(roots, provider()).build()?;
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        Ok(Arc::new(config))
    }

    fn roots(&self) -> Result<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).context("the lab's authority is refused")?;
        Ok(roots)
    }
}

/// A server that always shows the same certificate.
pub(crate) fn server(key: Arc<CertifiedKey>) -> Result<Arc<ServerConfig>> {
    server_with(Arc::new(SingleCertAndKey::from(key)))
}

/// A server that asks `resolver` for its certificate.
pub(crate) fn server_with(resolver: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
