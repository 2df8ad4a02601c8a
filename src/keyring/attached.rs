//! What travels beside a text: the copies of its KEK that providers made, and a check value by which the right one is known
//! (docs/formats.md, "Annotations"). Pure; what cannot be read is as good as not there.
//!
//! The check value lets a wrong answer of a provider be told from a text that was changed, before anything is decrypted, and lets
//! many texts of one KEK share one question. It is a MAC under the KEK, and says nothing of it to whoever does not have it.
//!
//! Names are made of the kind and of the key's identity, never of what the configuration calls a provider.

use hmac::Mac;

use crate::envelope::{WrapError, Wraps};
use crate::provider::{Form, Wrapped};
use crate::types::mac::hmac_sha256;
use crate::types::{KekId, Key, hex};

const CHECK_NAME: &str = "check.kek.nodeseal.internal";
const CHECK_LABEL: &[u8] = b"nodeseal kek check v1\0";
/// Bytes. Enough that no second key of the same check value is ever met by chance.
pub(super) const CHECK_BYTES: usize = 16;
/// Tells a KEK from every other one of the same id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Check([u8; CHECK_BYTES]);

impl Check {
    pub(super) fn of(id: &KekId, key: &[u8; Key::LEN]) -> Self {
        let mac = hmac_sha256(key);
        let tag = mac.chain_update(CHECK_LABEL).chain_update(id.as_bytes()).finalize().into_bytes();
        let mut check = [0; CHECK_BYTES];
        check.copy_from_slice(&tag[..CHECK_BYTES]);
        Self(check)
    }

    pub(super) const fn as_bytes(&self) -> &[u8; CHECK_BYTES] {
        &self.0
    }

    #[cfg(test)]
    pub(super) fn from_hex(text: &str) -> Self {
        Self(hex::decode(text).unwrap().try_into().unwrap())
    }

    /// For showing and comparing.
    pub(super) fn to_hex(self) -> String {
        hex::encode(self.0)
    }
}

/// Names and bytes: the annotations of a v2 text, and what a v1 text holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attached(Vec<(String, Vec<u8>)>);

impl Attached {
    /// Nothing without a wrap: texts of a node without providers stay what they always were.
    pub(super) fn new<'a>(check: Check, wraps: impl IntoIterator<Item = &'a Wrapped>, form: Form) -> Self {
        let mut pairs: Vec<_> = wraps.into_iter().map(|wrap| (wrap.name(form), wrap.encode())).collect();
        if !pairs.is_empty() {
            pairs.push((CHECK_NAME.to_owned(), check.0.to_vec()));
        }
        Self(pairs)
    }

    /// As the envelope binds them.
    pub(super) fn wraps(&self) -> Result<Wraps<'_>, WrapError> {
        Wraps::new(self.iter())
    }

    /// Fully qualified domain names, and bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_slice()))
    }
}

/// What a text brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Brought {
    pub(super) check: Check,
    pub(super) wraps: Vec<Wrapped>,
    pub(super) form: Form,
}

impl Brought {
    /// `None` if nobody could open it but a node that has the KEK.
    pub(super) fn read(wraps: &Wraps<'_>) -> Option<Self> {
        let check =
            wraps.iter().find(|(name, _)| *name == CHECK_NAME).and_then(|(_, value)| value.try_into().ok().map(Check));
        let (form, found) = Wrapped::all_in(wraps.iter());
        check.filter(|_| !found.is_empty()).map(|check| Self { check, wraps: found, form })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::{KeyIdentity, KeyVersion, ProviderKind};

    fn wrap(identity: &str) -> Wrapped {
        let identity = KeyIdentity::new(identity).unwrap();
        Wrapped::new(ProviderKind::Vault, identity, KeyVersion::new("1").unwrap(), b"text".to_vec()).unwrap()
    }

    #[test]
    fn frozen_vector_of_a_check_value_and_of_names() {
        let check = Check::of(&KekId::from_bytes([1; 16]), &[2; 32]);
        let attached = Attached::new(check, &[wrap("transit/k@1")], Form::Local);
        let names: Vec<_> = attached.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["vault-50cebec6d6db0e6b.wrap.nodeseal.internal", "check.kek.nodeseal.internal"]);
        assert_eq!(hex::encode(check.0), "b5c51091a781c179e5c43fe1b6191904");
    }

    #[test]
    fn what_was_attached_is_read_back_and_anything_else_is_left_out() {
        let check = Check::of(&KekId::from_bytes([1; 16]), &[2; 32]);
        for form in [Form::Local, Form::Once] {
            let attached = Attached::new(check, &[wrap("a"), wrap("b")], form);
            let mut pairs: Vec<_> = attached.iter().collect();
            pairs.push(("x.wrap.nodeseal.internal", b"no wrap"));
            pairs.push(("somebody.else", b"1"));
            let brought = Brought::read(&Wraps::new(pairs).unwrap()).unwrap();
            assert_eq!((brought.check, brought.wraps.len(), brought.form), (check, 2, form));
        }
        assert_eq!(Attached::new(check, &[], Form::Local), Attached::default());
        assert_eq!(Brought::read(&Wraps::default()), None);
    }

    #[test]
    fn keks_of_one_id_are_told_apart() {
        let id = KekId::from_bytes([1; 16]);
        assert_ne!(Check::of(&id, &[2; 32]), Check::of(&id, &[3; 32]));
        assert_ne!(Check::of(&id, &[2; 32]), Check::of(&KekId::from_bytes([2; 16]), &[2; 32]));
    }
}
