//! `nodeseald` without a supervisor, as on a machine without systemd: it makes its own sockets and starts the sealer for each
//! question. The software TPM is this test's own, so that it can be taken away, swapped and cleared.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;
use test_support::client::{Answer, Client};
use test_support::node::{Output, run, tool};
use test_support::process::{self, until};
use test_support::swtpm::Swtpm;

pub const NODESEAL: &str = env!("CARGO_BIN_EXE_nodeseal");
pub const NODESEALD: &str = env!("CARGO_BIN_EXE_nodeseald");

const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// See the module.
pub struct Alone {
    home: tempfile::TempDir,
    daemon: Option<Child>,
    /// As whom the daemon runs, if not as the tests do.
    user: Option<u32>,
    /// Goes to the end of the configuration.
    pub extra: String,
}

impl Alone {
    /// A node that was set up on this TPM.
    pub fn set_up(tpm: &Swtpm) -> Self {
        let alone = Self::prepare(tpm);
        let output = alone.tool(&["init", "--no-recovery"]);
        assert_eq!(output.code, 0, "{output:?}");
        alone
    }

    /// A configuration and an empty state directory.
    pub fn prepare(tpm: &Swtpm) -> Self {
        let alone = Self::configured(tpm);
        fs::create_dir(alone.state()).unwrap();
        fs::set_permissions(alone.state(), Permissions::from_mode(0o700)).unwrap();
        alone
    }

    /// A configuration and nothing else, for a daemon that runs as this user.
    pub fn prepare_for(tpm: &Swtpm, user: u32) -> Self {
        let mut alone = Self::configured(tpm);
        alone.user = Some(user);
        alone.extra = format!("listen.allow_users = [0, {user}]");
        alone.write_config(tpm);
        fs::set_permissions(alone.home(), Permissions::from_mode(0o755)).unwrap();
        chown(alone.home(), Some(user), Some(user)).unwrap();
        // The user must be able to reach the programs, which a build folder below root's home does not let it.
        fs::create_dir(alone.programs()).unwrap();
        for program in [NODESEALD, env!("CARGO_BIN_EXE_nodeseal-sealer"), NODESEAL] {
            fs::copy(program, alone.programs().join(Path::new(program).file_name().unwrap())).unwrap();
        }
        alone
    }

    fn configured(tpm: &Swtpm) -> Self {
        let home = tempfile::Builder::new().prefix("nodeseal-").tempdir().unwrap();
        let alone = Self { home, daemon: None, user: None, extra: String::new() };
        alone.write_config(tpm);
        alone
    }

    fn programs(&self) -> PathBuf {
        self.home.path().join("bin")
    }

    /// The operator's tool, where the daemon's user can reach it.
    pub fn nodeseal(&self) -> PathBuf {
        if self.user.is_some() { self.programs().join("nodeseal") } else { NODESEAL.into() }
    }

    /// Points the configuration at a TPM. The sealer reads it anew with every question.
    pub fn write_config(&self, tpm: &Swtpm) {
        let path = |name: &str| self.home.path().join(name).display().to_string();
        let text = format!(
            "version = 1\ncluster = \"alone\"\nstate_dir = \"{}\"\nlisten.socket = \"{}\"\ncontrol.socket = \"{}\"\n\
             seal.tpm2.device = \"swtpm:port={}\"\nseal.tpm2.allow_software_tpm = true\n\
             log = {{ format = \"json\", level = \"debug\" }}\n{}\n",
            path("state"),
            path("run/kms.sock"),
            path("run/control.sock"),
            tpm.port(),
            self.extra
        );
        let temporary = self.home.path().join("new.toml");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, self.config()).unwrap();
    }

    pub fn home(&self) -> &Path {
        self.home.path()
    }

    pub fn config(&self) -> PathBuf {
        self.home.path().join("nodeseal.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// The folder of the node root that counts, which its file `current` names.
    pub fn root(&self) -> PathBuf {
        test_support::process::root_of(&self.state())
    }

    /// The programs in a folder that every user can reach, which a build folder below root's home is not.
    pub fn copy_programs(&self) -> PathBuf {
        fs::set_permissions(self.home(), fs::Permissions::from_mode(0o755)).unwrap();
        let programs = self.home().join("bin");
        fs::create_dir(&programs).unwrap();
        for program in [NODESEALD, env!("CARGO_BIN_EXE_nodeseal-sealer"), NODESEAL] {
            fs::copy(program, programs.join(Path::new(program).file_name().unwrap())).unwrap();
        }
        programs
    }

    pub fn socket(&self) -> PathBuf {
        self.home.path().join("run/kms.sock")
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.socket())
    }

    pub fn tool(&self, args: &[&str]) -> Output {
        tool(&self.config(), args)
    }

    /// Starts `nodeseald` and waits until an Encrypt would be answered.
    pub fn start(&mut self) -> Client {
        self.begin();
        self.wait_until_ready()
    }

    /// Starts `nodeseald` and waits until its socket answers.
    pub fn start_locked(&mut self) -> Client {
        self.begin();
        until(READY_TIMEOUT, "the socket answers", || {
            assert_eq!(self.exit_code(), None, "nodeseald ended");
            // Answered by the process and not only queued by the kernel; this call needs no key.
            Client::try_connect(&self.socket()).ok().filter(|client| client.version("v1beta1").is_ok())
        })
    }

    /// Starts `nodeseald`.
    pub fn begin(&mut self) {
        let mut command = match self.user {
            None => Command::new(process::program(NODESEALD)),
            Some(user) => {
                let mut command = Command::new(self.programs().join("nodeseald"));
                command.uid(user).gid(user);
                command
            }
        };
        self.spawn(command.arg("--config").arg(self.home.path().join("nodeseal.toml")));
    }

    /// Starts it with this command.
    pub fn spawn(&mut self, command: &mut Command) {
        let stderr = self.open_log();
        self.spawn_with(command, stderr.into());
    }

    /// The same with another place for its log.
    pub fn spawn_with(&mut self, command: &mut Command, stderr: Stdio) {
        assert!(self.daemon.is_none(), "it runs");
        let command = command.env_remove("NODESEAL_CONFIG").env_remove("LISTEN_FDS").stdin(Stdio::null());
        self.daemon = Some(command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap());
    }

    fn open_log(&self) -> File {
        OpenOptions::new().append(true).create(true).mode(0o600).open(self.log_path()).unwrap()
    }

    /// A second `nodeseald` on this configuration, to its end.
    pub fn run_another(&self, config: &Path) -> Output {
        run(Command::new("timeout").arg("20").arg(process::program(NODESEALD)).arg("--config").arg(config))
    }

    pub fn wait_until_ready(&self) -> Client {
        until(READY_TIMEOUT, "an Encrypt would be answered", || {
            let client = Client::try_connect(&self.socket()).ok()?;
            client.status().is_ok().then_some(client)
        })
    }

    pub fn pid(&self) -> u32 {
        self.daemon.as_ref().expect("it runs").id()
    }

    /// Whether it has ended, and how.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.daemon.as_mut().expect("it was started").try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }

    pub fn kill(&mut self) {
        let mut child = self.daemon.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
        // A sealer that it was just starting holds its listening sockets until it has become another program.
        let home = self.home.path().display().to_string();
        let last = || ["nodeseald", "nodeseal-sealer"].iter().all(|program| process::find(program, &home).is_empty());
        until(Duration::from_secs(10), "no child of it is left", || last().then_some(()));
    }

    /// SIGTERM; gives the exit code.
    pub fn stop(&mut self) -> i32 {
        process::signal(self.pid(), Signal::SIGTERM);
        let code = until(Duration::from_secs(15), "nodeseald ends on SIGTERM", || self.exit_code());
        self.daemon = None;
        code
    }

    /// Forgets a daemon that has ended.
    pub fn stop_reaped(&mut self) {
        assert!(self.exit_code().is_some(), "it still runs");
        self.daemon = None;
    }

    /// A client; the first one starts the daemon.
    pub fn start_if_needed(&mut self) -> Client {
        if self.daemon.is_none() { self.start() } else { self.client() }
    }

    fn log_path(&self) -> PathBuf {
        self.home.path().join("nodeseald.log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// All events of this name so far.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["event"] == name).collect()
    }

    /// Waits for an event of this name with this word in its line.
    pub fn await_event(&self, name: &str, word: &str) -> Value {
        until(READY_TIMEOUT, &format!("{name} with {word} is logged"), || {
            self.events(name).into_iter().find(|event| event.to_string().contains(word))
        })
    }

    /// Empties the log, so that only what comes is seen.
    pub fn forget_log(&self) {
        self.open_log().set_len(0).unwrap();
    }

    /// Status of both kinds: the API's, and the exit code of the tool.
    pub fn assert_locked(&self, client: &Client) {
        let answer: Answer<_> = client.status();
        assert_eq!(answer.unwrap_err().code(), Some(test_support::client::code::UNAVAILABLE));
        assert_eq!(self.tool(&["status"]).code, 69);
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Some(mut child) = self.daemon.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in process::find("nodeseal-sealer", &self.home.path().display().to_string()) {
            process::signal(pid, Signal::SIGKILL);
        }
        if std::thread::panicking() {
            eprintln!("--- log of nodeseald\n{}", self.log());
        }
    }
}
