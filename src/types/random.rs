//! The kernel's random generator (`getrandom(2)`), the only source of keys, ids and nonces.

/// The kernel gave no randomness. Nothing is made from anything less.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's random generator failed")]
pub struct RandomError(#[source] getrandom::Error);

/// Fills all of `bytes`.
#[cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "here it belongs"))]
pub fn fill(bytes: &mut [u8]) -> Result<(), RandomError> {
    #[cfg(test)]
    if drawn::fill(bytes) {
        return Ok(());
    }
    getrandom::fill(bytes).map_err(RandomError)
}

/// An array of `N` random bytes that are not secret (ids, nonces).
pub fn array<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}

/// Work for another thread.
///
/// What it draws in tests is what it would draw here (`drawn`).
pub fn carried<T>(work: impl FnOnce() -> T) -> impl FnOnce() -> T {
    #[cfg(test)]
    let draws = drawn::part();
    move || {
        #[cfg(test)]
        drawn::from(draws);
        work()
    }
}

/// Draws that can be had again, on threads of a test that ask for them: what two runs do alike is alike to the last byte.
#[cfg(test)]
pub(crate) mod drawn {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use sha2::{Digest, Sha256};

    thread_local!(static HERE: RefCell<Option<Draws>> = const { RefCell::new(None) });

    /// A line of draws that depends on nothing but how it began. Its parts are lines of their own.
    pub(crate) struct Draws {
        seed: [u8; 32],
        drawn: u64,
        parts: u64,
    }

    impl Draws {
        pub(crate) fn of(name: &str) -> Self {
            Self { seed: Sha256::digest(name).into(), drawn: 0, parts: 0 }
        }

        fn next(&mut self, what: u8, number: u64) -> [u8; 32] {
            Sha256::new()
                .chain_update(self.seed)
                .chain_update([what])
                .chain_update(number.to_le_bytes())
                .finalize()
                .into()
        }
    }

    /// All draws of this thread come from here on from this line; from the kernel with `None`. Returns the one until now.
    pub(crate) fn from(draws: Option<Draws>) -> Option<Draws> {
        HERE.replace(draws)
    }

    /// For a thread that this one starts.
    pub(crate) fn part() -> Option<Draws> {
        HERE.with_borrow_mut(|here| {
            let draws = here.as_mut()?;
            draws.parts += 1;
            let seed = draws.next(1, draws.parts);
            Some(Draws { seed, drawn: 0, parts: 0 })
        })
    }

    /// What another library makes of `plain` with draws of its own: made once for each draw of this line, and then remembered.
    pub(crate) fn alike<E>(plain: &[u8], make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
        static MADE: Mutex<BTreeMap<[u8; 32], Vec<u8>>> = Mutex::new(BTreeMap::new());
        let made = || MADE.lock().unwrap();
        let mut place = [0; 32];
        if !fill(&mut place) {
            return make();
        }
        let place = Sha256::new().chain_update(place).chain_update(plain).finalize().into();
        if let Some(made) = made().get(&place) {
            return Ok(made.clone());
        }
        let result = make()?;
        // Two at once would give two answers.
        Ok(made().entry(place).or_insert(result).clone())
    }

    pub(super) fn fill(bytes: &mut [u8]) -> bool {
        HERE.with_borrow_mut(|here| {
            let Some(draws) = here.as_mut() else { return false };
            for part in bytes.chunks_mut(32) {
                draws.drawn += 1;
                let drawn = draws.next(0, draws.drawn);
                part.copy_from_slice(&drawn[..part.len()]);
            }
            true
        })
    }
}
