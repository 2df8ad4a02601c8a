//! After each change the tool says what is to be done now: in lines `next:`, and in a list of that name under `--json`.

use std::fs;

use serde_json::Value;
use test_support::node::Output;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;

/// The steps of an answer, in either form.
fn steps(output: &Output) -> Vec<String> {
    assert_eq!(output.code, 0, "{output:?}");
    match serde_json::from_str::<Value>(&output.out) {
        Ok(json) => json["next"].as_array().unwrap().iter().map(|step| step.as_str().unwrap().to_owned()).collect(),
        Err(_) => output.out.lines().filter_map(|line| line.strip_prefix("next: ")).map(str::to_owned).collect(),
    }
}

/// There are as many steps as words, and each has its word.
fn assert_steps(output: &Output, words: &[&str]) {
    let steps = steps(output);
    let fit = steps.len() == words.len() && steps.iter().zip(words).all(|(step, word)| step.contains(word));
    assert!(fit, "{words:#?} in {steps:#?}");
}

#[test]
fn a_rotation_is_led_from_its_first_step_to_the_destruction_of_the_former_kek() {
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    let set_up = alone.tool(&["init", "--recovery-code"]);
    assert_steps(&set_up, &["copy ", "prove the recovery code", "start nodeseald"]);
    alone.start();
    let first = alone.tool(&["keys", "list", "--json"]).json()["keys"][0]["id"].as_str().unwrap().to_owned();
    assert_steps(&alone.tool(&["keys", "rotate"]), &["copy recovery.age", "nodeseal keys activate"]);
    assert_steps(&alone.tool(&["keys", "activate", "--json"]), &["migrate the storage"]);
    let retire = |more: &[&str]| alone.tool(&[&["keys", "retire", first.as_str()], more].concat());
    // The command that it gives does it.
    let dry = retire(&["--dry-run", "--without-scan"]);
    assert_steps(&dry, &[&format!("nodeseal keys retire {first} --confirm {first} --without-scan")]);
    assert_eq!(steps(&dry), steps(&retire(&["--dry-run", "--without-scan", "--json"])));
    let marked = retire(&["--confirm", &first, "--compromised"]);
    assert_steps(&marked, &["migrate the storage"]);
    assert!(
        steps(&marked)[0].ends_with(&format!("nodeseal keys retire {first} --confirm {first} --backups-before DATE")),
        "{marked:?}"
    );
    assert_steps(&retire(&["--confirm", &first, "--without-scan"]), &["destroy older copies"]);
    // Without a recovery file there is none to be copied.
    assert_eq!(alone.tool(&["reseal", "--no-recovery"]).code, 0);
    assert_steps(&alone.tool(&["keys", "rotate"]), &["back up the state directory", "nodeseal keys activate"]);
}

#[test]
fn a_reseal_by_the_tool_itself_ends_with_the_start_and_one_by_the_daemon_does_not() {
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    assert_eq!(alone.tool(&["init", "--recovery-code"]).code, 0);
    assert_steps(&alone.tool(&["reseal"]), &["start nodeseald"]);
    alone.start();
    assert_steps(&alone.tool(&["reseal", "--json"]), &[]);
    assert_steps(&alone.tool(&["reseal", "--recovery-code"]), &["copy recovery.age", "prove the recovery code"]);
    assert_steps(&alone.tool(&["rotate-root", "--dry-run"]), &["nodeseal rotate-root"]);
    assert_steps(&alone.tool(&["rotate-root"]), &["copy recovery.age", "destroy older copies of this disk"]);
    assert_eq!(alone.stop(), 0);
    assert_steps(&alone.tool(&["reseal", "--accept-rollback"]), &["start nodeseald"]);
}

#[test]
fn what_a_reload_does_not_take_up_is_said_with_what_does() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    assert_steps(&alone.tool(&["reload"]), &[]);
    alone.extra = "local_kek.max_age = \"30days\"\nseal.tpm2.rollback = \"tpm-counter\"".into();
    alone.write_config(&tpm);
    assert_steps(&alone.tool(&["reload"]), &["restart nodeseald", "nodeseal reseal"]);
}

#[test]
fn a_sealed_credential_is_to_be_named_or_taken_up() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let seal = |alone: &Alone| {
        fs::write(alone.home().join("secret"), "s3cret").unwrap();
        let line = "exec \"$0\" --config \"$1\" credentials seal token < \"$2\"";
        let mut sh = std::process::Command::new("sh");
        sh.args(["-c", line]).arg(alone.nodeseal()).arg(alone.config()).arg(alone.home().join("secret"));
        // The tool's own runner gives nothing on standard input; the shell opens the file.
        test_support::node::run(&mut sh)
    };
    assert_steps(&seal(&alone), &["[[provider]]"]);
    alone.start();
    assert_steps(&seal(&alone), &["nodeseal reload"]);
}

#[test]
fn nodes_that_exchange_keys_are_sent_to_each_other() {
    let (one, two) = (Swtpm::start(), Swtpm::start());
    let (mut first, mut second) = (Alone::set_up(&one), Alone::set_up(&two));
    first.start();
    second.start();
    let path = |name: &str| first.home().join(name).display().to_string();
    let (request, bundle, identity) = (path("request"), path("bundle"), path("identity"));
    let mark = |output: &Output| output.json()["fingerprint"].as_str().unwrap().to_owned();
    let asked = second.tool(&["bundle", "request", "--out", &request, "--json"]);
    assert_steps(&asked, &[&format!("nodeseal bundle make REQUEST --fingerprint {}", mark(&asked))]);
    let made = ["bundle", "make", &request, "--fingerprint", &mark(&asked), "--out", &bundle, "--json"];
    let made = first.tool(&made);
    assert_steps(&made, &[&format!("nodeseal bundle accept BUNDLE --fingerprint {}", mark(&made))]);
    let accepted = second.tool(&["bundle", "accept", &bundle, "--fingerprint", &mark(&made)]);
    assert_steps(&accepted, &["back up the state directory"]);
    let own = second.tool(&["members", "identity", "--name", "b", "--out", &identity, "--json"]);
    assert_steps(&own, &["on each other node: nodeseal members add"]);
    let added = first.tool(&["members", "add", &identity, "--fingerprint", &mark(&own)]);
    assert_steps(&added, &["on b, unless it knows this node", "keys rotate --members"]);
    assert_steps(&first.tool(&["members", "remove", "b"]), &["nodeseal members remove 'b'", "b keeps the keys"]);
    let next = first.tool(&["keys", "rotate"]);
    assert_steps(
        &next,
        &["back up the state directory", "other nodes have the active KEK", "when all have accepted their bundle"],
    );
}
