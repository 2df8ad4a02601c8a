//! The wrapping key: found by label and id, made when there is none, and never one that the token would give away.
//!
//! Destroys nothing but what it has itself made a moment ago and found useless.

use cryptoki::context::Pkcs11;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::types::Ulong;

use super::blob::Head;
use super::fault::{Failure, Step};
use super::handles::{Handles, IvForm, LabelForm};
use super::mechanism::{needed, trial};
use super::token::Token;
use crate::seal::fault::{Fault, FaultCode};
use crate::sealer::settings::{Pkcs11Mechanism, Pkcs11Settings};
use crate::types::{hex, random};

/// Bytes of an AES and of an HMAC-SHA256 key.
const KEY_BYTES: Ulong = Ulong::new(32);
/// 128 bits of security: NIST SP 800-57 Part 1, table 2.
const MODULUS_BITS: Ulong = Ulong::new(3072);
/// 65537
const PUBLIC_EXPONENT: [u8; 3] = [1, 0, 1];
/// Bytes of a CKA_ID of ours.
const ID_BYTES: usize = 16;

/// A wrapping key that passed its trial.
pub(super) struct WrappingKey {
    pub(super) mechanism: Pkcs11Mechanism,
    pub(super) id: Vec<u8>,
    pub(super) handles: Handles,
}

/// What is looked for, and made if it may be.
#[derive(Clone, Copy)]
pub(super) struct Wanted<'a> {
    pub(super) label: &'a str,
    pub(super) id: Option<&'a [u8]>,
    pub(super) make: bool,
    /// See [`Pkcs11Settings::trust_key`].
    pub(super) trust: bool,
    /// In the order in which they are tried.
    pub(super) mechanisms: &'a [Pkcs11Mechanism],
}

impl<'a> Wanted<'a> {
    /// The key that seals the node root.
    pub(super) fn of(settings: &'a Pkcs11Settings) -> Self {
        let Pkcs11Settings { key_label, key_id, make_key, trust_key, mechanism, .. } = settings;
        let mechanisms = mechanism.as_ref().map_or(Pkcs11Mechanism::ALL.as_slice(), std::slice::from_ref);
        Self { label: key_label, id: key_id.as_deref(), make: *make_key, trust: *trust_key, mechanisms }
    }
}

/// An object with its CKA_ID.
type Found = (Vec<u8>, ObjectHandle);

/// The key that new seals go under: the one that is there, or a new one.
pub(super) fn for_sealing(library: &Pkcs11, token: &Token, wanted: &Wanted<'_>) -> Result<WrappingKey, Failure> {
    let session = &token.session;
    let Wanted { label, id, make: may_make, trust, mechanisms } = *wanted;
    for mechanism in mechanisms {
        if let Some((id, handles)) = one(session, *mechanism, label, id, trust)? {
            return trial(session, &handles).map(|handles| WrappingKey { mechanism: *mechanism, id, handles });
        }
    }
    if id.is_some() || !may_make {
        return Err(fault(FaultCode::HsmKey, format!("there is no key of the label {label:?}{}", and_id(id))));
    }
    let offered = library.get_mechanism_list(token.slot).map_err(|error| Failure::new(Step::FindToken, &error))?;
    let mut reasons = Vec::new();
    for mechanism in mechanisms.iter().copied() {
        match needed(mechanism).iter().find(|needed| !offered.contains(needed)) {
            Some(absent) => reasons.push(format!("{}: {absent} is not offered", mechanism.label())),
            None => match make(session, mechanism, label, trust) {
                Ok(made) => return Ok(made),
                Err(failure) if failure.is_of_device() => return Err(failure),
                Err(failure) => reasons.push(format!("{}: {}", mechanism.label(), failure.fault().detail)),
            },
        }
    }
    Err(fault(FaultCode::HsmMechanism, reasons.join("; ")))
}

/// Until a trial says otherwise.
const fn aes(key: ObjectHandle) -> Handles {
    Handles::Aes { key, iv: IvForm::Given }
}

/// The same.
const fn rsa(public: Option<ObjectHandle>, private: ObjectHandle) -> Handles {
    Handles::Rsa { public, private, label: LabelForm::Empty }
}

/// Exactly the key that a blob names.
pub(super) fn named(session: &Session, head: &Head, trust: bool) -> Result<Handles, Failure> {
    match one(session, head.mechanism, &head.key_label, Some(&head.key_id), trust)? {
        Some((_, handles)) => Ok(handles),
        None => Err(fault(
            FaultCode::HsmKey,
            format!(
                "there is no key of the label {:?} and the id {}; it was sealed by the token {:?}, serial number {:?}",
                head.key_label,
                hex::encode(&head.key_id),
                head.token[0],
                head.token[1]
            ),
        )),
    }
}

/// Label and id of the key that is there; empty if there is none, or several.
pub(super) fn name(session: &Session, settings: &Pkcs11Settings) -> Result<String, Failure> {
    for mechanism in Pkcs11Mechanism::ALL {
        if settings.mechanism.is_some_and(|pinned| pinned != mechanism) {
            continue;
        }
        match one(session, mechanism, &settings.key_label, settings.key_id.as_deref(), settings.trust_key) {
            Ok(Some((id, _))) => return Ok(format!("{} {}", settings.key_label, hex::encode(id))),
            Ok(None) => {}
            Err(failure) if failure.is_of_device() => return Err(failure),
            Err(_) => break,
        }
    }
    Ok(String::new())
}

fn one(
    session: &Session,
    mechanism: Pkcs11Mechanism,
    label: &str,
    id: Option<&[u8]>,
    trust: bool,
) -> Result<Option<(Vec<u8>, Handles)>, Failure> {
    let find = |class, kind| find(session, class, kind, label, id);
    let macs =
        |session, id: &[u8]| self::find(session, ObjectClass::SECRET_KEY, KeyType::GENERIC_SECRET, label, Some(id));
    let found = match mechanism {
        // An AES key with an HMAC key of the same id is half of a pair, and used in that way only.
        Pkcs11Mechanism::AesGcm => {
            let mut lone = Vec::new();
            for (id, key) in find(ObjectClass::SECRET_KEY, KeyType::AES)? {
                if macs(session, &id)?.is_empty() {
                    lone.push((id, aes(key)));
                }
            }
            lone
        }
        Pkcs11Mechanism::RsaOaepSha256 => {
            let mut pairs = Vec::new();
            for (id, private) in find(ObjectClass::PRIVATE_KEY, KeyType::RSA)? {
                let publics = self::find(session, ObjectClass::PUBLIC_KEY, KeyType::RSA, label, Some(&id))?;
                pairs.push((id, rsa(publics.first().map(|(_, key)| *key), private)));
            }
            pairs
        }
        Pkcs11Mechanism::AesCbcHmac => {
            let mut pairs = Vec::new();
            for (id, aes) in find(ObjectClass::SECRET_KEY, KeyType::AES)? {
                for (_, mac) in macs(session, &id)? {
                    pairs.push((id.clone(), Handles::AesAndMac { aes, mac }));
                }
            }
            pairs
        }
    };
    match found.as_slice() {
        [] => Ok(None),
        [(id, handles)] => {
            guard(session, handles, trust)?;
            Ok(Some((id.clone(), *handles)))
        }
        several => {
            let ids = several.iter().map(|(id, _)| hex::encode(id)).collect::<Vec<_>>().join(", ");
            let detail = format!(
                "{} keys have the label {label:?} for {}; their ids are {ids}",
                several.len(),
                mechanism.label()
            );
            Err(fault(FaultCode::HsmKey, detail))
        }
    }
}

fn find(
    session: &Session,
    class: ObjectClass,
    kind: KeyType,
    label: &str,
    id: Option<&[u8]>,
) -> Result<Vec<Found>, Failure> {
    let fail = |error| Failure::new(Step::FindKey, &error);
    let mut template = vec![
        Attribute::Token(true),
        Attribute::Class(class),
        Attribute::KeyType(kind),
        Attribute::Label(label.as_bytes().to_vec()),
    ];
    template.extend(id.map(|id| Attribute::Id(id.to_vec())));
    let mut found = Vec::new();
    for object in session.find_objects(&template).map_err(fail)? {
        let id = match session.get_attributes(object, &[AttributeType::Id]).map_err(fail)?.pop() {
            Some(Attribute::Id(id)) => id,
            _ => Vec::new(),
        };
        if !(1..=Pkcs11Settings::KEY_NAME_MAX).contains(&id.len()) {
            let detail = format!("a key of the label {label:?} has a CKA_ID of {} bytes", id.len());
            return Err(fault(FaultCode::HsmKey, detail));
        }
        found.push((id, object));
    }
    Ok(found)
}

/// Refuses a key that the token would give to whoever has the PIN.
fn guard(session: &Session, handles: &Handles, trust: bool) -> Result<(), Failure> {
    let secrets = match *handles {
        Handles::Aes { key, .. } | Handles::Rsa { private: key, .. } => vec![key],
        Handles::AesAndMac { aes, mac } => vec![aes, mac],
    };
    for key in secrets {
        let asked = [AttributeType::Sensitive, AttributeType::Extractable];
        let told = session.get_attributes(key, &asked).map_err(|error| Failure::new(Step::FindKey, &error))?;
        if let Some(why) = unfit(&told, trust) {
            return Err(fault(FaultCode::HsmKey, why));
        }
    }
    Ok(())
}

/// What a token tells of a key. It leaves out what it does not know (C_GetAttributeValue, PKCS#11 v3.0 §5.7.5): then the operator's word
/// counts, and never against what it does tell.
fn unfit(told: &[Attribute], trust: bool) -> Option<&'static str> {
    if told.contains(&Attribute::Sensitive(false)) || told.contains(&Attribute::Extractable(true)) {
        return Some("the key can be read out of the token: it must be sensitive and not extractable");
    }
    let is_told = told.contains(&Attribute::Sensitive(true)) && told.contains(&Attribute::Extractable(false));
    (!is_told && !trust).then_some(
        "the token does not tell whether the key can be read out of it (CKA_SENSITIVE, CKA_EXTRACTABLE): if its maker says \
         that it cannot, set trust_key = true under [seal.pkcs11]",
    )
}

/// Makes a key and tries it; what does not pass is destroyed again.
fn make(session: &Session, mechanism: Pkcs11Mechanism, label: &str, trust: bool) -> Result<WrappingKey, Failure> {
    let fail = |error| Failure::new(Step::MakeKey, &error);
    let id = match (mechanism, orphan(session, label)?) {
        (Pkcs11Mechanism::AesCbcHmac, Some((id, mac))) => {
            // The first half of a pair whose making was interrupted.
            return finish_pair(session, label, id, mac, trust);
        }
        _ => random::array::<ID_BYTES>().map_err(|error| fault(FaultCode::Internal, error.to_string()))?.to_vec(),
    };
    let handles = match mechanism {
        Pkcs11Mechanism::AesGcm => {
            aes(session.generate_key(&Mechanism::AesKeyGen, &aes_template(label, &id)).map_err(fail)?)
        }
        Pkcs11Mechanism::RsaOaepSha256 => {
            let [public, private] = rsa_templates(label, &id);
            let pair = session.generate_key_pair(&Mechanism::RsaPkcsKeyPairGen, &public, &private).map_err(fail)?;
            rsa(Some(pair.0), pair.1)
        }
        Pkcs11Mechanism::AesCbcHmac => {
            let mac = session.generate_key(&Mechanism::GenericSecretKeyGen, &mac_template(label, &id)).map_err(fail)?;
            return finish_pair(session, label, id, mac, trust);
        }
    };
    tried(session, mechanism, id, handles, trust)
}

/// The HMAC key comes first, so that an AES key without one is never half of a pair.
fn finish_pair(
    session: &Session,
    label: &str,
    id: Vec<u8>,
    mac: ObjectHandle,
    trust: bool,
) -> Result<WrappingKey, Failure> {
    match session.generate_key(&Mechanism::AesKeyGen, &aes_template(label, &id)) {
        Ok(aes) => tried(session, Pkcs11Mechanism::AesCbcHmac, id, Handles::AesAndMac { aes, mac }, trust),
        Err(error) => {
            destroy(session, &[mac]);
            Err(Failure::new(Step::MakeKey, &error))
        }
    }
}

fn tried(
    session: &Session,
    mechanism: Pkcs11Mechanism,
    id: Vec<u8>,
    handles: Handles,
    trust: bool,
) -> Result<WrappingKey, Failure> {
    match trial(session, &handles).and_then(|handles| guard(session, &handles, trust).map(|()| handles)) {
        Ok(handles) => Ok(WrappingKey { mechanism, id, handles }),
        Err(failure) => {
            match handles {
                Handles::Aes { key, .. } => destroy(session, &[key]),
                Handles::Rsa { public, private, .. } => {
                    destroy(session, &[private]);
                    destroy(session, public.as_slice());
                }
                Handles::AesAndMac { aes, mac } => destroy(session, &[aes, mac]),
            }
            Err(failure)
        }
    }
}

/// What cannot be destroyed stays as a key that is never used; the failure that led here is what counts.
fn destroy(session: &Session, objects: &[ObjectHandle]) {
    for object in objects {
        let _ = session.destroy_object(*object);
    }
}

/// An HMAC key of this label without its AES key.
fn orphan(session: &Session, label: &str) -> Result<Option<Found>, Failure> {
    for (id, mac) in find(session, ObjectClass::SECRET_KEY, KeyType::GENERIC_SECRET, label, None)? {
        if find(session, ObjectClass::SECRET_KEY, KeyType::AES, label, Some(&id))?.is_empty() {
            return Ok(Some((id, mac)));
        }
    }
    Ok(None)
}

/// What every secret half has.
fn secret_template(label: &str, id: &[u8]) -> Vec<Attribute> {
    vec![
        Attribute::Token(true),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
    ]
}

fn aes_template(label: &str, id: &[u8]) -> Vec<Attribute> {
    let mut template = secret_template(label, id);
    template.extend([
        Attribute::ValueLen(KEY_BYTES),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
    ]);
    template
}

fn mac_template(label: &str, id: &[u8]) -> Vec<Attribute> {
    let mut template = secret_template(label, id);
    template.extend([Attribute::ValueLen(KEY_BYTES), Attribute::Sign(true), Attribute::Verify(true)]);
    template
}

fn rsa_templates(label: &str, id: &[u8]) -> [Vec<Attribute>; 2] {
    let public = vec![
        Attribute::Token(true),
        Attribute::Private(false),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Id(id.to_vec()),
        Attribute::ModulusBits(MODULUS_BITS),
        Attribute::PublicExponent(PUBLIC_EXPONENT.to_vec()),
        Attribute::Encrypt(true),
        Attribute::Wrap(false),
    ];
    let mut private = secret_template(label, id);
    private.extend([Attribute::Decrypt(true), Attribute::Unwrap(false), Attribute::Sign(false)]);
    [public, private]
}

fn fault(code: FaultCode, detail: impl Into<String>) -> Failure {
    Failure::last(Fault::new(code, detail))
}

fn and_id(id: Option<&[u8]>) -> String {
    id.map(|id| format!(" and the id {}", hex::encode(id))).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use cryptoki::object::Attribute::{Extractable, Sensitive};

    use super::unfit;

    #[test]
    fn a_key_is_used_only_if_the_token_tells_that_it_cannot_be_read_out_or_the_operator_vouches_for_it() {
        let good = [Sensitive(true), Extractable(false)];
        assert_eq!((unfit(&good, false), unfit(&good, true)), (None, None));
        for untold in [&good[..1], &good[1..], &[]] {
            assert!(unfit(untold, false).is_some_and(|why| why.contains("trust_key")), "{untold:?}");
            assert_eq!(unfit(untold, true), None, "{untold:?}");
        }
        // Nobody's word counts against the token's.
        for bad in [&[Sensitive(false)][..], &[Extractable(true)], &[Sensitive(true), Extractable(true)]] {
            for trust in [false, true] {
                assert!(unfit(bad, trust).is_some_and(|why| why.contains("can be read out")), "{bad:?}");
            }
        }
    }
}
