//! Bounds every question to a device. A call into a module or a TPM that does not return cannot be taken back, and the thread that
//! made it is lost; so a second one says so, to the log and to whoever asks, and ends the process. Its supervisor starts the next.
//!
//! Started once the process is confined, so that it is confined as well.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::audit::{Event, emit, log};
use crate::seal::fault::{Fault, FaultCode};
use crate::seal::frame;
use crate::seal::protocol::Response;
use crate::types::lock;

/// For one question, or for the devices' end. A client waits for a little longer, so that it still hears of it
/// (`seal::client::ANSWER_TIMEOUT`). TPMs take up to half a minute for an RSA key.
const BOUND: Duration = Duration::from_secs(55);

/// What is done about a question that took too long.
type End = fn(&Pending);

/// The second thread.
pub struct Watch {
    shared: Arc<Shared>,
    bound: Duration,
}

struct Shared {
    pending: Mutex<Option<Pending>>,
    changed: Condvar,
}

/// A question that a device was asked.
struct Pending {
    question: &'static str,
    asker: Option<UnixStream>,
    bound: Duration,
    end: Instant,
}

/// It was answered when this drops.
pub struct Asked<'a>(&'a Shared);

impl Watch {
    /// Ends this process when a question takes too long.
    pub fn start() -> io::Result<Self> {
        Self::with(BOUND, |stuck| {
            stuck.tell();
            // No exit handlers: those of a module may wait for the thread that is lost.
            std::process::abort();
        })
    }

    fn with(bound: Duration, end: End) -> io::Result<Self> {
        let shared = Arc::new(Shared { pending: Mutex::new(None), changed: Condvar::new() });
        let seen = Arc::clone(&shared);
        thread::Builder::new().name("watch".into()).spawn(move || seen.watch(end))?;
        Ok(Self { shared, bound })
    }

    /// A device is asked from now on, on behalf of whoever is at the other end.
    pub fn ask(&self, question: &'static str, asker: Option<&UnixStream>) -> Asked<'_> {
        // Without a second descriptor the asker hears nothing, and its own limit ends its waiting.
        let asker = asker.and_then(|asker| asker.try_clone().ok());
        let end = Instant::now() + self.bound;
        *self.shared.pending() = Some(Pending { question, asker, bound: self.bound, end });
        self.shared.changed.notify_one();
        Asked(&self.shared)
    }
}

impl Asked<'_> {
    /// For what is not followed by anything but the end of the process.
    pub fn to_the_end(self) {
        #[cfg_attr(
            not(test),
            expect(clippy::disallowed_methods, reason = "it holds no key, and its drop is what must not come")
        )]
        std::mem::forget(self);
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        *self.0.pending() = None;
    }
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Option<Pending>> {
        // Whole after every step.
        lock::lock(&self.pending)
    }

    fn watch(&self, end: End) {
        let mut pending = self.pending();
        loop {
            let left = pending.as_ref().map(|asked| asked.end.saturating_duration_since(Instant::now()));
            pending = match left {
                None => lock::wait(&self.changed, pending),
                // With the lock: an answer that comes in this moment comes too late.
                Some(Duration::ZERO) => {
                    if let Some(stuck) = pending.take() {
                        end(&stuck);
                    }
                    pending
                }
                Some(left) => lock::wait_for(&self.changed, pending, left),
            };
        }
    }
}

impl Pending {
    fn tell(&self) {
        emit(&Event::DeviceStuck { question: self.question, after: self.bound });
        if let Some(asker) = &self.asker {
            let detail = format!("{}: no answer in {} s", self.question, self.bound.as_secs());
            let answer = Response::Fault(Fault::new(FaultCode::Stuck, detail)).encode();
            // Who went away has its own limit.
            let _ = frame::write(&mut &*asker, &answer);
        }
        log::flush();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_question_that_takes_too_long_is_told_to_its_asker_and_ends_the_process() {
        static ENDED: AtomicUsize = AtomicUsize::new(0);
        let watch = Watch::with(Duration::from_millis(50), |stuck| {
            stuck.tell();
            ENDED.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
        let (mut asker, ours) = UnixStream::pair().unwrap();
        asker.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _asked = watch.ask("unseal", Some(&ours));
        let answer = frame::read(&mut asker).unwrap().unwrap();
        let Response::Fault(fault) = Response::decode(answer.expose()).unwrap() else { panic!("no fault") };
        assert_eq!((fault.code, fault.detail.as_str()), (FaultCode::Stuck, "unseal: no answer in 0 s"));
        while ENDED.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
    }

    #[test]
    fn answers_in_time_end_nothing_and_each_question_has_the_whole_time() {
        static ENDED: AtomicUsize = AtomicUsize::new(0);
        let bound = Duration::from_millis(400);
        let watch = Watch::with(bound, |_| {
            ENDED.fetch_add(1, Ordering::SeqCst);
        })
        .unwrap();
        let begun = Instant::now();
        while begun.elapsed() < bound * 2 {
            drop(watch.ask("unseal", None));
        }
        assert_eq!(ENDED.load(Ordering::SeqCst), 0);
        watch.ask("the end", None).to_the_end();
        while ENDED.load(Ordering::SeqCst) == 0 {
            thread::yield_now();
        }
    }
}
