//! `nodeseal keys list|rotate|activate|retire`: asks the running daemon, which alone writes to the state directory.

use std::fmt::Write;
use std::process::ExitCode;

use serde_json::json;

use super::args::{Common, KeysVerb};
use super::output::{ask, fail, load, print, time, unfit};
use crate::config::Config;
use crate::control::{Answer, Request};
use crate::keyring::KeeperError;
use crate::keyring::keeper::KeyTable;

pub(super) fn run(common: &Common, verb: KeysVerb) -> ExitCode {
    let config = match load(common) {
        Ok(config) => config,
        Err(code) => return code,
    };
    match verb {
        KeysVerb::List => table(common, &config, &Request::KeysList {}),
        KeysVerb::Activate { id } => table(common, &config, &Request::KeysActivate { id }),
        KeysVerb::Rotate => rotate(common, &config),
        KeysVerb::Retire { id, compromised, dry_run: true, .. } => dry_run(common, &id, compromised),
        KeysVerb::Retire { id, confirm, .. } if confirm != id => {
            let error = KeeperError::Confirmation;
            fail(&error, error.class(), error.hint())
        }
        KeysVerb::Retire { id, confirm, compromised, dry_run: false } => {
            table(common, &config, &Request::KeysRetire { id, confirm, compromised })
        }
    }
}

fn rotate(common: &Common, config: &Config) -> ExitCode {
    match ask(config, &Request::KeysRotate {}) {
        Ok(Answer::Key(key)) => print(common, &json!({ "key": key }), || {
            format!(
                "made local KEK {} in pre-activation; key_id is unchanged\nnext: nodeseal keys activate {}",
                key.id, key.id
            )
        }),
        Ok(_) => unfit(),
        Err(code) => code,
    }
}

fn dry_run(common: &Common, id: &str, compromised: bool) -> ExitCode {
    let what = if compromised {
        "would mark the KEK as compromised: it goes on decrypting"
    } else {
        "would destroy the KEK: whatever was encrypted under it and not migrated becomes unreadable for ever, backups of etcd included"
    };
    print(common, &json!({ "dry_run": true, "id": id, "compromised": compromised }), || what.to_owned())
}

fn table(common: &Common, config: &Config, request: &Request) -> ExitCode {
    match ask(config, request) {
        Ok(Answer::Keys(table)) => print(common, &table, || render(&table)),
        Ok(_) => unfit(),
        Err(code) => code,
    }
}

pub(super) fn render(table: &KeyTable) -> String {
    let mut text = format!("{:<32}  {:<21}  {:<20}  {:>10}  KEY_ID\n", "KEK", "STATE", "SINCE", "USES");
    for row in &table.keys {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<32}  {:<21}  {:<20}  {:>10}  {}",
            row.id,
            if row.shared { format!("{} shared", row.state) } else { row.state.clone() },
            time(row.since),
            row.uses,
            row.key_id
        );
    }
    text
}
