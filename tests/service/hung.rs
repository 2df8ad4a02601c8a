//! A disk that does not come back: what is in memory goes on, and the operator is told.
//!
//! The state directory is a file system of its own, which is frozen (`fsfreeze`): whoever writes to it waits in the kernel.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::unistd::geteuid;
use test_support::process::until;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;

/// Mounted, and thawed and unmounted whatever happens.
struct Volume(PathBuf);

impl Volume {
    /// `None` where the machine has no loop devices, as in a container.
    fn mount(image: &Path, at: &Path) -> Option<Self> {
        fs::File::create(image).unwrap().set_len(16 << 20).unwrap();
        does(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(image));
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(image).arg(at).output().unwrap();
        if !mounted.status.success() {
            eprintln!("SKIPPED: no file system can be mounted here: {mounted:?}");
            return None;
        }
        fs::remove_dir(at.join("lost+found")).unwrap();
        fs::set_permissions(at, Permissions::from_mode(0o700)).unwrap();
        Some(Self(at.to_owned()))
    }

    fn freeze(&self) {
        does(Command::new("fsfreeze").arg("-f").arg(&self.0));
    }

    fn thaw(&self) {
        does(Command::new("fsfreeze").arg("-u").arg(&self.0));
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(&self.0).output();
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

fn does(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

#[test]
fn a_disk_that_hangs_stops_no_call_and_is_told() {
    if !geteuid().is_root() {
        return eprintln!("SKIPPED: only root can freeze a file system");
    }
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    let image = alone.home().join("volume");
    let Some(volume) = Volume::mount(&image, &alone.state()) else { return };
    assert_eq!(alone.tool(&["init", "--no-recovery"]).code, 0);
    let client = alone.start();
    let stored = client.store().unwrap();
    volume.freeze();
    thread::scope(|scope| {
        let rotation = scope.spawn(|| alone.tool(&["keys", "rotate"]));
        let told = until(Duration::from_secs(30), "status tells of it", || {
            let status = alone.tool(&["status"]);
            (status.out.contains("has not answered") || status.err.contains("has not answered")).then_some(status)
        });
        assert_eq!(told.code, 0, "it serves: {told:?}");
        let started = Instant::now();
        for _ in 0..100 {
            client.assert_opens(&stored);
            client.assert_opens(&client.store().unwrap());
            client.status().unwrap();
        }
        assert!(started.elapsed() < Duration::from_secs(20), "calls wait for the disk");
        assert!(!rotation.is_finished());
        volume.thaw();
        let rotated = rotation.join().unwrap();
        assert_eq!(rotated.code, 0, "{rotated:?}");
    });
    assert!(!alone.tool(&["status"]).out.contains("has not answered"));
    assert_eq!(alone.stop(), 0);
    alone.start().assert_opens(&stored);
    assert_eq!(alone.stop(), 0);
}
