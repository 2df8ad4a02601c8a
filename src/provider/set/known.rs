//! What is known of one provider: what it said, how it is, and what is to be tried again. Behind one lock, which is held for moments.

use std::time::Duration;

use tokio::time::Instant;

use super::WrapContext;
use super::health::{Operation, Troubles};
use super::pace::Pace;
use super::specimen::Fingerprint;
use super::watched::UnderWay;
use super::way::Way;
use crate::provider::breaker::Breaker;
use crate::provider::{ErrorKind, KeyIdentity, KeyState, PluginText, Wrapped};
use crate::types::{Class, Key};

/// For so long a wrap that opened stands for those that open after it.
const OPENED_KEPT: Duration = Duration::from_secs(60);

/// Probes that are left out at most while other calls succeed.
const PROBES_LEFT_OUT: u32 = 5;

/// The right to open is known before it is needed.
#[derive(Clone)]
pub(super) struct Opened {
    pub(super) wrap: Wrapped,
    pub(super) of: WrapContext,
    /// To which it has opened.
    pub(super) key: Fingerprint,
    pub(super) at: Instant,
}

#[derive(Default)]
pub(super) struct Known {
    pub(super) breaker: Breaker,
    /// Of the last failure: what those are told who are held back because of it.
    pub(super) held_back_by: Option<ErrorKind>,
    pub(super) identity: Option<KeyIdentity>,
    /// As it told it last.
    pub(super) state: Option<KeyState>,
    pub(super) pace: Pace,
    /// When it last did what was asked, and when it last told its key's version.
    pub(super) answered: Option<Instant>,
    pub(super) told: Option<Instant>,
    pub(super) troubles: Troubles,
    /// What did not go well last, to be tried again.
    pub(super) unwrapped: Option<(Wrapped, WrapContext)>,
    /// The last wrap that opened, and to what was wrapped.
    pub(super) opened: Option<Opened>,
    pub(super) wrapped: Option<(WrapContext, Duration)>,
    /// The text of another plugin that it was asked for last before that failed.
    pub(super) foreign: Option<PluginText>,
    pub(super) under_way: UnderWay,
    /// When it was last asked for that one because it said of another text that its key is not there.
    pub(super) doubted: Option<Instant>,
    /// Whether it is a way to the key that it tells.
    pub(super) way: Way,
    /// It has told its key since that was last observed.
    pub(super) has_news: bool,
}

impl Known {
    /// It has told its key.
    pub(super) fn told_to_be(&mut self, state: KeyState) {
        if self.state.as_ref().is_some_and(|before| before.identity != state.identity) {
            self.way = Way::default();
        }
        self.has_news = true;
        self.identity = Some(state.identity.clone());
        self.state = Some(state);
        self.told = Some(Instant::now());
    }

    /// As this wrap shows it.
    pub(super) fn tell(&mut self, wrapped: &Wrapped) {
        let is_known = |state: &KeyState| state.version == wrapped.version && wrapped.identity == state.identity;
        if self.state.as_ref().is_some_and(is_known) {
            self.told = Some(Instant::now());
            self.has_news = true;
        } else {
            self.told_to_be(wrapped.key_state());
        }
    }

    /// This wrap opened to the key that it holds. The one before it proves as much for a while.
    pub(super) fn open(&mut self, wrapped: &Wrapped, of: &WrapContext, key: &Key) {
        let at = Instant::now();
        if self.opened.as_ref().is_none_or(|opened| at - opened.at >= OPENED_KEPT) {
            let key = Fingerprint::of(key);
            self.opened = Some(Opened { wrap: wrapped.clone(), of: of.clone(), key, at });
        }
    }

    /// Made under the key and version that it told last.
    pub(super) fn is_of_told(&self, wrapped: &Wrapped) -> bool {
        self.state
            .as_ref()
            .is_some_and(|state| (&state.identity, &state.version) == (&wrapped.identity, &wrapped.version))
    }

    /// Whether it is time to see if it opens nothing at all any more: not each text that it does not have the key of asks twice.
    pub(super) fn is_to_be_doubted(&mut self, wrapped: &Wrapped) -> bool {
        let is_known = self.opened.as_ref().is_some_and(|opened| self.is_of_told(&opened.wrap));
        let is_due = self.doubted.is_none_or(|at| at.elapsed() >= OPENED_KEPT);
        let is_doubt = is_known && is_due && self.is_of_told(wrapped);
        if is_doubt {
            self.doubted = Some(Instant::now());
        }
        is_doubt
    }

    /// The one that is kept has opened once more, if it is this one and this is its key.
    pub(super) fn opens_again(&mut self, wrapped: &Wrapped, key: &Key) {
        if let Some(opened) = self.opened.as_mut().filter(|opened| opened.wrap == *wrapped && opened.key.is_of(key)) {
            opened.at = Instant::now();
        }
    }

    /// This one is to be tried again if it comes to no answer, unless another one is.
    pub(super) fn asks_to_open(&mut self, wrapped: &Wrapped, of: &WrapContext) {
        if !self.troubles.is_of(Operation::Unwrap) {
            self.unwrapped = Some((wrapped.clone(), of.clone()));
        }
    }

    /// The same of a text of another plugin.
    pub(super) fn asks_for_foreign(&mut self, text: &PluginText) {
        if !self.troubles.is_of(Operation::Foreign) {
            self.foreign = Some(text.clone());
        }
    }

    /// This one is to be tried again; and is not kept, if it never will open again: that is no loss of a right.
    pub(super) fn does_not_open(&mut self, wrapped: &Wrapped, of: &WrapContext, class: Class) {
        let is_gone = class == Class::Corrupt || (class == Class::NotFound && !self.is_of_told(wrapped));
        self.opened.take_if(|opened| is_gone && opened.wrap == *wrapped);
        self.unwrapped = Some((wrapped.clone(), of.clone()));
    }

    /// See [`super::Member::is_probe_due`].
    pub(super) fn is_probe_due(&self, every: Duration) -> bool {
        let since = |at: Option<Instant>| at.map_or(Duration::MAX, |at| at.elapsed());
        let (told, answered) = (since(self.told), since(self.answered));
        let is_due = told >= every && (answered >= every || told >= every * PROBES_LEFT_OUT);
        is_due || self.troubles.are_any() || self.way.is_doubted()
    }
}
