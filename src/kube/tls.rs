//! TLS to an API server: the authority and the login of the kubeconfig. Always HTTP/2, which every kube-apiserver speaks.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::kubeconfig::{Kubeconfig, KubeconfigError, Login, Pem};
use crate::http2;
use crate::types::{Secret, read_regular};

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
    match read_regular(path, FILE_MAX_BYTES) {
        Ok(mut bytes) => Ok(Secret::new(std::mem::take(&mut *bytes))),
        Err(error) if error.kind() == ErrorKind::FileTooLarge => {
            Err(KubeconfigError::Value { what: "a file", why: "is longer than 1 MiB" })
        }
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_not_waited_for_where_a_pipe_is_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("token");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [pipe.as_path(), Path::new("/dev/zero")] {
            assert!(matches!(file(path), Err(KubeconfigError::File { .. })));
            assert!(matches!(Kubeconfig::read(path), Err(KubeconfigError::File { .. })));
        }
    }
}
