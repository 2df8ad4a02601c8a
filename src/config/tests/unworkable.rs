//! Files that are well formed and could not work.

use super::{check, problems};

fn refused(rest: &str, key: &str, words: &str) {
    let found = problems(&format!("version = 1\ncluster = \"c1\"\n{rest}"));
    assert!(
        found.iter().any(|problem| problem.starts_with(key) && problem.contains(words)),
        "{key} and {words:?} in {found:#?} of {rest}"
    );
}

const PLUGIN: &str =
    "[[provider]]\nname = \"a\"\nkind = \"kms-plugin\"\nsocket = \"/run/other/kms.sock\"\nkey = \"k\"\n";

#[test]
fn no_two_sockets_have_one_path() {
    refused(
        "listen.socket = \"/run/n/x.sock\"\ncontrol.socket = \"/run/n/x.sock\"\n",
        "control.socket: ",
        "listen.socket",
    );
    refused("listen.socket = \"/run/n/x.sock\"\nseal.socket = \"/run/n/x.sock\"\n", "seal.socket: ", "listen.socket");
    refused("control.socket = \"/run/n/status.sock\"\n", "control.status_socket: ", "control.socket");
    refused(
        "control.socket = \"/run/n/x.sock\"\nseal.socket = \"/run/n/./x.sock\"\n",
        "seal.socket: ",
        "control.socket",
    );
}

#[test]
fn a_socket_has_a_path_that_the_kernel_takes() {
    // sun_path has 108 bytes with the zero at the end, and ours are made under a name that is six bytes longer.
    let long = format!("/run/{}.sock", "x".repeat(92));
    refused(&format!("listen.socket = \"{long}\"\n"), "listen.socket: ", "101 bytes");
    refused(&format!("control.socket = \"{long}\"\n"), "control.socket: ", "101 bytes");
    let fits = format!("/run/{}.sock", "x".repeat(91));
    assert!(check(&format!("version = 1\ncluster = \"c1\"\nlisten.socket = \"{fits}\"\n")).is_ok());
    refused("listen.socket = \"/run/nodeseal/\"\n", "listen.socket: ", "file");
    let of_another = format!("/run/{}.sock", "x".repeat(98));
    refused(&PLUGIN.replace("/run/other/kms.sock", &of_another), "provider[0].socket: ", "107 bytes");
}

#[test]
fn the_user_who_stands_for_all_unmapped_ones_is_nowhere_let_in_and_it_is_said_what_to_do() {
    refused("listen.allow_users = [65534]\n", "listen.allow_users", "PrivateUsers");
    refused(&format!("{PLUGIN}allow_users = [65534]\n"), "provider[0].allow_users[0]: ", "PrivateUsers");
    refused("listen.allow_users = [4294967295]\n", "listen.allow_users[0]: ", "no uid");
    refused(&format!("{PLUGIN}allow_users = [4294967295]\n"), "provider[0].allow_users[0]: ", "no uid");
    if let Ok(Some(nobody)) = nix::unistd::User::from_uid(65_534.into()) {
        refused(&format!("sandbox.user = \"{}\"\n", nobody.name), "sandbox.user: ", "65534");
    }
}

#[test]
fn a_provider_has_time_to_answer_and_counts_once_for_its_key() {
    refused(&format!("{PLUGIN}timeout = \"0s\"\n"), "provider[0].timeout: ", "100ms");
    assert!(check(&format!("version = 1\ncluster = \"c1\"\n{PLUGIN}timeout = \"500ms\"\n")).is_ok());
    let twice = format!("{PLUGIN}{}[write]\nmin_wraps = 2\n", PLUGIN.replace("\"a\"", "\"b\""));
    refused(&twice, "write.min_wraps: ", "1 key");
    let none = format!("{PLUGIN}write = false\n");
    assert!(check(&format!("version = 1\ncluster = \"c1\"\n{none}")).is_ok());
    let none = format!("{none}[local_kek]\nenabled = false\n");
    let found = problems(&format!("version = 1\ncluster = \"c1\"\n{none}"));
    assert!(found.len() == 1 && found[0].contains("write = false"), "{found:?}");
    refused("[[provider]]\nname = \"a\"\nkind = \"hashicorp\"\n", "provider[0].kind: ", "\"vault\"");
}

#[test]
fn what_is_allowed_and_ends_badly_is_warned_of() {
    let warned = |rest: &str, key: &str, words: &str| {
        let config = check(&format!("version = 1\ncluster = \"c1\"\n{rest}")).unwrap();
        let found = &config.warnings;
        assert!(found.iter().any(|warning| warning.key == key && warning.text.contains(words)), "{found:#?}");
    };
    let twice = format!("{PLUGIN}{}", PLUGIN.replace("\"a\"", "\"b\"").replace("/other/", "/another/"));
    warned(&twice, "provider[1]", "two ways to one key");
    warned("seal.tpm2.device = \"/dev/tpm0\"\n", "seal.tpm2.device", "tpmrm0");
    warned("control.socket = \"/run/nodeseal/control.sock\"\n", "control.socket", "pod");
    warned("state_dir = \"/run/nodeseal-state\"\n", "state_dir", "boot");
    // The initrd of systemd 261 measures into them, so that the boot after that update opens no older seal.
    for pcrs in ["[0]", "[9]", "[4, 11]", "[14]"] {
        warned(&format!("seal.tpm2 = {{ policy = \"pcr\", pcrs = {pcrs} }}\n"), "seal.tpm2.pcrs", "systemd 261");
    }
    let config = check("version = 1\ncluster = \"c1\"\nseal.tpm2 = { policy = \"pcr\", pcrs = [8, 11] }\n").unwrap();
    assert!(!config.warnings.iter().any(|warning| warning.text.contains("systemd")), "{:?}", config.warnings);
}

#[test]
fn all_mistakes_of_a_providers_table_are_told_at_once_each_with_its_key() {
    let found = problems(
        "version = 1\ncluster = \"c1\"\n[[provider]]\nname = \"a\"\nkind = \"kms-plugin\"\nkey = 7\nsockett = \"/x\"\n\
         allow_users = \"root\"\n",
    );
    let mut keys: Vec<_> = found.iter().filter_map(|problem| problem.split(": ").next()).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        ["provider[0].allow_users", "provider[0].key", "provider[0].socket", "provider[0].sockett"],
        "{found:#?}"
    );
}

#[cfg(feature = "vault")]
#[test]
fn what_is_missing_in_a_table_within_is_named_with_its_whole_path() {
    let found =
        problems("version = 1\ncluster = \"c1\"\n[[provider]]\nname = \"a\"\nkind = \"vault\"\nmount = \"transit\"\n");
    for key in ["provider[0].address: ", "provider[0].key: ", "provider[0].auth: ", "provider[0].auth.method: "] {
        assert!(found.iter().any(|problem| problem.starts_with(key)), "{key} in {found:#?}");
    }
    assert_eq!(found.len(), 4, "{found:#?}");
}
