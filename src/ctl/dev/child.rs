//! One daemon under `nodeseal dev`, with its listening socket on descriptor 3 (sd_listen_fds(3)) and its log in a file.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use command_fds::{CommandFdExt, FdMapping};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::layout::{Layout, open_log};

/// A daemon drains for five seconds (`api::limits::DRAIN_TIMEOUT`).
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// A daemon that dies at once is not started again faster than this.
const RESTART_PAUSE: Duration = Duration::from_millis(200);
/// SD_LISTEN_FDS_START
const LISTEN_FD: i32 = 3;

#[derive(Debug, thiserror::Error)]
#[error("cannot start {program}", program = program.display())]
pub(super) struct ChildError {
    program: PathBuf,
    #[source]
    source: io::Error,
}

pub(super) struct Child {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    socket: UnixListener,
    environment: Option<(&'static str, PathBuf)>,
    running: Option<std::process::Child>,
    started: Instant,
}

impl Child {
    pub(super) fn new(name: &'static str, layout: &Layout, socket: UnixListener) -> Self {
        let program = std::env::current_exe().unwrap_or_default().with_file_name(name);
        Self {
            program,
            config: layout.config(),
            log: layout.log_path(name),
            socket,
            environment: None,
            running: None,
            started: Instant::now(),
        }
    }

    /// Gives it a variable that no other program gets.
    pub(super) fn with_environment(mut self, name: &'static str, value: PathBuf) -> Self {
        self.environment = Some((name, value));
        self
    }

    pub(super) fn start(&mut self) -> Result<(), ChildError> {
        let fail = |source| ChildError { program: self.program.clone(), source };
        let socket = OwnedFd::from(self.socket.try_clone().map_err(fail)?);
        let mut command = Command::new(&self.program);
        command
            .arg("--config")
            .arg(&self.config)
            .env_clear()
            .env("LISTEN_FDS", "1")
            .env("TSS2_LOG", "all+NONE")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(open_log(&self.log).map_err(fail)?);
        command
            .fd_mappings(vec![FdMapping { parent_fd: socket, child_fd: LISTEN_FD }])
            .map_err(|error| fail(io::Error::other(error)))?;
        self.running = Some(command.spawn().map_err(fail)?);
        self.started = Instant::now();
        Ok(())
    }

    /// Whether it has ended, and long enough ago to be started again.
    pub(super) fn is_due(&mut self) -> bool {
        let has_ended = match &mut self.running {
            Some(child) => child.try_wait().ok().flatten().is_some(),
            None => true,
        };
        has_ended && self.started.elapsed() >= RESTART_PAUSE
    }

    /// Starts it again if it has ended.
    pub(super) fn keep(&mut self) -> Result<(), ChildError> {
        if self.is_due() { self.start() } else { Ok(()) }
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(std::process::Child::id)
    }

    pub(super) fn stop(&mut self) {
        if let Some(child) = self.running.take() {
            stop(child);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stop();
    }
}

/// SIGTERM, and SIGKILL if that does not end it in time.
pub(super) fn stop(mut child: std::process::Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // It may have ended on its own.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
    let give_up = Instant::now() + STOP_TIMEOUT;
    while matches!(child.try_wait(), Ok(None)) {
        if Instant::now() > give_up {
            let _ = child.kill();
            let _ = child.wait();
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
