"""Logins as Microsoft Entra ID and the metadata service of a virtual machine give them.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow: the request with a secret, with a certificate and with a federated credential.
https://learn.microsoft.com/entra/identity-platform/certificate-credentials: the assertion of a certificate.
https://learn.microsoft.com/entra/identity-platform/reference-error-codes: the AADSTS codes.
https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token: the metadata service.
"""

import base64
import datetime
import hashlib
import hmac
import json
import secrets
import threading
import time

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
EXCHANGE = "api://AzureADTokenExchange"
ISSUER = "https://kubernetes.default.svc"
PADDINGS = {"RS256": padding.PKCS1v15(), "PS256": padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)}


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Denied(Exception):
    def __init__(self, status, error, number, words):
        super().__init__(words)
        self.status = status
        self.body = {
            "error": error,
            "error_description": f"AADSTS{number}: {words} Trace ID: {secrets.token_hex(8)} Timestamp: {time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime())}",
            "error_codes": [number],
            "timestamp": time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime()),
            "trace_id": secrets.token_hex(16),
            "correlation_id": secrets.token_hex(16),
        }


class Client:
    def __init__(self):
        self.secret = None
        self.certificates = []
        self.subject = None
        self.managed = False
        self.rights = set()


def self_signed():
    """Key and certificate, as `openssl req -x509` or Key Vault makes them for an application."""
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "nodeseal")])
    now = datetime.datetime.now(datetime.timezone.utc)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
    return key, builder.not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())


class Directory:
    """One tenant: its applications, and the tokens that are out."""

    def __init__(self, tenant, resource):
        self.tenant, self.resource = tenant, resource
        self.lock = threading.RLock()
        self.clients, self.tokens = {}, {}
        self.lifetime = 3599
        self.issuer = rsa.generate_private_key(65537, 2048)

    def client(self, name):
        with self.lock:
            return self.clients.setdefault(name, Client())

    def certificate(self, name):
        """Another certificate of this application, in one PEM text with its key."""
        key, certificate = self_signed()
        self.client(name).certificates.append(certificate)
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return (private + certificate.public_bytes(serialization.Encoding.PEM)).decode()

    def service_account_token(self, subject, lifetime=3600):
        """As an API server signs one for a pod, for an audience."""
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": subject, "aud": [EXCHANGE], "iat": now, "nbf": now, "exp": now + lifetime}
        head = encode(json.dumps({"alg": "RS256", "kid": "1"}).encode()) + "." + encode(json.dumps(claims).encode())
        return head + "." + encode(self.issuer.sign(head.encode(), PADDINGS["RS256"], hashes.SHA256()))

    def issue(self, name):
        with self.lock:
            token = "eyJ0." + secrets.token_urlsafe(48)
            self.tokens[token] = (name, time.time() + self.lifetime)
            return token

    def bearer(self, token):
        """Whose token that is, if it is good."""
        with self.lock:
            name, ends = self.tokens.get(token, (None, 0))
            return name if time.time() < ends else None

    def token(self, tenant, endpoint, form):
        """The token endpoint."""
        if tenant != self.tenant:
            raise Denied(400, "invalid_request", 90002, f"Tenant '{tenant}' not found.")
        if form.get("grant_type") != "client_credentials":
            raise Denied(400, "unsupported_grant_type", 70003, "The app requested an unsupported grant type.")
        if form.get("scope") != f"{self.resource}/.default":
            raise Denied(400, "invalid_scope", 1002012, "The provided value for scope is not valid.")
        name = form.get("client_id", "")
        client = self.clients.get(name)
        if client is None:
            raise Denied(400, "unauthorized_client", 700016, f"Application with identifier '{name}' was not found in the directory.")
        if "client_assertion" in form:
            if form.get("client_assertion_type") != ASSERTION:
                raise Denied(400, "invalid_request", 900144, "The request body must contain the parameter 'client_assertion_type'.")
            self.check_assertion(name, client, endpoint, form["client_assertion"])
        elif not client.secret or not hmac.compare_digest(client.secret, form.get("client_secret", "")):
            raise Denied(401, "invalid_client", 7000215, "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID.")
        return {"token_type": "Bearer", "expires_in": self.lifetime, "ext_expires_in": self.lifetime, "access_token": self.issue(name)}

    def check_assertion(self, name, client, endpoint, text):
        try:
            head, claims, signature = text.split(".")
            signed = f"{head}.{claims}".encode()
            head, claims, signature = json.loads(decode(head)), json.loads(decode(claims)), decode(signature)
            scheme = PADDINGS[head["alg"]]
        except (ValueError, KeyError):
            raise Denied(400, "invalid_request", 50027, "JWT token is invalid or malformed.") from None
        if not claims.get("nbf", 0) - 300 <= time.time() < claims.get("exp", 0):
            raise Denied(401, "invalid_client", 700024, "Client assertion is not within its valid time range.")
        if claims.get("iss") == ISSUER:
            key, right = self.issuer.public_key(), client.subject is not None and claims.get("sub") == client.subject and EXCHANGE in claims["aud"]
            if not right:
                raise Denied(401, "invalid_client", 70021, "No matching federated identity record found for presented assertion.")
        else:
            certificate = next((c for c in client.certificates if self.named(c, head)), None)
            if certificate is None:
                raise Denied(401, "invalid_client", 700027, "The certificate with identifier used to sign the client assertion is not registered on application.")
            key, right = certificate.public_key(), claims.get("iss") == claims.get("sub") == name and claims.get("aud") == endpoint and claims.get("jti")
            if not right:
                raise Denied(401, "invalid_client", 700023, "Client assertion audience claim does not match Realm issuer.")
        try:
            key.verify(signature, signed, scheme, hashes.SHA256())
        except InvalidSignature:
            raise Denied(401, "invalid_client", 700027, "Client assertion failed signature validation.") from None

    @staticmethod
    def named(certificate, head):
        der = certificate.public_bytes(serialization.Encoding.DER)
        known = {"x5t": hashlib.sha1(der).digest(), "x5t#S256": hashlib.sha256(der).digest()}
        said = {name: decode(head[name]) for name in known if name in head}
        return bool(said) and all(known[name] == digest for name, digest in said.items())

    def metadata(self, query, is_asked):
        """169.254.169.254: every number is a text there."""
        if not is_asked:
            return 400, {"error": "invalid_request", "error_description": "Required metadata header not specified"}
        if query.get("api-version") != "2018-02-01" or query.get("resource") != self.resource:
            return 400, {"error": "invalid_resource", "error_description": "AADSTS500011: The resource principal was not found in the tenant."}
        names = [name for name, client in self.clients.items() if client.managed and query.get("client_id", name) == name]
        if len(names) != 1:
            return 400, {"error": "invalid_request", "error_description": "Identity not found"}
        now, life = int(time.time()), int(self.lifetime)
        return 200, {
            "access_token": self.issue(names[0]), "client_id": names[0], "expires_in": str(life), "expires_on": str(now + life),
            "ext_expires_in": str(life), "not_before": str(now), "resource": self.resource, "token_type": "Bearer",
        }

    def openid(self, base):
        return {
            "issuer": f"{base}/{self.tenant}/v2.0",
            "token_endpoint": f"{base}/{self.tenant}/oauth2/v2.0/token",
            "authorization_endpoint": f"{base}/{self.tenant}/oauth2/v2.0/authorize",
            "device_authorization_endpoint": f"{base}/{self.tenant}/oauth2/v2.0/devicecode",
        }
