//! Fields that several messages have. Total over any bytes.

use super::*;

pub(super) fn reader(bytes: &[u8]) -> Result<Reader<'_>, WireError> {
    let mut r = Reader::new(bytes);
    match r.u8("protocol version")? {
        VERSION => Ok(r),
        _ => Err(WireError::BadValue("protocol version")),
    }
}

pub(super) fn key(r: &mut Reader<'_>, field: &'static str) -> Result<Key, WireError> {
    Key::copy_of(r.take(Key::LEN, field)?).ok_or(WireError::Short(field))
}

pub(super) fn blob(r: &mut Reader<'_>) -> Result<DeviceBlob, WireError> {
    DeviceBlob::new(r.bytes16("blob")?.to_vec()).ok_or(WireError::BadValue("blob"))
}

/// No bytes are no pin.
pub(super) fn write_pin(w: &mut Writer, pin: Option<&DeviceBlob>) {
    w.bytes16(pin.map_or(&[], DeviceBlob::as_bytes));
}

pub(super) fn pin(r: &mut Reader<'_>) -> Result<Option<DeviceBlob>, WireError> {
    match r.bytes16("pin")? {
        [] => Ok(None),
        bytes => DeviceBlob::new(bytes.to_vec()).map(Some).ok_or(WireError::BadValue("pin")),
    }
}

pub(super) fn backend(r: &mut Reader<'_>) -> Result<Backend, WireError> {
    Backend::from_number(r.u8("backend")?).ok_or(WireError::BadValue("backend"))
}

pub(super) fn object(r: &mut Reader<'_>, field: &'static str) -> Result<Vec<u8>, WireError> {
    let bytes = r.bytes16(field)?;
    if (1..=OBJECT_MAX_BYTES).contains(&bytes.len()) { Ok(bytes.to_vec()) } else { Err(WireError::BadValue(field)) }
}

pub(super) fn flag(r: &mut Reader<'_>, field: &'static str) -> Result<bool, WireError> {
    match r.u8(field)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::BadValue(field)),
    }
}
