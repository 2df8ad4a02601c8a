//! `nodeseal setup`: a folder from values or from questions, and what the tool says of it.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::pty::openpty;
use serde_json::json;
use test_support::node::{Output, tool};

use crate::alone::NODESEAL;

const VALUES: &str = "cluster = \"prod-eu-1\"\nkubernetes = \"kubeadm\"\nresources = [\"secrets\"]\n";
const FILES: [&str; 8] = [
    "README.md",
    "values.toml",
    "nodeseal.toml",
    "encryption/1-reads.yaml",
    "encryption/2-writes.yaml",
    "encryption/3-only.yaml",
    "kubernetes/cluster-configuration.yaml",
    "kubernetes/kube-apiserver.yaml",
];

/// It reads no configuration.
fn setup(arguments: &[&str]) -> Output {
    tool(Path::new("/nonexistent/nodeseal.toml"), &[&["setup"], arguments].concat())
}

#[test]
fn what_a_set_up_writes_is_a_good_configuration_and_the_file_that_the_tool_prints_for_kube_apiserver() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let providers = "[vault]\naddress = \"https://vault.example:8200\"\nmount = \"transit\"\nkey = \"k\"\nrole = \"n\"\n\
        [aws]\nkey_arn = \"arn:aws:kms:eu-central-1:111122223333:key/1234abcd\"\n\
        login_arn = \"arn:aws:iam::111122223333:role/nodes\"\n\
        [azure]\nvault_url = \"https://v.vault.azure.net\"\nkey = \"k\"\n\
        principal_id = \"33333333-3333-3333-3333-333333333333\"\n";
    for (number, more) in ["", providers].into_iter().enumerate() {
        let (values, out) = (path(&format!("values{number}")), path(&format!("out{number}")));
        fs::write(&values, format!("{VALUES}{more}")).unwrap();
        let written = setup(&["--values", &values, "--output", &out, "--json"]).json();
        assert_eq!(written["schema"], "nodeseal.setup/1");
        assert!(written["next"][0].as_str().unwrap().contains("README.md"), "{written}");
        if more.is_empty() {
            assert_eq!(written["files"], json!(FILES));
        }
        let toml = Path::new(&out).join("nodeseal.toml");
        let checked = tool(&toml, &["config", "check"]);
        assert_eq!((checked.code, checked.err.as_str()), (0, ""), "{checked:?}");
        let read = |name: &str| fs::read_to_string(Path::new(&out).join("encryption").join(name)).unwrap();
        assert_eq!(tool(&toml, &["encryption-config"]).out, read("2-writes.yaml"));
        assert_eq!(tool(&toml, &["encryption-config", "--no-identity"]).out, read("3-only.yaml"));
    }
}

#[test]
fn a_set_up_is_compared_with_what_is_there_and_nothing_is_written_over_it() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let (values, out) = (path("values"), path("out"));
    fs::write(&values, VALUES).unwrap();
    let bare = setup(&["--output", &out, "--check"]);
    assert!(bare.assert_refused(78).err.contains("cannot read the values"), "{bare:?}");
    assert_eq!(setup(&["--values", &values, "--output", &out]).code, 0);
    let same = setup(&["--output", &out, "--check"]);
    assert!(same.code == 0 && same.out.contains("is as these values give it"), "{same:?}");
    fs::write(home.path().join("out/nodeseal.toml"), "mine").unwrap();
    fs::remove_file(home.path().join("out/encryption/3-only.yaml")).unwrap();
    let changed = setup(&["--output", &out, "--check"]);
    assert_eq!(changed.code, 1, "{changed:?}");
    assert_eq!(changed.out, "nodeseal.toml differs from what these values give\nencryption/3-only.yaml is missing\n");
    let told = setup(&["--output", &out, "--check", "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&told.out).unwrap();
    assert_eq!((told.code, &answer["same"], &answer["schema"]), (1, &json!(false), &json!("nodeseal.setup-check/1")));
    assert_eq!(answer["files"][1], json!({ "file": "encryption/3-only.yaml", "state": "missing" }));
    let taken = setup(&["--values", &values, "--output", &out]);
    assert!(taken.assert_refused(78).err.contains("is there already"), "{taken:?}");
    assert_eq!(fs::read_to_string(home.path().join("out/nodeseal.toml")).unwrap(), "mine");
}

#[test]
fn bad_values_are_all_told_at_once_and_nothing_is_written() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).display().to_string();
    let (values, out) = (path("values"), path("out"));
    fs::write(&values, VALUES.replace("prod-eu-1", "a\\\"b").replace("kubeadm", "$(id)")).unwrap();
    let refused = setup(&["--values", &values, "--output", &out, "--json"]);
    let answer: serde_json::Value = serde_json::from_str(&refused.out).unwrap();
    let keys: Vec<_> = answer["problems"].as_array().unwrap().iter().map(|problem| &problem["key"]).collect();
    assert_eq!((refused.code, keys), (78, vec![&json!("cluster"), &json!("kubernetes")]));
    assert!(refused.err.contains("  cluster: ") && refused.err.contains("setup.md"), "{refused:?}");
    for text in ["cluster = 1", "token = \"x\"", "cluster"] {
        fs::write(&values, text).unwrap();
        let refused = setup(&["--values", &values, "--output", &out]);
        assert!(refused.assert_refused(78).err.contains("is not TOML with the values"), "{refused:?}");
    }
    let refused = setup(&["--output", &out]);
    assert!(refused.assert_refused(78).err.contains("no terminal to ask"), "{refused:?}");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);
}

#[test]
fn a_set_up_asks_on_a_terminal() {
    let home = tempfile::tempdir().unwrap();
    let terminal = openpty(None, None).unwrap();
    let mut command = Command::new(NODESEAL);
    command.args(["setup", "--output"]).arg(home.path().join("out")).env_remove("NODESEAL_CONFIG");
    command.stdin(terminal.slave.try_clone().unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let mut keys = File::from(terminal.master);
    keys.write_all(b"Prod\nprod-eu-1\n\n\n\n\n\n").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("not that: "), "{said}");
    assert_eq!(fs::read_to_string(home.path().join("out/values.toml")).unwrap(), VALUES);
}
