//! The messages between a client of the sealer and the sealer (docs/formats.md, "Sealer protocol").
//!
//! Hand-written bytes and not protobuf: generated messages derive `Debug` and `Clone` and are not wiped, and these carry keys.
//! One request, one answer; a frame is a u32 length and at most [`FRAME_MAX_BYTES`].

mod fields;

use self::fields::{backend, blob, flag, key, object, pin, reader, write_pin};
use super::fault::{Fault, FaultCode};
use super::token_key::TokenKey;
use super::tpm_head::TpmHead;
use crate::types::wire::{Reader, WireError, Writer};
use crate::types::{Backend, Key, SealPolicy, SealTo, Secret};

/// Bytes of one message. A TPM blob is below 1 KiB, a fault's detail below 4 KiB.
pub const FRAME_MAX_BYTES: usize = 16 * 1024;

/// Version of the protocol, the first byte of every message.
pub const VERSION: u8 = 3;

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

/// What a device engine made, readable by that engine alone; its first eight bytes say which one. Safe to write to disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceBlob(Vec<u8>);

impl DeviceBlob {
    /// Bytes. A TPM blob with a policy is below 1 KiB.
    pub const MAX_BYTES: usize = 8 * 1024;

    /// First bytes of what a TPM engine made.
    pub const TPM2_MAGIC: &[u8; 8] = TpmHead::MAGIC;
    /// First bytes of what a PKCS#11 engine made.
    pub const PKCS11_MAGIC: &[u8; 8] = b"NSEALP11";

    /// The engine that made it, if it is one of ours.
    pub fn backend(&self) -> Option<Backend> {
        match self.0.first_chunk()? {
            Self::TPM2_MAGIC => Some(Backend::Tpm2),
            Self::PKCS11_MAGIC => Some(Backend::Pkcs11),
            _ => None,
        }
    }

    /// What it was sealed to beside the device; `None` if it does not parse. A claim of the file until the device has opened it: a
    /// TPM then has proved it, since the policy is part of the object that it opens.
    pub fn policy(&self) -> Option<SealPolicy> {
        match self.backend()? {
            Backend::Tpm2 => TpmHead::read(&self.0).ok().map(|(head, _)| head.policy),
            Backend::Pkcs11 => Some(SealPolicy::None),
        }
    }

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
    /// A TPM: Name of the storage root key in hex. A token: label and CKA_ID of the wrapping key. Empty if there is none yet.
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
    /// A counter that only grows, of the TPM.
    Counter {
        /// What to do with it.
        step: CounterStep,
        /// NV index of the owner's range.
        index: u32,
        /// Needed to use it.
        auth: Auth,
        /// See [`Request::Seal`].
        pin: Option<DeviceBlob>,
    },
    /// [`crate::seal::protocol::DeviceInfo`].
    Describe(Backend),
    /// Open what another machine made for this TPM's storage root key.
    Import {
        /// Needed to open it.
        auth: Auth,
        /// Encoded duplicate (docs/formats.md, "Duplicate").
        duplicate: Vec<u8>,
        /// See [`Request::Seal`].
        pin: Option<DeviceBlob>,
    },
    /// The storage root key that others can make something for: TPMT_PUBLIC, TPM 2.0 Part 2 §12.2.4.
    Parent {
        /// See [`Request::Seal`].
        pin: Option<DeviceBlob>,
    },
    /// Seal these bytes.
    Seal {
        /// By which device, and what else they are bound to.
        to: SealTo,
        /// Needed to open them.
        auth: Auth,
        /// The bytes.
        secret: Key,
        /// A seal whose storage root key is the one that is expected now: nothing secret is encrypted to another one. Absent where
        /// nothing was sealed yet, or the key is to change; that of another device is none.
        pin: Option<DeviceBlob>,
    },
    /// Look for a key in the token that machines share, and try it.
    SharedKey {
        /// Which.
        key: TokenKey,
        /// Make it if there is none of that label.
        make: bool,
    },
    /// Open what was sealed.
    Unseal {
        /// Needed to open it.
        auth: Auth,
        /// What [`Request::Seal`] gave.
        blob: DeviceBlob,
    },
    /// Open what [`Request::Wrap`] gave, on whichever machine.
    Unwrap {
        /// Which one wrapped it, with its id.
        key: TokenKey,
        /// What it is bound to.
        auth: Auth,
        /// The text.
        blob: DeviceBlob,
    },
    /// Wrap these bytes under a key in the token that machines share.
    Wrap {
        /// Which.
        key: TokenKey,
        /// What they are bound to; no secret.
        auth: Auth,
        /// The bytes.
        secret: Key,
    },
}

/// What is done with a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum CounterStep {
    /// Define it, in place of an older one that our authValue opens, and count once.
    Make = 1,
    /// Read it.
    Read = 2,
    /// Count once.
    Advance = 3,
    /// Undefine it, if our authValue opens it; one that is gone is fine.
    Remove = 4,
    /// As [`CounterStep::Make`], also in place of one like ours whose authValue is lost with its node root.
    Replace = 5,
    /// Undefine one like ours, whoever's authValue opens it: it is on record as one that this node has left.
    Discard = 6,
}

/// What the sealer answers.
pub enum Response {
    /// To [`Request::Counter`]: its value, 0 once removed.
    Counted(u64),
    /// To [`Request::Describe`].
    Described(DeviceInfo),
    /// To any.
    Fault(Fault),
    /// To [`Request::Parent`].
    Parent(Vec<u8>),
    /// To [`Request::Seal`].
    Sealed(DeviceBlob),
    /// To [`Request::SharedKey`]: the key with its id.
    SharedKey(TokenKey),
    /// To [`Request::Unseal`], [`Request::Import`] and [`Request::Unwrap`].
    Unsealed(Key),
    /// To [`Request::Wrap`].
    Wrapped {
        /// With its id, as it was used for this very text.
        key: TokenKey,
        /// The text.
        blob: DeviceBlob,
    },
}

const DESCRIBE: u8 = 1;
const SEAL: u8 = 2;
const UNSEAL: u8 = 3;
const COUNTER: u8 = 4;
const PARENT: u8 = 5;
const IMPORT: u8 = 6;
const SHARED_KEY: u8 = 7;
const WRAP: u8 = 8;
const UNWRAP: u8 = 9;
const FAULT: u8 = 0x80;
const DESCRIBED: u8 = 0x81;
const SEALED: u8 = 0x82;
const UNSEALED: u8 = 0x83;
const COUNTED: u8 = 0x84;
const PARENT_IS: u8 = 0x85;
const SHARED_KEY_IS: u8 = 0x86;
const WRAPPED: u8 = 0x87;

/// Bytes of a storage root key's public area, or of a duplicate; an ECC or RSA-2048 one is below 600.
const OBJECT_MAX_BYTES: usize = 2048;

impl Request {
    /// One word for the log.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Counter { .. } => "count",
            Self::Describe(_) => "describe",
            Self::Import { .. } => "import",
            Self::Parent { .. } => "parent",
            Self::Seal { .. } => "seal",
            Self::SharedKey { .. } => "find a shared key",
            Self::Unseal { .. } => "unseal",
            Self::Unwrap { .. } => "unwrap",
            Self::Wrap { .. } => "wrap",
        }
    }

    /// The message, which holds secrets.
    pub fn encode(&self) -> Secret {
        let mut w = Writer::new();
        w.u8(VERSION);
        match self {
            Self::Counter { step, index, auth, pin } => {
                w.u8(COUNTER).u8(*step as u8).u32(*index).raw(auth.expose());
                write_pin(&mut w, pin.as_ref());
            }
            Self::Describe(backend) => {
                w.u8(DESCRIBE).u8(*backend as u8);
            }
            Self::Import { auth, duplicate, pin } => {
                w.u8(IMPORT).raw(auth.expose()).bytes16(duplicate);
                write_pin(&mut w, pin.as_ref());
            }
            Self::Parent { pin } => {
                w.u8(PARENT);
                write_pin(&mut w, pin.as_ref());
            }
            Self::Seal { to, auth, secret, pin } => {
                w.u8(SEAL).u8(to.backend() as u8);
                if let SealTo::Tpm2(policy) = to {
                    policy.write(&mut w);
                }
                w.raw(auth.expose()).raw(secret.expose());
                write_pin(&mut w, pin.as_ref());
            }
            Self::SharedKey { key, make } => {
                w.u8(SHARED_KEY);
                key.write(&mut w);
                w.u8(u8::from(*make));
            }
            Self::Unseal { auth, blob } => {
                w.u8(UNSEAL).raw(auth.expose()).bytes16(blob.as_bytes());
            }
            Self::Unwrap { key, auth, blob } => {
                w.u8(UNWRAP);
                key.write(&mut w);
                w.raw(auth.expose()).bytes16(blob.as_bytes());
            }
            Self::Wrap { key, auth, secret } => {
                w.u8(WRAP);
                key.write(&mut w);
                w.raw(auth.expose()).raw(secret.expose());
            }
        }
        Secret::new(w.finish())
    }

    /// Total over any bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = reader(bytes)?;
        let request = match r.u8("request kind")? {
            COUNTER => {
                let step = match r.u8("counter step")? {
                    1 => CounterStep::Make,
                    2 => CounterStep::Read,
                    3 => CounterStep::Advance,
                    4 => CounterStep::Remove,
                    5 => CounterStep::Replace,
                    6 => CounterStep::Discard,
                    _ => return Err(WireError::BadValue("counter step")),
                };
                let (index, auth) = (r.u32("counter index")?, Auth::new(key(&mut r, "auth")?));
                Self::Counter { step, index, auth, pin: pin(&mut r)? }
            }
            DESCRIBE => Self::Describe(backend(&mut r)?),
            IMPORT => {
                let (auth, duplicate) = (Auth::new(key(&mut r, "auth")?), object(&mut r, "duplicate")?);
                Self::Import { auth, duplicate, pin: pin(&mut r)? }
            }
            PARENT => Self::Parent { pin: pin(&mut r)? },
            SEAL => {
                let to = match backend(&mut r)? {
                    Backend::Tpm2 => SealTo::Tpm2(SealPolicy::read(&mut r)?),
                    Backend::Pkcs11 => SealTo::Pkcs11,
                };
                let (auth, secret) = (Auth::new(key(&mut r, "auth")?), key(&mut r, "secret")?);
                Self::Seal { to, auth, secret, pin: pin(&mut r)? }
            }
            SHARED_KEY => Self::SharedKey { key: TokenKey::read(&mut r)?, make: flag(&mut r, "make")? },
            UNSEAL => Self::Unseal { auth: Auth::new(key(&mut r, "auth")?), blob: blob(&mut r)? },
            UNWRAP => {
                let name = TokenKey::read(&mut r)?;
                Self::Unwrap { key: name, auth: Auth::new(key(&mut r, "auth")?), blob: blob(&mut r)? }
            }
            WRAP => {
                let name = TokenKey::read(&mut r)?;
                Self::Wrap { key: name, auth: Auth::new(key(&mut r, "auth")?), secret: key(&mut r, "secret")? }
            }
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
            Self::Counted(value) => {
                w.u8(COUNTED).u64(*value);
            }
            Self::Parent(public) => {
                w.u8(PARENT_IS).bytes16(public);
            }
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
            Self::SharedKey(key) => {
                w.u8(SHARED_KEY_IS);
                key.write(&mut w);
            }
            Self::Unsealed(key) => {
                w.u8(UNSEALED).raw(key.expose());
            }
            Self::Wrapped { key, blob } => {
                w.u8(WRAPPED);
                key.write(&mut w);
                w.bytes16(blob.as_bytes());
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
                let detail = r.text16("fault detail")?;
                if detail.len() > Fault::DETAIL_MAX_BYTES {
                    return Err(WireError::BadValue("fault detail"));
                }
                Self::Fault(Fault::new(code, detail))
            }
            COUNTED => Self::Counted(r.u64("counter value")?),
            PARENT_IS => Self::Parent(object(&mut r, "parent")?),
            SEALED => Self::Sealed(blob(&mut r)?),
            SHARED_KEY_IS => Self::SharedKey(TokenKey::read(&mut r)?),
            UNSEALED => Self::Unsealed(key(&mut r, "secret")?),
            WRAPPED => Self::Wrapped { key: TokenKey::read(&mut r)?, blob: blob(&mut r)? },
            _ => return Err(WireError::BadValue("answer kind")),
        };
        r.end()?;
        Ok(response)
    }
}

#[cfg(test)]
mod tests;
