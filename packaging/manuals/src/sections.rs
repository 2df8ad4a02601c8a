//! What the pages say beside the help texts.

use std::io::{self, Write};

use crate::roff;

/// Name of a page and what follows on it: title and items, each a term and its text.
type Section = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

const SECTIONS: [Section; 9] = [
    (
        "nodeseal",
        "FILES",
        &[
            ("/etc/nodeseal/nodeseal.toml", "The configuration."),
            ("/var/lib/nodeseal", "The state directory: keys and credentials, sealed to this machine."),
            (
                "/run/nodeseal-control/control.sock",
                "Where a running nodeseald is asked. Root and the service's user are answered.",
            ),
            (
                "/run/nodeseal-status/status.sock",
                "Where it tells its status and nothing else, to members of the group nodeseal-status as well.",
            ),
        ],
    ),
    (
        "nodeseal",
        "EXIT STATUS",
        &[
            ("0", "It was done."),
            ("64", "The command line is wrong. This and the following are those of sysexits.h."),
            ("65", "Stored bytes are damaged or were made by others."),
            ("66", "Something that was named is not there."),
            ("69", "A daemon, device or provider cannot be reached; also status when an Encrypt would be refused."),
            ("70", "A defect of these programs."),
            ("75", "Try again later."),
            ("77", "Not permitted."),
            ("78", "The configuration is wrong."),
        ],
    ),
    ("nodeseal", "SEE ALSO", SEE_ALSO),
    (
        "nodeseald",
        "SIGNALS",
        &[
            ("SIGHUP", "Reads the configuration anew. What is wrong with it is logged, and what ran goes on."),
            ("SIGTERM, SIGINT", "Answers what has been asked, and ends."),
        ],
    ),
    (
        "nodeseald",
        "FILES",
        &[
            ("/etc/nodeseal/nodeseal.toml", "The configuration."),
            ("/var/lib/nodeseal", "The state directory."),
            ("/run/nodeseal/kms.sock", "Where kube-apiserver asks. Under systemd it is nodeseal.socket's."),
            ("/run/nodeseal-control/control.sock", "Where nodeseal(1) asks."),
            ("/run/nodeseal-status/status.sock", "Where monitors ask for the status."),
        ],
    ),
    ("nodeseald", "SEE ALSO", SEE_ALSO),
    (
        "nodeseal-sealer",
        "FILES",
        &[
            ("/etc/nodeseal/nodeseal.toml", "The configuration."),
            (
                "/run/nodeseal-sealer/sealer.sock",
                "Where nodeseald and nodeseal(1) ask. Under systemd it is nodeseal-sealer.socket's.",
            ),
            ("/dev/tpmrm0", "The TPM, by the kernel's resource manager."),
        ],
    ),
    ("nodeseal-sealer", "SEE ALSO", SEE_ALSO),
    ("nodeseal.toml", "SEE ALSO", SEE_ALSO),
];

const SEE_ALSO: &[(&str, &str)] = &[
    ("nodeseal(1), nodeseald(8), nodeseal-sealer(8), nodeseal.toml(5)", "The programs and their configuration."),
    ("/usr/share/doc/nodeseal", "How to rotate, recover and harden, and one page for each kind of remote KMS."),
];

/// What this page has beside the help.
pub(crate) fn append(name: &str, to: &mut impl Write) -> io::Result<()> {
    for (_, title, items) in SECTIONS.iter().filter(|(page, ..)| *page == name) {
        writeln!(to, ".SH {}", roff::quoted(title))?;
        for (term, text) in *items {
            writeln!(to, ".TP\n\\fB{}\\fR\n{}", roff::escape(term), roff::escape(text))?;
        }
    }
    Ok(())
}
