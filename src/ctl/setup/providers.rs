//! The least rights at each provider, as docs/providers/*.md give them. `tests/providers` proves them: the calls that Nodeseal makes pass
//! under them, and others are refused.

use super::values::{Aws, Azure, Vault};
use super::words::LoginArn;
use crate::types::ClusterId;

/// HCL. Without `create` on `encrypt`, with which Vault makes a missing key again in silence.
pub(super) fn vault_policy(vault: &Vault) -> String {
    let Vault { mount, key, .. } = vault;
    let path = |verb: &str| format!("\"{mount}/{verb}/{key}\"");
    let width = path("encrypt").len();
    let line = |verb: &str, right: &str| {
        let path = path(verb);
        format!("path {path:width$} {{ capabilities = [\"{right}\"] }}\n")
    };
    [line("keys", "read"), line("encrypt", "update"), line("decrypt", "update")].concat()
}

/// For an administrator. Can be run again: what is there stays as it is, but policy and role are written as they stand here.
pub(super) fn vault_script(vault: &Vault) -> String {
    let Vault { namespace, mount, key, role, .. } = vault;
    let namespace = namespace.as_ref().map(|path| format!("export VAULT_NAMESPACE={path}\n")).unwrap_or_default();
    let policy = vault_policy(vault);
    format!(
        r#"#!/bin/sh
# Run it once for the cluster, as an administrator of Vault (VAULT_ADDR, and a login). It may be run again.
set -eu
{namespace}
has() {{
    vault "$1" list -format=json | grep -qF "\"$2/\":"
}}

has secrets {mount} ||
    vault secrets enable -path={mount} transit
vault write {mount}/keys/{key} type=aes256-gcm96
vault write {mount}/keys/{key}/config deletion_allowed=false

vault policy write {role} - <<'POLICY'
{policy}POLICY

has auth approle ||
    vault auth enable approle
vault write auth/approle/role/{role} token_policies={role} token_ttl=1h token_max_ttl=24h secret_id_ttl=0 secret_id_num_uses=0
"#
    )
}

/// The last line gets a token that opens only once; it goes to the node, and the node seals what is in it.
pub(super) fn vault_login(vault: &Vault) -> String {
    let role = &vault.role;
    format!(
        r#"ROLE_ID=$(vault read -field=role_id auth/approle/role/{role}/role-id)
WRAPPING_TOKEN=$(vault write -f -wrap-ttl=10m -field=wrapping_token auth/approle/role/{role}/secret-id)
"#
    )
}

/// Statements that both policies have. Only that of a key names who may.
fn aws_statements(who: Option<&LoginArn>, cluster: &ClusterId, resource: &str) -> String {
    let who = who.map(|login| format!("      \"Principal\": {{\"AWS\": \"{login}\"}},\n")).unwrap_or_default();
    format!(
        r#"    {{
      "Effect": "Allow",
{who}      "Action": ["kms:Encrypt", "kms:Decrypt"],
      "Resource": "{resource}",
      "Condition": {{"StringEquals": {{"kms:EncryptionContext:nodeseal.cluster": "{cluster}"}}}}
    }},
    {{
      "Effect": "Allow",
{who}      "Action": "kms:DescribeKey",
      "Resource": "{resource}"
    }}
"#
    )
}

/// For the login, where the key's own policy lets policies of the account decide.
pub(super) fn aws_iam_policy(aws: &Aws, cluster: &ClusterId) -> String {
    let statements = aws_statements(None, cluster, &aws.key.to_string());
    format!("{{\n  \"Version\": \"2012-10-17\",\n  \"Statement\": [\n{statements}  ]\n}}\n")
}

/// For the key itself: only the login uses it, and administrators of the account manage it. They may neither encrypt nor decrypt with it, nor
/// give grants, nor have it deleted, before they change this policy. In a key's policy `*` is that key.
pub(super) fn aws_key_policy(aws: &Aws, cluster: &ClusterId) -> String {
    let (partition, account) = (aws.key.partition(), aws.key.account());
    let statements = aws_statements(Some(&aws.login), cluster, "*");
    format!(
        r#"{{
  "Version": "2012-10-17",
  "Statement": [
    {{
      "Effect": "Allow",
      "Principal": {{"AWS": "arn:{partition}:iam::{account}:root"}},
      "Action": [
        "kms:DescribeKey", "kms:GetKeyPolicy", "kms:PutKeyPolicy", "kms:ListKeyPolicies", "kms:ListGrants", "kms:RevokeGrant",
        "kms:EnableKey", "kms:DisableKey", "kms:EnableKeyRotation", "kms:DisableKeyRotation", "kms:GetKeyRotationStatus",
        "kms:ListKeyRotations", "kms:RotateKeyOnDemand", "kms:CancelKeyDeletion", "kms:UpdateKeyDescription",
        "kms:CreateAlias", "kms:UpdateAlias", "kms:DeleteAlias", "kms:TagResource", "kms:UntagResource", "kms:ListResourceTags"
      ],
      "Resource": "*"
    }},
{statements}  ]
}}
"#
    )
}

/// The key, and the role for this key alone.
pub(super) fn azure_key(azure: &Azure) -> String {
    let (vault, key) = (azure.vault.name(), &azure.key);
    match azure.vault.is_hsm() {
        true => format!(
            "az keyvault key create --hsm-name {vault} --name {key} --kty oct-HSM --size 256 --ops wrapKey unwrapKey\n"
        ),
        false => format!(
            "az keyvault key create --vault-name {vault} --name {key} \\\n  --kty RSA-HSM --size 3072 --ops wrapKey unwrapKey\n"
        ),
    }
}

pub(super) fn azure_role(azure: &Azure) -> String {
    let (vault, key, principal) = (azure.vault.name(), &azure.key, &azure.principal);
    let assignment = match azure.vault.is_hsm() {
        true => format!(
            r#"az keyvault role assignment create --hsm-name {vault} --role "Managed HSM Crypto Service Encryption User" \
  --assignee-object-id "$PRINCIPAL_ID" --scope /keys/{key}
"#
        ),
        false => format!(
            r#"az role assignment create --role "Key Vault Crypto Service Encryption User" --assignee "$PRINCIPAL_ID" \
  --scope "$(az keyvault show --name {vault} --query id --output tsv)/keys/{key}"
"#
        ),
    };
    format!(
        "#!/bin/sh\n# Run it once for each login, as an administrator of the subscription who is logged in with `az`.\nset -eu\n\
         PRINCIPAL_ID={principal}\n{assignment}"
    )
}
