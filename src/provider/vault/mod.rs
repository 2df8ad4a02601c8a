//! HashiCorp Vault and OpenBao: a key of the transit secrets engine.
//!
//! The identity of a key is `<namespace>/<mount>/<key>@<when version 1 was made>`. Vault has no id for a key; the time of its first
//! version is what a key that was deleted and made again under the same name does not share. Its version is Vault's number.
//!
//! Each wrap names the version that it wants, and the answer's text and number must both agree. An answer of Vault does not say
//! which key made it, so the key is read again after each wrap: the same identity before and after is that of the text.

mod answer;
mod fetched;
mod key;
mod login;
mod names;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64ct::{Base64, Encoding};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::session::{Refusal, Session};
use super::{
    Answer, Context, Credentials, Ends, ErrorKind, Kek, KeyState, ProviderError, ProviderKind, Wrapped, base64,
};
use crate::sandbox::Needs;
use crate::types::wire::Writer;
use crate::types::{Key, lock};
use answer::{DECRYPT, Failed, Said};
use key::{Binding, Known};
use login::Logins;

pub use super::http::{Address, AddressError, SYSTEM_ROOTS, TrustAnchors};
pub use key::Remark;
pub use login::VaultAuth;
pub use names::{MountPath, Name, NameError};

/// Bytes of a text that is none: a GCM nonce and tag alone.
const TEXT_EMPTY_BYTES: usize = 28;
/// Characters of base64 for 32 bytes.
const KEY_CHARACTERS: usize = 44;

/// Which key, where, and how to log in. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultSettings {
    /// Where Vault listens.
    pub address: Address,
    /// Of Vault Enterprise or OpenBao.
    pub namespace: Option<MountPath>,
    /// Of the transit engine, usually `transit`.
    pub mount: MountPath,
    /// The key's name.
    pub key: Name,
    /// When version 1 was made, as `vault read` shows it: only for a key whose `min_decryption_version` is above 1.
    pub created: Option<String>,
    /// How to log in.
    pub auth: VaultAuth,
    /// Who may have signed Vault's certificate.
    pub roots: TrustAnchors,
    /// Of one request, and of one call with all its requests.
    pub timeout: Duration,
}

impl VaultSettings {
    /// Of the machine; files of certificates and tokens apart, which the configuration lists.
    pub fn needs(&self) -> Needs {
        self.address.needs(&self.roots)
    }
}

/// One transit key, with a login to it.
pub struct Vault {
    session: Arc<Session<Logins>>,
    /// Of one call with all its requests.
    timeout: Duration,
    /// The key as it was last seen.
    known: Mutex<Option<Known>>,
}

impl Vault {
    /// Does not connect yet.
    pub fn new(settings: VaultSettings, credentials: Arc<dyn Credentials>) -> Self {
        let timeout = settings.timeout;
        Self { session: Session::new(Logins::new(settings, credentials)), timeout, known: Mutex::new(None) }
    }

    /// The same with its login, and with this limit: a login may be one that cannot be made again. A request of the login that serves ends
    /// as that one began, after 10 s at least; the next login takes the longer limit up.
    #[must_use]
    pub fn with_timeout(&self, timeout: Duration) -> Self {
        self.session.logins().allow(timeout);
        Self { session: Arc::clone(&self.session), timeout, known: Mutex::new(self.last_seen()) }
    }

    /// Keeps the login alive, for ever. To be spawned once beside the calls: a token that nobody uses for long has to be renewed too.
    pub fn keep_login(&self) -> impl Future<Output = ()> + Send + 'static {
        let session = self.session.clone();
        async move { session.keep().await }
    }

    /// What the operator should know of the key as it was last seen.
    pub fn remarks(&self) -> Vec<Remark> {
        self.last_seen().map(|known| known.remarks).unwrap_or_default()
    }

    fn settings(&self) -> &VaultSettings {
        &self.session.logins().settings
    }

    fn last_seen(&self) -> Option<Known> {
        lock::lock(&self.known).clone()
    }

    fn remember(&self, known: Option<Known>) {
        *lock::lock(&self.known) = known;
    }

    /// The identity without the time.
    fn scope(&self) -> String {
        let VaultSettings { namespace, mount, key, .. } = self.settings();
        namespace.as_ref().map_or_else(|| format!("{mount}/{key}"), |namespace| format!("{namespace}/{mount}/{key}"))
    }

    async fn in_time<T>(&self, call: impl Future<Output = Result<T, ProviderError>>) -> Result<T, ProviderError> {
        let timeout = self.timeout;
        match tokio::time::timeout(timeout, call).await {
            Ok(answer) => answer,
            Err(_) => Err(ProviderError::new(ErrorKind::Away, format!("no answer in {timeout:?}"))),
        }
    }

    /// One request with the login that serves; once more with another login where that one was refused.
    async fn call(
        &self,
        verb: &str,
        fields: Option<&[(&str, &str)]>,
    ) -> Result<Zeroizing<Vec<u8>>, Result<Said, ProviderError>> {
        let VaultSettings { mount, key, .. } = self.settings();
        let path = format!("{mount}/{verb}/{key}");
        let held = self.session.login().await.map_err(Err)?;
        let said = match held.login.call(&path, fields).await {
            Ok(body) => {
                held.has_served();
                return Ok(body);
            }
            Err(Failed::Unanswered(error)) => return Err(Err(error)),
            Err(Failed::Refused(said)) => said,
        };
        if !said.is_forbidden() {
            return Err(Ok(said));
        }
        let refusal = if said.token_is_gone() { Refusal::Ended } else { Refusal::Denied };
        let Some(held) = self.session.another(&held, refusal).await else {
            // Some servers say of a token that is none the same as of a right that is missing. A login that was refused just now tells.
            return Err(self.session.refusal().map_or(Ok(said), Err));
        };
        let answer = held.login.call(&path, fields).await;
        if answer.is_ok() {
            held.has_served();
        }
        answer.map_err(|failed| match failed {
            Failed::Unanswered(error) => Err(error),
            Failed::Refused(said) => Ok(said),
        })
    }

    async fn read(&self) -> Result<Known, ProviderError> {
        let body = self.call("keys", None).await.map_err(|failed| match failed {
            Err(error) => error,
            Ok(said) if said.is_forbidden() && !said.token_is_gone() => {
                let VaultSettings { mount, key, .. } = self.settings();
                said.in_use(&format!("the policy must allow read on {mount}/keys/{key}"))
            }
            Ok(said) => said.in_use("read key"),
        })?;
        let known = key::read(&body, &self.scope(), self.settings().created.as_deref())?;
        self.remember(Some(known.clone()));
        Ok(known)
    }

    async fn seen(&self) -> Result<Known, ProviderError> {
        match self.last_seen() {
            Some(known) => Ok(known),
            None => self.read().await,
        }
    }

    async fn wrap(&self, plain: &Key, context: Context<'_>) -> Result<Wrapped, ProviderError> {
        let made = self.encrypt(plain, context).await?;
        still_of(made, &self.read().await?)
    }

    /// A text of the key as it was last seen. Which key made it, the answer does not say.
    async fn encrypt(&self, plain: &Key, context: Context<'_>) -> Result<Wrapped, ProviderError> {
        let known = self.seen().await?;
        let mut text = Zeroizing::new([0; KEY_CHARACTERS]);
        let plain = base64::encoded::<Base64>(plain.expose(), &mut *text)?;
        let version = known.version.to_string();
        let bound = bound(context);
        let mut fields = vec![("plaintext", plain), ("key_version", version.as_str())];
        fields.extend(binding(known.binding, &bound));
        let body = match self.call("encrypt", Some(&fields)).await {
            Ok(body) => body,
            Err(failed) => {
                // Whatever was wrong, the key is looked at anew before the next attempt.
                self.remember(None);
                return Err(failed.map_or_else(|error| error, |said| said.in_use("encrypt")));
            }
        };
        let text = wrapped_text(&body, known.version)?;
        Wrapped::new(ProviderKind::Vault, known.identity, key::version_text(known.version)?, text.into_bytes())
            .map_err(|error| ProviderError::new(ErrorKind::Lied, "encrypt: the text").because(error))
    }

    /// Both begin after the text was made, so that neither has to wait for the other: an Encrypt takes two round trips.
    async fn read_and_open(&self, draft: Wrapped, context: Context<'_>) -> Result<(Wrapped, Key), ProviderError> {
        let (now, opened) = tokio::join!(self.read(), self.unwrap(&draft, context));
        let wrapped = still_of(draft, &now?)?;
        Ok((wrapped, opened?))
    }

    async fn unwrap(&self, wrapped: &Wrapped, context: Context<'_>) -> Result<Key, ProviderError> {
        let foreign = |why: &str| ProviderError::new(ErrorKind::Text, why);
        let of_this_name = wrapped.identity.as_str().rsplit_once('@').is_some_and(|(scope, _)| scope == self.scope());
        if wrapped.kind != ProviderKind::Vault || !of_this_name {
            return Err(foreign("the wrap is of another key"));
        }
        let text = std::str::from_utf8(wrapped.text()).map_err(|_| foreign("this is not a transit ciphertext"))?;
        match split(text) {
            Some((version, _)) if version == wrapped.version.as_str() => {}
            _ => return Err(foreign("this is not a transit ciphertext, or of another version")),
        }
        let known = self.seen().await?;
        let bound = bound(context);
        let mut fields = vec![("ciphertext", text)];
        fields.extend(binding(known.binding, &bound));
        let body = self.call(DECRYPT, Some(&fields)).await;
        let body = body.map_err(|failed| failed.map_or_else(|error| error, |said| said.in_use(DECRYPT)))?;
        opened(&body)
    }
}

impl Kek for Vault {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Vault
    }

    fn ends(&self) -> Ends {
        Ends { login: self.session.lasts(), certificate: self.session.logins().shown.lasts() }
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        Box::pin(self.in_time(async { self.read().await?.state() }))
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(self.in_time(self.wrap(key, context)))
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, context: Context<'a>) -> Answer<'a, Key> {
        Box::pin(self.in_time(self.unwrap(wrapped, context)))
    }

    fn draft<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        Box::pin(self.in_time(self.encrypt(key, context)))
    }

    fn prove<'a>(&'a self, draft: Wrapped, context: Context<'a>) -> Answer<'a, (Wrapped, Key)> {
        Box::pin(self.in_time(self.read_and_open(draft, context)))
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// The text, if the key that was read after it was made is the one that it names.
fn still_of(made: Wrapped, now: &Known) -> Result<Wrapped, ProviderError> {
    if now.identity != made.identity {
        let detail = format!("encrypt: the key was {} and is {}", made.identity, now.identity);
        return Err(ProviderError::new(ErrorKind::NoKey, detail));
    }
    if made.version.as_str().parse::<u64>().is_ok_and(|version| now.version < version) {
        return Err(ProviderError::new(ErrorKind::Lied, "encrypt: the key's latest version went back"));
    }
    Ok(made)
}

/// Cluster and KEK, in base64. The cluster is length-prefixed, so that no two pairs give the same bytes.
fn bound(context: Context<'_>) -> String {
    let mut bytes = Writer::new();
    bytes.bytes16(context.cluster.as_str().as_bytes()).raw(context.kek.as_bytes());
    Base64::encode_string(&bytes.finish())
}

fn binding(binding: Binding, bound: &str) -> impl Iterator<Item = (&'static str, &str)> {
    let associated = (binding != Binding::None).then_some(("associated_data", bound));
    let derived = (binding == Binding::Derived).then_some(("context", bound));
    associated.into_iter().chain(derived)
}

/// Version and base64 of `vault:vN:…`.
fn split(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("vault:v")?.split_once(':')
}

/// The text of an answer to `encrypt`, which must be of this version.
fn wrapped_text(body: &[u8], version: u64) -> Result<String, ProviderError> {
    #[derive(Deserialize)]
    struct Encrypted<'a> {
        ciphertext: &'a str,
        key_version: u64,
    }
    let Encrypted { ciphertext, key_version } = answer::read_data(body, "encrypt")?;
    let lied = |why: String| ProviderError::new(ErrorKind::Lied, why);
    let (named, text) =
        split(ciphertext).ok_or_else(|| lied("encrypt: the text is empty or none of transit".into()))?;
    if key_version != version || named != version.to_string() {
        return Err(lied(format!("encrypt: asked for version {version}, the answer says {key_version}")));
    }
    match Base64::decode_vec(text) {
        Ok(bytes) if bytes.len() >= TEXT_EMPTY_BYTES + Key::LEN => Ok(ciphertext.to_owned()),
        _ => Err(lied("encrypt: the text is too short for a key, or not base64".into())),
    }
}

/// The key in an answer to `decrypt`.
fn opened(body: &[u8]) -> Result<Key, ProviderError> {
    #[derive(Deserialize)]
    struct Decrypted<'a> {
        plaintext: &'a str,
    }
    let Decrypted { plaintext } = answer::read_data(body, "decrypt")?;
    base64::key::<Base64>(plaintext)
        .ok_or_else(|| ProviderError::new(ErrorKind::Lied, "decrypt: the answer is not 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind<T>(result: Result<T, ProviderError>) -> Option<ErrorKind> {
        result.err().map(|error| error.kind())
    }

    #[test]
    fn a_wrap_is_of_the_version_that_was_asked_for_or_none() {
        let body =
            |text: &str, version: &str| format!(r#"{{"data":{{"ciphertext":"{text}","key_version":{version}}}}}"#);
        let text = format!("vault:v3:{}", Base64::encode_string(&[7; 60]));
        let wrapped = |text: &str, version: &str| wrapped_text(body(text, version).as_bytes(), 3);
        assert_eq!(wrapped(&text, "3").unwrap(), text);
        for (text, version) in [
            ("", "3"),
            ("vault:v3:", "3"),
            ("vault:v3:!!!!", "3"),
            ("vault:v3:AAAA", "3"),
            (&text, "2"),
            (&text.replace("v3", "v2"), "3"),
            (&text.replace("v3", "v03"), "3"),
            (&text.replace("vault", "bao"), "3"),
        ] {
            assert_eq!(kind(wrapped(text, version)), Some(ErrorKind::Lied), "{text} {version}");
        }
        for garbled in
            ["", "{}", "[]", "<html>", r#"{"data":{}}"#, r#"{"data":{"ciphertext":"x"}}"#, r#"{"data":null}"#]
        {
            assert_eq!(kind(wrapped_text(garbled.as_bytes(), 3)), Some(ErrorKind::Protocol), "{garbled}");
        }
    }

    #[test]
    fn an_opened_key_has_exactly_32_bytes() {
        let opened = |bytes: &[u8]| {
            opened(format!(r#"{{"data":{{"plaintext":"{}"}}}}"#, Base64::encode_string(bytes)).as_bytes())
        };
        assert_eq!(opened(&[9; 32]).unwrap().expose(), &[9; 32]);
        for len in [0, 1, 16, 31, 33, 64] {
            assert_eq!(kind(opened(&vec![9; len])), Some(ErrorKind::Lied), "{len}");
        }
        assert_eq!(kind(super::opened(br#"{"data":{"plaintext":"\u0041"}}"#)), Some(ErrorKind::Protocol));
    }

    #[test]
    fn what_a_text_is_bound_to_cannot_be_shifted() {
        use crate::types::KekId;
        let of = |cluster: &str, kek: u8| {
            bound(Context { cluster: &cluster.parse().unwrap(), kek: &KekId::from_bytes([kek; 16]) })
        };
        let all = [of("a", 1), of("a", 2), of("b", 1), of("ab", 1)];
        assert!((0..4).all(|i| (0..i).all(|j| all[i] != all[j])));
        // Frozen: a wrap opens only with the same bytes.
        assert_eq!(of("prod", 0), "AARwcm9kAAAAAAAAAAAAAAAAAAAAAA==");
    }
}
