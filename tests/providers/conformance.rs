//! The suite that every provider passes. A provider brings its ground: a key of its own on a real server, behind a proxy.

mod health;
#[cfg(feature = "http-client")]
mod network;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodeseal::provider::{Context, ErrorKind, Kek, ProviderError, Wrapped};
use nodeseal::types::{ClusterId, KekId, Key};
use test_support::proxy::{Mode, Proxy, Seen};

pub use self::health::*;
#[cfg(feature = "http-client")]
pub use self::network::*;

/// What one call may take: much, since the machine of the tests may be busy.
pub const TIMEOUT: Duration = Duration::from_secs(10);
const SHORT_TIMEOUT: Duration = Duration::from_secs(2);

/// Where nobody listens: "tcpmux".
#[cfg(feature = "http-client")]
pub const NOWHERE: &str = "http://127.0.0.1:1";

/// What goes wrong between a provider and its server.
#[derive(Clone, Copy, Debug)]
pub enum Trouble {
    None,
    /// The connection is closed at once.
    Reset,
    /// The answer stops in the middle.
    Half,
    /// There is no answer.
    Silent,
    /// The answer waits.
    Late(Duration),
    /// An answer that cannot be right, below [`Ground::lies`].
    Lie(usize),
    /// An answer that is longer than any.
    Flood,
}

/// Answers over HTTP that cannot be right.
const LIES: [&str; 9] =
    ["", "{}", "null", "[]", "\"\"", "<html>It works!</html>", "{\"data\":{}}", "{\"data\":null}", "\u{0}\u{1}"];

/// A key at a provider, and power over it. A provider over HTTP has a proxy, which makes all trouble; others make their own.
pub trait Ground: Send + Sync {
    /// Each with a login of its own, and with this time for each call.
    fn kek_within(&self, timeout: Duration) -> Arc<dyn Kek>;
    fn kek(&self) -> Arc<dyn Kek> {
        self.kek_within(TIMEOUT)
    }
    /// One that logs in with what the provider does not know.
    fn stranger(&self) -> Arc<dyn Kek>;
    fn proxy(&self) -> &Proxy {
        panic!("this provider does not speak HTTP")
    }
    fn trouble(&self, trouble: Trouble) {
        let told = |body: String| {
            self.proxy().change(move |_, mut given| {
                body.clone_into(&mut given.body);
                given
            });
        };
        match trouble {
            Trouble::None => self.proxy().set(Mode::Pass),
            Trouble::Reset => self.proxy().set(Mode::Reset),
            Trouble::Half => self.proxy().set(Mode::Half),
            Trouble::Silent => self.proxy().set(Mode::Silent),
            Trouble::Late(pause) => self.proxy().set(Mode::Late(pause)),
            Trouble::Lie(number) => told(LIES[number].into()),
            Trouble::Flood => told("x".repeat(2 << 20)),
        }
    }
    fn lies(&self) -> usize {
        LIES.len()
    }
    fn rotate(&self);
    /// Versions before the newest can no longer be used, or the key cannot.
    fn disable(&self);
    fn restore(&self);
    fn delete_and_recreate(&self);
    /// The login may no longer use the key.
    fn deny(&self);
    /// It may again.
    fn allow(&self) {
        panic!("see deny")
    }
    /// Every request is one too many.
    fn throttle(&self) {
        self.proxy().change(|_, mut given| {
            (given.status, given.kind, given.body) = (429, "text/html".into(), "<html>slowly</html>".into());
            given
        });
    }
    /// The same key, by a place where nobody listens.
    fn kek_away(&self) -> Arc<dyn Kek>;
    /// The same key by this address, where somebody listens whom these roots have signed. Over HTTP.
    fn kek_at(&self, url: &str, _roots: &Path, _timeout: Duration) -> Arc<dyn Kek> {
        panic!("{url}: this provider does not speak HTTP")
    }
    /// One whose login is asked for by a request.
    fn kek_that_logs_in(&self, timeout: Duration) -> Arc<dyn Kek> {
        self.kek_within(timeout)
    }
    /// One that logs in with the token in this file.
    fn kek_by_token_file(&self, file: &Path) -> Arc<dyn Kek> {
        panic!("{}: there is no such login", file.display())
    }
    /// For such a file, and no other one.
    fn fresh_token(&self) -> String {
        panic!("there is no such login")
    }
    /// Whether a request over HTTP asks for a login.
    fn is_login(_: &Seen) -> bool
    where
        Self: Sized,
    {
        false
    }
    fn logins(&self) -> usize
    where
        Self: Sized,
    {
        self.proxy().seen().iter().filter(|seen| Self::is_login(seen)).count()
    }
    /// Requests so far.
    fn asked(&self) -> usize {
        self.proxy().seen().len()
    }
    /// Whether the provider binds a text to its context.
    fn binds(&self) -> bool;
    /// Texts that no error may show.
    fn canaries(&self) -> Vec<String>;
    /// Whether a request over HTTP is one that wraps or one that unwraps.
    fn is_wrap(path: &str) -> bool
    where
        Self: Sized,
    {
        panic!("{path}: this provider does not speak HTTP")
    }
    /// Whether the server was asked to wrap: the suite must not pass on nothing.
    fn saw_a_wrap(&self) -> bool
    where
        Self: Sized,
    {
        self.proxy().seen().iter().any(|seen| Self::is_wrap(seen.path()))
    }
}

/// Whose KEK.
pub struct Of(ClusterId, KekId);

impl Of {
    pub fn new(cluster: &str, kek: u8) -> Self {
        Self(cluster.parse().unwrap(), KekId::from_bytes([kek; 16]))
    }

    pub fn context(&self) -> Context<'_> {
        Context { cluster: &self.0, kek: &self.1 }
    }
}

/// Everything that an error can show.
pub fn shown(error: &ProviderError) -> String {
    let mut all = format!("{error} {error:?} {error:#?}");
    let mut cause: Option<&dyn std::error::Error> = std::error::Error::source(error);
    while let Some(current) = cause {
        write!(all, " {current} {current:?}").unwrap();
        cause = current.source();
    }
    all
}

/// It failed in one of these ways, and the error shows nothing that it should not.
pub fn refused<T>(ground: &impl Ground, result: Result<T, ProviderError>, kinds: &[ErrorKind]) -> ProviderError {
    let Err(error) = result else { panic!("succeeded instead of {kinds:?}") };
    assert!(kinds.contains(&error.kind()), "{error:?} instead of {kinds:?}");
    let all = shown(&error);
    for canary in ground.canaries() {
        assert!(!all.contains(&canary), "{canary} in {all}");
    }
    error
}

async fn one(kek: &dyn Kek) -> (Key, Of, Wrapped) {
    let (key, of) = (Key::random().unwrap(), Of::new("prod", 1));
    let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
    (key, of, wrapped)
}

pub async fn a_hundred_keys_come_back_as_they_were(ground: impl Ground) {
    let kek = ground.kek();
    let state = kek.probe().await.unwrap();
    let mut texts = BTreeSet::new();
    for number in 0..100 {
        let (key, of) = (Key::random().unwrap(), Of::new("prod", number));
        let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
        assert_eq!((wrapped.kind, &wrapped.identity, &wrapped.version), (kek.kind(), &state.identity, &state.version));
        let stored = Wrapped::decode(&wrapped.encode()).unwrap();
        assert_eq!(kek.unwrap_key(&stored, of.context()).await.unwrap().expose(), key.expose());
        assert!(texts.insert(wrapped.text().to_vec()), "the same text twice");
    }
    // Another login to the same key opens them as well.
    let (key, of, wrapped) = one(&*kek).await;
    assert_eq!(ground.kek().unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
}

pub async fn a_wrap_opens_after_rotations_and_names_its_own_version(ground: impl Ground) {
    let kek = ground.kek();
    let mut made = Vec::new();
    for _ in 0..3 {
        let state = kek.probe().await.unwrap();
        made.push((state, one(&*kek).await));
        ground.rotate();
    }
    let versions: BTreeSet<_> = made.iter().map(|(state, _)| state.version.clone()).collect();
    let identities: BTreeSet<_> = made.iter().map(|(state, _)| state.identity.clone()).collect();
    assert_eq!((versions.len(), identities.len()), (3, 1));
    for (state, (key, of, wrapped)) in made {
        assert_eq!(wrapped.version, state.version);
        assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
    }
}

pub async fn a_text_opens_for_its_own_cluster_and_kek_only(ground: impl Ground) {
    let kek = ground.kek();
    let (_, _, wrapped) = one(&*kek).await;
    for other in [Of::new("test", 1), Of::new("prod", 2)] {
        let opened = kek.unwrap_key(&wrapped, other.context()).await;
        if ground.binds() {
            refused(&ground, opened, &[ErrorKind::Text]);
        } else {
            assert!(opened.is_ok());
        }
    }
}

pub async fn a_changed_text_never_gives_other_bytes(ground: impl Ground) {
    let kek = ground.kek();
    let (key, of, wrapped) = one(&*kek).await;
    let text = wrapped.text();
    let mut changed: Vec<Vec<u8>> = (0..text.len()).step_by(text.len() / 24 + 1).map(|at| flipped(text, at)).collect();
    changed.extend([
        text[..text.len() - 1].to_vec(),
        text[..text.len() / 2].to_vec(),
        [text, text].concat(),
        vec![b'x'],
    ]);
    for bytes in changed {
        let Wrapped { kind, identity, version, .. } = wrapped.clone();
        let tried = Wrapped::new(kind, identity, version, bytes).unwrap();
        match kek.unwrap_key(&tried, of.context()).await {
            // Some bits of a text mean nothing (the last character of base64).
            Ok(opened) => assert_eq!(opened.expose(), key.expose()),
            error => drop(refused(&ground, error, &[ErrorKind::Text, ErrorKind::NoKey, ErrorKind::Unfit])),
        }
    }
}

fn flipped(text: &[u8], at: usize) -> Vec<u8> {
    let mut text = text.to_vec();
    text[at] ^= 1;
    text
}

pub async fn an_answer_that_cannot_be_right_is_an_error(ground: impl Ground) {
    let kek = ground.kek();
    let (_, of, wrapped) = one(&*kek).await;
    let key = Key::random().unwrap();
    for number in 0..ground.lies() {
        ground.trouble(Trouble::Lie(number));
        let wrong = [ErrorKind::Lied, ErrorKind::Protocol];
        refused(&ground, kek.wrap_key(&key, of.context()).await, &wrong);
        refused(&ground, kek.unwrap_key(&wrapped, of.context()).await, &wrong);
        refused(&ground, kek.probe().await, &wrong);
    }
    // An answer to one question is none to another: what was wrapped is not what is opened.
    ground.trouble(Trouble::None);
    let (_, _, other) = one(&*kek).await;
    assert_ne!(other.text(), wrapped.text());
    ground.trouble(Trouble::Flood);
    refused(&ground, kek.probe().await, &[ErrorKind::Protocol]);
}

pub async fn what_is_away_is_away_within_the_time_and_is_used_when_it_is_back(ground: impl Ground) {
    let kek = ground.kek_within(SHORT_TIMEOUT);
    let (key, of, wrapped) = one(&*kek).await;
    for trouble in [Trouble::Reset, Trouble::Half, Trouble::Silent, Trouble::Late(2 * SHORT_TIMEOUT)] {
        ground.trouble(trouble);
        let begun = Instant::now();
        refused(&ground, kek.unwrap_key(&wrapped, of.context()).await, &[ErrorKind::Away]);
        refused(&ground, kek.probe().await, &[ErrorKind::Away]);
        assert!(begun.elapsed() < 2 * SHORT_TIMEOUT + Duration::from_secs(1), "{:?}", begun.elapsed());
    }
    ground.trouble(Trouble::Late(Duration::from_millis(50)));
    assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
    kek.probe().await.unwrap();
}

pub async fn a_failure_of_the_server_has_its_kind(ground: impl Ground) {
    let kek = ground.kek();
    let (_, of, wrapped) = one(&*kek).await;
    let html = "<html>nginx</html>";
    for (status, kind) in [
        (500, ErrorKind::Down),
        (502, ErrorKind::Down),
        (503, ErrorKind::Down),
        (307, ErrorKind::Down),
        (429, ErrorKind::Throttled),
        (403, ErrorKind::Protocol),
        (200, ErrorKind::Protocol),
    ] {
        ground.proxy().change(move |_, mut given| {
            (given.status, given.kind, given.body) = (status, "text/html".into(), html.into());
            given
        });
        refused(&ground, kek.unwrap_key(&wrapped, of.context()).await, &[kind]);
    }
}

pub async fn a_denied_login_is_told_from_a_denied_use(ground: impl Ground) {
    let stranger = ground.stranger();
    refused(&ground, stranger.probe().await, &[ErrorKind::Login]);
    let kek = ground.kek();
    let (_, of, wrapped) = one(&*kek).await;
    ground.deny();
    refused(&ground, kek.unwrap_key(&wrapped, of.context()).await, &[ErrorKind::Forbidden]);
    refused(&ground, kek.probe().await, &[ErrorKind::Forbidden]);
}

pub async fn a_key_made_anew_under_the_same_name_is_another_key(ground: impl Ground) {
    let kek = ground.kek();
    let before = kek.probe().await.unwrap();
    let (_, of, wrapped) = one(&*kek).await;
    ground.delete_and_recreate();
    // Without a probe in between: the wrap must not claim the old identity.
    let key = Key::random().unwrap();
    if let Ok(made) = kek.wrap_key(&key, of.context()).await {
        assert_ne!(made.identity, before.identity);
    }
    assert_ne!(kek.probe().await.unwrap().identity, before.identity);
    refused(&ground, kek.unwrap_key(&wrapped, of.context()).await, &[ErrorKind::Text, ErrorKind::NoKey]);
    // Nor when it is proved, whether the text was made before or after.
    for recreate_first in [true, false] {
        let before = kek.probe().await.unwrap();
        let draft = if recreate_first {
            ground.delete_and_recreate();
            kek.draft(&key, of.context()).await
        } else {
            let draft = kek.draft(&key, of.context()).await;
            ground.delete_and_recreate();
            draft
        };
        if let Ok(draft) = draft
            && let Ok((made, _)) = kek.prove(draft, of.context()).await
        {
            assert_ne!(made.identity, before.identity);
        }
    }
    kek.probe().await.unwrap();
    let (key, of, wrapped) = one(&*kek).await;
    assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
}

pub async fn a_disabled_version_is_no_key_until_it_is_restored(ground: impl Ground) {
    let kek = ground.kek();
    let (key, of, wrapped) = one(&*kek).await;
    ground.disable();
    refused(&ground, kek.unwrap_key(&wrapped, of.context()).await, &[ErrorKind::NoKey]);
    ground.restore();
    assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
}

pub async fn sixty_four_at_once_share_one_login(ground: impl Ground) {
    let kek = ground.kek();
    let tasks: Vec<_> = (0..64)
        .map(|number| {
            let kek = kek.clone();
            tokio::spawn(async move {
                let (key, of) = (Key::random().unwrap(), Of::new("prod", number));
                let wrapped = kek.wrap_key(&key, of.context()).await.unwrap();
                assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

pub async fn a_rotation_under_load_never_makes_text_and_version_differ(ground: impl Ground) {
    let kek = ground.kek();
    let mut all = Vec::new();
    let mut versions = BTreeSet::new();
    for round in 0..12 {
        if round % 4 == 3 {
            ground.rotate();
        }
        let (key, of, wrapped) = one(&*kek).await;
        versions.insert(wrapped.version.clone());
        all.push((key, of, wrapped));
    }
    assert!(versions.len() > 1, "a rotation is seen without a probe");
    for (key, of, wrapped) in all {
        assert_eq!(kek.unwrap_key(&wrapped, of.context()).await.unwrap().expose(), key.expose());
    }
    assert!(ground.saw_a_wrap());
}

/// One test for each claim, on a ground of its own.
macro_rules! suite {
    ($ground:expr; $($claim:ident)*) => {
        $(#[tokio::test]
        async fn $claim() {
            crate::conformance::$claim($ground).await;
        })*
    };
    ($ground:expr) => {
        crate::conformance::suite! { $ground;
            a_hundred_keys_come_back_as_they_were
            a_wrap_opens_after_rotations_and_names_its_own_version
            a_text_opens_for_its_own_cluster_and_kek_only
            a_changed_text_never_gives_other_bytes
            an_answer_that_cannot_be_right_is_an_error
            what_is_away_is_away_within_the_time_and_is_used_when_it_is_back
            a_failure_of_the_server_has_its_kind
            a_denied_login_is_told_from_a_denied_use
            a_key_made_anew_under_the_same_name_is_another_key
            a_disabled_version_is_no_key_until_it_is_restored
            sixty_four_at_once_share_one_login
            a_rotation_under_load_never_makes_text_and_version_differ
            a_name_of_which_the_first_address_is_silent_serves_calls_by_the_second
            connections_that_take_longer_than_an_attempt_serve_the_attempts_after_it
            a_login_that_takes_longer_than_a_call_may_is_made_once_and_serves_the_calls_after_it
            an_authority_that_changes_stops_neither_what_is_connected_nor_who_trusts_the_new_one
            a_token_file_that_is_refreshed_often_is_read_as_it_is_and_makes_no_more_logins
            one_that_limits_us_for_ever_fails_is_asked_ever_more_slowly_and_recovers
            one_that_denies_us_for_ever_fails_gets_no_storm_of_logins_and_recovers
            two_ways_to_one_key_are_one_key_and_stand_in_for_each_other
        }
    };
}
pub(crate) use suite;
