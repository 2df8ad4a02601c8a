"""moto's server, whose refusals of a signature or a right are put into the form that AWS has.

moto answers those with `<ErrorResponse><Errors><Error>` whatever the protocol, which no client of KMS or STS can read. Here KMS gets JSON with the
codes of its own API reference, and STS the XML without `<Errors>`. Nothing else is changed.
"""

import json
import re

import moto.server

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


if __name__ == "__main__":
    dispatcher = moto.server.DomainDispatcherApplication
    moto.server.DomainDispatcherApplication = lambda create: AsAws(dispatcher(create))
    moto.server.main()
