//! A sealing device in this process.

use std::collections::{HashMap, VecDeque};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::seal::client::SealerClient;
use crate::seal::fault::{Fault, FaultCode};
use crate::seal::frame;
use crate::seal::protocol::{CounterStep, DeviceBlob, Request, Response};
use crate::types::Key;

/// What it opens every bundle to.
pub(super) const TRANSPORT: [u8; 32] = [0x55; 32];

/// Public part of the key whose private part is 32 times 0x42.
pub(super) const PARENT: &str = "\
0023000b00030472000000060080004300100003001000203ad3861a95621392516bb593ef05583ed2e5866f5cb6260a3017237fd89b90af0020d096\
1c7e37075a6791a39c61f56295b02b6d26567b615e60aa41ee1c8e83388d";

type Counters = Arc<Mutex<HashMap<u32, u64>>>;

/// Remembers nothing but its counters: what it sealed carries the authorisation value and the secret.
pub(super) struct Device(Option<Server>);

/// Used again and again: making one costs more than a whole node does.
struct Server {
    dir: tempfile::TempDir,
    counters: Counters,
}

/// Devices of nodes that are no more. The longest idle one is taken, so that a question that was under way at the end of its
/// node is answered before another one has it.
struct Pool {
    idle: VecDeque<Server>,
    in_use: usize,
}

static POOL: Mutex<Pool> = Mutex::new(Pool { idle: VecDeque::new(), in_use: 0 });
const IDLE_MIN: usize = 64;

impl Device {
    pub(super) fn new() -> Self {
        Self::with(HashMap::new())
    }

    /// What it is at this moment; it has nothing to do with the first one any more. Without counters nothing tells them apart.
    pub(super) fn copy(self: &Arc<Self>) -> Arc<Self> {
        let counters = self.server().counters.lock().unwrap().clone();
        if counters.is_empty() { Arc::clone(self) } else { Arc::new(Self::with(counters)) }
    }

    fn with(counters: HashMap<u32, u64>) -> Self {
        let idle = {
            let mut pool = POOL.lock().unwrap();
            pool.in_use += 1;
            if pool.idle.len() > IDLE_MIN { pool.idle.pop_front() } else { None }
        };
        let server = idle.unwrap_or_else(Server::start);
        *server.counters.lock().unwrap() = counters;
        Self(Some(server))
    }

    fn server(&self) -> &Server {
        self.0.as_ref().unwrap()
    }

    pub(super) fn client(&self) -> SealerClient {
        SealerClient::Socket(self.server().dir.path().join("sealer"))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let mut pool = POOL.lock().unwrap();
        pool.idle.extend(self.0.take());
        pool.in_use -= 1;
        if pool.in_use == 0 {
            // Nothing is dropped at the end of the process, and their folders would stay.
            pool.idle.clear();
        }
    }
}

impl Server {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("sealer")).unwrap();
        let counters = Counters::default();
        let own = Arc::clone(&counters);
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A process that is no more does not wait for its answer.
                let _ = answer(stream.unwrap(), &own);
            }
        });
        Self { dir, counters }
    }
}

fn answer(mut stream: UnixStream, counters: &Counters) -> Option<()> {
    /// As long as that of a TPM, so that the file spans more than one block.
    const BLOB_BYTES: usize = 700;
    const MAGIC: usize = DeviceBlob::TPM2_MAGIC.len();
    let message = frame::read(&mut stream).ok()??;
    let answer = match Request::decode(message.expose()).unwrap() {
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
        Request::Counter { step, index, .. } => match count(&mut counters.lock().unwrap(), step, index) {
            Some(value) => Response::Counted(value),
            None => Response::Fault(Fault::new(FaultCode::CounterGone, "")),
        },
        Request::Parent => Response::Parent(hex::decode(PARENT).unwrap()),
        Request::Import { .. } => Response::Unsealed(Key::copy_of(&TRANSPORT).unwrap()),
        // A TPM has no keys to share.
        Request::Describe(_) | Request::SharedKey { .. } | Request::Unwrap { .. } | Request::Wrap { .. } => {
            Response::Fault(Fault::new(FaultCode::TpmFailed, ""))
        }
    };
    frame::write(&mut stream, &answer.encode()).ok()
}

fn count(counters: &mut HashMap<u32, u64>, step: CounterStep, index: u32) -> Option<u64> {
    match step {
        CounterStep::Make => {
            let highest = counters.values().max().copied().unwrap_or(40);
            counters.insert(index, highest + 1);
        }
        CounterStep::Read => {}
        CounterStep::Advance => *counters.get_mut(&index)? += 1,
        CounterStep::Remove => {
            counters.remove(&index);
            return Some(0);
        }
    }
    counters.get(&index).copied()
}
