//! Policy digests, computed without a TPM: what a sealed object asks for, known before it is made (TPM 2.0 Part 1 §19.7).
//!
//! The session hash is always SHA-256, whatever the bank of the PCRs.

use sha2::{Digest, Sha256};

use crate::seal::tcg::{self, command};
use crate::types::wire::Writer;
use crate::types::{PcrBank, PcrSet, SealPolicy};

/// A policyDigest.
pub(super) type PolicyDigest = [u8; 32];

/// The digest of `policy` when the chosen registers hold `values`, ascending by number (none for a policy without PCRs).
///
/// PolicyPCR where there are PCRs, then always PolicyAuthValue: the object opens only under a session whose HMAC key holds an
/// authValue that the bus never sees, so that whoever sits on the bus cannot open it in our place.
pub(super) fn digest(policy: &SealPolicy, values: &[Vec<u8>]) -> PolicyDigest {
    let start = PolicyDigest::default();
    let after_pcrs = match policy {
        SealPolicy::None => start,
        SealPolicy::Pcr { bank, pcrs } => {
            let mut hash = Sha256::new();
            values.iter().for_each(|value| hash.update(value));
            extend(&start, command::POLICY_PCR, &[&selection(*bank, *pcrs), &hash.finalize()])
        }
    };
    extend(&after_pcrs, command::POLICY_AUTH_VALUE, &[])
}

/// policyDigest' = H(policyDigest ‖ command code ‖ arguments).
fn extend(digest: &PolicyDigest, command: u32, arguments: &[&[u8]]) -> PolicyDigest {
    let mut hash = Sha256::new();
    hash.update(digest);
    hash.update(command.to_be_bytes());
    arguments.iter().for_each(|argument| hash.update(argument));
    hash.finalize().into()
}

/// TPML_PCR_SELECTION of one bank: bit n of byte n/8 stands for PCR n (Part 2 §10.6.2).
fn selection(bank: PcrBank, pcrs: PcrSet) -> Vec<u8> {
    let [low, middle, high, _] = pcrs.mask().to_le_bytes();
    Writer::new().u32(1).u16(tcg::bank(bank)).u8(3).raw(&[low, middle, high]).finish()
}

/// Bytes of a register of the bank.
pub(super) const fn bank_bytes(bank: PcrBank) -> usize {
    match bank {
        PcrBank::Sha256 => 32,
        PcrBank::Sha384 => 48,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::hex;

    /// After `tpm2_pcrextend` of PCR 7 with 32 bytes 11 (48 bytes 22) and of PCR 11 with 32 bytes 33, from all zero.
    const SHA256_7: &str = "8878b15a7d6a3a4f464e8f9f42591dbc0cf4bedea0ec309003d2b2ee53655ef8";
    const SHA256_11: &str = "aa3fbb7913e12ae041ff4ac2b75384d7e97ab7a9cc3e405c2bbfc96c65590160";
    const SHA384_7: &str =
        "1e22f51c704895e9cb551bb1961bac0e4cff3c0545b30525327f44c53117261c97b3a2bd3fa43c8afaaacd1311781dd5";

    fn pcr(bank: PcrBank, numbers: &[u8]) -> SealPolicy {
        SealPolicy::Pcr { bank, pcrs: PcrSet::from_numbers(numbers).unwrap() }
    }

    #[test]
    fn digests_are_those_of_a_tpm() {
        // Each from `tpm2_startauthsession --policy-session; [tpm2_policypcr -l BANK:PCRS;] tpm2_policyauthvalue` on swtpm 0.7.1.
        let value = |text: &str| hex::decode(text).unwrap();
        let cases = [
            (SealPolicy::None, vec![], "8fcd2169ab92694e0c633f1ab772842b8241bbc20288981fc7ac1eddc1fddb0e"),
            (
                pcr(PcrBank::Sha256, &[7, 11]),
                vec![value(SHA256_7), value(SHA256_11)],
                "07d24b9bb87391a09e0d8de48a2161df58663df9a6f236867f28a003aaa373ad",
            ),
            (
                pcr(PcrBank::Sha384, &[7, 23]),
                vec![value(SHA384_7), vec![0; 48]],
                "167fc4b75d024430f9727be34a9f8d71d0e40a7e42b991d3d4cfa0d28ec1d45a",
            ),
        ];
        for (policy, values, expected) in cases {
            assert_eq!(hex::encode(digest(&policy, &values)), expected, "{policy}");
        }
    }

    #[test]
    fn every_register_bank_and_value_counts() {
        let zero = || vec![vec![0; 32]];
        let all = [
            digest(&SealPolicy::None, &[]),
            digest(&pcr(PcrBank::Sha256, &[0]), &zero()),
            digest(&pcr(PcrBank::Sha256, &[8]), &zero()),
            digest(&pcr(PcrBank::Sha256, &[23]), &zero()),
            digest(&pcr(PcrBank::Sha384, &[0]), &zero()),
            digest(&pcr(PcrBank::Sha256, &[0]), &[vec![1; 32]]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(!all[..index].contains(one), "{index}");
        }
    }
}
