//! A kubeconfig (`v1`, `Config`): the server, its authority and the login of the current context.
//!
//! It refuses what would make the tool start a program, leave the server's certificate unchecked, or send a login another way: `exec`,
//! `auth-provider`, `insecure-skip-tls-verify`, `proxy-url`, a password, impersonation.

use std::fmt;
use std::path::{Path, PathBuf};

use base64ct::{Base64, Encoding};
use rustls::pki_types::ServerName;
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use zeroize::Zeroizing;

use crate::types::{Class, Explained, Secret, read_regular_text};

/// Bytes: one with the certificates of a hundred clusters.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// What the current context says.
pub struct Kubeconfig {
    /// The API server, or a balancer before several.
    pub server: Server,
    pub(super) authority: Pem,
    pub(super) login: Login,
}

/// Where an API server listens, and which name its certificate must have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) name: ServerName<'static>,
    /// Before every path, if it is reached through another server; without a slash at its end.
    pub(super) base: String,
}

/// PEM, in the file itself or beside it.
pub(super) enum Pem {
    Data(Secret),
    File(PathBuf),
}

pub(super) enum Login {
    Certificate { chain: Pem, key: Pem },
    Token(Secret),
    TokenFile(PathBuf),
}

/// Why a kubeconfig is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// Not there, or not for us.
    #[error("cannot read {path}", path = path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        source: std::io::Error,
    },
    /// Not YAML, or of another form. The cause is left out: it may show a key.
    #[error("the file is not a kubeconfig in YAML or JSON{}", line.map(|line| format!(" (line {line})")).unwrap_or_default())]
    Form {
        /// Where reading it ended.
        line: Option<u64>,
    },
    /// A name that nothing has.
    #[error("the kubeconfig has no {what}")]
    Absent {
        /// What is not there.
        what: &'static str,
    },
    /// Something that is not done here.
    #[error("the kubeconfig uses {what}, which is not supported")]
    Refused {
        /// The key of the file.
        what: &'static str,
    },
    /// A value of no use.
    #[error("{what} of the kubeconfig {why}")]
    Value {
        /// The key of the file.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// The library's reason.
    #[error("certificate and key of the kubeconfig cannot be used")]
    Unfit(#[source] rustls::Error),
}

const EXEC_HINT: &str = "no program is started for a login: use a kubeconfig with a client certificate (kubeadm: /etc/kubernetes/admin.conf), or put a token into a file and name it as tokenFile: `kubectl create token NAME`";

impl Explained for KubeconfigError {
    fn class(&self) -> Class {
        match self {
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Class::Denied,
            Self::File { .. } | Self::Form { .. } | Self::Absent { .. } | Self::Refused { .. } => Class::Misconfigured,
            Self::Value { .. } | Self::Unfit(_) => Class::Misconfigured,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::File { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => "run it as root",
            Self::File { .. } | Self::Form { .. } => "name a kubeconfig with --kubeconfig",
            Self::Absent { .. } => "check it with `kubectl config view`",
            Self::Refused { what: "exec" | "auth-provider" | "username" } => EXEC_HINT,
            Self::Refused { what: "insecure-skip-tls-verify" } => {
                "name the cluster's authority as certificate-authority instead"
            }
            Self::Refused { .. } => "remove it from the context that is used, in a copy of the file",
            Self::Value { .. } | Self::Unfit(_) => {
                "check it with `kubectl config view`, and that the key belongs to the certificate"
            }
        }
    }
}

/// Wiped when it drops.
struct Wiped(Zeroizing<String>);

impl<'de> Deserialize<'de> for Wiped {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(Zeroizing::new(text)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct File {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: ClusterFile,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ClusterFile {
    #[serde(default)]
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<Wiped>,
    tls_server_name: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: ContextFile,
}

#[derive(Deserialize)]
struct ContextFile {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: UserFile,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "kebab-case", default)]
struct UserFile {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<Wiped>,
    client_key: Option<PathBuf>,
    client_key_data: Option<Wiped>,
    token: Option<Wiped>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    username: Option<IgnoredAny>,
    exec: Option<IgnoredAny>,
    auth_provider: Option<IgnoredAny>,
    #[serde(rename = "as")]
    impersonate: Option<IgnoredAny>,
}

impl Kubeconfig {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, KubeconfigError> {
        let failed = |source| KubeconfigError::File { path: path.to_owned(), source };
        let text = read_regular_text(path, FILE_MAX_BYTES).map_err(|error| match error.kind() {
            std::io::ErrorKind::FileTooLarge => KubeconfigError::Form { line: None },
            _ => failed(error),
        })?;
        Self::parse(&text, path.parent().unwrap_or(Path::new("")))
    }

    /// Files are named from `folder`, as client-go does it.
    fn parse(text: &str, folder: &Path) -> Result<Self, KubeconfigError> {
        let file: File = serde_saphyr::from_str(text)
            .map_err(|error| KubeconfigError::Form { line: error.location().map(|place| place.line()) })?;
        let absent = |what| KubeconfigError::Absent { what };
        if file.current_context.is_empty() {
            return Err(absent("current-context"));
        }
        let mut contexts = file.contexts.into_iter();
        let context = contexts.find(|one| one.name == file.current_context).ok_or(absent("context of that name"))?;
        let ContextFile { cluster, user } = context.context;
        let cluster =
            file.clusters.into_iter().find(|one| one.name == cluster).ok_or(absent("cluster of that name"))?;
        let user = file.users.into_iter().find(|one| one.name == user).ok_or(absent("user of that name"))?;
        let cluster = cluster.cluster;
        let refused = [
            (cluster.insecure_skip_tls_verify, "insecure-skip-tls-verify"),
            (cluster.proxy_url.is_some_and(|url| !url.is_empty()), "proxy-url"),
        ];
        if let Some((_, what)) = refused.into_iter().find(|(is_used, _)| *is_used) {
            return Err(KubeconfigError::Refused { what });
        }
        let server = Server::parse(&cluster.server, cluster.tls_server_name.as_deref())?;
        let authority = pem(
            "certificate-authority-data",
            cluster.certificate_authority_data,
            cluster.certificate_authority,
            folder,
        )?;
        let authority = authority.ok_or(absent("certificate-authority"))?;
        Ok(Self { server, authority, login: login(user.user, folder)? })
    }
}

fn login(user: UserFile, folder: &Path) -> Result<Login, KubeconfigError> {
    let refused = [
        (user.exec.is_some(), "exec"),
        (user.auth_provider.is_some(), "auth-provider"),
        (user.username.is_some(), "username"),
        (user.impersonate.is_some(), "as"),
    ];
    if let Some((_, what)) = refused.into_iter().find(|(is_used, _)| *is_used) {
        return Err(KubeconfigError::Refused { what });
    }
    // client-go: the file goes before the token beside it.
    if let Some(path) = user.token_file.filter(|path| !path.as_os_str().is_empty()) {
        return Ok(Login::TokenFile(folder.join(path)));
    }
    if let Some(Wiped(token)) = user.token.filter(|token| !token.0.is_empty()) {
        return Ok(Login::Token(Secret::copy_of(token.as_bytes())));
    }
    let chain = pem("client-certificate-data", user.client_certificate_data, user.client_certificate, folder)?;
    let key = pem("client-key-data", user.client_key_data, user.client_key, folder)?;
    let what = "client certificate with its key, token or tokenFile";
    let (chain, key) = chain.zip(key).ok_or(KubeconfigError::Absent { what })?;
    Ok(Login::Certificate { chain, key })
}

/// Data goes before a file (client-go, `rest.DataFromSliceOrFile`).
fn pem(
    what: &'static str,
    data: Option<Wiped>,
    file: Option<PathBuf>,
    folder: &Path,
) -> Result<Option<Pem>, KubeconfigError> {
    if let Some(Wiped(data)) = data.filter(|data| !data.0.is_empty()) {
        let packed = Zeroizing::new(data.split_ascii_whitespace().collect::<String>());
        let bytes = Base64::decode_vec(&packed).map_err(|_| KubeconfigError::Value { what, why: "is not Base64" })?;
        return Ok(Some(Pem::Data(Secret::new(bytes))));
    }
    Ok(file.filter(|path| !path.as_os_str().is_empty()).map(|path| Pem::File(folder.join(path))))
}

impl Server {
    /// `https://HOST[:PORT][/PATH]`. `name` is what its certificate must have in place of the host.
    pub fn parse(url: &str, name: Option<&str>) -> Result<Self, KubeconfigError> {
        let unfit = |why| KubeconfigError::Value { what: "server", why };
        const FORM: &str = "is not https://HOST:PORT";
        let rest = url.strip_prefix("https://").ok_or(unfit("does not begin with https://"))?;
        let (authority, base) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or(unfit(FORM))?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or(unfit(FORM))?,
            None if port.is_empty() => 443,
            None => return Err(unfit(FORM)),
        };
        if host.is_empty() || url.contains(['@', '?', '#', ' ']) {
            return Err(unfit(FORM));
        }
        let name = name.filter(|name| !name.is_empty()).unwrap_or(host);
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| unfit("is no name that a certificate can have"))?;
        Ok(Self { host: host.to_owned(), port, name, base: base.trim_end_matches('/').to_owned() })
    }

    /// One of several, by its own address.
    pub(super) fn at(host: &str, port: u16, name: &str) -> Option<Self> {
        let name = ServerName::try_from(name.to_owned()).ok()?;
        Some(Self { host: host.to_owned(), port, name, base: String::new() })
    }
}

impl std::str::FromStr for Server {
    type Err = KubeconfigError;

    fn from_str(url: &str) -> Result<Self, KubeconfigError> {
        Self::parse(url, None)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port, base, .. } = self;
        if host.contains(':') {
            write!(f, "https://[{host}]:{port}{base}")
        } else {
            write!(f, "https://{host}:{port}{base}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
apiVersion: v1
kind: Config
current-context: admin@here
preferences: {}
clusters:
- name: elsewhere
  cluster: {server: 'https://10.0.0.9:6443', insecure-skip-tls-verify: true}
- name: here
  cluster:
    certificate-authority-data: QUJDRA==
    server: https://10.0.0.5:6443
contexts:
- name: admin@here
  context: {cluster: here, user: admin, namespace: default}
users:
- name: admin
  user:
    client-certificate: pki/admin.crt
    client-key-data: c2VjcmV0
";

    fn parse(text: &str) -> Result<Kubeconfig, KubeconfigError> {
        Kubeconfig::parse(text, Path::new("/etc/kubernetes"))
    }

    fn refusal(from: &str, to: &str) -> KubeconfigError {
        assert!(FILE.contains(from));
        parse(&FILE.replace(from, to)).err().unwrap_or_else(|| panic!("{to}"))
    }

    #[test]
    fn the_current_context_decides_and_files_are_named_from_the_folder_of_the_kubeconfig() {
        let Kubeconfig { server, authority, login } = parse(FILE).unwrap();
        assert_eq!(server.to_string(), "https://10.0.0.5:6443");
        assert!(matches!(authority, Pem::Data(pem) if pem.expose() == b"ABCD"));
        let Login::Certificate { chain: Pem::File(chain), key: Pem::Data(key) } = login else { panic!() };
        assert_eq!((chain.to_str(), key.expose()), (Some("/etc/kubernetes/pki/admin.crt"), &b"secret"[..]));
    }

    #[test]
    fn a_token_goes_before_a_certificate_and_a_file_before_a_token() {
        let with =
            |line: &str| parse(&FILE.replace("    client-key-data", &format!("    {line}\n    client-key-data")));
        assert!(matches!(with("token: abc").unwrap().login, Login::Token(token) if token.expose() == b"abc"));
        let login = with("token: abc\n    tokenFile: /run/token").unwrap().login;
        assert!(matches!(login, Login::TokenFile(path) if path == Path::new("/run/token")));
    }

    #[test]
    fn no_program_is_started_and_nothing_is_left_unchecked() {
        let key = "    client-key-data: c2VjcmV0";
        for (from, to, what) in [
            (key, "    exec: {command: aws, args: [eks]}", "exec"),
            (key, "    auth-provider: {name: oidc}", "auth-provider"),
            (key, "    username: admin\n    password: x", "username"),
            (key, "    client-key-data: c2VjcmV0\n    as: root", "as"),
            (
                "    certificate-authority-data: QUJDRA==",
                "    insecure-skip-tls-verify: true",
                "insecure-skip-tls-verify",
            ),
            ("    server", "    proxy-url: http://proxy\n    server", "proxy-url"),
        ] {
            let error = refusal(from, to);
            assert!(matches!(error, KubeconfigError::Refused { what: said } if said == what), "{error}");
            assert!(!error.hint().is_empty());
        }
        assert!(refusal(key, "    exec: {command: aws}").hint().contains("tokenFile"));
    }

    #[test]
    fn what_is_not_there_is_named_and_no_key_is_shown() {
        for (from, to) in [
            ("current-context: admin@here", "kind: Config2"),
            ("current-context: admin@here", "current-context: other"),
            ("cluster: here", "cluster: there"),
            ("user: admin,", "user: root,"),
            ("    certificate-authority-data: QUJDRA==\n", ""),
            ("    client-key-data: c2VjcmV0", ""),
            ("c2VjcmV0", "c2VjcmV0!"),
            ("https://10.0.0.5", "http://10.0.0.5"),
            ("- name: admin\n  user:", "- name: admin\n  user: [[c2VjcmV0"),
        ] {
            let said = crate::types::Chain(&refusal(from, to)).to_string();
            assert!(!said.contains("c2VjcmV0"), "{said}");
        }
    }

    #[test]
    fn a_server_may_be_behind_another_one_and_have_a_name_of_its_own() {
        for (url, shown) in [
            ("https://api.example", "https://api.example:443"),
            ("https://[fd00::1]:6443/", "https://[fd00::1]:6443"),
            ("https://rancher.example/k8s/clusters/c-1", "https://rancher.example:443/k8s/clusters/c-1"),
        ] {
            assert_eq!(Server::parse(url, None).unwrap().to_string(), shown);
        }
        let named = Server::parse("https://10.0.0.1:6443", Some("kubernetes")).unwrap();
        assert_eq!(named.name, ServerName::try_from("kubernetes").unwrap());
        for url in ["https://", "https://a:0", "https://a:x", "https://u@a", "https://[::1", "https://a?b", "a:6443"] {
            assert!(Server::parse(url, None).is_err(), "{url}");
        }
    }
}
