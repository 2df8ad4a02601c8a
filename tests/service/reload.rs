//! A changed configuration: what a running node takes up, what waits and for what, and what the confinement has no room for.

use std::fs;
#[cfg(feature = "vault")]
use std::path::Path;
use std::time::Duration;

use test_support::node::Node;
use test_support::process::until;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;

/// A Vault on a port of this machine where nobody listens.
#[cfg(feature = "vault")]
fn vault(port: u16, ca_file: Option<&Path>) -> String {
    let ca_file = ca_file.map(|path| format!("ca_file = {path:?}\n")).unwrap_or_default();
    format!(
        "[[provider]]\nname = \"v\"\nkind = \"vault\"\naddress = \"https://127.0.0.1:{port}\"\nmount = \"transit\"\n\
         key = \"k\"\n{ca_file}auth = {{ method = \"token\", credential = \"t\" }}\n"
    )
}

#[cfg(feature = "vault")]
fn authority(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("ca.pem");
    fs::write(&path, "no certificate").unwrap();
    path
}

#[test]
#[cfg(feature = "vault")]
fn a_reload_that_the_sandbox_has_no_room_for_is_refused_with_all_that_is_missing_and_what_to_do() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let client = alone.start();
    let stored = client.store().unwrap();
    let outside = tempfile::tempdir().unwrap();
    // Beside the configuration, which may be read, and elsewhere.
    let (beside, elsewhere) = (authority(alone.home()), authority(outside.path()));
    let folder = outside.path().display().to_string();
    for (ca_file, told, other) in
        [(&beside, &["TCP port 1"][..], folder.as_str()), (&elsewhere, &["TCP port 1", &folder], "/etc/ssl")]
    {
        alone.extra = vault(1, Some(ca_file));
        alone.write_config(&tpm);
        let refused = alone.tool(&["reload"]);
        let err = &refused.assert_refused(78).err;
        assert!(told.iter().all(|told| err.contains(told)) && !err.contains(other), "{err}");
        for remedy in ["restart nodeseald", "nodeseal.service", "providers = \"any\""] {
            assert!(err.contains(remedy), "{remedy}: {err}");
        }
        client.assert_opens(&stored);
    }
    // What was allowed beforehand is only refused for what it is: nobody listens there.
    alone.kill();
    let allowed = format!("sandbox = {{ allow_ports = [1], allow_paths = [{folder:?}] }}\n");
    alone.extra = allowed.clone();
    alone.write_config(&tpm);
    let client = alone.start();
    alone.extra = allowed + &vault(1, Some(&elsewhere));
    alone.write_config(&tpm);
    let refused = alone.tool(&["reload"]);
    assert!(refused.err.contains("did not prove itself"), "{refused:?}");
    client.assert_opens(&stored);
}

#[test]
#[cfg(feature = "vault")]
fn where_any_provider_may_come_one_is_added_by_a_reload_and_the_sandbox_is_whole_all_the_same() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let sandbox = "sandbox = { providers = \"any\", mode = \"require\" }\n".to_owned();
    alone.extra = sandbox.clone();
    alone.write_config(&tpm);
    let client = alone.start();
    let stored = client.store().unwrap();
    let enforced = alone.tool(&["status", "--json"]).json()["sandbox"].clone();
    assert_eq!(enforced["landlock"], "full", "{enforced}");
    let mut sealed = std::process::Command::new("sh");
    sealed.args(["-ec", "echo t | $0 credentials seal t"]).arg(alone.nodeseal()).env("NODESEAL_CONFIG", alone.config());
    assert!(sealed.status().unwrap().success());
    // By the roots of the system, which a name service and every port come with.
    alone.extra = sandbox.clone() + &vault(1, None);
    alone.write_config(&tpm);
    let refused = alone.tool(&["reload"]);
    let err = &refused.assert_refused(69).err;
    assert!(err.contains("did not prove itself") && err.contains("onnection refused"), "{err}");
    // What no kind needs stays closed.
    let outside = tempfile::tempdir().unwrap();
    alone.extra = sandbox + &vault(1, Some(&authority(outside.path())));
    alone.write_config(&tpm);
    let refused = alone.tool(&["reload"]);
    let err = &refused.assert_refused(78).err;
    assert!(err.contains(&outside.path().display().to_string()) && !err.contains("TCP port"), "{err}");
    assert!(err.contains("in `allow_paths` under [sandbox]") && !err.contains("write `providers"), "{err}");
    client.assert_opens(&stored);
}

#[test]
fn a_reload_and_the_status_say_what_of_the_file_does_not_run_and_what_it_waits_for() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    let reload = |alone: &Alone| alone.tool(&["reload", "--json"]).json()["pending"].clone();
    assert_eq!(reload(&alone), serde_json::json!([]));
    assert_eq!(alone.tool(&["reload"]).out, "configuration reloaded\n");
    alone.extra = "local_kek.max_age = \"30d\"\nseal.tpm2.policy = \"pcr\"\nseal.tpm2.pcrs = [4]\n".to_owned();
    alone.write_config(&tpm);
    let restart = serde_json::json!({ "key": "local_kek.max_age", "until": "restart nodeseald" });
    let reseal = serde_json::json!({ "key": "seal.tpm2.policy", "until": "nodeseal reseal" });
    assert_eq!(reload(&alone), serde_json::json!([restart, reseal]));
    let text = alone.tool(&["reload"]).out;
    assert!(text.starts_with("configuration reloaded, except:\n  local_kek.max_age "), "{text}");
    assert_eq!(alone.tool(&["status", "--json"]).json()["pending"], serde_json::json!([restart, reseal]));
    let told = "needs you    local_kek.max_age of the configuration is not in force yet: restart nodeseald";
    assert!(alone.tool(&["status"]).out.contains(told), "{}", alone.tool(&["status"]).out);
    assert!(alone.tool(&["metrics"]).out.contains("nodeseal_config_pending 2\n"));
    // Each by its own way, and no other.
    tpm.tool(&format!("tpm2_pcrextend 4:sha256={}", "11".repeat(32)));
    let resealed = alone.tool(&["reseal"]);
    assert_eq!(resealed.code, 0, "{resealed:?}");
    assert_eq!(alone.tool(&["status", "--json"]).json()["pending"], serde_json::json!([restart]));
    alone.kill();
    alone.start();
    assert_eq!(alone.tool(&["status", "--json"]).json()["pending"], serde_json::json!([]));
}

#[test]
fn the_sealer_takes_its_file_up_with_the_next_question_and_a_broken_one_changes_nothing() {
    // A user by his name is looked up by the confined process as well.
    let own = nix::unistd::geteuid();
    let node = Node::start_with(&format!("listen.allow_users = [\"root\", {own}]\n"));
    let written = fs::read_to_string(node.config()).unwrap();
    let pid = node.pid("nodeseal-sealer");
    let write = |text: &str| {
        let temporary = node.config().with_extension("new");
        fs::write(&temporary, text).unwrap();
        fs::rename(&temporary, node.config()).unwrap();
    };
    let (allowed, forbidden) = ("allow_software_tpm = true", "allow_software_tpm = false");
    assert!(written.contains(allowed), "{written}");
    assert_eq!(node.tool(&["reseal"]).code, 0);
    write(&written.replace(allowed, forbidden));
    let refused = node.tool(&["keys", "rotate"]);
    assert!(refused.assert_refused(78).err.contains("E-SWTPM"), "{refused:?}");
    let told = |log: &str| log.lines().any(|line| line.contains("device.refused") && line.contains("E-SWTPM"));
    until(Duration::from_secs(5), "the sealer's own log has it", || told(&node.logs()).then_some(()));
    write("nonsense");
    let asked = node.tool(&["status"]);
    assert_ne!(asked.code, 0, "the tool reads it too: {asked:?}");
    write(&written);
    assert_eq!(node.tool(&["keys", "rotate"]).code, 0, "as its hint says, and without a restart");
    assert_eq!(node.pid("nodeseal-sealer"), pid);
    let taken_up = |log: &str| log.matches("config.reloaded").count() == 2;
    until(Duration::from_secs(5), "both are told", || taken_up(&node.logs()).then_some(()));
}

#[test]
fn another_cluster_is_refused_and_no_restart_is_advised_that_the_node_would_not_come_back_from() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    alone.start();
    let path = alone.config();
    let file = std::fs::read_to_string(&path).unwrap();
    let other = file.replacen("cluster = \"", "cluster = \"other-", 1);
    assert_ne!(file, other);
    std::fs::write(&path, other).unwrap();
    let reload = alone.tool(&["reload"]);
    assert!(reload.code != 0 && reload.err.contains("put the name of the cluster back"), "{reload:?}");
    assert_eq!(alone.tool(&["status", "--json"]).json()["pending"][0]["until"], "nodeseal reload");
    std::fs::write(&path, file).unwrap();
    assert_eq!(alone.tool(&["reload"]).code, 0);
}
