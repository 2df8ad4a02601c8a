//! A module that misbehaves in front of SoftHSM (`odd.c`), compiled once for all tests of a process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::{Engine, SoftHsm};

/// Where only we can write: a module that others could replace is not loaded.
fn module() -> &'static Path {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    MODULE.get_or_init(|| {
        let module = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("odd-{}.so", std::process::id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/odd.c");
        let mut command = Command::new("cc");
        command.args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-fvisibility=hidden", "-o"]);
        let output = command.arg(&module).arg(source).output().expect("a C compiler is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        module
    })
}

impl SoftHsm {
    /// An engine behind the misbehaving module, with these variables.
    pub fn odd(&self, variables: &[(&str, &str)], more: &[&str]) -> Engine {
        let mut command = self.command("answer", module());
        command
            .args(["--key-label", "k"])
            .args(more)
            .env("ODD_REAL", Self::module())
            .env("ODD_CALLS", self.file("calls"));
        Engine::start(command.envs(variables.iter().copied()))
    }

    /// Calls of C_Login so far.
    pub fn logins(&self) -> usize {
        std::fs::read_to_string(self.file("calls")).unwrap_or_default().lines().count()
    }
}
