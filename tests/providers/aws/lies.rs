//! Answers that cannot be right, versions that AWS names and moto does not, and refusals as AWS writes them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nodeseal::provider::{ErrorKind, Kek};
use serde_json::{Value, json};

use super::fake::{Fake, KEY, MATERIAL, described};
use super::ground::{Local, open, run};

const OTHER: &str = "arn:aws:kms:eu-central-1:123456789012:key/0000abcd-12ab-34cd-56ef-1234567890ab";

/// A server that puts "text of " before what it encrypts, and tells the material; `change` has the last word on each answer.
fn server(change: impl Fn(&str, &mut Value) + Send + Sync + 'static) -> Fake {
    Fake::start(move |operation, input| {
        let bytes = |name: &str| BASE64.decode(input[name].as_str().unwrap()).unwrap();
        let (status, mut answer) = match operation {
            "DescribeKey" => described(Some(MATERIAL)),
            "Encrypt" => {
                let text = [b"text of ".as_slice(), &bytes("Plaintext")].concat();
                (200, json!({"KeyId": KEY, "CiphertextBlob": BASE64.encode(text)}))
            }
            "Decrypt" => {
                let plain = &bytes("CiphertextBlob")[8..];
                (200, json!({"KeyId": KEY, "Plaintext": BASE64.encode(plain), "KeyMaterialId": MATERIAL}))
            }
            other => (400, json!({"__type": "UnknownOperationException", "message": other})),
        };
        change(operation, &mut answer);
        (status, answer)
    })
}

#[test]
fn the_version_is_that_of_the_material_that_made_this_very_text() {
    let newer = "f".repeat(64);
    let told = newer.clone();
    // A rotation between the probe and the wrap.
    let server = server(move |operation, answer| {
        if operation == "Decrypt" {
            answer["KeyMaterialId"] = told.clone().into();
        }
    });
    let provider = open(&server.endpoint(), KEY);
    run(async {
        assert_eq!(provider.probe().await.unwrap().version.as_str(), format!("material-{MATERIAL}"));
        let wrapped = Local::new("c1", 1).round_trip(&provider).await;
        assert_eq!(wrapped.version.as_str(), format!("material-{newer}"));
    });
    // Nothing was asked twice, and rotations were not listed.
    assert_eq!(server.operations(), ["DescribeKey", "Encrypt", "Decrypt", "Decrypt"]);
}

#[test]
fn a_wrap_names_key_and_context_to_aws_and_so_does_opening_it() {
    let server = server(|_, _| {});
    let provider = open(&server.endpoint(), KEY);
    run(Local::new("prod-eu-1", 0xab).round_trip(&provider));
    let asked = server.asked();
    assert_eq!(asked.len(), 4);
    let context = json!({"nodeseal.cluster": "prod-eu-1", "nodeseal.kek": "ab".repeat(16)});
    for (operation, input) in &asked[1..] {
        assert_eq!((&input["KeyId"], &input["EncryptionContext"]), (&KEY.into(), &context), "{operation}");
        assert_eq!(input["EncryptionAlgorithm"], "SYMMETRIC_DEFAULT");
    }
}

#[test]
fn an_answer_that_cannot_be_right_is_a_lie() {
    type Change = fn(&mut Value);
    let table: [(&str, Change); 9] = [
        ("Encrypt", |answer| answer["CiphertextBlob"] = "".into()),
        ("Encrypt", |answer| answer["CiphertextBlob"] = Value::Null),
        ("Encrypt", |answer| answer["KeyId"] = OTHER.into()),
        ("Encrypt", |answer| answer["KeyId"] = Value::Null),
        ("Decrypt", |answer| answer["KeyId"] = OTHER.into()),
        ("Decrypt", |answer| answer["Plaintext"] = BASE64.encode([7; 31]).into()),
        ("Decrypt", |answer| answer["Plaintext"] = Value::Null),
        ("Decrypt", |answer| answer["KeyMaterialId"] = Value::Null),
        ("DescribeKey", |answer| answer["KeyMetadata"]["Arn"] = OTHER.into()),
    ];
    for (number, (which, change)) in table.into_iter().enumerate() {
        let server = server(move |operation, answer| {
            if operation == which {
                change(answer);
            }
        });
        let local = Local::new("c1", 1);
        let provider = open(&server.endpoint(), KEY);
        let error = run(provider.wrap_key(&local.key, local.context())).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Lied, "row {number}: {error}");
    }
}

#[test]
fn a_text_that_opens_to_another_key_is_never_given_out() {
    let server = server(|operation, answer| {
        if operation == "Decrypt" {
            answer["Plaintext"] = BASE64.encode([9; 32]).into();
        }
    });
    let local = Local::new("c1", 1);
    let error = run(open(&server.endpoint(), KEY).wrap_key(&local.key, local.context())).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Lied, "{error}");
}

#[test]
fn a_refusal_on_the_wire_is_the_one_of_the_table() {
    for (status, code, kind) in [
        (400, "InvalidCiphertextException", ErrorKind::Text),
        (400, "com.amazonaws.kms#IncorrectKeyException", ErrorKind::Text),
        (400, "AccessDeniedException", ErrorKind::Forbidden),
        (400, "UnrecognizedClientException", ErrorKind::Login),
        (400, "DisabledException", ErrorKind::NoKey),
        (400, "KMSInvalidStateException", ErrorKind::NoKey),
        (400, "ThrottlingException", ErrorKind::Throttled),
        (500, "KMSInternalException", ErrorKind::Down),
        (503, "ServiceUnavailableException", ErrorKind::Down),
    ] {
        let server = Fake::start(move |operation, _| match operation {
            "DescribeKey" => described(Some(MATERIAL)),
            _ => (status, json!({"__type": code, "message": "told by AWS"})),
        });
        let local = Local::new("c1", 1);
        let provider = open(&server.endpoint(), KEY);
        let error = run(provider.wrap_key(&local.key, local.context())).err().unwrap();
        assert_eq!(error.kind(), kind, "{code}: {error}");
        assert_eq!(server.operations(), ["DescribeKey", "Encrypt"], "one call is one attempt");
    }
}

#[test]
fn an_error_page_is_not_understood_and_a_gateways_is_down() {
    for (status, kind) in [(200, ErrorKind::Protocol), (404, ErrorKind::Protocol), (502, ErrorKind::Down)] {
        let server = Fake::start(move |_, _| (status, "<html>a proxy</html>".into()));
        let error = run(open(&server.endpoint(), KEY).probe()).unwrap_err();
        assert_eq!(error.kind(), kind, "{status}: {error}");
    }
}

#[test]
fn where_rotations_cannot_be_listed_the_version_is_a_constant_and_an_outage_is_not_taken_for_that() {
    for (status, code, expected) in [
        (400, "AccessDeniedException", Ok("unversioned")),
        (400, "UnsupportedOperationException", Ok("unversioned")),
        (400, "UnknownOperationException", Ok("unversioned")),
        (400, "ThrottlingException", Err(ErrorKind::Throttled)),
        (500, "KMSInternalException", Err(ErrorKind::Down)),
    ] {
        let server = Fake::start(move |operation, _| match operation {
            "DescribeKey" => described(None),
            _ => (status, json!({"__type": code})),
        });
        let state = run(open(&server.endpoint(), KEY).probe());
        let seen = state.as_ref().map(|state| state.version.as_str()).map_err(|error| error.kind());
        assert_eq!(seen, expected, "{code}");
    }
}
