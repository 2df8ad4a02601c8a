//! The TPM 2.0 engine: seals 32 bytes under the storage root key and opens them again.
//!
//! Every operation has a context of its own, and no more than two sessions. It never evicts, clears, extends or changes an
//! authorisation of others; what it may leave behind is the TCG's shared storage root key, where there was none, and the counter
//! that it was asked for. It sends no TPM2_Startup: a TPM that the firmware did not start is reported, not hidden.
//!
//! Refuses a software TPM unless it was allowed, a storage root key that is not the pinned one, and to report success before
//! what it sealed came back the same.
//!
//! Secrets: tss-esapi wipes its own buffers, but the C structures below it are freed as they are. That is why this code runs in
//! a process of its own that holds neither the host secret nor a key made from it.

pub mod blob;
mod connect;
mod counter;
mod fault;
mod import;
mod object;
mod pcr;
mod policy;
mod retry;
mod session;
mod srk;
mod template;

use subtle::ConstantTimeEq;
use tss_esapi::constants::PropertyTag;

use self::blob::Blob;
use self::fault::Failure;
use self::retry::{Budget, Monotonic, Retry};
use super::settings::TpmSettings;
use super::{Counters, Importer, Sealer};
use crate::seal::fault::{Fault, FaultCode};
use crate::seal::protocol::{Auth, DeviceBlob, DeviceInfo};
use crate::types::{Backend, Key, SealPolicy, hex};

/// TPMA_PERMANENT.inLockout, TPM 2.0 Part 2 §8.6.
const IN_LOCKOUT: u32 = 1 << 9;

/// One TPM. Holds nothing but its settings: no handle, no session, no connection.
#[derive(Debug)]
pub struct Tpm2 {
    settings: TpmSettings,
}

impl Tpm2 {
    /// Touches nothing yet.
    pub const fn new(settings: TpmSettings) -> Self {
        Self { settings }
    }

    fn seal_once(&self, secret: &Key, auth: &Auth, policy: &SealPolicy, pin: Option<&Blob>) -> Result<Blob, Failure> {
        let mut context = connect::open(&self.settings)?;
        let srk = srk::for_sealing(&mut context, self.settings.parent_handle, pin)?;
        let channel = session::channel(&mut context, srk.handle)?;
        let pcr_values = match policy {
            SealPolicy::None => Vec::new(),
            SealPolicy::Pcr { bank, pcrs } => pcr::to_seal_to(&mut context, channel, *bank, *pcrs)?,
        };
        let digest = policy::digest(policy, &pcr_values);
        let (public, private) = object::create(&mut context, srk.handle, channel, &digest, auth, secret)?;
        Ok(Blob {
            parent_handle: self.settings.parent_handle,
            parent_template: srk.template,
            parent_name: srk.name,
            policy: *policy,
            pcr_values,
            public,
            private,
            manufacturer: connect::manufacturer(&mut context)?,
            firmware: connect::firmware(&mut context)?,
        })
    }

    fn unseal_once(&self, blob: &Blob, auth: &Auth) -> Result<Key, Failure> {
        let mut context = connect::open(&self.settings)?;
        let srk = srk::pinned(&mut context, blob)?.handle;
        let channel = session::channel(&mut context, srk)?;
        let sealed = object::load(&mut context, srk, channel, blob, auth)?;
        let policy = session::policy(&mut context, srk)?;
        object::satisfy(&mut context, channel, policy, blob)?;
        object::unseal(&mut context, sealed, policy, channel)
    }

    fn describe_once(&self) -> Result<DeviceInfo, Failure> {
        let mut context = connect::open_any(&self.settings)?;
        let manufacturer = connect::manufacturer(&mut context)?;
        let permanent = connect::property(&mut context, PropertyTag::Permanent)?;
        Ok(DeviceInfo {
            backend: "tpm2".to_owned(),
            software: connect::is_software(&manufacturer),
            manufacturer,
            firmware: connect::firmware(&mut context)?,
            root_key_name: srk::name_at(&mut context, self.settings.parent_handle)?
                .map(hex::encode)
                .unwrap_or_default(),
            lockout_counter: connect::property(&mut context, PropertyTag::LockoutCounter)?,
            lockout_max: connect::property(&mut context, PropertyTag::MaxAuthFail)?,
            in_lockout: permanent & IN_LOCKOUT != 0,
        })
    }
}

impl Sealer for Tpm2 {
    fn seal(
        &mut self,
        secret: &Key,
        auth: &Auth,
        policy: &SealPolicy,
        pin: Option<&DeviceBlob>,
    ) -> Result<DeviceBlob, Fault> {
        let pin = pinned(pin)?;
        let mut retry = Retry::new(Budget::OPERATION, Monotonic::start());
        let bytes = retry.run(|| self.seal_once(secret, auth, policy, pin.as_ref()))?.encode();
        // What will be stored is what is proved.
        let stored = decode(&bytes).map_err(|fault| unproved(&fault))?;
        let back = retry.run(|| self.unseal_once(&stored, auth)).map_err(|fault| unproved(&fault))?;
        if !bool::from(back.expose().ct_eq(secret.expose())) {
            return Err(Fault::new(FaultCode::Verify, "other bytes came back"));
        }
        DeviceBlob::new(bytes).ok_or_else(|| Fault::new(FaultCode::Internal, "the sealed blob is too long"))
    }

    fn unseal(&mut self, blob: &DeviceBlob, auth: &Auth) -> Result<Key, Fault> {
        let blob = decode(blob.as_bytes())?;
        Retry::new(Budget::OPERATION, Monotonic::start()).run(|| self.unseal_once(&blob, auth))
    }

    fn describe(&mut self) -> Result<DeviceInfo, Fault> {
        Retry::new(Budget::OPERATION, Monotonic::start()).run(|| self.describe_once())
    }

    fn counters(&mut self) -> Option<&mut dyn Counters> {
        Some(self)
    }

    fn importer(&mut self) -> Option<&mut dyn Importer> {
        Some(self)
    }
}

fn decode(bytes: &[u8]) -> Result<Blob, Fault> {
    Blob::decode(bytes).map_err(|error| Fault::new(FaultCode::Format, error.to_string()))
}

/// What a token has sealed names no storage root key.
fn pinned(pin: Option<&DeviceBlob>) -> Result<Option<Blob>, Fault> {
    pin.filter(|pin| pin.backend() != Some(Backend::Pkcs11)).map(|pin| decode(pin.as_bytes())).transpose()
}

/// A fault while proving a new seal: of the machine's state it stays what it is, of the seal itself it says that the TPM did not
/// keep its word.
fn unproved(fault: &Fault) -> Fault {
    let code = match fault.code {
        FaultCode::Auth | FaultCode::Foreign | FaultCode::Format => FaultCode::Verify,
        // The registers moved between reading them and proving the seal.
        FaultCode::Policy => FaultCode::PcrRace,
        other => other,
    };
    Fault::new(code, fault.detail.clone())
}
