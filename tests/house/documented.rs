//! Whether the documentation lists what the code has.

use std::collections::{BTreeMap, BTreeSet};

use nodeseal::keyring::files::{self, FILES, Generations, Place};
use nodeseal::seal::fault::FaultCode;

use super::{files_below, read};

/// The cells of the table row whose first cell is this name.
fn row<'a>(page: &'a str, name: &str) -> Option<Vec<&'a str>> {
    let start = format!("| `{name}` |");
    let line = page.lines().find(|line| line.starts_with(&start))?;
    Some(line.split('|').map(str::trim).collect())
}

/// Names in the first cells of the page's tables.
fn rows_of(page: &str) -> impl Iterator<Item = &str> {
    page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name)
}

#[test]
fn every_fault_code_is_documented_as_it_is() {
    let page = read("docs/operations/faults.md");
    for fault in FaultCode::ALL {
        let code = fault.code();
        let cells = row(&page, code).unwrap_or_else(|| panic!("docs/operations/faults.md has no row for {code}"));
        assert!(cells.contains(&fault.class().label()), "{code}: class {} in {cells:?}", fault.class());
        assert!(cells.contains(&fault.message()), "{code}: message {:?} in {cells:?}", fault.message());
    }
    let known: Vec<_> = FaultCode::ALL.iter().map(|fault| fault.code()).collect();
    let unknown: Vec<_> = rows_of(&page).filter(|name| name.starts_with("E-") && !known.contains(name)).collect();
    assert!(unknown.is_empty(), "documented and not in the code: {unknown:?}");
}

#[cfg(feature = "etcd")]
#[test]
fn every_check_of_the_doctor_is_documented_as_it_is_and_no_other() {
    let page = read("docs/operations/doctor.md");
    let checks = nodeseal::ctl::doctor_rows();
    assert!(checks.len() > 30, "{checks:?}");
    for check in &checks {
        let cells =
            row(&page, check.id).unwrap_or_else(|| panic!("docs/operations/doctor.md has no row for {}", check.id));
        assert!(cells.contains(&check.title) && cells.contains(&check.impact), "{check:?}: {cells:?}");
        read(&format!("docs/{}", check.page));
    }
    let known: BTreeSet<_> = checks.iter().map(|check| check.id).collect();
    let documented: BTreeSet<_> = rows_of(&page).filter(|name| name.starts_with("ND-")).collect();
    assert_eq!(known, documented);
}

#[test]
fn every_event_is_documented_and_no_other() {
    let source = read("src/audit/line.rs");
    let events: BTreeSet<_> =
        source.split("event = \"").skip(1).map(|rest| rest.split_once('"').unwrap().0.to_owned()).collect();
    assert!(events.len() > 10, "{events:?}");
    let page = read("docs/audit-events.md");
    let documented: BTreeSet<_> = rows_of(&page).filter(|name| name.contains('.')).map(str::to_owned).collect();
    assert_eq!(events, documented, "src/audit/line.rs and docs/audit-events.md");
}

/// A file of the state directory as the table of docs/formats.md shows it, without what it says of the content.
fn file_cells(file: &files::Row) -> [String; 6] {
    let place = match file.place {
        Place::Root => "root",
        Place::Top => "top",
    };
    let generations = match file.generations {
        Generations::Alternate => "alternate",
        Generations::Both => "both",
        Generations::One => "one",
    };
    let yes = |is: bool| if is { "yes" } else { "no" };
    let kind = file.kind.map_or_else(|| "–".to_owned(), |kind| (kind as u8).to_string());
    let rest = [place, generations, yes(file.is_secret), yes(file.is_checked)].map(str::to_owned);
    let [place, generations, is_secret, is_checked] = rest;
    [format!("`{}`", file.name), kind, place, generations, is_secret, is_checked]
}

#[test]
fn every_file_of_the_state_directory_is_documented_as_it_is_and_no_other() {
    let page = read("docs/formats.md");
    let (_, section) = page.split_once("\n## State directory\n").unwrap();
    let (section, _) = section.split_once("\n## ").unwrap();
    let documented: BTreeSet<Vec<String>> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|line| format!("`{line}").split('|').map(|cell| cell.trim().to_owned()).take(6).collect())
        .collect();
    let known: BTreeSet<Vec<String>> = FILES.iter().map(|file| file_cells(file).to_vec()).collect();
    assert!(known.len() > 10 && known.len() == FILES.len(), "a name stands twice: {known:#?}");
    assert_eq!(documented, known, "docs/formats.md, \"State directory\", and src/keyring/files.rs");
}

#[test]
fn every_schema_of_an_answer_is_documented_and_no_other() {
    let source = read("src/ctl/schema.rs");
    let schemas: BTreeSet<_> =
        source.split("Schema = \"").skip(1).map(|rest| rest.split_once('"').unwrap().0.to_owned()).collect();
    assert!(schemas.len() > 20 && schemas.contains("nodeseal.error/1"), "{schemas:?}");
    let page = read("docs/operations/json.md");
    let documented: BTreeSet<_> =
        page.lines().filter_map(|line| line.strip_prefix("### ")).filter(|name| name.contains('.')).collect();
    let schemas: BTreeSet<_> = schemas.iter().map(String::as_str).collect();
    assert_eq!(schemas, documented, "src/ctl/schema.rs and docs/operations/json.md");
}

/// The structs below a folder that serde reads, each with its fields and their types: mirrors of tables of the file.
fn mirrors(is_in: impl Fn(&str) -> bool) -> BTreeMap<String, Vec<(String, String)>> {
    let mut structs = BTreeMap::new();
    for path in files_below("src/config").into_iter().filter(|path| path.ends_with(".rs") && is_in(path)) {
        let text = read(&path);
        for derived in
            text.split("#[derive(").skip(1).filter(|rest| rest.lines().next().unwrap().contains("Deserialize"))
        {
            // The forms of one value are no table.
            if derived.lines().skip(1).find(|line| !line.starts_with('#')).is_some_and(|line| line.contains("enum ")) {
                continue;
            }
            let (name, rest) = derived.split_once("struct ").unwrap().1.split_once(" {").unwrap();
            let body = rest.split_once("\n}").unwrap().0;
            let fields = body.lines().map(str::trim).filter(|line| !line.starts_with("//") && !line.starts_with('#'));
            let field = |line: &str| {
                let (name, kind) = line.trim_start_matches("pub(super) ").split_once(": ")?;
                Some((name.to_owned(), kind.trim_end_matches(',').to_owned()))
            };
            assert_eq!(structs.insert(name.to_owned(), fields.filter_map(field).collect()), None, "{path}: {name}");
        }
    }
    structs
}

const OF_PROVIDERS: &str = "src/config/providers/";

/// Dotted paths of all keys, from the mirrors of src/config.
fn config_keys() -> BTreeSet<String> {
    let structs = mirrors(|path| !path.starts_with(OF_PROVIDERS));
    let mut keys = BTreeSet::new();
    let mut open = vec![(String::new(), "File")];
    while let Some((prefix, name)) = open.pop() {
        for (key, kind) in &structs[name] {
            let path = format!("{prefix}{key}");
            if structs.contains_key(kind.as_str()) {
                open.push((format!("{path}."), kind.as_str()));
            } else {
                keys.insert(path);
            }
        }
    }
    keys
}

#[test]
fn every_configuration_key_is_documented() {
    let page = read("docs/configuration.md");
    let keys = config_keys();
    assert!(keys.len() > 15 && keys.contains("seal.tpm2.pcrs"), "{keys:?}");
    for key in keys {
        let (table, last) = key.rsplit_once('.').unwrap_or(("", &key));
        // By its whole path, or by its last part in the section of its table.
        let section = page.split("\n### ").find(|section| section.starts_with(&format!("`[{table}]`")));
        let spelt = [format!("`{key}`"), format!("`[{key}]`"), format!("`[[{key}]]`")];
        let found = spelt.iter().any(|name| page.contains(name)) || section.is_some_and(|s| row(s, last).is_some());
        assert!(found, "docs/configuration.md does not name {key}");
    }
}

/// Keys of the tables of providers and of `[write]` and `[decrypt]`, by the struct that mirrors each.
fn provider_keys() -> BTreeMap<String, Vec<String>> {
    let of_providers = mirrors(|path| path.starts_with(OF_PROVIDERS));
    let names = |fields: Vec<(String, String)>| fields.into_iter().map(|(name, _)| name).collect();
    of_providers.into_iter().map(|(mirror, fields)| (mirror, names(fields))).collect()
}

#[test]
fn every_key_of_a_provider_stands_on_the_page_of_its_kind() {
    let all = provider_keys();
    assert!(all.values().map(Vec::len).sum::<usize>() > 40, "{all:?}");
    for (name, keys) in all {
        let page = match name.strip_suffix("Auth").unwrap_or(&name) {
            "Write" | "Decrypt" => "docs/configuration.md",
            "Vault" => "docs/providers/vault.md",
            "Aws" => "docs/providers/aws.md",
            "Azure" => "docs/providers/azure.md",
            "Pkcs11" => "docs/providers/pkcs11.md",
            "KmsPlugin" => "docs/providers/kms-plugin.md",
            other => panic!("no page for the mirror {other}"),
        };
        let text = read(page);
        for key in keys {
            let spelt = [format!("`{key}`"), format!("`auth.{key}`"), format!(" {key} = "), format!("\n{key} = ")];
            let is_there = spelt.iter().any(|name| text.contains(name));
            assert!(is_there, "{page} does not name `{key}`");
        }
    }
}

#[test]
fn every_defect_that_others_have_had_is_a_test_of_ours() {
    let page = read("docs/known-defects.md");
    let code: String = ["src", "tests", "hsm-tests"]
        .into_iter()
        .flat_map(files_below)
        .filter(|path| path.ends_with(".rs"))
        .map(|path| read(&path))
        .collect();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| ") && line.contains('`')).collect();
    assert_eq!(rows.len(), 18, "{rows:#?}");
    for name in rows.iter().flat_map(|row| row.split('`').skip(1).step_by(2)) {
        let is_there = ["(", "<"].iter().any(|next| code.contains(&format!("fn {name}{next}")));
        assert!(is_there, "there is no test {name}");
    }
}

/// Names in the code that makes families, and in the tables of the page.
#[test]
fn every_metric_is_documented_and_no_other() {
    let code: String = files_below("src/control/metrics")
        .iter()
        .map(|path| read(path).split("#[cfg(test)]").next().unwrap_or_default().to_owned())
        .collect();
    let known: BTreeSet<String> =
        code.split("\"nodeseal_").skip(1).map(|rest| format!("nodeseal_{}", rest.split_once('"').unwrap().0)).collect();
    let page = read("docs/operations/metrics.md");
    let rows = page.lines().filter(|line| line.starts_with("| `nodeseal_"));
    let cells = rows.filter_map(|line| line.split('|').nth(1));
    let names = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    let documented: BTreeSet<String> =
        names.map(|name| name.strip_suffix("_total").map_or(name.clone(), ToOwned::to_owned)).collect();
    assert!(known.len() > 40, "{known:?}");
    assert_eq!(known, documented, "src/control/metrics and docs/operations/metrics.md");
}
