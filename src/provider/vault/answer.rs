//! What Vault answers, and what a refusal of it means.

use std::time::Duration;

use ::http::header::{HeaderName, HeaderValue};
use ::http::{Method, StatusCode};
use bytes::Bytes;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::super::error::known_words;
use super::super::http::{Ask, Body, Client, Reply};
use super::super::{ErrorKind, ProviderError};
use super::names::MountPath;
use crate::types::Secret;

/// The call whose refusals may be about the text.
pub(super) const DECRYPT: &str = "decrypt";
/// Words of Vault's (sdk/helper/keysutil) that are about a text and not about a key or a request.
const OF_TEXT: [&str; 6] = [
    "message authentication failed",
    "invalid ciphertext",
    "failed to RSA decrypt",
    "decryption error",
    "to decrypt ciphertext",
    "could not decode",
];
/// Those about a key that is not there, or not in that version.
const OF_KEY: [&str; 5] = ["key not found", "no such key version", "too old", "requested version", "soft deleted"];
/// Those about a login, of the methods and of tokens (builtin/credential and vault/request_handling.go of Vault; its plugins jwt and kubernetes).
const OF_LOGIN: [&str; 50] = [
    "invalid role or secret ID",
    "missing role_id",
    "missing secret_id",
    "unauthorized through CIDR restrictions",
    "unauthorized by CIDR restrictions",
    "source address",
    "invalid role name",
    "missing role",
    "could not be found",
    "missing token",
    "missing jwt",
    "error configuring token validator",
    "error validating token",
    "error verifying token",
    "error validating claims",
    "token is expired",
    "invalid audience (aud) claim",
    "aud claim does not match any bound audience",
    "no audiences bound to the role",
    "invalid issuer (iss) claim",
    "invalid subject (sub) claim",
    "invalid expiration time (exp) claim",
    "invalid not before (nbf) claim",
    "does not match any associated bound claim values",
    "no known key successfully validated the token signature",
    "not found in token",
    "could not load configuration",
    "could not load backend configuration",
    "service account name not authorized",
    "namespace not authorized",
    "namespace lookup failed",
    "lookup failed",
    "service account unauthorized",
    "service account jwt not valid",
    "service account jwt valid for audience",
    "client certificate must be supplied",
    "no client certificate found",
    "no certificate was matched by this request",
    "certificate mismatch of a trusted leaf certificate",
    "failed to verify client's certificate",
    "failed to match all constraints",
    "tls connection required",
    "client identity during renewal not matching",
    "policies have changed, not renewing",
    "does not exist during renewal",
    "token not found",
    "lease is not renewable",
    "lease expired",
    "wrapping token is not valid or does not exist",
    "token is not a valid unwrap token",
];
/// Those about any request.
const OF_REQUEST: [&str; 17] = [
    "permission denied",
    "invalid token",
    "bad token",
    "missing client token",
    "Vault is sealed",
    "Vault is not initialized",
    "active cluster node not found",
    "rate limit quota exceeded",
    "lease count quota exceeded",
    "no handler for route",
    "route entry not found",
    "namespace not found",
    "unsupported path",
    "unsupported operation",
    "no value found at",
    "internal error",
    "missing ciphertext",
];

/// A token, as it was granted.
pub(super) struct Token(Secret);

impl Token {
    /// Refuses what cannot stand in a header.
    pub(super) fn new(text: &[u8]) -> Result<Self, ProviderError> {
        if text.is_empty() || !text.iter().all(u8::is_ascii_graphic) {
            return Err(ProviderError::new(ErrorKind::Login, "the token is empty or not printable"));
        }
        Ok(Self(Secret::copy_of(text)))
    }

    fn header(&self) -> Result<HeaderValue, ProviderError> {
        let bytes = Bytes::from_owner(Zeroizing::new(self.0.expose().to_vec()));
        let mut value = HeaderValue::from_maybe_shared(bytes)
            .map_err(|_| ProviderError::new(ErrorKind::Login, "the token is not printable"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// An answer that is a refusal.
pub(super) struct Said {
    status: StatusCode,
    /// In whole, to tell what is meant. Only those that are known are shown: each request has a credential or a key with it.
    words: String,
    json: bool,
    /// That it is a redirect, and where to.
    redirect: Option<String>,
    /// How long it wants to be left alone.
    pause: Option<Duration>,
}

/// Why a call gave nothing.
pub(super) enum Failed {
    /// There was no answer, or none that can be understood.
    Unanswered(ProviderError),
    /// Vault, or something before it, said no.
    Refused(Said),
}

impl From<ProviderError> for Failed {
    fn from(error: ProviderError) -> Self {
        Self::Unanswered(error)
    }
}

impl Said {
    pub(super) fn is_forbidden(&self) -> bool {
        self.status == StatusCode::FORBIDDEN && self.json
    }

    /// The token itself is no more, whatever it may have been allowed.
    pub(super) fn token_is_gone(&self) -> bool {
        self.is_forbidden() && (self.words.contains("invalid token") || self.words.contains("bad token"))
    }

    /// Said by one that is limited, sealed, behind or a standby, before it looks at what it is asked.
    pub(super) fn looked_at_nothing(&self) -> bool {
        matches!(self.status.as_u16(), 300..=399 | 412 | 429 | 472 | 473 | 503)
    }

    fn detail(&self, what: &str) -> String {
        let status = self.status.as_u16();
        let words = known_words(&self.words, &[&OF_TEXT[..], &OF_KEY, &OF_LOGIN, &OF_REQUEST].concat());
        match &self.redirect {
            Some(redirect) => format!("{what}: {status}, {redirect}"),
            None if words.is_empty() => format!("{what}: {status}"),
            None => format!("{what}: {status}, {words}"),
        }
    }

    /// What every path has in common.
    fn kind(&self) -> Option<ErrorKind> {
        Some(match self.status.as_u16() {
            // A standby that cannot forward answers 307; following would carry the token to another host.
            300..=399 => ErrorKind::Down,
            429 => ErrorKind::Throttled,
            // 412: a standby that is behind; 472 and 473: kinds of standby; the rest: sealed, or a proxy without its server.
            412 | 472 | 473 | 500..=599 => ErrorKind::Down,
            _ if !self.json => ErrorKind::Protocol,
            _ => return None,
        })
    }

    /// In the use of a key, or in a look at it.
    pub(super) fn in_use(self, what: &str) -> ProviderError {
        let has = |words: &[&str]| words.iter().any(|part| self.words.contains(part));
        let is_of_text = || what == DECRYPT && has(&OF_TEXT);
        let kind = match self.status.as_u16() {
            // RSA keys, and AES in older releases: a text that does not open is told as an error of the server's own.
            500 if self.json && is_of_text() => ErrorKind::Text,
            status => self.kind().unwrap_or_else(|| match status {
                403 if self.token_is_gone() => ErrorKind::Login,
                403 => ErrorKind::Forbidden,
                404 => ErrorKind::NoKey,
                400 if has(&OF_KEY) => ErrorKind::NoKey,
                400 if is_of_text() => ErrorKind::Text,
                400 | 405 => ErrorKind::Unfit,
                _ => ErrorKind::Protocol,
            }),
        };
        ProviderError::new(kind, self.detail(what)).after(self.pause)
    }

    /// In a login: whatever is wrong with it needs another credential or another setting of the login.
    pub(super) fn in_login(self, what: &str) -> ProviderError {
        ProviderError::new(self.kind().unwrap_or(ErrorKind::Login), self.detail(what)).after(self.pause)
    }
}

/// Vault's API at one address, in one namespace.
pub(super) struct Api {
    client: Client,
    namespace: Option<HeaderValue>,
}

impl Api {
    pub(super) fn new(client: Client, namespace: Option<&MountPath>) -> Result<Self, ProviderError> {
        let header = |name: &MountPath| HeaderValue::from_str(name.as_str());
        let namespace = namespace.map(header).transpose();
        let namespace =
            namespace.map_err(|error| ProviderError::new(ErrorKind::Unfit, "the namespace").because(error))?;
        Ok(Self { client, namespace })
    }

    /// GET without fields, POST with them. Answers the body of a 200 or 204.
    pub(super) async fn call(
        &self,
        path: &str,
        token: Option<&Token>,
        fields: Option<&[(&str, &str)]>,
    ) -> Result<Zeroizing<Vec<u8>>, Failed> {
        let mut headers = vec![(HeaderName::from_static("x-vault-request"), HeaderValue::from_static("true"))];
        if let Some(namespace) = &self.namespace {
            headers.push((HeaderName::from_static("x-vault-namespace"), namespace.clone()));
        }
        if let Some(token) = token {
            headers.push((HeaderName::from_static("x-vault-token"), token.header()?));
        }
        let method = if fields.is_some() { Method::POST } else { Method::GET };
        let body = fields.map(Body::json);
        let reply = self.client.ask(Ask { method, path: &format!("/v1/{path}"), headers: &headers, body }).await?;
        if matches!(reply.status.as_u16(), 200 | 204) {
            return Ok(reply.body);
        }
        Err(Failed::Refused(said(&reply)))
    }
}

fn said(reply: &Reply) -> Said {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<String>,
    }
    let errors = serde_json::from_slice::<Errors>(&reply.body).ok();
    let json = errors.is_some() && reply.json;
    let words = errors.map(|errors| errors.errors.join("; ")).unwrap_or_default();
    Said { status: reply.status, words, json, redirect: reply.redirect(), pause: reply.retry_after() }
}

/// The wrapper around `data` that most answers have.
#[derive(Deserialize)]
struct Data<T> {
    data: T,
}

/// Reads an answer. The reader's own words are left out, because they may show a value.
pub(super) fn read<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, ProviderError> {
    serde_json::from_slice(body).map_err(|error| {
        let place = format!("{what}: not the expected JSON from column {} of line {}", error.column(), error.line());
        ProviderError::new(ErrorKind::Protocol, place)
    })
}

/// As [`read`], of what stands under `data`.
pub(super) fn read_data<'a, T: Deserialize<'a>>(body: &'a [u8], what: &str) -> Result<T, ProviderError> {
    read::<Data<T>>(body, what).map(|answer| answer.data)
}

#[cfg(test)]
mod tests {
    use ::http::HeaderMap;

    use super::*;

    fn refusal(status: u16, body: &str) -> Said {
        let body = Zeroizing::new(body.as_bytes().to_vec());
        let json = body.starts_with(b"{");
        let status = StatusCode::from_u16(status).unwrap();
        let reply = Reply { status, location: None, challenge: None, json, headers: HeaderMap::new(), body };
        said(&reply)
    }

    fn errors(words: &str) -> String {
        serde_json::json!({ "errors": [words] }).to_string()
    }

    #[test]
    fn words_of_a_text_count_where_a_text_was_opened_and_nowhere_else() {
        for (status, what, kind) in [
            (400, DECRYPT, ErrorKind::Text),
            (500, DECRYPT, ErrorKind::Text),
            (400, "encrypt", ErrorKind::Unfit),
            (500, "encrypt", ErrorKind::Down),
        ] {
            let said = refusal(status, &errors("cipher: message authentication failed"));
            assert_eq!(said.in_use(what).kind(), kind, "{status} {what}");
        }
        let missing = refusal(400, &errors("missing ciphertext to decrypt"));
        assert_eq!(missing.in_use(DECRYPT).kind(), ErrorKind::Unfit);
    }

    #[test]
    fn each_refusal_has_its_kind() {
        let html = "<html>Bad gateway</html>".to_owned();
        for (status, body, in_use, in_login) in [
            (400, errors("cipher: message authentication failed"), ErrorKind::Text, ErrorKind::Login),
            (400, errors("invalid ciphertext: no prefix"), ErrorKind::Text, ErrorKind::Login),
            (400, errors("encryption key not found"), ErrorKind::NoKey, ErrorKind::Login),
            (
                400,
                errors("ciphertext or signature version is disallowed by policy (too old)"),
                ErrorKind::NoKey,
                ErrorKind::Login,
            ),
            (400, errors("derivation"), ErrorKind::Unfit, ErrorKind::Login),
            (403, errors("permission denied"), ErrorKind::Forbidden, ErrorKind::Login),
            (
                403,
                errors("2 errors occurred:\n\t* permission denied\n\t* invalid token\n\n"),
                ErrorKind::Login,
                ErrorKind::Login,
            ),
            (403, html.clone(), ErrorKind::Protocol, ErrorKind::Protocol),
            (404, errors(""), ErrorKind::NoKey, ErrorKind::Login),
            (404, html.clone(), ErrorKind::Protocol, ErrorKind::Protocol),
            (412, errors(""), ErrorKind::Down, ErrorKind::Down),
            (429, errors("quota"), ErrorKind::Throttled, ErrorKind::Throttled),
            (473, errors(""), ErrorKind::Down, ErrorKind::Down),
            (502, html, ErrorKind::Down, ErrorKind::Down),
            (
                500,
                errors("1 error occurred:\n\t* failed to RSA decrypt the ciphertext: crypto/rsa"),
                ErrorKind::Text,
                ErrorKind::Down,
            ),
            (500, errors("internal error"), ErrorKind::Down, ErrorKind::Down),
            (503, errors("Vault is sealed"), ErrorKind::Down, ErrorKind::Down),
            (307, String::new(), ErrorKind::Down, ErrorKind::Down),
        ] {
            assert_eq!(refusal(status, &body).in_use(DECRYPT).kind(), in_use, "{status} {body}");
            assert_eq!(refusal(status, &body).in_login("x").kind(), in_login, "{status} {body}");
        }
    }

    #[test]
    fn of_an_answer_to_a_key_only_words_that_are_known_are_shown_however_it_is_repeated() {
        // As Go writes bytes, base64 with its signs escaped, and cut off in its middle.
        for part in ["3 133 196 7", "AbCd%2BEfGh%2Fij%3D", "QkFTRTY0", "01:ab:ff"] {
            for what in ["encrypt", DECRYPT] {
                let shown = refusal(400, &errors(&format!("encryption key not found for {part}"))).in_use(what);
                let shown = format!("{shown} {shown:?}");
                assert!(!shown.contains(part) && shown.contains("400, key not found"), "{shown}");
            }
        }
        let read = refusal(404, &errors("no handler for route \"x/keys/y\"")).in_use("read key");
        assert!(read.to_string().contains("404, no handler for route"), "{read}");
    }

    #[test]
    fn a_refused_login_is_told_in_the_words_that_are_known_and_in_no_other() {
        let shown = refusal(403, &errors("bad hvs.CANARY here")).in_login("login").to_string();
        assert!(!shown.contains("CANARY") && shown.contains("login: 403"), "{shown}");
        let known = refusal(400, &errors("invalid role or secret ID")).in_login("login").to_string();
        assert!(known.contains("login: 400, invalid role or secret ID"), "{known}");
    }

    #[test]
    fn what_cannot_be_read_is_not_shown() {
        #[derive(Deserialize)]
        struct Number {
            #[serde(rename = "n")]
            _n: u64,
        }
        let error = read_data::<Number>(br#"{"data":{"n":"CANARY"}}"#, "login").err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(!error.to_string().contains("CANARY"));
    }

    #[test]
    fn a_redirect_in_answer_to_a_key_shows_nothing_that_may_be_the_key() {
        for location in
            ["https://vault.test?plaintext=CANARY", "?plaintext=CANARY", "https://CANARY@vault.test/", "CANARY"]
        {
            let body = Zeroizing::new(Vec::new());
            let location = super::super::super::http::host_of(location);
            let status = StatusCode::TEMPORARY_REDIRECT;
            let reply = Reply { status, location, challenge: None, json: false, headers: HeaderMap::new(), body };
            let error = said(&reply).in_use("encrypt");
            assert!(!format!("{error} {error:?}").contains("CANARY"), "{error}");
        }
    }

    #[test]
    fn words_in_answer_to_a_login_show_no_part_of_what_was_sent_however_it_is_repeated() {
        let secret = "6a4b7a1f-9c2e-4d0b-8f3a-1e5d7c9b2a40";
        // Cut off, in capitals, and split by what stands between its groups.
        for part in [&secret[..34], &secret.to_ascii_uppercase(), &secret.replace('-', "%2D")] {
            let body = Zeroizing::new(errors(&format!("blocked by a rule: secret_id {part}")).into_bytes());
            let status = StatusCode::FORBIDDEN;
            let reply = Reply { status, location: None, challenge: None, json: true, headers: HeaderMap::new(), body };
            let error = said(&reply).in_login("auth/approle/login");
            assert!(!error.to_string().contains(part), "{error}");
        }
    }
}
