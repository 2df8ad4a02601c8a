//! The AppArmor profiles, as AppArmor's own parser reads and compiles them. A kernel with AppArmor is not needed, and nothing is loaded.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn profile(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("apparmor").join(name)
}

/// In /usr/sbin, which is not in everybody's PATH.
fn parser(args: &[&str], profile: &Path) -> Output {
    Command::new("/usr/sbin/apparmor_parser")
        .args(args)
        .arg(profile)
        .output()
        .expect("apparmor_parser is there: `make test` installs it")
}

/// Compiled, and neither loaded nor kept.
fn compile(profile: &Path) -> Output {
    parser(&["--skip-kernel-load", "--skip-cache"], profile)
}

/// The profile with everything that it includes, without comments.
fn whole(name: &str) -> String {
    let output = parser(&["--preprocess"], &profile(name));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().filter(|line| !line.trim_start().starts_with('#')).collect::<Vec<_>>().join("\n")
}

const PROFILES: [&str; 2] = ["usr.bin.nodeseald", "usr.bin.nodeseal-sealer"];

#[test]
fn each_profile_compiles_without_a_word() {
    for name in PROFILES {
        let output = compile(&profile(name));
        let said = String::from_utf8_lossy(&output.stderr);
        // Said of a kernel without AppArmor.
        let warnings: Vec<_> = said.lines().filter(|line| !line.starts_with("Cache read/write disabled")).collect();
        assert!(output.status.success() && warnings.is_empty(), "{name}: {said}");
    }
}

#[test]
fn a_profile_with_a_mistake_is_refused() {
    let text = fs::read_to_string(profile(PROFILES[0])).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    for (right, wrong) in
        [("attach_disconnected", "attach_disconected"), ("abstractions/base", "abstractions/bases"), (" mr,", " mr")]
    {
        assert!(text.contains(right), "{right}");
        fs::write(&broken, text.replace(right, wrong)).unwrap();
        assert!(!compile(&broken).status.success(), "{wrong}");
    }
}

#[test]
fn only_the_sealer_has_the_tpm_and_only_nodeseald_the_keys_and_the_network() {
    let [daemon, sealer] = PROFILES.map(whole);
    for (what, of_daemon, of_sealer) in
        [("/dev/tpm", false, true), ("/var/lib/nodeseal/", true, false), ("network inet", true, false)]
    {
        assert_eq!(daemon.contains(what), of_daemon, "nodeseald: {what}");
        assert_eq!(sealer.contains(what), of_sealer, "nodeseal-sealer: {what}");
    }
    // A denial stands above whatever an abstraction allows.
    assert!([daemon, sealer].iter().all(|profile| profile.contains("\n  deny capability,")));
}
