//! What both daemons do to themselves first: no core dumps, no tracing by others of the same user, no new privileges.

use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct HardenError {
    what: &'static str,
    #[source]
    source: nix::Error,
}

/// Core limit 0, not dumpable (which also keeps ptrace of other processes of the user away), no_new_privs.
pub fn harden() -> Result<(), HardenError> {
    let step = |what, result: nix::Result<()>| result.map_err(|source| HardenError { what, source });
    step("set the core limit to 0", setrlimit(Resource::RLIMIT_CORE, 0, 0))?;
    step("make the process non-dumpable", prctl::set_dumpable(false))?;
    step("set no_new_privs", prctl::set_no_new_privs())
}

/// Raises the soft limit of descriptors to the hard one and returns it. 2,000 idle connections must lock nobody out.
pub fn raise_descriptor_limit() -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    }
}
