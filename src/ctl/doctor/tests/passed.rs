//! What is not to pass, though the file that is looked at first is as it should be.

use std::fs;

use super::super::finding::{Finding, Outcome};
use super::super::table;
use super::Fixture;
#[cfg(feature = "etcd")]
use super::{ENCRYPTION, MANIFEST};

fn outcome_of(fixture: &Fixture, id: &str) -> Finding {
    fixture.look(table::all().into_iter().find(|check| check.id == id).unwrap())
}

#[cfg(feature = "etcd")]
#[test]
fn a_later_file_of_k3s_without_a_plus_takes_the_flags_of_an_earlier_one_away() {
    // k3s, "Configuration File": the last value of a key is used, unless each later one has `+`.
    let fixture = Fixture::healthy();
    fixture.remove(MANIFEST);
    fs::create_dir_all(fixture.at("/var/lib/rancher/k3s/server")).unwrap();
    let first = format!("kube-apiserver-arg:\n- encryption-provider-config={ENCRYPTION}\n");
    fixture.write("/etc/rancher/k3s/config.yaml", &first, 0o600);
    assert_eq!(outcome_of(&fixture, "ND-301").outcome, Outcome::Pass);
    let later = "kube-apiserver-arg:\n- audit-log-path=/var/log/audit\n";
    fixture.write("/etc/rancher/k3s/config.yaml.d/50-audit.yaml", later, 0o600);
    let finding = outcome_of(&fixture, "ND-301");
    assert_ne!(finding.outcome, Outcome::Pass, "kube-apiserver is told nothing: {finding:?}");
}

#[test]
fn a_drop_in_for_all_units_whose_names_begin_alike_counts() {
    // systemd.unit(5): `foo-bar.service` reads `foo-.service.d/` too.
    let fixture = Fixture::healthy();
    fixture.write("/etc/systemd/system/nodeseal-.service.d/a.conf", "[Service]\nUser=root\nPrivateNetwork=no\n", 0o644);
    assert_ne!(outcome_of(&fixture, "ND-209").outcome, Outcome::Pass);
}

#[test]
fn what_systemctl_set_property_has_written_counts() {
    // systemd.unit(5), "Unit File Load Path": system.control goes before all others.
    let fixture = Fixture::healthy();
    let path = "/etc/systemd/system.control/nodeseal.service.d/50-MemorySwapMax.conf";
    fixture.write(path, "[Service]\nMemorySwapMax=infinity\n", 0o644);
    assert_ne!(outcome_of(&fixture, "ND-209").outcome, Outcome::Pass);
}

#[test]
fn a_drop_in_that_cannot_be_read_is_not_taken_for_none() {
    // systemd reads it: one byte of Latin-1 in a comment.
    let fixture = Fixture::healthy();
    let path = "/etc/systemd/system/nodeseal.service.d/a.conf";
    fixture.write(path, "", 0o644);
    fs::write(fixture.at(path), b"# f\xFCr das Labor\n[Service]\nUser=root\nCapabilityBoundingSet=CAP_SYS_ADMIN\n")
        .unwrap();
    assert_ne!(outcome_of(&fixture, "ND-209").outcome, Outcome::Pass);
}

#[test]
fn a_command_that_is_started_with_full_privileges_is_named() {
    // systemd.service(5): with `+` neither User=, nor capabilities, nor the sandbox of the unit apply.
    let fixture = Fixture::healthy();
    let text = "[Service]\nExecStart=\nExecStart=+/usr/bin/nodeseald\n";
    fixture.write("/etc/systemd/system/nodeseal.service.d/a.conf", text, 0o644);
    assert_ne!(outcome_of(&fixture, "ND-209").outcome, Outcome::Pass);
}

#[cfg(feature = "etcd")]
#[test]
fn a_process_of_another_user_says_nothing_of_kube_apiserver() {
    let fixture = Fixture::healthy();
    fixture.remove(MANIFEST);
    assert_eq!(outcome_of(&fixture, "ND-303").outcome, Outcome::Pass);
    fixture.process("4711", 4711);
    for id in ["ND-301", "ND-303", "ND-304", "ND-305", "ND-306", "ND-315"] {
        let finding = outcome_of(&fixture, id);
        assert!(finding.outcome == Outcome::Warn && finding.why.contains("4711"), "{id}: {finding:?}");
    }
}
