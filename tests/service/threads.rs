//! A process that gets no more threads from the kernel goes on with those that it has.

use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use test_support::process::{self, is_alive, status_field};
use test_support::swtpm::Swtpm;

use crate::alone::Alone;

/// For the user of this process; what is there already stays. Only he himself may, and only for the soft limit.
fn allow_threads(pid: u32, count: u32) {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=daemon", "--regid=daemon", "--clear-groups", "prlimit"]);
    let status = command.arg(format!("--pid={pid}")).arg(format!("--nproc={count}:")).status();
    assert!(status.unwrap().success());
}

#[test]
fn without_threads_the_operator_is_told_busy_and_a_reload_goes_on() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can start it as a user whose threads are limited");
        return;
    }
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    // Made for the user of the service by `nodeseal init`.
    std::fs::remove_dir(alone.state()).unwrap();
    alone.extra = "sandbox.user = \"daemon\"".into();
    alone.write_config(&tpm);
    let programs = alone.copy_programs();
    let set_up = Command::new(programs.join("nodeseal"))
        .args(["init", "--no-recovery"])
        .env("NODESEAL_CONFIG", alone.config())
        .output();
    assert!(set_up.as_ref().unwrap().status.success(), "{set_up:?}");
    let config = alone.config();
    alone.spawn(Command::new(programs.join("nodeseald")).arg("--config").arg(config));
    let client = alone.wait_until_ready();
    let pid = alone.pid();
    allow_threads(pid, 1);
    for verb in ["metrics", "status"] {
        let refused = alone.tool(&[verb]);
        assert!(refused.assert_refused(75).err.contains("busy"), "{refused:?}");
    }
    for _ in 0..70 {
        process::signal(pid, Signal::SIGHUP);
    }
    alone.await_event("config.reloaded", "SIGHUP");
    client.store().unwrap();
    assert!(is_alive(pid));
    allow_threads(pid, 1000);
    assert_eq!(alone.tool(&["metrics"]).code, 0);
    assert!(status_field(pid, "Threads") < 16, "no thread a signal");
    assert_eq!(alone.stop(), 0);
}
