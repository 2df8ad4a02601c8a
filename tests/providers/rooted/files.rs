//! Files of a provider that change under a running node: an authority before and after its server's certificate, and files that are
//! written anew all the time.

use std::time::Instant;

use test_support::proxy::Mode;

use super::*;
use crate::tls_front::{Authority, TlsFront};

fn behind(front: &TlsFront, vault: &Mine) -> String {
    table("vault", vault, &format!("ca_file = {:?}", front.roots())).replace(&vault.url(), &front.url())
}

/// Waits until the last that the log says of a configuration is this event.
fn until_last(node: &Node, what: &str, event: &str) {
    until(SOON, what, || {
        let log = node.log();
        log.lines().rfind(|line| line.contains("config.re"))?.contains(event).then_some(())
    });
}

fn one_that_wraps(node: &Node) -> Text {
    node.rotate_and_activate();
    let text = Text::new(&node.client());
    assert_eq!(text.wraps(), 1);
    text
}

fn until_well(node: &Node) {
    until_status(node, "the provider answers", |status| {
        let provider = &status["providers"][0];
        provider["error"].is_null() && provider["answered_seconds_ago"].as_u64().is_some_and(|seconds| seconds < 3)
    });
}

#[test]
fn an_authority_that_changes_before_its_server_or_after_it_is_taken_up_and_neither_loses_a_text() {
    let vault = Mine::new();
    let front = TlsFront::before(vault.proxy().server_side());
    let mut node = Node::prepare("", &format!("{FAST}{}", behind(&front, &vault)));
    let lines = begin(&mut node, &[("vault", &vault, "")]);
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    until_well(&node);
    let (client, first) = (node.client(), one_that_wraps(&node));

    // The file first: it is refused, what runs goes on, and no reload says otherwise.
    let next = Authority::new();
    front.trust(&next);
    until_last(&node, "the new file is refused", "config.refused");
    assert!(node.tool(&["reload"]).assert_refused(78).err.contains("except the changed files"));
    let second = one_that_wraps(&node);
    front.certify(&next);
    until_last(&node, "the new file is taken up", "config.reloaded");
    node.ask(&["reload"]);
    until_well(&node);
    let third = one_that_wraps(&node);

    // The server first, and every connection anew: it is not who the file says until the file says so.
    let last = Authority::new();
    front.certify(&last);
    front.hang_up();
    vault.proxy().set(Mode::Reset);
    until_status(&node, "it is away", |status| !status["providers"][0]["error"].is_null());
    vault.proxy().set(Mode::Pass);
    until_status(&node, "it is somebody else", |status| {
        status["providers"][0]["error"].as_str().is_some_and(|error| error.contains("did not prove"))
    });
    Text::new(&client).assert_opens(&client);
    front.trust(&last);
    until_well(&node);
    let fourth = one_that_wraps(&node);
    [first, second, third, fourth].iter().for_each(|text| text.assert_opens(&client));
}

#[test]
fn files_that_are_written_anew_all_the_time_open_no_provider_anew_and_ask_for_no_login() {
    let vault = Mine::new();
    let front = TlsFront::before(vault.proxy().server_side());
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let refresh = || {
        let new = folder.path().join("new");
        fs::write(&new, vault.fresh_token()).unwrap();
        fs::rename(&new, &token).unwrap();
        let roots = fs::read(front.roots()).unwrap();
        fs::write(&new, roots).unwrap();
        fs::rename(&new, front.roots()).unwrap();
    };
    refresh();
    let table = format!(
        "[[provider]]\nname = \"vault\"\nkind = \"vault\"\naddress = {:?}\nca_file = {:?}\nmount = {:?}\nkey = \"kubernetes\"\n\
         auth = {{ method = \"jwt\", mount = {:?}, role = {:?}, file = {:?} }}\n",
        front.url(),
        front.roots(),
        vault.name,
        vault.name,
        vault.name,
        token
    );
    let node = Node::start_with(&format!("{FAST}{table}"));
    until_well(&node);
    let settled = (node.log().matches("config.re").count(), vault.logins());
    assert_eq!(settled.1, 1);
    let begun = Instant::now();
    // Four of the looks at files.
    while begun.elapsed() < Duration::from_secs(8) {
        refresh();
        std::thread::sleep(Duration::from_millis(100));
    }
    until_well(&node);
    assert_eq!((node.log().matches("config.re").count(), vault.logins()), settled, "{}", node.log());
    one_that_wraps(&node).assert_opens(&node.client());
}

#[test]
fn a_login_that_serves_once_is_spent_on_one_proof_when_files_of_another_provider_are_refused_in_the_same_reload() {
    let (old, new) = (Mine::new(), Mine::new());
    let front = TlsFront::before(old.proxy().server_side());
    let running = behind(&front, &old);
    let mut node = Node::prepare("", &with_room_for(&[&new], &format!("{FAST}{running}")));
    let lines = begin(&mut node, &[("vault", &old, "")]);
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    until_well(&node);
    seal(&node.config(), "new-login", &new.login_that_serves_once());
    front.trust(&Authority::new());
    until_last(&node, "the new file is refused", "config.refused");
    rewrite(&node, |file| {
        let both = format!("{}{running}", table("new", &new, ""));
        file.insert("provider".into(), both.parse::<toml::Table>().unwrap()["provider"].clone());
    });
    let reload = node.tool(&["reload"]);
    let runs = any_status(&node)["providers"].as_array().unwrap().iter().any(|row| row["name"] == "new");
    assert!(runs && reload.err.contains("except the changed files"), "{} logins by it: {reload:?}", new.logins());
}

/// A node whose authority lies in a folder, and how that folder is made: as systemd does it with RuntimeDirectory= of what keeps the file
/// fresh, at each of its restarts.
fn with_its_authority_in(folder: &Path, vault: &Mine, front: &TlsFront) -> (Node, impl Fn()) {
    let (own, roots) = (folder.to_owned(), front.roots().to_owned());
    let make = move || {
        let _ = fs::remove_dir_all(&own);
        fs::create_dir(&own).unwrap();
        fs::copy(&roots, own.join("ca.pem")).unwrap();
    };
    make();
    let table =
        behind(front, vault).replace(&*front.roots().to_string_lossy(), &folder.join("ca.pem").to_string_lossy());
    let mut node = Node::prepare("", &format!("{FAST}{table}"));
    let lines = begin(&mut node, &[("vault", vault, "")]);
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    until_well(&node);
    (node, make)
}

#[test]
fn a_folder_that_is_made_anew_is_told_to_need_a_restart_and_is_read_after_it() {
    let vault = Mine::new();
    let front = TlsFront::before(vault.proxy().server_side());
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("agent");
    let (mut node, make) = with_its_authority_in(&folder, &vault, &front);
    assert_eq!(status(&node)["pending"], json!([]));
    make();
    let is_told = |row: &Value| {
        row["until"] == "restart nodeseald" && row["key"].as_str().unwrap().contains(&*folder.to_string_lossy())
    };
    until_status(&node, "it waits for a restart", |status| status["pending"].as_array().unwrap().iter().any(is_told));
    let refused = node.tool(&["reload"]);
    let said = &refused.assert_refused(78).err;
    assert!(said.contains("was created again") && said.contains("restart nodeseald"), "{refused:?}");
    let text = one_that_wraps(&node);
    node.stop();
    node.up();
    until_well(&node);
    assert_eq!(status(&node)["pending"], json!([]));
    text.assert_opens(&node.client());
    node.ask(&["reload"]);
}

#[test]
fn a_folder_below_run_that_is_made_anew_is_read_as_before() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED: only root makes folders in /run");
        return;
    }
    let vault = Mine::new();
    let front = TlsFront::before(vault.proxy().server_side());
    let top = tempfile::Builder::new().prefix("nodeseal-test-").tempdir_in("/run").unwrap();
    let folder = top.path().join("agent");
    let (node, make) = with_its_authority_in(&folder, &vault, &front);
    make();
    // Some looks at the files.
    std::thread::sleep(Duration::from_secs(5));
    node.ask(&["reload"]);
    assert_eq!((node.log().matches("config.refused").count(), &status(&node)["pending"]), (0, &json!([])));
    one_that_wraps(&node);
}

#[test]
fn a_login_that_serves_once_is_spent_on_one_proof_though_the_reload_is_refused_and_made_again() {
    let (old, new) = (Mine::new(), Mine::new());
    let node = start(&[("old", &old, "")], &with_room_for(&[&new], FAST));
    one_that_wraps(&node);
    seal(&node.config(), "new-login", &new.login_that_serves_once());
    rewrite(&node, |file| {
        file.insert("provider".into(), tables(&[("new", &new, "")]));
    });
    // It proves itself, and the key that leaves is needed.
    node.tool(&["reload"]).assert_refused(77);
    node.ask(&["reload", "--abandon", "--without-scan"]);
    until_well(&node);
    assert_eq!(new.logins(), 1);
    until_status(&node, "its key is named", |status| status["waits"].is_null() && status["wraps_owed"] == 0);
    assert_eq!(Text::new(&node.client()).wraps(), 1);
}
