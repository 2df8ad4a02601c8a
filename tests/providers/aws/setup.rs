//! The policies that `nodeseal setup` writes. moto decides on actions, but looks neither at resources nor at conditions: those are decided
//! here, on the requests that the provider has made.

use std::process::Command;

use nodeseal::provider::Kek;
use nodeseal::provider::aws::AwsKek;
use serde_json::{Value, json};
use test_support::proxy::{Proxy, Seen};

use super::ground::{Local, Sealed, run, settings, static_keys};
use super::moto::{ACCOUNT, Moto, python};
use crate::setup::Written;

const USER: &str = "nodeseal-node-1";

/// Asks for every operation of KMS there is, and prints those that were not refused for want of a right.
const EACH: &str = r#"
import sys, boto3
from botocore.config import Config
from botocore.exceptions import ClientError
endpoint, region, id, secret, key = sys.argv[1:]
config = Config(parameter_validation=False, retries={"total_max_attempts": 1})
kms = boto3.client("kms", region_name=region, endpoint_url=endpoint, aws_access_key_id=id, aws_secret_access_key=secret, config=config)
for operation in kms.meta.service_model.operation_names:
    shape = kms.meta.service_model.operation_model(operation).input_shape
    given = {"KeyId": key, "Plaintext": b"x", "CiphertextBlob": b"x"}
    try:
        kms._make_api_call(operation, {name: value for name, value in given.items() if shape and name in shape.members})
        code = ""
    except ClientError as error:
        code = error.response["Error"]["Code"]
    print(operation, "refused" if code == "AccessDeniedException" else "passed")
"#;

fn written(key: &str) -> Written {
    Written::of(&format!(
        "cluster = \"c1\"\nkubernetes = \"k3s\"\n[aws]\nkey_arn = \"{key}\"\nlogin_arn = \"arn:aws:iam::{ACCOUNT}:user/{USER}\"\n"
    ))
}

fn policy(written: &Written, name: &str) -> Value {
    serde_json::from_str(&written.read(name)).unwrap()
}

fn list(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(all) => all.iter().map(|one| one.as_str().unwrap()).collect(),
        one => vec![one.as_str().unwrap()],
    }
}

/// Whether a policy allows a request: only what these policies have, and anything else is a failed test.
fn allows(policy: &Value, who: Option<&str>, action: &str, resource: &str, context: &Value) -> bool {
    policy["Statement"].as_array().unwrap().iter().any(|statement| {
        for key in statement.as_object().unwrap().keys() {
            assert!(["Effect", "Principal", "Action", "Resource", "Condition"].contains(&key.as_str()), "{key}");
        }
        assert_eq!(statement["Effect"], "Allow");
        let is_who = who.is_none_or(|who| statement["Principal"]["AWS"] == who);
        // In the policy of a key, `*` is that key; nowhere else is there a pattern.
        let is_resource =
            list(&statement["Resource"]).contains(&resource) || (who.is_some() && statement["Resource"] == "*");
        let conditions = statement["Condition"].as_object().into_iter().flatten();
        let is_met = conditions.into_iter().all(|(operator, wanted)| {
            assert_eq!(operator, "StringEquals");
            wanted.as_object().unwrap().iter().all(|(key, value)| {
                let key = key.strip_prefix("kms:EncryptionContext:").unwrap();
                context[key] == *value
            })
        });
        is_who && is_resource && is_met && list(&statement["Action"]).contains(&action)
    })
}

/// Action, key and encryption context of a request.
fn asked(seen: &Seen) -> (String, String, Value) {
    let target = seen.header("x-amz-target").unwrap().trim_start_matches("TrentService.").to_owned();
    let body: Value = serde_json::from_str(&seen.body).unwrap();
    (format!("kms:{target}"), body["KeyId"].as_str().unwrap().to_owned(), body["EncryptionContext"].clone())
}

#[test]
fn the_policies_of_a_set_up_allow_what_nodeseal_asks_for_and_no_other_operation_of_kms() {
    let moto = Moto::start();
    let arn = moto.key();
    let written = written(&arn);
    let iam = policy(&written, "aws/iam-policy.json");
    let (id, secret) = moto.user(USER, "kms:Nothing");
    let mut for_moto = iam.clone();
    for statement in for_moto["Statement"].as_array_mut().unwrap() {
        statement["Resource"] = json!("*");
        statement.as_object_mut().unwrap().remove("Condition");
    }
    moto.put_policy(USER, &for_moto);
    moto.enforce();
    let proxy = Proxy::before(([127, 0, 0, 1], moto.port()).into());
    let provider =
        AwsKek::open(settings(&proxy.url(), &arn, static_keys()), Sealed::with("keys", &id, &secret)).unwrap();
    run(async {
        provider.probe().await.unwrap();
        Local::new("c1", 1).round_trip(&provider).await;
    });

    let output = Command::new(python())
        .args(["-c", EACH, &moto.endpoint(), "eu-central-1", &id, &secret, &arn])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.lines().count() > 40, "{said} {}", String::from_utf8_lossy(&output.stderr));
    let passed: Vec<&str> = said.lines().filter_map(|line| line.strip_suffix(" passed")).collect();
    assert_eq!(passed, ["Decrypt", "DescribeKey", "Encrypt"]);

    let of_key = policy(&written, "aws/key-policy.json");
    let login = format!("arn:aws:iam::{ACCOUNT}:user/{USER}");
    // A server that does not tell the id of a key's material is asked for its rotations; AWS tells it (docs/providers/aws.md, "Rotate").
    let seen =
        proxy.seen().iter().map(asked).filter(|(action, ..)| action != "kms:ListKeyRotations").collect::<Vec<_>>();
    for name in ["kms:Encrypt", "kms:Decrypt", "kms:DescribeKey"] {
        assert!(seen.iter().any(|(action, ..)| action == name), "{name}: {seen:?}");
    }
    let other = format!("{arn}0");
    for (action, key, context) in &seen {
        assert!(allows(&iam, None, action, key, context), "{action} {context}");
        assert!(allows(&of_key, Some(&login), action, key, context), "{action} {context}");
        assert!(!allows(&iam, None, action, &other, context), "{action} with another key");
        let stranger = format!("{login}0");
        assert!(!allows(&of_key, Some(&stranger), action, key, context), "{action} by another user");
        if action != "kms:DescribeKey" {
            for wrong in [json!({ "nodeseal.cluster": "c2" }), json!({}), json!({ "cluster": "c1" })] {
                assert!(!allows(&iam, None, action, key, &wrong), "{action} {wrong}");
                assert!(!allows(&of_key, Some(&login), action, key, &wrong), "{action} {wrong}");
            }
        }
    }
}

#[test]
fn administrators_manage_the_key_of_a_set_up_and_neither_use_nor_delete_it() {
    let key = format!("arn:aws:kms:eu-central-1:{ACCOUNT}:key/1234abcd-12ab-34cd-56ef-1234567890ab");
    let of_key = policy(&written(&key), "aws/key-policy.json");
    let root = format!("arn:aws:iam::{ACCOUNT}:root");
    let context = json!({ "nodeseal.cluster": "c1" });
    let may = |action: &str| allows(&of_key, Some(&root), &format!("kms:{action}"), &key, &context);
    // Without these two nobody can change the policy any more: AWS then refuses it, unless it is told not to look.
    assert!(may("PutKeyPolicy") && may("GetKeyPolicy") && may("RotateKeyOnDemand") && may("DisableKey"));
    for action in [
        "Encrypt",
        "Decrypt",
        "ReEncryptFrom",
        "ReEncryptTo",
        "GenerateDataKey",
        "GenerateDataKeyPair",
        "GenerateMac",
        "Sign",
        "DeriveSharedSecret",
        "CreateGrant",
        "ScheduleKeyDeletion",
        "DeleteImportedKeyMaterial",
        "ReplicateKey",
        "*",
    ] {
        assert!(!may(action), "{action}");
    }
}
