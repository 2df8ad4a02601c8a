//! `nodeseal recover`: rebuilds this node's keyring from a recovery file, on a new TPM or token; or with `--verify` only proves that
//! the file would do.
//!
//! Offline. The identity comes from a file or from standard input, never from the command line. What is in the state directory stays
//! where it is, and is never overwritten.

use std::collections::BTreeSet;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::args::{Common, RecoverArgs};
use super::compared::Compared;
use super::failed::Failed;
use super::next::START;
use super::output::{
    Done, act_as_owner, counted, found_as_owner, founding, harden, load, once_free, print, print_done,
    refuse_beside_open_keys, time,
};
use super::recipients::{PROVE, code_text, keep_code, shown};
use super::recovery_file::{self, Found, RecoverError, UNSIGNED, read, read_from};
use super::terminal::Hidden;
use super::{restore, schema};
use crate::config::Config;
use crate::control::{self, Answer, Request, say};
use crate::keyring::export::Export;
use crate::keyring::maker::Maker;
use crate::keyring::recovery::{Identity, RecoveryError};
use crate::keyring::{self, KeeperError, RecoverOrder, Recovered, Resume};
use crate::store::{StateDir, StoreError};
use crate::types::clock::UnixSeconds;
use crate::types::{Class, CredentialName, Explain, Explained, KeyId, Secret, clock};

pub(super) fn run(common: &Common, args: &RecoverArgs) -> Done {
    let config = load(common)?;
    harden()?;
    if args.abort {
        return abort(common, &config);
    }
    if !args.verify {
        refuse_beside_open_keys(&config)?;
    }
    let opened = open(&config, args)?;
    if args.verify {
        return verify(common, &config, &opened);
    }
    let Opened { path, identity, export, maker } = opened;
    let written = export.written;
    let said = args.recovery.read()?;
    let is_said = said.is_some();
    let (recipients, code) = match said {
        Some(said) => (said.recipients, said.code),
        // The key that has just proved itself goes on opening the file.
        None => (vec![identity.recipient()], None),
    };
    // What was read until here may be root's own.
    found_as_owner(&config)?;
    let resume = match (args.keep_active, args.new_key) {
        (true, _) => Resume::ActiveKek,
        (false, true) => Resume::NewKek,
        (false, false) => Resume::Unsaid,
    };
    let order = RecoverOrder { resume, give_up_device: args.give_up_device };
    let sealer = config.sealer();
    let founding = founding(&config, &sealer, &recipients, true);
    // Once read and proved, and not a second time: it may have been a pipe, or root's own file.
    let proved = export.encode_unsigned();
    let dir = once_free(|| StateDir::create(&config.state_dir).map_err(KeeperError::Store));
    match dir.and_then(|dir| keyring::recover(&dir, &founding, export, order, clock::now())) {
        Ok(recovered) => {
            let keep_active = args.keep_active;
            report(common, &config, &Report { recovered, path, written, maker, is_said, keep_active, code })
        }
        Err(KeeperError::KeysOpen) => match Export::decode_unsigned(proved.expose()) {
            Ok(export) => restore::run(common, &config, export),
            Err(source) => {
                let error = RecoverError::Recovery { path, source: RecoveryError::Format(source) };
                Err(error.into())
            }
        },
        Err(error) => {
            keep_code(code.as_ref());
            Err(Failed::new(&Explain::new(&error, error.class(), hint(&error, args.give_up_device))))
        }
    }
}

fn hint(error: &KeeperError, give_up_device: bool) -> &str {
    match error {
        KeeperError::Store(StoreError::InUse { .. }) => {
            "a nodeseald without keys locks it during each attempt: run this again; one that has its keys must keep running until the file is proved: `nodeseal recover --verify`; then stop nodeseald"
        }
        // It is the new device that was asked.
        KeeperError::Device(_) | KeeperError::Root(_) if give_up_device && error.class() == Class::Unavailable => {
            "run this again once the new device is there and answers: `nodeseal status --device`; nothing was changed"
        }
        _ => error.hint(),
    }
}

fn abort(common: &Common, config: &Config) -> Done {
    act_as_owner(config)?;
    let dir = once_free(|| StateDir::open(&config.state_dir).map_err(KeeperError::Store));
    match dir.and_then(|dir| keyring::abort_recovery(&dir)) {
        Ok(()) => print_done(common, schema::RECOVER_ABORT, &json!({ "aborted": true }), &[START.to_owned()], || {
            "the interrupted recovery is removed; the earlier keys are unchanged".to_owned()
        }),
        Err(error) => Err(error.into()),
    }
}

/// A recovery file, opened.
struct Opened {
    path: PathBuf,
    identity: Identity,
    export: Export,
    maker: Option<Maker>,
}

fn open(config: &Config, args: &RecoverArgs) -> Result<Opened, RecoverError> {
    recovery_file::refuse_other_kinds(config, args)?;
    let identity = read_identity(args.identity.as_deref())?;
    let Found { path, export, maker } = recovery_file::find(config, args, &identity)?;
    if export.cluster != config.cluster {
        return Err(RecoverError::Keeper(KeeperError::OtherCluster(export.cluster.to_string())));
    }
    check_maker(args, maker)?;
    Ok(Opened { path, identity, export, maker })
}

/// `--made-by`, if it was said.
pub(super) fn check_maker(args: &RecoverArgs, maker: Option<Maker>) -> Result<(), RecoverError> {
    match (&args.made_by, maker) {
        (Some(_), None) => Err(RecoverError::Unsigned),
        (Some(given), Some(maker)) if !maker.is(given) => Err(RecoverError::Maker),
        (Some(_) | None, _) => Ok(()),
    }
}

pub(super) fn made_by(maker: Option<Maker>) -> String {
    maker.map_or_else(|| UNSIGNED.to_owned(), |maker| format!("made by {}", maker.fingerprint()))
}

pub(super) fn read_identity(path: Option<&Path>) -> Result<Identity, RecoverError> {
    let text = match path {
        Some(path) => read(path)?,
        None => {
            let mut stdin = io::stdin();
            let _hidden = Hidden::typing();
            if stdin.is_terminal() {
                say::prompt(
                    super::PROGRAM,
                    "type the recovery code (it is not shown), then Ctrl-D on a line of its own",
                );
            }
            read_from(&mut stdin).map_err(|source| RecoverError::Read { path: "standard input".into(), source })?
        }
    };
    Identity::parse(&text).map_err(RecoverError::Identity)
}

/// Compares with the running daemon, where one runs.
fn verify(common: &Common, config: &Config, opened: &Opened) -> Done {
    let Opened { path, export, maker, .. } = opened;
    let maker = *maker;
    let compared = match control::ask(&config.control_socket, &Request::KeysList {}) {
        Ok(Answer::Keys(table)) => Some(Compared::new(export, &table)),
        Ok(_) | Err(_) => None,
    };
    let own = match control::ask(&config.control_socket, &Request::Status {}) {
        Ok(Answer::Status(status)) => status.recovery_maker,
        Ok(_) | Err(_) => None,
    };
    let by_this_node = own.zip(maker).map(|(own, maker)| maker.is(&own));
    let lacking: Vec<String> = export.lacking().iter().map(ToString::to_string).collect();
    let ids = |ids: fn(&Compared) -> &Vec<String>| compared.as_ref().map(ids).cloned().unwrap_or_default();
    let (missing, other, unknown) = (ids(|c| &c.missing), ids(|c| &c.other), ids(|c| &c.unknown));
    let value = json!({
        "file": path,
        "cluster": export.cluster.as_str(),
        "written": time(export.written),
        "keys": export.keys.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>(),
        "without_key": lacking,
        "compared_with_running_node": compared.is_some(),
        "missing": missing,
        "other_key": other,
        "unknown": unknown,
        "destroyed_here": ids(|c| &c.destroyed),
        "made_by": maker.map(|maker| maker.fingerprint()),
        "made_by_this_node": by_this_node,
    });
    let code = print(common, schema::RECOVER_VERIFY, &value, || {
        let compared = compared.as_ref().map_or_else(
            || "nodeseald does not run here, or its keys are not open: not compared with this node's keys".to_owned(),
            Compared::text,
        );
        let lacking = match lacking.is_empty() {
            true => String::new(),
            false => format!("\nlisted without a key: {}", lacking.join(" ")),
        };
        let whose = match by_this_node {
            None => "",
            Some(true) => ": this node, as it is now",
            Some(false) => ": not this node as it is now",
        };
        format!(
            "the recovery file {} opens: cluster {}, written {}, {}{lacking}\n{}{whose}\n{compared}\nnothing was written",
            path.display(),
            export.cluster,
            time(export.written),
            counted(export.keys.len(), "KEK"),
            made_by(maker),
        )
    })?;
    if !unknown.is_empty() {
        say::warning(super::PROGRAM, "it has KEKs that this node does not know: another node made it, or an attacker");
    }
    if !other.is_empty() {
        say::warning(
            super::PROGRAM,
            "its keys are not those of this node: do not recover from it, and find out who made it",
        );
        return Ok(ExitCode::from(Class::Corrupt.exit_code()));
    }
    if missing.is_empty() {
        return Ok(code);
    }
    say::warning(
        super::PROGRAM,
        "this copy of the recovery file is too old: copy recovery.age of the state directory again",
    );
    Ok(ExitCode::from(Class::NotFound.exit_code()))
}

/// What is to be told of a recovery.
struct Report {
    recovered: Recovered,
    /// Of the file that was read.
    path: PathBuf,
    written: UnixSeconds,
    maker: Option<Maker>,
    /// The recipients of the new recovery file were named.
    is_said: bool,
    /// The file's active KEK goes on, which other nodes have too.
    keep_active: bool,
    code: Option<Secret>,
}

fn report(common: &Common, config: &Config, report: &Report) -> Done {
    let Report { recovered, path, written, maker, is_said, keep_active, code } = report;
    let key_id = KeyId::of_local_kek(&config.cluster, &recovered.kek);
    let value = json!({
        "kek": recovered.kek.to_string(),
        "key_id": key_id.as_str(),
        "keys": recovered.keks,
        "without_key": recovered.lacking.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "kept_in": recovered.kept_in,
        "file": path,
        "written": time(*written),
        "made_by": maker.map(|maker| maker.fingerprint()),
        "recovery_code": shown(code.as_ref()),
    });
    let last = match keep_active {
        true => "compare the key_id with the other nodes, and give this node a bundle if they differ",
        false => "migrate the storage, since a new KEK encrypts (rotate.md, from step 3)",
    };
    let mut next = vec!["start nodeseald".to_owned(), "copy recovery.age to another place".to_owned()];
    next.extend(code.as_ref().map(|_| PROVE.to_owned()));
    let providers = config.providers.iter().flat_map(|providers| &providers.list);
    let names: BTreeSet<&str> =
        providers.flat_map(|provider| &provider.credentials).map(CredentialName::as_str).collect();
    // They were sealed under the node root that is gone.
    next.extend(names.iter().map(|name| format!("seal the credential again: nodeseal credentials seal {name}")));
    next.push(last.to_owned());
    if !is_said {
        next.push(
            "recovery.age is now for this identity only; to add others, name all of them, including this one: nodeseal reseal --recovery-recipient AGE1… --recovery-recipient AGE1…"
                .to_owned(),
        );
    }
    print_done(common, schema::RECOVER, &value, &next, || {
        let kept = recovered.kept_in.as_ref().map_or_else(String::new, |folder| {
            format!("\nwhat was here before is kept in {}/{folder}", config.state_dir.display())
        });
        let are = if recovered.keks == 1 { "is" } else { "are" };
        format!(
            "{} {are} back, sealed by this node's {}; local KEK {} encrypts, key_id {key_id}\nread {}, written {}, {}{kept}{}",
            counted(recovered.keks, "KEK"),
            config.seal.backend,
            recovered.kek,
            path.display(),
            time(*written),
            made_by(*maker),
            code_text(code.as_ref()),
        )
    })
}
