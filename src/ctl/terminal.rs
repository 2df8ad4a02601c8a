//! Secrets that are typed: they are not shown while they are typed, and nobody reads them over a shoulder or in a recorded session.
//!
//! Only for a standard input that is a terminal; a file or a pipe has nothing to hide. Ctrl-C ends the program with the echo still off, and
//! the shell turns it on again.

use std::io::{self, IsTerminal};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};

/// As long as it lives the terminal shows nothing of what is typed but the ends of lines.
pub(super) struct Hidden(Termios);

impl Hidden {
    /// `None` where nothing is to be hidden, or where the terminal cannot hide it: typing then goes on as it was.
    pub(super) fn typing() -> Option<Self> {
        let stdin = io::stdin();
        let before = stdin.is_terminal().then(|| tcgetattr(&stdin).ok()).flatten()?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        hidden.local_flags.insert(LocalFlags::ECHONL);
        // What was typed ahead is taken as well.
        tcsetattr(&stdin, SetArg::TCSANOW, &hidden).ok()?;
        Some(Self(before))
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // A terminal that is gone by now needs nothing.
        let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}
