//! Several providers at once: debts, outages, and one that lies.

use test_support::proxy::Mode;

use super::*;

const OPTIONAL: &str = "required = false";

#[test]
fn a_copy_that_is_owed_is_shown_and_paid_and_the_texts_without_it_stay_counted() {
    let (a, b) = (Mine::new(), Mine::new());
    b.proxy().set(Mode::Reset);
    let providers: &[(&str, &Mine, &str)] = &[("a", &a, ""), ("b", &b, OPTIONAL)];
    let node = start(providers, FAST);
    let client = node.client();
    // The key of `b` was never seen: the key_id names what is known.
    let short = Text::new(&client);
    assert_eq!(short.wraps(), 1);
    let first = short.stored.key_id.clone();
    until_status(&node, "the debt is shown", |status| status["wraps_owed"] == 1 && status["texts_short_of_wraps"] != 0);
    b.proxy().set(Mode::Pass);
    // Its key becomes a part of the key_id, and a KEK with both copies becomes active.
    until_status(&node, "both keys are named", |status| status["key_id"] != json!(first) && status["wraps_owed"] == 0);
    let full = Text::new(&client);
    assert_eq!(full.wraps(), 2);
    // From here on `b` is known: an outage is a debt, and the key_id stays.
    b.proxy().set(Mode::Reset);
    until_status(&node, "b is seen to be away", |status| status["providers"][1]["class"] == "unavailable");
    node.rotate_and_activate();
    let owed = Text::new(&client);
    assert_eq!((owed.wraps(), &owed.stored.key_id), (1, &full.stored.key_id));
    b.proxy().set(Mode::Pass);
    let paid = until_status(&node, "the debt is paid", |status| status["wraps_owed"] == 0);
    assert!(paid["texts_short_of_wraps"].as_u64().unwrap() >= 1, "what is out stays short: {paid}");
    assert_eq!(Text::new(&client).wraps(), 2);
    [short, full, owed].iter().for_each(|text| text.assert_opens(&client));
}

#[test]
fn with_two_of_three_away_reads_and_writes_go_on_and_other_nodes_texts_open() {
    let vaults = [Mine::new(), Mine::new(), Mine::new()];
    for strategy in ["ordered", "round-robin", "fastest"] {
        vaults.iter().for_each(|vault| vault.proxy().set(Mode::Pass));
        let providers: Vec<(&str, &Mine, &str)> =
            ["a", "b", "c"].into_iter().zip(&vaults).map(|(name, vault)| (name, vault, OPTIONAL)).collect();
        let rules = format!("{FAST}[decrypt]\nstrategy = \"{strategy}\"\n");
        let (one, two) = (start(&providers, &rules), start(&providers, &rules));
        until_status(&one, "all copies are made", |status| status["wraps_owed"] == 0);
        let text = Text::new(&one.client());
        assert_eq!(text.wraps(), 3);
        vaults[0].proxy().set(Mode::Reset);
        vaults[1].proxy().set(Mode::Silent);
        let client = two.client();
        text.assert_opens(&client);
        Text::new(&client).assert_opens(&client);
    }
}

#[test]
fn a_provider_that_opens_to_another_key_is_named_and_the_others_serve() {
    let (honest, liar) = (Mine::new(), Mine::new());
    let providers: &[(&str, &Mine, &str)] = &[("liar", &liar, ""), ("honest", &honest, "")];
    let rules = format!("{FAST}[decrypt]\nstrategy = \"ordered\"\n");
    let (one, two) = (start(providers, &rules), start(providers, &rules));
    let (texts, client) = (Text::new(&one.client()), two.client());
    liar.proxy().change(|seen, mut given| {
        if seen.path().contains("/decrypt/") {
            given.body = json!({ "data": { "plaintext": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=" } }).to_string();
        }
        given
    });
    texts.assert_opens(&client);
    // The log has a writer of its own.
    until(SOON, "it is told", || {
        let log = two.log();
        (log.contains("provider.failed") && log.contains("another key came back")).then_some(())
    });
    // And a new KEK is not trusted to it: its own wrap does not open again.
    let id = two.ask(&["keys", "rotate"])["key"]["id"].as_str().unwrap().to_owned();
    let refused = two.tool(&["keys", "activate", &id]);
    assert!(refused.assert_refused(69).err.contains("liar"), "{refused:?}");
    liar.proxy().set(Mode::Pass);
    until(SOON, "it is activated when its wrap is right", || {
        (two.tool(&["keys", "activate", &id]).code == 0).then_some(())
    });
    assert_eq!(Text::new(&client).wraps(), 2);
}

/// A node with a KEK of which both have a copy, after which the first one's table is taken out.
fn without_the_first(node: &Node, away: &dyn Fn()) -> (Text, test_support::node::Output) {
    let both = |status: &Value| {
        let providers = status["providers"].as_array().unwrap();
        providers.iter().all(|row| row["version"].is_string()) && status["wraps_owed"] == 0 && status["waits"].is_null()
    };
    until_status(node, "both have told their keys", both);
    node.rotate_and_activate();
    until_status(node, "both have a copy", both);
    let text = Text::new(&node.client());
    assert_eq!(text.wraps(), 2);
    away();
    rewrite(node, |file| drop(file["provider"].as_array_mut().unwrap().remove(0)));
    let reload = node.tool(&["reload"]);
    (text, reload)
}

#[test]
fn a_provider_leaves_while_the_one_that_has_the_same_copies_is_away_for_a_while() {
    let (a, b) = (Mine::new(), Mine::new());
    let node = start(&[("a", &a, ""), ("b", &b, "")], FAST);
    // Logins that were sealed after the start.
    until(SOON, "both are taken up", || (node.log().matches("config.reloaded").count() >= 2).then_some(()));
    let (text, reload) = without_the_first(&node, &|| b.proxy().set(Mode::Reset));
    assert_eq!((reload.code, any_status(&node)["providers"].as_array().unwrap().len()), (0, 1), "{reload:?}");
    b.proxy().set(Mode::Pass);
    text.assert_opens(&node.client());
}

#[test]
fn a_provider_leaves_where_a_plugin_has_the_same_copies() {
    let (vault, plugin) = (Mine::new(), crate::dev::Dev::start("tpm2"));
    let socket = plugin.path("kms.sock");
    let of_plugin =
        format!("[[provider]]\nname = \"p\"\nkind = \"kms-plugin\"\nsocket = {socket:?}\nkey = \"shared\"\n");
    let mut node = Node::prepare("", &format!("{FAST}{}{of_plugin}", table("a", &vault, "")));
    let lines = begin(&mut node, &[("a", &vault, "")]);
    lines.recv_timeout(SOON).unwrap_or_else(|_| panic!("not ready\n{}", node.logs()));
    until(SOON, "the login is taken up", || node.log().contains("config.reloaded").then_some(()));
    let (text, reload) = without_the_first(&node, &|| {});
    assert_eq!(reload.code, 0, "{reload:?}");
    text.assert_opens(&node.client());
}
