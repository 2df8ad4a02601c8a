//! Counts what objects are encrypted with: by resource, transformer, provider, key_id and KEK, and what opens.
//!
//! Objects stream through and are forgotten. What is kept is bounded ([`GROUPS_MAX`], [`SEEDS_MAX`], [`COPIES_MAX`], [`AWAY_MAX`])
//! whatever lies in etcd: beyond a bound numbers of objects stay exact, and one group for all that is left says that it is not told
//! apart ([`Group::is_rest`]), or a number of seeds is a lower bound ([`Seeds::exact`]).

mod group;
mod seen;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use sha2::{Digest, Sha256};

use super::Stored;
use super::object::Encryption;
use super::question::{Question, Verdict};
use super::resource::resource;
use crate::envelope::{self, Api};
use crate::types::KekId;
use seen::Seen;

pub use group::{COPIES_MAX, CopyOf, Group, Kek, Means, Opens, Seeds};

/// Groups that are told apart. A cluster has some dozen resources, each under a few keys.
pub const GROUPS_MAX: usize = 4096;
/// Distinct seeds whose verdict is remembered. kube-apiserver makes one at each start and each new key_id; in v1 one an object.
pub const SEEDS_MAX: usize = 65_536;
/// KEKs whose provider is known to be away. A cluster has some dozen; beyond them each question waits again.
pub const AWAY_MAX: usize = 4096;

/// What is asked of nodeseald.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Nothing.
    Nothing,
    /// Each DEK or seed once.
    Seeds,
    /// Each object.
    All,
}

/// Who answers.
pub trait Opener {
    /// Why the scan cannot go on.
    type Error;

    /// One question.
    fn open(&mut self, question: &Question<'_>) -> Result<Verdict, Self::Error>;
}

/// Of a DEK or seed with its key_id and annotations. 128 bits: no two of 2^20 collide.
type SeedHash = [u8; 16];

/// Objects so far.
pub struct Count {
    prefix: String,
    ask: Ask,
    groups: Vec<Group>,
    /// From what makes a group one.
    by_key: HashMap<Vec<u8>, usize>,
    /// The group of what is beyond [`GROUPS_MAX`].
    rest: Option<usize>,
    scratch: Vec<u8>,
    verdicts: HashMap<SeedHash, Verdict>,
    /// Which groups have them: one seed of kube-apiserver is for all resources of its provider.
    seeds: HashSet<(usize, SeedHash)>,
    /// KEKs whose provider did not answer, by what the text brought along: the next one of them would wait as long again. A text that
    /// brings something else may be one that somebody has changed, and says nothing of the others.
    away: HashSet<(KekId, u64)>,
    hasher: RandomState,
    /// All.
    pub objects: u64,
    /// Of these, under a KMS plugin.
    pub under_kms: u64,
    /// Of these, such as cannot be read, or not by this release: nobody was asked about them.
    pub unread: u64,
}

/// A group that an object was counted in, and what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Its place in [`Count::groups`].
    pub group: usize,
    /// What came of asking.
    pub verdict: Verdict,
}

impl Count {
    /// `prefix` is kube-apiserver's `--etcd-prefix`, with a slash at its end.
    pub fn new(prefix: &str, ask: Ask) -> Self {
        Self {
            prefix: prefix.to_owned(),
            ask,
            groups: Vec::new(),
            by_key: HashMap::new(),
            rest: None,
            scratch: Vec::new(),
            verdicts: HashMap::new(),
            seeds: HashSet::new(),
            away: HashSet::new(),
            hasher: RandomState::new(),
            objects: 0,
            under_kms: 0,
            unread: 0,
        }
    }

    /// Forgets all objects, and keeps what is known of their seeds.
    pub fn begin_again(&mut self) {
        let verdicts = std::mem::take(&mut self.verdicts);
        let (away, hasher) = (std::mem::take(&mut self.away), self.hasher.clone());
        *self = Self { verdicts, away, hasher, ..Self::new(&self.prefix, self.ask) };
    }

    /// In the order in which they were met.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Takes one object.
    pub fn take<O: Opener>(&mut self, stored: Stored<'_>, opener: &mut O) -> Result<Counted, O::Error> {
        let resource = resource(stored.key, &self.prefix);
        let encryption = Encryption::of(stored.value);
        let seen = Seen::of(&encryption);
        let at = self.group(&resource, &seen);
        let hash = encryption_hash(&encryption);
        let verdict = match (hash, self.ask) {
            (None, _) | (_, Ask::Nothing) => Verdict::NotAsked,
            (Some(hash), ask) => match self.verdicts.get(&hash).copied() {
                // Under a seed that opens each object is a question of its own.
                Some(known) if ask == Ask::Seeds || known != Verdict::Opens => known,
                _ => self.asked(&encryption, stored.key, &seen, opener)?,
            },
        };
        let group = &mut self.groups[at];
        if let Some(hash) = hash {
            // That nobody was asked about one object says nothing of the next one.
            if self.verdicts.len() < SEEDS_MAX && verdict != Verdict::NotAsked {
                let of_seed = if verdict == Verdict::Moved { Verdict::Opens } else { verdict };
                self.verdicts.entry(hash).or_insert(of_seed);
            }
            if self.seeds.len() < SEEDS_MAX {
                group.seeds.count += u64::from(self.seeds.insert((at, hash)));
            } else if !self.seeds.contains(&(at, hash)) {
                group.seeds.exact = false;
            }
        }
        group.objects += 1;
        group.opens.note(verdict);
        seen.copies(group);
        self.objects += 1;
        self.under_kms += u64::from(hash.is_some());
        self.unread += u64::from(matches!(encryption, Encryption::Unknown | Encryption::Damaged(_)));
        Ok(Counted { group: at, verdict })
    }

    fn asked<O: Opener>(
        &mut self,
        encryption: &Encryption<'_>,
        key: &[u8],
        seen: &Seen<'_>,
        opener: &mut O,
    ) -> Result<Verdict, O::Error> {
        let Some(question) = Question::of(encryption, key, self.ask == Ask::All) else { return Ok(Verdict::NotAsked) };
        let id = match seen.kek {
            Kek::Local(id) => Some((id, self.beside(encryption))),
            Kek::None | Kek::Once | Kek::Unread => None,
        };
        if id.is_some_and(|id| self.away.contains(&id)) {
            return Ok(Verdict::ProviderAway);
        }
        let verdict = opener.open(&question)?;
        if let (Verdict::ProviderAway, Some(id)) = (verdict, id)
            && self.away.len() < AWAY_MAX
        {
            self.away.insert(id);
        }
        Ok(verdict)
    }

    /// Of what a text brings along.
    fn beside(&self, encryption: &Encryption<'_>) -> u64 {
        match encryption {
            Encryption::KmsV2(v2) => self.hasher.hash_one(&v2.annotations),
            Encryption::KmsV1(v1) => {
                let inside = envelope::inside_v1(v1.source);
                self.hasher.hash_one(inside.map(|(_, wraps)| wraps.iter().collect::<Vec<_>>()))
            }
            Encryption::Local { .. } | Encryption::Plain(_) | Encryption::Unknown | Encryption::Damaged(_) => 0,
        }
    }

    /// Distinct DEKs and seeds, at least: no more than [`SEEDS_MAX`] are told apart.
    pub fn seeds(&self) -> usize {
        self.verdicts.len()
    }

    /// The place of the group of such an object.
    fn group(&mut self, resource: &str, seen: &Seen<'_>) -> usize {
        self.scratch.clear();
        seen.key(resource, &mut self.scratch);
        if let Some(at) = self.by_key.get(&self.scratch) {
            return *at;
        }
        let at = self.groups.len();
        let group = if self.by_key.len() < GROUPS_MAX {
            self.by_key.insert(self.scratch.clone(), at);
            let text = |text: Option<&str>| text.map(str::to_owned);
            Group::new(resource, seen.means, text(seen.provider), text(seen.key_id), seen.kek)
        } else if let Some(rest) = self.rest {
            return rest;
        } else {
            self.rest = Some(at);
            Group::new("(more)", Means::Mixed, None, None, Kek::None)
        };
        self.groups.push(group);
        at
    }
}

/// Of DEK or seed, key_id and annotations.
fn encryption_hash(encryption: &Encryption<'_>) -> Option<SeedHash> {
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    match encryption {
        Encryption::KmsV2(v2) => {
            part(&[Api::V2 as u8]);
            part(v2.provider.as_bytes());
            part(v2.key_id.as_bytes());
            part(v2.source);
            for (name, value) in &v2.annotations {
                part(name.as_bytes());
                part(value);
            }
        }
        Encryption::KmsV1(v1) => {
            part(&[Api::V1 as u8]);
            part(v1.provider.as_bytes());
            part(v1.source);
        }
        Encryption::Local { .. } | Encryption::Plain(_) | Encryption::Unknown | Encryption::Damaged(_) => return None,
    }
    let mut short = SeedHash::default();
    short.copy_from_slice(&hash.finalize()[..size_of::<SeedHash>()]);
    Some(short)
}

#[cfg(test)]
mod tests;
