//! TLS to an API server: the authority and the login of the kubeconfig. Always HTTP/2, which every kube-apiserver speaks.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::kubeconfig::{Kubeconfig, KubeconfigError, Login, Pem};
use crate::http2;
use crate::types::Secret;

/// Bytes of a file with certificates, a key or a token.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// TLS 1.2 or 1.3 to a peer that the kubeconfig's authority has signed.
pub(super) fn config(of: &Kubeconfig) -> Result<Arc<ClientConfig>, KubeconfigError> {
    let authority = certificates(&of.authority, "certificate-authority")?;
    let identity = match &of.login {
        Login::Token(_) | Login::TokenFile(_) => None,
        Login::Certificate { chain, key } => Some((certificates(chain, "client-certificate")?, private_key(key)?)),
    };
    http2::tls(authority, identity).map_err(KubeconfigError::Unfit)
}

fn certificates(pem: &Pem, what: &'static str) -> Result<Vec<CertificateDer<'static>>, KubeconfigError> {
    let found = with(pem, |pem| CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>())?;
    let found = found.unwrap_or_default();
    if found.is_empty() {
        Err(KubeconfigError::Value { what, why: "has no certificate in PEM form" })
    } else {
        Ok(found)
    }
}

/// The cause is left out: it may show a part of the text.
fn private_key(pem: &Pem) -> Result<PrivateKeyDer<'static>, KubeconfigError> {
    let unfit = KubeconfigError::Value { what: "client-key", why: "has no private key in PEM form" };
    with(pem, PrivateKeyDer::from_pem_slice)?.map_err(|_| unfit)
}

fn with<T>(pem: &Pem, read: impl FnOnce(&[u8]) -> T) -> Result<T, KubeconfigError> {
    match pem {
        Pem::Data(pem) => Ok(read(pem.expose())),
        Pem::File(path) => Ok(read(file(path)?.expose())),
    }
}

/// A whole file.
pub(super) fn file(path: &Path) -> Result<Secret, KubeconfigError> {
    let failed = |source| KubeconfigError::File { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.len() > FILE_MAX_BYTES {
        return Err(KubeconfigError::Value { what: "a file", why: "is longer than 1 MiB" });
    }
    std::fs::read(path).map(Secret::new).map_err(failed)
}
