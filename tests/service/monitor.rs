//! The status socket: a monitor sees everything and changes nothing, and the node does not depend on it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Group, geteuid};
use test_support::node::{Output, run};
use test_support::swtpm::Swtpm;

use crate::alone::Alone;
use crate::control::answer_to;

/// Every verb but the status, complete as the daemon wants it.
const OTHERS: &[&str] = &[
    r#"{"verb":"bundle-accept","bundle":"00"}"#,
    r#"{"verb":"bundle-for","name":"cp-2"}"#,
    r#"{"verb":"bundle-make","request":"00","fingerprint":"x"}"#,
    r#"{"verb":"bundle-request","node":"x"}"#,
    r#"{"verb":"credential-store","name":"x","sealed":"00"}"#,
    r#"{"verb":"keys-activate"}"#,
    r#"{"verb":"keys-list"}"#,
    r#"{"verb":"keys-retire","id":"x","confirm":"x","compromised":false}"#,
    r#"{"verb":"keys-rotate"}"#,
    r#"{"verb":"members-add","identity":"00","fingerprint":"x"}"#,
    r#"{"verb":"members-identity","name":"cp-1"}"#,
    r#"{"verb":"members-list"}"#,
    r#"{"verb":"members-remove","name":"cp-2"}"#,
    r#"{"verb":"receipt"}"#,
    r#"{"verb":"reload","abandon":true}"#,
    r#"{"verb":"reseal","to":null,"recipients":null}"#,
    r#"{"verb":"rotate-root","dry_run":true,"without_recovery_file":true}"#,
    r#"{"verb":"status-deep"}"#,
];

#[test]
fn the_status_socket_tells_the_status_and_refuses_every_other_verb_even_to_root() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    let (control, status) = (alone.home().join("run/control.sock"), alone.home().join("run/status.sock"));
    assert_eq!(fs::metadata(&status).unwrap().mode() & 0o7777, 0o660);
    let told = |socket: &Path| answer_to(socket, b"{\"verb\":\"status\"}\n")["status"]["key_id"].clone();
    assert!(told(&status).is_string() && told(&status) == told(&control));
    for verb in OTHERS {
        let line = format!("{verb}\n");
        let refused = &answer_to(&status, line.as_bytes())["refused"];
        assert_eq!(refused["class"], "denied", "{verb}: {refused}");
        assert!(refused["hint"].as_str().is_some_and(|hint| hint.contains("control socket")), "{refused}");
    }
    assert_eq!(alone.tool(&["keys", "list", "--json"]).json()["keys"].as_array().unwrap().len(), 1, "nothing was done");
    let nonsense = &answer_to(&status, b"{\"verb\":\"frobnicate\"}\n")["refused"];
    assert!(nonsense["error"].as_str().is_some_and(|error| error.contains("does not know")), "{nonsense}");
}

/// The tool as a user who has no right but that of this group.
fn as_monitor(alone: &Alone, programs: &Path, group: u32, args: &[&str]) -> Output {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", &format!("--regid={group}"), "--clear-groups"]);
    run(command.arg(programs.join("nodeseal")).arg("--config").arg(alone.config()).args(args))
}

#[test]
fn a_member_of_the_status_group_gets_status_and_metrics_and_nothing_else_and_no_stranger_gets_them() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can be another user");
        return;
    }
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let group = Group::from_name("daemon").unwrap().expect("every Linux has a group `daemon`").gid.as_raw();
    alone.extra = "control.status_group = \"daemon\"".into();
    alone.write_config(&tpm);
    let programs = alone.copy_programs();
    alone.start();
    let status = as_monitor(&alone, &programs, group, &["status", "--json"]);
    assert_eq!((status.code, status.json()["healthy"].as_bool()), (0, Some(true)), "{status:?}");
    let metrics = as_monitor(&alone, &programs, group, &["metrics"]);
    assert!(metrics.code == 0 && metrics.out.contains("nodeseal_up 1\n"), "{metrics:?}");
    for args in [&["keys", "rotate"][..], &["reload"], &["status", "--deep"], &["keys", "list"]] {
        let refused = as_monitor(&alone, &programs, group, args);
        assert!(refused.assert_refused(77).err.contains("Permission denied"), "{args:?}: {refused:?}");
    }
    for args in [&["status"][..], &["metrics"]] {
        let refused = as_monitor(&alone, &programs, 65_534, args);
        let err = &refused.assert_refused(77).err;
        assert!(err.contains("Permission denied") && err.contains("group of control.status_socket"), "{err}");
    }
    // That nobody is there is a measurement for a monitor too.
    alone.kill();
    let metrics = as_monitor(&alone, &programs, group, &["metrics"]);
    assert!(metrics.code == 0 && metrics.out.ends_with("nodeseal_up 0\n# EOF\n"), "{metrics:?}");
}

#[test]
fn a_status_socket_that_cannot_be_made_keeps_no_key_closed_and_is_told() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    fs::create_dir(alone.home().join("elsewhere")).unwrap();
    let path = alone.home().join("elsewhere/status.sock");
    fs::write(&path, b"precious").unwrap();
    alone.extra = format!("control.status_socket = {path:?}");
    alone.write_config(&tpm);
    alone.start().store().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"precious");
    let told = alone.await_event("config.warned", "is not served");
    assert_eq!(told["key"], "control.status_socket");
    assert_eq!(alone.tool(&["metrics"]).code, 0, "by the control socket");
}
