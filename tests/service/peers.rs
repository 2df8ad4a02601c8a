//! Who may speak: SO_PEERCRED decides before a byte is read, whatever the modes of socket and folder are.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use test_support::node::{Node, run};
use test_support::process::until;

/// Greets as HTTP/2, or asks as the operator's tool would, and prints in hex what comes back until the end.
const SPEAK: &str = r#"
use Socket;
socket(my $s, PF_UNIX, SOCK_STREAM, 0) or die "socket";
connect($s, sockaddr_un($ARGV[0])) or die "connect: $!";
$SIG{PIPE} = 'IGNORE';
syswrite($s, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0") if $ARGV[1] eq 'http2';
syswrite($s, "{\"verb\":\"status\"}\n") if $ARGV[1] eq 'control';
$SIG{ALRM} = sub { print "open"; exit };
alarm 5;
my $all = '';
while (sysread($s, my $got, 4096)) { $all .= $got; last if $ARGV[1] eq 'http2' && length $all >= 9; }
print "bytes ", unpack('H*', $all);
"#;

/// What this user hears.
fn heard_by(uid: u32, socket: &Path, what: &str) -> String {
    assert!(nix::unistd::geteuid().is_root(), "these tests change to other users: run them as root");
    let output = run(Command::new("setpriv")
        .args([format!("--reuid={uid}"), format!("--regid={uid}"), "--clear-groups".into()])
        .args(["perl", "-e", SPEAK])
        .arg(socket)
        .arg(what));
    assert_eq!(output.code, 0, "{output:?}");
    output.out
}

fn refusals(node: &Node) -> Vec<Value> {
    let log = node.log();
    let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["event"] == "peer.refused").collect()
}

#[test]
fn a_stranger_is_closed_before_a_byte_is_answered_and_leaves_a_record() {
    let node = Node::start_with("log.format = \"json\"\nlisten.allow_users = [\"root\", 1]\n");
    node.open_to_all();
    let stored = node.client().store().unwrap();
    // An allowed user hears the server's SETTINGS, so that silence below means refusal.
    let heard = heard_by(1, &node.socket(), "http2");
    assert!(heard.starts_with("bytes ") && heard.len() > 20, "{heard}");
    assert_eq!(refusals(&node).len(), 0);

    for (count, uid) in [65_534, 2, 4_000_000].into_iter().enumerate() {
        assert_eq!(heard_by(uid, &node.socket(), "http2"), "bytes ", "uid {uid}");
        let record = until(Duration::from_secs(5), "the refusal is logged", || refusals(&node).get(count).cloned());
        assert_eq!(record["peer_uid"], uid, "{record}");
        assert!(record["peer_pid"].as_u64().is_some_and(|pid| pid > 1));
        assert_eq!(record["socket"].as_str(), node.socket().to_str());
        assert_eq!(record["level"], "WARN");
    }
    node.client().assert_opens(&stored);
}

#[test]
fn the_control_socket_is_roots_alone() {
    let node = Node::start_with("log.format = \"json\"\nlisten.allow_users = [\"root\", 1]\n");
    node.open_to_all();
    assert!(heard_by(0, &node.control(), "control").len() > 100, "root gets the status");
    // Also not one who may use the KMS socket.
    for (count, uid) in [1, 65_534].into_iter().enumerate() {
        assert_eq!(heard_by(uid, &node.control(), "control"), "bytes ", "uid {uid}");
        let record = until(Duration::from_secs(5), "the refusal is logged", || refusals(&node).get(count).cloned());
        assert_eq!(
            (record["peer_uid"].as_u64(), record["socket"].as_str()),
            (Some(uid.into()), node.control().to_str())
        );
    }
    assert_eq!(node.tool(&["status"]).code, 0);
}

#[test]
fn by_its_mode_alone_the_socket_is_closed_to_strangers() {
    let node = Node::start();
    let output = run(Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-e", SPEAK])
        .arg(node.socket())
        .arg("http2"));
    assert!(output.err.contains("Permission denied"), "{output:?}");
}

#[test]
fn strangers_who_come_in_numbers_keep_nobody_out() {
    let node = Node::start_with("log.level = \"error\"\n");
    node.open_to_all();
    const MANY: &str = "use Socket; for (1..3000) { socket(my $s, PF_UNIX, SOCK_STREAM, 0); \
                        connect($s, sockaddr_un($ARGV[0])); push @all, $s; shift @all if @all > 500; }";
    let mut strangers = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "perl", "-e", MANY])
        .arg(node.socket())
        .spawn()
        .unwrap();
    let mut slowest = Duration::ZERO;
    while strangers.try_wait().unwrap().is_none() {
        let started = std::time::Instant::now();
        node.client().store().unwrap();
        slowest = slowest.max(started.elapsed());
    }
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");
}
