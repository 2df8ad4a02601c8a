//! TLS by rustls with aws-lc: who the peer must be, and what a failed handshake means. Keys are agreed on with X25519MLKEM768 where the
//! server knows it, so that what is recorded today stays closed to a quantum computer of tomorrow.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{AlertDescription, CertificateError, ClientConfig, RootCertStore};

use super::super::{ErrorKind, ProviderError, files};
use super::shown::Shown;
#[cfg(any(feature = "azure", feature = "vault"))]
use crate::sandbox::Needs;
use crate::types::Secret;

/// Where systems keep their roots in one file: Debian and most others, Red Hat, SUSE, Alpine. The environment is not asked.
pub const SYSTEM_ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Who may have signed the provider's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustAnchors {
    /// Those of the operating system: the first file of [`SYSTEM_ROOTS`] that is there.
    System,
    /// Those in this file (PEM), and no other.
    File(PathBuf),
}

#[cfg(any(feature = "azure", feature = "vault"))]
impl TrustAnchors {
    /// Those of the system; a file is listed by whoever configures it.
    pub(super) fn needs(&self) -> Needs {
        match self {
            Self::System => Needs::default().system_roots(),
            Self::File(_) => Needs::default(),
        }
    }
}

/// Certificate and key that prove who we are.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// From one PEM text: the certificate, those that signed it, and the key, in any order.
    #[cfg_attr(
        not(any(feature = "azure", feature = "vault")),
        expect(dead_code, reason = "AWS accepts no client certificate")
    )]
    pub(crate) fn from_pem(pem: &Secret) -> Result<Self, ProviderError> {
        // The cause is left out: it may show a part of the text.
        let unfit = |what: &str| ProviderError::new(ErrorKind::Login, format!("the credential holds no {what} in PEM"));
        let chain = CertificateDer::pem_slice_iter(pem.expose()).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|_| unfit("certificate"))?;
        if chain.is_empty() {
            return Err(unfit("certificate"));
        }
        let key = PrivateKeyDer::from_pem_slice(pem.expose()).map_err(|_| unfit("private key"))?;
        Ok(Self { chain, key })
    }
}

/// Signs what this is given, with the key of the certificate.
#[cfg(feature = "azure")]
impl Identity {
    /// The certificate itself, in DER.
    pub(crate) fn certificate(&self) -> &[u8] {
        self.chain.first().map_or(&[], |certificate| certificate.as_ref())
    }

    /// RSASSA-PSS with SHA-256, or none for a key that is not RSA.
    pub(crate) fn sign_pss(&self, message: &[u8]) -> Option<Vec<u8>> {
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&self.key).ok()?;
        key.choose_scheme(&[rustls::SignatureScheme::RSA_PSS_SHA256])?.sign(message).ok()
    }
}

/// How connections are made, and what servers have shown in them.
#[derive(Clone)]
pub(in crate::provider) struct Tls {
    pub(super) config: Arc<ClientConfig>,
    pub(in crate::provider) shown: Shown,
}

#[cfg(feature = "vault")]
impl Tls {
    /// The same; what servers show goes there.
    pub(in crate::provider) fn shown_in(self, shown: &Shown) -> Self {
        Self { shown: shown.clone(), ..self }
    }
}

/// TLS 1.2 or 1.3 to a peer that one of these has signed.
pub(in crate::provider) fn config(roots: &TrustAnchors, identity: Option<Identity>) -> Result<Tls, ProviderError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| ProviderError::new(ErrorKind::Unfit, "TLS").because(error))?
        .with_root_certificates(store(roots)?);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { chain, key }) => builder.with_client_auth_cert(chain, key).map_err(|error| {
            ProviderError::new(ErrorKind::Login, "certificate and key do not fit together").because(error)
        })?,
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Tls { config: Arc::new(config), shown: Shown::default() })
}

fn store(roots: &TrustAnchors) -> Result<RootCertStore, ProviderError> {
    let mut store = RootCertStore::empty();
    let path = match roots {
        TrustAnchors::File(path) => path.as_path(),
        TrustAnchors::System => match SYSTEM_ROOTS.iter().map(Path::new).find(|path| path.exists()) {
            Some(path) => path,
            None => {
                return Err(ProviderError::new(ErrorKind::Unfit, "this system has no root certificates; set ca_file"));
            }
        },
    };
    let unfit = || ProviderError::new(ErrorKind::Unfit, format!("ca_file {}", path.display()));
    let read = match roots {
        TrustAnchors::File(path) => files::read_roots(path),
        // The administrator's of the whole system.
        TrustAnchors::System => std::fs::read(path),
    };
    let pem = read.map_err(|error| unfit().because(error))?;
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unfit().because(error))?;
        match (store.add(certificate), roots) {
            // A system has many, and some are too odd for webpki. A file that the operator named is not half good.
            (Ok(()), _) | (Err(_), TrustAnchors::System) => {}
            (Err(error), TrustAnchors::File(_)) => return Err(unfit().because(error)),
        }
    }
    if store.is_empty() {
        let detail = format!("ca_file {} holds no certificate", path.display());
        return Err(ProviderError::new(ErrorKind::Unfit, detail));
    }
    Ok(store)
}

fn of_rustls(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

/// A handshake that did not end.
pub(super) fn failure(error: io::Error) -> ProviderError {
    if let Some(refused) = refused_us(&error) {
        return refused;
    }
    let (kind, detail, hint) = match of_rustls(&error) {
        Some(rustls::Error::InvalidCertificate(why)) => match beyond_us(why) {
            Some(hint) => (ErrorKind::Unfit, "its certificate has a form that is not accepted", Some(hint)),
            None => (ErrorKind::Peer, "its certificate is not good", None),
        },
        Some(rustls::Error::NoCertificatesPresented) => (ErrorKind::Peer, "it has no certificate", None),
        Some(rustls::Error::InvalidMessage(_)) => (ErrorKind::Protocol, "not TLS", None),
        Some(rustls::Error::PeerIncompatible(_)) => (ErrorKind::Unfit, "TLS handshake", Some(SETTINGS)),
        Some(rustls::Error::AlertReceived(
            AlertDescription::HandshakeFailure
            | AlertDescription::ProtocolVersion
            | AlertDescription::InsufficientSecurity,
        )) => (ErrorKind::Unfit, "TLS handshake", Some(SETTINGS)),
        Some(rustls::Error::PeerMisbehaved(_) | rustls::Error::AlertReceived(_)) => {
            (ErrorKind::Protocol, "TLS handshake", None)
        }
        _ => (ErrorKind::Away, "TLS handshake", None),
    };
    let error = ProviderError::new(kind, detail).because(error);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}

/// What both sides have to have in common.
const SETTINGS: &str = "see the server's TLS: it needs 1.2 or 1.3 with ECDHE, and a certificate with RSA, P-256, P-384, P-521 or Ed25519; or it \
                        wants a client certificate: docs/providers/ says how to seal one";

/// A certificate that may be in order, and that we cannot check or do not take: nobody has to sit between for that.
fn beyond_us(why: &CertificateError) -> Option<&'static str> {
    // Its own errors are hidden behind their names.
    let named = match why {
        CertificateError::Other(other) => other.to_string(),
        other => format!("{other:?}"),
    };
    if named.contains("UnsupportedSignatureAlgorithm") {
        Some(
            "have it signed with RSA, P-256, P-384, P-521 or Ed25519: other curves, such as Brainpool's, are not checked here",
        )
    } else if named.contains("CaUsedAsEndEntity") {
        Some(
            "the server shows a certificate of an authority: make one for it with CA:FALSE, signed by what is in ca_file",
        )
    } else if named.contains("UnsupportedCertVersion") {
        Some("the server's certificate is of X.509 version 1: make one of version 3, with its name as subjectAltName")
    } else {
        None
    }
}

/// The peer said in an alert that it does not want our certificate. With TLS 1.3 it says so after the handshake.
pub(super) fn refused_us(error: &io::Error) -> Option<ProviderError> {
    let Some(rustls::Error::AlertReceived(alert)) = of_rustls(error) else { return None };
    let ours = matches!(
        alert,
        AlertDescription::AccessDenied
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::UnsupportedCertificate
    );
    ours.then(|| ProviderError::new(ErrorKind::Login, format!("TLS alert {alert:?}")))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};
    use rustls::crypto::{SupportedKxGroup, aws_lc_rs};
    use rustls::{ClientConnection, Connection, NamedGroup, ServerConfig, ServerConnection};

    use super::*;

    /// What keys are agreed on with, by a server that has such a key and knows these groups.
    fn agreed(key: &'static SignatureAlgorithm, groups: &[&'static dyn SupportedKxGroup]) -> NamedGroup {
        let key = KeyPair::generate_for(key).unwrap();
        let certificate = CertificateParams::new(vec!["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
        let mut provider = aws_lc_rs::default_provider();
        provider.kx_groups = groups.to_vec();
        let server = ServerConfig::builder_with_provider(Arc::new(provider)).with_safe_default_protocol_versions();
        let secret = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let server =
            server.unwrap().with_no_client_auth().with_single_cert(vec![certificate.der().clone()], secret).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
        let client = config(&TrustAnchors::File(folder.path().join("ca.pem")), None).unwrap();
        let mut client =
            Connection::from(ClientConnection::new(client.config, "localhost".try_into().unwrap()).unwrap());
        let mut server = Connection::from(ServerConnection::new(Arc::new(server)).unwrap());
        while client.is_handshaking() || server.is_handshaking() {
            pass(&mut client, &mut server);
            pass(&mut server, &mut client);
        }
        client.negotiated_key_exchange_group().unwrap().name()
    }

    fn pass(from: &mut Connection, to: &mut Connection) {
        let mut wire = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() {
            to.read_tls(&mut wire).unwrap();
            to.process_new_packets().unwrap();
        }
    }

    #[test]
    fn keys_are_agreed_on_with_ml_kem_where_the_server_knows_it_and_without_where_it_does_not() {
        use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
        let with = |groups: &[&'static dyn SupportedKxGroup]| agreed(&rcgen::PKCS_ECDSA_P256_SHA256, groups);
        assert_eq!(with(&[SECP256R1, X25519, X25519MLKEM768]), NamedGroup::X25519MLKEM768);
        assert_eq!(with(&[SECP256R1, X25519]), NamedGroup::X25519);
        assert_eq!(with(&[SECP384R1]), NamedGroup::secp384r1);
    }

    #[test]
    fn certificates_of_each_curve_that_the_hint_names_are_checked() {
        for key in [
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ED25519,
        ] {
            agreed(key, aws_lc_rs::DEFAULT_KX_GROUPS);
        }
    }
}
