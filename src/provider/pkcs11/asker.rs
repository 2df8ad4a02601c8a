//! Asks the sealer on a thread of its own, one question after the other: the client blocks, and so may a token, for seconds.
//!
//! A question whose asker has gone is not asked. One that is under way is waited for by the thread alone, for no longer than the time
//! limit of each of its steps, so that a sealer that hangs holds up later questions for that long at most.

use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::fault::from_sealer;
use crate::provider::{ErrorKind, ProviderError};
use crate::seal::client::{SealerClient, SealerError};

/// Questions that wait. A token does some hundred a second; what waits for longer than a budget is of no use to anybody.
const WAITING_MAX: usize = 256;

type Question = Box<dyn FnOnce(&SealerClient) + Send>;

/// The thread's handle. The thread ends after the question that it is at when this drops.
pub(super) struct Asker {
    questions: SyncSender<Question>,
    timeout: Duration,
}

impl Asker {
    pub(super) fn start(sealer: SealerClient, timeout: Duration) -> Result<Self, ProviderError> {
        let (questions, waiting) = sync_channel::<Question>(WAITING_MAX);
        let work = move || waiting.into_iter().for_each(|question| question(&sealer));
        let thread = thread::Builder::new().name("shared-key".into()).spawn(work);
        thread.map_err(|error| {
            ProviderError::new(ErrorKind::Away, "no thread for a request to the sealer").because(error)
        })?;
        Ok(Self { questions, timeout })
    }

    pub(super) async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&SealerClient) -> Result<T, SealerError> + Send + 'static,
    ) -> Result<T, ProviderError> {
        let (answer, answered) = oneshot::channel();
        let question: Question = Box::new(move |sealer| {
            if !answer.is_closed() {
                // Whoever went meanwhile needs no answer; a key in it is wiped as it drops.
                let _ = answer.send(question(sealer));
            }
        });
        self.questions.try_send(question).map_err(|error| match error {
            TrySendError::Full(_) => ProviderError::new(ErrorKind::Throttled, "too many requests wait for the token"),
            TrySendError::Disconnected(_) => ProviderError::new(ErrorKind::Away, "the thread that asks has ended"),
        })?;
        match tokio::time::timeout(self.timeout, answered).await {
            Ok(Ok(answer)) => answer.map_err(from_sealer),
            Ok(Err(_)) => Err(ProviderError::new(ErrorKind::Away, "the question was lost")),
            Err(_) => Err(ProviderError::new(ErrorKind::Away, format!("no answer in {:?}", self.timeout))),
        }
    }
}
