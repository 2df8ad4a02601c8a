//! `[listen]`: the KMS socket, who may connect, and what is spoken there.

use schemars::JsonSchema;
use serde::Deserialize;

use super::forms::{self, uid_of};
use super::problems::{Checked, Problems};
use super::sockets;
use crate::api::{Settings, V2Version};
use crate::envelope::Api;

/// Its directory is mounted into API-server pods.
const KMS_SOCKET: &str = "/run/nodeseal/kms.sock";

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Listen {
    socket: Option<String>,
    mode: Option<String>,
    #[schemars(with = "Option<Vec<forms::User>>")]
    allow_users: Option<Vec<toml::Value>>,
    apis: Option<Vec<String>>,
    v2_version: Option<String>,
}

pub(super) fn check(problems: &mut Problems, warnings: &mut Problems, listen: Listen) -> Checked<Settings> {
    let Listen { socket, mode, allow_users, apis, v2_version } = listen;
    let socket = sockets::own(problems, "listen.socket", socket, KMS_SOCKET);
    let mode = check_mode(problems, mode);
    let users = allow_users.unwrap_or_else(|| vec![toml::Value::String("root".into())]);
    if users.is_empty() {
        problems.add("listen.allow_users", "is empty: write the user that kube-apiserver runs as, usually [\"root\"]");
    }
    let uid = |(index, user)| problems.keep(&format!("listen.allow_users[{index}]"), uid_of(user)).ok();
    let allow_uids = users.iter().enumerate().filter_map(uid).collect();
    let apis = check_apis(problems, apis);
    if apis == [Api::V1] {
        warnings.add("listen.apis", "only v1beta1, which Kubernetes has deprecated since 1.28");
    }
    let v2_version = match v2_version.as_deref() {
        None | Some("v2") => Ok(V2Version::V2),
        Some("v2beta1") => Ok(V2Version::V2beta1),
        Some(other) => problems.refuse("listen.v2_version", format!("{other:?} is neither \"v2\" nor \"v2beta1\"")),
    };
    Ok(Settings { socket: socket?, mode: mode?, allow_uids, apis, v2_version: v2_version? })
}

fn check_mode(problems: &mut Problems, mode: Option<String>) -> Checked<u32> {
    let Some(text) = mode else { return Ok(Settings::DEFAULT_MODE) };
    match u32::from_str_radix(&text, 8) {
        Ok(mode @ (0o600 | 0o660)) => Ok(mode),
        _ => problems.refuse("listen.mode", "must be \"0600\" or \"0660\": only owner and group may connect"),
    }
}

/// Those that are known.
fn check_apis(problems: &mut Problems, apis: Option<Vec<String>>) -> Vec<Api> {
    let Some(names) = apis else { return vec![Api::V1, Api::V2] };
    let mut found = Vec::new();
    for name in &names {
        match name.as_str() {
            "v1beta1" => found.push(Api::V1),
            "v2" => found.push(Api::V2),
            other => problems.add("listen.apis", format!("{other:?} is neither \"v2\" nor \"v1beta1\"")),
        }
    }
    if names.is_empty() {
        problems.add("listen.apis", "names no API: write [\"v2\"] or [\"v2\", \"v1beta1\"]");
    }
    found
}
