//! Short words for what every test does.

use nodeseal::seal::fault::{Fault, FaultCode};
use nodeseal::seal::protocol::{Auth, DeviceBlob};
use nodeseal::sealer::Sealer;
use nodeseal::sealer::settings::{DEFAULT_PARENT_HANDLE, TpmDevice, TpmSettings};
use nodeseal::sealer::tpm2::Tpm2;
use nodeseal::types::{Key, PcrBank, PcrSet, SealPolicy, hex};
use test_support::swtpm::Swtpm;

/// A byte sequence without repetition, so that any eight bytes of it on the wire are no accident.
pub const SECRET: [u8; 32] = *b"\xC3\x5A\x96\x0F\xE1\x7B\x2D\x84\x48\xB9\x13\xD6\x6A\xFC\x31\x9E\x05\xA7\x52\xEB\x8D\x3C\x70\xF4\x19\xCA\x67\xBE\x24\xD1\x8F\x43";

/// The right authValue. Ends in zero bytes, which a TPM drops.
pub const AUTH: [u8; 32] = *b"\x71\xE8\x0C\xB5\x39\xD2\x4E\xA3\x96\x1B\xF7\x68\x85\x2A\xDC\x53\x0D\xBA\x47\xE1\x7F\x94\x36\xC8\x5B\xA2\x1E\xF3\x69\x8C\x00\x00";

pub fn secret() -> Key {
    Key::copy_of(&SECRET).unwrap()
}

pub fn auth() -> Auth {
    Auth::new(Key::copy_of(&AUTH).unwrap())
}

pub fn another_auth() -> Auth {
    Auth::new(Key::copy_of(&[0x77; 32]).unwrap())
}

/// Of an engine that talks to a software TPM on this port.
pub fn settings(port: u16) -> TpmSettings {
    TpmSettings { device: TpmDevice::Swtpm { port }, parent_handle: DEFAULT_PARENT_HANDLE, allow_software_tpm: true }
}

/// An engine behind this port.
pub fn engine_at(port: u16) -> Tpm2 {
    Tpm2::new(settings(port))
}

pub fn engine(tpm: &Swtpm) -> Tpm2 {
    engine_at(tpm.port())
}

/// Seals [`SECRET`] under [`AUTH`].
pub fn seal(tpm: &Swtpm, policy: &SealPolicy) -> DeviceBlob {
    engine(tpm).seal(&secret(), &auth(), policy, None).unwrap()
}

pub fn try_seal(tpm: &Swtpm, policy: &SealPolicy) -> Result<DeviceBlob, Fault> {
    engine(tpm).seal(&secret(), &auth(), policy, None)
}

/// Opens it and compares.
pub fn assert_opens(tpm: &Swtpm, blob: &DeviceBlob) {
    assert_opens_at(tpm.port(), blob);
}

pub fn assert_opens_at(port: u16, blob: &DeviceBlob) {
    let key = engine_at(port).unseal(blob, &auth()).unwrap();
    assert!(key.expose() == &SECRET, "other bytes came back");
}

/// Does not open, with this code; gives the detail.
pub fn assert_fault(tpm: &Swtpm, blob: &DeviceBlob, code: FaultCode) -> String {
    assert_fault_at(tpm.port(), blob, code)
}

pub fn assert_fault_at(port: u16, blob: &DeviceBlob, code: FaultCode) -> String {
    expect_fault(engine_at(port).unseal(blob, &auth()), code)
}

/// The failed result's detail, after a look at its code and a search for secrets in it.
pub fn expect_fault<T>(result: Result<T, Fault>, code: FaultCode) -> String {
    let Err(fault) = result else { panic!("it succeeded instead of {code:?}") };
    assert_eq!(fault.code, code, "{fault}");
    let shown = format!("{fault} {fault:?}").to_lowercase();
    assert!(
        !shown.contains(&hex::encode(SECRET)) && !shown.contains(&hex::encode(&AUTH[..30])),
        "a secret in a message"
    );
    fault.detail
}

pub fn pcr(bank: PcrBank, numbers: &[u8]) -> SealPolicy {
    SealPolicy::Pcr { bank, pcrs: PcrSet::from_numbers(numbers).unwrap() }
}

/// Measures something into a register of both banks.
pub fn extend(tpm: &Swtpm, number: u8, byte: u8) {
    let digits = hex::encode([byte]);
    tpm.tool(&format!("tpm2_pcrextend {number}:sha256={},sha384={}", digits.repeat(32), digits.repeat(48)));
}

/// Asserts that nothing of ours stays behind in the TPM.
pub fn assert_nothing_left(tpm: &Swtpm) {
    for handles in ["handles-transient", "handles-loaded-session", "handles-saved-session"] {
        assert_eq!(tpm.tool(&format!("tpm2_getcap {handles}")).trim(), "", "{handles}");
    }
}
