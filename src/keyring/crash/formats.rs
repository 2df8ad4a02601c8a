//! Damaged, newer and older files of each kind, over every file that a node has.

use std::sync::{Arc, Mutex};

use sha2::{Digest, Sha256};

use super::node::Node;
use super::operations;
use super::running::Running;
use crate::keyring::recovery;

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Where a container has its version, and how long its digest is (docs/formats.md, "Container").
const VERSION_AT: usize = 9;
const DIGEST_BYTES: usize = 32;

/// The same file as a release of that version would have written it.
fn with_version(file: &[u8], version: u8) -> Vec<u8> {
    let mut bytes = file[..file.len() - DIGEST_BYTES].to_vec();
    bytes[VERSION_AT] = version;
    let digest = Sha256::digest(&bytes);
    bytes.extend_from_slice(&digest);
    bytes
}

/// Files that are read at a start: both generations are kept of each of them.
fn names(node: &Node) -> Vec<String> {
    let files = node.files();
    let names: Vec<_> = files.keys().filter(|name| files.contains_key(&format!("{name}.prev"))).cloned().collect();
    assert!(names.len() >= 6, "{names:?}");
    names
}

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn around(&self) -> impl FnOnce(Box<dyn FnOnce() + Send>) + Send + use<> {
        let own = self.clone();
        move |body| {
            let log = move || own.clone();
            let subscriber = tracing_subscriber::fmt().with_writer(log).with_ansi(false).finish();
            tracing::subscriber::with_default(subscriber, body);
        }
    }
}

/// Starts the node and takes down what it says until the first attempt to open the keys has ended.
fn start(node: &Node) -> (Running, String) {
    let log = Log::default();
    let running = node.start_in(log.around());
    drop(running.first_attempt());
    // Answered after everything that belongs to the attempt was said.
    drop(running.handle.list());
    (running, log.text())
}

/// A node with a past, with every kind of file.
fn node() -> Node {
    let mut node = Node::new();
    operations::insure(&mut node);
    operations::grow_and_rotate(&mut node);
    node
}

#[test]
fn of_each_file_a_damaged_or_lost_newest_generation_falls_back_and_says_so() {
    let whole = node();
    for name in names(&whole) {
        for content in [Some(b"NODESEAL torn".to_vec()), Some(Vec::new()), None] {
            let mut node = whole.on(whole.disk.copy());
            node.set(&name, content);
            let (running, said) = start(&node);
            node.ledger.encrypt(&running);
            node.ledger.assert_holds(&running);
            let is_said =
                said.lines().any(|line| line.contains("state.fell_back") && line.contains(Node::short_name(&name)));
            assert!(is_said || name == recovery::FILE, "{name}: {said}");
            drop(running);
            // The previous generation is not the damaged one.
            let running = node.start();
            running.first_attempt().unwrap();
            node.ledger.assert_holds(&running);
        }
    }
}

#[test]
fn of_each_file_a_newer_version_is_refused_with_its_remedy_and_never_overwritten() {
    let whole = node();
    let active = whole.on(whole.disk.copy()).start().kek("active").to_string();
    for name in names(&whole) {
        let node = whole.on(whole.disk.copy());
        let newer = with_version(&whole.files()[&name], 200);
        node.set(&name, Some(newer.clone()));
        let (running, said) = start(&node);
        if name == recovery::FILE {
            continue;
        }
        assert!(
            said.contains("format version 200") && said.contains("install the release that wrote it"),
            "{name}: {said}"
        );
        // What only decrypts is not worth a node that does not start.
        let is_needed = !name.ends_with(".kek") || name.contains(&active);
        assert_eq!(running.keyring.key_id_now().is_none(), is_needed, "{name}");
        drop(running);
        assert_eq!(node.files()[&name], newer, "{name} was overwritten");
    }
}
