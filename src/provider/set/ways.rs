//! Whether a provider is a way to the key that it tells.
//!
//! What a server tells of its key can be true of two: Vault tells the birth of a key to the second, and one tool makes the keys of two
//! clusters within one. So a provider counts as another way to a key once it has opened something that this key has made through
//! somebody else: a specimen. One that refuses it twice is a *twin*: a standby that is behind may refuse a version that is new once. It is told, has no key for anybody who counts keys, and makes no wrap in the
//! other one's name. While it cannot be asked, what it tells is believed.

use tokio::time::Instant;

use super::health::{Health, Operation};
use super::{ATTEMPT, Member, Owned};
use crate::audit::{Event, emit};
use crate::provider::{ErrorKind, KeyIdentity, ProviderError, Wrapped};
use crate::types::Explained;

const TWIN: &str = "it reports the key of another provider, but does not open what that one has wrapped";
const REMEDY: &str = "two keys of one name may have been made within one second: make a key of another name for one of the two providers, and name it in its table; keep what was there until nothing stored needs it";

/// Something that a key has made, and what it belongs to.
#[derive(Clone, Debug)]
pub struct Specimen {
    /// By the key.
    pub wrap: Wrapped,
    /// What it is bound to.
    pub of: Owned,
}

/// What is known of this.
#[derive(Default)]
pub(super) struct Way {
    opened: Option<KeyIdentity>,
    /// It has refused its specimen once.
    has_refused: bool,
    twin_since: Option<Instant>,
    /// To be opened by the next probe.
    specimen: Option<Specimen>,
}

impl Way {
    pub(super) const fn is_twin(&self) -> bool {
        self.twin_since.is_some()
    }

    /// What was refused once is looked at again soon.
    pub(super) const fn is_doubted(&self) -> bool {
        self.has_refused
    }

    /// With what a twin cannot do.
    pub(super) fn health(&self, mut health: Health) -> Health {
        if let Some(since) = self.twin_since {
            let error = twin();
            health.failure.get_or_insert((error.class(), error.to_string()));
            health.failing_for = health.failing_for.max(Some(since.elapsed()));
            health.wraps_fail_for = health.wraps_fail_for.max(Some(since.elapsed()));
            if !health.failing.contains(&Operation::Unwrap) {
                health.failing.push(Operation::Unwrap);
            }
        }
        health
    }
}

/// Why it does not count.
pub(super) fn twin() -> ProviderError {
    ProviderError::new(ErrorKind::Unfit, TWIN).with_hint(REMEDY)
}

impl Member {
    /// It tells a key that it does not have.
    pub fn is_twin(&self) -> bool {
        self.known().way.is_twin()
    }

    /// Whether it has told its key since this was last asked: one sight counts once.
    pub fn take_news(&self) -> bool {
        std::mem::take(&mut self.known().has_news)
    }

    /// The last wrap that it has opened.
    pub fn specimen(&self) -> Option<Specimen> {
        self.known().opened.as_ref().map(|(wrap, of, _)| Specimen { wrap: wrap.clone(), of: of.clone() })
    }

    /// To be opened by the next probe.
    pub fn show(&self, specimen: Specimen) {
        let mut known = self.known();
        if known.way.opened.as_ref() != Some(&specimen.wrap.identity) {
            known.way.specimen = Some(specimen);
        }
    }

    /// Opens it, if it is of the key that this provider tells and nothing of that was opened for this before. What is not answered decides
    /// nothing, and is tried again by the next probe.
    pub async fn open_specimen(&self, specimen: &Specimen, end: Instant) -> Result<(), ProviderError> {
        let Specimen { wrap, of } = specimen;
        let is_its_key = self.own_identity().as_ref() == Some(&wrap.identity) && self.kind() == wrap.kind;
        if !is_its_key || self.known().way.opened.as_ref() == Some(&wrap.identity) {
            return Ok(());
        }
        match self.opened(wrap, of, end).await {
            Ok(_) => {
                let was_twin = {
                    let mut known = self.known();
                    known.way.opened = Some(wrap.identity.clone());
                    (known.way.specimen, known.way.has_refused) = (None, false);
                    known.way.twin_since.take().is_some()
                };
                if was_twin {
                    emit(&Event::ProviderRecovered { provider: self.name() });
                }
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Text => {
                let is_news = {
                    let mut known = self.known();
                    known.way.specimen = Some(specimen.clone());
                    let is_again = std::mem::replace(&mut known.way.has_refused, true);
                    let is_news = is_again && known.way.twin_since.is_none();
                    if is_news {
                        known.way.twin_since = Some(Instant::now());
                    }
                    is_news
                };
                let error = twin().because(error);
                if is_news {
                    let (provider, class) = (self.name(), error.class());
                    emit(&Event::ProviderFailed { provider, class, error: TWIN, hint: error.hint() });
                }
                Err(error)
            }
            Err(error) => {
                self.show(specimen.clone());
                Err(error)
            }
        }
    }

    /// What it was shown and has not opened.
    pub(super) async fn try_specimen(&self) {
        let specimen = self.known().way.specimen.clone();
        if let Some(specimen) = specimen {
            // What came of it is noted there.
            let _ = self.open_specimen(&specimen, Instant::now() + ATTEMPT).await;
        }
    }
}
