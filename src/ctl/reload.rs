//! `nodeseal reload`: the same as SIGHUP, with an answer.

use serde_json::json;

use super::args::{Common, ReloadArgs};
use super::output::{Done, ask, load, print_done, unfit};
use super::{next, schema};
use crate::control::{Answer, Request};

pub(super) fn run(common: &Common, args: &ReloadArgs) -> Done {
    // Its mistakes are shown before the daemon is asked.
    let config = load(common)?;
    let ReloadArgs { abandon, without_scan, backups_before } = *args;
    let Answer::Reloaded { pending } = ask(&config, &Request::Reload { abandon, without_scan, backups_before })? else {
        return Err(unfit());
    };
    let value = json!({ "reloaded": true, "pending": pending });
    print_done(common, schema::RELOAD, &value, &next::reloaded(&pending), || match pending.as_slice() {
        [] => "configuration reloaded".to_owned(),
        _ => {
            let lines: String = pending.iter().map(|pending| format!("\n  {pending}")).collect();
            format!("configuration reloaded, except:{lines}")
        }
    })
}
