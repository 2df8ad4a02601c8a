//! A sealing device in this process, which can fail, be away and be slow.

use std::collections::{HashMap, VecDeque};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use crate::seal::client::SealerClient;
use crate::seal::fault::{Fault, FaultCode};
use crate::seal::frame;
use crate::seal::protocol::{CounterStep, DeviceBlob, Request, Response};
use crate::types::{Key, hex};

/// By index: value and authorisation value.
type Counters = HashMap<u32, (u64, Vec<u8>)>;

/// What it opens every bundle to.
pub(super) const TRANSPORT: [u8; 32] = [0x55; 32];

/// Public part of the key whose private part is 32 times 0x42.
pub(in crate::keyring) const PARENT: &str = "\
0023000b00030472000000060080004300100003001000203ad3861a95621392516bb593ef05583ed2e5866f5cb6260a3017237fd89b90af0020d096\
1c7e37075a6791a39c61f56295b02b6d26567b615e60aa41ee1c8e83388d";

/// What can become of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// None of the questions from this one on is answered: the connection ends.
    Away,
    /// This one is refused for the moment.
    Busy,
    /// This one is not answered: the connection ends.
    Closes,
    /// This one, and with it all that come after, waits for [`Device::release`].
    Late,
}

impl Trouble {
    pub(super) const ALL: [Self; 4] = [Self::Away, Self::Busy, Self::Closes, Self::Late];
}

/// Questions, and what is planned for them.
#[derive(Default)]
struct Desk {
    counters: Counters,
    /// Since the last plan.
    asked: usize,
    plan: Option<(usize, Trouble)>,
    /// The plan has happened.
    was_struck: bool,
    /// A question waits.
    is_held: bool,
}

#[derive(Default)]
struct Shared {
    desk: Mutex<Desk>,
    changed: Condvar,
}

/// Remembers nothing but its counters: what it sealed carries the authorisation value and the secret.
pub(super) struct Device(Option<Server>);

/// Used again and again: making one costs more than a whole node does.
struct Server {
    dir: tempfile::TempDir,
    shared: Arc<Shared>,
}

/// Devices of nodes that are no more. The longest idle one is taken, so that a question that was under way at the end of its
/// node is answered before another one has it.
struct Pool {
    idle: VecDeque<Server>,
    in_use: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { idle: VecDeque::new(), in_use: 0 });
const IDLE_MIN: usize = 64;
/// Far above what any question takes.
const HELD_TIMEOUT: Duration = Duration::from_secs(30);

impl Device {
    pub(super) fn new() -> Self {
        Self::with(HashMap::new())
    }

    /// What it is at this moment; it has nothing to do with the first one any more. Without counters nothing tells them apart.
    pub(super) fn copy(self: &Arc<Self>) -> Arc<Self> {
        if self.counters().is_empty() { Arc::clone(self) } else { self.apart() }
    }

    /// The same, and nobody else asks it: for plans.
    pub(super) fn apart(&self) -> Arc<Self> {
        let counters = self.server().shared.desk().counters.clone();
        Arc::new(Self::with(counters))
    }

    fn with(counters: Counters) -> Self {
        let idle = {
            let mut pool = POOL.lock().unwrap();
            pool.in_use += 1;
            if pool.idle.len() > IDLE_MIN { pool.idle.pop_front() } else { None }
        };
        let server = idle.unwrap_or_else(Server::start);
        *server.shared.desk() = Desk { counters, ..Desk::default() };
        Self(Some(server))
    }

    fn server(&self) -> &Server {
        self.0.as_ref().unwrap()
    }

    pub(super) fn client(&self) -> SealerClient {
        SealerClient::Socket(self.server().dir.path().join("sealer"))
    }

    /// By NV index.
    pub(super) fn counters(&self) -> HashMap<u32, u64> {
        self.server().shared.desk().counters.iter().map(|(index, (value, _))| (*index, *value)).collect()
    }

    /// All that it remembers.
    pub(super) fn state(&self) -> Vec<(u32, (u64, Vec<u8>))> {
        let mut counters: Vec<_> = self.server().shared.desk().counters.clone().into_iter().collect();
        counters.sort();
        counters
    }

    /// Counts questions from 0 on again, and lets one of them meet this. What waits is answered.
    pub(super) fn plan(&self, plan: Option<(usize, Trouble)>) {
        let shared = &self.server().shared;
        let mut desk = shared.desk();
        (desk.asked, desk.plan, desk.was_struck) = (0, plan, false);
        shared.changed.notify_all();
    }

    /// Questions since the last plan.
    pub(super) fn asked(&self) -> usize {
        self.server().shared.desk().asked
    }

    /// Whether what was planned has happened.
    pub(super) fn was_struck(&self) -> bool {
        self.server().shared.desk().was_struck
    }

    /// Blocks until a question waits for [`Device::release`].
    pub(super) fn wait_until_held(&self) {
        let shared = &self.server().shared;
        let held = shared.changed.wait_timeout_while(shared.desk(), HELD_TIMEOUT, |desk| !desk.is_held).unwrap();
        assert!(held.0.is_held, "the device is not asked");
    }

    /// Whether a question waits.
    pub(super) fn is_held(&self) -> bool {
        self.server().shared.desk().is_held
    }

    /// Answers what waits, and whatever comes.
    pub(super) fn release(&self) {
        self.plan(None);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.release();
        let mut pool = POOL.lock().unwrap();
        pool.idle.extend(self.0.take());
        pool.in_use -= 1;
        if pool.in_use == 0 {
            // Nothing is dropped at the end of the process, and their folders would stay.
            pool.idle.clear();
        }
    }
}

impl Shared {
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap()
    }

    /// What this question meets, after it has waited.
    fn meet(&self) -> Option<Trouble> {
        let mut desk = self.desk();
        let at = desk.asked;
        desk.asked += 1;
        let (planned, trouble) = desk.plan?;
        let meets = if trouble == Trouble::Away { at >= planned } else { at == planned };
        desk.was_struck |= meets;
        if meets && trouble == Trouble::Late {
            desk.is_held = true;
            self.changed.notify_all();
            let waits = |desk: &mut Desk| desk.plan.is_some_and(|(_, trouble)| trouble == Trouble::Late);
            desk = self.changed.wait_while(desk, waits).unwrap();
            desk.is_held = false;
            return None;
        }
        meets.then_some(trouble)
    }
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("sealer")).unwrap();
        let shared = Arc::<Shared>::default();
        let own = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A process that is no more does not wait for its answer.
                let _ = answer(stream.unwrap(), &own);
            }
        });
        Self { dir, shared }
    }
}

fn answer(mut stream: UnixStream, shared: &Shared) -> Option<()> {
    let message = frame::read(&mut stream).ok()??;
    let response = match shared.meet() {
        Some(Trouble::Away | Trouble::Closes) => return None,
        Some(Trouble::Busy) => Response::Fault(Fault::new(FaultCode::Busy, "")),
        Some(Trouble::Late) | None => response(Request::decode(message.expose()).unwrap(), shared),
    };
    frame::write(&mut stream, &response.encode()).ok()
}

fn response(request: Request, shared: &Shared) -> Response {
    /// As long as that of a TPM, so that the file spans more than one block.
    const BLOB_BYTES: usize = 700;
    const MAGIC: usize = DeviceBlob::TPM2_MAGIC.len();
    match request {
        Request::Seal { auth, secret, .. } => {
            let mut blob = [&DeviceBlob::TPM2_MAGIC[..], auth.expose(), secret.expose()].concat();
            blob.resize(BLOB_BYTES, 0);
            Response::Sealed(DeviceBlob::new(blob).unwrap())
        }
        Request::Unseal { auth, blob } => {
            let (stored, secret) = blob.as_bytes()[MAGIC..].split_at(Key::LEN);
            match stored == auth.expose() {
                true => Response::Unsealed(Key::copy_of(&secret[..Key::LEN]).unwrap()),
                false => Response::Fault(Fault::new(FaultCode::Auth, "")),
            }
        }
        Request::Counter { step, index, auth, .. } => {
            match count(&mut shared.desk().counters, step, index, auth.expose()) {
                Ok(value) => Response::Counted(value),
                Err(code) => Response::Fault(Fault::new(code, "")),
            }
        }
        Request::Parent { .. } => Response::Parent(hex::decode(PARENT).unwrap()),
        Request::Import { .. } => Response::Unsealed(Key::copy_of(&TRANSPORT).unwrap()),
        // A TPM has no keys to share.
        Request::Describe(_) | Request::SharedKey { .. } | Request::Unwrap { .. } | Request::Wrap { .. } => {
            Response::Fault(Fault::new(FaultCode::TpmFailed, ""))
        }
    }
}

/// A new counter begins above all that there ever were, those that were removed among them.
static HIGHEST_GONE: AtomicU64 = AtomicU64::new(40);

fn count(counters: &mut Counters, step: CounterStep, index: u32, auth: &[u8]) -> Result<u64, FaultCode> {
    let is_strange = counters.get(&index).is_some_and(|(_, known)| known != auth);
    if is_strange && !matches!(step, CounterStep::Replace | CounterStep::Discard) {
        return Err(FaultCode::CounterSpace);
    }
    match step {
        CounterStep::Make | CounterStep::Replace => {
            let highest = counters.values().map(|(value, _)| *value).max().unwrap_or(0);
            let highest = highest.max(HIGHEST_GONE.load(Ordering::Relaxed));
            counters.insert(index, (highest + 1, auth.to_vec()));
        }
        CounterStep::Read => {}
        CounterStep::Advance => counters.get_mut(&index).ok_or(FaultCode::CounterGone)?.0 += 1,
        CounterStep::Remove | CounterStep::Discard => {
            let gone = counters.remove(&index).map_or(0, |(value, _)| value);
            HIGHEST_GONE.fetch_max(gone, Ordering::Relaxed);
            return Ok(0);
        }
    }
    counters.get(&index).map(|(value, _)| *value).ok_or(FaultCode::CounterGone)
}
