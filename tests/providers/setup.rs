//! The folder that `nodeseal setup` writes, whose policies the providers' own tests prove.

use std::path::{Path, PathBuf};
use std::process::Command;

use test_support::process::program;

use crate::dev::NODESEAL;

pub struct Written(tempfile::TempDir);

impl Written {
    pub fn of(values: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("values"), values).unwrap();
        let mut command = Command::new(program(NODESEAL));
        command.arg("setup").arg("--values").arg(home.path().join("values"));
        let output = command.arg("--output").arg(home.path().join("out")).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        Self(home)
    }

    pub fn home(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("out").join(name)
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }
}
