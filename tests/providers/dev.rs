//! A whole node under `nodeseal dev`, as the server of a provider. Ended with all its processes when it drops.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use test_support::process::program;

pub const NODESEAL: &str = env!("CARGO_BIN_EXE_nodeseal");
const READY_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Dev {
    home: tempfile::TempDir,
    child: Child,
}

impl Dev {
    pub fn start(backend: &str) -> Self {
        Self::start_with(backend, "")
    }

    /// With this over the generated configuration.
    pub fn start_with(backend: &str, fragment: &str) -> Self {
        let home = tempfile::Builder::new().prefix("nodeseal-").tempdir().unwrap();
        let stderr = std::fs::File::create(home.path().join("stderr")).unwrap();
        let mut command = Command::new(program(NODESEAL));
        command.args(["dev", "--json", "--backend", backend, "--dir"]).arg(home.path().join("n"));
        if !fragment.is_empty() {
            std::fs::write(home.path().join("fragment.toml"), fragment).unwrap();
            command.arg("--config").arg(home.path().join("fragment.toml"));
        }
        let mut child = command.env_remove("NODESEAL_CONFIG").stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        std::thread::spawn(move || stdout.lines().map_while(Result::ok).for_each(|line| drop(send.send(line))));
        let dev = Self { home, child };
        let line = lines.recv_timeout(READY_TIMEOUT).unwrap_or_else(|error| {
            panic!("{error}: {}", std::fs::read_to_string(dev.home.path().join("stderr")).unwrap_or_default())
        });
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["event"], "ready", "{line}");
        dev
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join("n").join(name)
    }

    /// Runs the operator's tool, which must succeed.
    pub fn ask(&self, args: &[&str]) -> Value {
        let output = self.tool(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// The same, whatever comes of it.
    pub fn tool(&self, args: &[&str]) -> Output {
        let mut command = Command::new(NODESEAL);
        command.arg("--config").arg(self.path("nodeseal.toml")).args(args).arg("--json");
        command.env_remove("NODESEAL_CONFIG").output().unwrap()
    }

    /// SIGKILL to the sealer, which is started again.
    pub fn kill_sealer(&self) {
        let own = self.path("nodeseal.toml").display().to_string();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            if line.contains("nodeseal-sealer") && line.contains(&own) {
                let pid = entry.file_name().to_str().unwrap().parse().unwrap();
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
                // Until it is gone it may take one more question, whose answer would be lost with it. Of a zombie this file is empty.
                while std::fs::read(entry.path().join("cmdline")).is_ok_and(|line| !line.is_empty()) {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM);
        let _ = self.child.wait();
    }
}
