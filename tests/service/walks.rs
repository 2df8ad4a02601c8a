//! docs/operations/recovery.md, executed: every command block of it is run as it stands, with the paths of a test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::alone::Alone;
use crate::client::Stored;
use crate::node::{NODESEAL, Node, Output, run};
use crate::process::until;
use crate::swtpm::Swtpm;

const PAGE: &str = include_str!("../../docs/operations/recovery.md");

/// The lines of one block: the prompt's node, and the command.
fn walk(name: &str) -> Vec<(&'static str, &'static str)> {
    let (_, rest) = PAGE.split_once(&format!("<!-- walk: {name} -->\n```\n")).unwrap_or_else(|| panic!("no {name}"));
    let (block, _) = rest.split_once("```").unwrap();
    block.lines().map(|line| line.split_once("# ").unwrap()).collect()
}

/// Runs a block on the nodes of its prompts. Gives what each command printed.
fn run_walk(name: &str, safe: &Path, nodes: &mut [(&str, &mut dyn Place)]) -> Vec<String> {
    let mut printed: Vec<String> = Vec::new();
    for (prompt, command) in walk(name) {
        // `safe#` is no node of ours: any place will do.
        let index = nodes.iter().position(|(name, _)| *name == prompt).unwrap_or(0);
        let node = &mut *nodes[index].1;
        let out = match command {
            "systemctl stop nodeseal" => {
                node.stop_it();
                String::new()
            }
            "systemctl start nodeseal" => {
                node.start_it();
                String::new()
            }
            // What the operator would wait for: `nodeseald` tries again within half a minute.
            "nodeseal status --probe" => until(Duration::from_secs(45), command, || {
                let output = shell(command, safe, node);
                (output.code == 0).then_some(output.out)
            }),
            _ => {
                let command = with_fingerprint(command, &printed);
                let output = shell(&command, safe, node);
                assert_eq!(output.code, 0, "{name}: {command}: {output:?}\n{}", node.all_logs());
                output.out
            }
        };
        printed.push(out);
    }
    printed
}

/// The example's fingerprint becomes the last one that was printed.
fn with_fingerprint(command: &str, printed: &[String]) -> String {
    let mut marks = printed.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("fingerprint: "));
    command.replace(&["00000"; 8].join("-"), marks.next_back().unwrap_or_default())
}

fn shell(command: &str, safe: &Path, node: &dyn Place) -> Output {
    let command = command
        .replace("/var/lib/nodeseal", &node.state_dir().display().to_string())
        .replace("/media/safe", &safe.display().to_string())
        .replace("nodeseal ", &format!("{NODESEAL} --config {} ", node.config_file().display()));
    run(Command::new("sh").arg("-ec").arg(command))
}

/// Where a walk is gone.
trait Place {
    fn state_dir(&self) -> PathBuf;
    fn config_file(&self) -> PathBuf;
    fn all_logs(&self) -> String;
    fn start_it(&mut self);
    fn stop_it(&mut self);
}

impl Place for Alone {
    fn state_dir(&self) -> PathBuf {
        self.state()
    }

    fn config_file(&self) -> PathBuf {
        self.config()
    }

    fn all_logs(&self) -> String {
        self.log()
    }

    fn start_it(&mut self) {
        self.start();
    }

    fn stop_it(&mut self) {
        self.stop();
    }
}

impl Place for Node {
    fn state_dir(&self) -> PathBuf {
        self.state()
    }

    fn config_file(&self) -> PathBuf {
        self.config()
    }

    fn all_logs(&self) -> String {
        self.logs()
    }

    fn start_it(&mut self) {
        self.up();
    }

    fn stop_it(&mut self) {
        self.stop();
    }
}

struct Ground {
    safe: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        Self { safe: tempfile::tempdir().unwrap() }
    }

    /// A node set up by the page's first walk, with a text of it.
    fn set_up(&self, tpm: &Swtpm) -> (Alone, Stored) {
        let mut alone = Alone::prepare(tpm);
        run_walk("before", self.safe.path(), &mut [("cp-1", &mut alone)]);
        let stored = alone.client().store().unwrap();
        (alone, stored)
    }

    fn walk(&self, name: &str, alone: &mut Alone) -> Vec<String> {
        run_walk(name, self.safe.path(), &mut [("cp-1", alone)])
    }
}

#[test]
fn a_cleared_tpm() {
    let ground = Ground::new();
    let tpm = Swtpm::start();
    let (mut alone, stored) = ground.set_up(&tpm);
    tpm.tool("tpm2_clear -c p");
    alone.client().assert_opens(&stored);
    ground.walk("cleared-tpm", &mut alone);
    alone.client().assert_opens(&stored);
    assert_ne!(alone.client().status().unwrap().key_id, stored.key_id, "a new KEK encrypts");
    let kept = fs::read_dir(alone.state()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(kept.filter(|name| name.starts_with("before-recovery-")).count(), 1, "what was there is kept");
    assert_eq!(alone.stop(), 0);
    // And what `recover` left is whole: it starts again, and has nothing to recover.
    alone.start().assert_opens(&stored);
    assert_eq!(alone.stop(), 0);
    let again = shell("nodeseal recover --identity /media/safe/recovery.key", ground.safe.path(), &alone);
    again.assert_refused(77);
    assert!(again.err.contains("nothing to recover"), "{again:?}");
}

#[test]
fn a_replaced_board_under_a_running_daemon() {
    let ground = Ground::new();
    let (old, new) = (Swtpm::start(), Swtpm::start());
    let (mut alone, stored) = ground.set_up(&old);
    assert_eq!(alone.stop(), 0);
    alone.write_config(&new);
    let client = alone.start_locked();
    alone.await_event("seal.refused", "E-SRK-MISSING");
    alone.assert_locked(&client);
    ground.walk("replaced-board", &mut alone);
    alone.client().assert_opens(&stored);
}

#[test]
fn a_new_machine_with_nothing_but_the_recovery_file() {
    let ground = Ground::new();
    let (old, new) = (Swtpm::start(), Swtpm::start());
    let (mut alone, stored) = ground.set_up(&old);
    // After a rotation the copy is too old, and `--verify` says so.
    let rotated = alone.tool(&["keys", "rotate", "--json"]).json();
    assert_eq!(alone.tool(&["keys", "activate", rotated["key"]["id"].as_str().unwrap()]).code, 0);
    let verify = "nodeseal recover --verify --file /media/safe/recovery.age --identity /media/safe/recovery.key";
    let late = shell(verify, ground.safe.path(), &alone);
    assert!(late.code == 66 && late.out.contains("lacks 1 KEKs"), "{late:?}");
    let newer = alone.client().store().unwrap();
    shell("cp /var/lib/nodeseal/recovery.age /media/safe/", ground.safe.path(), &alone);
    assert_eq!(shell(verify, ground.safe.path(), &alone).code, 0);
    assert_eq!(alone.stop(), 0);
    let mut another = Alone::prepare(&new);
    ground.walk("new-machine", &mut another);
    for text in [stored, newer] {
        another.client().assert_opens(&text);
    }
}

#[test]
fn an_old_copy_of_the_state_directory() {
    let ground = Ground::new();
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    alone.extra = "seal.tpm2.rollback = \"tpm-counter\"".into();
    alone.write_config(&tpm);
    run_walk("before", ground.safe.path(), &mut [("cp-1", &mut alone)]);
    let old = alone.client().store().unwrap();
    assert_eq!(alone.stop(), 0);
    let copy = alone.home().join("copy");
    let run_cp =
        |from: &Path, to: &Path| assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    run_cp(&alone.state(), &copy);
    alone.start();
    let rotated = alone.tool(&["keys", "rotate", "--json"]).json();
    assert_eq!(alone.tool(&["keys", "activate", rotated["key"]["id"].as_str().unwrap()]).code, 0);
    let newer = alone.client().store().unwrap();
    // A restart of the newest is no rollback.
    assert_eq!(alone.stop(), 0);
    alone.start().assert_opens(&newer);
    assert_eq!(alone.stop(), 0);
    let newest = alone.home().join("newest");
    fs::rename(alone.state(), &newest).unwrap();
    run_cp(&copy, &alone.state());
    let client = alone.start_locked();
    let event = alone.await_event("seal.refused", "E-ROLLBACK");
    let error = event["error"].as_str().unwrap();
    assert!(error.contains("later changes of keys") && error.contains("does not open"), "{error}");
    alone.assert_locked(&client);
    ground.walk("old-copy", &mut alone);
    alone.client().assert_opens(&old);
    let unknown = alone.client().decrypt(&newer.text, &newer.key_id);
    assert!(unknown.is_err_and(|error| error.code() == Some(5)), "NOT_FOUND for what it can no longer open");
    assert!(![&old.key_id, &newer.key_id].contains(&&alone.client().status().unwrap().key_id), "a new KEK");
    assert_eq!(alone.stop(), 0);
    // The counter has moved on: the copy that was the newest before is old now.
    fs::rename(alone.state(), alone.home().join("accepted")).unwrap();
    fs::rename(&newest, alone.state()).unwrap();
    alone.forget_log();
    alone.start_locked();
    alone.await_event("seal.refused", "E-ROLLBACK");
}

#[test]
fn keys_for_another_node() {
    let ground = Ground::new();
    let (one, two) = (Swtpm::start(), Swtpm::start());
    let (mut first, of_first) = ground.set_up(&one);
    let mut second = Alone::set_up(&two);
    let of_second = second.start().store().unwrap();
    let printed = run_walk("bundle", ground.safe.path(), &mut [("cp-1", &mut first), ("cp-2", &mut second)]);
    assert!(printed[3].contains("active"), "{printed:?}");
    let ids = [first.client().status().unwrap().key_id, second.client().status().unwrap().key_id];
    assert_eq!(ids[0], ids[1], "one key_id");
    second.client().assert_opens(&of_first);
    second.client().assert_opens(&of_second);
    first.client().assert_opens(&second.client().store().unwrap());
    // Also after both were off.
    let of_both = second.client().store().unwrap();
    for node in [&mut first, &mut second] {
        assert_eq!(node.stop(), 0);
        node.start().assert_opens(&of_both);
    }
    let marks: Vec<_> =
        printed.iter().flat_map(|text| text.lines()).filter_map(|line| line.strip_prefix("fingerprint: ")).collect();
    let accept = format!("nodeseal bundle accept /media/safe/cp-2.bundle --fingerprint {}", marks[1]);
    let replayed = shell(&accept, ground.safe.path(), &second);
    replayed.assert_refused(77);
    assert!(replayed.err.contains("no open request"), "{replayed:?}");
    let foreign = shell("nodeseal bundle request --out /media/safe/cp-1.request", ground.safe.path(), &first);
    assert_eq!(foreign.code, 0, "{foreign:?}");
    let foreign = shell(&accept, ground.safe.path(), &first);
    foreign.assert_refused(77);
    assert!(foreign.err.contains("another request"), "{foreign:?}");
    let wrong = accept.replace(marks[1], marks[0]);
    assert!(shell(&wrong, ground.safe.path(), &first).err.contains("fingerprint"));
}

#[test]
#[cfg(feature = "pkcs11")]
fn a_lost_token() {
    let ground = Ground::new();
    let safe = ground.safe.path();
    let mut node = Node::start_with_token();
    let stored = node.client().store().unwrap();
    let keygen = "age-keygen -o /media/safe/recovery.key";
    let reseal = "nodeseal reseal --recovery-recipient $(age-keygen -y /media/safe/recovery.key)";
    for command in [keygen, reseal] {
        assert_eq!(shell(command, safe, &node).code, 0);
    }
    assert_eq!(node.stop(), Some(0));
    fs::remove_dir_all(node.dir().join("token")).unwrap();
    // `dev` makes a new one, as an operator would.
    let ready = node.begin();
    until(Duration::from_secs(30), "the new token does not open it", || node.log().contains("E-HSM").then_some(()));
    run_walk("lost-token", safe, &mut [("cp-1", &mut node)]);
    node.client().assert_opens(&stored);
    assert!(ready.recv_timeout(Duration::from_secs(30)).unwrap().contains("ready"));
}

#[test]
#[cfg(feature = "pkcs11")]
fn from_a_tpm_to_a_token_and_back_while_kube_apiserver_looks_on() {
    let ground = Ground::new();
    let mut node = Node::start();
    let stored = node.client().store().unwrap();
    assert_eq!(node.stop(), Some(0));
    // Both devices are there from now on.
    node.backend = "pkcs11";
    node.up();
    let client = node.client();
    let printed = run_walk("move-root", ground.safe.path(), &mut [("cp-1", &mut node)]);
    assert!(printed[1].contains("pkcs11"), "{printed:?}");
    client.assert_opens(&stored);
    assert_eq!(client.store().unwrap().key_id, stored.key_id, "no key changed");
    for backend in ["pkcs11", "tpm2"] {
        assert_eq!(node.ask(&["status"])["seal_backend"], backend);
        node.cut();
        node.up();
        let client = node.client();
        client.assert_opens(&stored);
        assert_eq!(node.ask(&["reseal", "--to", "tpm2"])["seal_backend"], "tpm2");
        client.assert_opens(&stored);
    }
    node.tool(&["reseal", "--to", "floppy"]).assert_refused(78);
}

#[test]
fn a_printed_code_opens_the_recovery_file_and_so_does_age_without_us() {
    let ground = Ground::new();
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    let set_up = alone.tool(&["init", "--recovery-code", "--json"]);
    let code = set_up.json()["recovery_code"].as_str().unwrap().to_owned();
    assert_eq!(code.split(' ').count(), 9, "a prefix and eight groups");
    let store = |text: &str| fs::write(ground.safe.path().join("recovery.key"), text).unwrap();
    let verify = "nodeseal recover --verify < /media/safe/recovery.key";
    for typed in [code.clone(), code.to_lowercase().replace(' ', "-")] {
        store(&typed);
        assert_eq!(shell(verify, ground.safe.path(), &alone).code, 0);
    }
    store(&code.replace(' ', ""));
    // docs/formats.md, "Recovery file": 15 bytes of container before the file of age, 32 behind it.
    let age =
        "tail -c +16 /var/lib/nodeseal/recovery.age | head -c -32 | age -d -i /media/safe/recovery.key | head -c 8";
    assert_eq!(shell(age, ground.safe.path(), &alone).out, "NSEALEXP");
    alone.start();
    assert!(!alone.log().contains(code.split(' ').nth(1).unwrap()), "the code is in the log");
    let refused = Alone::prepare(&tpm).tool(&["init"]);
    assert!(refused.assert_refused(78).err.contains("--no-recovery"), "{refused:?}");
}

#[test]
fn every_walk_of_the_page_is_run() {
    let named: Vec<&str> = PAGE.split("<!-- walk: ").skip(1).map(|rest| rest.split(' ').next().unwrap()).collect();
    let here = include_str!("walks.rs");
    for name in named {
        assert!(here.contains(&format!("\"{name}\"")), "the walk {name} is run by no test");
    }
}
