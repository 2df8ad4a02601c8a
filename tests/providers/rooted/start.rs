//! Starts: with the provider there, away, and there for the first time.

use test_support::client::code;
use test_support::proxy::Mode;

use super::*;

#[test]
fn a_node_that_starts_with_its_provider_away_serves_from_its_sealed_keys() {
    let vault = Mine::new();
    let mut node = start(&[("vault", &vault, "")], FAST);
    let before = Text::new(&node.client());
    assert_eq!(before.wraps(), 1);
    node.cut();
    vault.proxy().set(Mode::Reset);
    let opened = vault.proxy().count("/decrypt/");
    node.up();
    let client = node.client();
    let status = client.status().unwrap();
    assert_eq!((status.healthz.as_str(), &status.key_id), ("ok", &before.stored.key_id), "the last known key_id");
    before.assert_opens(&client);
    let during = Text::new(&client);
    during.assert_opens(&client);
    assert_eq!((during.wraps(), &during.stored.key_id), (1, &before.stored.key_id));
    assert_eq!(vault.proxy().count("/decrypt/"), opened);
    let shown = until_status(&node, "status shows the outage", |status| status["outage_seconds"] != 0);
    assert_eq!((&shown["healthy"], &shown["providers"][0]["class"]), (&json!(true), &json!("unavailable")));
}

#[test]
fn a_fresh_node_waits_for_its_provider_and_says_so() {
    let vault = Mine::new();
    vault.proxy().set(Mode::Reset);
    let providers: &[(&str, &Mine, &str)] = &[("vault", &vault, "")];
    let mut node = prepare(providers, FAST);
    let lines = begin(&mut node, providers);
    let client = node.client();
    let refused = Text::try_new(&client).err().unwrap();
    assert_eq!(refused.code(), Some(code::UNAVAILABLE));
    let status = any_status(&node);
    assert!(status["healthy"] == false && status["waits"].as_str().unwrap().contains("provider"), "{status}");
    vault.proxy().set(Mode::Pass);
    lines.recv_timeout(SOON).unwrap();
    let text = Text::new(&client);
    assert_eq!((text.wraps(), node.ask(&["keys", "list"])["keys"].as_array().unwrap().len()), (1, 1));
}

#[test]
fn a_node_without_providers_gets_one_by_a_reload_and_reads_what_it_wrote_before() {
    let vault = Mine::new();
    let mut node = Node::prepare("", "sandbox.providers = \"any\"\n");
    node.up();
    let client = node.client();
    let before = Text::new(&client);
    assert!(before.stored.annotations.is_empty());
    seal(&node.config(), "vault-login", &vault.login());
    rewrite(&node, |file| {
        file.insert("provider".into(), tables(&[("vault", &vault, "")]));
        file.insert("write".into(), FAST.parse::<toml::Table>().unwrap()["write"].clone());
    });
    node.ask(&["reload"]);
    let old = before.stored.key_id.clone();
    until_status(&node, "another key_id is reported", |status| status["key_id"] != json!(old));
    let after = Text::new(&client);
    assert_eq!(after.wraps(), 1);
    before.assert_opens(&client);
    after.assert_opens(&client);
}

#[test]
fn a_kek_whose_sealed_copy_is_damaged_comes_back_from_the_provider_and_is_sealed_again() {
    let vault = Mine::new();
    let mut node = start(&[("vault", &vault, "")], FAST);
    let before = Text::new(&node.client());
    let id = node.ask(&["keys", "list"])["keys"][0]["id"].as_str().unwrap().to_owned();
    let files = [".kek", ".kek.prev"].map(|end| node.root().join(format!("keyring/{id}{end}")));
    node.cut();
    files.iter().for_each(|file| fs::write(file, b"NODESEAL torn").unwrap());
    node.up();
    let client = node.client();
    let after = Text::new(&client);
    assert_eq!(after.stored.key_id, before.stored.key_id, "the keys at the provider are the same");
    // Until the new KEK has its copy each text has a key of its own, so that another node reads it in any case.
    assert!(after.opens_elsewhere());
    after.assert_opens(&client);
    until(SOON, "the new KEK is wrapped", || (node.ask(&["keys", "list"])["keys"][0]["wraps"] == 1).then_some(()));
    let later = Text::new(&client);
    before.assert_opens(&client);
    until(SOON, "it is sealed again", || fs::read(&files[0]).unwrap().starts_with(b"NODESEAL\x03").then_some(()));
    // And from then on it is there without the provider.
    node.cut();
    vault.proxy().set(Mode::Reset);
    node.up();
    let client = node.client();
    [&before, &later].iter().for_each(|text| text.assert_opens(&client));
}

#[test]
fn a_provider_that_is_renamed_while_it_is_away_moves_no_key_id() {
    let (a, b) = (Mine::new(), Mine::new());
    let mut node = start(&[("a", &a, ""), ("b", &b, "required = false")], FAST);
    let both = until_status(&node, "both are named", |status| {
        status["providers"].as_array().unwrap().iter().all(|row| row["version"] == "1") && status["waits"].is_null()
    });
    let text = Text::new(&node.client());
    assert_eq!(text.wraps(), 2);
    node.stop();
    b.proxy().set(Mode::Reset);
    let renamed: &[(&str, &Mine, &str)] = &[("a", &a, ""), ("z", &b, "required = false")];
    let tables: String = renamed.iter().map(|(name, vault, more)| table(name, vault, more)).collect();
    // Read at the next start.
    fs::write(node.dir().with_file_name("fragment.toml"), format!("{FAST}{tables}")).unwrap();
    let lines = node.begin();
    lines.recv_timeout(SOON).unwrap();
    seal(&node.config(), "z-login", &b.login());
    until_status(&node, "z is seen to be away", |status| status["providers"][1]["class"] == "unavailable");
    assert_eq!(status(&node)["key_id"], both["key_id"]);
    b.proxy().set(Mode::Pass);
    until_status(&node, "z has answered", |status| {
        status["providers"][1]["version"] == "1" && status["waits"].is_null() && status["wraps_owed"] == 0
    });
    assert_eq!(status(&node)["key_id"], both["key_id"]);
    text.assert_opens(&node.client());
}

#[test]
fn a_secret_id_that_may_be_spent_is_told_in_status_and_not_tried_by_the_next_process_until_another_one_is_sealed() {
    let vault = Mine::new();
    // Vault grants its first login, and nobody hears of it.
    vault.proxy().set(Mode::Half);
    let mut node = prepare(&[("vault", &vault, "")], FAST);
    let _lines = node.begin();
    until(SOON, "the node root is there", || node.state().join("current").exists().then_some(()));
    seal(&node.config(), "vault-login", &vault.login_that_serves_once());
    let says = |node: &Node, words: &str| {
        let answers = || node.tool(&["status", "--json"]).json()["schema"] == "nodeseal.status/1";
        until(SOON, "nodeseald answers", || answers().then_some(()));
        // Lost answers make the next try later, up to a minute.
        until(SOON * 3, words, || {
            let status = any_status(node);
            status["providers"][0]["error"].as_str().is_some_and(|error| error.contains(words)).then_some(())
        });
    };
    says(&node, "may have spent it");
    node.cut();
    vault.proxy().set(Mode::Pass);
    let _lines = node.begin();
    says(&node, "most likely spent");
    let logins = vault.logins();
    assert!(node.log().contains("secret_id_num_uses=0"), "{}", node.log());
    node.cut();
    let lines = node.begin();
    says(&node, "most likely spent");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!((logins, vault.logins()), (2, 2));
    seal(&node.config(), "vault-login", &vault.login());
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    assert_eq!(Text::new(&node.client()).wraps(), 1);
}

#[test]
fn a_secret_id_that_the_node_has_fetched_and_sealed_itself_is_no_changed_file() {
    let vault = Mine::new();
    let mut node = prepare(&[("vault", &vault, "")], FAST);
    let lines = node.begin();
    until(SOON, "the control socket is there", || node.control().exists().then_some(()));
    until(SOON, "the node root is there", || node.state().join("current").exists().then_some(()));
    seal(&node.config(), "vault-login", &vault.wrapped_login_that_serves_once());
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    // Some looks at the files.
    std::thread::sleep(Duration::from_secs(5));
    let refused: Vec<_> =
        node.log().lines().filter(|line| line.contains("config.refused")).map(str::to_owned).collect();
    assert!(refused.is_empty(), "its only use is spent on a proof: {refused:?}");
}

#[test]
fn a_login_that_is_sealed_in_place_of_one_that_the_node_has_fetched_itself_is_taken_up_once() {
    let vault = Mine::new();
    let mut node = prepare(&[("vault", &vault, "")], FAST);
    let lines = node.begin();
    until(SOON, "the control socket is there", || node.control().exists().then_some(()));
    until(SOON, "the node root is there", || node.state().join("current").exists().then_some(()));
    seal(&node.config(), "vault-login", &vault.wrapped_login_that_serves_once());
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    seal(&node.config(), "vault-login", &vault.login());
    let taken_up = || node.log().matches("config.reloaded").count();
    until(SOON, "the new login is taken up", || (taken_up() > 0).then_some(()));
    // Looks at the files that have not changed since.
    std::thread::sleep(Duration::from_secs(3));
    let (reloads, logins) = (taken_up(), vault.logins());
    std::thread::sleep(Duration::from_secs(12));
    let more = (taken_up() - reloads, vault.logins() - logins);
    assert_eq!(more, (0, 0), "reloads and logins for a file that has not changed");
}
