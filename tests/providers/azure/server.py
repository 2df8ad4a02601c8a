"""An Azure of the tests on 127.0.0.1: one vault (`keyvault.py`), one tenant with a metadata service (`entra.py`), and a door for the tests.

usage: server.py FOLDER

Listens with TLS for *.vault.test, signed by FOLDER/ca.pem, and without TLS for what the tests put in between. FOLDER/ready.json says on which ports. Ends
when its standard input ends. Microsoft's own clients are tried on it first (`clients.py`).

The 401 with its challenge: https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses
Which right each operation needs: https://learn.microsoft.com/azure/role-based-access-control/permissions/security#microsoftkeyvault
"""

import datetime
import ipaddress
import json
import os
import ssl
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

import entra
import keyvault

TENANT = "11111111-2222-3333-4444-555555555555"
# Data actions below Microsoft.KeyVault/vaults/keys/.
RIGHTS = {"wrapkey": "wrap/action", "unwrapkey": "unwrap/action", "encrypt": "encrypt/action", "decrypt": "decrypt/action"}
NAMES = {"wrapkey": "wrapKey", "unwrapkey": "unwrapKey", "encrypt": "encrypt", "decrypt": "decrypt"}


class Azure:
    def __init__(self, port):
        self.vault = keyvault.Vault()
        self.directory = entra.Directory(TENANT, f"https://vault.test:{port}")
        self.authority = f"https://login.vault.test:{port}"

    def challenge(self):
        return f'Bearer authorization="{self.authority}/{TENANT}", resource="{self.directory.resource}"'

    def keys(self, method, base, path, query, body, rights):
        """What stands behind the login: status and answer."""
        if not query.get("api-version", "")[:2] in ("7.", "20"):
            raise keyvault.Refused(400, "BadParameter", "api-version must be specified")

        def need(right):
            if right not in rights:
                raise keyvault.Refused(403, "Forbidden", f"Caller is not authorized to perform action on resource.\r\nAction: 'Microsoft.KeyVault/vaults/keys/{right}'", "ForbiddenByRbac")

        vault = self.vault
        match method, path:
            case "POST", ["keys", name, "create"]:
                need("create/action")
                return 200, vault.create(base, name, body)
            case "POST", ["keys", name, "rotate"]:
                need("rotate/action")
                return 200, vault.rotate(base, name)
            case "GET", ["keys", name, "versions"]:
                need("read")
                return 200, vault.versions(base, name, int(query.get("maxresults", 0)), int(query.get("$skiptoken", 0)))
            case "GET", ["keys", name, *version]:
                need("read")
                return 200, vault.get(base, name, "".join(version))
            case "PATCH", ["keys", name, *version]:
                need("update/action")
                return 200, vault.update(base, name, "".join(version), body)
            case "DELETE", ["keys", name]:
                need("delete")
                return 200, vault.delete(base, name)
            case "GET", ["deletedkeys", name]:
                need("read")
                return 200, vault.get_deleted(base, name)
            case "DELETE", ["deletedkeys", name]:
                need("purge/action")
                vault.purge(name)
                return 204, None
            case "POST", ["deletedkeys", name, "recover"]:
                need("recover/action")
                return 200, vault.recover(base, name)
            case "POST", ["keys", name, *version, operation] if operation in RIGHTS:
                # An asymmetric key wraps for whoever may read it: the page on rights, "keys/wrap/action".
                is_public = operation in ("wrapkey", "encrypt") and "read" in rights and vault.find(name).kty in keyvault.RSA
                if not is_public:
                    need(RIGHTS[operation])
                return 200, vault.operate(base, name, "".join(version), NAMES[operation], body)
        raise keyvault.Refused(404, "NotFound", "Resource not found.")

    def door(self, operation, body):
        """For the tests alone: what an administrator of the tenant does."""
        directory = self.directory
        client = directory.client(body["client"]) if "client" in body else None
        match operation:
            case "client":
                for field in ("secret", "subject", "managed"):
                    setattr(client, field, body.get(field, getattr(client, field)))
                client.rights = set(body.get("rights", client.rights))
                return {}
            case "certificate":
                return {"pem": directory.certificate(body["client"])}
            case "service-account-token":
                return {"token": directory.service_account_token(body["subject"])}
            case "revoke":
                directory.tokens.clear()
                return {}
            case "lifetime":
                directory.lifetime = body["seconds"]
                return {}
            case "key":
                # As somebody who may everything, in the words of the API.
                all_rights = {"create/action", "rotate/action", "read", "update/action", "delete", "purge/action", "recover/action"}
                path = [part for part in body["path"].split("/") if part]
                return self.keys(body["method"], "https://door", path, {"api-version": "7.6"}, body.get("body", {}), all_rights)[1] or {}
        raise ValueError(operation)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer is one segment: head and body apart wait for each other (Nagle and delayed acknowledgements).
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def answer(self, status, body, **headers):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("x-ms-request-id", "00000000-0000-0000-0000-000000000000")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(data)

    def serve(self):
        azure = self.server.azure
        url = urlsplit(self.path)
        path = [part for part in url.path.split("/") if part]
        query = dict(parse_qsl(url.query))
        text = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        base = f"https://{self.headers['Host']}"
        try:
            match path:
                case [tenant, "oauth2", "v2.0", "token"]:
                    answer = azure.directory.token(tenant, f"{base}/{tenant}/oauth2/v2.0/token", dict(parse_qsl(text)))
                    return self.answer(200, answer)
                case [_, "v2.0", ".well-known", "openid-configuration"]:
                    return self.answer(200, azure.directory.openid(base))
                case ["metadata", "identity", "oauth2", "token"]:
                    return self.answer(*azure.directory.metadata(query, self.headers.get("Metadata") == "true"))
                case ["door", operation]:
                    return self.answer(200, azure.door(operation, json.loads(text)))
            kind, _, token = self.headers.get("Authorization", "").partition(" ")
            name = azure.directory.bearer(token) if kind == "Bearer" else None
            if name is None:
                words = "AKV10022: Invalid or expired token." if token else "AKV10000: Request is missing a Bearer or PoP token."
                body = {"error": {"code": "Unauthorized", "message": words}}
                return self.answer(401, body, WWW_Authenticate=azure.challenge())
            body = json.loads(text) if text else {}
            self.answer(*azure.keys(self.command, base, path, query, body, azure.directory.client(name).rights))
        except (keyvault.Refused, entra.Denied) as refused:
            self.answer(refused.status, refused.body)

    do_GET = do_POST = do_PATCH = do_DELETE = serve


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, ssl.SSLError)):
            super().handle_error(request, client_address)


def certificates(folder):
    """An authority in FOLDER/ca.pem, and a server certificate with its key in FOLDER/server.pem."""
    now = datetime.datetime.now(datetime.timezone.utc)

    def builder(name, issuer, key):
        made = x509.CertificateBuilder().subject_name(name).issuer_name(issuer).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        return made.not_valid_after(now + datetime.timedelta(days=1))

    named = lambda text: x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])
    signer, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    root = builder(named("authority of the tests"), named("authority of the tests"), signer)
    root = root.add_extension(x509.BasicConstraints(True, None), True).add_extension(usage, True)
    root = root.add_extension(x509.SubjectKeyIdentifier.from_public_key(signer.public_key()), False).sign(signer, hashes.SHA256())
    names = [x509.DNSName("*.vault.test"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    leaf = builder(named("server"), root.subject, own).add_extension(x509.SubjectAlternativeName(names), False)
    leaf = leaf.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    leaf = leaf.add_extension(x509.ExtendedKeyUsage([x509.ExtendedKeyUsageOID.SERVER_AUTH]), False).sign(signer, hashes.SHA256())
    pem = serialization.Encoding.PEM
    private = own.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with open(os.path.join(folder, "server.pem"), "wb") as file:
        file.write(private + leaf.public_bytes(pem))
    with open(os.path.join(folder, "ca.pem"), "wb") as file:
        file.write(root.public_bytes(pem))


def main(folder):
    certificates(folder)
    listeners = [Listener(("127.0.0.1", 0), Handler) for _ in range(2)]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(folder, "server.pem"))
    # The handshake belongs to the thread of its connection.
    listeners[0].socket = context.wrap_socket(listeners[0].socket, server_side=True, do_handshake_on_connect=False)
    azure = Azure(listeners[0].server_port)
    for listener in listeners:
        listener.azure = azure
        threading.Thread(target=listener.serve_forever, daemon=True).start()
    ready = {"tls": listeners[0].server_port, "plain": listeners[1].server_port, "tenant": TENANT, "resource": azure.directory.resource}
    with open(os.path.join(folder, "ready.json.new"), "w") as file:
        json.dump({**ready, "authority": azure.authority}, file)
    os.rename(os.path.join(folder, "ready.json.new"), os.path.join(folder, "ready.json"))
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main(sys.argv[1])
