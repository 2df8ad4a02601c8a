//! A build without recovery files says so, and asks for the plain word that none is wanted.

use std::process::Command;

fn init(words: &[&str]) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let (config, state) = (dir.path().join("nodeseal.toml"), dir.path().join("state"));
    std::fs::write(&config, format!("version = 1\ncluster = \"test\"\nstate_dir = {state:?}\n")).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_nodeseal")).arg("init").args(words).arg("--config").arg(&config).output();
    let output = output.unwrap();
    assert!(!state.exists());
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn init_takes_no_recipient_and_no_code_and_wants_the_word_that_there_is_no_recovery() {
    const RECIPIENT: &str = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj";
    let (code, said) = init(&[]);
    assert!(code != Some(0) && said.contains("use --no-recovery: this build makes no recovery file"), "{said}");
    for words in [&["--recovery-code"][..], &["--recovery-recipient", RECIPIENT]] {
        let (code, said) = init(words);
        assert!(code != Some(0) && said.contains("this build makes no recovery file"), "{said}");
    }
}
