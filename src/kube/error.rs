//! Why a kube-apiserver does not do what is asked, and what to do about it.

use std::io;
use std::time::Duration;

use super::kubeconfig::KubeconfigError;
use crate::types::{Class, Explained};

/// Why there is no answer of use.
#[derive(Debug, thiserror::Error)]
pub enum KubeError {
    /// The kubeconfig, or a file that it names.
    #[error(transparent)]
    Kubeconfig(#[from] KubeconfigError),
    /// TCP or TLS.
    #[error("cannot connect to {server}")]
    Connect {
        /// Where.
        server: String,
        /// The kernel's or the TLS library's reason.
        #[source]
        source: io::Error,
    },
    /// HTTP/2.
    #[error("the connection to {server} failed")]
    Transport {
        /// Where.
        server: String,
        /// The library's reason.
        #[source]
        source: h2::Error,
    },
    /// Nothing came.
    #[error("{server} has not answered within {} s", limit.as_secs())]
    Silent {
        /// Where.
        server: String,
        /// The limit.
        limit: Duration,
    },
    /// Something else than kube-apiserver.
    #[error("{server} does not answer as kube-apiserver does: {what}")]
    Answer {
        /// Where.
        server: String,
        /// What is wrong.
        what: &'static str,
    },
    /// It said no.
    #[error("{server} refused {what} with HTTP status {status}{}", if reason.is_empty() { String::new() } else { format!(" ({reason})") })]
    Refused {
        /// Where.
        server: String,
        /// Method and path.
        what: String,
        /// HTTP's number.
        status: u16,
        /// kube-apiserver's word for it, such as `Forbidden`. Its sentence is left out: it may repeat what an object has.
        reason: String,
        /// What it is about, as kube-apiserver says it.
        about: Option<Box<About>>,
    },
    /// Somebody else writes the record of a migration.
    #[error("another `nodeseal migrate run` is writing to this cluster")]
    Busy,
}

/// What a refusal is about: the `details` of a `Status`.
#[derive(Debug, PartialEq, Eq)]
pub struct About {
    /// The resource, in the plural.
    pub kind: String,
    /// One object of it.
    pub name: String,
}

impl KubeError {
    /// There is no such object. Another 404 is of its namespace, of its resource, or of a server between.
    pub(super) fn lacks(&self, resource: &str, name: &str) -> bool {
        match self {
            Self::Refused { status: 404, about: Some(about), .. } => about.kind == resource && about.name == name,
            _ => false,
        }
    }

    /// The HTTP status of a refusal.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// Another try may do better.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Connect { .. } => self.tls_reason().is_none(),
            Self::Transport { .. } | Self::Silent { .. } => true,
            Self::Refused { status, .. } => matches!(status, 429 | 500 | 502..=504),
            Self::Kubeconfig(_) | Self::Answer { .. } | Self::Busy => false,
        }
    }

    pub(super) fn tls_reason(&self) -> Option<&rustls::Error> {
        match self {
            Self::Connect { source, .. } => source.get_ref()?.downcast_ref(),
            _ => None,
        }
    }
}

impl Explained for KubeError {
    fn class(&self) -> Class {
        match self {
            Self::Kubeconfig(error) => error.class(),
            Self::Connect { .. } if self.tls_reason().is_some() => Class::Denied,
            Self::Connect { .. } | Self::Transport { .. } | Self::Silent { .. } | Self::Busy => Class::Unavailable,
            Self::Answer { .. } => Class::Misconfigured,
            Self::Refused { status: 401 | 403, .. } => Class::Denied,
            Self::Refused { status: 404, .. } => Class::NotFound,
            Self::Refused { status: 429, .. } => Class::Throttled,
            Self::Refused { .. } => Class::Unavailable,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Kubeconfig(error) => error.hint(),
            Self::Connect { .. } => match self.tls_reason() {
                Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Expired)) => {
                    "the certificate of kube-apiserver has expired: renew it (kubeadm: `kubeadm certs renew apiserver`)"
                }
                Some(rustls::Error::InvalidCertificate(_)) => {
                    "the server of the kubeconfig must be a name of kube-apiserver's certificate, and certificate-authority the one that has signed it"
                }
                Some(_) => "check the client certificate of the kubeconfig, and that the server speaks HTTP/2",
                None => "check that kube-apiserver runs, and the server of the kubeconfig",
            },
            Self::Transport { .. } | Self::Silent { .. } => {
                "see the log of kube-apiserver, and run this again: it continues where it was"
            }
            Self::Answer { .. } => "check that the server of the kubeconfig is a kube-apiserver",
            Self::Refused { status: 401, .. } => {
                "the login of the kubeconfig is not accepted: renew its certificate or token"
            }
            Self::Refused { status: 403, .. } => {
                "the user of the kubeconfig may not do this: docs/operations/migrate-rbac.yaml has the rights that are needed"
            }
            Self::Refused { .. } => "see the log of kube-apiserver, and run this again: it continues where it was",
            Self::Busy => "wait until it is done",
        }
    }
}
