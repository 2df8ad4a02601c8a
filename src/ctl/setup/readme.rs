//! The README of the folder: the commands in order. They are those of docs/operations/install.md and of the pages that it names.

use super::kubernetes::folder;
use super::providers::vault_login;
use super::values::{Aws, Azure, Kubernetes, Values, Vault};

pub(super) fn text(values: &Values) -> String {
    let mut steps = vec![node_file()];
    steps.extend(values.vault.as_ref().map(vault));
    steps.extend(values.aws.as_ref().map(aws));
    steps.extend(values.azure.as_ref().map(azure));
    steps.push(INIT.to_owned());
    steps.extend(credentials(values));
    steps.push(START.to_owned());
    steps.push(if values.has_provider() { OTHERS_BY_PROVIDER } else { OTHERS_BY_BUNDLE }.to_owned());
    steps.push(apiserver(values.kubernetes));
    steps.push(stored(values.kubernetes));
    let steps: String = steps.iter().zip(1..).map(|(step, number)| format!("\n## {number}. {step}")).collect();
    format!(
        "# Nodeseal on the cluster {}\n\n\
         `nodeseal setup` has written this folder from `values.toml`. No file in it is a secret, and none may become one:\n\
         logins are sealed on each node, by the commands below. `nodeseal setup --check --output FOLDER` says which file was\n\
         changed since. Commands on a node are for root, in a copy of this folder.\n{steps}",
        values.cluster
    )
}

fn node_file() -> String {
    "On every control-plane node: the configuration\n\n\
     Install the package, then:\n\n\
     ```\n\
     install -D -m 0644 nodeseal.toml /etc/nodeseal/nodeseal.toml\n\
     nodeseal config check\n\
     ```\n"
        .to_owned()
}

fn vault(_: &Vault) -> String {
    "Once: the key, the policy and the login in Vault\n\n\
     As an administrator of Vault. The policy is also in `vault/policy.hcl`, for other tools.\n\n\
     ```\n\
     sh vault/setup.sh\n\
     ```\n"
        .to_owned()
}

fn aws(aws: &Aws) -> String {
    let (key, kind, name) = (&aws.key, aws.login.kind(), aws.login.name());
    format!(
        "Once: the rights in AWS\n\n\
         As an administrator of the account. This replaces the policy of the key: only the login then uses it, and\n\
         administrators manage it. They cannot have it deleted before they change the policy again.\n\n\
         ```\n\
         aws kms put-key-policy --key-id {key} --policy-name default --policy file://aws/key-policy.json\n\
         ```\n\n\
         Or, if the policy of the key must stay as it is and lets policies of the account decide:\n\n\
         ```\n\
         aws iam put-{kind}-policy --{kind}-name {name} --policy-name nodeseal --policy-document file://aws/iam-policy.json\n\
         ```\n"
    )
}

fn azure(azure: &Azure) -> String {
    format!(
        "Once: the key and the role in Azure\n\n\
         As an administrator of the subscription. Make the key, if it is not there:\n\n\
         ```\n\
         {}\
         ```\n\n\
         ```\n\
         sh azure/role-assignment.sh\n\
         ```\n",
        super::providers::azure_key(azure)
    )
}

const INIT: &str = "On the first node: its keys

Write the code down. With it and a copy of `/var/lib/nodeseal/recovery.age` the keys are recovered if the TPM is lost.

```
install -d -m 0700 -o nodeseal -g nodeseal /var/lib/nodeseal
systemctl enable --now nodeseal-sealer.socket nodeseal.socket
nodeseal init --recovery-code
```
";

/// What is sealed on each node, as the pages of the providers say.
fn credentials(values: &Values) -> Option<String> {
    let vault = values.vault.as_ref().map(|vault| {
        format!(
            "For Vault, as an administrator of Vault and then on the node. The token opens once:\n\n\
             ```\n\
             {}\
             printf '{{\"role_id\": \"%s\", \"wrapping_token\": \"%s\"}}' \"$ROLE_ID\" \"$WRAPPING_TOKEN\" | nodeseal credentials seal vault-approle\n\
             ```\n",
            vault_login(vault)
        )
    });
    let aws = values.aws.as_ref().filter(|aws| aws.login.is_user()).map(|aws| {
        format!(
            "For AWS, the keys of the user:\n\n\
             ```\n\
             aws iam create-access-key --user-name {} --output json \\\n  \
             | jq '.AccessKey | {{access_key_id: .AccessKeyId, secret_access_key: .SecretAccessKey}}' \\\n  \
             | nodeseal credentials seal aws-keys\n\
             ```\n",
            aws.login.name()
        )
    });
    let azure = values.azure.as_ref().filter(|azure| azure.application.is_some()).map(|_| {
        "For Azure, the certificate of the application:\n\n\
         ```\n\
         cat cert.pem key.pem | nodeseal credentials seal azure-certificate\n\
         shred --remove key.pem\n\
         ```\n"
            .to_owned()
    });
    let all: Vec<String> = [vault, aws, azure].into_iter().flatten().collect();
    (!all.is_empty()).then(|| format!("On every node, after its keys: the logins\n\n{}", all.join("\n")))
}

const START: &str = "Start it

```
systemctl enable --now nodeseal.service
nodeseal status --probe
nodeseal doctor
```
";

const OTHERS_BY_PROVIDER: &str = "On the other nodes

Each has keys of its own, and opens what the others write through the provider. Repeat the commands above that are for
every node, with `nodeseal init --recovery-code` on each.
";

const OTHERS_BY_BUNDLE: &str = "On the other nodes

They need the same keys. A node that makes keys of its own stops the others from listing Secrets, so use `--join`:

```
install -d -m 0700 -o nodeseal -g nodeseal /var/lib/nodeseal
systemctl enable --now nodeseal-sealer.socket nodeseal.socket
nodeseal init --join --recovery-code
systemctl enable nodeseal.service
systemctl start --no-block nodeseal.service
nodeseal bundle request --out /media/safe/cp-2.request
```

On the first node `nodeseal bundle make`, on this one `nodeseal bundle accept`: docs/operations/recovery.md.
";

fn apiserver(kubernetes: Kubernetes) -> String {
    let place = folder(kubernetes);
    let first = match kubernetes {
        Kubernetes::Kubeadm | Kubernetes::K3s => "encryption/1-reads.yaml",
        Kubernetes::Rke2 => "encryption/3-only.yaml",
    };
    let install = |file: &str| {
        format!(
            "```\n\
             install -d -m 0700 {place}\n\
             install -m 0600 {file} {place}/encryption.yaml.new\n\
             mv {place}/encryption.yaml.new {place}/encryption.yaml\n\
             ```\n"
        )
    };
    match kubernetes {
        Kubernetes::Kubeadm => format!(
            "kube-apiserver reads, on one node after the other\n\n{}\n\
             A new cluster: put `kubernetes/cluster-configuration.yaml` into the file for `kubeadm init --config`, and use\n\
             `encryption/2-writes.yaml` at once. An existing one: add `kubernetes/kube-apiserver.yaml` to\n\
             `/etc/kubernetes/manifests/kube-apiserver.yaml`, and the other to the ClusterConfiguration\n\
             (docs/operations/kubeadm.md). Wait for `readyz` before the next node.\n",
            install(first)
        ),
        Kubernetes::K3s => format!(
            "kube-apiserver reads, on one server after the other\n\n{}\n\
             Add `kubernetes/config.yaml` to `/etc/rancher/k3s/config.yaml` and run `systemctl restart k3s`\n\
             (docs/operations/k3s.md). Wait for `readyz` before the next server.\n",
            install(first)
        ),
        Kubernetes::Rke2 => format!(
            "kube-apiserver, on one server after the other\n\n\
             RKE2 already encrypts, with a key in a file. First follow steps 1 to 3 of \"RKE2 already encrypts\" in\n\
             docs/operations/rke2.md: its key is copied by hand, so the files of these steps are not in this folder. Add\n\
             `kubernetes/config.yaml` to `/etc/rancher/rke2/config.yaml`. After step 3:\n\n{}",
            install(first)
        ),
    }
}

fn stored(kubernetes: Kubernetes) -> String {
    match kubernetes {
        Kubernetes::Rke2 => "Look\n\n```\nnodeseal doctor\n```\n".to_owned(),
        Kubernetes::Kubeadm | Kubernetes::K3s => {
            let place = folder(kubernetes);
            format!(
                "kube-apiserver writes, and what is stored\n\n\
                 When every kube-apiserver has the first file, install `encryption/2-writes.yaml` in the same way on every\n\
                 node. When all have that, once for the cluster:\n\n\
                 ```\n\
                 nodeseal migrate run --kubeconfig FILE\n\
                 ```\n\n\
                 Then install `encryption/3-only.yaml` as `{place}/encryption.yaml` on every node. From then on an object that\n\
                 is not encrypted is refused (docs/operations/encryption.md).\n"
            )
        }
    }
}
