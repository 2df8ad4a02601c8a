//! `nodeseal metrics` of a real daemon, read as strictly as a collector may read it.

use std::collections::BTreeMap;

use test_support::swtpm::Swtpm;

use crate::alone::Alone;

/// Value by name and labels, as in `name{a="b"}`.
pub type Samples = BTreeMap<String, f64>;

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
        && !text.starts_with(|c: char| c.is_ascii_digit())
}

/// OpenMetrics 1.0: HELP and TYPE before a family's samples, each family in one piece, labels quoted, `# EOF` as the last line.
pub fn parse(text: &str) -> Samples {
    let mut samples = Samples::new();
    let mut families = Vec::new();
    let mut lines = text.strip_suffix("\n# EOF\n").expect("the last line says so").split('\n').peekable();
    while let Some(line) = lines.next() {
        let (name, help) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).expect(line);
        assert!(is_name(name) && name.starts_with("nodeseal_") && !help.is_empty(), "{line}");
        let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).expect(line);
        let endings: &[&str] = match kind {
            "gauge" => &[""],
            "counter" => &["_total"],
            "histogram" => &["_bucket", "_count", "_sum"],
            other => panic!("{name} is a {other}"),
        };
        assert!(!families.contains(&name), "{name} stands twice");
        families.push(name);
        let mut count = 0;
        while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ').expect(line);
            let labels = &series[series.find('{').unwrap_or(series.len())..];
            let ending = series[..series.len() - labels.len()].strip_prefix(name).expect(line);
            assert!(endings.contains(&ending), "{line}");
            if !labels.is_empty() {
                let inner = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix("\"}")).expect(line);
                for label in inner.split("\",") {
                    let (key, value) = label.split_once("=\"").expect(line);
                    assert!(is_name(key) && !value.contains('"'), "{line}");
                }
            }
            assert!(samples.insert(series.to_owned(), value.parse().expect(line)).is_none(), "{series} stands twice");
            count += 1;
        }
        assert!(count > 0, "{name} has no sample");
    }
    samples
}

#[test]
fn the_metrics_of_a_running_daemon_are_its_status_and_those_of_an_absent_one_say_so() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let away = alone.tool(&["metrics"]);
    assert_eq!((away.code, away.err.as_str()), (0, ""), "{away:?}");
    assert_eq!(parse(&away.out), Samples::from([("nodeseal_up".to_owned(), 0.0)]));

    let client = alone.start();
    for _ in 0..5 {
        client.store().unwrap();
    }
    let output = alone.tool(&["metrics"]);
    assert_eq!(output.code, 0, "{output:?}");
    let samples = parse(&output.out);
    let status = alone.tool(&["status", "--json"]).json();
    let version = format!("nodeseal_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    let hash = format!("nodeseal_key_id_info{{key_id_hash=\"{}\"}}", status["key_id_hash"].as_str().unwrap());
    let memory = status["sandbox"]["memory"].as_str().unwrap();
    for (series, value) in [
        ("nodeseal_up", 1.0),
        ("nodeseal_healthy", 1.0),
        ("nodeseal_keys", 1.0),
        ("nodeseal_keys_usable", 1.0),
        ("nodeseal_active_kek_uses", status["uses"].as_f64().unwrap()),
        ("nodeseal_active_kek_overdue", 0.0),
        ("nodeseal_wraps_owed", 0.0),
        ("nodeseal_outage_seconds", 0.0),
        ("nodeseal_stops_writes", 0.0),
        ("nodeseal_sandbox_enforced{layer=\"capabilities\"}", 1.0),
        ("nodeseal_sandbox_enforced{layer=\"landlock\"}", 1.0),
        ("nodeseal_sandbox_enforced{layer=\"seccomp\"}", 1.0),
        ("nodeseal_mode_info{mode=\"hardware only\"}", 1.0),
        ("nodeseal_seal_info{backend=\"tpm2\",policy=\"none\"}", 1.0),
        (&format!("nodeseal_secret_memory{{kind=\"{memory}\"}}"), 1.0),
        ("nodeseal_secret_memory{kind=\"unlocked\"}", 0.0),
        (&version, 1.0),
        (&hash, 1.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series} in {}", output.out);
    }
    assert!(samples["nodeseal_uptime_seconds"] <= status["uptime_seconds"].as_f64().unwrap());
    assert!(samples.keys().all(|series| !series.starts_with("nodeseal_provider_")), "there is none");
    assert!(samples.len() < 150, "{}", samples.len());
    // The same for programs.
    let json = alone.tool(&["metrics", "--json"]).json();
    assert_eq!(json["families"][0]["name"], "nodeseal_up");
    assert_eq!(json["families"].as_array().unwrap().len(), output.out.matches("# TYPE ").count());

    // With the keys closed it is up, and not well.
    alone.kill();
    std::fs::rename(alone.root().join("node"), alone.home().join("aside")).unwrap();
    alone.start_locked();
    let samples = parse(&alone.tool(&["metrics"]).out);
    assert_eq!((samples["nodeseal_up"], samples["nodeseal_healthy"]), (1.0, 0.0));
    for unknown in [
        "nodeseal_active_kek_uses",
        "nodeseal_active_kek_overdue",
        "nodeseal_keys",
        "nodeseal_keys_usable",
        "nodeseal_wraps_owed",
        "nodeseal_texts_short_of_wraps",
        "nodeseal_rollback_guarded",
        "nodeseal_recovery_recipients",
    ] {
        assert!(!samples.contains_key(unknown), "{unknown} is not known");
    }
    let text = alone.tool(&["status"]).out;
    for row in ["keys", "sealed by", "seal policy", "rollback", "recovery"] {
        let line = text.lines().find(|line| line.starts_with(&format!("{row:<12} "))).unwrap();
        assert!(line.contains("unknown"), "{line}");
    }
    assert_eq!(alone.stop(), 0);
}

#[test]
fn a_configuration_that_cannot_be_read_is_an_error_and_no_metric() {
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    alone.extra = "nonsense = 1".into();
    alone.write_config(&tpm);
    let output = alone.tool(&["metrics"]);
    assert_eq!((output.code, output.out.as_str()), (78, ""), "{output:?}");
}

/// One such object is enough for kube-apiserver to list none of its resource.
#[test]
fn a_text_that_cannot_be_read_is_counted_and_the_kek_that_it_needs_is_named() {
    let tpm = Swtpm::start();
    let mut alone = Alone::set_up(&tpm);
    let client = alone.start();
    let stored = client.store().unwrap();
    let old = alone.tool(&["keys", "list", "--json"]).json()["keys"][0].clone();
    let id = old["id"].as_str().unwrap();
    assert!(old["opened"].is_null(), "it has opened nothing yet: {old}");
    assert!(!alone.tool(&["status"]).out.contains("refused"), "nothing was refused yet");
    client.assert_opens(&stored);
    let shown = alone.tool(&["keys", "show", id]).out;
    assert!(shown.contains("it last opened a ciphertext at "), "{shown}");

    assert_eq!(alone.tool(&["keys", "rotate", "--activate"]).code, 0);
    let dry = alone.tool(&["keys", "retire", id, "--dry-run", "--without-scan"]).out;
    assert!(dry.contains("it last opened a ciphertext at "), "said before it is destroyed: {dry}");
    assert_eq!(alone.tool(&["keys", "retire", id, "--confirm", id, "--without-scan"]).code, 0);
    for _ in 0..3 {
        assert_eq!(client.decrypt(&stored.text, &stored.key_id).unwrap_err().code(), Some(5));
    }
    assert_eq!(client.decrypt(b"no text of anybody", &stored.key_id).unwrap_err().code(), Some(3));

    let status = alone.tool(&["status", "--json"]).json();
    assert_eq!(status["decrypts_refused"], serde_json::json!({ "corrupt": 1, "not_found": 3 }));
    assert_eq!((&status["without_kek"]["decrypts"], &status["without_kek"]["kek"]), (&3.into(), &id.into()));
    let needs = status["needs"].as_array().unwrap();
    assert_eq!((needs.len(), needs[0]["kind"].as_str()), (1, Some("unreadable_texts")), "{status}");
    let text = alone.tool(&["status"]).out;
    let row = text.lines().find(|line| line.starts_with("refused ")).unwrap();
    assert!(row.contains("4 Decrypts since the start: 1 corrupt, 3 not_found") && row.contains(id), "{row}");
    let samples = parse(&alone.tool(&["metrics"]).out);
    assert_eq!(samples["nodeseal_decrypts_refused{class=\"not_found\"}"], 3.0);
    assert_eq!(samples["nodeseal_decrypts_refused{class=\"denied\"}"], 0.0);
    assert_eq!(alone.stop(), 0);
}
