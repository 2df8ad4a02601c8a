//! `kind = "kms-plugin"` (docs/providers/kms-plugin.md).

use schemars::JsonSchema;
use serde::Deserialize;

use super::settings::{Beside, Found, OfKind, Settings};
use super::table::Table;
use crate::config::forms::{self, uid_of};
use crate::config::problems::Checked;
use crate::provider::KeyIdentity;
use crate::provider::kms_plugin::KmsPluginSettings;
use crate::sandbox::Needs;
use crate::types::Api;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KmsPlugin {
    socket: String,
    api: Option<String>,
    key: String,
    #[schemars(with = "Option<Vec<forms::User>>")]
    allow_users: Option<Vec<toml::Value>>,
    opens_foreign: Option<bool>,
    timeout: Option<String>,
}

pub(super) fn check(table: &mut Table<'_>) -> Checked<Found> {
    let KmsPlugin { socket, api, key, allow_users, opens_foreign, timeout } = table.rest()?;
    let socket = table.socket("socket", socket);
    let timeout = table.timeout(timeout);
    let api = match api.as_deref() {
        None | Some("v2") => Ok(Api::V2),
        Some("v1beta1") => Ok(Api::V1),
        Some(other) => table.refuse("api", format!("{other:?} is neither \"v2\" nor \"v1beta1\"")),
    };
    let key = KeyIdentity::new(key).or_else(|_| {
        table.refuse(
            "key",
            "is your name for the plugin's key: 1 to 512 characters of visible ASCII, the same on all nodes",
        )
    });
    let mut allow_uids = Vec::new();
    for (index, user) in allow_users.unwrap_or_default().iter().enumerate() {
        match uid_of(user) {
            Ok(uid) => allow_uids.push(uid),
            Err(why) => table.problem(&format!("allow_users[{index}]"), why),
        }
    }
    // Which sockets are our own is added when it is opened.
    let settings = KmsPluginSettings {
        socket: socket?,
        api: api?,
        key: key?,
        allow_uids,
        opens_foreign: opens_foreign.unwrap_or(false),
        timeout: timeout?,
        own_sockets: Vec::new(),
    };
    Ok(Found {
        settings: Settings::KmsPlugin(Box::new(settings)),
        credentials: Vec::new(),
        files: Vec::new(),
        tokens: Vec::new(),
    })
}

impl OfKind for KmsPluginSettings {
    fn is_same_key(&self, other: &Settings) -> bool {
        matches!(other, Settings::KmsPlugin(other) if self.key == other.key)
    }

    fn own_needs(&self) -> Needs {
        Needs::default().socket(&self.socket)
    }

    fn check_beside(&self, beside: &mut Beside<'_>) {
        if beside.own_sockets.contains(&self.socket.as_path()) {
            let key = format!("{}.socket", beside.path);
            beside.problems.add(&key, "is Nodeseal's own socket: write the socket of the other plugin");
        }
    }
}
