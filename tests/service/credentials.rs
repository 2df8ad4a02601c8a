//! What providers log in with: sealed by the tool, stored by the daemon, useless anywhere else.

use std::fs;
use std::process::{Command, Stdio};

use crate::alone::Alone;
use crate::alone::NODESEAL;
use nodeseal::types::hex;
use test_support::node::Output;
use test_support::process::snapshot;
use test_support::swtpm::Swtpm;

const CANARY: &str = "hvs.CAESIcanary-of-a-vault-token-4711";

fn seal(alone: &Alone, name: &str, content: &str) -> Output {
    let mut command = Command::new("sh");
    command.arg("-c").arg("printf '%s\\n' \"$3\" | \"$0\" --config \"$1\" credentials seal \"$2\" --json");
    command.arg(NODESEAL).arg(alone.config()).args([name, content]).stdin(Stdio::null());
    test_support::node::run(&mut command)
}

fn names(alone: &Alone) -> Vec<String> {
    let list = alone.tool(&["credentials", "list", "--json"]).json();
    list["credentials"].as_array().unwrap().iter().map(|row| row["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_credential_is_sealed_with_and_without_a_daemon_and_shown_by_name_alone() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    assert!(names(&alone).is_empty());
    assert_eq!(seal(&alone, "vault-approle", CANARY).code, 0);
    alone.start();
    assert_eq!(seal(&alone, "aws-keys", CANARY).json()["name"], "aws-keys");
    alone.await_event("credential.sealed", "aws-keys");
    // In place of an older one, of which nothing stays.
    let before = fs::read(alone.root().join("credentials/aws-keys.cred")).unwrap();
    assert_eq!(seal(&alone, "aws-keys", "another").code, 0);
    for generation in ["aws-keys.cred", "aws-keys.cred.prev"] {
        assert_ne!(fs::read(alone.root().join("credentials").join(generation)).unwrap(), before);
    }
    assert_eq!(names(&alone), ["aws-keys", "vault-approle"]);
    let by_fd = format!(
        "printf x > '{0}/c'; exec 3<'{0}/c'; \"$0\" --config \"$1\" credentials seal by-fd --fd 3",
        alone.home().display()
    );
    let by_fd = test_support::node::run(Command::new("sh").arg("-c").arg(by_fd).arg(NODESEAL).arg(alone.config()));
    assert_eq!(by_fd.code, 0, "{by_fd:?}");
    assert!(!alone.log().contains(CANARY));
    let shown = alone.tool(&["credentials", "list"]);
    assert!(shown.out.contains("vault-approle") && !shown.out.contains(CANARY));
    for (_, bytes) in snapshot(&alone.state()) {
        assert!(!bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes()), "in clear on the disk");
    }
}

#[test]
fn nothing_too_much_and_bad_names_are_refused() {
    let tpm = Swtpm::start();
    let alone = Alone::set_up(&tpm);
    seal(&alone, "empty", "").assert_refused(78);
    // Also where the byte after the last that is taken ends a line.
    for rest in ["x", "\n", "\nx", "\n\n"] {
        seal(&alone, "long", &format!("{}{rest}", "x".repeat(64 * 1024 + usize::from(rest == "\n"))))
            .assert_refused(78);
    }
    seal(&alone, "../escape", CANARY).assert_refused(78);
    seal(&alone, "Upper", CANARY).assert_refused(78);
    alone.tool(&["credentials", "seal", "closed", "--fd", "99"]).assert_refused(78);
    assert!(names(&alone).is_empty());
}

#[test]
fn a_credential_of_another_node_is_not_taken_in() {
    let (one, two) = (Swtpm::start(), Swtpm::start());
    let (first, mut second) = (Alone::set_up(&one), Alone::set_up(&two));
    assert_eq!(seal(&first, "vault", CANARY).code, 0);
    second.start();
    // What the tool would send, made on the wrong node.
    let file = fs::read(first.root().join("credentials/vault.cred")).unwrap();
    let payload = hex::encode(&file[15..file.len() - 32]);
    let line = format!("{{\"verb\":\"credential-store\",\"name\":\"vault\",\"sealed\":\"{payload}\"}}\n");
    let answer = {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(second.home().join("run/control.sock")).unwrap();
        stream.write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    assert!(answer.contains("belongs to node root"), "{answer}");
    assert!(names(&second).is_empty());
}

#[test]
fn what_cannot_be_a_login_takes_the_place_of_none_and_what_is_used_is_not_removed() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let before = fs::read_to_string(alone.config()).unwrap();
    let provider = |name: &str, auth: &str| {
        format!(
            "[[provider]]\nname = \"{name}\"\nkind = \"vault\"\naddress = \"https://127.0.0.1:1\"\nmount = \"transit\"\nkey = \"k\"\nauth = {{ {auth} }}\n"
        )
    };
    let role = provider("by-role", "method = \"approle\", credential = \"role\"");
    let token = provider("by-token", "method = \"token\", credential = \"token\"");
    fs::write(alone.config(), format!("{before}{role}{token}")).unwrap();
    let good = format!("{{\"role_id\": \"r\", \"secret_id\": \"{CANARY}\"}}");
    assert_eq!(seal(&alone, "role", &good).code, 0);
    let file = alone.root().join("credentials/role.cred");
    let sealed = fs::read(&file).unwrap();
    for (name, content, provider) in [
        ("role", CANARY, "by-role"),
        ("role", "{\"role_id\": \"hvs.CAESIcanary-of-a-vault-token-4711\"", "by-role"),
        ("token", "hvs.CAESIcanary of a line", "by-token"),
    ] {
        let refused = seal(&alone, name, content);
        refused.assert_refused(78);
        let said = refused.err.clone() + &refused.out;
        assert!(said.contains(provider) && !said.contains("canary"), "{said}");
    }
    assert_eq!((fs::read(&file).unwrap(), names(&alone)), (sealed, vec!["role".to_owned()]));
    // By the file, and by what runs when the file says something else.
    let refused = |alone: &Alone| {
        let refused = alone.tool(&["credentials", "remove", "role", "--json"]);
        refused.assert_refused(78);
        assert!((refused.err + &refused.out).contains("by-role"));
    };
    refused(&alone);
    alone.start_locked();
    // At once: a sealer that begins meanwhile reads it.
    let next = alone.config().with_extension("next");
    fs::write(&next, &before).unwrap();
    fs::rename(&next, alone.config()).unwrap();
    refused(&alone);
    assert_eq!(seal(&alone, "loose", CANARY).code, 0);
    assert_eq!(alone.tool(&["credentials", "remove", "loose"]).code, 0);
    alone.await_event("credential.removed", "loose");
    assert_eq!(names(&alone), ["role"]);
    assert_eq!(alone.stop(), 0);
    assert_eq!(alone.tool(&["credentials", "remove", "role"]).code, 0);
    assert!(names(&alone).is_empty() && fs::read_dir(alone.root().join("credentials")).unwrap().next().is_none());
    alone.tool(&["credentials", "remove", "role"]).assert_refused(66);
}
