//! The node: files and who may touch them, recovery, ages, sockets, and the units as they are.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::check::Check;
use super::finding::{Finding, Impact, Looked};
use super::scene::{Scene, Unread};
use super::units;
use crate::ctl::machine::units::Unit;
use crate::ctl::output::{counted, time};
use crate::keyring::files::{FILES, Generations, Place, Row};
use crate::keyring::recovery;
use crate::types::clock::UnixSeconds;

const fn check(
    id: &'static str,
    title: &'static str,
    impact: Impact,
    page: &'static str,
    look: fn(&Scene) -> Looked,
) -> Check {
    Check { id, title, impact, page, look }
}

const RECOVERY: &str = "operations/recovery.md";
const ROTATE: &str = "operations/rotate.md";
const HARDENING: &str = "operations/hardening.md";

pub(super) const CHECKS: &[Check] = &[
    check("ND-201", "the state directory is closed to others", Impact::Confidentiality, HARDENING, state_closed),
    check("ND-202", "each file of it has its two generations", Impact::Boot, "formats.md", generations),
    check("ND-203", "there is a recovery file with all keys", Impact::Boot, RECOVERY, recovery_file),
    check("ND-204", "the recovery file was rehearsed", Impact::Evidence, RECOVERY, rehearsed),
    check("ND-205", "no KEK is due", Impact::Confidentiality, ROTATE, due),
    check("ND-206", "no copy is missing at a provider", Impact::Boot, "configuration.md", copies),
    check("ND-207", "an old copy of the state would be noticed", Impact::Confidentiality, "configuration.md", guard),
    check("ND-208", "the KMS socket is there for those it is for", Impact::Serving, HARDENING, kms_socket),
    check("ND-209", "the units are as shipped", Impact::Confidentiality, HARDENING, overridden),
];

/// Deeper than any folder of a state directory: roots/ID/keyring.
const DEPTH_MAX: usize = 5;
/// Twice as many as a full node has: 4,096 KEKs, in two generations, with their wraps.
const FILES_MAX: usize = 65_536;

/// Every file and folder of the state directory, itself first.
fn all_of(scene: &Scene) -> Result<Vec<PathBuf>, Finding> {
    let top = scene.config()?.state_dir.clone();
    match scene.is_set_up() {
        Some(true) => {}
        Some(false) => return Err(Finding::skip("there are no keys yet (ND-002)")),
        None => return Err(Unread::Denied.skipped(&top)),
    }
    let mut found = vec![top.clone()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        at += 1;
        let is_folder = scene.link_meta(&path).is_ok_and(|meta| meta.is_dir());
        let depth = path.components().count() - top.components().count();
        if is_folder && depth < DEPTH_MAX && found.len() < FILES_MAX {
            found.extend(scene.names(&path).into_iter().map(|name| path.join(name)));
        }
    }
    Ok(found)
}

fn state_closed(scene: &Scene) -> Looked {
    let all = all_of(scene)?;
    let folder = all[0].clone();
    let owner = scene.link_meta(&folder).map_err(|unread| unread.skipped(&folder))?.uid();
    for path in &all {
        // What has gone in the meantime is nobody's to read.
        let Ok(meta) = scene.link_meta(path) else { continue };
        let (name, mode) = (path.display(), meta.mode() & 0o7777);
        let folder = folder.display();
        if meta.is_symlink() {
            let todo = format!("put back what was there: nothing in {folder} is a link");
            return Ok(Finding::fail(format!("{name} is a symbolic link"), todo));
        }
        if meta.uid() != owner {
            let why = format!("{name} belongs to user {}, and the folder to user {owner}", meta.uid());
            return Ok(Finding::fail(why, format!("give all of it to one user: chown -R USER: {folder}")));
        }
        if mode & 0o077 != 0 {
            let why = format!("{name} has mode {mode:04o}, which lets others in");
            return Ok(Finding::fail(
                why,
                format!("chmod -R go= {folder}; if others have read it: nodeseal rotate-root"),
            ));
        }
    }
    Ok(Finding::pass(format!("{}, all of user {owner}", counted(all.len() - 1, "file"))))
}

/// Whether the path, below the state directory, is of this row, and the row has two generations that are read each day.
fn has_two(row: &Row, inside: &Path) -> bool {
    // roots/ID/…; release 0.1 had the files of the root in the state directory itself.
    let mut below = inside.components();
    let is_of_root = below.next().is_some_and(|first| first.as_os_str() == "roots");
    let of_root = if is_of_root { below.skip(1).collect::<PathBuf>() } else { inside.to_owned() };
    let path = match row.place {
        Place::Top => inside,
        Place::Root => &of_root,
    };
    let is_it = match (row.name.split_once('*'), path.to_str()) {
        (None, _) => path == Path::new(row.name),
        (Some((before, end)), Some(path)) => path.starts_with(before) && path.ends_with(end),
        (Some(_), None) => false,
    };
    is_it && row.is_checked && row.generations != Generations::One
}

/// Of what has two, by the table of the files; their content is what the daemon checks each day, and `status --deep`.
fn generations(scene: &Scene) -> Looked {
    let all = all_of(scene)?;
    let names: BTreeSet<&Path> = all.iter().map(PathBuf::as_path).collect();
    let is_there = |path: &Path| names.contains(path);
    let top = all[0].clone();
    // Not what is just being written, whose name is another.
    let is_one = |path: &Path| {
        let inside = path.strip_prefix(&top).unwrap_or(path);
        FILES.iter().any(|row| has_two(row, inside)) && scene.link_meta(path).is_ok_and(|meta| meta.is_file())
    };
    let lacks = |path: &&PathBuf| {
        let mut previous = path.as_os_str().to_owned();
        previous.push(".prev");
        is_one(path) && !is_there(Path::new(&previous))
    };
    // The other way round: the newest is lost.
    let alone = |path: &&PathBuf| {
        path.to_str().and_then(|path| path.strip_suffix(".prev")).is_some_and(|newest| !is_there(Path::new(newest)))
    };
    let empty = |path: &&PathBuf| is_one(path) && scene.link_meta(path).is_ok_and(|meta| meta.len() == 0);
    let bad: Vec<_> = all.iter().filter(|path| lacks(path) || alone(path) || empty(path)).collect();
    Ok(match bad.as_slice() {
        [] => Finding::pass("whatever has two has both; nodeseal status --deep reads them"),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            Finding::warn(
                format!("{} is empty, or one of its two generations is missing{more}", first.display()),
                "nodeseal status --deep repairs what can be repaired while nodeseald runs",
            )
        }
    })
}

fn recovery_file(scene: &Scene) -> Looked {
    let make = "nodeseal reseal --recovery-recipient AGE1…, or --recovery-code";
    let Ok(status) = scene.status() else {
        if scene.is_set_up() != Some(true) {
            return Ok(Finding::skip("there are no keys yet (ND-002), or this user may not look"));
        }
        let path = scene.config()?.state_dir.join(recovery::FILE);
        return Ok(match scene.meta(&path) {
            Ok(_) => {
                Finding::pass(format!("{} is there; only nodeseald tells whether it has all keys", path.display()))
            }
            Err(Unread::Missing) => Finding::warn("there is none: with the TPM the keys are lost", make),
            Err(unread) => unread.skipped(&path),
        });
    };
    if !status.keys_known || status.seal_policy.is_none() {
        return Ok(Finding::skip("the keys are not open, so nothing is known of it"));
    }
    if status.recovery_recipients.is_empty() {
        return Ok(Finding::warn("there is none: with the TPM the keys are lost", make));
    }
    if status.recovery_owed {
        return Ok(Finding::fail("it is wrong, and could not be rewritten", "see the log of nodeseald"));
    }
    let newest = scene.keys().and_then(|table| table.keys.iter().map(|kek| kek.created).max());
    Ok(match (status.recovery_written, newest) {
        (Some(written), Some(newest)) if written < newest => Finding::fail(
            format!("it was written at {}, and the newest KEK was made at {}", time(written), time(newest)),
            "see the log of nodeseald: the file is written with each KEK",
        ),
        (Some(written), _) => Finding::pass(format!("written at {}; older copies of it differ", time(written))),
        (None, _) => Finding::skip("nodeseald does not say when it was written"),
    })
}

/// Seconds. Half a year: what nobody has tried for longer, nobody knows to do.
const REHEARSAL_MAX_AGE: UnixSeconds = 183 * 86_400;

fn rehearsed(scene: &Scene) -> Looked {
    let status = scene.status()?;
    if status.recovery_recipients.is_empty() {
        return Ok(Finding::skip("there is no recovery file (ND-203), or it is not known"));
    }
    let todo = "nodeseal recover --rehearse, with the copy that you keep";
    Ok(match status.recovery_rehearsed {
        None => Finding::warn("never", todo),
        Some(at) if status.rehearsal_lacks_kek => {
            Finding::warn(format!("at {}, before the newest KEK was made", time(at)), todo)
        }
        Some(at) if at.saturating_add(REHEARSAL_MAX_AGE) < scene.now => {
            Finding::warn(format!("at {}, more than half a year ago", time(at)), todo)
        }
        Some(at) => Finding::pass(format!("at {}", time(at))),
    })
}

fn due(scene: &Scene) -> Looked {
    let status = scene.status()?;
    Ok(match (status.overdue, status.due) {
        (true, _) => Finding::warn("the active KEK is due, by its age or its uses", "nodeseal keys rotate"),
        (false, Some(due)) => Finding::pass(format!("the active one is due at {}", time(due))),
        (false, None) => Finding::pass("nodeseald names none"),
    })
}

fn copies(scene: &Scene) -> Looked {
    let status = scene.status()?;
    let todo =
        "see what the providers say: nodeseal status; docs/operations/rotate.md replaces what was written meanwhile";
    Ok(match (status.wraps_owed, status.texts_short_of_wraps) {
        (0, 0) => Finding::pass("none"),
        (owed, short) => Finding::warn(
            format!("{} of KEKs missing, {short} ciphertexts written with too few", counted_copies(owed)),
            todo,
        ),
    })
}

fn counted_copies(count: usize) -> String {
    if count == 1 { "1 copy".to_owned() } else { format!("{count} copies") }
}

fn guard(scene: &Scene) -> Looked {
    let wanted = scene.config()?.seal.guard.is_some();
    if !wanted {
        return Ok(Finding::pass("the configuration asks for no counter (seal.tpm2.rollback)"));
    }
    let status = scene.status()?;
    Ok(match (status.seal_policy.is_some(), status.guarded) {
        (false, _) => Finding::skip("the keys are not open, so nothing is known of it"),
        (true, true) => Finding::pass("by a counter of the TPM"),
        (true, false) => Finding::warn(
            "the configuration asks for a counter of the TPM, and the node root is sealed without",
            "nodeseal reseal",
        ),
    })
}

fn kms_socket(scene: &Scene) -> Looked {
    let listen = &scene.config()?.listen;
    let socket = &listen.socket;
    let folder = socket.parent().unwrap_or(Path::new("/"));
    let todo = "systemctl restart nodeseal.socket, or start nodeseald";
    let is_set_up = scene.is_set_up() != Some(false);
    let meta = match scene.meta(socket) {
        Ok(meta) => meta,
        Err(Unread::Missing) if !is_set_up => {
            return Ok(Finding::skip("there is none before nodeseal.socket is started"));
        }
        Err(Unread::Missing) => return Ok(Finding::fail(format!("{} does not exist", socket.display()), todo)),
        Err(unread) => return Ok(unread.skipped(socket)),
    };
    if !meta.file_type().is_socket() {
        return Ok(Finding::fail(format!("{} is not a socket", socket.display()), todo));
    }
    let around = scene.meta(folder).map_err(|unread| unread.skipped(folder))?;
    // With the sticky bit others cannot replace what is not theirs.
    if around.mode() & 0o022 != 0 && around.mode() & 0o1000 == 0 {
        let why =
            format!("{} has mode {:04o}: others can replace the socket", folder.display(), around.mode() & 0o7777);
        return Ok(Finding::fail(why, format!("chmod go-w {}", folder.display())));
    }
    let service = scene.meta(&scene.config()?.state_dir).map_or(scene.machine.root_uid, |meta| meta.uid());
    if ![scene.machine.root_uid, service].contains(&around.uid()) {
        let why = format!("{} belongs to user {}, who can replace the socket", folder.display(), around.uid());
        return Ok(Finding::fail(why, format!("chown root {}, or to the user of nodeseald", folder.display())));
    }
    let mode = meta.mode() & 0o7777;
    if mode & 0o007 != 0 {
        let why = format!("{} has mode {mode:04o}: every user of the node may connect", socket.display());
        return Ok(Finding::warn(
            why,
            "set SocketMode=0660 (nodeseal.socket) or listen.mode; nodeseald refuses other users in any case",
        ));
    }
    let uids: Vec<String> = listen.allow_uids.iter().map(ToString::to_string).collect();
    Ok(Finding::pass(format!("mode {mode:04o}; served are users {}", uids.join(", "))))
}

fn overridden(scene: &Scene) -> Looked {
    let mut told: Vec<String> = Vec::new();
    let mut is_any = false;
    for shipped in &units::SHIPPED {
        if let Some(unit) = Unit::find(&scene.machine, shipped.name) {
            is_any = true;
            told.extend(unit.unread.iter().map(|unread| format!("{}: {unread}", shipped.name)));
            told.extend(units::lost(shipped, &unit.settings).iter().map(ToString::to_string));
        }
    }
    if !is_any {
        return Ok(Finding::skip("no unit of Nodeseal is installed here"));
    }
    Ok(match told.is_empty() {
        true => Finding::pass("no drop-in takes a hardening line away"),
        false => Finding::warn(
            told.join("; "),
            "systemctl cat shows which drop-in does it; remove the line if nothing needs it",
        ),
    })
}
