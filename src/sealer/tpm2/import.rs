//! Takes in a key that another machine made for this TPM's storage root key (`seal::duplicate`), and opens it at once: nothing
//! of it stays in the TPM.
//!
//! Refuses a duplicate for another storage root key before the TPM is asked. The Name is compared with the one that ESYS computes
//! itself, as in `srk`, so that the sessions are salted to the key that the duplicate was made for.

use tss_esapi::Context;
use tss_esapi::handles::KeyHandle;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{EncryptedSecret, Private, Public, SymmetricDefinitionObject};
use tss_esapi::traits::{Marshall, UnMarshall};

use super::blob::Blob;
use super::fault::{At, Failure, Step};
use super::retry::{Budget, Monotonic, Retry};
use super::{Tpm2, connect, object, pinned, session, srk};
use crate::seal::duplicate::Duplicate;
use crate::seal::fault::{Fault, FaultCode};
use crate::seal::protocol::{Auth, DeviceBlob};
use crate::seal::tcg;
use crate::sealer::Importer;
use crate::types::{Key, SealPolicy, hex};

impl Tpm2 {
    fn parent_once(&self, pin: Option<&Blob>) -> Result<Vec<u8>, Failure> {
        let mut context = connect::open(&self.settings)?;
        let srk = srk::of(&mut context, self.settings.parent_handle, pin)?;
        let (public, _, _) = context.read_public(srk.handle).at(Step::ReadSrk)?;
        let public = public.marshall().at(Step::ReadSrk)?;
        if tcg::name(&public) == srk.name {
            Ok(public)
        } else {
            Err(Failure::refused(FaultCode::SrkChanged, "two answers about the storage root key differ"))
        }
    }

    fn import_once(&self, duplicate: &Duplicate, auth: &Auth, pin: Option<&Blob>) -> Result<Key, Failure> {
        let mut context = connect::open(&self.settings)?;
        let srk = srk::of(&mut context, self.settings.parent_handle, pin)?;
        if srk.name != *duplicate.parent_name() {
            let (found, made_for) = (hex::encode(srk.name), hex::encode(duplicate.parent_name()));
            return Err(Failure::refused(FaultCode::ForeignBundle, format!("made for {made_for}, this is {found}")));
        }
        let channel = session::channel(&mut context, srk.handle)?;
        // A seal without PCRs from here on, for the length of one unseal.
        let blob = Blob {
            parent_handle: self.settings.parent_handle,
            parent_template: srk.template,
            parent_name: srk.name,
            policy: SealPolicy::None,
            pcr_values: Vec::new(),
            public: duplicate.public().to_vec(),
            private: take_in(&mut context, srk.handle, channel, duplicate)?,
            manufacturer: String::new(),
            firmware: String::new(),
        };
        let object = object::load(&mut context, srk.handle, channel, &blob, auth)?;
        let policy = session::policy(&mut context, srk.handle)?;
        object::satisfy(&mut context, channel, policy, &blob)?;
        object::unseal(&mut context, object, policy, channel)
    }
}

impl Importer for Tpm2 {
    fn parent(&mut self, pin: Option<&DeviceBlob>) -> Result<Vec<u8>, Fault> {
        let pin = pinned(pin)?;
        Retry::new(Budget::OPERATION, Monotonic::start()).run(|| self.parent_once(pin.as_ref()))
    }

    fn import(&mut self, duplicate: &[u8], auth: &Auth, pin: Option<&DeviceBlob>) -> Result<Key, Fault> {
        let pin = pinned(pin)?;
        let duplicate =
            Duplicate::decode(duplicate).map_err(|error| Fault::new(FaultCode::ForeignBundle, error.to_string()))?;
        let key =
            Retry::new(Budget::OPERATION, Monotonic::start()).run(|| self.import_once(&duplicate, auth, pin.as_ref()));
        key.map_err(of_bundle)
    }
}

/// TPM2_Import without an inner wrapper: the private area as this TPM stores it.
fn take_in(
    context: &mut Context,
    srk: KeyHandle,
    channel: AuthSession,
    duplicate: &Duplicate,
) -> Result<Vec<u8>, Failure> {
    let public = Public::unmarshall(duplicate.public()).at(Step::Import)?;
    let private = Private::try_from(duplicate.private()).at(Step::Import)?;
    let seed = EncryptedSecret::try_from(duplicate.encrypted_seed()).at(Step::Import)?;
    let taken = context.execute_with_session(Some(channel), |context| {
        let no_inner_wrapper = SymmetricDefinitionObject::Null;
        context.import(srk.into(), None, public, private, seed, no_inner_wrapper).at(Step::Import)
    })?;
    Ok(taken.value().to_vec())
}

/// What these codes say of the node root is said of the bundle here: its authValue is another request's, or it holds no key.
fn of_bundle(fault: Fault) -> Fault {
    match fault.code {
        FaultCode::Auth | FaultCode::Foreign => Fault::new(FaultCode::ForeignBundle, fault.detail),
        _ => fault,
    }
}
