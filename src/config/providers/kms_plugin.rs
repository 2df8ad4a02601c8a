//! `kind = "kms-plugin"` (docs/providers/kms-plugin.md).

use super::super::check::uid_of;
use super::raw;
use super::table::Table;
use super::{Found, Settings};
use crate::provider::KeyIdentity;
use crate::provider::kms_plugin::{KmsPluginSettings, PluginApi};

pub(super) fn check(table: &mut Table<'_>) -> Option<Found> {
    let raw::KmsPlugin { socket, api, key, allow_users, opens_foreign, timeout } = table.rest()?;
    let socket = table.socket("socket", socket);
    let timeout = table.timeout(timeout);
    let api = match api.as_deref() {
        None | Some("v2") => Some(PluginApi::V2),
        Some("v1beta1") => Some(PluginApi::V1beta1),
        Some(other) => {
            table.problem("api", format!("{other:?} is neither \"v2\" nor \"v1beta1\""));
            None
        }
    };
    let key = KeyIdentity::new(key).ok();
    if key.is_none() {
        table.problem(
            "key",
            "is your name for the plugin's key: 1 to 512 characters of visible ASCII, the same on all nodes",
        );
    }
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
    Some(Found {
        settings: Settings::KmsPlugin(Box::new(settings)),
        credentials: Vec::new(),
        files: Vec::new(),
        tokens: Vec::new(),
    })
}
