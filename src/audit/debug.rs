//! For a while each call has its line, whatever `log.level` says, because of an incident that is named.
//!
//! It ends by itself, at most an hour later, or with the process: a level that somebody forgot would fill disks, and name each call for
//! good. A reload of the configuration leaves it alone. Both ends are events, so that an auditor sees who has asked for what follows.
//! Only our own lines are added: those of libraries at that level were written by others, for other readers.

use std::io;
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{Event, emit, log};
use crate::types::clock::{self, UnixSeconds};
use crate::types::{Class, Explained, Incident, lock};

/// Longer than any one look at a fault, and shorter than a shift: nobody has to remember to end it.
pub const MINUTES_MAX: u8 = 60;

static STATE: Mutex<State> = Mutex::new(State { turn: 0, running: None });
static CHANGED: Condvar = Condvar::new();

struct State {
    /// Whose end it is: a thread of an earlier turn has nothing to end.
    turn: u64,
    running: Option<Running>,
}

/// What is on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    /// Because of what.
    pub incident: Incident,
    /// When it ends by itself, by the clock as it was at the beginning.
    pub until: UnixSeconds,
}

/// Why it is not on.
#[derive(Debug, thiserror::Error)]
pub enum DebugError {
    /// None at all, or too many.
    #[error("the debug level lasts 1 to {MINUTES_MAX} minutes")]
    Minutes,
    /// Without a thread it would not end.
    #[error("nodeseald is busy: the kernel gives it no thread that ends the debug level")]
    NoThread(#[source] io::Error),
}

impl Explained for DebugError {
    fn class(&self) -> Class {
        match self {
            Self::Minutes => Class::Misconfigured,
            Self::NoThread(_) => Class::Throttled,
        }
    }

    fn hint(&self) -> &str {
        match self {
            Self::Minutes => "choose fewer minutes; `nodeseal debug on` again starts the time again",
            Self::NoThread(_) => "try again; if it fails again, raise TasksMax= of its unit",
        }
    }
}

/// Begins it, or begins its time again, for another incident perhaps.
pub fn on(minutes: u8, incident: Incident) -> Result<Running, DebugError> {
    if !(1..=MINUTES_MAX).contains(&minutes) {
        return Err(DebugError::Minutes);
    }
    let lasts = Duration::from_secs(u64::from(minutes) * 60);
    begin(lasts, minutes, incident).map_err(DebugError::NoThread)
}

fn begin(lasts: Duration, minutes: u8, incident: Incident) -> io::Result<Running> {
    let mut state = lock::lock(&STATE);
    let (turn, end) = (state.turn + 1, Instant::now() + lasts);
    // Before anything is changed. It waits for the lock.
    thread::Builder::new().name("debug".into()).spawn(move || end_at(turn, end))?;
    state.tell_end("nodeseal debug on");
    state.turn = turn;
    CHANGED.notify_all();
    log::raise(true);
    let running = Running { incident, until: clock::now() + lasts.as_secs() };
    emit(&Event::DebugStarted { incident: &running.incident, minutes });
    state.running = Some(running.clone());
    Ok(running)
}

/// Ends it, if it is on.
pub fn off() {
    let mut state = lock::lock(&STATE);
    state.turn += 1;
    CHANGED.notify_all();
    state.end("nodeseal debug off");
}

/// What is on, if anything is.
pub fn running() -> Option<Running> {
    lock::lock(&STATE).running.clone()
}

fn end_at(turn: u64, end: Instant) {
    let mut state = lock::lock(&STATE);
    while state.turn == turn {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return state.end("its time is over");
        }
        state = lock::wait_for(&CHANGED, state, left);
    }
}

impl State {
    fn end(&mut self, reason: &'static str) {
        self.tell_end(reason);
        log::raise(false);
    }

    /// At the raised level still, so that it is seen whatever the other one is.
    fn tell_end(&mut self, reason: &'static str) {
        if let Some(Running { incident, .. }) = self.running.take() {
            emit(&Event::DebugEnded { incident: &incident, reason });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(text: &str) -> Incident {
        text.parse().unwrap()
    }

    /// Until nothing is on, or for longer than any of these tests asks for.
    fn is_ended_within(limit: Duration) -> bool {
        let end = Instant::now() + limit;
        while running().is_some() && Instant::now() < end {
            thread::yield_now();
        }
        running().is_none()
    }

    // One test: there is one level in a process.
    #[test]
    fn it_ends_by_itself_and_an_earlier_time_does_not_end_a_later_one() {
        for minutes in [0, MINUTES_MAX + 1] {
            assert!(matches!(on(minutes, incident("INC-1")), Err(DebugError::Minutes)));
            assert_eq!(running(), None);
        }
        let first = on(MINUTES_MAX, incident("INC-1")).unwrap();
        assert_eq!(running(), Some(first));
        begin(Duration::from_millis(50), 1, incident("INC-2")).unwrap();
        assert_eq!(running().map(|running| running.incident), Some(incident("INC-2")));
        assert!(is_ended_within(Duration::from_secs(20)), "it has not ended by itself");

        begin(Duration::from_millis(1), 1, incident("INC-3")).unwrap();
        let last = on(1, incident("INC-4")).unwrap();
        assert!(!is_ended_within(Duration::from_millis(100)), "an earlier time has ended it");
        assert_eq!(running(), Some(last));
        off();
        assert_eq!(running(), None);
    }
}
