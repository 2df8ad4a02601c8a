//! `nodeseal debug on|off|status`: for a while a line for each call, because of an incident.

use clap::Subcommand;
use serde_json::json;

use super::common::Common;
use super::output::{Done, ask, load, print, unfit};
use super::schema;
use crate::audit::debug::MINUTES_MAX;
use crate::control::report::DebugReport;
use crate::control::{Answer, Request};
use crate::types::clock;
use crate::types::{Incident, IncidentError};

#[derive(Subcommand)]
pub(super) enum DebugVerb {
    /// Log every call until the time is over; also starts the time again
    On {
        /// For how long: 1 to 60
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(1..=i64::from(MINUTES_MAX)))]
        minutes: u8,
        /// Why, for the log: the number of an incident or ticket
        #[arg(long, value_name = "ID", value_parser = incident)]
        incident: Incident,
    },
    /// Log as configured again
    Off,
    /// Show the level of the log, and until when
    Status,
}

fn incident(text: &str) -> Result<Incident, IncidentError> {
    text.parse()
}

pub(super) fn run(common: &Common, verb: DebugVerb) -> Done {
    let config = load(common)?;
    let request = match verb {
        DebugVerb::On { minutes, incident } => Request::DebugOn { minutes, incident: incident.to_string() },
        DebugVerb::Off => Request::DebugOff {},
        DebugVerb::Status => Request::DebugStatus {},
    };
    let Answer::Debug(DebugReport { level, incident, until }) = ask(&config, &request)? else {
        return Err(unfit());
    };
    let until = until.map(clock::text);
    let value = json!({ "level": level, "on": incident.is_some(), "incident": incident, "until": until });
    print(common, schema::DEBUG, &value, || match (&incident, &until) {
        (Some(incident), Some(until)) => format!("debug is on until {until}, for incident {incident}; then {level}"),
        (_, _) => format!("debug is off; the level of the log is {level}"),
    })
}
