mod unworkable;

use std::path::Path;

use super::*;
use crate::keyring::MaxAge;
use crate::types::{Backend, SealPolicy, SealTo};

fn check(text: &str) -> Result<Config, ConfigError> {
    parse(Path::new("/etc/nodeseal/nodeseal.toml"), text)
}

fn problems(text: &str) -> Vec<String> {
    check(text).err().map(|error| error.problems().iter().map(ToString::to_string).collect()).unwrap_or_default()
}

#[test]
fn two_lines_are_enough_and_every_default_is_the_safe_one() {
    let config = check("version = 1\ncluster = \"c1\"\n").unwrap();
    assert_eq!(config.listen.socket, Path::new("/run/nodeseal/kms.sock"));
    // Not in the folder that pods of kube-apiserver mount.
    assert_eq!(config.control_socket, Path::new("/run/nodeseal-control/control.sock"));
    assert_eq!(config.status_socket, Path::new("/run/nodeseal-status/status.sock"));
    let beside = check("version = 1\ncluster = \"c1\"\ncontrol.socket = \"/run/other/c.sock\"\n").unwrap();
    assert_eq!((beside.status_socket.as_path(), beside.status_group), (Path::new("/run/other/status.sock"), None));
    let found = problems("version = 1\ncluster = \"c1\"\ncontrol.status_group = \"no-such-group-here\"\n");
    assert!(found.len() == 1 && found[0].starts_with("control.status_group: "), "{found:?}");
    assert_eq!((config.listen.mode, config.listen.allow_uids.as_slice()), (0o660, &[0][..]));
    assert_eq!(config.seal.tpm2.device.to_string(), "/dev/tpmrm0");
    assert!(!config.seal.tpm2.allow_software_tpm);
    assert_eq!(config.seal.policy, SealPolicy::None);
    assert_eq!(config.max_age, MaxAge::DEFAULT);
    assert!(config.warnings.is_empty());
}

#[test]
fn the_sandbox_gives_what_is_configured_and_for_any_provider_only_when_told_so() {
    let needs = |sandbox: &str| check(&format!("version = 1\ncluster = \"c1\"\n{sandbox}")).unwrap().daemon_needs();
    let tight = needs("");
    assert!(!tight.any_port && tight.ports.is_empty());
    assert_eq!(needs("sandbox.providers = \"configured\"\n"), tight);
    let any = needs("sandbox.providers = \"any\"\n");
    assert_eq!(any.any_port, cfg!(feature = "http-client"));
    let reads = |needs: &crate::sandbox::Needs, path: &str| needs.paths.iter().any(|need| need.path == Path::new(path));
    for path in ["/etc", "/etc/ssl", "/run"] {
        assert_eq!((reads(&tight, path), reads(&any, path)), (false, cfg!(feature = "http-client")), "{path}");
    }
    let found = problems("version = 1\ncluster = \"c1\"\nsandbox.providers = \"all\"\n");
    assert!(found.len() == 1 && found[0].starts_with("sandbox.providers: "), "{found:?}");
}

#[test]
fn all_mistakes_are_reported_at_once_with_their_path() {
    let found = problems(
        "version = 2\ncluster = \"Bad Name\"\nstate_dir = \"relative\"\n\
         [listen]\nallow_users = [\"no-such-user-here\", 65534]\napis = [\"v3\"]\nmode = \"0666\"\n\
         [seal]\nbackend = \"pkcs11\"\n[seal.tpm2]\ndevice = \"tpm0\"\nparent_handle = 5\npolicy = \"pcr\"\npcrs = [16, 23]\n\
         [local_kek]\nenabled = false\nmax_age = \"5m\"\n\
         [[provider]]\nname = \"vault\"\n",
    );
    let expected = [
        "version: ",
        "cluster: ",
        "state_dir: ",
        "listen.mode: ",
        "listen.allow_users[0]: ",
        "listen.allow_users[1]: ",
        "listen.apis: ",
        "seal.pkcs11: ",
        "seal.tpm2.pcrs: PCR 16",
        "seal.tpm2.pcrs: PCR 23",
        "seal.tpm2.device: ",
        "seal.tpm2.parent_handle: ",
        "local_kek.max_age: ",
        "provider[0].kind: ",
    ];
    for start in expected {
        assert!(found.iter().any(|problem| problem.starts_with(start)), "{start} in {found:#?}");
    }
    assert_eq!(found.len(), expected.len(), "{found:#?}");
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let error = check("version = 1\ncluster = \"c1\"\n[listen]\nsockett = \"/x\"\n").err().unwrap();
    let shown: Vec<String> = error.problems().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["listen.sockett: is not a key here: did you mean `socket`? (line 4)"]);
}

#[test]
fn pcrs_that_change_by_themselves_are_warned_about() {
    let config = check("version = 1\ncluster = \"c1\"\n[seal.tpm2]\npolicy = \"pcr\"\npcrs = [0, 7]\n").unwrap();
    assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
    assert!(config.warnings[0].text.contains("dbx") && config.warnings[1].text.contains("PCR 0, 7"));
}

#[test]
fn pcrs_without_their_policy_and_a_policy_without_pcrs_are_mistakes() {
    for text in [
        "pcrs = [0]",
        "pcr_bank = \"sha256\"",
        "policy = \"pcr\"",
        "policy = \"signed-pcr\"",
        "policy = \"none\"\npcrs = [0]",
    ] {
        let found = problems(&format!("version = 1\ncluster = \"c1\"\n[seal.tpm2]\n{text}\n"));
        assert_eq!(found.len(), 1, "{text}: {found:?}");
    }
}

#[test]
fn a_token_needs_module_label_and_pin_file_and_has_defaults_for_the_rest() {
    let text = "version = 1\ncluster = \"c1\"\n[seal]\nbackend = \"pkcs11\"\nsocket = \"/run/s\"\n\
                [seal.pkcs11]\nmodule = \"/usr/lib/p11.so\"\ntoken_label = \"t 1\"\npin_file = \"/etc/pin\"\n";
    let config = check(text).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!((config.seal.backend, config.seal.to()), (Backend::Pkcs11, SealTo::Pkcs11));
    let token = config.seal.pkcs11.unwrap();
    assert_eq!((token.key_label.as_str(), token.make_key, token.mechanism), ("nodeseal", true, None));
    assert!(!token.trust_key, "a token has to tell");
    assert_eq!((token.token_serial, token.key_id), (None, None));
    // Beside a TPM, for moving from one to the other.
    assert!(check(&text.replace("backend = \"pkcs11\"", "")).unwrap().seal.pkcs11.is_some());
    let lone = check(&text.replace("socket = \"/run/s\"", "")).unwrap();
    assert_eq!(lone.warnings[0].key, "seal.socket");
}

#[test]
fn all_mistakes_of_a_token_are_reported_at_once() {
    let found = problems(
        "version = 1\ncluster = \"c1\"\n[seal]\nbackend = \"pkcs12\"\n[seal.pkcs11]\nmodule = \"p11.so\"\n\
         token_serial = \"12345678901234567\"\nkey_label = \" k\"\nkey_id = \"xyz\"\nmechanism = \"rsa-oaep-sha1\"\n",
    );
    let keys = ["backend", "pkcs11.module", "pkcs11.token_label", "pkcs11.token_serial", "pkcs11.pin_file"];
    let keys = keys.into_iter().chain(["pkcs11.key_label", "pkcs11.key_id", "pkcs11.mechanism"]);
    let expected: Vec<_> = keys.map(|key| format!("seal.{key}: ")).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    expected
        .iter()
        .for_each(|start| assert!(found.iter().any(|found| found.starts_with(start)), "{start} in {found:#?}"));
}

#[test]
fn a_path_that_the_kernel_would_cut_is_a_mistake() {
    let found = problems("version = 1\ncluster = \"c1\"\nstate_dir = \"/var/lib\\u0000/nodeseal\"\n");
    assert!(found.len() == 1 && found[0].starts_with("state_dir: "), "{found:?}");
}

#[test]
fn without_a_local_kek_there_must_be_a_provider_and_rules_need_one_too() {
    let found =
        problems("version = 1\ncluster = \"c1\"\n[local_kek]\nenabled = false\n[write]\nmin_wraps = 1\n[decrypt]\n");
    assert_eq!(found.len(), 3, "{found:#?}");
    for key in ["local_kek.enabled", "write", "decrypt"] {
        assert!(found.iter().any(|problem| problem.starts_with(&format!("{key}: "))), "{key} in {found:#?}");
    }
}

#[cfg(feature = "vault")]
#[test]
fn a_token_that_is_read_at_each_login_is_nothing_that_a_provider_is_made_of() {
    let table = "[[provider]]\nname = \"vault\"\nkind = \"vault\"\naddress = \"https://vault.example\"\nmount = \"transit\"\n\
                 key = \"k\"\nca_file = \"/etc/ca.pem\"\nauth = { method = \"jwt\", file = \"/run/token\" }\n";
    let config = check(&format!("version = 1\ncluster = \"c1\"\n{table}")).unwrap();
    let provider = &config.providers.unwrap().list[0];
    let made_of = provider.made_of(Some(std::path::Path::new("/state")));
    assert_eq!(made_of, [std::path::PathBuf::from("/etc/ca.pem")]);
    let needs = provider.needs();
    assert!(["/etc/ca.pem", "/run/token"].iter().all(|file| {
        needs.paths.iter().any(|need| need.path.starts_with("/") && std::path::Path::new(file).starts_with(&need.path))
    }));
}

#[cfg(feature = "vault")]
#[test]
fn a_provider_with_its_rules_is_read_and_every_mistake_in_it_has_its_path() {
    let vault = |more: &str| {
        format!(
            "[[provider]]\nname = \"vault\"\nkind = \"vault\"\naddress = \"https://vault.example:8200\"\nmount = \"transit\"\n\
             key = \"kubernetes\"\n{more}\n"
        )
    };
    let good = vault("auth = { method = \"approle\", credential = \"vault-approle\" }");
    let config = check(&format!("version = 1\ncluster = \"c1\"\n{good}")).unwrap();
    let providers = config.providers.unwrap();
    assert_eq!(providers.list[0].credentials[0].as_str(), "vault-approle");
    assert_eq!((providers.rules.min_wraps, providers.rules.local_kek), (1, true));
    assert_eq!(providers.rules.on_outage, crate::keyring::rooted::OnOutage::Coast);
    for (tables, expected) in [
        (format!("{good}{good}"), "provider[1].name: \"vault\" is used twice"),
        (good.replace("name = \"vault\"", "name = \"Vault!\""), "provider[0].name: is 1 to 63"),
        (good.replace("https", "http"), "provider[0].address: "),
        (good.replace("approle\",", "magic\","), "provider[0].auth.method: "),
        (vault("auth = { method = \"approle\" }"), "provider[0].auth.credential: required for method \"approle\""),
        (
            vault("auth = { method = \"token\", credential = \"x\", role = \"y\" }"),
            "provider[0].auth.role: has no effect",
        ),
        (vault("typo = 1\nauth = { method = \"token\", credential = \"x\" }"), "provider[0].typo: is not a key here"),
        (format!("{good}[write]\nmin_wraps = 2\n"), "write.min_wraps: is 1 to 1"),
        (format!("{good}[write]\non_outage = \"panic\"\n"), "write.on_outage: "),
        (format!("{good}[write]\nepoch = \"every 0d\"\n"), "write.epoch: \"every 0d\" is neither a number nor"),
        (format!("{good}[write]\nepoch = \"every 5s\"\n"), "write.epoch: "),
        (format!("{good}[write]\nepoch = \"every 20y\"\n"), "write.epoch: "),
        (format!("{good}[write]\nepoch = -1\n"), "write.epoch: is a number from 0"),
        (format!("{good}[decrypt]\nstrategy = \"luck\"\n"), "decrypt.strategy: "),
        (
            good.replace("mount =", "write = false\nmount =") + "[local_kek]\nenabled = false\n",
            "provider: every [[provider]] has write = false",
        ),
    ] {
        let found = problems(&format!("version = 1\ncluster = \"c1\"\n{tables}"));
        assert!(found.iter().any(|problem| problem.starts_with(expected)), "{expected} in {found:#?}");
    }
}

#[test]
#[cfg(feature = "pkcs11")]
fn a_key_in_a_token_and_another_plugin_are_providers_and_their_mistakes_are_all_told() {
    use crate::config::providers::Settings;
    let head = "version = 1\ncluster = \"c1\"\n[seal]\nsocket = \"/run/s\"\n[seal.pkcs11]\nmodule = \"/usr/lib/p11.so\"\n\
                token_label = \"t\"\npin_file = \"/etc/pin\"\n";
    let good = format!(
        "{head}[[provider]]\nname = \"a\"\nkind = \"pkcs11\"\nkey_label = \"shared key\"\n\
         [[provider]]\nname = \"b\"\nkind = \"kms-plugin\"\nsocket = \"/run/b/s\"\nkey = \"k\"\nallow_users = [\"root\", 7]\n"
    );
    let config = check(&good).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    let list = config.providers.unwrap().list;
    let Settings::Pkcs11(token) = &list[0].settings else { panic!() };
    assert_eq!((token.key.label(), token.key.id(), token.make_key), ("shared key", None, false));
    let Settings::KmsPlugin(plugin) = &list[1].settings else { panic!() };
    assert_eq!((plugin.key.as_str(), plugin.api.label(), &*plugin.allow_uids), ("k", "v2", &[0, 7][..]));

    for (from, to, problem) in [
        ("\"shared key\"", "\"nodeseal\"", "provider[0].key_label: "),
        ("\"shared key\"", "\"\"", "provider[0].key_label: "),
        ("\"shared key\"", "\"k\"\nkey_id = \"0x1\"", "provider[0].key_id: "),
        ("\"shared key\"", "\"k\"\nkey_id = \"01\"\nmake_key = true", "provider[0].make_key: "),
        ("/run/b/s", "/run/nodeseal/kms.sock", "provider[1].socket: "),
        ("/run/b/s", "run/b/s", "provider[1].socket: "),
        ("\"k\"\nallow", "\"a key\"\nallow", "provider[1].key: "),
        ("key = \"k\"", "key = \"k\"\napi = \"v3\"", "provider[1].api: "),
        ("7]", "-1]", "provider[1].allow_users[1]: "),
        (&head[27..], "", "provider[0].key_label: "),
    ] {
        let found = problems(&good.replace(from, to));
        assert!(found.len() == 1 && found[0].starts_with(problem), "{from} {to}: {found:#?}");
    }
    assert_eq!(check(&good.replace("socket = \"/run/s\"\n", "")).unwrap().warnings[0].key, "seal.socket");
}

#[test]
fn a_file_that_is_too_large_is_refused_with_its_size_and_not_read_in_part() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("nodeseal.toml");
    let mut text = "version = 1\ncluster = \"c1\"\n".to_owned();
    text.extend(std::iter::repeat_n('#', (1 << 20) - text.len()));
    std::fs::write(&path, &text).unwrap();
    assert!(load(&path).is_ok());
    // Cut at the limit it would be a good one.
    std::fs::write(&path, text + "\nnonsense").unwrap();
    let error = load(&path).err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("1048585 bytes") && error.contains("1048576"), "{error}");
}

#[test]
fn an_error_names_its_mistakes_and_no_more_than_a_few() {
    let found = check("version = 1\ncluster = \"no/such\"\nsandbox.providers = \"no\"\n").err().unwrap().few();
    assert!(found.contains("cluster: ") && found.contains("; sandbox.providers: "), "{found}");
    let path = std::path::PathBuf::from("f");
    let problems = (0..40).map(|n| Problem::new(&format!("k{n}"), "x".repeat(1000))).collect();
    let found = ConfigError::Problems { path, problems }.few();
    assert!(found.contains("k2: ") && !found.contains("k3: ") && found.ends_with("; and 37 more)"), "{found}");
    assert!(found.len() < 800, "{} bytes", found.len());
}

#[test]
#[cfg(feature = "vault")]
fn a_file_that_any_provider_does_not_reach_is_warned_of_until_it_is_allowed() {
    let warned = |sandbox: &str, ca_file: &str| {
        let text = format!(
            "version = 1\ncluster = \"c1\"\n[sandbox]\n{sandbox}\n[[provider]]\nname = \"v\"\nkind = \"vault\"\n\
             address = \"https://vault.example:8200\"\nmount = \"m\"\nkey = \"k\"\nauth = {{ method = \"token\", credential = \"t\" }}\nca_file = {ca_file:?}\n"
        );
        let warnings = check(&text).unwrap_or_else(|error| panic!("{error}: {:?}", error.problems())).warnings;
        warnings.into_iter().filter(|warning| warning.key == "sandbox.allow_paths").collect::<Vec<_>>()
    };
    let found = warned("providers = \"any\"", "/srv/vault/ca.pem");
    assert!(found.len() == 1 && found[0].text.starts_with("/srv/vault is "), "{found:?}");
    for (sandbox, ca_file) in [
        ("providers = \"any\"", "/etc/vault/ca.pem"),
        ("providers = \"any\"\nallow_paths = [\"/srv/vault\"]", "/srv/vault/ca.pem"),
        ("providers = \"any\"\nmode = \"off\"", "/srv/vault/ca.pem"),
        ("providers = \"configured\"", "/srv/vault/ca.pem"),
    ] {
        assert_eq!(warned(sandbox, ca_file), []);
    }
}
