//! `nodeseal keys list|show|rotate|activate|retire`: asks the running daemon, which alone writes to the state directory.

use std::fmt::Write;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use serde_json::{Value, json};

use super::args::{Common, KeysVerb};
use super::asked::Asked;
use super::exchange::warn_of_providers;
use super::failed::Failed;
use super::files::{FileError, file_error, put, read_file};
use super::kek_ids::{whole, whole_of};
use super::next::{self, Said};
use super::output::{Done, ask, counted, has_recovery_file, load, print, print_done, time, unfit};
use super::rows::{Kek, Keks};
use super::{members, schema, windows};
use crate::config::Config;
use crate::control::{Answer, Request, say};
use crate::keyring::KeeperError;
use crate::keyring::evidence::{Evidence, Subject};
use crate::keyring::keeper::{KekRow, KeyTable, MemberRow};
use crate::keyring::member::Receipt;
use crate::keyring::ring::{KekState, MoveError, RetireTo};
use crate::types::{Class, Explain, Explained, IdError, KekId, clock, hex};

pub(super) fn run(common: &Common, verb: KeysVerb) -> Done {
    match verb {
        KeysVerb::List => {
            let table = listed(common)?;
            print(common, schema::KEYS_LIST, &Keks::new(&table), || render(&table))
        }
        KeysVerb::Show { id } => show(common, id),
        KeysVerb::Windows { svg } => windows::run(common, svg.as_deref()),
        other => change(common, other),
    }
}

fn listed(common: &Common) -> Result<KeyTable, Failed> {
    match Asked::load(common)?.ask(&Request::KeysList {})? {
        Answer::Keys(table) => Ok(table),
        _ => Err(unfit()),
    }
}

/// All verbs that do more than look.
fn change(common: &Common, verb: KeysVerb) -> Done {
    let config = load(common)?;
    match verb {
        KeysVerb::List | KeysVerb::Show { .. } | KeysVerb::Windows { .. } => Err(unfit()),
        KeysVerb::Activate { id, not_shared, when_all_have } => {
            let id = id.map(|id| whole(&config, id)).transpose()?;
            let is_asked = when_all_have.is_some();
            let receipts = when_all_have.map_or(Ok(Vec::new()), |folder| receipts(&folder))?;
            activate(common, &config, &Request::KeysActivate { id, not_shared, receipts, when_all_have: is_asked })
        }
        KeysVerb::Rotate { members: Some(folder), .. } => rotate_for_members(common, &config, &folder),
        KeysVerb::Rotate { activate, members: None } => rotate(common, &config, activate),
        KeysVerb::Retire {
            id, compromised, give_up, not_shared, dry_run: true, without_scan, backups_before, ..
        } => {
            let what = RetireTo::said(compromised, give_up, not_shared);
            let proof = said(without_scan, backups_before);
            dry_run(common, &config, &whole(&config, id)?, what, proof)
        }
        KeysVerb::Retire {
            id,
            confirm,
            compromised,
            give_up,
            not_shared,
            dry_run: false,
            without_scan,
            backups_before,
        } => {
            let id = whole(&config, id)?;
            // Of the id that is said once more nothing may be left out.
            if confirm != id {
                let error = KeeperError::Confirmation;
                return Err(error.into());
            }
            let to = RetireTo::said(compromised, give_up, not_shared);
            let request = Request::KeysRetire {
                id: id.clone(),
                confirm,
                compromised,
                give_up,
                not_shared,
                without_scan,
                backups_before,
            };
            let table = table(&config, &request)?;
            let row = table.keys.iter().find(|row| row.id == id);
            let next = next::retired(&id, to, false, Said::Nothing, row);
            print_done(common, schema::KEYS_RETIRE, &retired(&id, to, false, row), &next, || render(&table))
        }
    }
}

fn activate(common: &Common, config: &Config, request: &Request) -> Done {
    let table = table(config, request)?;
    print_done(common, schema::KEYS_ACTIVATE, &Keks::new(&table), &next::activated(&table), || render(&table))
}

fn rotate(common: &Common, config: &Config, is_activated: bool) -> Done {
    let Answer::Key(key) = ask(config, &Request::KeysRotate {})? else { return Err(unfit()) };
    if is_activated {
        let id = Some(key.id);
        let request = Request::KeysActivate { id, not_shared: false, receipts: Vec::new(), when_all_have: false };
        return activate(common, config, &request);
    }
    let value = json!({ "key": Kek::new(&key), "folder": null, "members": null });
    let next = next::rotated(&key, has_recovery_file(config));
    print_done(common, schema::KEYS_ROTATE, &value, &next, || {
        format!("made local KEK {} in pre-activation; key_id is unchanged", key.id)
    })
}

/// A new KEK, or the one in pre-activation, for all members. What was written before for another KEK is replaced.
fn rotate_for_members(common: &Common, config: &Config, folder: &Path) -> Done {
    let members = members::members(config, &Request::MembersList {})?;
    if members.is_empty() {
        return Err(Failed::new(&NoMembers));
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(|source| file_error(&FileError::Write { path: folder.to_owned(), source }))?;
    let pending = match ask(config, &Request::KeysList {})? {
        Answer::Keys(table) => table.keys.into_iter().find(|row| row.state == KekState::PreActivation.label()),
        _ => return Err(unfit()),
    };
    let key = match pending {
        Some(key) => key,
        None => match ask(config, &Request::KeysRotate {})? {
            Answer::Key(key) => key,
            _ => return Err(unfit()),
        },
    };
    for MemberRow { name, .. } in &members {
        let Answer::File(bundle) = ask(config, &Request::BundleFor { name: name.clone() })? else {
            return Err(unfit());
        };
        put(&folder.join(format!("{name}.bundle")), &hex::decode(bundle).map_err(|_| unfit())?)?;
        // Of an earlier KEK: it would be taken for one that has come.
        let _ = std::fs::remove_file(folder.join(format!("{name}{RECEIPT_SUFFIX}")));
    }
    warn_of_providers(config);
    let names: Vec<&str> = members.iter().map(|row| row.name.as_str()).collect();
    let value = json!({ "key": Kek::new(&key), "folder": folder, "members": names });
    let (folder, names) = (quoted(folder), names.join(" "));
    let next = [
        format!(
            "deliver them: for n in {names}; do ssh root@$n nodeseal bundle accept --receipt - < {folder}/$n.bundle > {folder}/$n{RECEIPT_SUFFIX} || break; done"
        ),
        format!(
            "then activate the KEK: nodeseal keys activate --when-all-have {folder} && for n in {names}; do ssh root@$n nodeseal keys activate; done"
        ),
    ];
    print_done(common, schema::KEYS_ROTATE, &value, &next, || {
        format!(
            "local KEK {} is in pre-activation; key_id is unchanged\nwrote a bundle for each member into {folder}: {names}",
            key.id
        )
    })
}

/// What members have answered to their bundles.
fn receipts(folder: &Path) -> Result<Vec<String>, Failed> {
    let failed = |source| file_error(&FileError::Read { path: folder.to_owned(), source });
    let mut receipts = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.to_string_lossy().ends_with(RECEIPT_SUFFIX) {
            let bytes = read_file(&path)?;
            let text = String::from_utf8_lossy(&bytes).trim().to_owned();
            let is_one = hex::decode(&text).is_ok_and(|receipt| Receipt::decode(&receipt).is_ok());
            // An acceptance that failed has left an empty one, and a remote shell may put more into it than the receipt. That member is
            // named as lacking.
            if !is_one && !text.is_empty() {
                let text = "holds no receipt: it is left out. It must be what `nodeseal bundle accept --receipt` prints, and nothing else";
                say::warning(super::PROGRAM, &format!("{} {text}", path.display()));
            }
            receipts.extend(is_one.then_some(text));
        }
    }
    Ok(receipts)
}

const RECEIPT_SUFFIX: &str = ".receipt";

/// As a shell reads it back.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-+:@%,".contains(&byte));
    if is_plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[derive(Debug, thiserror::Error)]
#[error("this node knows no members")]
struct NoMembers;

impl Explained for NoMembers {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        "on each other node: `nodeseal members identity --out FILE`; then here: `nodeseal members add FILE`"
    }
}

/// Refuses what the daemon would refuse, in the same words.
fn dry_run(common: &Common, config: &Config, id: &str, to: RetireTo, proof: Said) -> Done {
    let table = table(config, &Request::KeysList {})?;
    let id: KekId =
        id.parse().map_err(|error: IdError| Failed::new(&Explain::new(&error, Class::NotFound, LIST_HINT)))?;
    let row = table.keys.iter().find(|row| row.id == id.to_string());
    let refusal = match row {
        None => Some(MoveError::Unknown),
        Some(row) if row.state == KekState::Active.label() => Some(MoveError::Active),
        Some(row) if row.state == KekState::Destroyed.label() => Some(MoveError::Destroyed),
        Some(_) => None,
    };
    let pending = |row: &&KekRow| row.state == KekState::PreActivation.label();
    let is_pending = row.filter(pending).is_some();
    let is_elsewhere = row.is_some_and(|row| row.may_return) && !to.passes_over_others(is_pending);
    let refusal = match refusal {
        Some(refusal) => Some(KeeperError::Move(refusal)),
        None if is_elsewhere => Some(KeeperError::PendingElsewhere(id)),
        None if to.destroys() && !to.passes_over_others(is_pending) && row.is_some_and(|row| row.shared) => {
            Some(KeeperError::InUseElsewhere(id))
        }
        None if to.destroys() && row.is_some_and(|row| row.under_key_id) => Some(KeeperError::UnderKeyId(id)),
        None => match (row, proof) {
            // One that has encrypted nothing, here or elsewhere, needs no proof.
            (Some(row), Said::Nothing | Said::BackupsBefore(_)) if to.destroys() && (row.uses > 0 || row.shared) => {
                let backups = match proof {
                    Said::BackupsBefore(at) => Some(at),
                    Said::Nothing | Said::WithoutScan => None,
                };
                let Answer::Evidence { rehearsed, scans, .. } = ask(config, &Request::Evidence {})? else {
                    return Err(unfit());
                };
                let evidence = Evidence { rehearsed, scans };
                let proved = evidence.proves(Subject::Kek(&id), row.written_until, backups, clock::now());
                proved.err().map(|why| KeeperError::NoProof { kek: id, why })
            }
            _ => None,
        },
    };
    if let Some(error) = refusal {
        return Err(error.into());
    }
    let id = id.to_string();
    let next = next::retired(&id, to, true, proof, row);
    print_done(common, schema::KEYS_RETIRE, &retired(&id, to, true, row), &next, || {
        let what = match to {
            RetireTo::Compromised => "would mark the KEK as compromised: it still decrypts",
            RetireTo::Destroyed | RetireTo::GoneEverywhere => {
                "would destroy the KEK on this node: data that was encrypted under it and not migrated becomes permanently unreadable here, including backups of etcd"
            }
            RetireTo::GivenUp => "would give up the KEK in pre-activation: it still decrypts",
        };
        row.map_or_else(|| what.to_owned(), |row| format!("{what}\n{}", describe(row)))
    })
}

/// clap has seen to it that both are not there.
fn said(without_scan: bool, backups_before: Option<u64>) -> Said {
    match backups_before {
        Some(at) => Said::BackupsBefore(at),
        None if without_scan => Said::WithoutScan,
        None => Said::Nothing,
    }
}

/// What `keys retire` has done, or would do: the KEK as it is now.
fn retired(id: &str, to: RetireTo, is_dry: bool, row: Option<&KekRow>) -> Value {
    let to = match to {
        RetireTo::Compromised => KekState::Compromised.label(),
        RetireTo::Destroyed | RetireTo::GoneEverywhere => KekState::Destroyed.label(),
        RetireTo::GivenUp => KekState::Deactivated.label(),
    };
    json!({ "dry_run": is_dry, "id": id, "to": to, "key": row.map(Kek::new) })
}

fn counted_objects(objects: u64) -> String {
    counted(usize::try_from(objects).unwrap_or(usize::MAX), "object")
}

const LIST_HINT: &str = "list the KEKs: `nodeseal keys list`";

fn describe(row: &KekRow) -> String {
    let owner = match row.shared {
        true => "other nodes have it too, and keep theirs",
        false => "only this node has it",
    };
    let state = if row.may_return { state(row) } else { row.state.clone() };
    let opened = match row.opened {
        Some(at) => format!("it last opened a ciphertext at {}, so objects in etcd may need it", time(at)),
        None => "it has opened no ciphertext since nodeseald started".to_owned(),
    };
    let needed = match (row.objects, row.scanned, row.unneeded_since) {
        (Some(objects), Some(at), since) => {
            let none = since.map(|since| format!("; none since {}", time(since))).unwrap_or_default();
            format!("the scan of etcd at {} counted {} under it{none}", time(at), counted_objects(objects))
        }
        _ => "no scan of etcd is on record: `nodeseal etcd scan`".to_owned(),
    };
    format!(
        "local KEK {}: {state} since {}, at most {} uses; {owner}\n{opened}\n{needed}",
        row.id,
        time(row.since),
        row.uses
    )
}

fn show(common: &Common, id: String) -> Done {
    let table = listed(common)?;
    let id = whole_of(&table.keys, id)?;
    let id: KekId =
        id.parse().map_err(|error: IdError| Failed::new(&Explain::new(&error, Class::NotFound, LIST_HINT)))?;
    let Some(row) = table.keys.into_iter().find(|row| row.id == id.to_string()) else {
        let error = KeeperError::Move(MoveError::Unknown);
        return Err(error.into());
    };
    print(common, schema::KEYS_SHOW, &json!({ "key": Kek::new(&row) }), || {
        let key_id = if row.key_id.is_empty() { "the ones of the providers' keys at its time" } else { &row.key_id };
        let copies = match row.wraps {
            0 => "none by providers".to_owned(),
            count => format!("{count} by providers"),
        };
        let open = if row.check.is_empty() { "not in memory" } else { "in memory" };
        format!("{}\nmade {}, {open}; copies: {copies}\nkey_id: {key_id}", describe(&row), time(row.created))
    })
}

fn table(config: &Config, request: &Request) -> Result<KeyTable, Failed> {
    match ask(config, request)? {
        Answer::Keys(table) => Ok(table),
        _ => Err(unfit()),
    }
}

fn state(row: &KekRow) -> String {
    let is_given_up = row.may_return && row.state == KekState::Deactivated.label();
    let state = if is_given_up { "given up" } else { &row.state };
    if row.shared { format!("{state} shared") } else { state.to_owned() }
}

pub(super) fn render(table: &KeyTable) -> String {
    let mut text = format!("{:<32}  {:<21}  {:<20}  {:>10}  KEY_ID\n", "KEK", "STATE", "SINCE", "USES");
    for row in &table.keys {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{:<32}  {:<21}  {:<20}  {:>10}  {}",
            row.id,
            state(row),
            time(row.since),
            row.uses,
            row.key_id
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_word_of_the_printed_commands() {
        assert_eq!(quoted(Path::new("/media/safe/r-1.2")), "/media/safe/r-1.2");
        assert_eq!(quoted(Path::new("/media/my safe")), "'/media/my safe'");
        assert_eq!(quoted(Path::new("/m/it's; $x")), r"'/m/it'\''s; $x'");
    }
}
