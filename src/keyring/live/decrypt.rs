//! Decrypt: under the KEKs of this node, and under those that a text brings with it for a provider to open.

use std::sync::Arc;

use super::{Ask, Keyring, LiveKek};
use crate::envelope::{self, EnvelopeError, Parsed, Wraps};
use crate::keyring::attached::Brought;
use crate::keyring::error::KeyringError;
use crate::provider::Form;
use crate::types::{KekId, KeyId, Secret, clock};

/// What a Decrypt gives.
pub struct Decrypted {
    /// The DEK or seed.
    pub plaintext: Secret,
    /// What was reported when it was encrypted.
    pub key_id: KeyId,
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
        let decrypted = self.open(envelope::parse_v1(&self.cluster, text), Caller::Api).await;
        self.noted(decrypted)
    }

    /// Whether a v1 text opens, and what it holds. Nothing is noted or kept.
    pub async fn try_v1(&self, text: &[u8]) -> Result<Secret, KeyringError> {
        let parsed = envelope::parse_v1(&self.cluster, text);
        Ok(self.open(parsed, Caller::Scan).await?.plaintext)
    }

    /// The same for v2.
    pub async fn try_v2(&self, key_id: &str, wraps: Wraps<'_>, text: &[u8]) -> Result<Secret, KeyringError> {
        let parsed = envelope::parse_v2(&self.cluster, key_id, wraps, text);
        Ok(self.open(parsed, Caller::Scan).await?.plaintext)
    }

    /// Decrypts what a v2 Encrypt of this cluster gave, with the key_id and annotations that were stored beside it.
    pub async fn decrypt_v2(&self, key_id: &str, wraps: Wraps<'_>, text: &[u8]) -> Result<Decrypted, KeyringError> {
        let _serving = self.serving.begin();
        let decrypted = self.open(envelope::parse_v2(&self.cluster, key_id, wraps, text), Caller::Api).await;
        self.noted(decrypted)
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

    async fn open(&self, parsed: Result<Parsed<'_>, EnvelopeError>, caller: Caller) -> Result<Decrypted, KeyringError> {
        let snapshot = self.opened().await?;
        let parsed = parsed.map_err(KeyringError::Envelope)?;
        let key_id = parsed.key_id().parse().map_err(|_| KeyringError::Envelope(EnvelopeError::Elsewhere))?;
        let brought = Brought::read(parsed.wraps());
        let kek = match snapshot.by_id.get(parsed.kek_id()) {
            Some(kek) if kek.is_of(brought.as_ref().map(|brought| brought.check)) => Arc::clone(kek),
            None if snapshot.destroyed.contains(parsed.kek_id()) => {
                return Err(KeyringError::UnknownKek(*parsed.kek_id()));
            }
            Some(_) | None => {
                let Some(brought) = brought else { return Err(KeyringError::UnknownKek(*parsed.kek_id())) };
                let kek =
                    self.fetch(*parsed.kek_id(), brought, caller, |kek| parsed.open(kek.key.expose()).is_ok()).await?;
                // By the operator's order, while the providers were asked.
                if self.opened().await?.destroyed.contains(parsed.kek_id()) {
                    return Err(KeyringError::UnknownKek(*parsed.kek_id()));
                }
                kek.ok_or(KeyringError::Envelope(EnvelopeError::Authentication))?
            }
        };
        let plaintext = parsed.open(kek.key.expose()).map_err(KeyringError::Envelope)?;
        let is_own = snapshot.by_id.get(parsed.kek_id()).is_some_and(|own| Arc::ptr_eq(own, &kek));
        if is_own && caller == Caller::Api {
            self.tally.opened(kek.id, clock::now());
        }
        Ok(Decrypted { plaintext, key_id })
    }

    /// The KEK of a text from a provider. One that is worth it gets a sealed copy here, after it has opened the text.
    async fn fetch(
        &self,
        id: KekId,
        brought: Brought,
        caller: Caller,
        opens: impl Fn(&LiveKek) -> bool,
    ) -> Result<Option<Arc<LiveKek>>, KeyringError> {
        let Some(rooted) = self.rooted() else { return Err(KeyringError::UnknownKek(id)) };
        let keep = caller == Caller::Api && rooted.rules.local_kek && brought.form == Form::Local;
        let check = brought.check;
        let kek = self.foreign.get(&rooted, &self.cluster, id, brought, keep, &self.places).await?;
        if !opens(&kek) {
            return Ok(None);
        }
        // Whoever asked first may not wait any more, or was a scan.
        if keep && self.foreign.is_first_told(id, check) {
            (self.ask)(Ask::Keep(Arc::clone(&kek)));
        }
        Ok(Some(kek))
    }
}
