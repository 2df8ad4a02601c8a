//! What `nodeseald` does in its days.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, SockaddrIn, connect, send, socket};

use crate::{Ground, Probe, Tried};

pub(crate) const ALL: &[(&str, Probe)] = &[
    ("files-of-the-state-directory", files),
    ("a-port-that-is-declared", port),
    ("a-port-of-an-address-of-version-6", port_of_version_6),
    ("a-datagram-to-a-name-server", datagram),
    ("threads-and-time", threads),
    ("randomness-and-locked-pages", pages),
    ("users", users),
    ("names-of-machines", names),
    ("a-client-on-a-unix-socket", unix),
    ("event-loop-and-signals", event_loop),
    ("abort", |_| std::process::abort()),
];

pub(crate) fn find(name: &str) -> Option<Probe> {
    ALL.iter().find(|(known, _)| *known == name).map(|(_, probe)| *probe)
}

fn files(ground: &Ground) -> Tried {
    let folder = ground.state.join("keyring");
    fs::create_dir(&folder)?;
    let [new, at, prev] = ["k.new", "k", "k.prev"].map(|name| folder.join(name));
    let mut file = File::create(&new)?;
    file.write_all(b"x")?;
    file.sync_all()?;
    fs::rename(&new, &at)?;
    fs::hard_link(&at, &prev)?;
    File::open(&folder)?.sync_all()?;
    let prev_file = File::open(&prev)?;
    posix_fadvise(&prev_file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    assert_eq!(fs::read(&prev)?, b"x");
    assert_eq!(fs::read_dir(&folder)?.count(), 2);
    fs::remove_file(&prev)?;
    Ok(())
}

fn port(ground: &Ground) -> Tried {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, ground.port))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    Ok(stream.write_all(b"x")?)
}

/// Nobody listens there, and a machine may have no such addresses: whatever comes of it, the call is there.
fn port_of_version_6(ground: &Ground) -> Tried {
    match TcpStream::connect((Ipv6Addr::LOCALHOST, ground.port)) {
        Err(error) if error.raw_os_error() == Some(nix::libc::ENOSYS) => Err(error.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// As libc's resolver does it: nothing is bound.
fn datagram(_: &Ground) -> Tried {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    connect(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 53))?;
    assert_eq!(send(socket.as_raw_fd(), b"x", MsgFlags::empty())?, 1);
    Ok(())
}

fn threads(_: &Ground) -> Tried {
    let started = Instant::now();
    let threads: Vec<_> = (0..4).map(|_| thread::spawn(|| thread::sleep(Duration::from_millis(1)))).collect();
    thread::yield_now();
    for thread in threads {
        thread.join().map_err(|_| "a thread failed")?;
    }
    assert!(started.elapsed() > Duration::ZERO && std::time::SystemTime::now() > std::time::UNIX_EPOCH);
    Ok(())
}

fn pages(_: &Ground) -> Tried {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    let key = nodeseal::types::Key::copy_of(&bytes).ok_or("32 bytes")?;
    let key = nodeseal::sandbox::memory::LockedKey::new(key)?;
    assert_eq!(key.expose(), &bytes);
    Ok(())
}

fn users(_: &Ground) -> Tried {
    let root = nix::unistd::User::from_name("root")?.ok_or("there is a root")?;
    assert!(root.uid.is_root());
    // All sources are asked, and none of them is an error because its library could not be loaded.
    assert!(nix::unistd::User::from_name("nobody-has-this-name")?.is_none());
    Ok(())
}

/// Whether anybody answers is not the question: a resolver that asks comes to its end.
fn names(_: &Ground) -> Tried {
    use std::net::ToSocketAddrs;
    assert!(("localhost", 1).to_socket_addrs()?.count() > 0);
    match ("nodeseal.invalid", 1).to_socket_addrs() {
        Err(error) if error.to_string().contains("not implemented") => Err(error.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn unix(ground: &Ground) -> Tried {
    // Where a daemon listens was opened before: here the pair stands for it.
    let (mut ours, mut theirs) = UnixStream::pair()?;
    ours.write_all(b"x")?;
    let mut byte = [0; 1];
    theirs.read_exact(&mut byte)?;
    // And none is made later.
    assert!(UnixListener::bind(ground.state.join("socket")).is_err());
    Ok(())
}

fn event_loop(_: &Ground) -> Tried {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let _hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        tokio::time::sleep(Duration::from_millis(1)).await;
        tokio::task::spawn_blocking(|| ()).await.map_err(std::io::Error::other)?;
        Ok::<_, std::io::Error>(())
    })?;
    Ok(())
}
