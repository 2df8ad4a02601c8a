//! Who the process is: from root to the configured user with the groups that it needs and no other, and no capability in any set.
//!
//! Without a configured user the user stays as it is. Capabilities go in any case: a daemon that stays root is then a user whose
//! number is 0, which owns root's files and overrides nobody's. Whoever is unprivileged already is left as it is.

use std::ffi::CString;
use std::os::unix::fs::MetadataExt;

use caps::{CapSet, Capability};
use nix::unistd::{Gid, Uid, geteuid, getgrouplist, setgroups, setresgid, setresuid};

use super::needs::Needs;

/// A user that the machine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// For the log, and to find the groups.
    pub name: String,
    /// Its number, never 0.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
}

/// The process keeps rights that it was to lose, so it must not go on.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Of capabilities.
    #[error("cannot empty the {set:?} set of capabilities")]
    Capabilities {
        /// Which.
        set: CapSet,
        /// Why.
        #[source]
        source: caps::errors::CapsError,
    },
    /// It runs as a third one.
    #[error("runs as uid {runs}, and `sandbox.user` is {user}")]
    OtherUser {
        /// Effective.
        runs: u32,
        /// By the configuration.
        user: String,
    },
    /// Of user or groups.
    #[error("cannot {what}")]
    User {
        /// The step.
        what: &'static str,
        /// The kernel's reason.
        #[source]
        source: nix::Error,
    },
    /// Root could be had back.
    #[error("root can be had back after the change of user")]
    Returned,
}

/// See the module.
pub(super) fn drop_privileges(user: Option<&User>, needs: &Needs) -> Result<(), IdentityError> {
    match user {
        Some(user) if geteuid().is_root() => {
            // While CAP_SETPCAP is still there.
            empty(CapSet::Bounding)?;
            become_user(user, &groups(user, needs)?)?;
        }
        Some(user) if geteuid().as_raw() != user.uid => {
            return Err(IdentityError::OtherUser { runs: geteuid().as_raw(), user: user.name.clone() });
        }
        Some(_) | None => {}
    }
    empty(CapSet::Bounding)?;
    // The order of capabilities(7): ambient is part of both others, effective of permitted.
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        empty(set)?;
    }
    Ok(())
}

/// Of the user's groups those that own something which is declared: `tss` for the TPM, a vendor's for its token.
fn groups(user: &User, needs: &Needs) -> Result<Vec<Gid>, IdentityError> {
    let name = CString::new(user.name.as_str()).unwrap_or_default();
    let all = getgrouplist(&name, Gid::from_raw(user.gid))
        .map_err(|source| IdentityError::User { what: "look up the groups of the user", source })?;
    let owners: Vec<u32> = needs.paths.iter().filter_map(|need| Some(need.path.metadata().ok()?.gid())).collect();
    Ok(all.into_iter().filter(|gid| gid.as_raw() == user.gid || owners.contains(&gid.as_raw())).collect())
}

fn become_user(user: &User, groups: &[Gid]) -> Result<(), IdentityError> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    let step = |what, result: nix::Result<()>| result.map_err(|source| IdentityError::User { what, source });
    step("set the groups", setgroups(groups))?;
    step("set the group", setresgid(gid, gid, gid))?;
    step("set the user", setresuid(uid, uid, uid))?;
    match nix::unistd::setuid(Uid::from_raw(0)) {
        Ok(()) => Err(IdentityError::Returned),
        Err(_) => Ok(()),
    }
}

/// Nothing is asked of the kernel for a set that is empty already: the call itself may be forbidden to who needs it no more.
fn empty(set: CapSet) -> Result<(), IdentityError> {
    let fail = |source| IdentityError::Capabilities { set, source };
    let held = caps::read(None, set).map_err(fail)?;
    let may = !matches!(set, CapSet::Bounding)
        || caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(fail)?;
    match held.is_empty() || !may {
        // A bounding set that an unprivileged process cannot empty gives it nothing either: no_new_privs is set.
        true => Ok(()),
        false => caps::clear(None, set).map_err(fail),
    }
}
