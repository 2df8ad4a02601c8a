//! `nodeseal rotate-root`: puts everything that this node has sealed under a new node root. No KEK and no key_id changes, and
//! kube-apiserver notices nothing.
//!
//! Through the running daemon; without one directly.

use super::args::{Common, RotateRootArgs};
use super::output::{
    Done, act_as_owner, control_error, counted, harden, keeper_settings, load, once_free, print_done, unfit,
};
use super::schema;
use crate::control::{self, Answer, Request};
use crate::keyring::keeper::with_keeper;

pub(super) fn run(common: &Common, args: &RotateRootArgs) -> Done {
    let config = load(common)?;
    harden()?;
    let RotateRootArgs { dry_run, without_recovery_file } = *args;
    let answer = match control::ask(&config.control_socket, &Request::RotateRoot { dry_run, without_recovery_file }) {
        Err(error) if error.is_unreachable() => {
            act_as_owner(&config)?;
            let order = config.seal.renew_order(dry_run, without_recovery_file);
            let settings = keeper_settings(&config);
            match once_free(|| with_keeper(&settings, false, |keeper| keeper.renew_root(order.clone()))) {
                Ok(renewed) => Answer::root_rotated(&renewed),
                Err(error) => return Err(error.into()),
            }
        }
        Err(error) => return Err(control_error(&error)),
        Ok(answer) => answer,
    };
    let Answer::RootRotated(row) = &answer else { return Err(unfit()) };
    let next = match row.new {
        None => vec!["to do it: nodeseal rotate-root".to_owned()],
        Some(_) => vec![
            "copy recovery.age to another place again, and note its new maker: nodeseal status".to_owned(),
            "destroy older copies of this disk: this device still opens them".to_owned(),
        ],
    };
    print_done(common, schema::ROTATE_ROOT, row, &next, || {
        let what = format!("{} and {}", counted(row.keks, "KEK"), counted(row.credentials, "credential"));
        match &row.new {
            None => format!("{what} would be sealed under a new node root, in place of {}", row.old),
            Some(new) => format!("{what} are sealed under node root {new}; {} is destroyed", row.old),
        }
    })
}
