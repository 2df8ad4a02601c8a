//! What a daemon logs to a real journald, in mounts of its own: levels, fields, and what `journalctl -x` says of an event.

use std::fs;
use std::process::Command;

use nix::unistd::geteuid;
use serde_json::Value;
use test_support::node::run;
use test_support::swtpm::Swtpm;

use crate::alone::{Alone, NODESEAL, NODESEALD};

/// The journal of these mounts alone, and then a daemon whose standard error is a stream of it, as systemd would start it.
const SCRIPT: &str = r#"
set -eu
home=$1 daemon=$2 tool=$3 catalog=$4
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /run/systemd/journal /run/log/journal "$home/catalog"
cp "$catalog" "$home/catalog/"
mount --bind "$home/catalog" /usr/lib/systemd/catalog
mount -t tmpfs tmpfs /var/lib/systemd/catalog
journalctl --update-catalog
/lib/systemd/systemd-journald &
journald=$!
trap 'kill $journald' EXIT
waited=0
until [ -S /run/systemd/journal/socket ] && [ -S /run/systemd/journal/stdout ]; do
    [ $((waited += 1)) -lt 200 ] || exit 1
    sleep 0.1
done
systemd-cat -t lines sh -c 'echo $$ >"$2"; JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec "$0" --config "$1"' \
    "$daemon" "$home/nodeseal.toml" "$home/pid" &
waited=0
until "$tool" --config "$home/nodeseal.toml" status >/dev/null 2>&1; do
    [ $((waited += 1)) -lt 300 ] || exit 1
    sleep 0.1
done
kill "$(cat "$home/pid")"
wait $! || true
journalctl --sync
journalctl -o json >"$home/all"
journalctl -o json -p warning >"$home/warnings"
journalctl -x -p warning >"$home/explained"
"#;

#[test]
fn the_journal_has_the_level_the_fields_and_the_explanation_of_each_event() {
    if !geteuid().is_root() {
        eprintln!("SKIPPED: only root can have mounts of its own");
        return;
    }
    let tpm = Swtpm::start();
    let alone = Alone::set_up(&tpm);
    let text = fs::read_to_string(alone.config()).unwrap().replace("format = \"json\"", "format = \"text\"");
    fs::write(alone.config(), text).unwrap();
    let catalog = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/nodeseal.catalog");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, "sh"]).arg(alone.home()).args([NODESEALD, NODESEAL, catalog]);
    let output = run(&mut command);
    assert_eq!(output.code, 0, "{output:?}");
    let records = |name: &str| -> Vec<Value> {
        let text = fs::read_to_string(alone.home().join(name)).unwrap();
        let all = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|record| record["SYSLOG_IDENTIFIER"] == "nodeseald").collect()
    };
    let all = records("all");
    let of = |event: &str| {
        let found = all.iter().find(|record| record["NODESEAL_EVENT"] == event);
        found.unwrap_or_else(|| panic!("no {event} in {all:#?}")).clone()
    };
    let started = of("service.started");
    assert_eq!((started["PRIORITY"].as_str(), started["NODESEAL_PROGRAM"].as_str()), (Some("6"), Some("nodeseald")));
    assert_eq!(started["_TRANSPORT"], "journal", "by its own socket, and no stream of lines");
    let id = |record: &Value| record["MESSAGE_ID"].as_str().unwrap_or_default().to_owned();
    assert!(id(&started).len() == 32 && id(&started) != id(&of("service.stopping")));
    // After the confinement, by the writer's own thread.
    assert_eq!(of("seal.opened")["NODESEAL_KEYS"], "1");

    let warnings = records("warnings");
    assert!(!warnings.is_empty() && warnings.iter().all(|record| record["PRIORITY"] == "4"), "{warnings:#?}");
    let warned = &warnings[0];
    assert_eq!(warned["NODESEAL_KEY"], "seal.tpm2.allow_software_tpm");
    let message = warned["MESSAGE"].as_str().unwrap();
    assert!(message.starts_with("event=\"config.warned\"") && !message.contains("WARN"), "{message}");
    let explained = fs::read_to_string(alone.home().join("explained")).unwrap();
    assert!(
        explained.contains("Subject: Nodeseal: config.warned") && explained.contains("What to do: "),
        "{explained}"
    );
}
