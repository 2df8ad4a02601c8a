//! Which recovery file `nodeseal recover` takes, and what it adds to a node whose keys open.

use std::fs;
use std::io::Write;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;

/// Set up with a recovery code, which lies in the file whose path is given.
fn set_up(tpm: &Swtpm) -> (Alone, String) {
    let alone = Alone::prepare(tpm);
    let printed = alone.tool(&["init", "--recovery-code", "--json"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let path = alone.home().join("code").display().to_string();
    fs::write(&path, printed.json()["recovery_code"].as_str().unwrap()).unwrap();
    (alone, path)
}

fn copy_away(alone: &Alone, name: &str) -> String {
    let copy = alone.home().join(name).display().to_string();
    fs::copy(alone.state().join("recovery.age"), &copy).unwrap();
    copy
}

fn rotate(alone: &Alone) {
    let rotated = alone.tool(&["keys", "rotate", "--activate"]);
    assert_eq!(rotated.code, 0, "{rotated:?}");
}

#[test]
fn a_file_that_has_less_than_the_one_that_lies_here_is_not_taken() {
    let tpm = Swtpm::start();
    let (mut alone, key) = set_up(&tpm);
    alone.start();
    let old = copy_away(&alone, "old.age");
    rotate(&alone);
    let stored = alone.client().store().unwrap();
    tpm.tool("tpm2_clear -c p");
    assert_eq!(alone.stop(), 0);
    let refused = alone.tool(&["recover", "--file", &old, "--identity", &key]);
    refused.assert_refused(77);
    assert!(refused.err.contains("lacks 1 KEK") && refused.err.contains("omit --file"), "{refused:?}");
    let recovered = alone.tool(&["recover", "--identity", &key, "--json"]);
    assert_eq!(recovered.code, 0, "{recovered:?}");
    assert!(recovered.json()["file"].as_str().unwrap().ends_with("recovery.age"), "{recovered:?}");
    alone.start().assert_opens(&stored);
}

#[test]
fn a_file_for_another_identity_is_no_reason_to_take_an_older_one() {
    let tpm = Swtpm::start();
    let (mut alone, old_key) = set_up(&tpm);
    // A recovery keeps a copy of the file from before.
    tpm.tool("tpm2_clear -c p");
    assert_eq!(alone.tool(&["recover", "--identity", &old_key]).code, 0);
    alone.start();
    let resealed = alone.tool(&["reseal", "--recovery-code", "--json"]);
    assert_eq!(resealed.code, 0, "{resealed:?}");
    rotate(&alone);
    tpm.tool("tpm2_clear -c p");
    assert_eq!(alone.stop(), 0);
    let refused = alone.tool(&["recover", "--identity", &old_key]);
    refused.assert_refused(77);
    assert!(refused.err.contains("not encrypted to this identity"), "{refused:?}");
}

#[test]
fn a_node_that_opens_gets_back_what_it_lacks() {
    let tpm = Swtpm::start();
    let (mut alone, key) = set_up(&tpm);
    let of_first = alone.start().store().unwrap();
    rotate(&alone);
    let file = copy_away(&alone, "copy.age");
    assert_eq!(alone.stop(), 0);
    // Set up anew before anybody thought of the file.
    for entry in fs::read_dir(alone.state()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    assert_eq!(alone.tool(&["init", "--no-recovery"]).code, 0);
    let of_second = alone.start().store().unwrap();
    assert_eq!(alone.stop(), 0);
    // Its bytes are there once.
    let pipe = alone.home().join("copy.pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    let (writer, bytes) = (pipe.clone(), fs::read(&file).unwrap());
    let written = std::thread::spawn(move || {
        fs::OpenOptions::new().write(true).open(&writer).unwrap().write_all(&bytes).unwrap();
        fs::remove_file(&writer).unwrap();
    });
    let restored = alone.tool(&["recover", "--file", pipe.to_str().unwrap(), "--identity", &key, "--json"]);
    written.join().unwrap();
    assert_eq!(restored.code, 0, "{restored:?}");
    assert_eq!(restored.json()["restored"].as_array().unwrap().len(), 2);
    let again = alone.tool(&["recover", "--file", &file, "--identity", &key]);
    again.assert_refused(77);
    assert!(again.err.contains("nothing to recover"), "{again:?}");
    let client = alone.start();
    client.assert_opens(&of_first);
    client.assert_opens(&of_second);
}
