//! How a provider is, told for each [`Operation`]: what a probe proves (it is there, and so is the key) says nothing of the right to wrap.
//!
//! A failure of one stays until the same goes well again, and every probe tries what has failed once more, with a key of no use or the
//! very wrap that did not open. So a provider that nobody asks any more is found to be well as soon as it is, and not before.

use std::time::Duration;

use tokio::time::Instant;

use super::BUDGET;
use crate::provider::{ErrorKind, ProviderError};
use crate::types::{Chain, Class};

/// What a provider is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To say who we are, before any of the others.
    Login,
    /// To tell its key.
    Probe,
    /// To wrap a key and to prove it.
    Wrap,
    /// To open a wrap.
    Unwrap,
    /// To open a text of another plugin. To the operator it is an unwrap like the others; but neither tells of the right to the other.
    Foreign,
}

impl Operation {
    const ALL: [Self; 5] = [Self::Login, Self::Probe, Self::Wrap, Self::Unwrap, Self::Foreign];

    /// For the operator.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Login => "login",
            Self::Probe => "probe",
            Self::Wrap => "wrap",
            Self::Unwrap | Self::Foreign => "unwrap",
        }
    }

    pub(super) const fn opens(self) -> bool {
        matches!(self, Self::Unwrap | Self::Foreign)
    }

    /// As which it is told.
    const fn shown(self) -> Self {
        match self {
            Self::Foreign => Self::Unwrap,
            Self::Login | Self::Probe | Self::Wrap | Self::Unwrap => self,
        }
    }
}

/// How a provider is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Since the last answer that did what was asked.
    pub answered: Option<Duration>,
    /// What it said last of the operation that has failed for longest; `None` when all that it was asked last went well, or was a
    /// refusal that says nothing of its health.
    pub failure: Option<(Class, String)>,
    /// For how long that has failed.
    pub failing_for: Option<Duration>,
    /// For how long it could not have wrapped a new text or KEK.
    pub wraps_fail_for: Option<Duration>,
    /// Operations that fail.
    pub failing: Vec<Operation>,
    /// Calls are held back.
    pub is_open: bool,
}

/// An operation that fails.
struct Trouble {
    kind: ErrorKind,
    text: String,
    since: Instant,
    is_told: bool,
}

impl Trouble {
    /// A provider that limits us for a moment is well, and so is one that waits for our own keys to be open.
    fn counts(&self) -> bool {
        !matches!(self.kind, ErrorKind::Throttled | ErrorKind::Credential) || self.since.elapsed() > BUDGET
    }
}

/// All operations that fail.
#[derive(Default)]
pub(super) struct Troubles([Option<Trouble>; Operation::ALL.len()]);

impl Troubles {
    pub(super) fn are_any(&self) -> bool {
        self.0.iter().any(Option::is_some)
    }

    pub(super) const fn is_of(&self, operation: Operation) -> bool {
        self.0[operation as usize].is_some()
    }

    /// But for what only the member knows.
    pub(super) fn health(&self) -> Health {
        let trouble = |operation: Operation| self.0[operation as usize].as_ref().filter(|trouble| trouble.counts());
        let longest = Operation::ALL.into_iter().filter_map(trouble).min_by_key(|trouble| trouble.since);
        let failing = Operation::ALL.into_iter().filter(|operation| trouble(*operation).is_some());
        let mut failing: Vec<Operation> = failing.map(Operation::shown).collect();
        failing.dedup();
        // Who cannot log in or does not tell its key wraps nothing either.
        let wraps = [Operation::Login, Operation::Probe, Operation::Wrap].into_iter().filter_map(trouble);
        Health {
            failure: longest.map(|trouble| (trouble.kind.class(), trouble.text.clone())),
            failing_for: longest.map(|trouble| trouble.since.elapsed()),
            wraps_fail_for: wraps.map(|trouble| trouble.since.elapsed()).max(),
            failing,
            ..Health::default()
        }
    }

    /// Whether all is well again, after something was told.
    pub(super) fn went_well(&mut self, operation: Operation) -> bool {
        let was_told = self.0.iter().flatten().any(|trouble| trouble.is_told);
        self.0[operation as usize] = None;
        self.0[Operation::Login as usize] = None;
        // Whoever answers is there, whatever it says of its key.
        self.0[Operation::Probe as usize].take_if(|trouble| trouble.kind.class().is_retried());
        was_told && !self.are_any()
    }

    /// It has looked at a text of another plugin and refuses that one. Whether all is well again, after something was told: who does so
    /// is there, and may do it if the text is all that it objects to.
    pub(super) fn refused_foreign(&mut self, error: &ProviderError) -> bool {
        if error.not_before().is_some() || error.is_of_login() {
            return false;
        }
        let (is_of_text, is_answer) = match error.kind() {
            ErrorKind::Text | ErrorKind::NoKey => (true, true),
            ErrorKind::Down | ErrorKind::Lied | ErrorKind::Protocol => (false, true),
            ErrorKind::Away
            | ErrorKind::Throttled
            | ErrorKind::Login
            | ErrorKind::Credential
            | ErrorKind::Forbidden
            | ErrorKind::Peer
            | ErrorKind::Unfit => (false, false),
        };
        let was_told = self.0.iter().flatten().any(|trouble| trouble.is_told);
        let is_over = |trouble: &mut Trouble| is_of_text || is_answer && trouble.kind.class().is_retried();
        self.0[Operation::Foreign as usize].take_if(is_over).is_some() && was_told && !self.are_any()
    }

    /// It is not asked for that any more. Whether all is well now, after something was told.
    pub(super) fn forget(&mut self, operation: Operation) -> bool {
        let was_told = self.0.iter().flatten().any(|trouble| trouble.is_told);
        self.0[operation as usize].take().is_some() && was_told && !self.are_any()
    }

    /// What is to be told of it now, if anything. `is_of_text`: it says nothing of the provider.
    pub(super) fn went_wrong(
        &mut self,
        operation: Operation,
        error: &ProviderError,
        is_of_text: bool,
    ) -> Option<String> {
        let kind = error.kind();
        // Also of a login whose answer was lost: what was asked for came to no question.
        let operation = match kind {
            ErrorKind::Login | ErrorKind::Credential => Operation::Login,
            _ if error.is_of_login() => Operation::Login,
            _ => operation,
        };
        if operation != Operation::Login
            && !matches!(
                kind,
                ErrorKind::Login | ErrorKind::Credential | ErrorKind::Away | ErrorKind::Down | ErrorKind::Throttled
            )
        {
            // Who says so has taken the login.
            self.0[Operation::Login as usize] = None;
        }
        if is_of_text {
            return None;
        }
        let is_known = self.0.iter().flatten().any(|trouble| trouble.is_told && trouble.kind == kind);
        let before = self.0[operation as usize].take();
        let since = before.as_ref().map_or_else(Instant::now, |before| before.since);
        // One that was told once is told again when it turns out to lie, and a login when it fails for another reason: an answer that was lost
        // has another remedy than a credential that is spent.
        let is_another = kind == ErrorKind::Lied || operation == Operation::Login;
        let was_told = before.is_some_and(|before| before.is_told && (before.kind == kind || !is_another));
        let mut trouble = Trouble { kind, text: Chain(error).to_string(), since, is_told: was_told };
        let is_news = !was_told && trouble.counts();
        trouble.is_told |= is_news;
        let text = (is_news && !is_known).then(|| trouble.text.clone());
        self.0[operation as usize] = Some(trouble);
        text
    }
}
