//! The connection to AWS: trust, time limits, and clients that do nothing on their own.
//!
//! The SDK's retries, its cache of identities, its protection of slow streams and its proxy from the environment are off. Its log is off too: at its
//! finest level it writes answers with their bodies if a variable of the environment says so, and a body holds a key.

use std::fs;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use aws_config::provider_config::ProviderConfig;
use aws_credential_types::Credentials;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{
    BehaviorVersion, IdentityCache, Region, SharedHttpClient, StalledStreamProtectionConfig as SlowStreams,
};
use aws_smithy_http_client::{Builder, tls};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tracing::Dispatch;
use tracing::instrument::WithSubscriber;

use super::settings::{AwsSettings, Endpoint};
use crate::provider::{ErrorKind, ProviderError};

/// Bytes of a file of certificates: that of a whole distribution has about 220 kB.
const CA_FILE_MAX_BYTES: usize = 1 << 20;

/// Makes clients of one region that share their connections.
pub(super) struct Wire {
    http: SharedHttpClient,
    region: Region,
    kms: Option<Endpoint>,
    sts: Option<Endpoint>,
    limits: TimeoutConfig,
}

impl Wire {
    /// Reads the trusted authorities; connects to nothing.
    pub(super) fn open(settings: &AwsSettings) -> Result<Self, ProviderError> {
        let trust = match &settings.ca_file {
            Some(path) => tls::TrustStore::empty().with_pem_certificate(authorities(path)?),
            None if rustls_native_certs::load_native_certs().certs.is_empty() => {
                let detail = "this machine has no certificate authorities: install ca-certificates, or set ca_file";
                return Err(ProviderError::new(ErrorKind::Unfit, detail));
            }
            None => tls::TrustStore::default(),
        };
        let context = tls::TlsContext::builder().with_trust_store(trust).build();
        let context = context.map_err(|error| ProviderError::new(ErrorKind::Unfit, "TLS").because(error))?;
        let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        Ok(Self {
            http: Builder::new().tls_provider(ring).tls_context(context).build_https(),
            region: Region::new(settings.region.clone()),
            kms: settings.endpoint.clone(),
            sts: settings.sts_endpoint.clone(),
            limits: limits(settings.timeout),
        })
    }

    /// Signs with these.
    pub(super) fn kms(&self, login: Credentials) -> aws_sdk_kms::Client {
        let mut config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .region(self.region.clone())
            .timeout_config(self.limits.clone())
            .retry_config(RetryConfig::disabled())
            .identity_cache(IdentityCache::no_cache())
            .stalled_stream_protection(SlowStreams::disabled())
            .credentials_provider(login);
        config.set_endpoint_url(self.kms.as_ref().map(|endpoint| endpoint.as_str().to_owned()));
        aws_sdk_kms::Client::from_conf(config.build())
    }

    /// Signs with these, or asks without a signature, as a web identity does.
    pub(super) fn sts(&self, login: Option<Credentials>) -> aws_sdk_sts::Client {
        let mut config = aws_sdk_sts::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .region(self.region.clone())
            .timeout_config(self.limits.clone())
            .retry_config(RetryConfig::disabled())
            .identity_cache(IdentityCache::no_cache())
            .stalled_stream_protection(SlowStreams::disabled());
        if let Some(login) = login {
            config = config.credentials_provider(login);
        }
        config.set_endpoint_url(self.sts.as_ref().map(|endpoint| endpoint.as_str().to_owned()));
        aws_sdk_sts::Client::from_conf(config.build())
    }

    /// For the SDK's own chain of logins, the only part that looks at environment, profiles and the instance.
    pub(super) fn chain(&self) -> (Region, ProviderConfig) {
        let config = ProviderConfig::default()
            .with_http_client(self.http.clone())
            .with_region(Some(self.region.clone()))
            .with_retry_config(RetryConfig::disabled())
            .with_timeout_config(self.limits.clone());
        (self.region.clone(), config)
    }
}

/// Keeps the SDK, and what it calls, out of every log while this is polled.
pub(super) async fn unlogged<T>(work: impl Future<Output = T>) -> T {
    work.with_subscriber(Dispatch::none()).await
}

fn limits(whole: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(whole).operation_timeout(whole).build()
}

/// The text of a PEM file in which every certificate can be an authority; the SDK would panic on another.
fn authorities(path: &Path) -> Result<Vec<u8>, ProviderError> {
    let unfit = |why: &str| ProviderError::new(ErrorKind::Unfit, format!("ca_file {}: {why}", path.display()));
    let pem = fs::read(path).map_err(|error| unfit("cannot be read").because(error))?;
    if pem.len() > CA_FILE_MAX_BYTES {
        return Err(unfit("is too long"));
    }
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|_| unfit("is not PEM"))?;
        store.add(certificate).map_err(|error| unfit("has no usable certificate").because(error))?;
    }
    if store.is_empty() { Err(unfit("has no certificate")) } else { Ok(pem) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_usable_authorities_is_refused_before_the_sdk_sees_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        assert_eq!(authorities(&path).unwrap_err().kind(), ErrorKind::Unfit);
        for text in ["", "x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(authorities(&path).unwrap_err().kind(), ErrorKind::Unfit, "{text:?}");
        }
    }
}
