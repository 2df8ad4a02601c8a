//! Nodes that know each other: three commands for a rotation of any number of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use test_support::swtpm::Swtpm;

use super::{Ground, Home, Place, by_all, run_walk, walk};

const NAMES: [&str; 4] = ["cp-1", "cp-2", "cp-3", "cp-4"];

/// What was printed behind `fingerprint: `.
fn mark(printed: &str) -> &str {
    printed.lines().find_map(|line| line.strip_prefix("fingerprint: ")).unwrap()
}

fn good(ground: &Ground, command: &str, node: &Home) -> String {
    let output = ground.shell(command, node);
    assert_eq!(output.code, 0, "{command}: {output:?}");
    output.out
}

/// `ssh root@HOST COMMAND` runs it on that node.
fn lay_ssh(ground: &Ground, nodes: &[Home]) {
    let bin = ground.safe.path().join("bin");
    fs::create_dir(&bin).unwrap();
    // The command comes with the configuration of the node that it is typed on.
    let script = "#!/bin/sh\nhost=${1#root@}; program=$2; shift 4\nexec \"$program\" --config \"${0%/bin/ssh}/$host.toml\" \"$@\"\n";
    fs::write(bin.join("ssh"), script).unwrap();
    for folder in [bin.clone(), bin.join("ssh")] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
    }
    for (name, node) in NAMES.iter().zip(nodes) {
        std::os::unix::fs::symlink(node.config_file(), ground.safe.path().join(format!("{name}.toml"))).unwrap();
    }
}

/// The first is set up, the others have its keys.
fn joined(ground: &Ground, tpms: &[Swtpm]) -> Vec<Home> {
    let (first, _) = ground.set_up(&tpms[0]);
    let mut nodes = vec![first];
    for (name, tpm) in NAMES.iter().zip(tpms).skip(1) {
        let mut node = ground.machine(tpm);
        run_walk("join", ground.safe.path(), &mut [("cp-2", &mut node)]);
        let asked = good(ground, &format!("nodeseal bundle request --out /media/safe/{name}.request"), &node);
        let make = format!(
            "nodeseal bundle make /media/safe/{name}.request --fingerprint {} --out /media/safe/{name}.first",
            mark(&asked)
        );
        let made = good(ground, &make, &nodes[0]);
        let accept = format!("nodeseal bundle accept /media/safe/{name}.first --fingerprint {}", mark(&made));
        good(ground, &accept, &node);
        nodes.push(node);
    }
    nodes
}

/// Each of the others knows the first, and the first knows all of them.
fn introduce(ground: &Ground, nodes: &[Home]) {
    let mut marks = Vec::new();
    for (name, node) in NAMES.iter().zip(nodes) {
        let command = format!("nodeseal members identity --out /media/safe/{name}.identity --name {name}");
        marks.push(mark(&good(ground, &command, node)).to_owned());
    }
    let add = |of: usize, on: usize| {
        let (name, mark) = (NAMES[of], &marks[of]);
        let command = format!("nodeseal members add /media/safe/{name}.identity --fingerprint {mark}");
        good(ground, &command, &nodes[on]);
    };
    for other in 1..nodes.len() {
        add(0, other);
        add(other, 0);
    }
    let listed = good(ground, "nodeseal members list", &nodes[0]);
    assert!(NAMES[1..].iter().all(|name| listed.contains(name)), "{listed}");
}

#[test]
fn four_nodes_rotate_with_three_commands_and_not_without_one_of_them() {
    let by_one = std::cell::Cell::new(false);
    by_all(|ground| {
        // Four nodes once: who types it makes no difference to what crosses the control socket.
        if by_one.replace(true) {
            return;
        }
        let tpms: Vec<Swtpm> = NAMES.iter().map(|_| Swtpm::start()).collect();
        let mut nodes = joined(ground, &tpms);
        introduce(ground, &nodes);
        lay_ssh(ground, &nodes);
        let before = nodes[0].client().status().unwrap().key_id;
        let of_before = nodes[3].client().store().unwrap();
        // One node is off.
        assert_eq!(nodes[2].stop(), 0);
        let lines = walk("members");
        let printed = good(ground, lines[0].1, &nodes[0]);
        let here = ground.safe.path().display().to_string();
        for (_, line) in &lines[1..] {
            let shown = line.replace("/media/safe", &here);
            assert!(printed.contains(&shown), "the tool prints what the page says: {shown}\n{printed}");
        }
        good(ground, lines[1].1, &nodes[0]);
        let refused = ground.shell(lines[2].1, &nodes[0]);
        refused.assert_refused(77);
        assert!(refused.err.contains("cp-3") && !refused.err.contains("cp-2"), "{refused:?}");
        ground.shell("nodeseal keys activate", &nodes[0]).assert_refused(77);
        assert_eq!(nodes[0].client().status().unwrap().key_id, before);
        // It is back, and the same three lines do it.
        nodes[2].start();
        let [first, second, third, fourth] = &mut nodes[..] else { unreachable!() };
        let mut places: [(&str, &mut dyn Place); 4] =
            [("cp-1", first), ("cp-2", second), ("cp-3", third), ("cp-4", fourth)];
        run_walk("members", ground.safe.path(), &mut places);
        let ids: Vec<String> = nodes.iter().map(|node| node.client().status().unwrap().key_id).collect();
        assert!(ids.iter().all(|id| *id == ids[0] && *id != before), "{ids:?}");
        for node in &nodes {
            let stored = node.client().store().unwrap();
            for other in &nodes {
                other.client().assert_opens(&stored);
                other.client().assert_opens(&of_before);
            }
        }
    });
}
