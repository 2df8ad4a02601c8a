//! `kill -9` of the daemon, of the sealer, or of both, at any moment of constant rotations of KEKs and node roots and of writes; and of
//! `nodeseal recover`: every text that was ever answered opens, and no key_id comes back.
//!
//! NODESEAL_KILLS sets how many kills (`make torture`: 1,000), NODESEAL_SEED repeats the moments of a run.

use std::fmt::Debug;
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use test_support::client::{Client, Stored};
use test_support::node::Node;
use test_support::process::{self, StopOnDrop, until};
use test_support::swtpm::Swtpm;

use crate::alone::Alone;
use crate::alone::NODESEAL;

const KILLS: u32 = 60;
const COMES_BACK: Duration = Duration::from_secs(60);
/// Between two texts of the writer: hours of them must fit into memory and be decrypted at the end.
const WRITER_PAUSE: Duration = Duration::from_millis(2);
/// The longest wait before a kill, in milliseconds: longer than a start and than a rotation.
const WAIT_MAX_MS: u64 = 256;
/// The longest wait before the first recovery is killed. After one that was whole the next waits shorter, after one that was cut longer, so
/// that both kinds are seen on a machine of any speed.
const RECOVERY_MAX_MS: u64 = 600;
/// A slow machine gets this many times the kills until enough has happened between them.
const MORE_KILLS: u32 = 20;

fn setting<T: FromStr<Err: Debug>>(name: &str, default: T) -> T {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// Writes until it is told to stop, over as many connections as that takes.
fn write(node: &Node, going: impl Fn() -> bool, texts: &Mutex<Vec<Stored>>) {
    while going() {
        let Ok(client) = Client::try_connect(&node.socket()) else { continue };
        while let (true, Ok(stored)) = (going(), client.store()) {
            texts.lock().unwrap().push(stored);
            std::thread::sleep(WRITER_PAUSE);
        }
    }
}

/// How often the operator's work was seen to succeed.
#[derive(Default)]
struct Done {
    rotations: AtomicU32,
    roots: AtomicU32,
}

impl Done {
    fn count(counter: &AtomicU32, succeeded: bool) {
        counter.fetch_add(u32::from(succeeded), Ordering::Relaxed);
    }

    fn read(&self) -> (u32, u32) {
        (self.rotations.load(Ordering::Relaxed), self.roots.load(Ordering::Relaxed))
    }

    /// Kills that hit nothing prove nothing.
    fn is_enough(&self, texts: usize) -> bool {
        let (rotations, roots) = self.read();
        rotations >= 2 && roots >= 1 && texts >= 100
    }
}

/// Makes KEKs and turns to them, and puts all of them under another node root now and then, until it is told to stop.
fn rotate(node: &Node, going: impl Fn() -> bool, done: &Done) {
    for turn in 0.. {
        if !going() {
            break;
        }
        if turn % 4 == 3 {
            Done::count(&done.roots, node.tool(&["rotate-root", "--without-recovery-file"]).code == 0);
        }
        // Refused when the last one was made and its answer lost: the list tells.
        node.tool(&["keys", "rotate", "--json"]);
        let listed = node.tool(&["keys", "list", "--json"]);
        let Ok(table) = serde_json::from_str::<serde_json::Value>(&listed.out) else { continue };
        // A refusal is JSON as well, and has no keys.
        let Some(rows) = table["keys"].as_array() else { continue };
        if let Some(pending) = rows.iter().find(|row| row["state"] == "pre-activation") {
            Done::count(&done.rotations, node.tool(&["keys", "activate", pending["id"].as_str().unwrap()]).code == 0);
        }
    }
}

fn kill(node: &Node, programs: &[&str]) {
    let pids: Vec<_> = programs.iter().map(|program| node.pid(program)).collect();
    pids.into_iter().for_each(|pid| process::signal(pid, Signal::SIGKILL));
}

#[test]
fn kills_of_both_daemons_in_the_middle_of_rotations_and_writes_lose_no_text() {
    let started = Instant::now();
    let kills = setting("NODESEAL_KILLS", KILLS);
    let mut byte = [0; 8];
    getrandom::fill(&mut byte).unwrap();
    let seed = setting("NODESEAL_SEED", u64::from_ne_bytes(byte));
    eprintln!("NODESEAL_SEED={seed} NODESEAL_KILLS={kills}");
    let mut random = Random(seed);
    let node = Node::start();
    let stop = AtomicBool::new(false);
    let texts: Mutex<Vec<Stored>> = Mutex::default();
    let going = || !stop.load(Ordering::Relaxed);
    let mut killed = [0_u32; 2];
    let mut kill_number = 0;
    let done = Done::default();
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| write(&node, going, &texts));
        scope.spawn(|| rotate(&node, going, &done));
        while kill_number < kills || (kill_number < kills * MORE_KILLS && !done.is_enough(texts.lock().unwrap().len()))
        {
            if random.below(2) == 0 {
                // Half of the kills hit daemons that serve; the others fall wherever they fall, a start included.
                let so_far = texts.lock().unwrap().len();
                until(COMES_BACK, "texts are answered again", || (texts.lock().unwrap().len() > so_far).then_some(()));
            }
            std::thread::sleep(Duration::from_millis(random.below(WAIT_MAX_MS)));
            let programs = ["nodeseald", "nodeseal-sealer"];
            let chosen = match random.below(3) {
                0 => &programs[..1],
                1 => &programs[1..],
                _ => &programs[..],
            };
            kill(&node, chosen);
            for (count, program) in killed.iter_mut().zip(programs) {
                *count += u32::from(chosen.contains(&program));
            }
            kill_number += 1;
            if kill_number % 100 == 0 {
                eprintln!("{kill_number} kills, {} texts, {:?}", texts.lock().unwrap().len(), started.elapsed());
            }
        }
    });
    let client = until(COMES_BACK, "the node serves again", || {
        let client = Client::try_connect(&node.socket()).ok()?;
        client.store().ok().map(|_| client)
    });
    let texts = texts.into_inner().unwrap();
    texts.iter().for_each(|stored| client.assert_opens(stored));
    let mut key_ids: Vec<_> = texts.iter().map(|stored| &stored.key_id).collect();
    // A key_id that was left never comes again.
    key_ids.dedup();
    let epochs = key_ids.len();
    key_ids.sort();
    key_ids.dedup();
    assert_eq!(key_ids.len(), epochs, "a key_id came back");
    let (rotations, roots) = done.read();
    eprintln!(
        "FIGURE: {kill_number} times kill -9 (nodeseald {}, nodeseal-sealer {}), {rotations} rotations and {roots} new \
         node roots seen done, {} texts of {epochs} key_ids, 0 lost, {:.0?}",
        killed[0],
        killed[1],
        texts.len(),
        started.elapsed()
    );
    assert!(done.is_enough(texts.len()), "too little happened");
    let table = node.ask(&["keys", "list"]);
    let active = table["keys"].as_array().unwrap().iter().filter(|row| row["state"] == "active").count();
    assert_eq!(active, 1);
    assert!(!node.log().contains("fell_back") && !node.log().contains("state.troubled"), "no kill damaged a file");
}

#[test]
fn kills_of_recoveries_lose_no_text() {
    let started = Instant::now();
    let kills = setting("NODESEAL_KILLS", KILLS) / 10;
    let seed = setting("NODESEAL_SEED", u64::from(std::process::id()));
    eprintln!("NODESEAL_SEED={seed} NODESEAL_KILLS={}", kills * 10);
    let mut random = Random(seed);
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    let printed = alone.tool(&["init", "--recovery-code", "--json"]);
    let identity = alone.home().join("code").display().to_string();
    std::fs::write(&identity, printed.json()["recovery_code"].as_str().unwrap()).unwrap();
    let mut texts = vec![alone.start().store().unwrap()];
    let (mut cut, mut whole) = (0, 0);
    let mut wait_max_ms = RECOVERY_MAX_MS;
    while cut + whole < kills || (cut == 0 && cut + whole < kills * MORE_KILLS) {
        tpm.tool("tpm2_clear -c p");
        assert_eq!(alone.stop(), 0);
        let mut recover = Command::new(NODESEAL);
        recover.args(["recover", "--identity", &identity]).env("NODESEAL_CONFIG", alone.config());
        let mut child = recover.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(random.below(wait_max_ms)));
        let _ = child.kill();
        if child.wait().unwrap().success() {
            whole += 1;
            wait_max_ms = (wait_max_ms / 2).max(1);
        } else {
            cut += 1;
            wait_max_ms = wait_max_ms * 3 / 2 + 1;
        }
        // The very same command line.
        let again = alone.tool(&["recover", "--identity", &identity]);
        assert!(again.code == 0 || again.err.contains("nothing to recover"), "{again:?}");
        let client = alone.start();
        texts.iter().for_each(|stored| client.assert_opens(stored));
        texts.push(client.store().unwrap());
    }
    let key_ids: std::collections::BTreeSet<_> = texts.iter().map(|stored| &stored.key_id).collect();
    assert_eq!(key_ids.len(), texts.len(), "each recovery has a key_id of its own");
    eprintln!(
        "FIGURE: {cut} recoveries killed and {whole} whole, {} texts, 0 lost, {:.0?}",
        texts.len(),
        started.elapsed()
    );
    assert!(cut >= 1, "too little happened");
}
