//! Says whether an object of etcd opens, for `nodeseal etcd scan`. What it decrypts is wiped here, and one of a few verdicts is left.
//!
//! One question at a time, on the thread of its connection, and after kube-apiserver's calls: while one is under way a question waits
//! for its turn, for a bounded time. It leaves no trace in what the status says of kube-apiserver's calls, and stores nothing.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::envelope::Api;
use crate::etcd::content;
use crate::etcd::question::{Question, Verdict};
use crate::keyring::{Keyring, KeyringError};
use crate::types::{Class, Explained};

/// A question is held back no longer: a busy node is scanned slowly, and not never.
const TURN_TIMEOUT: Duration = Duration::from_millis(20);
const TURN_PAUSE: Duration = Duration::from_micros(200);

/// See the module.
pub(super) struct Opener {
    keyring: Arc<Keyring>,
    /// For the timers of a call; providers have a runtime of their own.
    runtime: Runtime,
}

impl Opener {
    pub(super) fn new(keyring: Arc<Keyring>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        Ok(Self { keyring, runtime })
    }

    pub(super) fn opened(&self, question: &Question<'_>) -> Verdict {
        let give_up = Instant::now() + TURN_TIMEOUT;
        while self.keyring.is_serving() && Instant::now() < give_up {
            thread::sleep(TURN_PAUSE);
        }
        let Ok(wraps) = question.wraps() else { return Verdict::BadText };
        let opened = self.runtime.block_on(async {
            match question.api {
                Api::V1 => self.keyring.try_v1(question.source).await,
                Api::V2 => self.keyring.try_v2(question.key_id, wraps, question.source).await,
            }
        });
        match opened {
            Err(error) => verdict(&error),
            Ok(seed) => match question.object {
                Some((key, data)) if !content::opens(question.api, question.kind, &seed, data, key) => Verdict::Moved,
                Some(_) | None => Verdict::Opens,
            },
        }
    }
}

fn verdict(error: &KeyringError) -> Verdict {
    match error {
        KeyringError::Envelope(_) => Verdict::BadText,
        KeyringError::UnknownKek(_) => Verdict::UnknownKek,
        // The providers have answered, and none of them has the key or takes the text.
        KeyringError::Providers(error) => match error.class() {
            Class::NotFound => Verdict::UnknownKek,
            Class::Corrupt => Verdict::BadText,
            Class::Denied | Class::Internal | Class::Misconfigured | Class::Throttled | Class::Unavailable => {
                Verdict::ProviderAway
            }
        },
        KeyringError::Crowded => Verdict::ProviderAway,
        KeyringError::AwaitsBundle
        | KeyringError::Exhausted
        | KeyringError::Locked
        | KeyringError::Random(_)
        | KeyringError::Reservation
        | KeyringError::Waiting => Verdict::NotAsked,
    }
}
