//! The storage root key: finds it, pins it, makes it where there is none. Never evicts and never changes one.
//!
//! A handle is a place where a key is looked for first, and the Name decides: where another program has put a key of its own since, the
//! pinned one is made from its template for the moment, if it still comes out.
//!
//! The pin is the Name that ESYS computes from the public area which it stored and to which it will encrypt the salt
//! (`Esys_TR_GetName`), not the Name inside of an answer: whoever swaps the public area on the bus gets no salt.

use std::sync::atomic::{AtomicBool, Ordering};

use subtle::ConstantTimeEq;
use tss_esapi::Context;
use tss_esapi::handles::{KeyHandle, ObjectHandle, PersistentTpmHandle};
use tss_esapi::interface_types::dynamic_handles::Persistent;
use tss_esapi::interface_types::resource_handles::{Hierarchy, Provision};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::Public;
use tss_esapi::traits::{Marshall, UnMarshall};

use super::blob::Blob;
use super::fault::{At, Failure, Prospect, Rc, Step};
use super::template::{self, SrkTemplate};
use crate::audit::{Event, emit};
use crate::seal::fault::FaultCode;
use crate::seal::tcg::{self, Name};
use crate::sealer::settings::OWNER_PERSISTENT_HANDLES;
use crate::types::hex;

/// The event of a displaced key was written: once is enough for a process that is asked again and again.
static TOLD: AtomicBool = AtomicBool::new(false);

/// A storage root key that is ready to use.
pub(super) struct Srk {
    /// In this context.
    pub(super) handle: KeyHandle,
    /// What to pin.
    pub(super) name: Name,
    /// What makes it again if it is lost from its handle.
    pub(super) template: Option<SrkTemplate>,
}

/// That of the pin, wherever it was; without one, as [`for_sealing`].
pub(super) fn of(context: &mut Context, handle: u32, pin: Option<&Blob>) -> Result<Srk, Failure> {
    match pin {
        Some(pin) => pinned(context, pin),
        None => for_sealing(context, handle, None),
    }
}

/// The key at the handle, whoever made it, if it is fit; otherwise a new one. With a pin, that very key or none.
pub(super) fn for_sealing(context: &mut Context, handle: u32, pin: Option<&Blob>) -> Result<Srk, Failure> {
    match (at_handle(context, handle)?, pin) {
        // The place is the pin's own. Another one was chosen by the operator, and that is not followed without his word.
        (Some(_), Some(pin)) if pin.parent_handle == handle => pinned(context, pin),
        (Some(key), pin) => fit(context, key, handle, pin),
        (None, pin) => make(context, handle, pin),
    }
}

/// The very key that the blob was sealed under, wherever it is.
pub(super) fn pinned(context: &mut Context, blob: &Blob) -> Result<Srk, Failure> {
    let found = match at_handle(context, blob.parent_handle)? {
        Some(key) => {
            let name = context.tr_get_name(key.into()).at(Step::ReadSrk)?;
            match expect(name.value(), blob) {
                Ok(()) => return Ok(Srk { handle: key, name: blob.parent_name, template: blob.parent_template }),
                Err(changed) => Some((hex::encode(name.value()), changed)),
            }
        }
        None => None,
    };
    match (remake(context, blob), found) {
        (Ok((template, key)), found) => {
            if let Some((found, _)) = found {
                tell(blob.parent_handle, &found);
            }
            Ok(Srk { handle: key, name: blob.parent_name, template: Some(template) })
        }
        (Err(failure), Some((_, changed))) => Err(blamed(failure, changed)),
        (Err(failure), None) => Err(failure),
    }
}

/// Which of the two is told of a handle with another key, when the pinned one cannot be made either.
fn blamed(failure: Failure, changed: Failure) -> Failure {
    match failure {
        // Neither is mended by what the operator is told of the key at the handle.
        Failure::Answer { rc: Some(rc), .. } if !rc.is_denied() && !rc.is_unsupported() => failure,
        Failure::Answer { .. } => {
            let (changed, why) = (changed.into_fault(), failure.into_fault().detail);
            Failure::refused(changed.code, format!("{}; it cannot be made for the moment: {why}", changed.detail))
        }
        Failure::Refused(_) => changed,
    }
}

fn tell(handle: u32, found: &str) {
    if !TOLD.swap(true, Ordering::Relaxed) {
        emit(&Event::HandleTaken { handle, found });
    }
}

/// Before anything is encrypted to the key: everything that is secret comes after it.
fn expect(found: &[u8], pin: &Blob) -> Result<(), Failure> {
    if bool::from(found.ct_eq(&pin.parent_name)) {
        return Ok(());
    }
    let (found, pinned) = (hex::encode(found), hex::encode(pin.parent_name));
    Err(Failure::refused(FaultCode::SrkChanged, format!("found {found}, sealed under {pinned}")))
}

/// The key of a blob, lost from its handle but not from the TPM, if the owner seed is still the same.
fn remake(context: &mut Context, blob: &Blob) -> Result<(SrkTemplate, KeyHandle), Failure> {
    let missing =
        |detail: &str| Failure::refused(FaultCode::SrkMissing, format!("{:#x}: {detail}", blob.parent_handle));
    let template =
        blob.parent_template.ok_or_else(|| missing("absent, and none of Nodeseal's templates makes it again"))?;
    let key = create(context, template)?;
    if same(&name_of(context, key)?, &blob.parent_name) {
        Ok((template, key))
    } else {
        Err(missing("absent, and its template makes another key now"))
    }
}

/// The Name at the handle; `None` if nothing is there or what is there has another kind of Name.
pub(super) fn name_at(context: &mut Context, handle: u32) -> Result<Option<Name>, Failure> {
    match at_handle(context, handle)? {
        Some(key) => Ok(name_of(context, key).ok()),
        None => Ok(None),
    }
}

fn same(one: &Name, other: &Name) -> bool {
    one.ct_eq(other).into()
}

fn at_handle(context: &mut Context, handle: u32) -> Result<Option<KeyHandle>, Failure> {
    let persistent = persistent(handle)?;
    match context.tr_from_tpm_public(persistent.into()).at(Step::ReadSrk) {
        Ok(object) => Ok(Some(object.into())),
        Err(failure) if failure.rc().is_some_and(Rc::is_absent) => Ok(None),
        Err(failure) => Err(failure),
    }
}

fn persistent(handle: u32) -> Result<PersistentTpmHandle, Failure> {
    OWNER_PERSISTENT_HANDLES.contains(&handle).then(|| PersistentTpmHandle::new(handle).ok()).flatten().ok_or_else(
        || Failure::refused(FaultCode::SrkUnfit, format!("{handle:#x} is not a persistent handle of the owner")),
    )
}

fn name_of(context: &mut Context, key: KeyHandle) -> Result<Name, Failure> {
    let name = context.tr_get_name(key.into()).at(Step::ReadSrk)?;
    name.value()
        .try_into()
        .map_err(|_| Failure::refused(FaultCode::SrkUnfit, "its name algorithm is not SHA-256".to_owned()))
}

/// The public area is a second answer of the bus, so that it counts only if it has the Name that we pin.
fn fit(context: &mut Context, key: KeyHandle, handle: u32, pin: Option<&Blob>) -> Result<Srk, Failure> {
    let unfit = |why: &str| Failure::refused(FaultCode::SrkUnfit, format!("{handle:#x}: {why}"));
    let name = name_of(context, key)?;
    let (public, _, _) = context.read_public(key).at(Step::ReadSrk)?;
    let public = public.marshall().at(Step::ReadSrk)?;
    if let Some(why) = template::unfit(&public) {
        return Err(unfit(why));
    }
    if !same(&tcg::name(&public), &name) {
        return Err(Failure::refused(
            FaultCode::SrkChanged,
            "two answers about the storage root key differ".to_owned(),
        ));
    }
    pin.map_or(Ok(()), |pin| expect(&name, pin))?;
    let template = SrkTemplate::ALL.into_iter().find(|template| template.made(&public));
    Ok(Srk { handle: key, name, template })
}

fn make(context: &mut Context, handle: u32, pin: Option<&Blob>) -> Result<Srk, Failure> {
    let (template, transient) = match pin {
        Some(pin) => remake(context, pin)?,
        None => create_best(context)?,
    };
    let name = name_of(context, transient)?;
    let target = Persistent::Persistent(persistent(handle)?);
    let persisted = context.execute_with_session(Some(AuthSession::Password), |context| {
        context.evict_control(Provision::Owner, transient.into(), target).at(Step::PersistSrk)
    });
    match persisted {
        Ok(object) => {
            context.flush_context(ObjectHandle::from(transient)).at(Step::PersistSrk)?;
            Ok(Srk { handle: object.into(), name, template: Some(template) })
        }
        Err(failure) if pin.is_none() && failure.rc().is_some_and(Rc::is_defined) => {
            // Another program was faster: its key is the shared one.
            let key = at_handle(context, handle)?.ok_or(failure)?;
            fit(context, key, handle, None)
        }
        Err(failure) if failure.prospect() != Prospect::None => Err(failure),
        // No room for it, not allowed, or another has taken the place: the template makes the same key whenever it is needed.
        Err(_) => Ok(Srk { handle: transient, name, template: Some(template) }),
    }
}

fn create_best(context: &mut Context) -> Result<(SrkTemplate, KeyHandle), Failure> {
    let [best, fallback] = SrkTemplate::ALL;
    match create(context, best) {
        Ok(key) => Ok((best, key)),
        Err(failure) if failure.rc().is_some_and(Rc::is_unsupported) => Ok((fallback, create(context, fallback)?)),
        Err(failure) => Err(failure),
    }
}

/// With the empty password: an owner who has set another one makes the key himself (E-OWNER-AUTH).
fn create(context: &mut Context, template: SrkTemplate) -> Result<KeyHandle, Failure> {
    let public = Public::unmarshall(&template.public()).at(Step::MakeSrk)?;
    let made = context.execute_with_session(Some(AuthSession::Password), |context| {
        context.create_primary(Hierarchy::Owner, public, None, None, None, None).at(Step::MakeSrk)
    })?;
    Ok(made.key_handle)
}
