//! The kernel's random generator (`getrandom(2)`), the only source of keys, ids and nonces.

/// The kernel gave no randomness. Nothing is made from anything less.
#[derive(Debug, thiserror::Error)]
#[error("the kernel's random generator failed")]
pub struct RandomError(#[source] getrandom::Error);

/// Fills all of `bytes`.
#[cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "here it belongs"))]
pub fn fill(bytes: &mut [u8]) -> Result<(), RandomError> {
    getrandom::fill(bytes).map_err(RandomError)
}

/// An array of `N` random bytes that are not secret (ids, nonces).
pub fn array<const N: usize>() -> Result<[u8; N], RandomError> {
    let mut bytes = [0; N];
    fill(&mut bytes)?;
    Ok(bytes)
}
