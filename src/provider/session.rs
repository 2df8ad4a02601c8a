//! The login that all calls to one provider share: made when it is first needed, made anew or renewed before it ends, and after it
//! was refused.
//!
//! When that is due says [`super::lease`]. What is due is done in a task of its own at [`Home`], beside the calls, while the old login serves to
//! its end; a call waits for a login only when there is none, and one that gives up stops nothing half-way: some credentials
//! serve only once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::home::Home;
use super::lease::{Chance, Grant, Lease, Step};
use super::{ErrorKind, ProviderError};
use crate::types::{Explained, lock, random};

/// Of one request that makes a login, at least: nobody waits for one that is made beside the calls.
pub(super) const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What to do about a login by a token that something else keeps fresh.
pub(super) const OF_TOKEN_FILE: &str =
    "see what keeps the token file fresh, and whether the provider trusts its issuer, audience and subject";
/// The same about a clock.
#[cfg(any(feature = "aws", feature = "azure"))]
pub(super) const OF_CLOCK: &str =
    "set the clock of this node: the provider takes what was signed within some minutes only";

/// How one kind of provider logs in.
pub(super) trait Logins: Send + Sync + 'static {
    /// What its calls are made with.
    type Login: Send + Sync + 'static;

    fn log_in(&self) -> impl Future<Output = Result<(Self::Login, Grant), ProviderError>> + Send;

    /// Only asked for where a [`Grant`] is renewable. A refusal is [`ErrorKind::Login`].
    fn renew(&self, _: &Self::Login) -> impl Future<Output = Result<Grant, ProviderError>> + Send {
        std::future::ready(Err(ProviderError::new(ErrorKind::Login, "there is no renewal")))
    }
}

/// A login.
pub(super) struct Held<T> {
    pub(super) login: T,
    served: AtomicBool,
}

impl<T> Held<T> {
    /// The provider has taken it.
    pub(super) fn has_served(&self) {
        self.served.store(true, Ordering::Relaxed);
    }
}

/// What the provider said of a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is none. One that has served was revoked or has ended; one that never has is not made again at every call.
    #[cfg_attr(
        not(any(test, feature = "aws", feature = "azure")),
        expect(dead_code, reason = "Vault says which token is none")
    )]
    Unknown,
    /// It is none. One that has served was revoked or has ended; one that never has is made again at once the first time.
    #[cfg_attr(
        not(any(test, feature = "aws", feature = "vault")),
        expect(dead_code, reason = "Azure does not tell whether a login was one")
    )]
    Ended,
    /// It may not do this. Who we are may have changed since, so another one is made, ever more seldom.
    Denied,
}

struct State<T> {
    lease: Lease,
    held: Option<Arc<Held<T>>>,
    /// Why there is none.
    refusal: Option<ProviderError>,
    /// Some call was told so.
    is_told: bool,
}

/// Shared by all calls of one provider.
pub(super) struct Session<L: Logins> {
    logins: L,
    home: Home,
    started: Instant,
    state: Mutex<State<L::Login>>,
    /// One login or renewal at a time.
    gate: tokio::sync::Mutex<()>,
}

impl<L: Logins> Session<L> {
    pub(super) fn new(logins: L) -> Arc<Self> {
        let state = State { lease: Lease::new(), held: None, refusal: None, is_told: false };
        let (home, started) = (Home::here(), Instant::now());
        Arc::new(Self { logins, home, started, state: Mutex::new(state), gate: tokio::sync::Mutex::new(()) })
    }

    #[cfg(any(feature = "aws", feature = "vault"))]
    pub(super) const fn logins(&self) -> &L {
        &self.logins
    }

    fn state(&self) -> MutexGuard<'_, State<L::Login>> {
        lock::lock(&self.state)
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// A login that serves. Waits for one only when there is none; one that is due for renewal serves meanwhile.
    pub(super) async fn login(self: &Arc<Self>) -> Result<Arc<Held<L::Login>>, ProviderError> {
        if let Some(held) = self.serving() {
            if !matches!(self.step(), Step::Rest(_)) && self.gate.try_lock().is_ok() {
                self.home.spawn(self.clone().advance());
            }
            return Ok(held);
        }
        let rests_until = match self.step() {
            Step::Rest(until) => Some(self.started + until),
            Step::Login | Step::Renew => None,
        };
        self.advance_to_end().await;
        self.serving().ok_or_else(|| {
            let mut state = self.state();
            let error =
                state.refusal.as_ref().map_or_else(|| ProviderError::new(ErrorKind::Login, ""), ProviderError::again);
            let error = error.in_a_login();
            let is_news = !std::mem::replace(&mut state.is_told, true);
            // In a pause after a failure nobody is asked. What came of a login that was made beside the calls is told to one of them.
            match rests_until.filter(|_| !is_news) {
                Some(until) => error.until(until),
                None => error,
            }
        })
    }

    /// After a refusal: another login than the one that was used, if one is to be had.
    pub(super) async fn another(
        self: &Arc<Self>,
        used: &Arc<Held<L::Login>>,
        refusal: Refusal,
    ) -> Option<Arc<Held<L::Login>>> {
        let is_other = |held: &Arc<Held<L::Login>>| !Arc::ptr_eq(held, used);
        if let Some(newer) = self.serving().filter(is_other) {
            return Some(newer);
        }
        if !self.refuse(used, refusal) {
            return None;
        }
        self.advance_to_end().await;
        self.serving().filter(is_other)
    }

    /// How long the login that there is lasts; `None` without one, and for one without an end.
    #[cfg(any(feature = "aws", feature = "azure", feature = "vault"))]
    pub(super) fn lasts(&self) -> Option<Duration> {
        self.state().lease.lasts(self.now())
    }

    /// Why the last login was refused, if it was.
    #[cfg(feature = "vault")]
    pub(super) fn refusal(&self) -> Option<ProviderError> {
        let state = self.state();
        state.refusal.as_ref().filter(|error| error.kind() == ErrorKind::Login).map(ProviderError::again)
    }

    /// Takes note of a refusal. Whether another login may follow now.
    pub(super) fn refuse(&self, used: &Arc<Held<L::Login>>, refusal: Refusal) -> bool {
        let now = self.now();
        let mut state = self.state();
        // Another call may have been told the same before.
        if state.held.as_ref().is_none_or(|held| !Arc::ptr_eq(held, used)) {
            return true;
        }
        let has_served = used.served.load(Ordering::Relaxed);
        let is_gone = match refusal {
            Refusal::Ended => state.lease.ended(now, has_served),
            Refusal::Unknown if has_served => state.lease.ended(now, true),
            Refusal::Unknown | Refusal::Denied => return state.lease.refused(now),
        };
        if is_gone {
            state.held = None;
        }
        is_gone
    }

    /// Logs in and renews when it is time, for ever.
    #[cfg(feature = "vault")]
    pub(super) async fn keep(self: &Arc<Self>) {
        loop {
            match self.step() {
                Step::Rest(until) => tokio::time::sleep(until.saturating_sub(self.now())).await,
                Step::Login | Step::Renew => self.advance_to_end().await,
            }
        }
    }

    fn serving(&self) -> Option<Arc<Held<L::Login>>> {
        let state = self.state();
        if state.lease.usable(self.now()) { state.held.clone() } else { None }
    }

    fn step(&self) -> Step {
        self.state().lease.step(self.now())
    }

    async fn advance_to_end(self: &Arc<Self>) {
        // An error here is a panic in the task or the end of the runtime: the state tells the caller that there is no login.
        let _ = self.home.spawn(self.clone().advance()).await;
    }

    /// Does what is due, if anything is.
    async fn advance(self: Arc<Self>) {
        let _one_at_a_time = self.gate.lock().await;
        let (step, held) = {
            let state = self.state();
            (state.lease.step(self.now()), state.held.clone())
        };
        match (step, held) {
            (Step::Rest(_), _) => {}
            (Step::Renew, Some(held)) => {
                let renewed = self.logins.renew(&held.login).await;
                let (now, chance) = (self.now(), chance());
                let mut state = self.state();
                match renewed {
                    Ok(grant) => {
                        let is_full = state.lease.renewed(now, grant, chance);
                        // Of a login that nobody wants any more.
                        state.refusal.take_if(|_| is_full);
                    }
                    Err(error) => {
                        state.lease.not_renewed(now, error.kind() == ErrorKind::Login, error.pause(), chance);
                    }
                }
            }
            (Step::Login | Step::Renew, _) => {
                let made = self.logins.log_in().await;
                let (now, chance) = (self.now(), chance());
                let mut state = self.state();
                match made {
                    Ok((login, grant)) => {
                        state.lease.logged_in(now, grant, chance);
                        state.held = Some(Arc::new(Held { login, served: AtomicBool::new(false) }));
                        state.refusal = None;
                    }
                    Err(error) => {
                        let passes = error.class().is_retried();
                        state.lease.failed(now, !passes, error.pause(), chance);
                        state.refusal = Some(error);
                        state.is_told = false;
                    }
                }
            }
        }
    }
}

fn chance() -> Chance {
    // Without randomness two nodes may log in at the same moment, which is no reason to stop.
    Chance::new(random::array().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use tokio::time::{sleep, timeout};

    use super::*;

    const ATTEMPT: Duration = Duration::from_millis(800);
    const MINUTE: Duration = Duration::from_secs(60);

    /// Grants an hour each time, for which it takes its time.
    #[derive(Default)]
    struct Imitated {
        takes: Mutex<Duration>,
        fails: AtomicBool,
        logins: AtomicU32,
    }

    impl Imitated {
        fn that_takes(time: Duration) -> Arc<Session<Self>> {
            Session::new(Self { takes: Mutex::new(time), ..Self::default() })
        }
    }

    impl Logins for Imitated {
        type Login = u32;

        async fn log_in(&self) -> Result<(u32, Grant), ProviderError> {
            let takes = *self.takes.lock().unwrap();
            sleep(takes).await;
            if self.fails.load(Ordering::SeqCst) {
                return Err(ProviderError::new(ErrorKind::Away, "imitated"));
            }
            let grant = Grant { lifetime: Some(60 * MINUTE), renewable: false };
            Ok((self.logins.fetch_add(1, Ordering::SeqCst), grant))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_the_pause_after_a_login_that_failed_nobody_is_asked_and_the_error_says_until_when() {
        let session = Imitated::that_takes(Duration::ZERO);
        session.logins.fails.store(true, Ordering::SeqCst);
        assert_eq!(session.login().await.err().unwrap().not_before(), None);
        let until = session.login().await.err().unwrap().not_before().unwrap();
        assert!(until > Instant::now());
        session.logins.fails.store(false, Ordering::SeqCst);
        tokio::time::sleep_until(until).await;
        assert!(session.login().await.is_ok());
    }

    #[cfg(feature = "vault")]
    #[tokio::test(start_paused = true)]
    async fn what_came_of_a_login_beside_the_calls_is_told_to_one_of_them_as_what_it_is() {
        let session = Imitated::that_takes(Duration::ZERO);
        session.logins.fails.store(true, Ordering::SeqCst);
        let kept = session.clone();
        let keeping = tokio::spawn(async move { kept.keep().await });
        for _ in 0..3 {
            // Longer than any pause: it has failed once more.
            sleep(Duration::from_secs(6)).await;
            assert_eq!(session.login().await.err().unwrap().not_before(), None);
            assert!(session.login().await.err().unwrap().not_before().is_some());
        }
        keeping.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_takes_longer_than_each_attempt_serves_the_attempt_after_it() {
        let session = Imitated::that_takes(Duration::from_millis(1200));
        assert!(timeout(ATTEMPT, session.login()).await.is_err());
        assert_eq!(timeout(ATTEMPT, session.login()).await.unwrap().unwrap().login, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_serves_to_its_end_while_the_next_one_is_made_for_as_long_as_that_takes() {
        let session = Imitated::that_takes(Duration::ZERO);
        session.login().await.unwrap();
        *session.logins.takes.lock().unwrap() = 15 * MINUTE;
        for _ in 0..50 {
            sleep(MINUTE).await;
            let begun = Instant::now();
            session.login().await.unwrap();
            assert_eq!(begun.elapsed(), Duration::ZERO);
        }
        assert_eq!(session.login().await.unwrap().login, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_that_is_refused_makes_the_login_be_asked_for_anew_ever_more_seldom() {
        let session = Imitated::that_takes(Duration::ZERO);
        for _ in 0..100 {
            let held = session.login().await.unwrap();
            session.another(&held, Refusal::Denied).await;
            sleep(Duration::from_secs(2)).await;
        }
        // After 30 s, and 60 and 120 s after that; the next would be due 240 s later.
        assert_eq!(session.logins.logins.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_has_served_and_is_none_any_more_is_replaced_at_once_and_one_that_never_did_is_not() {
        let session = Imitated::that_takes(Duration::ZERO);
        let held = session.login().await.unwrap();
        assert!(session.another(&held, Refusal::Unknown).await.is_none());
        held.has_served();
        let other = session.another(&held, Refusal::Unknown).await.unwrap();
        assert_eq!(other.login, 1);
        assert_eq!(session.another(&held, Refusal::Unknown).await.unwrap().login, 1, "told late");
        assert_eq!(session.another(&other, Refusal::Ended).await.unwrap().login, 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_login_that_is_called_none_at_its_every_use_is_not_made_anew_for_each_of_them() {
        // A standby that has not heard of the token yet, or something before the server that never will.
        let session = Imitated::that_takes(Duration::ZERO);
        for _ in 0..600 {
            let held = session.login().await.unwrap();
            session.another(&held, Refusal::Ended).await;
            sleep(Duration::from_millis(100)).await;
        }
        let logins = session.logins.logins.load(Ordering::SeqCst);
        assert!(logins < 20, "{logins} logins in a minute, none of which has served");
    }

    /// Limits every login, and says for how long.
    struct Limited(AtomicU32);

    impl Logins for Limited {
        type Login = ();

        async fn log_in(&self) -> Result<((), Grant), ProviderError> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Err(ProviderError::new(ErrorKind::Throttled, "429").after(Some(MINUTE)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_provider_that_limits_logins_is_left_alone_for_as_long_as_it_says() {
        let session = Session::new(Limited(AtomicU32::new(0)));
        for _ in 0..100 {
            let _ = session.login().await;
            sleep(Duration::from_secs(1)).await;
        }
        let logins = session.logins.0.load(Ordering::SeqCst);
        assert!(logins <= 2, "{logins} logins in 100 s, of which one a minute is allowed");
    }
}
