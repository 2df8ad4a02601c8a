//! Data flows one way through the layers of src/lib.rs, and within each of them no two files use each other.

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
            if at_top
                && (["", "pub ", "pub(crate) "].iter().any(|seen| line.starts_with(&format!("{seen}use super::"))))
            {
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
    let module = |line: &str| {
        let name = line.strip_prefix("pub mod ").or_else(|| line.strip_prefix("pub(crate) mod "))?;
        name.strip_suffix(';').map(str::to_owned)
    };
    let declared: BTreeSet<_> = lib.lines().filter_map(module).collect();
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

/// What a line of code names by paths that begin with `super` or `crate`, as segments. Trees of `use` are taken apart.
/// Where something may be seen (`pub(in crate::…)`) is no use of it.
fn paths_named(line: &str) -> Vec<Vec<String>> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = Vec::new();
    for start in ["super::", "crate::"] {
        for (at, _) in line.match_indices(start) {
            let before = &line[..at];
            let is_whole = before.chars().next_back().is_none_or(|c| !is_word(c) && c != ':');
            if is_whole && !before.ends_with("pub(in ") {
                tree(&line[at..], &mut Vec::new(), &mut found);
            }
        }
    }
    found
}

/// Adds what this path and its groups name. Gives what is left behind it.
fn tree<'a>(text: &'a str, path: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'a str {
    let depth = path.len();
    let mut rest = text;
    loop {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        path.push(rest[..end].to_owned());
        rest = &rest[end..];
        let Some(next) = rest.strip_prefix("::") else { break };
        rest = next;
        if let Some(group) = rest.strip_prefix('{') {
            rest = group;
            while !rest.is_empty() && !rest.starts_with('}') {
                rest =
                    tree(rest.trim_start_matches([',', ' ', '\n']), path, found).trim_start_matches([',', ' ', '\n']);
            }
            path.truncate(depth);
            return rest.strip_prefix('}').unwrap_or(rest);
        }
    }
    found.push(path.clone());
    path.truncate(depth);
    rest
}

/// Which module of a folder uses which others of it. A folder's `mod.rs` counts as a module: what it hands on, it uses.
/// Tests are left out, which may look at the whole.
fn uses(folder: &str, sources: &[(String, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let name = |path: &str| Some(path.strip_suffix(".rs")?.trim_end_matches("/mod").to_owned());
    let is_test = |path: &str| path.ends_with("/tests.rs") || path.contains("/tests/");
    let own = sources.iter().filter(|(path, _)| path.starts_with(&format!("{folder}/")) && !is_test(path));
    let modules: BTreeMap<String, &String> = own.filter_map(|(path, text)| Some((name(path)?, text))).collect();
    let mut all = BTreeMap::new();
    for (module, text) in &modules {
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let is_parent = modules.keys().any(|other| other.starts_with(&format!("{module}/")));
        let mut used = BTreeSet::new();
        let mut add = |path: String| {
            let parts: Vec<&str> = path.split('/').collect();
            let as_file = (1..=parts.len()).rev().map(|n| parts[..n].join("/")).find(|path| modules.contains_key(path));
            used.extend(as_file.filter(|used| used != module));
        };
        for line in code_lines(code) {
            for path in paths_named(&line) {
                let ups = path.iter().take_while(|part| *part == "super").count();
                let rest = path[ups.max(1)..].join("/");
                let base = match path[0].as_str() {
                    "crate" => Some("src".to_owned()),
                    _ => (0..ups).try_fold(module.clone(), |at, _| Some(at.rsplit_once('/')?.0.to_owned())),
                };
                base.into_iter().for_each(|base| add(format!("{base}/{rest}")));
            }
            // What a folder hands on by the names of its own modules.
            let line =
                line.trim_start_matches("pub(super) ").trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            if let Some(path) = line.strip_prefix("use ").filter(|path| is_parent && !path.starts_with("super")) {
                add(format!("{module}/{}", path.split([':', ';']).next().unwrap()));
            }
        }
        all.insert(module.clone(), used);
    }
    all
}

/// Modules that use each other in a circle, or one that does.
fn circle(uses: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut left = uses.clone();
    loop {
        let leaves: Vec<String> =
            left.iter().filter(|(_, used)| used.is_empty()).map(|(name, _)| name.clone()).collect();
        if leaves.is_empty() {
            return left.into_iter().map(|(name, used)| format!("{name} uses {used:?}")).collect();
        }
        for leaf in leaves {
            left.remove(&leaf);
            for used in left.values_mut() {
                used.remove(&leaf);
            }
        }
    }
}

/// Without what a folder's own file says of what lies inside it: it hands on, and what lies inside may use what it declares.
fn between_files(mut uses: BTreeMap<String, BTreeSet<String>>) -> BTreeMap<String, BTreeSet<String>> {
    for (module, used) in &mut uses {
        used.retain(|used| !used.starts_with(&format!("{module}/")));
    }
    uses
}

/// Folders in which not even the folder's own file stands in a circle with what lies inside it.
const STRICT: [&str; 1] = ["src/config"];

/// Parts of one model of a node, for tests alone.
const APART: &str = "src/keyring/crash/";

#[test]
fn files_of_a_folder_use_no_file_that_uses_them() {
    let sources = sources();
    let rows = rows(&read("src/lib.rs"));
    for folder in rows.keys().map(|module| format!("src/{module}")) {
        let all = uses(&folder, &sources);
        let strict = STRICT.contains(&folder.as_str());
        let mut uses = if strict { all.clone() } else { between_files(all.clone()) };
        uses.retain(|module, _| !module.starts_with(APART));
        uses.values_mut().for_each(|used| used.retain(|used| !used.starts_with(APART)));
        assert_eq!(circle(&uses), [""; 0], "these stand in a circle");
        if strict {
            assert!(all.len() > 20 && all.values().map(BTreeSet::len).sum::<usize>() > 50, "{all:#?}");
            assert!(all["src/config/check"].contains("src/config/forms"), "{all:#?}");
            assert!(all["src/config/providers"].contains("src/config/providers/check"), "{all:#?}");
        }
    }
}

#[test]
fn a_folder_may_hand_on_what_uses_it_and_two_files_in_it_may_not_use_each_other() {
    let mut sources = vec![
        ("src/store/mod.rs", "mod disk;\nmod look;\npub use self::disk::Disk;\npub struct Kind;"),
        ("src/store/disk.rs", "use super::Kind;"),
        ("src/store/look.rs", "use super::disk::Disk;"),
    ];
    let circles = |sources: &[(&str, &str)]| {
        let sources: Vec<_> = sources.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect();
        circle(&between_files(uses("src/store", &sources)))
    };
    assert_eq!(circles(&sources), [""; 0]);
    sources[1].1 = "use super::look::look;";
    assert_eq!(circles(&sources).len(), 2);
}

#[test]
fn a_planted_circle_is_found_however_it_is_spelt() {
    let spelt = [
        "use super::check::absolute;",
        "use super::{check, Problem};",
        "use crate::config::{check::{self, File}, mistakes};",
        "    let path = super::check::absolute(path);",
        "#[schemars(with = \"Option<super::check::Provider>\")]",
    ];
    for line in spelt {
        let sources = [
            ("src/config/mod.rs", "mod check;\nmod forms;\npub use check::File;\n#[cfg(test)]\nmod tests;"),
            ("src/config/check.rs", "use super::forms::{self, absolute};"),
            ("src/config/forms.rs", line),
            ("src/config/tests.rs", "use super::check;"),
        ];
        let sources = sources.map(|(path, text)| (path.to_owned(), text.to_owned()));
        let found = circle(&uses("src/config", &sources));
        // The folder itself uses who stands in the circle.
        assert!(found.len() >= 2 && found[0].contains("config uses"), "{line}: {found:?}");
        assert!(found.iter().any(|one| one.starts_with("src/config/forms uses")), "{line}: {found:?}");
    }
    let by_folder = [("src/config/mod.rs", "pub use seal::Seal;"), ("src/config/seal.rs", "use super::Seal as Own;")];
    assert_eq!(circle(&uses("src/config", &by_folder.map(|(path, text)| (path.to_owned(), text.to_owned())))).len(), 2);
}
