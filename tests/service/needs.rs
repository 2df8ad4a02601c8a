//! The two questions of 3 a.m., as `nodeseal status` answers them: why is it closed and when does it try again, and what needs me.

use std::time::Duration;

use serde_json::Value;
use test_support::node::Node;
use test_support::process::until;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;

fn status(alone: &Alone) -> Value {
    alone.tool(&["status", "--json"]).json()
}

fn kinds(status: &Value) -> Vec<String> {
    let needs = status["needs"].as_array().unwrap();
    needs.iter().map(|need| need["kind"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_closed_node_tells_its_code_its_remedy_and_its_next_attempt_as_text_as_json_and_with_a_probe() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    tpm.tool("tpm2_clear -c p");
    alone.start_locked();
    alone.await_event("seal.refused", "E-SRK-MISSING");
    let told = status(&alone);
    assert_eq!((told["seal_code"].as_str(), kinds(&told)), (Some("E-SRK-MISSING"), vec!["closed".to_owned()]));
    assert!(told["seal_retry_in_seconds"].as_u64().is_some_and(|seconds| seconds <= 30), "{told}");
    assert!(told["seal_waits_for_file"].is_null(), "{told}");
    for args in [&["status"][..], &["status", "--probe"]] {
        let output = alone.tool(args);
        let row = output.out.lines().find(|line| line.starts_with("needs you    ")).unwrap();
        for word in ["E-SRK-MISSING", "tried again ", "nodeseal recover"] {
            assert!(row.contains(word), "{word} in {row}");
        }
        assert!(output.code == 69 && output.err.contains("tried again "), "{output:?}");
    }
    let metrics = alone.tool(&["metrics"]).out;
    assert!(metrics.contains("nodeseal_needs_operator{kind=\"closed\"} 1\n"), "{metrics}");
    assert!(metrics.contains("nodeseal_needs_operator{kind=\"pending_key\"} 0\n"), "{metrics}");
    assert!(metrics.contains("\nnodeseal_seal_retry_in_seconds "), "{metrics}");
}

#[test]
fn a_pause_between_two_attempts_is_counted_down() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    tpm.tool("tpm2_clear -c p");
    alone.start_locked();
    // The pause doubles: one of four seconds is long enough to be seen getting shorter.
    alone.await_event("seal.refused", "\"retry_in_ms\":4000");
    let seconds = || status(&alone)["seal_retry_in_seconds"].as_u64().unwrap();
    assert!((1..=4).contains(&seconds()));
    until(Duration::from_secs(4), "fewer seconds are left", || (seconds() <= 2).then_some(()));
}

#[test]
fn a_node_that_needs_nobody_says_so_and_who_replaces_its_kek() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    let text = alone.tool(&["status"]).out;
    assert!(text.contains("\nneeds you    no\n"), "{text}");
    assert!(text.contains("\ndue          the active KEK, at ") && text.contains("replaced automatically"), "{text}");
    let told = status(&alone);
    assert_eq!((kinds(&told), told["rotates_by_itself"].as_bool()), (Vec::new(), Some(true)), "{told}");
}

#[test]
fn a_kek_in_pre_activation_and_settings_that_do_not_run_wait_for_the_operator() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    let made = alone.tool(&["keys", "rotate", "--json"]).json();
    alone.extra = "local_kek.max_age = \"30days\"\nseal.tpm2.rollback = \"tpm-counter\"".into();
    alone.write_config(&tpm);
    assert_eq!(alone.tool(&["reload"]).code, 0);
    let told = status(&alone);
    assert_eq!(kinds(&told), ["pending_key", "restart", "restart", "reseal"], "{told}");
    assert_eq!(told["pending_kek"], made["key"]);
    assert_eq!(told["needs"][0]["do"], "nodeseal keys activate");
    assert_eq!(alone.tool(&["keys", "activate"]).code, 0);
    assert_eq!(alone.tool(&["reseal"]).code, 0);
    let told = status(&alone);
    assert_eq!((kinds(&told), told["pending_kek"].is_null()), (vec!["restart".to_owned(); 2], true), "{told}");
}

#[test]
fn the_recovery_file_says_when_it_was_written_so_that_an_older_copy_is_known() {
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    assert_eq!(alone.tool(&["init", "--recovery-code"]).code, 0);
    alone.start();
    let file = alone.state().join("recovery.age");
    let long_ago = std::time::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let touched = std::fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago);
    assert!(touched.is_ok());
    assert_eq!(status(&alone)["recovery_written"], "2027-01-15T08:00:00Z");
    let text = alone.tool(&["status"]).out;
    assert!(text.contains("never rehearsed"), "{text}");
    assert!(text.contains("written 2027-01-15T08:00:00Z: older copies differ"), "{text}");
    assert_eq!(alone.tool(&["keys", "rotate"]).code, 0);
    assert_ne!(status(&alone)["recovery_written"], "2027-01-15T08:00:00Z", "it has gained a key");
}

#[test]
fn a_device_that_does_not_answer_takes_nothing_from_what_the_daemon_says() {
    let node = Node::start();
    // What the tool asks by itself, and the daemon does not.
    let config = std::fs::read_to_string(node.config()).unwrap();
    let other = node.dir().join("other.toml");
    let moved = config.replace("sealer.sock", "absent.sock");
    std::fs::write(&other, moved).unwrap();
    let asked = test_support::node::tool(&other, &["status", "--device"]);
    assert_eq!(asked.code, 69, "{asked:?}");
    assert!(asked.out.contains("health       ok") && asked.out.contains("device       FAILED: "), "{asked:?}");
    assert!(asked.err.contains("nodeseal: error: ") && asked.err.contains("nodeseal: hint: "), "{asked:?}");
    let told = test_support::node::tool(&other, &["status", "--device", "--json"]).json();
    assert!(told["device"].is_null() && told["device_error"].is_string(), "{told}");
    assert_eq!(told["healthy"], true);
}

#[test]
fn a_configuration_that_was_broken_takes_the_status_of_a_running_daemon_from_nobody() {
    let node = Node::start();
    let good = std::fs::read_to_string(node.config()).unwrap();
    let first = node.ask(&["keys", "list"])["keys"][0]["id"].as_str().unwrap().to_owned();
    let write = |text: &str| std::fs::write(node.config(), text).unwrap();
    for broken in [format!("nonsense = 1\n{good}"), good.replace("version = 1", "version = 2")] {
        write(&broken);
        assert_eq!(node.tool(&["config", "check"]).code, 78);
        let status = node.tool(&["status", "--probe"]);
        assert_eq!(status.code, 0, "{status:?}");
        assert!(
            status.out.contains("needs you    nodeseald would not start with the present configuration"),
            "{status:?}"
        );
        assert!(status.out.contains("round trip   ") && status.err.contains("warning: nodeseald keeps"), "{status:?}");
        for args in [&["keys", "list"][..], &["keys", "show", &first[..8]]] {
            let listed = node.tool(args);
            assert!(listed.code == 0 && listed.out.contains(&first), "{listed:?}");
        }
        let metrics = node.tool(&["metrics"]);
        assert!(metrics.out.contains("nodeseal_needs_operator{kind=\"config\"} 1\n"), "{metrics:?}");
        assert!(metrics.out.contains("nodeseal_up 1\n"), "{metrics:?}");
        // What changes something wants one that is good, and the device is asked by it.
        node.tool(&["keys", "rotate"]).assert_refused(78);
        let device = node.tool(&["status", "--device"]);
        assert!(device.code == 78 && device.out.contains("device       FAILED: "), "{device:?}");
    }
    // Sockets are not looked for in a file that is not there, or that others can change.
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(node.config(), mode(0o666)).unwrap();
    node.tool(&["status"]).assert_refused(78);
    test_support::node::tool(&node.dir().join("absent.toml"), &["status"]).assert_refused(78);
    std::fs::set_permissions(node.config(), mode(0o600)).unwrap();
    write(&good);
    assert_eq!(node.ask(&["status"])["needs"], serde_json::json!([]));
}
