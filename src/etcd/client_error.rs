//! Why an etcd does not answer, and what to do about it.

use std::io;
use std::time::Duration;

use super::tls::TlsError;
use crate::types::{Class, Explained};

/// gRPC's numbers.
const UNKNOWN: u16 = 2;
const INVALID_ARGUMENT: u16 = 3;
const PERMISSION_DENIED: u16 = 7;
const RESOURCE_EXHAUSTED: u16 = 8;
const OUT_OF_RANGE: u16 = 11;
const UNIMPLEMENTED: u16 = 12;
const UNAUTHENTICATED: u16 = 16;

/// Why etcd does not answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The files for TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No endpoint.
    #[error("no endpoint of etcd is named")]
    NoEndpoint,
    /// TCP or the socket.
    #[error("cannot connect to {endpoint}")]
    Connect {
        /// Where.
        endpoint: String,
        /// The kernel's or the TLS library's reason.
        #[source]
        source: io::Error,
    },
    /// HTTP/2.
    #[error("the connection to {endpoint} failed")]
    Transport {
        /// Where.
        endpoint: String,
        /// The library's reason.
        #[source]
        source: h2::Error,
    },
    /// Nothing came.
    #[error("{endpoint} has not answered within {} s", limit.as_secs())]
    Silent {
        /// Where.
        endpoint: String,
        /// The limit.
        limit: Duration,
    },
    /// Another protocol.
    #[error("{endpoint} does not answer as etcd does: {what}")]
    Answer {
        /// Where.
        endpoint: String,
        /// What is wrong.
        what: String,
    },
    /// Fewer keys than there are.
    #[error("{endpoint} gave {given} keys, and has counted {counted} at the same revision")]
    Short {
        /// Where.
        endpoint: String,
        /// Keys that came.
        given: u64,
        /// Keys that there are.
        counted: u64,
    },
    /// Endpoints of two etcds.
    #[error("{endpoint} belongs to another etcd than the endpoint that was asked before")]
    OtherCluster {
        /// Where.
        endpoint: String,
    },
    /// etcd said no.
    #[error("{endpoint} refused with gRPC code {code}: {message}")]
    Refused {
        /// Where.
        endpoint: String,
        /// gRPC's number.
        code: u16,
        /// etcd's sentence, visible ASCII alone.
        message: String,
    },
}

impl ClientError {
    /// The revision that is read is no longer there.
    pub fn is_compacted(&self) -> bool {
        matches!(self, Self::Refused { code: OUT_OF_RANGE, .. })
    }

    /// The question is one that whoever listens there does not know.
    pub(super) fn is_of_question(&self) -> bool {
        matches!(self, Self::Refused { code: UNKNOWN | INVALID_ARGUMENT | UNIMPLEMENTED, .. })
    }

    /// Another try, or another endpoint, may do better.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Tls(_) | Self::NoEndpoint | Self::Answer { .. } | Self::Short { .. } | Self::OtherCluster { .. } => {
                false
            }
            Self::Connect { .. } | Self::Transport { .. } | Self::Silent { .. } => true,
            Self::Refused { code, .. } => {
                !matches!(*code, OUT_OF_RANGE | PERMISSION_DENIED | UNAUTHENTICATED | INVALID_ARGUMENT | UNIMPLEMENTED)
            }
        }
    }

    fn tls_reason(&self) -> Option<&rustls::Error> {
        match self {
            Self::Connect { source, .. } => source.get_ref()?.downcast_ref(),
            _ => None,
        }
    }
}

impl Explained for ClientError {
    fn class(&self) -> Class {
        match self {
            Self::Tls(error) => error.class(),
            Self::NoEndpoint | Self::Answer { .. } | Self::OtherCluster { .. } => Class::Misconfigured,
            Self::Short { .. } => Class::Corrupt,
            Self::Connect { .. } if self.tls_reason().is_some() => Class::Denied,
            Self::Connect { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => Class::Denied,
            Self::Connect { .. } | Self::Transport { .. } | Self::Silent { .. } => Class::Unavailable,
            Self::Refused { code: PERMISSION_DENIED | UNAUTHENTICATED, .. } => Class::Denied,
            Self::Refused { code: RESOURCE_EXHAUSTED, .. } => Class::Throttled,
            Self::Refused { .. } => Class::Unavailable,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Tls(error) => error.hint(),
            Self::NoEndpoint => "name it with --endpoints, or read a file with --snapshot",
            Self::Connect { .. } => match self.tls_reason() {
                Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Expired)) => {
                    "the certificate of etcd has expired: renew it (kubeadm: `kubeadm certs renew etcd-server`)"
                }
                Some(rustls::Error::InvalidCertificate(_)) => {
                    "--cacert must be the authority of etcd (kubeadm: /etc/kubernetes/pki/etcd/ca.crt), and the endpoint a name of its certificate"
                }
                Some(_) => {
                    "check --cert and --key: etcd did not accept them (kubeadm: /etc/kubernetes/pki/apiserver-etcd-client.crt and .key)"
                }
                None => "check that etcd runs and listens there; kine needs its socket as unix:///PATH",
            },
            Self::Transport { .. } | Self::Silent { .. } => {
                "check the log of etcd; a client certificate that etcd does not accept shows here as well"
            }
            Self::Answer { .. } => "check that the endpoint is the client port of etcd, 2379 unless set otherwise",
            Self::Short { .. } => {
                "run it again; if it fails again, that etcd is damaged: compare its members with `etcdctl endpoint hashkv --cluster`"
            }
            Self::OtherCluster { .. } => "name only endpoints of one etcd with --endpoints",
            Self::Refused { code: PERMISSION_DENIED | UNAUTHENTICATED, .. } => {
                "etcd runs with its own users: use a certificate whose user may read all keys, or name those that it may read with --prefix"
            }
            Self::Refused { code: OUT_OF_RANGE, .. } => {
                "etcd compacted the revision that was read: run it again, or read a snapshot with --snapshot"
            }
            Self::Refused { .. } => "see the log of etcd, and run this again",
        }
    }
}
