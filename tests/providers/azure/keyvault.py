"""Keys, versions and what can be done with them, as the Key Vault REST reference says, with real RSA and AES keys.

Each answer follows a page below https://learn.microsoft.com/rest/api/keyvault/keys/ (API version 7.6), which its function names. Errors have the form of
https://learn.microsoft.com/azure/key-vault/general/authentication-requests-and-responses and rest-error-codes beside it.
"""

import base64
import os
import secrets
import threading
import time

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives import hashes, keywrap
from cryptography.hazmat.primitives.asymmetric import padding, rsa

# A page of a list has at most 25 (get-key-versions, "maxresults").
PAGE = 25
RSA = ("RSA", "RSA-HSM")
OCT = ("oct", "oct-HSM")
OAEP_256 = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)


class Refused(Exception):
    def __init__(self, status, code, message, inner=None):
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message}}
        if inner:
            self.body["error"]["innererror"] = {"code": inner}


def encode(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text):
    try:
        # The module ignores what is not of its alphabet.
        if not set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"):
            raise ValueError
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (TypeError, ValueError):
        raise Refused(400, "BadParameter", "Content of 'value' is not base64url.\r\n") from None


class Version:
    def __init__(self, kty, size, ops, attributes):
        self.id = secrets.token_hex(16)
        self.kty, self.size, self.ops = kty, size, ops
        self.created = self.updated = int(time.time())
        self.attributes = {"enabled": True, **attributes}
        if kty in RSA:
            self.key = rsa.generate_private_key(65537, size)
        else:
            self.key = os.urandom(size // 8)

    def about(self):
        return {**self.attributes, "created": self.created, "updated": self.updated, "recoveryLevel": "Recoverable+Purgeable"}

    def jwk(self, kid):
        jwk = {"kid": kid, "kty": self.kty, "key_ops": self.ops}
        if self.kty in RSA:
            public = self.key.public_key().public_numbers()
            jwk["n"] = encode(public.n.to_bytes((public.n.bit_length() + 7) // 8, "big"))
            jwk["e"] = encode(public.e.to_bytes(3, "big"))
        return jwk

    def check(self, operation, private):
        if operation not in self.ops:
            raise Refused(403, "Forbidden", f"Operation {operation} is not permitted on this key.", "KeyOperationForbidden")
        # Keys reference, "Date-time controlled operations": those with a public key go on with a disabled one. So does the service itself:
        # https://github.com/Azure/azure-sdk-for-python/issues/45342
        if not self.attributes["enabled"] and (private or self.kty not in RSA):
            raise Refused(403, "Forbidden", f"Operation {operation} is not allowed on a disabled key.", "KeyDisabled")

    def wrap(self, algorithm, data):
        if self.kty in RSA and algorithm == "RSA-OAEP-256":
            return self.key.public_key().encrypt(data, OAEP_256)
        if self.kty in OCT and algorithm == f"A{self.size}KW":
            return keywrap.aes_key_wrap(self.key, data)
        raise Refused(400, "BadParameter", f"Key and signing algorithm are incompatible. Key type is '{self.kty}', and algorithm is '{algorithm}'.")

    def unwrap(self, algorithm, data):
        try:
            if self.kty in RSA and algorithm == "RSA-OAEP-256":
                return self.key.decrypt(data, OAEP_256)
            if self.kty in OCT and algorithm == f"A{self.size}KW":
                return keywrap.aes_key_unwrap(self.key, data)
        except (ValueError, InvalidKey, keywrap.InvalidUnwrap):
            raise Refused(400, "BadParameter", "The parameter is incorrect.\r\n") from None
        raise Refused(400, "BadParameter", f"Key and encryption algorithm are incompatible. Key type is '{self.kty}', and algorithm is '{algorithm}'.")


class Vault:
    """All keys. `base` is the URL under which the caller asked, as the service's own is in every `kid`."""

    def __init__(self):
        self.lock = threading.RLock()
        self.keys, self.deleted = {}, {}

    def find(self, name, version=None):
        versions = self.keys.get(name)
        found = versions and (versions[-1] if not version else next((v for v in versions if v.id == version), None))
        if not found:
            asked = f"{name}/{version}" if version else name
            raise Refused(404, "KeyNotFound", f"A key with (name/id) {asked} was not found in this key vault. If you recently deleted this key you may be able to recover it using the correct recovery command.")
        return found

    @staticmethod
    def bundle(base, name, version):
        return {"key": version.jwk(f"{base}/keys/{name}/{version.id}"), "attributes": version.about(), "tags": {}}

    def create(self, base, name, body):
        """create-key: a new version if there is one already."""
        with self.lock:
            if name in self.deleted:
                raise Refused(409, "Conflict", f"Key {name} is currently in a deleted but recoverable state, and its name cannot be reused; in this state, the key can only be recovered or purged.", "ObjectIsDeletedButRecoverable")
            kty = body.get("kty", "RSA")
            if kty not in RSA + OCT:
                raise Refused(400, "BadParameter", "Property 'kty' has an invalid value.")
            size = body.get("key_size") or (2048 if kty in RSA else 256)
            all_ops = ["wrapKey", "unwrapKey", "encrypt", "decrypt"] + (["sign", "verify"] if kty in RSA else [])
            attributes = {k: v for k, v in body.get("attributes", {}).items() if k in ("enabled", "nbf", "exp")}
            version = Version(kty, size, body.get("key_ops") or all_ops, attributes)
            self.keys.setdefault(name, []).append(version)
            return self.bundle(base, name, version)

    def rotate(self, base, name):
        """rotate-key: as the newest version, with a key of its own."""
        with self.lock:
            last = self.find(name)
            self.keys[name].append(Version(last.kty, last.size, last.ops, {}))
            return self.bundle(base, name, self.keys[name][-1])

    def get(self, base, name, version):
        """get-key; without a version, of the newest."""
        with self.lock:
            return self.bundle(base, name, self.find(name, version))

    def update(self, base, name, version, body):
        """update-key: attributes and operations of one version."""
        with self.lock:
            found = self.find(name, version)
            found.attributes.update({k: v for k, v in body.get("attributes", {}).items() if k in ("enabled", "nbf", "exp")})
            found.ops = body.get("key_ops") or found.ops
            found.updated = int(time.time())
            return self.bundle(base, name, found)

    def versions(self, base, name, size, start):
        """get-key-versions: in no order that it promises, here by id, in pages with a link to the next one."""
        with self.lock:
            self.find(name)
            rows = sorted(self.keys[name], key=lambda v: v.id)
        size = min(size or PAGE, PAGE)
        page = [{"kid": f"{base}/keys/{name}/{v.id}", "attributes": v.about(), "tags": {}} for v in rows[start : start + size]]
        more = start + size < len(rows)
        link = f"{base}/keys/{name}/versions?api-version=7.6&$skiptoken={start + size}&maxresults={size}" if more else None
        return {"value": page, "nextLink": link}

    def delete(self, base, name):
        """delete-key: recoverable until it is purged."""
        with self.lock:
            newest = self.find(name)
            self.deleted[name] = self.keys.pop(name)
            return self.gone(base, name, newest)

    def gone(self, base, name, newest):
        now = int(time.time())
        more = {"recoveryId": f"{base}/deletedkeys/{name}", "deletedDate": now, "scheduledPurgeDate": now + 90 * 86400}
        return {**self.bundle(base, name, newest), **more}

    def find_deleted(self, name):
        if name not in self.deleted:
            raise Refused(404, "KeyNotFound", f"Deleted key not found: {name}")
        return self.deleted[name][-1]

    def get_deleted(self, base, name):
        """get-deleted-key."""
        with self.lock:
            return self.gone(base, name, self.find_deleted(name))

    def purge(self, name):
        """purge-deleted-key: 204, and the name is free."""
        with self.lock:
            self.find_deleted(name)
            del self.deleted[name]

    def recover(self, base, name):
        """recover-deleted-key: with all its versions."""
        with self.lock:
            newest = self.find_deleted(name)
            self.keys[name] = self.deleted.pop(name)
            return self.bundle(base, name, newest)

    def operate(self, base, name, version, operation, body):
        """wrap-key, unwrap-key, encrypt and decrypt: `kid` and `value` of the version that did it."""
        with self.lock:
            found = self.find(name, version)
            private = operation in ("unwrapKey", "decrypt")
            found.check(operation, private)
            if not body.get("alg") or not body.get("value"):
                raise Refused(400, "BadParameter", "Property 'value' is required.\r\n")
        data = decode(body["value"])
        value = found.unwrap(body["alg"], data) if private else found.wrap(body["alg"], data)
        return {"kid": f"{base}/keys/{name}/{found.id}", "value": encode(value)}
