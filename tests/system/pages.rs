//! The pages for operators and the files that they speak of: links, configurations and scripts in them are read by whoever will read them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, end: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root().join(folder)];
    while let Some(folder) = open.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => open.push(path),
                false if path.to_str().unwrap().ends_with(end) => found.push(path),
                false => {}
            }
        }
    }
    found
}

/// The name that a heading is linked by: lower case, words joined by hyphens, marks left out.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.collect::<String>().trim().to_lowercase().replace(' ', "-")
}

fn has_anchor(page: &Path, name: &str) -> bool {
    let text = fs::read_to_string(page).unwrap();
    text.lines().any(|line| line.starts_with('#') && anchor(line.trim_start_matches('#')) == name)
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let mut pages = files("docs", ".md");
    pages.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"].map(|name| root().join(name)));
    let mut broken = Vec::new();
    let mut seen = 0;
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let links = text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0));
        for link in links.filter(|link| !link.contains("://")) {
            let (path, name) = link.split_once('#').unwrap_or((link, ""));
            let target = if path.is_empty() { page.clone() } else { page.parent().unwrap().join(path) };
            if !target.exists() || !(name.is_empty() || has_anchor(&target, name)) {
                broken.push(format!("{}: {link}", page.display()));
            }
            seen += 1;
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert!(seen > 50, "{seen}");
}

/// What stands between these fences.
fn blocks(page: &Path, kind: &str) -> Vec<String> {
    let text = fs::read_to_string(page).unwrap();
    let fence = format!("```{kind}\n");
    text.split(fence.as_str()).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

#[test]
fn every_configuration_on_the_pages_for_operators_is_accepted() {
    let mut seen = 0;
    for page in files("docs/operations", ".md") {
        for block in blocks(&page, "toml") {
            let whole = if block.contains("version = 1") {
                block
            } else {
                format!("version = 1\ncluster = \"prod-eu-1\"\n{block}")
            };
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("nodeseal.toml");
            // A user that every machine has.
            fs::write(&file, whole.replace("user = \"nodeseal\"", "user = \"daemon\"")).unwrap();
            let mut tool = Command::new(env!("CARGO_BIN_EXE_nodeseal"));
            tool.arg("--config").arg(&file).args(["config", "check"]);
            let output = tool.output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {whole}\n{said}", page.display());
            seen += 1;
        }
    }
    assert!(seen > 3, "{seen}");
}

#[test]
fn every_script_for_another_init_can_be_read_by_a_shell() {
    let scripts = files("init", "");
    assert!(scripts.len() >= 4, "{scripts:?}");
    for script in scripts {
        let output = Command::new("sh").arg("-n").arg(&script).output().unwrap();
        assert!(output.status.success(), "{}: {}", script.display(), String::from_utf8_lossy(&output.stderr));
        // What it starts is where the package puts it.
        let text = fs::read_to_string(&script).unwrap();
        assert!(
            text.contains("/usr/bin/nodeseald") || text.contains("/usr/bin/nodeseal-sealer"),
            "{}",
            script.display()
        );
    }
}
