//! A software TPM of its own for each test: state in a temporary directory, command channel on a free port of 127.0.0.1 and
//! control channel on the next one (where libtss2-tcti-swtpm looks for it), killed when it drops.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// Below the kernel's range for outgoing connections (32768 and up), so that none of these sits on a port of ours.
const PORTS: std::ops::Range<u16> = 11_000..31_000;

/// One software TPM.
pub struct Swtpm {
    state: tempfile::TempDir,
    child: Option<Child>,
    port: u16,
    flags: &'static str,
}

impl Swtpm {
    /// A new TPM that the firmware has started.
    pub fn start() -> Self {
        Self::with_flags("not-need-init,startup-clear")
    }

    /// A new TPM to which nobody has sent TPM2_Startup.
    pub fn start_without_startup() -> Self {
        Self::with_flags("not-need-init")
    }

    fn with_flags(flags: &'static str) -> Self {
        let mut swtpm = Self { state: tempfile::tempdir().unwrap(), child: None, port: 0, flags };
        swtpm.power_on();
        swtpm
    }

    /// Starts it on its state, on a fresh port.
    pub fn power_on(&mut self) {
        assert!(self.child.is_none(), "it is on");
        for _ in 0..20 {
            self.port = free_port_pair();
            let mut child = self.spawn();
            if wait_until_ready(&mut child, self.port) {
                self.child = Some(child);
                return;
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("swtpm does not start:\n{}", std::fs::read_to_string(self.state.path().join("stderr")).unwrap());
    }

    fn spawn(&self) -> Child {
        let (port, control) = (self.port, self.port + 1);
        clean_command("swtpm")
            .args(["socket", "--tpm2", "--flags", self.flags])
            .arg("--tpmstate")
            .arg(format!("dir={}", self.state.path().display()))
            .args(["--server", &format!("type=tcp,bindaddr=127.0.0.1,port={port}")])
            .args(["--ctrl", &format!("type=tcp,bindaddr=127.0.0.1,port={control}")])
            .arg("--log")
            .arg(format!("file={},level=20", self.log_path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(self.state.path().join("stderr")).unwrap())
            .spawn()
            .expect("swtpm is installed")
    }

    /// `kill -9`: what a power cut is to a TPM.
    pub fn cut_power(&mut self) {
        let mut child = self.child.take().expect("it is off");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Power off and on again.
    pub fn restart(&mut self) {
        self.cut_power();
        self.power_on();
    }

    /// Port of the command channel; the control channel is on the next.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Every byte that went in and out, in hex, as swtpm logs it at level 20.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap()
    }

    fn log_path(&self) -> PathBuf {
        self.state.path().join("log")
    }

    /// Runs one of tpm2-tools, which must succeed; gives its standard output.
    pub fn tool(&self, command: &str) -> String {
        let output = self.try_tool(command);
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs one of tpm2-tools. Arguments are split at spaces; files are relative to a directory of this TPM.
    pub fn try_tool(&self, command: &str) -> std::process::Output {
        let mut words = command.split(' ');
        clean_command(words.next().unwrap())
            .args(words)
            .current_dir(self.state.path())
            .env("TPM2TOOLS_TCTI", format!("swtpm:host=127.0.0.1,port={}", self.port))
            .env("TSS2_LOG", "all+NONE")
            .output()
            .expect("tpm2-tools are installed")
    }

    /// Writes a file for its tools.
    pub fn put(&self, name: &str, bytes: impl AsRef<[u8]>) {
        File::create(self.file(name)).unwrap().write_all(bytes.as_ref()).unwrap();
    }

    /// A file in the directory of this TPM, where its tools run.
    pub fn file(&self, name: &str) -> PathBuf {
        self.state.path().join(name)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A program that inherits nothing but its standard streams.
///
/// libtss2 opens its sockets without O_CLOEXEC. A child that is started while another thread's engine is connected would hold that
/// connection open, and swtpm, which serves one client at a time, would wait for its end for ever.
fn clean_command(program: &str) -> Command {
    const CLOSE: &str =
        r#"for fd in /proc/$$/fd/*; do fd=${fd##*/}; [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done; exec "$@""#;
    let mut command = Command::new("bash");
    command.args(["-c", CLOSE, "bash", program]);
    command
}

/// A port that is free together with its neighbour, and that no other test of this process was given.
pub fn free_port_pair() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let pairs = PORTS.len() as u32 / 2;
    for _ in 0..1000 {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        // Processes begin at places of their own.
        let pair = (std::process::id().wrapping_mul(7919).wrapping_add(step)) % pairs;
        let port = PORTS.start + 2 * u16::try_from(pair).unwrap();
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if free(port) && free(port + 1) {
            return port;
        }
    }
    panic!("no two free ports beside each other");
}

fn wait_until_ready(child: &mut Child, port: u16) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        if !matches!(child.try_wait(), Ok(None)) {
            return false;
        }
        if listens(port) && listens(port + 1) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Asks the kernel and not the port: swtpm queues one connection, and each one that was only a question takes the place of a real
/// one, which then waits for the kernel's retransmission (1 s, 3 s, 7 s, …).
fn listens(port: u16) -> bool {
    // proc(5): local address as the bytes of a little-endian word, and state 0A for LISTEN.
    let entry = format!(" 0100007F:{port:04X} 00000000:0000 0A ");
    std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&entry)
}
