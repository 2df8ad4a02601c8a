//! Real tokens in temporary folders, each behind a process of its own: a module's state is the whole process's.

mod odd;

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

pub const PIN: &str = "1234";
const SO_PIN: &str = "87654321";
const HSM_TEST: &str = env!("CARGO_BIN_EXE_hsm-test");

/// The first of these files that is there.
pub fn library(names: &[&str]) -> PathBuf {
    let folders =
        ["/usr/lib/softhsm", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let found = folders.iter().flat_map(|folder| names.iter().map(move |name| Path::new(folder).join(name)));
    found.into_iter().find(|path| path.exists()).unwrap_or_else(|| panic!("none of {names:?} is installed"))
}

/// SoftHSM with a configuration of its own.
pub struct SoftHsm {
    pub home: tempfile::TempDir,
}

impl SoftHsm {
    /// With one token of the label `t`.
    pub fn new() -> Self {
        let soft = Self::without_token("");
        soft.init("t");
        soft
    }

    /// With this text at the end of its configuration, and no token yet.
    pub fn without_token(extra: &str) -> Self {
        let soft = Self { home: tempfile::tempdir().unwrap() };
        std::fs::create_dir(soft.tokens()).unwrap();
        soft.configure(extra);
        soft.put_pin(PIN);
        soft
    }

    pub fn configure(&self, extra: &str) {
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n{extra}\n",
            self.tokens().display()
        );
        std::fs::write(self.conf(), text).unwrap();
    }

    pub fn init(&self, label: &str) {
        let mut command = Command::new("softhsm2-util");
        command.args(["--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN]);
        let output = command.env("SOFTHSM2_CONF", self.conf()).output().expect("softhsm2 is installed");
        assert!(output.status.success(), "{output:?}");
    }

    /// The file that `--pin-file` names.
    pub fn put_pin(&self, pin: &str) {
        std::fs::write(self.pin_file(), format!("{pin}\n")).unwrap();
        std::fs::set_permissions(self.pin_file(), std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn module() -> PathBuf {
        library(&["libsofthsm2.so", "softhsm/libsofthsm2.so"])
    }

    pub fn tokens(&self) -> PathBuf {
        self.home.path().join("tokens")
    }

    fn conf(&self) -> PathBuf {
        self.home.path().join("softhsm2.conf")
    }

    pub fn pin_file(&self) -> PathBuf {
        self.home.path().join("pin")
    }

    pub fn file(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// `hsm-test VERB` on this token.
    pub fn command(&self, verb: &str, module: &Path) -> Command {
        let mut command = Command::new(HSM_TEST);
        command.arg(verb).arg("--module").arg(module).args(["--token", "t", "--pin-file"]).arg(self.pin_file());
        command.env("SOFTHSM2_CONF", self.conf());
        command
    }

    /// The whole suite.
    pub fn suite(&self, more: &[&str]) -> Output {
        self.command("pkcs11", &Self::module()).args(more).output().unwrap()
    }

    /// An engine that is asked line by line.
    pub fn engine(&self, more: &[&str]) -> Engine {
        Engine::start(self.command("answer", &Self::module()).args(["--key-label", "k"]).args(more))
    }

    /// Makes a key past the engine.
    pub fn keygen(&self, more: &[&str]) {
        let mut command = Command::new("pkcs11-tool");
        command.arg("--module").arg(Self::module()).args(["--token-label", "t", "--login", "--pin", PIN, "--keygen"]);
        let output = command.args(["--label", "k"]).args(more).env("SOFTHSM2_CONF", self.conf()).output();
        let output = output.expect("opensc is installed");
        assert!(output.status.success(), "{output:?}");
    }
}

/// A process with one engine.
pub struct Engine {
    child: Child,
    is_killed: bool,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Engine {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, is_killed: false, stdin, stdout }
    }

    pub fn ask(&mut self, question: &str) -> String {
        writeln!(self.stdin.as_mut().unwrap(), "{question}").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// Asks, and ends the process as soon as this is so.
    pub fn ask_and_kill(&mut self, question: &str, until: impl Fn() -> bool) {
        writeln!(self.stdin.as_mut().unwrap(), "{question}").unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while !until() {
            assert!(Instant::now() < end, "{question}: nothing happens");
            std::thread::sleep(Duration::from_millis(5));
        }
        self.is_killed = true;
        self.child.kill().unwrap();
    }

    /// It answers so.
    pub fn assert(&mut self, question: &str, starts: &str) -> String {
        let answer = self.ask(question);
        assert!(answer.starts_with(starts), "{question}: {answer}");
        answer
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // At the end of its input it finalises the module and ends by itself, and not by a signal.
        self.stdin = None;
        let status = self.child.wait().unwrap();
        assert!(self.is_killed || std::thread::panicking() || status.success(), "{status}");
    }
}

/// All passed; gives the report.
pub fn assert_passed(output: &Output) -> String {
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && report.contains("passed") && !report.contains("FAILED"), "{report}\n{output:?}");
    report
}
