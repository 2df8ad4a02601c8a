//! Whether a provider is a way to the key that it tells.
//!
//! What a server tells of its key can be true of two: Vault tells the birth of a key to the second, and one tool makes the keys of two
//! clusters within one. So a provider counts as another way to a key once it has opened something that this key has made through
//! somebody else, to what was wrapped: a [`Specimen`]. One that refuses it twice is a *twin*: a standby that is behind may refuse a version
//! that is new once. It is told, has no key for anybody who counts keys, and makes no wrap in the other one's name. While it cannot be
//! asked, what it tells is believed.
//!
//! A refusal counts in whichever words it comes, since plugins have no common ones for a text that is not theirs. But what is said of the
//! text itself apart, it counts only while somebody else has opened the same specimen, which may have become useless to all ways; and
//! what may be said of anything (that it cannot serve now) only of one that has told its key a moment before.

use tokio::time::Instant;

use super::way::{TWIN, Twin};
use super::{ANOTHER_KEY, ATTEMPT, Member, Specimen};
use crate::audit::{Event, emit};
use crate::provider::{ErrorKind, ProviderError};
use crate::types::Explained;

impl Member {
    /// It tells a key that it does not have.
    pub fn is_twin(&self) -> bool {
        self.known().way.twin.is_some_and(|twin| twin.has_another_key(self.kind()))
    }

    /// Why it does not count, if it does not.
    pub(super) fn as_twin(&self) -> Option<ProviderError> {
        self.known().way.twin.map(|twin| twin.error(self.kind()))
    }

    /// Whether it has told its key since this was last asked: one sight counts once.
    pub fn take_news(&self) -> bool {
        std::mem::take(&mut self.known().has_news)
    }

    /// The last wrap that it has opened.
    pub fn specimen(&self) -> Option<Specimen> {
        let opened = self.known().opened.clone();
        opened.map(|opened| Specimen::opened(opened.wrap, opened.of, opened.key))
    }

    /// To be opened by the next probe, unless it has opened something of this key and this is known to be in order: if not, it tells that
    /// for the other ways.
    pub fn show(&self, specimen: Specimen) {
        let mut known = self.known();
        if !known.way.is_to(&specimen) || !specimen.has_opened() {
            known.way.specimen = Some(specimen);
        }
    }

    /// Opens it, if it is of the key that this provider tells and nothing of that was opened for this before. What is not answered decides
    /// nothing, and is tried again by the next probe.
    pub async fn open_specimen(&self, specimen: &Specimen, end: Instant) -> Result<(), ProviderError> {
        if self.known().way.is_to(specimen) { Ok(()) } else { self.try_to_open(specimen, end, false).await }
    }

    /// What it was shown and has not opened, just after it has told its key.
    pub(super) async fn try_specimen(&self) {
        let specimen = self.known().way.specimen.clone();
        if let Some(specimen) = specimen {
            // What came of it is noted there.
            let _ = self.try_to_open(&specimen, Instant::now() + ATTEMPT, true).await;
        }
    }

    async fn try_to_open(&self, specimen: &Specimen, end: Instant, has_just_told: bool) -> Result<(), ProviderError> {
        let Specimen { wrap, of, .. } = specimen;
        if self.own_identity().as_ref() != Some(&wrap.identity) || self.kind() != wrap.kind {
            return Ok(());
        }
        let (error, counts) = match self.opens(wrap, of, Some(wrap.digest()), end).await {
            Ok(key) if specimen.is_of(&key) => {
                specimen.opens();
                self.is_a_way(specimen);
                return Ok(());
            }
            Ok(_) => (ProviderError::new(ErrorKind::Lied, ANOTHER_KEY), Some(ErrorKind::Lied)),
            Err(error) => {
                let counts = is_refusal(&error, specimen, has_just_told).then_some(error.kind());
                (error, counts)
            }
        };
        match counts {
            Some(refusal) => Err(self.has_refused(specimen, refusal).because(error)),
            None => {
                self.known().way.specimen = Some(specimen.clone());
                Err(error)
            }
        }
    }

    /// What it is by now, as an error.
    fn has_refused(&self, specimen: &Specimen, refusal: ErrorKind) -> ProviderError {
        let now = Twin { since: Instant::now(), refusal };
        let error = now.error(self.kind());
        let is_news = {
            let mut known = self.known();
            if known.way.is_to(specimen) && refusal != ErrorKind::Lied {
                // Of a way that has proved itself this says that the specimen is of no use.
                known.way.specimen = None;
                return error;
            }
            (known.way.opened, known.way.specimen) = (None, Some(specimen.clone()));
            let is_again = std::mem::replace(&mut known.way.has_refused, true);
            let kind = self.kind();
            match &mut known.way.twin {
                // What it lacks is said last; that it has another key, once, until it opens.
                Some(twin) => {
                    let next = Twin { refusal, ..*twin };
                    let is_news = next.has_another_key(kind) && !twin.has_another_key(kind);
                    if is_news || !twin.has_another_key(kind) {
                        *twin = next;
                    }
                    is_news
                }
                None => {
                    known.way.twin = is_again.then_some(now);
                    is_again
                }
            }
        };
        if is_news {
            let (provider, class) = (self.name(), error.class());
            emit(&Event::ProviderFailed { provider, class, error: TWIN, hint: error.hint() });
        }
        error
    }

    fn is_a_way(&self, specimen: &Specimen) {
        let was_twin = {
            let mut known = self.known();
            known.way.opened = Some(specimen.wrap.identity.clone());
            (known.way.specimen, known.way.has_refused) = (None, false);
            known.way.twin.take().is_some()
        };
        if was_twin {
            emit(&Event::ProviderRecovered { provider: self.name() });
        }
    }
}

/// Whether this says that it does not have the key. See the module.
fn is_refusal(error: &ProviderError, specimen: &Specimen, has_just_told: bool) -> bool {
    if error.not_before().is_some() || error.is_of_login() {
        return false;
    }
    match error.kind() {
        ErrorKind::Text => true,
        ErrorKind::NoKey | ErrorKind::Forbidden | ErrorKind::Unfit => specimen.has_opened(),
        ErrorKind::Down | ErrorKind::Lied | ErrorKind::Protocol => specimen.has_opened() && has_just_told,
        ErrorKind::Away | ErrorKind::Throttled | ErrorKind::Login | ErrorKind::Credential | ErrorKind::Peer => false,
    }
}
