//! A login by what may serve only once: a secret id with `secret_id_num_uses`, or a wrapping token. Vault does not say which one does.

use super::http::Sent;
use super::login_tries::{LoginTries, Verdict, since_boot};
use super::{ErrorKind, Mark, ProviderError};
use crate::types::CredentialName;

/// What to do about it.
const OF_LOST: &str = "see what cuts connections to Vault. It is tried again, more slowly; if it is refused then, seal a fresh secret id: \
                       `nodeseal credentials seal NAME`";
const OF_SPENT: &str = "make another secret id, best with secret_id_num_uses=0, which serves more than once, and seal it on this node: \
                        `nodeseal credentials seal NAME`; this one is not tried again";
const OF_SERVED: &str = "it has logged in before: if its secret_id_num_uses or secret_id_ttl is not 0 it has ended. Make another one, with 0 for \
                         both, and seal it on this node: `nodeseal credentials seal NAME`";

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
                let detail = format!("credential {name}: it was refused, and is tried again in {minutes} min");
                return Err(ProviderError::new(ErrorKind::Login, detail).with_hint(OF_SERVED));
            }
            Verdict::Spent => return Err(spent(name)),
        }
        // Before Vault is asked: its answer may be lost, and this process may end.
        let (before, sent_before) = (tries.begin(*mark, now), sent.number());
        let error = match question.await {
            Ok(answer) => {
                tries.granted(before);
                return Ok(answer);
            }
            Err(error) => error,
        };
        match error.kind() {
            _ if sent.number() == sent_before => tries.not_asked(before),
            ErrorKind::Login if tries.refused(before, now) => return Err(spent(name).because(error)),
            ErrorKind::Login if before.has_served() => return Err(error.with_hint(OF_SERVED)),
            ErrorKind::Login => {}
            // Said before a login is looked at.
            ErrorKind::Throttled => tries.not_asked(before),
            kind => {
                let detail = format!("credential {name}: the answer to a login was lost, which may have spent it");
                return Err(ProviderError::new(kind, detail).because(error).with_hint(OF_LOST));
            }
        }
        Err(error)
    }
}

fn spent(name: &CredentialName) -> ProviderError {
    let detail = format!(
        "credential {name}: refused after a login whose answer was lost: what is sealed is most likely spent, and is not tried again"
    );
    ProviderError::new(ErrorKind::Login, detail).with_hint(OF_SPENT)
}
