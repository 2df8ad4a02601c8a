//! What `nodeseal recover` does on a node whose keys open: the KEKs of the file that it lacks are added to them.

use serde_json::json;

use super::common::Common;
use super::output::{Done, keeper_settings, print_done};
use super::schema;
use crate::config::Config;
use crate::keyring::KeeperError;
use crate::keyring::export::Export;
use crate::keyring::keeper::with_keeper;

pub(super) fn run(common: &Common, config: &Config, export: Export) -> Done {
    let restored = with_keeper(&keeper_settings(config), false, |keeper| keeper.restore(export));
    let ids = match restored {
        Ok(ids) if ids.is_empty() => Err(KeeperError::KeysOpen),
        restored => restored,
    };
    match ids {
        Ok(ids) => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let next = ["start nodeseald".to_owned(), "copy recovery.age to another place again".to_owned()];
            print_done(common, schema::RECOVER_RESTORE, &json!({ "restored": ids }), &next, || {
                format!(
                    "the keys of this node open; KEKs that it lacked came back, and decrypt from now on: {}\n\
                     the active KEK and the recipients of recovery.age are as they were",
                    ids.join(" ")
                )
            })
        }
        Err(error) => Err(error.into()),
    }
}
