//! What a seal is bound to beside the device itself. The checks of an operator's choice of PCRs are in `config`.

use std::fmt;

use super::wire::{Reader, WireError, Writer};

/// A policy of the sealing device. Stored formats carry the number of the kind, so that later kinds find room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealPolicy {
    /// This device and the host secret, in whatever state the machine was booted.
    None,
    /// Also these PCRs of this bank, with the values they have at sealing (TPM 2.0 Part 3, TPM2_PolicyPCR).
    Pcr {
        /// Hash algorithm of the bank.
        bank: PcrBank,
        /// Which registers.
        pcrs: PcrSet,
    },
}

impl SealPolicy {
    const NONE: u8 = 0;
    const PCR: u8 = 1;

    /// Appends the kind and its fields. Shared by the sealer protocol and the TPM blob.
    pub fn write(&self, writer: &mut Writer) {
        match self {
            Self::None => writer.u8(Self::NONE),
            Self::Pcr { bank, pcrs } => writer.u8(Self::PCR).u8(*bank as u8).u32(pcrs.mask()),
        };
    }

    /// The mirror of [`SealPolicy::write`].
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        match reader.u8("policy kind")? {
            Self::NONE => Ok(Self::None),
            Self::PCR => {
                let bank = match reader.u8("pcr bank")? {
                    1 => PcrBank::Sha256,
                    2 => PcrBank::Sha384,
                    _ => return Err(WireError::BadValue("pcr bank")),
                };
                let pcrs = PcrSet::from_mask(reader.u32("pcr mask")?).map_err(|_| WireError::BadValue("pcr mask"))?;
                Ok(Self::Pcr { bank, pcrs })
            }
            _ => Err(WireError::BadValue("policy kind")),
        }
    }
}

impl fmt::Display for SealPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Pcr { bank, pcrs } => write!(f, "pcr {bank}:{pcrs}"),
        }
    }
}

/// Hash algorithm of a PCR bank. SHA-1 is not offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PcrBank {
    /// Present in every PC Client TPM.
    Sha256 = 1,
    /// Present in some.
    Sha384 = 2,
}

impl fmt::Display for PcrBank {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sha256 => "sha256",
            Self::Sha384 => "sha384",
        })
    }
}

/// A non-empty set of PCR numbers from 0 to 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PcrSet(u32);

/// An empty set, or a number above 23.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PCRs are one or more numbers from 0 to 23")]
pub struct PcrSetError;

impl PcrSet {
    /// PC Client TPMs have 24 registers.
    pub const COUNT: u8 = 24;

    /// From a list of numbers, in any order.
    pub fn from_numbers(numbers: &[u8]) -> Result<Self, PcrSetError> {
        let mut mask = 0;
        for number in numbers {
            if *number >= Self::COUNT {
                return Err(PcrSetError);
            }
            mask |= 1 << number;
        }
        Self::from_mask(mask)
    }

    /// Bit n stands for PCR n.
    pub fn from_mask(mask: u32) -> Result<Self, PcrSetError> {
        if mask == 0 || mask >> Self::COUNT != 0 { Err(PcrSetError) } else { Ok(Self(mask)) }
    }

    /// Bit n stands for PCR n.
    pub const fn mask(self) -> u32 {
        self.0
    }

    /// The numbers, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (0..Self::COUNT).filter(move |number| self.0 & (1 << number) != 0)
    }
}

impl fmt::Display for PcrSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, number) in self.numbers().enumerate() {
            write!(f, "{}{number}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_read_back_as_written() {
        let pcrs = PcrSet::from_numbers(&[11, 0, 7, 23]).unwrap();
        assert_eq!(pcrs.to_string(), "0,7,11,23");
        for policy in [SealPolicy::None, SealPolicy::Pcr { bank: PcrBank::Sha384, pcrs }] {
            let mut writer = Writer::new();
            policy.write(&mut writer);
            let bytes = writer.finish();
            let mut reader = Reader::new(&bytes);
            assert_eq!(SealPolicy::read(&mut reader), Ok(policy));
            assert_eq!(reader.end(), Ok(()));
        }
    }

    #[test]
    fn unknown_kinds_and_impossible_pcrs_are_refused() {
        assert!(SealPolicy::read(&mut Reader::new(&[9])).is_err());
        assert!(SealPolicy::read(&mut Reader::new(&[1, 3, 0, 0, 0, 1])).is_err());
        assert!(SealPolicy::read(&mut Reader::new(&[1, 1, 1, 0, 0, 0])).is_err());
        assert!(PcrSet::from_numbers(&[]).is_err() && PcrSet::from_numbers(&[24]).is_err());
    }
}
