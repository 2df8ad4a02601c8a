//! `nodeseal recover --rehearse`: a recovery on paper. The recovery file is opened in memory alone, with no device, and with
//! `--snapshot` every distinct DEK and seed of an etcd snapshot is opened under its keys. Nothing is written, but the date, if a
//! nodeseald that has the same keys runs here.
//!
//! It needs neither a configuration nor a running node, so that it can be done where the recovery file is kept.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::args::{Common, RecoverArgs};
use super::compared::Compared;
use super::failed::Failed;
use super::output::{Done, counted, harden, load, print, time};
use super::recover::{check_maker, made_by, read_identity};
use super::recovery_file::{self, Found};
use super::{PROGRAM, schema};
use crate::config::{self, Config};
use crate::control::{self, Answer, Request, say};
use crate::envelope::{self, Api, EnvelopeError};
use crate::etcd::Stored;
use crate::etcd::content;
use crate::etcd::count::{Ask, Count, Opener, Opens};
use crate::etcd::question::{Question, Verdict};
use crate::etcd::resource::DEFAULT_PREFIX;
use crate::etcd::snapshot::{Snapshot, SnapshotError};
use crate::keyring::export::Export;
use crate::types::{Chain, Explained};

/// Some of the snapshot does not open under the file.
const NOT_ALL: u8 = 1;

pub(super) fn run(common: &Common, args: &RecoverArgs) -> Done {
    harden()?;
    // A named file is enough; without one the configuration says where it lies.
    let (config, found) = match &args.file {
        Some(path) => {
            let identity = read_identity(args.identity.as_deref())?;
            (config::load(&common.config).ok(), recovery_file::open(path, &identity)?)
        }
        None => {
            let config = load(common)?;
            let identity = read_identity(args.identity.as_deref())?;
            let found = recovery_file::find(&config, args, &identity)?;
            (Some(config), found)
        }
    };
    let Found { path, export, maker } = found;
    check_maker(args, maker)?;
    let scanned = args.snapshot.as_deref().map(|snapshot| scan(snapshot, &export)).transpose()?;
    let opens_all = scanned.as_ref().is_none_or(Scanned::opens_all);
    let is_kept = opens_all && config.as_ref().is_some_and(|config| keep(config, &export));
    let value = json!({
        "file": path,
        "cluster": export.cluster.as_str(),
        "written": time(export.written),
        "keys": export.keys.iter().map(|(id, _)| id.to_string()).collect::<Vec<_>>(),
        "made_by": maker.map(|maker| maker.fingerprint()),
        "snapshot": args.snapshot,
        "objects": scanned.as_ref().map(|scanned| scanned.objects),
        "seeds": scanned.as_ref().map(|scanned| scanned.seeds),
        "opens": scanned.as_ref().map(|scanned| scanned.opens.opens),
        "unknown_kek": scanned.as_ref().map(|scanned| scanned.opens.unknown_kek),
        "needs_provider": scanned.as_ref().map(|scanned| scanned.opens.provider_away),
        "bad_text": scanned.as_ref().map(|scanned| scanned.opens.bad_text),
        "unread": scanned.as_ref().map(|scanned| scanned.unread),
        "recorded": is_kept,
    });
    print(common, schema::RECOVER_REHEARSE, &value, || {
        let file = format!(
            "the recovery file {} opens: cluster {}, written {}, {}\n{}",
            path.display(),
            export.cluster,
            time(export.written),
            counted(export.keys.len(), "KEK"),
            made_by(maker),
        );
        let snapshot = scanned.as_ref().map_or_else(String::new, |scanned| format!("\n{}", scanned.text()));
        let kept = match is_kept {
            true => "the date was recorded: `nodeseal status` shows it",
            false => "the date was not recorded",
        };
        format!("{file}{snapshot}\n{kept}; nothing else was written")
    })?;
    if !opens_all {
        let is_empty = scanned.as_ref().is_some_and(|scanned| scanned.under_kms == 0);
        say::warning(
            PROGRAM,
            match is_empty {
                true => "nothing in the snapshot is encrypted by a KMS plugin, so nothing was rehearsed",
                false => "after a recovery from this file, what does not open here would not open",
            },
        );
        say::hint(
            PROGRAM,
            "use the newest recovery.age, and a snapshot of the same cluster; what needs a provider needs it in a recovery too",
        );
        return Ok(ExitCode::from(NOT_ALL));
    }
    Ok(ExitCode::SUCCESS)
}

/// The node whose keys these are keeps the date.
fn keep(config: &Config, export: &Export) -> bool {
    let Ok(Answer::Keys(table)) = control::ask(&config.control_socket, &Request::KeysList {}) else { return false };
    if !Compared::new(export, &table).is_whole() {
        say::warning(PROGRAM, "the file is not the newest one of this node, so the date is not recorded");
        return false;
    }
    match control::ask(&config.control_socket, &Request::Rehearsed {}) {
        Ok(_) => true,
        Err(error) => {
            say::warning(PROGRAM, &format!("the date is not recorded: {}", Chain(&error)));
            say::hint(PROGRAM, error.hint());
            false
        }
    }
}

/// What of a snapshot opens under a recovery file.
struct Scanned {
    objects: u64,
    /// Of these, under a KMS plugin.
    under_kms: u64,
    /// Of these, such as nobody can be asked about: damaged, or by a transformer that is not known here.
    unread: u64,
    /// Distinct DEKs and seeds.
    seeds: usize,
    opens: Opens,
}

impl Scanned {
    /// Something was opened, and nothing was not.
    fn opens_all(&self) -> bool {
        self.under_kms > 0 && self.opens.opens == self.under_kms && self.unread == 0
    }

    fn text(&self) -> String {
        let Opens { opens, unknown_kek, bad_text, provider_away, .. } = self.opens;
        let unread = self.unread;
        let objects = |count: u64| counted(usize::try_from(count).unwrap_or(usize::MAX), "object");
        let mut text = format!(
            "of {} in the snapshot, {} under KMS plugins have {} DEKs and seeds; {} open",
            objects(self.objects),
            objects(self.under_kms),
            self.seeds,
            objects(opens)
        );
        for (count, why) in [
            (unknown_kek, "need a KEK that the file does not have"),
            (provider_away, "need a KEK that only a provider can unwrap"),
            (bad_text, "do not open: damaged, of another cluster, or not written by Nodeseal"),
            (unread, "cannot be read at all: damaged, or encrypted by something that this release does not know"),
        ] {
            if count > 0 {
                text += &format!("\n{} {why}", objects(count));
            }
        }
        text
    }
}

fn scan(path: &Path, export: &Export) -> Result<Scanned, Failed> {
    let snapshot = Snapshot::open(path)?;
    let (mut count, mut opener) = (Count::new(DEFAULT_PREFIX, Ask::Seeds), Paper(export));
    // All keys: the prefix of its kube-apiserver is not known, and other API servers may have objects beside it.
    snapshot.each::<SnapshotError>(b"", &mut |stored: Stored<'_>| {
        let taken: Result<_, std::convert::Infallible> = count.take(stored, &mut opener);
        taken.map(drop).unwrap_or_else(|never| match never {});
        Ok(())
    })?;
    let Count { objects, under_kms, unread, .. } = count;
    let mut scanned = Scanned { objects, under_kms, unread, seeds: count.seeds(), opens: Opens::default() };
    for group in count.groups() {
        scanned.opens.add(&group.opens);
    }
    Ok(scanned)
}

/// Opens under the keys of a recovery file.
struct Paper<'a>(&'a Export);

impl Opener for Paper<'_> {
    type Error = std::convert::Infallible;

    fn open(&mut self, question: &Question<'_>) -> Result<Verdict, Self::Error> {
        Ok(self.verdict(question))
    }
}

impl Paper<'_> {
    fn verdict(&self, question: &Question<'_>) -> Verdict {
        let cluster = &self.0.cluster;
        let parsed = match (question.api, question.wraps()) {
            (Api::V1, _) => envelope::parse_v1(cluster, question.source),
            (Api::V2, Ok(wraps)) => envelope::parse_v2(cluster, question.key_id, wraps, question.source),
            (Api::V2, Err(error)) => Err(EnvelopeError::Wraps(error)),
        };
        let Ok(parsed) = parsed else { return Verdict::BadText };
        let Some((_, key)) = self.0.keys.iter().find(|(id, _)| id == parsed.kek_id()) else {
            let has_wraps = parsed.wraps().iter().next().is_some();
            return if has_wraps { Verdict::ProviderAway } else { Verdict::UnknownKek };
        };
        match (parsed.open(key.expose()), question.object) {
            (Err(_), _) => Verdict::BadText,
            (Ok(seed), Some((place, data))) if !content::opens(question.api, question.kind, &seed, data, place) => {
                Verdict::Moved
            }
            (Ok(_), _) => Verdict::Opens,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::compared::tests::export;
    use super::*;
    use crate::etcd::samples;
    use crate::etcd::snapshot::writer::{Change, database, with_hash};
    use crate::types::{KekId, Key};

    /// With the keys of these KEKs, which are those of [`samples`].
    fn with_keys(keks: &[u8]) -> Export {
        let keys = keks.iter().map(|kek| (KekId::from_bytes([*kek; 16]), Key::of(&[*kek; 32]))).collect();
        Export { cluster: "prod".parse().unwrap(), keys, ..export() }
    }

    fn scanned(changes: &[Change], export: &Export) -> Scanned {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&with_hash(&database(changes, 2))).unwrap();
        scan(file.path(), export).unwrap_or_else(|failed| panic!("{}", failed.text()))
    }

    #[test]
    fn every_seed_of_a_snapshot_is_opened_under_the_keys_of_the_file() {
        let changes: [Change; 5] = [
            ("/registry/secrets/a/1", Some(samples::v2(7, "ns1-a", 1).stored("nodeseal"))),
            ("/registry/secrets/a/2", Some(samples::v2(7, "ns1-a", 1).stored("nodeseal"))),
            ("/registry/secrets/a/3", Some(samples::v1("nodeseal", 9, 2))),
            ("/registry/secrets/a/4", Some(b"k8s\0plain".to_vec())),
            ("compact_rev_key", Some(b"1".to_vec())),
        ];
        let all = scanned(&changes, &with_keys(&[7, 9]));
        assert_eq!((all.objects, all.seeds, all.opens.opens, all.opens_all()), (5, 2, 3, true), "{}", all.text());
        let some = scanned(&changes, &with_keys(&[7]));
        assert_eq!((some.opens.opens, some.opens.unknown_kek, some.opens_all()), (2, 1, false), "{}", some.text());
        let other = Export { cluster: "other".parse().unwrap(), ..with_keys(&[7, 9]) };
        assert_eq!(scanned(&changes, &other).opens.bad_text, 3);
        let damaged = Export { keys: vec![(KekId::from_bytes([7; 16]), Key::of(&[8; 32]))], ..with_keys(&[]) };
        assert_eq!((scanned(&changes, &damaged).opens.bad_text, scanned(&changes, &damaged).opens.unknown_kek), (2, 1));
    }

    #[test]
    fn a_snapshot_in_which_nothing_was_opened_is_no_rehearsal() {
        let keys = || with_keys(&[7, 9]);
        let plain: [Change; 1] = [("/registry/secrets/a/1", Some(b"k8s\0plain".to_vec()))];
        assert!(!scanned(&plain, &keys()).opens_all());
        // kube-apiserver has `--etcd-prefix=/kubernetes.io`.
        let elsewhere: [Change; 1] =
            [("/kubernetes.io/secrets/a/1", Some(samples::v2(200, "ns1-a", 1).stored("nodeseal")))];
        let found = scanned(&elsewhere, &keys());
        assert!(!found.opens_all(), "{}", found.text());
        let empty: [Change; 1] = [("compact_rev_key", Some(b"1".to_vec()))];
        assert!(!scanned(&empty, &keys()).opens_all());
    }

    #[test]
    fn what_cannot_be_read_at_all_is_not_left_out_of_a_rehearsal() {
        let damaged: [Change; 2] = [
            ("/registry/secrets/a/1", Some(samples::v2(7, "ns1-a", 1).stored("nodeseal"))),
            ("/registry/secrets/a/2", Some(b"k8s:enc:kms:v2:nodeseal:\xFF".to_vec())),
        ];
        let found = scanned(&damaged, &with_keys(&[7]));
        assert!(!found.opens_all(), "{}", found.text());
    }
}
