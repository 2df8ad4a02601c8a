//! Secrets that are typed at a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::pty::openpty;
use nix::sys::termios::{LocalFlags, tcgetattr};
use test_support::process::until;
use test_support::swtpm::Swtpm;

use crate::alone::Alone;
use crate::alone::NODESEAL;

#[test]
fn a_recovery_code_and_a_credential_are_not_shown_while_they_are_typed_and_the_terminal_is_as_it_was_before() {
    let tpm = Swtpm::start();
    let mut alone = Alone::prepare(&tpm);
    let printed = alone.tool(&["init", "--recovery-code", "--json"]);
    let code = printed.json()["recovery_code"].as_str().unwrap().to_owned();
    let _client = alone.start();
    for (verb, secret) in
        [(&["recover", "--verify"][..], code.as_str()), (&["credentials", "seal", "vault"], "canary-of-a-token")]
    {
        let terminal = openpty(None, None).unwrap();
        let echoes = || tcgetattr(&terminal.slave).unwrap().local_flags.contains(LocalFlags::ECHO);
        assert!(echoes(), "a terminal shows what is typed");
        let mut command = Command::new(NODESEAL);
        command.args(verb).env("NODESEAL_CONFIG", alone.config()).stdin(terminal.slave.try_clone().unwrap());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until(Duration::from_secs(20), "the tool waits for what is typed", || (!echoes()).then_some(()));
        let mut keys = File::from(terminal.master);
        keys.write_all(format!("{secret}\n\u{4}").as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert!(output.status.success(), "{verb:?}: {said}");
        assert!(!said.contains(secret) && said.contains("it is not shown"), "{said}");
        assert!(echoes(), "{verb:?} leaves the terminal as it was");
        // The line's end is shown, and nothing before it.
        let mut shown = [0; 256];
        let count = keys.read(&mut shown).unwrap();
        assert_eq!(String::from_utf8_lossy(&shown[..count]).trim(), "", "{verb:?}");
    }
}
