//! The control socket: every question has an answer, and "start nodeseald" is said only where nobody listens.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use test_support::node::Node;
use test_support::process::until;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;

/// More than are answered at once.
const MANY: usize = 40;

pub fn answer_to(socket: &Path, question: &[u8]) -> Value {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // A server that has heard enough may have closed its side.
    let _ = stream.write_all(question);
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    let line = text.strip_suffix('\n').unwrap_or_else(|| panic!("no line to {} bytes: {text:?}", question.len()));
    serde_json::from_str(line).unwrap()
}

#[test]
fn a_question_that_cannot_be_answered_is_refused_with_words() {
    let node = Node::start();
    let long = format!("{{\"verb\":\"status\",\"x\":\"{}\"}}\n", "x".repeat(3 << 20));
    for (question, class, words) in [
        ("{\"verb\":\"frobnicate\"}\n", "misconfigured", &["frobnicate", env!("CARGO_PKG_VERSION")][..]),
        ("{\"verb\":\"status\",\"of\":\"it\"}\n", "misconfigured", &["`of`", env!("CARGO_PKG_VERSION")]),
        ("{\"verb\":\"keys-retire\",\"id\":7}\n", "misconfigured", &["integer"]),
        ("nonsense\n", "misconfigured", &["JSON"]),
        ("\n", "misconfigured", &["JSON"]),
        (&long, "misconfigured", &["1048576"]),
        ("{\"verb\":\"sta", "unavailable", &["5 s"]),
    ] {
        let refused = &answer_to(&node.control(), question.as_bytes())["refused"];
        let text = refused.to_string();
        assert!(refused["class"] == class && words.iter().all(|word| text.contains(word)), "{text}");
        assert!(refused["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{text}");
    }
    assert_eq!(node.tool(&["status"]).code, 0);
}

#[test]
fn more_questions_than_are_answered_at_once_are_told_so() {
    let node = Node::start();
    let mut idle: Vec<_> = (0..MANY).map(|_| UnixStream::connect(node.control()).unwrap()).collect();
    for args in [&["status"][..], &["metrics"], &["reseal"], &["keys", "list"]] {
        let refused = node.tool(args);
        let err = &refused.assert_refused(75).err;
        assert!(err.contains("busy") && !err.contains("start nodeseald"), "{args:?}: {err}");
    }
    idle.clear();
    until(Duration::from_secs(10), "it answers again", || (node.tool(&["status"]).code == 0).then_some(()));
}

/// A configuration whose control socket is this test's.
fn in_place_of_the_daemon() -> (Swtpm, Alone, UnixListener) {
    let tpm = Swtpm::start();
    let alone = Alone::set_up(&tpm);
    fs::create_dir_all(alone.home().join("run")).unwrap();
    let listener = UnixListener::bind(alone.home().join("run/control.sock")).unwrap();
    (tpm, alone, listener)
}

#[test]
fn a_daemon_that_closes_without_an_answer_is_not_one_that_is_away() {
    let (_tpm, alone, listener) = in_place_of_the_daemon();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for args in [&["status"][..], &["metrics"], &["reseal"]] {
        let refused = alone.tool(args);
        let err = &refused.assert_refused(69).err;
        assert!(err.contains("without an answer") && err.contains("release"), "{args:?}: {err}");
        assert!(!err.contains("start nodeseald") && !err.contains("cannot talk"), "{args:?}: {err}");
    }
}

#[test]
fn a_daemon_that_says_nothing_is_waited_for_as_long_as_the_verb_may_take() {
    let (_tpm, alone, listener) = in_place_of_the_daemon();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        listener.incoming().for_each(|stream| held.push(stream));
    });
    let refused = alone.tool(&["status"]);
    let err = &refused.assert_refused(69).err;
    assert!(err.contains("10 s") && !err.contains("start nodeseald"), "{err}");
    // It is not up: nothing that answers is there.
    let metrics = alone.tool(&["metrics"]);
    assert_eq!((metrics.code, metrics.out.lines().rev().nth(1)), (0, Some("nodeseal_up 0")), "{metrics:?}");
}

#[test]
fn an_answer_of_a_later_release_is_named_as_one() {
    let (_tpm, alone, listener) = in_place_of_the_daemon();
    std::thread::spawn(move || {
        listener.incoming().map(Result::unwrap).for_each(|mut stream| {
            let _ = stream.read(&mut [0; 4096]);
            stream.write_all(b"{\"prophecy\":{}}\n").unwrap();
        });
    });
    assert!(alone.tool(&["status"]).assert_refused(70).err.contains("from the same release"));
}
