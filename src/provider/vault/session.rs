//! The login that all calls share: made once, renewed in the background, made anew when it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::http::{self, Client};
use super::super::lease::{Chance, Grant, Lease, Step};
use super::super::{Credentials, ErrorKind, ProviderError};
use super::VaultSettings;
use super::answer::{Api, Failed, Said, Token};
use super::login::{self, Logins};
use crate::types::random;

/// A connection with a token.
pub(super) struct Login {
    pub(super) api: Api,
    pub(super) token: Token,
}

struct State {
    lease: Lease,
    login: Option<Arc<Login>>,
    /// Why there is none.
    refusal: Option<ProviderError>,
}

/// Shared by all calls of one provider.
pub(super) struct Session {
    settings: VaultSettings,
    logins: Logins,
    started: Instant,
    state: Mutex<State>,
    /// One login or renewal at a time.
    gate: tokio::sync::Mutex<()>,
}

impl Session {
    pub(super) fn new(settings: VaultSettings, credentials: Arc<dyn Credentials>) -> Arc<Self> {
        let state = State { lease: Lease::new(), login: None, refusal: None };
        Arc::new(Self {
            settings,
            logins: Logins::new(credentials),
            started: Instant::now(),
            state: Mutex::new(state),
            gate: tokio::sync::Mutex::new(()),
        })
    }

    pub(super) const fn settings(&self) -> &VaultSettings {
        &self.settings
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// A login that serves. Waits for one only when there is none; one that is due for renewal serves meanwhile.
    pub(super) async fn login(self: &Arc<Self>) -> Result<Arc<Login>, ProviderError> {
        if let Some(login) = self.serving() {
            if !matches!(self.step(), Step::Rest(_)) && self.gate.try_lock().is_ok() {
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

    /// After a call was forbidden: another login than the one that was used, if one is to be had.
    pub(super) async fn another(self: &Arc<Self>, used: &Arc<Login>, said: &Said) -> Option<Arc<Login>> {
        let is_other = |login: &Arc<Login>| !Arc::ptr_eq(login, used);
        if let Some(newer) = self.serving().filter(is_other) {
            return Some(newer);
        }
        let now = self.now();
        let again = {
            let mut state = self.state();
            if said.token_is_gone() {
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

    /// Logs in and renews when it is time, for ever.
    pub(super) async fn keep(self: &Arc<Self>) {
        loop {
            match self.step() {
                Step::Rest(until) => tokio::time::sleep(until.saturating_sub(self.now())).await,
                Step::Login | Step::Renew => self.advance_to_end().await,
            }
        }
    }

    fn serving(&self) -> Option<Arc<Login>> {
        let state = self.state();
        if state.lease.usable(self.now()) { state.login.clone() } else { None }
    }

    fn step(&self) -> Step {
        self.state().lease.step(self.now())
    }

    /// In a task of its own, so that a caller who gives up does not stop a login half-way: some credentials serve only once.
    async fn advance_to_end(self: &Arc<Self>) {
        // An error here is a panic in the task or the end of the runtime: the state tells the caller that there is no login.
        let _ = tokio::spawn(self.clone().advance()).await;
    }

    /// Does what is due, if anything is.
    async fn advance(self: Arc<Self>) {
        let _one_at_a_time = self.gate.lock().await;
        let (step, held) = {
            let state = self.state();
            (state.lease.step(self.now()), state.login.clone())
        };
        match (step, held) {
            (Step::Rest(_), _) => {}
            (Step::Renew, Some(login)) => {
                let renewed = login::renew(&login).await;
                let now = self.now();
                let chance = chance();
                let mut state = self.state();
                match renewed {
                    Ok(grant) => state.lease.renewed(now, grant, chance),
                    Err(failed) => {
                        let denied = matches!(failed, Failed::Refused(said) if said.is_denial());
                        state.lease.failed(now, denied, chance);
                    }
                }
            }
            (Step::Login | Step::Renew, _) => {
                let made = self.make().await;
                let now = self.now();
                let chance = chance();
                let mut state = self.state();
                match made {
                    Ok((login, grant)) => {
                        state.lease.logged_in(now, grant, chance);
                        state.login = Some(Arc::new(login));
                        state.refusal = None;
                    }
                    Err(error) => {
                        let answered =
                            !matches!(error.kind(), ErrorKind::Away | ErrorKind::Down | ErrorKind::Throttled);
                        state.lease.failed(now, answered, chance);
                        state.refusal = Some(error);
                    }
                }
            }
        }
    }

    /// The connection is made anew with each login, so that a changed ca_file or certificate is taken up.
    async fn make(&self) -> Result<(Login, Grant), ProviderError> {
        let VaultSettings { address, namespace, roots, timeout, auth, .. } = &self.settings;
        let identity = self.logins.certificate(auth).await?;
        let client = Client::new(address.clone(), http::config(roots, identity)?, *timeout);
        let api = Api::new(client, namespace.as_ref())?;
        let (token, grant) = self.logins.login(auth, &api).await?;
        Ok((Login { api, token }, grant))
    }
}

fn chance() -> Chance {
    // Without randomness two nodes may renew at the same moment, which is no reason to stop.
    Chance::new(random::array().unwrap_or_default())
}
