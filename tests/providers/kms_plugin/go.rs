//! The plugin of tests/k8s/cmd/plugin: Kubernetes' own server code over grpc-go, as most plugins are.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

/// A running plugin, killed when it drops.
pub struct Go {
    child: Child,
    dir: tempfile::TempDir,
}

impl Go {
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("nodeseal-").tempdir().unwrap();
        let mut child = Command::new(built()).arg(dir.path().join("s")).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self { child, dir }
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.path().join("s")
    }
}

impl Drop for Go {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, built once a run.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kms-plugin");
        let mut command = Command::new("go");
        command.args(["build", "-mod=readonly", "-o"]).arg(&program).arg("./cmd/plugin").env("CGO_ENABLED", "0");
        let status = command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/k8s")).status();
        assert!(status.expect("go is installed").success());
        program
    })
}
