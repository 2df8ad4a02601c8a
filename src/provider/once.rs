//! A login by what may serve only once: a secret id with `secret_id_num_uses`, or a wrapping token. Vault does not say which one does.

use std::time::Duration;

use super::http::Sent;
use super::login_tries::{LoginTries, Record, Verdict, since_boot};
use super::{ErrorKind, Mark, ProviderError};
use crate::types::CredentialName;

/// What to do about it.
const OF_LOST: &str = "see what cuts connections to Vault. It is tried again, more slowly; if it is refused then, seal a fresh secret id: \
                       `nodeseal credentials seal NAME`";
const OF_SPENT: &str = "make another secret id, best with secret_id_num_uses=0, which serves more than once, and seal it on this node: \
                        `nodeseal credentials seal NAME`; this one is tried again once an hour at most";
const OF_REFUSED: &str = "compare role and secret id with Vault's, and seal the right one on this node: `nodeseal credentials seal NAME`; \
                          it is tried at once then. This one is retried after growing pauses, because Vault locks a role after five refusals";
const OF_SERVED: &str = "it has logged in before: if its secret_id_num_uses or secret_id_ttl is not 0 it has ended. Make another one, with 0 for \
                         both, and seal it on this node: `nodeseal credentials seal NAME`";

/// A login under way. One that ends without an answer, be it dropped, is lost.
struct Begun<'a> {
    tries: &'a LoginTries,
    before: Record,
    has_ended: bool,
}

impl<'a> Begun<'a> {
    fn new(tries: &'a LoginTries, mark: Mark, now: Duration) -> Self {
        Self { tries, before: tries.begin(mark, now), has_ended: false }
    }

    fn ends<T>(mut self, how: impl FnOnce(Record) -> T) -> T {
        self.has_ended = true;
        how(self.before)
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.tries.lost(self.before, since_boot());
        }
    }
}

/// One question that may use up the credential of this mark.
pub(super) struct Once<'a> {
    pub(super) tries: &'a LoginTries,
    pub(super) mark: Mark,
    pub(super) name: &'a CredentialName,
    pub(super) sent: &'a Sent,
}

impl Once<'_> {
    /// Asks, unless that is of no use any more.
    pub(super) async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let Self { tries, mark, name, sent } = self;
        let now = since_boot();
        match tries.verdict(*mark, now) {
            Verdict::Give => {}
            Verdict::Wait(left) => {
                let detail = format!(
                    "credential {name}: the answer to its last login was lost, which may have spent it; tried again in {} s",
                    left.as_secs() + 1
                );
                return Err(ProviderError::new(ErrorKind::Away, detail).with_hint(OF_LOST));
            }
            Verdict::WaitRefused(left) => {
                let minutes = left.as_secs() / 60 + 1;
                let detail = format!("credential {name}: it was refused, and is retried in {minutes} min");
                let hint = if tries.has_served(*mark) { OF_SERVED } else { OF_REFUSED };
                return Err(ProviderError::new(ErrorKind::Login, detail).with_hint(hint));
            }
            Verdict::Spent(_) => return Err(spent(name)),
        }
        // Before Vault is asked: its answer may be lost, and this process may end.
        let (begun, sent_before) = (Begun::new(tries, *mark, now), sent.number());
        let has_served = begun.before.has_served();
        let error = match question.await {
            Ok(answer) => {
                begun.ends(|before| tries.granted(before));
                return Ok(answer);
            }
            Err(error) => error,
        };
        match error.kind() {
            _ if sent.number() == sent_before => begun.ends(|before| tries.not_asked(before)),
            ErrorKind::Login => {
                let is_spent = begun.ends(|before| tries.refused(before, since_boot()));
                return Err(match (is_spent, has_served) {
                    (true, _) => spent(name).because(error),
                    (false, true) => error.with_hint(OF_SERVED),
                    (false, false) => error.with_hint(OF_REFUSED),
                });
            }
            // Said before a login is looked at.
            ErrorKind::Throttled => begun.ends(|before| tries.not_asked(before)),
            kind => {
                drop(begun);
                let detail = format!("credential {name}: the answer to a login was lost, which may have spent it");
                return Err(ProviderError::new(kind, detail).because(error).with_hint(OF_LOST));
            }
        }
        Err(error)
    }
}

fn spent(name: &CredentialName) -> ProviderError {
    let detail =
        format!("credential {name}: refused after a login whose answer was lost: what is sealed is most likely spent");
    ProviderError::new(ErrorKind::Login, detail).with_hint(OF_SPENT)
}
