//! Reads PCRs, refuses to seal to registers that say nothing, and tells which of them differ.

use std::fmt::Write;

use tss_esapi::Context;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{PcrSelectionList, PcrSlot};

use super::fault::{At, Failure, Step};
use super::policy::bank_bytes;
use super::session;
use crate::seal::fault::FaultCode;
use crate::types::{PcrBank, PcrSet, hex};

/// The TPM's form of a choice of registers.
pub(super) fn selection(bank: PcrBank, numbers: &[u8]) -> Result<PcrSelectionList, Failure> {
    let slots = numbers.iter().map(|number| PcrSlot::try_from(1 << number)).collect::<Result<Vec<_>, _>>();
    let algorithm = match bank {
        PcrBank::Sha256 => HashingAlgorithm::Sha256,
        PcrBank::Sha384 => HashingAlgorithm::Sha384,
    };
    let slots = slots.at(Step::ReadPcrs)?;
    PcrSelectionList::builder().with_selection(algorithm, &slots).build().at(Step::ReadPcrs)
}

/// The values to seal to, ascending by number. Authenticated by the channel: what is sealed to must be what is there.
pub(super) fn to_seal_to(
    context: &mut Context,
    channel: AuthSession,
    bank: PcrBank,
    pcrs: PcrSet,
) -> Result<Vec<Vec<u8>>, Failure> {
    let refuse = |why: &str| Failure::refused(FaultCode::PcrBank, format!("{bank}:{pcrs}: {why}"));
    let values = read(context, channel, bank, pcrs)?;
    let values: Option<Vec<_>> = values.into_iter().map(|(_, value)| value).collect();
    let values = values.ok_or_else(|| refuse("the bank or a register is absent"))?;
    let says_nothing = |byte| values.iter().all(|value| value.iter().all(|b| *b == byte));
    if says_nothing(0x00) || says_nothing(0xFF) {
        return Err(refuse("all of them are 00 or all of them are FF: nothing was measured into them"));
    }
    Ok(values)
}

/// Each register whose value is not the one at sealing, with both, for the operator.
pub(super) fn differences(
    context: &mut Context,
    channel: AuthSession,
    bank: PcrBank,
    pcrs: PcrSet,
    sealed: &[Vec<u8>],
) -> Result<String, Failure> {
    Ok(describe(bank, &read(context, channel, bank, pcrs)?, sealed))
}

type Reading = (u8, Option<Vec<u8>>);

fn describe(bank: PcrBank, now: &[Reading], sealed: &[Vec<u8>]) -> String {
    let mut text = String::new();
    let mut same = Vec::new();
    for ((number, now), sealed) in now.iter().zip(sealed) {
        match now {
            Some(now) if now == sealed => same.push(number.to_string()),
            Some(_) | None => {
                let now = now.as_ref().map_or_else(|| "absent".to_owned(), hex::encode);
                // Writing to a String cannot fail.
                let _ = write!(text, "PCR {number} ({bank}): sealed {}, now {now}; ", hex::encode(sealed));
            }
        }
    }
    let same = if same.is_empty() { "none".to_owned() } else { same.join(",") };
    let _ = write!(text, "unchanged: {same}");
    text
}

/// Each register with its value, or `None` if the TPM has not got it. Ends after at most as many commands as registers: one that
/// brings nothing new is the last.
fn read(context: &mut Context, channel: AuthSession, bank: PcrBank, pcrs: PcrSet) -> Result<Vec<Reading>, Failure> {
    let mut readings: Vec<Reading> = pcrs.numbers().map(|number| (number, None)).collect();
    loop {
        let missing: Vec<u8> =
            readings.iter().filter(|(_, value)| value.is_none()).map(|(number, _)| *number).collect();
        let given = if missing.is_empty() { Vec::new() } else { read_some(context, channel, bank, &missing)? };
        if given.is_empty() {
            return Ok(readings);
        }
        for (number, value) in given {
            readings.iter_mut().filter(|(ours, _)| *ours == number).for_each(|(_, ours)| *ours = Some(value.clone()));
        }
    }
}

/// One TPM2_PCR_Read: at most eight of the wanted registers, and none of another.
fn read_some(
    context: &mut Context,
    channel: AuthSession,
    bank: PcrBank,
    wanted: &[u8],
) -> Result<Vec<(u8, Vec<u8>)>, Failure> {
    let selection = selection(bank, wanted)?;
    let (_, given, values) =
        session::authentic(context, channel, |context| context.pcr_read(selection).at(Step::ReadPcrs))?;
    let slots = given.get_selections().iter().flat_map(|selection| selection.selected());
    Ok(slots
        .zip(values.value())
        .filter_map(|(slot, value)| {
            Some((u8::try_from(u32::from(slot).trailing_zeros()).ok()?, value.value().to_vec()))
        })
        .filter(|(number, value)| wanted.contains(number) && value.len() == bank_bytes(bank))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_registers_that_differ_are_listed_with_both_values() {
        let now = [(4, Some(vec![1; 32])), (7, Some(vec![2; 32])), (11, None)];
        let text = describe(PcrBank::Sha256, &now, &[vec![1; 32], vec![3; 32], vec![4; 32]]);
        let (two, three, four) = ("02".repeat(32), "03".repeat(32), "04".repeat(32));
        assert_eq!(
            text,
            format!(
                "PCR 7 (sha256): sealed {three}, now {two}; PCR 11 (sha256): sealed {four}, now absent; unchanged: 4"
            )
        );
    }
}
