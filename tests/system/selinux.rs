//! The SELinux module, linked with all of Debian's policy, and what setools find in the result.
//!
//! A claim that something is absent stands beside one that the same question finds what is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const DAEMONS: [&str; 2] = ["nodeseal_t", "nodeseal_sealer_t"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|error| panic!("{program}: {error}; `make test` installs it"));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{program} {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// The folder with policy.bin and nodeseal.pp, built once for all tests. It takes some 20 s.
fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("selinux");
        let containers = root().join("tests/system/containers.te");
        let script = root().join("selinux/build.sh");
        run(script.to_str().unwrap(), &["policy", folder.to_str().unwrap(), containers.to_str().unwrap()]);
        folder
    })
}

/// One `allow` or `type_transition`.
#[derive(Debug)]
struct Rule {
    source: String,
    target: String,
    class: String,
    permissions: BTreeSet<String>,
    /// Under which it holds; none for always.
    boolean: Option<String>,
}

/// `allow source target:class { permissions }; [ boolean ]:True`, as sesearch writes it.
fn parse(line: &str) -> Option<Rule> {
    let (rule, condition) = line.split_once(';')?;
    let (head, rest) = rule.strip_prefix("allow ")?.split_once(':')?;
    let (source, target) = head.split_once(' ')?;
    let (class, permissions) = rest.split_once(' ')?;
    let words = permissions.split_whitespace().filter(|word| !["{", "}"].contains(word));
    let boolean = condition.trim().strip_prefix('[').and_then(|rest| Some(rest.split_once(']')?.0.trim().to_owned()));
    Some(Rule {
        source: source.to_owned(),
        target: target.to_owned(),
        class: class.to_owned(),
        permissions: words.map(str::to_owned).collect(),
        boolean,
    })
}

fn sesearch(args: &[&str]) -> Vec<String> {
    let policy = built().join("policy.bin");
    run("sesearch", &[args, &[policy.to_str().unwrap()]].concat()).lines().map(str::to_owned).collect()
}

fn allowed(args: &[&str]) -> Vec<Rule> {
    let lines = sesearch(&[&["-A"], args].concat());
    lines.iter().filter(|line| line.starts_with("allow ")).map(|line| parse(line).expect(line)).collect()
}

/// All that one of ours may do, to whatever.
fn of(domain: &str) -> &'static [Rule] {
    static RULES: OnceLock<[Vec<Rule>; 2]> = OnceLock::new();
    let [daemon, sealer] = RULES.get_or_init(|| DAEMONS.map(|domain| allowed(&["-s", domain])));
    if domain == DAEMONS[0] { daemon } else { sealer }
}

/// Those of them that give a permission over a class.
fn may<'a>(domain: &str, class: &'a str, permission: &'a str) -> impl Iterator<Item = &'static Rule> + use<'a> {
    of(domain).iter().filter(move |rule| rule.class == class && rule.permissions.contains(permission))
}

/// What it is done to, without a boolean.
fn targets<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> BTreeSet<&'a str> {
    rules.into_iter().filter(|rule| rule.boolean.is_none()).map(|rule| rule.target.as_str()).collect()
}

/// Who may, without a boolean.
fn sources(rules: &[Rule]) -> BTreeSet<&str> {
    rules.iter().filter(|rule| rule.boolean.is_none()).map(|rule| rule.source.as_str()).collect()
}

#[test]
fn systemd_starts_each_daemon_in_its_domain_although_its_unit_forbids_new_privileges() {
    for (program, domain) in [("nodeseal_exec_t", "nodeseal_t"), ("nodeseal_sealer_exec_t", "nodeseal_sealer_t")] {
        let transitions = sesearch(&["-T", "-s", "init_t", "-t", program]);
        assert_eq!(transitions, [format!("type_transition init_t {program}:process {domain};")]);
        let rules = allowed(&["-s", "init_t", "-t", domain, "-c", "process2"]);
        let permissions: BTreeSet<_> = rules.iter().flat_map(|rule| &rule.permissions).map(String::as_str).collect();
        assert_eq!(permissions, BTreeSet::from(["nnp_transition", "nosuid_transition"]), "{domain}");
    }
}

#[test]
fn a_sealer_that_nodeseald_starts_is_in_the_domain_of_the_sealer_and_nothing_else_is_started() {
    let transitions = sesearch(&["-T", "-s", "nodeseal_t", "-c", "process"]);
    assert_eq!(transitions, ["type_transition nodeseal_t nodeseal_sealer_exec_t:process nodeseal_sealer_t;"]);
    assert_eq!(targets(may("nodeseal_t", "process2", "nnp_transition")), BTreeSet::from(["nodeseal_sealer_t"]));
    assert_eq!(targets(may("nodeseal_t", "process", "transition")), BTreeSet::from(["nodeseal_sealer_t"]));
    assert_eq!(may("nodeseal_sealer_t", "process", "transition").count(), 0);
    assert_eq!(may("nodeseal_t", "file", "execute_no_trans").count(), 0);
    let itself = BTreeSet::from(["nodeseal_sealer_exec_t"]);
    assert_eq!(targets(may("nodeseal_sealer_t", "file", "execute_no_trans")), itself);
}

#[test]
fn memory_that_was_written_is_never_executed() {
    for domain in DAEMONS {
        assert!(may(domain, "process", "fork").count() > 0, "{domain}");
        for never in ["execmem", "execstack", "execheap", "ptrace", "setcurrent", "setexec", "dyntransition"] {
            assert_eq!(may(domain, "process", never).count(), 0, "{domain}: {never}");
        }
        // Libraries that are labelled for it: refpolicy gives them to every domain.
        let relocated: Vec<_> = of(domain).iter().filter(|rule| rule.permissions.contains("execmod")).collect();
        assert!(
            relocated.iter().all(|rule| rule.source == "domain" && rule.target == "textrel_shlib_t"),
            "{relocated:?}"
        );
        // A program or library is never one that it may write.
        let executed: BTreeSet<_> = may(domain, "file", "execute").map(|rule| rule.target.as_str()).collect();
        let written: BTreeSet<_> = may(domain, "file", "write").map(|rule| rule.target.as_str()).collect();
        assert!(executed.contains("lib_t") && !written.is_empty() && executed.is_disjoint(&written), "{domain}");
    }
}

#[test]
fn neither_daemon_has_a_capability() {
    for domain in DAEMONS {
        let rules: Vec<_> = of(domain).iter().filter(|rule| rule.class.starts_with("cap")).collect();
        assert!(rules.is_empty(), "{rules:?}");
    }
    assert!(!allowed(&["-s", "chronyd_t", "-c", "capability"]).is_empty(), "the question finds what is there");
}

#[test]
fn only_those_who_may_do_anything_connect_to_the_sockets() {
    let to = |domain| allowed(&["-t", domain, "-c", "unix_stream_socket", "-p", "connectto"]);
    let kms = to("nodeseal_t");
    let known = BTreeSet::from(["nodeseal_t", "rke2_service_t", "sysadm_t", "unconfined_domain_type"]);
    assert_eq!(sources(&kms), known);
    let conditional: Vec<_> = kms.iter().filter(|rule| rule.boolean.is_some()).collect();
    assert!(conditional.len() == 1 && conditional[0].source == "container_domain", "{conditional:?}");
    assert_eq!(conditional[0].boolean.as_deref(), Some("nodeseal_container_connect"));
    let sealer = to("nodeseal_sealer_t");
    let known = BTreeSet::from(["nodeseal_sealer_t", "nodeseal_t", "sysadm_t", "unconfined_domain_type"]);
    assert_eq!(sources(&sealer), known);
    assert!(sealer.iter().all(|rule| rule.boolean.is_none()), "{sealer:?}");
    // Containers get as far as the KMS socket, and the operator's has another type.
    let writers = |kind| allowed(&["-t", kind, "-c", "sock_file", "-p", "write"]);
    let may_write = |kind, domain| writers(kind).iter().any(|rule| rule.source == domain);
    assert!(may_write("nodeseal_runtime_t", "container_domain"), "by the boolean");
    assert!(!may_write("nodeseal_control_runtime_t", "container_domain"));
    assert!(may_write("nodeseal_control_runtime_t", "nodeseal_t"));
    assert!(!may_write("nodeseal_status_runtime_t", "container_domain"));
    assert!(may_write("nodeseal_status_runtime_t", "nodeseal_t"));
}

#[test]
fn of_the_two_only_the_sealer_has_the_tpm() {
    // What refpolicy gives to every domain, and to every daemon for its messages.
    let everybodys = BTreeSet::from(["null_device_t", "zero_device_t", "devtty_t", "initrc_devpts_t"]);
    assert_eq!(targets(may("nodeseal_t", "chr_file", "write")), everybodys);
    let with_tpm = &everybodys | &BTreeSet::from(["tpm_device_t"]);
    assert_eq!(targets(may("nodeseal_sealer_t", "chr_file", "write")), with_tpm);
    let more: BTreeSet<_> =
        may("nodeseal_sealer_t", "chr_file", "write").filter_map(|rule| rule.boolean.as_deref()).collect();
    assert_eq!(more, BTreeSet::from(["init_daemons_use_tty", "nodeseal_token_usb"]));
}

#[test]
fn the_network_is_nodesealds_and_nobody_listens() {
    // trivnet1_port_t is 8200, the port of Vault.
    let known = BTreeSet::from(["dns_port_t", "http_port_t", "nodeseal_provider_port_t", "trivnet1_port_t"]);
    assert_eq!(targets(may("nodeseal_t", "tcp_socket", "name_connect")), known);
    let policy = built().join("policy.bin");
    let vault = run("seinfo", &["--portcon=8200", policy.to_str().unwrap()]);
    assert!(vault.contains("portcon tcp 8200 system_u:object_r:trivnet1_port_t"), "{vault}");
    let only_under = |domain, class, permission| -> BTreeSet<&str> {
        may(domain, class, permission).map(|rule| rule.boolean.as_deref().unwrap_or("always")).collect()
    };
    assert_eq!(
        only_under("nodeseal_t", "tcp_socket", "name_connect"),
        BTreeSet::from(["always", "nodeseal_connect_any"])
    );
    for class in ["tcp_socket", "udp_socket"] {
        assert_eq!(only_under("nodeseal_sealer_t", class, "create"), BTreeSet::from(["nodeseal_token_network"]));
    }
    for domain in DAEMONS {
        for permission in ["listen", "accept", "name_bind", "node_bind"] {
            let of_network = of(domain)
                .iter()
                .filter(|rule| !rule.class.starts_with("unix_") && rule.class.ends_with("_socket"))
                .filter(|rule| rule.permissions.contains(permission));
            assert_eq!(of_network.count(), 0, "{domain}: {permission}");
        }
        assert!(may(domain, "unix_stream_socket", "listen").count() > 0, "the question finds what is there");
    }
}

/// Programs that make backups or look for changes read every file of a machine; refpolicy knows no type that they may not read.
const READ_EVERYTHING: [&str; 10] = [
    "aide_t",
    "amanda_t",
    "backup_t",
    "bacula_t",
    "files_unconfined_type",
    "quota_t",
    "samhain_t",
    "samhaind_t",
    "siggen_t",
    "tripwire_t",
];

#[test]
fn keys_and_pin_are_read_by_their_daemon_and_by_those_who_read_everything() {
    let owners = [
        ("nodeseal_var_lib_t", "nodeseal_t"),
        ("nodeseal_pin_t", "nodeseal_sealer_t"),
        ("nodeseal_token_t", "nodeseal_sealer_t"),
    ];
    for (kind, daemon) in owners {
        let readers = allowed(&["-t", kind, "-c", "file", "-p", "read"]);
        let mut known = BTreeSet::from(READ_EVERYTHING);
        known.extend([daemon, "sysadm_t"]);
        assert_eq!(sources(&readers), known, "{kind}");
        // Booleans that share "all files" by Samba, NFS or FTP leave out what authenticates somebody, and so these.
        assert!(readers.iter().all(|rule| rule.boolean.is_none()), "{kind}: {readers:?}");
    }
    // What each of them may change at all. Of the control socket's folder: what a login may have used up.
    let of_daemon = BTreeSet::from(["nodeseal_t", "nodeseal_control_runtime_t", "nodeseal_var_lib_t", "init_tmpfs_t"]);
    assert_eq!(targets(may("nodeseal_t", "file", "write")), of_daemon);
    // Its runtime folder: which PIN a token may have counted.
    let of_sealer =
        BTreeSet::from(["nodeseal_sealer_t", "nodeseal_sealer_runtime_t", "nodeseal_token_t", "init_tmpfs_t"]);
    assert_eq!(targets(may("nodeseal_sealer_t", "file", "write")), of_sealer);
}

#[test]
fn every_boolean_is_off_until_an_operator_turns_it_on() {
    let policy = built().join("policy.bin");
    let booleans = run("seinfo", &["-b", "-x", policy.to_str().unwrap()]);
    let ours: BTreeSet<_> = booleans.lines().map(str::trim).filter(|line| line.starts_with("bool nodeseal_")).collect();
    let known = [
        "bool nodeseal_connect_any false;",
        "bool nodeseal_container_connect false;",
        "bool nodeseal_token_network false;",
        "bool nodeseal_token_usb false;",
    ];
    assert_eq!(ours, BTreeSet::from(known));
}

#[test]
fn every_file_gets_the_label_that_the_rules_speak_of() {
    let folder = built();
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    // Types that the policy does not know are refused.
    run("semodule_unpackage", &[&at("nodeseal.pp"), &at("module"), &at("ours")]);
    run("setfiles", &["-c", &at("policy.bin"), &at("ours")]);
    // And where a rule of Debian's fits as well, ours holds.
    let places = [
        ("/usr/bin/nodeseald", "nodeseal_exec_t"),
        ("/usr/bin/nodeseal-sealer", "nodeseal_sealer_exec_t"),
        ("/usr/local/bin/nodeseald", "nodeseal_exec_t"),
        ("/usr/lib/systemd/system/nodeseal.socket", "nodeseal_unit_t"),
        ("/usr/lib/systemd/system/nodeseal-sealer.service", "nodeseal_unit_t"),
        ("/etc/nodeseal", "nodeseal_conf_t"),
        ("/etc/nodeseal/nodeseal.toml", "nodeseal_conf_t"),
        ("/etc/nodeseal/pin", "nodeseal_pin_t"),
        ("/var/lib/nodeseal/node/host.key", "nodeseal_var_lib_t"),
        ("/run/nodeseal/kms.sock", "nodeseal_runtime_t"),
        ("/run/nodeseal-control/control.sock", "nodeseal_control_runtime_t"),
        ("/run/nodeseal-status/status.sock", "nodeseal_status_runtime_t"),
        ("/run/nodeseal-sealer/sealer.sock", "nodeseal_sealer_runtime_t"),
        ("/var/run/nodeseal", "nodeseal_runtime_t"),
    ];
    for (path, kind) in places {
        let label = run("selabel_lookup", &["-b", "file", "-f", &at("file_contexts"), "-k", path]);
        assert!(label.contains(&format!(":object_r:{kind}:s0")), "{path}: {label}");
    }
    // The operator's tool runs as the operator.
    let tool = run("selabel_lookup", &["-b", "file", "-f", &at("file_contexts"), "-k", "/usr/bin/nodeseal"]);
    assert!(tool.contains(":object_r:bin_t:s0"), "{tool}");
}
