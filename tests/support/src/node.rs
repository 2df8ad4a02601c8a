//! A whole node in a temporary folder, run by `nodeseal dev`, and ended with all its processes when it drops.

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::client::Client;
use crate::process::{self, until};

const READY_TIMEOUT: Duration = Duration::from_secs(60);

/// What a run of the operator's tool gave.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Output {
    /// The standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// It failed with this code, in the tool's voice, and printed no result.
    pub fn assert_refused(&self, code: i32) -> &Self {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(": error: ") && self.err.contains(": hint: "), "{self:?}");
        assert!(self.out.is_empty() || self.out.starts_with(r#"{"schema":"nodeseal.error/1""#), "{self:?}");
        self
    }
}

/// Runs the operator's tool.
pub fn tool(config: &Path, args: &[&str]) -> Output {
    run(Command::new(process::built("nodeseal")).arg("--config").arg(config).args(args))
}

pub fn run(command: &mut Command) -> Output {
    let output = command.env_remove("NODESEAL_CONFIG").stdin(Stdio::null()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Output { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
}

/// See the module.
pub struct Node {
    home: tempfile::TempDir,
    dev: Option<Child>,
    fragment: bool,
    /// Runs in front of `nodeseal dev`, such as `ulimit`.
    shell: &'static str,
    /// The device that seals.
    pub backend: &'static str,
}

impl Node {
    pub fn start() -> Self {
        Self::start_under("", "")
    }

    /// With a token instead of a TPM.
    pub fn start_with_token() -> Self {
        let mut node = Self::prepare("", "");
        node.backend = "pkcs11";
        node.up();
        node
    }

    /// With this text laid over the generated configuration.
    pub fn start_with(fragment: &str) -> Self {
        Self::start_under("", fragment)
    }

    /// With this shell command before everything.
    pub fn start_under(shell: &'static str, fragment: &str) -> Self {
        let mut node = Self::prepare(shell, fragment);
        node.up();
        node
    }

    /// Nothing runs yet.
    pub fn prepare(shell: &'static str, fragment: &str) -> Self {
        let home = tempfile::Builder::new().prefix("nodeseal-").tempdir().unwrap();
        fs::write(home.path().join("fragment.toml"), fragment).unwrap();
        Self { home, dev: None, fragment: !fragment.is_empty(), shell, backend: "tpm2" }
    }

    /// Starts it on whatever is in the folder, and waits until it is ready.
    pub fn up(&mut self) {
        let line = self.try_up().unwrap_or_else(|output| panic!("it did not get ready: {output}\n{}", self.logs()));
        assert_eq!(line["event"], "ready", "{line}");
        assert_eq!(line["socket"].as_str(), self.socket().to_str());
    }

    /// Starts it without waiting; what it prints goes to the receiver.
    pub fn begin(&mut self) -> std::sync::mpsc::Receiver<String> {
        assert!(self.dev.is_none(), "it runs");
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{} exec \"$@\"", self.shell)).arg("sh");
        command
            .arg(process::program(process::built("nodeseal")))
            .args(["dev", "--json", "--backend", self.backend, "--dir"])
            .arg(self.dir());
        if self.fragment {
            command.arg("--config").arg(self.home.path().join("fragment.toml"));
        }
        let stderr = fs::File::create(self.home.path().join("dev.stderr")).unwrap();
        let mut child = command.env_remove("NODESEAL_CONFIG").stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        self.dev = Some(child);
        let (send, lines) = channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            while matches!(stdout.read_line(&mut line), Ok(1..)) {
                if send.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        lines
    }

    fn try_up(&mut self) -> Result<Value, String> {
        let lines = self.begin();
        let line = lines.recv_timeout(READY_TIMEOUT).map_err(|error| error.to_string())?;
        serde_json::from_str(&line).map_err(|error| format!("{error}: {line}"))
    }

    pub fn dir(&self) -> PathBuf {
        self.home.path().join("n")
    }

    pub fn socket(&self) -> PathBuf {
        self.dir().join("kms.sock")
    }

    pub fn control(&self) -> PathBuf {
        self.dir().join("control.sock")
    }

    pub fn config(&self) -> PathBuf {
        self.dir().join("nodeseal.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.dir().join("state")
    }

    /// The folder of the node root that counts, which its file `current` names.
    pub fn root(&self) -> PathBuf {
        crate::process::root_of(&self.state())
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.socket())
    }

    /// Runs the operator's tool on this node.
    pub fn tool(&self, args: &[&str]) -> Output {
        tool(&self.config(), args)
    }

    /// The same, which must succeed; gives its JSON.
    pub fn ask(&self, args: &[&str]) -> Value {
        let output = self.tool(&[args, &["--json"]].concat());
        assert_eq!(output.code, 0, "{args:?}: {output:?}\n{}", self.logs());
        output.json()
    }

    /// Makes a KEK and turns to it; gives its id.
    pub fn rotate_and_activate(&self) -> String {
        let id = self.ask(&["keys", "rotate"])["key"]["id"].as_str().unwrap().to_owned();
        self.ask(&["keys", "activate", &id]);
        id
    }

    /// The running process of this name.
    pub fn pid(&self, program: &str) -> u32 {
        until(Duration::from_secs(10), &format!("{program} runs"), || self.find(program))
    }

    /// The process of this name, if it runs.
    pub fn find(&self, program: &str) -> Option<u32> {
        process::find(program, &self.dir().display().to_string()).first().copied()
    }

    /// `kill -9` of one part.
    pub fn kill(&self, program: &str) -> u32 {
        let pid = self.pid(program);
        process::signal(pid, Signal::SIGKILL);
        until(Duration::from_secs(5), "a killed process is gone", || (!process::is_alive(pid)).then_some(()));
        pid
    }

    /// As systemd stops it. Gives the exit code.
    pub fn stop(&mut self) -> Option<i32> {
        let mut child = self.dev.take().expect("it runs");
        process::signal(child.id(), Signal::SIGTERM);
        let status = until(Duration::from_secs(25), "nodeseal dev ends on SIGTERM", || child.try_wait().unwrap());
        status.code()
    }

    /// A power cut: SIGKILL to all.
    pub fn cut(&mut self) {
        let mut child = self.dev.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
        self.kill_leftovers();
    }

    /// SIGKILL to `nodeseal dev` alone; its children live on.
    pub fn kill_supervisor(&mut self) {
        let mut child = self.dev.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn kill_leftovers(&self) {
        for program in ["nodeseald", "nodeseal-sealer", "swtpm"] {
            for pid in process::find(program, &self.dir().display().to_string()) {
                process::signal(pid, Signal::SIGKILL);
                until(Duration::from_secs(5), "a killed process is gone", || (!process::is_alive(pid)).then_some(()));
            }
        }
    }

    /// Everything that the daemons logged, from all of their lives.
    pub fn logs(&self) -> String {
        let mut text = fs::read_to_string(self.home.path().join("dev.stderr")).unwrap_or_default();
        for program in ["nodeseald", "nodeseal-sealer", "swtpm"] {
            text += &fs::read_to_string(self.dir().join("log").join(format!("{program}.log"))).unwrap_or_default();
        }
        text
    }

    /// The log of `nodeseald`.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir().join("log/nodeseald.log")).unwrap_or_default()
    }

    /// Lets everybody reach the sockets, as far as folders and modes go.
    pub fn open_to_all(&self) {
        let set = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        set(self.home.path(), 0o755);
        set(&self.dir(), 0o755);
        set(&self.socket(), 0o666);
        set(&self.control(), 0o666);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut child) = self.dev.take() {
            process::signal(child.id(), Signal::SIGTERM);
            for _ in 0..3000 {
                if !matches!(child.try_wait(), Ok(None)) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- logs of {}\n{}", self.dir().display(), tail(&self.logs()));
        }
        for program in ["nodeseald", "nodeseal-sealer", "swtpm"] {
            for pid in process::find(program, &self.dir().display().to_string()) {
                process::signal(pid, Signal::SIGKILL);
            }
        }
    }
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
