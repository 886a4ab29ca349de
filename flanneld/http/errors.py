"""Why a server cannot be used, in sentences: what the libraries say is for those who know them.

What is in none of the tables stays as it is, cut.
"""

from __future__ import annotations

import errno
import json
import socket
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from flanneld.plain import plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from flanneld.http.place import Place

_LONGEST = 300

# Numbers of X509_V_ERR_* in OpenSSL's x509_vfy.h.
_CERTIFICATES = {
    9: "its certificate is not valid yet: is the clock of this node right?",
    10: "its certificate has expired",
    62: "its certificate is not for this name: name it as the certificate does",
    64: "its certificate is not for this address: name it as the certificate does",
}
_REASONS = {
    "WRONG_VERSION_NUMBER": "it does not speak TLS: is it http://?",
    "KEY_VALUES_MISMATCH": "the client's certificate and key do not belong together",
    "NO_CERTIFICATE_OR_CRL_FOUND": "the file of authorities holds no certificate (PEM)",
    "PEM": "the TLS files cannot be used: certificates and key are to be PEM",
    "CERTIFICATE_REQUIRED": "it wants a client's certificate, of an authority that it trusts",
    "ALERT": "it refuses this client's certificate, or wants one of an authority that it trusts",
}
_NUMBERS = {
    errno.ECONNREFUSED: "nothing listens there (connection refused)",
    errno.EHOSTUNREACH: "the host is not reached (no route to host)",
    errno.ENETUNREACH: "the host is not reached (network is unreachable)",
    errno.ETIMEDOUT: "the host is not reached any more (connection timed out)",
    errno.ECONNRESET: "it broke the connection off (reset)",
    errno.EPIPE: "it broke the connection off (reset)",
}


class Cause(NamedTuple):
    """A sentence; ``refused``: the server did answer."""

    text: str
    refused: bool = False


class Unanswered(Exception):
    """No server has answered, or not to the end; ``causes`` by place."""

    def __init__(self, causes: dict[str, Cause]) -> None:
        super().__init__("; ".join(f"{place}: {one.text}" for place, one in causes.items()))
        self.causes = causes


class Refused(Exception):
    """A server has answered with another status than 2xx; ``after_s``: when to come again.

    ``said`` is the object in its answer, if it is one.
    """

    def __init__(self, place: Place, status: int, body: bytes, after: str = "") -> None:
        self.place, self.status, self.said = place, status, parsed(body)
        self.after_s = float(after) if after.isdecimal() and len(after) < 6 else None
        text = str(self.said.get("message") or body.decode(errors="replace").strip())
        self.text = plain(text[:_LONGEST]) or f"status {status}"
        super().__init__(f"{place}: {self.text}")


@contextmanager
def unanswered(place: Place, *failures: type[Exception]) -> Iterator[None]:
    """Turn what connecting, asking or reading raises into Unanswered."""
    try:
        yield
    except failures as error:
        raise Unanswered({str(place): cause(error)}) from None


def cause(error: BaseException) -> Cause:
    """Find the sentence for an exception."""
    if isinstance(error, ssl.SSLCertVerificationError):
        unknown = "its certificate is of no authority that is known here"
        return Cause(_CERTIFICATES.get(error.verify_code, unknown), refused=True)
    if isinstance(error, ssl.SSLError):
        reason = error.reason or ""
        found = (text for word, text in _REASONS.items() if word in reason)
        return Cause(next(found, _shown(error)), refused=True)
    if isinstance(error, socket.gaierror):
        return Cause("its name has no address: DNS, or /etc/hosts")
    if isinstance(error, TimeoutError) and error.errno is None:
        return Cause("no answer in time")
    if isinstance(error, OSError) and error.errno in _NUMBERS and not error.filename:
        return Cause(_NUMBERS[error.errno])
    if isinstance(error, EOFError):
        return Cause(
            "it closed the connection; if it always does: is it https://, and does it want a"
            " client's certificate?"
        )
    return Cause(_shown(error))


def parsed(body: bytes) -> dict[str, Any]:
    """Read an object of JSON; an empty one for anything else."""
    try:
        found = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _shown(error: BaseException) -> str:
    return plain((str(error) or type(error).__name__)[:_LONGEST])
