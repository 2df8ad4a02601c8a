//! TLS to an etcd: whose certificate is good, and which one is shown to it. Always HTTP/2, as gRPC demands.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::types::{Class, Explained, Secret};

/// Bytes of a file with certificates or a key.
const PEM_MAX_BYTES: u64 = 1 << 20;

/// The files that a client of etcd needs, as etcdctl calls them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// `--cacert`
    pub ca: PathBuf,
    /// `--cert` and `--key`; an etcd may ask for none.
    pub identity: Option<(PathBuf, PathBuf)>,
}

/// Why these files are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Not there, or not for us.
    #[error("cannot read {path}", path = path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: io::Error,
    },
    /// Not PEM, or nothing in it.
    #[error("{path} has no {what} in PEM form", path = path.display())]
    Content {
        /// Which one.
        path: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// The library's reason.
    #[error("certificate and key cannot be used")]
    Unfit(#[source] rustls::Error),
}

impl Explained for TlsError {
    fn class(&self) -> Class {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Class::Denied,
            Self::File { .. } | Self::Content { .. } | Self::Unfit(_) => Class::Misconfigured,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => "run it as root",
            Self::File { .. } => "name the files that kube-apiserver uses: --cacert, --cert and --key",
            Self::Content { .. } => {
                "check the file with `openssl x509 -text -in FILE`; a key with `openssl pkey -check`"
            }
            Self::Unfit(_) => "check that --key belongs to --cert",
        }
    }
}

/// TLS 1.2 or 1.3 to a peer that this authority has signed.
pub(super) fn config(files: &TlsFiles) -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(&files.ca)? {
        roots.add(certificate).map_err(TlsError::Unfit)?;
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unfit)?
        .with_root_certificates(roots);
    let mut config = match &files.identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            builder.with_client_auth_cert(certificates(chain)?, private_key(key)?).map_err(TlsError::Unfit)?
        }
    };
    // gRPC over HTTP/2, "HTTP2 Transport Mapping": grpc-go refuses a peer that has not agreed on it.
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = read(path)?;
    let found = CertificateDer::pem_slice_iter(pem.expose()).collect::<Result<Vec<_>, _>>().unwrap_or_default();
    if found.is_empty() { Err(TlsError::Content { path: path.to_owned(), what: "certificate" }) } else { Ok(found) }
}

/// The cause is left out: it may show a part of the text.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(read(path)?.expose())
        .map_err(|_| TlsError::Content { path: path.to_owned(), what: "private key" })
}

fn read(path: &Path) -> Result<Secret, TlsError> {
    let failed = |source| TlsError::File { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(failed)?.len();
    if size > PEM_MAX_BYTES {
        return Err(TlsError::Content { path: path.to_owned(), what: "certificate or key" });
    }
    std::fs::read(path).map(Secret::new).map_err(failed)
}
