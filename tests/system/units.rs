//! The units, as systemd's own tools judge them without running anything: what they expose, and whether every line is understood.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const UNITS: [&str; 4] = ["nodeseal.service", "nodeseal.socket", "nodeseal-sealer.service", "nodeseal-sealer.socket"];

/// Of `systemd-analyze security`, in tenths. What is left of nodeseald's is the network, and of the sealer's its socket and device.
const EXPOSURE_MAX: [(&str, Option<&str>, u32); 4] = [
    ("nodeseal.service", None, 11),
    ("nodeseal.service", Some("50-hardware-only.conf"), 2),
    ("nodeseal-sealer.service", None, 2),
    ("nodeseal-sealer.service", Some("50-pkcs11.conf"), 2),
];

fn systemd() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// The units with our programs where this build has put them, since a unit whose program is missing is not looked at further.
fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for unit in UNITS {
        let text = fs::read_to_string(systemd().join(unit)).unwrap();
        let text = text
            .replace("ExecStart=/usr/bin/nodeseal-sealer", concat!("ExecStart=", env!("CARGO_BIN_EXE_nodeseal-sealer")))
            .replace("ExecStart=/usr/bin/nodeseald", concat!("ExecStart=", env!("CARGO_BIN_EXE_nodeseald")));
        fs::write(folder.path().join(unit), text).unwrap();
    }
    folder
}

fn analyze(args: &[&str]) -> Output {
    Command::new("systemd-analyze").args(args).output().expect("systemd-analyze is there: `make test` installs it")
}

#[test]
fn each_service_exposes_no_more_than_was_promised() {
    for (unit, drop_in, tenths) in EXPOSURE_MAX {
        let folder = installed();
        if let Some(name) = drop_in {
            let beside = folder.path().join(format!("{unit}.d"));
            fs::create_dir(&beside).unwrap();
            fs::copy(systemd().join("examples").join(format!("{unit}.d")).join(name), beside.join(name)).unwrap();
        }
        let path = folder.path().join(unit);
        let threshold = format!("--threshold={tenths}");
        let output = analyze(&["security", "--offline=true", "--no-pager", &threshold, path.to_str().unwrap()]);
        let said = String::from_utf8_lossy(&output.stdout);
        eprintln!("FIGURE: {}", said.lines().last().unwrap_or_default());
        assert!(output.status.success(), "{unit} {drop_in:?} is above {tenths} tenths:\n{said}");
    }
}

#[test]
fn no_unit_waits_for_the_network_or_for_the_time() {
    // No drop-in can take such a line back: systemd.unit(5), "Dependencies cannot be reset to an empty list".
    for unit in UNITS {
        let text = fs::read_to_string(systemd().join(unit)).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        for word in ["network", "time-sync", "time-set", "remote-fs", "nss-lookup"] {
            let waits = lines.clone().find(|line| {
                line.contains(&format!("{word}.target")) || line.contains(&format!("{word}-online.target"))
            });
            assert_eq!(waits, None, "{unit}");
        }
    }
}

#[test]
fn every_line_of_every_unit_is_understood() {
    let folder = installed();
    let paths = UNITS.map(|unit| folder.path().join(unit).display().to_string());
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let output = analyze(&[&["verify", "--man=no"], &paths[..]].concat());
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim().is_empty(), "{said}");
}

#[test]
fn every_line_of_every_example_is_understood() {
    let folder = installed();
    let mut seen = 0;
    for beside in fs::read_dir(systemd().join("examples")).unwrap().map(|entry| entry.unwrap().path()) {
        for example in fs::read_dir(&beside).unwrap().map(|entry| entry.unwrap().path()) {
            let into = folder.path().join(beside.file_name().unwrap());
            fs::create_dir_all(&into).unwrap();
            fs::copy(&example, into.join("example.conf")).unwrap();
            let unit = folder.path().join(beside.file_stem().unwrap());
            let output = analyze(&["verify", "--man=no", unit.to_str().unwrap()]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.trim().is_empty(), "{}: {said}", example.display());
            seen += 1;
        }
    }
    assert!(seen > 2, "{seen}");
}

/// docs/operations/hardening.md says what each line is for.
#[test]
fn every_setting_of_the_services_is_explained() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations/hardening.md")).unwrap();
    for unit in ["nodeseal.service", "nodeseal-sealer.service"] {
        let text = fs::read_to_string(systemd().join(unit)).unwrap();
        let service = text.split_once("[Service]").unwrap().1.split("[Install]").next().unwrap();
        let keys = service.lines().filter_map(|line| Some(line.split_once('=')?.0)).filter(|key| !key.starts_with('#'));
        for key in keys {
            assert!(
                page.contains(&format!("`{key}")),
                "docs/operations/hardening.md does not explain {key}= of {unit}"
            );
        }
    }
}
