//! Numbers and Names of the TPM 2.0 Library that both sides of it need: who asks a TPM, and who makes a duplicate without
//! one. Nothing of ours is in it.

use sha2::{Digest, Sha256};

use crate::types::PcrBank;

/// TPM_ALG_ID (Part 2 §6.3), and the TPM_ECC_CURVE (§6.4) that we use.
pub mod alg {
    /// TPM_ALG_RSA
    pub const RSA: u16 = 0x0001;
    /// TPM_ALG_AES
    pub const AES: u16 = 0x0006;
    /// TPM_ALG_KEYEDHASH
    pub const KEYEDHASH: u16 = 0x0008;
    /// TPM_ALG_SHA256
    pub const SHA256: u16 = 0x000B;
    /// TPM_ALG_SHA384
    pub const SHA384: u16 = 0x000C;
    /// TPM_ALG_NULL
    pub const NULL: u16 = 0x0010;
    /// TPM_ALG_ECC
    pub const ECC: u16 = 0x0023;
    /// TPM_ALG_CFB
    pub const CFB: u16 = 0x0043;
    /// TPM_ECC_NIST_P256
    pub const NIST_P256: u16 = 0x0003;
}

/// TPMA_OBJECT (Part 2 §8.3.2).
pub mod object {
    /// fixedTPM
    pub const FIXED_TPM: u32 = 1 << 1;
    /// stClear
    pub const ST_CLEAR: u32 = 1 << 2;
    /// fixedParent
    pub const FIXED_PARENT: u32 = 1 << 4;
    /// sensitiveDataOrigin
    pub const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    /// userWithAuth
    pub const USER_WITH_AUTH: u32 = 1 << 6;
    /// noDA
    pub const NO_DA: u32 = 1 << 10;
    /// restricted
    pub const RESTRICTED: u32 = 1 << 16;
    /// decrypt
    pub const DECRYPT: u32 = 1 << 17;
    /// sign
    pub const SIGN: u32 = 1 << 18;
}

/// TPM_CC (Part 2 §6.5.2).
pub mod command {
    /// TPM_CC_PolicyAuthValue
    pub const POLICY_AUTH_VALUE: u32 = 0x0000_016B;
    /// TPM_CC_PolicyPCR
    pub const POLICY_PCR: u32 = 0x0000_017F;
}

/// TPM_ALG_ID of a bank.
pub const fn bank(bank: PcrBank) -> u16 {
    match bank {
        PcrBank::Sha256 => alg::SHA256,
        PcrBank::Sha384 => alg::SHA384,
    }
}

/// Bytes of a SHA-256 Name: algorithm and digest (Part 1 §16).
pub const NAME_BYTES: usize = 34;

/// The Name of a key or an object.
pub type Name = [u8; NAME_BYTES];

/// The Name that belongs to a public area whose name algorithm is SHA-256.
pub fn name(public: &[u8]) -> Name {
    let mut name = [0; NAME_BYTES];
    name[..2].copy_from_slice(&alg::SHA256.to_be_bytes());
    name[2..].copy_from_slice(&Sha256::digest(public));
    name
}
