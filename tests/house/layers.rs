//! Data flows one way through the layers of src/lib.rs.

use std::collections::{BTreeMap, BTreeSet};

use super::{code_lines, read, sources};

/// Row of each module, from the table in the documentation of src/lib.rs.
fn rows(lib: &str) -> BTreeMap<String, u32> {
    let mut rows = BTreeMap::new();
    for line in lib.lines().filter_map(|line| line.strip_prefix("//! | ")) {
        let mut cells = line.split(" | ");
        let Some(row) = cells.next().and_then(|cell| cell.trim().parse::<u32>().ok()) else { continue };
        for name in cells.next().unwrap().split("[`").skip(1) {
            let name = name.split_once("`]").unwrap().0;
            assert_eq!(rows.insert(name.to_owned(), row), None, "{name} stands twice in the table");
        }
    }
    rows
}

/// Top-level modules that a line of code names by `crate::`.
fn named(line: &str) -> Vec<String> {
    let ident = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut names = Vec::new();
    for rest in line.split("crate::").skip(1) {
        match rest.strip_prefix('{') {
            None => names.push(ident(rest)),
            Some(group) => {
                let mut depth = 0;
                let mut fresh = true;
                for (at, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => fresh = true,
                        c if fresh && !c.is_whitespace() => {
                            names.push(ident(&group[at..]));
                            fresh = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    names
}

/// What breaks the order of the layers.
fn layer_breaches(rows: &BTreeMap<String, u32>, sources: &[(String, String)]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (path, text) in sources {
        let Some(own) = path.strip_prefix("src/").and_then(|path| path.split('/').next()) else { continue };
        let own = own.trim_end_matches(".rs");
        if own == "lib" || own == "bin" {
            continue;
        }
        let Some(own_row) = rows.get(own) else {
            breaches.push(format!("{path}: module {own} is not in the table of src/lib.rs"));
            continue;
        };
        let at_top = path.matches('/').count() == 1 || path.ends_with(&format!("src/{own}/mod.rs"));
        for line in code_lines(text) {
            if at_top && (line.starts_with("use super::") || line.starts_with("pub use super::")) {
                breaches.push(format!("{path}: reaches the crate's root by `super`: {line}"));
            }
            for name in named(&line).into_iter().filter(|name| name != own) {
                match rows.get(&name) {
                    None => breaches.push(format!("{path}: crate::{name} is not in the table")),
                    Some(row) if row < own_row => {}
                    Some(row) => breaches.push(format!("{path}: {own} (row {own_row}) uses {name} (row {row})")),
                }
            }
        }
    }
    breaches
}

#[test]
fn modules_use_only_those_below_them() {
    let lib = read("src/lib.rs");
    let rows = rows(&lib);
    let declared: BTreeSet<_> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).map(str::to_owned).collect();
    assert_eq!(rows.keys().cloned().collect::<BTreeSet<_>>(), declared, "the table and the modules of src/lib.rs");
    assert!(!lib.lines().any(|line| line.starts_with("mod ")), "a private module would be outside of the table");
    let breaches = layer_breaches(&rows, &sources());
    assert!(breaches.is_empty(), "{breaches:#?}");
}

#[test]
fn a_planted_upward_sideways_or_unknown_import_is_found() {
    let rows = rows(&read("src/lib.rs"));
    let planted = [
        ("src/types/ids.rs", "use crate::store::StateDir;", "types (row 0) uses store"),
        ("src/envelope/mod.rs", "    let x = crate::audit::emit(&e);", "envelope (row 1) uses audit (row 1)"),
        ("src/store/mod.rs", "use crate::{types::Class, keyring::{ring, live}};", "store (row 1) uses keyring"),
        ("src/ctl/init.rs", "use crate::daemon::now;", "ctl (row 8) uses daemon (row 8)"),
        ("src/seal/mod.rs", "use crate::{\n    types::Key,\n    api,\n};", "seal (row 2) uses api"),
        ("src/audit/mod.rs", "use super::api::listen;", "by `super`"),
        ("src/newcomer/mod.rs", "", "newcomer is not in the table"),
        ("src/daemon/mod.rs", "use crate::newcomer::X;", "crate::newcomer is not in the table"),
    ];
    for (path, text, expected) in planted {
        let breaches = layer_breaches(&rows, &[(path.to_owned(), text.to_owned())]);
        assert!(breaches.len() == 1 && breaches[0].contains(expected), "{path}: {breaches:?}");
    }
    let fine = "//! See [`crate::daemon`].\nuse crate::{types::{Key, Class}, store::Kind}; // crate::daemon\nuse super::frame;";
    assert_eq!(layer_breaches(&rows, &[("src/seal/root.rs".into(), fine.into())]), [""; 0]);
}
