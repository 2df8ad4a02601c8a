//! What was seen of etcd, and when: the file `evidence` (docs/formats.md, "Evidence"), authenticated under the node root.
//!
//! It says which KEKs and which versions of providers' keys something stored still needs, so that a KEK is destroyed on what was
//! seen and not on a hope. A file that is lost costs a scan. Pure, and total over any bytes.
//!
//! ```text
//! algorithm u8 (1 = HMAC-SHA256) | root id | cluster: u16 length, bytes | rehearsed u64 (0 = never) |
//! scans: u8 count, the oldest first, each
//!   at u64 | revision u64 | objects u64 | KEKs: u16 count, each id and objects u64 |
//!   keys: u16 count, each kind u8, identity and version with a u16 length each, objects u64
//! | MAC, 32 bytes
//! ```

use crate::keyring::state_file::{HMAC_SHA256, MAC_BYTES, mac};
use crate::provider::{KeyIdentity, KeyVersion, ProviderKind};
use crate::types::clock::UnixSeconds;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{ClusterId, KekId, Key, RootId};

const LABEL: &[u8] = b"nodeseal evidence v1\0";

/// Name of the file inside of the folder of a root.
pub const FILE: &str = "evidence";

/// The newest so many are kept.
pub const SCANS_MAX: usize = 20;
/// Bytes of all scans together. A cluster with twenty KEKs and their copies has below 40 kB; a file has room for 1 MiB, and so has an answer
/// about them.
pub const SCANS_MAX_BYTES: usize = 256 * 1024;
/// KEKs, and versions of providers' keys, of one scan. Those of a scan beyond it are not kept as evidence.
pub const ROWS_MAX: usize = 512;

/// A complete scan of a running etcd.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Scan {
    /// When it began, in seconds since 1970.
    pub at: UnixSeconds,
    /// Of etcd.
    pub revision: u64,
    /// All objects.
    pub objects: u64,
    /// Objects under each local KEK.
    pub keks: Vec<KekUse>,
    /// Objects that bring a copy by each version of a provider's key.
    pub keys: Vec<KeyUse>,
}

/// Objects under a KEK.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KekUse {
    /// 32 hexadecimal digits.
    pub kek: String,
    /// How many.
    pub objects: u64,
}

/// Objects that bring a copy by a version of a key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyUse {
    /// As in the configuration.
    pub kind: String,
    /// Of the key.
    pub identity: String,
    /// Of the key.
    pub version: String,
    /// How many.
    pub objects: u64,
}

impl Scan {
    /// As it crosses the control socket.
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.write(&mut w);
        w.finish()
    }

    /// The mirror of [`Scan::encode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let scan = read_scan(&mut r)?;
        r.end()?;
        Ok(scan)
    }

    fn write(&self, w: &mut Writer) {
        w.u64(self.at).u64(self.revision).u64(self.objects);
        w.u16(u16::try_from(self.keks.len()).unwrap_or(u16::MAX));
        for row in &self.keks {
            // Checked when it was taken ([`Scan::is_fit`]).
            w.raw(row.kek.parse::<KekId>().unwrap_or(KekId::from_bytes([0; 16])).as_bytes()).u64(row.objects);
        }
        w.u16(u16::try_from(self.keys.len()).unwrap_or(u16::MAX));
        for row in &self.keys {
            w.u8(kind_of(&row.kind).map_or(0, |kind| kind as u8));
            w.bytes16(row.identity.as_bytes()).bytes16(row.version.as_bytes()).u64(row.objects);
        }
    }

    /// Objects under this KEK. A KEK that is not named has none.
    pub fn objects_under(&self, kek: &KekId) -> u64 {
        let id = kek.to_string();
        self.keks.iter().filter(|row| row.kek == id).map(|row| row.objects).sum()
    }

    /// Objects that bring a copy by this key, whatever its version.
    pub fn objects_by(&self, kind: ProviderKind, identity: &KeyIdentity) -> u64 {
        let is_of = |row: &&KeyUse| row.kind == kind.label() && row.identity == identity.as_str();
        self.keys.iter().filter(is_of).map(|row| row.objects).sum()
    }

    fn objects_of(&self, subject: Subject<'_>) -> u64 {
        match subject {
            Subject::Kek(kek) => self.objects_under(kek),
            Subject::Key(kind, identity) => self.objects_by(kind, identity),
        }
    }

    /// Whether it can be kept: bounded, and of names that are ones.
    pub fn is_fit(&self) -> bool {
        let keks = self.keks.iter().all(|row| row.kek.parse::<KekId>().is_ok());
        let is_key = |row: &KeyUse| {
            kind_of(&row.kind).is_some()
                && KeyIdentity::new(row.identity.as_str()).is_ok()
                && KeyVersion::new(row.version.as_str()).is_ok()
        };
        self.keks.len() <= ROWS_MAX && self.keys.len() <= ROWS_MAX && keks && self.keys.iter().all(is_key)
    }
}

fn kind_of(label: &str) -> Option<ProviderKind> {
    (1..=u8::MAX).filter_map(ProviderKind::from_number).find(|kind| kind.label() == label)
}

/// All that was seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// When a recovery file was last opened to see whether it opens what etcd holds.
    pub rehearsed: Option<UnixSeconds>,
    /// The oldest first.
    pub scans: Vec<Scan>,
}

/// What is to go.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// A local KEK, for good.
    Kek(&'a KekId),
    /// The last way to a key at a provider.
    Key(ProviderKind, &'a KeyIdentity),
}

/// How long ago a scan may be, when a KEK is destroyed because of it.
pub const FRESH_SECONDS: u64 = 24 * 3600;

/// How long kube-apiserver may still write under the KEK from before, after another one was activated: 3 + N + M minutes of KEP-3299, with
/// none for the plugin and 5 for kube-apiserver. A scan from before that has not seen what was written then.
pub const SETTLED_SECONDS: u64 = 8 * 60;

/// Why no scan speaks for destroying a KEK.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoProof {
    /// None was made here.
    #[error("no complete scan of etcd is on record, so it is not known whether something stored needs this key")]
    Never,
    /// Too old.
    #[error("the last complete scan of etcd was {} h ago", seconds / 3600)]
    Old {
        /// Since then.
        seconds: u64,
    },
    /// It is in use now.
    #[error("this key still encrypts, so kube-apiserver may write under it after any scan")]
    Writes,
    /// From before kube-apiserver has surely turned.
    #[error("the last scan of etcd was less than {} minutes after kube-apiserver was told to use another key, and it may have written under this one since", SETTLED_SECONDS / 60)]
    Early,
    /// It has seen some.
    #[error("the last scan of etcd counted {objects} objects under this key")]
    Needed {
        /// How many.
        objects: u64,
    },
    /// Nothing was said of backups.
    #[error("backups of etcd may still need this key")]
    Backups,
    /// What was said leaves some.
    #[error("backups of etcd that were taken after that date may still need this key")]
    BackupsLeft,
}

impl Evidence {
    /// With one scan more, in the order in which they began: one that took long does not hide what another has seen since. What is
    /// of the future was told by a clock that was set back.
    pub fn with(&self, scan: Scan, now: UnixSeconds) -> Self {
        let mut next = self.clone();
        next.scans.retain(|kept| kept.at <= now.max(scan.at));
        let place = next.scans.partition_point(|kept| kept.at <= scan.at);
        next.scans.insert(place, scan);
        let bytes = |scans: &[Scan]| scans.iter().map(|scan| scan.encode().len()).sum::<usize>();
        while next.scans.len() > 1 && (next.scans.len() > SCANS_MAX || bytes(&next.scans) > SCANS_MAX_BYTES) {
            next.scans.remove(0);
        }
        next
    }

    /// Since when every scan has seen nothing under this KEK, of those that were made long enough after kube-apiserver was `turned` to
    /// another key.
    pub fn unneeded_since(&self, kek: &KekId, turned: UnixSeconds) -> Option<UnixSeconds> {
        self.first_without(Subject::Kek(kek), turned)
    }

    fn first_without(&self, subject: Subject<'_>, turned: UnixSeconds) -> Option<UnixSeconds> {
        let settled = turned.saturating_add(SETTLED_SECONDS);
        let is_without = |scan: &&Scan| scan.at >= settled && scan.objects_of(subject) == 0;
        self.scans.iter().rev().take_while(is_without).last().map(|scan| scan.at)
    }

    /// Whether it may go: a scan of the last day has seen nothing under it, long enough after kube-apiserver was `turned` to another key, and
    /// there are no backups of etcd from before `backups_since`, which must not be before the first such scan that saw nothing under it.
    pub fn proves(
        &self,
        subject: Subject<'_>,
        turned: UnixSeconds,
        backups_since: Option<UnixSeconds>,
        now: UnixSeconds,
    ) -> Result<(), NoProof> {
        let last = self.scans.last().ok_or(NoProof::Never)?;
        let seconds = now.saturating_sub(last.at);
        let objects = last.objects_of(subject);
        if objects > 0 {
            return Err(NoProof::Needed { objects });
        }
        if seconds > FRESH_SECONDS || last.at > now {
            return Err(NoProof::Old { seconds });
        }
        let settled = turned.saturating_add(SETTLED_SECONDS);
        if last.at < settled {
            return Err(NoProof::Early);
        }
        let since = backups_since.ok_or(NoProof::Backups)?;
        let first = self.first_without(subject, turned).ok_or(NoProof::Never)?;
        if since < first || since > now { Err(NoProof::BackupsLeft) } else { Ok(()) }
    }

    /// The payload of the file.
    pub fn encode(&self, cluster: &ClusterId, root: &RootId, mac_key: &Key) -> Vec<u8> {
        let mut w = head(cluster, root);
        w.u64(self.rehearsed.unwrap_or_default());
        w.u8(u8::try_from(self.scans.len()).unwrap_or(u8::MAX));
        self.scans.iter().for_each(|scan| scan.write(&mut w));
        let tag = mac(mac_key, &[LABEL, w.as_bytes()]).finalize();
        w.raw(&tag).finish()
    }

    /// Authenticates and reads the payload.
    pub fn decode(bytes: &[u8], cluster: &ClusterId, root: &RootId, mac_key: &Key) -> Result<Self, WireError> {
        let (body, tag) = bytes.split_last_chunk::<MAC_BYTES>().ok_or(WireError::Short("MAC"))?;
        if !mac(mac_key, &[LABEL, body]).is(tag) {
            return Err(WireError::BadValue("MAC"));
        }
        let head = head(cluster, root).finish();
        let mut r = Reader::new(body.strip_prefix(&head[..]).ok_or(WireError::BadValue("root"))?);
        let rehearsed = Some(r.time("rehearsed")?).filter(|at| *at != 0);
        let count = usize::from(r.u8("scans")?);
        if count > SCANS_MAX {
            return Err(WireError::BadValue("scans"));
        }
        let scans = (0..count).map(|_| read_scan(&mut r)).collect::<Result<_, _>>()?;
        r.end()?;
        Ok(Self { rehearsed, scans })
    }
}

fn read_scan(r: &mut Reader<'_>) -> Result<Scan, WireError> {
    let (at, revision, objects) = (r.time("at")?, r.u64("revision")?, r.u64("objects")?);
    let rows =
        |count: u16| Some(usize::from(count)).filter(|count| *count <= ROWS_MAX).ok_or(WireError::BadValue("rows"));
    let keks = (0..rows(r.u16("KEKs")?)?)
        .map(|_| Ok(KekUse { kek: KekId::from_bytes(r.array("KEK")?).to_string(), objects: r.u64("objects")? }))
        .collect::<Result<_, WireError>>()?;
    let keys = (0..rows(r.u16("keys")?)?)
        .map(|_| {
            let kind = ProviderKind::from_number(r.u8("kind")?).ok_or(WireError::BadValue("kind"))?;
            let (identity, version) = (r.text16("identity")?.to_owned(), r.text16("version")?.to_owned());
            Ok(KeyUse { kind: kind.label().to_owned(), identity, version, objects: r.u64("objects")? })
        })
        .collect::<Result<_, WireError>>()?;
    Ok(Scan { at, revision, objects, keks, keys })
}

fn head(cluster: &ClusterId, root: &RootId) -> Writer {
    let mut w = Writer::new();
    w.u8(HMAC_SHA256).raw(root.as_bytes()).bytes16(cluster.as_str().as_bytes());
    w
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::types::hex;

    const KEK: KekId = KekId::from_bytes([1; 16]);

    fn scan(at: u64, under: u64) -> Scan {
        let key = KeyUse { kind: "vault".into(), identity: "transit/k@1".into(), version: "3".into(), objects: 9 };
        Scan {
            at,
            revision: 7,
            objects: 12,
            keks: vec![KekUse { kek: KEK.to_string(), objects: under }],
            keys: vec![key],
        }
    }

    fn under() -> (ClusterId, RootId, Key) {
        ("prod".parse().unwrap(), RootId::from_bytes([2; 16]), Key::of(&[3; 32]))
    }

    #[test]
    fn frozen_vector_of_a_file() {
        let (cluster, root, key) = under();
        let evidence = Evidence { rehearsed: Some(5), scans: vec![scan(1000, 4), scan(2000, 0)] };
        let bytes = evidence.encode(&cluster, &root, &key);
        // Of the bytes that Python's struct and hmac make of docs/formats.md.
        assert_eq!(
            hex::encode(Sha256::digest(&bytes)),
            "d22c43a4e4ffe91ff002bc35c73eca2828fa9ec4e1aecbb38f08dc23070de178"
        );
        assert_eq!(Evidence::decode(&bytes, &cluster, &root, &key), Ok(evidence));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert!(Evidence::decode(&changed, &cluster, &root, &key).is_err(), "{at}");
        }
        let other = "other".parse().unwrap();
        assert!(Evidence::decode(&bytes, &other, &root, &key).is_err());
    }

    #[test]
    fn only_a_scan_of_the_last_day_without_such_objects_and_a_word_on_backups_let_a_kek_go() {
        let now = 1_000_000;
        let proves_after = |scans: &[Scan], activated, backups| {
            Evidence { rehearsed: None, scans: scans.to_vec() }.proves(Subject::Kek(&KEK), activated, backups, now)
        };
        let proves = |scans: &[Scan], backups| proves_after(scans, now - 5000, backups);
        assert_eq!(proves(&[], Some(now)), Err(NoProof::Never));
        assert_eq!(proves(&[scan(now - 10, 3)], Some(now)), Err(NoProof::Needed { objects: 3 }));
        assert_eq!(proves(&[scan(now - 90_000, 0)], Some(now)), Err(NoProof::Old { seconds: 90_000 }));
        assert_eq!(proves(&[scan(now + 10, 0)], Some(now)), Err(NoProof::Old { seconds: 0 }), "of tomorrow");
        let good = [scan(now - 500, 3), scan(now - 400, 0), scan(now - 10, 0)];
        assert_eq!(proves(&good, None), Err(NoProof::Backups));
        assert_eq!(proves(&good, Some(now - 401)), Err(NoProof::BackupsLeft));
        assert_eq!(proves(&good, Some(now + 1)), Err(NoProof::BackupsLeft));
        assert_eq!(proves(&good, Some(now - 400)), Ok(()));
        // kube-apiserver may have written under it after the scan.
        assert_eq!(proves_after(&good, now - 489, Some(now)), Err(NoProof::Early));
        assert_eq!(
            proves_after(&good, now - 490, Some(now - 400)),
            Err(NoProof::BackupsLeft),
            "the scan before does not count"
        );
        assert_eq!(proves_after(&good, now - 490, Some(now - 10)), Ok(()));
    }

    #[test]
    fn a_key_at_a_provider_is_needed_by_whatever_brings_a_copy_by_any_of_its_versions() {
        let now = 1_000_000;
        let identity = |text| KeyIdentity::new(text).unwrap();
        let evidence = Evidence { rehearsed: None, scans: vec![scan(now - 10, 0)] };
        let proves = |kind, text| evidence.proves(Subject::Key(kind, &identity(text)), 0, Some(now), now);
        assert_eq!(proves(ProviderKind::Vault, "transit/k@1"), Err(NoProof::Needed { objects: 9 }));
        assert_eq!(proves(ProviderKind::Vault, "transit/k@2"), Ok(()));
        assert_eq!(proves(ProviderKind::Aws, "transit/k@1"), Ok(()));
    }

    #[test]
    fn the_newest_scans_are_kept_and_a_clock_that_was_set_back_forgets_what_is_of_the_future() {
        let mut evidence = Evidence::default();
        (0..30).for_each(|at| evidence = evidence.with(scan(at, 1), at));
        assert_eq!((evidence.scans.len(), evidence.scans[0].at), (SCANS_MAX, 10));
        let evidence = evidence.with(scan(15, 0), 15);
        assert_eq!((evidence.scans.len(), evidence.scans.last().unwrap().at), (7, 15));
    }

    #[test]
    fn a_scan_that_ends_after_a_newer_one_does_not_hide_what_that_one_has_seen() {
        // A long scan with `--open all` has begun first; one with `--open none` has begun later, and is done before.
        let (older, newer) = (Scan { revision: 10, ..scan(1000, 0) }, Scan { revision: 20, ..scan(2000, 5) });
        let evidence = Evidence::default().with(newer, 2400).with(older, 2500);
        let proved = evidence.proves(Subject::Kek(&KEK), 1, Some(2500), 2500);
        assert!(matches!(proved, Err(NoProof::Needed { objects: 5 })), "{proved:?}");
    }

    #[test]
    fn the_time_that_is_shown_is_one_that_a_word_on_backups_may_name() {
        let now = 1_000_000;
        // The KEK was activated a moment before the first of them.
        let scans = vec![scan(now - 5000, 0), scan(now - 10, 0)];
        let evidence = Evidence { rehearsed: None, scans };
        let proves = |since| evidence.proves(Subject::Kek(&KEK), now - 5100, Some(since), now);
        assert_eq!(proves(now), Ok(()));
        // `keys show` has it, and the hint of the refusal says to take it from there.
        assert_eq!(proves(evidence.unneeded_since(&KEK, now - 5100).unwrap()), Ok(()));
    }

    #[test]
    fn however_long_scans_are_the_file_keeps_what_it_has_room_for() {
        let mut long = scan(1, 1);
        long.keks = vec![long.keks[0].clone(); ROWS_MAX];
        long.keys = vec![KeyUse { identity: "i".repeat(512), ..long.keys[0].clone() }; ROWS_MAX];
        assert!(long.is_fit() && Scan::decode(&long.encode()) == Ok(long.clone()));
        let mut evidence = Evidence::default();
        (0..5).for_each(|at| evidence = evidence.with(Scan { at, ..long.clone() }, at));
        assert_eq!((evidence.scans.len(), evidence.scans[0].at), (1, 4));
        let (cluster, root, key) = under();
        assert!(evidence.encode(&cluster, &root, &key).len() < crate::store::container::PAYLOAD_MAX_BYTES);
    }

    #[test]
    fn what_names_no_kek_and_no_key_is_not_fit() {
        assert!(scan(1, 1).is_fit());
        let mut bad = scan(1, 1);
        bad.keks[0].kek = "x".into();
        assert!(!bad.is_fit());
        let mut bad = scan(1, 1);
        bad.keys[0].kind = "nobody".into();
        assert!(!bad.is_fit());
        let mut long = scan(1, 1);
        long.keks = vec![long.keks[0].clone(); ROWS_MAX + 1];
        assert!(!long.is_fit());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let (cluster, root, key) = under();
            let _ = Evidence::decode(&bytes, &cluster, &root, &key);
            let _ = read_scan(&mut Reader::new(&bytes));
        }
    }
}
