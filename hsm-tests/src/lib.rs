//! What every sealing device must do, whatever it is made of: one suite for all engines.
//!
//! [`run`] knows the engine by its trait alone. What it cannot know of a device (how to open it a second time, how to count what
//! lies in it) is in [`Ground`]. It destroys nothing; whoever made the ground cleans up.

pub mod pkcs11;
pub mod report;
pub mod tpm2;

use std::collections::BTreeMap;
use std::time::Instant;

use nodeseal::seal::fault::{Fault, FaultCode};
use nodeseal::seal::protocol::{Auth, DeviceBlob, DeviceInfo};
use nodeseal::sealer::Sealer;
use nodeseal::types::{Key, SealPolicy, hex};
use sha2::{Digest, Sha256};

pub use report::Report;
use report::figures;

/// Seals that must leave nothing behind.
const SEALS: usize = 50;
/// Unseals that are timed.
const TIMED: usize = 20;
/// Of how many edited bytes one goes to the device; the others differ in nothing that it would see.
const EDIT_STEP: usize = 7;
/// SHA-256 at the end of every blob (docs/formats.md).
const CHECKSUM_BYTES: usize = 32;

/// Without repetition, so that any eight bytes of it in a text are no accident.
const SECRET: [u8; 32] = *b"\xC3\x5A\x96\x0F\xE1\x7B\x2D\x84\x48\xB9\x13\xD6\x6A\xFC\x31\x9E\x05\xA7\x52\xEB\x8D\x3C\x70\xF4\x19\xCA\x67\xBE\x24\xD1\x8F\x43";
/// Ends in zero bytes, which a TPM drops.
const AUTH: [u8; 32] = *b"\x71\xE8\x0C\xB5\x39\xD2\x4E\xA3\x96\x1B\xF7\x68\x85\x2A\xDC\x53\x0D\xBA\x47\xE1\x7F\x94\x36\xC8\x5B\xA2\x1E\xF3\x69\x8C\x00\x00";

/// Objects, handles and sessions in the device, by kind.
pub type Counts = BTreeMap<&'static str, u64>;

/// What the suite cannot know of a device.
pub struct Ground<'a> {
    /// Another engine for the same device, as after a restart.
    pub reopen: &'a dyn Fn() -> Box<dyn Sealer>,
    /// Counts what lies in the device.
    pub count: &'a dyn Fn() -> Result<Counts, String>,
    /// Made by another device of the kind, and the codes that it may be refused with.
    pub foreign: (Vec<u8>, &'static [FaultCode]),
    /// A policy that the device does not offer, and the code that it is refused with.
    pub unoffered: (SealPolicy, FaultCode),
    /// Codes of an edited blob whose checksum fits.
    pub edited: &'static [FaultCode],
}

/// Runs all of it.
pub fn run(sealer: &mut dyn Sealer, ground: &Ground<'_>) -> Report {
    let mut trial = Trial { sealer, ground, report: Report::default(), faults: Vec::new() };
    // Nothing else makes sense without it. It also makes the wrapping or storage root key, so that it is not counted as growth.
    let Some(blob) = trial.first_seal() else { return trial.report };
    let before = (ground.count)();
    trial.differs(&blob);
    trial.wrong_auth(&blob);
    trial.flips(&blob);
    trial.edits(&blob);
    trial.lengths(&blob);
    trial.foreign();
    trial.unoffered();
    trial.reopened(&blob);
    trial.describes();
    trial.times(&blob);
    trial.leaves_nothing(before);
    trial.keeps_quiet();
    trial.report
}

struct Trial<'a> {
    sealer: &'a mut dyn Sealer,
    ground: &'a Ground<'a>,
    report: Report,
    /// All that were answered.
    faults: Vec<Fault>,
}

impl Trial<'_> {
    fn first_seal(&mut self) -> Option<DeviceBlob> {
        let started = Instant::now();
        let sealed = self.seal();
        let took = started.elapsed();
        let outcome = sealed.as_ref().map_err(Clone::clone).and_then(|blob| {
            self.opens(blob)?;
            Ok(format!("{} bytes, the first seal took {} ms", blob.as_bytes().len(), took.as_millis()))
        });
        self.report.add("what was sealed opens again", outcome);
        sealed.ok()
    }

    fn differs(&mut self, blob: &DeviceBlob) {
        let outcome = self.seal().and_then(|second| {
            if second == *blob {
                return Err("both are the same".to_owned());
            }
            self.opens(&second)?;
            self.opens(blob)?;
            Ok(String::new())
        });
        self.report.add("the same secret sealed twice gives two blobs, and both open", outcome);
    }

    fn wrong_auth(&mut self, blob: &DeviceBlob) {
        let mut outcome = Ok(String::new());
        for byte in [0, 15, 29] {
            let mut wrong = AUTH;
            wrong[byte] ^= 1;
            let refused = self.refused(blob, wrong, &[FaultCode::Auth]).and_then(|_| self.opens(blob));
            outcome = outcome.and_then(|remark| refused.map(|()| remark));
        }
        self.report.add("a wrong authValue is refused with E-AUTH, and the right one still opens", outcome);
    }

    fn flips(&mut self, blob: &DeviceBlob) {
        let bytes = blob.as_bytes();
        let mut outcome = Ok(format!("{} bytes", bytes.len()));
        for index in 0..bytes.len() {
            let mut flipped = bytes.to_vec();
            flipped[index] ^= 1 << (index % 8);
            let refused = self.refused_bytes(flipped, &[FaultCode::Format]);
            outcome =
                outcome.and_then(|remark| refused.map(|_| remark).map_err(|seen| format!("byte {index}: {seen}")));
        }
        let outcome = outcome.and_then(|remark| self.opens(blob).map(|()| remark));
        self.report.add("a flipped bit in any byte is refused with E-FMT, and changes nothing", outcome);
    }

    /// Whoever can write the file can mend its checksum, too.
    fn edits(&mut self, blob: &DeviceBlob) {
        let body = &blob.as_bytes()[..blob.as_bytes().len().saturating_sub(CHECKSUM_BYTES)];
        let mut seen: BTreeMap<&'static str, u32> = BTreeMap::new();
        let mut outcome = Ok(());
        // Version and magic are whole, so that the engine reads on.
        for index in (10..body.len()).step_by(EDIT_STEP) {
            let mut edited = body.to_vec();
            edited[index] ^= 1 << (index % 8);
            let checksum = Sha256::digest(&edited);
            edited.extend_from_slice(&checksum);
            let Some(edited) = DeviceBlob::new(edited) else { continue };
            let one = match self.unseal(&edited, AUTH) {
                // A field that is for messages alone.
                Ok(key) if key.expose() == &SECRET => {
                    *seen.entry("no matter").or_default() += 1;
                    Ok(())
                }
                Ok(_) => Err("other bytes came out".to_owned()),
                Err(fault) if self.ground.edited.contains(&fault.code) => {
                    *seen.entry(fault.code.code()).or_default() += 1;
                    Ok(())
                }
                Err(fault) => Err(fault.to_string()),
            };
            outcome = outcome.and_then(|()| one.map_err(|seen| format!("byte {index}: {seen}")));
        }
        let outcome = outcome.and_then(|()| self.opens(blob));
        let remark = seen.iter().map(|(code, count)| format!("{code} {count}")).collect::<Vec<_>>().join(", ");
        let tried = "an edited blob with the right checksum is refused, or opens as what it was, and changes nothing";
        self.report.add(tried, outcome.map(|()| remark));
    }

    fn lengths(&mut self, blob: &DeviceBlob) {
        let bytes = blob.as_bytes();
        let mut others = vec![[bytes, &[0]].concat(), [bytes, bytes].concat(), [&[0], bytes].concat()];
        others.extend(
            [1, 8, 10, 40, bytes.len() / 2, bytes.len() - 33, bytes.len() - 1].map(|len| bytes[..len].to_vec()),
        );
        let mut outcome = Ok(String::new());
        for other in others {
            let len = other.len();
            let refused = self.refused_bytes(other, &[FaultCode::Format]);
            outcome = outcome.and_then(|remark| refused.map(|_| remark).map_err(|seen| format!("{len} bytes: {seen}")));
        }
        self.report.add("a blob that was cut or has more behind it is refused with E-FMT", outcome);
    }

    fn foreign(&mut self) {
        let (bytes, codes) = &self.ground.foreign;
        let outcome = self.refused_bytes(bytes.clone(), codes).map(|code| code.code().to_owned());
        self.report.add("another device's blob is refused", outcome);
    }

    fn unoffered(&mut self) {
        let (policy, code) = self.ground.unoffered;
        let outcome = match self.sealer.seal(&secret(), &auth(AUTH), &policy, None) {
            Ok(_) => Err("it was sealed".to_owned()),
            Err(fault) if fault.code == code => {
                self.faults.push(fault);
                Ok(code.code().to_owned())
            }
            Err(fault) => Err(fault.to_string()),
        };
        self.report.add("a policy that the device does not offer is refused", outcome);
    }

    fn reopened(&mut self, blob: &DeviceBlob) {
        let mut outcome = Ok(String::new());
        for _ in 0..3 {
            let mut another = (self.ground.reopen)();
            let opened = opened(&another.unseal(blob, &auth(AUTH)));
            outcome = outcome.and_then(|remark| opened.map(|()| remark));
        }
        let outcome = outcome.and_then(|remark| self.opens(blob).map(|()| remark));
        self.report.add("it opens after a restart, and beside a second engine for the same device", outcome);
    }

    fn describes(&mut self) {
        let told = self.sealer.describe().and_then(|first| Ok((first, self.sealer.describe()?)));
        let outcome = told.map_err(|fault| fault.to_string()).and_then(|(first, second)| {
            if first != second {
                return Err(format!("{first:?}, then {second:?}"));
            }
            if first.root_key_name.is_empty() {
                return Err("it names no root key".to_owned());
            }
            if has_secret(&format!("{first:?}")) {
                return Err("it tells a secret".to_owned());
            }
            let DeviceInfo { manufacturer, firmware, software, root_key_name, .. } = first;
            let kind = if software { "software" } else { "hardware" };
            Ok(format!("{manufacturer} {firmware}, {kind}, root key {root_key_name}"))
        });
        self.report.add("it says twice the same of itself, and no secret", outcome);
    }

    fn times(&mut self, blob: &DeviceBlob) {
        let mut times = Vec::new();
        let mut outcome = Ok(());
        for _ in 0..TIMED {
            let started = Instant::now();
            let opened = self.opens(blob);
            times.push(started.elapsed());
            outcome = outcome.and(opened);
        }
        self.report.add("it opens again and again", outcome.map(|()| figures(times)));
    }

    fn leaves_nothing(&mut self, before: Result<Counts, String>) {
        let mut times = Vec::new();
        let mut outcome = Ok(());
        for _ in 0..SEALS {
            let started = Instant::now();
            let sealed = self.seal();
            times.push(started.elapsed());
            outcome = outcome.and(sealed.map(|_| ()));
        }
        let outcome = outcome.and_then(|()| {
            let (before, after) = (before?, (self.ground.count)()?);
            match before == after {
                true => Ok(format!("{after:?}; seals with their proof, {}", figures(times))),
                false => Err(format!("{before:?} before, {after:?} after")),
            }
        });
        self.report.add(&format!("{SEALS} seals and everything before leave nothing behind"), outcome);
    }

    fn keeps_quiet(&mut self) {
        let loud = self.faults.iter().find(|fault| has_secret(&format!("{fault} {fault:?}")));
        let outcome = match loud {
            None => Ok(format!("{} faults", self.faults.len())),
            Some(fault) => Err(fault.code.code().to_owned()),
        };
        self.report.add("no fault holds the secret or the authValue", outcome);
    }

    fn seal(&mut self) -> Result<DeviceBlob, String> {
        self.sealer.seal(&secret(), &auth(AUTH), &SealPolicy::None, None).map_err(|fault| {
            self.faults.push(fault.clone());
            fault.to_string()
        })
    }

    fn unseal(&mut self, blob: &DeviceBlob, bytes: [u8; 32]) -> Result<Key, Fault> {
        let result = self.sealer.unseal(blob, &auth(bytes));
        if let Err(fault) = &result {
            self.faults.push(fault.clone());
        }
        result
    }

    fn opens(&mut self, blob: &DeviceBlob) -> Result<(), String> {
        opened(&self.unseal(blob, AUTH))
    }

    fn refused(&mut self, blob: &DeviceBlob, bytes: [u8; 32], codes: &[FaultCode]) -> Result<FaultCode, String> {
        match self.unseal(blob, bytes) {
            Ok(_) => Err("it opened".to_owned()),
            Err(fault) if codes.contains(&fault.code) => Ok(fault.code),
            Err(fault) => Err(fault.to_string()),
        }
    }

    fn refused_bytes(&mut self, bytes: Vec<u8>, codes: &[FaultCode]) -> Result<FaultCode, String> {
        match DeviceBlob::new(bytes) {
            Some(blob) => self.refused(&blob, AUTH, codes),
            None => Ok(FaultCode::Format),
        }
    }
}

fn opened(result: &Result<Key, Fault>) -> Result<(), String> {
    match result {
        Ok(key) if key.expose() == &SECRET => Ok(()),
        Ok(_) => Err("other bytes came out".to_owned()),
        Err(fault) => Err(fault.to_string()),
    }
}

/// The secret of all seals.
pub fn secret() -> Key {
    key(SECRET)
}

/// The authValue of all seals.
pub fn right_auth() -> Auth {
    auth(AUTH)
}

fn auth(bytes: [u8; 32]) -> Auth {
    Auth::new(key(bytes))
}

fn key(bytes: [u8; 32]) -> Key {
    match Key::copy_of(&bytes) {
        Some(key) => key,
        None => unreachable!("32 bytes"),
    }
}

/// Eight bytes in a row, in hex or as a list of numbers.
fn has_secret(text: &str) -> bool {
    let text = text.to_lowercase();
    let windows = SECRET.windows(8).chain(AUTH[..30].windows(8));
    windows
        .into_iter()
        .any(|part| text.contains(&hex::encode(part)) || text.contains(&format!("{part:?}").replace(['[', ']'], "")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_in_both_ways_of_writing() {
        assert!(has_secret(&hex::encode(SECRET)) && has_secret(&hex::encode(AUTH).to_uppercase()));
        assert!(has_secret(&format!("{SECRET:?}")) && !has_secret("nothing"));
    }

    /// Seals by keeping the secret in the blob.
    struct Careless;

    impl Sealer for Careless {
        fn seal(
            &mut self,
            secret: &Key,
            _: &Auth,
            _: &SealPolicy,
            _: Option<&DeviceBlob>,
        ) -> Result<DeviceBlob, Fault> {
            DeviceBlob::new(secret.expose().repeat(2)).ok_or_else(|| Fault::new(FaultCode::Internal, ""))
        }

        fn unseal(&mut self, blob: &DeviceBlob, _: &Auth) -> Result<Key, Fault> {
            let bytes = blob.as_bytes();
            Key::copy_of(bytes.get(..32).unwrap_or_default())
                .ok_or_else(|| Fault::new(FaultCode::Format, hex::encode(bytes)))
        }

        fn describe(&mut self) -> Result<DeviceInfo, Fault> {
            Err(Fault::new(FaultCode::Internal, hex::encode(SECRET)))
        }
    }

    #[test]
    fn a_device_that_protects_nothing_fails_line_by_line() {
        let ground = Ground {
            reopen: &|| Box::new(Careless),
            count: &|| Err("cannot count".to_owned()),
            foreign: (vec![0; 100], &[FaultCode::Foreign]),
            unoffered: (SealPolicy::None, FaultCode::PcrBank),
            edited: &[],
        };
        let report = run(&mut Careless, &ground);
        let passed: Vec<_> =
            report.lines.iter().filter(|line| line.outcome.is_ok()).map(|line| line.tried.as_str()).collect();
        // What it does do.
        assert_eq!(passed.len(), 3, "{report}");
        assert_eq!(report.lines.len(), 13, "{report}");
    }
}
