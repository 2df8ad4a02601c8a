//! Landlock: files by path, TCP by port, signals and abstract sockets by process. What is not declared is refused by the kernel.
//!
//! Restricts the calling thread and those that it starts later, so it comes before any other thread. A kernel that knows only a part
//! of it enforces that part; whether that is enough is the caller's affair.

use std::path::PathBuf;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, NetPort, PathBeneath,
    PathFd, RulesetStatus, Scope,
};
use landlock::{Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError};

use super::granted::{Granted, place};
use super::needs::{Access, DNS, Needs, PathNeed};

/// Linux 6.12: files, truncation, TCP ports, ioctls of devices, scope of signals and abstract sockets. With these it is whole.
const WANTED: ABI = ABI::V6;
/// From here on also connections to unix sockets by their path,
const SOCKETS: ABI = ABI::V9;
/// and from here on datagrams.
const DATAGRAMS: ABI = ABI::V10;

/// How far the kernel went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Full,
    Part,
    None,
}

pub(super) struct Outcome {
    pub(super) level: Level,
    /// That of the kernel as far as it is known here; 0 without Landlock.
    pub(super) abi: u8,
    pub(super) granted: Option<Granted>,
}

/// See the module.
pub(super) fn restrict(needs: &Needs) -> Result<Outcome, RulesetError> {
    // Nobody listens, whatever is connected to.
    let network = if needs.any_port { AccessNet::BindTcp.into() } else { AccessNet::from_all(WANTED) };
    let network = network | AccessNet::BindUdp | AccessNet::ConnectSendUdp;
    let sockets = if needs.any_socket { BitFlags::EMPTY } else { AccessFs::ResolveUnix.into() };
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WANTED) | sockets)?
        .handle_access(network)?
        .scope(Scope::from_all(WANTED))?
        .create()?;
    let mut granted = Granted { paths: Vec::new(), ..Granted::all(needs) };
    let above = |path: &PathBuf| PathNeed {
        path: path.clone(),
        access: Access::Read,
        why: "folders that are created again in it",
    };
    for need in needs.paths.iter().cloned().chain(needs.above.iter().map(above)) {
        // What is not there cannot be given, and is said by whoever wants to use it.
        let Ok(at) = PathFd::new(&need.path) else { continue };
        let access =
            if need.path.is_dir() { rights(need.access) } else { rights(need.access) & AccessFs::from_file(WANTED) };
        rules = rules.add_rule(PathBeneath::new(at, access))?;
        granted.places.extend(place(&need.path).map(|place| (need.path.clone(), place)));
        granted.paths.push(need);
    }
    for port in needs.ports.iter().filter(|_| !needs.any_port) {
        rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
    }
    for socket in needs.sockets.iter().chain(&needs.sockets_above).filter(|_| !needs.any_socket) {
        let Ok(at) = PathFd::new(socket) else { continue };
        rules = rules.add_rule(PathBeneath::new(at, AccessFs::ResolveUnix))?;
        granted.places.extend(place(socket).map(|place| (socket.clone(), place)));
        granted.sockets.get_or_insert_default().insert(socket.clone());
    }
    if needs.name_servers {
        // From a port that the kernel chooses. To port 0 goes no datagram: libc's resolver asks so which address it would be sent from.
        for port in [DNS, 0] {
            rules = rules.add_rule(NetPort::new(port, AccessNet::ConnectSendUdp))?;
        }
        rules = rules.add_rule(NetPort::new(0, AccessNet::BindUdp))?;
    }
    let status = rules.restrict_self()?;
    let abi = match status.landlock {
        LandlockStatus::Available { effective_abi, .. } => effective_abi as u8,
        LandlockStatus::NotEnabled | LandlockStatus::NotImplemented => 0,
    };
    let level = match status.ruleset {
        RulesetStatus::FullyEnforced => Level::Full,
        // Of what is asked for beside the level that is wanted, the kernel does what it knows.
        RulesetStatus::PartiallyEnforced if abi >= WANTED as u8 => Level::Full,
        RulesetStatus::PartiallyEnforced => Level::Part,
        RulesetStatus::NotEnforced => Level::None,
    };
    if needs.any_port || abi < ABI::V4 as u8 {
        granted.ports = None;
    }
    if needs.any_socket || abi < SOCKETS as u8 {
        granted.sockets = None;
    }
    granted.name_servers |= abi < DATAGRAMS as u8;
    Ok(Outcome { level, abi, granted: (level != Level::None).then_some(granted) })
}

fn rights(access: Access) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    match access {
        Access::Read => read,
        Access::Device => AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev,
        Access::Keep => {
            read | AccessFs::WriteFile
                | AccessFs::Truncate
                | AccessFs::MakeReg
                | AccessFs::MakeDir
                | AccessFs::RemoveFile
                | AccessFs::RemoveDir
                | AccessFs::Refer
        }
    }
}
