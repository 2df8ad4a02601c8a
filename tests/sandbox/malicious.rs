//! What an intruder in a daemon would try. Each with safe calls of libraries; what only unsafe code can try is in the policy alone.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, connect, socket};
use nix::unistd::{Gid, Pid, Uid};

use crate::{Ground, Probe, Tried};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// seccomp ends the process.
    Fatal,
    /// seccomp knows it not, where there is a list of what is known.
    ByList,
    /// Landlock says no.
    ByRule,
    /// Landlock says no from this ABI on.
    ByLaterRule(u8),
}

use How::{ByLaterRule, ByList, ByRule, Fatal};

pub(crate) const ALL: &[(&str, How, Probe)] = &[
    ("execve", Fatal, |_| Err(Command::new("/bin/true").exec().into())),
    ("ptrace", Fatal, |ground| Ok(nix::sys::ptrace::attach(Pid::from_raw(ground.parent))?)),
    ("process-memory", Fatal, |ground| {
        let mut byte = [0];
        let mut local = [std::io::IoSliceMut::new(&mut byte)];
        let remote = [nix::sys::uio::RemoteIoVec { base: 4096, len: 1 }];
        nix::sys::uio::process_vm_readv(Pid::from_raw(ground.parent), &mut local, &remote)?;
        Ok(())
    }),
    ("mount", Fatal, |_| {
        let none: Option<&str> = None;
        Ok(nix::mount::mount(none, "/nonexistent", none, nix::mount::MsFlags::MS_BIND, none)?)
    }),
    ("umount", Fatal, |_| Ok(nix::mount::umount2("/nonexistent", nix::mount::MntFlags::MNT_DETACH)?)),
    ("unshare", Fatal, |_| Ok(nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER)?)),
    ("setns", Fatal, |_| Ok(nix::sched::setns(std::io::stdin(), nix::sched::CloneFlags::empty())?)),
    ("chroot", Fatal, |_| Ok(nix::unistd::chroot("/nonexistent")?)),
    ("pivot-root", Fatal, |_| Ok(nix::unistd::pivot_root("/nonexistent", "/nonexistent")?)),
    ("setuid", Fatal, |_| Ok(nix::unistd::setuid(Uid::from_raw(0))?)),
    ("setgid", Fatal, |_| Ok(nix::unistd::setgid(Gid::from_raw(0))?)),
    ("setgroups", Fatal, |_| Ok(nix::unistd::setgroups(&[])?)),
    ("sethostname", Fatal, |_| Ok(nix::unistd::sethostname("longer-than-any-name-of-a-machine-".repeat(10))?)),
    ("personality", Fatal, |_| {
        nix::sys::personality::set(nix::sys::personality::get()?)?;
        Ok(())
    }),
    ("init-module", Fatal, |_| Ok(nix::kmod::init_module(b"", c"")?)),
    ("accounting", Fatal, |_| Ok(nix::unistd::acct::enable("/nonexistent")?)),
    ("capabilities", ByList, |_| Ok(caps::set(None, caps::CapSet::Inheritable, &caps::CapsHashSet::new())?)),
    ("spawn", ByList, |_| {
        Command::new("/bin/true").status()?;
        Ok(())
    }),
    ("netlink", ByList, |_| {
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::empty(), None)?;
        Ok(())
    }),
    ("memory-file", ByList, |_| {
        nix::sys::memfd::memfd_create(c"x", nix::sys::memfd::MFdFlags::empty())?;
        Ok(())
    }),
    ("code-that-was-written", ByList, |_| {
        let page = memmap2::MmapMut::map_anon(4096)?;
        page.make_exec()?;
        Ok(())
    }),
    ("listen-on-tcp", ByRule, |_| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        Ok(())
    }),
    ("another-port", ByRule, |ground| {
        TcpStream::connect((Ipv4Addr::LOCALHOST, ground.other_port))?;
        Ok(())
    }),
    ("another-file", ByRule, |ground| {
        fs::read(ground.outside.join("file"))?;
        Ok(())
    }),
    ("list-another-folder", ByRule, |ground| {
        fs::read_dir(&ground.outside)?;
        Ok(())
    }),
    ("write-another-file", ByRule, |ground| Ok(fs::write(ground.outside.join("new"), "x")?)),
    ("shorten-another-file", ByRule, |ground| Ok(nix::unistd::truncate(&ground.outside.join("file"), 0)?)),
    ("remove-another-file", ByRule, |ground| Ok(fs::remove_file(ground.outside.join("file"))?)),
    ("signal-another-process", ByRule, |ground| Ok(nix::sys::signal::kill(Pid::from_raw(ground.parent), None)?)),
    ("abstract-socket", ByRule, |ground| abstract_socket(ground)),
    ("socket-of-another-program", ByLaterRule(9), |ground| {
        UnixStream::connect(ground.outside.join("socket"))?;
        Ok(())
    }),
    ("datagram-to-another-port", ByLaterRule(10), |ground| {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        connect(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, ground.other_port))?;
        Ok(())
    }),
];

pub(crate) fn find(name: &str) -> Option<Probe> {
    ALL.iter().find(|(known, _, _)| *known == name).map(|(_, _, probe)| *probe)
}

/// To one that is outside of the confinement: the parent's, named after it.
fn abstract_socket(ground: &Ground) -> Tried {
    let name = |pid: u32| SocketAddr::from_abstract_name(format!("nodeseal-probe-{pid}"));
    let own = std::process::id();
    // Without a confinement the test program is its own parent here.
    let _listener = UnixListener::bind_addr(&name(own)?);
    let pid = if std::env::var_os(crate::VARIABLE).is_some() { u32::try_from(ground.parent)? } else { own };
    UnixStream::connect_addr(&name(pid)?)?;
    Ok(())
}
