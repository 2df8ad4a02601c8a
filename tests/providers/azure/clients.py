"""Microsoft's own clients, unmodified, against `server.py`: what they take for Key Vault and Entra ID, the provider may be tested on.

usage: clients.py FOLDER

Only the machine's name service is stood in for: *.vault.test is 127.0.0.1, so that the clients' own check of the challenge's resource is in force.
"""

import json
import os
import socket
import sys
import tempfile
import urllib.request
from urllib.parse import urlsplit

folder = sys.argv[1]
with open(os.path.join(folder, "ready.json")) as file:
    ready = json.load(file)
os.environ["REQUESTS_CA_BUNDLE"] = os.path.join(folder, "ca.pem")
os.environ["AZURE_POD_IDENTITY_AUTHORITY_HOST"] = f"http://127.0.0.1:{ready['plain']}"
for variable in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
    os.environ.pop(variable, None)
os.environ["NO_PROXY"] = "*"
resolve = socket.getaddrinfo
socket.getaddrinfo = lambda host, *rest, **more: resolve("127.0.0.1" if str(host).endswith(".vault.test") else host, *rest, **more)

from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError  # noqa: E402
from azure.identity import CertificateCredential, ClientSecretCredential, ManagedIdentityCredential, WorkloadIdentityCredential  # noqa: E402
from azure.keyvault.keys import KeyClient  # noqa: E402
from azure.keyvault.keys.crypto import CryptographyClient, KeyWrapAlgorithm  # noqa: E402

TENANT, VAULT = ready["tenant"], f"https://mine.vault.test:{ready['tls']}"
EVERYTHING = ["create/action", "rotate/action", "read", "update/action", "delete", "purge/action", "recover/action", "wrap/action", "unwrap/action"]
ONCE = {"retry_total": 0}
ENTRA = {"authority": ready["authority"], "disable_instance_discovery": True, **ONCE}
DEK = bytes(range(32))


def door(operation, **body):
    request = urllib.request.Request(f"http://127.0.0.1:{ready['plain']}/door/{operation}", json.dumps(body).encode(), method="POST")
    return json.load(urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request))


def refused(kind, what):
    try:
        what()
    except kind as error:
        return error
    raise AssertionError(f"not refused with {kind.__name__}")


def logins():
    door("client", client="app", secret="the secret", rights=EVERYTHING)
    secret = ClientSecretCredential(TENANT, "app", "the secret", **ENTRA)
    pem = door("certificate", client="app")["pem"].encode()
    certificate = CertificateCredential(TENANT, "app", certificate_data=pem, **ENTRA)
    door("client", client="app", subject="system:serviceaccount:kube-system:nodeseal")
    token = tempfile.NamedTemporaryFile("w", suffix=".jwt")
    token.write(door("service-account-token", subject="system:serviceaccount:kube-system:nodeseal")["token"])
    token.flush()
    workload = WorkloadIdentityCredential(tenant_id=TENANT, client_id="app", token_file_path=token.name, **ENTRA)
    door("client", client="machine", managed=True, rights=["read"])
    for credential in (secret, certificate, workload, ManagedIdentityCredential(client_id="machine", **ONCE)):
        client = KeyClient(VAULT, credential, **ONCE)
        error = refused(ResourceNotFoundError, lambda: client.get_key("nowhere"))
        assert error.status_code == 404 and error.error.code == "KeyNotFound", error
    wrong = ClientSecretCredential(TENANT, "app", "another secret", **ENTRA)
    assert "AADSTS7000215" in str(refused(ClientAuthenticationError, lambda: KeyClient(VAULT, wrong, **ONCE).get_key("x")))
    door("certificate", client="other")
    foreign = CertificateCredential(TENANT, "other", certificate_data=pem, **ENTRA)
    assert "AADSTS700027" in str(refused(ClientAuthenticationError, lambda: KeyClient(VAULT, foreign, **ONCE).get_key("x")))
    lost = ClientSecretCredential(TENANT, "nobody", "the secret", **ENTRA)
    assert "AADSTS700016" in str(refused(ClientAuthenticationError, lambda: KeyClient(VAULT, lost, **ONCE).get_key("x")))
    return secret, token


def versions(client):
    first = client.create_rsa_key("rsa", size=2048)
    ids = [first.properties.version] + [client.rotate_key("rsa").properties.version for _ in range(27)]
    assert len(set(ids)) == 28 and client.get_key("rsa").properties.version == ids[-1]
    assert client.get_key("rsa", ids[0]).key.n == first.key.n
    # More than a page of them.
    listed = list(client.list_properties_of_key_versions("rsa"))
    assert sorted(p.version for p in listed) == sorted(ids) and all(p.created_on and p.enabled for p in listed)
    refused(ResourceNotFoundError, lambda: client.get_key("rsa", "0" * 32))
    return ids


def wraps(client, credential, ids):
    # Without the right to read, the client leaves RSA to the service too. AES always: of a key that it may read and that shows no `k`, as none in an HSM
    # does, it would take a random one in its place.
    door("client", client="wraps", secret="w", rights=["wrap/action", "unwrap/action"])
    blind = ClientSecretCredential(TENANT, "wraps", "w", **ENTRA)
    client.create_oct_key("aes", size=256, hardware_protected=True)
    for name, algorithm, size, login in (
        ("rsa", KeyWrapAlgorithm.rsa_oaep_256, 256, credential),
        ("rsa", KeyWrapAlgorithm.rsa_oaep_256, 256, blind),
        ("aes", KeyWrapAlgorithm.aes_256, 40, blind),
    ):
        newest = client.get_key(name)
        made = CryptographyClient(newest.id, login, **ONCE).wrap_key(algorithm, DEK)
        assert made.key_id == newest.id and len(made.encrypted_key) == size
        client.rotate_key(name)
        opened = CryptographyClient(made.key_id, login, **ONCE).unwrap_key(algorithm, made.encrypted_key)
        assert opened.key == DEK
        bad = bytes([made.encrypted_key[0] ^ 1]) + made.encrypted_key[1:]
        error = refused(HttpResponseError, lambda: CryptographyClient(made.key_id, login, **ONCE).unwrap_key(algorithm, bad))
        assert error.status_code == 400 and error.error.code == "BadParameter", error
    # Under no version it is the newest that wraps.
    made = CryptographyClient(f"{VAULT}/keys/rsa", blind, **ONCE).wrap_key(KeyWrapAlgorithm.rsa_oaep_256, DEK)
    newest = client.get_key("rsa").id
    assert CryptographyClient(newest, blind, **ONCE).unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, made.encrypted_key).key == DEK
    error = refused(HttpResponseError, lambda: KeyClient(VAULT, blind, **ONCE).get_key("rsa"))
    assert error.status_code == 403 and error.error.code == "Forbidden", error
    # A disabled version still wraps where there is a public key, and never opens.
    client.update_key_properties("rsa", ids[0], enabled=False)
    disabled = CryptographyClient(f"{VAULT}/keys/rsa/{ids[0]}", blind, **ONCE)
    made = disabled.wrap_key(KeyWrapAlgorithm.rsa_oaep_256, DEK)
    error = refused(HttpResponseError, lambda: disabled.unwrap_key(KeyWrapAlgorithm.rsa_oaep_256, made.encrypted_key))
    assert error.status_code == 403 and error.error.innererror["code"] == "KeyDisabled", error


def deletion(client):
    before = client.get_key("aes").id
    client.begin_delete_key("aes").wait()
    refused(ResourceNotFoundError, lambda: client.get_key("aes"))
    assert refused(HttpResponseError, lambda: client.create_oct_key("aes")).status_code == 409
    client.begin_recover_deleted_key("aes").wait()
    assert client.get_key("aes").id == before
    client.begin_delete_key("aes").wait()
    client.purge_deleted_key("aes")
    assert client.create_oct_key("aes", size=256, hardware_protected=True).id != before


def ends_of_tokens(client):
    door("revoke")
    # The credential still has the token in its cache; another one logs in.
    assert refused(ClientAuthenticationError, lambda: client.get_key("rsa")).status_code == 401
    fresh = KeyClient(VAULT, ClientSecretCredential(TENANT, "app", "the secret", **ENTRA), **ONCE)
    assert urlsplit(fresh.get_key("rsa").id).netloc == urlsplit(VAULT).netloc
    stray = KeyClient(f"https://127.0.0.1:{ready['tls']}", client_secret, **ONCE)
    assert "does not match the requested domain" in str(refused(ValueError, lambda: stray.get_key("rsa")))


client_secret, kept = logins()
keys = KeyClient(VAULT, client_secret, **ONCE)
wraps(keys, client_secret, versions(keys))
deletion(keys)
ends_of_tokens(keys)
print("accepted")
