//! What the AWS provider is told: parsed once, and without a secret. Performs no IO.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use crate::provider::KeyIdentity;
use crate::sandbox::{Access, Needs};
use crate::types::CredentialName;

/// Why a text is not what its place needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} has the form {form}")]
pub struct FormError {
    what: &'static str,
    form: &'static str,
}

/// One key, and how to get to it.
#[derive(Clone, Debug)]
pub struct AwsSettings {
    /// Which key.
    pub key: KeyArn,
    /// That of the key's ARN; anything else is refused when it is opened.
    pub region: String,
    /// Instead of AWS's own address of KMS: a VPC endpoint, or a server that speaks its protocol.
    pub endpoint: Option<Endpoint>,
    /// The same for STS, which `AssumeRole` and `WebIdentity` ask.
    pub sts_endpoint: Option<Endpoint>,
    /// How to log in.
    pub auth: AwsAuth,
    /// PEM file with the only certificate authorities to trust. None: those of the machine.
    pub ca_file: Option<PathBuf>,
    /// For one call in all: login, connection and every request that it takes.
    pub timeout: Duration,
}

impl AwsSettings {
    /// One attempt within the budget of a request of kube-apiserver.
    pub const TIMEOUT: Duration = Duration::from_millis(800);
}

impl AwsSettings {
    /// Ports of the services, names of machines, and what the default chain of logins may look at.
    pub fn needs(&self) -> Needs {
        let Self { endpoint, sts_endpoint, auth, ca_file, .. } = self;
        let ports = [endpoint, sts_endpoint].into_iter().map(|at| at.as_ref().map_or(443, Endpoint::port));
        let needs = ports.fold(Needs::default().name_service(), Needs::port);
        let needs = if ca_file.is_none() { needs.system_roots() } else { needs };
        match auth {
            AwsAuth::DefaultChain | AwsAuth::AssumeRole { base: AwsBase::DefaultChain, .. } => default_chain(needs),
            AwsAuth::Static { .. } | AwsAuth::AssumeRole { .. } | AwsAuth::WebIdentity { .. } => needs,
        }
    }
}

/// The metadata services of instance and container on port 80, and files where the SDK looks for them.
pub(crate) fn default_chain(needs: Needs) -> Needs {
    const VARIABLES: [&str; 4] = [
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    ];
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".aws"));
    let needs = home.into_iter().fold(needs.port(80), |needs, home| needs.path(&home, Access::Read, "AWS profiles"));
    let files = VARIABLES.iter().filter_map(std::env::var_os).map(PathBuf::from);
    files.fold(needs, |needs, file| needs.replaced_file(&file, "the default chain of AWS"))
}

/// How to log in. A credential is the name of a sealed one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsAuth {
    /// Keys of an IAM user, or temporary ones: JSON `{"access_key_id", "secret_access_key", "session_token"?}`.
    Static {
        /// Its name.
        credential: CredentialName,
    },
    /// What the SDK finds: environment, profile, web identity, container, instance. Only here are those looked at.
    DefaultChain,
    /// A role, with the rights of another login.
    AssumeRole {
        /// Which role.
        role: RoleArn,
        /// What the role's trust policy may ask for.
        external_id: Option<String>,
        /// The login that may assume it.
        base: AwsBase,
    },
    /// A role, with a token that something else on this machine renews.
    WebIdentity {
        /// Which role.
        role: RoleArn,
        /// Read at each login.
        token_file: PathBuf,
    },
}

/// The login that assumes a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AwsBase {
    /// As [`AwsAuth::Static`].
    Static {
        /// Its name.
        credential: CredentialName,
    },
    /// As [`AwsAuth::DefaultChain`].
    DefaultChain,
}

/// `arn:aws:kms:region:account:key/id` or `…:alias/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyArn {
    partition: String,
    region: String,
    account: String,
    resource: String,
}

impl KeyArn {
    /// Where the key is.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Whether it only points to a key.
    pub fn is_alias(&self) -> bool {
        self.resource.starts_with("alias/")
    }

    /// Whether both are of one account in one region.
    pub(super) fn is_beside(&self, other: &Self) -> bool {
        self.partition == other.partition && self.region == other.region && self.account == other.account
    }

    /// Whether both name one key, as far as their texts tell.
    pub fn is_same_as(&self, other: &Self) -> bool {
        self == other || self.identity().is_some_and(|own| other.identity() == Some(own))
    }

    /// What names this key for good. AWS never gives the id of a key to another one, so its ARN does. Keys `mrk-…` of several regions
    /// are one key with one material, whose texts open in each of them: for those the region is left out.
    pub(super) fn identity(&self) -> Option<KeyIdentity> {
        let region = if self.resource.starts_with("key/mrk-") { "" } else { &self.region };
        let text = format!("arn:{}:kms:{region}:{}:{}", self.partition, self.account, self.resource);
        if self.is_alias() { None } else { KeyIdentity::new(text).ok() }
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arn:{}:kms:{}:{}:{}", self.partition, self.region, self.account, self.resource)
    }
}

impl FromStr for KeyArn {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let form = FormError {
            what: "a key",
            form: "arn:aws:kms:REGION:ACCOUNT:key/ID or arn:aws:kms:REGION:ACCOUNT:alias/NAME",
        };
        let [partition, region, account, resource] = arn(text, "kms").ok_or(form)?;
        let (kind, name) = resource.split_once('/').ok_or(form)?;
        let fits = match kind {
            "key" => all(name, 64, |b| b.is_ascii_alphanumeric() || b == b'-'),
            // KMS API, CreateAlias: letters, digits, '/', '_' and '-', up to 256 with its prefix.
            "alias" => all(name, 250, |b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'_' | b'-')),
            _ => false,
        };
        if !fits || !is_region(region) {
            return Err(form);
        }
        let own = str::to_owned;
        Ok(Self { partition: own(partition), region: own(region), account: own(account), resource: own(resource) })
    }
}

/// `arn:aws:iam::account:role/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleArn(String);

impl RoleArn {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RoleArn {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let form = FormError { what: "a role", form: "arn:aws:iam::ACCOUNT:role/NAME" };
        let [_, region, _, resource] = arn(text, "iam").ok_or(form)?;
        let name = resource.strip_prefix("role/").ok_or(form)?;
        // IAM API, Role: a path of up to 512 and a name of up to 64.
        let fits = region.is_empty() && all(name, 576, |b| b.is_ascii_graphic());
        if fits { Ok(Self(text.to_owned())) } else { Err(form) }
    }
}

/// `https://host[:port]`. Without TLS only on this machine itself, where tests have their servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(String);

impl Endpoint {
    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As it is written, or that of the scheme.
    pub fn port(&self) -> u16 {
        let of_scheme = if self.0.starts_with("http://") { 80 } else { 443 };
        let written = self.0.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        written.unwrap_or(of_scheme)
    }
}

impl FromStr for Endpoint {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let form = FormError { what: "an endpoint", form: "https://HOST or https://HOST:PORT" };
        let (scheme, place) = text.split_once("://").ok_or(form)?;
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
            _ => (place, None),
        };
        let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
        let address = bare.parse::<IpAddr>().ok();
        let name = || all(host, 253, |b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.'));
        // By address alone: what a name means is for /etc/hosts and name servers to say.
        let at_home = address.is_some_and(|address| address.is_loopback());
        let good_host = if host == bare { address.is_some_and(|a| a.is_ipv4()) || name() } else { address.is_some() };
        let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0));
        let good_scheme = scheme == "https" || (scheme == "http" && at_home);
        if good_host && good_port && good_scheme { Ok(Self(text.to_owned())) } else { Err(form) }
    }
}

/// Partition, region, account and resource of an ARN of this service.
fn arn<'a>(text: &'a str, service: &str) -> Option<[&'a str; 4]> {
    let parts: Vec<&str> = text.splitn(6, ':').collect();
    let ["arn", partition, of, region, account, resource] = parts[..] else { return None };
    let good_partition = partition == "aws" || partition.starts_with("aws-");
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let good_account = account.len() == 12 && account.bytes().all(|b| b.is_ascii_digit());
    let fits = of == service && good_partition && all(partition, 32, lower) && good_account;
    fits.then_some([partition, region, account, resource])
}

/// As `eu-central-1`; the host names of AWS's services are made of it.
fn is_region(text: &str) -> bool {
    all(text, 32, |b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn all(text: &str, max: usize, allowed: impl Fn(u8) -> bool) -> bool {
    (1..=max).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";

    #[test]
    fn a_key_is_taken_as_it_is_written() {
        for text in [
            KEY,
            "arn:aws-cn:kms:cn-north-1:111122223333:alias/a/b_c-d",
            "arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1234abcd12ab34cd56ef1234567890ab",
        ] {
            assert_eq!(text.parse::<KeyArn>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for text in [
            "",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "alias/nodeseal",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:kms:eu-central-1:1111:key/x",
            "arn:aws:kms::111122223333:key/x",
            "arn:aws:kms:eu.evil/:111122223333:key/x",
            "arn:aws:s3:eu-central-1:111122223333:key/x",
            "arn:gcp:kms:eu-central-1:111122223333:key/x",
            "arn:aws:kms:eu-central-1:111122223333:key/x y",
            "arn:aws:kms:eu-central-1:111122223333:grant/x",
        ] {
            assert!(text.parse::<KeyArn>().is_err(), "{text}");
        }
    }

    #[test]
    fn replicas_of_a_multi_region_key_are_one_key_and_other_keys_of_two_regions_are_two() {
        let identity = |text: &str| text.parse::<KeyArn>().unwrap().identity();
        let replica = |region: &str| identity(&format!("arn:aws:kms:{region}:111122223333:key/mrk-1234abcd"));
        assert_eq!(replica("eu-central-1"), replica("us-east-1"));
        assert_eq!(identity(KEY).unwrap().as_str(), KEY);
        assert_ne!(identity(KEY), identity(&KEY.replace("eu-central-1", "us-east-1")));
        assert_eq!(identity("arn:aws:kms:eu-central-1:111122223333:alias/x"), None);
    }

    #[test]
    fn an_endpoint_without_tls_is_only_taken_on_this_machine() {
        for text in ["https://kms.eu-central-1.amazonaws.com", "https://10.0.0.1:8443", "http://127.0.0.1:5000"] {
            assert_eq!(text.parse::<Endpoint>().unwrap().as_str(), text);
        }
        for text in ["https://localhost:1", "http://[::1]:8080", "https://[fd00::1]"] {
            assert!(text.parse::<Endpoint>().is_ok(), "{text}");
        }
        for text in [
            "http://kms.example",
            "http://localhost",
            "http://localhost:1",
            "http://127.0.0.1.example",
            "https://",
            "https://a:0",
            "https://a:b",
            "https://a/path",
            "https://user@a",
            "https://[a]",
            "ftp://a",
            "kms.example",
        ] {
            assert!(text.parse::<Endpoint>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_role_is_one_of_iam() {
        assert!("arn:aws:iam::111122223333:role/path/nodeseal".parse::<RoleArn>().is_ok());
        for text in ["arn:aws:iam::111122223333:user/x", "arn:aws:iam:eu:111122223333:role/x", "role/x"] {
            assert!(text.parse::<RoleArn>().is_err(), "{text}");
        }
    }
}
