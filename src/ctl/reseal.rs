//! `nodeseal reseal`: seals the same node root anew, by any device and under the configured policy, and makes anew what goes with
//! it: the counter that guards the state directory, the recipients of the recovery file. No key changes; kube-apiserver notices
//! nothing.
//!
//! Through the running daemon; without one, and for a state directory that the guard refuses, directly.

use serde_json::json;

use super::args::{Common, ResealArgs};
use super::next::START;
use super::output::{
    Done, act_as_owner, consent, control_error, counted, harden, keeper_settings, load, once_free, print_done, unfit,
};
use super::recipients::{PROVE, Recovery, code_text, shown};
use super::schema;
use crate::config::Config;
use crate::control::consent::Act;
use crate::control::{self, Answer, Request};
use crate::keyring::KeeperError;
use crate::keyring::keeper::{KekRow, KeyTable, ResealOrder, with_keeper};
use crate::keyring::ring::KekState;
use crate::seal::root::Parent;
use crate::types::clock;
use crate::types::clock::UnixSeconds;

pub(super) fn run(common: &Common, args: &ResealArgs) -> Done {
    let config = load(common)?;
    harden()?;
    let recovery = args.recovery.read()?;
    let recipients: Option<Vec<String>> =
        recovery.as_ref().map(|recovery| recovery.recipients.iter().map(ToString::to_string).collect());
    let order = match config.seal.order(args.to.as_deref(), recipients.clone()) {
        Ok(order) => ResealOrder {
            parent: if args.new_parent { Parent::New } else { Parent::Same },
            replace_counter: args.accept_rollback,
            ..order
        },
        Err(error) => return Err(error.into()),
    };
    let wanted = order.to.backend();
    let answer = match args.accept_rollback {
        true => Err(None),
        false => {
            let _held = recipients.as_deref().map(|recipients| consent(&config, Act::Recovery(recipients)));
            let request = Request::Reseal { to: args.to.clone(), recipients, new_parent: args.new_parent };
            control::ask(&config.control_socket, &request).map_err(Some)
        }
    };
    let (mut active, mut is_offline) = (None, false);
    let (backend, policy) = match answer {
        Ok(Answer::Resealed { backend, policy }) => (backend, policy),
        Ok(_) => return Err(unfit()),
        Err(Some(error)) if !error.is_unreachable() => return Err(control_error(&error)),
        Err(_) => {
            act_as_owner(&config)?;
            is_offline = true;
            match offline(&config, &order, args.accept_rollback) {
                Ok((resealed, keys)) => {
                    active = keys.filter(|_| args.accept_rollback);
                    resealed
                }
                Err(error) => return Err(error.into()),
            }
        }
    };
    let mut next = Vec::new();
    if wanted != config.seal.backend {
        next.push(format!("write backend = \"{wanted}\" under [seal]: the next `reseal` uses the configured device"));
    }
    next.extend(is_offline.then(|| START.to_owned()));
    let keys = active.as_ref().map_or_else(String::new, |active| accepted(active, &mut next));
    let file = recovery.as_ref().map_or_else(String::new, |said| recovery_file(said, &mut next));
    let code = recovery.and_then(|recovery| recovery.code);
    let value = json!({
        "seal_backend": backend,
        "seal_policy": policy,
        "recovery_code": shown(code.as_ref()),
        "kek": active.as_ref().map(|active| &active.kek),
        "key_id": active.as_ref().map(|active| &active.key_id),
        "new_kek": active.as_ref().map(|active| active.is_new),
    });
    print_done(common, schema::RESEAL, &value, &next, || {
        format!("the node root is sealed again by {backend}; policy {policy}{keys}{file}{}", code_text(code.as_ref()))
    })
}

/// What became of the recovery file.
fn recovery_file(said: &Recovery, next: &mut Vec<String>) -> String {
    match said.recipients.len() {
        0 => "\nrecovery.age is removed: with this device all keys of this node are lost".to_owned(),
        count => {
            next.push("copy recovery.age to another place".to_owned());
            next.extend(said.code.as_ref().map(|_| PROVE.to_owned()));
            format!("\nrecovery.age is now for {}; the former ones open only older copies", counted(count, "recipient"))
        }
    }
}

/// What encrypts after a state directory was accepted. In an old one the active KEK may have been left, and gives way to a new one,
/// unless other nodes share it.
fn accepted(Active { kek: id, key_id, is_new, is_shared }: &Active, next: &mut Vec<String>) -> String {
    match (is_new, is_shared) {
        (true, _) => {
            next.push("migrate the storage (rotate.md, from step 3); copy recovery.age to another place".to_owned());
            format!("\nthe new KEK {id} encrypts from now on, key_id {key_id}")
        }
        (false, true) => {
            next.push("give this node a bundle of the newest keys".to_owned());
            format!("\nlocal KEK {id} stays active, because other nodes have it")
        }
        (false, false) => format!("\nlocal KEK {id} stays active, because this state directory is not an older one"),
    }
}

/// What encrypts now.
struct Active {
    kek: String,
    key_id: String,
    /// It has just taken the place of another one.
    is_new: bool,
    is_shared: bool,
}

impl Active {
    fn of(table: KeyTable, began: UnixSeconds) -> Option<Self> {
        let has = |row: &KekRow, state: KekState| row.state == state.label();
        // One that was left since is what tells a new KEK from the first one of a node that was set up a moment ago.
        let is_left = table.keys.iter().any(|row| has(row, KekState::Deactivated) && row.since >= began);
        let active = table.keys.into_iter().find(|row| has(row, KekState::Active))?;
        let is_new = is_left && active.created >= began;
        Some(Self { kek: active.id, key_id: table.key_id, is_new, is_shared: active.shared })
    }
}

/// Device and policy; and what encrypts.
type Resealed = ((String, String), Option<Active>);

fn offline(config: &Config, order: &ResealOrder, accept_rollback: bool) -> Result<Resealed, KeeperError> {
    let began = clock::now();
    let settings = keeper_settings(config);
    once_free(|| {
        with_keeper(&settings, accept_rollback, |keeper| {
            let root = keeper.reseal(order.clone())?;
            let backend = root.backend().map_or_else(String::new, |backend| backend.to_string());
            // It is done: what is only told may fail.
            let active = keeper.list().ok().and_then(|table| Active::of(table, began));
            Ok(((backend, root.policy.to_string()), active))
        })
    })
}
