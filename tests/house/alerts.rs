//! The alerts, their page, their tests and the dashboard speak of the same things.

use std::collections::BTreeSet;

use super::read;

const RULES: &str = "packaging/monitoring/nodeseal.rules.yaml";
const CASES: &str = "packaging/monitoring/nodeseal.rules.test.yaml";
const DASHBOARD: &str = "packaging/monitoring/nodeseal.dashboard.json";

fn after<'a>(text: &'a str, words: &str) -> BTreeSet<&'a str> {
    text.lines().filter_map(|line| line.trim_start().strip_prefix(words)).map(str::trim).collect()
}

/// Names of metrics, without what a counter or a histogram adds to them.
fn metrics(text: &str) -> BTreeSet<String> {
    let name = |rest: &str| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect::<String>();
    let base = |name: String| {
        let ends = ["_total", "_bucket", "_count", "_sum"];
        ends.iter().find_map(|end| name.strip_suffix(end)).map_or(name.clone(), str::to_owned)
    };
    text.match_indices("nodeseal_").map(|(at, _)| base(name(&text[at..]))).collect()
}

#[test]
fn each_alert_has_its_section_its_case_and_a_place_in_the_healthy_day() {
    let (rules, cases, page) = (read(RULES), read(CASES), read("docs/operations/alerts.md"));
    let alerts = after(&rules, "- alert: ");
    assert!(alerts.len() >= 16, "{alerts:?}");
    assert_eq!(alerts, after(&page, "### "), "{RULES} and docs/operations/alerts.md");
    for alert in &alerts {
        assert!(cases.contains(&format!("- name: {alert}\n")), "{CASES} has no case of {alert}");
        assert!(
            cases.contains(&format!("alertname: {alert}, eval_time: 1490m, exp_alerts: []")),
            "{alert} may be loud"
        );
        let runbook = format!("runbook: \"docs/operations/alerts.md#{}\"", alert.to_lowercase());
        assert!(rules.contains(&runbook), "{alert} has no {runbook}");
    }
}

#[test]
fn alerts_and_dashboard_ask_for_metrics_that_there_are() {
    let known = metrics(&read("docs/operations/metrics.md"));
    for path in [RULES, CASES, DASHBOARD] {
        let asked = metrics(&read(path));
        assert!(asked.len() > 15, "{path}: {asked:?}");
        let unknown: Vec<_> = asked.difference(&known).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
}
