//! A ring as bytes, as the state file and exports hold it (docs/formats.md, "State"). Total over any bytes.
//!
//! ```text
//! ring = activated u64 | active: entry | pending: u16 count, entries | former: u16 count, each entry | since u64 | state u8
//! entry = KEK id, 16 bytes | created u64 | uses reserved u64 | flags u8 (1 = shared), from version 2 on
//! ```

use super::{Entry, Former, FormerState, Ring};
use crate::keyring::uses::USES_END;
use crate::types::KekId;
use crate::types::wire::{Reader, WireError, Writer};

/// Of the first release: entries without flags.
pub const VERSION_1: u8 = 1;
/// Entries with flags.
pub const VERSION_2: u8 = 2;
/// Former KEKs may be found ones: the one that is written.
pub const VERSION_4: u8 = 4;

/// In the newest version.
pub fn write_ring(w: &mut Writer, ring: &Ring) {
    w.u64(ring.activated());
    write_entry(w, ring.active());
    w.u16(u16::from(ring.pending().is_some()));
    if let Some(entry) = ring.pending() {
        write_entry(w, entry);
    }
    // 65,535 rotations are 16,000 years of them at the default age.
    w.u16(u16::try_from(ring.former().len()).unwrap_or(u16::MAX));
    for former in ring.former().iter().take(usize::from(u16::MAX)) {
        write_entry(w, &former.entry);
        w.u64(former.since).u8(match former.state {
            FormerState::Deactivated => 1,
            FormerState::Compromised => 2,
            FormerState::Destroyed => 3,
            FormerState::Found => 4,
        });
    }
}

/// The mirror of [`write_ring`], of every version.
pub fn read_ring(version: u8, r: &mut Reader<'_>) -> Result<Ring, WireError> {
    let activated = r.time("activated")?;
    let active = read_entry(version, r)?;
    let pending = (0..r.u16("pending")?).map(|_| read_entry(version, r)).collect::<Result<_, _>>()?;
    let former = (0..r.u16("former")?).map(|_| read_former(version, r)).collect::<Result<_, _>>()?;
    Ring::from_parts(active, activated, pending, former).ok_or(WireError::BadValue("ring"))
}

fn write_entry(w: &mut Writer, entry: &Entry) {
    w.raw(entry.id.as_bytes()).u64(entry.created).u64(entry.uses_reserved).u8(u8::from(entry.shared));
}

fn read_entry(version: u8, r: &mut Reader<'_>) -> Result<Entry, WireError> {
    let id = KekId::from_bytes(r.array("KEK id")?);
    let (created, uses_reserved) = (r.time("created")?, r.u64("uses")?);
    if uses_reserved >= USES_END {
        return Err(WireError::BadValue("uses"));
    }
    let shared = match version {
        VERSION_1 => false,
        _ => match r.u8("flags")? {
            0 => false,
            1 => true,
            _ => return Err(WireError::BadValue("flags")),
        },
    };
    Ok(Entry { id, created, uses_reserved, shared })
}

fn read_former(version: u8, r: &mut Reader<'_>) -> Result<Former, WireError> {
    let entry = read_entry(version, r)?;
    let since = r.time("since")?;
    let state = match r.u8("state")? {
        1 => FormerState::Deactivated,
        2 => FormerState::Compromised,
        3 => FormerState::Destroyed,
        4 if version >= VERSION_4 => FormerState::Found,
        _ => return Err(WireError::BadValue("state")),
    };
    Ok(Former { entry, since, state })
}
