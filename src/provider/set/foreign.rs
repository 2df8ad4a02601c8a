//! Texts that Nodeseal has not made: handed as they are to the providers whose table says so, in the order of the configuration.
//!
//! What comes of it says nothing of a provider but by its circuit: no wrap and no key of ours is in it, so nothing of it is remembered, and a
//! text that does not open is the asker's.

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
        let start = |place: usize| members[place].open_foreign(text, end);
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

    async fn open_foreign(&self, text: &PluginText, end: Instant) -> Result<Key, ProviderError> {
        let opened = self.call(Operation::Unwrap, Some(digest(text)), end, self.kek().open_foreign(text)).await;
        if opened.is_err() {
            self.settle_doubt(None, end.min(Instant::now() + ATTEMPT)).await;
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
