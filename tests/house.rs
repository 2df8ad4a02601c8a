//! The house rules that a compiler does not check: layers, who names which library, file lengths, what links what, and whether
//! the documentation lists what the code has. Starts no process.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may panic and has no users"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nodeseal::seal::fault::FaultCode;

/// Lines. A file is read in one go.
const FILE_MAX_LINES: usize = 450;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All files below a folder of the repository, as paths relative to its root. Leaves out what is built.
fn files_below(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_symlink() || name == "target" || name == ".git" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    found.sort();
    found
}

/// Path and text of every source file.
fn sources() -> Vec<(String, String)> {
    let rust = files_below("src").into_iter().filter(|path| path.ends_with(".rs"));
    rust.map(|path| (path.clone(), read(&path))).collect()
}

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

/// Code without comments, with statements that were broken over lines joined again.
fn code_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines().map(|line| line.split("//").next().unwrap_or("").trim_end()) {
        if open {
            lines.last_mut().unwrap().push_str(line.trim_start());
        } else {
            lines.push(line.to_owned());
        }
        let last = lines.last().unwrap();
        open = last.trim_start().trim_start_matches("pub ").starts_with("use ") && !last.contains(';');
    }
    lines
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

/// Lines outside of these folders that name one of these crates.
fn name_breaches(sources: &[(String, String)], folder: &str, crates: &[&str]) -> Vec<String> {
    let names = |line: &str| {
        crates.iter().any(|name| {
            line.match_indices(&format!("{name}::")).any(|(at, _)| {
                !line[..at].ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == ':')
            }) || line.trim_start().starts_with(&format!("use {name};"))
        })
    };
    let outside = sources.iter().filter(|(path, _)| !path.starts_with(folder));
    outside
        .flat_map(|(path, text)| code_lines(text).into_iter().map(move |line| (path, line)))
        .filter(|(_, line)| names(line))
        .map(|(path, line)| format!("{path}: {line}"))
        .collect()
}

#[test]
fn only_the_api_names_the_rpc_stack_and_only_an_engine_or_provider_its_library() {
    let sources = sources();
    let rpc = ["tonic", "tonic_prost", "http_body", "tower_service"];
    // The messages of KMS and a call of them are shared by our API and the provider that uses other plugins.
    let messages = ["prost", "h2"];
    let aws = [
        "aws_config",
        "aws_credential_types",
        "aws_sdk_kms",
        "aws_sdk_sts",
        "aws_smithy_http_client",
        "aws_smithy_runtime_api",
    ];
    let azure = ["azure_core", "azure_identity", "azure_security_keyvault_keys", "futures_util"];
    assert_eq!(name_breaches(&sources, "src/api/", &rpc), [""; 0]);
    let outside =
        |folder: &str| sources.iter().filter(|(path, _)| !path.starts_with(folder)).cloned().collect::<Vec<_>>();
    assert_eq!(name_breaches(&outside("src/kms/"), "src/api/", &messages), [""; 0]);
    // Both sides speak HTTP: the API as a server, providers over HTTPS as clients in one folder, from the words of HTTP up.
    let client = outside("src/api/");
    assert_eq!(name_breaches(&client, "src/provider/http/", &["hyper", "hyper_util", "http_body_util"]), [""; 0]);
    let beside_kms: Vec<_> = client.iter().filter(|(path, _)| !path.starts_with("src/kms/")).cloned().collect();
    assert_eq!(name_breaches(&beside_kms, "src/provider/", &["http"]), [""; 0]);
    let tls = ["rustls", "tokio_rustls"];
    assert_eq!(name_breaches(&sources, "src/provider/", &tls), [""; 0]);
    assert_eq!(name_breaches(&sources, "src/sealer/tpm2/", &["tss_esapi", "tss_esapi_sys"]), [""; 0]);
    assert_eq!(name_breaches(&sources, "src/sealer/pkcs11/", &["cryptoki", "cryptoki_sys"]), [""; 0]);
    assert_eq!(name_breaches(&sources, "src/provider/aws/", &aws), [""; 0]);
    assert_eq!(name_breaches(&sources, "src/provider/aws/", &["rustls_native_certs"]), [""; 0]);
    assert_eq!(name_breaches(&sources, "src/provider/azure/", &azure), [""; 0]);
    // All are found where they are allowed, so that the search is known to find them.
    assert!(!name_breaches(&sources, "nowhere", &rpc).is_empty());
    assert!(!name_breaches(&sources, "nowhere", &messages).is_empty());
    assert!(!name_breaches(&client, "nowhere", &["hyper"]).is_empty());
    assert!(!name_breaches(&sources, "nowhere", &tls).is_empty());
    assert!(!name_breaches(&sources, "nowhere", &["tss_esapi"]).is_empty());
    assert!(!name_breaches(&sources, "nowhere", &["cryptoki"]).is_empty());
    for name in aws.into_iter().chain(azure) {
        assert!(!name_breaches(&sources, "nowhere", &[name]).is_empty(), "{name}");
    }
}

/// Lines of code that are unsafe, or give leave to be.
fn unsafe_lines(sources: &[(String, String)]) -> Vec<(String, String)> {
    let words = ["{", "fn ", "impl ", "trait ", "extern "].map(|next| format!("unsafe {next}"));
    let is_unsafe = |line: &str| {
        words.iter().any(|word| line.contains(word))
            || (line.contains("unsafe_code") && !line.contains("deny(unsafe_code)"))
    };
    let lines = |(path, text): &(String, String)| {
        code_lines(text).into_iter().filter(|line| is_unsafe(line)).map(|line| (path.clone(), line)).collect::<Vec<_>>()
    };
    sources.iter().flat_map(lines).collect()
}

#[test]
fn one_file_alone_has_unsafe_code_and_each_block_of_it_says_why_it_is_sound() {
    const LEAVE: &str = "src/sandbox/memory/raw.rs";
    let all = ["src", "tests", "benches", "hsm-tests", "fuzz"].into_iter().flat_map(files_below);
    let all: Vec<_> = all.filter(|path| path.ends_with(".rs") && path != "tests/house.rs").collect();
    let sources: Vec<_> = all.into_iter().map(|path| (path.clone(), read(&path))).collect();
    let (ours, others): (Vec<_>, Vec<_>) = unsafe_lines(&sources).into_iter().partition(|(path, _)| path == LEAVE);
    assert_eq!(others, []);
    // Functions of an unsafe trait carry the trait's promise; what each does with it is a block.
    let blocks = ours.iter().filter(|(_, line)| line.contains("unsafe {") || line.contains("unsafe impl")).count();
    let reasons = read(LEAVE).matches("// SAFETY: ").count();
    assert!(blocks > 5 && reasons >= blocks, "{reasons} reasons for {ours:#?}");
    let planted = [("src/x.rs".to_owned(), "#[allow(unsafe_code)]\nfn f() { unsafe { g() } }".to_owned())];
    assert_eq!(unsafe_lines(&planted).len(), 2, "the search finds what it is for");
}

#[test]
fn every_source_file_can_be_read_in_one_go() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines >= FILE_MAX_LINES)
        .collect();
    assert!(long.is_empty(), "{long:?}");
}

/// The libraries that an ELF file needs (System V ABI, "Dynamic Section"; 64 bit, little-endian).
#[cfg(feature = "tpm2")]
fn needed(path: &str) -> Vec<String> {
    const PT_LOAD: u32 = 1;
    const PT_DYNAMIC: u32 = 2;
    const DT_NEEDED: u64 = 1;
    const DT_STRTAB: u64 = 5;
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..6], b"\x7FELF\x02\x01", "{path}");
    let u16_at = |at: usize| u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let u64_at = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
    let place = |value: u64| usize::try_from(value).unwrap();
    let (table, size, count) = (place(u64_at(32)), usize::from(u16_at(54)), usize::from(u16_at(56)));
    let segments: Vec<usize> = (0..count).map(|index| table + index * size).collect();
    // File offset of an address: that of its segment, and the distance from the segment's begin.
    let offset = |address: u64| {
        let holds = |at: &&usize| {
            u32_at(**at) == PT_LOAD && (u64_at(**at + 16)..u64_at(**at + 16) + u64_at(**at + 32)).contains(&address)
        };
        let segment = *segments.iter().find(holds).unwrap();
        place(u64_at(segment + 8) + address - u64_at(segment + 16))
    };
    let dynamic = *segments.iter().find(|at| u32_at(**at) == PT_DYNAMIC).unwrap();
    let (start, len) = (place(u64_at(dynamic + 8)), place(u64_at(dynamic + 32)));
    let entries: Vec<(u64, u64)> = (start..start + len).step_by(16).map(|at| (u64_at(at), u64_at(at + 8))).collect();
    let strings = offset(entries.iter().find(|(tag, _)| *tag == DT_STRTAB).unwrap().1);
    let text = |at: usize| bytes[at..].iter().take_while(|byte| **byte != 0).map(|byte| char::from(*byte)).collect();
    entries.iter().filter(|(tag, _)| *tag == DT_NEEDED).map(|(_, name)| text(strings + place(*name))).collect()
}

#[test]
#[cfg(feature = "tpm2")]
fn only_the_sealer_links_the_tpm_library() {
    let of_tpm = |program| needed(program).into_iter().filter(|name| name.contains("tss2")).count();
    for program in [env!("CARGO_BIN_EXE_nodeseald"), env!("CARGO_BIN_EXE_nodeseal")] {
        let all = needed(program);
        assert!(all.iter().any(|name| name.starts_with("libc.so")), "{program} needs {all:?}");
        assert_eq!(of_tpm(program), 0, "{program} needs {all:?}");
        let foreign = all.iter().filter(|name| ["ssl", "crypto", "pkcs11"].iter().any(|word| name.contains(word)));
        assert_eq!(foreign.count(), 0, "{program} needs {all:?}");
    }
    assert!(of_tpm(env!("CARGO_BIN_EXE_nodeseal-sealer")) > 0);
}

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

#[test]
fn every_event_is_documented_and_no_other() {
    let source = read("src/audit/event.rs");
    let events: BTreeSet<_> =
        source.split("event = \"").skip(1).map(|rest| rest.split_once('"').unwrap().0.to_owned()).collect();
    assert!(events.len() > 10, "{events:?}");
    let page = read("docs/audit-events.md");
    let documented: BTreeSet<_> = rows_of(&page).filter(|name| name.contains('.')).map(str::to_owned).collect();
    assert_eq!(events, documented, "src/audit/event.rs and docs/audit-events.md");
}

/// Dotted paths of all keys, from the structs of src/config/raw.rs.
fn config_keys() -> BTreeSet<String> {
    let source = read("src/config/raw.rs");
    let mut structs: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let mut current = "";
    for line in source.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("pub(super) struct ").and_then(|rest| rest.strip_suffix(" {")) {
            current = name;
        } else if let Some((name, kind)) = line.strip_prefix("pub(super) ").and_then(|rest| rest.split_once(": ")) {
            structs.entry(current).or_default().push((name, kind.trim_end_matches(',')));
        }
    }
    let mut keys = BTreeSet::new();
    let mut open = vec![(String::new(), "File")];
    while let Some((prefix, name)) = open.pop() {
        for (key, kind) in &structs[name] {
            let path = format!("{prefix}{key}");
            if structs.contains_key(kind) {
                open.push((format!("{path}."), kind));
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

#[test]
fn no_text_names_a_place_of_the_machine_that_it_was_written_on() {
    // In two halves, so that this file does not name them.
    let places = [["/wo", "rk/"].concat(), ["/ro", "ot/"].concat()];
    let mut found = Vec::new();
    for path in files_below(".") {
        let Ok(text) = fs::read_to_string(PathBuf::from(root()).join(&path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            if places.iter().any(|place| line.contains(place.as_str())) {
                found.push(format!("{path}:{}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:?}");
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
    assert_eq!(rows.len(), 15, "{rows:#?}");
    for name in rows.iter().flat_map(|row| row.split('`').skip(1).step_by(2)) {
        let is_there = ["(", "<"].iter().any(|next| code.contains(&format!("fn {name}{next}")));
        assert!(is_there, "there is no test {name}");
    }
}
