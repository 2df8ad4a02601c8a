//! Epochs of the calendar on a whole node, which looks for the word of a source of time from within its sandbox.

use std::collections::BTreeSet;
use std::path::PathBuf;

use nix::unistd::geteuid;

use super::*;

/// Its own view of the mounts, in which no source of time has said anything.
const WITHOUT_TIME: &str = "exec unshare --mount --propagation private sh -c '
    mount -t tmpfs none /run && mkdir -p /run/systemd/timesync && exec \"$@\"' sh \"$@\";";

/// What systemd-timesyncd makes, as the node sees it.
fn synchronized(node: &Node) -> PathBuf {
    let process = PathBuf::from(format!("/proc/{}", node.pid("nodeseal-sealer")));
    process.join("root").join("run/systemd/timesync/synchronized")
}

fn set_epoch(node: &Node, epoch: toml::Value) {
    rewrite(node, |file| {
        file["write"].as_table_mut().unwrap().insert("epoch".into(), epoch);
    });
    node.ask(&["reload"]);
}

/// Several probes later.
fn assert_stays(node: &Node, key_id: &Value) {
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(&status(node)["key_id"], key_id);
}

fn begin_without_time(vault: &Mine, mode: &str) -> Node {
    let mut node = Node::prepare(
        WITHOUT_TIME,
        &format!("sandbox.mode = \"require\"\n{FAST}epoch = \"every 90d\"\n{mode}{}", table("vault", vault, "")),
    );
    let lines = begin(&mut node, &[("vault", vault, "")]);
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    node
}

#[test]
fn a_new_node_encrypts_without_a_clock_and_turns_once_when_one_is_right_and_reads_all_that_was_before() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root has its own view of the mounts");
        return;
    }
    for mode in ["", "[local_kek]\nenabled = false\n"] {
        let vault = Mine::new();
        let node = begin_without_time(&vault, mode);
        let client = node.client();
        let first = Text::new(&client);
        let waiting = status(&node);
        assert!(waiting["waits"].as_str().unwrap().contains("clock"), "{waiting}");
        assert_eq!((&waiting["healthy"], &waiting["epoch_turns"]), (&json!(true), &Value::Null));
        assert_stays(&node, &waiting["key_id"]);
        // From a number to the calendar, and the clock comes last.
        set_epoch(&node, 7.into());
        let numbered = until_status(&node, "the number counts", |status| status["epoch"] == 7);
        assert!(numbered["waits"].is_null() && numbered["epoch_turns"].is_null(), "{numbered}");
        let second = Text::new(&client);
        set_epoch(&node, "every 90d".into());
        assert_stays(&node, &numbered["key_id"]);
        fs::write(synchronized(&node), "").unwrap();
        let turned = until_status(&node, "it turns", |status| status["epoch"] != 7);
        assert!(turned["waits"].is_null(), "{turned}");
        let turns = humantime::parse_rfc3339(turned["epoch_turns"].as_str().unwrap()).unwrap();
        let rest = turns.duration_since(std::time::SystemTime::now()).unwrap();
        let day = Duration::from_secs(24 * 3600);
        assert!(rest <= 90 * day, "{turned}");
        assert_stays(&node, &turned["key_id"]);
        // Whichever day it is.
        assert_eq!(node.log().contains("epoch.due_soon"), rest <= 30 * day, "{rest:?}\n{}", node.log());
        assert!(node.tool(&["status"]).out.contains(", until "), "{:?}", node.tool(&["status"]));
        let third = Text::new(&client);
        let key_ids: BTreeSet<_> = [&first, &second, &third].map(|text| text.stored.key_id.clone()).into();
        assert_eq!(key_ids.len(), 3);
        [first, second, third].iter().for_each(|text| text.assert_opens(&client));
    }
}

#[test]
fn a_start_without_a_clock_keeps_the_epoch_of_the_last_one() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root has its own view of the mounts");
        return;
    }
    let vault = Mine::new();
    let mut node = begin_without_time(&vault, "");
    let text = Text::new(&node.client());
    fs::write(synchronized(&node), "").unwrap();
    let turned = until_status(&node, "it turns", |status| status["epoch_turns"].is_string());
    node.stop();
    node.up();
    let after = until_status(&node, "it waits for the clock", |status| {
        status["waits"].as_str().is_some_and(|why| why.contains("clock"))
    });
    assert_eq!(
        [&after["key_id"], &after["epoch"], &after["epoch_turns"]],
        [&turned["key_id"], &turned["epoch"], &turned["epoch_turns"]]
    );
    text.assert_opens(&node.client());
}
