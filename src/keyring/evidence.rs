//! What was seen of etcd, and when: the file `evidence` (docs/formats.md, "Evidence"), authenticated under the node root.
//!
//! It says which KEKs and which versions of providers' keys something stored still needs, so that a KEK is destroyed on what was
//! seen and not on a hope. What was seen by a scan that cannot speak for all of etcd counts against a destruction, and never for one. A file
//! that is lost costs a scan. Pure, and total over any bytes.
//!
//! ```text
//! algorithm u8 (1 = HMAC-SHA256) | root id | cluster: u16 length, bytes | rehearsed u64 (0 = never) |
//! scans: u8 count, the oldest first, each
//!   at u64 | revision u64 | objects u64 | foreign u64 | reach u8 | KEKs: u16 count, each id and objects u64 |
//!   keys: u16 count, each kind u8, identity and version with a u16 length each, objects u64
//! | MAC, 32 bytes
//! ```

use crate::keyring::mac::{HMAC_SHA256, MAC_BYTES, mac};
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

/// For what a scan of a running etcd speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// Every object of the cluster: what it has not counted is not there.
    Whole = 1,
    /// A part of etcd, or one etcd of several: what it has counted is there.
    Part = 2,
    /// All of it, with objects of which it is not known which key they need.
    Unclear = 3,
}

impl Reach {
    fn from_number(number: u8) -> Option<Self> {
        [Self::Whole, Self::Part, Self::Unclear].into_iter().find(|reach| *reach as u8 == number)
    }
}

/// What a scan of a running etcd has counted.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Scan {
    /// When it began, in seconds since 1970.
    pub at: UnixSeconds,
    /// Of etcd.
    pub revision: u64,
    /// All objects.
    pub objects: u64,
    /// Objects of a KMS provider that are not in Nodeseal's format: another plugin has made them.
    pub foreign: u64,
    /// For what it speaks.
    pub reach: Reach,
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
        w.u64(self.at).u64(self.revision).u64(self.objects).u64(self.foreign).u8(self.reach as u8);
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
            Subject::Foreign => self.foreign,
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
    /// Whoever opens what Nodeseal has not made.
    Foreign,
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
    /// A later scan has seen objects that may need any key.
    #[error("a scan of etcd since then has seen objects of which it is not known which key they need")]
    Unclear,
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
        let is_without =
            |scan: &&Scan| scan.at >= settled && scan.reach != Reach::Unclear && scan.objects_of(subject) == 0;
        let without = self.scans.iter().rev().take_while(is_without);
        without.filter(|scan| scan.reach == Reach::Whole).last().map(|scan| scan.at)
    }

    /// The last one that speaks for all of etcd.
    pub fn last_whole(&self) -> Option<&Scan> {
        self.scans.iter().rfind(|scan| scan.reach == Reach::Whole)
    }

    /// The last one that speaks for all of etcd, and what was seen of a part since: there may be more.
    fn since_whole(&self) -> impl Iterator<Item = &Scan> {
        let begin = self.scans.iter().rposition(|scan| scan.reach == Reach::Whole).unwrap_or(0);
        self.scans.iter().skip(begin)
    }

    /// Objects that are known to be under this KEK: by the last scan of all, or by one of a part since then. `None` before the first.
    pub fn objects_under(&self, kek: &KekId) -> Option<u64> {
        let seen = self.since_whole().map(|scan| scan.objects_under(kek)).max()?;
        Some(seen).filter(|objects| *objects > 0 || self.last_whole().is_some())
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
        let objects = self.since_whole().map(|scan| scan.objects_of(subject)).max().ok_or(NoProof::Never)?;
        if objects > 0 {
            return Err(NoProof::Needed { objects });
        }
        let last = self.last_whole().ok_or(NoProof::Never)?;
        if self.since_whole().any(|scan| scan.reach == Reach::Unclear) {
            return Err(NoProof::Unclear);
        }
        let seconds = now.saturating_sub(last.at);
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
    let foreign = r.u64("foreign")?;
    let reach = Reach::from_number(r.u8("reach")?).ok_or(WireError::BadValue("reach"))?;
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
    Ok(Scan { at, revision, objects, foreign, reach, keks, keys })
}

fn head(cluster: &ClusterId, root: &RootId) -> Writer {
    let mut w = Writer::new();
    w.u8(HMAC_SHA256).raw(root.as_bytes()).bytes16(cluster.as_str().as_bytes());
    w
}

#[cfg(test)]
mod tests;
