//! Known secrets go through everything at the finest log level, and are found nowhere.

use super::*;
use crate::process::snapshot;
use crate::proxy::Mode;

#[test]
fn no_login_token_or_key_is_in_any_log_output_or_file() {
    let vault = Mine::new();
    let rules = format!("log = {{ level = \"trace\", format = \"json\" }}\n{FAST}");
    let node = start(&[("vault", &vault, "")], &rules);
    let other = start(&[("vault", &vault, "")], &rules);
    let client = node.client();
    let text = Text::new(&client);
    text.assert_opens(&other.client());
    // Errors show much: an outage, a lie, a refused login.
    vault.proxy().set(Mode::Reset);
    let _ = node.tool(&["keys", "rotate"]);
    vault.proxy().change(|_, mut given| {
        given.status = 403;
        given
    });
    until_status(&node, "the refusal is seen", |status| !status["providers"][0]["error"].is_null());
    vault.proxy().set(Mode::Pass);
    let mut canaries = crate::conformance::Ground::canaries(&vault);
    canaries.push(String::from_utf8_lossy(&text.plaintext).into_owned());
    canaries.push(hex::encode(&text.plaintext));
    assert!(canaries.len() > 6, "tokens and plaintexts were seen on the wire");
    let shown = [
        node.logs(),
        other.logs(),
        status(&node).to_string(),
        node.tool(&["status"]).out,
        node.tool(&["credentials", "list"]).out,
        node.tool(&["keys", "list"]).out,
    ];
    let files = snapshot(&node.state());
    for canary in &canaries {
        assert!(shown.iter().all(|text| !text.contains(canary)), "{canary} is shown");
        for (path, bytes) in &files {
            let found = bytes.windows(canary.len()).any(|window| window == canary.as_bytes());
            assert!(!found, "a secret is in {path}");
        }
    }
}
