//! `nodeseal.toml`, as docs/operations/install.md and the pages of providers show it.

use std::fmt::Display;

use super::values::{Aws, Azure, Values, Vault};

pub(super) fn toml(values: &Values) -> String {
    let head = format!(
        "version = 1\ncluster = \"{}\"\n\n[seal]\nsocket = \"/run/nodeseal-sealer/sealer.sock\"\n",
        values.cluster
    );
    let providers = [
        values.vault.as_ref().map(vault_table),
        values.aws.as_ref().map(aws_table),
        values.azure.as_ref().map(azure_table),
    ];
    providers.into_iter().flatten().fold(head, |text, table| format!("{text}\n{table}"))
}

/// A key that may not be there, as a line.
fn line(key: &str, value: Option<&impl Display>) -> String {
    value.map(|value| format!("{key} = \"{value}\"\n")).unwrap_or_default()
}

fn vault_table(vault: &Vault) -> String {
    let Vault { address, ca_file, namespace, mount, key, role } = vault;
    let ca_file = line("ca_file", ca_file.as_ref());
    let namespace = line("namespace", namespace.as_ref());
    format!(
        r#"[[provider]]
name = "vault"
kind = "vault"
required = true
address = "{address}"
{ca_file}{namespace}mount = "{mount}"
key = "{key}"
auth = {{ method = "approle", role = "{role}", credential = "vault-approle" }}
"#
    )
}

fn aws_table(aws: &Aws) -> String {
    let Aws { key, login } = aws;
    let auth = match login.is_user() {
        true => r#"{ method = "static", credential = "aws-keys" }"#,
        false => r#"{ method = "default-chain" }"#,
    };
    format!(
        r#"[[provider]]
name = "aws"
kind = "aws"
required = true
key_arn = "{key}"
region = "{}"
auth = {auth}
"#,
        key.region()
    )
}

fn azure_table(azure: &Azure) -> String {
    let Azure { vault, key, application, .. } = azure;
    // What `az` is told to make below: RSA in a vault, AES in a managed HSM.
    let algorithm = if vault.is_hsm() { "A256KW" } else { "RSA-OAEP-256" };
    let auth = match application {
        Some((tenant, client)) => format!(
            r#"{{ method = "client-certificate", tenant_id = "{tenant}", client_id = "{client}", credential = "azure-certificate" }}"#
        ),
        None => r#"{ method = "managed-identity" }"#.to_owned(),
    };
    format!(
        r#"[[provider]]
name = "azure"
kind = "azure"
required = true
vault_url = "{vault}"
key = "{key}"
algorithm = "{algorithm}"
auth = {auth}
"#
    )
}
