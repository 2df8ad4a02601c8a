//! What calls to a provider leave in the metrics of a node.

use test_support::proxy::Mode;

use super::*;

fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map_or(0.0, |value| value.parse().unwrap())
}

fn metrics(node: &Node) -> String {
    let output = node.tool(&["metrics"]);
    assert_eq!(output.code, 0, "{output:?}");
    output.out
}

fn asked(text: &str, operation: &str, class: &str) -> f64 {
    let labels = format!("class=\"{class}\",operation=\"{operation}\",provider=\"vault\"");
    value(text, &format!("nodeseal_provider_call_duration_seconds_count{{{labels}}}"))
}

#[test]
fn each_call_to_a_provider_is_measured_and_a_decrypt_says_whether_it_needed_one() {
    let vault = Mine::new();
    let providers: &[(&str, &Mine, &str)] = &[("vault", &vault, "")];
    let (one, two) = (start(providers, FAST), start(providers, FAST));
    let by = |text: &str, source: &str| value(text, &format!("nodeseal_decrypts_total{{source=\"{source}\"}}"));
    let (client, text) = (two.client(), Text::new(&one.client()));
    let before = metrics(&two);
    assert!(asked(&before, "wrap", "ok") >= 1.0 && asked(&before, "probe", "ok") >= 1.0, "{before}");
    let own = by(&before, "sealed_copy");
    assert_eq!(by(&before, "provider"), 0.0);
    text.assert_opens(&client);
    let after = metrics(&two);
    assert_eq!((by(&after, "provider"), by(&after, "sealed_copy") - own), (1.0, 0.0));
    assert_eq!(asked(&after, "unwrap", "ok") - asked(&before, "unwrap", "ok"), 1.0);
    until_status(&two, "the other node's KEK is kept", |status| status["keys"] == 2);
    text.assert_opens(&client);
    let kept = metrics(&two);
    assert_eq!((by(&kept, "provider"), by(&kept, "sealed_copy") - own), (1.0, 1.0));
    let ends = value(&kept, "nodeseal_provider_login_ends_in_seconds{provider=\"vault\"}");
    assert!(ends > 0.0, "{kept}");

    vault.proxy().set(Mode::Reset);
    until(SOON, "a failure is measured", || (asked(&metrics(&two), "probe", "unavailable") > 0.0).then_some(()));
    assert!(!metrics(&two).contains("no connection"), "no word of an error");
}
