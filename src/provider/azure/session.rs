//! The login that all calls share: made when it is first needed, made anew before it ends and after it was refused.
//!
//! When that is due says [`super::super::lease`]: before half of a login's lifetime has passed, at a moment that no two nodes share, and after a
//! failure with growing pauses. What is due is done beside the calls while the old login serves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use azure_core::credentials::{AccessToken, TokenCredential, TokenRequestOptions};
use azure_core::error::ErrorKind as SdkKind;
use azure_core::time::OffsetDateTime;

use super::super::lease::{Chance, Lease, Step};
use super::super::{ErrorKind, ProviderError};
use super::fault::Stopped;
use super::login::Logins;
use crate::types::{Secret, random};

/// A token.
pub(super) struct Login {
    token: Secret,
    /// The vault has taken it at least once.
    served: AtomicBool,
}

impl Login {
    /// It is one that the vault takes.
    pub(super) fn has_served(&self) {
        self.served.store(true, Ordering::Relaxed);
    }
}

struct State {
    lease: Lease,
    login: Option<Arc<Login>>,
    /// Why there is none.
    refusal: Option<ProviderError>,
}

/// Shared by all calls of one provider.
pub(super) struct Session {
    logins: Logins,
    started: Instant,
    state: Mutex<State>,
    /// One login at a time.
    gate: tokio::sync::Mutex<()>,
}

impl Session {
    pub(super) fn new(logins: Logins) -> Arc<Self> {
        let state = State { lease: Lease::new(), login: None, refusal: None };
        Arc::new(Self { logins, started: Instant::now(), state: Mutex::new(state), gate: tokio::sync::Mutex::new(()) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// A login that serves. Waits for one only when there is none.
    pub(super) async fn login(self: &Arc<Self>) -> Result<Arc<Login>, ProviderError> {
        if let Some(login) = self.serving() {
            let is_due = !matches!(self.state().lease.step(self.now()), Step::Rest(_));
            if is_due && self.gate.try_lock().is_ok() {
                tokio::spawn(self.clone().advance());
            }
            return Ok(login);
        }
        self.advance_to_end().await;
        self.serving().ok_or_else(|| {
            let state = self.state();
            state.refusal.as_ref().map_or_else(|| ProviderError::new(ErrorKind::Login, ""), ProviderError::again)
        })
    }

    /// After the vault refused this login: another one, if one is to be had. One that served until now has been revoked; one that never did is not
    /// asked for again at every call.
    pub(super) async fn another(self: &Arc<Self>, used: &Arc<Login>) -> Option<Arc<Login>> {
        let is_other = |login: &Arc<Login>| !Arc::ptr_eq(login, used);
        if let Some(newer) = self.serving().filter(is_other) {
            return Some(newer);
        }
        let now = self.now();
        let again = {
            let mut state = self.state();
            if used.served.load(Ordering::Relaxed) {
                state.lease.ended(now);
                true
            } else {
                state.lease.refused(now)
            }
        };
        if !again {
            return None;
        }
        self.advance_to_end().await;
        self.serving().filter(is_other)
    }

    fn serving(&self) -> Option<Arc<Login>> {
        let state = self.state();
        if state.lease.usable(self.now()) { state.login.clone() } else { None }
    }

    /// In a task of its own, so that a caller who gives up does not make the next one begin again.
    async fn advance_to_end(self: &Arc<Self>) {
        // An error here is a panic in the task or the end of the runtime: the state tells the caller that there is no login.
        let _ = tokio::spawn(self.clone().advance()).await;
    }

    /// Logs in, if that is due.
    async fn advance(self: Arc<Self>) {
        let _one_at_a_time = self.gate.lock().await;
        if matches!(self.state().lease.step(self.now()), Step::Rest(_)) {
            return;
        }
        let made = self.logins.log_in().await;
        let now = self.now();
        // Without randomness two nodes may log in at the same moment, which is no reason to stop.
        let chance = Chance::new(random::array().unwrap_or_default());
        let mut state = self.state();
        match made {
            Ok((token, grant)) => {
                state.lease.logged_in(now, grant, chance);
                state.login = Some(Arc::new(Login { token, served: AtomicBool::new(false) }));
                state.refusal = None;
            }
            Err(error) => {
                let answered = !matches!(error.kind(), ErrorKind::Away | ErrorKind::Down | ErrorKind::Throttled);
                state.lease.failed(now, answered, chance);
                state.refusal = Some(error);
            }
        }
    }
}

/// The session as the SDK knows it. The SDK holds the last token that it was given, and uses none again without asking here: when one ends is not for
/// the clock of the wall to say.
pub(super) struct Bearer(pub(super) Arc<Session>);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer")
    }
}

#[async_trait]
impl TokenCredential for Bearer {
    async fn get_token(&self, _: &[&str], _: Option<TokenRequestOptions<'_>>) -> azure_core::Result<AccessToken> {
        let stopped = |error| azure_core::Error::new(SdkKind::Credential, Stopped::Failed(error));
        let login = self.0.login().await.map_err(stopped)?;
        let token = String::from_utf8_lossy(login.token.expose()).into_owned();
        Ok(AccessToken::new(token, OffsetDateTime::now_utc()))
    }
}
