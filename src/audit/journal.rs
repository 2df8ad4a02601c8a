//! The journal's own protocol, where standard error is the journal: a record with fields for each line, so that `journalctl` finds events
//! by level, name and KEK, and explains them (`catalog`).
//!
//! A line is made into a record by whoever logs it, and sent by whoever writes the log ([`super::ring`]), so nobody who logs waits for
//! the journal. What the journal does not take (it is away, or the record is too long for a datagram) goes to standard error as the
//! line that it would have been elsewhere, with its priority before it, which the journal reads as well (`SyslogLevelPrefix=`).
//!
//! Refuses nothing, and asks for nothing that the sandbox does not have: the socket is connected before the confinement.

use std::fmt::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::catalog::id_of;

/// systemd.io/JOURNAL_NATIVE_PROTOCOL.
const SOCKET: &str = "/run/systemd/journal/socket";

/// Set by systemd for a process whose standard error is the journal: device and inode of that stream (systemd.exec(5)).
const STREAM: &str = "JOURNAL_STREAM";

/// Before the names of our fields.
const PREFIX: &str = "NODESEAL_";

/// Where what is logged goes.
pub(super) enum Way {
    /// Lines to standard error, which is anything.
    Lines,
    /// Records to the journal.
    Records(UnixDatagram),
    /// Lines to standard error, which is the journal, whose socket could not be had.
    LinesWithPriority,
}

static WAY: OnceLock<Way> = OnceLock::new();

/// Looks where standard error leads, once. Whether it is the journal.
pub(super) fn open() -> bool {
    !matches!(WAY.get_or_init(look), Way::Lines)
}

fn look() -> Way {
    let Ok(stderr) = nix::sys::stat::fstat(std::io::stderr()) else { return Way::Lines };
    let own = format!("{}:{}", stderr.st_dev, stderr.st_ino);
    if std::env::var(STREAM).is_ok_and(|stream| stream == own) { to_journal(SOCKET) } else { Way::Lines }
}

fn to_journal(path: &str) -> Way {
    let connected = UnixDatagram::unbound().and_then(|socket| socket.connect(path).map(|()| socket));
    connected.map_or(Way::LinesWithPriority, Way::Records)
}

/// See [`Way`].
pub(super) fn way() -> &'static Way {
    WAY.get().unwrap_or(&Way::Lines)
}

/// What a record is on standard error: its priority as syslog has it, and its message.
pub(super) fn as_line(record: &[u8]) -> Vec<u8> {
    let of = |name: &[u8]| record.split(|byte| *byte == b'\n').find_map(|field| field.strip_prefix(name));
    let (priority, message) = (of(b"PRIORITY=").unwrap_or(b"6"), of(b"MESSAGE=").unwrap_or_default());
    [b"<", priority, b">", message, b"\n"].concat()
}

/// Makes a record of an event. `message` makes the line that stands for it.
pub(super) struct Record<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for Record<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut message = String::new();
        self.0.format_event(context, Writer::new(&mut message), event)?;
        let mut record = String::new();
        field(&mut record, "MESSAGE", message.trim_end());
        field(&mut record, "PRIORITY", priority(*event.metadata().level()));
        field(&mut record, "SYSLOG_IDENTIFIER", program());
        event.record(&mut Fields(&mut record));
        writer.write_str(&record)
    }
}

/// As syslog(3) counts them.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        Level::DEBUG | Level::TRACE => "7",
    }
}

fn program() -> &'static str {
    static NAME: OnceLock<String> = OnceLock::new();
    NAME.get_or_init(|| {
        let own = std::env::args_os().next().unwrap_or_default();
        let name = std::path::Path::new(&own).file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    })
}

/// A value has no end of a line in it: that would begin another field, which somebody else had named.
fn field(record: &mut String, name: &str, value: &str) {
    record.push_str(name);
    record.push('=');
    record.extend(value.chars().map(|c| if c == '\n' || c == '\0' { ' ' } else { c }));
    record.push('\n');
}

struct Fields<'a>(&'a mut String);

impl Fields<'_> {
    fn add(&mut self, name: &str, value: &str) {
        if name == "event"
            && let Some(id) = id_of(value)
        {
            field(self.0, "MESSAGE_ID", id);
        }
        // Names are ours, and words of the source.
        field(self.0, &format!("{PREFIX}{}", name.to_ascii_uppercase().replace('.', "_")), value);
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = write!(text, "{value:?}");
        self.add(field.name(), &text);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::format;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, record: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(record);
            Ok(record.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn record_of(log: impl FnOnce()) -> String {
        let kept = Kept::default();
        let written = kept.clone();
        let format = Record(format().without_time().with_level(false).with_target(false).with_ansi(false));
        let subscriber = tracing_subscriber::fmt().event_format(format).with_writer(move || written.clone()).finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = kept.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn an_event_is_a_record_with_its_id_its_priority_and_a_field_for_each_of_its_own() {
        let hint = "check";
        let record = record_of(|| tracing::warn!(event = "key.overdue", kek = %"ab", days = 3_u64, hint));
        let lines: Vec<_> = record.lines().collect();
        let id = id_of("key.overdue").unwrap();
        for line in
            ["PRIORITY=4", "NODESEAL_EVENT=key.overdue", "NODESEAL_KEK=ab", "NODESEAL_DAYS=3", "NODESEAL_HINT=check"]
        {
            assert!(lines.contains(&line), "{line}: {record}");
        }
        assert!(lines.contains(&format!("MESSAGE_ID={id}").as_str()), "{record}");
        assert!(lines[0].starts_with("MESSAGE=event=\"key.overdue\" "), "{record}");
        let line = String::from_utf8(as_line(record.as_bytes())).unwrap();
        assert!(line.starts_with("<4>event=\"key.overdue\" ") && line.ends_with("\n"), "{line}");
    }

    #[test]
    fn what_others_have_written_begins_no_field_of_its_own() {
        let error = "torn\nPRIORITY=0\nMESSAGE_ID=00000000000000000000000000000000\0";
        let record = record_of(|| tracing::error!(event = "seal.refused", error));
        assert_eq!(record.matches("\nPRIORITY=").count(), 1, "{record}");
        assert_eq!(record.matches("\nMESSAGE_ID=").count(), 1, "{record}");
        assert!(record.contains("\nPRIORITY=3\n") && !record.contains('\0'), "{record}");
    }
}
