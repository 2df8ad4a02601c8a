//! The house rules that a compiler does not check: layers, who names which library, file lengths, what links what, and whether
//! the documentation lists what the code has. Starts no process.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may panic, has no users, and leaves files as a crash would"
)]

mod alerts;
mod catalog;
mod code;
mod documented;
mod layers;
#[cfg(feature = "tpm2")]
mod linked;
mod literals;
mod words;

use std::fs;
use std::path::{Path, PathBuf};

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
