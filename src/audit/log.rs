//! Sets tracing up: text or JSON lines on standard error, which systemd and every other supervisor collects.

use serde::Deserialize;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::fmt;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    #[default]
    Text,
}

/// What is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
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

/// For the whole process, once; a second call (in tests) changes nothing.
pub fn start(format: Format, level: Level) {
    let builder = fmt().with_writer(std::io::stderr).with_max_level(LevelFilter::from(level)).with_target(false);
    let started = match format {
        Format::Json => builder.json().flatten_event(true).with_current_span(false).with_span_list(false).try_init(),
        Format::Text => builder.with_ansi(false).try_init(),
    };
    drop(started);
}
