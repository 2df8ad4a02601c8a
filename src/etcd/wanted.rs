//! What kube-apiserver is told to do: its EncryptionConfiguration, of which only names are kept, never a key.
//!
//! Which rule is for which resource: k8s.io/apiserver `pkg/server/options/encryptionconfig/config.go`. A name as it stands goes before
//! `*.GROUP`, and that before `*.*`; of rules for one name the providers are taken one after the other. The first writes, all read.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::object::{LocalKind, kept_name};
use super::resource::{api_prefix, group};
use crate::envelope::Api;
use crate::types::{Class, Explained};

/// A provider of the configuration, or one of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writer {
    /// A KMS plugin.
    Kms {
        /// v1 or v2.
        api: Api,
        /// As it stands in etcd.
        name: String,
        /// Its socket, as `unix:///PATH`.
        endpoint: String,
        /// As it is written (Go's `time.ParseDuration`); absent where the file leaves it to kube-apiserver.
        timeout: Option<String>,
    },
    /// A key in the configuration itself.
    Local {
        /// Which transformer.
        kind: LocalKind,
        /// The key's name.
        key: String,
    },
    /// In clear.
    Identity,
}

/// Rules by resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    resources: Vec<String>,
    providers: Vec<Writer>,
}

/// Why a file is no EncryptionConfiguration.
#[derive(Debug, thiserror::Error)]
pub enum WantedError {
    /// Not YAML, or of another form. The cause is left out: it may show a key.
    #[error("the file is not an EncryptionConfiguration in YAML or JSON{}", line.map(|line| format!(" (line {line})")).unwrap_or_default())]
    Form {
        /// Where reading it ended.
        line: Option<u64>,
    },
    /// Another document.
    #[error("the file is of kind {0}")]
    Kind(String),
    /// Rules without resources, providers without names.
    #[error("{0}")]
    Content(&'static str),
}

impl Explained for WantedError {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        "name the file of kube-apiserver's --encryption-provider-config"
    }
}

#[derive(Deserialize)]
struct File {
    kind: String,
    #[serde(default)]
    resources: Vec<RuleFile>,
}

#[derive(Deserialize)]
struct RuleFile {
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    providers: Vec<ProviderFile>,
}

#[derive(Deserialize)]
struct ProviderFile {
    kms: Option<KmsFile>,
    aescbc: Option<KeysFile>,
    aesgcm: Option<KeysFile>,
    secretbox: Option<KeysFile>,
    identity: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct KmsFile {
    api_version: Option<String>,
    name: String,
    #[serde(default)]
    endpoint: String,
    // kube-apiserver takes text alone; whatever else stands there is not what this reader refuses.
    timeout: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct KeysFile {
    #[serde(default)]
    keys: Vec<KeyFile>,
}

#[derive(Deserialize)]
struct KeyFile {
    name: String,
}

impl Wanted {
    /// From the file's text.
    pub fn parse(text: &str) -> Result<Self, WantedError> {
        let file: File = serde_saphyr::from_str(text)
            .map_err(|error| WantedError::Form { line: error.location().map(|place| place.line()) })?;
        if file.kind != "EncryptionConfiguration" {
            return Err(WantedError::Kind(file.kind.chars().filter(|sign| sign.is_ascii_graphic()).take(80).collect()));
        }
        let rules: Vec<_> = file.resources.into_iter().map(Rule::of).collect::<Result<_, _>>()?;
        if rules.is_empty() { Err(WantedError::Content("the file names no resources")) } else { Ok(Self(rules)) }
    }

    /// Who writes and reads this resource, the writer first; empty if no rule is for it.
    pub fn of(&self, resource: &str) -> Vec<&Writer> {
        let of_group = group(resource).map(|group| format!("*.{group}"));
        let names = [Some(resource.to_owned()), of_group, Some("*.*".to_owned())];
        names.iter().flatten().map(|name| self.named(name)).find(|found| !found.is_empty()).unwrap_or_default()
    }

    /// Who writes and reads what the rules call by this very name, which may be a wildcard.
    pub fn named(&self, name: &str) -> Vec<&Writer> {
        let is_for = |rule: &&Rule| rule.resources.iter().any(|resource| resource == name);
        self.0.iter().filter(is_for).flat_map(|rule| &rule.providers).collect()
    }

    /// Every name and wildcard of the rules, once.
    pub fn names(&self) -> std::collections::BTreeSet<&str> {
        self.0.iter().flat_map(|rule| &rule.resources).map(String::as_str).collect()
    }

    /// Whether [`Wanted::of`] is all that there is to say of it. It is not for a resource whose group its place in etcd does not show, as a
    /// later Kubernetes may have some: a rule for that group, or for the resource with it, may be meant for it.
    pub fn judges(&self, resource: &str) -> bool {
        let may_be_meant = |name: &String| match name.split_once('.') {
            Some(("*", group)) => group != "*",
            Some((place, _)) => place == resource,
            None => false,
        };
        group(resource).is_some() || !self.0.iter().flat_map(|rule| &rule.resources).any(may_be_meant)
    }

    /// With sockets as `resolved` writes them, whatever way the file does.
    #[must_use]
    pub fn with_sockets(mut self, resolved: impl Fn(&str) -> String) -> Self {
        for writer in self.0.iter_mut().flat_map(|rule| &mut rule.providers) {
            if let Writer::Kms { endpoint, .. } = writer {
                *endpoint = resolved(endpoint);
            }
        }
        self
    }

    /// Resources that are named one by one, as against by a wildcard.
    pub fn resources(&self) -> impl Iterator<Item = &str> {
        self.0.iter().flat_map(|rule| &rule.resources).map(String::as_str).filter(|name| !name.starts_with('*'))
    }
}

impl Rule {
    fn of(file: RuleFile) -> Result<Self, WantedError> {
        let mut providers = Vec::new();
        for provider in file.providers {
            let before = providers.len();
            if let Some(kms) = provider.kms {
                providers.push(Writer::of_kms(kms)?);
            }
            let local = [
                (LocalKind::AesCbc, provider.aescbc),
                (LocalKind::AesGcm, provider.aesgcm),
                (LocalKind::Secretbox, provider.secretbox),
            ];
            for (kind, keys) in local {
                let keys = keys.map(|keys| keys.keys).unwrap_or_default();
                providers
                    .extend(keys.into_iter().map(|key| Writer::Local { kind, key: kept_name(&key.name).to_owned() }));
            }
            if provider.identity.is_some() {
                providers.push(Writer::Identity);
            }
            if providers.len() == before {
                return Err(WantedError::Content("a provider of the file is none that Kubernetes knows"));
            }
        }
        if file.resources.is_empty() || providers.is_empty() {
            return Err(WantedError::Content("an entry of the file names no resources, or no providers"));
        }
        Ok(Self { resources: file.resources, providers })
    }
}

impl Writer {
    fn of_kms(file: KmsFile) -> Result<Self, WantedError> {
        let api = match file.api_version.as_deref() {
            // apiserver/v1/defaults.go
            None | Some("v1") => Api::V1,
            Some("v2") => Api::V2,
            Some(_) => return Err(WantedError::Content("a kms provider of the file is neither v1 nor v2")),
        };
        let timeout = file.timeout.map(|timeout| timeout.as_str().unwrap_or_default().to_owned());
        Ok(Self::Kms { api, name: kept_name(&file.name).to_owned(), endpoint: file.endpoint, timeout })
    }
}

/// A socket's path as an EncryptionConfiguration writes it (`unix:///PATH`), in one way of writing for all. `/var/run` is `/run` (FHS 3.0
/// §5.13).
pub fn socket(endpoint: &str) -> String {
    let path = api_prefix(endpoint.strip_prefix("unix:").unwrap_or(endpoint));
    let path = path.strip_prefix("/var").filter(|rest| rest.starts_with("/run/")).unwrap_or(&path);
    path.trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "\
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources:
  - resources: [secrets, 'widgets.example.com']
    providers:
      - kms: {apiVersion: v2, name: nodeseal, endpoint: 'unix:///run/nodeseal/kms.sock', timeout: 3s}
      - aescbc: {keys: [{name: one, secret: c2VjcmV0}, {name: two, secret: c2VjcmV0}]}
      - identity: {}
  - resources: ['*.apps']
    providers: [{secretbox: {keys: [{name: box, secret: c2VjcmV0}]}}]
  - resources: ['*.*']
    providers: [{identity: {}}]
";

    #[test]
    fn the_most_exact_name_decides_and_the_first_provider_writes() {
        let wanted = Wanted::parse(FILE).unwrap();
        let secrets = wanted.of("secrets");
        assert!(matches!(secrets[0], Writer::Kms { api: Api::V2, name, .. } if name == "nodeseal"));
        assert_eq!(secrets.len(), 4);
        assert_eq!(*secrets[2], Writer::Local { kind: LocalKind::AesCbc, key: "two".into() });
        assert_eq!(wanted.of("widgets.example.com"), secrets);
        assert!(matches!(wanted.of("deployments.apps")[..], [Writer::Local { kind: LocalKind::Secretbox, .. }]));
        assert_eq!(wanted.of("configmaps"), [&Writer::Identity]);
        assert_eq!(wanted.resources().collect::<Vec<_>>(), ["secrets", "widgets.example.com"]);
    }

    #[test]
    fn a_rule_for_the_core_group_is_for_no_other() {
        let text = FILE.replace("'*.*'", "'*.'");
        let wanted = Wanted::parse(&text).unwrap();
        assert_eq!(wanted.of("pods"), [&Writer::Identity]);
        assert!(wanted.of("leases.coordination.k8s.io").is_empty());
    }

    #[test]
    fn what_a_later_kubernetes_has_is_judged_only_if_no_rule_for_a_group_may_be_meant_for_it() {
        let wanted = |text: &str| Wanted::parse(&FILE.replace("'*.apps'", text)).unwrap();
        for (rule, is_judged) in [
            ("'configmaps'", true),
            ("'*.example.com'", false),
            ("'*.'", false),
            ("'futures.example.com'", false),
            ("'others.example.com'", true),
        ] {
            assert_eq!(wanted(rule).judges("futures"), is_judged, "{rule}");
            assert!(wanted(rule).judges("secrets") && wanted(rule).judges("leases.coordination.k8s.io"));
        }
        assert_eq!(wanted("'*.'").of("futures"), [&Writer::Identity], "by the rule for everything alone");
    }

    #[test]
    fn a_socket_has_one_path_however_it_is_written() {
        for text in ["unix:///run/a/b", "unix:/run/a/b", "unix:////var/run//a/./b", "unix:///run/c/../a/b", "/run/a/b"]
        {
            assert_eq!(socket(text), "/run/a/b", "{text}");
        }
        assert_eq!(socket("unix:///variant/run/a"), "/variant/run/a");
    }

    #[test]
    fn json_is_read_as_well_and_errors_show_no_key() {
        let json = r#"{"kind":"EncryptionConfiguration","resources":[{"resources":["secrets"],"providers":[{"kms":{"name":"a"}}]}]}"#;
        assert!(matches!(Wanted::parse(json).unwrap().of("secrets")[..], [Writer::Kms { api: Api::V1, .. }]));
        for (from, to) in [
            ("kind: EncryptionConfiguration", "kind: Pod"),
            ("- kms:", "- kmz:"),
            ("name: one", "label: one"),
            ("[{name: two", "[[{name: two"),
            ("v2", "v3"),
        ] {
            let Err(error) = Wanted::parse(&FILE.replace(from, to)) else {
                assert_eq!(from, "[{name: two");
                continue;
            };
            assert!(!crate::types::Chain(&error).to_string().contains("c2VjcmV0"), "{error}");
        }
        assert!(Wanted::parse("").is_err() && Wanted::parse("\u{0}").is_err());
    }
}
