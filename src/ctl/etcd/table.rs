//! A scan as people read it.

use std::fmt::Write;

use super::report::{Found, Report, Row};
use crate::ctl::output::counted;

pub(super) fn render(report: &Report) -> String {
    let mut out = format!("source    {}\n", report.source);
    if let Some(revision) = report.revision {
        let _ = writeln!(out, "revision  {revision}");
    }
    let _ = writeln!(out, "objects   {}", report.objects);
    let _ = writeln!(out, "key_id    {}", report.key_id_hash.as_deref().unwrap_or("unknown: nodeseald was not asked"));
    let _ = writeln!(
        out,
        "config    {}",
        report.encryption_config.as_deref().unwrap_or("none found; name it with --encryption-config")
    );
    out.push('\n');
    table(&mut out, &report.groups);
    if report.findings.is_empty() {
        out.push_str(no_findings(report));
    }
    for found in &report.findings {
        finding(&mut out, found);
    }
    out
}

fn no_findings(report: &Report) -> &'static str {
    let asked = report.groups.iter().all(|row| row.opens.not_asked == 0 || row.kek.is_none());
    match (report.encryption_config.is_some(), asked) {
        (true, true) => "\nno findings: every resource of the configuration is under the current key, and opens\n",
        (true, false) => "\nno findings, but it was not asked whether the objects open\n",
        (false, _) => "\nno findings, but without a configuration it is not known what should be encrypted\n",
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
    let short = |text: &str, max: usize| text.chars().take(max).collect::<String>();
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
