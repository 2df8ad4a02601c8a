//! The messages between a client of the sealer and the sealer (docs/formats.md, "Sealer protocol").
//!
//! Hand-written bytes and not protobuf: generated messages derive `Debug` and `Clone` and are not wiped, and these carry keys.
//! One request, one answer; a frame is a u32 length and at most [`FRAME_MAX_BYTES`].

use super::fault::{Fault, FaultCode};
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{Key, SealPolicy, Secret};

/// Bytes of one message. A TPM blob is below 1 KiB, a fault's detail below 4 KiB.
pub const FRAME_MAX_BYTES: usize = 16 * 1024;

/// Version of the protocol, the first byte of every message.
pub const VERSION: u8 = 1;

/// The authorisation value that opens a sealed object (TPM 2.0 Part 1 §19.6.4.2), derived from the host secret.
pub struct Auth(Key);

impl Auth {
    /// Wraps the derived bytes.
    pub const fn new(key: Key) -> Self {
        Self(key)
    }

    /// The bytes, for as short as possible.
    pub fn expose(&self) -> &[u8; Key::LEN] {
        self.0.expose()
    }
}

/// What a device engine made, readable by that engine alone. Safe to write to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceBlob(Vec<u8>);

impl DeviceBlob {
    /// Bytes. A TPM blob with a policy is below 1 KiB.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// Refuses what is empty or too long to be one.
    pub fn new(bytes: Vec<u8>) -> Option<Self> {
        (1..=Self::MAX_BYTES).contains(&bytes.len()).then_some(Self(bytes))
    }

    /// The bytes as stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Facts about the sealing device.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DeviceInfo {
    /// `tpm2` or `pkcs11`.
    pub backend: String,
    /// As the device names itself, such as `INTC` or `IBM`.
    pub manufacturer: String,
    /// Firmware version.
    pub firmware: String,
    /// A software TPM.
    pub software: bool,
    /// Name of the storage root key in hex; empty if there is none yet.
    pub root_key_name: String,
    /// Failed authorisations that count towards lockout, and the limit.
    pub lockout_counter: u32,
    /// See `lockout_counter`.
    pub lockout_max: u32,
    /// The device is in lockout now.
    pub in_lockout: bool,
}

/// What a client asks.
pub enum Request {
    /// [`crate::seal::protocol::DeviceInfo`].
    Describe,
    /// Seal these bytes.
    Seal {
        /// What else they are bound to.
        policy: SealPolicy,
        /// Needed to open them.
        auth: Auth,
        /// The bytes.
        secret: Key,
    },
    /// Open what was sealed.
    Unseal {
        /// Needed to open it.
        auth: Auth,
        /// What [`Request::Seal`] gave.
        blob: DeviceBlob,
    },
}

/// What the sealer answers.
pub enum Response {
    /// To [`Request::Describe`].
    Described(DeviceInfo),
    /// To any.
    Fault(Fault),
    /// To [`Request::Seal`].
    Sealed(DeviceBlob),
    /// To [`Request::Unseal`].
    Unsealed(Key),
}

const DESCRIBE: u8 = 1;
const SEAL: u8 = 2;
const UNSEAL: u8 = 3;
const FAULT: u8 = 0x80;
const DESCRIBED: u8 = 0x81;
const SEALED: u8 = 0x82;
const UNSEALED: u8 = 0x83;

impl Request {
    /// The message, which holds secrets.
    pub fn encode(&self) -> Secret {
        let mut w = Writer::new();
        w.u8(VERSION);
        match self {
            Self::Describe => {
                w.u8(DESCRIBE);
            }
            Self::Seal { policy, auth, secret } => {
                policy.write(w.u8(SEAL));
                w.raw(auth.expose()).raw(secret.expose());
            }
            Self::Unseal { auth, blob } => {
                w.u8(UNSEAL).raw(auth.expose()).bytes16(blob.as_bytes());
            }
        }
        Secret::new(w.finish())
    }

    /// Total over any bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = reader(bytes)?;
        let request = match r.u8("request kind")? {
            DESCRIBE => Self::Describe,
            SEAL => {
                let policy = SealPolicy::read(&mut r)?;
                Self::Seal { policy, auth: Auth::new(key(&mut r, "auth")?), secret: key(&mut r, "secret")? }
            }
            UNSEAL => Self::Unseal { auth: Auth::new(key(&mut r, "auth")?), blob: blob(&mut r)? },
            _ => return Err(WireError::BadValue("request kind")),
        };
        r.end()?;
        Ok(request)
    }
}

impl Response {
    /// The message, which may hold a secret.
    pub fn encode(&self) -> Secret {
        let mut w = Writer::new();
        w.u8(VERSION);
        match self {
            Self::Described(info) => {
                let DeviceInfo { backend, manufacturer, firmware, software, root_key_name, .. } = info;
                w.u8(DESCRIBED);
                for text in [backend, manufacturer, firmware, root_key_name] {
                    w.bytes16(text.as_bytes());
                }
                w.u8(u8::from(*software)).u32(info.lockout_counter).u32(info.lockout_max).u8(u8::from(info.in_lockout));
            }
            Self::Fault(fault) => {
                w.u8(FAULT).u8(fault.code as u8).bytes16(fault.detail.as_bytes());
            }
            Self::Sealed(blob) => {
                w.u8(SEALED).bytes16(blob.as_bytes());
            }
            Self::Unsealed(key) => {
                w.u8(UNSEALED).raw(key.expose());
            }
        }
        Secret::new(w.finish())
    }

    /// Total over any bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = reader(bytes)?;
        let response = match r.u8("answer kind")? {
            DESCRIBED => {
                let mut text = |field| r.text16(field).map(str::to_owned);
                let (backend, manufacturer) = (text("backend")?, text("manufacturer")?);
                let (firmware, root_key_name) = (text("firmware")?, text("root key name")?);
                let software = flag(&mut r, "software")?;
                let (lockout_counter, lockout_max) = (r.u32("lockout counter")?, r.u32("lockout max")?);
                let in_lockout = flag(&mut r, "in lockout")?;
                Self::Described(DeviceInfo {
                    backend,
                    manufacturer,
                    firmware,
                    software,
                    root_key_name,
                    lockout_counter,
                    lockout_max,
                    in_lockout,
                })
            }
            FAULT => {
                let code = FaultCode::from_number(r.u8("fault code")?).ok_or(WireError::BadValue("fault code"))?;
                Self::Fault(Fault::new(code, r.text16("fault detail")?))
            }
            SEALED => Self::Sealed(blob(&mut r)?),
            UNSEALED => Self::Unsealed(key(&mut r, "secret")?),
            _ => return Err(WireError::BadValue("answer kind")),
        };
        r.end()?;
        Ok(response)
    }
}

fn reader(bytes: &[u8]) -> Result<Reader<'_>, WireError> {
    let mut r = Reader::new(bytes);
    match r.u8("protocol version")? {
        VERSION => Ok(r),
        _ => Err(WireError::BadValue("protocol version")),
    }
}

fn key(r: &mut Reader<'_>, field: &'static str) -> Result<Key, WireError> {
    Key::copy_of(r.take(Key::LEN, field)?).ok_or(WireError::Short(field))
}

fn blob(r: &mut Reader<'_>) -> Result<DeviceBlob, WireError> {
    DeviceBlob::new(r.bytes16("blob")?.to_vec()).ok_or(WireError::BadValue("blob"))
}

fn flag(r: &mut Reader<'_>, field: &'static str) -> Result<bool, WireError> {
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::BadValue(field)),
    }
}
