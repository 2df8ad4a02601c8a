//! Changes to a running node.

use nix::sys::signal::Signal;
use test_support::process;
use test_support::proxy::Mode;

use super::*;
use crate::dev::Dev;

#[test]
fn anything_wrong_keeps_what_runs_and_says_why() {
    let vault = Mine::new();
    let node = start(&[("vault", &vault, "")], &format!("sandbox.allow_ports = [1]\n{FAST}"));
    let client = node.client();
    seal(&node.config(), "other-login", &vault.login());
    let before = status(&node)["key_id"].clone();
    let good = fs::read_to_string(node.config()).unwrap();
    let unreachable = good.clone() + &table("other", &vault, "").replace(&vault.url(), "http://127.0.0.1:1");
    let denied = good.clone() + &table("denied", &vault, "");
    for (text, said) in [
        ("this is no TOML", "config"),
        (good.replace("kubernetes", "no/such").as_str(), "the configuration cannot be used (provider"),
        (unreachable.as_str(), "other"),
        (denied.as_str(), "denied-login"),
    ] {
        fs::write(node.config(), text).unwrap();
        let pid = node.pid("nodeseald");
        process::signal(pid, Signal::SIGHUP);
        until(SOON, "the refusal is logged", || {
            let log = node.log();
            let refused = log.lines().rfind(|line| line.contains("config.refused"))?;
            refused.contains(said).then_some(())
        });
        fs::write(node.config(), &good).unwrap();
        assert_eq!((status(&node)["key_id"].clone(), node.pid("nodeseald")), (before.clone(), pid));
        Text::new(&client).assert_opens(&client);
    }
    let refused = {
        fs::write(node.config(), &unreachable).unwrap();
        let output = node.tool(&["reload"]);
        fs::write(node.config(), &good).unwrap();
        output
    };
    assert!(refused.assert_refused(69).err.contains("`other` did not prove itself"), "{refused:?}");
}

#[test]
fn providers_are_added_renamed_and_reordered_without_a_word_from_kube_apiserver() {
    let (a, b) = (Mine::new(), Mine::new());
    let node = start(&[("a", &a, "")], &with_room_for(&[&b], FAST));
    let client = node.client();
    let first = Text::new(&client);
    ["b-login", "z-login"].iter().for_each(|name| seal(&node.config(), name, &b.login()));
    rewrite(&node, |file| {
        file.insert("provider".into(), tables(&[("a", &a, ""), ("b", &b, "")]));
    });
    process::signal(node.pid("nodeseald"), Signal::SIGHUP);
    let both = until_status(&node, "both are named", |status| status["key_id"] != json!(first.stored.key_id));
    assert_eq!(Text::new(&client).wraps(), 2);
    // Another name and another place are no change of keys.
    rewrite(&node, |file| {
        file.insert("provider".into(), tables(&[("z", &b, ""), ("a", &a, "")]));
    });
    node.ask(&["reload"]);
    std::thread::sleep(Duration::from_secs(3));
    let after = status(&node);
    assert_eq!((&after["key_id"], &after["wraps_owed"]), (&both["key_id"], &json!(0)));
    assert_eq!(after["providers"][0]["name"], "z");
    first.assert_opens(&client);
}

#[test]
fn the_last_provider_that_opens_a_kek_is_given_up_only_when_told_so() {
    let (a, b) = (Mine::new(), Mine::new());
    let node = start(&[("a", &a, "")], &with_room_for(&[&b], FAST));
    let client = node.client();
    let first = Text::new(&client);
    seal(&node.config(), "b-login", &b.login());
    let set = |providers: &[(&str, &Mine, &str)]| {
        rewrite(&node, |file| {
            file.insert("provider".into(), tables(providers));
        });
    };
    set(&[("b", &b, "")]);
    let refused = node.tool(&["reload"]);
    assert!(refused.assert_refused(77).err.contains("--abandon"), "{refused:?}");
    // The way out: it stays, and wraps nothing new.
    set(&[("a", &a, "write = false"), ("b", &b, "")]);
    node.ask(&["reload"]);
    until_status(&node, "b alone is named", |status| status["key_id"] != json!(first.stored.key_id));
    assert_eq!(Text::new(&client).wraps(), 1);
    let old =
        node.ask(&["keys", "list"])["keys"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    set(&[("b", &b, "")]);
    node.tool(&["reload"]).assert_refused(77);
    node.ask(&["keys", "retire", &old, "--confirm", &old, "--without-scan"]);
    node.ask(&["reload"]);
    // And with the order.
    rewrite(&node, |file| drop((file.remove("provider"), file.remove("write"))));
    node.tool(&["reload"]).assert_refused(77);
    // Nothing was seen of etcd, so nothing is known of what needs it.
    let unproved = node.tool(&["reload", "--abandon"]);
    assert!(unproved.assert_refused(77).err.contains("nodeseal etcd scan"), "{unproved:?}");
    node.ask(&["reload", "--abandon", "--without-scan"]);
    until_status(&node, "the node stands alone", |status| {
        status["mode"] == "hardware only" && status["waits"].is_null()
    });
    assert!(Text::new(&client).stored.annotations.is_empty());
}

#[test]
fn a_login_that_is_sealed_again_and_a_watched_file_need_no_restart_and_no_reload() {
    let vault = Mine::new();
    let node = start(&[("vault", &vault, "")], &format!("watch = true\n{FAST}"));
    let pid = node.pid("nodeseald");
    let new = vault.replace_secret_id();
    seal(&node.config(), "vault-login", &new);
    until(SOON, "the provider is opened anew", || node.log().contains("config.reloaded").then_some(()));
    until_status(&node, "it answers with the new login", |status| {
        status["providers"][0]["error"].is_null() && status["providers"][0]["answered_seconds_ago"] == 0
    });
    assert!(vault.proxy().seen().last().unwrap().path().contains("kubernetes"));
    let listed = node.ask(&["credentials", "list"]);
    assert_eq!(listed["credentials"][0]["used_by"], json!(["vault"]));
    rewrite(&node, |file| {
        file["provider"].as_array_mut().unwrap()[0].as_table_mut().unwrap().insert("required".into(), false.into());
    });
    until_status(&node, "the change is seen", |status| status["providers"][0]["role"] == "optional");
    assert_eq!(node.pid("nodeseald"), pid);
    vault.proxy().set(Mode::Pass);
}

#[test]
fn a_login_that_was_refused_while_its_provider_was_away_is_taken_up_when_it_is_back_and_no_reload_says_so_before() {
    let vault = Mine::new();
    let node = start(&[("vault", &vault, "")], FAST);
    let new = vault.replace_secret_id();
    vault.proxy().set(Mode::Reset);
    seal(&node.config(), "vault-login", &new);
    until(SOON, "the provider does not prove itself", || node.log().contains("config.refused").then_some(()));
    // Nor does it keep the rest from being taken up.
    rewrite(&node, |file| {
        file["provider"].as_array_mut().unwrap()[0].as_table_mut().unwrap().insert("required".into(), false.into());
    });
    let refused = node.tool(&["reload"]);
    let said = &refused.assert_refused(69).err;
    assert!(said.contains("except the changed files") && said.contains("`vault` did not prove itself"), "{refused:?}");
    assert_eq!(any_status(&node)["providers"][0]["role"], "optional");
    vault.proxy().set(Mode::Pass);
    let last = |log: &str| log.lines().rfind(|line| line.contains("config.re")).map(str::to_owned);
    until(SOON, "it is taken up by itself", || last(&node.log())?.contains("config.reloaded").then_some(()));
    node.ask(&["reload"]);
}

#[test]
fn name_role_and_limits_of_a_provider_that_is_away_can_be_changed_and_its_key_cannot() {
    let (away, well) = (Mine::new(), Mine::new());
    let node = start(&[("away", &away, ""), ("well", &well, "")], FAST);
    let role =
        |status: &Value, role: &str| status["providers"].as_array().unwrap().iter().any(|row| row["role"] == role);
    // Logins that were sealed after the start.
    until(SOON, "both are taken up", || (node.log().matches("config.reloaded").count() >= 2).then_some(()));
    away.proxy().set(Mode::Reset);
    let change = |key: &str, value: toml::Value| {
        rewrite(&node, |file| {
            let table = file["provider"].as_array_mut().unwrap()[0].as_table_mut().unwrap();
            table.insert(key.into(), value);
        });
    };
    change("required", false.into());
    node.ask(&["reload"]);
    assert!(role(&any_status(&node), "optional"));
    change("timeout", "10s".into());
    node.ask(&["reload"]);
    change("write", false.into());
    change("name", "gone".into());
    node.ask(&["reload"]);
    assert!(role(&any_status(&node), "decrypt-only"));
    change("key", "another".into());
    assert!(node.tool(&["reload"]).assert_refused(69).err.contains("`gone` did not prove itself"));
}

#[test]
fn names_that_are_swapped_change_no_key_and_make_no_wrap_also_while_one_of_them_fails() {
    let (a, b) = (Mine::new(), Mine::new());
    let providers: &[(&str, &Mine, &str)] = &[("a", &a, ""), ("b", &b, "")];
    let (other, node) = (start(providers, FAST), start(providers, FAST));
    let client = node.client();
    // Logins that were sealed after the start.
    for node in [&other, &node] {
        until(SOON, "both are taken up", || (node.log().matches("config.reloaded").count() >= 2).then_some(()));
        node.rotate_and_activate();
        until_status(node, "both have a copy", |status| status["wraps_owed"] == 0 && status["waits"].is_null());
    }
    let others = (Text::new(&other.client()), {
        other.rotate_and_activate();
        Text::new(&other.client())
    });
    drop(other);
    let before =
        until_status(&node, "both have a copy", |status| status["wraps_owed"] == 0 && status["waits"].is_null());
    let text = Text::new(&client);
    assert_eq!(text.wraps(), 2);
    let is_named = |row: &Value, name: &str| row["name"] == name;
    let wraps = || a.proxy().count("/encrypt/") + b.proxy().count("/encrypt/");
    let made = wraps();
    rewrite(&node, |file| {
        for table in file["provider"].as_array_mut().unwrap() {
            let table = table.as_table_mut().unwrap();
            let other = if table["name"].as_str() == Some("a") { "b" } else { "a" };
            table.insert("name".into(), other.into());
        }
    });
    b.proxy().change(|_, mut given| {
        (given.status, given.body) = (503, "{\"errors\":[]}".into());
        given
    });
    node.ask(&["reload"]);
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(8) {
        if begun.elapsed() > Duration::from_secs(4) {
            b.proxy().set(Mode::Pass);
        }
        let now = any_status(&node);
        assert_eq!((&now["key_id"], &now["wraps_owed"]), (&before["key_id"], &json!(0)), "{now:#}");
        text.assert_opens(&client);
        std::thread::sleep(Duration::from_millis(200));
    }
    until_status(&node, "both are well", |status| {
        status["providers"].as_array().unwrap().iter().all(|row| row["error"].is_null())
    });
    assert!(is_named(&status(&node)["providers"][0], "b"));
    assert_eq!(wraps(), made, "a copy was made");
    let log = node.log();
    assert!(!log.contains("epoch.refused"), "{log}");
    // Another node's texts open by either alone, each of a KEK that is new here.
    for (away, text) in [(&a, others.0), (&b, others.1)] {
        away.proxy().set(Mode::Reset);
        text.assert_opens(&client);
        away.proxy().set(Mode::Pass);
    }
}

#[test]
fn a_watched_configuration_that_was_refused_is_tried_again_and_status_says_that_it_does_not_run() {
    let (a, b) = (Mine::new(), Mine::new());
    let node = start(&[("a", &a, "")], &with_room_for(&[&b], &format!("watch = true\n{FAST}")));
    seal(&node.config(), "b-login", &b.login());
    assert_eq!(status(&node)["pending"], json!([]));
    b.proxy().set(Mode::Reset);
    rewrite(&node, |file| {
        file.insert("provider".into(), tables(&[("a", &a, ""), ("b", &b, "")]));
    });
    until(SOON, "b does not prove itself", || node.log().contains("config.refused").then_some(()));
    let pending = json!([{"key": "provider", "until": "nodeseal reload"}]);
    let waits = any_status(&node);
    assert_eq!((&waits["pending"], waits["providers"].as_array().unwrap().len()), (&pending, 1));
    let needs = waits["needs"].as_array().unwrap();
    assert!(needs.iter().any(|need| need["kind"] == "reload"), "{needs:?}");
    b.proxy().set(Mode::Pass);
    until_status(&node, "it is taken up by itself", |status| {
        status["providers"][1]["name"] == "b" && status["pending"] == json!([])
    });
}

#[test]
fn what_is_to_decrypt_alone_proves_that_it_decrypts_before_it_counts_as_an_opener() {
    let (a, b) = (Mine::new(), Mine::new());
    let rules = with_room_for(&[&b], &format!("[local_kek]\nenabled = false\n{FAST}"));
    // The room is for the top of the file.
    let node = start(&[("a", &a, "")], &rules);
    let client = node.client();
    let text = Text::new(&client);
    ["b-login", "c-login"].iter().zip([&b, &a]).for_each(|(name, vault)| seal(&node.config(), name, &vault.login()));
    // Another login, which may look at the key and not use it.
    a.allow(&["keys"]);
    rewrite(&node, |file| {
        file.insert("provider".into(), tables(&[("c", &a, "write = false"), ("b", &b, "")]));
    });
    let reload = node.tool(&["reload"]);
    let opens = text.open(&client).is_ok();
    assert!(reload.code != 0 || opens, "{reload:?}: and nothing opens what is stored");
}

#[test]
fn a_provider_that_could_not_be_opened_at_the_start_can_be_eased_and_keeps_no_other_one_from_being_changed() {
    let vault = Mine::new();
    let folder = tempfile::tempdir().unwrap();
    let broken = format!(
        "[[provider]]\nname = \"aws\"\nkind = \"aws\"\nregion = \"eu-central-1\"\nca_file = {:?}\n\
         key_arn = \"arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab\"\n\
         endpoint = \"http://127.0.0.1:9\"\nauth = {{ method = \"static\", credential = \"aws-keys\" }}\n",
        folder.path().join("not-there.pem")
    );
    let mut node = Node::prepare("", &format!("{FAST}{}{broken}", table("vault", &vault, "")));
    let _lines = begin(&mut node, &[("vault", &vault, "")]);
    until_status(&node, "Vault has answered", |status| status["providers"][0]["version"] == "1");
    let change = |place: usize| {
        rewrite(&node, |file| {
            let table = file["provider"].as_array_mut().unwrap()[place].as_table_mut().unwrap();
            table.insert("required".into(), false.into());
        });
        node.tool(&["reload"])
    };
    let of_another = change(0);
    let roles = |status: &Value| [0, 1].map(|place| status["providers"][place]["role"].clone());
    assert_eq!(roles(&any_status(&node))[0], "optional", "{of_another:?}");
    let of_its_own = change(1);
    assert_eq!(roles(&any_status(&node))[1], "optional", "{of_its_own:?}");
}

#[test]
fn a_plugin_that_opens_nothing_of_the_key_that_its_table_names_lets_the_only_opener_not_go() {
    let (real, other) = (Dev::start("tpm2"), Dev::start("tpm2"));
    let table = |name: &str, plugin: &Dev| {
        let socket = plugin.path("kms.sock");
        format!("[[provider]]\nname = \"{name}\"\nkind = \"kms-plugin\"\nsocket = {socket:?}\nkey = \"shared\"\n")
    };
    let (of_real, of_other) = (table("real", &real), table("other", &other));
    // A start proves nothing.
    let node = Node::start_with(&format!("[local_kek]\nenabled = false\n{FAST}{of_real}{of_other}"));
    let client = node.client();
    let text = Text::new(&client);
    // It is probed, and shown what the key has made.
    std::thread::sleep(Duration::from_secs(4));
    Text::new(&client);
    rewrite(&node, |file| {
        file.insert("provider".into(), of_other.parse::<toml::Table>().unwrap()["provider"].clone());
    });
    let reload = node.tool(&["reload"]);
    let opens = text.open(&client);
    assert!(reload.code != 0 || opens.is_ok(), "{reload:?}: and what is stored is answered with {opens:?}");
}

#[test]
fn another_way_to_a_key_that_may_not_open_lets_the_only_opener_not_go() {
    let (vault, next) = (Mine::new(), Mine::new());
    let rules = with_room_for(&[&next], &format!("[local_kek]\nenabled = false\n{FAST}"));
    // A start proves nothing, and the second login may look at the key alone.
    let mut node = prepare(&[("a", &vault, ""), ("c", &vault, "write = false")], &rules);
    let lines = node.begin();
    until(SOON, "the control socket is there", || node.control().exists().then_some(()));
    until(SOON, "the node root is there", || node.state().join("current").exists().then_some(()));
    seal(&node.config(), "c-login", &vault.login_that_may(&["keys"]));
    seal(&node.config(), "a-login", &vault.login());
    seal(&node.config(), "next-login", &next.login());
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    node.cut();
    let lines = node.begin();
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    let client = node.client();
    let text = Text::new(&client);
    until_status(&node, "c has told its key", |status| status["providers"][1]["answered_seconds_ago"].is_u64());
    text.assert_opens(&client);
    rewrite(&node, |file| {
        file.insert("provider".into(), tables(&[("next", &next, ""), ("c", &vault, "write = false")]));
    });
    let reload = node.tool(&["reload"]);
    let opens = text.open(&client);
    assert!(opens.is_ok(), "{reload:?}: and what is stored is answered with {opens:?}\n{}", node.log());
}

#[test]
fn after_a_restart_one_of_two_ways_to_a_key_may_leave_before_anything_was_opened() {
    let vault = Mine::new();
    let rules = with_room_for(&[], &format!("[local_kek]\nenabled = false\n{FAST}"));
    let mut node = prepare(&[("a", &vault, ""), ("c", &vault, "")], &rules);
    let lines = node.begin();
    until(SOON, "the node root is there", || node.state().join("current").exists().then_some(()));
    until(SOON, "the control socket is there", || node.control().exists().then_some(()));
    seal(&node.config(), "a-login", &vault.login());
    seal(&node.config(), "c-login", &vault.login());
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    let text = Text::new(&node.client());
    node.cut();
    let lines = node.begin();
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    until_status(&node, "c has told its key", |status| status["providers"][1]["answered_seconds_ago"].is_u64());
    rewrite(&node, |file| drop(file.insert("provider".into(), tables(&[("c", &vault, "")]))));
    node.ask(&["reload"]);
    text.assert_opens(&node.client());
}

#[test]
fn a_plugin_under_the_name_of_a_key_that_has_served_and_is_away_since_the_start_is_not_taken_for_it() {
    let (real, other) = (Dev::start("tpm2"), Dev::start("tpm2"));
    let table = |socket: std::path::PathBuf| {
        format!("[[provider]]\nname = \"plugin\"\nkind = \"kms-plugin\"\nsocket = {socket:?}\nkey = \"shared\"\n")
    };
    let rules = format!("[local_kek]\nenabled = false\n{FAST}");
    let mut node = Node::start_with(&format!("{rules}{}", table(real.path("kms.sock"))));
    let text = Text::new(&node.client());
    node.cut();
    // Its socket stays: somebody may start it again.
    drop(real);
    let _lines = node.begin();
    until(SOON, "the control socket is there", || node.control().exists().then_some(()));
    until(SOON, "the keys are open", || any_status(&node)["keys_known"].as_bool().filter(|known| *known).map(drop));
    rewrite(&node, |file| {
        let table = table(other.path("kms.sock")).parse::<toml::Table>().unwrap();
        file.insert("provider".into(), table["provider"].clone());
    });
    let reload = node.tool(&["reload"]);
    let opens = text.open(&node.client());
    assert!(reload.code != 0, "{reload:?}: and what is stored is answered with {opens:?}");
}

/// A node whose only login serves once, which has served.
fn with_a_login_that_serves_once(vault: &Mine) -> Node {
    let mut node = prepare(&[("vault", vault, "")], FAST);
    // Sealed by a first run, so that the second one finds it there.
    let first = node.begin();
    until(SOON, "the control socket is there", || node.control().exists().then_some(()));
    until(SOON, "the node root is there", || node.state().join("current").exists().then_some(()));
    vault.proxy().set(Mode::Reset);
    seal(&node.config(), "vault-login", &vault.login_that_serves_once());
    node.cut();
    drop(first);
    vault.proxy().set(Mode::Pass);
    let lines = node.begin();
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    node
}

#[test]
fn a_time_limit_that_is_changed_costs_no_login_that_serves_once() {
    let vault = Mine::new();
    let node = with_a_login_that_serves_once(&vault);
    assert_eq!(one_more_text(&node).wraps(), 1);
    rewrite(&node, |file| {
        file["provider"].as_array_mut().unwrap()[0].as_table_mut().unwrap().insert("timeout".into(), "10s".into());
    });
    let reload = node.tool(&["reload"]);
    std::thread::sleep(Duration::from_secs(3));
    let row = any_status(&node)["providers"][0].clone();
    assert!(row["error"].is_null(), "{reload:?}: and the login that ran is gone: {row}");
}

fn one_more_text(node: &Node) -> Text {
    Text::new(&node.client())
}
