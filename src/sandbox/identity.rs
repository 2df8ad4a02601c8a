//! Who the process is: from root to the configured user with the groups that it needs and no other, and no capability in any set.
//!
//! Without a configured user the user stays as it is. Capabilities go in any case: a daemon that stays root is then a user whose
//! number is 0, which owns root's files and overrides nobody's. Whoever is unprivileged already is left as it is.

use std::ffi::CString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, chown};
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};
use nix::unistd::{Gid, Uid, geteuid, getgrouplist, setgroups, setresgid, setresuid};

use super::needs::Needs;
use crate::types::{Class, Explained};

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
    /// Nobody to make the state directory for.
    #[error("{dir} does not exist, and neither does the user `nodeseal` to create it for: install -d -m 0700 -o USER -g USER {dir}", dir = state_dir.display())]
    NoOwner {
        /// Which one.
        state_dir: PathBuf,
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
    /// Of the state directory that is to be there before root is given up.
    #[error("cannot make the state directory")]
    Folder(#[source] io::Error),
    /// Root could be had back.
    #[error("root can be regained after the change of user")]
    Returned,
}

impl Explained for IdentityError {
    fn class(&self) -> Class {
        Class::Denied
    }

    fn hint(&self) -> &str {
        match self {
            Self::NoOwner { .. } => {
                "make the directory with that command for the user that nodeseald runs as, or name the user as `user` under [sandbox]"
            }
            _ => "give the state directory to the user of the service, mode 0700, and run this as root or as that user",
        }
    }
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

/// For the operator's tool: as root, becomes who owns the state directory, with all groups of that user, so that what it makes there
/// belongs to the service. Without a directory, or unprivileged: no change.
pub fn become_owner(state_dir: &Path) -> Result<(), IdentityError> {
    let found = match state_dir.metadata() {
        Ok(found) if geteuid().is_root() => found,
        // Whoever opens the directory says what is wrong with it.
        Ok(_) | Err(_) => return Ok(()),
    };
    let user = owner(found.uid(), found.gid())?;
    match user.uid {
        0 => Ok(()),
        _ => become_user(&user, &all_groups(&user)?),
    }
}

/// The same for a tool that sets a node up: as root, it makes a directory that is not there, for the configured user or for the one
/// of our packages. Refuses where neither exists, so that nothing of root's comes to lie where the service is to write.
pub fn make_for_owner(state_dir: &Path, configured: Option<&User>) -> Result<(), IdentityError> {
    let is_missing = state_dir.metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    if is_missing && geteuid().is_root() {
        let user = match configured {
            Some(user) => user.clone(),
            None => packaged()?.ok_or_else(|| IdentityError::NoOwner { state_dir: state_dir.to_owned() })?,
        };
        DirBuilder::new().mode(0o700).create(state_dir).map_err(IdentityError::Folder)?;
        chown(state_dir, Some(user.uid), Some(user.gid)).map_err(IdentityError::Folder)?;
    }
    become_owner(state_dir)
}

/// systemd/nodeseal.sysusers
const PACKAGED: &str = "nodeseal";

fn packaged() -> Result<Option<User>, IdentityError> {
    let fail = |source| IdentityError::User { what: "look up the user nodeseal", source };
    let known = nix::unistd::User::from_name(PACKAGED).map_err(fail)?;
    Ok(known.map(|user| User { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() }))
}

/// A number without a name has its first group alone.
fn owner(uid: u32, gid: u32) -> Result<User, IdentityError> {
    let fail = |source| IdentityError::User { what: "look up the owner of the state directory", source };
    let known = nix::unistd::User::from_uid(Uid::from_raw(uid)).map_err(fail)?;
    Ok(known.map_or(User { name: String::new(), uid, gid }, |user| User {
        name: user.name,
        uid,
        gid: user.gid.as_raw(),
    }))
}

fn all_groups(user: &User) -> Result<Vec<Gid>, IdentityError> {
    let gid = Gid::from_raw(user.gid);
    match CString::new(user.name.as_str()) {
        Ok(name) if !name.is_empty() => getgrouplist(&name, gid)
            .map_err(|source| IdentityError::User { what: "look up the groups of the user", source }),
        Ok(_) | Err(_) => Ok(vec![gid]),
    }
}

/// Of the user's groups those that own something which is declared: `tss` for the TPM, a vendor's for its token.
fn groups(user: &User, needs: &Needs) -> Result<Vec<Gid>, IdentityError> {
    let all = all_groups(user)?;
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
