//! The only place where a failure becomes a gRPC status. The caller gets one fixed sentence; the log gets the whole chain.
//!
//! Every text begins with `nodeseal: `, holds neither a path nor anything of the request, and is at most
//! `limits::ERROR_TEXT_MAX_BYTES` long.

use http::{HeaderMap, HeaderValue, Response};
use tonic::{Code, Status};

use crate::audit::{Event, emit};
use crate::keyring::KeyringError;
use crate::telemetry::{self, Refused};
use crate::types::{Chain, Class, Explained};

/// How texts of ours are told from those that tonic makes.
const MARK: &str = "nodeseal:";

/// The code of each class.
const fn code(class: Class) -> Code {
    match class {
        Class::Corrupt => Code::InvalidArgument,
        Class::Denied => Code::PermissionDenied,
        Class::Internal => Code::Internal,
        Class::Misconfigured => Code::FailedPrecondition,
        Class::NotFound => Code::NotFound,
        Class::Throttled => Code::ResourceExhausted,
        Class::Unavailable => Code::Unavailable,
    }
}

/// The fixed sentence of a failure.
fn sentence(error: &KeyringError) -> &'static str {
    match error {
        KeyringError::Envelope(crate::envelope::EnvelopeError::PlaintextLength) => {
            "nodeseal: corrupt: the plaintext is empty or longer than this API can store"
        }
        KeyringError::Crowded => "nodeseal: throttled: too many calls wait for the providers",
        KeyringError::Envelope(_) => {
            "nodeseal: corrupt: the ciphertext, its key_id or its annotations are not what this plugin wrote"
        }
        KeyringError::Exhausted => {
            "nodeseal: unavailable: the local KEK has reached its limit of encryptions and must be rotated"
        }
        KeyringError::Locked => {
            "nodeseal: unavailable: the keys of this node are still sealed; see the log of nodeseald"
        }
        KeyringError::Providers(error) => match error.class() {
            Class::Unavailable => {
                "nodeseal: unavailable: no provider that can open or make this key answers; see the log of nodeseald"
            }
            Class::Throttled => {
                "nodeseal: throttled: the providers limit the requests of this node; see the log of nodeseald"
            }
            Class::Denied => "nodeseal: denied: the providers refuse this node; see the log of nodeseald",
            Class::Misconfigured => {
                "nodeseal: misconfigured: the providers cannot be used as configured; see the log of nodeseald"
            }
            Class::NotFound => {
                "nodeseal: not_found: no provider has the key that the ciphertext needs; see the log of nodeseald"
            }
            Class::Internal => "nodeseal: internal: the providers gave impossible answers; see the log of nodeseald",
            Class::Corrupt => {
                "nodeseal: corrupt: no provider opens the wraps of the ciphertext; see the log of nodeseald"
            }
        },
        KeyringError::AwaitsBundle => {
            "nodeseal: unavailable: this node waits for the keys of another node; see `nodeseal status`"
        }
        KeyringError::Waiting => {
            "nodeseal: unavailable: no provider has wrapped a key of this node yet; see the log of nodeseald"
        }
        KeyringError::Random(_) | KeyringError::Reservation => {
            "nodeseal: unavailable: this node cannot encrypt at the moment; see the log of nodeseald"
        }
        KeyringError::UnknownKek(_) => "nodeseal: not_found: this node does not have the key that the ciphertext needs",
    }
}

/// Logs the failure of a call and gives what its caller may know.
pub(super) fn refuse(op: &'static str, uid: &str, error: &KeyringError) -> Status {
    let class = error.class();
    if matches!(error, KeyringError::Crowded) {
        telemetry::refused(Refused::TooManyWaiting);
    }
    emit(&Event::RequestRefused { op, uid, class, error: &Chain(error) });
    Status::new(code(class), sentence(error))
}

/// A field of the request breaks the contract.
pub(super) fn bad_field(op: &'static str, uid: &str, sentence: &'static str) -> Status {
    telemetry::refused(Refused::BadField);
    emit(&Event::RequestRefused { op, uid, class: Class::Corrupt, error: &sentence });
    Status::invalid_argument(sentence)
}

/// The bytes are no protobuf message of this API.
pub(super) fn not_a_message() -> Status {
    telemetry::refused(Refused::NotAMessage);
    Status::invalid_argument("nodeseal: corrupt: the request is not a message of this API")
}

/// The call did not arrive whole in time.
pub(super) fn too_slow() -> Status {
    telemetry::refused(Refused::TooSlow);
    Status::deadline_exceeded("nodeseal: unavailable: the request did not arrive in time")
}

/// The client's own limit has passed; it has most likely gone.
pub(super) fn past_deadline() -> Status {
    telemetry::refused(Refused::ClientDeadline);
    Status::deadline_exceeded("nodeseal: unavailable: the call was not finished within the client's deadline")
}

/// More calls at once than `limits::CALLS_IN_FLIGHT_MAX`.
pub(super) fn too_many_calls() -> Status {
    telemetry::refused(Refused::TooManyCalls);
    Status::resource_exhausted("nodeseal: throttled: too many calls at once")
}

/// A service or method that is not served here.
pub(super) fn unknown_method() -> Status {
    telemetry::refused(Refused::UnknownMethod);
    Status::unimplemented("nodeseal: not_found: this API or method is not served here")
}

/// Replaces the answers that tonic itself gives to a message that it could not take: its codes are not those of the contract, and
/// its texts are not ours.
pub(super) fn mend<B>(response: &mut Response<B>) {
    let headers = response.headers_mut();
    let Some(code) = headers.get(GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes())) else { return };
    let ours = headers.get(GRPC_MESSAGE).is_some_and(|text| text.as_bytes().starts_with(MARK.as_bytes()));
    if code == Code::Ok || ours {
        return;
    }
    let (why, code, text) = match code {
        Code::OutOfRange => (
            Refused::MessageTooLong,
            Code::ResourceExhausted,
            "nodeseal:%20throttled:%20the%20message%20is%20longer%20than%20128%20KiB",
        ),
        Code::Unimplemented => (
            Refused::UnknownMethod,
            Code::Unimplemented,
            "nodeseal:%20not_found:%20this%20method%20or%20encoding%20is%20not%20served%20here",
        ),
        _ => (
            Refused::NotAMessage,
            Code::InvalidArgument,
            "nodeseal:%20corrupt:%20the%20request%20is%20not%20a%20message%20of%20this%20API",
        ),
    };
    telemetry::refused(why);
    set(headers, code, text);
}

/// What an answer says before its body, which is when it has none; absent: what was asked for.
pub(super) fn code_of<B>(response: &Response<B>) -> Option<i32> {
    Some(Code::from_bytes(response.headers().get(GRPC_STATUS)?.as_bytes()) as i32)
}

const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";

fn set(headers: &mut HeaderMap, code: Code, text: &'static str) {
    headers.insert(GRPC_STATUS, HeaderValue::from(code as i32));
    headers.insert(GRPC_MESSAGE, HeaderValue::from_static(text));
    headers.remove("grpc-status-details-bin");
}

#[cfg(test)]
mod tests {
    use super::super::limits::ERROR_TEXT_MAX_BYTES;
    use super::*;
    use crate::envelope::EnvelopeError;
    use crate::types::KekId;

    #[test]
    fn every_text_is_short_fixed_and_without_a_path() {
        let errors = [
            KeyringError::Crowded,
            KeyringError::Envelope(EnvelopeError::Authentication),
            KeyringError::Envelope(EnvelopeError::PlaintextLength),
            KeyringError::Exhausted,
            KeyringError::Locked,
            KeyringError::Reservation,
            KeyringError::UnknownKek(KekId::from_bytes([7; 16])),
        ];
        for error in &errors {
            let status = refuse("v2.Decrypt", "-", error);
            assert!(status.message().starts_with(MARK) && status.message().len() <= ERROR_TEXT_MAX_BYTES);
            assert!(!status.message().contains('/') && !status.message().contains("0707"));
        }
    }

    #[test]
    fn what_tonic_says_of_a_long_message_becomes_resource_exhausted() {
        let mut response =
            Status::out_of_range("Error, decoded message length too large: found 200000 bytes").into_http::<()>();
        mend(&mut response);
        assert_eq!(response.headers()[GRPC_STATUS], "8");
        let mut ours = Status::not_found("nodeseal: not_found: x").into_http::<()>();
        mend(&mut ours);
        assert_eq!(ours.headers()[GRPC_STATUS], "5");
    }
}
