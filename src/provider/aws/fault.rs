//! What an answer of AWS means to us: one table.
//!
//! Keeps neither the SDK's error nor the answer: both would show bodies in their `Debug`, and a body may hold a key. Of AWS's own sentence only words
//! that are known are shown, whatever was asked for: each request has a session token or a signature in its headers, and whatever stands
//! before AWS may repeat them.

use std::error::Error;

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;

use super::super::http::retry_after;
use super::super::session::OF_CLOCK;
use crate::provider::error::known_words;
use crate::provider::{ErrorKind, ProviderError};

/// By the code that KMS or STS gives (KMS and STS API references, "Errors" of each operation and "Common errors").
const KINDS: &[(&str, ErrorKind)] = &[
    ("InvalidCiphertextException", ErrorKind::Text),
    ("IncorrectKeyException", ErrorKind::Text),
    ("AccessDenied", ErrorKind::Forbidden),
    ("AccessDeniedException", ErrorKind::Forbidden),
    ("NotAuthorized", ErrorKind::Forbidden),
    ("NotAuthorizedException", ErrorKind::Forbidden),
    ("OptInRequired", ErrorKind::Forbidden),
    ("UnrecognizedClientException", ErrorKind::Login),
    ("InvalidClientTokenId", ErrorKind::Login),
    ("InvalidSignatureException", ErrorKind::Login),
    ("SignatureDoesNotMatch", ErrorKind::Login),
    ("IncompleteSignature", ErrorKind::Login),
    ("IncompleteSignatureException", ErrorKind::Login),
    ("MissingAuthenticationToken", ErrorKind::Login),
    ("MissingAuthenticationTokenException", ErrorKind::Login),
    ("ExpiredToken", ErrorKind::Login),
    ("ExpiredTokenException", ErrorKind::Login),
    ("InvalidToken", ErrorKind::Login),
    ("RequestExpired", ErrorKind::Login),
    ("RequestTimeTooSkewed", ErrorKind::Login),
    ("InvalidIdentityToken", ErrorKind::Login),
    ("IDPRejectedClaim", ErrorKind::Login),
    ("DisabledException", ErrorKind::NoKey),
    ("KMSInvalidStateException", ErrorKind::NoKey),
    ("NotFoundException", ErrorKind::NoKey),
    ("InvalidKeyUsageException", ErrorKind::Unfit),
    ("InvalidArnException", ErrorKind::Unfit),
    ("ValidationException", ErrorKind::Unfit),
    ("ValidationError", ErrorKind::Unfit),
    ("RegionDisabledException", ErrorKind::Unfit),
    ("UnsupportedOperationException", ErrorKind::Unfit),
    ("UnknownOperationException", ErrorKind::Unfit),
    ("ThrottlingException", ErrorKind::Throttled),
    ("Throttling", ErrorKind::Throttled),
    ("LimitExceededException", ErrorKind::Throttled),
    ("RequestLimitExceeded", ErrorKind::Throttled),
    ("TooManyRequestsException", ErrorKind::Throttled),
    ("KMSInternalException", ErrorKind::Down),
    ("DependencyTimeoutException", ErrorKind::Down),
    ("KeyUnavailableException", ErrorKind::Down),
    ("InternalFailure", ErrorKind::Down),
    ("ServiceUnavailable", ErrorKind::Down),
    ("ServiceUnavailableException", ErrorKind::Down),
    ("IDPCommunicationError", ErrorKind::Down),
];

/// A signature of another time than AWS's: its sentences begin so, and some services have a code for it.
const CLOCK_WORDS: [&str; 2] = ["Signature expired", "Signature not yet current"];
const CLOCK_CODES: [&str; 2] = ["RequestExpired", "RequestTimeTooSkewed"];

/// What the sentences of AWS have in common that helps whoever reads them.
const KNOWN_WORDS: [&str; 31] = [
    "is not authorized to perform: kms:DescribeKey",
    "is not authorized to perform: kms:ListKeyRotations",
    "is not authorized to perform: kms:Encrypt",
    "is not authorized to perform: kms:Decrypt",
    "is not authorized to perform: sts:AssumeRole",
    "no identity-based policy allows",
    "no resource-based policy allows",
    "no session policy allows",
    "no VPC endpoint policy allows",
    "with an explicit deny in",
    "is disabled",
    "is pending deletion",
    "is pending import",
    "does not exist",
    "Invalid keyId",
    "Invalid arn",
    "Rate exceeded",
    "The security token included in the request is invalid",
    "The security token included in the request is expired",
    "The provided token has expired",
    "The request signature we calculated does not match",
    "No OpenIDConnect provider found in your account",
    "Incorrect token audience",
    "Token is expired",
    "Token must be redeemed within",
    "Couldn't retrieve verification key from your identity provider",
    "Provided Token is not a valid",
    "OpenIDConnect provider's HTTPS certificate doesn't match configured thumbprint",
    "DurationSeconds exceeds the MaxSessionDuration",
    "Request ARN is invalid",
    "STS is not activated in this region",
];

/// By code, and without a code that we know by HTTP's status.
fn kind_of(code: Option<&str>, status: u16) -> ErrorKind {
    let known = code.and_then(|code| KINDS.iter().find(|(known, _)| *known == code));
    match (known, status) {
        (Some((_, kind)), _) => *kind,
        (None, 429) => ErrorKind::Throttled,
        // A redirect is never followed: the signature is for this host.
        (None, 300..400 | 500..) => ErrorKind::Down,
        (None, _) => ErrorKind::Protocol,
    }
}

/// The code of a refusal, where the service gave one.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(ProvideErrorMetadata::code)
}

/// A failed request as one of ours. `asked` is what it was, such as `kms:DescribeKey`.
pub(super) fn from_sdk<E: ProvideErrorMetadata>(asked: &str, error: SdkError<E, HttpResponse>) -> ProviderError {
    convert(asked, error, |kind| kind)
}

/// The same for a request that would give a login: one that may not be made is a refused login, whatever the reason is called.
pub(super) fn from_login<E: ProvideErrorMetadata>(asked: &str, error: SdkError<E, HttpResponse>) -> ProviderError {
    convert(asked, error, |kind| if kind == ErrorKind::Forbidden { ErrorKind::Login } else { kind })
}

/// RFC 9562 §4. What else stands there may be something that was sent.
fn is_uuid(text: &str) -> bool {
    let is_hex = |part: &str| part.bytes().all(|byte| byte.is_ascii_hexdigit());
    text.split('-').map(str::len).eq([8, 4, 4, 4, 12]) && text.split('-').all(is_hex)
}

fn convert<E: ProvideErrorMetadata>(
    asked: &str,
    error: SdkError<E, HttpResponse>,
    meant: fn(ErrorKind) -> ErrorKind,
) -> ProviderError {
    match error {
        SdkError::ServiceError(refusal) => {
            let status = refusal.raw().status().as_u16();
            let id = refusal.raw().headers().get("x-amzn-requestid").filter(|id| is_uuid(id)).unwrap_or("-").to_owned();
            let pause = refusal.raw().headers().get("retry-after").and_then(retry_after);
            let answer = refusal.into_err();
            let kind = kind_of(answer.code(), status);
            let words = known_words(answer.message().unwrap_or_default(), &KNOWN_WORDS);
            let words = if words.is_empty() { words } else { format!(": {words}") };
            let code =
                answer.code().map_or("no code", |code| if is_name(code) { code } else { "a code that is no name" });
            let is_of_clock = kind == ErrorKind::Login
                && (CLOCK_CODES.contains(&code)
                    || answer.message().is_some_and(|text| CLOCK_WORDS.iter().any(|words| text.starts_with(words))));
            let why = if is_of_clock { ", the clocks differ" } else { "" };
            let error = ProviderError::new(meant(kind), format!("{asked}: {status} {code}{why}, request {id}{words}"));
            let error = error.after(pause);
            if is_of_clock { error.with_hint(OF_CLOCK) } else { error }
        }
        SdkError::TimeoutError(_) => ProviderError::new(ErrorKind::Away, format!("{asked}: no answer in time")),
        // A body that was read to its end stands in memory.
        SdkError::ResponseError(answer) if answer.raw().body().bytes().is_none() => {
            ProviderError::new(ErrorKind::Away, format!("{asked}: the answer ended before its end"))
        }
        SdkError::ResponseError(answer) => {
            let status = answer.raw().status().as_u16();
            let kind = if status >= 500 { ErrorKind::Down } else { ErrorKind::Protocol };
            ProviderError::new(kind, format!("{asked}: status {status}, and not what the operation answers"))
        }
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(connector) => from_connector(asked, connector),
            None => ProviderError::new(ErrorKind::Away, format!("{asked}: not sent")),
        },
        SdkError::ConstructionFailure(_) => {
            ProviderError::new(ErrorKind::Unfit, format!("{asked}: no request can be made of the configuration"))
        }
        _ => ProviderError::new(ErrorKind::Protocol, format!("{asked}: the SDK gives no reason")),
    }
}

/// A name, which no key looks like: AWS's have letters alone.
fn is_name(code: &str) -> bool {
    code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphabetic())
}

/// What our own client of HTTP has said, below what the SDK has put around it.
fn from_connector(asked: &str, connector: &ConnectorError) -> ProviderError {
    let mut next: Option<&(dyn Error + 'static)> = connector.source();
    while let Some(error) = next {
        if let Some(ours) = error.downcast_ref::<ProviderError>() {
            return ProviderError::new(ours.kind(), asked).because(ours.again());
        }
        next = error.source();
    }
    ProviderError::new(ErrorKind::Away, format!("{asked}: no answer in time"))
}

#[cfg(test)]
mod tests {
    use aws_sdk_kms::error::ErrorMetadata;
    use aws_sdk_kms::operation::decrypt::DecryptError;
    use aws_smithy_runtime_api::http::StatusCode;

    use super::*;
    use crate::types::Explained;

    const ALL: [ErrorKind; 12] = [
        ErrorKind::Away,
        ErrorKind::Down,
        ErrorKind::Throttled,
        ErrorKind::Login,
        ErrorKind::Credential,
        ErrorKind::Forbidden,
        ErrorKind::NoKey,
        ErrorKind::Peer,
        ErrorKind::Unfit,
        ErrorKind::Text,
        ErrorKind::Lied,
        ErrorKind::Protocol,
    ];

    fn refusal(code: &str, status: u16, message: &str) -> SdkError<DecryptError, HttpResponse> {
        let meta = ErrorMetadata::builder().code(code).message(message).build();
        let raw = HttpResponse::new(StatusCode::try_from(status).unwrap(), "CANARY in the body".into());
        SdkError::service_error(DecryptError::generic(meta), raw)
    }

    #[test]
    fn every_row_gives_its_kind_and_shows_its_code() {
        let mut codes = std::collections::BTreeSet::new();
        for (code, kind) in KINDS {
            let error = from_sdk("kms:Decrypt", refusal(code, 400, "x"));
            assert_eq!(error.kind(), *kind, "{code}");
            assert!(error.to_string().contains(&format!("400 {code}")), "{error}");
            assert!(codes.insert(code), "{code} stands twice");
        }
        // What has no row is never a refusal of AWS's: of the wire, of our own checks, or not understood.
        for kind in ALL {
            let expected = !matches!(
                kind,
                ErrorKind::Away | ErrorKind::Credential | ErrorKind::Peer | ErrorKind::Lied | ErrorKind::Protocol
            );
            assert_eq!(KINDS.iter().any(|(_, found)| *found == kind), expected, "{kind:?}");
        }
    }

    #[test]
    fn a_code_that_nobody_knows_goes_by_its_status() {
        for (status, kind) in [
            (400, ErrorKind::Protocol),
            (403, ErrorKind::Protocol),
            (429, ErrorKind::Throttled),
            (503, ErrorKind::Down),
        ] {
            assert_eq!(from_sdk("kms:Decrypt", refusal("Novel", status, "x")).kind(), kind, "{status}");
        }
    }

    #[test]
    fn neither_a_body_nor_the_text_of_a_refused_signature_is_kept() {
        let error = from_sdk("kms:Decrypt", refusal("InvalidSignatureException", 400, "x-amz-security-token:CANARY"));
        assert!(!format!("{error} {error:?}").contains("CANARY"), "{error:?}");
        let raw = HttpResponse::new(StatusCode::try_from(200).unwrap(), "CANARY".into());
        let error = from_sdk::<DecryptError>("kms:Decrypt", SdkError::response_error("CANARY", raw));
        assert_eq!(error.kind(), ErrorKind::Protocol);
        assert!(!format!("{error} {error:?}").contains("CANARY"), "{error:?}");
    }

    #[test]
    fn a_clock_that_differs_is_told_as_that_and_without_the_sentence() {
        for (code, words, is_of_clock) in [
            ("InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than CANARY", true),
            ("SignatureDoesNotMatch", "Signature not yet current: CANARY", true),
            ("RequestExpired", "CANARY", true),
            ("InvalidSignatureException", "The signature does not match. CANARY Signature expired", false),
        ] {
            let error = from_sdk("kms:Decrypt", refusal(code, 400, words));
            assert_eq!((error.kind(), error.hint() == OF_CLOCK), (ErrorKind::Login, is_of_clock), "{code}");
            assert!(!format!("{error} {error:?}").contains("CANARY"), "{error:?}");
        }
    }

    #[test]
    fn a_missing_right_is_told_in_the_words_of_aws() {
        for right in ["kms:DescribeKey", "kms:ListKeyRotations", "kms:Decrypt"] {
            let sentence =
                format!("User: arn:aws:iam::1:user/x is not authorized to perform: {right} on resource: CANARY");
            let error = from_sdk(right, refusal("AccessDeniedException", 400, &sentence)).to_string();
            assert!(error.ends_with(&format!("request -: is not authorized to perform: {right})")), "{error}");
        }
    }

    #[test]
    fn of_an_answer_to_a_key_only_words_that_are_known_are_shown_however_it_is_repeated() {
        for part in ["3 133 196 7", "AbCd%2BEfGh%2Fij%3D", "QkFTRTY0", "01:ab:ff"] {
            for code in
                ["ValidationException", "DisabledException", "AccessDeniedException", "ThrottlingException", part]
            {
                let error = from_sdk("kms:Encrypt", refusal(code, 400, &format!("{part} at plaintext is disabled")));
                let shown = format!("{error} {error:?}");
                assert!(!shown.contains(part), "{shown}");
            }
        }
    }

    #[test]
    fn of_an_answer_to_a_login_only_words_that_are_known_are_shown_however_it_is_repeated() {
        for code in ["AccessDenied", "InvalidIdentityToken", "ValidationError", "Throttling"] {
            let sentence = "User: EYJHBGCIOIJ is not authorized to perform: sts:AssumeRole on eyJhbGciOiJ";
            let error = from_login("sts:AssumeRoleWithWebIdentity", refusal(code, 400, sentence));
            let shown = format!("{error} {error:?}");
            assert!(!shown.to_ascii_lowercase().contains("eyjhb"), "{shown}");
            assert!(shown.contains("request -: is not authorized to perform: sts:AssumeRole"), "{shown}");
        }
    }

    #[test]
    fn what_our_own_client_said_is_found_below_the_sdks_words() {
        for kind in [ErrorKind::Peer, ErrorKind::Away, ErrorKind::Unfit] {
            let ours = ProviderError::new(kind, "no connection");
            let error =
                from_sdk::<DecryptError>("x", SdkError::dispatch_failure(ConnectorError::other(ours.into(), None)));
            assert_eq!(error.kind(), kind);
            assert!(crate::types::Chain(&error).to_string().contains("no connection"), "{error}");
        }
        let late = ConnectorError::timeout("late".into());
        assert_eq!(from_sdk::<DecryptError>("x", SdkError::dispatch_failure(late)).kind(), ErrorKind::Away);
        let error = from_sdk::<DecryptError>("x", SdkError::timeout_error("late"));
        assert_eq!(error.kind(), ErrorKind::Away);
    }

    #[test]
    fn the_number_of_a_request_is_one_or_is_not_shown() {
        let meta = ErrorMetadata::builder().code("DisabledException").build();
        let mut raw = HttpResponse::new(StatusCode::try_from(400).unwrap(), "".into());
        // As something on the way might write it that repeats what it was sent.
        raw.headers_mut().insert("x-amzn-requestid", "Q0FOQVJZQ0FOQVJZQ0FOQVJZQ0FOQVJZQ0FOQVJZQ0E=");
        let error = from_sdk("kms:Encrypt", SdkError::service_error(DecryptError::generic(meta), raw));
        assert!(!error.to_string().contains("Q0FOQVJZ"), "{error}");
    }

    #[test]
    fn words_in_answer_to_a_look_at_a_key_show_no_session_token_that_was_sent_with_it() {
        // Something before AWS repeats the headers that it has refused.
        let said = "blocked by a rule: x-amz-security-token: IQoJb3JpZ2luX2VjCANARY";
        for code in ["AccessDeniedException", "NotFoundException", "ThrottlingException"] {
            let shown = from_sdk("kms:DescribeKey", refusal(code, 400, said)).to_string();
            assert!(!shown.contains("CANARY"), "{shown}");
        }
    }
}
