//! Decrypt: under the KEKs of this node, and under those that a text brings with it for a provider to open. What Nodeseal has not made is
//! handed to the plugin that Nodeseal has taken the place of, if there is one (`opens_foreign`); no KEK is needed for that, so it opens also
//! while the keys are sealed.

use std::sync::Arc;

use super::{Ask, Keyring, LiveKek};
use crate::envelope::{self, EnvelopeError, Parsed, Wraps};
use crate::keyring::attached::Brought;
use crate::keyring::error::KeyringError;
use crate::keyring::rooted::ProvidersError;
use crate::provider::{Form, PluginText};
use crate::telemetry::{self, Source};
use crate::types::{KekId, KeyId, Secret, clock};

/// What a Decrypt gives.
pub struct Decrypted {
    /// The DEK or seed.
    pub plaintext: Secret,
    /// What was reported when it was encrypted; `None` for what Nodeseal has not made.
    pub key_id: Option<KeyId>,
}

/// For whom a text is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Caller {
    /// kube-apiserver.
    Api,
    /// The operator, who asks of each object whether it opens.
    Scan,
}

impl Keyring {
    /// Decrypts what a v1 Encrypt of this cluster gave, under whichever KEK it names.
    pub async fn decrypt_v1(&self, text: &[u8]) -> Result<Decrypted, KeyringError> {
        let _serving = self.serving.begin();
        let decrypted = self.open_v1(text, Caller::Api).await;
        self.noted(decrypted)
    }

    /// Whether a v1 text opens, and what it holds. Nothing is noted or kept.
    pub async fn try_v1(&self, text: &[u8]) -> Result<Secret, KeyringError> {
        Ok(self.open_v1(text, Caller::Scan).await?.plaintext)
    }

    /// The same for v2.
    pub async fn try_v2(&self, key_id: &str, wraps: Wraps<'_>, text: &[u8]) -> Result<Secret, KeyringError> {
        Ok(self.open_v2(key_id, wraps, text, Caller::Scan).await?.plaintext)
    }

    /// Decrypts what a v2 Encrypt of this cluster gave, with the key_id and annotations that were stored beside it.
    pub async fn decrypt_v2(&self, key_id: &str, wraps: Wraps<'_>, text: &[u8]) -> Result<Decrypted, KeyringError> {
        let _serving = self.serving.begin();
        let decrypted = self.open_v2(key_id, wraps, text, Caller::Api).await;
        self.noted(decrypted)
    }

    async fn open_v1(&self, text: &[u8], caller: Caller) -> Result<Decrypted, KeyringError> {
        match envelope::parse_v1(&self.cluster, text) {
            Ok(parsed) => self.open(parsed, caller).await,
            Err(why) if envelope::is_like_ours(text, None) => Err(KeyringError::Envelope(why)),
            Err(why) => self.open_foreign(why, caller, || PluginText::v1beta1(text)).await,
        }
    }

    async fn open_v2(
        &self,
        key_id: &str,
        wraps: Wraps<'_>,
        text: &[u8],
        caller: Caller,
    ) -> Result<Decrypted, KeyringError> {
        match envelope::parse_v2(&self.cluster, key_id, wraps.clone(), text) {
            Ok(parsed) => self.open(parsed, caller).await,
            Err(why) if envelope::is_like_ours(text, Some(key_id)) => Err(KeyringError::Envelope(why)),
            Err(why) => self.open_foreign(why, caller, || PluginText::v2(key_id, text, wraps.iter())).await,
        }
    }

    /// `why`: it is no text of Nodeseal. One of another cluster's is: a scan of etcd counts it by its KEK, and not as one of another plugin.
    async fn open_foreign(
        &self,
        why: EnvelopeError,
        caller: Caller,
        text: impl FnOnce() -> PluginText,
    ) -> Result<Decrypted, KeyringError> {
        let may_be_foreign = match why {
            EnvelopeError::Format(_) => true,
            EnvelopeError::Authentication
            | EnvelopeError::Elsewhere
            | EnvelopeError::PlaintextLength
            | EnvelopeError::Wraps(_) => false,
        };
        let rooted = self.rooted().filter(|rooted| may_be_foreign && rooted.providers.open_foreign_texts());
        let Some(rooted) = rooted else { return Err(KeyringError::Envelope(why)) };
        let _place = self.places.take()?;
        let (providers, text) = (rooted.providers.clone(), text());
        let opened = rooted.spawn(async move { providers.open_foreign(&text).await }).await;
        let opened = opened.map_err(|_| KeyringError::Providers(ProvidersError::lost()))?;
        let key = opened.map_err(|error| KeyringError::Providers(ProvidersError::of(&error)))?;
        if caller == Caller::Api {
            telemetry::decrypted(Source::Foreign);
        }
        Ok(Decrypted { plaintext: Secret::copy_of(key.expose()), key_id: None })
    }

    fn noted(&self, decrypted: Result<Decrypted, KeyringError>) -> Result<Decrypted, KeyringError> {
        if let Err(error) = &decrypted {
            self.tally.refused(error.class());
            if let KeyringError::UnknownKek(kek) = error {
                self.tally.unknown(*kek, clock::now());
            }
        }
        decrypted
    }

    async fn open(&self, parsed: Parsed<'_>, caller: Caller) -> Result<Decrypted, KeyringError> {
        let snapshot = self.opened().await?;
        let key_id = parsed.key_id().parse().map_err(|_| KeyringError::Envelope(EnvelopeError::Elsewhere))?;
        let brought = Brought::read(parsed.wraps());
        let (kek, source) = match snapshot.by_id.get(parsed.kek_id()) {
            Some(kek) if kek.is_of(brought.as_ref().map(|brought| brought.check)) => {
                (Arc::clone(kek), Source::SealedCopy)
            }
            None if snapshot.destroyed.contains(parsed.kek_id()) => {
                return Err(KeyringError::UnknownKek(*parsed.kek_id()));
            }
            Some(_) | None => {
                let Some(brought) = brought else { return Err(KeyringError::UnknownKek(*parsed.kek_id())) };
                let (kek, source) =
                    self.fetch(*parsed.kek_id(), brought, caller, |kek| parsed.open(kek.key.expose()).is_ok()).await?;
                // By the operator's order, while the providers were asked.
                if self.opened().await?.destroyed.contains(parsed.kek_id()) {
                    return Err(KeyringError::UnknownKek(*parsed.kek_id()));
                }
                (kek.ok_or(KeyringError::Envelope(EnvelopeError::Authentication))?, source)
            }
        };
        let plaintext = parsed.open(kek.key.expose()).map_err(KeyringError::Envelope)?;
        if caller == Caller::Api {
            telemetry::decrypted(source);
        }
        let is_own = snapshot.by_id.get(parsed.kek_id()).is_some_and(|own| Arc::ptr_eq(own, &kek));
        if is_own && caller == Caller::Api {
            self.tally.opened(kek.id, clock::now());
        }
        Ok(Decrypted { plaintext, key_id: Some(key_id) })
    }

    /// The KEK of a text from a provider. One that is worth it gets a sealed copy here, after it has opened the text.
    async fn fetch(
        &self,
        id: KekId,
        brought: Brought,
        caller: Caller,
        opens: impl Fn(&LiveKek) -> bool,
    ) -> Result<(Option<Arc<LiveKek>>, Source), KeyringError> {
        let Some(rooted) = self.rooted() else { return Err(KeyringError::UnknownKek(id)) };
        let keep = caller == Caller::Api && rooted.rules.local_kek && brought.form == Form::Local;
        let check = brought.check;
        let (kek, source) = self.others.get(&rooted, &self.cluster, id, brought, keep, &self.places).await?;
        if !opens(&kek) {
            return Ok((None, source));
        }
        // Whoever asked first may not wait any more, or was a scan.
        if keep && self.others.is_first_told(id, check) {
            (self.ask)(Ask::Keep(Arc::clone(&kek)));
        }
        Ok((Some(kek), source))
    }
}
