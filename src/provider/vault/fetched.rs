//! What a wrapping token has given, until it lies sealed in place of that token.
//!
//! It replaces nothing but the sealing that it was fetched from: what the operator has sealed meanwhile is newer, and is what to log in
//! with. While it cannot be sealed, it is used from memory, and what becomes of it there is known of it once it is sealed too.

use crate::provider::{Credentials, Mark};
use crate::types::{CredentialName, Secret};

/// In memory alone.
pub(super) struct Fetched {
    secret: Secret,
    /// The sealing of the token.
    from: Mark,
}

impl Fetched {
    pub(super) const fn new(secret: Secret, from: Mark) -> Self {
        Self { secret, from }
    }
}

/// What to log in with, if anything is held: it stays until it is sealed or of no use any more.
pub(super) async fn sealed(
    held: &mut Option<Fetched>,
    credentials: &dyn Credentials,
    name: &CredentialName,
) -> Option<(Secret, Mark)> {
    let Fetched { secret, from } = held.as_ref()?;
    // What lies there afterwards tells what came of it. A login must not depend on it.
    let _ = credentials.replace(name, *from, secret).await;
    match credentials.open(name).await {
        Ok((now, mark)) if mark != *from => {
            if now.same_as(secret.expose()) {
                credentials.tries().moved(from.of_fetched(), mark);
            }
            *held = None;
            Some((now, mark))
        }
        Ok(_) | Err(_) => Some((Secret::copy_of(secret.expose()), from.of_fetched())),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::time::Duration;

    use super::*;
    use crate::provider::login_tries::{Verdict, since_boot};
    use crate::provider::{CredentialAnswer, LoginTries};

    /// One credential on a disk that may be full.
    struct Disk {
        sealed: Mutex<(&'static [u8], u8)>,
        is_full: Mutex<bool>,
        tries: LoginTries,
    }

    fn mark(number: u8) -> Mark {
        Mark::new([number; Mark::BYTES])
    }

    impl Credentials for Disk {
        fn open<'a>(&'a self, _: &'a CredentialName) -> CredentialAnswer<'a, (Secret, Mark)> {
            let (secret, number) = *self.sealed.lock().unwrap();
            Box::pin(async move { Ok((Secret::copy_of(secret), mark(number))) })
        }

        fn tries(&self) -> &LoginTries {
            &self.tries
        }

        fn replace<'a>(&'a self, _: &'a CredentialName, from: Mark, secret: &'a Secret) -> CredentialAnswer<'a, ()> {
            let mut sealed = self.sealed.lock().unwrap();
            let fits = from == mark(sealed.1) && !*self.is_full.lock().unwrap();
            if fits {
                assert!(secret.same_as(b"fetched"));
                *sealed = (b"fetched", sealed.1 + 1);
            }
            Box::pin(async move { if fits { Ok(()) } else { Err("not sealed".into()) } })
        }
    }

    fn full() -> (Disk, CredentialName, Option<Fetched>) {
        let (sealed, is_full) = (Mutex::new((&b"wrapping"[..], 1)), Mutex::new(true));
        let held = Fetched::new(Secret::copy_of(b"fetched"), mark(1));
        (Disk { sealed, is_full, tries: LoginTries::default() }, "approle".parse().unwrap(), Some(held))
    }

    #[tokio::test]
    async fn what_was_fetched_is_used_unsealed_and_what_is_known_of_it_then_is_known_of_it_when_it_is_sealed() {
        let (disk, name, mut held) = full();
        let (secret, unsealed) = sealed(&mut held, &disk, &name).await.unwrap();
        assert!(secret.same_as(b"fetched") && held.is_some() && unsealed != mark(1));
        let now = since_boot() + Duration::from_secs(9);
        disk.tries.lost(disk.tries.begin(unsealed, now), now);
        *disk.is_full.lock().unwrap() = false;
        let (secret, mark) = sealed(&mut held, &disk, &name).await.unwrap();
        assert!(secret.same_as(b"fetched") && held.is_none() && mark == self::mark(2));
        assert!(matches!(disk.tries.verdict(mark, now), Verdict::Wait(_)), "its only use may be spent");
        assert_eq!(disk.tries.verdict(unsealed, now), Verdict::Give);
    }

    #[tokio::test]
    async fn what_the_operator_has_sealed_meanwhile_is_what_to_log_in_with_and_is_not_replaced() {
        let (disk, name, mut held) = full();
        *disk.is_full.lock().unwrap() = false;
        *disk.sealed.lock().unwrap() = (b"fresh", 7);
        let (secret, mark) = sealed(&mut held, &disk, &name).await.unwrap();
        assert!(secret.same_as(b"fresh") && held.is_none() && mark == self::mark(7));
        assert!(disk.sealed.lock().unwrap().0 == b"fresh");
    }

    #[tokio::test]
    async fn what_two_tokens_have_given_is_known_apart() {
        let ((disk, name, mut one), mut other) = (full(), Some(Fetched::new(Secret::copy_of(b"other"), mark(2))));
        let (_, first) = sealed(&mut one, &disk, &name).await.unwrap();
        *disk.sealed.lock().unwrap() = (b"wrapping too", 2);
        let (_, second) = sealed(&mut other, &disk, &"approle-2".parse().unwrap()).await.unwrap();
        assert_ne!(first, second);
    }
}
