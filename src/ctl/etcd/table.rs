//! A scan as people read it.

use std::fmt::Write;

use super::report::{Found, Report, Row};
use crate::ctl::output::counted;
use crate::etcd::count::Means;
use crate::etcd::object::Plain;
use crate::types::is_shown;

pub(super) fn render(report: &Report) -> String {
    let mut out = format!("source    {}\n", report.source);
    if let Some(revision) = report.revision {
        let _ = writeln!(out, "revision  {revision}");
    }
    if let Some(part) = &report.part {
        let _ = writeln!(out, "part      only the keys that begin with {part}");
    }
    let _ = writeln!(out, "objects   {}", report.objects);
    let _ = writeln!(out, "key_id    {}", report.key_id_hash.as_deref().unwrap_or("unknown: nodeseald was not asked"));
    let _ = writeln!(
        out,
        "config    {}",
        report.encryption_config.as_deref().unwrap_or("none found; name it with --encryption-config")
    );
    let _ = match &report.not_kept {
        Some(why) => writeln!(out, "evidence  not kept for `keys retire`: {why}"),
        None => writeln!(out, "evidence  kept for `keys retire`"),
    };
    out.push('\n');
    table(&mut out, &report.groups);
    for (at, note) in report.notes.iter().enumerate() {
        let _ = writeln!(out, "{}note: {note}", if at == 0 { "\n" } else { "" });
    }
    if report.findings.is_empty() {
        let _ = writeln!(out, "\nno findings{}", no_findings(report));
    }
    for found in &report.findings {
        finding(&mut out, found);
    }
    out
}

/// What can be said of objects about which there is no finding, and not more.
fn no_findings(report: &Report) -> String {
    if report.objects == 0 {
        return ", since no object was seen".to_owned();
    }
    let unopened: u64 = report
        .groups
        .iter()
        .filter(|row| row.encryption != Means::Plain(Plain::Other).label())
        .map(|row| row.objects - row.opens.opens)
        .sum();
    let of = if report.part.is_some() { "of what was read, " } else { "" };
    match (report.encryption_config.is_some(), unopened) {
        (true, 0) => format!(": {of}every resource of the configuration is under the current key, and opens"),
        (true, unopened) => format!(
            ": {of}every resource of the configuration is under the current key; of {} it is not known whether they open",
            counted(usize::try_from(unopened).unwrap_or(usize::MAX), "object")
        ),
        (false, _) => ", but without a configuration it is not known what should be encrypted".to_owned(),
    }
}

fn finding(out: &mut String, found: &Found) {
    let finding = &found.finding;
    let objects = counted(usize::try_from(finding.objects).unwrap_or(usize::MAX), "object");
    let _ = writeln!(out, "\n{}  {}: {objects} {}", finding.id, finding.resource, finding.text);
    for name in &found.names {
        let _ = writeln!(out, "    {name}");
    }
    if !found.names.is_empty() && found.names_left_off > 0 {
        let _ = writeln!(out, "    and {} more", found.names_left_off);
    }
    let _ = writeln!(out, "  next: {}", finding.next);
}

fn table(out: &mut String, rows: &[Row]) {
    let head =
        ["RESOURCE", "ENCRYPTION", "PROVIDER", "KEY_ID", "KEK", "OBJECTS", "SEEDS", "COPIES", "CURRENT", "OPENS"];
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 10] = std::array::from_fn(width);
    for line in &lines {
        let padded: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", padded.join("  ").trim_end());
    }
}

fn cells(row: &Row) -> [String; 10] {
    let sign = |sign| if is_shown(sign) { sign } else { '?' };
    let short = |text: &str, max: usize| text.chars().take(max).map(sign).collect::<String>();
    let known = |text: Option<&str>, max| text.map_or_else(|| "-".to_owned(), |text| short(text, max));
    let hash = row.key_id_hash.as_deref().and_then(|hash| hash.strip_prefix("sha256:"));
    [
        row.resource.clone(),
        row.encryption.to_owned(),
        known(row.provider.as_deref(), 24),
        known(hash, 12),
        known(row.kek.as_deref(), 12),
        row.objects.to_string(),
        format!("{}{}", row.seeds, if row.seeds_exact { "" } else { "+" }),
        row.fewest_copies.map_or_else(|| "-".to_owned(), |copies| copies.to_string()),
        match row.current {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        }
        .to_owned(),
        opens(row),
    ]
}

fn opens(row: &Row) -> String {
    let opens = &row.opens;
    let asked = row.objects - opens.not_asked;
    if asked == 0 {
        return "-".to_owned();
    }
    if opens.opens == row.objects { "all".to_owned() } else { format!("{} of {}", opens.opens, row.objects) }
}

#[cfg(test)]
mod tests {
    use super::super::report::OpensRow;
    use super::*;

    #[test]
    fn nothing_is_said_to_open_that_nobody_has_asked_for() {
        let row = |encryption, opens: OpensRow| Row {
            resource: "secrets".into(),
            encryption,
            provider: Some("other".into()),
            key_id_hash: None,
            kek: None,
            objects: 3,
            seeds: 1,
            seeds_exact: true,
            current: Some(true),
            opens,
            fewest_copies: None,
            copies: Vec::new(),
        };
        let none = || OpensRow { opens: 0, unknown_kek: 0, bad_text: 0, provider_away: 0, moved: 0, not_asked: 0 };
        let rows = [
            // By a key in the configuration, which Nodeseal does not know.
            vec![row("aescbc", OpensRow { not_asked: 3, ..none() })],
            // By another KMS plugin, on its own socket.
            vec![row("kms:v2", OpensRow { bad_text: 3, ..none() })],
            // Nothing at all: another etcd, or another prefix.
            Vec::new(),
        ];
        for groups in rows {
            let report = Report {
                source: "etcd".into(),
                revision: Some(1),
                complete: true,
                part: None,
                kept: true,
                not_kept: None,
                notes: Vec::new(),
                objects: groups.iter().map(|row| row.objects).sum(),
                key_id_hash: Some("sha256:0".into()),
                encryption_config: Some("enc.yaml".into()),
                groups,
                findings: Vec::new(),
            };
            let text = render(&report);
            assert!(!text.contains("and opens"), "{text}");
        }
    }
}
