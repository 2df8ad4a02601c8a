//! Sets tracing up: text or JSON lines on standard error, which every supervisor collects. Where that is the journal of systemd, records
//! with fields, whose message is the line (`journal`). A reader that stands still costs lines, which are counted, and stops nobody.

use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, registry, reload};

use super::journal::{self, Record};
use super::ring::Ring;
use super::{Event, emit, repeat};

static RING: Ring = Ring::new();

/// What is logged in this process, and how that is changed.
static STARTED: OnceLock<Started> = OnceLock::new();

struct Started {
    level: Level,
    filter: reload::Handle<Targets, Registry>,
}

/// Of our own lines: the modules of this library, and the programs.
const OWN_TARGET: &str = "nodeseal";

/// For what is still to be written at the end of a process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// What is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// An operator must act.
    Error,
    /// Recovered or degraded, or a caller was refused.
    Warn,
    /// What somebody asked for happened.
    #[default]
    Info,
    /// Every call.
    Debug,
    /// Also what our libraries say.
    Trace,
}

impl From<Level> for LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

impl Level {
    /// As the configuration has it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn filter(self, is_raised: bool) -> Targets {
        let level = LevelFilter::from(self);
        let own = if is_raised { level.max(LevelFilter::DEBUG) } else { level };
        Targets::new().with_default(level).with_target(OWN_TARGET, own)
    }
}

/// For the whole process, once; a second call (in tests) changes nothing.
pub(crate) fn start(format: Format, level: Level) {
    let (filter, handle) = reload::Layer::new(level.filter(false));
    let registry = registry().with(filter);
    let lines = fmt::layer().with_writer(|| Line).with_target(false);
    let is_journal = journal::open();
    let started = match format {
        Format::Json => {
            let json = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
            if is_journal {
                registry.with(json.map_event_format(Record)).try_init()
            } else {
                registry.with(json).try_init()
            }
        }
        // The journal has its own time and priority.
        Format::Text if is_journal => {
            let text = lines.with_ansi(false).without_time().with_level(false);
            registry.with(text.map_event_format(Record)).try_init()
        }
        Format::Text => registry.with(lines.with_ansi(false)).try_init(),
    };
    if started.is_ok() {
        // Nobody else has set it: there is one subscriber in a process.
        let _ = STARTED.set(Started { level, filter: handle });
    }
}

/// The level that was configured at the start.
pub fn level() -> Level {
    STARTED.get().map_or_else(Level::default, |started| started.level)
}

/// Our own lines are those of level `debug` at least, or again those of the configured level. What is not logged costs a look at an atomic.
pub(super) fn raise(is_raised: bool) {
    if let Some(Started { level, filter }) = STARTED.get() {
        // It fails once the subscriber is gone, which lives as long as the process.
        let _ = filter.reload(level.filter(is_raised));
    }
}

/// From now on lines are written by a thread of their own. Once the process is confined: threads before are not.
pub(crate) fn write_beside() {
    RING.write_beside(|lines| emit(&Event::LogDropped { lines }), || repeat::tell(false));
}

/// Lines that were dropped since the start, because nobody read them.
pub(crate) fn dropped() -> u64 {
    RING.dropped()
}

/// Before the process ends: what was logged is written, unless nobody reads it.
pub(crate) fn flush() {
    repeat::tell(true);
    RING.flush(FLUSH_TIMEOUT);
}

/// Takes whole lines, as tracing writes them.
struct Line;

impl io::Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        RING.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
