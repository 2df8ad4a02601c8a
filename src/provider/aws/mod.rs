//! A key in AWS KMS: a symmetric customer key that wraps 32 bytes with Encrypt and opens them with Decrypt.
//!
//! **Identity** is the key's ARN; for multi-region keys (`mrk-…`) without the region, since every replica opens the texts of the others. AWS never
//! gives a key id to another key. An alias is resolved at the first probe and remembered: one that points to another key later is refused.
//!
//! **Version** is the id of the key material, as DescribeKey and Decrypt name it. Encrypt names none, so a wrap is opened again at once: that
//! gives the version of this very text and proves that it opens. Servers that do not know materials give `rotation-` and the time of the newest rotation
//! in milliseconds since 1970, asked before the text was made; without the right to list rotations it is `unversioned`, and a
//! rotation is then not noticed.
//!
//! A wrap is bound to cluster and KEK by the encryption context, which AWS writes to the account's log in clear.
//!
//! Refuses to read the environment, profiles or the instance's own login unless the default chain is asked for, and to retry. (The SDK still puts
//! `AWS_EXECUTION_ENV` into its user agent and `_X_AMZN_TRACE_ID` into a header when something sets them.)
//!
//! **Secrets.** Nothing here is logged, also at the finest level, and no error keeps a body. Keys of a login are wiped by the SDK when the last
//! client with them is dropped, and a KEK's bytes in the SDK's input and output are wiped or moved by us where we own them. What the SDK does not wipe: its
//! own body of a request to Encrypt (the KEK in base64) and what it decodes of an answer of Decrypt, the encoded input beside it, the session token in a request's
//! headers, the answer of STS, the token of a web identity in its request, and the signing keys that it derives. They are
//! freed when the call ends. Core dumps and swap are closed to the process for this reason.

mod fault;
mod key;
mod login;
mod settings;
mod wire;

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::EncryptionAlgorithmSpec::SymmetricDefault;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use self::fault::from_sdk;
use self::key::Seen;
use self::login::{Logins, Signer};
pub(crate) use self::settings::default_chain;
pub use self::settings::{AwsAuth, AwsBase, AwsSettings, Endpoint, FormError, KeyArn, RoleArn};
use self::wire::{Wire, unlogged};
use super::http::Shown;
use super::session::{Held, Refusal, Session};
use super::{
    Answer, Context, Credentials, Ends, ErrorKind, Kek, KeyState, KeyVersion, ProviderError, ProviderKind, Wrapped,
};
use crate::types::{Key, lock};

const ENCRYPT: &str = "kms:Encrypt";

/// One key in AWS KMS, with a login to it.
pub struct AwsKek {
    key: KeyArn,
    session: Arc<Session<Logins>>,
    limit: Duration,
    last: Mutex<Option<Seen>>,
    shown: Shown,
}

impl AwsKek {
    /// Reads `ca_file`; asks nobody yet.
    pub fn open(settings: AwsSettings, credentials: Arc<dyn Credentials>) -> Result<Self, ProviderError> {
        if settings.region != settings.key.region() {
            let detail = format!("region {} is not that of {}", settings.region, settings.key);
            return Err(ProviderError::new(ErrorKind::Unfit, detail));
        }
        let wire = Wire::open(&settings)?;
        let AwsSettings { key, auth, timeout: limit, .. } = settings;
        let shown = wire.shown();
        let session = Session::new(Logins::new(wire, auth, credentials));
        Ok(Self { key, session, limit, last: Mutex::new(None), shown })
    }

    /// Bounds the whole of a call, and does it once more with another login if AWS refused this one.
    fn call<'a, T, F>(&'a self, work: impl Fn(Arc<Held<Signer>>) -> F + Send + Sync + 'a) -> Answer<'a, T>
    where
        T: Send + 'a,
        F: Future<Output = Result<T, ProviderError>> + Send + 'a,
    {
        let whole = async move {
            let held = self.session.login().await?;
            let answer = work(Arc::clone(&held)).await;
            let kind = match &answer {
                Ok(_) => {
                    held.has_served();
                    return answer;
                }
                Err(error) => error.kind(),
            };
            let refusal = match kind {
                ErrorKind::Login if self.session.logins().are_here() => {
                    // What is sealed is looked at for the next call: at once it would be what it was.
                    self.session.refuse(&held, Refusal::Ended);
                    return answer;
                }
                ErrorKind::Login => Refusal::Unknown,
                ErrorKind::Forbidden => Refusal::Denied,
                _ => return answer,
            };
            match self.session.another(&held, refusal).await {
                Some(other) => work(other).await,
                None => answer,
            }
        };
        Box::pin(async move {
            let late = |_| Err(ProviderError::new(ErrorKind::Away, format!("no answer within {:?}", self.limit)));
            let answer = unlogged(tokio::time::timeout(self.limit, whole)).await.unwrap_or_else(late);
            answer.map_err(|error| self.session.logins().hinted(error))
        })
    }

    fn last(&self) -> Option<Seen> {
        lock::lock(&self.last).clone()
    }

    async fn ask(&self, signer: &Signer) -> Result<Seen, ProviderError> {
        let seen = key::ask(signer, &self.key, self.last().as_ref()).await?;
        let mut last = lock::lock(&self.last);
        match &*last {
            // Two first probes of an alias at the same time, and it moved between them.
            Some(first) if first.arn != seen.arn => {
                let detail = format!("{} points to {} and to {}: name the key itself", self.key, first.arn, seen.arn);
                Err(ProviderError::new(ErrorKind::Unfit, detail))
            }
            _ => Ok(last.insert(seen).clone()),
        }
    }

    /// The key, asked for if nobody has yet.
    async fn known(&self, signer: &Signer) -> Result<Seen, ProviderError> {
        match self.last() {
            Some(seen) => Ok(seen),
            None => self.ask(signer).await,
        }
    }

    async fn wrap(&self, signer: &Signer, key: &Key, context: Context<'_>) -> Result<Wrapped, ProviderError> {
        let draft = self.draft_by(signer, key, context).await?;
        let (wrapped, opened) = self.prove_by(signer, draft, context).await?;
        if bool::from(opened.expose().ct_eq(key.expose())) {
            Ok(wrapped)
        } else {
            Err(lied(ENCRYPT, "a ciphertext that opens to something else"))
        }
    }

    /// The version is the one before it, where Encrypt does not tell: too old a version only means one more wrap later.
    async fn draft_by(&self, signer: &Signer, key: &Key, context: Context<'_>) -> Result<Wrapped, ProviderError> {
        let seen = match self.known(signer).await? {
            seen if seen.names_material => seen,
            _ => self.ask(signer).await?,
        };
        let asked = signer.kms.encrypt().key_id(&seen.arn).encryption_algorithm(SymmetricDefault);
        let asked = asked.set_encryption_context(Some(bound_to(context))).plaintext(Blob::new(key.expose().as_slice()));
        let answer = asked.send().await.map_err(|error| from_sdk(ENCRYPT, error))?;
        of_key(ENCRYPT, &seen, answer.key_id.as_deref())?;
        let text = answer.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        if text.is_empty() {
            return Err(lied(ENCRYPT, "an empty text"));
        }
        Wrapped::new(ProviderKind::Aws, seen.state.identity, seen.state.version, text)
            .map_err(|error| lied(ENCRYPT, "a text of no proper length").because(error))
    }

    /// Opens it, which tells the version of this very text.
    async fn prove_by(
        &self,
        signer: &Signer,
        draft: Wrapped,
        context: Context<'_>,
    ) -> Result<(Wrapped, Key), ProviderError> {
        let seen = self.known(signer).await?;
        let (opened, material) = open(signer, &seen, draft.text(), context).await?;
        let version = match material {
            Some(material) => version(&material)?,
            None if seen.names_material => {
                return Err(lied("kms:Decrypt", "no key material, although the key has one"));
            }
            None => draft.version.clone(),
        };
        Ok((draft.of_version(version), opened))
    }

    async fn unwrap(&self, signer: &Signer, wrapped: &Wrapped, context: Context<'_>) -> Result<Key, ProviderError> {
        let seen = match self.key.identity() {
            // Nothing more is needed, so that one request opens a KEK.
            Some(identity) => Seen {
                arn: self.key.to_string(),
                state: KeyState { identity, version: wrapped.version.clone() },
                names_material: false,
            },
            None => self.known(signer).await?,
        };
        if wrapped.kind != ProviderKind::Aws || wrapped.identity != seen.state.identity {
            let detail = format!("made by {} {}, requested from {}", wrapped.kind.label(), wrapped.identity, seen.arn);
            return Err(ProviderError::new(ErrorKind::Text, detail));
        }
        Ok(open(signer, &seen, wrapped.text(), context).await?.0)
    }
}

impl Kek for AwsKek {
    fn kind(&self) -> ProviderKind {
        ProviderKind::Aws
    }

    fn ends(&self) -> Ends {
        Ends { login: self.session.lasts(), certificate: self.shown.lasts() }
    }

    fn probe(&self) -> Answer<'_, KeyState> {
        self.call(move |held| async move { Ok(self.ask(&held.login).await?.state) })
    }

    fn wrap_key<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        self.call(move |held| async move { self.wrap(&held.login, key, context).await })
    }

    fn unwrap_key<'a>(&'a self, wrapped: &'a Wrapped, context: Context<'a>) -> Answer<'a, Key> {
        self.call(move |held| async move { self.unwrap(&held.login, wrapped, context).await })
    }

    fn draft<'a>(&'a self, key: &'a Key, context: Context<'a>) -> Answer<'a, Wrapped> {
        self.call(move |held| async move { self.draft_by(&held.login, key, context).await })
    }

    fn prove<'a>(&'a self, draft: Wrapped, context: Context<'a>) -> Answer<'a, (Wrapped, Key)> {
        self.call(move |held| {
            let draft = draft.clone();
            async move { self.prove_by(&held.login, draft, context).await }
        })
    }

    fn never_blocks(&self) -> bool {
        true
    }
}

/// Decrypts. Also gives the id of the material that the text was made with, where the server names it.
async fn open(
    signer: &Signer,
    seen: &Seen,
    text: &[u8],
    context: Context<'_>,
) -> Result<(Key, Option<String>), ProviderError> {
    const ASKED: &str = "kms:Decrypt";
    let asked = signer.kms.decrypt().key_id(&seen.arn).encryption_algorithm(SymmetricDefault);
    let asked = asked.set_encryption_context(Some(bound_to(context))).ciphertext_blob(Blob::new(text));
    let answer = asked.send().await.map_err(|error| from_sdk(ASKED, error))?;
    let plain = Zeroizing::new(answer.plaintext.map(Blob::into_inner).unwrap_or_default());
    of_key(ASKED, seen, answer.key_id.as_deref())?;
    let key = Key::copy_of(&plain).ok_or_else(|| lied(ASKED, "not 32 bytes"))?;
    Ok((key, answer.key_material_id))
}

/// The encryption context: additional authenticated data of AWS's AES-GCM.
fn bound_to(context: Context<'_>) -> HashMap<String, String> {
    HashMap::from([
        ("nodeseal.cluster".to_owned(), context.cluster.as_str().to_owned()),
        ("nodeseal.kek".to_owned(), context.kek.to_string()),
    ])
}

fn version(material: &str) -> Result<KeyVersion, ProviderError> {
    KeyVersion::new(key::material_version(material))
        .map_err(|_| lied("kms:Decrypt", "a key material without a proper id"))
}

fn of_key(asked: &str, seen: &Seen, answered: Option<&str>) -> Result<(), ProviderError> {
    // Only what has the form of a key is shown.
    match answered.and_then(|arn| arn.parse::<KeyArn>().ok()) {
        Some(arn) if arn.to_string() == seen.arn => Ok(()),
        Some(arn) => Err(lied(asked, &format!("requested from {}, answered by {arn}", seen.arn))),
        None => Err(lied(asked, "an answer that does not name its key")),
    }
}

fn lied(asked: &str, what: &str) -> ProviderError {
    ProviderError::new(ErrorKind::Lied, format!("{asked}: {what}"))
}
