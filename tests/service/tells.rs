//! What the tool tells of itself and without a configuration (help, version, completions), and the status that goes on.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;
use test_support::node::{Output, run, tool};
use test_support::process::until;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;
use crate::alone::NODESEAL;

/// Without a configuration.
fn bare(args: &[&str]) -> Output {
    tool("/nonexistent/nodeseal.toml".as_ref(), args)
}

#[test]
fn help_is_what_everybody_types_first() {
    for (typed, same) in [
        (&["help"][..], &["--help"][..]),
        (&["help", "status"], &["status", "--help"]),
        (&["help", "keys", "rotate"], &["keys", "rotate", "--help"]),
        (&["keys", "help"], &["keys", "--help"]),
        (&["keys", "help", "retire"], &["keys", "retire", "--help"]),
    ] {
        let (typed, same) = (bare(typed), bare(same));
        assert_eq!((typed.code, typed.err.as_str()), (0, ""), "{typed:?}");
        assert_eq!(typed.out, same.out);
    }
    assert_eq!(bare(&["help", "frobnicate"]).code, 64);
}

#[test]
fn the_version_names_features_and_formats_and_needs_no_configuration() {
    let text = bare(&["version"]);
    assert_eq!((text.code, text.err.as_str()), (0, ""), "{text:?}");
    assert!(text.out.starts_with(&format!("nodeseal {}\n", env!("CARGO_PKG_VERSION"))), "{text:?}");
    let json = bare(&["version", "--json"]).json();
    assert!(json["features"].as_array().unwrap().contains(&"tpm2".into()), "{json}");
    let format = |name: &str| {
        let formats = json["formats"].as_array().unwrap();
        formats.iter().find(|format| format["name"] == name).unwrap_or_else(|| panic!("{name} in {json}"))
    };
    assert_eq!((&format("state")["reads"], &format("state")["writes"]), (&serde_json::json!([1, 2, 3, 4]), &4.into()));
    assert_eq!(format("bundle")["writes"], 2);
    assert_eq!(format("nodeseal.toml")["reads"], serde_json::json!([1]));
}

#[test]
fn completions_are_such_that_their_shell_takes_them() {
    for shell in ["bash", "zsh", "fish"] {
        let output = bare(&["completions", shell]);
        assert_eq!((output.code, output.err.as_str()), (0, ""), "{shell}: {}", output.err);
        for word in ["rotate-root", "when-all-have", "completions"] {
            assert!(output.out.contains(word), "{word} for {shell}");
        }
    }
    let script = format!("set -eu; eval \"$({NODESEAL} completions bash)\"; complete -p nodeseal");
    let bash = run(Command::new("bash").args(["-c", &script]));
    assert!(bash.code == 0 && bash.out.contains("nodeseal"), "{bash:?}");
    assert_eq!(bare(&["completions", "tcsh"]).code, 64);
}

/// Lines as they come. Dropped, it stops reading with the next one.
fn lines_of(from: impl Read + Send + 'static) -> Receiver<String> {
    let (send, lines) = channel();
    std::thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = String::new();
        while matches!(from.read_line(&mut line), Ok(1..)) && send.send(std::mem::take(&mut line)).is_ok() {}
    });
    lines
}

fn line(lines: &Receiver<String>) -> String {
    lines.recv_timeout(Duration::from_secs(30)).expect("a line comes")
}

/// `status --watch`, which ends with its reader.
fn watch(alone: &Alone, more: &[&str]) -> (Child, Receiver<String>) {
    let mut command = Command::new(NODESEAL);
    command.args(["status", "--watch", "--config"]).arg(alone.config()).args(more);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let lines = lines_of(child.stdout.take().unwrap());
    (child, lines)
}

#[test]
fn a_watch_as_json_is_a_line_each_through_a_restart_and_ends_when_nobody_reads() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    let (mut child, lines) = watch(&alone, &["--json"]);
    let next = || serde_json::from_str::<Value>(&line(&lines)).unwrap();
    for _ in 0..2 {
        let told = next();
        assert_eq!((told["schema"].as_str(), told["healthy"].as_bool()), (Some("nodeseal.status/1"), Some(true)));
    }
    alone.kill();
    let is_away = |told: &Value| told["schema"] == "nodeseal.error/1" && told["exit"] == 69;
    assert!((0..3).any(|_| is_away(&next())), "that it is away is told");
    alone.start();
    assert!((0..3).any(|_| next()["healthy"] == true), "that it is back is told");
    drop(lines);
    until(Duration::from_secs(10), "it ends with its reader", || child.try_wait().unwrap());
}

#[test]
fn a_watch_on_a_pipe_is_a_block_each_and_draws_nothing() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    let (mut child, lines) = watch(&alone, &[]);
    for _ in 0..2 {
        assert_eq!(line(&lines), "health       ok\n");
        let mut block = String::new();
        while block.lines().next_back() != Some("") {
            block += &line(&lines);
        }
        assert!(block.contains("\nkey_id ") && !block.contains('\x1b'), "{block}");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    // What asks the device each time is no watch.
    for device in ["--device", "--deep"] {
        assert_eq!(alone.tool(&["status", "--watch", device]).code, 64);
    }
}

#[test]
fn a_watch_on_a_terminal_is_drawn_anew_each_time() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    let pty = nix::pty::openpty(None, None);
    let pty = pty.unwrap();
    let mut command = Command::new(NODESEAL);
    command.args(["status", "--watch", "--config"]).arg(alone.config());
    let mut child = command.stdin(Stdio::null()).stdout(pty.slave).stderr(Stdio::null()).spawn().unwrap();
    // It has the other side of the terminal open; without it what we read ends with the child.
    drop(command);
    let screen = lines_of(std::fs::File::from(pty.master));
    let mut drawn = 0;
    while drawn < 2 {
        drawn += usize::from(line(&screen).starts_with("\x1b[H\x1b[2Jhealth "));
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        test_support::process::signal(self.0.id(), nix::sys::signal::Signal::SIGTERM);
        until(Duration::from_secs(25), "it ends", || self.0.try_wait().unwrap());
    }
}

#[test]
fn dev_says_where_things_are_and_what_it_gives_to_try_works_as_it_stands() {
    let home = tempfile::tempdir().unwrap();
    // As a shell must be given it.
    let dir = home.path().join("it's mine");
    let mut dev = Command::new(NODESEAL);
    let dev = dev.args(["dev", "--dir"]).arg(&dir).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut dev = Ended(dev);
    let lines = lines_of(dev.0.stdout.take().unwrap());
    assert_eq!(line(&lines), "ready\n", "what scripts wait for");
    let (mut said, mut commands) = (String::new(), Vec::new());
    while commands.len() < 3 {
        let line = line(&lines);
        match line.strip_prefix("next: ") {
            Some(command) => commands.push(command.trim_end().to_owned()),
            None => said += &line,
        }
    }
    for place in ["kms.sock", "control.sock", "nodeseal.toml", "log"] {
        let path = dir.join(place);
        assert!(path.exists() && said.contains(&path.display().to_string()), "{place} in {said}");
    }
    let printed: Vec<String> = commands
        .iter()
        .map(|command| {
            let words = command.strip_prefix("nodeseal ").unwrap();
            let output = run(Command::new("sh").arg("-c").arg(format!("{NODESEAL} {words}")));
            assert_eq!(output.code, 0, "{command}: {output:?}");
            output.out
        })
        .collect();
    for (printed, word) in printed.iter().zip(["round trip", "deactivated", "kind: EncryptionConfiguration"]) {
        assert!(printed.contains(word), "{word} in {printed}");
    }
}
