//! What the process keeps others from, and what it keeps itself from: memory, core dumps, user, capabilities, files, network, calls.
//!
//! [`confine`] is called once by each daemon, with everything opened that needs more and before any thread exists: filters and rules
//! hold for the thread that asks for them and for what it starts later. It gives a [`Confined`], which whoever serves asks for, so that
//! there is no way to serve without it.
//!
//! Knows no component: each declares its [`Needs`], and the daemon puts them together.

mod granted;
mod identity;
mod landlock;
mod libraries;
pub mod memory;
mod needs;
pub mod process;
mod raw;
mod seccomp;

use std::fmt;
use std::sync::Arc;

use crate::types::{Class, Explained};
use serde::{Deserialize, Serialize};

pub use granted::{Granted, Lack, Lost};
pub use identity::{IdentityError, User, become_owner, make_for_owner};
pub use memory::Protection;
pub use needs::{Access, Needs, PathNeed};
pub use seccomp::{Policy, SeccompError};

/// How much is asked of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// What the kernel has; what it lacks is reported.
    #[default]
    BestEffort,
    /// All of it, or no start.
    Require,
    /// No Landlock and no seccomp. For finding out whether they are to blame.
    Off,
}

/// Of `[sandbox]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// See [`Mode`].
    pub mode: Mode,
    /// Whom root becomes; absent: the user stays.
    pub user: Option<User>,
    /// What every kind of provider may need is given from the start, for providers that come by a reload.
    pub any_provider: bool,
    /// TCP ports that `nodeseald` may connect to beside those of the configured providers: for providers that come by a reload.
    pub allow_ports: Vec<u16>,
    /// Files and folders that `nodeseald` may read beside those that are configured.
    pub allow_paths: Vec<std::path::PathBuf>,
}

/// What holds for this process, for log and status. Fields are only ever added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {
    /// Effective.
    pub uid: u32,
    /// No capability in the effective or permitted set.
    pub no_capabilities: bool,
    /// `full`, `partial`, `none` or `off`.
    pub landlock: String,
    /// The kernel's, as far as this release knows it; 0 without Landlock.
    pub landlock_abi: u8,
    /// The name of the policy, `none` or `off`.
    pub seccomp: String,
    /// What keeps the pages of keys from others, of the weakest; unknown where none are kept, and in an older release.
    #[serde(default)]
    pub memory: Option<Protection>,
}

impl Enforced {
    /// Everything that this release knows of is in force.
    pub fn is_whole(&self) -> bool {
        self.no_capabilities && self.landlock == "full" && self.seccomp != "none" && self.seccomp != OFF
    }
}

impl fmt::Display for Enforced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, no_capabilities, landlock, landlock_abi, seccomp, memory } = self;
        let capabilities = if *no_capabilities { "no capabilities" } else { "with capabilities" };
        write!(f, "uid {uid}, {capabilities}, landlock {landlock} (ABI {landlock_abi}), seccomp {seccomp}")?;
        memory.map_or(Ok(()), |memory| write!(f, ", {memory} memory for keys"))
    }
}

/// The proof. Nobody but [`confine`] makes one.
#[derive(Clone, Debug)]
pub struct Confined {
    enforced: Enforced,
    granted: Option<Arc<Granted>>,
}

impl Confined {
    /// What was reached.
    pub fn enforced(&self) -> &Enforced {
        &self.enforced
    }

    /// The same with the memory of keys as it is now: pages that were needed later may be weaker.
    pub fn enforced_now(&self) -> Enforced {
        let memory = self.enforced.memory.and_then(|_| memory::weakest());
        Enforced { memory, ..self.enforced.clone() }
    }

    /// All of these needs that there is no room for; none where Landlock is not in force.
    pub fn lacks(&self, needs: &Needs) -> Option<Lack> {
        self.granted.as_ref()?.lacks(needs)
    }

    /// Those of these needs that were given and have become something else since: see [`Granted::lost`].
    pub fn lost(&self, needs: &Needs) -> Option<Lost> {
        self.granted.as_ref()?.lost(needs)
    }
}

/// Why the process must not serve.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// It keeps rights that it was to lose.
    #[error("the privileges cannot be dropped")]
    Identity(#[source] IdentityError),
    /// It was required.
    #[error("`sandbox.mode` is \"require\", and Landlock is enforced {0}")]
    Landlock(&'static str),
    /// A mistake in the rules, or the kernel is out of memory.
    #[error("the rules of Landlock cannot be set")]
    Rules(#[source] ::landlock::RulesetError),
    /// It was required.
    #[error("`sandbox.mode` is \"require\", and the filter of system calls is not in force")]
    Seccomp(#[source] SeccompError),
}

impl Explained for SandboxError {
    fn class(&self) -> Class {
        Class::Misconfigured
    }

    fn hint(&self) -> &str {
        match self {
            Self::Identity(_) => {
                "start it as root or as the user that `sandbox.user` names, and see the unit's SystemCallFilter"
            }
            Self::Landlock(_) => {
                "full enforcement needs Linux 6.12 with `landlock` in /sys/kernel/security/lsm: write mode = \"best-effort\" on others"
            }
            Self::Rules(_) => "see the unit's SystemCallFilter and the kernel's log",
            Self::Seccomp(_) => {
                "x86-64 or aarch64 with CONFIG_SECCOMP_FILTER is needed: write mode = \"best-effort\" on others"
            }
        }
    }
}

/// Irrevocable. Drops the user and all capabilities, then sets Landlock, then seccomp.
pub fn confine(settings: &Settings, needs: &Needs, policy: Policy) -> Result<Confined, SandboxError> {
    let Settings { mode, user, any_provider: _, allow_ports: _, allow_paths: _ } = settings;
    if policy == Policy::Daemon && *mode != Mode::Off {
        libraries::load();
    }
    identity::drop_privileges(user.as_ref(), needs).map_err(SandboxError::Identity)?;
    // Read while the calls for it are still there.
    let no_capabilities = [caps::CapSet::Effective, caps::CapSet::Permitted]
        .into_iter()
        .all(|set| caps::read(None, set).is_ok_and(|held| held.is_empty()));
    let mut enforced = Enforced {
        uid: nix::unistd::geteuid().as_raw(),
        no_capabilities,
        landlock: OFF.to_owned(),
        landlock_abi: 0,
        seccomp: OFF.to_owned(),
        memory: None,
    };
    if *mode == Mode::Off {
        enforced.memory = memory_of(policy);
        return Ok(Confined { enforced, granted: None });
    }
    // Who starts sealers has none: they inherit his rules, and read their needs from the configuration as it is by then.
    let mut granted = None;
    if policy != Policy::Starter {
        let outcome = landlock::restrict(needs).map_err(SandboxError::Rules)?;
        let level = match outcome.level {
            landlock::Level::Full => "full",
            landlock::Level::Part => "partial",
            landlock::Level::None => "none",
        };
        if *mode == Mode::Require && outcome.level != landlock::Level::Full {
            return Err(SandboxError::Landlock(level));
        }
        level.clone_into(&mut enforced.landlock);
        enforced.landlock_abi = outcome.abi;
        granted = outcome.granted.map(Arc::new);
    }
    policy.label().clone_into(&mut enforced.seccomp);
    match seccomp::restrict(policy) {
        Ok(()) => {}
        Err(error) if *mode == Mode::Require => return Err(SandboxError::Seccomp(error)),
        Err(_) => "none".clone_into(&mut enforced.seccomp),
    }
    enforced.memory = memory_of(policy);
    Ok(Confined { enforced, granted })
}

/// Under the filter, which later pages are made under as well. A sealer keeps no key longer than an answer takes.
fn memory_of(policy: Policy) -> Option<Protection> {
    match policy {
        // No page now is none later either: the keeper says so.
        Policy::Daemon => memory::reserve().ok(),
        Policy::TpmSealer | Policy::ModuleSealer | Policy::Starter => None,
    }
}

const OFF: &str = "off";
