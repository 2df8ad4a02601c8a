//! Values, the folder, and that the pages below docs/ show what is written.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::folder::{Finding, FolderError, State, compare, write};
use super::values::{Raw, Values};
use super::*;

/// That of docs/operations/setup.md.
const ALL: &str = r#"cluster = "prod-eu-1"
kubernetes = "kubeadm"
resources = ["secrets"]

[vault]
address = "https://vault.example:8200"
mount = "transit"
key = "kubernetes"
role = "nodeseal"

[aws]
key_arn = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
login_arn = "arn:aws:iam::111122223333:user/nodeseal-node-1"

[azure]
vault_url = "https://mycompany-k8s.vault.azure.net"
key = "nodeseal-prod-eu-1"
principal_id = "33333333-3333-3333-3333-333333333333"
tenant_id = "11111111-1111-1111-1111-111111111111"
client_id = "22222222-2222-2222-2222-222222222222"
"#;

fn values(text: &str) -> Values {
    Values::check(&toml::from_str::<Raw>(text).unwrap()).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn made(text: &str) -> Vec<Made> {
    files(&values(text)).unwrap()
}

fn text_of<'a>(files: &'a [Made], name: &str) -> &'a str {
    &files.iter().find(|made| made.name == name).unwrap_or_else(|| panic!("{name}")).text
}

/// Lines of a page without their indentation, which those of a list have.
fn page(name: &str) -> String {
    plain(&fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name)).unwrap())
}

fn plain(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.trim())).collect()
}

#[track_caller]
fn shows(name: &str, part: &str) {
    assert!(page(name).contains(&plain(part)), "docs/{name} does not show:\n{part}");
}

#[test]
fn the_pages_show_what_is_written() {
    let files = made(ALL);
    for (name, file) in [
        ("operations/setup.md", VALUES),
        ("operations/kubeadm.md", "kubernetes/cluster-configuration.yaml"),
        ("operations/kubeadm.md", "kubernetes/kube-apiserver.yaml"),
        ("providers/vault.md", "vault/policy.hcl"),
        ("providers/aws.md", "aws/iam-policy.json"),
        ("providers/aws.md", "aws/key-policy.json"),
    ] {
        shows(name, text_of(&files, file));
    }
    for (name, kubernetes) in [("operations/k3s.md", "k3s"), ("operations/rke2.md", "rke2")] {
        shows(name, text_of(&made(&ALL.replace("kubeadm", kubernetes)), "kubernetes/config.yaml"));
    }
    let toml = text_of(&files, "nodeseal.toml").split("\n[[provider]]\n").collect::<Vec<_>>();
    shows("operations/install.md", toml[0]);
    for (name, table) in [("vault", toml[1]), ("aws", toml[2]), ("azure", toml[3])] {
        shows(&format!("providers/{name}.md"), &format!("[[provider]]\n{table}"));
    }
    let (_, providers) = text_of(&files, "encryption/1-reads.yaml").split_once("    providers:\n").unwrap();
    shows("operations/encryption.md", &format!("    providers:\n{providers}"));
    let commands = |script: &'static str| {
        text_of(&files, script)
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("vault ") || line.starts_with("az "))
    };
    for line in commands("vault/setup.sh").filter(|line| !line.starts_with("vault \"$1\"")) {
        shows("providers/vault.md", line);
    }
    let (_, role) = text_of(&files, "azure/role-assignment.sh").split_once("333\n").unwrap();
    shows("providers/azure.md", role);
    let hsm = made(&ALL.replace("mycompany-k8s.vault", "mycompany-hsm.managedhsm"));
    let (_, role) = text_of(&hsm, "azure/role-assignment.sh").split_once("333\n").unwrap();
    shows("providers/azure.md", role);
}

#[test]
fn every_command_of_the_readme_stands_on_a_page() {
    let pages: String =
        ["operations/install.md", "operations/setup.md", "operations/recovery.md", "operations/migrate.md"]
            .into_iter()
            .chain(["operations/verbs.md", "providers/vault.md", "providers/aws.md", "providers/azure.md"])
            .map(page)
            .collect();
    let mut seen = 0;
    for text in [ALL, &ALL.replace("user/", "role/"), "cluster = \"c\"\nkubernetes = \"k3s\"\n"] {
        let files = made(text);
        for line in text_of(&files, "README.md").split("```\n").skip(1).step_by(2).flat_map(str::lines) {
            // Those of this folder's own files, and those whose folder differs between the pages of kube-apiserver.
            let is_own =
                ["sh ", "install -D -m 0644 nodeseal", "install -m 0600 enc", "mv /etc", "install -d -m 0700 /etc"];
            if !is_own.iter().any(|own| line.starts_with(own)) {
                assert!(pages.contains(line.trim()), "no page has: {line}");
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen}");
}

/// What would break out of a quoting, or mean more than itself, in one of the languages.
const HOSTILE: [&str; 24] = [
    "", " ", "a b", "a\"b", "a'b", "a\\b", "a\nb", "a\tb", "$(id)", "a$b", "a`id`", "a;id", "a|id", "a&b", "a*", "+/a",
    "{{a}}", "#a", "-a", "../a", "a\u{0}b", "ä", "a: b", "<a>",
];

#[test]
fn no_value_can_break_out_of_its_place() {
    let keys = ["cluster", "kubernetes", "address", "mount", "key", "role", "key_arn", "login_arn", "vault_url"];
    let keys = keys.into_iter().chain(["principal_id", "tenant_id", "client_id"]);
    for key in keys {
        for hostile in HOSTILE {
            // Alone, and behind what is good.
            for is_alone in [true, false] {
                let mut raw: toml::Table = toml::from_str(ALL).unwrap();
                let mut changed = 0;
                let mut change = |table: &mut toml::Table| {
                    if let Some(toml::Value::String(text)) = table.get_mut(key) {
                        *text = if is_alone { hostile.to_owned() } else { format!("{text}{hostile}") };
                        changed += 1;
                    }
                };
                change(&mut raw);
                raw.iter_mut().filter_map(|(_, value)| value.as_table_mut()).for_each(&mut change);
                assert!(changed > 0, "{key}");
                let raw: Raw = toml::from_str(&raw.to_string()).unwrap();
                // `good-a` is a good name, and so is what nothing was added to.
                let is_good = !is_alone && (hostile.is_empty() || hostile == "-a");
                if !is_good {
                    assert!(Values::check(&raw).is_err(), "{key}: {hostile:?}");
                }
            }
        }
    }
    for hostile in HOSTILE.iter().filter(|hostile| !hostile.is_empty()) {
        let raw = Raw { resources: vec![(*hostile).to_owned()], ..toml::from_str(ALL).unwrap() };
        assert!(Values::check(&raw).is_err(), "{hostile:?}");
    }
}

#[test]
fn every_mistake_is_told_with_its_key_and_what_to_write() {
    let text = ALL.replace("prod-eu-1\"\nk", "Prod\"\nk").replace("kubeadm", "kops").replace(":user/", ":group/");
    let text = text.replace("22222222-", "2-").replace("\"secrets\"", "\"Secrets\"").replace("https://vault", "vault");
    let problems = Values::check(&toml::from_str(&text).unwrap()).unwrap_err();
    let keys: Vec<&str> = problems.iter().map(|problem| problem.key.as_str()).collect();
    assert_eq!(keys, ["cluster", "kubernetes", "resources", "vault.address", "aws.login_arn", "azure.client_id"]);
    assert!(problems.iter().all(|problem| problem.text.contains("write ") || problem.key == "cluster"), "{problems:?}");
    let half = ALL.replace("tenant_id", "# tenant_id");
    assert_eq!(Values::check(&toml::from_str(&half).unwrap()).unwrap_err()[0].key, "azure");
    let elsewhere = ALL.replace("iam::111122223333", "iam::444455556666");
    assert_eq!(Values::check(&toml::from_str(&elsewhere).unwrap()).unwrap_err()[0].key, "aws.login_arn");
    let alias = ALL.replace(":key/", ":alias/");
    assert_eq!(Values::check(&toml::from_str(&alias).unwrap()).unwrap_err()[0].key, "aws.key_arn");
    for secret in ["password", "token", "secret_id"] {
        let text = format!("{secret} = \"x\"\n{ALL}");
        assert!(toml::from_str::<Raw>(&text).is_err(), "{secret}");
    }
}

#[test]
fn what_is_written_is_whole_in_its_own_language() {
    let home = tempfile::tempdir().unwrap();
    for (number, kubernetes) in ["kubeadm", "k3s", "rke2"].into_iter().enumerate() {
        let text = ALL.replace("kubeadm", kubernetes).replace("[\"secrets\"]", "[\"secrets\", \"*.apps\", \"*.*\"]");
        let text = text.replace("mount =", "namespace = \"team/a\"\nca_file = \"/etc/ssl/vault.pem\"\nmount =");
        let (folder, files) = (home.path().join(number.to_string()), made(&text));
        write(&folder, &files).unwrap();
        for made in &files {
            let path = folder.join(made.name);
            match path.extension().and_then(std::ffi::OsStr::to_str) {
                Some("json") => drop(serde_json::from_str::<serde_json::Value>(&made.text).unwrap()),
                #[cfg(feature = "etcd")]
                Some("yaml") => drop(serde_saphyr::from_str::<serde_json::Value>(&made.text).unwrap()),
                Some("sh") => assert!(Command::new("sh").arg("-n").arg(&path).status().unwrap().success(), "{path:?}"),
                Some(_) | None => {}
            }
            assert!(!made.text.contains('\t') && made.text.ends_with('\n'), "{}", made.name);
        }
        assert!(text_of(&files, "vault/setup.sh").contains("export VAULT_NAMESPACE=team/a\n"));
        assert!(text_of(&files, "nodeseal.toml").contains("namespace = \"team/a\"\n"));
    }
}

#[test]
fn azure_is_asked_for_one_role_on_one_key_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    // Writes down each argument on a line of its own.
    let az = folder.path().join("az");
    let said = folder.path().join("said");
    let text =
        format!("#!/bin/sh\nprintf '%s\\n' \"$@\" -- >> '{}'\n[ \"$2\" = show ] && echo /scope || :\n", said.display());
    fs::write(&az, text).unwrap();
    fs::set_permissions(&az, Permissions::from_mode(0o755)).unwrap();
    for (vault, wanted) in [
        (
            "mycompany-k8s.vault",
            "keyvault show --name mycompany-k8s --query id --output tsv -- role assignment create --role \
             Key Vault Crypto Service Encryption User --assignee 33333333-3333-3333-3333-333333333333 --scope \
             /scope/keys/nodeseal-prod-eu-1 --",
        ),
        (
            "mycompany-hsm.managedhsm",
            "keyvault role assignment create --hsm-name mycompany-hsm --role Managed HSM Crypto Service Encryption User \
             --assignee-object-id 33333333-3333-3333-3333-333333333333 --scope /keys/nodeseal-prod-eu-1 --",
        ),
    ] {
        let files = made(&ALL.replace("mycompany-k8s.vault", vault));
        let script = folder.path().join("role.sh");
        fs::write(&script, text_of(&files, "azure/role-assignment.sh")).unwrap();
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        assert!(Command::new("sh").arg(&script).env("PATH", path).status().unwrap().success());
        assert_eq!(fs::read_to_string(&said).unwrap().trim().replace('\n', " "), wanted);
        fs::remove_file(&said).unwrap();
    }
}

#[test]
fn a_folder_is_written_whole_with_its_modes_and_over_nothing() {
    let home = tempfile::tempdir().unwrap();
    let (folder, files) = (home.path().join("out"), made(ALL));
    fs::create_dir(&folder).unwrap();
    write(&folder, &files).unwrap();
    let mode = |name: &str| fs::metadata(folder.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("."), mode("vault")), (0o700, 0o700));
    assert_eq!((mode("nodeseal.toml"), mode("vault/setup.sh"), mode("vault/policy.hcl")), (0o644, 0o755, 0o644));
    assert_eq!(compare(&folder, &files).unwrap(), []);
    // A second one changes nothing, nor does one onto a file or a link.
    fs::write(folder.join("nodeseal.toml"), "mine").unwrap();
    std::os::unix::fs::symlink("elsewhere", home.path().join("link")).unwrap();
    fs::write(home.path().join("file"), "mine").unwrap();
    for name in ["out", "link", "file"] {
        let refused = write(&home.path().join(name), &files);
        assert!(matches!(refused, Err(FolderError::Taken { .. })), "{name}: {refused:?}");
    }
    assert_eq!(fs::read_to_string(folder.join("nodeseal.toml")).unwrap(), "mine");
    for name in [".", "..", "/"] {
        assert!(write(Path::new(name), &files).is_err(), "{name}");
    }
    assert!(matches!(write(&home.path().join("no/such"), &files), Err(FolderError::Write { .. })));
    let left: Vec<_> = fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "{left:?}");
}

#[test]
fn a_set_up_that_fails_in_the_middle_leaves_nothing() {
    let home = tempfile::tempdir().unwrap();
    let twice = ["a", "b/c", "a"].map(|name| Made { name, text: "x\n".to_owned() });
    assert!(matches!(write(&home.path().join("out"), &twice), Err(FolderError::Write { .. })));
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn a_comparison_names_what_is_missing_what_differs_and_what_others_can_change() {
    let home = tempfile::tempdir().unwrap();
    let (folder, files) = (home.path().join("out"), made(ALL));
    write(&folder, &files).unwrap();
    fs::remove_file(folder.join("README.md")).unwrap();
    fs::write(folder.join("vault/policy.hcl"), format!("{}more", text_of(&files, "vault/policy.hcl"))).unwrap();
    fs::set_permissions(folder.join("vault/setup.sh"), Permissions::from_mode(0o775)).unwrap();
    fs::write(folder.join("mine"), "").unwrap();
    let found = compare(&folder, &files).unwrap();
    let one = |file, state| Finding { file, state };
    let wanted = [
        one("README.md", State::Missing),
        one("vault/policy.hcl", State::Differs),
        one("vault/setup.sh", State::Writable),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn questions_are_asked_again_until_the_answer_is_good() {
    let answers = "prod-eu-1\n\nSecrets\nsecrets\nmaybe\ny\nhttp://vault\nhttps://vault.example:8200\n\n\n\ny\n\
        arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab\n\
        arn:aws:iam::111122223333:user/nodeseal-node-1\nyes\nhttps://mycompany-k8s.vault.azure.net\nnodeseal-prod-eu-1\n\
        33333333-3333-3333-3333-333333333333\ny\n11111111-1111-1111-1111-111111111111\n\
        22222222-2222-2222-2222-222222222222\n";
    let mut told = String::new();
    let mut tell = |text: &str| told.push_str(&format!("{text}\n"));
    let asked = Asker { from: answers.as_bytes(), tell: &mut tell }.all().unwrap();
    assert_eq!(asked, toml::from_str(ALL).unwrap());
    assert_eq!(told.matches("not that: ").count(), 3, "{told}");
    for secret in ["password", "secret id", "token", "private"] {
        assert!(!told.to_lowercase().contains(secret), "{secret}: {told}");
    }
    let ended = Asker { from: &answers.as_bytes()[..60], tell: &mut |_| {} }.all();
    assert!(matches!(ended, Err(AskError::Ended)), "{ended:?}");
}
