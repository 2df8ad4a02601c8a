//! From a module's return value to the fault that names the remedy, and to what is worth opening everything anew for.
//!
//! The values are those of PKCS#11 v3.0 §5.1. Their use by modules is loose: SoftHSM 2 says CKR_GENERAL_ERROR of a GCM tag that
//! does not fit, which of another one is a broken device. So a value that was given while opening a text is [`Answer::Text`],
//! and the token's health decides (`mod.rs`).

use std::fmt;

use cryptoki::error::{Error, RvError};

use crate::seal::fault::{Fault, FaultCode};

/// What was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// C_Initialize.
    Initialise,
    /// C_GetSlotList and C_GetTokenInfo.
    FindToken,
    /// C_OpenSession.
    OpenSession,
    /// C_Login.
    Login,
    /// C_FindObjects and C_GetAttributeValue.
    FindKey,
    /// C_GenerateKey and C_GenerateKeyPair.
    MakeKey,
    /// Encrypting our text.
    Encrypt,
    /// Decrypting our text.
    Decrypt,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initialise => "initialising the module",
            Self::FindToken => "looking for the token",
            Self::OpenSession => "opening a session",
            Self::Login => "logging in",
            Self::FindKey => "looking for the wrapping key",
            Self::MakeKey => "making the wrapping key",
            Self::Encrypt => "encrypting",
            Self::Decrypt => "decrypting",
        })
    }
}

/// What a return value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The token, our session or our handle is no more: open everything anew, once.
    Gone,
    /// The PIN was refused. Never again with the same.
    Pin,
    /// The token does not do what was asked.
    Mechanism,
    /// The key cannot be used or made.
    Key,
    /// The text does not open, or the device is broken: the module does not say which.
    Text,
    /// No row: a defect of the module or of ours.
    Unknown,
}

/// The table.
pub(super) const fn answer(rv: RvError) -> Answer {
    use RvError as R;
    match rv {
        R::CryptokiNotInitialized
        | R::DeviceError
        | R::DeviceMemory
        | R::DeviceRemoved
        | R::HostMemory
        | R::KeyHandleInvalid
        | R::ObjectHandleInvalid
        | R::OperationActive
        | R::OperationNotInitialized
        | R::SessionClosed
        | R::SessionCount
        | R::SessionHandleInvalid
        | R::SlotIdInvalid
        | R::TokenNotPresent
        | R::TokenNotRecognized
        | R::UserNotLoggedIn => Answer::Gone,
        R::PinExpired
        | R::PinIncorrect
        | R::PinInvalid
        | R::PinLenRange
        | R::PinLocked
        | R::PinTooWeak
        | R::UserPinNotInitialized => Answer::Pin,
        R::AttributeTypeInvalid
        | R::AttributeValueInvalid
        | R::FunctionNotSupported
        | R::KeySizeRange
        | R::MechanismInvalid
        | R::MechanismParamInvalid
        | R::TemplateIncomplete
        | R::TemplateInconsistent => Answer::Mechanism,
        R::ActionProhibited
        | R::KeyFunctionNotPermitted
        | R::KeyTypeInconsistent
        | R::SessionReadOnly
        | R::TokenWriteProtected => Answer::Key,
        R::ArgumentsBad
        | R::DataInvalid
        | R::DataLenRange
        | R::EncryptedDataInvalid
        | R::EncryptedDataLenRange
        | R::FunctionFailed
        | R::GeneralError
        | R::SignatureInvalid
        | R::SignatureLenRange => Answer::Text,
        _ => Answer::Unknown,
    }
}

/// Whether C_Login cannot have looked at the PIN when it answers this. Whatever else it says may have been counted as a wrong one:
/// tokens say CKR_GENERAL_ERROR, CKR_FUNCTION_FAILED, CKR_DEVICE_ERROR or CKR_ARGUMENTS_BAD of a PIN that is wrong.
pub(super) const fn never_reached_the_pin(rv: RvError) -> bool {
    use RvError as R;
    matches!(
        rv,
        R::CryptokiNotInitialized
            | R::FunctionNotSupported
            | R::SessionClosed
            | R::SessionHandleInvalid
            | R::SessionReadOnlyExists
            | R::SlotIdInvalid
            | R::TokenNotPresent
            | R::TokenNotRecognized
            | R::UserAnotherAlreadyLoggedIn
            | R::UserTooManyTypes
            | R::UserTypeInvalid
    )
}

/// A fault, and whether everything should be opened anew before it counts.
#[derive(Debug)]
pub(super) struct Failure {
    fault: Fault,
    answer: Option<Answer>,
    of_parameters: bool,
}

impl Failure {
    /// From a module's answer.
    pub(super) fn new(step: Step, error: &Error) -> Self {
        let Error::Pkcs11(rv, function) = error else {
            // What the wrapper itself could not make sense of. Its texts hold no bytes of ours.
            return Self::last(Fault::new(FaultCode::HsmAnswer, format!("{error}, {step}")));
        };
        let answer = answer(*rv);
        let of_parameters = matches!(step, Step::Encrypt | Step::Decrypt)
            && matches!(rv, RvError::MechanismParamInvalid | RvError::ArgumentsBad);
        let code = match (answer, step) {
            (Answer::Gone, _) | (Answer::Text, _) => FaultCode::HsmGone,
            (_, Step::Initialise | Step::OpenSession) => FaultCode::HsmGone,
            (Answer::Pin, _) => FaultCode::HsmPin,
            (Answer::Mechanism, _) => FaultCode::HsmMechanism,
            (Answer::Key, _) => FaultCode::HsmKey,
            (Answer::Unknown, _) => FaultCode::HsmAnswer,
        };
        Self {
            fault: Fault::new(code, format!("C_{function:?} gave {}, {step}", spelt(*rv))),
            answer: Some(answer),
            of_parameters,
        }
    }

    /// One that another try would not change.
    pub(super) const fn last(fault: Fault) -> Self {
        Self { fault, answer: None, of_parameters: false }
    }

    /// The text did not open, for a reason that the module does not tell.
    pub(super) fn is_of_text(&self) -> bool {
        self.answer == Some(Answer::Text)
    }

    /// The mechanism's parameters may be wanted in another form.
    pub(super) const fn is_of_parameters(&self) -> bool {
        self.of_parameters
    }

    /// Whatever was asked, the answer is about the token and not about the question.
    pub(super) fn is_of_device(&self) -> bool {
        self.answer == Some(Answer::Gone)
    }

    /// The PIN was refused.
    pub(super) fn is_of_pin(&self) -> bool {
        self.answer == Some(Answer::Pin)
    }

    /// Whether a fresh module, session and login may help.
    pub(super) fn may_pass(&self) -> bool {
        self.fault.code == FaultCode::HsmGone
    }

    pub(super) const fn fault(&self) -> &Fault {
        &self.fault
    }

    pub(super) fn into_fault(self) -> Fault {
        self.fault
    }
}

/// As in the standard: `CKR_DEVICE_REMOVED` of `DeviceRemoved`.
fn spelt(rv: RvError) -> String {
    match rv {
        RvError::VendorDefined(value) | RvError::UnknownErrorCode(value) => format!("{value:#010x}"),
        named => {
            let mut name = "CKR".to_owned();
            for letter in format!("{named:?}").chars() {
                if letter.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            name
        }
    }
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    fn code(step: Step, rv: RvError) -> FaultCode {
        Failure::new(step, &Error::Pkcs11(rv, Function::Decrypt)).into_fault().code
    }

    #[test]
    fn every_row_of_the_table_has_its_fault() {
        use RvError as R;
        let rows: [(FaultCode, &[RvError]); 6] = [
            (
                FaultCode::HsmGone,
                &[
                    R::CryptokiNotInitialized,
                    R::DeviceError,
                    R::DeviceMemory,
                    R::DeviceRemoved,
                    R::HostMemory,
                    R::KeyHandleInvalid,
                    R::ObjectHandleInvalid,
                    R::OperationActive,
                    R::OperationNotInitialized,
                    R::SessionClosed,
                    R::SessionCount,
                    R::SessionHandleInvalid,
                    R::SlotIdInvalid,
                    R::TokenNotPresent,
                    R::TokenNotRecognized,
                    R::UserNotLoggedIn,
                ],
            ),
            (
                FaultCode::HsmPin,
                &[
                    R::PinExpired,
                    R::PinIncorrect,
                    R::PinInvalid,
                    R::PinLenRange,
                    R::PinLocked,
                    R::PinTooWeak,
                    R::UserPinNotInitialized,
                ],
            ),
            (
                FaultCode::HsmMechanism,
                &[
                    R::AttributeTypeInvalid,
                    R::AttributeValueInvalid,
                    R::FunctionNotSupported,
                    R::KeySizeRange,
                    R::MechanismInvalid,
                    R::MechanismParamInvalid,
                    R::TemplateIncomplete,
                    R::TemplateInconsistent,
                ],
            ),
            (
                FaultCode::HsmKey,
                &[
                    R::ActionProhibited,
                    R::KeyFunctionNotPermitted,
                    R::KeyTypeInconsistent,
                    R::SessionReadOnly,
                    R::TokenWriteProtected,
                ],
            ),
            // Until the token's health has said otherwise.
            (
                FaultCode::HsmGone,
                &[
                    R::ArgumentsBad,
                    R::DataInvalid,
                    R::DataLenRange,
                    R::EncryptedDataInvalid,
                    R::EncryptedDataLenRange,
                    R::FunctionFailed,
                    R::GeneralError,
                    R::SignatureInvalid,
                    R::SignatureLenRange,
                ],
            ),
            (
                FaultCode::HsmAnswer,
                &[
                    R::UserAnotherAlreadyLoggedIn,
                    R::UserTypeInvalid,
                    R::VendorDefined(0x8000_0001),
                    R::UnknownErrorCode(7),
                ],
            ),
        ];
        for (expected, values) in rows {
            for rv in values {
                assert_eq!(code(Step::Decrypt, *rv), expected, "{rv:?}");
            }
        }
    }

    #[test]
    fn what_a_module_says_before_there_is_a_session_is_a_token_that_is_away() {
        assert_eq!(code(Step::Initialise, RvError::NeedToCreateThreads), FaultCode::HsmGone);
        assert_eq!(code(Step::OpenSession, RvError::GeneralError), FaultCode::HsmGone);
        assert_eq!(code(Step::Login, RvError::PinLocked), FaultCode::HsmPin);
    }

    #[test]
    fn a_value_is_named_as_in_the_standard() {
        assert_eq!(spelt(RvError::DeviceRemoved), "CKR_DEVICE_REMOVED");
        assert_eq!(spelt(RvError::VendorDefined(0x8000_0001)), "0x80000001");
        let failure = Failure::new(Step::Decrypt, &Error::Pkcs11(RvError::GeneralError, Function::Decrypt));
        assert_eq!(failure.fault().detail, "C_Decrypt gave CKR_GENERAL_ERROR, decrypting");
        assert!(failure.is_of_text() && failure.may_pass() && !failure.is_of_pin());
    }
}
