//! Why a provider did not do what was asked.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::types::{Class, Explained, is_shown};

/// What kind of refusal, each with a remedy of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// No answer: name, connection, TLS handshake before the peer proved itself, time.
    Away,
    /// The provider says that it cannot now (5xx, sealed, standby).
    Down,
    /// Too many requests.
    Throttled,
    /// The login is refused or has ended.
    Login,
    /// What the login is made with cannot be opened on this node: nobody was asked.
    Credential,
    /// The login is good and may not do this.
    Forbidden,
    /// There is no such key, version or mount; or it is disabled.
    NoKey,
    /// The peer is not who the configuration says (certificate, CA).
    Peer,
    /// The configuration does not fit this provider (key type, region, address).
    Unfit,
    /// The text is not one of this key, or was changed.
    Text,
    /// The answer cannot be right: empty, of another key or version, or one that does not open again.
    Lied,
    /// Not the protocol that we speak.
    Protocol,
}

impl ErrorKind {
    /// Decides retry, health and codes.
    pub const fn class(self) -> Class {
        match self {
            Self::Away | Self::Down | Self::Credential => Class::Unavailable,
            Self::Throttled => Class::Throttled,
            Self::Login | Self::Forbidden => Class::Denied,
            Self::NoKey => Class::NotFound,
            Self::Peer | Self::Unfit => Class::Misconfigured,
            Self::Text => Class::Corrupt,
            Self::Lied | Self::Protocol => Class::Internal,
        }
    }

    /// One fixed sentence.
    pub const fn message(self) -> &'static str {
        match self {
            Self::Away => "the provider does not answer",
            Self::Down => "the provider cannot serve now",
            Self::Throttled => "the provider limits the requests of this node",
            Self::Login => "the provider refuses the login",
            Self::Credential => "the login cannot be made on this node",
            Self::Forbidden => "the login may not use this key",
            Self::NoKey => "the provider has no such key, or it is disabled",
            Self::Peer => "the provider did not prove that it is the configured one",
            Self::Unfit => "the key or the configuration does not fit",
            Self::Text => "the wrap is not one of this key, or was changed",
            Self::Lied => "the provider gave an impossible answer",
            Self::Protocol => "the provider's answer cannot be understood",
        }
    }

    /// What the operator does next.
    pub const fn hint(self) -> &'static str {
        match self {
            Self::Away => {
                "check network, name service, proxy and firewall between this node and the address; this is retried"
            }
            Self::Down => "check the provider's own health (Vault: sealed or standby?); this is retried",
            Self::Throttled => "raise the provider's limit or lower the load; this is retried, more slowly",
            Self::Login => "seal a fresh credential: `nodeseal credentials seal NAME`",
            Self::Credential => {
                "check that the keys are open (`nodeseal status`) and that the credential exists (`nodeseal credentials list`); this is retried"
            }
            Self::Forbidden => "give the login the rights that docs/providers/ lists, and no more",
            Self::NoKey => {
                "check mount, name and state of the key at the provider; never delete a key that has wrapped something"
            }
            Self::Peer => "check ca_file and the address; if both are right, someone may be intercepting: investigate",
            Self::Unfit => "compare the provider's table in nodeseal.toml with docs/providers/",
            Self::Text => {
                "another provider or the node's sealed copy may still open it; if the key was created again, restore the old one"
            }
            Self::Lied => "do not rely on this provider: compare its answers with its own tool, and report it",
            Self::Protocol => "check that the address is the provider's, and not a proxy's error page",
        }
    }
}

/// What may be shown of words that came in answer to a request with a key or its text in it: those that we know ourselves, and nothing
/// else. A server, or something before it, may repeat what it was sent, in more ways than can be looked for.
#[cfg(any(feature = "aws", feature = "vault", feature = "azure"))]
pub(super) fn known_words(words: &str, known: &[&'static str]) -> String {
    known.iter().copied().filter(|part| words.contains(part)).collect::<Vec<_>>().join(", ")
}

/// A refusal with what was seen. The detail never holds a credential, a key or a text.
#[derive(Debug)]
pub struct ProviderError {
    kind: ErrorKind,
    /// Figures for the operator: status, the provider's own code, the version.
    detail: String,
    source: Option<Box<dyn Error + Send + Sync>>,
    hint: Option<&'static str>,
    pause: Option<Duration>,
    not_before: Option<Instant>,
    is_of_login: bool,
    is_final: bool,
}

impl ProviderError {
    /// Bytes of a detail; a longer one is cut.
    pub const DETAIL_MAX_BYTES: usize = 512;

    /// Without a cause below it. What changes how the rest is shown is left out of the detail, which comes from the network.
    pub fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        let mut detail: String = detail.into().chars().filter(|c| is_shown(*c)).collect();
        detail.truncate(detail.floor_char_boundary(Self::DETAIL_MAX_BYTES));
        let (source, hint, pause, not_before) = (None, None, None, None);
        Self { kind, detail, source, hint, pause, not_before, is_of_login: false, is_final: false }
    }

    /// With the library's error as its cause, which must not show a secret.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// It kept a login from being made, whatever was asked for.
    #[must_use]
    pub const fn in_a_login(mut self) -> Self {
        self.is_of_login = true;
        self
    }

    /// See [`ProviderError::in_a_login`].
    pub const fn is_of_login(&self) -> bool {
        self.is_of_login
    }

    /// Nobody was asked: it was of this kind that the last call failed, and there is none before that moment.
    pub fn held_back(kind: ErrorKind, detail: impl Into<String>, not_before: Instant) -> Self {
        Self::new(kind, detail).until(not_before)
    }

    /// The same said once more, with nobody asked before that moment.
    #[must_use]
    pub const fn until(mut self, not_before: Instant) -> Self {
        self.not_before = Some(not_before);
        self
    }

    /// To ask again is of no use for as long as the same question lasts.
    #[must_use]
    pub const fn once(mut self) -> Self {
        self.is_final = true;
        self
    }

    /// See [`ProviderError::once`].
    pub const fn is_final(&self) -> bool {
        self.is_final
    }

    /// With a remedy that is better than that of its kind.
    #[must_use]
    pub const fn with_hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// The same for a refused login that has no better remedy yet: not each login is a sealed credential.
    #[must_use]
    pub fn with_login_hint(self, hint: &'static str) -> Self {
        if self.kind == ErrorKind::Login && self.hint.is_none() { self.with_hint(hint) } else { self }
    }

    /// With the provider's own word on when to come back, if it gave one.
    #[must_use]
    pub const fn after(mut self, pause: Option<Duration>) -> Self {
        self.pause = pause;
        self
    }

    /// The same once more, for each of those who waited for one attempt. The chain of causes becomes part of the detail.
    #[must_use]
    pub fn again(&self) -> Self {
        let mut detail = self.detail.clone();
        let mut cause = self.source();
        while let Some(current) = cause {
            detail = format!("{detail}: {current}");
            cause = current.source();
        }
        let (hint, pause, not_before, is_of_login) = (self.hint, self.pause, self.not_before, self.is_of_login);
        Self { hint, pause, not_before, is_of_login, is_final: self.is_final, ..Self::new(self.kind, detail) }
    }

    /// Which refusal.
    pub const fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// For how long the provider wants to be left alone.
    pub const fn pause(&self) -> Option<Duration> {
        self.pause
    }

    /// The provider was not asked, and is not before this moment.
    pub const fn not_before(&self) -> Option<Instant> {
        self.not_before
    }
}

impl Explained for ProviderError {
    fn class(&self) -> Class {
        self.kind.class()
    }

    fn hint(&self) -> &str {
        match self.hint {
            Some(hint) => hint,
            None => self.kind.hint(),
        }
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.message())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

impl Error for ProviderError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_from_the_network_is_cut_and_stays_on_one_line() {
        let error = ProviderError::new(ErrorKind::Down, format!("503\n\u{1b}[31m{}", "ü".repeat(4096)));
        let shown = error.to_string();
        assert!(shown.len() < 600 && !shown.contains('\n') && !shown.contains('\u{1b}'), "{shown}");
    }

    #[test]
    fn nothing_in_a_detail_turns_or_hides_what_is_shown_after_it() {
        let hidden = "\u{202E}\u{2066}\u{200B}\u{FEFF}\u{AD}\u{E0041}\u{2028}\u{2029}\u{85}";
        let error = ProviderError::new(ErrorKind::Down, format!("denied{hidden} Ünïcödé 例 👍"));
        assert!(error.to_string().contains("denied Ünïcödé 例 👍"), "{error:?}");
    }
}
