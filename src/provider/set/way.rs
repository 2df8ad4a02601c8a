//! What is known of a provider as a way to the key that it tells. What that means and how it is found out: [`super::ways`].

use tokio::time::Instant;

use super::health::{Health, Operation};
use super::specimen::Specimen;
use crate::provider::{ErrorKind, KeyIdentity, ProviderError, ProviderKind};
use crate::types::Explained;

pub(super) const TWIN: &str = "it reports the key of another provider, but does not open what that one has wrapped";
const REMEDY: &str = "two keys of one name may have been made within one second: make a key of another name for one of the two providers, and name it in its table; keep what was there until nothing stored needs it";

/// See the module.
#[derive(Default)]
pub(super) struct Way {
    pub(super) opened: Option<KeyIdentity>,
    /// It has refused its specimen once.
    pub(super) has_refused: bool,
    pub(super) twin: Option<Twin>,
    /// To be opened by the next probe.
    pub(super) specimen: Option<Specimen>,
}

#[derive(Clone, Copy)]
pub(super) struct Twin {
    pub(super) since: Instant,
    /// How it refuses.
    pub(super) refusal: ErrorKind,
}

impl Twin {
    /// It has the key under another name, as far as its words tell. One that may not open, or is not able to, has the key: what it cannot
    /// do is told, and takes nothing from what others do with the same key. Plugins often have no words but these (gRPC UNKNOWN).
    pub(super) fn has_another_key(self, kind: ProviderKind) -> bool {
        match self.refusal {
            ErrorKind::Text | ErrorKind::NoKey | ErrorKind::Lied => true,
            ErrorKind::Down | ErrorKind::Protocol => kind == ProviderKind::KmsPlugin,
            ErrorKind::Forbidden
            | ErrorKind::Unfit
            | ErrorKind::Away
            | ErrorKind::Throttled
            | ErrorKind::Login
            | ErrorKind::Credential
            | ErrorKind::Peer => false,
        }
    }

    /// Why it does not count.
    pub(super) fn error(self, kind: ProviderKind) -> ProviderError {
        if self.has_another_key(kind) {
            return ProviderError::new(ErrorKind::Unfit, TWIN).with_hint(REMEDY);
        }
        // What it lacks has its own remedy, which is tried before another key is made.
        let Self { refusal, .. } = self;
        ProviderError::new(ErrorKind::Unfit, format!("{TWIN}: {}", refusal.message())).with_hint(refusal.hint())
    }
}

impl Way {
    /// What was refused once is looked at again soon.
    pub(super) const fn is_doubted(&self) -> bool {
        self.has_refused
    }

    pub(super) fn is_to(&self, specimen: &Specimen) -> bool {
        self.opened.as_ref() == Some(&specimen.wrap.identity)
    }

    /// With what a twin cannot do.
    pub(super) fn health(&self, kind: ProviderKind, mut health: Health) -> Health {
        if let Some(twin) = self.twin {
            let (since, error) = (twin.since, twin.error(kind));
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
