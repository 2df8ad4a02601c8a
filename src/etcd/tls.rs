//! TLS to an etcd: whose certificate is good, and which one is shown to it. Always HTTP/2, as gRPC demands.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::http2;
use crate::types::{Class, Explained, Secret, read_regular};

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
    let authority = certificates(&files.ca)?;
    let identity = files.identity.as_ref().map(|(chain, key)| Ok((certificates(chain)?, private_key(key)?)));
    http2::tls(authority, identity.transpose()?).map_err(TlsError::Unfit)
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
    match read_regular(path, PEM_MAX_BYTES) {
        Ok(mut bytes) => Ok(Secret::new(std::mem::take(&mut *bytes))),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            Err(TlsError::Content { path: path.to_owned(), what: "certificate or key" })
        }
        Err(error) => Err(failed(error)),
    }
}
