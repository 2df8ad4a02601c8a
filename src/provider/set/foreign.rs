//! Texts that Nodeseal has not made: handed as they are to the providers whose table says so, in the order of the configuration.
//!
//! No wrap and no key of ours is in it: what comes of it says nothing of what a provider does with ours, and a text that does not open is the
//! asker's. But who may open none of them, or does not answer, is not well until one opens: the text that met this is kept, and asked for
//! again by each probe.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use tokio::time::Instant;

use super::health::Operation;
use super::question::{self, Limits};
use super::{ATTEMPT, BUDGET, Member, NotOpened, Providers, Refusal};
use crate::provider::{PluginText, ProviderError};
use crate::types::Key;

impl Providers {
    /// Whether any of them is handed what Nodeseal has not made.
    pub fn open_foreign_texts(&self) -> bool {
        self.members.iter().any(Member::opens_foreign)
    }

    /// What a text holds that Nodeseal has not made.
    pub async fn open_foreign(&self, text: &PluginText) -> Result<Key, NotOpened> {
        let end = Instant::now() + BUDGET;
        let limits = Limits { attempt: ATTEMPT, is_hedged: false, asks_again: true, end };
        let members: Vec<&Member> = self.members.iter().filter(|member| member.opens_foreign()).collect();
        let start = |place: usize| members[place].open_foreign_text(text, end);
        question::ask(&members, limits, start, |_, key| Ok(key)).await.map_err(|said| {
            let refusal = |(place, error): (usize, _)| Refusal::of(members[place], error);
            NotOpened { refusals: said.into_iter().map(refusal).collect() }
        })
    }
}

impl Member {
    /// Whether it is handed what Nodeseal has not made.
    pub fn opens_foreign(&self) -> bool {
        self.kek().opens_foreign()
    }

    pub(super) async fn open_foreign_text(&self, text: &PluginText, end: Instant) -> Result<Key, ProviderError> {
        let digest = Some(digest(text));
        self.known().asks_for_foreign(text);
        let opened = self.call(Operation::Foreign, digest, end, self.kek().open_foreign(text)).await;
        match &opened {
            Ok(_) => self.went_well(Operation::Foreign, |_| {}),
            Err(error) => {
                self.settle_doubt(None, end.min(Instant::now() + ATTEMPT)).await;
                self.note_failure(Operation::Foreign, digest, error);
                self.tell_if_well(|known| known.troubles.refused_foreign(error));
            }
        }
        opened.map_err(|error| self.once_in_doubt(error))
    }
}

/// Tells texts apart, for as long as the process runs.
fn digest(text: &PluginText) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}
