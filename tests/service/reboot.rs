//! The same folder again: after a clean stop, after `kill -9` of any part, with the TPM away. Whatever was answered opens.
//! Many kills in the middle of everything: `torture`.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use test_support::client::{Client, Stored, code};
use test_support::node::Node;
use test_support::process::{self, until};
use test_support::swtpm::Swtpm;

use crate::alone::Alone;
use crate::alone::NODESEAL;

const COMES_BACK: Duration = Duration::from_secs(20);

/// A new connection on which an Encrypt was answered.
fn serving(node: &Node) -> (Client, Stored) {
    until(COMES_BACK, "an Encrypt is answered again", || {
        let client = Client::try_connect(&node.socket()).ok()?;
        let stored = client.store().ok()?;
        Some((client, stored))
    })
}

#[test]
fn the_same_keys_after_a_clean_stop_after_a_power_cut_and_after_each_part_was_killed() {
    let mut node = Node::start();
    let mut texts = vec![node.client().store().unwrap()];
    let v1 = node.client().encrypt_v1(b"dek").unwrap();
    let key_id = texts[0].key_id.clone();
    for how in ["SIGTERM", "nodeseald", "nodeseal-sealer", "swtpm", "supervisor", "power cut"] {
        match how {
            "SIGTERM" => {
                assert_eq!(node.stop(), Some(0));
                assert_eq!(process::find("swtpm", &node.dir().display().to_string()), [0; 0], "nothing stays behind");
                node.up();
            }
            // Its daemons live on, and the next one ends them.
            "supervisor" => {
                node.kill_supervisor();
                assert!(node.find("nodeseald").is_some());
                node.up();
            }
            "power cut" => {
                node.cut();
                node.up();
            }
            part => {
                let old = node.kill(part);
                until(COMES_BACK, "it was started again", || node.find(part).filter(|new| *new != old));
            }
        }
        let (client, stored) = serving(&node);
        assert_eq!(stored.key_id, key_id, "after {how}: the same key_id");
        assert_eq!(client.status().unwrap().key_id, key_id);
        texts.push(stored);
        texts.iter().for_each(|stored| client.assert_opens(stored));
        assert_eq!(client.decrypt_v1(&v1).unwrap(), b"dek");
        // The sealer and the TPM are of use again.
        assert_eq!(node.ask(&["reseal"])["seal_policy"], "none", "after {how}");
    }
}

/// Lets a stopped process go on when the test fails, too.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Self {
        process::signal(pid, Signal::SIGSTOP);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        process::signal(self.0, Signal::SIGCONT);
    }
}

#[test]
fn a_tpm_that_hangs_holds_up_a_rotation_and_nothing_else() {
    let node = Node::start();
    // Blocks have 1,024, 8,192 and 65,536 uses, and each is reserved when half of the one before it is left.
    store_from_four_clients(&node, 1_000);
    let state = node.root().join("state");
    let before = std::fs::read(&state).unwrap();
    let hung = Stopped::new(node.pid("swtpm"));
    std::thread::scope(|scope| {
        let (sender, outputs) = std::sync::mpsc::channel();
        for sender in [sender.clone(), sender] {
            let node = &node;
            scope.spawn(move || sender.send(node.tool(&["keys", "rotate"])).unwrap());
        }
        let refused =
            outputs.recv_timeout(Duration::from_secs(5)).expect("the second question to the device is refused");
        assert!(refused.code == 69 && refused.err.contains("busy") && refused.err.contains("hint:"), "{refused:?}");
        let started = std::time::Instant::now();
        assert_eq!(node.ask(&["status"])["healthy"], true);
        assert!(started.elapsed() < Duration::from_secs(2), "status took {:?}", started.elapsed());
        store_from_four_clients(&node, 500);
        assert_ne!(std::fs::read(&state).unwrap(), before, "a block was reserved meanwhile");
        drop(hung);
        let made = outputs.recv_timeout(COMES_BACK).unwrap();
        assert!(made.code == 0 && made.out.contains("pre-activation"), "{made:?}");
    });
}

fn store_from_four_clients(node: &Node, each: usize) {
    std::thread::scope(|callers| {
        for _ in 0..4 {
            callers.spawn(|| {
                let client = node.client();
                (0..each).for_each(|_| drop(client.store().unwrap()));
            });
        }
    });
}

#[test]
fn a_sealer_or_a_tpm_that_dies_costs_no_call() {
    let node = Node::start();
    let client = node.client();
    let stored = client.store().unwrap();
    for part in ["nodeseal-sealer", "swtpm", "nodeseal-sealer", "swtpm"] {
        node.kill(part);
        for _ in 0..100 {
            client.assert_opens(&client.store().unwrap());
            client.assert_opens(&stored);
        }
    }
}

#[test]
fn without_a_tpm_the_keys_in_memory_serve_and_a_restart_waits_and_comes_back_by_itself() {
    let mut tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let client = alone.start();
    let stored = client.store().unwrap();

    tpm.cut_power();
    for _ in 0..50 {
        client.assert_opens(&client.store().unwrap());
        client.assert_opens(&stored);
    }
    assert_eq!(alone.tool(&["status"]).code, 0);
    // What needs the device says so, and leaves everything as it is.
    let before = process::snapshot(&alone.state());
    for verb in [&["keys", "rotate"][..], &["reseal"]] {
        alone.tool(verb).assert_refused(69);
    }
    assert_eq!(before, process::snapshot(&alone.state()));
    client.assert_opens(&stored);

    alone.kill();
    let client = alone.start_locked();
    alone.await_event("seal.refused", "E-TPM-NODEV");
    alone.assert_locked(&client);
    assert_eq!(client.store().unwrap_err().code(), Some(code::UNAVAILABLE));
    assert_eq!(client.decrypt(&stored.text, &stored.key_id).unwrap_err().code(), Some(code::UNAVAILABLE));
    assert_eq!(client.version("v1beta1").unwrap().version, "v1beta1");
    alone.tool(&["keys", "list"]).assert_refused(69);

    tpm.power_on();
    alone.write_config(&tpm);
    let client = alone.wait_until_ready();
    client.assert_opens(&stored);
    assert_eq!(client.status().unwrap().key_id, stored.key_id);
}

#[test]
fn an_init_that_was_killed_is_finished_by_the_next_one() {
    let tpm = Swtpm::start();
    let mut interrupted = 0;
    for _ in 0..12 {
        let mut alone = Alone::prepare(&tpm);
        let mut init =
            Command::new(NODESEAL).arg("--config").arg(alone.config()).args(["init", "--no-recovery"]).spawn().unwrap();
        let mut byte = [0];
        getrandom::fill(&mut byte).unwrap();
        std::thread::sleep(Duration::from_millis(u64::from(byte[0])));
        let _ = init.kill();
        let _ = init.wait();
        // Its sealer may still be at work; that one has no hand in the state directory.
        let again = alone.tool(&["init", "--no-recovery"]);
        interrupted += u32::from(again.code == 0);
        assert!(again.code == 0 || (again.code == 77 && again.err.contains("already set up")), "{again:?}");
        assert!(!alone.state().join("init.pending").exists() && alone.root().join("state").exists());
        let client = alone.start();
        client.assert_opens(&client.store().unwrap());
    }
    eprintln!("FIGURE: 12 inits killed, {interrupted} of them before their end");
}
