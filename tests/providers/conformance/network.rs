//! Claims about the way to a server: names, connections, certificates, logins and the files that they are made with. For providers over
//! HTTP: a unix socket has neither a second address nor a slow way nor a certificate, and its peer is told by its user. A token's login
//! is the sealer's, which asks one question after the other, and a KMS plugin knows none.

use std::fs;
use std::future::Future;
use std::thread;
use std::time::{Duration, Instant};

use nodeseal::provider::set::{ATTEMPT, BUDGET};
use nodeseal::provider::{ErrorKind, Kek, ProviderError};
use nodeseal::types::Key;
use test_support::proxy::{Mode, Seen};
use tokio::time::timeout;

use super::{Ground, Of, SHORT_TIMEOUT, TIMEOUT, one, refused};
use crate::tls_front::{Authority, TlsFront};

/// Longer than an attempt, and shorter than two.
const SLOW: Duration = Duration::from_millis(1300);

async fn opens(kek: &dyn Kek, (key, of, wrapped): &(Key, Of, nodeseal::provider::Wrapped)) {
    assert_eq!(kek.unwrap_key(wrapped, of.context()).await.unwrap().expose(), key.expose());
}

/// Attempts that were given up before one was served.
async fn attempts<T, F: Future<Output = Result<T, ProviderError>>>(ask: impl Fn() -> F) -> usize {
    for number in 0..20 {
        if let Ok(answer) = timeout(ATTEMPT, ask()).await {
            answer.unwrap();
            return number;
        }
    }
    panic!("each attempt began anew");
}

pub async fn a_name_of_which_the_first_address_is_silent_serves_calls_by_the_second(ground: impl Ground) {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("only root can give a name two addresses");
    }
    let front = TlsFront::with_two_addresses(ground.proxy().server_side());
    let kek = ground.kek_at(&front.url(), &front.roots(), SHORT_TIMEOUT);
    let begun = Instant::now();
    let made = one(&*kek).await;
    assert!(begun.elapsed() < SHORT_TIMEOUT + TIMEOUT, "{:?}", begun.elapsed());
    opens(&*kek, &made).await;
    // What answered is asked first from then on, by others too.
    let other = ground.kek_at(&front.url(), &front.roots(), SHORT_TIMEOUT);
    timeout(TIMEOUT, other.probe()).await.unwrap().unwrap();
    opens(&*other, &made).await;
    assert!(front.accepted() >= 2);
}

pub async fn connections_that_take_longer_than_an_attempt_serve_the_attempts_after_it(ground: impl Ground) {
    let front = TlsFront::before(ground.proxy().server_side());
    let kek = ground.kek_at(&front.url(), &front.roots(), TIMEOUT);
    front.be_slow(SLOW);
    let given_up = attempts(|| kek.probe()).await;
    assert!(given_up > 0);
    let made = one(&*kek).await;
    // All that follows goes by connections that are there.
    let accepted = front.accepted();
    assert!(accepted <= 8, "{accepted}");
    for _ in 0..10 {
        timeout(ATTEMPT, kek.unwrap_key(&made.2, made.1.context())).await.unwrap().unwrap();
    }
    assert_eq!(front.accepted(), accepted);
}

pub async fn a_login_that_takes_longer_than_a_call_may_is_made_once_and_serves_the_calls_after_it<G: Ground>(
    ground: G,
) {
    // Calls may take less than the login does.
    let kek = ground.kek_that_logs_in(SHORT_TIMEOUT);
    ground.proxy().change(|seen, given| {
        if G::is_login(seen) {
            thread::sleep(BUDGET + Duration::from_secs(1));
        }
        given
    });
    assert!(attempts(|| kek.probe()).await > 0);
    assert_eq!(logins::<G>(&ground), 1);
    let made = timeout(SHORT_TIMEOUT, one(&*kek)).await.unwrap();
    opens(&*kek, &made).await;
    assert_eq!(logins::<G>(&ground), 1);
}

fn logins<G: Ground>(ground: &G) -> usize {
    ground.proxy().seen().iter().filter(|seen| G::is_login(seen)).count()
}

/// First the file and then the server, as operators do it; a reload opens the provider anew (tests/providers/rooted).
pub async fn an_authority_that_changes_stops_neither_what_is_connected_nor_who_trusts_the_new_one(ground: impl Ground) {
    let front = TlsFront::before(ground.proxy().server_side());
    let old = ground.kek_at(&front.url(), &front.roots(), SHORT_TIMEOUT);
    let made = one(&*old).await;
    let next = Authority::new();
    front.trust(&next);
    // Before: whoever reads the file now is refused, and whoever has read it goes on.
    let new = || ground.kek_at(&front.url(), &front.roots(), SHORT_TIMEOUT);
    refused(&ground, new().probe().await, &[ErrorKind::Peer]);
    opens(&*old, &made).await;
    // After: the connection that is there serves on, and a new one is for those alone who trust its certificate.
    front.certify(&next);
    opens(&*old, &made).await;
    opens(&*new(), &made).await;
    ground.trouble(super::Trouble::Reset);
    refused(&ground, old.unwrap_key(&made.2, made.1.context()).await, &[ErrorKind::Away, ErrorKind::Peer]);
    ground.proxy().set(Mode::Pass);
    refused(&ground, old.unwrap_key(&made.2, made.1.context()).await, &[ErrorKind::Peer]);
    opens(&*new(), &made).await;
}

pub async fn a_token_file_that_is_refreshed_often_is_read_as_it_is_and_makes_no_more_logins<G: Ground>(ground: G) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    let refresh = || {
        let (token, new) = (ground.fresh_token(), folder.path().join("new"));
        fs::write(&new, format!("{token}\n")).unwrap();
        fs::rename(new, &file).unwrap();
        token
    };
    let says = |seen: &Seen, token: &str| seen.body.contains(token);
    (0..5).for_each(|_| drop(refresh()));
    let newest = refresh();
    let kek = ground.kek_by_token_file(&file);
    let made = one(&*kek).await;
    for _ in 0..20 {
        refresh();
        opens(&*kek, &made).await;
    }
    assert_eq!(logins::<G>(&ground), 1);
    assert!(ground.proxy().seen().iter().any(|seen| G::is_login(seen) && says(seen, &newest)));
    // A login that is made anew is made with what the file has then.
    let newest = refresh();
    let other = ground.kek_by_token_file(&file);
    opens(&*other, &made).await;
    let seen = ground.proxy().seen();
    assert!(seen.iter().rfind(|seen| G::is_login(seen)).is_some_and(|seen| says(seen, &newest)));
}
