//! The software TPM of `nodeseal dev`: swtpm on two neighbouring ports of the loopback address, its state in `tpm/`.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use toml::{Table, Value};

use super::child;
use super::layout::{Layout, open_log};
use crate::types::{Class, Explained, random};

/// swtpm answers within milliseconds; a loaded machine gets more.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Below the kernel's range for outgoing connections (32768 and up), so that the ports are free again after a restart.
const PORTS: Range<u16> = 11_000..31_000;
/// Somebody else may take a port between our look and swtpm's bind.
const PORT_TRIES: u32 = 20;

#[derive(Debug, thiserror::Error)]
pub(super) enum SwtpmError {
    #[error("swtpm did not answer")]
    Silent,
    #[error("cannot run swtpm")]
    Spawn(#[source] io::Error),
}

impl Explained for SwtpmError {
    fn class(&self) -> Class {
        Class::Unavailable
    }

    fn hint(&self) -> &str {
        match self {
            Self::Silent => "see log/swtpm.log in the folder",
            Self::Spawn(_) => "install the packages swtpm and libtss2-tcti-swtpm0",
        }
    }
}

pub(super) struct Swtpm {
    process: Child,
    port: u16,
}

impl Swtpm {
    /// Starts it on a free pair of ports.
    pub(super) fn start(layout: &Layout) -> Result<Self, SwtpmError> {
        for _ in 0..PORT_TRIES {
            if let Some(port) = free_pair()
                && let Some(swtpm) = Self::start_on(layout, port)?
            {
                return Ok(swtpm);
            }
        }
        Err(SwtpmError::Silent)
    }

    /// `[seal.tpm2]`.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        table.insert("device".into(), Value::String(format!("swtpm:port={}", self.port)));
        table.insert("allow_software_tpm".into(), Value::Boolean(true));
        table
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Turns it off and on again. It has no resource manager: what a killed sealer left in its slots would stay there.
    pub(super) fn power_cycle(&mut self, layout: &Layout) -> Result<(), SwtpmError> {
        self.stop();
        self.keep(layout)
    }

    /// Starts it again on the same ports, which the configuration names, if it has ended.
    pub(super) fn keep(&mut self, layout: &Layout) -> Result<(), SwtpmError> {
        if matches!(self.process.try_wait(), Ok(None)) {
            return Ok(());
        }
        for _ in 0..PORT_TRIES {
            if let Some(again) = Self::start_on(layout, self.port)? {
                *self = again;
                return Ok(());
            }
        }
        Err(SwtpmError::Silent)
    }

    pub(super) fn stop(&mut self) {
        // swtpm keeps its permanent state on disk at all times; SIGTERM ends it cleanly.
        let pid = i32::try_from(self.process.id()).unwrap_or_default();
        if pid > 0 && matches!(self.process.try_wait(), Ok(None)) {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM);
            let _ = self.process.wait();
        }
    }

    /// `None` if it ended at once: the ports were taken.
    fn start_on(layout: &Layout, port: u16) -> Result<Option<Self>, SwtpmError> {
        let log = open_log(&layout.log_path("swtpm")).map_err(SwtpmError::Spawn)?;
        let mut process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear"])
            .arg("--tpmstate")
            .arg(format!("dir={},mode=0600", layout.tpm().display()))
            .args(["--server", &format!("type=tcp,port={port},bindaddr=127.0.0.1")])
            // libtss2's TCTI for swtpm looks for the control channel on the next port.
            .args(["--ctrl", &format!("type=tcp,port={},bindaddr=127.0.0.1", port + 1)])
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(SwtpmError::Spawn)?)
            .stderr(log)
            .spawn()
            .map_err(SwtpmError::Spawn)?;
        let give_up = Instant::now() + START_TIMEOUT;
        while Instant::now() < give_up {
            if !matches!(process.try_wait(), Ok(None)) {
                return Ok(None);
            }
            if listens(port) && listens(port + 1) {
                return Ok(Some(Self { process, port }));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        child::stop(process);
        Err(SwtpmError::Silent)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port with a free neighbour above it, where to begin looking being random.
#[cfg_attr(not(test), expect(clippy::disallowed_methods, reason = "for a moment, in the place of a software TPM"))]
fn free_pair() -> Option<u16> {
    let random = u16::from_be_bytes(random::array().ok()?);
    let port = PORTS.start + random % (PORTS.end - PORTS.start);
    let is_free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    (is_free(port) && is_free(port + 1)).then_some(port)
}

/// Whether somebody listens on the port. A look and no connection: swtpm queues one connection only, and a second would wait for
/// the kernel's SYN timer.
fn listens(port: u16) -> bool {
    // proc(5): local address as the bytes of a little-endian word, and state 0A for LISTEN.
    let entry = format!(" 0100007F:{port:04X} 00000000:0000 0A ");
    fs::read_to_string("/proc/net/tcp").is_ok_and(|table| table.contains(&entry))
}
