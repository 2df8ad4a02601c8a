//! The operator's tool: mistakes in the configuration, what it prints for kube-apiserver, its help, its exit codes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use test_support::node::{Node, Output, run, tool};

use crate::alone::{NODESEAL, NODESEALD};

const SEALER: &str = env!("CARGO_BIN_EXE_nodeseal-sealer");

/// A configuration in a folder of its own.
struct File {
    _home: tempfile::TempDir,
    path: PathBuf,
}

impl File {
    fn new(text: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("nodeseal.toml");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Self { _home: home, path }
    }

    fn tool(&self, args: &[&str]) -> Output {
        tool(&self.path, args)
    }
}

const GOOD: &str = "version = 1\ncluster = \"prod-eu-1\"\n";

#[test]
fn a_good_configuration_is_fine_and_its_warnings_are_said() {
    let file = File::new(GOOD);
    let output = file.tool(&["config", "check"]);
    assert_eq!((output.code, output.err.as_str()), (0, ""), "{output:?}");
    let json = file.tool(&["config", "check", "--json"]).json();
    assert_eq!((json["ok"].as_bool(), json["cluster"].as_str()), (Some(true), Some("prod-eu-1")));

    let warned =
        File::new(&format!("{GOOD}seal.tpm2 = {{ policy = \"pcr\", pcrs = [7], allow_software_tpm = true }}\n"));
    let output = warned.tool(&["config", "check"]);
    assert_eq!(output.code, 0);
    assert!(
        output.err.contains("warning: seal.tpm2.pcrs: PCR 7") && output.err.contains("allow_software_tpm"),
        "{output:?}"
    );
    assert_eq!(warned.tool(&["config", "check", "--json"]).json()["warnings"].as_array().unwrap().len(), 3);
    // The upgrade after which this seal does not open any more, before it comes.
    assert!(output.err.contains("systemd 261") && output.err.contains("nodeseal reseal"), "{output:?}");
}

#[test]
fn the_schema_of_the_configuration_is_printed_without_one_and_has_the_tables_of_providers() {
    let output = tool(Path::new("/nowhere/nodeseal.toml"), &["config", "schema"]);
    assert_eq!(output.code, 0, "{output:?}");
    let schema = output.json();
    assert_eq!(schema["properties"]["version"]["type"], serde_json::json!(["integer", "null"]));
    let kinds = schema["$defs"]["Provider"]["oneOf"].as_array().unwrap();
    let vault = kinds.iter().find(|kind| kind["properties"]["kind"]["const"] == "vault").unwrap();
    assert!(vault["properties"]["mount"].is_object() && schema["$defs"]["VaultAuth"].is_object(), "{vault}");
}

#[test]
fn all_mistakes_are_reported_at_once_with_the_paths_of_their_keys() {
    let file = File::new(
        "version = 2\ncluster = \"Prod EU\"\nstate_dir = \"relative\"\n\
         listen = { socket = \"kms.sock\", mode = \"0666\", allow_users = [\"root\", \"no-such-user\", -1], apis = [\"v3\"] }\n\
         control.socket = \"x\"\n\
         seal.backend = \"pkcs12\"\nseal.tpm2 = { device = \"com1\", parent_handle = 1, policy = \"pcr\", pcrs = [16] }\n\
         local_kek = { enabled = false, max_age = \"5m\" }\n[[provider]]\nname = \"vault\"\n",
    );
    let keys = [
        "version",
        "cluster",
        "state_dir",
        "listen.socket",
        "listen.mode",
        "listen.allow_users[1]",
        "listen.allow_users[2]",
        "listen.apis",
        "control.socket",
        "seal.backend",
        "seal.tpm2.device",
        "seal.tpm2.parent_handle",
        "seal.tpm2.pcrs",
        "local_kek.max_age",
        "provider[0].kind",
    ];
    let output = file.tool(&["config", "check"]);
    output.assert_refused(78);
    assert!(output.err.contains(&format!("has {} mistakes", keys.len())), "{}", output.err);
    for key in keys {
        assert!(output.err.lines().any(|line| line.starts_with(&format!("  {key}: "))), "{key} in {}", output.err);
    }
    let json = file.tool(&["config", "check", "--json"]);
    assert_eq!(json.code, 78);
    let json = json.json();
    assert_eq!((json["schema"].as_str(), json["exit"].as_u64()), (Some("nodeseal.error/1"), Some(78)));
    let mut named: Vec<_> = json["problems"].as_array().unwrap().iter().map(|p| p["key"].as_str().unwrap()).collect();
    named.sort_unstable();
    let mut expected = keys.to_vec();
    expected.sort_unstable();
    assert_eq!(named, expected);
    // The daemons say the same, and start nothing.
    for daemon in [NODESEALD, SEALER] {
        let refused = run(Command::new("timeout").args(["20", daemon, "--config"]).arg(&file.path));
        refused.assert_refused(78);
        assert!(keys.iter().all(|key| refused.err.contains(&format!("  {key}: "))));
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    for (text, key) in [
        ("clutser = \"x\"\n", "clutser"),
        ("[listen]\nsokcet = \"/x\"\n", "sokcet"),
        ("[seal.tpm2]\npin = \"1234\"\n", "pin"),
        ("[log]\nlevle = \"info\"\n", "levle"),
        ("[log]\nlevel = \"loud\"\n", "loud"),
    ] {
        let output = File::new(&format!("{GOOD}{text}")).tool(&["config", "check"]);
        output.assert_refused(78);
        assert!(output.err.contains(key) && output.err.contains("line "), "{key}: {}", output.err);
    }
}

#[test]
fn a_pipe_in_place_of_the_configuration_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("nodeseal.toml");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
    let mut command = Command::new("timeout");
    command.args(["10", NODESEAL, "config", "check", "--config"]).arg(&pipe);
    let refused = run(&mut command);
    assert!(refused.assert_refused(78).err.contains("not a regular file"), "{refused:?}");
}

#[test]
fn a_file_that_others_can_change_or_that_is_not_there_is_refused() {
    let file = File::new(GOOD);
    for mode in [0o620, 0o602, 0o666] {
        fs::set_permissions(&file.path, fs::Permissions::from_mode(mode)).unwrap();
        let output = file.tool(&["config", "check"]);
        output.assert_refused(78);
        assert!(output.err.contains(&format!("{mode:04o}")) && output.err.contains("chmod go-w"), "{output:?}");
        run(Command::new("timeout").args(["20", NODESEALD, "--config"]).arg(&file.path)).assert_refused(78);
    }
    fs::set_permissions(&file.path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(file.tool(&["config", "check"]).code, 0);
    std::os::unix::fs::chown(&file.path, Some(12_345), None).expect("these tests run as root");
    let output = file.tool(&["config", "check"]);
    assert!(output.assert_refused(78).err.contains("12345"), "{output:?}");
    tool(&file.path.with_file_name("absent.toml"), &["config", "check"]).assert_refused(78);
}

#[test]
fn the_configuration_is_also_named_by_the_environment_and_the_option_wins() {
    let (good, bad) = (File::new(GOOD), File::new("version = 1\n"));
    let check = |option: Option<&File>, variable: &File| {
        let mut command = Command::new(NODESEAL);
        command.env("NODESEAL_CONFIG", &variable.path).args(["config", "check"]);
        if let Some(file) = option {
            command.arg("--config").arg(&file.path);
        }
        command.output().unwrap().status.code()
    };
    assert_eq!(check(None, &good), Some(0));
    assert_eq!(check(None, &bad), Some(78));
    assert_eq!(check(Some(&good), &bad), Some(0));
}

/// What the CIS Kubernetes benchmark does (1.2.28): the line behind the last `providers:` must name kms.
fn assert_passes_cis(yaml: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), yaml).unwrap();
    let grep = run(Command::new("sh").args(["-c", "grep -A1 'providers:' \"$0\" | tail -n1"]).arg(file.path()));
    assert!(grep.out.contains("kms"), "{grep:?} of\n{yaml}");
}

#[test]
fn the_encryption_configuration_passes_the_cis_check_in_every_variant() {
    let file = File::new(GOOD);
    for api in ["v2", "v1beta1"] {
        for identity in [&[][..], &["--no-identity"]] {
            for resources in [&[][..], &["--resources", "secrets,configmaps,widgets.example.com"]] {
                let args = [&["encryption-config", "--api", api][..], identity, resources].concat();
                let yaml = file.tool(&args);
                assert_eq!((yaml.code, yaml.err.as_str()), (0, ""), "{yaml:?}");
                assert_passes_cis(&yaml.out);
                assert!(yaml.out.contains("kind: EncryptionConfiguration") && !yaml.out.contains('\t'));
                assert_eq!(yaml.out.contains("cachesize"), api == "v1beta1", "v2 rejects a cachesize");
                assert_eq!(yaml.out.contains("identity: {}"), identity.is_empty());

                let json = file.tool(&[&args[..], &["--json"]].concat()).json();
                let providers = &json["resources"][0]["providers"];
                let kms = &providers[0]["kms"];
                assert_eq!(json["kind"], "EncryptionConfiguration");
                assert_eq!(kms["endpoint"], "unix:///run/nodeseal/kms.sock");
                assert_eq!(kms["apiVersion"], if api == "v2" { "v2" } else { "v1" });
                assert_eq!(kms.get("cachesize").is_some(), api == "v1beta1");
                assert_eq!(providers.as_array().unwrap().len(), 1 + usize::from(identity.is_empty()));
                let resources: &[&str] =
                    if resources.is_empty() { &["secrets"] } else { &["secrets", "configmaps", "widgets.example.com"] };
                assert_eq!(json["resources"][0]["resources"], Value::from(resources));
            }
        }
    }
    let only_v2 = File::new(&format!("{GOOD}listen.apis = [\"v2\"]\n"));
    let warned = only_v2.tool(&["encryption-config", "--api", "v1beta1"]);
    assert!(warned.err.contains("warning: ") && warned.code == 0, "{warned:?}");
}

/// Of a terminal in its usual size, where longer lines take two.
const SCREEN_ROWS: usize = 24;
const SCREEN_COLUMNS: usize = 80;

fn screen_rows(text: &str) -> usize {
    text.lines().map(|line| line.chars().count().div_ceil(SCREEN_COLUMNS).max(1)).sum()
}

#[test]
fn the_help_of_every_verb_fits_a_screen() {
    let file = File::new(GOOD);
    let verbs: [&[&str]; 31] = [
        &[],
        &["bundle"],
        &["bundle", "accept"],
        &["bundle", "make"],
        &["bundle", "request"],
        &["bundle", "show"],
        &["completions"],
        &["config"],
        &["config", "check"],
        &["credentials"],
        &["credentials", "list"],
        &["credentials", "seal"],
        &["debug"],
        &["debug", "on"],
        &["dev"],
        &["encryption-config"],
        &["init", "--no-recovery"],
        &["keys"],
        &["keys", "list"],
        &["keys", "rotate"],
        &["keys", "activate"],
        &["keys", "retire"],
        &["keys", "show"],
        &["metrics"],
        &["recover"],
        &["reload"],
        &["reseal"],
        &["rotate-root"],
        &["setup"],
        &["status"],
        &["version"],
    ];
    for verb in verbs {
        let output = file.tool(&[verb, &["--help"]].concat());
        assert!(output.code == 0 && output.err.is_empty(), "{output:?}");
        let rows = screen_rows(&output.out);
        // The list of all verbs, and the verb for the worst day.
        let is_long = verb.is_empty() || *verb == ["recover"];
        let most = if is_long { SCREEN_ROWS + 9 } else { SCREEN_ROWS };
        assert!((5..=most).contains(&rows), "{verb:?}: {rows} rows\n{}", output.out);
        assert!(!output.out.contains("unwrap") && output.out.contains("Usage: nodeseal"), "{output:?}");
    }
    for daemon in [NODESEALD, SEALER] {
        let help = run(Command::new(daemon).arg("--help"));
        assert!(help.code == 0 && screen_rows(&help.out) <= SCREEN_ROWS, "{help:?}");
        assert!(run(Command::new(daemon).arg("--version")).out.contains(env!("CARGO_PKG_VERSION")));
        assert_eq!(run(Command::new(daemon).arg("--frobnicate")).code, 64);
    }
}

#[test]
fn usage_mistakes_exit_with_64_and_a_daemon_that_is_away_with_69() {
    let file = File::new(&format!("{GOOD}control.socket = \"/nonexistent/control.sock\"\n"));
    for args in [&["frobnicate"][..], &["keys"], &["keys", "retire"], &["status", "--nope"], &["dev"], &[]] {
        let output = file.tool(args);
        assert_eq!(output.code, 64, "{args:?}: {output:?}");
    }
    for args in [&["status"][..], &["keys", "list"], &["keys", "rotate"]] {
        let refused = file.tool(args);
        assert!(refused.assert_refused(69).err.contains("start nodeseald"), "{refused:?}");
    }
    let id = "0".repeat(32);
    file.tool(&["keys", "retire", &id]).assert_refused(77);
    // It asks the daemon whether there is such a KEK.
    file.tool(&["keys", "retire", &id, "--dry-run"]).assert_refused(69);
}

#[test]
fn status_says_everything_as_text_and_as_json() {
    let node = Node::start();
    let text = node.tool(&["status"]);
    assert_eq!((text.code, text.err.as_str()), (0, ""));
    for word in ["health", "key_id", "sha256:", "cluster", "seal policy", "uses", "warning"] {
        assert!(text.out.contains(word), "{word} in {}", text.out);
    }
    let before = node.ask(&["status"]);
    for field in ["healthy", "version", "pid", "uptime_seconds", "cluster", "socket", "key_id", "key_id_hash", "uses"] {
        assert!(!before[field].is_null(), "{field} in {before}");
    }
    assert_eq!(before["pid"].as_u64(), Some(node.pid("nodeseald").into()));
    let client = node.client();
    assert_eq!(before["key_id"].as_str(), Some(&*client.status().unwrap().key_id));
    (0..10).for_each(|_| drop(client.store().unwrap()));
    let after = node.ask(&["status"]);
    assert_eq!(after["uses"].as_u64().unwrap() - before["uses"].as_u64().unwrap(), 10);
    let list = node.tool(&["keys", "list"]);
    assert!(list.out.starts_with("KEK ") && list.out.lines().count() == 2, "{list:?}");
}

#[test]
fn a_second_dev_in_one_folder_and_a_folder_with_files_and_open_to_others_are_refused() {
    let node = Node::start();
    let dev = |dir: &std::path::Path| run(Command::new("timeout").args(["20", NODESEAL, "dev", "--dir"]).arg(dir));
    let second = dev(&node.dir());
    assert!(second.assert_refused(78).err.contains("another `nodeseal dev`"), "{second:?}");
    assert!(node.client().store().is_ok());
    let open = tempfile::tempdir().unwrap();
    fs::write(open.path().join("somebody's"), "file").unwrap();
    fs::set_permissions(open.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dev(open.path()).assert_refused(78);
    assert_eq!(fs::metadata(open.path()).unwrap().permissions().mode() & 0o777, 0o755, "it is left as it is");
    dev(&open.path().join("x".repeat(100))).assert_refused(78);
}
