//! No reload leaves something stored without a provider that opens it, unless the operator says so.
//!
//! Of a KEK of this node the copies that every text carries tell which keys open it. Of what is stored besides nobody here knows the
//! copies: texts of mode "direct", and those of other nodes. So a key is not let go that may be the only one that opens such a text:
//!
//! | what | is kept |
//! |---|---|
//! | a KEK that has copies | one of the keys that made them |
//! | the key_id that is reported | one of the keys that it names |
//! | mode "direct" until now | each key: one text may have a wrap by each of them, and the next by this one alone |
//! | a local KEK for all | a key of which no KEK here has a copy, unless one that may have had it was destroyed: others have used it |

use std::collections::HashSet;

use super::Keeper;
use crate::keyring::epoch::Reported;
use crate::keyring::error::KeeperError;
use crate::keyring::ring::KekState;
use crate::keyring::rooted::Rooted;
use crate::provider::set::Member;
use crate::provider::{KeyIdentity, ProviderKind};
use crate::store::Disk;

/// A key, and a provider that is a way to it.
type Way<'r> = (&'r Member, KeyIdentity);

impl<D: Disk + Clone> Keeper<'_, D> {
    /// Whether `next` opens what the present providers do.
    pub(super) fn check_openers(&self, next: Option<&Rooted>) -> Result<(), KeeperError> {
        let Some(before) = self.keyring.rooted() else { return Ok(()) };
        let had = self.ways(&before);
        let stay: HashSet<(ProviderKind, KeyIdentity)> = next
            .map_or_else(Vec::new, |next| self.ways(next))
            .into_iter()
            .map(|(way, key)| (way.kind(), key))
            .collect();
        let has = |kind, key: &KeyIdentity| stay.iter().any(|stay| (stay.0, &stay.1) == (kind, key));
        let leaving: Vec<&Way<'_>> = had.iter().filter(|(way, key)| !has(way.kind(), key)).collect();
        let leaves = |kind, key: &KeyIdentity| leaving.iter().any(|(way, left)| (way.kind(), left) == (kind, key));
        for (entry, state) in self.ring().entries() {
            let Some(set) = self.keys.wraps(&entry.id).filter(|_| state != KekState::Destroyed) else { continue };
            let copies = set.of_every_text();
            let is_left = copies.iter().any(|copy| leaves(copy.kind, &copy.identity));
            if is_left && !copies.iter().any(|copy| has(copy.kind, &copy.identity)) {
                return Err(KeeperError::LastOpener { kek: entry.id });
            }
        }
        let may_be_alone = |(way, key): &&&Way<'_>| match before.rules.local_kek {
            false => true,
            true => self.is_last_of_key_id(way.kind(), key, has) || !self.has_wrapped_here(way.kind(), key),
        };
        match leaving.iter().find(may_be_alone) {
            Some((way, key)) => {
                Err(KeeperError::OnlyWay { provider: way.name().to_owned(), key: key.as_str().to_owned() })
            }
            None => Ok(()),
        }
    }

    /// Which keys these providers open. What one has told goes before what was known of its name.
    fn ways<'r>(&self, rooted: &'r Rooted) -> Vec<Way<'r>> {
        let members = rooted.providers.members().iter();
        members.filter_map(|member| Some((member, member.identity().or_else(|| self.key_of(member))?))).collect()
    }

    /// Whether the key_id names this key, and none that stays.
    fn is_last_of_key_id(
        &self,
        kind: ProviderKind,
        key: &KeyIdentity,
        stays: impl Fn(ProviderKind, &KeyIdentity) -> bool,
    ) -> bool {
        let Reported::Epoch(epoch) = &self.state().roots.reported else { return false };
        epoch.parts.iter().any(|part| (part.kind, &part.identity) == (kind, key))
            && !epoch.parts.iter().any(|part| stays(part.kind, &part.identity))
    }

    /// Whether this key has a copy of a KEK of ours, or may have had one that was destroyed.
    fn has_wrapped_here(&self, kind: ProviderKind, key: &KeyIdentity) -> bool {
        self.ring().entries().any(|(entry, state)| {
            state == KekState::Destroyed || self.keys.wraps(&entry.id).is_some_and(|set| set.has(kind, key))
        })
    }
}
