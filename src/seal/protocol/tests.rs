//! What the protocol refuses.

use super::*;

#[test]
fn a_fault_with_a_longer_detail_than_we_write_is_refused_and_not_cut() {
    let answer = |len: usize| {
        let detail = vec![b'x'; len];
        Writer::new().u8(VERSION).u8(FAULT).u8(FaultCode::Internal as u8).bytes16(&detail).finish()
    };
    let longest = answer(Fault::DETAIL_MAX_BYTES);
    assert!(Response::decode(&longest).unwrap().encode().same_as(&longest));
    let longer = Response::decode(&answer(Fault::DETAIL_MAX_BYTES + 1));
    assert_eq!(longer.err(), Some(WireError::BadValue("fault detail")));
}
