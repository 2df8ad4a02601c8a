//! The counter: an NV index of ours that only grows, TPM 2.0 Part 1 §37.2 (TPM_NT_COUNTER).
//!
//! A TPM begins a new counter above the highest value of all that were undefined, so that neither a restored disk nor undefining
//! and defining it anew sets it back (Part 3, TPM2_NV_Increment). Counters that are there at the same time have nothing to do
//! with each other. What a stored copy of the TPM's own state brings back, which only a software TPM has, nothing can tell.
//!
//! Nobody on the bus can lie about the value. Each use is authorised by the salted session with the index's authValue, and the
//! HMAC of the answer is keyed with both: it is fresh by our nonce, it covers the index's Name, and whoever put his own storage
//! root key into the TPM's answers still lacks the authValue. That one crosses the bus once, when the counter is made, hidden
//! by the salted session to the storage root key that the node root's seal pins; without a pin, a bus that is attacked already
//! then is the attack on a first setup (docs/threat-model.md). Error codes carry no HMAC: that the counter is gone can be
//! invented, and ends in a refusal.
//!
//! Refuses indices outside of the owner's range, and never undefines, counts or reads one whose type, size or attributes are
//! not those of ours; nor undefines one that our authValue does not open, unless it is asked to replace or discard whatever counter is there.

use tss_esapi::Context;
use tss_esapi::attributes::NvIndexAttributes;
use tss_esapi::handles::{NvIndexHandle, NvIndexTpmHandle, ObjectHandle};
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::{NvAuth, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, NvPublic};

use super::blob::Blob;
use super::fault::{At, Failure, Rc, Step};
use super::retry::{Budget, Monotonic, Retry};
use super::{Tpm2, connect, object, pinned, session, srk};
use crate::seal::fault::{Fault, FaultCode};
use crate::seal::protocol::{Auth, CounterStep, DeviceBlob};
use crate::sealer::Counters;
use crate::sealer::settings::{OWNER_NV_INDICES, TpmSettings};

// TPMA_NV, Part 2 §13.4.
const AUTH_WRITE: u32 = 1 << 2;
const COUNTER: u32 = 1 << 4;
const AUTH_READ: u32 = 1 << 18;
const NO_DA: u32 = 1 << 25;
const WRITTEN: u32 = 1 << 29;

/// Used by its authValue alone, and exempt from dictionary-attack protection: that authValue has 256 bits.
const ATTRIBUTES: u32 = AUTH_WRITE | COUNTER | AUTH_READ | NO_DA;

/// A counter is a UINT64 (Part 2 §13.4).
const BYTES: u16 = 8;

impl Counters for Tpm2 {
    fn count(&mut self, step: CounterStep, index: u32, auth: &Auth, pin: Option<&DeviceBlob>) -> Result<u64, Fault> {
        if !OWNER_NV_INDICES.contains(&index) {
            let (first, last) = (OWNER_NV_INDICES.start(), OWNER_NV_INDICES.end());
            let detail = format!("{index:#x} is not an NV index of the owner, {first:#x} to {last:#x}");
            return Err(Fault::new(FaultCode::CounterSpace, detail));
        }
        let pin = pinned(pin)?;
        let mut retry = Retry::new(Budget::OPERATION, Monotonic::start());
        let open = || Counter::open(&self.settings, index, auth, pin.as_ref());
        match step {
            CounterStep::Make => retry.run(|| {
                let mut counter = open()?;
                counter.prove()?;
                counter.define()
            })?,
            CounterStep::Replace => retry.run(|| open()?.define())?,
            CounterStep::Read => return retry.run(|| open()?.read()?.ok_or_else(|| never_counted(index))),
            CounterStep::Advance => {}
            CounterStep::Discard => return retry.run(|| open()?.undefine().map(|()| 0)),
            CounterStep::Remove => {
                return retry.run(|| {
                    let mut counter = open()?;
                    counter.prove()?;
                    counter.undefine().map(|()| 0)
                });
            }
        }
        // An attempt whose answer was lost may have counted: the next one looks before it counts once more.
        let mut before = None;
        retry.run(|| {
            let mut counter = open()?;
            let now = counter.read()?;
            if now.is_none() && step == CounterStep::Advance {
                return Err(never_counted(index));
            }
            if now == *before.get_or_insert(now) {
                counter.increment()?;
            }
            counter.read()?.ok_or_else(|| never_counted(index))
        })
    }
}

/// A power cut came between the definition and the first count.
fn never_counted(index: u32) -> Failure {
    Failure::refused(FaultCode::CounterGone, format!("{index:#x}: defined, but never counted"))
}

/// One index, for one attempt.
struct Counter<'a> {
    context: Context,
    channel: AuthSession,
    index: u32,
    auth: &'a Auth,
}

impl<'a> Counter<'a> {
    fn open(settings: &TpmSettings, index: u32, auth: &'a Auth, pin: Option<&Blob>) -> Result<Self, Failure> {
        let mut context = connect::open(settings)?;
        let srk = srk::of(&mut context, settings.parent_handle, pin)?;
        let channel = session::channel(&mut context, srk.handle)?;
        Ok(Self { context, channel, index, auth })
    }

    /// That our authValue opens it, if it is there: the owner's authorisation, which is empty as a rule, would undefine anybody's. The
    /// TPM checks it before it looks whether there is a value (Part 3, TPM2_NV_Read), so that one that never counted is proved too.
    fn prove(&mut self) -> Result<(), Failure> {
        match self.find()? {
            Some(handle) => {
                self.close(handle)?;
                self.read().map(|_| ())
            }
            None => Ok(()),
        }
    }

    /// In place of an older one. Counts nothing yet, so that it may be asked again when its answer was lost.
    fn define(&mut self) -> Result<(), Failure> {
        self.undefine()?;
        let public = NvPublic::builder()
            .with_nv_index(NvIndexTpmHandle::new(self.index).at(Step::DefineCounter)?)
            .with_index_name_algorithm(HashingAlgorithm::Sha256)
            .with_index_attributes(NvIndexAttributes::try_from(ATTRIBUTES).at(Step::DefineCounter)?)
            .with_data_area_size(usize::from(BYTES))
            .build()
            .at(Step::DefineCounter)?;
        let auth = object::auth_value(self.auth, Step::DefineCounter)?;
        let handle = self.context.execute_with_session(Some(self.channel), |context| {
            context.nv_define_space(Provision::Owner, Some(auth), public).at(Step::DefineCounter)
        })?;
        self.close(handle)
    }

    /// One that is not there is fine.
    fn undefine(&mut self) -> Result<(), Failure> {
        let Some(handle) = self.find()? else { return Ok(()) };
        self.context.execute_with_session(Some(self.channel), |context| {
            context.nv_undefine_space(Provision::Owner, handle).at(Step::UndefineCounter)
        })
    }

    /// `None` if it never counted.
    fn read(&mut self) -> Result<Option<u64>, Failure> {
        let handle = self.existing()?;
        let answer = self.context.execute_with_session(Some(self.channel), |context| {
            context.nv_read(NvAuth::NvIndex(handle), handle, BYTES, 0).at(Step::ReadCounter)
        });
        self.close(handle)?;
        match answer {
            Ok(bytes) => match bytes.value().try_into() {
                Ok(value) => Ok(Some(u64::from_be_bytes(value))),
                Err(_) => Err(Failure::Answer { step: Step::ReadCounter, rc: None }),
            },
            Err(failure) if failure.rc().is_some_and(Rc::is_uninitialised) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn increment(&mut self) -> Result<(), Failure> {
        let handle = self.existing()?;
        self.context.execute_with_session(Some(self.channel), |context| {
            context.nv_increment(NvAuth::NvIndex(handle), handle).at(Step::AdvanceCounter)
        })?;
        self.close(handle)
    }

    fn existing(&mut self) -> Result<NvIndexHandle, Failure> {
        let index = self.index;
        self.find()?.ok_or_else(|| Failure::refused(FaultCode::CounterGone, format!("{index:#x}: not defined")))
    }

    /// Ours, with the authValue set. Looked up for each use and closed after it: the first count changes the Name (TPMA_NV_WRITTEN,
    /// Part 1 §37.2), and with it every HMAC.
    fn find(&mut self) -> Result<Option<NvIndexHandle>, Failure> {
        let tpm_handle = NvIndexTpmHandle::new(self.index).at(Step::FindCounter)?;
        let handle = match self.context.tr_from_tpm_public(tpm_handle.into()).at(Step::FindCounter) {
            Ok(object) => NvIndexHandle::from(object),
            Err(failure) if failure.rc().is_some_and(Rc::is_absent) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        // Once more through the session, whose HMAC covers the Name that ESYS made from the first answer: both are the TPM's.
        let (public, _) = self
            .context
            .execute_with_session(Some(self.channel), |context| context.nv_read_public(handle).at(Step::FindCounter))?;
        if u32::from(public.nv_index()) != self.index {
            let detail = format!("asked for {:#x}, told of {:#x}", self.index, u32::from(public.nv_index()));
            return Err(Failure::refused(FaultCode::Forged, detail));
        }
        if let Some(why) = foreign(&public) {
            let detail = format!("{:#x} is not Nodeseal's counter: {why}", self.index);
            return Err(Failure::refused(FaultCode::CounterSpace, detail));
        }
        let auth = object::auth_value(self.auth, Step::FindCounter)?;
        self.context.tr_set_auth(handle.into(), auth).at(Step::FindCounter)?;
        Ok(Some(handle))
    }

    fn close(&mut self, handle: NvIndexHandle) -> Result<(), Failure> {
        self.context.tr_close(&mut ObjectHandle::from(handle)).at(Step::FindCounter)
    }
}

/// What sets the index apart from a counter of ours, if anything does.
fn foreign(public: &NvPublic) -> Option<String> {
    let attributes = u32::try_from(public.attributes()).unwrap_or_default();
    let same = attributes & !WRITTEN == ATTRIBUTES
        && public.data_size() == usize::from(BYTES)
        && public.name_algorithm() == HashingAlgorithm::Sha256
        && *public.authorization_policy() == Digest::default();
    (!same).then(|| {
        let (size, algorithm) = (public.data_size(), public.name_algorithm());
        let policy = if public.authorization_policy().is_empty() { "no policy" } else { "a policy" };
        format!("attributes {attributes:#x} instead of {ATTRIBUTES:#x}, {size} bytes, {algorithm:?}, {policy}")
    })
}
