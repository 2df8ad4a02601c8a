//! Encrypting and decrypting by the token, in three ways, and the trial that each must pass before it is relied on.
//!
//! Tokens want the parameters of one mechanism differently: who makes the IV of AES-GCM, and how the missing label of RSA-OAEP is
//! said, is found out in the trial, and kept with the key as long as its handle. No form shows in what is stored, so that
//! whoever opens a text without a trial before tries the forms as well. AES-CBC and HMAC have one form.
//!
//! Never OAEP with SHA-1, never CBC without a MAC that is looked at first.

use std::ffi::c_ulong;

use cryptoki::error::Error;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::rsa::{PkcsMgfType, PkcsOaepParams, PkcsOaepSource};
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::mechanism::{Mechanism, MechanismType};
use cryptoki::object::ObjectHandle;
use cryptoki::session::Session;
use cryptoki::types::Ulong;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::blob::{MAC_BYTES, Sealed, iv_bytes};
use super::fault::{Failure, Step};
use super::handles::{Handles, IvForm, LabelForm};
use crate::seal::fault::{Fault, FaultCode};
use crate::sealer::settings::Pkcs11Mechanism;
use crate::types::random;

/// Bits of the GCM tag. NIST SP 800-38D §5.2.1.2 allows less; we do not.
const GCM_TAG_BITS: Ulong = Ulong::new(128);
const GCM_TAG_BYTES: usize = 16;

/// CK_RSA_PKCS_OAEP_PARAMS without a source, which the library cannot say.
#[repr(C)]
struct OaepWithoutSource {
    hash: c_ulong,
    mask: c_ulong,
    source: c_ulong,
    data: *const u8,
    data_bytes: c_ulong,
}

/// CKM_SHA256 and CKG_MGF1_SHA256. Nothing else: another mask would make another text.
const OAEP_WITHOUT_SOURCE: OaepWithoutSource =
    OaepWithoutSource { hash: 0x250, mask: 2, source: 0, data: std::ptr::null(), data_bytes: 0 };

/// CK_GCM_PARAMS without an IV, which the library cannot say: PKCS#11 v3.0 §2.12.3, and the header's `ulIvBits`.
#[repr(C)]
struct GcmWithoutIv {
    iv: *const u8,
    iv_bytes: c_ulong,
    iv_bits: c_ulong,
    aad: *const u8,
    aad_bytes: c_ulong,
    tag_bits: c_ulong,
}

/// Separates the token's MAC from whatever else a key of that kind may be used for.
const MAC_LABEL: &[u8] = b"nodeseal pkcs11 mac v1\0";

/// Bytes of a trial: as many as a payload has.
const TRIAL_BYTES: usize = 64;

/// Stands for the head in a trial. Never empty: SoftHSM 2 reads the first byte of an AAD that has none.
const TRIAL_HEAD: &[u8] = b"nodeseal pkcs11 trial";

/// What the token must list before a key for it is made. The trial decides.
pub(super) const fn needed(mechanism: Pkcs11Mechanism) -> &'static [MechanismType] {
    match mechanism {
        Pkcs11Mechanism::AesGcm => &[MechanismType::AES_KEY_GEN, MechanismType::AES_GCM],
        Pkcs11Mechanism::RsaOaepSha256 => &[MechanismType::RSA_PKCS_KEY_PAIR_GEN, MechanismType::RSA_PKCS_OAEP],
        Pkcs11Mechanism::AesCbcHmac => &[
            MechanismType::AES_KEY_GEN,
            MechanismType::AES_CBC_PAD,
            MechanismType::GENERIC_SECRET_KEY_GEN,
            MechanismType::SHA256_HMAC,
        ],
    }
}

/// Encrypts, and authenticates `head` with it where the mechanism can.
pub(super) fn encrypt(session: &Session, keys: &Handles, head: &[u8], payload: &[u8]) -> Result<Sealed, Failure> {
    let fail = |error| Failure::new(Step::Encrypt, &error);
    match *keys {
        Handles::Aes { key, iv } => encrypt_gcm(session, key, iv, head, payload),
        Handles::Rsa { public, label, .. } => {
            let public = public.ok_or_else(|| {
                Failure::last(Fault::new(FaultCode::HsmKey, "the RSA key has no public half in the token"))
            })?;
            let text = session.encrypt(&oaep(label), public, payload).map_err(fail)?;
            Ok(Sealed { iv: Vec::new(), text, mac: Vec::new() })
        }
        Handles::AesAndMac { aes, mac } => {
            let iv: [u8; 16] = fresh_iv()?;
            let text = session.encrypt(&Mechanism::AesCbcPad(iv), aes, payload).map_err(fail)?;
            let mac = token_mac(session, mac, head, &iv, &text).map_err(fail)?;
            Ok(Sealed { iv: iv.to_vec(), text, mac })
        }
    }
}

/// The mirror of [`encrypt`], in whichever form the token takes.
pub(super) fn decrypt(
    session: &Session,
    keys: &Handles,
    head: &[u8],
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let opened = decrypt_in_form(session, keys, head, sealed);
    let Handles::Rsa { public, private, label } = *keys else { return opened };
    match opened {
        Err(failure) if failure.is_of_parameters() => {
            let others = LabelForm::ALL.into_iter().filter(|other| *other != label);
            let open = |label| decrypt_in_form(session, &Handles::Rsa { public, private, label }, head, sealed);
            // What the token says of the first form is about what the operator looks up.
            others.map(open).find(Result::is_ok).unwrap_or(Err(failure))
        }
        opened => opened,
    }
}

fn decrypt_in_form(
    session: &Session,
    keys: &Handles,
    head: &[u8],
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let fail = |error| Failure::new(Step::Decrypt, &error);
    let (mechanism, key);
    let mut iv = sealed.iv.clone();
    match *keys {
        Handles::Aes { key: aes, .. } => {
            let params = GcmParams::new(&mut iv, head, GCM_TAG_BITS).map_err(fail)?;
            (mechanism, key) = (Mechanism::AesGcm(params), aes);
        }
        Handles::Rsa { private, label, .. } => (mechanism, key) = (oaep(label), private),
        Handles::AesAndMac { aes, mac } => {
            let expected = token_mac(session, mac, head, &sealed.iv, &sealed.text).map_err(fail)?;
            if expected.len() != MAC_BYTES || !bool::from(expected.ct_eq(&sealed.mac)) {
                return Err(Failure::last(Fault::new(FaultCode::HsmForeign, "its MAC does not fit")));
            }
            let iv = sealed.iv.as_slice().try_into();
            let iv = iv.map_err(|_| Failure::last(Fault::new(FaultCode::Format, "the IV is not one of AES")))?;
            (mechanism, key) = (Mechanism::AesCbcPad(iv), aes);
        }
    }
    session.decrypt(&mechanism, key, &sealed.text).map(Zeroizing::new).map_err(fail)
}

/// Whether this key does what we need, and with which parameters.
pub(super) fn trial(session: &Session, keys: &Handles) -> Result<Handles, Failure> {
    let mut refused = None;
    for keys in forms(*keys) {
        match try_out(session, &keys) {
            Ok(()) => return Ok(keys),
            // What the token says of the first form is about what the operator looks up.
            Err(failure) if failure.is_of_parameters() => refused = refused.or(Some(failure)),
            Err(failure) => return Err(refused.unwrap_or(failure)),
        }
    }
    Err(refused.unwrap_or_else(|| Failure::last(Fault::new(FaultCode::Internal, "no form of parameters"))))
}

/// The same key in each form of its mechanism's parameters, in the order in which they are tried.
fn forms(keys: Handles) -> Vec<Handles> {
    match keys {
        Handles::Aes { key, .. } => IvForm::ALL.map(|iv| Handles::Aes { key, iv }).into(),
        Handles::Rsa { public, private, .. } => {
            LabelForm::ALL.map(|label| Handles::Rsa { public, private, label }).into()
        }
        Handles::AesAndMac { .. } => vec![keys],
    }
}

/// It gives back what it was given, and refuses what was changed.
fn try_out(session: &Session, keys: &Handles) -> Result<(), Failure> {
    let odd = |what: &str| Failure::last(Fault::new(FaultCode::HsmMechanism, what.to_owned()));
    let payload: [u8; TRIAL_BYTES] =
        random::array().map_err(|error| Failure::last(Fault::new(FaultCode::Internal, error.to_string())))?;
    let mut sealed = encrypt(session, keys, TRIAL_HEAD, &payload)?;
    if decrypt(session, keys, TRIAL_HEAD, &sealed)?.as_slice() != payload {
        return Err(odd("a trial gave other bytes back"));
    }
    if let Some(byte) = sealed.text.last_mut() {
        *byte ^= 1;
    }
    match decrypt(session, keys, TRIAL_HEAD, &sealed) {
        Ok(_) => Err(odd("a trial opened a text that was changed")),
        Err(failure) if failure.is_of_device() => Err(failure),
        Err(_) => Ok(()),
    }
}

fn encrypt_gcm(
    session: &Session,
    key: ObjectHandle,
    form: IvForm,
    head: &[u8],
    payload: &[u8],
) -> Result<Sealed, Failure> {
    const IV_BYTES: usize = iv_bytes(Pkcs11Mechanism::AesGcm);
    let fail = |error: Error| Failure::new(Step::Encrypt, &error);
    let odd = |detail: String| Failure::last(Fault::new(FaultCode::HsmMechanism, detail));
    let mut iv = match form {
        IvForm::Given => fresh_iv()?,
        IvForm::Zeros | IvForm::Absent => [0; IV_BYTES],
    };
    let mut text = if form == IvForm::Absent {
        let aad_bytes = c_ulong::try_from(head.len()).map_err(|error| odd(error.to_string()))?;
        let params = GcmWithoutIv {
            iv: std::ptr::null(),
            iv_bytes: 0,
            iv_bits: 0,
            aad: head.as_ptr(),
            aad_bytes,
            tag_bits: GCM_TAG_BITS.into(),
        };
        let mechanism = VendorDefinedMechanism::new(MechanismType::AES_GCM, Some(&params));
        session.encrypt(&Mechanism::VendorDefined(mechanism), key, payload).map_err(fail)?
    } else {
        let params = GcmParams::new(&mut iv, head, GCM_TAG_BITS).map_err(fail)?;
        session.encrypt(&Mechanism::AesGcm(params), key, payload).map_err(fail)?
    };
    // From here on `iv` is what the token used, or its own comes behind the text.
    let with_tag = payload.len() + GCM_TAG_BYTES;
    let mut used = iv.to_vec();
    if text.len() == with_tag + IV_BYTES {
        used = text.split_off(with_tag);
    }
    if text.len() != with_tag {
        return Err(odd(format!("AES-GCM gave {} bytes for {}", text.len(), payload.len())));
    }
    // The token took zeros for an IV: the next one would be the same.
    if used == [0; IV_BYTES] {
        return Err(odd("AES-GCM used an IV of zeros".to_owned()));
    }
    Ok(Sealed { iv: used, text, mac: Vec::new() })
}

/// No label: hardly a token takes one. The payload itself authenticates the head.
fn oaep(label: LabelForm) -> Mechanism<'static> {
    match label {
        LabelForm::Empty => {
            let params = PkcsOaepParams::new(MechanismType::SHA256, PkcsMgfType::MGF1_SHA256, PkcsOaepSource::empty());
            Mechanism::RsaPkcsOaep(params)
        }
        LabelForm::Absent => {
            let mechanism = VendorDefinedMechanism::new(MechanismType::RSA_PKCS_OAEP, Some(&OAEP_WITHOUT_SOURCE));
            Mechanism::VendorDefined(mechanism)
        }
    }
}

fn token_mac(session: &Session, key: ObjectHandle, head: &[u8], iv: &[u8], text: &[u8]) -> Result<Vec<u8>, Error> {
    session.sign(&Mechanism::Sha256Hmac, key, &[MAC_LABEL, head, iv, text].concat())
}

fn fresh_iv<const N: usize>() -> Result<[u8; N], Failure> {
    random::array().map_err(|error| Failure::last(Fault::new(FaultCode::Internal, error.to_string())))
}
