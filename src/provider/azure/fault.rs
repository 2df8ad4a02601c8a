//! What a refusal of Azure means to us.
//!
//! Codes of Key Vault: <https://learn.microsoft.com/azure/key-vault/general/rest-error-codes>, with `innererror` as the service gives it; those of Entra ID:
//! <https://learn.microsoft.com/entra/identity-platform/reference-error-codes>. Nothing of the SDK's errors is kept: they hold whole answers.

use std::error::Error;
use std::time::Duration;

use serde::Deserialize;

use super::super::error::known_words;
use super::super::http::Reply;
use super::super::session::OF_CLOCK;
use super::super::{ErrorKind, ProviderError};

const OF_NETWORK: &str = "give this node's network access to the vault: a private endpoint, or a rule of its firewall";

/// Before the number of an error of Entra ID or Key Vault, with which its sentence begins, and the digits that it has at most.
const NUMBERED: [&str; 2] = ["AADSTS", "AKV"];
const DIGITS_MAX: usize = 8;

/// What the sentences of Key Vault, of Entra ID and of the metadata service have in common that helps whoever reads them.
const KNOWN_WORDS: [&str; 29] = [
    "Caller is not authorized",
    "does not have keys wrapKey permission",
    "does not have keys unwrapKey permission",
    "Public network access is disabled",
    "Client address is not authorized",
    "disabled key",
    "expired key",
    "not yet valid",
    "not permitted on this key",
    "are incompatible",
    "A key with (name/id)",
    "currently in a deleted state",
    "currently being deleted",
    "Request was not processed because too many requests were received",
    "Invalid client secret",
    "not the client secret ID",
    "client secret keys are expired",
    "Client assertion is not within its valid time range",
    "Client assertion contains an invalid signature",
    "The certificate with identifier used to sign the client assertion is not registered",
    "No matching federated identity record found",
    "was not found in the directory",
    "not found. Check to make sure you have the correct tenant ID",
    "The client assertion failed signature validation",
    "is disabled",
    "has been blocked by Conditional Access policies",
    "The issuer of the token is not trusted",
    "Identity not found",
    "Multiple user assigned identities exist",
];

/// An answer that is a refusal.
#[derive(Clone, Debug)]
pub(super) struct Said {
    status: u16,
    code: String,
    inner: String,
    /// In whole, to tell what is meant. Only those that are known are shown: each request has a login or a key with it.
    words: String,
    /// It is in the form that Azure's errors have.
    is_azure: bool,
    /// That it is a redirect, and where to.
    redirect: Option<String>,
    /// How long it wants to be left alone.
    pause: Option<Duration>,
}

/// `{"error": {"code", "message", "innererror": {"code"}}}` of Key Vault, or `{"error", "error_description"}` of Entra ID.
#[derive(Deserialize)]
struct Form {
    error: Code,
    #[serde(default)]
    error_description: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Code {
    Vault {
        code: String,
        #[serde(default)]
        message: String,
        #[serde(default, alias = "innerError")]
        innererror: Option<Inner>,
    },
    Entra(String),
}

#[derive(Deserialize)]
struct Inner {
    #[serde(default)]
    code: String,
}

impl Said {
    pub(super) fn read(reply: &Reply) -> Self {
        let status = reply.status.as_u16();
        let form: Option<Form> = serde_json::from_slice(&reply.body).ok();
        let is_azure = form.is_some();
        let (code, inner, words) = match form {
            Some(Form { error: Code::Vault { code, message, innererror }, .. }) => {
                (code, innererror.map(|inner| inner.code).unwrap_or_default(), message)
            }
            Some(Form { error: Code::Entra(code), error_description }) => (code, String::new(), error_description),
            None => Default::default(),
        };
        let (redirect, pause) = (reply.redirect(), reply.retry_after());
        Self { status, code: name(code), inner: name(inner), words, is_azure, redirect, pause }
    }

    fn detail(&self, what: &str) -> String {
        let Self { status, code, inner, .. } = self;
        if let Some(redirect) = &self.redirect {
            return format!("{what}: {status}, {redirect}");
        }
        let (number, words) = (number(&self.words), known_words(&self.words, &KNOWN_WORDS));
        let mut all = format!("{what}: {status}");
        for part in [code.as_str(), inner, number, &words] {
            if !part.is_empty() {
                all = format!("{all} {part}");
            }
        }
        all
    }

    /// What every request has in common.
    fn kind(&self) -> Option<ErrorKind> {
        Some(match self.status {
            429 => ErrorKind::Throttled,
            // A redirect is never followed: the next host would get the login. 408 and 5xx pass.
            300..=399 | 408 | 500..=599 => ErrorKind::Down,
            _ if !self.is_azure => ErrorKind::Protocol,
            401 => ErrorKind::Login,
            _ => return None,
        })
    }

    /// In the use of a key, or in a look at it.
    fn in_use(&self, what: &str) -> ProviderError {
        let kind = self.kind().unwrap_or_else(|| match self.status {
            403 => self.forbidden(),
            // A conflict is a key that is being deleted or recovered.
            404 | 409 => ErrorKind::NoKey,
            400 if what == UNWRAP && !self.words.contains("incompatible") => ErrorKind::Text,
            400 | 405 => ErrorKind::Unfit,
            _ => ErrorKind::Protocol,
        });
        let error = ProviderError::new(kind, self.detail(what)).after(self.pause);
        if kind == ErrorKind::Forbidden && self.is_of_network() { error.with_hint(OF_NETWORK) } else { error }
    }

    /// By the service's own reason, and by its words only where it gives none. A key that is disabled, expired or not yet valid is forbidden to
    /// everybody.
    fn forbidden(&self) -> ErrorKind {
        let of_key = ["Disabled", "Expired", "NotYetValid"];
        let words = ["disabled key", "key is disabled", "expired key", "key is expired", "not yet valid"];
        match self.inner.as_str() {
            "KeyOperationForbidden" => ErrorKind::Unfit,
            inner if inner.starts_with("ForbiddenBy") => ErrorKind::Forbidden,
            inner if of_key.into_iter().any(|part| inner.contains(part)) => ErrorKind::NoKey,
            "" if words.into_iter().any(|part| self.words.contains(part)) => ErrorKind::NoKey,
            _ => ErrorKind::Forbidden,
        }
    }

    fn is_of_network(&self) -> bool {
        matches!(self.inner.as_str(), "ForbiddenByConnection" | "ForbiddenByFirewall")
    }

    /// In a login: whatever is wrong with it needs another credential or another setting of the login.
    fn in_login(&self, what: &str) -> ProviderError {
        let error = ProviderError::new(self.kind().unwrap_or(ErrorKind::Login), self.detail(what)).after(self.pause);
        // "Client assertion is not within its valid time range."
        if self.words.contains("AADSTS700024") { error.with_login_hint(OF_CLOCK) } else { error }
    }
}

/// The number with which a sentence begins, such as AADSTS7000215.
fn number(words: &str) -> &str {
    let Some(name) = NUMBERED.into_iter().find(|name| words.starts_with(name)) else { return "" };
    let digits = words.bytes().skip(name.len()).take_while(u8::is_ascii_digit).count();
    let fits = (1..=DIGITS_MAX).contains(&digits);
    words.get(..name.len() + digits).filter(|_| fits).unwrap_or_default()
}

/// A name of Azure's own, and not just any text of the peer's: it has no digit, and so no key looks like it.
fn name(text: String) -> String {
    let fits = text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    if fits { text } else { String::new() }
}

/// The operation whose 400 speaks of the text.
pub(super) const UNWRAP: &str = "unwrapKey";

/// Why a request of the SDK came to nothing, as [`super::wire`] saw it.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stopped {
    #[error("there was no answer")]
    Failed(ProviderError),
    #[error("there was a refusal")]
    Refused(Said),
    #[error("the login was refused")]
    LoginRefused(Said),
}

/// A failed call.
#[derive(Debug)]
pub(super) enum Failed {
    /// Another login may do better.
    Login(ProviderError),
    Finally(ProviderError),
}

impl From<ProviderError> for Failed {
    fn from(error: ProviderError) -> Self {
        Self::Finally(error)
    }
}

impl Failed {
    pub(super) fn into_error(self) -> ProviderError {
        let (Self::Login(error) | Self::Finally(error)) = self;
        error
    }
}

/// A failed use of the key, or a look at it.
pub(super) fn in_use(what: &str, error: &azure_core::Error) -> Failed {
    match stopped(error) {
        Some(Stopped::Failed(error)) => Failed::Finally(error.again()),
        Some(Stopped::Refused(said)) => Failed::Finally(said.in_use(what)),
        Some(Stopped::LoginRefused(said)) => Failed::Login(said.in_use(what)),
        None => Failed::Finally(unread(what, error)),
    }
}

/// A failed login.
pub(super) fn in_login(what: &str, error: &azure_core::Error) -> ProviderError {
    match stopped(error) {
        Some(Stopped::Failed(error)) => error.again(),
        Some(Stopped::Refused(said) | Stopped::LoginRefused(said)) => said.in_login(what),
        None => unread(what, error),
    }
}

/// For a login that the SDK has no part in.
pub(super) fn login_refused(what: &str, reply: &Reply) -> ProviderError {
    Said::read(reply).in_login(what)
}

/// Ours, below what the SDK has put around it.
fn stopped(error: &azure_core::Error) -> Option<&Stopped> {
    let mut next: Option<&(dyn Error + 'static)> = error.source();
    while let Some(current) = next {
        if let Some(found) = current.downcast_ref() {
            return Some(found);
        }
        next = current.source();
    }
    None
}

/// The SDK's own: an answer that it could not read, or a challenge that it does not take. Its words may show the answer.
fn unread(what: &str, error: &azure_core::Error) -> ProviderError {
    ProviderError::new(ErrorKind::Protocol, format!("{what}: the SDK says {} of the answer", error.kind()))
}

#[cfg(test)]
mod tests {
    use ::http::{HeaderMap, StatusCode};
    use serde_json::{Value, json};
    use zeroize::Zeroizing;

    use super::*;
    use crate::types::Explained;

    fn said(status: u16, body: &Value) -> Said {
        let body = Zeroizing::new(body.to_string().into_bytes());
        let status = StatusCode::from_u16(status).unwrap();
        Said::read(&Reply { status, location: None, challenge: None, json: true, headers: HeaderMap::new(), body })
    }

    fn vault(code: &str, words: &str, inner: &str) -> Value {
        json!({ "error": { "code": code, "message": words, "innererror": { "code": inner } } })
    }

    const NETWORK: &str = "Public network access is disabled and request is not from a trusted service.";

    #[test]
    fn a_vault_that_this_network_may_not_reach_is_no_fault_of_the_key() {
        let error = said(403, &vault("Forbidden", NETWORK, "ForbiddenByConnection")).in_use(UNWRAP);
        assert_eq!((error.kind(), error.hint()), (ErrorKind::Forbidden, OF_NETWORK));
    }

    #[test]
    fn each_refusal_has_its_kind() {
        let html = json!("<html>");
        for (status, body, what, kind) in [
            (400, vault("BadParameter", "The parameter is incorrect.", ""), UNWRAP, ErrorKind::Text),
            (
                400,
                vault("BadParameter", "Key and encryption algorithm are incompatible.", ""),
                UNWRAP,
                ErrorKind::Unfit,
            ),
            (400, vault("BadParameter", "x", ""), "wrapKey", ErrorKind::Unfit),
            (401, vault("Unauthorized", "AKV10022", ""), "getKey", ErrorKind::Login),
            (403, vault("Forbidden", "Caller is not authorized", "ForbiddenByRbac"), "getKey", ErrorKind::Forbidden),
            (403, vault("Forbidden", "not allowed on a disabled key.", "KeyDisabled"), UNWRAP, ErrorKind::NoKey),
            (403, vault("Forbidden", "not allowed on an expired key.", ""), "wrapKey", ErrorKind::NoKey),
            (403, vault("Forbidden", "not permitted on this key.", "KeyOperationForbidden"), UNWRAP, ErrorKind::Unfit),
            (403, vault("Forbidden", NETWORK, "ForbiddenByConnection"), "getKey", ErrorKind::Forbidden),
            (403, vault("Forbidden", NETWORK, ""), UNWRAP, ErrorKind::Forbidden),
            (403, html.clone(), "getKey", ErrorKind::Protocol),
            (404, vault("KeyNotFound", "x", ""), "getKey", ErrorKind::NoKey),
            (404, html.clone(), "getKey", ErrorKind::Protocol),
            (409, vault("Conflict", "x", "ObjectIsBeingDeleted"), "getKey", ErrorKind::NoKey),
            (429, vault("Throttled", "x", ""), "getKey", ErrorKind::Throttled),
            (503, html, "getKey", ErrorKind::Down),
        ] {
            assert_eq!(said(status, &body).in_use(what).kind(), kind, "{status} {body} {what}");
        }
    }

    #[test]
    fn of_an_answer_to_a_key_only_words_that_are_known_are_shown_however_it_is_repeated() {
        for part in ["3 133 196 7", "AbCd%2BEfGh%2Fij%3D", "QkFTRTY0", "01:ab:ff"] {
            for body in [vault("Forbidden", &format!("{part} on a disabled key"), ""), vault(part, part, part)] {
                for what in ["wrapKey", UNWRAP] {
                    let error = said(403, &body).in_use(what);
                    let shown = format!("{error} {error:?}");
                    assert!(!shown.contains(part), "{shown}");
                }
            }
        }
        let body = vault("Forbidden", "Operation is not allowed on a disabled key: 7", "KeyDisabled");
        assert!(said(403, &body).in_use(UNWRAP).to_string().ends_with("403 Forbidden KeyDisabled disabled key)"));
    }

    #[test]
    fn a_login_is_refused_in_words_of_entra_that_are_known_and_in_no_other() {
        let of = |status, words: &str| {
            said(status, &json!({ "error": "invalid_client", "error_description": words })).in_login("login")
        };
        let error = of(401, "AADSTS7000215: Invalid client secret provided. Trace ID: 1\r\nx");
        assert_eq!(error.kind(), ErrorKind::Login);
        assert!(error.to_string().ends_with("401 invalid_client AADSTS7000215 Invalid client secret)"), "{error}");
        // As it was sent, cut off, in capitals, and split by what stands between its parts.
        let secret = "canary~secret.of.an.application";
        for part in [secret, &secret[..20], &secret.to_ascii_uppercase(), &secret.replace('.', "%2E")] {
            for words in [format!("You sent {part}"), format!("AADSTS7000215{part}"), format!("AADSTS{part}")] {
                let error = of(400, &words);
                assert!(!format!("{error} {error:?}").contains(part), "{error}");
            }
        }
        assert_eq!(of(500, "x").kind(), ErrorKind::Down);
    }
}
