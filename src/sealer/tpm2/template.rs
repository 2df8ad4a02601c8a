//! Public areas as the TPM writes them (TPMT_PUBLIC, TPM 2.0 Part 2 §12.2.4), pure bytes: what we create, and what we accept.

use super::policy::PolicyDigest;
use crate::seal::tcg::alg;
use crate::seal::tcg::object::{
    DECRYPT, FIXED_PARENT, FIXED_TPM, NO_DA, RESTRICTED, SENSITIVE_DATA_ORIGIN, SIGN, ST_CLEAR, USER_WITH_AUTH,
};
use crate::types::wire::{Reader, WireError, Writer};

const RSA_BITS: u16 = 2048;
const AES_BITS: u16 = 128;

/// A parent must have all of these. noDA too: a lockout, or three power cuts while a key without it is in use, would close it.
const PARENT_NEEDS: u32 = FIXED_TPM | FIXED_PARENT | USER_WITH_AUTH | NO_DA | RESTRICTED | DECRYPT;
/// A parent must have none of these.
const PARENT_MUST_NOT: u32 = ST_CLEAR | SIGN;

/// Only way in is the policy (no userWithAuth), nothing may change it (no adminWithPolicy), it never leaves, and it is exempt
/// from dictionary-attack protection: its authValue has 256 bits.
const SEALED: u32 = FIXED_TPM | FIXED_PARENT | NO_DA;

/// A storage root key that any TPM makes again, byte for byte, until its owner seed changes (TPM2_Clear).
///
/// TCG TPM v2.0 Provisioning Guidance §7.5.1 over the EK Credential Profile's templates L-2 and L-1, with an empty `unique`:
/// what tpm2-tools and systemd make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SrkTemplate {
    /// ECC NIST P-256, the first choice.
    EccP256 = 1,
    /// RSA 2048, for a TPM without that curve.
    Rsa2048 = 2,
}

impl SrkTemplate {
    /// All, best first.
    pub(super) const ALL: [Self; 2] = [Self::EccP256, Self::Rsa2048];

    /// The public area to ask for.
    pub(super) fn public(self) -> Vec<u8> {
        // An empty `unique` is two empty coordinates, or one empty modulus.
        let unique: &[u8] = match self {
            Self::EccP256 => &[0; 4],
            Self::Rsa2048 => &[0; 2],
        };
        Writer::new().raw(&self.parameters()).raw(unique).finish()
    }

    /// Whether `public` was made from this template: all but `unique` is equal.
    pub(super) fn made(self, public: &[u8]) -> bool {
        public.starts_with(&self.parameters())
    }

    fn parameters(self) -> Vec<u8> {
        let algorithm = match self {
            Self::EccP256 => alg::ECC,
            Self::Rsa2048 => alg::RSA,
        };
        let mut w = Writer::new();
        w.u16(algorithm).u16(alg::SHA256).u32(PARENT_NEEDS | SENSITIVE_DATA_ORIGIN).bytes16(&[]);
        w.u16(alg::AES).u16(AES_BITS).u16(alg::CFB).u16(alg::NULL);
        match self {
            Self::EccP256 => w.u16(alg::NIST_P256).u16(alg::NULL),
            Self::Rsa2048 => w.u16(RSA_BITS).u32(0),
        };
        w.finish()
    }
}

/// The public area of a sealed object with an empty `unique`, to ask for.
pub(super) fn sealed(policy: &PolicyDigest) -> Vec<u8> {
    Writer::new().raw(&sealed_parameters(policy)).bytes16(&[]).finish()
}

/// Whether `public` is a sealed object of ours under that policy: every byte but the 32 of `unique` is known.
pub(super) fn is_sealed(public: &[u8], policy: &PolicyDigest) -> bool {
    public.strip_prefix(sealed_parameters(policy).as_slice()).is_some_and(|unique| match unique {
        [0, 32, rest @ ..] => rest.len() == 32,
        _ => false,
    })
}

fn sealed_parameters(policy: &PolicyDigest) -> Vec<u8> {
    Writer::new().u16(alg::KEYEDHASH).u16(alg::SHA256).u32(SEALED).bytes16(policy).u16(alg::NULL).finish()
}

/// Why a key cannot be the parent of what we seal; `None` if it can. Says nothing of its authValue, which only a use shows.
pub(super) fn unfit(public: &[u8]) -> Option<&'static str> {
    match head(public) {
        Ok((alg::ECC | alg::RSA, alg::SHA256, attributes)) => {
            if attributes & PARENT_NEEDS == PARENT_NEEDS && attributes & PARENT_MUST_NOT == 0 {
                None
            } else {
                Some(
                    "its attributes are not those of a storage key (restricted, decrypt, fixedTPM, fixedParent, userWithAuth, noDA)",
                )
            }
        }
        Ok((alg::ECC | alg::RSA, _, _)) => Some("its name algorithm is not SHA-256"),
        Ok(_) => Some("it is not an asymmetric key"),
        Err(_) => Some("its public area is cut off"),
    }
}

fn head(public: &[u8]) -> Result<(u16, u16, u32), WireError> {
    let mut r = Reader::new(public);
    Ok((r.u16("type")?, r.u16("name algorithm")?, r.u32("attributes")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hex;

    #[test]
    fn the_storage_root_key_templates_are_those_of_the_tcg() {
        // tpm2_createprimary -C o -G ecc|rsa -a 'restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda',
        // its public area without `unique`.
        let ecc = "0023000b00030472000000060080004300100003001000000000";
        let rsa = "0001000b00030472000000060080004300100800000000000000";
        assert_eq!(hex::encode(SrkTemplate::EccP256.public()), ecc);
        assert_eq!(hex::encode(SrkTemplate::Rsa2048.public()), rsa);
        for template in SrkTemplate::ALL {
            assert_eq!(unfit(&template.public()), None);
            assert!(template.made(&template.public()));
        }
        assert!(!SrkTemplate::Rsa2048.made(&SrkTemplate::EccP256.public()));
    }

    #[test]
    fn a_sealed_object_opens_by_policy_only_and_never_leaves() {
        let policy = [0x5A; 32];
        let asked = sealed(&policy);
        assert_eq!(hex::encode(&asked[..10]), "0008000b000004120020");
        assert!(!is_sealed(&asked, &policy), "without `unique` it is only a request");
        let mut made = asked[..asked.len() - 2].to_vec();
        made.extend_from_slice(&[0, 32]);
        made.extend_from_slice(&[7; 32]);
        assert!(is_sealed(&made, &policy) && !is_sealed(&made, &[0; 32]));
        for index in 0..made.len() - 32 {
            let mut edited = made.clone();
            edited[index] ^= 0x40;
            assert!(!is_sealed(&edited, &policy), "byte {index}");
        }
        assert!(!is_sealed(&[&made[..], &[0]].concat(), &policy));
    }

    #[test]
    fn what_is_no_storage_key_is_unfit_and_says_why() {
        let with = |attributes: u32| {
            let mut public = SrkTemplate::EccP256.public();
            public[4..8].copy_from_slice(&attributes.to_be_bytes());
            public
        };
        let good = PARENT_NEEDS | SENSITIVE_DATA_ORIGIN;
        assert_eq!(unfit(&with(good)), None);
        for bit in (0..32).filter(|bit| PARENT_NEEDS >> bit & 1 == 1) {
            assert!(unfit(&with(good & !(1 << bit))).is_some(), "without attribute {bit}");
        }
        assert!(unfit(&with(good | SIGN)).is_some() && unfit(&with(good | ST_CLEAR)).is_some());
        assert_eq!(unfit(&sealed(&[0; 32])), Some("it is not an asymmetric key"));
        assert_eq!(unfit(&[0, 0x23]), Some("its public area is cut off"));
        let mut sha384 = with(good);
        sha384[3] = 0x0C;
        assert_eq!(unfit(&sha384), Some("its name algorithm is not SHA-256"));
    }
}
