//! What can go wrong in the sealing device, one code for each remedy.
//!
//! The codes are the same in the log, in `status` and in docs/operations; a fault crosses the sealer's socket as code and detail.
//! TPM response codes are those of TPM 2.0 Part 2 §6.6.

use std::fmt;

use crate::types::Class;

macro_rules! fault_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $code:literal, $class:ident, $message:literal, $hint:literal;)*) => {
        /// A kind of fault. The number is its place in the sealer protocol and never changes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum FaultCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl FaultCode {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stable name, such as `E-SRK-CHANGED`.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// One fixed sentence.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }

            /// What the operator does next.
            pub const fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint,)* }
            }

            /// Decides retry and health.
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)* }
            }

            /// From its place in the protocol.
            pub const fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

fault_codes! {
    /// TPM_RC_AUTH_FAIL or TPM_RC_BAD_AUTH on the sealed object (0x98E, 0x9A2).
    Auth = 1, "E-AUTH", Denied,
        "the host secret does not fit the sealed node root",
        "restore the host secret (node/host.key) that belongs to this state directory, from a backup of this node; nothing was changed";
    /// TPM_RC_RETRY, YIELDED, TESTING, OBJECT_MEMORY, SESSION_MEMORY, CONTEXT_GAP, NV_RATE until the retries ran out.
    Busy = 2, "E-BUSY", Unavailable,
        "other users of the TPM leave it no room or time for Nodeseal",
        "find out which processes use the TPM (`fuser -v /dev/tpm0 /dev/tpmrm0`), and make those that use /dev/tpm0 use /dev/tpmrm0; this is retried";
    /// Our bytes do not parse: no TPM was asked.
    Format = 3, "E-FMT", Corrupt,
        "the sealed node root is damaged or was edited",
        "restore `node/root.seal` from a backup of this node";
    /// TPM_RC_INTEGRITY or TPM_RC_SIZE at TPM2_Load (0x1DF, 0x1D5).
    Foreign = 4, "E-FOREIGN", Denied,
        "the sealed node root belongs to another TPM, or is damaged",
        "if the file is right, another TPM sealed it: put the disk back into its machine, or run `nodeseal recover`; nothing was changed";
    /// A response code without a row of its own.
    Internal = 5, "E-TPM-RC", Internal,
        "the TPM answered with a code that has no known remedy",
        "look up the response code with `tpm2_rc_decode` and report it";
    /// TPM_RC_LOCKOUT (0x921).
    Lockout = 6, "E-LOCKOUT", Unavailable,
        "the TPM is in dictionary-attack lockout",
        "Nodeseal's objects are exempt, so another user of this TPM caused it: wait for the recovery time, or `tpm2_dictionarylockout -c -p LOCKOUTAUTH`";
    /// The device file is absent or closed to us.
    NoDevice = 7, "E-TPM-NODEV", Unavailable,
        "there is no TPM 2.0 resource-manager device that Nodeseal may open",
        "enable the TPM in the firmware, load the tpm driver (kernel 4.12 or later), and add Nodeseal's user to the group that owns the device (usually tss)";
    /// TPM_RC_BAD_AUTH on the owner hierarchy (0x9A2, 0x98E).
    OwnerAuth = 8, "E-OWNER-AUTH", Misconfigured,
        "the owner hierarchy has a password, so Nodeseal can create neither a storage root key nor a counter",
        "make the owner of the TPM create the key once: `tpm2_createprimary -C o -P OWNERAUTH -G ecc -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt' -c srk.ctx` and `tpm2_evictcontrol -C o -P OWNERAUTH -c srk.ctx 0x81000001`; for a counter, remove the owner password (`tpm2_changeauth -c o -p OWNERAUTH`), run the command, and set it again";
    /// TPM_RC_PCR_CHANGED (0x128) until the retries ran out.
    PcrRace = 9, "E-PCR-RACE", Unavailable,
        "PCRs kept changing during the unsealing",
        "start after the services that measure at boot (systemd-pcrphase.service); this is retried";
    /// The bank is absent or all its chosen registers are 00 or FF.
    PcrBank = 10, "E-PCR-BANK", Misconfigured,
        "the chosen PCRs hold nothing that could be sealed to",
        "choose a bank and PCRs that the firmware measures into: `tpm2_pcrread`";
    /// TPM_RC_POLICY_FAIL (0x99D), or our own comparison before it.
    Policy = 11, "E-POLICY", Denied,
        "this machine's boot state differs from the one that the node root was sealed to",
        "undo the change (firmware, boot loader, kernel) and reboot: the seal opens again; if it cannot be undone, `nodeseal recover`; for the next planned change set policy = \"none\" and `nodeseal reseal` before it, and set it back and `nodeseal reseal` after the reboot";
    /// The software-TPM guard.
    SoftwareTpm = 12, "E-SWTPM", Misconfigured,
        "this is a software TPM, and it was not allowed",
        "a software TPM protects nothing: use the machine's own TPM, or set allow_software_tpm = true under [seal.tpm2] for a test";
    /// The Name at the pinned handle is not the pinned one, and the template in the seal does not make that key either.
    SrkChanged = 13, "E-SRK-CHANGED", Denied,
        "the storage root key is not the one that the node root was sealed under",
        "if the board was replaced or the TPM was cleared: `nodeseal recover`; if you changed parent_handle yourself: `nodeseal reseal --new-parent`; otherwise something may sit between CPU and TPM: investigate before you continue; nothing was changed";
    /// No key at the handle (0x18B) and no transient one of the pinned Name.
    SrkMissing = 14, "E-SRK-MISSING", Denied,
        "the storage root key is gone and the TPM no longer makes the same one: it was cleared, or is another TPM",
        "same board: its TPM was cleared, and `nodeseal recover` rebuilds the keys from the recovery file; another board: put the disk back to the TPM that sealed it, or recover; a running nodeseald still has the keys in memory: keep it running until the recovery file is proved (`nodeseal recover --verify`), or give the keys to another node (`nodeseal bundle make`); nothing was changed";
    /// The key at the handle cannot be a storage parent.
    SrkUnfit = 15, "E-SRK-UNFIT", Misconfigured,
        "the key at the storage root key's handle is not a usable storage key",
        "choose another handle with parent_handle under [seal.tpm2]; Nodeseal never evicts foreign keys";
    /// The TCTI library cannot be loaded.
    Tcti = 16, "E-TPM-TCTI", Misconfigured,
        "the library that talks to the TPM device cannot be loaded",
        "install the package libtss2-tcti-device0 (or libtss2-tcti-swtpm0 for a software TPM)";
    /// TPM_RC_FAILURE (0x101).
    TpmFailed = 17, "E-TPM-FAILED", Unavailable,
        "the TPM is in failure mode",
        "power the machine off and on (a reboot is not enough); until then nodeseald keeps using the keys in memory";
    /// TPM_RC_INITIALIZE (0x100).
    Uninitialised = 18, "E-TPM-UNINIT", Unavailable,
        "the firmware did not start the TPM",
        "cold-boot the machine, and check the TPM setting in the firmware";
    /// What was sealed did not come back the same.
    Verify = 19, "E-VERIFY", Internal,
        "the device did not give back what it had just sealed",
        "do not rely on this device: update its firmware, or replace it; nothing was changed";
    /// This build has no engine of that kind.
    NotCompiledIn = 20, "E-NO-ENGINE", Misconfigured,
        "the engine of this sealing device is not compiled in or not configured",
        "install a build with the feature of that name, and add its table [seal.pkcs11] or [seal.tpm2]";
    /// The HMAC of an answer is wrong (TSS2_ESYS_RC_RSP_AUTH_FAILED).
    Forged = 21, "E-TPM-FORGED", Denied,
        "an answer that should be the TPM's is not authentic",
        "power the machine off and on once; if it happens again, something sits between CPU and TPM: investigate before you continue; nothing was changed";
    /// CKR_PIN_INCORRECT, PIN_LOCKED, PIN_EXPIRED, PIN_INVALID, PIN_LEN_RANGE; any other answer of C_Login that may have been counted as
    /// a wrong PIN; or one try is left, which is not ours to spend.
    HsmPin = 22, "E-HSM-PIN", Denied,
        "the file with the PIN cannot be used, or the token refused the PIN or would lock at the next wrong one",
        "if the detail names the file, make it readable only for the user of nodeseal-sealer: it is retried. Otherwise put the right PIN into the file that pin_file names, test it with another program, and restart nodeseal-sealer; first empty `pin-tries` if the detail says so (a PIN that is a systemd credential looks the same as the previous one). A wrong PIN is never retried. If the token did not say whether it counted a PIN, that PIN is retried once after two minutes. The SO can unlock a locked token";
    /// CKR_DEVICE_*, TOKEN_NOT_PRESENT, SESSION_HANDLE_INVALID after the module was opened anew; no token of that label.
    HsmGone = 23, "E-HSM-GONE", Unavailable,
        "the token is missing or does not answer",
        "check that the token is plugged in, that its client works (`pkcs11-tool --module MODULE -L`), and that token_label is its label; until then nodeseald keeps using the keys in memory; this is retried";
    /// No object, or more than one, of that label, id and kind.
    HsmKey = 24, "E-HSM-KEY", Misconfigured,
        "the wrapping key is not the one key that its label and id should name",
        "list the token's keys (`pkcs11-tool --module MODULE --token-label LABEL --login -O`) and make key_label and key_id under [seal.pkcs11] name exactly one";
    /// No mechanism that we can seal with passes its trial.
    HsmMechanism = 25, "E-HSM-MECH", Misconfigured,
        "the token has no mechanism that can seal",
        "the token needs AES-GCM, RSA-OAEP with SHA-256, or AES-CBC with HMAC-SHA-256 (`pkcs11-tool --module MODULE -M`): update its firmware, or use another token";
    /// The module's file is not safe, or not a module.
    HsmModule = 26, "E-HSM-MODULE", Misconfigured,
        "the PKCS#11 module cannot be used",
        "module under [seal.pkcs11] is the absolute path of the vendor's library; the file and every folder above it belong to root and nobody else can write to them";
    /// More than one token of that label, or none with that serial.
    HsmToken = 27, "E-HSM-TOKEN", Misconfigured,
        "the token's label and serial do not name one token",
        "list the tokens (`pkcs11-tool --module MODULE -L`) and write token_label and token_serial under [seal.pkcs11]";
    /// A return value without a row of its own.
    HsmAnswer = 28, "E-HSM-RC", Internal,
        "the PKCS#11 module answered with a value that has no known remedy",
        "look up the value in the vendor's manual and report it; nothing was changed";
    /// The sealed node root was made by another wrapping key, or is damaged: it did not open, and the token is well.
    HsmForeign = 29, "E-HSM-FOREIGN", Denied,
        "the sealed node root does not open under the token's wrapping key",
        "if the file is right, another token or key sealed it: insert that token again, or run `nodeseal recover`; nothing was changed";
    /// The state's generation is below the TPM's counter.
    Rollback = 30, "E-ROLLBACK", Denied,
        "the state directory is older than this node's last key change",
        "restore the newest copy of the state directory; if there is none, `nodeseal reseal --accept-rollback` accepts this one, and ciphertexts of the keys that it lacks stay unreadable";
    /// TPM_RC_HANDLE (0x18B) on the counter's index, or it was defined and never counted (TPM_RC_NV_UNINITIALIZED, 0x14A).
    CounterGone = 31, "E-NV-GONE", Denied,
        "the TPM's counter that guards the state directory is gone",
        "someone removed it: find out who manages this TPM; if this is the newest state directory, `nodeseal reseal --accept-rollback` makes a new counter";
    /// TPM_RC_NV_SPACE (0x14B); an index outside of the owner's range; at ours, other attributes or another authValue (0x9A2).
    CounterSpace = 32, "E-NV-SPACE", Misconfigured,
        "the TPM has no space for the counter, or its index holds something else",
        "choose another counter_index under [seal.tpm2], or make the owner remove unneeded indexes (`tpm2_getcap handles-nv-index`, `tpm2_nvundefine`); `nodeseal init --replace-counter` replaces a counter that an earlier installation of this very node left";
    /// Its bytes do not parse; it names another storage root key; TPM_RC_INTEGRITY and its like at TPM2_Import; another authValue.
    ForeignBundle = 33, "E-BUNDLE-FOREIGN", Denied,
        "the bundle was not made for this TPM and this request, or is damaged",
        "make a request on this node (`nodeseal bundle request`) and a bundle from it; nothing was changed";
    /// TPM_RC_HIERARCHY (0x85, 0x185): shEnable is clear.
    HierarchyOff = 34, "E-TPM-HIERARCHY", Unavailable,
        "the TPM's storage hierarchy, which holds Nodeseal's keys, is switched off",
        "power the machine off and on, because it is switched off for one boot only; if it happens again, switch it on in the firmware's setup (\"Storage Hierarchy\"; also check \"TPM State\" and a pending clear); nothing was changed";
    /// The sealer's own bound passed during one question.
    Stuck = 35, "E-DEVICE-STUCK", Unavailable,
        "the device did not answer in time, and the sealer has ended, because a call into it cannot be cancelled",
        "the supervisor restarts the sealer, and this is retried; if it happens again, check whether the device works for other programs (`tpm2_getcap properties-fixed`, `pkcs11-tool --module MODULE -L`), and power it off and on";
}

/// A fault with what was seen. The detail never holds secret bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Which row of the table.
    pub code: FaultCode,
    /// Figures for the operator: response code, PCR values, Names. At most [`Fault::DETAIL_MAX_BYTES`].
    pub detail: String,
}

impl Fault {
    /// Room for eight PCRs with both values.
    pub const DETAIL_MAX_BYTES: usize = 4096;

    /// Cuts an over-long detail at a character's border.
    pub fn new(code: FaultCode, detail: impl Into<String>) -> Self {
        let mut detail = detail.into();
        if detail.len() > Self::DETAIL_MAX_BYTES {
            detail.truncate(detail.floor_char_boundary(Self::DETAIL_MAX_BYTES));
        }
        Self { code, detail }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.code(), self.code.message())?;
        if self.detail.is_empty() { Ok(()) } else { write!(f, " ({})", self.detail) }
    }
}

impl std::error::Error for Fault {}

/// The code of the fault that is told of. They are one closed list, and stand in the text as words of their own.
pub fn code_in(text: &str) -> Option<&'static str> {
    let mut words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.find_map(|word| FaultCode::ALL.iter().map(|fault| fault.code()).find(|code| *code == word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_fault_has_its_own_number_and_code_and_a_next_step() {
        let codes: HashSet<_> = FaultCode::ALL.iter().map(|fault| fault.code()).collect();
        assert_eq!(codes.len(), FaultCode::ALL.len());
        for fault in FaultCode::ALL {
            assert_eq!(FaultCode::from_number(*fault as u8), Some(*fault));
            assert!(fault.hint().len() > 20, "{}", fault.code());
        }
        assert_eq!(FaultCode::from_number(0), None);
    }

    #[test]
    fn an_endless_detail_is_cut_without_a_panic() {
        assert!(Fault::new(FaultCode::Internal, "ü".repeat(4096)).detail.len() <= Fault::DETAIL_MAX_BYTES);
    }
}
