//! `nodeseal encryption-config`: the EncryptionConfiguration that this node's kube-apiserver needs.
//!
//! The CIS Kubernetes benchmark (1.2.28 in 1.9 and later) looks at the line behind the last `providers:` and wants `kms` there, so
//! the provider is written on that very line.

use std::process::ExitCode;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::common::Common;
use super::output::{Done, load, print_json};
use crate::config::Config;
use crate::control::say;
use crate::types::Api;

/// Names the provider in etcd: `k8s:enc:kms:v2:nodeseal:`. Changing it makes kube-apiserver look for another provider.
const NAME: &str = "nodeseal";
/// kube-apiserver's own default (apiserver/v1/defaults.go).
const TIMEOUT: &str = "3s";
/// v1 only: DEKs that kube-apiserver keeps (apiserver/v1/defaults.go).
const V1_CACHE_SIZE: u32 = 1000;

#[derive(Args)]
pub(super) struct EncryptionConfigArgs {
    /// The KMS API to use
    #[arg(long, value_enum, default_value_t = Api::V2)]
    pub(super) api: Api,
    /// Resources to encrypt
    #[arg(long, value_delimiter = ',', default_value = "secrets", value_parser = resource)]
    pub(super) resources: Vec<String>,
    /// Leave out the provider that reads unencrypted objects
    #[arg(long)]
    pub(super) no_identity: bool,
}

impl ValueEnum for Api {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::V2, Self::V1]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.label()))
    }
}

pub(super) fn run(common: &Common, args: &EncryptionConfigArgs) -> Done {
    let config = load(common)?;
    if !config.listen.apis.contains(&args.api) {
        say::warning(super::PROGRAM, "listen.apis does not name this API: nodeseald would refuse it");
    }
    if common.json {
        // kube-apiserver's own document, which names its schema itself.
        return print_json(&as_json(&config, args));
    }
    let order = if args.no_identity { Order::KmsAlone } else { Order::KmsFirst };
    say::result(as_yaml(&config, &args.resources, args.api, order).trim_end());
    Ok(ExitCode::SUCCESS)
}

/// As kube-apiserver takes it (apiserver/pkg/apis/apiserver/validation): `RESOURCE`, `RESOURCE.GROUP`, `*.GROUP`, `*.` for the core group,
/// or `*.*`.
pub(super) fn resource(text: &str) -> Result<String, &'static str> {
    let is_label =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    let is_name = |text: &str| !text.is_empty() && !text.starts_with('-') && is_label(text);
    let is_good = match text.split_once('.') {
        None => is_name(text),
        Some(("*", group)) => group == "*" || group.is_empty() || group.split('.').all(is_name),
        Some((name, group)) => is_name(name) && group.split('.').all(is_name),
    };
    if is_good {
        Ok(text.to_owned())
    } else {
        Err("write it as secrets, deployments.apps, *.apps, *. or *.*, in lower case")
    }
}

fn endpoint(config: &Config) -> String {
    format!("unix://{}", config.listen.socket.display())
}

/// Which provider comes first and writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Nothing is encrypted yet, and what others have encrypted is read.
    IdentityFirst,
    /// What was stored before encryption was turned on is still read.
    KmsFirst,
    KmsAlone,
}

/// For KMS v2.
pub(super) fn yaml(config: &Config, resources: &[String], order: Order) -> String {
    as_yaml(config, resources, Api::V2, order)
}

fn as_yaml(config: &Config, resources: &[String], api: Api, order: Order) -> String {
    let resources: String = resources.iter().map(|resource| format!("      - {}\n", quoted(resource))).collect();
    let version = match api {
        Api::V2 => "          apiVersion: v2\n".to_owned(),
        Api::V1 => format!("          apiVersion: v1\n          cachesize: {V1_CACHE_SIZE}\n"),
    };
    let gate = match api {
        Api::V2 => "",
        Api::V1 => "# KMS v1 is off since Kubernetes 1.29: kube-apiserver also needs --feature-gates=KMSv1=true.\n",
    };
    let (before, after) = match order {
        Order::IdentityFirst => ("      - identity: {}\n", ""),
        Order::KmsFirst => ("", IDENTITY),
        Order::KmsAlone => ("", ""),
    };
    format!(
        "# For kube-apiserver's --encryption-provider-config. Mount the socket's folder into its pod, not the socket itself.\n\
         {gate}apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n  - resources:\n{resources}\
         \x20   providers:\n{before}      - kms:\n{version}          name: {NAME}\n          endpoint: {}\n          timeout: {TIMEOUT}\n{after}",
        quoted(&endpoint(config)),
    )
}

/// Without it nothing that was stored before could be read; with it nothing is written unencrypted, since it is not the first.
const IDENTITY: &str = "      # Reads what was stored before encryption was turned on. Remove it after a storage migration.\n      - identity: {}\n";

/// A YAML double-quoted scalar is a JSON string for the characters that a path or a resource can hold.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn as_json(config: &Config, args: &EncryptionConfigArgs) -> Value {
    let mut kms = json!({ "name": NAME, "endpoint": endpoint(config), "timeout": TIMEOUT });
    match args.api {
        Api::V2 => kms["apiVersion"] = "v2".into(),
        Api::V1 => {
            kms["apiVersion"] = "v1".into();
            kms["cachesize"] = V1_CACHE_SIZE.into();
        }
    }
    let mut providers = vec![json!({ "kms": kms })];
    if !args.no_identity {
        providers.push(json!({ "identity": {} }));
    }
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "EncryptionConfiguration",
        "resources": [{ "resources": args.resources, "providers": providers }],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_kube_apiserver_takes_is_a_resource() {
        for good in ["secrets", "configmaps", "deployments.apps", "widgets.example.com", "*.apps", "*.", "*.*"] {
            assert_eq!(resource(good).as_deref(), Ok(good));
        }
        for bad in [
            "",
            " ",
            "Foo Bar",
            "Secrets",
            "*",
            "secrets.",
            "a..b",
            ".apps",
            "*.*.*",
            "secrets\n- x",
            "secrets/status",
            "-a",
        ] {
            assert!(resource(bad).is_err(), "{bad:?}");
        }
    }
}
