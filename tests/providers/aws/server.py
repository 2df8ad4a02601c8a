"""moto's server, brought closer to AWS in two places.

Refusals of a signature or a right: moto answers those with `<ErrorResponse><Errors><Error>` whatever the protocol, which no client of KMS or STS can
read. Here KMS gets JSON with the codes of its own API reference, and STS the XML without `<Errors>`.

Keys: moto encrypts and decrypts with a disabled key, and says AccessDenied to a text of no key or of another one. Here that is DisabledException,
InvalidCiphertextException and IncorrectKeyException, as in the KMS API reference.
"""

import json
import re

import moto.server
from moto.core.exceptions import JsonRESTError
from moto.kms.exceptions import AccessDeniedException
from moto.kms.models import KmsBackend

KMS_CODES = {
    "InvalidClientTokenId": "UnrecognizedClientException",
    "SignatureDoesNotMatch": "InvalidSignatureException",
    "AccessDenied": "AccessDeniedException",
}


class AsAws:
    def __init__(self, inner):
        self.inner = inner

    def __call__(self, environ, start_response):
        answer = {}

        def keep(status, headers, exc_info=None):
            answer.update(status=status, headers=headers)

        body = b"".join(self.inner(environ, keep))
        status, headers = answer["status"], answer["headers"]
        refusal = re.search(rb"<Errors><Error><Code>(\w+)</Code><Message>(.*?)</Message>", body, re.DOTALL)
        if refusal:
            code, message = (part.decode() for part in refusal.groups())
            if "HTTP_X_AMZ_TARGET" in environ:
                status = "400 Bad Request"
                body = json.dumps({"__type": KMS_CODES.get(code, code), "message": message}).encode()
            else:
                body = body.replace(b"<Errors>", b"").replace(b"</Errors>", b"")
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
            headers.append(("Content-Length", str(len(body))))
        start_response(status, headers)
        return [body]


def refuse(code):
    error = JsonRESTError(code, "as AWS says it")
    error.code = 400
    return error


def only_enabled(backend, key_id):
    key = backend.keys.get(backend.any_id_to_key_id(key_id))
    if key is not None and key.key_state == "Disabled":
        raise refuse("DisabledException")


def encrypt(backend, key_id, plaintext, encryption_context, inner=KmsBackend.encrypt):
    only_enabled(backend, key_id)
    return inner(backend, key_id, plaintext, encryption_context)


def decrypt(backend, ciphertext_blob, encryption_context, key_id=None, inner=KmsBackend.decrypt):
    if key_id is not None:
        only_enabled(backend, key_id)
    try:
        plaintext, arn = inner(backend, ciphertext_blob, encryption_context)
    except AccessDeniedException:
        raise refuse("InvalidCiphertextException") from None
    if key_id is not None and arn != backend.keys[backend.any_id_to_key_id(key_id)].arn:
        raise refuse("IncorrectKeyException")
    return plaintext, arn


if __name__ == "__main__":
    KmsBackend.encrypt, KmsBackend.decrypt = encrypt, decrypt
    dispatcher = moto.server.DomainDispatcherApplication
    moto.server.DomainDispatcherApplication = lambda create: AsAws(dispatcher(create))
    moto.server.main()
